"""The Jacobian of a function entry by entry: one check for each of its outputs."""

import math

from ..functions import namespace
from .verdicts import position

MOST = 1000  # outputs, each of which is a check of its own


def of_each_output(subject):
    """Yield (subject, rename) for every output of a subject: it is the loss then, and an array x becomes ∂out[…]/∂x.

    Raises ValueError for a subject whose output is one number and not weighted, and for more than 1,000 outputs.
    """
    weights = subject.weights
    if weights is None:
        raise ValueError(
            "jacobian=True checks each number of an array that is returned; here one number is: leave it out"
        )
    size = math.prod(weights.shape)
    if size > MOST:
        raise ValueError(f"jacobian=True checks each output by itself, at most {MOST}; there are {size}: leave it out")
    xp = namespace(weights)
    flat = xp.arange(size)
    for place in range(size):
        subject.weights = xp.reshape(xp.astype(flat == place, weights.dtype), weights.shape)
        index = ", ".join(map(str, position(place, weights.shape)))
        yield subject, f"∂out[{index}]/∂".__add__
    subject.weights = weights
