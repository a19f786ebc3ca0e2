"""What a check would never come to look at is named: arrays that nobody counts, memory that two share, other modes."""

import numpy as np
import pytest
from zoo.hard import Decoder

from xpnet import Affine, IdentityWithLoss, Network, Relu, Sigmoid, SoftmaxWithLoss, TwoLayerNet, check_gradients


class BookAffine:
    """The book's layer as printed: it names nothing that it learns."""

    def __init__(self, W, b, factor=1.0):
        self.W, self.b, self.factor = W, b, factor

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.factor * self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.W.T


@pytest.fixture
def batch(rng):
    return rng.normal(size=(9, 6)), rng.integers(4, size=9)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_arrays_that_are_in_no_parameters_are_named(batch, factor, rng):
    x, t = batch
    layer = BookAffine(rng.normal(size=(6, 4)), np.zeros(4), factor)
    alone = check_gradients(layer, x)
    within = check_gradients(Network([layer, Affine(rng.normal(size=(4, 4)))]), x, t)
    for check in (alone, within):
        assert not check
        assert any('write parameters = ("W", …) in BookAffine' in line for line in check.problems), check
        assert any('write parameters = ("b", …) in BookAffine' in line for line in check.problems), check
    layer.parameters = ("W", "b")
    assert bool(check_gradients(layer, x)) is (factor == 1.0)


def test_what_another_forward_replaces_is_no_parameter(batch):
    class Keeps(Relu):
        def forward(self, x):
            self.y = super().forward(x)
            return self.y

        def backward(self, dout):
            self.dy = dout
            return super().backward(dout)

    assert check_gradients(Keeps(), batch[0])


def test_an_output_layer_that_learns_is_named(batch, rng):
    class Tempered(SoftmaxWithLoss):
        parameters = ("s",)

        def __init__(self):
            self.s = np.asarray([2.0])

        def forward(self, x, t):
            self.x = x
            return super().forward(x * self.s, t)

        def backward(self, dout=1.0):
            dx = super().backward(dout)
            self.ds = 77 * np.sum(dx * self.x, keepdims=True)[0]
            return dx * self.s

    x, t = batch
    check = check_gradients(Network([Affine(rng.normal(size=(6, 4)))], Tempered()), x, t)
    assert not check
    assert any(
        "Tempered learns s, but what an output layer learns is neither trained nor checked" in p for p in check.problems
    )


def test_memory_that_two_parameters_share_is_named(rng):
    W, x = rng.normal(size=(4, 3)), rng.normal(size=(5, 4))
    check = check_gradients(Network([Affine(W), Sigmoid(), Affine(W.T)], IdentityWithLoss()), x, x)
    assert check
    assert "W1 and W2 share memory" in repr(check)


def test_a_weight_that_another_layer_uses_is_named(rng):
    class Encoder(Affine):
        decoder = None

        def backward_parameters(self, dout):
            super().backward_parameters(dout)
            self.dW = self.dW + self.decoder.share

    x, encoder = rng.normal(size=(5, 4)), Encoder(rng.normal(size=(4, 3)))
    encoder.decoder = Decoder(encoder)
    check = check_gradients(Network([encoder, Sigmoid(), encoder.decoder], IdentityWithLoss()), x, x)
    assert check
    assert "W1 is used by Encoder1 and Decoder1: its gradient is the sum of both" in repr(check)
    encoder.decoder.backward = lambda dout: (setattr(encoder.decoder, "share", 0.0), dout @ encoder.W)[1]
    assert check_gradients(Network([encoder, Sigmoid(), encoder.decoder], IdentityWithLoss()), x, x).failed == 12


def test_entries_that_lie_on_one_another_are_refused(batch):
    W = np.lib.stride_tricks.as_strided(np.arange(9.0), (6, 4), (8, 8))
    check = check_gradients(Network([Affine(W)]), *batch)
    assert not check
    assert any("entries of W1 share memory with one another" in line for line in check.problems)


def test_an_argument_for_the_mode_is_asked_about_where_entries_fail(batch):
    """The loss is that of evaluation, the gradient that of training, with half the units dropped."""

    class Moded:
        def __init__(self):
            self.net, self.kept = TwoLayerNet(6, 5, 4, 0.5), np.asarray([1.0, 0.0, 1.0, 0.0, 1.0])
            self.params = dict(self.net.params)

        def loss(self, x, t, train_flg=False):
            factor = self.kept if train_flg else 0.6
            before = self.net.params["W2"].copy()
            self.net.params["W2"][...] = before * (factor[:, None] if train_flg else factor)
            try:
                return self.net.loss(x, t)
            finally:
                self.net.params["W2"][...] = before

        def gradient(self, x, t):
            return self.net.gradient(x, t)

    check = check_gradients(Moded(), *batch)
    assert check.failed
    assert "loss(x, t) has an argument train_flg: is the gradient that of the same mode?" in " ".join(check.notes)


def test_a_mode_that_changes_no_loss_is_not_asked_about(batch):
    network = TwoLayerNet(6, 5, 4, 0.5)
    right = network.last_layer.backward
    network.last_layer.backward = lambda dout=1.0: 2 * right(dout)
    check = check_gradients(network, *batch)
    assert check.failed
    assert "train_flg" not in " ".join(check.notes)


def test_assigned_parameters_are_copies(batch):
    one, other = TwoLayerNet(6, 5, 4, 0.5), TwoLayerNet(6, 5, 4, 0.5, rng=1)
    for name in other.params:
        other.params[name] = one.params[name]
    before = one.params["W1"].copy()
    other.params["W1"] -= 1.0
    assert (one.params["W1"] == before).all()
