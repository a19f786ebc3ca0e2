"""A check shared out as a user would write it: ``python check_on_workers.py processes|mpi|dask|slow``."""

import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from work import Net, cubes, slow

from xpnet import check_gradients, numerical_gradient

X, T = np.random.default_rng(0).random((5, 6)), np.arange(5) % 3


def main(way):
    if way == "slow":
        with ProcessPoolExecutor(2) as pool:
            print("begun", flush=True)
            numerical_gradient(slow, np.zeros(2000), map=pool.map)
    elif way == "processes":
        with ProcessPoolExecutor(2) as pool:
            report(pool.map)
    elif way == "mpi":
        from mpi4py.futures import MPIPoolExecutor

        with MPIPoolExecutor() as pool:
            report(pool.map)
    else:
        from dask.distributed import Client

        with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
            report(client.map)
            report(client.get_executor().map)
    print("as without workers", flush=True)


def report(map):
    """Assert that a right and a wrong network are told apart, and gradients are the same, as without workers."""
    right, wrong = (check_gradients(Net(6, 4, 3, mistake=m), X, T, map=map) for m in (0.0, 1e-3))
    assert right, right
    assert not wrong, wrong
    x = np.random.default_rng(1).standard_normal((3, 50))
    assert np.array_equal(numerical_gradient(cubes, x, map=map), numerical_gradient(cubes, x))


if __name__ == "__main__":
    main(sys.argv[1])
