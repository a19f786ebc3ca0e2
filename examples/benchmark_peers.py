"""What benchmark.py measures xpnet beside: the book's way, PyTorch and JAX, each as its users would write it.

A peer trains a relu network by plain gradient descent, from weights it is given, on data it holds. It has

``reset(weights)``   start again from these NumPy arrays, W1 (D, M), b1, W2 and so on: a network of any depth
``epoch(order)``     one update for each row of ``order`` (steps, batch), and keep the loss of each step
``accuracy(part)``   the share of right answers on "train" or "test", a float
``step(x, t)``       one update on a batch that ``put`` has moved to the device; returns something to wait for
``put(x)``           a NumPy array as an array of this library, on its device

It is made from data, a dict {"train": (x, t), "test": (x, t)} of NumPy arrays with labels t, and a learning rate.
"""

# ruff: noqa: D102 (the methods are described above)
import os
import sys
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from array_api_compat import array_namespace

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else JAX leaves nothing of the GPU to the others


class Tanh:
    """A layer as a user of xpnet writes it: it has no ``difference``."""

    def forward(self, x):
        self.y = array_namespace(x).tanh(x)
        return self.y

    def backward(self, dout):
        return dout * (1.0 - self.y**2)


def why_absent(library, gpu):
    """Return None if PyTorch or JAX can be measured, on the GPU if ``gpu``, else the reason."""
    if find_spec(library) is None:
        return "not installed"
    if gpu:
        module = import_module(library)
        usable = module.cuda.is_available() if library == "torch" else module.default_backend() == "gpu"
        return None if usable else "installed, but it sees no GPU"
    return None


def wait(x):
    """Wait until the device has computed ``x``, an array of any library."""
    library = type(x).__module__.partition(".")[0]
    if library == "cupy":
        sys.modules["cupy"].cuda.get_current_stream().synchronize()
    elif library == "torch" and x.is_cuda:
        sys.modules["torch"].cuda.synchronize()
    elif hasattr(x, "block_until_ready"):
        x.block_until_ready()


class Book:
    """The book's way, on NumPy or on CuPy: float64, masks, one-hot targets, a loss computed again after each update.

    Source: after Deep Learning from Scratch, 5.7; written anew from its description.
    """

    dtype = "float64"

    def __init__(self, data, learning_rate, xp=np, activation="relu"):
        self.xp, self.learning_rate, self.activation = xp, learning_rate, activation
        hot = xp.eye(10, dtype=self.dtype)
        self.data = {part: (self.put(x), hot[xp.asarray(t)]) for part, (x, t) in data.items()}

    def put(self, x):
        return self.xp.asarray(x, dtype=self.dtype)

    def reset(self, weights):
        self.params = {name: self.put(np.array(w)) for name, w in weights.items()}
        self.depth, self.losses = len(weights) // 2, []

    def epoch(self, order):
        x_train, t_train = self.data["train"]
        for _ in order:
            chosen = self.xp.random.choice(x_train.shape[0], order.shape[1])
            x, t = x_train[chosen], t_train[chosen]
            self.step(x, t)
            self.losses.append(self.loss(x, t))

    def step(self, x, t):
        gradients = self.gradient(x, t)
        for name in self.params:
            self.params[name] -= self.learning_rate * gradients[name]
        return self.params["W1"]

    def predict(self, x):
        xp, p = self.xp, self.params
        self.inputs, self.masks = [x], []
        for n in range(1, self.depth):
            self.inputs.append(self.activate(xp.dot(self.inputs[-1], p[f"W{n}"]) + p[f"b{n}"]))
        return xp.dot(self.inputs[-1], p[f"W{self.depth}"]) + p[f"b{self.depth}"]

    def activate(self, a):
        if self.activation == "sigmoid":
            return 1 / (1 + self.xp.exp(-a))
        self.masks.append(a <= 0)
        z = a.copy()
        z[self.masks[-1]] = 0
        return z

    def loss(self, x, t):
        xp = self.xp
        scores = self.predict(x).T
        scores = scores - xp.max(scores, axis=0)
        self.y, self.t = (xp.exp(scores) / xp.sum(xp.exp(scores), axis=0)).T, t
        labels = t.argmax(axis=1)
        return -xp.sum(xp.log(self.y[xp.arange(labels.size), labels] + 1e-7)) / labels.size

    def gradient(self, x, t):
        xp, gradients = self.xp, {}
        self.loss(x, t)
        dout = (self.y - self.t) / x.shape[0]
        for n in range(self.depth, 0, -1):
            gradients[f"W{n}"], gradients[f"b{n}"] = xp.dot(self.inputs[n - 1].T, dout), xp.sum(dout, axis=0)
            dout = xp.dot(dout, self.params[f"W{n}"].T)
            if n > 1:
                dout[self.masks[n - 2]] = 0
        return gradients

    def accuracy(self, part):
        x, t = self.data[part]
        right = self.xp.argmax(self.predict(x), axis=1) == self.xp.argmax(t, axis=1)
        return float(self.xp.sum(right) / float(x.shape[0]))


class ByHand(Book):
    """The same network in few passes over the arrays: float32, in place, nothing checked, kept or named.

    It says about what plain array code on NumPy or CuPy could still gain.
    """

    dtype = "float32"

    def reset(self, weights):
        super().reset(weights)
        arrays = list(self.params.values())
        self.pairs = list(zip(arrays[::2], arrays[1::2], strict=True))

    def epoch(self, order):
        x_train, t_train = self.data["train"]
        for chosen in self.xp.asarray(order):
            self.losses.append(self.step(x_train.take(chosen, axis=0), t_train.take(chosen, axis=0)))

    def forward(self, x):
        inputs = [x]
        for W, b in self.pairs[:-1]:
            z = inputs[-1] @ W
            z += b
            inputs.append(self.xp.maximum(z, 0, out=z))
        W, b = self.pairs[-1]
        scores = inputs[-1] @ W
        scores += b
        return inputs, scores

    def step(self, x, t):
        xp, (inputs, scores) = self.xp, self.forward(x)
        scores -= scores.max(axis=1, keepdims=True)
        y = xp.exp(scores)
        total = y.sum(axis=1, keepdims=True)
        scores -= xp.log(total)
        scores *= t
        y /= total
        y -= t
        y *= self.learning_rate / x.shape[0]
        for (W, b), z in zip(reversed(self.pairs), reversed(inputs), strict=True):
            dout = y
            if z is not x:
                y = dout @ W.T
                y *= z > 0
            W -= z.T @ dout
            b -= dout.sum(axis=0)
        return scores.sum() / -x.shape[0]

    def accuracy(self, part, batch_size=2000):
        (x, t), right = self.data[part], 0
        for start in range(0, x.shape[0], batch_size):  # in the processor's cache
            scores = self.forward(x[start : start + batch_size])[1]
            right += (scores.argmax(axis=1) == t[start : start + batch_size].argmax(axis=1)).sum()
        return float(right) / x.shape[0]


class TorchEager:
    """PyTorch as its tutorials teach it: Linear and ReLU modules, cross_entropy, backward, SGD."""

    def __init__(self, data, learning_rate, device="cpu", threads=None):
        import torch

        if threads:
            torch.set_num_threads(threads)
        self.torch, self.device, self.learning_rate = torch, device, learning_rate
        self.data = {part: (self.put(x), self.put(t)) for part, (x, t) in data.items()}
        self.model = None

    def put(self, x):
        return self.torch.asarray(x, device=self.device)

    def reset(self, weights):
        torch = self.torch
        if self.model is None:
            layers = [(torch.nn.Linear(*w.shape), torch.nn.ReLU()) for w in weights.values() if w.ndim == 2]
            self.model = torch.nn.Sequential(*sum(layers, ())[:-1]).to(self.device)
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=self.learning_rate)
        with torch.no_grad():  # in place: a captured graph and a compiled step keep using these arrays
            for parameter, value in zip(self.model.parameters(), weights.values(), strict=True):
                parameter.copy_(self.put(value.T))
        self.losses = []

    def epoch(self, order):
        x, t = self.data["train"]
        for chosen in self.put(order):
            self.losses.append(self.step(x[chosen], t[chosen]))

    def step(self, x, t):
        self.optimizer.zero_grad()
        loss = self.torch.nn.functional.cross_entropy(self.model(x), t)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def accuracy(self, part):
        x, t = self.data[part]
        with self.torch.no_grad():
            return (self.model(x).argmax(dim=-1) == t).double().mean().item()


class TorchCompiled(TorchEager):
    """PyTorch with the whole step, loss, gradients and update, as one function under ``torch.compile``."""

    def reset(self, weights):
        super().reset(weights)
        if not hasattr(self, "compiled"):
            self.compiled = self.torch.compile(self.pure_step)
            self.params = {name: parameter.detach() for name, parameter in self.model.named_parameters()}

    def pure_step(self, params, x, t):
        def loss(params):
            scores = self.torch.func.functional_call(self.model, params, (x,))
            return self.torch.nn.functional.cross_entropy(scores, t)

        gradients, value = self.torch.func.grad_and_value(loss)(params)
        for name, parameter in params.items():
            parameter.sub_(self.learning_rate * gradients[name])
        return value

    def step(self, x, t):
        return self.compiled(self.params, x, t)


class TorchGraph(TorchEager):
    """PyTorch with the step captured once as a CUDA graph and replayed, as its documentation describes."""

    def reset(self, weights):
        super().reset(weights)
        self.weights = weights
        self.graph = getattr(self, "graph", None)

    def capture(self, batch):
        torch = self.torch
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries must have set themselves up before the capture
            for _ in range(3):
                TorchEager.step(self, *batch())
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad()
        with torch.cuda.graph(graph):
            self.loss = TorchEager.step(self, *batch())
        TorchEager.reset(self, self.weights)
        self.graph = graph

    def epoch(self, order):
        x, t = self.data["train"]
        order = self.put(order)
        if self.graph is None:
            self.chosen = order[0].clone()
            self.capture(lambda: (x[self.chosen], t[self.chosen]))
        for chosen in order:
            self.chosen.copy_(chosen)
            self.graph.replay()
            self.losses.append(self.loss.clone())

    def step(self, x, t):
        if self.graph is None:
            self.capture(lambda: (x, t))
        self.graph.replay()
        return self.loss


class Jax:
    """JAX with an epoch compiled as one ``lax.scan`` over its batches."""

    def __init__(self, data, learning_rate, gpu=False):
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_default_matmul_precision", "highest")  # on a GPU it would round to TF32, the others not
        self.jax, self.device = jax, jax.devices("gpu" if gpu else "cpu")[0]

        def predict(params, x):
            depth = len(params) // 2
            for n in range(1, depth):
                x = jnp.maximum(x @ params[f"W{n}"] + params[f"b{n}"], 0)
            return x @ params[f"W{depth}"] + params[f"b{depth}"]

        def loss(params, x, t):
            log_y = jax.nn.log_softmax(predict(params, x))
            return -jnp.mean(jnp.take_along_axis(log_y, t[:, None], axis=-1))

        def step(params, x, t):
            value, gradients = jax.value_and_grad(loss)(params, x, t)
            return jax.tree.map(lambda p, g: p - learning_rate * g, params, gradients), value

        def epoch(params, x, t, order):
            return jax.lax.scan(lambda params, chosen: step(params, x[chosen], t[chosen]), params, order)

        self._step = jax.jit(step, donate_argnums=0)
        self._epoch = jax.jit(epoch, donate_argnums=0)
        self._accuracy = jax.jit(lambda params, x, t: jnp.mean(jnp.argmax(predict(params, x), axis=-1) == t))
        self.data = {part: (self.put(x), self.put(t)) for part, (x, t) in data.items()}

    def put(self, x):
        return self.jax.device_put(x, self.device)

    def reset(self, weights):
        self.params = {name: self.put(np.array(w)) for name, w in weights.items()}
        self.losses = []

    def epoch(self, order):
        self.params, losses = self._epoch(self.params, *self.data["train"], self.put(order))
        self.losses.append(losses)

    def step(self, x, t):
        self.params, _ = self._step(self.params, x, t)
        return self.params["W1"]

    def accuracy(self, part):
        return float(self._accuracy(self.params, *self.data[part]))
