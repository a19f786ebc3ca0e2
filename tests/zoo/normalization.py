"""Layers that normalize, by statistics of the batch, of each sample, of groups, or kept ones; softmax beside them."""

import math

from .base import Kind, Layer, kind, space


class Normalization(Layer):
    """(x − mean)/√(variance + ε)·gamma + beta over ``axes``, keeping the dimensions; gamma and beta per feature."""

    parameters = ("gamma", "beta")
    bugs = ("no term of the mean", "no term of the variance", "N - 1 for N", "no gamma", "dgamma of x", "std for 1/std")
    eps = 1e-5
    axes, others = (0,), (0,)  # over which statistics are taken, over which dgamma and dbeta are summed

    def __init__(self, gamma, beta):
        self.gamma, self.beta = gamma, beta

    def forward(self, x):
        xp = space(x)
        mean = xp.mean(x, axis=self.axes, keepdims=True)
        self.c = x - mean
        variance = xp.mean(self.c * self.c, axis=self.axes, keepdims=True)
        self.keep(mean, variance)
        self.i = 1 / xp.sqrt(variance + self.eps)
        self.n = self.c * self.i
        return self.gamma * self.n + self.beta

    def keep(self, mean, variance):
        pass

    def backward(self, dout):
        xp, n = space(dout), self.n
        self.dbeta = xp.sum(dout, axis=self.others)
        self.dgamma = xp.sum(dout * (self.c if self.bug == "dgamma of x" else n), axis=self.others)
        self.dbeta = xp.reshape(self.dbeta, self.beta.shape)
        self.dgamma = xp.reshape(self.dgamma, self.gamma.shape)
        g = dout if self.bug == "no gamma" else dout * self.gamma
        mean = xp.mean(g, axis=self.axes, keepdims=True)
        slope = xp.mean(g * n, axis=self.axes, keepdims=True)
        if self.bug == "N - 1 for N":
            count = math.prod(g.shape) / math.prod(mean.shape)
            slope = slope * count / (count - 1)
        if self.bug == "no term of the mean":
            mean = 0.0
        elif self.bug == "no term of the variance":
            slope = 0.0
        return (g - mean - n * slope) * (1 / self.i if self.bug == "std for 1/std" else self.i)


class BatchNorm(Normalization):
    """In training, with running statistics that every forward moves."""

    state = ("mean", "variance", "batches")
    mean, variance, batches = 0.0, 1.0, 0

    def keep(self, mean, variance):
        self.mean = 0.9 * self.mean + 0.1 * mean[0, ...]
        self.variance = 0.9 * self.variance + 0.1 * variance[0, ...]
        self.batches += 1


class BatchNorm2d(BatchNorm):
    """Of images (N, C, H, W), over each channel; gamma and beta (C, 1, 1)."""

    axes = others = (0, 2, 3)


class RunningNorm(Layer):
    """Batch normalization in evaluation: by kept statistics."""

    parameters = ("gamma", "beta")
    bugs = ("as in training", "variance for its root", "dgamma of x", "no gamma")
    state = ("mean", "variance")

    def __init__(self, gamma, beta, mean, variance):
        self.gamma, self.beta, self.mean, self.variance = gamma, beta, mean, variance

    def forward(self, x):
        self.x = x
        self.i = 1 / space(x).sqrt(self.variance + 1e-5)
        self.n = (x - self.mean) * self.i
        return self.gamma * self.n + self.beta

    def backward(self, dout):
        xp = space(dout)
        self.dbeta = xp.sum(dout, axis=0)
        self.dgamma = xp.sum(dout * (self.x if self.bug == "dgamma of x" else self.n), axis=0)
        g = dout if self.bug == "no gamma" else dout * self.gamma
        if self.bug == "as in training":
            g = g - xp.mean(g, axis=0) - self.n * xp.mean(g * self.n, axis=0)
        return g * (self.i * self.i if self.bug == "variance for its root" else self.i)


class LayerNorm(Normalization):
    axes = (-1,)


class InstanceNorm(Normalization):
    """Of images (N, C, H, W), over each channel of each sample; gamma and beta (C, 1, 1)."""

    axes, others = (2, 3), (0, 2, 3)


class GroupNorm(Normalization):
    """Of images (N, 4, H, W), over two channels at a time."""

    axes, others = (2, 3, 4), (0, 3, 4)

    def forward(self, x):
        self.shape = tuple(x.shape)
        n, c, h, w = self.shape
        xp = space(x)
        return xp.reshape(super().forward(xp.reshape(x, (n, 2, c // 2, h, w))), self.shape)

    def backward(self, dout):
        xp = space(dout)
        n, c, h, w = self.shape
        return xp.reshape(super().backward(xp.reshape(dout, (n, 2, c // 2, h, w))), self.shape)


class RMSNorm(Layer):
    parameters = ("gamma",)
    bugs = ("no term of the root", "N forgotten", "no gamma", "dgamma of x", "sign of the root's term")

    def __init__(self, gamma):
        self.gamma = gamma

    def forward(self, x):
        xp = space(x)
        self.x = x
        self.i = 1 / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + 1e-12)
        self.n = x * self.i
        return self.gamma * self.n

    def backward(self, dout):
        xp = space(dout)
        self.dgamma = xp.sum(dout * (self.x if self.bug == "dgamma of x" else self.n), axis=0)
        g = dout if self.bug == "no gamma" else dout * self.gamma
        slope = xp.mean(g * self.n, axis=-1, keepdims=True)
        slope = slope * {"no term of the root": 0.0, "N forgotten": g.shape[-1], "sign of the root's term": -1.0}.get(
            self.bug, 1.0
        )
        return self.i * (g - self.n * slope)


class Unit(Layer):
    """Rows divided by their length."""

    bugs = ("no term of the length", "length squared", "twice the term")

    def forward(self, x):
        xp = space(x)
        self.length = xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True))
        self.y = x / self.length
        return self.y

    def backward(self, dout):
        xp, y = space(dout), self.y
        term = y * xp.sum(y * dout, axis=-1, keepdims=True)
        term = term * {"no term of the length": 0, "twice the term": 2}.get(self.bug, 1)
        return (dout - term) / (self.length**2 if self.bug == "length squared" else self.length)


class Cosine(Layer):
    """The cosine of each row of x with each row of W."""

    parameters = ("W",)
    bugs = ("dx as of a dot product", "dW as of a dot product", "lengths swapped")

    def __init__(self, W):
        self.W = W

    def forward(self, x):
        xp = space(x)
        self.a = xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True))
        self.b = xp.sqrt(xp.sum(self.W * self.W, axis=-1, keepdims=True))
        self.u, self.v = x / self.a, self.W / self.b
        self.y = self.u @ self.v.T
        return self.y

    def backward(self, dout):
        xp, a, b = space(dout), self.a, self.b
        if self.bug == "lengths swapped":
            a, b = a * 0 + b[0, 0], b * 0 + a[0, 0]
        dy = dout * self.y
        dw, dx = dout.T @ self.u, dout @ self.v
        if self.bug != "dW as of a dot product":
            dw = dw - self.v * xp.sum(dy, axis=0)[:, None]
        if self.bug != "dx as of a dot product":
            dx = dx - self.u * xp.sum(dy, axis=1)[:, None]
        self.dW = dw / b
        return dx / a


class Softmax(Layer):
    bugs = ("y(1 - y) alone", "no sum", "the sum over the batch", "sum of dout alone")

    def forward(self, x):
        xp = space(x)
        e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
        self.y = e / xp.sum(e, axis=-1, keepdims=True)
        return self.y

    def backward(self, dout):
        xp, y = space(dout), self.y
        if self.bug == "y(1 - y) alone":
            return dout * y * (1 - y)
        inner = dout if self.bug == "sum of dout alone" else dout * y
        total = xp.sum(inner, axis=0 if self.bug == "the sum over the batch" else -1, keepdims=True)
        return y * (dout - (0 if self.bug == "no sum" else total))


class LogSoftmax(Layer):
    bugs = ("no sum", "softmax's own", "the sum over the batch")

    def forward(self, x):
        xp = space(x)
        z = x - xp.max(x, axis=-1, keepdims=True)
        self.out = z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))
        return self.out

    def backward(self, dout):
        xp, y = space(dout), space(dout).exp(self.out)
        if self.bug == "softmax's own":
            return y * (dout - xp.sum(dout * y, axis=-1, keepdims=True))
        total = xp.sum(dout, axis=0 if self.bug == "the sum over the batch" else -1, keepdims=True)
        return dout - (0 if self.bug == "no sum" else y * total)


def batch_norm(draw):
    return BatchNorm(draw.uniform(0.5, 1.5, 5), draw.normal(5))


def batch_norm_2d(draw):
    return BatchNorm2d(draw.uniform(0.5, 1.5, 2, 1, 1), draw.normal(2, 1, 1))


def running_norm(draw):
    return RunningNorm(draw.uniform(0.5, 1.5, 5), draw.normal(5), draw.normal(5), draw.uniform(0.5, 2, 5))


def layer_norm(draw):
    return LayerNorm(draw.uniform(0.5, 1.5, 5), draw.normal(5))


def instance_norm(draw):
    return InstanceNorm(draw.uniform(0.5, 1.5, 2, 1, 1), draw.normal(2, 1, 1))


def group_norm(draw):
    return GroupNorm(draw.uniform(0.5, 1.5, 2, 2, 1, 1), draw.normal(2, 2, 1, 1))


def rms_norm(draw):
    return RMSNorm(draw.uniform(0.5, 1.5, 5))


def cosine(draw):
    return Cosine(draw.normal(4, 5))


KINDS = [
    Kind(batch_norm, shape=(8, 5), scales="all"),
    Kind(batch_norm_2d, shape=(3, 2, 3, 2), scales="all"),
    Kind(running_norm),
    Kind(layer_norm, scales="all"),
    Kind(instance_norm, shape=(3, 2, 3, 3), scales="all"),
    Kind(group_norm, shape=(3, 4, 2, 2), scales="all"),
    Kind(rms_norm, scales="all"),
    kind(Unit, scales="all"),
    Kind(cosine, scales="all"),
    kind(Softmax, scales="small"),
    kind(LogSoftmax, scales="small"),
]
