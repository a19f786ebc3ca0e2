"""Numerical differentiation, numerical gradients and gradient descent of any function (book, 4.3 and 4.4)."""

import math
import pickle
from functools import partial
from numbers import Integral, Real

from array_api_compat import device, is_writeable_array

from .arrays import detached, require_precision, shares_memory
from .functions import namespace
from .moves import CHANGES, both_sides, left_alone, positions, scalar, stack_numbers
from .steps import RATIO, Look, default_step, look_again, or_nan, require_step, settled, step_for

EPS = 2.0**-52  # of Python's numbers


def numerical_diff(f, x, *, h="auto", method="central"):
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
    h = None if isinstance(h, str) and h == "auto" else require_step(h)
    if isinstance(x, (int, float)):
        return _number_diff(f, x, h, method)
    xp = require_precision("x", x)
    if h is None:
        return _array_diff(f, x, method)
    up, down = x + h, x if method == "forward" else x - h
    if bool(xp.any((up == x) | (x - h == x))):
        raise ValueError(f"h = {h} is too small: x + h is stored as x, so the difference would be 0; use about 1e-4")
    return (f(up) - f(down)) / (up - down)


def tangent_line(f, x):
    """Return the tangent of ``f`` at the number ``x`` as a function of one number.

    Source: Deep Learning from Scratch, 4.3.2 (figures 4-6 and 4-7).

    >>> tangent = tangent_line(lambda x: x**2, 3.0)
    >>> round(tangent(4.0), 6)
    15.0
    """
    slope, value = numerical_diff(f, x), f(x)
    return lambda t: value + slope * (t - x)


def numerical_gradient(f, x, *, h=None, points=False, stacked=False, memory=2**26, map=None):
    """Return the central-difference gradient of a scalar function ``f`` at ``x``, in the shape of ``x``.

    ``f`` is called with ``x`` itself, one entry at a time moved by ±h and put back, also when ``f`` raises; so
    ``lambda W: loss(W)`` and ``lambda _: net.loss(x, t)`` both work. Where ``x`` cannot be written, ``f`` gets a
    moved copy, and an ``f`` that ignores it is reported.

    ``points=True``: ``x`` holds points (P, …), and ``f`` is differentiated at each.
    ``stacked=True``: ``f`` maps a stack (S, …) of inputs to S values, so that one call does the work of S; as many
    inputs go into one stack as fit into ``memory`` bytes. ``x`` itself is not touched.
    ``map``, such as that of a ``ProcessPoolExecutor``, lets other processes call ``f``, which must be picklable.

    ``h`` is the step, by default 2⁻¹³ in float64 and 2⁻⁶ in float32; the divisor is the step as stored. Raises
    TypeError for integer or complex ``x``, ValueError if ``h`` vanishes beside ``x``, if ``f`` ignores its argument
    or if it returns anything but one value per input.

    Source: Deep Learning from Scratch, 4.4.

    >>> import numpy as np
    >>> numerical_gradient(lambda x: np.sum(x**2), np.asarray([3.0, 4.0]))
    array([6., 8.])
    """
    xp = require_precision("x", x)
    if points and not x.ndim:
        raise ValueError("points=True needs an array of points, but x has no axis")
    if 0 in x.shape:
        return xp.zeros_like(detached(x))
    if is_writeable_array(x) and shares_memory(x):
        raise ValueError(
            f"entries of x, of shape {tuple(x.shape)}, share memory, so that none can move alone; pass a copy of x, "
            "and let f use its argument"
        )
    h = None if h is None else require_step(h)
    if stacked and map is not None:
        raise ValueError("stacked=True gives f many inputs in one call, and map one in each; give one of the two")
    if stacked:
        return _gradient_stacked(f, detached(x), h, points, memory)
    with left_alone(x, CHANGES):
        if points:
            return xp.stack([_gradient_loop(f, detached(x)[i, ...], h, map) for i in range(x.shape[0])])
        return _gradient_loop(f, x, h, map)


def gradient_descent(f, init_x, lr=0.01, step_num=100, *, return_path=False):
    """Return the point that ``step_num`` steps x − lr·∇f(x) lead to from ``init_x``, which is left alone.

    With ``return_path=True``, return (point, path): path (step_num + 1, …) begins at ``init_x``. Raises ValueError if
    ``lr`` is not a finite number or ``step_num`` not a whole number ≥ 0, if the points run away to where a step of the
    numerical gradient vanishes beside them, and what ``numerical_gradient`` raises.

    Source: Deep Learning from Scratch, 4.4.1.

    >>> import numpy as np
    >>> gradient_descent(lambda x: np.sum(x**2), np.asarray([-3.0, 4.0]), lr=0.1).round(6) + 0.0
    array([0., 0.])
    """
    xp = require_precision("init_x", init_x)
    if not isinstance(lr, Real) or not math.isfinite(lr):
        raise ValueError(f"lr is {lr!r}; it must be a finite number, above 0 to go downhill")
    if not isinstance(step_num, Integral) or step_num < 0:
        raise ValueError(f"step_num is {step_num!r}; it must be a whole number of at least 0")
    x = xp.asarray(detached(init_x), copy=True)
    path, near = [x], default_step(x.dtype, xp)
    if bool(xp.any(x + near == x)):  # a start so far out has a scale of its own
        near = step_for(x)
    for step in range(step_num):
        if not bool(xp.all(xp.abs((x + near) - x) > 0)):  # false for NaN too
            raise ValueError(f"the descent diverges: after {step} steps x is {x}; choose lr smaller than {lr}")
        x = x - float(lr) * numerical_gradient(f, x)
        path.append(x)
    return (x, xp.stack(path)) if return_path else x


def _number_diff(f, x, h, method):
    """Differentiate at a plain number, in Python's own arithmetic: the book's numbers to the last digit."""
    # beside a number so small that its own steps vanish, x is as good as 0
    ordinary = abs(x) < 1e-290 or 1e-2 <= abs(x) <= 1e2 or not math.isfinite(x)
    power = 0 if ordinary else math.floor(math.log10(abs(x)))
    step = h or 10.0 ** (power - 4 - 2 * (power > 0))
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
    look = Look(0, step, RATIO, 1e-4, previous=found, best=found, bar=3 * noise)
    look_again(measure, [look], 1e-10)
    return look.best


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


def _gradient_loop(f, x, h, map):
    """Differentiate with two calls of ``f`` for every entry, and more for those in doubt."""
    xp = namespace(x)
    indices = positions(x.shape)

    def ends(places, steps, f=f):
        return both_sides(f, x, steps, places=[indices[place] for place in places], map=map)

    def again(places, steps):
        return ends(places, steps, partial(or_nan, f))

    def center():
        return xp.reshape(stack_numbers([scalar(f(x))], x), (1, 1))

    gradient = settled(xp.reshape(detached(x), (1, -1)), h, ends, again, center)
    if (map is not None or not is_writeable_array(x)) and not bool(xp.any(gradient != 0)):
        _require_argument_used(f, x, map)
    return xp.reshape(gradient, x.shape)


def _require_argument_used(f, x, map):
    """All differences were zero on copies: either f is flat here, or it never looked at them."""
    xp, library = namespace(x), type(x).__module__.partition(".")[0]
    why, everywhere = f"Arrays of {library} like this one cannot be written", xp.full_like(x, xp.nan)
    if map is not None:  # f may hold x itself, which arrives with it
        f, everywhere = pickle.loads(pickle.dumps((f, x)))
        why = "Other processes call it"
        if is_writeable_array(everywhere):
            detached(everywhere)[...] = xp.nan
        else:
            everywhere = xp.full_like(x, xp.nan)
    try:
        answer = f(everywhere)
    except Exception:
        return
    if not bool(xp.any(xp.isnan(xp.asarray(answer)))):
        raise ValueError(
            f"f ignores its argument. {why}, so f gets a moved copy and must use it: write lambda W: loss(W), not "
            "lambda _: net.loss(x, t)"
        )


def _gradient_stacked(f, x, h, points, memory):
    """Differentiate with one call of ``f`` for as many moved inputs as fit into ``memory`` bytes."""
    xp = namespace(x)
    shape = x.shape[1:] if points else x.shape
    size = math.prod(shape)
    rows = xp.reshape(x, (-1, size))
    chunk = max(1, int(memory) // (2 * size * (xp.finfo(x.dtype).bits // 8)))  # two inputs for every entry
    entries = xp.arange(size, device=device(x))

    def run(f, stack):
        values = f(xp.reshape(stack, (-1, *shape)))
        returned = tuple(getattr(values, "shape", ()))
        if returned != (stack.shape[0],):
            raise ValueError(
                f"f returned shape {returned} for a stack of {stack.shape[0]} inputs; it must return one value for each"
            )
        return xp.astype(detached(values), x.dtype, copy=False)

    def ends(places, steps, f=f):
        values, taken = [], []
        for start in range(0, len(places), chunk):
            stop = min(start + chunk, len(places))
            each = xp.asarray(list(places[start:stop]), device=device(x))
            step = steps if isinstance(steps, float) else steps[start:stop]
            step = xp.reshape(xp.asarray(step, dtype=x.dtype, device=device(x)), (-1, 1))
            base = xp.take(rows, each // size, axis=0)
            here = (each % size)[:, None] == entries
            plus, minus = xp.where(here, base + step, base), xp.where(here, base - step, base)
            values.append(xp.reshape(run(f, xp.concat([plus, minus])), (2, -1)))
            taken.append(xp.stack([xp.sum(xp.abs(end - base), axis=-1) for end in (plus, minus)]))
        if bool(xp.any(xp.concat(taken, axis=1) == 0)):
            raise ValueError(f"h = {steps} is too small: an entry plus h is stored as the entry itself")
        return xp.concat(values, axis=1), xp.concat(taken, axis=1)

    def again(places, steps):
        def careful(stack):
            value = or_nan(f, stack)
            return xp.full((stack.shape[0],), value, dtype=x.dtype, device=device(x)) if value is math.nan else value

        return ends(places, steps, careful)

    def center():
        starts = range(0, rows.shape[0], chunk)
        parts = [run(f, rows[start : min(start + chunk, rows.shape[0]), :]) for start in starts]
        return xp.reshape(xp.concat(parts), (-1, 1))

    return xp.reshape(settled(rows, h, ends, again, center), x.shape)
