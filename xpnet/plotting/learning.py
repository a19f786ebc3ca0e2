"""Pictures of what a network learns: losses and accuracies, images and answers, weights, two gradients compared."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..annotations import Array
from ..backend import to_numpy
from ..records import EpochRecord
from .axes import GREY, LINES, VERMILION, subplots
from .tiles import as_tiles, classes, mosaic


def learning_curves(records: Iterable[EpochRecord], ax: Any = None) -> Any:
    """Draw the loss and the accuracies of a training, from each ``EpochRecord`` that ``train`` yields.

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


def images(
    x: Array,
    labels: Array | None = None,
    predictions: Array | None = None,
    ax: Any = None,
    *,
    columns: int = 10,
    shape: tuple[int, int] | None = None,
) -> Any:
    """Draw images as tiles, each below its label and what was predicted.

    Where these differ, the tile reads "label → prediction" in a frame.

    Source: Deep Learning from Scratch, figure 3-24.

    Parameters
    ----------
    x : array
        Images (N, D), (N, H, W) or (N, 1, H, W).
    labels, predictions : arrays
        Classes (N,), or scores (N, C) of which the largest counts.
    ax : matplotlib axes
        New ones by default.
    columns : int
        The tiles in a row.
    shape : (int, int)
        (H, W) of images (N, D) that are not square.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError
        If sizes do not fit.
    """
    tiles = as_tiles(to_numpy(x), shape)
    labels, predictions = (classes(a, len(tiles)) for a in (labels, predictions))
    written = labels is not None or predictions is not None
    ax, tiled, corners = _mosaic(tiles, columns, ax, top=tiles.shape[1] // 3 if written else 0)
    ax.imshow(tiled, cmap="gray_r")
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


def weights(W: Array, ax: Any = None, *, columns: int = 10, shape: tuple[int, int] | None = None) -> Any:
    """Draw each column of ``W`` (D, M), what one unit multiplies the D pixels by, as an image: bright is positive.

    Colours end where the largest hundredth of the weights begins; ``shape`` is as in ``images``.
    """
    W = to_numpy(W)
    ax, tiled, _ = _mosaic(as_tiles(W.T, shape), columns, ax)
    largest = sorted(abs(W).ravel().tolist())[math.ceil(0.99 * W.size) - 1] or 1.0
    drawn = ax.imshow(tiled, cmap="cividis", vmin=-largest, vmax=largest)
    ax.figure.colorbar(drawn, ax=ax, label="weight", extend="both", shrink=0.8)
    ax.set_axis_off()
    return ax


def gradient_map(
    backprop: Array,
    numerical: Array,
    ax: Any = None,
    *,
    columns: int = 10,
    shape: tuple[int, int] | None = None,
    mark: float = 0.01,
) -> Any:
    """Draw where two gradients of one parameter differ: |a − n| / max(|a|, |n|) of every entry, on a log scale.

    Source: Deep Learning from Scratch, 5.7.3; the measure is that of ``check_gradients``.

    Parameters
    ----------
    backprop : array
        Such as ``network.gradient(x, t)["W1"]``.
    numerical : array
        Such as ``network.numerical_gradient(x, t)["W1"]``.
    ax : matplotlib axes
        New ones by default.
    columns : int
        The tiles in a row.
    shape : (int, int)
        Makes each column a tile, one for each unit, such as (28, 28).
    mark : float
        Up to 20 entries that differ by more than this are ringed.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError
        If shapes differ.
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
    ax, tiled, _ = _mosaic(error[None] if shape is None else as_tiles(error.T, shape), columns, ax)
    aspect, least = "auto" if shape is None else "equal", float(np.finfo(a.dtype).eps)
    drawn = ax.imshow(np.maximum(tiled, least), cmap="cividis", norm=LogNorm(least, 2), aspect=aspect)
    wrong = np.argwhere(tiled > mark)
    if len(wrong) <= 20:
        ax.plot(*wrong.T[::-1], color=VERMILION, marker="o", markersize=11, fillstyle="none", linestyle="", mew=1.5)
    ax.figure.colorbar(drawn, ax=ax, label="relative difference", extend="min", shrink=0.8)
    ax.set(xticks=[], yticks=[], title=f"{len(wrong)} of {a.size} entries\ndiffer by more than {100 * mark:g} %")
    return ax


def _mosaic(tiles, columns, ax, top=0):
    """Return axes, new ones if there are none, and what ``mosaic`` returns."""
    if ax is None:
        count = tiles.shape[0]
        ax = subplots(figsize=(max(4, 0.85 * min(columns, count)), max(2.5, math.ceil(count / columns))))[1]
    return ax, *mosaic(tiles, columns, top)
