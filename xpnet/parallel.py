"""A network on several ranks over MPI: each takes its share of every batch, and one sum makes them one network.

The gradient of a mean over a batch is the mean of the gradients over its shares, weighted by their samples. So ranks
that begin with the same parameters, and add up what each found, stay alike, and a training loop need not know of them.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

from array_api_compat import device, is_writeable_array

from .agreement import begin_alike, look_at_first_batch, own, require_one_dtype
from .annotations import Array
from .backend import Backend, backend_of_rank, to_numpy
from .describing import Described, in_short
from .diagnosis import require_shapes
from .functions import namespace
from .ranks import WORDS, RankError, Ranks
from .scalars import is_number

__all__ = ["DataParallel", "RankError", "Ranks", "describe_ranks", "rank_backend"]


def rank_backend(comm: Any, name: str | Backend | None = None) -> Backend:
    """Return the backend ``name`` for this rank of ``comm``: rank r of a machine takes its GPU r, counted round.

    Names and errors are those of ``xpnet.get_backend``. Source: the usual placing of ranks, as in Horovod.
    """
    from mpi4py import MPI

    return backend_of_rank(name, comm.Split_type(MPI.COMM_TYPE_SHARED).rank)


def describe_ranks(comm: Any, like: Array) -> str:
    """Return in words how many ranks ``comm`` has, and through what their sums of arrays such as ``like`` go."""
    from mpi4py import MPI

    machines = len(set(comm.allgather(MPI.Get_processor_name())))
    where = "1 machine" if machines == 1 else f"{machines} machines"
    on_gpu = hasattr(like, "__cuda_array_interface__")
    way = "GPU memory" if _stays_on_gpu(like, comm) else "page-locked host memory" if on_gpu else "host memory"
    library = " ".join(MPI.Get_library_version().splitlines()[0].replace("Version:", "").split())
    return f"{comm.size} rank{'s' if comm.size > 1 else ''} on {where}, {library}, sums through {way}"


class Share(NamedTuple):
    """What a rank takes of a batch: ``x`` and ``t``, how much they count, and the place of the first sample."""

    x: Any
    t: Any
    weight: float
    start: int


class DataParallel(Described):
    """The network ``network`` on all ranks of the MPI communicator ``comm``, to be used as if it were one network.

    Every rank is given the same batch, computes with its share of the samples, and gets the sum over all ranks:
    ``loss``, ``gradient``, ``loss_and_gradient``, ``accuracy`` and ``numerical_gradient`` are those of the whole batch,
    on every rank the same to the last bit, so ``train`` needs no change. All ranks must call the same in the same
    order, and begin with the parameters of rank 0. The loss must be a mean over the samples; of a layer that looks at
    the whole batch, as batch normalization does, each rank's sees its own share.

    Source: P. Goyal et al., Accurate, Large Minibatch SGD, 2017, section 3.

    Parameters
    ----------
    network : Network
        This rank's own, built alike on all of them.
    comm : mpi4py communicator
        Such as ``MPI.COMM_WORLD``.
    by_share : bool
        Whether each rank is given a batch of its own share of the data, which counts by its samples.
    settings : dict
        What must be alike on all ranks, such as a seed; compared at the start, as are names, shapes and dtypes, and the
        first batch.
    timeout : float
        For how many seconds a rank may stay away from a step before the run is ended.
    gpu_aware : bool
        Whether MPI may be given arrays that lie on a GPU; None asks it.

    Raises
    ------
    TypeError
        For what is no communicator, and parameters that MPI cannot add.
    ValueError
        On all ranks, naming both sides, if they did not begin alike, or if the loss is no mean.
    RankError
        On all ranks, if one goes wrong.
    """

    def __init__(
        self,
        network: Any,
        comm: Any,
        *,
        by_share: bool = False,
        settings: dict[str, Any] | None = None,
        timeout: float = 60.0,
        gpu_aware: bool | None = None,
    ) -> None:
        if not (hasattr(comm, "Allreduce") and hasattr(comm, "Dup")):
            raise TypeError(f"comm is {in_short(comm)}; it must be a communicator of mpi4py, such as MPI.COMM_WORLD")
        if not is_number(timeout, lambda seconds: seconds > 0):
            raise ValueError(f"timeout is {timeout!r}; it must be a positive number of seconds")
        self.network, self.rank, self.size, self.by_share = network, comm.rank, comm.size, by_share
        self._length = WORDS + sum(math.prod(value.shape) for value in network.params.values())
        if self.size > 1:
            ranks, self._begun = Ranks.of(comm, float(timeout)), False
            self._ranks = weakref.ref(ranks)  # which comm keeps; what looks through a network shall not come there
            require_one_dtype(network.params)
            first = next(iter(network.params.values()))
            self._like = namespace(first).zeros((WORDS - 1,), dtype=first.dtype, device=device(first))
            self._stays_on_gpu = _stays_on_gpu(first, comm, gpu_aware)
            begin_alike(ranks, network, {"by_share": by_share, **(settings or {})})

    def _description(self):
        return f"DataParallel on rank {self.rank} of {self.size}: {self.network!r}"

    @property
    def params(self) -> Mapping[str, Array]:
        """The parameters of this rank's network, which are the same on all ranks."""
        return self.network.params

    @property
    def leader(self) -> bool:
        """Whether this is the rank that prints, draws and saves, rank 0."""
        return self.rank == 0

    def __reduce__(self):
        raise TypeError("a network on several ranks can be neither copied nor compiled; copy its .network")

    def predict(self, x: Array) -> Array:
        """Return the scores of ``x``, which this rank computes alone."""
        return self.network.predict(x)

    def loss(self, x: Array, t: Array) -> Array:
        """Return the loss of the whole batch. Raises as the network does, and RankError."""
        if self.size == 1:
            return self.network.loss(x, t)
        value = self._mean("loss", x, t, self.network.loss)
        return namespace(self._like).asarray(value, dtype=self._like.dtype, device=device(self._like))

    def accuracy(self, x: Array, t: Array, **options: Any) -> Array:
        """Return the accuracy over all samples. Raises as the network does, and RankError."""
        if self.size == 1:
            return self.network.accuracy(x, t, **options)
        return self._mean("accuracy", x, t, self.network.accuracy, **options)

    def loss_and_gradient(self, x: Array, t: Array, dout: Array = 1.0) -> tuple[Array, dict[str, Array]]:
        """Return (loss, gradients of dout·loss) of the whole batch. Raises as the network does, and RankError."""
        if self.size == 1:
            return _loss_and_gradient(self.network, x, t, dout)
        if not self._begun:
            self._begun = True
            look_at_first_batch(self._ranks(), self.network, x, t, self.by_share)
        return self._sum("gradient", x, t, lambda x, t, weight: _loss_and_gradient(self.network, x, t, dout * weight))

    def gradient(self, x: Array, t: Array, dout: Array = 1.0) -> dict[str, Array]:
        """Return the gradient of dout·loss of the whole batch. Raises as the network does, and RankError."""
        return self.loss_and_gradient(x, t, dout)[1]

    def numerical_gradient(self, x: Array, t: Array, **options: Any) -> dict[str, Array]:
        """Return the gradient of the whole batch by differences. Raises as the network does, and RankError."""
        if self.size == 1:
            return self.network.numerical_gradient(x, t, **options)

        def own(x, t, weight):
            return 0.0, {name: weight * g for name, g in self.network.numerical_gradient(x, t, **options).items()}

        return self._sum("numerical gradient", x, t, own)[1]

    def _share(self, x, t):
        """Return this rank's share of a batch; of what is no batch of samples, all, counted once."""
        if self.by_share:
            return Share(x, t, float(x.shape[0]), 0)
        if x.ndim < 2 or 0 in x.shape or tuple(x.shape[:1]) != tuple(getattr(t, "shape", ()))[:1]:
            return Share(x, t, 1 / self.size, 0)  # the network knows better what it is; all ranks do the same
        size = x.shape[0]
        start, stop = (size * rank // self.size for rank in (self.rank, self.rank + 1))
        return Share(x[start:stop, ...], t[start:stop, ...], (stop - start) / size, start)

    def _mean(self, what, x, t, measure, **options):
        """Return the mean over all samples of what ``measure`` finds for each rank's share."""
        share, error = self._share(x, t), None
        words = own(to_numpy([0.0] * WORDS))
        if share.weight:
            try:
                words[0] = share.weight * float(measure(share.x, share.t, **options))
            except Exception as caught:
                error = caught
        self._ranks().add_up(what, words, share.weight, error)
        self._require_one_size(words[1], x)
        return float(words[0] / words[1])

    def _sum(self, what, x, t, differentiate):
        """Return (loss, gradients) of the whole batch, from one flat buffer that is summed over the ranks."""
        share, error, flat = self._share(x, t), None, None
        if share.weight:
            try:
                flat = self._flat(*differentiate(share.x, share.t, share.weight), share.weight)
            except Exception as caught:
                error = caught
        xp, where = namespace(self._like), device(self._like)
        if flat is None:
            flat = xp.zeros((self._length,), dtype=self._like.dtype, device=where)
        buffer = flat if self._stays_on_gpu else own(to_numpy(flat, page_locked=True))
        not_finite = None
        if not _all_finite(buffer):
            not_finite = (
                f"the loss or the {what} of its share of the batch, {share.x.shape[0]} samples from sample "
                f"{share.start} on, became NaN or infinite, and on other ranks it did not; look at those samples "
                "first, then try a smaller learning rate"
            )
        self._ranks().add_up(what, buffer, share.weight, error, not_finite)
        weight = self._require_one_size(float(buffer[1]), x)
        if not self._stays_on_gpu:
            flat = xp.asarray(buffer, device=where)
        if self.by_share:
            flat = flat / weight
        return self._apart(flat)

    def _flat(self, loss, gradients, weight):
        xp, like = namespace(self._like), self._like
        require_shapes(gradients, self.params)
        loss = xp.asarray(loss, dtype=like.dtype, device=device(like))
        rest = [xp.reshape(gradients[name], (-1,)) for name in self.params]
        return xp.astype(xp.concat([xp.reshape(loss * weight, (1,)), like, *rest]), like.dtype, copy=False)

    def _apart(self, flat):
        xp, gradients, start = namespace(flat), {}, WORDS
        for name, value in self.params.items():
            stop = start + math.prod(value.shape)
            gradients[name] = xp.reshape(flat[start:stop], value.shape)
            start = stop
        return xp.asarray(flat[0], copy=True), gradients  # a view would keep all of it

    def _require_one_size(self, weight, x):
        """Return the sum of the weights; raise ValueError if it says that the ranks had batches of several sizes."""
        if not self.by_share and abs(weight - 1) > 1e-6 * self.size:
            self._ranks().require_alike({"samples": x.shape[0]}, "is given a batch")
        return weight


def _loss_and_gradient(network, x, t, dout):
    if hasattr(network, "loss_and_gradient"):
        return network.loss_and_gradient(x, t, dout)
    return network.loss(x, t), {name: dout * value for name, value in network.gradient(x, t).items()}


def _all_finite(x):
    """Return whether no entry is NaN or infinite, with nothing made that is as large as ``x``."""
    xp = namespace(x)
    return math.isfinite(float(xp.max(x))) and math.isfinite(float(xp.min(x)))


def _stays_on_gpu(array, comm, gpu_aware=None):
    """Return whether sums of arrays such as this are given to MPI where they lie, on a GPU."""
    from mpi4py import MPI

    if gpu_aware is None:  # what MPI says in the words of its standard 4.1
        infos = comm.Get_info(), MPI.INFO_ENV
        gpu_aware = any("cuda" in (info.get("mpi_memory_alloc_kinds") or "") for info in infos)
    return gpu_aware and hasattr(array, "__cuda_array_interface__") and is_writeable_array(array)
