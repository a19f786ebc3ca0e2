"""Pictures of functions: tangents, differences and their errors, gradients and gradient descent (book, 4.3 and 4.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..annotations import Array, Function
from ..backend import to_numpy
from ..derivatives import numerical_diff, tangent_line
from ..functions import namespace
from .axes import BLACK, BLUE, LINES, VERMILION, subplots


def tangent(f: Function, x: Array, ax: Any = None, *, span: tuple[float, float] | None = None) -> Any:
    """Draw ``f``, a function of one number, with its tangent at ``x``; ``span`` is (from, to) on the x axis.

    Source: Deep Learning from Scratch, figures 4-6 and 4-7.
    """
    ax, _, _ = _with_tangent(f, x, ax, span, color=VERMILION, linestyle="--")
    ax.plot([x], [float(f(x))], color=VERMILION, marker="o", linestyle="", label=f"x = {x:g}")
    ax.legend()
    return ax


def secants(f: Function, x: Array, h: float, ax: Any = None, *, span: tuple[float, float] | None = None) -> Any:
    """Draw the lines whose slopes are the forward and the central difference of ``f`` at ``x``, beside the tangent.

    Source: Deep Learning from Scratch, figure 4-5.

    Parameters
    ----------
    f : callable
        A function of one number.
    x : float
        Where.
    h : float
        The step of the differences.
    ax : matplotlib axes
        New ones by default.
    span : (float, float)
        From where to where on the x axis.

    Returns
    -------
    matplotlib axes
    """
    ax, low, high = _with_tangent(f, x, ax, span, color=BLACK, linestyle=":")
    for method, start, style in (("forward", x, LINES[1]), ("central", x - h, LINES[2])):
        slope = float(numerical_diff(f, x, h=h, method=method))
        ends = [float(f(start)) + slope * (t - start) for t in (low, high)]
        ax.plot([low, high], ends, **style | {"marker": ""}, label=f"{method} difference, slope {slope:.4g}")
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
    for place, name in ((x - h, "x − h"), (x, "x"), (x + h, "x + h")):
        ax.plot([place], [float(f(place))], color=BLACK, marker="o")
        ax.annotate(name, (place, float(f(place))), (4, -16), textcoords="offset points", bbox=box)
    ax.legend()
    return ax


def step_errors(
    f: Function,
    x: Array,
    derivative: float,
    steps: Array,
    ax: Any = None,
    *,
    label: str = "",
    lines: Sequence[dict[str, Any]] = LINES,
) -> Any:
    """Draw by how much forward and central difference of ``f`` at ``x`` miss the known ``derivative``, for many steps.

    Source: Deep Learning from Scratch, 4.3.1.

    Parameters
    ----------
    f : callable
        A function of one number.
    x : float or array ()
        Where; the dtype of an array decides the precision.
    derivative : float
        The true one.
    steps : array
        Those that vanish beside ``x``, which ``numerical_diff`` refuses, are left out.
    ax : matplotlib axes
        New ones by default.
    label : str
        What the legend says beside the method.
    lines : sequence of dict
        The styles of the two lines.

    Returns
    -------
    matplotlib axes
    """
    ax = subplots()[1] if ax is None else ax
    large_enough = [h for h in to_numpy(steps).tolist() if float(x + h) != float(x) != float(x - h)]
    for method, style in zip(("forward", "central"), lines, strict=False):
        errors = [abs(float(numerical_diff(f, x, h=h, method=method)) - derivative) for h in large_enough]
        errors = [error or math.nan for error in errors]  # a logarithmic axis has no place for 0
        ax.plot(large_enough, errors, **style, markersize=3, label=f"{method}, {label}".strip(", "))
    ax.set(xscale="log", yscale="log", xlabel="step h", ylabel="error of the derivative")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def gradient_field(points: Array, gradients: Array, ax: Any = None) -> Any:
    """Draw an arrow along −gradient, downhill, at each of ``points`` (P, 2); ``gradients`` is (P, 2) too.

    Source: Deep Learning from Scratch, figure 4-9.
    """
    ax = subplots(figsize=(5, 4.6))[1] if ax is None else ax
    points, gradients = to_numpy(points), to_numpy(gradients)
    ax.quiver(*points.T, *-gradients.T, color=BLUE, angles="xy", width=0.004)
    longest = max(math.hypot(*gradient) for gradient in gradients.tolist())
    ax.set(xlabel=f"x₀\n(longest arrow: a gradient of length {longest:.2g})", ylabel="x₁", aspect="equal")
    return ax


def descent_path(
    path: Array,
    f: Function,
    ax: Any = None,
    *,
    span: tuple[float, float] | None = None,
    label: str = "gradient descent",
) -> Any:
    """Draw the points that gradient descent on ``f`` went through, on contour lines of ``f``.

    Source: Deep Learning from Scratch, figure 4-10.

    Parameters
    ----------
    path : array (steps + 1, 2)
        As from ``gradient_descent(..., return_path=True)``.
    f : callable
        A function of single points (2,).
    ax : matplotlib axes
        New ones by default.
    span : (float, float)
        From where to where on both axes; a path that leaves it is cut there.
    label : str
        What the legend says of the path.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError
        If the path leaves all bounds and there is no ``span``.
    """
    ax = subplots(figsize=(5, 4.6))[1] if ax is None else ax
    walk = to_numpy(path)
    least, most = float(walk.min()), float(walk.max())
    if span is None and not math.isfinite(most - least):
        raise ValueError("the path leaves all bounds; pass span=(from, to) to draw a part of it")
    margin = 0.15 * (most - least) or 1.0
    low, high = (least - margin, most + margin) if span is None else span
    side = [low + (high - low) * i / 60 for i in range(61)]
    lines = ax.contour(*_on_grid(f, side, side, path), levels=9, cmap="cividis", linewidths=1)
    ax.clabel(lines, lines.levels[::2], fontsize=8, fmt="%g")
    ax.plot(*walk.T, **LINES[1] | {"linestyle": "-"}, markersize=3.5, linewidth=1, label=label)
    ax.plot(*walk[0], color=BLACK, marker="o", markersize=11, fillstyle="none", linestyle="", label="start")
    ax.set(xlabel="x₀", ylabel="x₁", aspect="equal", xlim=(low, high), ylim=(low, high))
    ax.legend(loc="upper right", framealpha=1)
    return ax


def surface(f: Function, x0: Array, x1: Array, ax: Any = None) -> Any:
    """Draw ``f`` over the plane: ``x0`` and ``x1`` are the coordinates (M,) and (N,) of a grid, ``ax`` has 3-D axes.

    ``f`` is called with single points (2,) of the library of ``x0``. Raises ValueError for axes that are not 3-D.

    Source: Deep Learning from Scratch, figure 4-8.
    """
    ax = subplots(subplot_kw={"projection": "3d"}, figsize=(5, 4.3))[1] if ax is None else ax
    if ax.name != "3d":
        raise ValueError("a surface needs 3-D axes: subplots(subplot_kw={'projection': '3d'}), or leave ax out")
    ax.plot_surface(*_on_grid(f, to_numpy(x0), to_numpy(x1), x0), cmap="viridis", edgecolor=BLACK, linewidth=0.2)
    ax.set(xlabel="x₀", ylabel="x₁", zlabel="f(x)")
    ax.set_box_aspect(None, zoom=0.95)  # at its usual size the label of the third axis lies outside
    for axis in "xyz":
        ax.locator_params(axis=axis, nbins=6)
    return ax


def _with_tangent(f, x, ax, span, **style):
    """Draw ``f`` and its tangent at ``x``; return the axes and the ends of where it was drawn."""
    ax = subplots()[1] if ax is None else ax
    low, high = (x - 1 - abs(x), x + 1 + abs(x)) if span is None else span
    places = [low + (high - low) * i / 200 for i in range(201)]
    ax.plot(places, [float(f(t)) for t in places], color=BLUE, label="f(x)")
    line, slope = tangent_line(f, x), float(numerical_diff(f, x))
    ax.plot([low, high], [float(line(low)), float(line(high))], **style, label=f"tangent, slope {slope:.4g}")
    ax.set(xlabel="x", ylabel="f(x)")
    ax.grid(alpha=0.3)
    return ax, low, high


def _on_grid(f, x0, x1, like):
    """Return x0, x1 and f (N, M) on a grid; f is called with points of the library, dtype and device of ``like``."""
    import numpy as np

    xp = namespace(like)
    grid = np.meshgrid(x0, x1)
    points = xp.asarray(np.stack([np.ravel(g) for g in grid], axis=-1), dtype=like.dtype, device=like.device)
    values = [float(f(points[i, ...])) for i in range(points.shape[0])]
    return *grid, np.asarray(values).reshape(grid[0].shape)
