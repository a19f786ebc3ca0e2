"""Output layers: losses of scores x (N, C) against targets t, averaged over N unless they say otherwise."""

from .base import Kind, Layer, kind, some_at, space


class Loss(Layer):
    """``parts`` are summed; ``slopes`` are their derivatives; ``each`` is what one part counts."""

    def each(self, x):
        return 1 / x.shape[0]

    def forward(self, x, t):
        self.x, self.t = x, t
        return space(x).sum(self.parts(x, t)) * self.each(x)

    def backward(self, dout=1.0):
        x, bug = self.x, self.bug
        dx = self.slopes(x, self.t) * self.each(x) * dout
        if bug == "no 1/N":
            return dx * x.shape[0]
        if bug == "1/N twice":
            return dx / x.shape[0]
        if bug == "1/C too":
            return dx / x.shape[1]
        return -dx if bug == "sign" else dx


def one_hot(t, x):
    xp = space(x)
    return xp.astype(xp.arange(x.shape[1]) == t[:, None], x.dtype)


def log_softmax(x):
    xp = space(x)
    z = x - xp.max(x, axis=-1, keepdims=True)
    return z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))


class CrossEntropy(Loss):
    """Softmax and cross entropy of labels, smoothed by ``smooth``."""

    bugs = ("no 1/N", "1/N twice", "sign", "y alone", "one-hot halved")
    smooth = 0.0

    def target(self, x, t):
        return one_hot(t, x) * (1 - self.smooth) + self.smooth / x.shape[1]

    def parts(self, x, t):
        return -self.target(x, t) * log_softmax(x)

    def slopes(self, x, t):
        y, target = space(x).exp(log_softmax(x)), self.target(x, t)
        if self.bug == "not smoothed":
            target = one_hot(t, x)
        return y - target * {"y alone": 0.0, "one-hot halved": 0.5}.get(self.bug, 1.0)


class LabelSmoothing(CrossEntropy):
    bugs = ("not smoothed", "no 1/N", "sign")
    smooth = 0.1


class Focal(Loss):
    """Cross entropy times (1 − p)², p the probability of the label."""

    bugs = ("the weight taken as constant", "no weight", "sign of the weight's slope", "no 1/N")

    def parts(self, x, t):
        xp = space(x)
        logp = xp.sum(one_hot(t, x) * log_softmax(x), axis=-1)
        return -((1 - xp.exp(logp)) ** 2) * logp

    def slopes(self, x, t):
        xp, target = space(x), one_hot(t, x)
        logs = log_softmax(x)
        logp = xp.sum(target * logs, axis=-1, keepdims=True)
        p = xp.exp(logp)
        weight = 1 if self.bug == "no weight" else (1 - p) ** 2
        way = {"the weight taken as constant": 0, "sign of the weight's slope": -1}.get(self.bug, 1)
        by_logp = -weight + way * 2 * (1 - p) * p * logp
        return by_logp * (target - xp.exp(logs))


class KL(Loss):
    """Σ t·(log t − log softmax(x)) for rows t of probabilities."""

    bugs = ("y alone", "t alone", "y - log t", "no 1/N")

    def parts(self, x, t):
        return t * (space(x).log(t) - log_softmax(x))

    def slopes(self, x, t):
        xp = space(x)
        y = xp.exp(log_softmax(x))
        return {"y alone": y, "t alone": -t, "y - log t": y - xp.log(t)}.get(self.bug, y - t)


class MeanSquares(Loss):
    """The mean over all entries."""

    bugs = ("no 2", "no 1/N", "1/C too", "sign")

    def each(self, x):
        return 1 / (x.shape[0] * x.shape[1])

    def parts(self, x, t):
        return (x - t) ** 2

    def slopes(self, x, t):
        return (x - t) * (1 if self.bug == "no 2" else 2)


class SumSquares(MeanSquares):
    bugs = ("no 2", "1/N twice", "sign", "x + t")

    def each(self, x):
        return 1.0

    def slopes(self, x, t):
        return 2 * (x + t) if self.bug == "x + t" else super().slopes(x, t)


class L1(Loss):
    bugs = ("no 1/N", "sign", "x - t itself")

    def parts(self, x, t):
        return space(x).abs(x - t)

    def slopes(self, x, t):
        return x - t if self.bug == "x - t itself" else space(x).sign(x - t)


class Huber(Loss):
    bugs = ("never linear", "always linear", "limit 2 for 1", "no 1/N")

    def parts(self, x, t):
        xp = space(x)
        d = xp.abs(x - t)
        return xp.where(d < 1, 0.5 * d * d, d - 0.5)

    def slopes(self, x, t):
        xp, d = space(x), x - t
        limit = 2 if self.bug == "limit 2 for 1" else 1
        return {"never linear": d, "always linear": xp.sign(d)}.get(self.bug, xp.clip(d, -limit, limit))


class LogCosh(Loss):
    bugs = ("d for tanh d", "sign", "no 1/N")

    def parts(self, x, t):
        xp = space(x)
        return xp.log(0.5 * (xp.exp(x - t) + xp.exp(t - x)))

    def slopes(self, x, t):
        return x - t if self.bug == "d for tanh d" else space(x).tanh(x - t)


class Hinge(Loss):
    """The other classes' scores above the label's less a margin of 1."""

    bugs = ("the label's share forgotten", "mask of the other side", "no mask", "the label's share once", "no 1/N")

    def margins(self, x, t):
        xp, target = space(x), one_hot(t, x)
        return (x - xp.sum(x * target, axis=-1, keepdims=True) + 1) * (1 - target), target

    def parts(self, x, t):
        margins, _ = self.margins(x, t)
        return space(x).maximum(margins, 0)

    def slopes(self, x, t):
        xp = space(x)
        margins, target = self.margins(x, t)
        mask = (margins < 0) if self.bug == "mask of the other side" else (margins > 0)
        mask = xp.astype(mask, x.dtype) if self.bug != "no mask" else 1 - target
        count = xp.sum(mask, axis=-1, keepdims=True)
        share = {"the label's share forgotten": count * 0, "the label's share once": count * 0 + 1}.get(self.bug, count)
        return mask - target * share


class BinaryLogits(Loss):
    """Sigmoid and cross entropy of targets 0 or 1."""

    bugs = ("no sigmoid", "sign", "no 1/N", "slope of the sigmoid too")

    def parts(self, x, t):
        xp = space(x)
        return xp.maximum(x, 0) - x * t + xp.log1p(xp.exp(-xp.abs(x)))

    def slopes(self, x, t):
        y = 1 / (1 + space(x).exp(-x))
        slope = y * (1 - y) if self.bug == "slope of the sigmoid too" else 1
        return ((x if self.bug == "no sigmoid" else y) - t) * slope


class CosineLoss(Loss):
    """1 − the cosine of each row with its target."""

    bugs = ("as of a dot product", "sign", "no length of t")

    def parts(self, x, t):
        xp = space(x)
        self.a, self.b = (xp.sqrt(xp.sum(v * v, axis=-1, keepdims=True)) for v in (x, t))
        return 1 - xp.sum(x * t, axis=-1, keepdims=True) / (self.a * self.b)

    def slopes(self, x, t):
        xp = space(x)
        u, v = x / self.a, t / (1 if self.bug == "no length of t" else self.b)
        inner = 0 if self.bug == "as of a dot product" else xp.sum(u * v, axis=-1, keepdims=True)
        return -(v - inner * u) / self.a


def labels(draw):
    return draw.labels(6, 5)


def values(draw):
    return draw.normal(6, 5, scale=1.5)


def chances(draw):
    rows = draw.rng.uniform(0.1, 1, (6, 5))
    return draw.put(rows / rows.sum(axis=1, keepdims=True))


def bits(draw):
    return draw.put(draw.rng.integers(2, size=(6, 5)).astype(float))


def zeros(draw):
    return draw.full(0.0, 6, 5)


def l1_at_zero(draw):
    return L1()


KINDS = [
    kind(CrossEntropy, t=labels, scales="small"),
    kind(LabelSmoothing, t=labels, scales="small"),
    kind(Focal, t=labels, scales="small"),
    kind(KL, t=chances, scales="small"),
    kind(MeanSquares, t=values),
    kind(SumSquares, t=values),
    kind(L1, t=values),
    Kind(l1_at_zero, t=zeros, scales="all", at_kink=some_at(0.0)),
    kind(Huber, t=values),
    kind(LogCosh, t=values),
    kind(Hinge, t=labels, scales="small", at_kink=lambda x: x.round()),
    kind(BinaryLogits, t=bits, scales="small"),
    kind(CosineLoss, t=values, scales="all"),
]
