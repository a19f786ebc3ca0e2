"""Networks that are hard on a checker. Each function takes a Draw and returns (network, layer to plant in, x, t)."""

from xpnet import Affine, IdentityWithLoss, Network
from xpnet import Relu as OwnRelu
from xpnet import Sigmoid as OwnSigmoid
from xpnet import Softmax as OwnSoftmax

from .activations import Relu, Sigmoid, Tanh
from .base import Layer, space
from .dense import Dense
from .foreign import foreign
from .networks import affine
from .normalization import BatchNorm, LayerNorm

# ── Vanishing gradients ──────────────────────────────────────────────────────────────────────────────────────────────


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


# ── Normalization ────────────────────────────────────────────────────────────────────────────────────────────────────


def normalized(norm, activation, n, width):
    """Return a maker of a network with two normalizations behind Affine layers with biases."""

    def make(draw):
        first, second = (norm(draw.uniform(0.5, 1.5, width), draw.normal(width, scale=0.3)) for _ in range(2))
        layers = [affine(draw, 4, width), first, activation(), affine(draw, width, width), second, activation()]
        return Network([*layers, affine(draw, width, 3)]), first, draw.normal(n, 4), draw.labels(n, 3)

    make.__name__ = f"{norm.__name__}_{activation.__name__}_{n}_{width}".lower()
    return make


# ── Kinks, zeros, and weights used twice ─────────────────────────────────────────────────────────────────────────────


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


def sparse(draw):
    """Some inputs are 0 in every sample, as the rim of images: their weights have no gradient."""
    first = Dense(draw.normal(8, 6, scale=0.5), draw.normal(6, scale=0.1))
    mask = draw.put((draw.rng.random(8) < 0.6).astype(float))
    net = Network([first, Relu(), affine(draw, 6, 3)])
    return net, first, draw.uniform(0, 1, 10, 8) * mask, draw.labels(10, 3)


def dead_unit(draw):
    """One unit answers no sample."""
    bias = draw.rng.standard_normal(6) * 0.1
    bias[2] = -20
    first = Dense(draw.normal(4, 6, scale=0.5), draw.put(bias))
    return Network([first, Relu(), affine(draw, 6, 3)]), first, draw.normal(10, 4), draw.labels(10, 3)


def raw_images(draw):
    """Pixels from 0 to 255, most of them 0."""
    pixels = draw.rng.integers(0, 256, size=(8, 12)) * (draw.rng.random((8, 12)) < 0.4)
    first = Dense(draw.normal(12, 5, scale=0.01), draw.normal(5, scale=0.01))
    return Network([first, Relu(), affine(draw, 5, 3)]), first, draw.put(pixels.astype(float)), draw.labels(8, 3)


def zero_biases(draw):
    """Biases 0 and a sample of zeros: every unit of it lies on its kink."""
    x = draw.rng.standard_normal((8, 4))
    x[3] = 0
    first = Dense(draw.normal(4, 5, scale=0.7), draw.full(0, 5))
    return Network([first, Relu(), affine(draw, 5, 3)]), first, draw.put(x), draw.labels(8, 3)


def wide(draw):
    """Many samples and weights: each weight's gradient is small beside the loss."""
    first = Dense(draw.normal(20, 15, scale=0.25), draw.normal(15, scale=0.1))
    return Network([first, Relu(), affine(draw, 15, 5)]), first, draw.normal(60, 20), draw.labels(60, 5)


# ── Layers of xpnet, which propagate differences ─────────────────────────────────────────────────────────────────────


def own(activation, outputs=None):
    """Return a maker of a network of xpnet's own layers; the mistake is in its activation."""

    def make(draw):
        layer = activation()
        layer.parameters = ()
        net = Network([affine(draw, 6, 5), layer, affine(draw, 5, 4)], outputs and outputs())
        t = draw.labels(9, 4) if outputs is None else draw.normal(9, 4)
        return net, layer, draw.normal(9, 6), t

    make.__name__ = f"own_{activation.__name__.lower()}{'_squares' if outputs else ''}"
    return make


def own_affine(draw):
    """The mistake is in the second Affine."""
    last = affine(draw, 5, 4)
    return Network([affine(draw, 6, 5), OwnSigmoid(), last]), last, draw.normal(9, 6), draw.labels(9, 4)


# ── Layers that compute in float32 whatever comes ────────────────────────────────────────────────────────────────────


class Float32Tanh(Layer):
    """As a kernel that is compiled for float32 alone."""

    bugs = ("1 - y", "1 + y²")

    def forward(self, x):
        xp = space(x)
        self.y = xp.tanh(xp.astype(x, xp.float32))
        return self.y

    def backward(self, dout):
        y = self.y
        return dout * {"1 - y": 1 - y, "1 + y²": 1 + y * y}.get(self.bug, 1 - y * y)


def float32_inside(draw):
    layer = Float32Tanh()
    return Network([affine(draw, 4, 5), layer, affine(draw, 5, 3)]), layer, draw.normal(8, 4), draw.labels(8, 3)


def float32_last(draw):
    layer = Float32Tanh()
    return Network([affine(draw, 4, 3), layer], IdentityWithLoss()), layer, draw.normal(8, 4), draw.normal(8, 3)


HARD = {
    "vanishing": [
        deep_tanh,
        deep_affine_tanh,
        deep_sigmoid,
        saturated_sigmoid,
        saturated_tanh,
        sure,
        small_outputs,
    ],
    "norms": [
        *(normalized(BatchNorm, a, n, w) for a in (Relu, Tanh, Sigmoid) for n, w in ((5, 3), (8, 6), (20, 5))),
        *(normalized(LayerNorm, a, n, w) for a in (Relu, Tanh) for n, w in ((5, 4), (8, 6))),
    ],
    "networks": [
        *(all_relu, sparse, dead_unit, raw_images, wide, autoencoder, own_affine, own(OwnRelu), own(OwnSigmoid)),
        *(own(OwnSigmoid, IdentityWithLoss), own(OwnSoftmax, IdentityWithLoss)),
        *(foreign(loss, norm) for loss in ("entropy", "squares") for norm in (False, True)),
        foreign("entropy", n=60, sizes=(20, 15, 5)),
    ],
    "at kinks": [zero_biases],
    "float32 alone": [float32_inside, float32_last],
}
