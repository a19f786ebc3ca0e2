"""Networks around one layer, which is what a kind of layer is checked in beside being checked alone."""

import copy
import math

from xpnet import Affine, Network, SoftmaxWithLoss

from .activations import Tanh
from .base import Draw
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
