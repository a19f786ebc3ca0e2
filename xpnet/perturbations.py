"""What moving one entry of a parameter does to the loss, found in general ways: by stacks and by the plain loop."""

import math

from array_api_compat import device, is_writeable_array

from .functions import namespace
from .gradients import moved, positions
from .layers import Affine


def offers(layer, method, beside):
    """Return whether ``layer`` has ``method``, and it belongs to its ``beside``.

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
    return isinstance(layer, Affine) and offers(layer, "difference", "forward")


class Rest:
    """What lies behind a layer: further layers, their inputs (the last are the scores), the output layer, the loss."""

    def __init__(self, layers, inputs, last_layer, t, loss, use_differences):
        self.layers, self.inputs, self.last_layer, self.t, self.loss = layers, inputs, last_layer, t, loss
        self.by_stack = [
            not (use_differences and offers(layer, "difference", "forward"))
            for layer in [*self.layers, self.last_layer]
        ]

    @property
    def samplewise(self):
        """Whether every sample's loss depends on that sample alone."""
        return all(getattr(layer, "samplewise", False) for layer in [*self.layers, self.last_layer])

    def loss_change(self, dx):
        """Return by how much the loss changes (…) if the first layer's input (N, D) changes by each of dx (…, N, D)."""
        for layer, x, y, by_stack in zip(self.layers, self.inputs, self.inputs[1:], self.by_stack, strict=False):
            dx = layer.forward(x + dx) - y if by_stack else layer.difference(dx)
        if self.by_stack[-1]:
            return self.last_layer.forward(self.inputs[-1] + dx, self.t) - self.loss
        return namespace(dx).sum(self.last_layer.difference(dx), axis=-1)

    def stacked(self):
        """Yield (layer, input, further arguments of forward) for the layers that run on stacks."""
        for layer, x, by_stack in zip([*self.layers, self.last_layer], self.inputs, self.by_stack, strict=True):
            if by_stack:
                yield layer, x, (self.t,) if layer is self.last_layer else ()

    def first_unstackable(self):
        """Return what is wrong with the first of them that does not let leading axes pass, or None."""
        for layer, x, more in self.stacked():
            xp = namespace(x)
            pair = (x, 0.75 * x)
            try:
                singly = xp.stack([layer.forward(one, *more) for one in pair])
                stacked = layer.forward(xp.stack(pair)[:, None, ...], *more)[:, 0, ...]
                tolerance = 1000 * xp.finfo(singly.dtype).eps * xp.max(xp.abs(singly))
                if stacked.shape != singly.shape or not bool(xp.all(xp.abs(stacked - singly) <= tolerance)):
                    return f"{type(layer).__name__} behind it gives other results for a stack of inputs than one by one"
            except Exception as error:  # whatever a foreign layer raises on a stack, it cannot run on one
                return f"{type(layer).__name__} behind it cannot run on a stack of inputs ({error})"
            finally:
                layer.forward(x, *more)
        return None


def way_to_go(method, rest):
    """Return (the way to go, None), or (None, the reason why ``method`` cannot be used)."""
    if method == "loop" or not any(rest.by_stack):
        return ("loop" if method == "loop" else "difference"), None
    if method == "difference":
        lacking = [type(layer).__name__ for layer, _, _ in rest.stacked()]
        return None, f"{', '.join(lacking)} behind it has no method difference(dx)"
    unstackable = rest.first_unstackable()
    if unstackable is None:
        return "stacked", None
    return ("loop", None) if method == "auto" else (None, unstackable)


def by_stacks(layer, attribute, rest, x, h, largest, progress):
    """Return the loss changes (2, …) of one parameter of any layer, by running what lies behind it on stacks."""
    xp = namespace(x)
    parameter, base = getattr(layer, attribute), rest.inputs[0]
    affine = is_affine(layer) and x.ndim == 2
    if not affine or any(rest.by_stack):  # else nothing is ever added to a number that could swallow it
        require_moved(parameter, (parameter + h, parameter - h), h)
    size = math.prod(parameter.shape)
    widest = max(math.prod(y.shape) for y in rest.inputs)
    together = max(1, largest // (2 * widest))
    found = []
    for start in range(0, size, together):
        entries = range(start, min(start + together, size))
        if affine:
            dx = _affine_output_changes(x, parameter, entries, h)
        else:
            dx = _output_changes(layer, attribute, x, base, entries, h)
        found.append(rest.loss_change(dx))
        progress(len(entries))
    return xp.reshape(xp.concat(found, axis=1), (2, *parameter.shape))


def _affine_output_changes(x, parameter, entries, h):
    """Return the changes (2, S, N, M) of x @ W + b when the entries of W or b move: h·x[:, i] in column j."""
    xp = namespace(x)
    units = parameter.shape[-1]
    flat = xp.arange(entries.start, entries.stop, device=device(x))
    column = xp.astype((flat % units)[:, None] == xp.arange(units, device=device(x)), x.dtype)
    moves = xp.take(x, flat // units, axis=1).T if parameter.ndim == 2 else xp.ones_like(x[:, :1]).T
    dx = h * moves[..., None] * column[:, None, :]
    return xp.stack([dx, -dx])


def _output_changes(layer, attribute, x, y, entries, h):
    """Return the changes (2, S, N, …) of a layer's output y when the entries of its parameter move, one by one."""
    xp = namespace(x)
    original = getattr(layer, attribute)
    ends = original + h, original - h
    sides = []
    try:
        for end in ends:
            outputs = []
            for entry in entries:
                index = positions(original.shape)[entry]
                setattr(layer, attribute, moved(original, index, end[index]))
                outputs.append(layer.forward(x) - y)
            taken = xp.reshape(xp.abs(end - original), (-1,))[entries.start : entries.stop]
            outputs = xp.stack(outputs)
            sides.append(outputs * xp.reshape(h / taken, (-1,) + (1,) * (outputs.ndim - 1)))
    finally:
        setattr(layer, attribute, original)
        layer.forward(x)
    return xp.stack(sides)


def loss_with(network, name, x, t, value):
    """Return the loss that ``network`` has if parameter ``name`` holds ``value``, and put the parameter back.

    Arrays that can be written are written in place: a network of another make may hold them in two places.
    """
    held = network.params[name]
    if not is_writeable_array(held):
        network.params[name] = value
        try:
            return network.loss(x, t)
        finally:
            network.params[name] = held
    original = namespace(held).asarray(held, copy=True)
    try:
        held[...] = value
        return network.loss(x, t)
    finally:
        held[...] = original


def require_moved(original, ends, h):
    """Return the steps (2, …) as stored; raise ValueError if one is stored as no step at all."""
    xp = namespace(original)
    taken = xp.abs(xp.stack(ends) - original)
    if bool(xp.any(taken == 0)):
        raise ValueError(f"h = {h} is too small: an entry plus h is stored as the entry itself")
    return taken
