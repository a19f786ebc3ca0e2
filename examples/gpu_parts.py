"""What gpu.py tests and measures: `python gpu_parts.py PART` runs a part and prints a JSON row for each result."""

# ruff: noqa: D102, B023 (each function is called before its loop goes on)
import argparse
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from statistics import median
from time import perf_counter
from unittest import mock

import benchmark
import benchmark_peers as peers
import numpy as np

import xpnet
from xpnet.compiling import CompileError, compiled

RATE = 0.1
NAMES = {"cupy": "cupy", "torch": "torch:cuda", "jax": "jax", "numpy": "numpy"}  # backends, by the part's last word
SIZES = {
    (50, 100): 600,
    (512, 1000): 100,
    (2048, 10_000): 20,
    (8192, 60_000): 3,
}  # (hidden, batch): steps timed at once
TINY = {(10, 10): 6, (20, 20): 3}


class Part:
    """Where a part's rows go, and how large its work is."""

    def __init__(self, name, quick):
        self.name, self.quick, self.failed = name, quick, False
        self.array_library = name.rpartition("-")[2]
        self.backend = xpnet.get_backend(NAMES[self.array_library]) if self.array_library in NAMES else None

    def add(self, what, value, **more):
        self.failed |= "failed" in more
        print(json.dumps({"part": self.name, "what": what, "value": value, **more}), flush=True)

    def time(self, what, work, result, repetitions=5, scale=1.0, **more):
        """Add the median time of ``work()`` after one warm-up, waiting for the array ``result()`` names."""
        first, times = None, []
        for _ in range(1 + (1 if self.quick else repetitions)):
            start = perf_counter()
            work()
            asked = perf_counter() - start
            peers.wait(result())
            times.append(((perf_counter() - start) * scale, asked * scale))
        first, *rest = times
        middle, host = (median(column) for column in zip(*rest, strict=True))
        self.add(what, duration(middle), seconds=[t for t, _ in rest], host=host, first=first[0] / scale, **more)

    def attempt(self, what, work):
        """Run ``work()``; an error is a result too."""
        try:
            return work()
        except Exception as error:
            traceback.print_exc()
            self.add(what, f"{type(error).__name__}: {str(error)[:300]}", failed=True)


def duration(seconds):
    unit, size = next((u for u in (("s", 1), ("ms", 1e-3)) if seconds >= u[1]), ("µs", 1e-6))
    return f"{seconds / size:.3g} {unit}"


class Scale:
    """A layer as a user would write it."""

    parameters = ("gamma",)

    def __init__(self, gamma):
        self.gamma = gamma

    def forward(self, x):
        self.x = x
        return x * self.gamma

    def backward(self, dout):
        self.dgamma = (dout * self.x).sum(axis=0)
        return dout * self.gamma


def deep(backend, dtype, last=()):
    """Return 784-40-30-10 with a user's layer; ``last`` are the layers at the end, of which the last measures."""
    rng = np.random.default_rng(1)

    def affine(rows, columns):
        return xpnet.Affine(
            backend.asarray(rng.normal(size=(rows, columns)) * rows**-0.5, dtype),
            backend.asarray(np.zeros(columns), dtype),
        )

    layers = [
        affine(784, 40),
        xpnet.Relu(),
        Scale(backend.asarray(np.ones(40), dtype)),
        affine(40, 30),
        xpnet.Sigmoid(),
    ]
    layers += [affine(30, 10), *[kind() for kind in last[:-1]]]
    return xpnet.Network(layers, *[kind() for kind in last[-1:]])


def networks(backend, dtype):
    """Return {name: function that makes a network}."""

    def two(activation):
        return lambda: xpnet.TwoLayerNet(784, 50, 10, activation=activation, dtype=dtype, backend=backend)

    return {
        "relu": two("relu"),
        "sigmoid": two("sigmoid"),
        "deep, a user's layer": lambda: deep(backend, dtype),
        "softmax and squares": lambda: deep(backend, dtype, (xpnet.Softmax, xpnet.IdentityWithLoss)),
    }


def images(part, count, dtype="float32", one_hot=True):
    x, t = load()["train"]
    x, t = part.backend.asarray(x[:count], dtype), part.backend.asarray(t[:count])
    return x, xpnet.one_hot(t, 10, dtype=x.dtype) if one_hot else t


def load(cache=[]):  # noqa: B006
    if not cache:
        loaded = xpnet.load_mnist(backend="numpy")
        cache.append(dict(zip(("train", "test"), loaded, strict=True)))
    return cache[0]


def host(x):
    return xpnet.to_numpy(x)


# ── the parts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def about_machine(part):
    """Name the machine: processor, GPU, driver, versions."""
    from benchmark_report import machine

    options = argparse.Namespace(
        backend="cupy", absent={n: w for n in ("torch", "jax") if (w := peers.why_absent(n, True))}
    )
    for key, value in machine(options).items():
        if key == "command":  # is this part's alone, gpu.py says its own
            continue
        part.add(key, json.dumps(value) if isinstance(value, dict) else value)
    import cupy

    free, total = cupy.cuda.runtime.memGetInfo()
    part.add("GPU memory", f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} free")
    part.add("CUDA", f"driver {cupy.cuda.runtime.driverGetVersion()}, runtime {cupy.cuda.runtime.runtimeGetVersion()}")
    part.add(
        "CuPy's accelerators", str(cupy._core.get_routine_accelerators() + cupy._core.get_reduction_accelerators())
    )


def capture(part):
    """Compare compiled steps with plain ones: one step, then twenty; every kind of network, both dtypes."""
    count, batch = (40, 10) if part.quick else (2000, 100)
    order = np.random.default_rng(0).permutation(count).reshape(-1, batch)
    for gradient in ("backpropagation", "numerical"):
        for dtype in ("float64", "float32"):
            for name, make in networks(part.backend, dtype).items():
                if gradient == "numerical" and name not in ("relu", "sigmoid"):
                    continue
                what = f"{gradient}, {name}, {dtype}"
                part.attempt(what, lambda: compare(part, what, make, images(part, count, dtype), order, gradient))
    part.attempt(
        "integer labels",
        lambda: compare(
            part,
            "integer labels",
            networks(part.backend, "float32")["relu"],
            images(part, count, one_hot=False),
            order,
            "backpropagation",
        ),
    )

    if part.array_library == "cupy" and part.failed and os.environ.get("CUPY_ACCELERATORS") != "":
        part.add("what was refused, once more without CuPy's accelerators", "follows")
        environment = {**os.environ, "CUPY_ACCELERATORS": ""}
        subprocess.run([sys.executable, *sys.argv], env=environment)


def step_of(gradient):
    def step(network, x, t):
        if gradient == "backpropagation":
            return network.loss_and_gradient(x, t, RATE)
        steps = network.numerical_gradient(x, t)
        return network.loss(x, t), {name: RATE * value for name, value in steps.items()}

    return step


def plain_steps(network, x, t, order, step):
    """Return run(), which takes the steps of order one by one, and leaves their losses in its list."""
    xp = peers_namespace(x)
    losses = []

    def run():
        losses.clear()
        for chosen in order:
            loss, steps = step(network, xp.take(x, chosen, axis=0), xp.take(t, chosen, axis=0))
            for name in network.params:
                network.params[name] -= steps[name]
            losses.append(loss)

    run.losses = losses
    return run


def peers_namespace(x):
    from array_api_compat import array_namespace

    return array_namespace(x)


def compare(part, what, make, data, order, gradient):
    """Add the largest differences of compiled from plain steps, and what each takes."""
    order, step, (x, t) = part.backend.asarray(order), step_of(gradient), data
    plain = make()
    run = plain_steps(plain, x, t, order[:1, :], step)
    run()
    first = {name: host(value) for name, value in plain.params.items()}
    run = plain_steps(plain, x, t, order[1:, :], step)
    run()
    losses = np.stack([host(loss) for loss in run.losses])
    network, start = make(), perf_counter()
    try:
        steps = compiled(step, network, x, t, order.shape[0], order.shape[1])
    except CompileError as error:
        traceback.print_exc()
        return part.add(what, f"refused: {error}", failed=True)
    steps(order[:1, :])
    peers.wait(next(iter(network.params.values())))
    took = perf_counter() - start
    single = max(np.max(np.abs(host(network.params[name]) - value)) for name, value in first.items())
    found = host(steps(order[1:, :]))
    after = max(np.max(np.abs(host(network.params[name]) - host(plain.params[name]))) for name in first)
    loss = np.max(np.abs(found - losses))
    part.add(
        what,
        f"parameters differ by {single:.1e} after one step, {after:.1e} after {len(order)}; losses by {loss:.1e}",
        single=float(single),
        after=float(after),
        loss=float(loss),
        compiling=took,
    )
    for kind, work in (("plain", plain_steps(plain, x, t, order, step)), ("compiled", lambda: steps(order))):
        held = plain if kind == "plain" else network
        part.time(f"{what}: {kind} step", work, lambda h=held: next(iter(h.params.values())), 3, 1 / len(order))


def training(part):
    """Time chapter 5's training, with the accuracies of its end."""
    iterations, data = (30 if part.quick else 10_000), load()
    if part.quick:
        data = {name: (x[:1000], t[:1000]) for name, (x, t) in data.items()}
    weights = benchmark.start_weights(50)
    for way in (True, False):
        if way and part.array_library == "numpy":
            continue
        part.attempt(f"xpnet, compile={way}", lambda w=way: train_ours(part, data, iterations, w, weights))
    makers = {}
    if part.array_library == "torch":
        makers = {
            "PyTorch eager": lambda: peers.TorchEager(data, RATE, "cuda"),
            "PyTorch CUDA graph": lambda: peers.TorchGraph(data, RATE, "cuda"),
        }
    elif part.array_library == "jax":
        makers = {"JAX jit + scan": lambda: peers.Jax(data, RATE, True)}
    elif part.array_library == "cupy":
        import cupy

        makers = {"CuPy by hand": lambda: peers.ByHand(data, RATE, cupy)}
    elif part.array_library == "numpy":
        makers = {"NumPy by hand": lambda: peers.ByHand(data, RATE)}
    for name, make in makers.items():
        part.attempt(name, lambda n=name, m=make: train_peer(part, n, m(), iterations, weights))


def train_ours(part, data, iterations, way, weights):
    ours = benchmark.Xpnet(data, part.backend)
    for turn in ("first", "again"):
        ours.reset(weights)
        start = perf_counter()
        training = xpnet.train(
            ours.net,
            *ours.data["train"],
            *ours.data["test"],
            iterations=iterations,
            learning_rate=RATE,
            rng=np.random.default_rng(0),
            compile=way,
        )
        records = list(training)
        took = perf_counter() - start
        last = f"{records[-1].train_accuracy:.4f} / {records[-1].test_accuracy:.4f}"
        part.add(f"{iterations:,} iterations, xpnet, compile={way}, {turn}", f"{took:.3g} s, {last}", seconds=took)


def train_peer(part, name, peer, iterations, weights):
    for turn in ("first", "again"):
        peer.reset(weights)
        start = perf_counter()
        accuracies = benchmark.train(peer, iterations, 100)
        took = perf_counter() - start
        last = " / ".join(f"{a:.4f}" for a in accuracies[-1])
        part.add(f"{iterations:,} iterations, {name}, {turn}", f"{took:.3g} s, {last}", seconds=took)


def steps(part):
    """Time a step, its batch drawn on the device, at four sizes."""
    x, t = load()["train"]
    for (hidden, batch), count in (TINY if part.quick else SIZES).items():
        data = {"train": (x, t), "test": (x[:100], t[:100])}
        order = np.random.default_rng(0).integers(len(x), size=(count, batch))
        weights, makers = benchmark.start_weights(hidden), {}
        if part.array_library == "torch":
            makers["PyTorch eager"] = lambda d=data: peers.TorchEager(d, RATE, "cuda")
            makers["PyTorch CUDA graph"] = lambda d=data: peers.TorchGraph(d, RATE, "cuda")
        if part.array_library == "jax":
            makers["JAX jit + scan"] = lambda d=data: peers.Jax(d, RATE, True)
        for name, make in makers.items():
            what = f"784-{hidden}-10, batch {batch:,}: {name}"
            part.attempt(what, lambda w=what, m=make: step_of_peer(part, w, m(), order, weights))
        for way in (True, False):
            if part.array_library == "jax" and not way:
                continue  # each operation by itself is compiled for each shape: not what anybody would do
            what = f"784-{hidden}-10, batch {batch:,}: xpnet on {part.array_library}, compile={way}"
            part.attempt(what, lambda w=what, c=way: step_of_ours(part, w, c, order, hidden, count, batch))


def step_of_peer(part, what, peer, order, weights):
    peer.reset(weights)

    def last():
        model = getattr(peer, "model", None)
        return next(model.parameters()) if model is not None else peer.params["W1"]

    part.time(what, lambda: peer.epoch(order), last, 3, 1 / len(order))


def step_of_ours(part, what, way, order, hidden, count, batch):
    x, t = images(part, 60_000)
    network = xpnet.TwoLayerNet(784, hidden, 10, dtype="float32", backend=part.backend)
    order, step = part.backend.asarray(order), step_of("backpropagation")
    work = plain_steps(network, x, t, order, step)
    if way:
        run = compiled(step, network, x, t, count, batch)
        work = lambda: run(order)  # noqa: E731
    part.time(what, work, lambda: network.params["W1"], 3, 1 / count)


def gradients(part):
    """Time numerical gradients and checks, and compare the gradients with backpropagation."""
    for activation in ("relu", "sigmoid"):
        for dtype in ("float32", "float64"):
            for hidden, batch in [(20, 10)] if part.quick else [(50, 100), (1000, 100)]:
                what = f"784-{hidden}-10, {activation}, {dtype}, batch {batch}"
                part.attempt(
                    what, lambda w=what, a=activation, d=dtype, h=hidden, b=batch: gradient(part, w, a, d, h, b)
                )


def gradient(part, what, activation, dtype, hidden, batch):
    network = xpnet.TwoLayerNet(784, hidden, 10, activation=activation, dtype=dtype, backend=part.backend)
    x, t = images(part, batch, dtype)
    found, right = network.numerical_gradient(x, t), network.gradient(x, t)
    differs = max(
        float(np.max(np.abs(host(found[k]) - host(right[k])) / np.max(np.abs(host(right[k]))))) for k in right
    )
    part.add(f"numerical from backpropagated, {what}", f"{differs:.1e} of the largest entry", relative=differs)
    held = {}
    part.time(f"numerical gradient, {what}", lambda: held.update(network.numerical_gradient(x, t)), lambda: held["W2"])
    check = xpnet.check_gradients(network, x, t)
    part.add(f"check, {what}", "passes" if check else f"FAILS: {check}"[:2000])
    part.time(f"check, {what}", lambda: bool(xpnet.check_gradients(network, x, t)), lambda: x)


def parity(part):
    """Compare with NumPy on the same machine: a hundred steps, gradients, predictions."""
    for activation in ("relu", "sigmoid"):
        part.attempt(activation, lambda a=activation: parity_of(part, a))


def parity_of(part, activation):
    records = {}
    for backend in (part.backend, xpnet.get_backend("numpy")):
        network = xpnet.TwoLayerNet(784, 50, 10, activation=activation, backend=backend)
        x, t = (a[:2000] for a in load()["train"])
        x, t = backend.asarray(x, "float64"), backend.asarray(t)
        chapter4 = host(network.numerical_gradient(x[:100], t[:100])["W1"])
        losses = np.concatenate([r.losses for r in xpnet.train(network, x, t, epochs=5)])
        records[backend.name] = losses, host(network.params["W1"]), chapter4
    one, other = records.values()
    for name, a, b in zip(("100 losses", "W1 after 100 steps", "numerical gradient"), one, other, strict=True):
        part.add(f"{activation}, float64: {name} from NumPy's", f"{np.max(np.abs(a - b)):.1e}")


def chapter4(part):
    """Train chapter 4's network on numerical gradients, compiled and plain, beside backpropagation."""
    iterations = 20 if part.quick else 2000
    x, t = images(part, 200 if part.quick else 60_000)
    losses = {}
    for gradient, way in (("numerical", True), ("numerical", False), ("backpropagation", True)):
        what = f"{iterations:,} iterations, sigmoid, {gradient}, compile={way}"

        def work(gradient=gradient, way=way, what=what):
            network = xpnet.TwoLayerNet(784, 50, 10, activation="sigmoid", dtype="float32", backend=part.backend)
            size = 10 if part.quick else 100
            start = perf_counter()
            records = list(
                xpnet.train(network, x, t, iterations=iterations, batch_size=size, gradient=gradient, compile=way)
            )
            took = perf_counter() - start
            losses[gradient, way] = np.concatenate([record.losses for record in records])
            part.add(what, f"{took:.3g} s, loss {losses[gradient, way][-1]:.4f}", seconds=took)

        part.attempt(what, work)
    if len(losses) == 3:
        a, b, c = losses.values()
        part.add(
            "largest difference of a loss",
            f"compiled from plain {np.max(np.abs(a - b)):.1e}, from backpropagation {np.max(np.abs(a - c)):.1e}",
        )


def memory(part):
    """Report peaks of CuPy's pool, what waits within an epoch, and how often a check waits."""
    hidden = 50 if part.quick else 1000
    network = xpnet.TwoLayerNet(784, hidden, 10, dtype="float32", backend=part.backend)
    x, t = images(part, 2000)
    works = {
        "loss_and_gradient": lambda: network.loss_and_gradient(x[:100], t[:100]),
        "numerical gradient": lambda: network.numerical_gradient(x[:100], t[:100]),
        "check": lambda: xpnet.check_gradients(network, x[:100], t[:100], audit=2),
        "accuracy of 2,000": lambda: network.accuracy(x, t),
    }
    parameters = sum(value.nbytes for value in network.params.values())
    for name, work in works.items():
        what = f"784-{hidden}-10, batch 100: memory of {name}"
        part.add(what, f"{peak_of(work) / 2**20:.1f} MiB, parameters {parameters / 2**20:.1f}")
    waits(part, network, x, t)


def peak_of(work):
    """Return how many bytes more of CuPy's pool were in use, at most, while ``work()`` ran the second time."""
    import cupy

    pool, found = cupy.get_default_memory_pool(), []
    work()
    pool.free_all_blocks()
    before = pool.used_bytes()

    class Watch(cupy.cuda.MemoryHook):
        name = "Watch"

        def malloc_postprocess(self, **_):
            found.append(pool.used_bytes())

    with Watch():
        work()
    return max(found) - before


def waits(part, network, x, t):
    """Add where steps and a numerical gradient wait, which they should not, and where a check does."""
    order = part.backend.asarray(np.random.default_rng(0).permutation(2000).reshape(-1, 100))
    step, chapter4 = step_of("backpropagation"), step_of("numerical")
    run = part.attempt("compiled", lambda: compiled(step, network, x, t, *order.shape))
    works = {
        "20 plain steps": plain_steps(network, x, t, order, step),
        "a numerical gradient": lambda: chapter4(network, x[:100], t[:100]),
        "20 compiled steps": run and (lambda: run(order)),
    }
    for name, work in works.items():
        if work and (places := part.attempt(f"waits within {name}", lambda w=work: waits_of(w))) is not None:
            part.add(f"waits within {name}", ", ".join(places) or "none", **({"failed": places} if places else {}))
    for activation in ("relu", "sigmoid"):
        network = networks(part.backend, "float32")[activation]()
        places = part.attempt("check", lambda n=network: waits_of(lambda: xpnet.check_gradients(n, x[:100], t[:100])))
        if places is not None:
            part.add(f"waits within a check, 784-50-10, {activation}", len(places), places=places)


def waits_of(work):
    """Return where ``work()``, run the second time, waits for the device as CuPy declares it: a file and line each."""
    work()
    places = []

    def declared():
        stack = reversed(traceback.extract_stack())
        frame = next(
            frame for frame in stack if Path(frame.filename).parts[-2:][0] in ("xpnet", "gradcheck", "examples")
        )
        places.append(f"{Path(frame.filename).name}:{frame.lineno}")

    with mock.patch("cupy._core.syncdetect._declare_synchronize", declared):
        work()
    return places


def as_typed(part):
    """Run the card's own line: XPNET_BACKEND=cupy python examples/train.py."""
    script = Path(__file__).with_name("train.py")
    for extra in ((), ("--no-compile",), ("--gradient", "numerical", "--activation", "sigmoid", "--iterations", "600")):
        extra = (*extra, *(("--iterations", "20") if part.quick else ()))
        start = perf_counter()
        run = subprocess.run([sys.executable, script, *extra], capture_output=True, text=True)
        took = perf_counter() - start
        lines = run.stdout.splitlines() or [""]
        what = f"XPNET_BACKEND=cupy python examples/train.py {' '.join(extra)}"
        part.add(what, f"{took:.1f} s: {lines[-1]}; {lines[0]}; {run.stderr[-500:]}", seconds=took)


def examples(part):
    """Run the other examples on CuPy, those that draw into a folder."""
    here, options = Path(__file__).parent, {"train_numerically.py": ["--iterations", "20"]}
    names = ["buy_fruit.py", "gradient_descent.py", "check_gradients.py", "train_numerically.py"]
    drawing = sorted(path.name for path in here.glob("ch[45]_*.py"))
    with tempfile.TemporaryDirectory() as folder:
        for name in [*names, *(drawing[:2] if part.quick else drawing)]:
            extra = ["--save", folder] if name in drawing else options.get(name, [])
            start = perf_counter()
            run = subprocess.run([sys.executable, here / name, *extra], capture_output=True, text=True)
            last = Path((run.stdout.splitlines() or [""])[-1]).name
            value = f"{perf_counter() - start:.1f} s, ended with {run.returncode}: {last} {run.stderr[-300:]}"
            part.add(name, value, **({"failed": run.stderr[-1500:]} if run.returncode else {}))


PARTS = {
    "machine": about_machine,
    "capture": capture,
    "train": training,
    "steps": steps,
    "gradients": gradients,
    "parity": parity,
    "chapter4": chapter4,
    "memory": memory,
    "as-typed": as_typed,
    "examples": examples,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    library = options.part.rpartition("-")[2]
    if library in ("torch", "jax") and (why := peers.why_absent(library, True)):
        return print(json.dumps({"part": options.part, "what": library, "value": why}))
    part = Part(options.part, options.quick)
    PARTS[options.part.removesuffix(f"-{library}") if library in NAMES else options.part](part)


if __name__ == "__main__":
    main()
