"""Several entries moved together: their sum can tell what each of them alone is too small, or too rarely drawn, for."""

import math

from ..backend import random_generator
from .measuring import LARGER, scale
from .verdicts import FAIL, FAR, PASS, UNDECIDED, decide, has_kink

DRAWN = 2  # directions of random signs beside that of the gradients' own


def together(reference, gradients, chosen, *, tolerance, noise=None, seed=0, drawn=DRAWN, even=False):
    """Return (code, ratio) of entries moved together, those that ``chosen``, {name: mask}, says.

    They move along the sign of their gradients, where each adds to the sum, and along ``drawn`` random ones.
    ``noise`` {name: number} is what round-off may do to each. ``even`` lets arrays that would make up most of the sum
    move less. ``ratio`` is backpropagation over the numerical slope along the first direction.
    """
    xp, rng = reference.xp, random_generator(seed, "audit")
    sizes = {name: reference.step(name) for name in chosen}
    if even:
        sizes = _evened(sizes, gradients)
    masks = {name: sizes[name] * mask for name, mask in chosen.items()}
    signs = {name: xp.where(gradients[name] < 0, -1.0, 1.0) for name in chosen}
    code, expected, slope = along(reference, gradients, masks, signs, tolerance, noise or {}, 0.0)
    ratio = expected / slope if slope else math.inf
    for _ in range(drawn if code == PASS else 0):
        signs = {name: rng.choice([-1.0, 1.0], mask.shape) for name, mask in chosen.items()}
        if along(reference, gradients, masks, signs, tolerance, noise or {}, tolerance)[0] == FAIL:
            return FAIL, ratio
    return code, ratio


def compared(ratio, other):
    """Return in words what something is beside ``other``, of which it is ``ratio`` times; no factor of nothing."""
    if abs(ratio) > FAR:
        return f"is not 0, but {other} is, or nearly so"
    return f"is {ratio:.5g} times {other}" if ratio else f"is 0, but {other} is not"


def _evened(sizes, gradients):
    """Return smaller steps for arrays that would weigh more in the sum than the one in the middle."""
    parts = {name: size * float(abs(gradients[name]).sum()) for name, size in sizes.items()}
    middle = sorted(parts.values())[len(parts) // 2]
    return {name: size * min(1.0, middle / parts[name]) if parts[name] else size for name, size in sizes.items()}


def along(reference, gradients, masks, signs, tolerance, noise, share):
    """Return (code, expected, slope) along one direction, where ``share`` of the length of a sum may cancel in it.

    ``masks`` hold how far entries move at a step of one.
    """
    xp = reference.xp
    directions = {name: signs[name] * mask for name, mask in masks.items()}
    count = sum(int(xp.count_nonzero(mask)) for mask in masks.values())
    steps = scale(1.0 / math.sqrt(count))
    slope, expected = reference.centrally(directions, gradients, steps[LARGER])
    if abs(slope - expected) <= tolerance * max(abs(slope), abs(expected)):
        return PASS, expected, slope
    parts = [gradients[name] * direction for name, direction in directions.items()]
    expected = sum(float(xp.sum(part)) for part in parts)
    blur = math.sqrt(count) * max(noise.get(name, 0.0) * float(xp.max(mask)) for name, mask in masks.items())
    blur += share * math.sqrt(sum(float(xp.sum(part**2)) for part in parts))
    rows = [reference.along(directions, gradients, h) for h in steps]
    code, slope, _ = decide(expected, rows, tolerance, blur)
    if has_kink(rows):  # of a sum of kinks, the slopes on both sides are no bounds
        code = UNDECIDED
    return code, expected, slope
