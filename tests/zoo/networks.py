"""Networks: around one layer, with vanishing gradients, normalization or a weight used twice, and foreign ones."""

import copy
import math

from xpnet import Affine, IdentityWithLoss, Network, SoftmaxWithLoss

from .activations import Relu, Sigmoid, Tanh
from .base import Draw, space
from .dense import Dense
from .normalization import BatchNorm, LayerNorm
from .weightless import Flatten, Reshape


def affine(draw, inputs, outputs, std=1.0, positive=False):
    """Return an Affine of xpnet with random weights and biases."""
    if positive:
        return Affine(draw.uniform(0.1, 0.5, inputs, outputs), draw.uniform(0.1, 0.5, outputs))
    return Affine(draw.normal(inputs, outputs, scale=std / inputs**0.5), draw.normal(outputs, scale=0.3))


def around(layer, kind, out_shape, draw):
    """Return (network, x, t) with ``layer`` between Affine layers, or as the output layer behind them."""
    n, *shape = kind.shape
    features = math.prod(shape)
    x = draw.uniform(0.5, 1.5, n, 4) if kind.positive else draw.normal(n, 4)
    if kind.t:
        t = kind.t(draw)
        return Network([affine(draw, 4, 4), Tanh(), affine(draw, 4, features)], layer), x, t
    layers = [affine(draw, 4, features, positive=kind.positive)]
    layers += [Reshape(*shape)] if len(shape) > 1 else []
    layers += [layer, *([Flatten()] if len(out_shape) > 2 else []), affine(draw, math.prod(out_shape[1:]), 3)]
    return Network(layers, SoftmaxWithLoss()), x, draw.labels(n, 3)


def output_shape(kind, rng):
    """Return the shape of the output of a ``kind``'s layer, of one that is not used further."""
    draw = Draw(copy.deepcopy(rng))
    return tuple(kind.make(draw).forward(kind.x(draw)).shape)


# ── Networks that are hard on a checker. Each takes a Draw and returns (network, the layer to plant in, x, t) ────────


def deep_tanh(draw):
    """Ten layers, each of which shrinks the gradient: W1's is about 1e-6 of the last."""
    layers = []
    for _ in range(10):
        layers += [Dense(draw.normal(4, 4, scale=0.12), draw.normal(4, scale=0.02)), Tanh()]
    return Network([*layers, affine(draw, 4, 3)]), layers[0], draw.normal(5, 4), draw.labels(5, 3)


def deep_affine_tanh(draw):
    """The same of xpnet's own Affine layers, which propagate differences."""
    layers = []
    for _ in range(8):
        layers += [Affine(draw.normal(4, 4, scale=0.15), draw.normal(4, scale=0.02)), Tanh()]
    return Network([*layers, affine(draw, 4, 3)]), layers[1], draw.normal(5, 4), draw.labels(5, 3)


def deep_sigmoid(draw):
    layers = []
    for _ in range(6):
        layers += [Dense(draw.normal(4, 4), draw.normal(4)), Sigmoid()]
    return Network([*layers, affine(draw, 4, 3)]), layers[0], draw.normal(5, 4), draw.labels(5, 3)


def saturated_sigmoid(draw):
    """Units far from 0, where a slope is about 1e-5."""
    first = Dense(draw.normal(4, 5, scale=0.2), draw.uniform(9, 12, 5))
    return Network([first, Sigmoid(), affine(draw, 5, 3)]), first, draw.normal(6, 4), draw.labels(6, 3)


def saturated_tanh(draw):
    first = Dense(draw.normal(4, 5, scale=0.2), draw.uniform(4, 5, 5))
    return Network([first, Tanh(), affine(draw, 5, 3)]), first, draw.normal(6, 4), draw.labels(6, 3)


def sure(draw):
    """A network that is nearly sure of every label: its loss and gradients are about 1e-7."""
    first, last = Dense(draw.normal(4, 5), draw.normal(5)), affine(draw, 5, 3)
    net, x = Network([first, Tanh(), last]), draw.normal(6, 4)
    t = space(x).argmax(net.predict(x), axis=-1)
    net.params["W2"], net.params["b2"] = 12 * last.W, 12 * last.b
    return net, first, x, t


def small_outputs(draw):
    """A squared error of values about 1e-5."""
    first = Dense(draw.normal(4, 5, scale=1e-5), draw.normal(5, scale=1e-5))
    net = Network([first, Tanh(), affine(draw, 5, 2)], IdentityWithLoss())
    return net, first, draw.normal(6, 4), draw.full(0, 6, 2)


def normalized(norm, activation, n, width):
    """Return a maker of a network with two normalizations behind Affine layers with biases."""

    def make(draw):
        first, second = (norm(draw.uniform(0.5, 1.5, width), draw.normal(width, scale=0.3)) for _ in range(2))
        layers = [affine(draw, 4, width), first, activation(), affine(draw, width, width), second, activation()]
        return Network([*layers, affine(draw, width, 3)]), first, draw.normal(n, 4), draw.labels(n, 3)

    make.__name__ = f"{norm.__name__}_{activation.__name__}_{n}_{width}".lower()
    return make


def all_relu(draw):
    """Four Relu layers, with many kinks about."""
    layers = []
    for _ in range(4):
        layers += [Dense(draw.normal(6, 6, scale=0.6), draw.normal(6, scale=0.1)), Relu()]
    return Network([*layers, affine(draw, 6, 3)]), layers[0], draw.normal(10, 6), draw.labels(10, 3)


class Decoder:
    """Computes with the transposed weight of ``encoder``, and leaves it its share of the gradient."""

    def __init__(self, encoder):
        self.encoder = encoder

    def forward(self, x):
        self.x = x
        return x @ self.encoder.W.T

    def backward(self, dout):
        self.share = dout.T @ self.x
        return dout @ self.encoder.W


class Encoder(Dense):
    decoder = None

    def backward(self, dout):
        dx = super().backward(dout)
        self.dW = self.dW + self.decoder.share
        return dx


def autoencoder(draw):
    """One weight in two layers of a network."""
    encoder = Encoder(draw.normal(4, 3, scale=0.7), draw.normal(3))
    encoder.decoder, x = Decoder(encoder), draw.normal(6, 4)
    return Network([encoder, Tanh(), encoder.decoder], IdentityWithLoss()), encoder, x, x


# ── Foreign networks: a plain object with params, loss and gradient ──────────────────────────────────────────────────


class Foreign:
    """Tanh of an affine map, an affine map, and ``self.kind`` of loss; its layers are in ``parts``."""

    def __init__(self, draw, loss, norm=False):
        self.params = {"W1": draw.normal(4, 5), "b1": draw.normal(5), "W2": draw.normal(5, 3), "b2": draw.normal(3)}
        self.squared, self.spoil = loss == "squares", {}
        if norm:
            self.params |= {"gamma": draw.uniform(0.5, 1.5, 5), "beta": draw.normal(5)}

    def forward(self, x):
        p, xp = self.params, space(x)
        z = x @ p["W1"] + p["b1"]
        if "gamma" in p:
            c = z - xp.mean(z, axis=0)
            self.i = 1 / xp.sqrt(xp.mean(c * c, axis=0) + 1e-5)
            self.n = c * self.i
            z = p["gamma"] * self.n + p["beta"]
        self.h = xp.tanh(z)
        return self.h @ p["W2"] + p["b2"]

    def loss(self, x, t):
        xp, y = space(x), self.forward(x)
        if self.squared:
            return 0.5 * xp.sum((y - t) ** 2) / x.shape[0]
        z = y - xp.max(y, axis=1, keepdims=True)
        total = xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True))
        return -xp.sum((z - total) * t) / x.shape[0]

    def gradient(self, x, t):
        p, xp, y = self.params, space(x), self.forward(x)
        if not self.squared:
            e = xp.exp(y - xp.max(y, axis=1, keepdims=True))
            y = e / xp.sum(e, axis=1, keepdims=True)
        d = (y - t) / x.shape[0]
        grads = {"W2": self.h.T @ d, "b2": xp.sum(d, axis=0)}
        d = (d @ p["W2"].T) * (1 - self.h**2)
        if "gamma" in p:
            grads |= {"gamma": xp.sum(d * self.n, axis=0), "beta": xp.sum(d, axis=0)}
            g = d * p["gamma"]
            d = self.i * (g - xp.mean(g, axis=0) - self.n * xp.mean(g * self.n, axis=0))
        grads |= {"W1": x.T @ d, "b1": xp.sum(d, axis=0)}
        return {name: self.spoil.get(name, lambda g, v: g)(grads[name], p[name]) for name in p}


def foreign(loss, norm=False):
    def make(draw):
        net, x = Foreign(draw, loss, norm), draw.normal(7, 4)
        t = draw.normal(7, 3)
        if loss == "entropy":
            t = space(x).astype(t == space(x).max(t, axis=1, keepdims=True), x.dtype)
        return net, net, x, t

    make.__name__ = f"foreign_{loss}{'_norm' if norm else ''}"
    return make


HARD = {
    "vanishing": [
        deep_tanh, deep_affine_tanh, deep_sigmoid, saturated_sigmoid, saturated_tanh, sure, small_outputs,
    ],
    "norms": [
        *(normalized(BatchNorm, a, n, w) for a in (Relu, Tanh, Sigmoid) for n, w in ((5, 3), (8, 6), (20, 5))),
        *(normalized(LayerNorm, a, n, w) for a in (Relu, Tanh) for n, w in ((5, 4), (8, 6))),
    ],
    "networks": [
        all_relu, autoencoder, *(foreign(loss, norm) for loss in ("entropy", "squares") for norm in (False, True)),
    ],
}
