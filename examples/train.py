"""Train a two-layer network on MNIST and watch it learn: about 97 % test accuracy after a minute or less.

Without options this is the setting of chapter 5 of the book: 784-50-10, ReLU, batches of 100, learning rate 0.1,
10,000 iterations. Set XPNET_BACKEND (or --backend) and the same lines run on another array library or a GPU. On several
processes, GPUs or machines: mpiexec -n 4 python -m mpi4py train.py --distributed
"""

import argparse
import os
import shlex
import sys
import warnings

from tqdm import tqdm

from xpnet import (
    BackendError,
    CompileError,
    TrainingError,
    TwoLayerNet,
    get_backend,
    load_mnist,
    load_training,
    save_training,
    train,
)

PYTHON_BOUND = ("cupy", "jax", "torch:cuda")  # backends on which starting an operation takes longer than computing it

# what a run that goes on must have in common with its beginning
RUN = ("hidden", "activation", "batch_size", "learning_rate", "replacement", "gradient", "dtype", "seed", "data")


def count(text, lowest=1):
    number = int(text)
    if number < lowest:
        raise argparse.ArgumentTypeError(f"got {text}, but it must be at least {lowest}")
    return number


def seed(text):
    return count(text, lowest=0)


def rate(text):
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, but it must be a positive number")
    return number


def command_line(prog):
    parser = argparse.ArgumentParser(prog, "%(prog)s [options]", __doc__.splitlines()[0])
    add = parser.add_argument
    add("--hidden", type=count, default=50, metavar="N", help="hidden units (%(default)s)")
    add("--activation", choices=("relu", "sigmoid"), default="relu", help="%(default)s by default")
    add("--batch-size", type=count, default=100, metavar="N", help="images per batch (%(default)s)")
    add("--learning-rate", type=rate, default=0.1, metavar="R", help="size of a step (%(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--iterations", type=count, metavar="N", help="batches to train on (10000)")
    length.add_argument("--epochs", type=count, metavar="N", help="instead: passes through all training images")
    add("--replacement", action="store_true", help="draw each batch from all images, as the book does")
    add(
        "--gradient",
        choices=("backpropagation", "numerical"),
        default="backpropagation",
        help="%(default)s by default; numerical moves every parameter up and down",
    )
    add("--dtype", choices=("float32", "float64"), default="float32", help="%(default)s by default")
    add(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help=f"compile the training step; by default where Python decides the time: {', '.join(PYTHON_BOUND)}",
    )
    add("--seed", type=seed, default=0, metavar="N", help="fixes weights and batches (%(default)s)")
    add("--backend", help="numpy, cupy, torch, jax, ...; by default what XPNET_BACKEND says, else numpy")
    add("--distributed", action="store_true", help="share every batch among the processes that mpiexec started")
    add("--by-share", action="store_true", help="with it: each process reads its share of the data only")
    add("--data", metavar="FOLDER", help="other IDX files in MNIST's layout, such as Fashion-MNIST")
    add("--checkpoint", metavar="FILE", help="keep all that is needed to go on in FILE (.npz), written at every epoch")
    add("--resume", action="store_true", help="go on from --checkpoint FILE, as if the run had never stopped")
    add("--save-plot", metavar="FILE", help="draw the learning curves into FILE (.png, .pdf or .svg)")
    add(
        "--show-mistakes",
        nargs="?",
        const="",
        metavar="FILE",
        help="show images of the test set that it gets wrong, or draw them into FILE",
    )
    return parser


def open_checkpoint(options, settings, network):
    """Return the records of the epochs already trained, their end restored into the network."""
    if options.resume and not options.checkpoint:
        raise ValueError("--resume goes on from a file; name it with --checkpoint FILE")
    if not options.resume:
        if options.checkpoint and os.path.exists(options.checkpoint):
            raise ValueError(f"{options.checkpoint} exists; add --resume to go on from it, or name another file")
        if options.checkpoint:
            save_training(network, [], options.checkpoint, settings=settings)  # if it cannot be written, say so now
        return []
    state = load_training(options.checkpoint)
    for name, now in {**dict.fromkeys(state.settings), **settings}.items():
        if (then := state.settings.get(name)) != now:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{options.checkpoint} was begun with {option} {then}, now it is {now}; give the same")
    state.restore(network)
    return state.records


def begin(options, backend, network, data, iterations, batch_size, last, on_iteration):
    """Return the training, and in words whether its step is compiled."""
    settings = {
        "iterations": iterations,
        "batch_size": batch_size,
        "learning_rate": options.learning_rate,
        "replacement": options.replacement,
        "gradient": options.gradient,
        "rng": options.seed,
        "resume": last,
    }
    asked = options.compile
    if asked is None:  # a step that ranks take together is not compiled
        asked = backend.name.startswith(PYTHON_BOUND) and not options.distributed
    how = ""
    if asked:
        try:
            return train(network, *data, compile=True, **settings), ", compiled"
        except CompileError as error:
            how = f", not compiled: {error}"
    return train(network, *data, on_iteration=on_iteration, **settings), how


def start_ranks(options):
    """Return the communicator of a distributed run and its ranks, from now on watched; (None, None) on one process."""
    if options.by_share and not options.distributed:
        raise ValueError("--by-share belongs to --distributed")
    if not options.distributed:
        return None, None
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ValueError(f"--distributed needs mpi4py and an MPI ({error}); run: pip install mpi4py mpich") from error
    from xpnet.parallel import Ranks

    comm = MPI.COMM_WORLD
    if comm.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - rank 0 speaks for all
    return comm, Ranks.of(comm) if comm.size > 1 else None


def draw(options, records, network, x, t):
    import matplotlib.pyplot as plt

    from xpnet import plotting, to_numpy

    if options.save_plot:
        plotting.learning_curves(records)[0].figure.savefig(options.save_plot)
    if options.show_mistakes is not None:
        labels, answers = to_numpy(t).argmax(axis=1), to_numpy(network.predict(x)).argmax(axis=1)
        wrong = (labels != answers).nonzero()[0][:40]
        if not wrong.size:
            return print("no test image is wrong")
        ax = plotting.images(to_numpy(x)[wrong], labels[wrong], answers[wrong])
        ax.figure.savefig(options.show_mistakes) if options.show_mistakes else plt.show()


def main(arguments=None, prog=None):
    """Run the command line, or ``arguments`` of a command ``prog``; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = command_line(prog)
    options = parser.parse_args(arguments)
    settings = {name: getattr(options, name) for name in RUN}
    comm = ranks = None

    def stop(status, error):
        if ranks:
            ranks.fail(error)  # one message for all of them, which names the rank
        parser.exit(status, f"{parser.prog}: error: {error}\n")

    try:
        comm, ranks = start_ranks(options)
        if comm:
            from xpnet.parallel import DataParallel, describe_ranks, rank_backend
        backend = rank_backend(comm, options.backend) if comm else get_backend(options.backend)
        ranked = f", {describe_ranks(comm, backend.asarray(0.0))}" if comm else ""
        pictures = options.save_plot or options.show_mistakes is not None
        if options.save_plot:
            folder, kind = os.path.dirname(options.save_plot), os.path.splitext(options.save_plot)[1]
            if not os.path.isdir(folder or ".") or kind not in (".png", ".pdf", ".svg"):
                raise ValueError(f"--save-plot {options.save_plot}: name a .png, .pdf or .svg in an existing folder")
        if pictures:
            import matplotlib  # before the training, to find now that it is missing or has no screen

            if options.show_mistakes == "" and matplotlib.get_backend().lower() == "agg":
                raise ValueError("no window can be opened here; name a file: --show-mistakes FILE")
        share = (comm.rank, comm.size) if options.by_share else None
        (x_train, t_train), (x_test, t_test) = load_mnist(
            one_hot_label=True, folder=options.data, backend=backend, share=share
        )
        batch_size = options.batch_size
        if share:
            settings["by_share"] = comm.size  # shares of another number of ranks are other shares
            if batch_size % comm.size:
                raise ValueError(f"--batch-size {batch_size} cannot be shared equally by {comm.size} ranks")
            batch_size //= comm.size
        if options.epochs:
            iterations = options.epochs * -(-x_train.shape[0] // batch_size)  # the last batch may be short
        else:
            iterations = options.iterations or 10_000
        network = TwoLayerNet(
            x_train.shape[1],
            options.hidden,
            t_train.shape[1],
            activation=options.activation,
            rng=options.seed,
            dtype=options.dtype,
            backend=backend,
        )
        records = open_checkpoint(options, settings, network) if not comm or comm.rank == 0 else None
        if comm:
            records = comm.bcast(records)
            network = DataParallel(
                network, comm, by_share=options.by_share, settings={**settings, "iterations": iterations}
            )
        last = records[-1] if records else None
        data = x_train, t_train, x_test, t_test
        training, how = begin(options, backend, network, data, iterations, batch_size, last, lambda: bar.update())
        print(f"{backend.describe()}, dtype {options.dtype}, seed {options.seed}{how}{ranked}", flush=True)
    except ModuleNotFoundError:
        stop(2, "pictures need matplotlib; run: pip install matplotlib")
    except (BackendError, OSError, ValueError) as error:
        stop(2, error)
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped by Ctrl-C before the training began\n")

    interrupted = False
    warnings.simplefilter("ignore", RuntimeWarning)  # train says better what NumPy warns of
    with tqdm(total=iterations, unit=" iterations", leave=False, disable=None) as bar:  # silent unless on a terminal
        bar.update(last.iteration if last else 0)
        try:
            for record in training:
                bar.update(record.iteration - bar.n)  # a compiled epoch does not stop after each step
                records = [*(old for old in records if old.epoch < record.epoch), record]
                if options.checkpoint:
                    save_training(network, records, options.checkpoint, settings=settings)
                tqdm.write(
                    f"epoch {record.epoch:3d}  iteration {record.iteration:6d}  loss {record.loss:.4f}  "
                    f"train accuracy {record.train_accuracy:.4f}  test accuracy {record.test_accuracy:.4f}"
                )
        except KeyboardInterrupt:
            interrupted = True
        except (TrainingError, OSError, ValueError, RuntimeError) as error:
            bar.close()
            stop(1, error)
    if interrupted:
        print("stopped by Ctrl-C; the network as it is now:")
    print(f"test accuracy {float(network.accuracy(x_test, t_test)):.4f}", flush=True)
    if interrupted and options.checkpoint:
        command = shlex.split(prog)[1:] if prog else sys.argv[:1]
        again = [*command, *arguments, *([] if options.resume else ["--resume"])]
        launch = ["mpiexec", "-n", f"{comm.size}", "python", "-m", "mpi4py"] if comm else ["python"]
        print(f"{options.checkpoint} holds the last whole epoch; to go on: {shlex.join([*launch, *again])}")
    if pictures and not interrupted and getattr(network, "leader", True):
        draw(options, records, network, x_test, t_test)
    return 130 if interrupted else 0  # 128 + SIGINT, as shells expect


if __name__ == "__main__":
    sys.exit(main())
