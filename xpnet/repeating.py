"""Whether a step is a function of parameters and batch alone, so that it may be recorded once and repeated.

A step that draws random numbers, or remembers the steps before, would repeat what the first one drew and saw. So copies
of the network take steps first, and are compared: in what they find, and in all that they hold afterwards.
"""

import copy
import math
import re
from importlib import import_module
from types import FunctionType, MethodType, ModuleType

from array_api_compat import array_namespace, is_array_api_obj

from .arrays import put
from .backend import to_numpy
from .layer_state import is_generator, state_of
from .state import reachable, unchanged

ADDRESS = re.compile(" at 0x[0-9a-f]+")
FROZEN = "a compiled step would freeze what changes from step to step: random numbers, running means, counters"


class CompileError(RuntimeError):
    """A step that cannot be compiled; the message says why. Without ``compile`` it runs as it is."""


def twin_of(network, parameters):
    """Return a copy of a network that computes with other ``parameters``; all other arrays are the network's own."""
    memo = {id(thing): thing for thing in reachable([network]) if is_array_api_obj(thing)}
    memo |= {id(old): new for old, new in zip(network.params.values(), parameters, strict=True)}
    return copy.deepcopy(network, memo)


def results(step, network, x, t, chosen):
    """Return [loss, what to subtract from each parameter] of a step on the rows ``chosen``."""
    xp = array_namespace(x)
    loss, moves = step(network, xp.take(x, chosen, axis=0), xp.take(t, chosen, axis=0))
    return [loss, *(moves[name] for name in network.params)]


class Trial:
    """Steps of ``network`` and of copies of it with the parameters moved a little: what was found and remembered."""

    def __init__(self, step, network):
        self.step, self.network, self.rest, self.names = step, network, [], []
        self.copies = [copy.deepcopy(network) for _ in range(2)]

    def run(self, parameters, x, t, first, second):
        """Return all arrays of a step on the rows ``second``: behind another step, as the first, by the network."""
        self.rest, self.names, arrays = [], [], []
        moved = [1.03 * value + 0.01 for value in parameters]  # no move that softmax or a mean would hide

        def keep(held):
            self.rest.append({name: value for name, value in held.items() if not is_array_api_obj(value)})
            self.names.append([name for name in held if name not in self.rest[-1]])
            arrays.extend(held[name] for name in self.names[-1])

        with unchanged(self.network):
            for original, rows in zip(self.copies, ((first, second), (second,)), strict=True):
                twin = twin_of(original, moved)
                for chosen in rows:
                    found = results(self.step, twin, x, t, chosen)
                keep(dict(_memory(twin, "network", {})) | self._named(found))
            put(self.network.params, dict(zip(self.network.params, moved, strict=True)))
            keep(self._named(results(self.step, self.network, x, t, second)))
        return arrays

    def _named(self, found):
        return dict(zip(("loss", *(f"gradient of {name}" for name in self.network.params)), found, strict=True))

    def verdict(self, arrays):
        """Return in words why this step cannot be repeated, or None; from what ``run`` or ``origins`` returned."""
        arrays = iter(arrays)
        behind, alone, itself = (
            {**rest, **{name: next(arrays) for name in names}}
            for rest, names in zip(self.rest, self.names, strict=True)
        )
        changed = [name for name in behind | alone if not _alike(behind.get(name), alone.get(name))]
        if changed:
            name = min(changed, key=lambda name: _likelihood(name, name in self.rest[0]))
            name = name.removeprefix("network.").removeprefix("_layers.")
            return f"after another step, the same batch and parameters give another {name}; {FROZEN}"
        if not all(_alike(value, alone[name]) for name, value in itself.items()):
            return (
                "the network, or a copy of it, does not compute with the parameters it is given, as where a layer "
                "holds a view of one, or a function that knows the network; a compiled step would not train it"
            )
        return None


def origins(run):
    """Return what traces ``run`` with JAX: for each result a number, the same for what is computed alike."""

    def traced(*arrays):
        closed, numbers, known = import_module("jax").make_jaxpr(run)(*arrays), {}, {}

        def number(*origin):
            return numbers.setdefault(origin, len(numbers))

        def of(atom):
            return number(str(atom.aval), repr(atom.val)) if hasattr(atom, "val") else known[atom]

        known |= {variable: number("given", i) for i, variable in enumerate(closed.jaxpr.invars)}
        constants = zip(closed.jaxpr.constvars, closed.consts, strict=True)
        known |= {variable: number(to_numpy(value).tobytes(), value.shape) for variable, value in constants}
        for equation in closed.jaxpr.eqns:
            how = equation.primitive.name, ADDRESS.sub("", str(equation.params))
            known |= {v: number(*how, *map(of, equation.invars), i) for i, v in enumerate(equation.outvars)}
        return list(map(of, closed.jaxpr.outvars))

    return traced


def _memory(thing, path, seen):
    """Yield (path, value) for all that an object remembers: arrays, and in words the rest."""
    if id(thing) in seen or isinstance(thing, (type, ModuleType)):
        return
    seen[id(thing)] = thing
    if is_array_api_obj(thing):
        yield path, thing
    elif is_generator(thing):
        yield path, repr(state_of(thing))
    elif parts := list(_parts(thing)):
        for name, part in parts:
            yield from _memory(part, f"{path}.{name}" if name else path, seen)
    else:
        yield path, ADDRESS.sub("", repr(thing))


def _parts(thing):
    """Yield (name, value) of what an object holds: entries, attributes, what a function holds of its surroundings."""
    if isinstance(thing, dict):
        yield from thing.items()
    elif isinstance(thing, (list, tuple)):
        yield from enumerate(thing)
    elif isinstance(thing, FunctionType):
        for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
            yield name, getattr(cell, "cell_contents", None)
    elif isinstance(thing, MethodType):
        yield "", thing.__self__
        return
    slots = (name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ()))
    yield from ((name, getattr(thing, name)) for name in slots if hasattr(thing, name))
    yield from getattr(thing, "__dict__", {}).items()


def same_moves(expected, before, after):
    """Return whether the arrays ``before`` became those ``after`` by the ``expected`` moves, and not by quite others.

    Compilers round in other places, and an entry in a thousand may lie on the other side of a kink then; some moves are
    nothing but round-off. So all are measured together, by the length of the whole step.
    """
    import numpy as np

    def length(arrays):
        return math.sqrt(sum(float(np.sum(np.square(array))) for array in arrays))

    eps = float(np.finfo(to_numpy(before[0]).dtype).eps)
    expected, before, after = ([to_numpy(x).astype("float64") for x in arrays] for arrays in (expected, before, after))
    with np.errstate(all="ignore"):  # a step that is not finite is told of by the training
        size = length(expected)
        off = length([old - new - move for old, new, move in zip(before, after, expected, strict=True)])
        return not math.isfinite(size) or off <= eps**0.25 * size + 2 * eps * length(before)


def _alike(one, other):
    """Return whether two values are the same, arrays to what the order of a sum may change."""
    if not is_array_api_obj(one) or not is_array_api_obj(other):
        return type(one) is type(other) and one == other
    one, other = to_numpy(one), to_numpy(other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind not in "fc":
        return bool((one == other).all())
    import numpy as np

    size = float(np.max(np.abs(other[np.isfinite(other)]), initial=0.0))
    return np.allclose(one, other, rtol=0, atol=float(np.finfo(one.dtype).eps) ** 0.5 * size, equal_nan=True)


def _likelihood(name, told):
    """Order what has changed: numbers and generators say why, then what layers hold; the rest only follows."""
    return not told, not name.startswith("network._layers") or name.rpartition(".")[2].startswith("d")
