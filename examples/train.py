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
    MultiLayerNet,
    TrainingError,
    TwoLayerNet,
    get_backend,
    load_mnist,
    load_training,
    save_training,
    train,
)
from xpnet.command_line import count, rate, seed
from xpnet.installing import install_command
from xpnet.workers import blas_threads

PYTHON_BOUND = ("cupy", "jax", "torch:cuda")  # backends on which starting an operation takes longer than computing it

# what a run that goes on must have in common with its beginning
RUN = ("hidden", "activation", "batch_size", "learning_rate", "replacement", "gradient", "dtype", "seed", "data")


def command_line(prog):
    # In one piece: a list of options, to be read from top to bottom
    parser = argparse.ArgumentParser(prog, "%(prog)s [options]", __doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--hidden",
        type=count,
        nargs="+",
        default=[50],
        metavar="N",
        help="units of each hidden layer (50), as in 200 100",
    )
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
            then, now = (" ".join(map(str, value)) if isinstance(value, list) else value for value in (then, now))
            raise ValueError(f"{options.checkpoint} was begun with {option} {then}, now it is {now}; give the same")
    state.restore(network)
    return state.records


def start_ranks(options):
    """Return the communicator of a distributed run and its ranks, from now on watched; (None, None) on one process."""
    if options.by_share and not options.distributed:
        raise ValueError("--by-share belongs to --distributed")
    if not options.distributed:
        return None, None
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ValueError(
            f"--distributed needs mpi4py and an MPI ({error}); run: {install_command('mpi4py', 'mpich')}"
        ) from error
    from xpnet.parallel import Ranks

    comm = MPI.COMM_WORLD
    if comm.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - rank 0 speaks for all
    return comm, Ranks.of(comm) if comm.size > 1 else None


def require_pictures(options):
    """Find before the training that a picture could not be drawn after it."""
    if options.save_plot:
        folder, kind = os.path.dirname(options.save_plot), os.path.splitext(options.save_plot)[1]
        if not os.path.isdir(folder or ".") or kind not in (".png", ".pdf", ".svg"):
            raise ValueError(f"--save-plot {options.save_plot}: name a .png, .pdf or .svg in an existing folder")
    if options.save_plot or options.show_mistakes is not None:
        try:
            import matplotlib
        except ModuleNotFoundError as error:
            raise ValueError(f"pictures need matplotlib; run: {install_command('matplotlib')}") from error
        if options.show_mistakes == "" and matplotlib.get_backend().lower() == "agg":
            raise ValueError("no window can be opened here; name a file: --show-mistakes FILE")


class Run:
    """What the command line asks for: data, network, and how long; with ``comm``, on its ranks."""

    def __init__(self, options, comm):
        self.options, self.comm, self.batch_size = options, comm, options.batch_size
        self.settings = {name: getattr(options, name) for name in RUN}
        if comm:
            from xpnet.parallel import describe_ranks, rank_backend

            self.backend = rank_backend(comm, options.backend)
            self.ranked = f", {describe_ranks(comm, self.backend.asarray(0.0))}"
        else:
            self.backend, self.ranked = get_backend(options.backend), ""
        require_pictures(options)
        share = (comm.rank, comm.size) if options.by_share else None
        if share:
            self.share_batches(comm.size)
        train_data, test_data = load_mnist(one_hot_label=True, folder=options.data, backend=self.backend, share=share)
        self.data = *train_data, *test_data
        steps_per_epoch = -(-train_data[0].shape[0] // self.batch_size)  # the last batch may be short
        self.iterations = options.epochs * steps_per_epoch if options.epochs else options.iterations or 10_000
        self.network, self.records = self.make_network(), []

    def share_batches(self, ranks):
        """Let each rank read its own share of the data, and of every batch."""
        self.settings["by_share"] = ranks  # shares of another number of ranks are other shares
        if self.batch_size % ranks:
            raise ValueError(f"--batch-size {self.batch_size} cannot be shared equally by {ranks} ranks")
        self.batch_size //= ranks

    def make_network(self):
        """Return the network at its beginning."""
        options, inputs, outputs = self.options, self.data[0].shape[1], self.data[1].shape[1]
        how = {"activation": options.activation, "rng": options.seed, "dtype": options.dtype, "backend": self.backend}
        if len(options.hidden) == 1:
            return TwoLayerNet(inputs, *options.hidden, outputs, **how)
        return MultiLayerNet(inputs, options.hidden, outputs, **how)

    def open(self):
        """Go on from the checkpoint, if that is asked for, on all ranks alike."""
        comm = self.comm
        if not comm or comm.rank == 0:
            self.records = open_checkpoint(self.options, self.settings, self.network)
        if comm:
            from xpnet.parallel import DataParallel

            self.records = comm.bcast(self.records)
            settings = {**self.settings, "iterations": self.iterations}
            self.network = DataParallel(self.network, comm, by_share=self.options.by_share, settings=settings)

    def begin(self, on_iteration):
        """Return the training, and in words whether its step is compiled."""
        options = self.options
        settings = {
            "iterations": self.iterations,
            "batch_size": self.batch_size,
            "learning_rate": options.learning_rate,
            "replacement": options.replacement,
            "gradient": options.gradient,
            "rng": options.seed,
            "resume": self.records[-1] if self.records else None,
        }
        asked = options.compile
        if asked is None:  # a step that ranks take together is not compiled
            asked = self.backend.name.startswith(PYTHON_BOUND) and not options.distributed
        how = ""
        if asked:
            try:
                return train(self.network, *self.data, compile=True, **settings), ", compiled"
            except CompileError as error:
                how = f", not compiled: {error}"
        return train(self.network, *self.data, on_iteration=on_iteration, **settings), how

    def title(self, how):
        """Return the first line: with what it is trained, and what would make it slow."""
        threads = ""
        if self.backend.name == "numpy":
            n = blas_threads()
            threads = (
                f", {n} BLAS threads (beside other programs: OPENBLAS_NUM_THREADS=1)" if n > 1 else ", 1 BLAS thread"
            )
        dtype_and_seed = f"dtype {self.options.dtype}, seed {self.options.seed}"
        return f"{self.backend.describe()}{threads}, {dtype_and_seed}{how}{self.ranked}"

    def follow(self, training, bar):
        """Train: say and save what each epoch reached. Return whether it came to its end before Ctrl-C."""
        bar.total = self.iterations
        bar.update(self.records[-1].iteration if self.records else 0)
        try:
            for record in training:
                bar.update(record.iteration - bar.n)  # a compiled epoch does not stop after each step
                self.records = [*(old for old in self.records if old.epoch < record.epoch), record]
                if self.options.checkpoint:
                    save_training(self.network, self.records, self.options.checkpoint, settings=self.settings)
                tqdm.write(
                    f"epoch {record.epoch:3d}  iteration {record.iteration:6d}  loss {record.loss:.4f}  "
                    f"train accuracy {record.train_accuracy:.4f}  test accuracy {record.test_accuracy:.4f}"
                )
        except KeyboardInterrupt:
            return False
        return True

    def command_to_go_on(self, arguments, prog):
        """Return what to type to go on from the checkpoint."""
        command = shlex.split(prog)[1:] if prog else sys.argv[:1]
        again = [*command, *arguments, *([] if self.options.resume else ["--resume"])]
        ranks = self.comm and f"{self.comm.size}"
        launch = ["mpiexec", "-n", ranks, "python", "-m", "mpi4py"] if ranks else ["python"]
        return shlex.join([*launch, *again])


def draw(options, records, network, x, t):
    if not options.save_plot and options.show_mistakes is None:
        return
    import matplotlib.pyplot as plt

    from xpnet import plotting, to_numpy

    if options.save_plot:
        plotting.learning_curves(records)[0].figure.savefig(options.save_plot)
    if options.show_mistakes is not None:
        labels, answers = to_numpy(t).argmax(axis=1), to_numpy(network.predict(x)).argmax(axis=1)
        wrong = (labels != answers).nonzero()[0][:40]
        if not wrong.size:
            print("no test image is wrong")
            return
        ax = plotting.images(to_numpy(x)[wrong], labels[wrong], answers[wrong])
        ax.figure.savefig(options.show_mistakes) if options.show_mistakes else plt.show()


def main(arguments=None, prog=None):
    """Run the command line, or ``arguments`` of a command ``prog``; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = command_line(prog)
    options = parser.parse_args(arguments)
    ranks = None

    def stop(status, error):
        if ranks:
            ranks.fail(error)  # one message for all of them, which names the rank
        parser.exit(status, f"{parser.prog}: error: {error}\n")

    try:
        comm, ranks = start_ranks(options)
        run = Run(options, comm)
        run.open()
        training, how = run.begin(lambda: bar.update())
        print(run.title(how), flush=True)
    except (BackendError, OSError, ValueError) as error:
        stop(2, error)
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped by Ctrl-C before the training began\n")

    warnings.simplefilter("ignore", RuntimeWarning)  # train says better what NumPy warns of
    try:
        with tqdm(unit=" iterations", leave=False, disable=None) as bar:  # silent unless on a terminal
            finished = run.follow(training, bar)
    except (TrainingError, OSError, ValueError, RuntimeError) as error:
        stop(1, error)
    if not finished:
        print("stopped by Ctrl-C; the network as it is now:")
    x_test, t_test = run.data[2:]
    print(f"test accuracy {float(run.network.accuracy(x_test, t_test)):.4f}", flush=True)
    if not finished and options.checkpoint:
        print(f"{options.checkpoint} holds the last whole epoch; to go on: {run.command_to_go_on(arguments, prog)}")
    if finished and getattr(run.network, "leader", True):
        draw(options, run.records, run.network, x_test, t_test)
    return 0 if finished else 130  # 128 + SIGINT, as shells expect


if __name__ == "__main__":
    sys.exit(main())
