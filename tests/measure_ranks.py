"""What ranks and workers gain, beside one process that takes turns with them, for `docs/parallel.md`.

    export OPENBLAS_NUM_THREADS=1
    mpiexec -n 2 python -m mpi4py tests/measure_ranks.py 2000 1000   # hidden units, batch; also 50 100
    mpiexec -n 1 python -m mpi4py tests/measure_ranks.py 50 100      # what DataParallel costs on one rank
    python tests/measure_ranks.py check                              # a foreign 784-50-10, two processes
"""

import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from work import Net

from xpnet import TwoLayerNet, check_gradients, load_mnist, train

STEPS, TURNS = 20, 40  # many short ones: on a shared machine some of them are left in peace


def report(title, alone, together):
    """Print the times of both, and what they gained: by the medians, by the fastest, and the median of the turns."""
    ratios = [one / many for one, many in zip(alone, together, strict=True)]
    print(
        f"{title}: alone {statistics.median(alone):.4f} s (fastest {min(alone):.4f}), together "
        f"{statistics.median(together):.4f} s (fastest {min(together):.4f}); together is "
        f"{statistics.median(alone) / statistics.median(together):.2f} times as fast by the medians, "
        f"{min(alone) / min(together):.2f} by the fastest, {statistics.median(ratios):.3f} in the median turn",
        flush=True,
    )


def seconds(work):
    """Return how long ``work()`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_training(hidden, batch):
    """Measure epochs of 20 batches in float32, with their accuracy, on rank 0 alone and on all ranks.

    The model's prediction adds what one rank takes alone for its share and what the sums take by themselves.
    """
    from mpi4py import MPI

    from xpnet.parallel import DataParallel

    comm = MPI.COMM_WORLD
    (x, t), _ = load_mnist(backend="numpy")
    x, t = x[: STEPS * batch].astype("float32"), t[: STEPS * batch]
    network = TwoLayerNet(784, hidden, 10, dtype="float32", backend="numpy")
    ranks = DataParallel(TwoLayerNet(784, hidden, 10, dtype="float32", backend="numpy"), comm)
    buffer = np.zeros(sum(value.size for value in network.params.values()), "float32")

    def epoch(network, parts=1):
        samples = STEPS * batch // parts
        list(train(network, x[:samples], t[:samples], epochs=1, batch_size=batch // parts, learning_rate=0.01))

    def sums():
        for _ in range(STEPS):
            comm.Allreduce(MPI.IN_PLACE, buffer)

    def rest():
        """Wait for all without keeping a core busy, as MPI's own waiting does."""
        waiting = comm.Ibarrier()
        while not waiting.Test():
            time.sleep(0.001)

    works = {
        "alone": lambda: comm.rank or epoch(network),
        "together": lambda: epoch(ranks),
        "share": lambda: comm.rank or epoch(network, comm.size),
        "sums": sums,
    }
    times = {name: [] for name in works}
    for turn in range(TURNS + 1):
        for name in works if turn % 2 else reversed(works):
            rest()
            times[name] += [seconds(works[name])][: min(turn, 1)]  # the first warms up
    if comm.rank == 0:
        report(f"784-{hidden}-10, batch {batch}, {comm.size} rank(s)", times["alone"], times["together"])
        alone, _, share, added = (1e3 * min(found) / STEPS for found in times.values())
        print(
            f"    a step: alone {alone:.3f} ms, of one share {share:.3f} ms, the sum {added:.3f} ms "
            f"({buffer.nbytes / 1e6 / added:.2f} GB/s); predicted {alone / (share + added):.2f} times as fast"
        )


def measure_check():
    """Measure a check by the plain loop, 79,520 losses of 100 samples, in this process and in two others."""
    rng = np.random.default_rng(0)
    net, x, t = Net(784, 50, 10), rng.random((100, 784)), rng.integers(0, 10, 100)
    alone, together = [], []
    with ProcessPoolExecutor(2) as pool:
        for _ in range(3):
            alone.append(seconds(lambda: check_gradients(net, x, t, progress=False)))
            together.append(seconds(lambda: check_gradients(net, x, t, progress=False, map=pool.map)))
    report("check of a foreign 784-50-10, batch 100, 2 processes", alone, together)


if __name__ == "__main__":
    measure_check() if sys.argv[1] == "check" else measure_training(*map(int, sys.argv[1:]))
