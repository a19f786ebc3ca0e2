"""A training step compiled by the array library: JAX loops over an epoch, PyTorch and CuPy replay what they recorded.

Where Python decides the time, a device is worth no more than its launches: one a step instead of some thirty. A copy of
the network is run and recorded; the network itself, its layers and yours stay as they are.
"""

import copy
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module

from array_api_compat import array_namespace, device, is_array_api_obj

from .backend import to_numpy
from .capturing import recorded_by_cupy


class CompileError(RuntimeError):
    """A step that cannot be compiled; the message says why. Without ``compile`` it runs as it is."""


def compiled(step, network, x, t, steps, batch):
    """Return run(order): at most ``steps`` steps on the rows of ``order`` (K, batch), which returns their losses (K,).

    ``step(network, x, t)`` returns (loss, what to subtract from each parameter). It runs on a copy of ``network`` and
    must depend on parameters and batch alone. Raises CompileError where the library has no compiler or refuses the
    step, or where something that the network remembers changes from step to step.
    """
    library = array_namespace(x).__name__.removeprefix("array_api_compat.").partition(".")[0]
    if library not in _WAYS:
        raise CompileError(f"{library} runs each operation as it comes, there is nothing to compile; leave compile out")
    try:
        return _WAYS[library](step, network, copy.deepcopy(network), x, t, steps, batch)
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
    elif isinstance(thing, (Mapping, list, tuple)):
        for name, part in thing.items() if isinstance(thing, Mapping) else enumerate(thing):
            yield from _memory(part, f"{path}[{name!r}]", seen)
    elif hasattr(thing, "bit_generator"):
        yield path, repr(thing.bit_generator.state)
    elif hasattr(thing, "__dict__") and not callable(thing):
        for name, part in vars(thing).items():
            yield from _memory(part, f"{path}.{name}", seen)
    else:
        yield path, repr(thing)


def _require_function(run, network):
    """Run a step twice on the same numbers; refuse one that remembers something else the second time."""
    found = []
    for _ in range(2):
        run()
        found.append(dict(_memory(network, "network", {})))
    changed = [path for path in found[0] | found[1] if found[0].get(path) != found[1].get(path)]
    if changed:
        raise CompileError(f"{changed[0]} changes from step to step, which a compiled step would not do")


def _scanned(step, network, twin, x, t, steps, batch):
    """JAX: a whole epoch is one loop on the device."""
    jax, xp, names = import_module("jax"), array_namespace(x), list(network.params)

    def one(parameters, x, t, chosen):
        for name, value in zip(names, parameters, strict=True):
            twin.params[name] = value
        loss, moves = step(twin, xp.take(x, chosen, axis=0), xp.take(t, chosen, axis=0))
        return [value - moves[name] for name, value in zip(names, parameters, strict=True)], loss

    @jax.jit
    def epoch(parameters, x, t, order, count):
        def body(i, carried):
            parameters, loss = one(carried[0], x, t, order[i])
            return parameters, carried[1].at[i].set(loss)

        return jax.lax.fori_loop(0, count, body, (parameters, xp.zeros((steps,), dtype=parameters[0].dtype)))

    def run(order):
        count = order.shape[0]
        order = xp.concat([order, xp.zeros((steps - count, batch), dtype=order.dtype)])  # one shape, compiled once
        parameters, losses = epoch([network.params[name] for name in names], x, t, order, count)
        for name, value in zip(names, parameters, strict=True):
            network.params[name] = value
        return losses[:count]

    parameters, chosen = [network.params[name] for name in names], xp.arange(batch)
    _require_function(lambda: jax.eval_shape(one, parameters, x, t, chosen), twin)
    return run


def _replayed(record, step, network, twin, x, t, steps, batch):
    """PyTorch and CuPy: a step in place, recorded once; a counter on the device says which row of the order is next."""
    xp, where, names = array_namespace(x), device(x), list(network.params)
    order, counter = (xp.zeros(shape, dtype=xp.int64, device=where) for shape in ((steps, batch), (1,)))
    losses = xp.zeros((steps,), dtype=network.params[names[0]].dtype, device=where)
    rest, recorded = (x, t, order, counter, losses, xp.arange(steps, device=where)), {}

    def one(parameters, x, t, order, counter, losses, places):
        for name, value in zip(names, parameters, strict=True):
            twin.params[name] = value
        chosen = xp.take(order, counter, axis=0)[0, :]
        loss, moves = step(twin, xp.take(x, chosen, axis=0), xp.take(t, chosen, axis=0))
        for name, value in zip(names, parameters, strict=True):
            value -= moves[name]
        losses[...] = xp.where(places == counter, loss, losses)
        counter += 1

    def run(given):
        parameters, count = [network.params[name] for name in names], given.shape[0]
        held = tuple(map(id, parameters))
        if held not in recorded:  # the first time, and where an array has been replaced since
            practice = [xp.asarray(value, copy=True) for value in parameters]
            recorded.clear()
            recorded[held] = record(one, (practice, *rest), (parameters, *rest)), parameters
        order[:count, :], counter[...] = given, 0
        recorded[held][0](count)
        return xp.asarray(losses[:count], copy=True)

    _require_function(lambda: step(twin, x[:batch, ...], t[:batch, ...]), twin)
    run(order[:0, :])
    return run


def _recorded_by_torch(one, practice, arrays):
    """Return launch(count) of ``one(*arrays)`` as PyTorch's compiler makes it, on a GPU as a CUDA graph."""
    torch, proxies = import_module("torch"), import_module("torch.fx.experimental.proxy_tensor")
    with warnings.catch_warnings(action="ignore"):  # the compiler's, about itself
        graph = proxies.make_fx(one, tracing_mode="fake", _allow_non_fake_inputs=True)(*practice)
        step = torch.compile(graph)
        if not arrays[1].is_cuda:
            step(*practice)
            return lambda count: [step(*arrays) for _ in range(count)]
        stream, captured = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries must have set themselves up before the capture
            for _ in range(3):
                step(*practice)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(captured):
            step(*arrays)
    return lambda count: [captured.replay() for _ in range(count)]


_WAYS = {
    "jax": _scanned,
    "torch": partial(_replayed, _recorded_by_torch),
    "cupy": partial(_replayed, recorded_by_cupy),
}
