"""Layers with weights that work feature by feature or mix features."""

import numpy as np

from .base import Kind, Layer, space


class Dense(Layer):
    """x @ W + b, without ``difference``."""

    parameters = ("W", "b")
    bugs = (
        "db not summed",
        "db is the mean",
        "dW divided by N",
        "dx by the first W",
        "db of shape (1, M)",
        "dW times b",
    )
    first = None

    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.x = x
        self.first = self.W + 0.0 if self.first is None else self.first
        return x @ self.W + self.b

    def backward(self, dout):
        xp = space(dout)
        self.dW = self.x.T @ dout / (dout.shape[0] if self.bug == "dW divided by N" else 1)
        if self.bug == "dW times b":
            self.dW = self.dW * (1 + self.b)
        self.db = xp.sum(dout, axis=0, keepdims=self.bug == "db of shape (1, M)")
        if self.bug == "db not summed":
            self.db = dout[0, :]
        elif self.bug == "db is the mean":
            self.db = xp.mean(dout, axis=0)
        return dout @ (self.first if self.bug == "dx by the first W" else self.W).T


class Scale(Layer):
    parameters = ("gamma",)
    bugs = ("dgamma sums dout alone", "dgamma is the mean", "dx without gamma", "dgamma over the wrong axis")

    def __init__(self, gamma):
        self.gamma = gamma

    def forward(self, x):
        self.x = x
        return x * self.gamma

    def backward(self, dout):
        xp = space(dout)
        part = dout if self.bug == "dgamma sums dout alone" else dout * self.x
        self.dgamma = xp.sum(part, axis=0)
        if self.bug == "dgamma is the mean":
            self.dgamma = xp.mean(part, axis=0)
        elif self.bug == "dgamma over the wrong axis":
            self.dgamma = xp.sum(part, axis=1)
        return dout + 0.0 if self.bug == "dx without gamma" else dout * self.gamma


class Bias(Layer):
    parameters = ("b",)
    bugs = ("db is the mean", "db of the first sample", "dx is the sum")

    def __init__(self, b):
        self.b = b

    def forward(self, x):
        return x + self.b

    def backward(self, dout):
        xp = space(dout)
        self.db = xp.sum(dout, axis=0)
        if self.bug == "db is the mean":
            self.db = xp.mean(dout, axis=0)
        elif self.bug == "db of the first sample":
            self.db = dout[0, :]
        return dout + (xp.sum(dout, axis=0) if self.bug == "dx is the sum" else 0.0)


class Temperature(Layer):
    """All of x over one number."""

    parameters = ("T",)
    bugs = ("dT without its square", "sign of dT", "dx times T", "dT of the first sample")

    def __init__(self, T):
        self.T = T

    def forward(self, x):
        self.x = x
        return x / self.T

    def backward(self, dout):
        xp = space(dout)
        part = -dout * self.x / (self.T if self.bug == "dT without its square" else self.T**2)
        self.dT = xp.sum(part[0, :] if self.bug == "dT of the first sample" else part)
        if self.bug == "sign of dT":
            self.dT = -self.dT
        return dout * self.T if self.bug == "dx times T" else dout / self.T


class Embedding(Layer):
    """Rows of a table, chosen by weights: x @ E for x of one-hot or soft rows."""

    parameters = ("E",)
    bugs = ("the last row wins", "dE scaled by counts", "dx by E itself")

    def __init__(self, E):
        self.E = E

    def forward(self, x):
        self.x = x
        return x @ self.E

    def backward(self, dout):
        xp = space(dout)
        x = self.x
        if self.bug == "the last row wins":
            x = xp.where(xp.reshape(xp.arange(x.shape[0]), (-1, 1)) < x.shape[0] - 1, xp.zeros_like(x), x)
        self.dE = x.T @ dout
        if self.bug == "dE scaled by counts":
            self.dE = self.dE / (1 + xp.sum(xp.abs(x), axis=0)[:, None])
        return dout @ (self.E if self.bug == "dx by E itself" else self.E.T)


class Bilinear(Layer):
    """out[n, k] = x[n] @ W[k] @ x[n]."""

    parameters = ("W",)
    bugs = ("W for W + Wᵀ", "dW without its second x", "half")

    def __init__(self, W):
        self.W = W

    def forward(self, x):
        xp = space(x)
        self.x = x
        self.xW = xp.tensordot(x, self.W, axes=((1,), (1,)))  # N, K, D
        return xp.sum(self.xW * x[:, None, :], axis=-1)

    def backward(self, dout):
        xp, x = space(dout), self.x
        pairs = x[:, :, None] * (1.0 if self.bug == "dW without its second x" else x[:, None, :])
        pairs = xp.broadcast_to(pairs, (*x.shape, x.shape[1]))
        self.dW = xp.tensordot(dout, pairs, axes=((0,), (0,)))
        both = self.W if self.bug == "W for W + Wᵀ" else self.W + xp.permute_dims(self.W, (0, 2, 1))
        dx = xp.sum(dout[:, :, None] * xp.tensordot(x, both, axes=((1,), (1,))), axis=1)
        return 0.5 * dx if self.bug == "half" else dx


class Tied(Layer):
    """An autoencoder with one weight: tanh(x @ W) @ Wᵀ."""

    parameters = ("W",)
    bugs = ("the encoder's share alone", "the decoder's share alone", "no slope of tanh", "shares subtracted")

    def __init__(self, W):
        self.W = W

    def forward(self, x):
        self.x, self.y = x, space(x).tanh(x @ self.W)
        return self.y @ self.W.T

    def backward(self, dout):
        d = dout @ self.W
        if self.bug != "no slope of tanh":
            d = d * (1 - self.y * self.y)
        encoder, decoder = self.x.T @ d, dout.T @ self.y
        self.dW = {
            "the encoder's share alone": encoder,
            "the decoder's share alone": decoder,
            "shares subtracted": encoder - decoder,
        }.get(self.bug, encoder + decoder)
        return d @ self.W.T


class Maxout(Layer):
    """The larger of two affine maps."""

    parameters = ("W", "V")
    bugs = ("both get dout", "the smaller one gets it", "dx of W alone")

    def __init__(self, W, V):
        self.W, self.V = W, V

    def forward(self, x):
        self.x, self.w, self.v = x, x @ self.W, x @ self.V
        return space(x).maximum(self.w, self.v)

    def backward(self, dout):
        xp = space(dout)
        zero, first = xp.zeros_like(dout), self.w > self.v
        if self.bug == "the smaller one gets it":
            first = ~first
        dw, dv = xp.where(first, dout, zero), xp.where(first, zero, dout)
        if self.bug == "both get dout":
            dw = dv = dout
        self.dW, self.dV = self.x.T @ dw, self.x.T @ dv
        return dw @ self.W.T + (0.0 if self.bug == "dx of W alone" else dv @ self.V.T)


class Residual(Layer):
    """x + tanh(x @ W)."""

    parameters = ("W",)
    bugs = ("forgets the way around", "forgets the way through", "no slope of tanh")

    def __init__(self, W):
        self.W = W

    def forward(self, x):
        self.x, self.y = x, space(x).tanh(x @ self.W)
        return x + self.y

    def backward(self, dout):
        d = dout if self.bug == "no slope of tanh" else dout * (1 - self.y * self.y)
        self.dW = self.x.T @ d
        around = 0.0 if self.bug == "forgets the way around" else dout
        return around + (0.0 if self.bug == "forgets the way through" else d @ self.W.T)


class Highway(Layer):
    """t·tanh(x @ W) + (1 − t)·x with a gate t = sigmoid(x @ G)."""

    parameters = ("W", "G")
    bugs = ("the gate carries x alone", "no slope of the gate", "1 - t forgotten", "W for G in dx")

    def __init__(self, W, G):
        self.W, self.G = W, G

    def forward(self, x):
        xp = space(x)
        self.x, self.h, self.g = x, xp.tanh(x @ self.W), 1 / (1 + xp.exp(-(x @ self.G)))
        return self.g * self.h + (1 - self.g) * x

    def backward(self, dout):
        x, h, g, bug = self.x, self.h, self.g, self.bug
        dh = dout * g * (1 - h * h)
        dg = dout * (-x if bug == "the gate carries x alone" else h - x)
        dg = dg if bug == "no slope of the gate" else dg * g * (1 - g)
        self.dW, self.dG = x.T @ dh, x.T @ dg
        around = dout if bug == "1 - t forgotten" else dout * (1 - g)
        return around + dh @ self.W.T + dg @ (self.W if bug == "W for G in dx" else self.G).T


def dense(draw):
    return Dense(draw.normal(5, 4), draw.normal(4))


def scale(draw):
    return Scale(draw.uniform(0.5, 1.5, 5))


def bias(draw):
    return Bias(draw.normal(5))


def temperature(draw):
    return Temperature(draw.put(np.asarray(1.7)))


def embedding(draw):
    return Embedding(draw.normal(5, 5))


def bilinear(draw):
    return Bilinear(draw.normal(3, 5, 5))


def tied(draw):
    return Tied(draw.normal(5, 3, scale=0.5))


def maxout(draw):
    return Maxout(draw.normal(5, 4), draw.normal(5, 4))


def residual(draw):
    return Residual(draw.normal(5, 5, scale=0.5))


def highway(draw):
    return Highway(draw.normal(5, 5, scale=0.5), draw.normal(5, 5, scale=0.5))


KINDS = [
    Kind(dense, scales="all"),
    Kind(scale, scales="all"),
    Kind(bias),
    Kind(temperature, scales="all"),
    Kind(embedding, scales="all"),
    Kind(bilinear, scales="all"),
    Kind(tied, scales="small"),
    Kind(maxout, scales="all"),
    Kind(residual, scales="small"),
    Kind(highway, scales="small"),
]
