"""What becomes of each entry of a gradient check: pass, kink, undecided or fail.

a is an entry by backpropagation; R and L are the slopes of the loss to the right and to the left of it over a step,
C is their mean, G = |R − L| their gap, ν what round-off may do to them, and B what it may do to a.

*pass*: a agrees with C to the tolerance, or to the error bar of C where that is at most a hundredth of it, and so is ν.
*kink*: the gap stays as the step shrinks, down to the smallest step that can tell; a lies between R and L. Or a jumps
there, and backpropagation is right beside the kink; see ``xpnet.gradcheck.kinks``.
*undecided*: a agrees with C to its error bar, but that is more than a hundredth of it: too small to tell.
*fail*: anything else.
"""

import math

from ..functions import namespace

WORDS = ("pass", "kink", "undecided", "fail", "left out")
PASS, KINK, UNDECIDED, FAIL, LEFT_OUT = range(5)
TOLERANCE = 5e-6  # beside the 1e-7 that the book adds inside its logarithm, which is 1e-6 of a probability of 0.1
NOISE = 32  # times the unit round-off of the largest entry: what it may do to changes that are propagated
DECISIVE = 0.01  # the share of an entry up to which an error bar can tell
FAR = 1e5  # times: of a larger ratio one side is nothing, and by how much the other is larger says nothing


def in_words(codes):
    """Return an array of codes on the host as an array of words."""
    xp = namespace(codes)
    return xp.asarray(xp.asarray(WORDS)[codes])


def tolerance_of(dtype, xp, tolerance):
    """Return ``tolerance``, by default the square root of the unit round-off of the dtype, and at least 5e-6."""
    return max(float(xp.finfo(dtype).eps) ** 0.5, TOLERANCE) if tolerance is None else tolerance


def agree(a, n, tolerance):
    """Return where |a − n| is at most ``tolerance`` of the larger of the two; zero agrees with zero."""
    xp = namespace(a, n)
    return xp.abs(a - n) <= tolerance * xp.maximum(xp.abs(a), xp.abs(n))


def by_first_look(a, c, tolerance, blur):
    """Return codes for entries of propagated changes: PASS, UNDECIDED, and FAIL where a closer look is needed."""
    xp = namespace(a)
    off, size = xp.abs(a - c), xp.maximum(xp.abs(a), xp.abs(c))
    near = off <= tolerance * size + blur
    passed = (off <= tolerance * size) | (near & (blur <= DECISIVE * size))
    return xp.where(passed, PASS, xp.where(near, UNDECIDED, FAIL))


def by_two_looks(a, large, small, tolerance, noise, blur):
    """Return codes for entries whose slopes (2, …) were measured over two steps; UNDECIDED needs a closer look."""
    xp = namespace(a)
    wide, c = 0.5 * (large[0, ...] + large[1, ...]), 0.5 * (small[0, ...] + small[1, ...])
    off, size, gap = xp.abs(a - c), xp.maximum(xp.abs(a), xp.abs(c)), xp.abs(small[0, ...] - small[1, ...])
    near, told = tolerance * size, blur <= DECISIVE * size
    passed = told & ((off <= near) | ((off <= near + noise) & (noise <= DECISIVE * size)))
    failed = (xp.abs(c - wide) <= 0.05 * off) & (off > 3 * gap + 8 * blur + near + noise)
    return xp.where(passed, PASS, xp.where(failed, FAIL, UNDECIDED))


def decide(a, rows, tolerance, noise):
    """Return (code, c, error bar) of one entry from ``rows`` [(R, L, ν)], from large steps to small ones.

    The error bar of a step is the distance from the larger step's C, or a quarter of the gap if that is more, and ν;
    the whole gap where that does not shrink. The smallest that no smaller step contradicts is taken.
    """
    rows = _defined(rows)
    c = [0.5 * (right + left) for right, left, _ in rows]
    gap, blur = [abs(right - left) for right, left, _ in rows], [row[2] for row in rows]
    bars = _error_bars(c, gap, blur)
    k = _most_exact(c, bars, blur)
    if k is None:
        return (UNDECIDED, c[-1], math.inf) if rows else (FAIL, math.nan, math.inf)
    at = _kink(gap, blur)
    if at is None:
        return _beside(a, c[k], bars[k], blur[k], tolerance, noise), c[k], bars[k]
    return (KINK if _is_between(a, rows[at], rows[at - 1], tolerance, noise) else FAIL), c[k], bars[k]


def _defined(rows):
    return [row for row in rows if math.isfinite(row[0]) and math.isfinite(row[1])]


def _error_bars(c, gap, blur):
    bars = [math.inf] * len(c)
    for k in range(1, len(c)):
        rough = gap[k] > 3 * blur[k] and gap[k] > 0.3 * gap[k - 1]
        bars[k] = max(abs(c[k] - c[k - 1]), gap[k] if rough else gap[k] / 4) + blur[k]
    return bars


def _is_between(a, row, wider, tolerance, noise):
    """Return whether an entry lies between the slopes on both sides of a kink, at a step and at the one before."""
    (right, left, blur), (wider_right, wider_left, _) = row, wider
    moved = (abs(right - wider_right) + abs(left - wider_left)) / 7  # on to a step of zero
    slack = blur + moved + tolerance * max(abs(right), abs(left)) + noise
    return min(right, left) - slack <= a <= max(right, left) + slack


def _beside(a, c, bar, blur, tolerance, noise):
    """Return the code of an entry beside the mean of two slopes that are no kink, its error bar, and its blur."""
    off, size = abs(a - c), max(abs(a), abs(c))
    if off <= tolerance * size:  # by chance, if slopes that come in steps are all that it agrees with
        return PASS if blur <= DECISIVE * size or not size else UNDECIDED
    if off <= tolerance * size + noise:
        return PASS if noise <= DECISIVE * size else UNDECIDED
    if off <= bar + noise:
        return PASS if bar + noise <= DECISIVE * size else UNDECIDED
    return FAIL


def has_kink(rows):
    """Return whether the slopes of ``rows`` stay apart as the step shrinks."""
    rows = _defined(rows)
    return _kink([abs(right - left) for right, left, _ in rows], [row[2] for row in rows]) is not None


def _most_exact(c, bars, blur):
    """Return the step with the smallest error bar that no smaller step contradicts, or None."""
    bars = list(bars)
    while bars and min(bars) < math.inf:
        k = bars.index(min(bars))
        if all(abs(c[j] - c[k]) <= bars[k] + blur[j] for j in range(k + 1, len(c))):
            return k
        bars[k] = math.inf
    return None


def _kink(gap, blur):
    """Return the smallest step whose gap is no round-off if the gap stays there as the step shrinks, or None."""
    clear = [k for k in range(1, len(gap)) if gap[k] > 4 * blur[k]]
    if not clear:
        return None
    k = clear[-1]
    closed = any(gap[j] + 2 * blur[j] < 0.3 * gap[k] for j in range(k + 1, len(gap)))
    return k if gap[k] > 0.5 * gap[k - 1] and not closed else None


def position(entry, shape):
    """Return the index of a flat position."""
    index = []
    for length in reversed(shape):
        entry, i = divmod(entry, length)
        index.append(i)
    return tuple(reversed(index))
