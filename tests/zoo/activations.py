"""Activations, which work entry by entry."""

import math

from .base import Kind, Layer, kind, some_at, space


class Relu(Layer):
    bugs = ("passes everything", "mask of the other side", "mask of dout")

    def forward(self, x):
        self.x = x
        return space(x).maximum(x, 0)

    def backward(self, dout):
        xp = space(dout)
        mask = {"": self.x > 0, "mask of the other side": self.x < 0, "mask of dout": dout > 0}.get(self.bug)
        return dout + 0.0 if mask is None else xp.where(mask, dout, xp.zeros_like(dout))


class LeakyRelu(Layer):
    bugs = ("slope 0 on the left", "the slope of the other side", "slope 0.011 for 0.01")

    def forward(self, x):
        self.x = x
        return space(x).where(x > 0, x, 0.01 * x)

    def backward(self, dout):
        left = {"slope 0 on the left": 0.0, "slope 0.011 for 0.01": 0.011}.get(self.bug, 0.01)
        mask = self.x < 0 if self.bug == "the slope of the other side" else self.x > 0
        return space(dout).where(mask, dout, left * dout)


class PRelu(Layer):
    parameters = ("a",)
    bugs = ("da not summed over the batch", "da sums dout alone", "dx without a", "da of the other side")

    def __init__(self, a):
        self.a = a

    def forward(self, x):
        self.x = x
        return space(x).where(x > 0, x, self.a * x)

    def backward(self, dout):
        xp = space(dout)
        zero = xp.zeros_like(dout)
        part = dout if self.bug == "da sums dout alone" else dout * self.x
        mask = self.x < 0 if self.bug == "da of the other side" else self.x > 0
        part = xp.where(mask, zero, part)
        self.da = part[0, :] if self.bug == "da not summed over the batch" else xp.sum(part, axis=0)
        return xp.where(self.x > 0, dout, dout if self.bug == "dx without a" else self.a * dout)


class Elu(Layer):
    bugs = ("y for y + a", "exp(x) - 1", "slope 1 on the left")

    def forward(self, x):
        xp = space(x)
        self.x = x
        self.y = xp.where(x > 0, x, 1.5 * xp.expm1(x))
        return self.y

    def backward(self, dout):
        xp = space(dout)
        left = {
            "": self.y + 1.5,
            "y for y + a": self.y,
            "exp(x) - 1": xp.expm1(self.x),
            "slope 1 on the left": xp.ones_like(dout),
        }[self.bug]
        return dout * xp.where(self.x > 0, xp.ones_like(dout), left)


class Sigmoid(Layer):
    bugs = ("y(1 + y)", "x(1 - x)", "1 - y alone", "of y again")

    def forward(self, x):
        self.x = x
        self.y = 1 / (1 + space(x).exp(-x))
        return self.y

    def backward(self, dout):
        x, y = self.x, self.y
        if self.bug == "of y again":
            y = 1 / (1 + space(y).exp(-y))
        return dout * {"y(1 + y)": y * (1 + y), "x(1 - x)": x * (1 - x), "1 - y alone": 1 - y}.get(
            self.bug, y * (1 - y)
        )


class Tanh(Layer):
    bugs = ("1 - y", "1 + y²", "1 - x²", "1 - y⁴")

    def forward(self, x):
        self.x, self.y = x, space(x).tanh(x)
        return self.y

    def backward(self, dout):
        x, y = self.x, self.y
        return dout * {"1 - y": 1 - y, "1 + y²": 1 + y * y, "1 - x²": 1 - x * x, "1 - y⁴": 1 - y**4}.get(
            self.bug, 1 - y * y
        )


class Gelu(Layer):
    """The usual approximation by tanh."""

    bugs = ("no inner slope", "no product rule", "0.0447 for three times that")
    c = math.sqrt(2 / math.pi)

    def forward(self, x):
        self.x, self.tanh = x, space(x).tanh(self.c * (x + 0.044715 * x**3))
        return 0.5 * x * (1 + self.tanh)

    def backward(self, dout):
        x, y = self.x, self.tanh
        inner = self.c * (1 + (1 if self.bug == "0.0447 for three times that" else 3) * 0.044715 * x * x)
        if self.bug == "no inner slope":
            inner = 1.0
        first = 0.0 if self.bug == "no product rule" else 0.5 * (1 + y)
        return dout * (first + 0.5 * x * (1 - y * y) * inner)


class Silu(Layer):
    bugs = ("the sigmoid's slope alone", "the sigmoid alone", "y for x")

    def forward(self, x):
        self.x, self.s = x, 1 / (1 + space(x).exp(-x))
        return x * self.s

    def backward(self, dout):
        x, s = self.x, self.s
        return dout * {
            "the sigmoid's slope alone": x * s * (1 - s),
            "the sigmoid alone": s,
            "y for x": s + x * s * s * (1 - s),
        }.get(self.bug, s + x * s * (1 - s))


class Swish(Layer):
    """x·sigmoid(b·x), where b is learned."""

    parameters = ("b",)
    bugs = ("db without one x", "dx without b", "db is the mean")

    def __init__(self, b):
        self.b = b

    def forward(self, x):
        self.x, self.s = x, 1 / (1 + space(x).exp(-self.b * x))
        return x * self.s

    def backward(self, dout):
        xp, x, s = space(dout), self.x, self.s
        slope = s * (1 - s)
        part = dout * slope * (x if self.bug == "db without one x" else x * x)
        self.db = xp.mean(part, axis=0) if self.bug == "db is the mean" else xp.sum(part, axis=0)
        return dout * (s + x * slope * (1 if self.bug == "dx without b" else self.b))


class Softplus(Layer):
    bugs = ("sigmoid(-x)", "exp(x)", "y for x")

    def forward(self, x):
        xp = space(x)
        self.x = x
        self.y = xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))
        return self.y

    def backward(self, dout):
        exp, x = space(dout).exp, {"sigmoid(-x)": -self.x, "y for x": self.y}.get(self.bug, self.x)
        return dout * (exp(x) if self.bug == "exp(x)" else 1 / (1 + exp(-x)))


class Glu(Layer):
    """The first half of the features times the sigmoid of the second."""

    bugs = ("halves swapped", "no slope of the gate", "no gate for the first half")

    def forward(self, x):
        half = x.shape[1] // 2
        self.a, self.s = x[:, :half], 1 / (1 + space(x).exp(-x[:, half:]))
        return self.a * self.s

    def backward(self, dout):
        s = self.s
        da = dout if self.bug == "no gate for the first half" else dout * s
        ds = dout * self.a * (1 if self.bug == "no slope of the gate" else s * (1 - s))
        return space(dout).concat([ds, da] if self.bug == "halves swapped" else [da, ds], axis=1)


class HardTanh(Layer):
    bugs = ("passes everything", "mask of the outside", "only one limit")

    def forward(self, x):
        self.x = x
        return space(x).clip(x, -1.0, 1.0)

    def backward(self, dout):
        xp, x = space(dout), self.x
        mask = {
            "": (x >= -1) & (x <= 1),
            "passes everything": x == x,
            "mask of the outside": (x < -1) | (x > 1),
            "only one limit": x < 1,
        }[self.bug]
        return xp.where(mask, dout, xp.zeros_like(dout))


def prelu(draw):
    return PRelu(draw.uniform(0.1, 0.4, 5))


def swish(draw):
    return Swish(draw.uniform(0.5, 1.5, 5))


KINDS = [
    kind(Relu, scales="all", at_kink=some_at(0.0)),
    kind(LeakyRelu, scales="all", at_kink=some_at(0.0)),
    Kind(prelu, scales="all", at_kink=some_at(0.0)),
    kind(Elu, scales="small"),
    kind(Sigmoid, scales="small"),
    kind(Tanh, scales="small"),
    kind(Gelu, scales="small"),
    kind(Silu, scales="small"),
    Kind(swish, scales="small"),
    kind(Softplus, scales="small"),
    kind(Glu, shape=(6, 6), scales="small"),
    kind(HardTanh, at_kink=some_at(1.0, -1.0)),
]
