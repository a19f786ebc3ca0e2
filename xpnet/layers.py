"""Layers that propagate forward, backward and by finite differences (book, chapter 5).

A layer answers three questions about its last ``forward(x)``:

``forward(x)``      What is the output?
``backward(dout)``  What is the derivative of the loss with respect to the input, if ``dout`` is that with
                    respect to the output? A layer with parameters keeps theirs: ``dW`` beside ``W``.
``difference(dx)``  By exactly how much does the output change if the input changes by the finite amount dx?
                    Never a derivative: a check of ``backward`` against it stays a check. (Optional.)

``parameters`` names the attributes that are learned. A layer of your own needs ``forward`` and ``backward``,
and ``parameters = ("W", …)`` if it learns; it subclasses nothing.

Arrays have shape (…, N, D): N samples of D features, any further leading axes pass.
"""

from .functions import as_targets, log_softmax, namespace, sigmoid, softmax


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

    def forward(self, x):
        """Return max(x, 0) in the shape of ``x``; NaN stays NaN."""
        self.x = x
        return namespace(x).maximum(x, 0)

    def backward(self, dout):
        """Return ``dout`` where x > 0 and 0 elsewhere."""
        return namespace(dout).where(self.x <= 0, 0.0, dout)


class Sigmoid:
    """1 / (1 + exp(−x)) for arrays of any shape.

    Source: Deep Learning from Scratch, 5.5.2.
    """

    def forward(self, x):
        """Return sigmoid(x) in the shape of ``x``."""
        self.y = sigmoid(x)
        return self.y

    def backward(self, dout):
        """Return dout·y·(1 − y)."""
        return dout * (self.y * (1.0 - self.y))


class Affine:
    """x @ W + b for ``x`` (…, N, D) or one sample (D,), ``W`` (D, M) and ``b`` (M,); ``b=None`` leaves b out.

    The layer owns the arrays ``W`` and ``b`` it was given and keeps their gradients as ``dW`` and ``db``. Raises
    ValueError if shapes do not fit.

    Source: Deep Learning from Scratch, 5.6.
    """

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
        """Keep dW and db only: nobody needs the gradient with respect to the data."""
        xp = namespace(dout)
        rows = xp.reshape(dout, (-1, dout.shape[-1]))
        self.dW = xp.reshape(self.x, (-1, self.x.shape[-1])).T @ rows
        if self.b is not None:
            self.db = xp.sum(rows, axis=0)


class Softmax:
    """Probabilities along the last axis, as a layer: for outputs that feed a squared error.

    Source: Deep Learning from Scratch, 3.5 and 4.2.1.
    """

    def forward(self, x):
        """Return softmax(x) of shape (…, C)."""
        self.y = softmax(x)
        return self.y

    def backward(self, dout):
        """Return y·(dout − Σ y·dout)."""
        y = self.y
        return y * (dout - namespace(y).sum(y * dout, axis=-1, keepdims=True))


class SoftmaxWithLoss:
    """Softmax and cross entropy of scores ``x`` (…, N, C) or (C,): −Σ t·log softmax(x), averaged over N.

    Targets are integer labels (…, N), or one-hot or soft weights (…, N, C) that need not sum to one. It works
    through the logarithm of softmax, so no 1e-7 bends the loss. ``loss`` keeps the last loss, ``t`` the targets
    as weights.

    Source: Deep Learning from Scratch, 5.6.3; exact for any weights: ∂L/∂x = (softmax(x)·Σt − t)/N.
    """

    def forward(self, x, t):
        """Return the loss, a scalar for (N, C) and of shape (…) for (…, N, C).

        Raises ValueError or TypeError if the targets do not fit; a label outside [0, C) gives NaN.
        """
        xp = namespace(x, t)
        self.t = as_targets(t, x)
        self.log_y = log_softmax(x)
        losses = -xp.sum(self.t * self.log_y, axis=-1)
        self.loss = losses if x.ndim == 1 else xp.mean(losses, axis=-1)
        return self.loss

    @property
    def y(self):
        """The probabilities of the last forward, of shape (…, C)."""
        return namespace(self.log_y).exp(self.log_y)

    def backward(self, dout=1.0):
        """Return dx of shape (…, C), for ``dout`` a number or an array of the loss's shape."""
        xp = namespace(self.log_y)
        dx = self.y * xp.sum(self.t, axis=-1, keepdims=True) - self.t
        return dx * _spread(dout, dx)


class IdentityWithLoss:
    """Squared error of outputs ``x`` (…, N, C) or (C,): ½ Σ (x − t)² per sample, averaged over N.

    ``t`` holds real targets in the shape of ``x``, or integer labels (…, N), which become one-hot.

    Source: Deep Learning from Scratch, 4.2.1 and appendix A (identity and squared error as an output layer).
    """

    def forward(self, x, t):
        """Return the loss, a scalar for (N, C) and of shape (…) for (…, N, C).

        Raises ValueError or TypeError if the targets do not fit; a label outside [0, C) gives NaN.
        """
        xp = namespace(x, t)
        self.t = as_targets(t, x)
        self.y = x
        losses = 0.5 * xp.sum((x - self.t) ** 2, axis=-1)
        self.loss = losses if x.ndim == 1 else xp.mean(losses, axis=-1)
        return self.loss

    def backward(self, dout=1.0):
        """Return dx of shape (…, C), for ``dout`` a number or an array of the loss's shape."""
        dx = self.y - self.t
        return dx * _spread(dout, dx)


def _spread(dout, dx):
    """Bring ``dout``, one value per loss, to where it multiplies ``dx`` (…, N, C), with the mean's 1/N."""
    if not isinstance(dout, (int, float)) and dout.ndim:
        dout = dout[..., None, None]
    return dout / dx.shape[-2] if dx.ndim > 1 else dout
