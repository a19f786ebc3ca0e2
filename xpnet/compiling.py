"""A training step compiled by the array library: JAX loops over an epoch, PyTorch and CuPy replay what they recorded.

Where Python decides the time, a device is worth no more than its launches: one a step instead of some thirty. A copy of
the network is run and recorded; the network itself, its layers and yours stay as they are.
"""

import re
from contextlib import suppress
from functools import partial

from array_api_compat import array_namespace, device

from .arrays import detached
from .capturing import recorded_by_cupy, recorded_by_torch
from .looping import epoch_by_jax, look_by_jax
from .repeating import CompileError, Trial, origins, results, twin_of
from .replaying import replayed

LOOKS = "reads numbers on the host, as if and float() do, or its shapes depend on them"
REASONS = (  # what the libraries say of a step that cannot be recorded, and what is said here
    ("Tracer|Concret|DataDependent|data-dependent|DynamicOutputShape|D2H|\\.numpy\\(\\)|synchroniz", LOOKS),
    (
        "H2D",
        "copies numbers from the host, as for lists and NumPy arrays; make such arrays once, before the first step",
    ),
    ("StreamCapture", "waits for the device, or does what a capture does not allow"),
    ("cuBLAS", "multiplies in a way that CuPy does not record; a @ b of two matrices it does"),
)


def compiled(step, network, x, t, steps, batch):
    """Return run(order): at most ``steps`` steps on the rows of ``order`` (K, batch), which returns their losses (K,).

    ``step(network, x, t)`` returns (loss, what to subtract from each parameter), of these arguments alone. Raises
    CompileError where the library has no compiler or refuses it, or what the network remembers changes step by step;
    and what the step itself raises.
    """
    library = _library(x)
    if library not in _WAYS:
        raise CompileError(f"{library} runs each operation as it comes, there is nothing to compile; leave compile out")
    evaluated, way, _ = _WAYS[library]
    try:
        trial = Trial(step, network)
    except Exception as error:
        raise CompileError(f"the network cannot be copied, as compiling a step needs ({_line(error)})") from error
    arrays = _given(network, x, t, batch)

    def function(parameters, x, t, chosen):
        loss, *moves = results(step, twin_of(trial.copies[0], parameters), x, t, chosen)
        return loss, moves

    try:
        refuse_unless_repeatable(trial, evaluated(trial.run), arrays)
        return way(function, network.params, x, t, steps, batch)
    except CompileError:
        raise
    except Exception as error:
        _refuse_as_it_is(trial, arrays)
        said = f"{type(error).__name__}: {error}"
        why = next((why for sign, why in REASONS if re.search(sign, said)), f"fails in its recorder ({_line(error)})")
        raise CompileError(f"{library} cannot compile this step: it {why}") from error


def compiled_look(look, network, parts, batch):
    """Return run(), which answers as ``look(network, parts)``, a list for ``parts`` (x, t), but compiled.

    It runs as it is where the library has no such compiler or refuses it, or the answer is another the second time.
    """

    def step(network, x, t):
        return *look(network, [(x, t)]), network.params

    def function(parameters, parts):
        return look(twin_of(trial.copies[0], parameters), parts)

    evaluated, _, way = _WAYS[_library(parts[0][0])]
    with suppress(Exception):  # which it raises again if it is its own
        if way:
            trial = Trial(step, network)
            refuse_unless_repeatable(trial, evaluated(trial.run), _given(network, *parts[0], batch))
            return way(function, network.params, parts)
    return partial(look, network, parts)


def _library(x):
    return array_namespace(x).__name__.removeprefix("array_api_compat.").partition(".")[0]


def _given(network, x, t, batch):
    """Return what a trial runs on: parameters, data, and the rows of two batches."""
    rows = array_namespace(x).arange(batch, device=device(x))
    return list(map(detached, network.params.values())), x, t, rows % x.shape[0], (rows + 1) % x.shape[0]


def refuse_unless_repeatable(trial, run, arrays):
    """Raise CompileError for a step that is not the same the second time, or not that of the parameters it is given."""
    if why := trial.verdict(run(*arrays)):
        raise CompileError(why)


def _refuse_as_it_is(trial, arrays):
    """Raise what the step raises where nothing is recorded, or why it cannot be repeated."""
    try:
        refuse_unless_repeatable(trial, trial.run, arrays)
    except CompileError:
        raise
    except (MemoryError, RuntimeError):
        return  # of memory for the copies, perhaps: without them it may run


def _line(error):
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"


_WAYS = {
    "jax": (origins, epoch_by_jax, look_by_jax),
    "torch": (partial, partial(replayed, recorded_by_torch), None),
    "cupy": (partial, partial(replayed, recorded_by_cupy), None),
}
