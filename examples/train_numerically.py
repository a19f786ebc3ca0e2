"""Train chapter 4's network to the end with numerical gradients of every parameter, beside backpropagation.

The book's loop needs two runs of the whole network for each of 39,760 parameters in each of 10,000 iterations: days.
Here the same central differences, for every parameter, take minutes. A second network with the same weights sees the
same batches and learns by backpropagation; the two should stay together, and the last column says how far they part.
"""

import argparse
import sys
import time

from tqdm import tqdm

from xpnet import BackendError, TwoLayerNet, get_backend, load_mnist, to_numpy, train
from xpnet.command_line import count, rate, seed


def command_line():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage="%(prog)s [options]")
    add = parser.add_argument
    add("--iterations", type=count, default=10_000, metavar="N", help="batches to train on (%(default)s)")
    add("--hidden", type=count, default=50, metavar="N", help="hidden units (%(default)s)")
    add("--activation", choices=("relu", "sigmoid"), default="sigmoid", help="%(default)s by default")
    add("--batch-size", type=count, default=100, metavar="N", help="images per batch (%(default)s)")
    add("--learning-rate", type=rate, default=0.1, metavar="R", help="size of a step (%(default)s)")
    add("--dtype", choices=("float32", "float64"), default="float64", help="%(default)s by default")
    add("--seed", type=seed, default=0, metavar="N", help="fixes weights and batches (%(default)s)")
    add("--backend", help="numpy, cupy, torch, jax, ...; by default what XPNET_BACKEND says, else numpy")
    return parser


def learner(options, backend, data, gradient, on_iteration=None):
    """Return a network and its training; two of them begin alike and see the same batches."""
    how = {"activation": options.activation, "rng": options.seed, "dtype": options.dtype, "backend": backend}
    network = TwoLayerNet(784, options.hidden, 10, **how)
    how = {name: getattr(options, name) for name in ("iterations", "batch_size", "learning_rate")}
    return network, train(network, *data, gradient=gradient, rng=options.seed, on_iteration=on_iteration, **how)


def follow(network, numerical, propagated):
    """Read both trainings and print what they reach; yield the largest difference of a batch's loss in each epoch."""
    parameters = sum(to_numpy(value).size for value in network.params.values())
    tqdm.write(f"{parameters} parameters, {2 * parameters} finite changes of the loss in every iteration")
    tqdm.write("              numerical gradients         backpropagation             largest difference")
    tqdm.write("epoch  iter   loss     train    test      loss     train    test      of a batch's loss")
    for ours, theirs in zip(numerical, propagated, strict=True):
        apart = float(abs(ours.losses - theirs.losses).max())
        columns = "     ".join(f"{r.loss:.4f}   {r.train_accuracy:.4f}   {r.test_accuracy:.4f}" for r in (ours, theirs))
        tqdm.write(f"{ours.epoch:5d}  {ours.iteration:5d}  {columns}    {apart:.1e}")
        yield apart


def main():
    parser = command_line()
    options = parser.parse_args()
    largest = 0.0
    try:
        backend = get_backend(options.backend)
        print(f"{backend.describe()}, dtype {options.dtype}, seed {options.seed}", flush=True)
        parts = load_mnist(one_hot_label=True, backend=backend)
        data = [backend.xp.astype(array, backend.dtype(options.dtype)) for part in parts for array in part]
        start = time.perf_counter()
        with tqdm(total=options.iterations, unit=" iterations", leave=False, disable=None) as bar:
            numerical, its_records = learner(options, backend, data, "numerical", bar.update)
            propagated, other_records = learner(options, backend, data, "backpropagation")
            for apart in follow(numerical, its_records, other_records):
                largest = max(largest, apart)
    except (ArithmeticError, BackendError, TypeError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        print(f"stopped by Ctrl-C; largest difference of a batch's loss in the epochs above {largest:.1e}")
        return 130
    seconds = time.perf_counter() - start
    pairs = [[to_numpy(network.params[name]) for network in (numerical, propagated)] for name in ("W1", "W2")]
    weights = max(float(abs(one - other).max()) for one, other in pairs)
    print(f"both together took {seconds:.1f} s, {1000 * seconds / options.iterations:.1f} ms an iteration")
    print(f"largest difference of a batch's loss {largest:.1e}, of a weight at the end {weights:.1e}")
    print(f"test accuracy {float(numerical.accuracy(*data[2:])):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
