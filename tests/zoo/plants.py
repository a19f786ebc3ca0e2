"""Mistakes that fit any layer: each wraps its backward, and nothing else, in a class of the same name."""

import math

from .base import space


def entry(g):
    """Return a mask of one entry of ``g``, somewhere behind its middle."""
    xp = space(g)
    size = math.prod(g.shape)
    return xp.reshape(xp.arange(size), g.shape) == 7 * size // 11


def column(g):
    """Return a mask of the second column of ``g``, or its last."""
    xp = space(g)
    return xp.broadcast_to(xp.arange(g.shape[-1]) == min(1, g.shape[-1] - 1), g.shape)


def row(g):
    """Return a mask of the last of the first axis."""
    xp = space(g)
    first = xp.arange(g.shape[0]) == g.shape[0] - 1
    return xp.broadcast_to(xp.reshape(first, (-1, *[1] * (g.ndim - 1))), g.shape)


ALTER = {  # of a gradient g and the value v it belongs to
    "sign": lambda g, v: -g,
    "half": lambda g, v: 0.5 * g,
    "1 % too large": lambda g, v: 1.01 * g,
    "0.1 % too large": lambda g, v: 1.001 * g,
    "zeros": lambda g, v: 0.0 * g,
    "N times too large": lambda g, v: g * v.shape[0],
    "sign of one entry": lambda g, v: space(g).where(entry(g), -g, g),
    "one entry 10 % too large": lambda g, v: space(g).where(entry(g), 1.1 * g, g),
    "one entry 0": lambda g, v: space(g).where(entry(g), 0.0 * g, g),
    "half in one column": lambda g, v: space(g).where(column(g), 0.5 * g, g),
    "sign of one column": lambda g, v: space(g).where(column(g), -g, g),
    "last row 0": lambda g, v: space(g).where(row(g), 0.0 * g, g),
    "first axis reversed": lambda g, v: space(g).flip(g, axis=0),
    "last axis reversed": lambda g, v: space(g).flip(g, axis=-1),
    "5 % of the value added": lambda g, v: g + 0.05 * v,  # weight decay in one of the two
    "5 % of the first row added": lambda g, v: g + 0.05 * g[:1, ...],
}
HISTORY = ("adds to the last gradient", "keeps its first call", "ignores dout")


def plant(layer, how, target):
    """Give ``layer`` a backward whose gradient of ``target`` ("x" or a parameter's name) is wrong."""
    wraps = {"adds to the last gradient": adding, "keeps its first call": stale, "ignores dout": deaf}
    kind = type(layer)
    wrong = wraps[how](kind, target) if how in wraps else altered(kind, target, ALTER[how])
    wrong.__name__ = wrong.__qualname__ = kind.__name__
    layer.__class__ = wrong


def altered(kind, target, alter):
    class Altered(kind):
        def forward(self, x, *t):
            self.input = x
            return super().forward(x, *t)

        def backward(self, *dout):
            dx = super().backward(*dout)
            if target == "x":
                return alter(dx, self.input)
            g, v = (space(dx).reshape(a, a.shape or (1,)) for a in (getattr(self, f"d{target}"), getattr(self, target)))
            setattr(self, f"d{target}", space(dx).reshape(alter(g, v), getattr(self, target).shape))
            return dx

    return Altered


def adding(kind, target):
    class Adding(kind):
        total = 0.0

        def backward(self, *dout):
            dx = super().backward(*dout)
            new = dx if target == "x" else getattr(self, f"d{target}")
            if getattr(self.total, "shape", new.shape) != new.shape:
                self.total = 0.0
            self.total = self.total + new
            if target == "x":
                return self.total
            setattr(self, f"d{target}", self.total)
            return dx

    return Adding


def stale(kind, target):
    class Stale(kind):
        kept = None

        def forward(self, *given):
            out = super().forward(*given)
            if self.kept is None:
                own = {*getattr(self, "parameters", ()), *getattr(self, "state", ())}  # layers of xpnet have no state
                self.kept = {name: value for name, value in vars(self).items() if name not in own}
            return out

        def backward(self, *dout):
            vars(self).update(self.kept)
            return super().backward(*dout)

    return Stale


def deaf(kind, target):
    class Deaf(kind):
        def backward(self, dout):
            return super().backward(space(dout).ones_like(dout))

    return Deaf
