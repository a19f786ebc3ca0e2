"""How far entries move in numerical derivatives: a step relative to them, and others if that is in doubt (book, 4.3).

Two errors fight over a step h: the function bends within it, and the round-off of its values is divided by it. Nobody
knows on which scale a function bends. The first guess is that of its argument, so that 1e-12 and 1e9 are served like 1.
Where the values contradict that guess, further steps are tried, and the one with the smallest error bar counts.
"""

import math
import warnings

from array_api_compat import device

from .arrays import detached
from .functions import namespace
from .scalars import is_number

RATIO = 8.0  # between the steps that are tried
LEVELS = 20  # at most so many of them


def default_step(dtype, xp):
    """Return the step of a central difference of values in ``dtype``: 2⁻¹³ in float64, 2⁻⁶ in float32.

    The truncation error h²·f‴/6 falls and the round-off ε·f/h grows as h shrinks. They meet at the cube root of ε
    for a function that bends on a scale of 1, and at larger steps for a network's loss, which bends less; the
    fourth root serves both. A power of two, so that x + h is mostly exact.
    """
    return 2.0 ** round(math.log2(xp.finfo(dtype).eps) / 4)


def step_for(x):
    """Return the step for the entries of ``x``: ``default_step`` times the power of two below the largest |entry|.

    Between 1 and 2⁶ (in float32, 2³) it is ``default_step`` itself, and beyond so much less than that product, because
    a step of 1 at 10,000 would miss what bends on a scale of 1. Where all entries are zero, or none is finite, it is
    ``default_step``. Waits for the device.
    """
    return float(steps_for(namespace(x).reshape(detached(x), (1, -1)))[0, 0]) if 0 not in x.shape else 0.0


def steps_for(rows):
    """Return the steps (P, 1) for each of the ``rows`` (P, n), as ``step_for`` does."""
    xp = namespace(rows)
    eta, smallest = default_step(rows.dtype, xp), xp.finfo(rows.dtype).smallest_normal
    power = 2.0 ** xp.floor(xp.log2(_sizes(rows)))
    far = 2.0 ** (math.log2(eta) // 2) * power
    steps = eta * xp.minimum(power, xp.maximum(far, xp.ones_like(power)))
    return xp.maximum(steps, smallest + xp.zeros_like(power))


def _sizes(rows):
    """Return the largest finite |entry| (P, 1) of each of the ``rows`` (P, n), 1 where there is none but zero."""
    xp = namespace(rows)
    size = xp.max(xp.where(xp.isfinite(rows), xp.abs(rows), xp.zeros_like(rows)), axis=-1, keepdims=True)
    return xp.where(size > 0, size, xp.ones_like(size))


def require_step(h):
    """Return the step ``h`` as a float; raise ValueError unless it is a positive number."""
    if not is_number(h, lambda h: 0 < h < math.inf):
        raise ValueError(f"h is {h}; it must be a positive number, about 1e-4 in float64")
    return float(h)  # a NumPy scalar would promote float32


def first_steps(x, scale):
    """Return the steps (P, n) of the entries of points ``x`` for the steps ``scale`` (P, 1) of the points.

    An entry that is not zero moves by a small part of itself at most: beyond zero, a logarithm or a root has no value.
    """
    xp = namespace(x)
    share = default_step(x.dtype, xp) ** (5 / 6)  # 1/1800 in float64, 1/32 in float32
    own = xp.maximum(share * xp.abs(x), xp.finfo(x.dtype).smallest_normal + xp.zeros_like(x))
    return xp.minimum(scale + xp.zeros_like(x), xp.where(x == 0, xp.ones_like(x) * scale, own))


def differences(values, taken, center=None):
    """Return (differences, bent, noise, enough) of the values (2, P, n) of f at both ends of steps, at P points.

    The central differences (P, n) come with what puts them in doubt. ``bent`` says of an entry that its one-sided
    slopes lie further apart than those of a function that is smooth on the scale of the step, beside the largest slope
    of its point. That needs ``center`` (P, 1), the values at the points; without, the mean of all ends stands for
    them, which differs from some of them where anything is bent. ``noise`` is the round-off, ``enough`` (P, 1) how
    much of it does no harm.
    """
    xp = namespace(values)
    eta, eps = default_step(values.dtype, xp), xp.finfo(values.dtype).eps
    values = xp.where(xp.isfinite(values), values, xp.nan)
    rise, run = values[0, ...] - values[1, ...], taken[0, ...] + taken[1, ...]
    found, middle = rise / run, values[0, ...] - rise / 2
    finite, nothing = xp.isfinite(found), xp.zeros_like(found)
    slope = xp.max(xp.where(finite, xp.abs(found), nothing), axis=-1, keepdims=True)
    noise = 2 * eps * xp.max(xp.where(finite, xp.abs(middle), nothing), axis=-1, keepdims=True) / run
    if center is None:
        known = xp.maximum(xp.sum(xp.astype(finite, values.dtype), axis=-1, keepdims=True), 1.0)
        center = xp.sum(xp.where(finite, middle, nothing) / known, axis=-1, keepdims=True)
    bent = xp.abs(middle - center) > 2 * run * (eta * slope + 4 * noise)
    return found, bent | ~finite, noise, 8 * eta**2 * slope


class Look:
    """One entry whose first difference is in doubt: what is known about it, and where to look next."""

    def __init__(self, place, step, ratio, last, first, bar, enough=0.0, farthest=0.0):
        self.place, self.step, self.last, self.farthest = place, step, last, farthest
        self.ratio = ratio  # of a step to the one before: below 1 to come closer, above to get out of the noise
        self.previous = self.best = first  # differences; on the way out, the first stays ``previous``
        self.bar = bar  # the error bar of ``best``; on the way out, of the first
        self.enough = enough  # noise that is small enough
        self.blur = 0.0  # the largest error bar on the way closer
        self.settled = self.tried = self.done = False
        self.first = step, first

    def turn_round(self):
        """Look farther away if coming closer ended in noise; return whether to.

        Where values have cancelled in f, its round-off is larger than its size tells, and what seemed bent was that.
        """
        step, central = self.first
        if self.ratio > 1 or self.settled or self.farthest < 2 * step:
            return False
        self.step, self.ratio, self.last, self.done = step, RATIO, self.farthest, False
        self.previous, self.bar, self.blur = central, self.blur, 0.0
        return True

    def next_step(self):
        """Return how far to look now: out of the noise first to the last step, and if that is too far, in between."""
        if self.ratio > 1 and not self.tried:
            return self.last
        self.step *= self.ratio
        self.done = self.done or (self.step >= self.last if self.ratio > 1 else self.step < self.last)
        return self.step

    def see(self, central, noise, goal):
        """Take in the difference at that step."""
        (self.see_farther if self.ratio > 1 else self.see_closer)(central, noise, goal)

    def see_closer(self, central, noise, goal):
        """Keep the difference with the smallest error bar, which is what the step changed, and its noise."""
        bar = abs(central - self.previous) + noise
        self.previous = central
        self.settled = bar <= goal * abs(central)
        if self.settled or bar < self.bar:  # NaN is neither
            self.best, self.bar = central, bar
        self.blur = max(self.blur, bar)
        self.done = self.settled or noise > self.bar

    def see_farther(self, central, noise, goal):
        """Keep the difference at a longer step that agrees with the first, or from which on they come together.

        The first thing seen is the longest step. Where that contradicts the first, steps in between tell whether
        longer ones change less, as where the noise is larger than it seems, or more, as where f bends.
        """
        moved, farthest = abs(central - self.previous), not self.tried
        self.tried = True
        if moved <= self.bar:
            self.best, self.done = central, farthest or noise <= self.enough
        elif not farthest:
            nearer = moved < self.blur / 2
            self.done = bool(self.blur) and not nearer
            self.best = central if nearer else self.best
            self.previous, self.blur, self.bar = central, moved, noise


def look_again(measure, looks, goal):
    """Try further steps for every ``Look`` until its difference settles, noise takes over or its steps are used up.

    ``measure(places, steps)`` returns [(difference, noise)] of some entries. A difference has settled if the last
    step changed it by less than its share ``goal``.
    """
    for _ in range(LEVELS):
        steps = {look.place: look.next_step() for look in looks if not look.done}
        looks = [look for look in looks if not look.done]
        if not looks:
            return
        seen = measure([look.place for look in looks], [steps[look.place] for look in looks])
        for look, (central, noise) in zip(looks, seen, strict=True):
            look.see(central, noise, goal)


def _looks(x, found, steps, bent, noisy, noise, enough, farthest):
    """Return a ``Look`` for every entry of points ``x`` (P, n) whose difference ``found`` is bent or noisy."""
    xp = namespace(x)
    rows = [xp.reshape(each + xp.zeros_like(found), (-1,)) for each in (steps, noise, enough, farthest)]
    flat = [xp.reshape(each, (-1,)) for each in (x, found, bent, noisy)]
    smallest, eps = float(xp.finfo(x.dtype).smallest_normal), xp.finfo(x.dtype).eps
    more = default_step(x.dtype, xp) ** 0.5  # a second look ends with less noise than is needed to call for one
    looks = []
    for place in range(flat[0].shape[0]):
        if bool(flat[2][place]):
            first, size = float(flat[1][place]), abs(float(flat[0][place]))
            step = min(float(rows[0][place]), size or math.inf)
            last, back = max(4 * eps * size, smallest), (more * float(rows[2][place]), float(rows[3][place]))
            looks.append(Look(place, step, 1 / RATIO, last, first, math.inf, *back))
        elif bool(flat[3][place]):
            first, (step, error, little, last) = float(flat[1][place]), (float(row[place]) for row in rows)
            looks.append(Look(place, step, RATIO, last, first, 3 * error, more * little))
    return looks


def settled(x, h, ends, again, center):
    """Return the gradient (P, n) at the points ``x`` (P, n): one look at every entry, and more where it is in doubt.

    ``ends(places, steps)`` and ``again`` return values and steps (2, k) for k of all entries, ``again`` NaN where there
    is no value; ``center()`` returns the values (P, 1) at the points themselves. A given ``h`` is taken as it is.
    """
    xp = namespace(x)
    every, shape = range(x.shape[0] * x.shape[1]), (2, *x.shape)
    if h is not None:
        values, taken = ends(every, h)
        return xp.reshape((values[0, ...] - values[1, ...]) / (taken[0, ...] + taken[1, ...]), x.shape)
    scale = steps_for(x)
    steps = first_steps(x, scale)
    values, taken = (xp.reshape(each, shape) for each in ends(every, xp.reshape(steps, (-1,))))
    found, bent, noise, enough = differences(values, taken)
    farthest = default_step(x.dtype, xp) * xp.maximum(_sizes(x), xp.ones_like(scale))
    flat = (enough == 0) & (steps > 2.0**-10 * farthest)  # so much longer steps would find nothing else
    noisy = (noise > enough) & (2 * steps <= farthest) & ~flat
    if not bool(xp.any(bent | noisy)):
        return found
    if bool(xp.any(bent)):
        middle = center()
        found, bent, noise, enough = differences(values, taken, middle)
        bent, noisy = bent & xp.isfinite(middle), noisy & xp.isfinite(middle)
    looks = _looks(x, found, steps, bent, noisy & ~bent, noise, enough, farthest)

    def measure(places, steps):
        values, taken = again(places, steps)
        rows = (values[0, ...], values[1, ...], taken[0, ...] + taken[1, ...])
        seen = zip(*(map(float, row) for row in rows), strict=True)
        twice_eps = 2 * xp.finfo(x.dtype).eps
        return [((up - down) / run, twice_eps * max(abs(up), abs(down)) / run) for up, down, run in seen]

    goal = 64 * default_step(x.dtype, xp) ** 2
    look_again(measure, looks, goal)
    look_again(measure, [look for look in looks if look.turn_round()], goal)
    seen = {look.place: look.best for look in looks}
    new = xp.asarray([seen.get(place, 0.0) for place in every], dtype=x.dtype, device=device(x))
    here = xp.asarray([place in seen for place in every], device=device(x))
    return xp.where(xp.reshape(here, x.shape), xp.reshape(new, x.shape), found)


def or_nan(f, x):
    """Return f(x), or NaN where a point further away is no place for ``f``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the user did not ask for that point
        try:
            return f(x)
        except (ArithmeticError, ValueError):
            return math.nan
