"""Numerical gradients of any function of an array, and gradient descent on it (book, 4.4)."""

from __future__ import annotations

import math
import pickle
from functools import partial
from typing import Any

from array_api_compat import device, is_writeable_array

from .annotations import Array, Function, Map
from .arrays import detached, require_precision, shares_memory
from .functions import namespace
from .moves import CHANGES, both_sides, left_alone, positions, scalar, stack_numbers
from .scalars import is_number, require_count
from .steps import default_step, or_nan, require_step, settled, step_for


def numerical_gradient(
    f: Function,
    x: Array,
    *,
    h: float | None = None,
    points: bool = False,
    stacked: bool = False,
    memory: float = 2**26,
    map: Map | None = None,
) -> Array:
    """Return the central-difference gradient of a scalar function ``f`` at ``x``, in the shape of ``x``.

    A slope far smaller than the largest is less exact, as are all beside a large ``f``.

    Source: Deep Learning from Scratch, 4.4.

    Parameters
    ----------
    f : callable
        Called with ``x`` itself, one entry at a time moved by ±h and put back, also when ``f`` raises; so
        ``lambda W: loss(W)`` and ``lambda _: net.loss(x, t)`` both work. Where ``x`` cannot be written, ``f`` gets a
        moved copy, and an ``f`` that ignores it is reported.
    x : array
        Where to differentiate, of float32 or float64.
    h : float
        The step, the same for all entries; the divisor is the step as stored. By default it is 2⁻¹³ in float64 and 2⁻⁶
        in float32 beside entries of size 1, a small part of an entry that is smaller, and another where the values
        contradict that.
    points : bool
        Whether ``x`` holds points (P, …), at each of which ``f`` is differentiated.
    stacked : bool
        Whether ``f`` maps a stack (S, …) of inputs to S values, so that one call does the work of S.
    memory : float
        With ``stacked``, how many bytes the inputs of one stack may take.
    map : callable
        Such as that of a ``ProcessPoolExecutor``: lets other processes call ``f``, which must be picklable.

    Returns
    -------
    array

    Raises
    ------
    TypeError
        For integer or complex ``x``.
    ValueError
        If ``h`` vanishes beside ``x``, ``f`` ignores its argument or returns anything but one value per input.

    Examples
    --------
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


def gradient_descent(
    f: Function, init_x: Array, lr: float = 0.01, step_num: int = 100, *, return_path: bool = False
) -> Any:
    """Return the point that ``step_num`` steps x − lr·∇f(x) lead to from ``init_x``, which is left alone.

    Source: Deep Learning from Scratch, 4.4.1.

    Parameters
    ----------
    f : callable
        As in ``numerical_gradient``.
    init_x : array
        The start, of floats.
    lr : float
        The learning rate, above 0 to go downhill.
    step_num : int
        At least 0.
    return_path : bool
        Whether the points on the way are returned too.

    Returns
    -------
    array, or (array, array)
        The point; with ``return_path`` also the path (step_num + 1, …), which begins at ``init_x``.

    Raises
    ------
    ValueError
        If ``lr`` is not a finite number or ``step_num`` not a whole number, or the points run away to where a step of
        the numerical gradient vanishes beside them. What ``numerical_gradient`` raises comes through.

    Examples
    --------
    >>> import numpy as np
    >>> gradient_descent(lambda x: np.sum(x**2), np.asarray([-3.0, 4.0]), lr=0.1).round(6) + 0.0
    array([0., 0.])
    """
    xp = require_precision("init_x", init_x)
    if not is_number(lr, math.isfinite):
        raise ValueError(f"lr is {lr!r}; it must be a finite number, above 0 to go downhill")
    require_count("step_num", step_num, lowest=0)
    x = xp.asarray(detached(init_x), device=device(init_x), copy=True)
    path, near = [x], default_step(x.dtype, xp)
    if bool(xp.any(x + near == x)):  # a start so far out has a scale of its own
        near = step_for(x)
    for step in range(step_num):
        if not bool(xp.all(xp.abs((x + near) - x) > 0)):  # false for NaN too
            raise ValueError(f"the descent diverges: after {step} steps x is {x}; choose lr smaller than {lr}")
        x = x - float(lr) * numerical_gradient(f, x)
        path.append(x)
    return (x, xp.stack(path)) if return_path else x


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
