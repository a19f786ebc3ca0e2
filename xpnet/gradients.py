"""Numerical differentiation, numerical gradients and gradient descent of any function (book, 4.3 and 4.4)."""

import contextlib
import itertools
import math
from numbers import Integral, Real

from array_api_compat import device, is_writeable_array

from .functions import detached, namespace, require_floats, require_precision, shares_memory
from .steps import default_step, require_step, step_for


def numerical_diff(f, x, *, h=1e-4, method="central"):
    """Return the derivative of the function ``f`` at ``x`` from two of its values, ``h`` away.

    ``x`` is a number, or an array of floats at each entry of which an elementwise ``f`` is differentiated.
    ``method="central"`` is (f(x+h) − f(x−h)) / 2h, wrong by h²·f‴/6; ``"forward"`` is (f(x+h) − f(x)) / h, wrong
    by h·f″/2. In arrays the divisor is the step as stored. Raises ValueError if ``h`` is not positive, or so small
    that x + h equals x or, for a number, is off by a thousandth of h; TypeError for integer or complex arrays.

    Source: Deep Learning from Scratch, 4.3.1.

    >>> numerical_diff(lambda x: 0.01 * x**2 + 0.1 * x, 5)
    0.1999999999990898
    """
    if method not in ("central", "forward"):
        raise ValueError(f"method is {method!r}; it must be 'central' or 'forward'")
    h = require_step(h)
    number = isinstance(x, (int, float))
    if not number:
        require_floats("x", x)
    up, down = x + h, x if method == "forward" else x - h
    if number:
        step = h if method == "forward" else 2 * h  # as in the book, to the last digit
        vanishes, off = up == x or x - h == x, abs((up - down) - step) > 1e-3 * step
    else:
        step = up - down
        vanishes, off = bool(namespace(x).any((up == x) | (x - h == x))), False
    if vanishes:
        raise ValueError(f"h = {h} is too small: x + h is stored as x, so the difference would be 0; use about 1e-4")
    if off:
        raise ValueError(f"h = {h} is too small beside x = {x}, x + h is stored as {up}; use about {abs(x) * 1e-4:.0e}")
    return (f(up) - f(down)) / step


def tangent_line(f, x):
    """Return the tangent of ``f`` at the number ``x`` as a function of one number.

    Source: Deep Learning from Scratch, 4.3.2 (figures 4-6 and 4-7).

    >>> tangent = tangent_line(lambda x: x**2, 3.0)
    >>> round(tangent(4.0), 6)
    15.0
    """
    slope, value = numerical_diff(f, x), f(x)
    return lambda t: value + slope * (t - x)


def numerical_gradient(f, x, *, h=None, points=False, stacked=False, memory=2**26):
    """Return the central-difference gradient of a scalar function ``f`` at ``x``, in the shape of ``x``.

    ``f`` is called with ``x`` itself, one entry at a time moved by ±h and put back, also when ``f`` raises; so
    ``lambda W: loss(W)`` and ``lambda _: net.loss(x, t)`` both work. Where ``x`` cannot be written, ``f`` gets a
    moved copy, and an ``f`` that ignores it is reported.

    ``points=True``: ``x`` holds points (P, …), and ``f`` is differentiated at each.
    ``stacked=True``: ``f`` maps a stack (S, …) of inputs to S values, so that one call does the work of S; as many
    inputs go into one stack as fit into ``memory`` bytes. ``x`` itself is not touched.

    ``h`` is the step, by default 2⁻¹³ in float64 and 2⁻⁶ in float32; the divisor is the step as stored. Raises
    TypeError for integer or complex ``x``, ValueError if ``h`` vanishes beside ``x``, if ``f`` ignores its argument
    or if it returns anything but one value per input.

    Source: Deep Learning from Scratch, 4.4.

    >>> import numpy as np
    >>> numerical_gradient(lambda x: np.sum(x**2), np.asarray([3.0, 4.0]))
    array([6., 8.])
    """
    require_floats("x", x)
    xp = namespace(x)
    if points and not x.ndim:
        raise ValueError("points=True needs an array of points, but x has no axis")
    h = require_step(default_step(x.dtype, xp) if h is None else h)
    if 0 in x.shape:
        return xp.zeros_like(x)
    if stacked:
        return _gradient_stacked(f, x, h, points, memory)
    if points:
        return xp.stack([_gradient_loop(f, x[i, ...], h) for i in range(x.shape[0])])
    return _gradient_loop(f, x, h)


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
    xp = require_floats("init_x", init_x)
    if not isinstance(lr, Real) or not math.isfinite(lr):
        raise ValueError(f"lr is {lr!r}; it must be a finite number, above 0 to go downhill")
    if not isinstance(step_num, Integral) or step_num < 0:
        raise ValueError(f"step_num is {step_num!r}; it must be a whole number of at least 0")
    x = xp.asarray(init_x, copy=True)
    path = [x]
    for step in range(step_num):
        if bool(xp.any(x + default_step(x.dtype, xp) == x)):
            raise ValueError(f"the descent diverges: after {step} steps x is {x}; choose lr smaller than {lr}")
        x = x - float(lr) * numerical_gradient(f, x)
        path.append(x)
    return (x, xp.stack(path)) if return_path else x


def positions(shape):
    """Return the indices of all entries of an array, in order."""
    return list(itertools.product(*map(range, shape)))


@contextlib.contextmanager
def entry_at(x, index, value):
    """Give ``x`` with one entry at ``value``: ``x`` itself, put back in the end, or a copy where it is read-only."""
    if not is_writeable_array(x):
        yield moved(x, index, value)
        return
    stored = namespace(x).asarray(x[index], copy=True)
    x[index] = value
    try:
        yield x
    finally:
        x[index] = stored


def both_sides(f, x, h, progress=None, places=None):
    """Return the values of ``f`` with each entry of ``x`` moved by +h and by −h, and the steps as stored: (2, …) each.

    With ``places``, a list of indices, both are (2, len(places)). Every plain loop of this library is this one; it
    reads no value on the host but whether a step vanished. Raises ValueError if one did, or if ``f`` returns no number.
    """
    xp = namespace(x)
    chosen = positions(x.shape) if places is None else places
    values, steps = [], []
    for index in chosen:
        stored = xp.asarray(x[index], copy=True)
        for end in (stored + h, stored - h):
            with entry_at(x, index, end) as moved_x:
                values.append(_scalar(f(moved_x)))
            steps.append(xp.abs(end - stored))
        if progress:
            progress(1)
    shape = (2, *x.shape) if places is None else (2, len(chosen))
    values, steps = (xp.reshape(xp.reshape(stack_numbers(n, x), (-1, 2)).T, shape) for n in (values, steps))
    if bool(xp.any(steps == 0)):
        raise ValueError(f"h = {h} is too small: an entry plus h is stored as the entry itself")
    return values, steps


def _gradient_loop(f, x, h):
    """Differentiate with two calls of ``f`` for every entry; the result never leaves the device."""
    xp = namespace(x)
    values, steps = both_sides(f, x, h)
    rise = values[0, ...] - values[1, ...]
    if not is_writeable_array(x) and not bool(xp.any(rise != 0)):
        _require_argument_used(f, x)
    return xp.asarray(rise / (steps[0, ...] + steps[1, ...]))


def _scalar(value):
    """Return what ``f`` returned if it is one number, on whatever device it lies."""
    if isinstance(value, (int, float)):
        return value
    if getattr(value, "shape", None) == ():
        return namespace(value).asarray(value, copy=True)  # f may have returned a view of x, which is about to move
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    raise ValueError(
        f"f returned {type(value).__name__}{shape}; a gradient needs one number (sum or average it, or pass "
        "stacked=True if f takes a stack of inputs)"
    )


def stack_numbers(numbers, x):
    """Return numbers and 0-d arrays as a 1-D array in the dtype and on the device of ``x``."""
    xp, where = namespace(x), device(x)

    def array(n):
        if isinstance(n, (int, float)):  # which some libraries would store in fewer digits than x has
            return xp.asarray(n, dtype=x.dtype, device=where)
        return xp.astype(xp.asarray(n, device=where), x.dtype, copy=False)

    return xp.stack([array(n) for n in numbers])


def moved(x, index, value):
    """Return a copy of ``x`` with one entry at ``value``, built without writing."""
    xp = namespace(x)
    here = xp.ones((), dtype=xp.bool, device=device(x))
    for axis, i in enumerate(index):
        line = xp.arange(x.shape[axis], device=device(x)) == i
        here = here & xp.reshape(line, tuple(-1 if a == axis else 1 for a in range(x.ndim)))
    return xp.where(here, value, x)


def _require_argument_used(f, x):
    """All differences were zero on copies: either f is flat here, or it never looked at them."""
    xp = namespace(x)
    try:
        answer = f(xp.full_like(x, xp.nan))
    except Exception:
        return
    if not bool(xp.any(xp.isnan(xp.asarray(answer)))):
        raise ValueError(
            f"f ignores its argument. Arrays of {type(x).__module__.partition('.')[0]} like this one cannot be "
            "written, so f gets a moved copy and must use it: write lambda W: loss(W), not lambda _: net.loss(x, t)"
        )


def _gradient_stacked(f, x, h, points, memory):
    """Differentiate with one call of ``f`` for as many moved inputs as fit into ``memory`` bytes."""
    xp = namespace(x)
    shape = x.shape[1:] if points else x.shape
    size = math.prod(shape)
    rows = xp.reshape(x, (-1, size))
    item = size * (xp.finfo(x.dtype).bits // 8)
    chunk = max(1, int(memory) // (2 * item))  # two inputs for every entry
    entries = xp.arange(size, device=device(x))
    gradients = []
    for start in range(0, rows.shape[0] * size, chunk):
        each = xp.arange(start, min(start + chunk, rows.shape[0] * size), device=device(x))
        base = xp.take(rows, each // size, axis=0)
        here = (each % size)[:, None] == entries
        plus, minus = xp.where(here, base + h, base), xp.where(here, base - h, base)
        values = f(xp.reshape(xp.concat([plus, minus]), (-1, *shape)))
        returned = tuple(getattr(values, "shape", ()))
        if returned != (2 * each.shape[0],):
            raise ValueError(
                f"f returned shape {returned} for a stack of {2 * each.shape[0]} inputs; it must return one value for "
                "each"
            )
        step = xp.sum(plus - minus, axis=-1)
        if bool(xp.any(step == 0)):
            raise ValueError(f"h = {h} is too small: an entry plus h is stored as the entry itself")
        gradients.append((values[: each.shape[0]] - values[each.shape[0] :]) / step)
    return xp.reshape(xp.concat(gradients), x.shape)
