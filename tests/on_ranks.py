"""A training on ranks in which something goes wrong: ``mpiexec -n 3 python -m mpi4py on_ranks.py FAULT RANK FILE``."""

import errno
import os
import signal
import sys
import time

import numpy as np
from mpi4py import MPI

from xpnet import TwoLayerNet, save_training, saving, train
from xpnet.parallel import DataParallel

FAULT, WHO, FILE = sys.argv[1], int(sys.argv[2]), sys.argv[3]
COMM = MPI.COMM_WORLD
AT = 40  # the call of loss, or the iteration, at which it happens: in the seventh epoch
calls = {"loss": 0, "iteration": 0}


def planted(fault, where):
    """Return whether ``fault`` is to happen here and now, and say when."""
    now = (fault, WHO, AT) == (FAULT, COMM.rank, calls[where])
    if now:
        print(f"planted at {time.time()}", flush=True)
    return now


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Net(TwoLayerNet):
    def loss(self, x, t):
        calls["loss"] += 1
        if planted("killed in a step", "loss"):
            die()
        if planted("exception", "loss"):
            raise LookupError("a planted mistake")
        if planted("stuck", "loss"):
            time.sleep(600)
        return super().loss(x, t) * (np.nan if planted("nan", "loss") else 1.0)


def between():
    calls["iteration"] += 1
    if planted("killed between steps", "iteration"):
        die()
    if planted("exception between steps", "iteration"):
        raise LookupError("a planted mistake")
    if planted("leaves with 0", "iteration"):
        sys.exit(0)
    if planted("leaves with 3", "iteration"):
        sys.exit(3)
    if planted("another question", "iteration"):
        network.accuracy(x, t)


def rename(old, new):
    calls["loss"] = AT
    if len(records) == 3 and planted("killed in a checkpoint", "loss"):
        die()
    os.rename(old, new)


def sync(descriptor):
    calls["loss"] = AT
    if len(records) == 3 and planted("full disk", "loss"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


if FAULT in ("killed in a checkpoint", "full disk") and COMM.rank == 0:
    saving.os = type("os", (), {**vars(os), "replace": rename, "fsync": sync})

rng = np.random.default_rng(0)
x, t = rng.random((600, 20)), rng.integers(0, 10, 600)
network = Net(20, 30, 10, backend="numpy", rng=COMM.rank)
network = DataParallel(network, COMM, timeout=3.0 if FAULT == "stuck" else 60.0)
records = []
for record in train(network, x, t, epochs=30, batch_size=100, on_iteration=between):
    records.append(record)
    save_training(network, records, FILE)
    if FAULT == "leaves the loop" and COMM.rank == WHO and len(records) == 7:
        print(f"planted at {time.time()}", flush=True)
        break
if COMM.rank == 0:
    print("trained to the end", flush=True)
