"""Activation functions, softmax and one-hot targets (book, chapter 3 and section 4.2)."""

from __future__ import annotations

from math import log
from typing import Any

from array_api_compat import array_namespace, device

from .annotations import Array
from .scalars import require_count

_namespaces: dict[tuple[type, ...], Any] = {}


def namespace(*arrays, names=""):
    """Return the array namespace that all ``arrays`` share.

    Raises TypeError for anything that is not an array, and for arrays of two libraries; the message begins with
    their ``names``.
    """
    types = tuple(map(type, arrays))
    found = _namespaces.get(types)  # a look-up from scratch costs as much as a small array operation
    if found is not None:
        return found
    cause = None
    prefix = f"{names}: " if names else ""
    if any(hasattr(a, "mask") and hasattr(a, "filled") for a in arrays):
        raise TypeError(
            f"{prefix}a masked array came, and what a sum over its mask should be is yours to say: give "
            "a.filled(0.0), or a.compressed() for the entries that are there"
        )
    if all(hasattr(a, "dtype") for a in arrays):
        try:
            found = _namespaces[types] = array_namespace(*arrays)
            return found
        except TypeError as error:
            cause = error
    came = ", ".join(f"{type(a).__module__.partition('.')[0]}.{type(a).__name__}" for a in arrays)
    came, what = came.replace("builtins.", ""), "an array" if len(arrays) == 1 else "arrays of one library"
    raise TypeError(
        f"{prefix}expected {what}, got {came}; convert with numpy.asarray(...) or with the asarray of the library "
        "you compute with"
    ) from cause


def on_host(x):
    """Return whether the numbers of ``x`` lie where looking at them makes nothing wait: in the host's memory."""
    return "cpu" in str(device(x)).lower()


def require_floats(name, x):
    """Return the namespace of ``x``; raise TypeError unless it is an array of real floating-point numbers."""
    xp = namespace(x, names=name)
    if not xp.isdtype(x.dtype, "real floating"):
        raise TypeError(
            f"{name} has dtype {x.dtype}, but only real floating-point numbers have a derivative here "
            f"(3 + 0.0001 is stored as 3 in an integer array); convert with xp.astype({name}, xp.float64)"
        )
    return xp


def require_numbers(name, x):
    """Return the namespace of ``x``; raise TypeError unless it is an array of real numbers, floats or integers."""
    xp = namespace(x, names=name)
    if not xp.isdtype(x.dtype, ("real floating", "integral")):
        raise TypeError(f"{name} has dtype {x.dtype}; it must hold real numbers: xp.astype({name}, xp.float64)")
    return xp


def _require_classes(x):
    """Return the namespace of ``x``; raise unless it is an array of floats with at least one class on its last axis."""
    xp = require_floats("x", x)
    if not x.ndim or not x.shape[-1]:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (…, C) with at least one class")
    return xp


def identity_function(x: Array) -> Array:
    """Return ``x`` itself, of any shape: the output activation of regression.

    Source: Deep Learning from Scratch, 3.5.1.

    >>> identity_function(3.0)
    3.0
    """
    return x


def step_function(x: Array) -> Array:
    """Return 1 where ``x`` > 0 and 0 elsewhere, in the shape and dtype of ``x``; NaN counts as not greater.

    Raises TypeError if ``x`` is not an array of real numbers.

    Source: Deep Learning from Scratch, 3.2.2.

    >>> import numpy as np
    >>> step_function(np.asarray([-1.0, 0.0, 2.0]))
    array([0., 0., 1.])
    """
    xp = require_numbers("x", x)
    return xp.astype(x > 0, x.dtype)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(−x)) in (0, 1), in the shape and dtype of ``x``, without overflow for any x.

    Raises TypeError if ``x`` is not an array of floats.

    Source: Deep Learning from Scratch, 3.2.4.

    >>> import numpy as np
    >>> sigmoid(np.asarray([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    xp = require_floats("x", x)
    z = xp.exp(xp.copysign(x, -1.0))  # of −|x|: the exponential of a positive number never appears
    return xp.where(x >= 0, 1.0, z) / (1.0 + z)


def relu(x: Array) -> Array:
    """Return max(x, 0), in the shape and dtype of ``x``; NaN stays NaN.

    Raises TypeError if ``x`` is not an array of real numbers.

    Source: Deep Learning from Scratch, 3.2.7.

    >>> import numpy as np
    >>> relu(np.asarray([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    return require_numbers("x", x).maximum(x, 0)


def softmax(x: Array) -> Array:
    """Return probabilities along the last axis of ``x`` (…, C): each in [0, 1], each row summing to one.

    Raises TypeError if ``x`` is not an array of floats, ValueError if it has no class. A row that holds NaN or +inf
    becomes NaN.

    Source: Deep Learning from Scratch, 3.5.2 (with the maximum subtracted).

    >>> import numpy as np
    >>> softmax(np.asarray([1000.0, 1000.0]))
    array([0.5, 0.5])
    """
    xp = _require_classes(x)
    z = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return z / xp.sum(z, axis=-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    """Return the logarithm of ``softmax(x)`` along the last axis of ``x`` (…, C), exact where softmax underflows.

    Raises TypeError if ``x`` is not an array of floats, ValueError if it has no class.

    Source: log p_i = x_i − max(x) − log Σ exp(x − max(x)), the logarithm of the book's 3.5.2.

    >>> import numpy as np
    >>> log_softmax(np.asarray([0.0, 1000.0]))
    array([-1000.,     0.])
    """
    xp = _require_classes(x)
    z = x - xp.max(x, axis=-1, keepdims=True)
    return z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))


def one_hot(t: Array, num_classes: int, *, dtype: Any = None) -> Array:
    """Return integer labels ``t`` (…,) as rows (…, num_classes) that hold 1 at the label and 0 elsewhere.

    ``dtype`` is a float dtype of the library of ``t``, by default its default float. A label outside
    [0, num_classes) gives a row of NaN: looking at the values would make a GPU wait, and zeros would train
    silently. Raises TypeError if ``t`` is not an integer array or ``dtype`` no float, ValueError if ``num_classes`` is
    not a whole number of at least 1.

    Source: Deep Learning from Scratch, 3.6.1 (one-hot label).

    >>> import numpy as np
    >>> one_hot(np.asarray([2, 0]), 3)
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    xp = namespace(t, names="t")
    require_labels(t)
    require_count("num_classes", num_classes)
    if dtype is None:
        dtype = xp.__array_namespace_info__().default_dtypes(device=device(t))["real floating"]
    elif isinstance(dtype, str) or not xp.isdtype(dtype, "real floating"):
        raise TypeError(f"dtype is {dtype!r}; it must be a float dtype of the library of t, such as xp.float64")
    return _rows(xp, t, num_classes, dtype)


def _rows(xp, t, num_classes, dtype):
    if num_classes > 127 and num_classes > xp.iinfo(t.dtype).max:  # labels in few bits cannot count that far
        t = xp.astype(t, xp.int64)
    hot = t[..., None] == xp.arange(num_classes, dtype=t.dtype, device=device(t))
    known = xp.any(hot, axis=-1, keepdims=True)
    return xp.where(known, xp.astype(hot, dtype), xp.nan)


def as_rows(x):
    """Return ``x`` (…, D) with all its leading axes in one, (M, D)."""
    return x if x.ndim == 2 else namespace(x).reshape(x, (-1, x.shape[-1]))


def row_sums(x):
    """Return the sums (…) of ``x`` (…, D) over the last axis, as a product: adding up a short axis takes far longer."""
    rows, xp = as_rows(x), namespace(x)
    return xp.reshape(rows @ xp.ones_like(rows[0, :]), x.shape[:-1])


def log_of_largest(x):
    """Return a little less than the logarithm of the largest number that the dtype of ``x`` holds."""
    return 0.9 * log(namespace(x).finfo(x.dtype).max)


def require_labels(t):
    """Raise TypeError unless ``t`` holds integers, as the numbers of classes are."""
    if not namespace(t).isdtype(t.dtype, "integral"):
        raise TypeError(
            f"labels t have dtype {t.dtype}, but class numbers are integers; convert with xp.astype(t, xp.int64)"
        )


def refuse_single_class(t, y):
    """Raise ValueError if targets ``t`` (…,) stand as labels beside outputs ``y`` (…, 1), which know no classes."""
    if y.shape[-1:] == (1,) and t.shape == y.shape[:-1]:
        raise ValueError(
            f"targets t of shape {tuple(t.shape)} stand beside outputs of shape {tuple(y.shape)}: as values of a "
            f"regression, reshape t to {tuple(y.shape)} and make it floats; as labels of a single class they mean "
            "nothing"
        )


def as_targets(t, y):
    """Return targets ``t`` as weights (…, C) of the classes in the dtype of ``y`` (…, C).

    Integers with fewer axes than ``y`` are labels; anything else is one-hot or soft weights, of which leading
    axes may be missing when ``y`` is a stack of batches. Raises TypeError for floats where labels belong, and
    ValueError for shapes that do not fit.
    """
    xp = namespace(y, t)
    if t.dtype == y.dtype and t.shape == y.shape:
        return t
    if t.ndim < y.ndim and xp.isdtype(t.dtype, "integral"):
        weights = _rows(xp, t, y.shape[-1], y.dtype)
    elif t.dtype == y.dtype:
        weights = t
    elif xp.isdtype(t.dtype, ("real floating", "integral", "bool")):
        weights = xp.astype(t, y.dtype)
    else:
        raise TypeError(f"targets t have dtype {t.dtype}; they must be integer labels or real weights")
    fits = weights.ndim >= min(y.ndim, 2) and weights.shape == y.shape[y.ndim - weights.ndim :]
    if not fits:
        refuse_single_class(t, y)
        if t.ndim == y.ndim - 1 and t.shape == y.shape[:-1]:
            require_labels(t)
        raise ValueError(
            f"targets t have shape {tuple(t.shape)} and dtype {t.dtype}, which does not fit predictions of shape "
            f"{tuple(y.shape)}: integer labels of shape {tuple(y.shape[:-1])} or weights of shape "
            f"{tuple(y.shape)} do"
        )
    return weights
