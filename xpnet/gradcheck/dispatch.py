"""What kind of subject a check is about, told from what it was given."""

import sys
from importlib import import_module

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
    if gradient is not None and backward is not None:
        raise TypeError(
            "gradient= and backward= were both given; gradient= is that of a function of arrays, backward= "
            "takes (dout, cache) of a function that returns (out, cache)"
        )
    given = gradient if gradient is not None else backward
    if given is not None:
        if not callable(f):
            raise TypeError(f"{f!r:.60} cannot be called; gradient= and backward= belong to a function")
        return (WithCache if backward is not None else WithGradient)(f, inputs, given, seed)
    is_layer = hasattr(f, "forward") and hasattr(f, "backward") and not isinstance(f, type)
    is_network = hasattr(f, "params") and hasattr(f, "loss")
    if is_layer and len(inputs) == 2 and inputs[1] is None:  # no targets
        inputs = inputs[:1]
    if is_network and not hasattr(f, "gradient"):
        f = with_gradient(f)
    if is_layer and not is_network and is_more_than_one_to_one(f, inputs):
        return LayerCall(f, inputs, seed)
    if is_network or is_layer or not callable(f) or isinstance(f, type):
        return subject_of(f, *(*inputs, None, None)[:2], seed)
    library = _library(f, inputs)
    if library:
        module, name = DIFFERENTIATING[library]
        return getattr(import_module(f"{__package__}.{module}"), name)(f, inputs, seed)
    with unchanged(*inputs):
        out = f(*inputs)
    if returns_value_and_gradient(out):
        return WithValue(f, inputs, seed)
    raise TypeError(
        f"{f!r:.60} is a function of arrays that nothing differentiates; say what its gradient is: gradient=, arrays "
        "or a function; backward= if it returns (out, cache); or let it return (loss, gradient)"
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
