"""What a check would never come to look at: arrays in no ``parameters``, memory that two share, modes that differ."""

import inspect
from itertools import combinations

from array_api_compat import is_array_api_obj

from ..arrays import detached, shares_memory
from ..backend import memory_of
from ..functions import namespace
from ..layers import parameter_names
from ..state import reachable


def forgotten(subject):
    """Return a line for each object that keeps a gradient beside an array that is not checked, after a backward.

    An array that another forward replaces is no parameter, but something kept for ``backward``.
    """
    checked = {id(value) for value in subject.values.values()}
    found = [
        (thing, name, held[name])
        for thing, held in _with_attributes(reachable(subject.state))
        for name in held
        if _learns(held, name) and id(held[name]) not in checked
    ]
    if found:
        subject.run(_other_input(subject))
    lines = [_forgotten_line(thing, name) for thing, name, array in found if vars(thing).get(name) is array]
    return lines + _of_output_layer(subject, checked)


def _with_attributes(things):
    for thing in things:
        held = getattr(thing, "__dict__", None)
        if isinstance(held, dict) and not isinstance(thing, type):
            yield thing, held


def _of_output_layer(subject, checked):
    """Return a line if the last layer learns something: networks train what stands before it."""
    last = subject.layers[-1][1] if subject.layers else None
    unread = [name for name in parameter_names(last) if id(getattr(last, name)) not in checked] if last else []
    if not unread:
        return []
    return [
        f"{type(last).__name__} learns {', '.join(unread)}, but what an output layer learns is neither trained nor "
        "checked: put it into a layer before"
    ]


def _learns(held, name):
    array, gradient = held[name], held.get(f"d{name}")
    if not is_array_api_obj(array) or not is_array_api_obj(gradient) or array.shape != gradient.shape:
        return False
    return bool(array.ndim) and namespace(array).isdtype(array.dtype, "real floating")


def _forgotten_line(thing, name):
    kind = type(thing).__name__
    return (
        f"{kind} keeps d{name} beside {name}, but {name} is in no `parameters`, so that it is neither trained nor "
        f'checked: write parameters = ("{name}", …) in {kind}'
    )


def _other_input(subject):
    everything = {**subject.inputs, **subject.values}
    name = "x" if "x" in everything else next(iter(everything))
    return {name: 0.75 * everything[name] + 0.125}


def shared_memory(values):
    """Return (problems, pairs): lines about arrays whose own entries share memory, and pairs that share theirs."""
    problems = [
        f"entries of {name} share memory with one another, so that none can be moved alone: give it a copy"
        for name, value in values.items()
        if shares_memory(value)
    ]
    pairs = [] if problems else [pair for pair in combinations(values, 2) if _written_through(values, *pair)]
    return problems, pairs


def _written_through(values, one, two):
    """Return whether writing into an array changes another; it is put back."""
    places = [memory_of(values[name]) for name in (one, two)]
    if not all(places) or places[0][0] > places[1][1] or places[1][0] > places[0][1]:
        return False
    array = detached(values[one])
    xp = namespace(array)
    kept = xp.asarray(array, copy=True)
    try:
        array[...] = xp.nan
        return bool(xp.any(xp.isnan(values[two])))
    finally:
        array[...] = kept


def used_twice(subject, name):
    """Return lines about the layers that hold an array of another layer: they may compute with it too."""
    array = subject.values[name]
    users = [title for title, layer in subject.layers if any(thing is array for thing in reachable([layer]))]
    return [f"{name} is used by {' and '.join(users)}: its gradient is the sum of both"] if len(users) > 1 else []


def modes(net, inputs):
    """Return a line if ``net.loss`` computes in another mode than ``net.gradient`` may, or nothing."""
    try:
        names = [name for name in inspect.signature(net.loss).parameters if "train" in name]
    except (AttributeError, TypeError, ValueError):
        return []
    different = [name for name in names if not _alike(net, inputs, name)]
    return [f"loss(x, t) has an argument {name}: is the gradient that of the same mode?" for name in different]


def _alike(net, inputs, name):
    """Return whether the loss is the same in both modes; one that cannot be computed is not."""
    try:
        return float(net.loss(*inputs, **{name: True})) == float(net.loss(*inputs, **{name: False}))
    except Exception:
        return False
