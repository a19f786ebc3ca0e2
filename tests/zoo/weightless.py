"""Dropout with a kept mask, and layers that only bring entries into another shape."""

import numpy as np

from .base import Kind, Layer, kind, space


class Dropout(Layer):
    """Draws a mask when the shape is new, and keeps it."""

    bugs = ("no scale", "the scale squared", "the other side of the mask", "passes everything")
    state = ("mask",)
    mask = None

    def __init__(self, seed, keep=0.6):
        self.rng, self.keep = np.random.default_rng(seed), keep

    def forward(self, x):
        xp = space(x)
        if self.mask is None or self.mask.shape != x.shape:
            self.mask = xp.astype(xp.asarray(self.rng.random(tuple(x.shape)) < self.keep), x.dtype)
        return x * self.mask / self.keep

    def backward(self, dout):
        right = self.mask / self.keep
        return dout * {
            "no scale": self.mask,
            "the scale squared": right / self.keep,
            "passes everything": 1 / self.keep,
            "the other side of the mask": (1 - self.mask) / self.keep,
        }.get(self.bug, right)


class Reshape(Layer):
    """(N, …) to (N, *shape)."""

    bugs = ("columns first", "samples reversed", "halved")

    def __init__(self, *shape):
        self.to = shape

    def forward(self, x):
        self.shape = tuple(x.shape)
        return space(x).reshape(x, (x.shape[0], *self.to))

    def backward(self, dout):
        xp = space(dout)
        if self.bug == "columns first":
            dout = xp.permute_dims(dout, (0, *range(dout.ndim - 1, 0, -1)))
        dx = xp.reshape(dout, self.shape)
        return {"samples reversed": xp.flip(dx, axis=0), "halved": dx / 2}.get(self.bug, dx)


class Flatten(Reshape):
    """(N, …) to (N, D)."""

    bugs = ("samples reversed", "halved", "features reversed")

    def __init__(self):
        super().__init__(-1)

    def backward(self, dout):
        return super().backward(space(dout).flip(dout, axis=1) if self.bug == "features reversed" else dout)


def dropout(draw):
    return Dropout(int(draw.rng.integers(1000)))


def reshape(draw):
    return Reshape(3, 4)


KINDS = [
    Kind(dropout, scales="all"),
    Kind(reshape, shape=(6, 12), scales="all"),
    kind(Flatten, shape=(6, 3, 2), scales="all"),
]
