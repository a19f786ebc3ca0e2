"""Convolutions and pooling, of images (N, C, H, W) and of series (N, C, L)."""

from .base import Kind, Layer, kind, space


def padded(x, p):
    """Return images with p rows and columns of zeros around them."""
    xp = space(x)
    n, c, h, w = x.shape
    side, above = xp.zeros((n, c, h, p), dtype=x.dtype), xp.zeros((n, c, p, w + 2 * p), dtype=x.dtype)
    return xp.concat([above, xp.concat([side, x, side], axis=3), above], axis=2)


class Conv2d(Layer):
    """W (O, C, K, K), with a stride and zeros around."""

    parameters = ("W", "b")
    bugs = (
        "db of the first sample",
        "db is the mean",
        "kernel upside down",
        "the last column of dW forgotten",
        "padding not taken off",
        "dx without the middle",
        "a correlation for a convolution",
    )

    def __init__(self, W, b, stride=1, pad=0):
        self.W, self.b, self.stride, self.pad = W, b, stride, pad

    def places(self):
        return [(i, j) for i in range(self.W.shape[2]) for j in range(self.W.shape[3])]

    def window(self, i, j):
        h, w = self.size
        s = self.stride
        return (slice(None), slice(None), slice(i, i + s * (h - 1) + 1, s), slice(j, j + s * (w - 1) + 1, s))

    def forward(self, x):
        xp = space(x)
        self.x = padded(x, self.pad) if self.pad else x
        self.size = [(n - k) // self.stride + 1 for n, k in zip(self.x.shape[2:], self.W.shape[2:], strict=True)]
        out = 0.0
        for i, j in self.places():
            out = out + xp.tensordot(self.x[self.window(i, j)], self.W[:, :, i, j], axes=((1,), (1,)))
        return xp.permute_dims(out + self.b, (0, 3, 1, 2))

    def backward(self, dout):
        xp = space(dout)
        self.db = xp.sum(dout, axis=(0, 2, 3))
        if self.bug == "db is the mean":
            self.db = xp.mean(dout, axis=(0, 2, 3))
        elif self.bug == "db of the first sample":
            self.db = xp.sum(dout[0, ...], axis=(1, 2))
        self.dW, dx = xp.zeros_like(self.W), xp.zeros_like(self.x)
        K = self.W.shape[2]
        for i, j in self.places():
            if not (self.bug == "the last column of dW forgotten" and j == K - 1):
                self.dW[:, :, i, j] = xp.tensordot(dout, self.x[self.window(i, j)], axes=((0, 2, 3), (0, 2, 3)))
            if self.bug == "dx without the middle" and i == j == K // 2:
                continue
            w = self.W[:, :, K - 1 - i, j] if self.bug == "a correlation for a convolution" else self.W[:, :, i, j]
            dx[self.window(i, j)] += xp.permute_dims(xp.tensordot(dout, w, axes=((1,), (0,))), (0, 3, 1, 2))
        if self.bug == "kernel upside down":
            self.dW = xp.flip(self.dW, axis=2)
        p, (h, w) = self.pad, dx.shape[2:]
        if self.bug == "padding not taken off" and p:
            return dx[:, :, : h - 2 * p, : w - 2 * p]
        return dx[:, :, p : h - p, p : w - p]


class Depthwise(Layer):
    """Each channel with a kernel of its own, W (C, K) along series (N, C, L)."""

    parameters = ("W",)
    bugs = ("kernel reversed", "channels summed", "dx shifted")

    def __init__(self, W):
        self.W = W

    def forward(self, x):
        self.x, K = x, self.W.shape[1]
        self.length = x.shape[2] - K + 1
        return sum(x[:, :, k : k + self.length] * self.W[:, k][:, None] for k in range(K))

    def backward(self, dout):
        xp, K = space(dout), self.W.shape[1]
        dx, columns = xp.zeros_like(self.x), []
        for k in range(K):
            columns.append(xp.sum(dout * self.x[:, :, k : k + self.length], axis=(0, 2)))
            to = K - 1 - k if self.bug == "dx shifted" else k
            dx[:, :, to : to + self.length] += dout * self.W[:, k][:, None]
        self.dW = xp.stack(columns, axis=1)
        if self.bug == "kernel reversed":
            self.dW = xp.flip(self.dW, axis=1)
        elif self.bug == "channels summed":
            self.dW = xp.broadcast_to(xp.sum(self.dW, axis=0), self.dW.shape) + 0.0
        return dx


class Conv1d(Layer):
    """W (O, C, K) along series (N, C, L)."""

    parameters = ("W", "b")
    bugs = ("kernel reversed", "db of the first place", "channels and outputs swapped", "dx of the last tap alone")

    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        xp = space(x)
        self.x, K = x, self.W.shape[2]
        self.length = x.shape[2] - K + 1
        columns = [x[:, :, k : k + self.length] for k in range(K)]
        self.columns = xp.stack(columns, axis=-1)  # N, C, L, K
        out = xp.tensordot(self.columns, self.W, axes=((1, 3), (1, 2)))
        return xp.permute_dims(out + self.b, (0, 2, 1))

    def backward(self, dout):
        xp, K = space(dout), self.W.shape[2]
        self.db = xp.sum(dout[:, :, 0], axis=0) if self.bug == "db of the first place" else xp.sum(dout, axis=(0, 2))
        self.dW = xp.tensordot(dout, self.columns, axes=((0, 2), (0, 2)))
        if self.bug == "kernel reversed":
            self.dW = xp.flip(self.dW, axis=2)
        elif self.bug == "channels and outputs swapped":
            self.dW = xp.permute_dims(self.dW, (1, 0, 2))
        dx = xp.zeros_like(self.x)
        for k in range(K - 1 if self.bug == "dx of the last tap alone" else 0, K):
            part = xp.tensordot(dout, self.W[:, :, k], axes=((1,), (0,)))
            dx[:, :, k : k + self.length] += xp.permute_dims(part, (0, 2, 1))
        return dx


class Pool(Layer):
    """2 × 2 windows that touch."""

    def windows(self, x):
        n, c, h, w = x.shape
        self.shape = tuple(x.shape)
        return space(x).reshape(x, (n, c, h // 2, 2, w // 2, 2))


class MaxPool(Pool):
    bugs = ("all of the window", "the smallest", "an average's share")

    def forward(self, x):
        windows = self.windows(x)
        xp = space(x)
        top = xp.max(windows, axis=(3, 5), keepdims=True)
        low = xp.min(windows, axis=(3, 5), keepdims=True)
        self.mask = xp.astype(windows == (low if self.bug == "the smallest" else top), x.dtype)
        if self.bug in ("all of the window", "an average's share"):
            self.mask = xp.ones_like(self.mask)
        return top[:, :, :, 0, :, 0]

    def backward(self, dout):
        xp = space(dout)
        share = dout / (4 if self.bug == "an average's share" else 1)
        return xp.reshape(share[:, :, :, None, :, None] * self.mask, self.shape)


class AvgPool(Pool):
    bugs = ("no 1/4", "1/2 for 1/4", "the corner alone")

    def forward(self, x):
        windows = self.windows(x)
        return space(x).mean(windows, axis=(3, 5))

    def backward(self, dout):
        xp = space(dout)
        share = dout / {"no 1/4": 1, "1/2 for 1/4": 2}.get(self.bug, 4)
        n, c, h, w = self.shape
        dx = xp.zeros((n, c, h // 2, 2, w // 2, 2), dtype=dout.dtype)
        if self.bug == "the corner alone":
            dx[:, :, :, 0, :, 0] = share
        else:
            dx = dx + share[:, :, :, None, :, None]
        return xp.reshape(dx, self.shape)


class Upsample(Pool):
    """Each pixel four times."""

    bugs = ("the mean for the sum", "the corner alone", "rows alone")

    def forward(self, x):
        xp = space(x)
        return xp.repeat(xp.repeat(x, 2, axis=2), 2, axis=3)

    def backward(self, dout):
        windows, xp = self.windows(dout), space(dout)
        if self.bug == "the corner alone":
            return windows[:, :, :, 0, :, 0] + 0.0
        if self.bug == "rows alone":
            return xp.sum(windows[:, :, :, 0, :, :], axis=-1)
        return (xp.mean if self.bug == "the mean for the sum" else xp.sum)(windows, axis=(3, 5))


class GlobalPool(Layer):
    """The mean of each channel."""

    bugs = ("no 1/HW", "1/H", "N for HW")

    def forward(self, x):
        self.shape = tuple(x.shape)
        return space(x).mean(x, axis=(2, 3))

    def backward(self, dout):
        n, _, h, w = self.shape
        size = {"no 1/HW": 1, "1/H": h, "N for HW": n}.get(self.bug, h * w)
        return space(dout).broadcast_to((dout / size)[:, :, None, None], self.shape) + 0.0


def ties(x):
    """Return x with many equal largest values in a window, as images with a plain ground have."""
    return x.clip(0.3)


def conv2d(draw):
    return Conv2d(draw.normal(3, 2, 3, 3, scale=0.4), draw.normal(3), pad=1)


def conv2d_stride(draw):
    return Conv2d(draw.normal(2, 2, 2, 2, scale=0.5), draw.normal(2), stride=2)


def conv1d(draw):
    return Conv1d(draw.normal(3, 2, 3, scale=0.5), draw.normal(3))


def depthwise(draw):
    return Depthwise(draw.normal(3, 3, scale=0.5))


KINDS = [
    Kind(conv2d, shape=(2, 2, 4, 4), scales="all"),
    Kind(conv2d_stride, shape=(3, 2, 4, 4), scales="all"),
    Kind(conv1d, shape=(3, 2, 6), scales="all"),
    Kind(depthwise, shape=(3, 3, 6), scales="all"),
    kind(MaxPool, shape=(2, 2, 4, 4), scales="all", at_kink=ties),
    kind(AvgPool, shape=(2, 2, 4, 4), scales="all"),
    kind(Upsample, shape=(2, 2, 2, 3), scales="all"),
    kind(GlobalPool, shape=(4, 3, 3, 2), scales="all"),
]
