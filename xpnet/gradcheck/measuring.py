"""The numerical side of a check: slopes of the loss along one entry or several, and how far round-off blurs them.

Everything is measured through ``subject.run``, on outputs brought to the host. What two outputs have in common is
subtracted before they are weighted and summed. Arrays of float32 are measured as float64 where the subject can compute
with them and gives the same value.
"""

import math
import warnings

from array_api_compat import device

from ..backend import random_generator, to_numpy
from ..functions import namespace
from ..gradients import entry_at, positions
from ..state import numbers_of
from .contracts import gradients_on_host
from .noise import SAFE, lines, noise_of

RATIO = 8.0  # of a step to the next smaller one
MOVED = 0.1  # of the largest entry: how far other values lie
LARGER, SMALLER = 2, 6  # steps tried above and below the first


class Reference:
    """A subject's outputs as a function of its arrays, near its own or near those of ``at``, {name: array}."""

    def __init__(self, subject, at=None):
        self.subject, self.wide = subject, False
        self.arrays = {**subject.values, **subject.inputs, **(at or {})}
        self.base, self.eps = _on_host(subject.run(at or {}))
        self._widen()
        self.changed = self.arrays if self.wide else dict(at or {})  # what is handed to every run
        self.host = {name: to_numpy(array) for name, array in self.arrays.items()}
        self.xp = xp = namespace(self.base)
        self.weights = xp.ones(1) if subject.weights is None else _on_host(subject.weights)[0]
        self._sigma, self._work = None, {}

    def _widen(self):
        """Take float64 instead of float32 if the subject computes with that, and gives the same value."""
        if all(namespace(array).finfo(array.dtype).bits == 64 for array in self.arrays.values()):
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                arrays = {name: _float64(array) for name, array in self.arrays.items()}
                base, eps = _on_host(self.subject.run(arrays))
        except Exception:  # whatever a foreign layer raises: it does not compute in float64
            return
        near = 1e-3 * float(abs(self.base).max())
        if eps < self.eps and base.shape == self.base.shape and (abs(base - self.base) <= near).all():
            self.arrays, self.base, self.eps, self.wide = arrays, base, eps, True

    @property
    def sigma(self):
        """The standard deviation of the round-off of every output."""
        if self._sigma is None:
            values = {name: self.arrays[name] for name in self.subject.values}
            along = lines(values, self.eps, 0)
            rows = [[self.outputs(changed) for changed in line] for line in along]
            least = self.xp.min(self.xp.stack([noise_of(line) for line in rows]), axis=0)
            self._sigma = self.xp.maximum(least, 0.5 * self.eps * self.xp.abs(self.base))
        return self._sigma

    def blur(self, change):
        """Return what round-off may do to the weighted sum of a ``change`` of the outputs."""
        each = self.weights * self.sigma
        moving = self.xp.where(change != 0, each, 0.0)
        return SAFE * math.sqrt(2 * float(moving @ moving) + float(self.xp.max(self.xp.abs(each))) ** 2)

    def step(self, name):
        """Return the first step for entries of an array: a power of two, relative to the largest of them."""
        largest = float(self.xp.max(self.xp.abs(self.host[name]))) if self.host[name].size else 0.0
        size = math.log2(largest) if largest > 0 and math.isfinite(largest) else 0.0
        return 2.0 ** (round(math.log2(self.eps) / 4) + round(size))

    def entry(self, name, index, h, blur=True):
        """Return the slopes (right, left) at one entry and their blur; NaN for a step that is not stored."""
        slopes, blurs, stored = [], [0.0], self.host[name][index]
        for sign in (1, -1):
            end = stored + stored.dtype.type(sign * h)
            taken = float(end) - float(stored)
            if taken == 0 or not math.isfinite(taken):
                slopes.append(math.nan)
                continue
            if name not in self._work:
                source = numbers_of(self.arrays[name])
                self._work[name] = namespace(source).asarray(source, copy=True)
            with entry_at(self._work[name], index, float(end)) as moved:
                change = self.outputs({name: moved}) - self.base
            slopes.append(float(self.weights @ change) / taken)
            if blur:
                blurs.append(self.blur(change) / abs(taken))
        return (*slopes, max(blurs))

    def all_entries(self, name, h, tick):
        """Return the slopes (2, …) to the right and to the left of all entries of an array."""
        shape, found = self.host[name].shape, []
        for index in positions(shape):
            found.append(self.entry(name, index, h, blur=False)[:2])
            tick(1)
        return self.xp.reshape(self.xp.asarray(found, dtype=self.xp.float64).T, (2, *shape))

    def along(self, directions, gradients, h, blur=True):
        """Return the slopes (right, left) if several arrays move by h times their direction, and their blur.

        ``directions`` and ``gradients`` are {name: array}; what rounding does to the ends is put right by the latter.
        """
        slopes, blurs = [], [0.0]
        for sign in (1, -1):
            changed, missed = {}, 0.0
            for name, direction in directions.items():
                end = self.xp.astype(self.host[name] + sign * h * direction, self.host[name].dtype)
                taken = self.xp.astype(end, self.xp.float64) - self.host[name]
                missed += float(self.xp.sum(gradients[name] * (sign * h * direction - taken)))
                changed[name] = as_array(end, self.arrays[name])
            change = self.outputs(changed) - self.base
            slopes.append((float(self.weights @ change) + missed) / (sign * h))
            if blur:
                blurs.append(self.blur(change) / h)
        return (*slopes, max(blurs))

    def outputs(self, changed):
        """Return the outputs with the arrays of ``changed``, as one row on the host; NaN where they are not defined."""
        try:
            outputs = _on_host(self.subject.run({**self.changed, **changed}))[0]
        except ArithmeticError:  # a step that nobody gave led out of where the function is defined
            return self.base * math.nan
        if outputs.shape != self.base.shape:
            raise ValueError(f"forward returned {outputs.size} numbers, but {self.base.size} before a value was moved")
        return outputs


class Elsewhere:
    """A subject at other values, every array moved at random by about a tenth of its largest entry.

    ``gradients`` {name: array} are those of backpropagation there, without what cannot be used.
    """

    def __init__(self, subject, seed):
        rng = random_generator(seed, "audit")
        self.subject, self.values, self.gradients = subject, {}, {}
        for name, value in subject.values.items():
            host = to_numpy(value)
            largest = float(abs(host).max(initial=0.0)) or 1.0
            self.values[name] = as_array(host + MOVED * largest * rng.standard_normal(host.shape), value)
        try:
            gradients, problems, _ = gradients_on_host(subject, self.values)
        except Exception:  # whatever a foreign layer raises at values that nobody gave
            return
        for name, g in gradients.items():
            if not problems and g.shape == tuple(subject.values[name].shape) and math.isfinite(float(abs(g).sum())):
                self.gradients[name] = g

    def reference(self):
        """Return the subject's outputs near these values, or None where there are none."""
        try:
            return Reference(self.subject, self.values)
        except Exception:  # likewise
            return None


def scale(first):
    """Return the steps of a closer look around a first one, from large to small."""
    return [first * RATIO**-k for k in range(-LARGER, SMALLER + 1)]


def as_array(host, like):
    """Bring a host array to the library, device and dtype of another."""
    return namespace(like).asarray(host, dtype=like.dtype, device=device(like))


def _float64(array):
    xp = namespace(array)
    return xp.astype(numbers_of(array), xp.float64)


def _on_host(outputs):
    """Return outputs as one row of float64 on the host, and the unit round-off they were computed with."""
    outputs = to_numpy(outputs)
    xp = namespace(outputs)
    eps = float(xp.finfo(outputs.dtype).eps) if xp.isdtype(outputs.dtype, "real floating") else 2.0**-52
    return xp.astype(xp.reshape(outputs, (-1,)), xp.float64), eps
