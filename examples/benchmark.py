"""Measure xpnet beside what you would pick instead: the book's way, PyTorch and JAX, on this machine.

    python benchmark.py                               everything; some minutes
    python benchmark.py --only a --json mine.json
    XPNET_BACKEND=cupy python benchmark.py            on the GPU, the peers too

(a) training 784-50-10, (b) numerical gradients and a gradient check, (c) one training step at many sizes, (d) import
and data. Contenders take turns: each repeats once before any repeats again, after a warm-up that holds all
compilation. They do the same work: float32 unless named, the same starting weights, as many batches of the same size,
a loss for each, the accuracy on all data after each epoch. benchmark_peers.py is how the others do it.
"""

# ruff: noqa: D102 (benchmark_peers.py describes the methods)
import argparse
import json
import os
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import benchmark_peers as peers
import numpy as np
from benchmark_report import Report, Run, device_name, machine, measure

import xpnet

LEARNING_RATE = 0.1
METHODS = ("auto", "difference", "stacked")  # "loop" takes most of a minute: a sample stands for it


class Xpnet:
    """xpnet in the shape that benchmark_peers.py describes; it brings its own training loop.

    Labels become one-hot once, as in train.py and in the book's way; PyTorch and JAX are fastest with the numbers.
    """

    threads = None

    def __init__(self, data, backend, dtype="float32", compiled=False):
        self.backend, self.dtype, self.compiled = xpnet.get_backend(backend), dtype, compiled
        self.data = {part: (self.put(x), self.put(t)) for part, (x, t) in data.items()}

    def put(self, x):
        if x.dtype.kind == "f":
            return self.backend.asarray(x, self.dtype)
        return xpnet.one_hot(self.backend.asarray(x), 10, dtype=self.backend.dtype(self.dtype))

    def reset(self, weights):
        (inputs, hidden), outputs = weights["W1"].shape, weights["W2"].shape[1]
        self.net = xpnet.TwoLayerNet(inputs, hidden, outputs, dtype=self.dtype, backend=self.backend)
        for name, w in weights.items():
            self.net.params[name] = self.put(w.copy())

    def step(self, x, t):
        _, steps = self.net.loss_and_gradient(x, t, LEARNING_RATE)
        for name in self.net.params:
            self.net.params[name] -= steps[name]
        return self.net.params["W1"]


def train(contender, iterations, batch):
    """Train on batches that are the same for all but the book; return the accuracies after each epoch."""
    rng, size = np.random.default_rng(0), contender.data["train"][0].shape[0]
    if isinstance(contender, Xpnet):
        records = xpnet.train(
            contender.net,
            *contender.data["train"],
            *contender.data["test"],
            iterations=iterations,
            batch_size=batch,
            learning_rate=LEARNING_RATE,
            rng=rng,
            compile=contender.compiled,
        )
        return [(record.train_accuracy, record.test_accuracy) for record in records]
    accuracies = []
    while iterations > 0:
        order = rng.permutation(size)[: size // batch * batch].reshape(-1, batch)[:iterations]
        contender.epoch(order)
        iterations -= order.shape[0]
        accuracies.append((contender.accuracy("train"), contender.accuracy("test")))
    return accuracies


def contenders(part, options):
    """Return {name: function of data that makes the contender}, xpnet first."""
    backend, gpu = options.backend, options.gpu
    makers = {f"xpnet, {backend}": lambda data: Xpnet(data, backend)}
    if backend != "numpy":
        makers["xpnet, numpy"] = lambda data: Xpnet(data, "numpy")
    if part == "a":
        makers[f"xpnet, {backend}, float64"] = lambda data: Xpnet(data, backend, "float64")
        makers["the book, NumPy, float64"] = lambda data: peers.Book(data, LEARNING_RATE)
        makers["NumPy by hand"] = lambda data: peers.ByHand(data, LEARNING_RATE)
        compilers = {
            "torch:cuda" if gpu else "torch": "torch" not in options.absent and not options.quick,
            "jax": "jax" not in options.absent,
            backend: backend.startswith("cupy"),
        }
        for name in filter(compilers.get, compilers):  # compiling is a part of each training
            makers[f"xpnet, {name}, compiled"] = lambda data, name=name: Xpnet(data, name, compiled=True)
        if backend.startswith("cupy"):
            xp = xpnet.get_backend(backend).xp
            makers["the book on CuPy, float64"] = lambda data: peers.Book(data, LEARNING_RATE, xp)
            makers["CuPy by hand"] = lambda data: peers.ByHand(data, LEARNING_RATE, xp)
    if "torch" not in options.absent and gpu:
        makers["PyTorch eager"] = lambda data: peers.TorchEager(data, LEARNING_RATE, "cuda")
        makers["PyTorch CUDA graph"] = lambda data: peers.TorchGraph(data, LEARNING_RATE, "cuda")
    elif "torch" not in options.absent:
        kinds = {"eager": peers.TorchEager}
        if part == "a" and not options.quick:  # compiling takes longer than everything else that is quick
            kinds["compiled"] = peers.TorchCompiled
        for kind, Peer in kinds.items():
            for n in (1, 2):
                name = f"PyTorch {kind}, {n} thread{'s' if n > 1 else ''}"
                makers[name] = lambda data, Peer=Peer, n=n: Peer(data, LEARNING_RATE, threads=n)
    if "jax" not in options.absent:
        name = "JAX jit + scan" if part == "a" else "JAX jit"
        makers[name] = lambda data: peers.Jax(data, LEARNING_RATE, gpu)
    return makers


def start_weights(hidden):
    """Return the weights every contender starts from, float32 NumPy arrays."""
    net = xpnet.TwoLayerNet(784, hidden, 10, dtype="float32", backend="numpy")
    return {name: np.asarray(net.params[name]) for name in net.params}


def prepared(contender, weights):
    def prepare():
        peers.use_threads(contender.threads)
        contender.reset(weights)

    return prepare


def training(options, data, report):
    """Measure (a), the book's training, with the accuracies after every epoch."""
    batch, hidden, iterations = 50 if options.quick else 100, 50, options.iterations
    runs, weights = {}, start_weights(hidden)
    per_epoch = data["train"][0].shape[0] // batch
    short = min(iterations, per_epoch + iterations % per_epoch)  # both lengths of epoch that will be asked for
    for name, make in contenders("a", options).items():
        contender = make(data)
        runs[name] = Run(
            lambda c=contender: train(c, iterations, batch),
            prepared(contender, weights),
            lambda c=contender: train(c, short, batch),
        )
    rows = measure(runs, options.repetitions)
    for row in rows.values():
        row["accuracies"] = row.pop("result")
    report.table("a", f"training 784-{hidden}-10, relu, batch {batch}, {iterations:,} iterations", rows)


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


def numerical(options, data, report):
    """Measure (b), one full numerical gradient, and one check of backpropagation against it."""
    batch, hidden, entries = (10, 3, 5) if options.quick else (100, 50, 200)
    for activation in ("relu", "sigmoid"):
        for dtype in ("float32", "float64"):
            runs = gradients(options, data, batch, hidden, activation, dtype, entries)
            work = f"numerical gradient 784-{hidden}-10, {activation}, {dtype}, batch {batch}; loops: {entries} entries"
            report.table("b", work, measure(runs, options.repetitions))
    sizes = [(10, 3), (20, 3), (10, 6)]
    if not options.quick:
        sizes = [(100, 50), (50, 50), (200, 50), (400, 50), (100, 25), (100, 100), (100, 200)]
    runs = {f"batch {n}, hidden {m}": gradient(*network(options, data, n, m)) for n, m in sizes}
    report.table("b", "numerical gradient, relu, float32, by size", measure(runs, options.repetitions))
    deep = [(784, 6, 5, 10)] if options.quick else [(784, 50, 30, 10), (784, 100, 50, 10), (784, 512, 512, 10)]
    runs = {"-".join(map(str, sizes)): gradient(*deep_network(options, data, batch, sizes)) for sizes in deep}
    sizes = (784, hidden, 10)
    runs[f"784-{hidden}-10, a user's tanh"] = gradient(*deep_network(options, data, batch, sizes, peers.Tanh))
    report.table("b", f"numerical gradient, float32, batch {batch}, other networks", measure(runs, options.repetitions))
    if options.chapter4:
        net, *batch = network(options, data, 60_000, 50, "sigmoid")
        records = xpnet.train(net, *batch, iterations=10_000, batch_size=100, gradient="numerical")
        report.table("b", "chapter 4: 10,000 iterations of it", measure({"xpnet": Run(lambda: len([*records]))}, 0))
    if options.backend == "numpy":  # the one library that reports its memory to tracemalloc
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


def network(options, data, batch, hidden, activation="relu", dtype="float32"):
    """Return a network and one batch for it."""
    backend, (x, t) = xpnet.get_backend(options.backend), data["train"]
    net = xpnet.TwoLayerNet(784, hidden, 10, activation=activation, dtype=dtype, backend=backend)
    return net, backend.asarray(x[:batch], dtype), backend.asarray(t[:batch])


def deep_network(options, data, batch, sizes, activation=xpnet.Relu):
    """Return a network of any depth and one batch for it."""
    backend, (x, t), rng, layers = xpnet.get_backend(options.backend), data["train"], np.random.default_rng(0), []
    for rows, columns in pairwise(sizes):
        W = backend.asarray(rng.normal(size=(rows, columns)) / rows**0.5, "float32")
        layers += [xpnet.Affine(W, backend.asarray(np.zeros(columns), "float32")), activation()]
    return xpnet.Network(layers[:-1]), backend.asarray(x[:batch], "float32"), backend.asarray(t[:batch])


def gradient(net, x, t, method="auto"):
    """Return a Run of one full numerical gradient."""
    return Run(lambda: peers.wait(net.numerical_gradient(x, t, method=method)["W2"]))


def gradients(options, data, batch, hidden, activation, dtype, entries):
    """Return {name: Run} for the ways to the same numerical gradient."""
    net, x, t = network(options, data, batch, hidden, activation, dtype)
    runs = {f'xpnet, method="{method}"': gradient(net, x, t, method) for method in METHODS}
    if options.backend != "jax":  # whose arrays cannot be written
        runs["plain loop, xpnet's loss"] = loop_on_a_sample(net.params, lambda: net.loss(x, t), entries)
    book = peers.Book({"train": [a[:batch] for a in data["train"]]}, LEARNING_RATE, activation=activation)
    book.reset(start_weights(hidden))
    runs["plain loop, the book, float64"] = loop_on_a_sample(
        book.params, lambda: book.loss(*book.data["train"]), entries
    )
    runs["xpnet.check_gradients"] = Run(lambda: bool(xpnet.check_gradients(net, x, t)))
    return runs


def repeated(contender, x, t, weights, seconds):
    """Return a Run of one step, timed over as many of them as fill ``seconds``."""
    prepare = prepared(contender, weights)

    def some(count):
        for _ in range(count):
            out = contender.step(x, t)
        peers.wait(out)

    prepare()
    some(2)  # compiles
    start = perf_counter()
    some(3)
    count = max(1, int(seconds / (perf_counter() - start) * 3))
    return Run(lambda: some(count), prepare, lambda: some(1), 1 / count)


def steps(options, data, report):
    """Measure (c), one update, gradient and all, on a batch that lies ready."""
    batches, hiddens = (10, 30, 100, 300, 1000, 3000, 10_000), (10, 50, 200, 1000, 4000)
    if options.gpu:
        batches, hiddens = (100, 1000, 10_000, 60_000), (50, 512, 2048, 8192)
    if options.quick:
        batches, hiddens = (10, 100), (10, 50)
    grid, makers = {}, contenders("c", options)
    for hidden in hiddens:
        for batch in batches:
            runs = {}
            for name, make in makers.items():
                contender = make({})
                x, t = (contender.put(a[:batch]) for a in data["train"])
                runs[name] = repeated(contender, x, t, start_weights(hidden), 0.0 if options.quick else 0.05)
            grid[hidden, batch] = measure(runs, options.repetitions)
    report.grid("c", "one training step, 784-hidden-10, relu", grid)


def in_a_process(code):
    """Return what ``code`` prints as JSON, run by this Python in a process of its own."""
    # an installed library is compiled, so a checkout must be allowed to keep what it has compiled
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)


def starting(options, data, report):
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
    report.table("d", "import and data", rows, ratios=False)
    report.memory("d", "load_mnist(), NumPy, peak", peaks, result)


def main():
    parts = {"a": training, "b": numerical, "c": steps, "d": starting}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="a,b,c,d", help="parts to measure, such as a,c")
    parser.add_argument("--repetitions", type=int, help="how often each contender takes its turn; 5, or 1 if quick")
    parser.add_argument("--iterations", type=int, help="how long (a) trains; 10,000, or 40 if quick")
    parser.add_argument("--backend", help="xpnet's backend; by default XPNET_BACKEND, else numpy")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there, or into a folder")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--chapter4", action="store_true", help="in (b), also train on numerical gradients throughout")
    options = parser.parse_args()
    only = options.only.split(",")
    if unknown := set(only) - set(parts):
        parser.error(f"--only names {', '.join(sorted(unknown))}; the parts are a, b, c and d")
    options.iterations = options.iterations or (40 if options.quick else 10_000)
    options.repetitions = options.repetitions or (1 if options.quick else 5)
    try:
        options.backend = xpnet.get_backend(options.backend).name
    except xpnet.BackendError as error:
        parser.error(str(error))
    options.gpu = options.backend.startswith(("cupy", "torch:cuda"))
    options.absent = {name: why for name in ("torch", "jax") if (why := peers.why_absent(name, options.gpu))}

    loaded = xpnet.load_mnist(backend="numpy")
    sizes = (2000, 1000) if options.quick else (60_000, 10_000)
    data = {name: (x[:n], t[:n]) for name, (x, t), n in zip(("train", "test"), loaded, sizes, strict=True)}
    report = Report(machine(options))
    if options.json and options.json.is_dir():  # then the device names the file
        options.json /= f"{device_name(report.machine, options.gpu)}.json"
    print("\nratio: the time as a multiple of the first line's; first run: with compilation, not counted")
    for part in only:
        parts[part](options, data, report)
        if options.json:
            options.json.write_text(json.dumps({"machine": report.machine, "results": report.results}, indent=1))


if __name__ == "__main__":
    main()
