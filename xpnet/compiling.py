"""A training step compiled by the array library: JAX loops over an epoch, PyTorch and CuPy replay what they recorded.

Where Python decides the time, a device is worth no more than its launches: one a step instead of some thirty. A copy of
the network is run and recorded; the network itself, its layers and yours stay as they are.
"""

import copy
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module

from array_api_compat import array_namespace, device, is_array_api_obj

from .backend import to_numpy
from .capturing import recorded_by_cupy, recorded_by_torch


class CompileError(RuntimeError):
    """A step that cannot be compiled; the message says why. Without ``compile`` it runs as it is."""


def compiled(step, network, x, t, steps, batch):
    """Return run(order): at most ``steps`` steps on the rows of ``order`` (K, batch), which returns their losses (K,).

    ``step(network, x, t)`` returns (loss, what to subtract from each parameter), of these arguments alone. Raises
    CompileError where the library has no compiler or refuses it, or what the network remembers changes step by step.
    """
    xp, names = array_namespace(x), list(network.params)
    library = xp.__name__.removeprefix("array_api_compat.").partition(".")[0]
    if library not in _WAYS:
        raise CompileError(f"{library} runs each operation as it comes, there is nothing to compile; leave compile out")

    def function(parameters, x, t, chosen):
        for name, value in zip(names, parameters, strict=True):
            twin.params[name] = value
        loss, moves = step(twin, xp.take(x, chosen, axis=0), xp.take(t, chosen, axis=0))
        return loss, [moves[name] for name in names]

    try:
        twin, (evaluated, way) = copy.deepcopy(network), _WAYS[library]
        arrays = list(twin.params.values()), x, t, xp.arange(batch, device=device(x))
        _require_function(evaluated(function, *arrays), twin)
        return way(function, network.params, x, t, steps, batch)
    except CompileError:
        raise
    except Exception as error:
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise CompileError(f"{library} cannot compile this step ({type(error).__name__}: {reason})") from error


def _memory(thing, path, seen):
    """Yield (path, value) for all that an object remembers, arrays by their bytes; values being traced are unknown."""
    if id(thing) in seen:
        return
    seen[id(thing)] = thing
    if is_array_api_obj(thing):
        with suppress(TypeError, RuntimeError):
            yield path, to_numpy(thing).tobytes()
    elif hasattr(thing, "bit_generator"):
        yield path, repr(thing.bit_generator.state)
    elif isinstance(thing, (Mapping, list, tuple)) or (hasattr(thing, "__dict__") and not callable(thing)):
        parts = enumerate(thing) if isinstance(thing, (list, tuple)) else getattr(thing, "__dict__", thing).items()
        for name, part in parts:
            yield from _memory(part, f"{path}.{name}", seen)
    else:
        yield path, repr(thing)


def _require_function(run, network):
    """Run a step twice on the same numbers; refuse one that remembers something else the second time."""
    run()
    before = dict(_memory(network, "network", {}))
    run()
    after = dict(_memory(network, "network", {}))
    if changed := [path for path in before | after if before.get(path) != after.get(path)]:
        raise CompileError(f"{changed[0]} changes from step to step, which a compiled step would not do")


def _traced(function, *arrays):
    """Return what traces the function: a new object each time, or JAX would remember how the first went."""
    return lambda: [to_numpy(kept) for kept in import_module("jax").make_jaxpr(partial(function))(*arrays).consts]


def _scanned(function, held, x, t, steps, batch):
    """JAX: a whole epoch is one loop on the device."""
    jax, xp = import_module("jax"), array_namespace(x)

    @jax.jit
    def epoch(parameters, x, t, order, count):
        def step(i, carried):
            parameters, losses = carried
            loss, moves = function(parameters, x, t, order[i])
            return [value - move for value, move in zip(parameters, moves, strict=True)], losses.at[i].set(loss)

        return jax.lax.fori_loop(0, count, step, (parameters, xp.zeros((steps,), dtype=parameters[0].dtype)))

    def run(order):
        count = order.shape[0]
        order = xp.concat([order, xp.zeros((steps - count, batch), dtype=order.dtype)])  # one shape, compiled once
        parameters, losses = epoch(list(held.values()), x, t, order, count)
        for name, value in zip(held, parameters, strict=True):
            held[name] = value
        return losses[:count]

    return run


def _replayed(record, function, held, x, t, steps, batch):
    """PyTorch, CuPy: a step in place, recorded once; a counter on the device says which row of the order is next."""
    xp, where = array_namespace(x), device(x)
    order, counter = (xp.zeros(shape, dtype=xp.int64, device=where) for shape in ((steps, batch), (1,)))
    losses = xp.zeros((steps,), dtype=next(iter(held.values())).dtype, device=where)
    rest, recorded = (x, t, order, counter, losses, xp.arange(steps, device=where)), {}

    def step(parameters, x, t, order, counter, losses, places):
        loss, moves = function(parameters, x, t, xp.take(order, counter, axis=0)[0, :])
        for value, move in zip(parameters, moves, strict=True):
            value -= move
        losses[...] = xp.where(places == counter, loss, losses)
        counter += 1

    def run(given):
        parameters, count = list(held.values()), given.shape[0]
        which = tuple(map(id, parameters))
        if which not in recorded:  # the first time, and where an array has been replaced since
            practice = [xp.asarray(value, copy=True) for value in parameters]
            recorded.clear()
            recorded[which] = record(step, (practice, *rest), (parameters, *rest)), parameters
        order[:count, :], counter[...] = given, 0
        recorded[which][0](count)
        return xp.asarray(losses[:count], copy=True)

    run(order[:0, :])
    return run


_WAYS = {
    "jax": (_traced, _scanned),
    "torch": (partial, partial(_replayed, recorded_by_torch)),
    "cupy": (partial, partial(_replayed, recorded_by_cupy)),
}
