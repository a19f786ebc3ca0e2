"""The numerical side of a check: slopes of the loss along one entry or several, and how far round-off blurs them.

Everything is measured through ``subject.run``, on outputs brought to the host. What two outputs have in common is
subtracted before they are weighted and summed. Arrays of float32 are measured as float64 where the subject can compute
with them and gives the same value.
"""

import contextlib
import math
import warnings
from functools import cached_property

from array_api_compat import device

from ..arrays import detached
from ..backend import to_numpy
from ..functions import namespace
from ..moves import entry_at, positions
from ..steps import default_step
from .noise import SAFE, lines, noise_of

RATIO = 8.0  # of a step to the next smaller one
LARGER, SMALLER = 2, 6  # steps tried above and below the first


class Reference:
    """A subject's outputs as a function of its arrays, near its own or near those of ``at``, {name: array}.

    ``wide`` says whether arrays of float32 are taken as float64; None finds out.
    """

    def __init__(self, subject, at=None, wide=None):
        self.subject, self.at = subject, at or {}
        self.arrays = {**subject.values, **subject.inputs, **self.at}
        self.wide = self._can_be_wide() if wide is None else wide
        if self.wide:
            self.arrays = {name: _float64(array) for name, array in self.arrays.items()}
        self.changed = self.arrays if self.wide else dict(self.at)  # what is handed to every run
        self.host = {name: to_numpy(array) for name, array in self.arrays.items()}
        self.xp = namespace(next(iter(self.host.values())))
        self._work = {}

    def _can_be_wide(self):
        """Return whether the subject computes with float64 instead of float32, and gives the same value."""
        if all(namespace(array).finfo(array.dtype).bits == 64 for array in self.arrays.values()):
            return False
        narrow, eps = _on_host(self.subject.run(self.at))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                arrays = {name: _float64(array) for name, array in self.arrays.items()}
                base, smaller = _on_host(self.subject.run(arrays))
        except Exception:  # whatever a foreign layer raises: it does not compute in float64
            return False
        near = 1e-3 * float(abs(narrow).max())
        return smaller < eps and base.shape == narrow.shape and bool((abs(base - narrow) <= near).all())

    @cached_property
    def _outputs(self):
        return _on_host(self.subject.run(self.changed))

    @property
    def base(self):
        """The outputs where nothing is moved."""
        return self._outputs[0]

    @property
    def eps(self):
        """The unit round-off of the outputs."""
        return self._outputs[1]

    def eps_of(self, name):
        """Return the unit round-off of an array as it is, in which backpropagation computes."""
        value = self.subject.values[name]
        return float(namespace(value).finfo(value.dtype).eps)

    @cached_property
    def weights(self):
        """The weights of the outputs in the loss."""
        return self.xp.ones(1) if self.subject.weights is None else _on_host(self.subject.weights)[0]

    @cached_property
    def sigma(self):
        """The standard deviation of the round-off of every output."""
        values = {name: self.arrays[name] for name in self.subject.values}
        rows = [[self.outputs(changed) for changed in line] for line in lines(values, self.eps, 0)]
        least = self.xp.min(self.xp.stack([noise_of(line) for line in rows]), axis=0)
        return self.xp.maximum(least, 0.5 * self.eps * self.xp.abs(self.base))

    def blur(self, change):
        """Return what round-off may do to the weighted sum of a ``change`` of the outputs."""
        each = self.weights * self.sigma
        moving = self.xp.where(change != 0, each, 0.0)
        return SAFE * math.sqrt(2 * float(moving @ moving) + float(self.xp.max(self.xp.abs(each))) ** 2)

    def step(self, name):
        """Return the first step for entries of an array: a power of two, relative to the largest of them."""
        largest = float(self.xp.max(self.xp.abs(self.host[name]))) if self.host[name].size else 0.0
        size = math.log2(largest) if largest > 0 and math.isfinite(largest) else 0.0
        return default_step(self.host[name].dtype, self.xp) * 2.0 ** round(size)

    def entry(self, name, index, h, blur=True):
        """Return the slopes (right, left) at one entry and their blur; NaN for a step that is not stored."""
        slopes, blurs, stored = [], [0.0], self.host[name][index]
        for sign in (1, -1):
            end = stored + stored.dtype.type(sign * h)
            taken = float(end) - float(stored)
            if taken == 0 or not math.isfinite(taken):
                slopes.append(math.nan)
                continue
            change = self.with_entries({(name, index): end}) - self.base
            slopes.append(float(self.weights @ change) / taken)
            if blur:
                blurs.append(self.blur(change) / abs(taken))
        return (*slopes, max(blurs))

    def all_entries(self, steps, tick, map=None, tell=None):
        """Return {name: slopes (2, …) to the right and to the left} of all entries of arrays, for {name: step}.

        With ``map``, workers find them, and ``tell`` is called with what is to be said of these.
        """
        places = [(name, index, h) for name, h in steps.items() for index in positions(self.host[name].shape)]
        if map is None:
            found = _slopes(self, places, tick)
        else:
            from ..workers import shared_out

            parts = shared_out(map, _slopes, self, places, tick, tell)
            found = [slopes for part in parts for slopes in part]
        found, start, slopes = self.xp.asarray(found, dtype=self.xp.float64).T, 0, {}
        for name in steps:
            stop = start + self.host[name].size
            slopes[name] = self.xp.reshape(found[:, start:stop], (2, *self.host[name].shape))
            start = stop
        return slopes

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name not in ("xp", "_work")}

    def __setstate__(self, state):
        vars(self).update(state)
        self.xp, self._work = namespace(next(iter(self.host.values()))), {}

    def with_entries(self, ends):
        """Return the outputs with some entries, {(name, index): value}, at other values."""
        with contextlib.ExitStack() as stack:
            changed = {}
            for (name, index), end in ends.items():
                if name not in self._work:
                    source = detached(self.arrays[name])
                    self._work[name] = namespace(source).asarray(source, copy=True)
                array = changed.get(name, self._work[name])
                changed[name] = stack.enter_context(entry_at(array, index, float(end)))
            return self.outputs(changed)

    def along(self, directions, gradients, h):
        """Return the slopes (right, left) if several arrays move by h times their direction, and their blur.

        ``directions`` and ``gradients`` are {name: array}; what rounding does to the ends is put right by the latter.
        """
        slopes, blurs = [], []
        for sign in (1, -1):
            changed, missed = {}, 0.0
            for name, direction in directions.items():
                end = self._end(name, sign * h * direction)
                missed += float(self.xp.sum(gradients[name] * (sign * h * direction - (end - self.host[name]))))
                changed[name] = as_array(end, self.arrays[name])
            change = self.outputs(changed) - self.base
            slopes.append((float(self.weights @ change) + missed) / (sign * h))
            blurs.append(self.blur(change) / h)
        return (*slopes, max(blurs))

    def centrally(self, directions, gradients, h):
        """Return (measured, promised) central slopes of that, for the moves as stored."""
        up, down, promised = {}, {}, 0.0
        for name, direction in directions.items():
            ends = [self._end(name, sign * h * direction) for sign in (1, -1)]
            promised += float(self.xp.sum(gradients[name] * self.xp.astype(ends[0] - ends[1], self.xp.float64)))
            up[name], down[name] = (as_array(end, self.arrays[name]) for end in ends)
        measured = float(self.weights @ (self.outputs(up) - self.outputs(down)))
        return measured / (2 * h), promised / (2 * h)

    def _end(self, name, move):
        host = self.host[name]
        return self.xp.astype(host + move, host.dtype)

    def outputs(self, changed):
        """Return the outputs with the arrays of ``changed``, as one row on the host; NaN where they are not defined."""
        try:
            outputs = _on_host(self.subject.run({**self.changed, **changed}))[0]
        except ArithmeticError:  # a step that nobody gave led out of where the function is defined
            return self.weights * math.nan
        if outputs.shape != self.weights.shape:
            raise ValueError(f"forward returned {outputs.size} numbers, but {self.weights.size} the first time")
        return outputs


def _slopes(reference, places, tick=None):
    """Return (right, left) for some entries, each (name, index, step)."""
    found = []
    for name, index, h in places:
        found.append(reference.entry(name, index, h, blur=False)[:2])
        if tick:
            tick(1)
    return found


def scale(first):
    """Return the steps of a closer look around a first one, from large to small."""
    return [first * RATIO**-k for k in range(-LARGER, SMALLER + 1)]


def as_array(host, like):
    """Bring a host array to the library, device and dtype of another."""
    return namespace(like).asarray(host, dtype=like.dtype, device=device(like))


def _float64(array):
    xp = namespace(array)
    return xp.astype(detached(array), xp.float64)


def _on_host(outputs):
    """Return outputs as one row of float64 on the host, and the unit round-off they were computed with."""
    outputs = to_numpy(outputs)
    xp = namespace(outputs)
    eps = float(xp.finfo(outputs.dtype).eps) if xp.isdtype(outputs.dtype, "real floating") else 2.0**-52
    return xp.astype(xp.reshape(outputs, (-1,)), xp.float64), eps
