"""Numerical gradients of networks: how near they are to the exact ones."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnet import Affine, Network, Sigmoid, TwoLayerNet


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=2, max_size=4), samples=st.integers(1, 6), seed=st.integers(0, 2**32 - 1)
)
def test_sigmoid_networks_against_automatic_differentiation(sizes, samples, seed):
    torch = pytest.importorskip("torch")
    sizes = [*sizes, 3]
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape) for a, b in pairwise(sizes) for shape in ((a, b), (b,))]
    layers = [layer for W, b in zip(weights[::2], weights[1::2], strict=True) for layer in (Affine(W, b), Sigmoid())]
    x, t = rng.normal(size=(samples, sizes[0])), rng.integers(0, 3, samples)
    gradient = Network(layers[:-1]).numerical_gradient(x, t)

    leaves = [torch.tensor(w, requires_grad=True) for w in weights]
    y = torch.tensor(x)
    for W, b in zip(leaves[::2], leaves[1::2], strict=True):
        y = (y if W is leaves[0] else torch.sigmoid(y)) @ W + b
    torch.nn.functional.cross_entropy(y, torch.tensor(t)).backward()
    relative = [
        np.abs(n - leaf.grad.numpy()) / np.abs(leaf.grad.numpy())
        for n, leaf in zip(gradient.values(), leaves, strict=True)
    ]
    assert np.median(np.concatenate([np.ravel(r) for r in relative])) <= 1e-9
    largest = max(float(leaf.grad.abs().max()) for leaf in leaves)
    for n, leaf in zip(gradient.values(), leaves, strict=True):
        np.testing.assert_allclose(n, leaf.grad.numpy(), rtol=0, atol=1e-8 * largest)


@pytest.fixture(scope="module")
def trained():
    """Weights of 40-20-5 after 300 steps on samples it learns, with a batch."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 5
    x = np.clip(np.eye(5).repeat(8, axis=1)[labels] * 0.6 + rng.normal(scale=0.35, size=(100, 40)), 0, 1)
    nets = {}
    for activation in ("relu", "sigmoid"):
        net = nets[activation] = TwoLayerNet(40, 20, 5, 0.1, activation=activation)
        for _ in range(300):
            for name, g in net.gradient(x, labels).items():
                net.params[name] -= 0.1 * g
        assert net.accuracy(x, labels) > 0.9
    return nets, x, labels


@pytest.mark.parametrize("kind", ["relu", "sigmoid"])
def test_float32_is_near_a_float64_backpropagation(case, trained, kind):
    """The median relative error is at most 2e-6, where a loop through the loss would be wrong by about a third."""
    nets, x, t = trained
    narrow = TwoLayerNet(40, 20, 5, activation=kind, dtype="float32", backend=case.backend)
    wide = TwoLayerNet(40, 20, 5, activation=kind)
    float32 = {name: value.astype("float32") for name, value in nets[kind].params.items()}
    for name, value in float32.items():
        narrow.params[name] = case.asarray(value, "float32")
        wide.params[name] = value.astype("float64")
    x = x.astype("float32")
    gradient = case.host(narrow.numerical_gradient(case.asarray(x, "float32"), case.asarray(t)))
    exact = wide.gradient(x.astype("float64"), t)
    n, a = (np.concatenate([np.ravel(g[name]) for name in exact]) for g in (gradient, exact))
    assert gradient["W1"].dtype == np.float32
    some = a != 0
    assert np.median(np.abs(n - a)[some] / np.abs(a)[some]) <= 2e-6


def test_float32_is_as_near_where_the_probability_of_a_class_is_small():
    """Where p is small, so is the change of the loss by its score: as accurate as backpropagation, relative to p."""
    W = np.asarray([[0.0, 8.0, 9.0, 20.0]], dtype="float32")
    x, t = np.ones((1, 1), dtype="float32"), np.asarray([3])
    numerical = Network([Affine(W)]).numerical_gradient(x, t)["W1"]
    exact = np.exp(W.astype("float64")) / np.exp(W.astype("float64")).sum()
    np.testing.assert_allclose(numerical[0, :3], exact[0, :3], rtol=2e-5)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_float64_is_near_backpropagation(trained, activation):
    nets, x, t = trained
    net = nets[activation]
    numerical, exact = net.numerical_gradient(x, t), net.gradient(x, t)
    n, a = (np.concatenate([np.ravel(g[name]) for name in exact]) for g in (numerical, exact))
    some = a != 0
    assert np.median(np.abs(n - a)[some] / np.abs(a)[some]) <= 1e-9
