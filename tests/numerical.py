"""Networks whose numerical gradients are taken, and the book's plain loop to take them with."""

import numpy as np
from array_api_compat import array_namespace
from conftest import Scale

from xpnet import Affine, IdentityWithLoss, Network, Relu, Sigmoid, Softmax, SoftmaxWithLoss


class Tanh:
    """A user's activation: no difference."""

    def forward(self, x):
        self.y = array_namespace(x).tanh(x)
        return self.y

    def backward(self, dout):
        return dout * (1 - self.y**2)


class QuarticLoss:
    """A user's output layer: ¼ Σ (x − t)⁴, averaged over the batch."""

    def forward(self, x, t):
        self.error = x - t
        return array_namespace(x).mean(array_namespace(x).sum(self.error**4 / 4, axis=-1), axis=-1)

    def backward(self, dout=1.0):
        return dout * self.error**3 / self.error.shape[-2]


class Centre:
    """Takes the mean over the batch away, the first axis: samples are coupled, and a stack is not understood."""

    def forward(self, x):
        return x - array_namespace(x).mean(x, axis=0, keepdims=True)

    def backward(self, dout):
        return dout - array_namespace(dout).mean(dout, axis=0, keepdims=True)


class CentreWithDifference:
    """The same over the last axis but one, with a difference, which a layer that couples samples must not have."""

    def forward(self, x):
        return x - array_namespace(x).mean(x, axis=-2, keepdims=True)

    backward = forward

    def difference(self, x, dx):
        return self.forward(dx)


def two_layers(activation):
    return lambda a: [Affine(a(4, 3), a(3)), activation(), Affine(a(3, 3), a(3))]


NETWORKS = {  # name: layers from a(rows, columns), output layer, how "auto" goes for each parameter
    "relu": (two_layers(Relu), SoftmaxWithLoss, ["difference"] * 4),
    "sigmoid": (two_layers(Sigmoid), SoftmaxWithLoss, ["difference"] * 4),
    "three layers": (
        lambda a: [*two_layers(Relu)(a), Sigmoid(), Affine(a(3, 3), a(3))],
        SoftmaxWithLoss,
        ["difference"] * 6,
    ),
    "four layers": (
        lambda a: [*two_layers(Sigmoid)(a), Relu(), Affine(a(3, 3)), Sigmoid(), Affine(a(3, 3), a(3))],
        SoftmaxWithLoss,
        ["difference"] * 7,
    ),
    "two activations": (
        lambda a: [Affine(a(4, 3), a(3)), Sigmoid(), Relu(), Affine(a(3, 3))],
        SoftmaxWithLoss,
        ["difference"] * 3,
    ),
    "two products": (lambda a: [Affine(a(4, 3), a(3)), Affine(a(3, 3))], SoftmaxWithLoss, ["difference"] * 3),
    "squares of softmax": (lambda a: [*two_layers(Relu)(a), Softmax()], IdentityWithLoss, ["difference"] * 4),
    "no bias": (lambda a: [Affine(a(4, 3)), Relu(), Affine(a(3, 3))], SoftmaxWithLoss, ["difference"] * 2),
    "one product": (lambda a: [Affine(a(4, 3))], SoftmaxWithLoss, ["difference"]),
    "a layer without difference": (two_layers(Tanh), SoftmaxWithLoss, ["stacked"] * 2 + ["difference"] * 2),
    "a layer that learns": (
        lambda a: [Affine(a(4, 3)), Scale(a(3)), Sigmoid(), Affine(a(3, 3))],
        SoftmaxWithLoss,
        ["stacked"] * 2 + ["difference"],
    ),
    "an output layer without difference": (two_layers(Sigmoid), QuarticLoss, ["stacked"] * 4),
    "coupled samples": (
        lambda a: [Affine(a(4, 3)), Centre(), Affine(a(3, 3), a(3))],
        SoftmaxWithLoss,
        ["loop"] + ["difference"] * 2,
    ),
    "coupled samples with difference": (
        lambda a: [Affine(a(4, 3), a(3)), CentreWithDifference(), Affine(a(3, 3))],
        SoftmaxWithLoss,
        ["stacked"] * 2 + ["difference"],
    ),
}


def build(name, asarray, seed=3):
    layers, last, _ = NETWORKS[name]
    rng = np.random.default_rng(seed)
    return Network(layers(lambda *shape: asarray(rng.normal(size=shape))), last())


def batch(asarray, seed=4, targets="soft"):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, 4)) * (rng.uniform(size=(5, 4)) < 0.6)
    t = {"soft": rng.uniform(size=(5, 3)), "labels": rng.integers(0, 3, 5)}[targets]
    return asarray(x), asarray(t)


def plain_loop(net, x, t, h):
    """The book's way, on NumPy: every entry up and down, two full evaluations each."""
    found = {}
    for name, value in net.params.items():
        found[name] = np.zeros_like(value)
        for index in np.ndindex(*value.shape):
            kept = value[index]
            value[index] = kept + h
            up = net.loss(x, t)
            value[index] = kept - h
            down = net.loss(x, t)
            value[index] = kept
            found[name][index] = (up - down) / (2 * h)
    return found
