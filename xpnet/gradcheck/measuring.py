"""The numerical side of a check: slopes of the loss along one entry or several, and how far round-off blurs them.

Everything is measured through ``subject.run``, on outputs brought to the host. What two outputs have in common is
subtracted before they are weighted and summed. Arrays of float32 are measured as float64 where the subject can compute
with them and gives the same value.
"""

import math
import warnings
from functools import cached_property

from array_api_compat import device

from ..arrays import detached
from ..functions import namespace
from ..moves import entry_at, positions
from ..steps import default_step
from .grain import grain
from .host import OnTheWay
from .noise import SAFE, lines, noise_of

RATIO = 8.0  # of a step to the next smaller one
LARGER, SMALLER = 2, 6  # steps tried above and below the first


class Reference:
    """A subject's outputs as a function of its arrays, near its own or near those of ``at``, {name: array}.

    Whether arrays of float32 are taken as float64 is found out, or is as with ``like``, another reference. What is run
    and read at the beginning is looked at when it is asked for.
    """

    def __init__(self, subject, at=None, like=None):
        self.subject, self.at, self.like, self._work = subject, at or {}, like, {}
        self._narrow = {**subject.values, **subject.inputs, **self.at}
        self._numbers, self._widened, self._as_wide = OnTheWay(self._narrow), {}, None
        self._as_it_is = None if at else getattr(subject, "outputs", None)
        if like is None:
            self._try_wide()

    def _try_wide(self):
        """Run the subject as it is and with float64 instead of float32, unless there is nothing to widen."""
        if all(namespace(array).finfo(array.dtype).bits == 64 for array in self._narrow.values()):
            return
        if self._as_it_is is None:
            self._as_it_is = OnTheWay({"": self.subject.run(self.at)}, copy=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._widened = {name: _float64(array) for name, array in self._narrow.items()}
                self._as_wide = OnTheWay({"": self.subject.run(self._widened)}, copy=True)
        except Exception:  # whatever a foreign layer raises: it does not compute in float64
            self._widened = {}

    @cached_property
    def wide(self):
        """Whether the subject computes with float64 instead of float32, and gives the same value."""
        if self.like is not None:
            return self.like.wide
        if self._as_wide is None:
            return False
        (narrow, eps), (base, smaller) = (_in_a_row(outputs.host[""]) for outputs in (self._as_it_is, self._as_wide))
        near = 1e-3 * float(abs(narrow).max())
        return smaller < eps and base.shape == narrow.shape and bool((abs(base - narrow) <= near).all())

    @cached_property
    def arrays(self):
        """The arrays that are measured, {name: array}."""
        if not self.wide:
            return self._narrow
        return self._widened or {name: _float64(array) for name, array in self._narrow.items()}

    @property
    def changed(self):
        """The arrays of which every run is told."""
        return self.arrays if self.wide else self.at

    @cached_property
    def host(self):
        """The arrays on the host."""
        host = self._numbers.host
        return {name: self.xp.astype(array, self.xp.float64) for name, array in host.items()} if self.wide else host

    @cached_property
    def xp(self):
        """The namespace of the host."""
        return namespace(next(iter(self._numbers.host.values())))

    @cached_property
    def _outputs(self):
        known = self._as_wide if self.wide else self._as_it_is
        known = OnTheWay({"": self.subject.run(self.changed)}, copy=True) if known is None else known
        return _in_a_row(known.host[""])

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
        weights = self.subject.weights
        return self.xp.ones(1) if weights is None else _in_a_row(OnTheWay({"": weights}).host[""])[0]

    @cached_property
    def sigma(self):
        """The standard deviation of the round-off of every output."""
        xp, values = self.xp, {name: self.arrays[name] for name in self.subject.values}
        eps = max(self.eps, *(float(xp.finfo(value.dtype).eps) for value in self.host.values()))
        rows = [self.outputs(*line) for line in lines(values, eps, 0)]
        least = xp.min(xp.stack([noise_of(line) for line in rows]), axis=0)
        flat = xp.all(xp.stack([_is_flat(xp.stack(line)) for line in rows]), axis=0)
        if bool(flat.any()):
            least = xp.where(flat, xp.maximum(least, self._grain(flat, eps)), least)
        return xp.maximum(least, 0.5 * self.eps * xp.abs(self.base))

    def _grain(self, flat, eps):
        host = {name: self.host[name] for name in self.subject.values}

        def outputs(moved):
            try:
                return self.outputs({name: as_array(value, self.arrays[name]) for name, value in moved.items()})[0]
            except Exception:  # whatever a foreign function raises at values that nobody gave
                return self.base * math.nan

        return grain(outputs, self.base, host, flat, eps)

    @property
    def least_blur(self):
        """What round-off may do to the weighted sum of the outputs, whatever moves."""
        return SAFE * float(self.xp.max(self.xp.abs(self.weights * self.sigma)))

    def blur(self, change):
        """Return what round-off may do to the weighted sum of a ``change`` of the outputs."""
        moving = self.xp.where(change != 0, self.weights * self.sigma, 0.0)
        return math.sqrt(2 * SAFE**2 * float(moving @ moving) + self.least_blur**2)

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
            change = self.with_entry(name, index, end) - self.base
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
        return {name: value for name, value in vars(self).items() if name != "xp"} | {"_work": {}}

    def with_entry(self, name, index, end):
        """Return the outputs with one entry at another value."""
        if name not in self._work:
            source = detached(self.arrays[name])
            self._work[name] = namespace(source).asarray(source, copy=True)
        with entry_at(self._work[name], index, float(end)) as array:
            return self.outputs({name: array})[0]

    def moved(self, ends):
        """Return arrays with some entries, {(name, index): value}, at other values, to be handed to ``outputs``."""
        host = {name: self.xp.asarray(self.host[name], copy=True) for name in {name for name, _ in ends}}
        for (name, index), end in ends.items():
            host[name][index] = end
        return {name: as_array(array, self.arrays[name]) for name, array in host.items()}

    def along(self, directions, gradients, h):
        """Return the slopes (right, left) if several arrays move by h times their direction, and their blur.

        ``directions`` and ``gradients`` are {name: array}; what rounding does to the ends is put right by the latter.
        """
        slopes, blurs, changes, missed = [], [], [], []
        for sign in (1, -1):
            ends = {name: self._end(name, sign * h * direction) for name, direction in directions.items()}
            moved = ((name, sign * h * directions[name] - (end - self.host[name])) for name, end in ends.items())
            missed.append(sum(float(self.xp.sum(gradients[name] * lost)) for name, lost in moved))
            changes.append({name: as_array(end, self.arrays[name]) for name, end in ends.items()})
        for sign, lost, outputs in zip((1, -1), missed, self.outputs(*changes), strict=True):
            change = outputs - self.base
            slopes.append((float(self.weights @ change) + lost) / (sign * h))
            blurs.append(self.blur(change) / h)
        return (*slopes, max(blurs))

    def centrally(self, directions, gradients, h):
        """Return (measured, promised) central slopes of that, for the moves as stored."""
        up, down, promised = {}, {}, 0.0
        for name, direction in directions.items():
            ends = [self._end(name, sign * h * direction) for sign in (1, -1)]
            promised += float(self.xp.sum(gradients[name] * self.xp.astype(ends[0] - ends[1], self.xp.float64)))
            up[name], down[name] = (as_array(end, self.arrays[name]) for end in ends)
        right, left = self.outputs(up, down)
        measured = float(self.weights @ (right - left))
        return measured / (2 * h), promised / (2 * h)

    def _end(self, name, move):
        host = self.host[name]
        return self.xp.astype(host + move, host.dtype)

    def outputs(self, *changes):
        """Return the outputs with the arrays of each of ``changes``, as rows on the host; NaN where not defined."""
        runs = {}
        for number, changed in enumerate(changes):
            try:
                runs[number] = self.subject.run({**self.changed, **changed})
            except ArithmeticError:  # a step that nobody gave led out of where the function is defined
                continue
        found = {number: _in_a_row(one)[0] for number, one in OnTheWay(runs, copy=True).host.items()}
        for one in found.values():
            if one.shape != self.weights.shape:
                raise ValueError(f"forward returned {one.size} numbers, but {self.weights.size} the first time")
        return [found.get(number, self.weights * math.nan) for number in range(len(changes))]


def _slopes(reference, places, tick=None):
    """Return (right, left) for some entries, each (name, index, step)."""
    found = []
    for name, index, h in places:
        found.append(reference.entry(name, index, h, blur=False)[:2])
        if tick:
            tick(1)
    return found


def _is_flat(rows):
    """Return which of the numbers along a line stay as they are at half of its points or more."""
    return 2 * (rows[1:, ...] == rows[:-1, ...]).sum(axis=0) >= rows.shape[0] - 1


def scale(first):
    """Return the steps of a closer look around a first one, from large to small."""
    return [first * RATIO**-k for k in range(-LARGER, SMALLER + 1)]


def as_array(host, like):
    """Bring a host array to the library, device and dtype of another."""
    return namespace(like).asarray(host, dtype=like.dtype, device=device(like))


def _float64(array):
    xp = namespace(array)
    return xp.astype(detached(array), xp.float64)


def _in_a_row(outputs):
    """Return outputs on the host as one row of float64, and the unit round-off they were computed with."""
    xp = namespace(outputs)
    eps = float(xp.finfo(outputs.dtype).eps) if xp.isdtype(outputs.dtype, "real floating") else 2.0**-52
    return xp.astype(xp.reshape(outputs, (-1,)), xp.float64, copy=False), eps
