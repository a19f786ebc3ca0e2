"""What ranks reach together, beside one process: ``mpiexec -n 3 python -m mpi4py together.py``."""

import numpy as np
from mpi4py import MPI

from xpnet import TwoLayerNet, check_gradients, train
from xpnet.parallel import DataParallel

COMM = MPI.COMM_WORLD
RNG = np.random.default_rng(0)
X, T = RNG.random((203, 20)), RNG.integers(0, 10, 203)


def trainings(dtype, limit):
    """Batches of 40, and a last one of 3: no rank may differ from another by a bit, nor much from one process."""
    x = X.astype(dtype)
    alone = TwoLayerNet(20, 30, 10, dtype=dtype, backend="numpy")
    expected = list(train(alone, x, T, x, T, epochs=4, batch_size=40))
    network = DataParallel(TwoLayerNet(20, 30, 10, dtype=dtype, backend="numpy", rng=COMM.rank), COMM)
    records = list(train(network, x, T, x, T, epochs=4, batch_size=40))
    for name, value in network.params.items():
        assert len(set(COMM.allgather(value.tobytes()))) == 1, "ranks differ"
        assert abs(value - alone.params[name]).max() < limit
    for ours, theirs in zip(records, expected, strict=True):
        assert (ours.epoch, ours.iteration) == (theirs.epoch, theirs.iteration)
        np.testing.assert_allclose(ours[2:5], theirs[2:5], rtol=10 * np.finfo(dtype).eps)


def gradients():
    """Batches from one sample on, fewer than there are ranks."""
    alone, network = (TwoLayerNet(20, 30, 10, backend="numpy") for _ in range(2))
    network = DataParallel(network, COMM)
    for size in range(1, 8):
        x, t = X[:size], T[:size]
        for method in ("gradient", "numerical_gradient"):
            found, expected = getattr(network, method)(x, t), getattr(alone, method)(x, t)
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(network.loss(x, t), alone.loss(x, t), rtol=1e-14)
        np.testing.assert_allclose(network.accuracy(x, t), alone.accuracy(x, t))


class Wrong(TwoLayerNet):
    def gradient(self, x, t):
        return {name: 1.01 * value for name, value in super().gradient(x, t).items()}


def checks():
    """A check asks all ranks for every loss, and comes to the same on all of them."""
    for kind in (TwoLayerNet, Wrong):
        network = DataParallel(kind(6, 5, 4, backend="numpy", rng=1), COMM)
        found = check_gradients(network, X[:12, :6], T[:12] % 4, progress=False)
        assert bool(found) is (kind is TwoLayerNet), found
        assert len(set(COMM.allgather(str(found).partition("\n")[2]))) == 1


trainings("float64", 5e-16)
trainings("float32", 3e-7)
gradients()
checks()
if COMM.rank == 0:
    print("as one process", flush=True)
