"""Entries that are off by what round-off does to backpropagation itself, whose formula may be right all the same."""

from ..functions import namespace
from .verdicts import DECISIVE

NEAR, LITTLE = 0.05, 0.006  # of an entry, or of the largest: what numbers that come in steps may be off by


def explained(looks, name, indices, a, n):
    """Return for entries of an array, a by backpropagation and n measured, whether its round-off explains a − n."""
    xp = namespace(a)
    off, size = xp.abs(a - n), xp.maximum(xp.abs(a), xp.abs(n))
    found = size <= _least(looks, name)
    if name in looks.wide_gradients:  # in float64, the same formula is right
        wide = xp.asarray([looks.wide_gradients[name][i] for i in indices])
        found = found | (xp.abs(wide - n) <= DECISIVE * off)
    near = off <= xp.maximum(NEAR * size, LITTLE * xp.max(xp.abs(looks.gradients[name])))
    if bool(xp.any(near & ~found)):  # by steps of its numbers, of which small moves show none?
        stairs = xp.asarray([max(float(looks.stairs[name][i]), 2 * looks.noise[name]) for i in indices])
        found = found | (near & (off <= stairs))
    return found


def _least(looks, name):
    """Return the size below which a layer's backpropagation has no digits, as 1 − y² has none if y is saturated."""
    value, reference = looks.subject.values[name], looks.reference
    if looks.subject.weights is None or not value.size:
        return 0.0
    eps = float(namespace(value).finfo(value.dtype).eps)
    return 8 * eps * float(abs(reference.weights).max()) * min(1.0, float(abs(reference.base).max()))
