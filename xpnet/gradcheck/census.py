"""How many entries of an array passed, lie on a kink, are undecided or fail; the worst; and what failures share."""

from ..backend import to_numpy
from ..functions import namespace
from .report import Entry, ParameterCheck
from .verdicts import FAIL, KINK, PASS, UNDECIDED, agree, position


def census(name, judged, value, worst, samples):
    """Return the ``ParameterCheck`` of one array, ``value``, from what was judged of it."""
    a, n, codes = judged.a, judged.n, judged.codes
    settled = {"name": name, "shape": tuple(value.shape), "how": judged.how, "h": judged.h}
    if codes is None:
        return ParameterCheck(**settled, passed=0, kinks=0, undecided=0, failed=n.size, hint=_shape_hint(a, n))
    xp = namespace(a)
    error, size = xp.abs(a - n), xp.maximum(xp.abs(a), xp.abs(n))
    relative = error / xp.where(size > 0, size, 1.0)
    passed, failed = codes == PASS, codes == FAIL

    def largest(measure, among, count):
        left = xp.reshape(xp.where(among, xp.where(xp.isnan(measure), xp.inf, measure), -1.0), (-1,))
        for _ in range(count):
            entry = int(xp.argmax(left)) if left.size else 0
            if not left.size or left[entry] < 0:
                return
            left[entry] = -1.0
            index = position(entry, n.shape)
            yield Entry(index, float(n[index]), float(a[index]), float(relative[index]))

    return ParameterCheck(
        **settled,
        passed=int(passed.sum()),
        kinks=int((codes == KINK).sum()),
        undecided=int((codes == UNDECIDED).sum()),
        failed=int(failed.sum()),
        zeros=int(((size == 0) & passed).sum()),
        largest=next(largest(relative, failed if failed.any() else passed, 1), None),
        worst=tuple(largest(error, failed, worst)),
        hint=hint(a, n, failed, samples, to_numpy(value)) if failed.any() and judged.how != "direction" else "",
        unseen=judged.unseen,
    )


def _shape_hint(a, n):
    hint = f"backpropagation has shape {a.shape}"
    if a.ndim == 0:
        return f"{hint}, one number; it must be an array of shape {n.shape}"
    if a.shape == n.shape[::-1]:
        return f"{hint}: transposed?"
    if a.shape[a.ndim - n.ndim :] == n.shape:
        return f"{hint}: a sum over the batch is missing?"
    return hint


def hint(a, n, failed, samples, value):
    """Return what all failures have in common, or nothing."""
    if a.ndim == 2 and a.shape[0] == a.shape[1] and agree(a.T, n, 1e-3).all():
        return "every entry is that of the transposed matrix"
    if (a[failed] == 0).all():
        return "backpropagation gives 0 for all of them: forgotten?"
    if (n[failed] == 0).all():
        return "the loss does not depend on these entries: their gradient should be 0"
    return _decay_hint(a[failed], n[failed], value[failed]) or _ratio_hint(a, n, failed, samples)


def _decay_hint(a, n, value):
    """Return a line if what is too much is a multiple of the values themselves."""
    xp, apart = namespace(a), a - n
    square = float(xp.sum(value.astype(xp.float64) ** 2))
    if a.size < 3 or not square > 0:
        return ""
    if float(xp.sum(n * value)) ** 2 > (1 - 1e-6) * square * float(xp.sum(n**2)):
        return ""  # n is itself a multiple of the values, and a ratio says it more simply
    rate = float(xp.sum(apart * value)) / square
    rest, length = float(xp.sum((apart - rate * value) ** 2)), float(xp.sum(apart**2))
    if not rest <= 1e-4 * length:
        return ""
    where = "in the gradient but not in the loss" if rate > 0 else "in the loss but not in the gradient"
    return f"backpropagation differs by {abs(rate):.4g} times the values: a weight decay that is {where}?"


def _ratio_hint(a, n, failed, samples):
    xp, usable = namespace(a), failed & (n != 0)
    ratios = xp.sort(a[usable] / n[usable])
    if not ratios.size:
        return ""
    ratio = float(ratios[ratios.size // 2])
    says = "every ratio is" if ratios.size > 1 else "the ratio is"
    if (xp.abs(ratios - ratio) <= 1e-3 * abs(ratio)).mean() < 0.99:
        return ""
    off = float(xp.max(xp.abs(ratios - 1)))
    if off <= 1e-4 or (off <= 1e-3 and failed.sum() > 0.5 * failed.size):
        return f"{says} nearly 1: the loss is not quite the one that was differentiated, as with log(y + 1e-7)?"
    causes = {-1.0: "a sign", samples: "the batch size: a missing 1/N?", 1 / samples: "1/N: divided by N twice?"}
    causes |= {2.0: "a factor of two", 0.5: "a factor of two"}
    for known, cause in causes.items():
        if abs(ratio - known) <= 2e-3 * abs(known) and known != 1:
            return f"{says} {ratio:.6g}, {cause}"
    return f"{says} {ratio:.6g}"
