"""Output layers, which compare a network's scores with targets and measure the loss (book, 5.6.3).

They are layers (see ``xpnet.layers``) at the end of a row: ``forward(x, t)`` returns the loss, ``backward()`` its
derivative with respect to x, and ``difference(x, t, dx)`` the change (…, N) of each sample's own loss, of which the
loss is the mean, for targets as weights (N, C). ``linear`` says that ``backward(dout)`` takes a factor.
"""

from __future__ import annotations

from .annotations import Array
from .functions import as_targets, log_of_largest, log_softmax, namespace, require_labels, row_sums, softmax
from .layers import Remembers


class SoftmaxWithLoss(Remembers):
    """Softmax and cross entropy of scores ``x`` (…, N, C) or (C,): −Σ t·log softmax(x), averaged over N.

    Targets are integer labels (…, N), or one-hot or soft weights (…, N, C) that need not sum to one. It works
    through the logarithm of softmax, so no 1e-7 bends the loss. ``y`` keeps the probabilities, ``t`` the targets as
    weights, ``loss`` the loss.

    Source: Deep Learning from Scratch, 5.6.3; exact for any weights: ∂L/∂x = (softmax(x)·Σt − t)/N.
    """

    linear = True

    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss, a scalar for (N, C) and of shape (…) for (…, N, C).

        Raises ValueError or TypeError if the targets do not fit; a label outside [0, C) gives NaN.
        """
        xp = namespace(x, t, names="x and t")
        self.t = as_targets(t, x)
        z = x - xp.max(x, axis=-1, keepdims=True)
        y = xp.exp(z)
        total = xp.sum(y, axis=-1, keepdims=True)
        self.y = y / total
        self.loss = _average(self.t * (xp.log(total) - z))  # −log softmax(x) = log Σ exp(z) − z
        return self.loss

    def backward(self, dout: Array = 1.0) -> Array:
        """Return dx of shape (…, C), for ``dout`` a number or an array of the loss's shape."""
        dx = self.y * namespace(self.y).sum(self.t, axis=-1, keepdims=True) - self.t
        return dx * _spread(dout, dx)

    def difference(self, x: Array, t: Array, dx: Array) -> Array:
        """Return the change of each sample's loss: Σt·log(1 + Σ y·(exp(d) − 1)) + (Σt − Σ|t|)·s, with y = softmax(x).

        What all scores share changes nothing: d = dx − s counts from the targets' own change s, so that a sample which
        is all but certain, whose loss changes little, keeps its digits.
        """
        xp = namespace(dx)
        total, size = xp.sum(t, axis=-1), xp.sum(xp.abs(t), axis=-1)
        s = row_sums(t * dx) / xp.where(size > 0, size, 1.0)
        # nothing, unless exp would overflow
        beyond = xp.maximum(xp.max(dx) - xp.min(dx) - log_of_largest(dx), 0.0)
        grown = xp.log1p(row_sums(softmax(x) * xp.expm1(dx - (s + beyond)[..., None]))) + beyond
        return total * grown + (total - size) * s


class IdentityWithLoss(Remembers):
    """Squared error of outputs ``x`` (…, N, C) or (C,): ½ Σ (x − t)² per sample, averaged over N.

    ``t`` holds real targets in the shape of ``x``, or integer labels (…, N), which become one-hot.

    Source: Deep Learning from Scratch, 4.2.1 and appendix A.
    """

    linear = True

    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss, as ``SoftmaxWithLoss.forward``; raises ValueError or TypeError as that does."""
        namespace(x, t, names="x and t")
        self.y, self.t = x, as_targets(t, x)
        self.loss = _average(0.5 * (x - self.t) ** 2)
        return self.loss

    def backward(self, dout: Array = 1.0) -> Array:
        """Return dx of shape (…, C), for ``dout`` a number or an array of the loss's shape."""
        dx = self.y - self.t
        return dx * _spread(dout, dx)

    def difference(self, x: Array, t: Array, dx: Array) -> Array:
        """Return the change of each sample's loss: Σ dx·(x − t + ½·dx)."""
        return row_sums(dx * (x - t + 0.5 * dx))


class TimeSoftmaxWithLoss(Remembers):
    """Softmax and cross entropy of sequences: −log softmax(x) at the labels, averaged over those that count.

    Scores ``x`` are (…, N, T, C) and labels ``t`` (N, T) integers; a label equal to ``ignore_label`` counts nowhere.

    Source: Deep Learning from Scratch 2, 5.4.2 (TimeSoftmaxWithLoss).
    """

    def __init__(self, *, ignore_label: int = -1) -> None:
        self.ignore_label = ignore_label

    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss, a scalar for (N, T, C) and of shape (…) for (…, N, T, C); NaN where no label counts.

        Raises TypeError or ValueError if ``t`` does not hold integer labels (N, T); a label outside [0, C) gives NaN.
        """
        xp = namespace(x, t, names="x and t")
        require_labels(t)
        if x.ndim < 3 or tuple(t.shape) != tuple(x.shape[-3:-1]):
            raise ValueError(
                f"labels t have shape {tuple(t.shape)} and scores {tuple(x.shape)}; they must be (N, T) and (N, T, C)"
            )
        counts = t != self.ignore_label
        rows = as_targets(xp.where(counts, t, 0), x) * xp.astype(counts, x.dtype)[..., None]
        number = xp.sum(xp.astype(counts, x.dtype))
        self.weights = xp.where(number > 0, rows / xp.maximum(number, 1), xp.nan)
        log_y = log_softmax(x)
        self.y = xp.exp(log_y)
        self.loss = -xp.sum(self.weights * log_y, axis=(-3, -2, -1))
        return self.loss

    def backward(self, dout: Array = 1.0) -> Array:
        """Return dx of shape (…, N, T, C), zero where the label is ignored."""
        dx = self.y * namespace(self.y).sum(self.weights, axis=-1, keepdims=True) - self.weights
        return dx * (dout if isinstance(dout, (int, float)) or not dout.ndim else dout[..., None, None, None])


def _samples(x):
    """Return N of outputs (…, N, C), 1 for one sample (C,)."""
    return x.shape[-2] if x.ndim > 1 else 1


def _average(parts):
    """Sum the parts of a loss (…, N, C) and average over N."""
    return namespace(parts).sum(parts, axis=(-2, -1) if parts.ndim > 1 else -1) / _samples(parts)


def _spread(dout, dx):
    """Bring ``dout``, one value per loss, to where it multiplies ``dx`` (…, N, C), with the mean's 1/N."""
    if not isinstance(dout, (int, float)) and dout.ndim:
        dout = dout[..., None, None]
    return dout / _samples(dx)
