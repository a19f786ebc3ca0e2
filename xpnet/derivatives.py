"""Numerical derivatives of functions of one number, or of each entry of an array by itself (book, 4.3)."""

from __future__ import annotations

import math

from array_api_compat import device

from .annotations import Array, Function
from .arrays import detached, require_precision
from .functions import namespace
from .steps import RATIO, Look, look_again, or_nan, require_step, settled

EPS = 2.0**-52  # of Python's numbers


def numerical_diff(f: Function, x: Array, *, h: float | str = "auto", method: str = "central") -> Array:
    """Return the derivative of the function ``f`` at ``x`` from two of its values, ``h`` away.

    ``x`` is a number, or an array of floats at each entry of which an elementwise ``f`` is differentiated.
    ``method="central"`` is (f(x+h) − f(x−h)) / 2h, wrong by h²·f‴/6; ``"forward"`` is (f(x+h) − f(x)) / h, wrong
    by h·f″/2. In arrays the divisor is the step as stored.

    ``h`` is by default 1e-4 for a number between 0.01 and 100; elsewhere it goes with its power of ten. For arrays it
    is as in ``numerical_gradient``, each entry's own. If round-off hides the difference, further steps are tried.
    Raises ValueError if a given ``h`` is not positive, or so small that x + h equals x or, for a number, is off by a
    thousandth of h; TypeError for integer or complex arrays and for half precision.

    Source: Deep Learning from Scratch, 4.3.1.

    >>> numerical_diff(lambda x: 0.01 * x**2 + 0.1 * x, 5)
    0.1999999999990898
    """
    if method not in ("central", "forward"):
        raise ValueError(f"method is {method!r}; it must be 'central' or 'forward'")
    step = None if isinstance(h, str) and h == "auto" else require_step(h)
    if isinstance(x, (int, float)):
        return _number_diff(f, x, step, method)
    xp = require_precision("x", x)
    if step is None:
        return _array_diff(f, x, method)
    up, down = x + step, x if method == "forward" else x - step
    if bool(xp.any((up == x) | (x - step == x))):
        raise ValueError(f"h = {h} is too small: x + h is stored as x, so the difference would be 0; use about 1e-4")
    return (f(up) - f(down)) / (up - down)


def tangent_line(f: Function, x: Array) -> Function:
    """Return the tangent of ``f`` at the number ``x`` as a function of one number.

    Source: Deep Learning from Scratch, 4.3.2 (figures 4-6 and 4-7).

    >>> tangent = tangent_line(lambda x: x**2, 3.0)
    >>> round(tangent(4.0), 6)
    15.0
    """
    slope, value = numerical_diff(f, x), f(x)
    return lambda t: value + slope * (t - x)


def _number_diff(f, x, h, method):
    """Differentiate at a plain number, in Python's own arithmetic: the book's numbers to the last digit."""
    step = h or _step_for_number(x)
    up, down = x + step, x if method == "forward" else x - step
    run = step if method == "forward" else 2 * step
    if up == x or x - step == x:
        raise ValueError(f"h = {step} is too small: x + h is stored as x, so the difference would be 0; use about 1e-4")
    if abs((up - down) - run) > 1e-3 * run:
        raise ValueError(
            f"h = {step} is too small beside x = {x}, x + h is stored as {up}; use about {abs(x) * 1e-4:.0e}"
        )
    high, low = f(up), f(down)
    found = (high - low) / run
    if h is not None or step >= 1e-4 or not isinstance(found, float):
        return found

    def measure(places, steps):
        sides = or_nan(f, x + steps[0]), or_nan(f, x if method == "forward" else x - steps[0])
        moved = steps[0] * run / step
        return [((sides[0] - sides[1]) / moved, EPS * max(map(abs, sides)) / moved)]

    noise = EPS * max(abs(high), abs(low)) / run
    if noise <= 1e-10 * abs(found):
        return found
    look = Look(0, step, RATIO, 1e-4, found, 3 * noise)
    look_again(measure, [look], 1e-10)
    return look.best


def _step_for_number(x):
    """Return the book's 1e-4, and beside what is far from 1 a step of about its size times that."""
    # beside a number so small that its own steps vanish, x is as good as 0
    ordinary = abs(x) < 1e-290 or 1e-2 <= abs(x) <= 1e2 or not math.isfinite(x)
    power = 0 if ordinary else math.floor(math.log10(abs(x)))
    return 10.0 ** (power - 4 - 2 * (power > 0))


def _array_diff(f, x, method):
    """Differentiate an elementwise ``f`` at every entry of ``x``, each with a step of its own."""
    xp = namespace(x)
    x = detached(x)
    points = xp.reshape(x, (-1, 1))

    def value(f, moved):
        found = f(xp.reshape(moved, x.shape))
        found = xp.full(x.shape, found, dtype=x.dtype, device=device(x)) if found is math.nan else found
        if getattr(found, "shape", None) != x.shape:
            raise ValueError(
                f"f returned shape {tuple(getattr(found, 'shape', ()))} for x of shape {tuple(x.shape)}; "
                "numerical_diff takes an elementwise f, and numerical_gradient one that returns a number"
            )
        return xp.reshape(xp.astype(detached(found), x.dtype, copy=False), (-1,))

    def ends(places, steps, f=f):
        if isinstance(steps, list):  # of some entries; the others stay where they are
            at = dict(zip(places, steps, strict=True))
            steps = xp.asarray([at.get(n, 0.0) for n in range(points.shape[0])], dtype=x.dtype, device=device(x))
        base = xp.reshape(x, (-1,))
        sides = base + steps, base - (0.0 if method == "forward" else 1.0) * steps
        chosen = xp.asarray(list(places), device=device(x))
        values = [xp.take(value(f, side), chosen) for side in sides]
        return xp.stack(values), xp.stack([xp.take(xp.abs(side - base), chosen) for side in sides])

    def again(places, steps):
        return ends(places, steps, lambda x: or_nan(f, x))

    return xp.reshape(settled(points, None, ends, again, lambda: value(f, x)[:, None]), x.shape)
