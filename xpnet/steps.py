"""How far an entry moves in a numerical derivative: a step relative to it, and other steps where the first one is
in doubt (book, 4.3).

Two errors fight over a step h: the function bends within it, and the round-off of its values is divided by it. Nobody
knows on which scale a function bends. The first guess is that of its argument, so that 1e-12 and 1e9 are served like 1.
Where the values contradict that guess, further steps are tried, and the one with the smallest error bar counts.
"""

import math
from dataclasses import dataclass

from .functions import detached, namespace

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

    Where all are zero, or none is finite, it is ``default_step`` itself. Waits for the device.
    """
    x = detached(x)
    xp = namespace(x)
    finite = xp.where(xp.isfinite(x), xp.abs(x), xp.zeros_like(x))
    largest = float(xp.max(finite)) if 0 not in x.shape else 0.0
    step = default_step(x.dtype, xp) * (2.0 ** (math.frexp(largest)[1] - 1) if largest else 1.0)
    return max(step, float(xp.finfo(x.dtype).smallest_normal))


def require_step(h):
    """Return the step ``h`` as a float; raise ValueError unless it is a positive number."""
    from numbers import Real

    if not (isinstance(h, Real) and h > 0 and math.isfinite(h)):
        raise ValueError(f"h is {h}; it must be a positive number, about 1e-4 in float64")
    return float(h)  # a NumPy scalar would promote float32
