"""Loss functions of a prediction y and a target t (book, section 4.2)."""

from __future__ import annotations

from .annotations import Array
from .functions import as_targets, namespace, require_floats


def _require_predictions(y, t):
    """Return the namespace of ``y`` and ``t``; raise unless ``y`` holds floats, of a sample or a batch."""
    xp = namespace(y, t, names="y and t")
    require_floats("y", y)
    if not y.ndim or 0 in y.shape:
        raise ValueError(f"y has shape {tuple(y.shape)}; it must be (C,) or (…, N, C), with nothing empty")
    return xp


def _half_squares(y, t):
    xp = _require_predictions(y, t)
    if tuple(y.shape) != tuple(t.shape):
        raise ValueError(f"y has shape {tuple(y.shape)} and t has shape {tuple(t.shape)}; they must be equal")
    if t.dtype != y.dtype:
        if not xp.isdtype(t.dtype, ("real floating", "integral", "bool")):
            raise TypeError(f"t has dtype {t.dtype}; it must hold real numbers, convert with xp.astype(t, y.dtype)")
        t = xp.astype(t, y.dtype)
    return 0.5 * xp.sum((y - t) ** 2, axis=(-2, -1) if y.ndim >= 2 else -1)


def sum_squared_error(y: Array, t: Array) -> Array:
    """Return ½ Σ (y − t)² over a sample (C,) or a batch (N, C); further leading axes (…, N, C) stay.

    ``y`` and ``t`` have one shape. Raises TypeError if ``y`` is not an array of floats or ``t`` none of real numbers,
    ValueError if the shapes differ or there is nothing in them.

    Source: Deep Learning from Scratch, 4.2.1 (second edition's name).

    >>> import numpy as np
    >>> float(sum_squared_error(np.asarray([0.5, 0.5]), np.asarray([0.0, 1.0])))
    0.25
    """
    return _half_squares(y, t)


def mean_squared_error(y: Array, t: Array, *, mean: bool = False) -> Array:
    """Return by default ½ Σ (y − t)², no mean: the book's first edition calls it so; ``mean=True`` is the true mean.

    The default equals ``sum_squared_error``. ``mean=True`` is (1/N) Σₙ Σ_c (y − t)²: the
    squared distance of a sample (C,), averaged over a batch (N, C), without the ½. Further leading axes
    (…, N, C) stay. Raises as ``sum_squared_error`` does.

    Source: Deep Learning from Scratch, 4.2.1 (first edition's name).

    >>> import numpy as np
    >>> y, t = np.asarray([[0.5, 0.5], [0.0, 1.0]]), np.asarray([[0.0, 1.0], [0.0, 1.0]])
    >>> float(mean_squared_error(y, t)), float(mean_squared_error(y, t, mean=True))
    (0.25, 0.25)
    """
    half = _half_squares(y, t)
    if not mean:
        return half
    return half * (2.0 / (y.shape[-2] if y.ndim >= 2 else 1))


def cross_entropy_error(y: Array, t: Array) -> Array:
    """Return −Σ t·log(y + 1e-7) averaged over the batch, for probabilities ``y`` of shape (C,) or (…, N, C).

    ``t`` holds integer labels (…, N), or one-hot or soft weights (…, N, C). The 1e-7 keeps log(0) away and is the
    book's; it also bends the loss, so ``SoftmaxWithLoss`` works without it. Raises TypeError if ``y`` is not an
    array of floats or labels are not integers, ValueError if shapes do not fit or ``y`` is empty. A label outside
    [0, C) gives NaN.

    Source: Deep Learning from Scratch, 4.2.2 and 4.2.4.

    >>> import numpy as np
    >>> y = np.asarray([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]])
    >>> round(float(cross_entropy_error(y, np.asarray([0, 1]))), 6)
    0.289909
    """
    xp = _require_predictions(y, t)
    losses = -xp.sum(as_targets(t, y) * xp.log(y + 1e-7), axis=-1)
    return losses if y.ndim == 1 else xp.mean(losses, axis=-1)
