"""A subject at other values, where what is zero here may not be."""

import math
from functools import cached_property

from ..backend import random_generator
from .contracts import gradients_on_host
from .host import OnTheWay
from .measuring import Reference, as_array

MOVED = 0.1  # of the largest entry: how far the nearest of other values lie
FACTORS = (0.65, 1.35)  # of the values at which everything is run first
FAR = 3  # moves by as much as an array is large, none of which the loss may feel
SLACK = 16.0  # times the error bar of a change of the loss: what is round-off for certain


def scaled(value, rng):
    """Return an array times random numbers, one for each place along every axis."""
    if not value.ndim:
        return value * float(rng.uniform(*FACTORS))
    factors = 1.0
    for axis, length in enumerate(value.shape):
        shape = [length if other == axis else 1 for other in range(value.ndim)]
        factors = factors * rng.uniform(*FACTORS, length).reshape(shape)
    return value * as_array(factors, value)


class Elsewhere:
    """A subject at ``values``, {name: array}; those that are not there are its own.

    ``gradients`` {name: array} are those of backpropagation there, without what cannot be used.
    """

    def __init__(self, subject, values):
        self.subject, self.values, self.gradients = subject, values, {}
        try:
            gradients = gradients_on_host(subject, self.values)
        except Exception:  # whatever a foreign layer raises at values that nobody gave
            return
        for name, g in gradients.items():
            if g.shape == tuple(subject.values[name].shape) and math.isfinite(float(abs(g).sum())):
                self.gradients[name] = g

    @cached_property
    def reference(self):
        """The subject's outputs near these values, or None where there are none."""
        try:
            reference = Reference(self.subject, self.values)
            return reference if math.isfinite(float(abs(reference.base).sum())) else None
        except Exception:  # likewise
            return None


def places(subject, seed):
    """Return the subject at three other places: near, of the same size with random signs, and of the size of one."""
    rng = random_generator(seed, "audit")
    everything = {name: value for name, value in subject.inputs.items() if name != "t"} | dict(subject.values)
    host = OnTheWay(everything).host

    def drawn(names, move):
        moved = {name: move(name, host[name], rng.standard_normal(host[name].shape)) for name in names}
        return Elsewhere(subject, {name: as_array(value, everything[name]) for name, value in moved.items()})

    def near(name, value, draw):
        return value + MOVED * (float(abs(value).max(initial=0.0)) or 1.0) * draw

    def as_large(name, value, draw):
        size = float((value.astype("float64") ** 2).mean()) ** 0.5 if value.size else 0.0
        return (size or 1.0) * draw

    def of_one(name, value, draw):
        return draw if name == "x" else draw / max(1.0, math.prod(value.shape[:-1])) ** 0.5

    return [drawn(subject.values, near), drawn(everything, as_large), drawn(everything, of_one)]


def does_nothing(reference, name, gradient, noise, seed):
    """Return whether an array changes nothing at all: not the loss, however far it moves, nor says backpropagation so.

    ``noise`` is what round-off may do to an entry of backpropagation.
    """
    value, xp = reference.host[name], reference.xp
    if not value.size:
        return True
    rng, size = random_generator(seed, "audit"), float(xp.max(xp.abs(value))) or 1.0
    if bool((abs(gradient) > SLACK * noise).any()):
        return False
    for _ in range(FAR):
        move = size * rng.uniform(0.3, 1.0, value.shape) * rng.choice([-1.0, 1.0], value.shape)
        change = reference.outputs({name: as_array(value + move, reference.arrays[name])})[0] - reference.base
        if not abs(float(reference.weights @ change)) <= SLACK * reference.blur(change):
            return False
    return True
