"""Output layers, which compare a network's scores with targets and measure the loss (book, 5.6.3).

They are layers (see ``xpnet.layers``) at the end of a row: ``forward(x, t)`` returns the loss, ``backward()`` its
derivative with respect to x, and ``difference(dx)`` returns each sample's part (…, N) in the change of the loss. A
third way, ``series``, lets numerical gradients sum over all classes at once.
"""

from .functions import as_targets, namespace
from .layers import Remembers, everywhere


class SoftmaxWithLoss(Remembers):
    """Softmax and cross entropy of scores ``x`` (…, N, C) or (C,): −Σ t·log softmax(x), averaged over N.

    Targets are integer labels (…, N), or one-hot or soft weights (…, N, C) that need not sum to one. It works
    through the logarithm of softmax, so no 1e-7 bends the loss. ``y`` keeps the probabilities, ``t`` the targets as
    weights, ``loss`` the loss.

    Source: Deep Learning from Scratch, 5.6.3; exact for any weights: ∂L/∂x = (softmax(x)·Σt − t)/N.
    """

    samplewise = True

    def forward(self, x, t):
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

    def backward(self, dout=1.0):
        """Return dx of shape (…, C), for ``dout`` a number or an array of the loss's shape."""
        dx = self.y * namespace(self.y).sum(self.t, axis=-1, keepdims=True) - self.t
        return dx * _spread(dout, dx)

    def difference(self, dx, at=everywhere):
        """Return each sample's part (…, N) in the change of the loss: (Σt·log(1 + Σ y·(exp(dx) − 1)) − Σ t·dx)/N."""
        xp = namespace(dx)
        y, t = at(self.y), at(self.t)
        grown = xp.log1p(xp.sum(y * xp.expm1(dx), axis=-1))
        return (xp.sum(t, axis=-1) * grown - xp.sum(t * dx, axis=-1)) / _samples(self.y)

    def series(self, directions, terms):
        """Return c₁ … c_terms (N, J): scores moved by z along direction j (J, C) change the loss by Σₖ cₖ·zᵏ.

        That is each sample's part: the logarithm of the mean of exp(z·w) under the probabilities, whose power series
        has the cumulants of w over k! as coefficients, minus z·Σ t·w. With w in a range of width R, what is left out
        after K = 2, 3 or 4 terms is at most (R·z)ᴷ/6 of R·z.
        """
        xp = namespace(directions)
        total = xp.sum(self.t, axis=-1, keepdims=True)
        w = directions - xp.mean(directions, axis=-1, keepdims=True)  # smaller numbers, the same differences
        m = [self.y @ (w**k).T for k in range(1, terms + 1)]
        cumulants = [(self.y * total - self.t) @ directions.T, total * (m[1] - m[0] ** 2) / 2]
        if terms >= 3:
            cumulants.append(total * (m[2] - 3 * m[0] * m[1] + 2 * m[0] ** 3) / 6)
        if terms == 4:
            fourth = m[3] - 4 * m[0] * m[2] - 3 * m[1] ** 2 + 12 * m[0] ** 2 * m[1] - 6 * m[0] ** 4
            cumulants.append(total * fourth / 24)
        return [c / _samples(self.y) for c in cumulants]


class IdentityWithLoss(Remembers):
    """Squared error of outputs ``x`` (…, N, C) or (C,): ½ Σ (x − t)² per sample, averaged over N.

    ``t`` holds real targets in the shape of ``x``, or integer labels (…, N), which become one-hot.

    Source: Deep Learning from Scratch, 4.2.1 and appendix A.
    """

    samplewise = exact_series = True

    def forward(self, x, t):
        """Return the loss, as ``SoftmaxWithLoss.forward``; raises ValueError or TypeError as that does."""
        namespace(x, t, names="x and t")
        self.y, self.t = x, as_targets(t, x)
        self.loss = _average(0.5 * (x - self.t) ** 2)
        return self.loss

    def backward(self, dout=1.0):
        """Return dx of shape (…, C), for ``dout`` a number or an array of the loss's shape."""
        dx = self.y - self.t
        return dx * _spread(dout, dx)

    def difference(self, dx, at=everywhere):
        """Return each sample's part (…, N) in the change of the loss: Σ dx·(y − t + ½·dx)/N."""
        error = at(self.y) - at(self.t)
        return namespace(dx).sum(dx * (error + 0.5 * dx), axis=-1) / _samples(self.y)

    def series(self, directions, terms):
        """Return c₁, c₂ (N, J): outputs moved by z along direction j (J, C) change the loss by c₁·z + c₂·z²."""
        squares = 0.5 * namespace(directions).sum(directions**2, axis=-1)
        first = (self.y - self.t) @ directions.T
        return [first / _samples(self.y), (first * 0.0 + squares) / _samples(self.y)]


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
