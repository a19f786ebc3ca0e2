"""Walk down the bowl x0² + x1² from (-3, 4) with a good, a too large and a too small learning rate (book, 4.4.1)."""

import argparse

from array_api_compat import array_namespace

from xpnet import BackendError, get_backend, gradient_descent, to_numpy


def bowl(x):
    return array_namespace(x).sum(x**2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", help="numpy, cupy, torch, jax, ...; by default what XPNET_BACKEND says, or numpy")
    options = parser.parse_args()
    try:
        backend = get_backend(options.backend)
    except BackendError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")

    print(backend.describe())
    start = backend.asarray([-3.0, 4.0], "float64")
    for lr, verdict in ((0.1, "good"), (1.1, "too large: every step overshoots"), (1e-4, "too small: hardly moves")):
        end, path = gradient_descent(bowl, start, lr=lr, step_num=100, return_path=True)
        print(f"\nlearning rate {lr:g} ({verdict})")
        for step in (0, 1, 2, 3, 100):
            x0, x1 = to_numpy(path[step, ...]).tolist()
            print(f"  after {step:3d} steps: ({x0:15.8e}, {x1:15.8e})")
        print(f"  height at the end: {float(bowl(end)):.8e}")


if __name__ == "__main__":
    main()
