"""Images as tiles, side by side in one array, and the classes written above them: what a picture of many needs."""

import math

import numpy as np

from ..backend import to_numpy


def classes(t, count):
    """Return class numbers, or rows of which the largest entry counts, as a list."""
    if t is None:
        return t
    t = to_numpy(t)
    if t.ndim not in (1, 2) or t.shape[0] != count:
        raise ValueError(f"there are {count} images, but their classes have shape {t.shape}")
    return (t.argmax(axis=1) if t.ndim == 2 else t).tolist()


def as_tiles(x, shape):
    """Return images ``x`` of any of its forms as (N, H, W); raise ValueError for what is none."""
    if x.ndim not in (2, 3, 4) or (x.ndim == 4 and x.shape[1] != 1) or 0 in x.shape:
        raise ValueError(f"images have shape {x.shape}; they must be (N, D), (N, H, W) or (N, 1, H, W), none of them 0")
    square = (math.isqrt(x.shape[1]),) * 2 if x.ndim == 2 else x.shape[-2:]
    height, width = square if shape is None else shape
    if height * width != math.prod(x.shape[1:]):
        raise ValueError(f"{x.shape[1:]} pixels are no image of {height} × {width}; pass shape=(height, width)")
    return x.reshape(-1, height, width)


def mosaic(tiles, columns, top=0):
    """Return tiles side by side in one array, NaN between them, and the (row, column) where each begins."""
    count, height, width = tiles.shape
    columns, rows = min(columns, count), math.ceil(count / columns)
    down, right = height + 2 + top, width + 2
    side_by_side = np.full((rows * down, columns * right), np.nan)
    corners = [(i // columns * down + top + 1, i % columns * right + 1) for i in range(count)]
    for tile, (row, column) in zip(tiles, corners, strict=True):
        side_by_side[row : row + height, column : column + width] = tile
    return side_by_side, corners
