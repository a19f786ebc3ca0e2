"""What can be checked, told from what was given: networks, layers and functions of every make.

A check knows of its subject nothing but this:

``title``       What stands at the head of the report, without the seed.
``samples``     How many samples the batch holds, for hints such as "a missing 1/N?".
``values``      {name: array}: the arrays whose gradients are checked, floats. They are never written.
``inputs``      {name: array}: further arrays that go in: the x of a network, targets of floats. Names are not in
                ``values``.
``weights``     An array in the shape of the outputs, or None if the output is the loss, one number.
                The loss is Σ weights·outputs. It is summed by the check, after what outputs have in common is
                subtracted.
``state``       The objects that a check must leave as they were: whatever a run might change.
``run(changed)``        Return the outputs, an array or a number, with the arrays of ``changed``, {name: array} of
                        ``values`` and ``inputs``, in place of its own, and put its own back, also after an exception.
                        The arrays may be of a wider dtype than its own; a subject that cannot compute with them raises
                        TypeError. They may change between two runs, so that nothing of them may be kept for the next.
``gradients(changed)``  Return {name: array} of the gradients of the loss by backpropagation, likewise, one for each of
                        ``values`` that has any. They are taken at once: the next call may overwrite them.
``problems()``          Return lines about what makes a check impossible; see ``xpnet.gradcheck.contracts``.

A subject may offer more:

``notes``       A list of lines that a reader should know, complete when ``problems()`` was called.
``outputs``     What ``run({})`` returned, ``OnTheWay`` under the name "", complete when ``problems()`` was called.
``half()``      Return {name: array} of the gradients of half the loss, from a backward that is given half its dout.
                With it, the check itself finds whether backpropagation answers alike the next time.
``changes(changed, h, method, second, tick)``
                Return {name: Change}, numerical gradients found in a faster way than by two runs for each entry. ``h``
                is None for a step of its own choice, ``second`` asks for a smaller one, ``tick(n)`` is called when n
                more entries are done.
``with_inputs(changed)``  Return the gradients of ``values`` and, by name, those of ``inputs`` that no other way gives.
``layers``      [(title, object)]: the layers in order, to tell where gradients end.
"""

import sys
from collections.abc import Mapping
from importlib import import_module

from ...arrays import require_precision
from ...describing import in_short
from ...state import unchanged
from .arguments import leaves
from .claims import WithCache, WithGradient, WithValue, returns_value_and_gradient
from .layer_calls import LayerCall, is_more_than_one_to_one
from .networks import ForeignNetwork, Layer, Network, with_gradient

# the libraries that differentiate, and what adapts each; one that was never imported cannot have made an argument
DIFFERENTIATING = {"torch": ("torch_functions", "TensorFunction"), "jax": ("jax_functions", "TracedFunction")}


def subject_for(f, inputs, gradient, backward, seed):
    """Return the subject of a check: a network, a layer, or a function of ``inputs``.

    ``gradient`` is what is claimed to be that of a function; ``backward(dout, cache)`` belongs to a function that
    returns (out, cache). Raises TypeError for what has no gradient that could be checked.
    """
    if gradient is not None or backward is not None:
        return _claimed(f, inputs, gradient, backward, seed)
    if hasattr(f, "params") and hasattr(f, "loss"):
        return _network_or_layer(with_gradient(f), *_pair(inputs), seed)
    if hasattr(f, "forward") and hasattr(f, "backward") and not isinstance(f, type):
        return _layer(f, inputs, seed)
    if callable(f) and not isinstance(f, type):
        return _function(f, inputs, seed)
    return _network_or_layer(f, *_pair(inputs), seed)  # which says what it is not


def _pair(inputs):
    """Return x and t: the inputs of a network or a layer, None for what was not given."""
    return (*inputs, None, None)[:2]


def _layer(layer, inputs, seed):
    if len(inputs) == 2 and inputs[1] is None:  # no targets
        inputs = inputs[:1]
    if is_more_than_one_to_one(layer, inputs):
        return LayerCall(layer, inputs, seed)
    return _network_or_layer(layer, *_pair(inputs), seed)


def _network_or_layer(net, x, t, seed):
    """Return what is checked; raise TypeError for what is neither a network nor a layer."""
    if not isinstance(net, type) and not isinstance(getattr(net, "params", {}), Mapping):
        came = type(net.params).__name__
        raise TypeError(f"network.params is a {came}; it must be a dict of arrays by name: W1, b1, …")
    methods = ("loss", "gradient") if hasattr(net, "params") else ("forward", "backward")
    if isinstance(net, type) or not all(hasattr(net, method) for method in methods):
        raise TypeError(
            f"network is {in_short(net)}; check_gradients takes a network, with params, loss(x, t) and gradient(x, t), "
            "a layer, with forward(x) and backward(dout), or a function, with gradient= or backward="
        )
    if x is None:
        raise TypeError("there are no inputs; write check_gradients(network, x, t), or check_gradients(layer, x)")
    if not hasattr(net, "params"):
        subject = Layer(net, x, t, seed)
    else:
        subject = (Network if hasattr(net, "loss_changes") else ForeignNetwork)(net, x, t)
    for name, value in subject.values.items():
        require_precision(name, value)
    return subject


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
