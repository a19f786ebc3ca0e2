"""Every entry is looked at, some a second time with a smaller step, and few at nine steps."""

import math
from functools import cached_property
from typing import Any, NamedTuple

from ..backend import random_generator
from ..functions import namespace
from .contracts import in_float64
from .directions import together
from .elsewhere import Elsewhere, does_nothing, places
from .host import OnTheWay
from .kinks import jumps
from .measuring import LARGER, Reference, scale
from .noise import CANCELLED, backprop_noise, stairs
from .roundoff import explained
from .verdicts import (
    DECISIVE,
    FAIL,
    KINK,
    NOISE,
    PASS,
    UNDECIDED,
    by_first_look,
    by_two_looks,
    decide,
    position,
    tolerance_of,
)

FEW = 8  # doubtful entries of an array that are looked at singly without asking whether anything bends
MANY = 256  # doubtful entries of one array that are looked at closely before the others are
JUMP = 0.01  # of what entries on kinks are off by: the least that their gradients jump
ALIKE = 0.9  # the share of them that fails from which on others are taken to fail likewise


class Judged(NamedTuple):
    """The verdicts on one array: gradients, codes, how the numerical ones were found, how many fail unlooked at."""

    a: Any
    n: Any
    codes: Any
    how: str
    h: float
    unseen: int = 0


class Looks:
    """A subject, its gradients by backpropagation on the host, and what is measured of it when that is needed."""

    def __init__(self, subject, gradients, *, h, method, tolerance, seed, by_loop, map=None):
        self.subject, self.h, self.method, self.seed, self.map, self.notes = subject, h, method, seed, map, []
        self.by_loop = by_loop or not hasattr(subject, "changes") or (map is not None and method == "loop")
        self.gradients, self.prepared, self._idle = gradients, Reference(subject), {}
        self.tolerance = {
            name: tolerance_of(value.dtype, namespace(value), tolerance) for name, value in subject.values.items()
        }

    @cached_property
    def reference(self):
        """The subject's outputs near its own arrays, once anything is measured."""
        return self.prepared

    @property
    def measured_wide(self):
        """Whether float32 was measured in float64."""
        return "reference" in vars(self) and self.reference.wide

    @cached_property
    def noise(self):
        """What round-off may do to an entry of backpropagation, by name."""
        return backprop_noise(self.subject, self.gradients, [place.gradients for place in self.elsewhere])

    @cached_property
    def stairs(self):
        """What round-off does to each entry of backpropagation where everything moves a little further, by name."""
        return stairs(self.subject, self.gradients)

    @cached_property
    def wide_gradients(self):
        """Gradients by backpropagation in float64, by name; none where float32 is not measured in float64."""
        reference = self.reference
        return Elsewhere(self.subject, reference.arrays).gradients if reference.wide else {}

    @cached_property
    def elsewhere(self):
        """The subject at some other places."""
        return places(self.subject, self.seed)

    @cached_property
    def jumps(self):
        """How far each entry's gradient by backpropagation jumps, by name: at a kink of the loss alone."""
        return jumps(self.subject, self.seed)

    def does_nothing(self, name):
        """Return whether neither the loss nor backpropagation feels an array at all here."""
        if name not in self._idle:
            found = does_nothing(self.reference, name, self.gradients[name], self.noise[name], self.seed)
            self._idle[name] = found
        return self._idle[name]

    def uncertain(self, name, entries):
        """Return what round-off may do to each of some entries of backpropagation."""
        return max(self.noise[name], float(self.stairs[name][entries].max()))

    def coarseness(self):
        """Return the share of a sum of gradients by which it is off because they come in steps."""
        sums = {name: float(abs(g).sum()) for name, g in self.gradients.items()}
        return max((float(self.stairs[name].sum()) / size for name, size in sums.items() if size), default=0.0)

    def judge(self, bar):
        """Return {name: Judged}; an array whose gradient has another shape has no codes.

        ``bar(what, total)`` is a context that gives a function to be called with the number of entries done.
        """
        entries = sum(math.prod(value.shape) for value in self.subject.values.values())
        with bar("checking gradients", entries) as tick:
            if self.by_loop:
                steps = {name: self.h or self.reference.step(name) for name in self.subject.values}
                slopes = self.reference.all_entries(steps, tick, self.map, self.notes.append)
                return {name: self._near_zero(name, self._by_loop(name, steps[name], slopes[name])) for name in steps}
            first = self.subject.changes({}, self.h, self.method, False, tick)
        numbers = _gradients_of(first)
        judged = {name: self._at_first(name, change, numbers[name]) for name, change in first.items()}
        doubtful = [name for name, one in judged.items() if _doubts(one)]
        if doubtful:
            with bar("with a smaller step", entries) as tick:
                second = self.subject.changes(self.reference.changed, self.h, self.method, True, tick)
            numbers = _gradients_of(second)
            for name in doubtful:
                judged[name] = self._near_zero(name, self._again(judged[name], name, second[name], numbers[name]))
        return judged

    def _near_zero(self, name, one):
        """Leave undecided where the loss feels hardly anything, and backpropagation says so, beside other places."""
        if one.codes is None or not bool((one.codes == FAIL).any()):
            return one
        hardly = (one.codes == FAIL) & (namespace(one.a).maximum(abs(one.a), abs(one.n)) <= self.nothing(name, one.n))
        return one._replace(codes=namespace(one.a).where(hardly, UNDECIDED, one.codes))

    def nothing(self, name, n):
        """Return what is round-off beside the gradients of an array at other places; less where ``n`` feels it."""
        found = (float(abs(p.gradients[name]).max(initial=0.0)) for p in self.elsewhere if name in p.gradients)
        eps = namespace(n).where(n == 0, self.reference.eps_of(name), self.reference.eps)
        return CANCELLED * max(found, default=0.0) * eps

    def _at_first(self, name, change, n):
        a = self.gradients[name]
        if a.shape != n.shape:
            return Judged(a, n, None, change.how, change.h)
        blur = _blur(n, change) if change.how == "difference" else 0.0
        return Judged(a, n, by_first_look(a, n, self.tolerance[name], blur), change.how, change.h)

    def _again(self, one, name, second, n):
        """Judge the doubtful entries of an array from changes over a smaller step too."""
        xp, noise = namespace(one.a), self.noise[name]
        if self.does_nothing(name):
            return _all_zero(one)
        doubtful = one.codes == FAIL if one.how == "difference" else one.codes != PASS
        blur = _blur(n, second) + noise if one.how == "difference" else 0.0
        codes = by_first_look(one.a, n, self.tolerance[name], blur)
        one = one._replace(n=xp.where(doubtful, n, one.n), codes=xp.where(doubtful, codes, one.codes))
        doubtful = doubtful & (codes != PASS if one.how != "difference" else codes == FAIL)
        if one.how == "difference" and not self._bends(name, one, doubtful):
            return one
        return self._closely(one, name, doubtful, xp.zeros_like(n))

    def _bends(self, name, one, doubtful):
        """Return whether kinks may explain that some entries are off: not if the loss goes straight on where all move.

        With a kink at each, the slopes to the right and to the left would be apart twice as far as the entries are off.
        """
        xp, count = namespace(one.a), int(namespace(one.a).count_nonzero(doubtful))
        if count < FEW or not bool(xp.all(xp.isfinite(one.a))):
            return count > 0
        rng, step = random_generator(self.seed, "audit"), self.reference.step(name) / math.sqrt(count)
        for _ in range(2):
            direction = step * xp.where(doubtful, rng.choice([-1.0, -0.5, 0.5, 1.0], one.a.shape), 0.0)
            right, left, blur = self.reference.along({name: direction}, {name: one.n}, 1.0)
            off = float(xp.sum(xp.abs((one.a - one.n) * direction)))
            if abs(right - left) > 0.1 * off + blur:
                return True
        return False

    def _by_loop(self, name, h, slopes):
        """Judge an array by the slopes that the plain loop through ``run`` found."""
        a = self.gradients[name]
        xp, n = namespace(a), 0.5 * (slopes[0, ...] + slopes[1, ...])
        if a.shape != n.shape:
            return Judged(a, n, None, "loop", h)
        codes = by_first_look(a, n, self.tolerance[name], 0.0)
        one = Judged(a, n, codes, "loop", h)
        if bool((codes != PASS).any()) and self.does_nothing(name):
            return _all_zero(one)
        return self._closely(one, name, codes != PASS, xp.abs(slopes[0, ...] - slopes[1, ...]))

    def _closely(self, one, name, doubtful, gap):
        """Look closely at doubtful entries: at a part of them first, then at those that do not fail alike."""
        xp = namespace(one.a)
        if bool(xp.any(doubtful)):
            kinks = self._on_kinks(one, name, doubtful)
            one, doubtful = one._replace(codes=xp.where(kinks, KINK, one.codes)), doubtful & ~kinks
        if not bool(xp.any(doubtful)):
            return one
        if one.how != "difference":  # what agrees with slopes that are mostly round-off may do so by chance
            passed, size = one.codes == PASS, xp.maximum(xp.abs(one.a), xp.abs(one.n))
            doubtful = doubtful | (passed & (size > 0) & (DECISIVE * size * one.h < self.reference.least_blur))
        a, n, codes, gap = (xp.reshape(xp.asarray(array, copy=True), (-1,)) for array in (one.a, one.n, one.codes, gap))
        left, unseen = [int(i) for i in xp.nonzero(xp.reshape(doubtful, (-1,)))[0]], []
        off, size = xp.abs(a - n), xp.maximum(xp.abs(a), xp.abs(n))
        clearly = off > 3 * gap + 2 * self.tolerance[name] * size + self.noise[name]
        first, then = self._part(left, off)
        for part in (first, then):
            if part:
                indices = [position(i, one.a.shape) for i in part]
                codes[part], n[part] = self._closer(name, indices, a[part], one)
            if part is first and sum(codes[part] == FAIL) >= ALIKE * len(part):
                unseen = [i for i in then if clearly[i]]
                codes[unseen] = FAIL
                then = [i for i in then if not clearly[i]]
        shape = one.a.shape
        return one._replace(n=xp.reshape(n, shape), codes=xp.reshape(codes, shape), unseen=len(unseen))

    def _on_kinks(self, one, name, doubtful):
        """Return which doubtful entries lie on kinks that explain it; none if backpropagation is wrong beside them."""
        xp = namespace(one.a)
        kinks = doubtful & (self.jumps.get(name, 0.0 * one.a) > JUMP * xp.abs(one.a - one.n))
        if bool(xp.any(kinks)):
            for place in (place for place in self.elsewhere if name in place.gradients and place.reference):
                mask = {name: xp.astype(kinks, one.a.dtype)}
                options = {"tolerance": self.tolerance[name], "noise": {name: self.noise[name]}, "seed": self.seed}
                code = together(place.reference, place.gradients, mask, **options)[0]
                if code != UNDECIDED:
                    return kinks & (code == PASS)
        return kinks & False

    def _part(self, entries, off):
        """Return the doubtful entries to begin with, the furthest off and some drawn, and the others."""
        if len(entries) <= MANY:
            return entries, []
        by_size = sorted(entries, key=lambda i: -off[i] if math.isfinite(off[i]) else -math.inf)
        furthest, others = by_size[: MANY // 2], by_size[MANY // 2 :]
        drawn = {int(i) for i in random_generator(self.seed, "audit").choice(others, MANY // 2, replace=False)}
        return [*furthest, *drawn], [i for i in others if i not in drawn]

    def _closer(self, name, indices, a, one):
        """Return codes and numerical gradients of some entries from the slopes over two steps, or over nine.

        Two are enough to find a kink that changes which are propagated are off by.
        """
        xp, steps = namespace(a), scale(self.h or self.reference.step(name))
        tolerance, noise = self.tolerance[name], self.noise[name]

        def rows(index, some):
            return [self.reference.entry(name, index, h) for h in some]

        looks = [rows(index, steps[LARGER : LARGER + 2]) for index in indices]
        large, small = (xp.asarray([look[k] for look in looks]).T for k in (0, 1))
        codes, n = by_two_looks(a, large, small[:2, ...], tolerance, noise, small[2, ...]), small[:2, ...].mean(axis=0)
        for i in xp.nonzero(codes == UNDECIDED)[0]:
            if one.how == "difference":
                codes[i] = KINK if decide(float(a[i]), looks[i], tolerance, noise)[0] == KINK else FAIL
                n[i] = n[i] if codes[i] == KINK else one.n[indices[i]]
            else:
                more = rows(indices[i], steps[:LARGER]) + looks[i] + rows(indices[i], steps[LARGER + 2 :])
                codes[i], n[i], _ = decide(float(a[i]), more, tolerance, noise)
        if bool(xp.any(codes == FAIL)):
            codes = xp.where((codes == FAIL) & explained(self, name, indices, a, n), UNDECIDED, codes)
        return codes, n


def _doubts(one):
    """Return whether an array needs a second look: not if round-off of propagated changes explains everything."""
    if one.codes is None:
        return False
    return bool((one.codes == FAIL).any()) or (one.how != "difference" and bool((one.codes != PASS).any()))


def _all_zero(one):
    """Return the judgement of an array whose gradients are round-off: which is zero on both sides is right."""
    zero = (one.a == 0) & (one.n == 0)
    return one._replace(codes=namespace(one.a).where(zero, PASS, UNDECIDED))


def _blur(n, change):
    """Return what round-off may do to changes that are propagated: they are exact to some digits of the largest."""
    return NOISE * float(namespace(change.gradient).finfo(change.gradient.dtype).eps) * float(abs(n).max(initial=0.0))


def _gradients_of(changes):
    """Return {name: array of float64} on the host of the gradients of changes, {name: Change}."""
    return in_float64(OnTheWay({name: change.gradient for name, change in changes.items()}).host)
