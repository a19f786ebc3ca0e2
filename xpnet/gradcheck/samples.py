"""Less than every entry, where there are too many: a sample of the entries, or a few random directions."""

from ..backend import random_generator
from ..functions import namespace
from ..scalars import require_count
from .directions import along
from .looks import Judged, Looks
from .verdicts import LEFT_OUT, PASS, by_first_look, position

CERTAIN = 0.95  # the probability with which a sample is said to show something


class Sample(Looks):
    """As ``Looks``, but the loop measures ``entries`` drawn ones of each array, or all of them ``directions`` times."""

    def __init__(self, subject, gradients, *, entries=None, directions=None, **options):
        for name, count in (("entries", entries), ("directions", directions)):
            if count is not None:
                require_count(name, count)
        super().__init__(subject, gradients, **options)
        self.entries, self.directions = entries, directions

    def judge(self, bar):
        """Return {name: Judged}; see ``Looks``."""
        if not self.directions:
            return self._by_samples(bar) if self.entries and self.by_loop else super().judge(bar)
        self.notes.append(
            f"along {self.directions} directions, not entry by entry: a mistake that changes the sum of an array's "
            "entries, weighted at random, shows; which entries it is in does not"
        )
        with bar("checking gradients", self.directions * len(self.subject.values)) as tick:
            return {name: self._by_directions(name, tick) for name in self.subject.values}

    def _by_directions(self, name, tick):
        """Judge an array by the slopes along directions in which all of its entries move: that of its signs first."""
        a, xp = self.gradients[name], namespace(self.gradients[name])
        if a.shape != self.reference.host[name].shape:
            return Judged(a, self.reference.host[name], None, "direction", self.reference.step(name))
        rng, size, found = random_generator(self.seed, "audit"), self.reference.step(name), []
        for k in range(self.directions):
            signs = rng.choice([-1.0, 1.0], a.shape) if k else xp.where(a < 0, -1.0, 1.0)
            share = self.tolerance[name] if k else 0.0  # of the length of a sum whose parts cancel
            chosen, tolerance = {name: size * xp.ones(a.shape)}, self.tolerance[name]
            found.append(along(self.reference, self.gradients, chosen, {name: signs}, tolerance, self.noise, share))
            tick(1)
        codes, expected, slopes = (xp.asarray(column) for column in zip(*found, strict=True))
        return Judged(expected / size, slopes / size, codes, "direction", size)

    def untested(self, judged):
        """Return (problems, notes) about arrays of which the directions show nothing."""
        still = [name for name, one in judged.items() if one.codes is not None and not (one.a.any() or one.n.any())]
        return [f"along every direction of {name} both gradients are 0: nothing was tested" for name in still], []

    def _by_samples(self, bar):
        """Return {name: Judged}, by the plain loop for some entries of each array."""
        steps = {name: self.h or self.reference.step(name) for name in self.subject.values}
        large = [name for name in steps if self.reference.host[name].size > self.entries]
        large = [name for name in large if self.gradients[name].shape == self.reference.host[name].shape]
        whole = {name: h for name, h in steps.items() if name not in large}
        entries = self.entries * len(large) + sum(self.reference.host[name].size for name in whole)
        with bar("checking gradients", entries) as tick:
            slopes = self.reference.all_entries(whole, tick, self.map, self.notes.append) if whole else {}
            return {
                name: self._sample(name, h, tick) if name in large else self._by_loop(name, h, slopes[name])
                for name, h in steps.items()
            }

    def _sample(self, name, h, tick):
        """Judge drawn entries of an array."""
        a, count = self.gradients[name], self.entries
        xp, size = namespace(a), a.size
        drawn = random_generator(self.seed, "audit").choice(size, count, replace=False)
        n, gap, chosen = xp.full(a.shape, xp.nan), xp.zeros(a.shape), xp.zeros(a.shape, dtype=bool)
        for entry in map(int, drawn):
            index = position(entry, a.shape)
            right, left, _ = self.reference.entry(name, index, h, blur=False)
            n[index], gap[index], chosen[index] = 0.5 * (right + left), abs(right - left), True
            tick(1)
        codes = xp.where(chosen, by_first_look(a, n, self.tolerance[name], 0.0), LEFT_OUT)
        self.notes.append(
            f"{count} of {size} entries of {name}, drawn with seed {self.seed}: a mistake in "
            f"{100 * (1 - (1 - CERTAIN) ** (1 / count)):.2g} % of them would be found with {100 * CERTAIN:.0f} % "
            f"certainty, one in a single entry with {100 * count / size:.2g} %"
        )
        return self._closely(Judged(a, n, codes, "loop", h), name, chosen & (codes != PASS), gap)
