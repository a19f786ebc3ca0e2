"""Numerical gradients of networks: what a subclass, a frozen parameter or a loss of one's own changes."""

import numpy as np
import pytest
from conftest import Scale

from xpnet import Affine, IdentityWithLoss, Network, Relu, Sigmoid


class Leaky(Relu):
    """A forward and backward of its own; what it inherits as difference is that of Relu."""

    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, 0.1 * x)

    def backward(self, dout):
        return np.where(self.x > 0, dout, 0.1 * dout)


class Twice(Affine):
    """Twice the affine map; difference and backward_parameters are inherited from the plain one."""

    def forward(self, x):
        return 2.0 * super().forward(x)

    def backward(self, dout):
        return super().backward(2.0 * dout)


@pytest.mark.parametrize("own", [Leaky, Twice])
def test_a_subclass_with_a_forward_of_its_own_does_not_inherit_a_difference(own, rng):
    a = lambda *shape: rng.normal(size=shape)  # noqa: E731
    first = Twice(a(4, 3), a(3)) if own is Twice else Affine(a(4, 3), a(3))
    net = Network([first, Leaky() if own is Leaky else Relu(), Affine(a(3, 2))])
    x, t = a(6, 4), rng.integers(2, size=6)
    auto, loop, backward = net.numerical_gradient(x, t), net.numerical_gradient(x, t, method="loop"), net.gradient(x, t)
    for name in net.params:
        np.testing.assert_allclose(auto[name], loop[name], atol=1e-6)
        np.testing.assert_allclose(backward[name], loop[name], atol=1e-6)


@pytest.mark.parametrize("learned", [("W",), ("b",), ("b", "W")])
def test_a_frozen_parameter_is_left_out(learned, rng):
    layer = Affine(rng.normal(size=(4, 3)), rng.normal(size=3))
    layer.parameters = learned
    net = Network([layer, Sigmoid(), Affine(rng.normal(size=(3, 2)))])
    x, t = rng.normal(size=(6, 4)), rng.integers(2, size=6)
    numerical, gradient = net.numerical_gradient(x, t), net.gradient(x, t)
    assert numerical.keys() == gradient.keys() == net.params.keys()
    for name in net.params:
        np.testing.assert_allclose(numerical[name], gradient[name], rtol=1e-9, atol=1e-15)


def test_a_loss_of_its_own_takes_the_plain_loop(rng):
    class Decaying(Network):
        def loss(self, x, t):
            return super().loss(x, t) + 0.05 * np.sum(self.params["W1"] ** 2)

    net = Decaying([Affine(rng.normal(size=(4, 3)))])
    x, t = rng.normal(size=(6, 4)), rng.integers(3, size=6)
    expected = net.gradient(x, t)["W1"] + 0.1 * net.params["W1"]
    np.testing.assert_allclose(net.numerical_gradient(x, t)["W1"], expected, atol=1e-7)
    with pytest.raises(ValueError, match="Decaying has a loss or predict of its own"):
        net.numerical_gradient(x, t, method="difference")


def test_one_hot_integers_stay_targets_on_a_stack(rng):
    net = Network([Affine(rng.normal(size=(4, 3)))])
    x, t = rng.normal(size=(3, 4)), np.eye(3, dtype=int)
    expected = net.gradient(x, t)["W1"]
    for method in ("stacked", "difference"):
        np.testing.assert_allclose(net.numerical_gradient(x, t, method=method)["W1"], expected, atol=1e-7)


@pytest.mark.parametrize("h", [0.0, -1e-4, np.nan])
def test_a_step_that_is_not_positive_is_refused(h, rng):
    net = Network([Affine(rng.normal(size=(4, 3)))])
    with pytest.raises(ValueError, match="must be a positive number"):
        net.numerical_gradient(rng.normal(size=(3, 4)), np.asarray([0, 1, 2]), h=h)


def test_a_step_from_numpy_does_not_promote_float32(rng):
    net = Network([Affine(rng.normal(size=(4, 3)).astype("float32"))])
    x, t = rng.normal(size=(3, 4)).astype("float32"), np.asarray([0, 1, 2])
    assert net.numerical_gradient(x, t, h=np.float64(1e-3))["W1"].dtype == np.float32


class Doubling:
    """Twice what a layer answers; what it does not have itself, it takes from that layer, ``difference`` included."""

    def __init__(self, layer):
        self.layer = layer

    def __getattr__(self, name):
        return getattr(self.layer, name)

    def forward(self, x):
        return 2.0 * self.layer.forward(x)

    def backward(self, dout):
        return self.layer.backward(2.0 * dout)


class TwoAxes(Sigmoid):
    """A layer that takes (N, D) and nothing else."""

    def forward(self, x):
        if x.ndim != 2:
            raise ValueError("two axes only")
        return super().forward(x)


@pytest.mark.parametrize("layer", [Doubling(Sigmoid()), TwoAxes()], ids=["a wrapper", "a layer of two axes"])
def test_a_layer_without_a_difference_of_its_own_is_run(layer, rng):
    net = Network([Affine(rng.normal(size=(4, 3)), rng.normal(size=3)), layer, Affine(rng.normal(size=(3, 2)))])
    x, t = rng.normal(size=(6, 4)), rng.integers(2, size=6)
    numerical, gradient = net.numerical_gradient(x, t), net.gradient(x, t)
    for name in net.params:
        np.testing.assert_allclose(numerical[name], gradient[name], rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", ["stacked", "loop"])
def test_a_step_that_is_stored_as_none_is_refused(method, rng):
    net = Network([Affine(rng.normal(size=(4, 3)))])
    with pytest.raises(ValueError, match="h = 1e-30 is too small: an entry plus h is stored as the entry itself"):
        net.numerical_gradient(rng.normal(size=(6, 4)), rng.integers(3, size=6), h=1e-30, method=method)


@pytest.mark.parametrize("gamma", [1.0, -1.0])
def test_a_step_stored_as_none_on_one_side_is_refused(gamma, rng):
    """1 + 2⁻⁵³ is stored as 1, though 1 − 2⁻⁵³ is not."""
    net = Network([Scale(np.full(4, gamma)), Affine(rng.normal(size=(4, 3)))])
    with pytest.raises(ValueError, match=r"h = 1\.1\d*e-16 is too small: an entry plus h is stored as the entry"):
        net.numerical_gradient(rng.normal(size=(6, 4)), rng.integers(3, size=6), h=2.0**-53)


class Offset:
    """x·(gamma − 10⁸): a large parameter of which small differences matter."""

    parameters = ("gamma",)

    def __init__(self, gamma):
        self.gamma = gamma

    def forward(self, x):
        self.x = x
        return x * (self.gamma - 1e8)

    def backward(self, dout):
        self.dgamma = (dout * self.x).sum(axis=0)
        return dout * (self.gamma - 1e8)


@pytest.mark.parametrize("method", ["stacked", "loop"])
def test_the_step_that_was_taken_is_the_divisor(method, rng):
    """At 10⁸ a step of 10⁻⁸ is stored as 1.5·10⁻⁸."""
    net = Network([Offset(np.full(2, 1e8))], IdentityWithLoss())
    x, t = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    expected = net.gradient(x, t)["gamma1"]
    np.testing.assert_allclose(net.numerical_gradient(x, t, h=1e-8, method=method)["gamma1"], expected, rtol=1e-6)


class TinyMean:
    """x less the mean of the whole stack, small: a layer that must not run on stacks."""

    def forward(self, x):
        return 1e-9 * (x - x.mean())

    def backward(self, dout):
        return 1e-9 * (dout - dout.mean())


def test_a_layer_that_couples_a_stack_is_seen_however_small_its_output(rng):
    net = Network([Affine(rng.normal(size=(4, 3))), TinyMean()])
    with pytest.raises(ValueError, match="TinyMean behind it gives other results for a stack of inputs than one by"):
        net.numerical_gradient(rng.normal(size=(6, 4)), rng.integers(3, size=6), method="stacked")
