"""What moving one entry of a parameter does to the loss, found in general ways: by stacks and by the plain loop."""

import math

from array_api_compat import device, is_writeable_array

from .functions import namespace
from .gradients import moved
from .layers import Affine


def by_stacks(layer, attribute, rest, x, h, largest, progress):
    """Return the loss changes (2, …) of one parameter of any layer, by running what lies behind it on stacks."""
    xp = namespace(x)
    parameter, base = getattr(layer, attribute), rest.inputs[0]
    size = math.prod(parameter.shape)
    widest = max(math.prod(y.shape) for y in rest.inputs)
    together = max(1, largest // (2 * widest))
    found = []
    for start in range(0, size, together):
        entries = range(start, min(start + together, size))
        if isinstance(layer, Affine) and x.ndim == 2:
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
    entries = xp.arange(entries.start, entries.stop, device=device(x))
    column = xp.astype((entries % units)[:, None] == xp.arange(units, device=device(x)), x.dtype)
    moves = xp.take(x, entries // units, axis=1).T if parameter.ndim == 2 else xp.ones_like(x[:, :1]).T
    dx = h * moves[..., None] * column[:, None, :]
    return xp.stack([dx, -dx])


def _output_changes(layer, attribute, x, y, entries, h):
    """Return the changes (2, S, N, …) of a layer's output y when the entries of its parameter move, one by one."""
    xp = namespace(x)
    original = getattr(layer, attribute)
    sides = []
    try:
        for end in (original + h, original - h):
            outputs = []
            for entry in entries:
                setattr(layer, attribute, moved(original, entry, end))
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


def by_loop(loss_with, original, h, progress):
    """Return the loss changes (2, …) of one array by two calls of ``loss_with(changed copy)`` for every entry."""
    xp = namespace(original)
    original = xp.asarray(original, copy=True)
    ends = original + h, original - h
    taken = xp.abs(xp.stack(ends) - original)
    if bool(xp.any(taken == 0)):
        raise ValueError(f"h = {h} is too small: an entry plus h is stored as the entry itself")
    loss, losses = xp.asarray(loss_with(original)), []
    for entry in range(math.prod(original.shape)):
        losses.append(xp.stack([xp.asarray(loss_with(moved(original, entry, end))) for end in ends]))
        progress(1)
    return (xp.reshape(xp.stack(losses, axis=-1), taken.shape) - loss) * (h / taken)
