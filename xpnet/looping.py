"""JAX: an epoch of steps, and the accuracies after it, each one program that loops on the device."""

from importlib import import_module

from array_api_compat import array_namespace, device

from .arrays import chunks_by

CHUNK = 1000  # samples at a time, where accuracies are a loop on the device

# the last of each kind that JAX compiled, with its device and text: to train again with these settings compiles nothing
_programs: dict = {}


def _program(kind, function, arguments, x):
    """Return ``function`` compiled for these arguments, or the last of its kind if that is the same."""
    lowered = import_module("jax").jit(function).lower(*arguments)
    key = device(x), lowered.as_text()
    if _programs.get(kind, ("", None))[0] != key:
        _programs[kind] = key, lowered.compile()
    return _programs[kind][1]


def epoch_by_jax(function, held, x, t, steps, batch):
    """Return run(order): steps ``function(parameters, x, t, rows)``, which returns (loss, moves), one after another."""
    jax, xp = import_module("jax"), array_namespace(x)

    def epoch(parameters, x, t, order, count):
        def step(i, carried):
            parameters, losses = carried
            loss, moves = function(parameters, x, t, order[i])
            return [value - move for value, move in zip(parameters, moves, strict=True)], losses.at[i].set(loss)

        return jax.lax.fori_loop(0, count, step, (parameters, xp.zeros((steps,), dtype=parameters[0].dtype)))

    nothing = xp.zeros((steps, batch), dtype=xp.asarray(0).dtype)
    program = _program("epoch", epoch, (list(held.values()), x, t, nothing, 0), x)

    def run(order):
        order, count = xp.astype(order, nothing.dtype, copy=False), order.shape[0]
        if count < steps:  # one shape, compiled once
            order = xp.concat([order, nothing[count:, :]])
        parameters, losses = program(list(held.values()), x, t, order, count)
        for name, value in zip(held, parameters, strict=True):
            held[name] = value
        return losses[:count]

    return run


def look_by_jax(function, held, parts):
    """Return run(): ``function(parameters, parts)``, with a loop on the device where it works through chunks."""

    def look(parameters, parts):
        with chunks_by(_looped):
            return function(parameters, parts)

    program = _program("look", look, (list(held.values()), parts), parts[0][0])
    return lambda: program(list(held.values()), parts)


def _looped(function, chunk, arrays):
    """Return what ``arrays.in_chunks`` returns; a loop that is unrolled would keep all of its chunks at a time."""
    lax, xp, size = import_module("jax").lax, array_namespace(*arrays), arrays[0].shape[0]
    chunk = min(chunk or CHUNK, size)

    def some(start):  # moved back where less than a chunk is left
        return function(*(lax.dynamic_slice_in_dim(array, start, chunk) for array in arrays))

    found = lax.map(some, xp.arange(0, size, chunk))
    left = size - (found.shape[0] - 1) * chunk
    return xp.concat([xp.reshape(found[:-1, ...], (size - left, *found.shape[2:])), found[-1, chunk - left :, ...]])
