"""The work of a plain loop in shares, on whatever has a ``map``: processes, ranks of MPI, a cluster.

The function and the arrays are pickled once, together, and every share carries them with it; a worker unpickles them
when they are new to it. So a network that holds the array that moves is still one with it there.
"""

import contextlib
import hashlib
import os
import pickle
import socket
import warnings

from .backend import wide_numbers
from .describing import in_short

SHARES = 128  # as many as that: small enough to keep workers busy to the end, large enough to be worth sending
THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")

_held = (None, None)  # in a worker: the digest of what was last unpickled, and that


def shared_out(map, task, thing, places, progress=None, tell=None):
    """Return ``task(thing, part)`` for consecutive parts of the list ``places``, in order, computed by ``map``.

    ``map(function, *iterables)`` returns results or futures, as those of executors, of ``mpi4py.futures`` and of Dask
    do. ``task`` and ``thing`` must be picklable, and ``task`` changes nothing in ``thing``. ``progress(n)`` is called
    when n more places are done. What has not begun is cancelled if anything raises, Ctrl-C too. ``tell(text)``, or a
    warning, says if the workers of a machine compute with more BLAS threads than it has cores. Raises TypeError for
    what cannot be pickled, and what ``task`` raises.
    """
    if not callable(map):
        raise TypeError(f"map is {in_short(map)}; it must be a function such as the map of a ProcessPoolExecutor")
    try:
        pickled = pickle.dumps((task, thing))
    except Exception as error:  # whatever a foreign object raises
        raise _unsendable(error) from error
    count = min(SHARES, len(places))
    parts = [places[len(places) * n // count : len(places) * (n + 1) // count] for n in range(count)]
    name = hashlib.sha256(pickled).digest()
    arguments = [name] * count, [pickled] * count, [wide_numbers()] * count, parts
    results, found, workers = map(_do, *arguments), [], {}
    results = list(results) if isinstance(results, (list, tuple)) else results
    try:
        for part, result in zip(parts, results, strict=True):
            result, worker, load = result.result() if hasattr(result, "result") else result
            found.append(result)
            workers[worker] = load
            if progress:
                progress(len(part))
    finally:
        _cancel(results)
    for text in _too_many_threads(workers):
        tell(text) if tell else warnings.warn(text, stacklevel=4)
    return found


def _do(name, pickled, wide, part):
    """Be what a worker does: return (result, (machine, process), (threads, cores))."""
    global _held
    if _held[0] != name:
        wide_numbers(wide)
        try:
            _held = (name, pickle.loads(pickled))
        except Exception as error:
            raise _unsendable(error) from error
    task, thing = _held[1]
    return task(thing, part), (socket.gethostname(), os.getpid()), (blas_threads(), _cores())


def _unsendable(error):
    return TypeError(
        f"what is to be computed cannot be sent to other processes ({type(error).__name__}: {error}). With map=, "
        "functions and classes must be defined at the top level of a module that workers can import: no lambda, no "
        "function within a function; and in a script, what starts the work stands below if __name__ == '__main__':"
    )


def _cancel(results):
    for result in results if isinstance(results, list) else ():
        if hasattr(result, "cancel"):
            result.cancel()
    with contextlib.suppress(AttributeError):
        results.close()  # a generator of an executor cancels what has not begun


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def blas_threads():
    """Return with how many threads this process multiplies matrices."""
    with contextlib.suppress(ImportError):
        from threadpoolctl import threadpool_info

        return max((pool["num_threads"] for pool in threadpool_info()), default=1)
    told = [os.environ[name] for name in THREADS if os.environ.get(name, "").isdecimal()]
    return int(told[0]) if told else _cores()


def _too_many_threads(workers):
    """Yield in words on which machines the workers, {(machine, process): (threads, cores)}, get in each other's way."""
    for machine in sorted({machine for machine, _ in workers}):
        loads = [load for (where, _), load in workers.items() if where == machine]
        threads, cores = sum(threads for threads, _ in loads), max(cores for _, cores in loads)
        if len(loads) > 1 and threads > cores:
            yield (
                f"{len(loads)} workers compute with {threads} BLAS threads on the {cores} cores of {machine}, and wait "
                "for each other: set OPENBLAS_NUM_THREADS=1 (with Intel's MKL, MKL_NUM_THREADS=1) before they start"
            )
