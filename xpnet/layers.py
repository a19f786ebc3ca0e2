"""Layers that propagate forward, backward and by finite differences (book, chapter 5).

A layer answers three questions about its last ``forward(x)``:

``forward(x)``      What is the output?
``backward(dout)``  What is the derivative of the loss with respect to the input, if ``dout`` is that with respect to
                    the output? A layer with parameters keeps theirs: ``dW`` beside ``W``.
``difference(dx)``  By exactly how much does the output change if the input changes by the finite amount dx? Optional,
                    and never a derivative: a check of ``backward`` against it stays a check.

A layer of your own needs ``forward`` and ``backward``, and ``parameters = ("W", …)`` if it learns; no base class.

Arrays have shape (…, N, D): N samples of D features, any further leading axes pass. An output layer's
``forward(x, t)`` returns the loss, and its ``difference(dx)`` each sample's part (…, N) in the change of the loss.

Two optional attributes let numerical gradients leave out work. ``samplewise`` says that a sample's output depends on
that sample alone; ``difference`` then takes ``at``, a function that brings an array kept by ``forward`` to the samples
and units that dx is about. ``elementwise`` says that each entry depends on one entry alone, and moves no further.
"""

from .functions import as_rows, as_targets, namespace, sigmoid, softmax


def everywhere(kept):
    """Return what ``forward`` kept as it is, for changes of all samples and units."""
    return kept


class MulLayer:
    """z = x·y on plain numbers or arrays of one shape.

    Source: Deep Learning from Scratch, 5.4.1.

    >>> layer = MulLayer()
    >>> layer.forward(100, 2), layer.backward(1.5)
    (200, (3.0, 150.0))
    """

    def forward(self, x, y):
        """Return x·y."""
        self.x, self.y = x, y
        return x * y

    def backward(self, dout):
        """Return (dx, dy) = (dout·y, dout·x)."""
        return dout * self.y, dout * self.x


class AddLayer:
    """z = x + y on plain numbers or arrays of one shape.

    Source: Deep Learning from Scratch, 5.4.2.

    >>> layer = AddLayer()
    >>> layer.forward(200, 450), layer.backward(1.1)
    (650, (1.1, 1.1))
    """

    def forward(self, x, y):
        """Return x + y."""
        return x + y

    def backward(self, dout):
        """Return (dx, dy) = (dout, dout)."""
        return dout, dout


class Relu:
    """max(x, 0) for arrays of any shape; the derivative at 0 is taken as 0.

    Source: Deep Learning from Scratch, 5.5.1.
    """

    samplewise = elementwise = True

    def forward(self, x):
        """Return max(x, 0) in the shape of ``x``; NaN stays NaN."""
        self.x = x
        return namespace(x).maximum(x, 0)

    def backward(self, dout):
        """Return ``dout`` where x > 0 and 0 elsewhere, or NaN if ``dout`` is infinite or NaN there."""
        return dout * namespace(dout).astype(self.x > 0, dout.dtype)  # where(…) takes a processor several times longer

    def difference(self, dx, at=everywhere):
        """Return max(x + dx, 0) − max(x, 0) = max(dx + min(x, 0), −max(x, 0)), which subtracts no near numbers."""
        xp = namespace(dx)
        return xp.maximum(dx + at(xp.minimum(self.x, 0)), at(-xp.maximum(self.x, 0)))


class Sigmoid:
    """1 / (1 + exp(−x)) for arrays of any shape.

    Source: Deep Learning from Scratch, 5.5.2.
    """

    samplewise = elementwise = True

    def forward(self, x):
        """Return sigmoid(x) in the shape of ``x``."""
        xp = namespace(x)
        z = xp.exp(-xp.abs(x))
        large = 1.0 / (1.0 + z)  # the larger of y and 1 − y
        self.x, self.rest = x, None
        self.y = xp.where(x >= 0, large, z * large)
        self.slope = z * large * large  # y·(1 − y), also where 1 − y would be rounded to 0
        return self.y

    def backward(self, dout):
        """Return dout·y·(1 − y)."""
        return dout * self.slope

    def difference(self, dx, at=everywhere):
        """Return sigmoid(x + dx) − sigmoid(x) = y·(1 − y)·(1 − e)/(y + (1 − y)·e) with e = exp(−dx)."""
        xp = namespace(dx)
        if self.rest is None:
            self.rest = sigmoid(-self.x)
        return at(self.slope) * -xp.expm1(-dx) / (at(self.rest) * xp.exp(-dx) + at(self.y))


class Affine:
    """x @ W + b for ``x`` (…, N, D) or one sample (D,), ``W`` (D, M) and ``b`` (M,); ``b=None`` leaves b out.

    The layer owns the arrays ``W`` and ``b`` it was given and keeps their gradients as ``dW`` and ``db``. Raises
    ValueError if shapes do not fit.

    Source: Deep Learning from Scratch, 5.6.
    """

    samplewise = True

    def __init__(self, W, b=None):
        if W.ndim != 2 or (b is not None and tuple(b.shape) != (W.shape[1],)):
            b_shape = None if b is None else tuple(b.shape)
            raise ValueError(f"W has shape {tuple(W.shape)} and b {b_shape}; they must be (D, M) and (M,)")
        self.W, self.b = W, b
        self.parameters = ("W",) if b is None else ("W", "b")

    def forward(self, x):
        """Return x @ W + b, of shape (…, N, M)."""
        if x.shape[-1:] != self.W.shape[:1]:
            raise ValueError(
                f"x has shape {tuple(x.shape)} and W {tuple(self.W.shape)}: the last axis of x must have "
                f"length {self.W.shape[0]}"
            )
        self.x = x
        out = x @ self.W
        return out if self.b is None else out + self.b

    def backward(self, dout):
        """Return dx = dout @ Wᵀ, and keep dW = xᵀ @ dout and db = Σ dout."""
        self.backward_parameters(dout)
        return dout @ self.W.T

    def backward_parameters(self, dout):
        """Keep dW and db only, for a first layer: nobody needs the gradient with respect to the data."""
        x, rows = as_rows(self.x), as_rows(dout)
        self.dW = x.T @ rows
        if self.b is not None:
            self.db = namespace(rows).sum(rows, axis=0)

    def difference(self, dx, at=everywhere):
        """Return dx @ W: an affine map has no other change."""
        out = as_rows(dx) @ self.W  # one flat product: stacked ones are slow on a GPU
        return namespace(dx).reshape(out, (*dx.shape[:-1], self.W.shape[1]))


class Softmax:
    """Probabilities along the last axis, as a layer: for outputs that feed a squared error.

    Source: Deep Learning from Scratch, 3.5 and 4.2.1.
    """

    samplewise = True

    def forward(self, x):
        """Return softmax(x) of shape (…, C)."""
        self.y = softmax(x)
        return self.y

    def backward(self, dout):
        """Return y·(dout − Σ y·dout)."""
        y = self.y
        return y * (dout - namespace(y).sum(y * dout, axis=-1, keepdims=True))

    def difference(self, dx, at=everywhere):
        """Return softmax(x + dx) − softmax(x) = y·(e − s)/(1 + s) with e = exp(dx) − 1 and s = Σ y·e."""
        xp = namespace(dx)
        y, e = at(self.y), xp.expm1(dx)
        s = xp.sum(y * e, axis=-1, keepdims=True)
        return y * (e - s) / (1.0 + s)


class SoftmaxWithLoss:
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
        xp = namespace(x, t)
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


class IdentityWithLoss:
    """Squared error of outputs ``x`` (…, N, C) or (C,): ½ Σ (x − t)² per sample, averaged over N.

    ``t`` holds real targets in the shape of ``x``, or integer labels (…, N), which become one-hot.

    Source: Deep Learning from Scratch, 4.2.1 and appendix A.
    """

    samplewise = exact_series = True

    def forward(self, x, t):
        """Return the loss, as ``SoftmaxWithLoss.forward``; raises ValueError or TypeError as that does."""
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
