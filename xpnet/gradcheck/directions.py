"""Several entries moved together: their sum can tell what each of them alone is too small, or too rarely drawn, for."""

import math

from ..backend import random_generator
from .measuring import LARGER, scale
from .verdicts import FAIL, KINK, PASS, decide

DRAWN = 2  # directions of random signs beside that of the gradients' own


def together(reference, gradients, chosen, *, tolerance, noise=None, seed=0, drawn=DRAWN):
    """Return (code, ratio) of entries moved together, those that ``chosen``, {name: mask}, says.

    They move along the sign of their gradients, where each adds to the sum, and along ``drawn`` random ones.
    ``noise`` {name: number} is what round-off may do to each. ``ratio`` is backpropagation over the numerical slope
    along the first.
    """
    xp, rng = reference.xp, random_generator(seed, "audit")
    signs = {name: xp.where(gradients[name] < 0, -1.0, 1.0) for name in chosen}
    code, expected, slope = along(reference, gradients, chosen, signs, tolerance, noise or {}, 0.0)
    ratio = expected / slope if slope else math.inf
    for _ in range(drawn if code == PASS else 0):
        signs = {name: rng.choice([-1.0, 1.0], mask.shape) for name, mask in chosen.items()}
        if along(reference, gradients, chosen, signs, tolerance, noise or {}, tolerance)[0] == FAIL:
            return FAIL, ratio
    return code, ratio


def along(reference, gradients, chosen, signs, tolerance, noise, share):
    """Return (code, expected, slope) along one direction, where ``share`` of the length of a sum may cancel in it."""
    xp = reference.xp
    sizes = {name: reference.step(name) for name in chosen}
    directions = {name: sizes[name] * (signs[name] * mask) for name, mask in chosen.items()}
    count = sum(int(xp.count_nonzero(mask)) for mask in chosen.values())
    steps = scale(1.0 / math.sqrt(count))
    slope, expected = reference.centrally(directions, gradients, steps[LARGER])
    if abs(slope - expected) <= tolerance * max(abs(slope), abs(expected)):
        return PASS, expected, slope
    parts = [gradients[name] * direction for name, direction in directions.items()]
    expected = sum(float(xp.sum(part)) for part in parts)
    blur = math.sqrt(count) * max(noise.get(name, 0.0) * sizes[name] for name in chosen)
    blur += share * math.sqrt(sum(float(xp.sum(part**2)) for part in parts))
    rows = [reference.along(directions, gradients, h) for h in steps]
    code, slope, _ = decide(expected, rows, tolerance, blur)
    return (PASS if code == KINK else code), expected, slope
