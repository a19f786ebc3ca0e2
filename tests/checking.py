"""Small networks to check, mistakes planted in their gradients, and what a check says of them."""

from itertools import pairwise

import numpy as np

from xpnet import Affine, Relu, TwoLayerNet


def batch(samples=7, features=6, classes=4, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(samples, features)).astype(dtype), rng.integers(0, classes, samples)


def network(hidden=5, activation="sigmoid", dtype="float64", seed=0):
    return TwoLayerNet(6, hidden, 4, 0.5, activation=activation, dtype=dtype, rng=seed)


def parts(net):
    return list(net.layers.values())


def gradient_changed(net, **changes):
    """Replace gradients by name, W1=lambda g: …, after a right backpropagation."""
    right = net.gradient
    net.gradient = lambda x, t: {name: changes.get(name, lambda g: g)(g) for name, g in right(x, t).items()}
    return net


def entry_times(index, factor):
    def change(g):
        g = g.copy()
        g[index] *= factor
        return g

    return change


def failures(check):
    """Return {name: failed entries} of the parameters that have any."""
    return {p.name: p.failed for p in check.parameters if p.failed}


def failed(check):
    """Return {name: number of entries that failed} of a check that failed by its entries alone."""
    assert not check
    assert not check.problems, check
    return failures(check)


def problem(check):
    """Return the only problem of a check that failed."""
    assert not check
    assert len(check.problems) == 1, check
    return check.problems[0]


def of(check, name):
    return next(p for p in check.parameters if p.name == name)


def layer_sizes(*sizes, activation=Relu, seed=0, scale=None, dtype="float64"):
    rng = np.random.default_rng(seed)
    layers = []
    for rows, columns in pairwise(sizes):
        W = rng.normal(scale=scale or (2 / rows) ** 0.5, size=(rows, columns)).astype(dtype)
        layers += [Affine(W, np.zeros(columns, dtype=dtype)), activation()]
    return layers[:-1]
