"""The numerical gradient itself is measured again, by the plain loop through the subject's own outputs."""

import math

from ..backend import random_generator
from ..functions import namespace
from .measuring import scale
from .verdicts import FAIL, PASS, by_two_looks, decide, has_kink, position

ENOUGH = 1e-4  # of a sum of entries: what the plain loop and the propagated changes may differ by
CLEAR = 1e-3  # of a single entry


def audit(reference, judged, count, seed):
    """Measure drawn entries again; return a line about it and the problems.

    They move together, each along the sign of its gradient and by a step that lets it weigh about as much as the
    others; one by one if their sum is wrong. The entry with the largest relative error of each array is among them.
    """
    chosen = _chosen(judged, count, seed)
    if not chosen:
        return "", []
    apart, sums = _together(reference, judged, chosen)
    if not apart <= ENOUGH * sums:
        return _singly(reference, judged, chosen)
    share = apart / sums if sums else 0.0
    return f"{len(chosen)} of {len(chosen)} entries agree with the plain loop, moved together to {share:.0e}", []


def _chosen(judged, count, seed):
    """Return places (name, index) of entries that pass or fail: what is undecided or on a kink tells nothing."""
    rng, chosen, told, left = random_generator(seed, "audit"), set(), {}, 0
    for name, one in judged.items():
        xp = namespace(one.a)
        told[name] = xp.nonzero(xp.reshape((one.codes == PASS) | (one.codes == FAIL), (-1,)))[0]
        left += told[name].size
        if told[name].size:
            size = xp.maximum(xp.abs(one.a), xp.abs(one.n))
            error = xp.where(one.codes == PASS, xp.abs(one.a - one.n) / xp.where(size > 0, size, 1.0), -1.0)
            furthest = int(xp.argmax(error)) if bool((one.codes == PASS).any()) else int(told[name][0])
            chosen.add((name, position(furthest, one.n.shape)))
    names = [name for name, entries in told.items() if entries.size]
    while len(chosen) < min(count, left):
        name = names[rng.integers(len(names))]
        entry = int(told[name][rng.integers(told[name].size)])
        chosen.add((name, position(entry, judged[name].n.shape)))
    return sorted(chosen)


def _together(reference, judged, chosen):
    """Return (difference, sum) of the changes of the loss when all chosen entries move together."""
    steps = {name: reference.step(name) for name in {name for name, _ in chosen}}
    n = {(name, index): float(judged[name].n[index]) for name, index in chosen}
    weights = sorted(abs(n[name, index]) * steps[name] for name, index in chosen)
    middle, ends, promised = weights[len(weights) // 2], ({}, {}), 0.0
    for name, index in chosen:
        value, slope = reference.host[name][index], n[name, index]
        size = abs(slope) * steps[name]
        move = math.copysign(steps[name] * min(1.0, middle / size if size else 1.0), slope)
        for side, sign in zip(ends, (1, -1), strict=True):
            side[name, index] = value + value.dtype.type(sign * move)
        promised += slope * (float(ends[0][name, index]) - float(ends[1][name, index]))
    up, down = reference.outputs(*map(reference.moved, ends))
    return abs(float(reference.weights @ (up - down)) - promised), abs(promised)


def _singly(reference, judged, chosen):
    wrong, furthest = [], 0.0
    for name, index in chosen:
        n = float(judged[name].n[index])
        rows = [reference.entry(name, index, h) for h in scale(reference.step(name))]
        code, measured, bar = decide(n, rows, CLEAR, 0.0)
        if code == FAIL and _settled(reference, n, rows):
            wrong.append((name, index, n, measured))
        if math.isfinite(bar):
            furthest = max(abs(measured - n), furthest)
    line = f"{len(chosen) - len(wrong)} of {len(chosen)} entries agree with the plain loop, largest difference"
    problems = []
    if wrong:
        name, index, n, measured = wrong[0]
        problems.append(
            f"the numerical gradient itself is doubtful: at {name} {index} it is {n:.6e}, but the plain loop through "
            f"loss finds {measured:.6e}; is the difference of a layer behind {name} right?"
        )
    return f"{line} {furthest:.0e}", problems


def _settled(reference, n, rows):
    """Return whether slopes stay the same, and other than n, as the step shrinks.

    Among kinks that lie nearer than the smallest step that tells, the plain loop finds a slope between others.
    """
    table = reference.xp.asarray(rows)
    looks = by_two_looks(n + 0 * table[1:, 2], table[:-1, :2].T, table[1:, :2].T, CLEAR, 0.0, table[1:, 2])
    return bool((looks == FAIL).any()) and not has_kink(rows)
