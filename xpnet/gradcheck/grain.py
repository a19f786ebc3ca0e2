"""Outputs that come in steps: a function that rounds its argument away is flat, until the next step of its numbers.

1 + x² is 1 to the last digit for every x below 1e-8, and so are all slopes of log(1 + x²) there 0, however small the
move. How high such a step is tells what round-off may do to the outputs; short lines, on which nothing changes, do not.
Where outputs leave flat land gently, as those of a dead unit do, there is no step, and one far higher than round-off
belongs to the function, as that of round(x) does.
"""

import math

from ..backend import random_generator
from .contracts import ROUND_OFF

LINES = 3  # along which steps are looked for
NEAREST, FARTHER = 2.0**-40, 8.0  # of the arrays: the first move, and by how much the next ones are longer
SINGLE = 2.0**-18  # of the outputs: steps of what computes in float32 inside, whatever it takes and returns
HALVINGS = 30  # of the move in which outputs change first
ABRUPT = 8.0  # times as much as they would change on the way if they changed evenly


def grain(outputs, base, values, flat, eps):
    """Return the height of the steps in which the outputs of ``flat``, a mask, first change; 0 where there are none.

    ``outputs(arrays)`` are those of {name: array}, ``base`` those of ``values``, ``eps`` their unit round-off.
    """
    rng, highest = random_generator(0, "audit"), 0.0
    for _ in range(LINES):
        draws = {name: rng.standard_normal(value.shape) for name, value in values.items()}

        def at(share, draws=draws):
            return outputs({name: _moved(value, share, draws[name]) for name, value in values.items()})

        def change(share, at=at):
            return float(abs((at(share) - base)[flat]).max())

        largest = abs(at(math.inf))
        largest = max(float(largest[largest < math.inf].max(initial=0.0)), float(abs(base).max()))
        height = _first_step(change)
        if height <= max(ROUND_OFF * eps, SINGLE) * largest:
            highest = max(highest, height)
    return highest


def _moved(value, share, draw):
    """Return an array moved by a share of itself, at most by its largest entry, and by 1 if that is less."""
    size = float(abs(value).max(initial=0.0))
    move = min(share * (size or 1.0), max(size, 1.0))
    return value + move * draw


def _first_step(change):
    """Return by how much outputs change at once where they change first, 0 if they do so evenly."""
    same, share, changed = 0.0, NEAREST, change(NEAREST)
    while changed == 0 and share < 1 / NEAREST:
        same, share = share, FARTHER * share
        changed = change(share)
    if not 0 < changed < math.inf:
        return 0.0
    evenly = changed / share
    for _ in range(HALVINGS):
        middle = 0.5 * (same + share)
        if now := change(middle):
            share, changed = middle, now
        else:
            same = middle
    return changed if changed > ABRUPT * evenly * (share - same) else 0.0
