"""What became of each entry of a gradient check: agreement, kinks, the limits of precision, and what failures share."""

from ..functions import namespace
from .report import Entry, ParameterCheck

NOISE = 32  # times the unit round-off, of the largest entry or of the loss, is what round-off may do to an entry


def tolerance_of(array, tolerance):
    """Return ``tolerance``, by default the square root of the unit round-off of the dtype, and at least 1e-6."""
    return max(round_off(array) ** 0.5, 1e-6) if tolerance is None else tolerance


def round_off(array):
    """Return the distance from 1 to the next number in the dtype of ``array``."""
    return float(namespace(array).finfo(array.dtype).eps)


def agree(a, n, tolerance):
    """Return where |a − n| is at most ``tolerance`` of the larger of the two; zero agrees with zero."""
    xp = namespace(a, n)
    return xp.abs(a - n) <= tolerance * xp.maximum(xp.abs(a), xp.abs(n))


def census(name, a, first, second, loss, tolerance, worst, samples):
    """Return the ``ParameterCheck`` of one parameter from its gradient by backpropagation and two sets of changes."""
    n = first.gradient
    settled = {"name": name, "shape": n.shape, "how": first.how, "h": first.h}
    if a.shape != n.shape:
        return ParameterCheck(**settled, passed=0, kinks=0, imprecise=0, failed=n.size, hint=_shape_hint(a, n))
    xp = namespace(a)
    error, size = xp.abs(a - n), xp.maximum(xp.abs(a), xp.abs(n))
    passed = agree(a, n, tolerance_of(n, tolerance))
    kinks = imprecise = xp.zeros_like(passed)
    if second is not None:
        small, large = sorted((first, second), key=lambda change: change.h)
        rounding = noise(small, loss)
        slack = tolerance_of(n, tolerance) * size + rounding
        near = xp.abs(a - small.gradient) <= slack
        kinks = ~passed & _bends(small, large, slack) & (near | _between(a, small, large, slack))
        within = ~passed & ~kinks & near
        imprecise = within & (rounding > 0.01 * size)
        passed = passed | (within & ~imprecise)
    failed = ~(passed | kinks | imprecise)
    relative = error / xp.where(size > 0, size, 1.0)

    def largest(measure, among, count):
        left = xp.reshape(xp.where(among, measure, -1.0), (-1,))
        for _ in range(count):
            entry = int(xp.argmax(left))
            if left[entry] < 0:
                return
            left[entry] = -1.0
            index = position(entry, n.shape)
            yield Entry(index, float(n[index]), float(a[index]), float(relative[index]))

    return ParameterCheck(
        **settled,
        passed=int(passed.sum()),
        kinks=int(kinks.sum()),
        imprecise=int(imprecise.sum()),
        failed=int(failed.sum()),
        zeros=int((size == 0).sum()),
        largest=next(largest(relative, failed if failed.any() else passed, 1), None),
        worst=tuple(largest(error, failed, worst)),
        hint=_hint(a, n, failed, samples),
    )


def position(entry, shape):
    """Return the index of a flat position."""
    index = []
    for length in reversed(shape):
        entry, i = divmod(entry, length)
        index.append(i)
    return tuple(reversed(index))


def noise(change, loss):
    """Return what round-off may do to an entry: that of the changes where they are propagated, else of the loss."""
    xp = namespace(change.sides)
    scale = xp.max(xp.abs(change.gradient)) if change.how == "difference" else loss / change.h
    return NOISE * round_off(change.sides) * float(scale)


def _slopes(change):
    """Return the slopes (2, …) to the right and to the left."""
    return namespace(change.sides).stack([change.sides[0, ...], -change.sides[1, ...]]) / change.h


def _bends(small, large, slack):
    """Return where the slopes to the right and to the left differ otherwise than those of a smooth function.

    Those part in proportion to the step, and the slope in the middle hardly moves.
    """
    xp = namespace(small.sides)
    part, parts = (xp.abs(right_left[0, ...] - right_left[1, ...]) for right_left in map(_slopes, (small, large)))
    wider = large.h / small.h
    in_proportion = xp.abs(part * wider - parts) <= 0.2 * parts + slack * wider
    unmoved = xp.abs(small.gradient - large.gradient) <= 0.05 * parts + slack
    return ~(in_proportion & unmoved) & (xp.maximum(part, parts) > slack)


def _between(a, small, large, slack):
    """Return where ``a`` lies between the slopes as measured with the smaller step and as continued to a step of 0."""
    xp = namespace(a)
    slopes = _slopes(small)
    continued = slopes - (_slopes(large) - slopes) / (large.h / small.h - 1)
    allowed = xp.concat([slopes, continued])
    return (xp.min(allowed, axis=0) - slack <= a) & (a <= xp.max(allowed, axis=0) + slack)


def _shape_hint(a, n):
    hint = f"backpropagation has shape {a.shape}"
    if a.shape == n.shape[::-1]:
        return f"{hint}: transposed?"
    if a.shape[a.ndim - n.ndim :] == n.shape:
        return f"{hint}: a sum over the batch is missing?"
    return hint


def _hint(a, n, failed, samples):
    """Return what all failures have in common, or nothing."""
    xp = namespace(a)
    if not failed.any():
        return ""
    if a.ndim == 2 and a.shape[0] == a.shape[1] and agree(a.T, n, 1e-3).all():
        return "every entry is that of the transposed matrix"
    if (a[failed] == 0).all():
        return "backpropagation gives 0 for all of them: forgotten?"
    if (n[failed] == 0).all():
        return "the loss does not depend on these entries"
    usable = failed & (n != 0)
    ratios = xp.sort(a[usable] / n[usable])
    ratio = float(ratios[ratios.size // 2])
    if (xp.abs(ratios - ratio) <= 1e-3 * abs(ratio)).mean() < 0.99:
        return ""
    says = "every ratio is" if ratios.size > 1 else "the ratio is"
    causes = {-1.0: "a sign", samples: "the batch size: a missing 1/N?", 1 / samples: "1/N: divided by N twice?"}
    causes |= {2.0: "a factor of two", 0.5: "a factor of two"}
    for value, cause in causes.items():
        if abs(ratio - value) <= 2e-3 * abs(value) and value != 1:
            return f"{says} {value:.6g}, {cause}"
    if abs(ratio - 1) <= 1e-3 and failed.sum() > 0.5 * failed.size:
        return f"{says} nearly 1: the loss is not quite the one that was differentiated, as with log(y + 1e-7)?"
    return f"{says} {ratio:.6g}"
