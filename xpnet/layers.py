"""Layers that propagate forward, backward and by finite differences (book, chapter 5).

A layer answers three questions:

``forward(x)``         What is the output?
``backward(dout)``     What is the derivative of the loss with respect to the last x, if ``dout`` is that with respect
                       to the output? A layer with parameters keeps theirs: ``dW`` beside ``W``.
``difference(x, dx)``  By exactly how much does the output change if the input x changes by the finite amount dx?
                       Optional, for layers that treat every sample by itself. It is never a derivative and a function
                       of its arguments alone: it reads nothing that ``forward`` kept for ``backward``, so that a check
                       of one against the other stays a check.

A layer of your own needs ``forward`` and ``backward``, and ``parameters = ("W", …)`` if it learns; no base class.
``backward`` is linear in ``dout``, returns a new array, and replaces the gradients it kept before.

Arrays have shape (…, N, D): N samples of D features, any further leading axes pass. A network ends in an output layer,
which compares with a target: see ``xpnet.output_layers``.

``elementwise = True`` says that each entry of the output depends on the same entry of the input alone; numerical
gradients then leave out work.
"""

from __future__ import annotations

from math import ceil, log

from .annotations import Array
from .arrays import require_precision
from .describing import Described, layer_in_words
from .functions import as_rows, log_of_largest, namespace, row_sums, softmax


def has_own(layer, method, beside):
    """Return whether ``layer`` has ``method``, and it was written with its ``beside``, not inherited past it.

    A subclass of a layer that brings a ``forward`` of its own inherits a ``difference`` that is not its own.
    """
    if hasattr(layer, method):
        for owner in (layer, *type(layer).__mro__):
            held = getattr(owner, "__dict__", ())
            if method in held or beside in held:
                return method in held
    return False


def is_affine(layer):
    """Return whether ``layer`` computes x @ W + b."""
    return isinstance(layer, Affine) and has_own(layer, "difference", "forward")


def parameter_names(layer):
    """Return the names of the attributes that ``layer`` learns; raise if they are a string or name what it lacks."""
    kind, names = type(layer).__name__, getattr(layer, "parameters", ())
    if isinstance(names, str):
        raise TypeError(f"{kind}.parameters is the string {names!r}; write ({names!r},)")
    for name in names:
        if not hasattr(layer, name):
            raise AttributeError(f"{kind} names {name!r} in its parameters, but has no such attribute")
    return tuple(names)


class Remembers(Described):
    """A layer that keeps in ``forward`` what ``backward`` needs, and says so where the order is wrong."""

    _description = layer_in_words

    def __getattr__(self, name):
        what = f"{type(self).__name__} has no {name!r}"
        raise AttributeError(f"{what}; forward(x) comes first, then backward(dout)", name=name, obj=self)


class MulLayer(Remembers):
    """z = x·y on plain numbers or arrays of one shape.

    Source: Deep Learning from Scratch, 5.4.1.

    >>> layer = MulLayer()
    >>> layer.forward(100, 2), layer.backward(1.5)
    (200, (3.0, 150.0))
    """

    def forward(self, x: Array, y: Array) -> Array:
        """Return x·y."""
        self.x, self.y = x, y
        return x * y

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """Return (dx, dy) = (dout·y, dout·x)."""
        return dout * self.y, dout * self.x


class AddLayer(Described):
    """z = x + y on plain numbers or arrays of one shape.

    Source: Deep Learning from Scratch, 5.4.2.

    >>> layer = AddLayer()
    >>> layer.forward(200, 450), layer.backward(1.1)
    (650, (1.1, 1.1))
    """

    _description = layer_in_words

    def forward(self, x: Array, y: Array) -> Array:
        """Return x + y."""
        return x + y

    def backward(self, dout: Array) -> tuple[Array, Array]:
        """Return (dx, dy) = (dout, dout)."""
        return dout, dout


class Relu(Remembers):
    """max(x, 0) for arrays of any shape; the derivative at 0 is taken as 0.

    Source: Deep Learning from Scratch, 5.5.1.
    """

    elementwise = True

    def forward(self, x: Array) -> Array:
        """Return max(x, 0) in the shape of ``x``; NaN stays NaN."""
        self.x = x
        return namespace(x, names="x").maximum(x, 0)

    def backward(self, dout: Array) -> Array:
        """Return ``dout`` where x > 0 and 0 elsewhere, or NaN if ``dout`` is infinite or NaN there."""
        return dout * namespace(dout).astype(self.x > 0, dout.dtype)  # where(…) takes a processor several times longer

    def difference(self, x: Array, dx: Array) -> Array:
        """Return max(x + dx, 0) − max(x, 0) = max(dx, −x) + min(x, 0), which subtracts no near numbers."""
        xp = namespace(dx)
        return xp.maximum(dx, -x) + xp.minimum(x, 0)


class Sigmoid(Remembers):
    """1 / (1 + exp(−x)) for arrays of any shape.

    Source: Deep Learning from Scratch, 5.5.2.
    """

    elementwise = True

    def forward(self, x: Array) -> Array:
        """Return sigmoid(x) in the shape of ``x``."""
        xp = namespace(x, names="x")
        z = xp.exp(xp.copysign(x, -1.0))  # exp(−|x|), at most 1
        large = 1.0 / (1.0 + z)
        small = z * large
        self.y = xp.where(x >= 0, large, small)
        self.slope = small * large  # y·(1 − y), also where 1 − y would be rounded to 0
        return self.y

    def backward(self, dout: Array) -> Array:
        """Return dout·y·(1 − y)."""
        return dout * self.slope

    def difference(self, x: Array, dx: Array) -> Array:
        """Return σ(x + dx) − σ(x), for x < 0 as z·e/((1 + z)·(1 + z + z·e)) with z = exp(−|x|) and e = exp(dx) − 1.

        A positive x is flipped together with dx and with the result, so that 1 + z + z·e never cancels.
        """
        xp = namespace(dx)
        nothing = ceil(-log(xp.finfo(dx.dtype).eps / 16))  # is exp of minus that, beside 1
        flip, far = xp.copysign(1.0, -x), xp.abs(x)
        dx = flip * dx
        # from far below zero to far above σ(x) itself counts for nothing, and σ(x + dx) knows the sum alone
        both = xp.maximum(xp.minimum(far, dx) - nothing, 0.0)
        z = xp.exp(both - far)
        below = 1.0 + z
        change = z * xp.expm1(xp.minimum(dx - both, log_of_largest(dx)))  # beyond, exp overflows: σ changes no more
        return change / (flip * below * (below + change))


class Affine(Remembers):
    """x @ W + b for ``x`` (…, N, D) or one sample (D,), ``W`` (D, M) and ``b`` (M,); ``b=None`` leaves b out.

    The layer owns the arrays ``W`` and ``b`` it was given and keeps their gradients as ``dW`` and ``db``. Raises
    TypeError if they are not arrays of floats of at least 32 bits, of one library and dtype, and ValueError if shapes
    do not fit.

    Source: Deep Learning from Scratch, 5.6.
    """

    def __init__(self, W: Array, b: Array | None = None) -> None:
        if isinstance(W, int):
            raise TypeError(f"W is the number {W}; Affine takes the array W (D, M) itself, TwoLayerNet takes sizes")
        require_precision("W", W)
        if b is not None:
            require_precision("b", b)
            namespace(W, b, names="W and b")
            if W.dtype != b.dtype:
                raise TypeError(f"W has dtype {W.dtype} and b {b.dtype}; they must be of one dtype")
        if W.ndim != 2 or (b is not None and tuple(b.shape) != (W.shape[1],)):
            b_shape = None if b is None else tuple(b.shape)
            raise ValueError(f"W has shape {tuple(W.shape)} and b {b_shape}; they must be (D, M) and (M,)")
        self.W, self.b = W, b
        self.parameters = ("W",) if b is None else ("W", "b")

    def forward(self, x: Array) -> Array:
        """Return x @ W + b, of shape (…, N, M).

        Raises TypeError if ``x`` is not an array, ValueError if its last axis is not as long as ``W``'s first.
        """
        namespace(x, names="x")
        if x.shape[-1:] != self.W.shape[:1]:
            raise ValueError(
                f"x has shape {tuple(x.shape)} and W {tuple(self.W.shape)}: the last axis of x must have "
                f"length {self.W.shape[0]}"
            )
        self.x = x
        out = x @ self.W
        return out if self.b is None else out + self.b

    def backward(self, dout: Array) -> Array:
        """Return dx = dout @ Wᵀ, and keep dW = xᵀ @ dout and db = Σ dout."""
        self.backward_parameters(dout)
        return dout @ self.W.T

    def backward_parameters(self, dout: Array) -> None:
        """Keep dW and db only, for a first layer: nobody needs the gradient with respect to the data."""
        x, rows = as_rows(self.x), as_rows(dout)
        self.dW = x.T @ rows
        if self.b is not None:
            self.db = namespace(rows).sum(rows, axis=0)

    def difference(self, x: Array, dx: Array) -> Array:
        """Return dx @ W: an affine map has no other change."""
        out = as_rows(dx) @ self.W  # one flat product: stacked ones are slow on a GPU
        return namespace(dx).reshape(out, (*dx.shape[:-1], self.W.shape[1]))


class Softmax(Remembers):
    """Probabilities along the last axis, as a layer: for outputs that feed a squared error.

    Source: Deep Learning from Scratch, 3.5 and 4.2.1.
    """

    def forward(self, x: Array) -> Array:
        """Return softmax(x) of shape (…, C)."""
        self.y = softmax(x)
        return self.y

    def backward(self, dout: Array) -> Array:
        """Return y·(dout − Σ y·dout)."""
        y = self.y
        return y * (dout - namespace(y).sum(y * dout, axis=-1, keepdims=True))

    def difference(self, x: Array, dx: Array) -> Array:
        """Return softmax(x + dx) − softmax(x) = y·(e − s)/(1 + s) with e = exp(d) − 1 and s = Σ y·e.

        What all entries share changes nothing: d is dx, counted from where y is largest, whose own e is then 0, so that
        nothing cancels where y is all but certain.
        """
        xp, y = namespace(dx), softmax(x)
        first = xp.astype(y == xp.max(y, axis=-1, keepdims=True), y.dtype)
        d = dx - (row_sums(first * dx) / row_sums(first))[..., None]
        e = xp.expm1(xp.minimum(d, log_of_largest(dx)))
        s = row_sums(y * e)[..., None]
        return y * (e - s) / (1.0 + s)
