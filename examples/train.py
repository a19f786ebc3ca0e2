"""Train a two-layer network on MNIST and watch it learn: about 97 % test accuracy after a minute or less.

Without options this is the setting of chapter 5 of the book: 784-50-10, ReLU, batches of 100, learning rate 0.1,
10,000 iterations. Set XPNET_BACKEND (or --backend) and the same lines run on another array library or a GPU.
"""

import argparse
import sys

from tqdm import tqdm

from xpnet import BackendError, TwoLayerNet, get_backend, load_mnist, train


def count(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text}, but it must be at least 1")
    return number


def seed(text):
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"got {text}, but it must be at least 0")
    return number


def rate(text):
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, but it must be a positive number")
    return number


def command_line():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage="%(prog)s [options]")
    add = parser.add_argument
    add("--hidden", type=count, default=50, metavar="N", help="hidden units (%(default)s)")
    add("--activation", choices=("relu", "sigmoid"), default="relu", help="%(default)s by default")
    add("--batch-size", type=count, default=100, metavar="N", help="images per batch (%(default)s)")
    add("--learning-rate", type=rate, default=0.1, metavar="R", help="size of a step (%(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--iterations", type=count, metavar="N", help="batches to train on (10000)")
    length.add_argument("--epochs", type=count, metavar="N", help="instead: passes through all training images")
    add("--replacement", action="store_true", help="draw each batch from all images, as the book does")
    add("--gradient", choices=("backpropagation", "numerical"), default="backpropagation",
        help="%(default)s by default; numerical is far slower and only fit for a few iterations")
    add("--dtype", choices=("float32", "float64"), default="float32", help="%(default)s by default")
    add("--seed", type=seed, default=0, metavar="N", help="fixes weights and batches (%(default)s)")
    add("--backend", help="numpy, cupy, torch, jax, ...; by default what XPNET_BACKEND says, else numpy")
    add("--data", metavar="FOLDER", help="other IDX files in MNIST's layout, such as Fashion-MNIST")
    return parser


def main():
    parser = command_line()
    options = parser.parse_args()
    try:
        backend = get_backend(options.backend)
        print(f"{backend.describe()}, dtype {options.dtype}, seed {options.seed}", flush=True)
        (x_train, t_train), (x_test, t_test) = load_mnist(one_hot_label=True, folder=options.data, backend=backend)
        network = TwoLayerNet(
            x_train.shape[1], options.hidden, t_train.shape[1],
            activation=options.activation, rng=options.seed, dtype=options.dtype, backend=backend,
        )
    except (BackendError, OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")

    if options.epochs:
        iterations = options.epochs * -(-x_train.shape[0] // options.batch_size)  # the last batch may be short
    else:
        iterations = options.iterations or 10_000

    interrupted = False
    with tqdm(total=iterations, unit=" iterations", leave=False, disable=None) as bar:  # silent unless on a terminal
        records = train(
            network, x_train, t_train, x_test, t_test,
            iterations=iterations, batch_size=options.batch_size, learning_rate=options.learning_rate,
            replacement=options.replacement, gradient=options.gradient, rng=options.seed, on_iteration=bar.update,
        )
        try:
            for record in records:
                tqdm.write(
                    f"epoch {record.epoch:3d}  iteration {record.iteration:6d}  loss {record.loss:.4f}  "
                    f"train accuracy {record.train_accuracy:.4f}  test accuracy {record.test_accuracy:.4f}"
                )
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        print("stopped by Ctrl-C; the network as it is now:")
    print(f"test accuracy {float(network.accuracy(x_test, t_test)):.4f}")
    return 130 if interrupted else 0  # 128 + SIGINT, as shells expect


if __name__ == "__main__":
    sys.exit(main())
