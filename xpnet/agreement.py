"""What the ranks of a run must have in common, looked at when they begin and with their first batch."""

import math
import warnings
import zlib

from array_api_compat import device

from .arrays import put
from .backend import to_numpy
from .functions import namespace
from .state import not_restorable, unchanged


def require_one_dtype(params):
    """Refuse parameters that MPI could not add in one buffer."""
    found = {name: _dtype_name(value) for name, value in params.items()}
    if set(found.values()) not in ({"float32"}, {"float64"}):
        listed = ", ".join(f"{name} {dtype}" for name, dtype in found.items()) or "none"
        raise TypeError(f"the parameters are {listed}; MPI can add them up only if all are float32 or all float64")


def begin_alike(ranks, network, settings):
    """Compare what the ranks begin with, then put the parameters of rank 0 into every rank's network."""
    from . import __version__

    facts = {"xpnet": __version__, "network": type(network).__name__, **settings}
    if hasattr(getattr(network, "layers", None), "values"):
        facts["layers"] = ", ".join(type(layer).__name__ for layer in network.layers.values())
    for name, value in network.params.items():
        facts[f"parameter {name}"] = f"of shape {tuple(value.shape)} and dtype {_dtype_name(value)}"
    ranks.require_alike(facts, "begins")
    with ranks.step("comparison") as channel:
        for name, value in network.params.items():
            host = own(to_numpy(value))
            channel.Bcast(host, root=0)
            put(network.params, {name: namespace(value).asarray(host, device=device(value))})


def look_at_first_batch(ranks, network, x, t, by_share):
    """Look for what would go wrong without a sound: ranks with other batches, a loss that is no mean.

    Raises ValueError on all ranks; rank 0 warns of what only might be wrong.
    """
    if not by_share:
        facts = {"x of shape": tuple(x.shape), "t of shape": tuple(t.shape)}
        facts |= {f"a check sum of {n}": f"{zlib.crc32(to_numpy(a).tobytes()):#x}" for n, a in (("x", x), ("t", t))}
        ranks.require_alike(facts, "is given a first batch")
    with ranks.step("comparison") as channel:
        error, warning = channel.bcast(no_mean(network, x, t) if ranks.rank == 0 else None)
    if error:
        raise ValueError(error)
    if warning and ranks.rank == 0:
        warnings.warn(warning, stacklevel=4)


def no_mean(network, x, t):
    """Return (error, warning): what is wrong with the loss if it is not the mean of its values on parts of a batch."""
    size, cut = x.shape[0], x.shape[0] // 3 or 1
    if x.ndim < 2 or size < 2 or tuple(getattr(t, "shape", ()))[:1] != (size,):
        return None, None
    if closed := not_restorable(network):
        return None, (
            "whether the loss is a mean over the samples, as it must be, could not be checked: trying would change the "
            f"{', '.join(closed)} that the network holds"
        )
    found = []
    try:
        for part in ((x, t), (x[:cut, ...], t[:cut, ...]), (x[cut:, ...], t[cut:, ...])):
            with unchanged(network):
                found.append(float(network.loss(*part)))
    except Exception:
        return None, None  # it will be raised again, by the step itself and on all ranks
    whole, first, second = found
    near = math.sqrt(namespace(x).finfo(next(iter(network.params.values())).dtype).eps) * abs(whole)
    mean = (cut * first + (size - cut) * second) / size
    if not math.isfinite(whole) or abs(mean - whole) <= near:
        return None, None
    if abs(first + second - whole) <= near:
        return "the loss is a sum over the samples, but must be a mean: divide it by the number of samples", None
    return None, (
        f"the loss of the first batch is {whole:.6g}, but {mean:.6g} from two parts of it: a layer looks at the whole "
        "batch, as batch normalization does, or draws at random, as dropout does. On each rank it sees the rank's own "
        "share only"
    )


def own(host):
    """Return a NumPy array that can be written and lies in one piece, as MPI needs it."""
    return host if host.flags.writeable and host.flags.c_contiguous else host.copy()


def _dtype_name(array):
    return str(array.dtype).rpartition(".")[2]
