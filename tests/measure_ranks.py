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
from itertools import pairwise

import numpy as np
from work import Net

from xpnet import TwoLayerNet, check_gradients, load_mnist, train

STEPS, SECONDS = 10, 60  # as many short turns as that time allows: on a shared machine some are left in peace


def report(title, alone, together):
    """Print the medians and the fastest of both, in milliseconds, and what was gained by each."""
    middle, fastest = ([1e3 * take(times) for times in (alone, together)] for take in (statistics.median, min))
    print(
        f"{title}: alone {middle[0]:.4g} ms, together {middle[1]:.4g} ms, {middle[0] / middle[1]:.3f} times as fast; "
        f"the fastest {fastest[0]:.4g} ms and {fastest[1]:.4g} ms, {fastest[0] / fastest[1]:.3f} times as fast",
        flush=True,
    )


def seconds(work):
    """Return how long ``work()`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_training(hidden, batch):
    """Measure training in float32 on rank 0 alone and on all ranks.

    The model's prediction adds what one rank alone takes for its share and what the sum takes by itself.
    """
    from mpi4py import MPI

    from xpnet.parallel import DataParallel

    comm = MPI.COMM_WORLD
    (x, t), _ = load_mnist(backend="numpy")
    x, t = x[: STEPS * batch].astype("float32"), t[: STEPS * batch]
    network = TwoLayerNet(784, hidden, 10, dtype="float32", backend="numpy")
    ranks = DataParallel(TwoLayerNet(784, hidden, 10, dtype="float32", backend="numpy"), comm)
    buffer = np.zeros(sum(value.size for value in network.params.values()), "float32")

    def epoch(network, name, parts=1):
        """Train, and note how long each step took, but for the first."""
        samples, ends = STEPS * batch // parts, []
        options = {"epochs": 1, "batch_size": batch // parts, "learning_rate": 0.01}
        options["on_iteration"] = lambda: ends.append(time.perf_counter())
        for _ in train(network, x[:samples], t[:samples], **options):
            steps[name] += [after - before for before, after in pairwise(ends)]

    def sums():
        for _ in range(STEPS):
            steps["sum"] += [seconds(lambda: comm.Allreduce(MPI.IN_PLACE, buffer))]

    def rest():
        """Wait for all without keeping a core busy, as MPI's own waiting does."""
        waiting = comm.Ibarrier()
        while not waiting.Test():
            time.sleep(0.001)

    works = {
        "alone": lambda: comm.rank or epoch(network, "alone"),
        "together": lambda: epoch(ranks, "together"),
        "share": lambda: comm.rank or epoch(network, "share", comm.size),
        "sum": sums,
    }
    steps, epochs = ({name: [] for name in works} for _ in range(2))
    begun = time.perf_counter()
    while comm.bcast(time.perf_counter() < begun + SECONDS):
        for name in works if len(epochs["sum"]) % 2 else reversed(works):
            rest()
            epochs[name].append(seconds(works[name]))
    if comm.rank == 0:
        title = f"784-{hidden}-10, batch {batch}, {comm.size} rank{'s' if comm.size > 1 else ''}"
        report(f"{title}: an epoch of {STEPS} steps with its accuracy", epochs["alone"], epochs["together"])
        report(f"{title}: a step", steps["alone"], steps["together"])
        alone, share, added = (1e3 * min(steps[name]) for name in ("alone", "share", "sum"))
        print(
            f"{title}: predicted {alone / (share + added):.3f} times as fast, of {share:.4g} ms for one share and "
            f"{added:.4g} ms for the sum of {buffer.nbytes / 1e6:.3g} MB, {buffer.nbytes / 1e6 / added:.3g} GB/s"
        )


def measure_check():
    """Measure a check by the plain loop, 159,040 losses, in this process and in two others."""
    rng = np.random.default_rng(0)
    net, x, t = Net(784, 50, 10), rng.random((20, 784)), rng.integers(0, 10, 20)
    alone, together = [], []
    with ProcessPoolExecutor(2) as pool:
        for _ in range(3):
            alone.append(seconds(lambda: check_gradients(net, x, t, progress=False)))
            together.append(seconds(lambda: check_gradients(net, x, t, progress=False, map=pool.map)))
    report("check of a foreign 784-50-10, batch 20, 2 processes", alone, together)


if __name__ == "__main__":
    measure_check() if sys.argv[1] == "check" else measure_training(*map(int, sys.argv[1:]))
