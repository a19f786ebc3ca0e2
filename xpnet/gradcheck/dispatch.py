"""What kind of subject a check is about, told from what it was given."""

import sys
from importlib import import_module

from ..describing import in_short
from ..state import unchanged
from .arguments import leaves
from .functions import WithCache, WithGradient, WithValue, returns_value_and_gradient
from .layer_calls import LayerCall, is_more_than_one_to_one, with_gradient
from .subjects import subject_of

# the libraries that differentiate, and what adapts each; one that was never imported cannot have made an argument
DIFFERENTIATING = {"torch": ("tensors", "TensorFunction"), "jax": ("traced", "TracedFunction")}


def subject_for(f, inputs, gradient, backward, seed):
    """Return the subject of a check: a network, a layer, or a function of ``inputs``.

    ``gradient`` is what is claimed to be that of a function; ``backward(dout, cache)`` belongs to a function that
    returns (out, cache). Raises TypeError for what has no gradient that could be checked.
    """
    if gradient is not None or backward is not None:
        return _claimed(f, inputs, gradient, backward, seed)
    if hasattr(f, "params") and hasattr(f, "loss"):
        return subject_of(with_gradient(f), *_pair(inputs), seed)
    if hasattr(f, "forward") and hasattr(f, "backward") and not isinstance(f, type):
        return _layer(f, inputs, seed)
    if callable(f) and not isinstance(f, type):
        return _function(f, inputs, seed)
    return subject_of(f, *_pair(inputs), seed)  # which says what it is not


def _pair(inputs):
    """Return x and t: the inputs of a network or a layer, None for what was not given."""
    return (*inputs, None, None)[:2]


def _layer(layer, inputs, seed):
    if len(inputs) == 2 and inputs[1] is None:  # no targets
        inputs = inputs[:1]
    if is_more_than_one_to_one(layer, inputs):
        return LayerCall(layer, inputs, seed)
    return subject_of(layer, *_pair(inputs), seed)


def _claimed(f, inputs, gradient, backward, seed):
    """Return the subject of a function and of what is given beside it as its gradient."""
    if gradient is not None and backward is not None:
        raise TypeError(
            "gradient= and backward= were both given; gradient= is that of a function of arrays, backward= "
            "takes (dout, cache) of a function that returns (out, cache)"
        )
    if not callable(f):
        raise TypeError(f"{in_short(f)} cannot be called; gradient= and backward= belong to a function")
    return WithGradient(f, inputs, gradient, seed) if backward is None else WithCache(f, inputs, backward, seed)


def _function(f, inputs, seed):
    """Return the subject of a function that a library differentiates, or that returns its gradient with its value."""
    library = _library(f, inputs)
    if library:
        module, name = DIFFERENTIATING[library]
        return getattr(import_module(f"{__package__}.{module}"), name)(f, inputs, seed)
    with unchanged(*inputs):
        out = f(*inputs)
    if returns_value_and_gradient(out):
        return WithValue(f, inputs, seed)
    raise TypeError(
        f"{in_short(f)} is a function of arrays that nothing differentiates; say what its gradient is: gradient=, "
        "arrays or a function; backward= if it returns (out, cache); or let it return (loss, gradient)"
    )


def _library(f, inputs):
    """Return the name of the library that differentiates ``f``: that of its arguments or of ``f`` itself."""
    kinds = [type(leaf) for arg in inputs for _, leaf in leaves(arg, "")] + [*type(f).__mro__]
    for name in DIFFERENTIATING:
        if name in sys.modules and any(_of(kind, name) for kind in kinds):
            return name
    return None


def _of(kind, library):
    return any(base.__module__.partition(".")[0] in (library, f"{library}lib") for base in kind.__mro__)
