"""Measure xpnet beside what you would pick instead: the book's way, PyTorch and JAX, on this machine.

    python benchmark.py                               everything; some minutes
    python benchmark.py --only a --json mine.json
    python benchmark.py --hidden 200 100              networks of another depth in (a) and (b)
    XPNET_BACKEND=cupy python benchmark.py            on the GPU, the peers too

(a) training 784-50-10, (b) numerical gradients and a gradient check, (c) one training step at many sizes, (d) import
and data. Contenders run in processes of their own and take turns: each repeats once before any repeats again, after a
warm-up that holds what a contender compiles but once. They do the same work: float32 unless named, the same starting
weights, as many batches of the same size, a loss for each, the accuracy on all data after each epoch.
benchmark_contenders.py says who takes part, benchmark_peers.py how the others do it.
"""

import argparse
import json
import os
import subprocess
import sys
import textwrap
from functools import cache, partial
from pathlib import Path
from time import perf_counter

import benchmark_peers as peers
import numpy as np
from benchmark_contenders import LEARNING_RATE, Xpnet, contenders, network, start_weights, train
from benchmark_report import Report, device_name, machine
from benchmark_workers import Run, Workers, measure

import xpnet
from xpnet.command_line import count

__all__ = ["Xpnet", "start_weights", "train"]  # which gpu_parts.py measures with, too

METHODS = ("auto", "difference", "stacked")  # "loop" takes most of a minute: a sample stands for it


@cache
def images(quick):
    """Return {"train": (x, t), "test": (x, t)} as NumPy arrays, a part of them if ``quick``."""
    loaded, sizes = xpnet.load_mnist(backend="numpy"), (2000, 1000) if quick else (60_000, 10_000)
    return {name: (x[:n], t[:n]) for name, (x, t), n in zip(("train", "test"), loaded, sizes, strict=True)}


def a_training(make, options, batch):
    """Return a Run of a whole training, with the accuracies after every epoch as its result."""
    contender, weights, iterations = make(images(options.quick)), start_weights(*options.hidden), options.iterations
    per_epoch = contender.data["train"][0].shape[0] // batch
    short = min(iterations, per_epoch + iterations % per_epoch)  # both lengths of epoch that will be asked for
    return Run(
        lambda: train(contender, iterations, batch),
        lambda: contender.reset(weights),
        lambda: train(contender, short, batch),
    )


def training(options, report):
    """Measure (a), the book's training, with the accuracies after every epoch."""
    batch = 50 if options.quick else 100
    runs = {name: partial(a_training, make, options, batch) for name, make in contenders("a", options).items()}
    with Workers() as workers:
        rows, failed = measure(workers, runs, options.repetitions)
    for row in rows.values():
        row["accuracies"] = row.pop("result")
    work = f"training {shape(options.hidden)}, relu, batch {batch}, {options.iterations:,} iterations"
    report.table("a", work, rows, failed)


def shape(hidden):
    return "-".join(map(str, (784, *hidden, 10)))


def loop_on_a_sample(params, loss, entries, h=1e-4):
    """Return a Run of the book's loop over a random sample of ``entries``, scaled to all entries of ``params``."""
    places = [(name, index) for name, p in params.items() for index in np.ndindex(*p.shape)]
    drawn = [places[i] for i in np.random.default_rng(0).choice(len(places), entries, replace=False)]

    def work():
        for name, index in drawn:
            stored = float(params[name][index])
            params[name][index] = stored + h
            up = loss()
            params[name][index] = stored - h
            down = loss()
            params[name][index] = stored
            float((up - down) / (2 * h))

    return Run(work, scale=len(places) / entries)


def numerical(options, report):
    """Measure (b), one full numerical gradient, and one check of backpropagation against it."""
    with Workers() as workers:
        beside_loops(workers, options, report)
        of_other_networks(workers, options, report)
        if options.chapter4:
            rows, failed = measure(workers, {"xpnet": partial(chapter4, options)}, 0)
            report.table("b", "chapter 4: 10,000 iterations of it", rows, failed)
    if options.backend == "numpy":  # the one library that reports its memory to tracemalloc
        memory_of_gradient(options, report)


def problem(options, hidden, batch, activation=xpnet.Relu, dtype="float32"):
    """Return a network 784-…-10 on the backend and one batch for it."""
    backend, (x, t) = xpnet.get_backend(options.backend), images(options.quick)["train"]
    net = network(start_weights(*hidden), backend, dtype, activation)
    return net, backend.asarray(x[:batch], dtype), backend.asarray(t[:batch])


def a_gradient(options, method, *which):
    net, x, t = problem(options, *which)
    return Run(lambda: peers.wait(net.numerical_gradient(x, t, method=method)["W1"]))


def a_check(options, *which):
    net, x, t = problem(options, *which)
    return Run(lambda: bool(xpnet.check_gradients(net, x, t)))


def a_loop(options, entries, *which):
    net, x, t = problem(options, *which)
    return loop_on_a_sample(net.params, lambda: net.loss(x, t), entries)


def a_loop_of_the_book(options, entries, hidden, batch, activation):
    x, t = images(options.quick)["train"]
    book = peers.Book({"train": (x[:batch], t[:batch])}, LEARNING_RATE, activation=activation)
    book.reset(start_weights(*hidden))
    return loop_on_a_sample(book.params, lambda: book.loss(*book.data["train"]), entries)


def beside_loops(workers, options, report):
    """Measure the ways to the same numerical gradient, and a check."""
    batch, entries = (10, 5) if options.quick else (100, 200)
    for activation, Layer in (("relu", xpnet.Relu), ("sigmoid", xpnet.Sigmoid)):
        for dtype in ("float32", "float64"):
            which = options.hidden, batch, Layer, dtype
            runs = {f'xpnet, method="{method}"': partial(a_gradient, options, method, *which) for method in METHODS}
            if options.backend != "jax":  # whose arrays cannot be written
                runs["plain loop, xpnet's loss"] = partial(a_loop, options, entries, *which)
            book = partial(a_loop_of_the_book, options, entries, options.hidden, batch, activation)
            runs["plain loop, the book, float64"] = book
            runs["xpnet.check_gradients"] = partial(a_check, options, *which)
            work = f"numerical gradient {shape(options.hidden)}, {activation}, {dtype}, batch {batch}"
            rows, failed = measure(workers, runs, options.repetitions)
            report.table("b", f"{work}; loops: {entries} entries", rows, failed)


def of_other_networks(workers, options, report):
    """Measure numerical gradients by batch, by width, by depth and with a user's layer."""
    quick = options.quick
    sizes = [(10, 3), (20, 3), (10, 6)]
    if not quick:
        sizes = [(100, 50), (50, 50), (200, 50), (400, 50), (100, 25), (100, 100), (100, 200)]
    runs = {f"batch {n}, hidden {m}": partial(a_gradient, options, "auto", (m,), n) for n, m in sizes}
    rows, failed = measure(workers, runs, options.repetitions)
    report.table("b", "numerical gradient, relu, float32, by size", rows, failed)
    batch, hiddens = (10, [(6, 5)]) if quick else (100, [(50, 30), (100, 50), (512, 512)])
    runs = {shape(hidden): partial(a_gradient, options, "auto", hidden, batch) for hidden in hiddens}
    which = options.hidden, batch, peers.Tanh
    runs[f"{shape(options.hidden)}, a user's tanh"] = partial(a_gradient, options, "auto", *which)
    rows, failed = measure(workers, runs, options.repetitions)
    report.table("b", f"numerical gradient, float32, batch {batch}, other networks", rows, failed)


def chapter4(options):
    """Return a Run of chapter 4's whole training on numerical gradients."""
    net, x, t = problem(options, (50,), 60_000, xpnet.Sigmoid)
    settings = {"iterations": 10_000, "batch_size": 100, "gradient": "numerical"}
    return Run(lambda: len([*xpnet.train(net, x, t, **settings)]))


def memory_of_gradient(options, report):
    """Report what a numerical gradient of a large network needs at its peak."""
    hidden = 20 if options.quick else 1000
    code = f"""
        import json, tracemalloc, numpy, xpnet
        net = xpnet.TwoLayerNet(784, {hidden}, 10, dtype="float32", backend="numpy")
        x, t = numpy.random.default_rng(0).random((100, 784), dtype="float32"), numpy.arange(100) % 10
        tracemalloc.start()
        net.numerical_gradient(x, t)
        parameters = sum(p.nbytes for p in net.params.values())
        print(json.dumps([tracemalloc.get_traced_memory()[1], parameters]))"""
    peak, parameters = in_a_process(code)
    report.memory("b", f"numerical gradient 784-{hidden}-10, peak beyond data and parameters", [peak], parameters)


def some_steps(make, options, hidden, batch):
    """Return a Run of one step, timed over as many of them as fill a twentieth of a second."""
    contender, seconds = make({}), 0.0 if options.quick else 0.05
    x, t = (contender.put(a[:batch]) for a in images(options.quick)["train"])

    def some(count):
        for _ in range(count):
            out = contender.step(x, t)
        peers.wait(out)

    def prepare():
        contender.reset(start_weights(hidden))

    prepare()
    some(1)  # compiles
    start = perf_counter()
    some(1)
    count = max(1, int(seconds / (perf_counter() - start)))
    return Run(lambda: some(count), prepare, lambda: some(1), 1 / count)


def steps(options, report):
    """Measure (c), one update, gradient and all, on a batch that lies ready."""
    batches, hiddens = (10, 30, 100, 300, 1000, 3000, 10_000), (10, 50, 200, 1000, 4000)
    if options.gpu:
        batches, hiddens = (100, 1000, 10_000, 60_000), (50, 512, 2048, 8192)
    if options.quick:
        batches, hiddens = (10, 100), (10, 50)
    grid, failed, makers = {}, {}, contenders("c", options)
    with Workers() as workers:
        for size in ((hidden, batch) for hidden in hiddens for batch in batches):
            runs = {name: partial(some_steps, make, options, *size) for name, make in makers.items()}
            grid[size], failed[size] = measure(workers, runs, options.repetitions)
    report.grid("c", "one training step, 784-hidden-10, relu", grid, failed)


def in_a_process(code):
    """Return what ``code`` prints as JSON, run by this Python in a process of its own."""
    # an installed library is compiled, so a checkout must be allowed to keep what it has compiled
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)


def starting(options, report):
    """Measure (d), ``import xpnet`` beyond the libraries it stands on, and ``load_mnist``, in fresh processes."""
    timed = """
        import json, time
        times = [time.perf_counter()]
        import numpy, array_api_compat
        times.append(time.perf_counter())
        import xpnet
        times.append(time.perf_counter())
        backend = xpnet.get_backend({0!r})
        times.append(time.perf_counter())
        xpnet.load_mnist(backend=backend)
        times.append(time.perf_counter())
        print(json.dumps([b - a for a, b in zip(times, times[1:])]))"""
    traced = """
        import json, tracemalloc, xpnet
        xpnet.get_backend("numpy").asarray([0.0])
        tracemalloc.start()
        parts = xpnet.load_mnist(backend="numpy")
        result = sum(array.nbytes for part in parts for array in part)
        print(json.dumps([tracemalloc.get_traced_memory()[1], result]))"""
    works = ("import numpy, array_api_compat", "import xpnet, beyond that", "get_backend()", "load_mnist()")
    rows, peaks = {work: {"seconds": []} for work in works}, []
    for _ in range(options.repetitions + 1):
        for work, seconds in zip(works, in_a_process(timed.format(options.backend)), strict=True):
            rows[work]["seconds"].append(seconds)
        peak, result = in_a_process(traced)
        peaks.append(peak)
    for row in rows.values():
        row["first"] = row["seconds"].pop(0)  # files may have come from the disk
    report.table("d", "import and data", rows, {}, ratios=False)
    report.memory("d", "load_mnist(), NumPy, peak", peaks, result)


PARTS = {"a": training, "b": numerical, "c": steps, "d": starting}


def command_line():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", default=",".join(PARTS), help="parts to measure, such as a,c")
    add("--repetitions", type=count, help="how often each contender takes its turn; 5, or 1 if quick")
    add("--iterations", type=count, help="how long (a) trains; 10,000, or 40 if quick")
    add(
        "--hidden",
        type=count,
        nargs="+",
        metavar="N",
        help="units of each hidden layer in (a), (b); 50, or 10 if quick",
    )
    add("--backend", help="xpnet's backend; by default XPNET_BACKEND, else numpy")
    add("--json", type=Path, metavar="FILE", help="write all of it there, or into a folder")
    add("--quick", action="store_true", help="tiny sizes, to see that it runs")
    add("--chapter4", action="store_true", help="in (b), also train on numerical gradients throughout")
    return parser


def read(parser):
    """Return the options of the command line, whole: what was left out, and which libraries are absent."""
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"--only names {', '.join(sorted(unknown))}; the parts are a, b, c and d")
    options.iterations = options.iterations or (40 if options.quick else 10_000)
    options.repetitions = options.repetitions or (1 if options.quick else 5)
    options.hidden = options.hidden or [10 if options.quick else 50]
    try:
        options.backend = xpnet.get_backend(options.backend).name
    except xpnet.BackendError as error:
        parser.error(str(error))
    options.gpu = options.backend.startswith(("cupy", "torch:cuda"))
    options.absent = {name: why for name in ("torch", "jax") if (why := peers.why_absent(name, options.gpu))}
    return options


def main():
    options = read(command_line())
    report = Report(machine(options))
    if options.json and options.json.is_dir():  # then the device names the file
        options.json /= f"{device_name(report.machine, options.gpu)}.json"
    print("\nratio: the time as a multiple of the first line's; first run: with compilation, not counted", flush=True)
    for part in options.only:
        PARTS[part](options, report)
        if options.json:
            options.json.write_text(json.dumps(report.everything(), indent=1))


if __name__ == "__main__":
    main()
