"""Who takes part in benchmark.py: xpnet on the backends, and beside it those of benchmark_peers.py."""

# ruff: noqa: D102 (benchmark_peers.py describes the methods)
from functools import partial
from importlib import import_module
from itertools import pairwise

import benchmark_peers as peers
import numpy as np

import xpnet
from xpnet.batches import epochs_of_batches

LEARNING_RATE = 0.1


class Xpnet:
    """xpnet in the shape that benchmark_peers.py describes; it brings its own training loop.

    Labels become one-hot once, as in train.py and in the book's way; PyTorch and JAX by hand are faster with the
    numbers, and xpnet on JAX is, too.
    """

    def __init__(self, data, backend, dtype="float32", compiled=False):
        self.backend, self.dtype, self.compiled = xpnet.get_backend(backend), dtype, compiled
        self.data = {part: (self.put(x), self.put(t)) for part, (x, t) in data.items()}

    def put(self, x):
        if x.dtype.kind == "f":
            return self.backend.asarray(x, self.dtype)
        t = self.backend.asarray(x)
        return t if self.backend.name == "jax" else xpnet.one_hot(t, 10, dtype=self.backend.dtype(self.dtype))

    def reset(self, weights):
        self.net = network(weights, self.backend, self.dtype)

    def step(self, x, t):
        _, steps = self.net.loss_and_gradient(x, t, LEARNING_RATE)
        for name in self.net.params:
            self.net.params[name] -= steps[name]
        return self.net.params["W1"]


def network(weights, backend, dtype, activation=xpnet.Relu):
    """Return xpnet's network of ``weights``, a dict of W1, b1, W2 and so on."""
    arrays, layers = [backend.asarray(w.copy(), dtype) for w in weights.values()], []
    for W, b in zip(arrays[::2], arrays[1::2], strict=True):
        layers += [xpnet.Affine(W, b), activation()]
    return xpnet.Network(layers[:-1])


def start_weights(*hidden):
    """Return the weights every contender starts from, float32 NumPy arrays for 784-…-10: W1, b1, W2 and so on."""
    rng, weights = np.random.default_rng(0), {}
    for n, (rows, columns) in enumerate(pairwise((784, *hidden, 10)), start=1):
        std = 0.01 if len(hidden) == 1 else (2 / rows) ** 0.5  # as in the book; what is deeper would not learn so
        weights[f"W{n}"] = (std * rng.standard_normal((rows, columns))).astype("float32")
        weights[f"b{n}"] = np.zeros(columns, "float32")
    return weights


def train(contender, iterations, batch):
    """Train on batches that are the same for all but the book; return the accuracies after each epoch."""
    if isinstance(contender, Xpnet):
        records = xpnet.train(
            contender.net,
            *contender.data["train"],
            *contender.data["test"],
            iterations=iterations,
            batch_size=batch,
            learning_rate=LEARNING_RATE,
            rng=0,
            compile=contender.compiled,
        )
        return [(record.train_accuracy, record.test_accuracy) for record in records]
    accuracies = []
    for batches in epochs_of_batches(contender.data["train"][0].shape[0], batch, 0, iterations=iterations):
        contender.epoch(np.stack(batches))
        accuracies.append((contender.accuracy("train"), contender.accuracy("test")))
    return accuracies


def contenders(part, options):
    """Return {name: function of data that makes the contender}, xpnet first."""
    ways = [ours, by_arrays, by_torch, by_jax]
    return {name: make for way in ways for name, make in way(part == "a", options).items()}


def ours(whole, options):
    """Return xpnet on the backend, and on NumPy beside it; for a whole training in float64 and compiled, too."""
    backend = options.backend
    makers = {f"xpnet, {name}": partial(Xpnet, backend=name) for name in dict.fromkeys((backend, "numpy"))}
    if not whole:
        return makers
    makers[f"xpnet, {backend}, float64"] = partial(Xpnet, backend=backend, dtype="float64")
    compilers = {
        "torch:cuda" if options.gpu else "torch": "torch" not in options.absent and not options.quick,
        "jax": "jax" not in options.absent,
        backend: backend.startswith("cupy"),
    }
    for name in filter(compilers.get, compilers):  # compiling is a part of each training
        makers[f"xpnet, {name}, compiled"] = partial(Xpnet, backend=name, compiled=True)
    return makers


def on_backend(data, Peer, backend):
    library = xpnet.get_backend(backend).name.partition(":")[0]  # whose device is now the current one
    return Peer(data, LEARNING_RATE, import_module(library))


def by_arrays(whole, options):
    """Return the book's way and the same by hand, on NumPy and on CuPy, for a whole training."""
    names = {"numpy": "NumPy"} | ({options.backend: "CuPy"} if options.backend.startswith("cupy") else {})
    makers = {}
    for backend, name in names.items() if whole else ():
        makers[f"the book, {name}, float64"] = partial(on_backend, Peer=peers.Book, backend=backend)
        makers[f"{name} by hand"] = partial(on_backend, Peer=peers.ByHand, backend=backend)
    return makers


def by_torch(whole, options):
    """Return PyTorch, on a GPU with its graphs, on the CPU with one and two threads."""
    if "torch" in options.absent:
        return {}
    if options.gpu:
        kinds = {"PyTorch eager": peers.TorchEager, "PyTorch CUDA graph": peers.TorchGraph}
        return {name: partial(Peer, learning_rate=LEARNING_RATE, device="cuda") for name, Peer in kinds.items()}
    kinds = {"eager": peers.TorchEager}
    if whole and not options.quick:  # compiling takes longer than everything else that is quick
        kinds["compiled"] = peers.TorchCompiled
    return {
        f"PyTorch {kind}, {n} thread{'s' if n > 1 else ''}": partial(Peer, learning_rate=LEARNING_RATE, threads=n)
        for kind, Peer in kinds.items()
        for n in (1, 2)
    }


def by_jax(whole, options):
    """Return JAX, a whole epoch or a single step compiled."""
    if "jax" in options.absent:
        return {}
    return {"JAX jit + scan" if whole else "JAX jit": partial(peers.Jax, learning_rate=LEARNING_RATE, gpu=options.gpu)}
