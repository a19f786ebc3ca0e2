"""Layers as others write them: several inputs and outputs, integers, lists of parameters and of gradients."""

import contextlib
import inspect

from array_api_compat import is_array_api_obj, is_writeable_array

from ...arrays import detached
from ...functions import namespace
from ...layers import parameter_names
from ...state import unchanged
from .arguments import is_floats
from .calls import Call


class LayerCall(Call):
    """A layer and any number of inputs; ``backward`` says by what it returns of which it gives the gradient.

    A tuple is that of all inputs or of those of floats, one array that of the first. ``values`` also holds what
    the layer learns: the attributes in ``parameters``, or the arrays in a list ``params`` with a list ``grads``.
    """

    kind = "backward"

    def __init__(self, layer, inputs, seed):
        self.layer = layer
        self.learned = {name: (layer, name) for name in parameter_names(layer)}
        if not self.learned and isinstance(getattr(layer, "params", None), (list, tuple)):
            self.learned = {f"params[{i}]": (layer.params, i) for i in range(len(layer.params))}
        self.kind = f"{type(layer).__name__}.backward"
        super().__init__(layer, inputs, seed)
        self.layers = [(self.name, layer)]

    def signature(self):
        """Return the function whose parameters name the inputs."""
        return self.layer.forward

    def _floats(self):
        held = {self._shown(name): _get(place) for name, place in self.learned.items()}
        for name, value in held.items():
            if not is_floats(value):
                came = value.dtype if is_array_api_obj(value) else type(value).__name__
                raise TypeError(f"{name} of {self.name} is {came}; what is learned must be arrays of floats")
        return {**self.arguments.floats, **held}

    def _shown(self, name):
        return f"self.{name}" if name in self.arguments.names else name

    def forward(self, *args):
        """Return what the layer's forward returns."""
        return self.layer.forward(*args)

    def differentiate(self, args, dout):
        """Return what the layer's backward returns for a dout, or for as many as it takes."""
        self.layer.forward(*args)
        together = not isinstance(dout, tuple) or _takes(self.layer.backward) < len(dout)
        return self.layer.backward(dout) if together else self.layer.backward(*dout)

    def by_name(self, result):
        """Return the gradients of the inputs as returned, and those of what is learned as they were left."""
        floats = self.arguments.floats
        if result is None and floats:
            return {}, f"{self.kind} returned None; it must return the gradient of its {next(iter(floats))}"
        if floats and is_array_api_obj(result):
            first = next(iter(floats))
            claims, reason = {**dict.fromkeys(floats), first: result}, None
        elif floats:
            claims, reason = super().by_name(result)
        else:
            claims, reason = {}, None
        grads = getattr(self.layer, "grads", ())
        for name, (owner, key) in self.learned.items():
            if isinstance(key, int):
                held = grads[key] if key < len(grads) else None
            else:
                held = getattr(owner, f"d{key}", None)
            if held is not None:
                claims[self._shown(name)] = held
        return claims, reason

    @contextlib.contextmanager
    def holding(self, changed):
        """Let the layer compute with what is changed of what it learns."""
        with contextlib.ExitStack() as undo:
            for name, place in self.learned.items():
                if self._shown(name) in changed:
                    undo.enter_context(_holding(place, changed[self._shown(name)], f"{self.name} holds {name}"))
            yield


@contextlib.contextmanager
def _holding(place, value, what):
    """Put an array in the place of another; in a list it is written into, as the layer may hold it elsewhere."""
    held = _get(place)
    if not (isinstance(place[1], int) and is_writeable_array(held)):
        _put(place, value)
        try:
            yield
        finally:
            _put(place, held)
        return
    if value.dtype != held.dtype:
        raise TypeError(f"{what} in {held.dtype} only")
    numbers = detached(held)
    kept = namespace(numbers).asarray(numbers, copy=True)
    try:
        numbers[...] = value
        yield
    finally:
        numbers[...] = kept


def _get(place):
    owner, key = place
    return owner[key] if isinstance(key, int) else getattr(owner, key)


def _put(place, value):
    owner, key = place
    if isinstance(key, int):
        owner[key] = value
    else:
        setattr(owner, key, value)


def _takes(function):
    """Return how many positional arguments a function takes."""
    parameters = inspect.signature(function).parameters.values()
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def is_more_than_one_to_one(layer, inputs):
    """Return whether a layer has other inputs, outputs or parameters than one array of floats, a target and attributes.

    It is tried, and left as it was.
    """
    if len(inputs) > 2 or not all(is_array_api_obj(x) for x in inputs) or not is_floats(inputs[0]):
        return True
    if isinstance(getattr(layer, "params", None), (list, tuple)):
        return True
    with unchanged(layer, *inputs):
        try:
            out = layer.forward(*inputs)
            if not is_array_api_obj(out):
                return True
            return isinstance(layer.backward(namespace(out).ones_like(out)), (tuple, list))
        except Exception:  # which the check itself will meet, and name
            return False
