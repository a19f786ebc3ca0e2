"""What the zoo's layers have in common, and how a kind of layer with its data is drawn from a seed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace as space  # noqa: F401 (the name under which every layer finds it)


class Layer:
    """A layer as people write it. ``bug`` is one of ``bugs``, the mistakes its backward can make, or empty.

    ``state`` names what forward changes and keeps from call to call.
    """

    parameters = ()
    bugs = ()
    bug = ""
    state = ()


class Draw:
    """Random arrays from a generator, brought to a library and a dtype by ``put``."""

    def __init__(self, rng, put=np.asarray):
        self.rng, self.put = rng, put

    def normal(self, *shape, scale=1.0):
        return self.put(scale * self.rng.standard_normal(shape))

    def uniform(self, low, high, *shape):
        return self.put(self.rng.uniform(low, high, shape))

    def labels(self, n, classes):
        return self.put(self.rng.integers(classes, size=n))

    def full(self, value, *shape):
        return self.put(np.full(shape, float(value)))


@dataclass(frozen=True)
class Kind:
    """A layer and the data it is checked with.

    ``make(draw)`` returns the layer, with ``x(draw)`` as its input or, for an output layer, ``x`` beside ``t``.
    ``scales`` says for which factors of x a layer still makes sense: "all", "small" ones, or none. ``positive`` inputs
    stay positive inside a network too. ``alone`` is False where only a network has it.
    """

    make: Callable
    shape: tuple = (6, 5)
    t: Callable | None = None
    scales: str = ""
    positive: bool = False
    at_kink: Callable | None = None  # brings x to where the layer has kinks

    @property
    def name(self):
        return self.make.__name__

    def x(self, draw):
        return draw.uniform(0.5, 1.5, *self.shape) if self.positive else draw.normal(*self.shape)


def some_at(*places):
    """Return a function that puts every third entry of x on one of ``places``, in turn."""

    def move(x):
        flat = x.reshape(-1).copy()
        for i, place in enumerate(places):
            flat[3 * i :: 3 * len(places)] = place
        return flat.reshape(x.shape)

    return move


def kind(layer, **options):
    """Return the Kind of a layer without parameters."""

    def make(draw):
        return layer()

    make.__name__ = layer.__name__
    return Kind(make, **options)
