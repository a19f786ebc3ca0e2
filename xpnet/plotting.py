"""Pictures of what the library computes, with matplotlib: ``pip install 'xpnet[plot]'``, or ``matplotlib`` alone.

``from xpnet import plotting``: the library itself never imports this module. Each function draws into ``ax``, or into a
new figure if there is none, and returns the axes. Nothing is shown and no setting is changed. Arrays may be of any
backend. Colours are those of M. Okabe and K. Ito and the maps cividis and viridis, which stay apart for colour-blind
eyes and in greyscale; lines also differ in style and marker.
"""

import math

from .backend import to_numpy
from .functions import namespace
from .gradients import numerical_diff, tangent_line

BLUE, VERMILION, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#767676"
LINES = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": VERMILION, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": BLACK, "linestyle": ":", "marker": "D"},
)


def subplots(*args, **options):
    """Return (figure, axes) as ``matplotlib.pyplot.subplots`` does, laid out so that no label is cut.

    Raises ModuleNotFoundError, with the line that installs it, if matplotlib is missing.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("matplotlib"):
            raise
        cure = "pip install 'xpnet[plot]' or pip install matplotlib"
        raise ModuleNotFoundError(f"pictures need matplotlib, which is not installed; run: {cure}") from None
    return plt.subplots(*args, **{"layout": "constrained", **options})


def learning_curves(records, ax=None):
    """Draw the loss and the accuracies of a training, from the ``EpochRecord``s that ``train`` yields.

    ``ax`` is a pair of axes, for loss and accuracy. Raises ValueError if there is no record.

    Source: Deep Learning from Scratch, figures 4-11 and 4-12.
    """
    if not (records := list(records)):
        raise ValueError("there are no records to draw; train yields one after each epoch")
    left, right = axes = subplots(1, 2, figsize=(9, 3.6))[1] if ax is None else ax
    losses = [float(loss) for record in records for loss in to_numpy(record.losses)]
    iterations = [record.iteration for record in records]
    batches = range(iterations[-1] - len(losses) + 1, iterations[-1] + 1)  # a resumed training begins later than at 1
    left.plot(batches, losses, color=GREY, alpha=0.5, linewidth=0.6, label="one batch")
    left.plot(iterations, [record.loss for record in records], **LINES[0], markersize=4, label="mean of an epoch")
    left.set(xlabel="iteration (one batch each)", ylabel="loss (log scale)", yscale="log", title="Loss")
    for part, line in (("train", LINES[0]), ("test", LINES[1])):
        share = [getattr(record, f"{part}_accuracy") for record in records]
        if share[-1] is not None:
            percent = [100 * s for s in share]
            right.plot(iterations, percent, **line, markersize=4, label=f"{part}, at the end {percent[-1]:.1f} %")
    right.set(xlabel="iteration (one batch each)", ylabel="accuracy (% of the images)", title="Accuracy")
    for each in axes:
        each.set_xlim(left=0)
        each.legend()
        each.grid(alpha=0.3)
    return axes


def tangent(f, x, ax=None, *, span=None):
    """Draw ``f``, a function of one number, with its tangent at ``x``; ``span`` is (from, to) on the x axis.

    Source: Deep Learning from Scratch, figures 4-6 and 4-7.
    """
    ax, _, _ = _with_tangent(f, x, ax, span, color=VERMILION, linestyle="--")
    ax.plot([x], [float(f(x))], color=VERMILION, marker="o", linestyle="", label=f"x = {x:g}")
    ax.legend()
    return ax


def secants(f, x, h, ax=None, *, span=None):
    """Draw the lines whose slopes are the forward and the central difference of ``f`` at ``x``, beside the tangent.

    Source: Deep Learning from Scratch, figure 4-5.
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


def step_errors(f, x, derivative, steps, ax=None, *, label="", lines=LINES):
    """Draw by how much forward and central difference of ``f`` at ``x`` miss the known ``derivative``, for many steps.

    ``x`` is a number, or an array () whose dtype decides the precision. Steps that vanish beside ``x``, which
    ``numerical_diff`` refuses, are left out. ``lines`` are the styles of the two lines.

    Source: Deep Learning from Scratch, 4.3.1.
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


def gradient_field(points, gradients, ax=None):
    """Draw an arrow along −gradient, downhill, at each of ``points`` (P, 2); ``gradients`` is (P, 2) too.

    Source: Deep Learning from Scratch, figure 4-9.
    """
    ax = subplots(figsize=(5, 4.6))[1] if ax is None else ax
    points, gradients = to_numpy(points), to_numpy(gradients)
    ax.quiver(*points.T, *-gradients.T, color=BLUE, angles="xy", width=0.004)
    longest = max(math.hypot(*gradient) for gradient in gradients.tolist())
    ax.set(xlabel=f"x₀\n(longest arrow: a gradient of length {longest:.2g})", ylabel="x₁", aspect="equal")
    return ax


def descent_path(path, f, ax=None, *, span=None, label="gradient descent"):
    """Draw the points ``path`` (steps + 1, 2) that gradient descent on ``f`` went through, on contour lines of ``f``.

    ``span`` is (from, to) on both axes; a path that leaves it is cut there. ``f`` is called with single points (2,).

    Source: Deep Learning from Scratch, figure 4-10.
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


def surface(f, x0, x1, ax=None):
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


def images(x, labels=None, predictions=None, ax=None, *, columns=10, shape=None):
    """Draw images ``x`` (N, D), (N, H, W) or (N, 1, H, W) as tiles, each below its label and what was predicted.

    ``labels`` and ``predictions`` are classes (N,) or scores (N, C) of which the largest counts. Where they differ, the
    tile reads "label → prediction" in a frame. ``shape`` is (H, W) if it is not square. Raises ValueError for others.

    Source: Deep Learning from Scratch, figure 3-24.
    """
    tiles = _as_tiles(to_numpy(x), shape)
    labels, predictions = (_classes(a, len(tiles)) for a in (labels, predictions))
    written = labels is not None or predictions is not None
    ax, mosaic, corners = _mosaic(tiles, columns, ax, top=tiles.shape[1] // 3 if written else 0)
    ax.imshow(mosaic, cmap="gray_r")
    height, width = tiles.shape[1:]
    for i, (row, column) in enumerate(corners) if written else ():
        text = str((predictions if labels is None else labels)[i])
        wrong = None not in (labels, predictions) and labels[i] != predictions[i]
        if wrong:
            text = f"{text} → {predictions[i]}"
            frame = [column - 1, column + width, column + width, column - 1, column - 1]
            ax.plot(frame, [row - 1, row - 1, row + height, row + height, row - 1], color=VERMILION, linewidth=1)
        ax.text(column + width / 2, row - 2, text, ha="center", fontsize=9, weight="bold" if wrong else "normal")
    ax.set_axis_off()
    return ax


def weights(W, ax=None, *, columns=10, shape=None):
    """Draw each column of ``W`` (D, M), what one unit multiplies the D pixels by, as an image: bright is positive.

    Colours end where the largest hundredth of the weights begins; ``shape`` is as in ``images``.
    """
    W = to_numpy(W)
    ax, mosaic, _ = _mosaic(_as_tiles(W.T, shape), columns, ax)
    largest = sorted(abs(W).ravel().tolist())[math.ceil(0.99 * W.size) - 1] or 1.0
    drawn = ax.imshow(mosaic, cmap="cividis", vmin=-largest, vmax=largest)
    ax.figure.colorbar(drawn, ax=ax, label="weight", extend="both", shrink=0.8)
    ax.set_axis_off()
    return ax


def gradient_map(backprop, numerical, ax=None, *, columns=10, shape=None, mark=0.01):
    """Draw where two gradients of one parameter differ: |a − n| / max(|a|, |n|) of every entry, on a log scale.

    ``backprop`` and ``numerical`` are such as ``network.gradient(x, t)["W1"]`` and
    ``network.numerical_gradient(x, t)["W1"]``, of one shape. With ``shape=(28, 28)`` each column becomes a tile: one
    for each unit. Up to 20 entries that differ by more than ``mark`` are ringed. Raises ValueError if shapes differ.

    Source: Deep Learning from Scratch, 5.7.3; the measure is that of ``check_gradients``.
    """
    import numpy as np
    from matplotlib.colors import LogNorm

    a, n = to_numpy(backprop), to_numpy(numerical)
    if a.shape != n.shape:
        raise ValueError(f"the gradients have shapes {a.shape} and {n.shape}; pass those of one parameter")
    size = np.maximum(abs(a), abs(n))
    with np.errstate(invalid="ignore"):
        error = abs(a - n) / np.where(size > 0, size, 1)  # two zeros agree
    error = np.where(np.isnan(error), 2, error).reshape(-1, error.shape[-1])  # NaN and infinity never do
    ax, mosaic, _ = _mosaic(error[None] if shape is None else _as_tiles(error.T, shape), columns, ax)
    aspect, least = "auto" if shape is None else "equal", float(np.finfo(a.dtype).eps)
    drawn = ax.imshow(np.maximum(mosaic, least), cmap="cividis", norm=LogNorm(least, 2), aspect=aspect)
    wrong = np.argwhere(mosaic > mark)
    if len(wrong) <= 20:
        ax.plot(*wrong.T[::-1], color=VERMILION, marker="o", markersize=11, fillstyle="none", linestyle="", mew=1.5)
    ax.figure.colorbar(drawn, ax=ax, label="relative difference", extend="min", shrink=0.8)
    ax.set(xticks=[], yticks=[], title=f"{len(wrong)} of {a.size} entries\ndiffer by more than {100 * mark:g} %")
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


def _classes(t, count):
    """Return class numbers, or rows of which the largest entry counts, as a list."""
    if t is None:
        return t
    t = to_numpy(t)
    if t.ndim not in (1, 2) or t.shape[0] != count:
        raise ValueError(f"there are {count} images, but their classes have shape {t.shape}")
    return (t.argmax(axis=1) if t.ndim == 2 else t).tolist()


def _as_tiles(x, shape):
    """Return images (N, H, W)."""
    if x.ndim not in (2, 3, 4) or (x.ndim == 4 and x.shape[1] != 1) or 0 in x.shape:
        raise ValueError(f"images have shape {x.shape}; they must be (N, D), (N, H, W) or (N, 1, H, W), none of them 0")
    square = (math.isqrt(x.shape[1]),) * 2 if x.ndim == 2 else x.shape[-2:]
    height, width = square if shape is None else shape
    if height * width != math.prod(x.shape[1:]):
        raise ValueError(f"{x.shape[1:]} pixels are no image of {height} × {width}; pass shape=(height, width)")
    return x.reshape(-1, height, width)


def _mosaic(tiles, columns, ax, top=0):
    """Return axes, tiles side by side in one array, NaN between them, and the (row, column) where each begins."""
    import numpy as np

    count, height, width = tiles.shape
    columns, rows = min(columns, count), math.ceil(count / columns)
    ax = subplots(figsize=(max(4, 0.85 * columns), max(2.5, rows)))[1] if ax is None else ax
    down, right = height + 2 + top, width + 2
    mosaic = np.full((rows * down, columns * right), np.nan)
    corners = [(i // columns * down + top + 1, i % columns * right + 1) for i in range(count)]
    for tile, (row, column) in zip(tiles, corners, strict=True):
        mosaic[row : row + height, column : column + width] = tile
    return ax, mosaic, corners
