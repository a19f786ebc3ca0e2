"""What arrays must be for learning: their precision, their memory, where a parameter is put, and what targets name."""

from contextlib import contextmanager
from contextvars import ContextVar
from math import prod

from array_api_compat import is_writeable_array

from .functions import namespace, on_host, refuse_single_class, require_floats, require_labels


def require_precision(name, x):
    """Return the namespace of ``x``; raise TypeError unless it holds floats of at least 32 bits."""
    xp = require_floats(name, x)
    if getattr(x.dtype, "itemsize", 8) < 4:
        raise TypeError(
            f"{name} has dtype {x.dtype}: in half precision the differences and updates of learning are rounded "
            "away; convert to float32"
        )
    return xp


def detached(x):
    """Return ``x`` without its library's own record of derivatives: the same memory, or ``x`` itself if it has none."""
    return x.data if getattr(x, "requires_grad", False) else x


def put(parameters, values):
    """Give parameters other ``values``, {name: array}, in their own arrays where those can be written.

    A network of another make may hold such an array in two places: in a dict, and in the layer that computes with it.
    """
    for name, value in values.items():
        if is_writeable_array(parameters[name]):
            detached(parameters[name])[...] = detached(value)
        else:
            parameters[name] = value


@contextmanager
def holding(parameters, values):
    """Let parameters hold other ``values``, {name: array}, and put theirs back in the end, to the bit."""
    others = {name: value for name, value in values.items() if value is not parameters[name]}  # or moved in place
    kept = copies({name: parameters[name] for name in others})
    try:
        put(parameters, others)
        yield
    finally:
        put(parameters, kept)


def copies(parameters):
    """Return the parameters as they are now, {name: array}, in memory that later updates do not reach."""
    return {
        name: namespace(value).asarray(detached(value), copy=True) if is_writeable_array(value) else value
        for name, value in parameters.items()
    }


def shares_memory(x):
    """Return whether entries of ``x`` lie in the same place of memory, as in a view that repeats them."""
    if 0 in x.shape:
        return False
    strides = getattr(x, "strides", None) or (x.stride() if hasattr(x, "stride") else ())
    axes = sorted((abs(s), n) for s, n in zip(strides, x.shape, strict=False) if n > 1)
    reach = 0
    for stride, n in axes:
        if stride == 0:
            return True
        if stride <= reach:  # axes interleave: only counting tells
            places = {0}
            for step, count in axes:
                places = {place + step * i for place in places for i in range(count)}
            return len(places) < prod(x.shape)
        reach += stride * (n - 1)
    return False


def classes_of(t, y, x):
    """Return the classes (…) that ``t`` names beside scores ``y`` (…, C): labels, or the largest weights, −1 for NaN.

    Raises TypeError for labels that are no integers, and ValueError for shapes that do not fit.
    """
    xp = namespace(t)
    if t.shape == y.shape and y.ndim > 1:
        if xp.isdtype(t.dtype, "real floating"):
            return xp.where(xp.any(xp.isnan(t), axis=-1), -1, xp.argmax(t, axis=-1))
        return xp.argmax(xp.astype(t, xp.int8) if t.dtype == xp.bool else t, axis=-1)
    refuse_single_class(t, y)
    if t.shape != y.shape[:-1]:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but targets t have shape {tuple(t.shape)} beside scores of shape "
            f"{tuple(y.shape)}; there must be labels {tuple(y.shape[:-1])} or weights of the {y.shape[-1]} classes"
        )
    require_labels(t)
    return t


_loop = ContextVar("loop", default=None)


@contextmanager
def chunks_by(loop):
    """Let ``loop(function, chunk, arrays)`` do here what ``in_chunks`` does, as where operations are recorded."""
    token = _loop.set(loop)
    try:
        yield
    finally:
        _loop.reset(token)


def in_chunks(function, chunk, *arrays):
    """Return ``function(*arrays)`` (N, …), of ``chunk`` rows of the arrays (N, …) at a time.

    By default 2,000 on the host, where intermediate results stay in the processor's cache, and 10,000 elsewhere.
    """
    if loop := _loop.get():
        return loop(function, chunk, arrays)
    size, chunk = arrays[0].shape[0], chunk or (2000 if on_host(arrays[0]) else 10_000)
    ends = [(start, min(start + chunk, size)) for start in range(0, size, chunk)]
    found = [function(*(array[start:stop, ...] for array in arrays)) for start, stop in ends]
    return namespace(*found).concat(found)
