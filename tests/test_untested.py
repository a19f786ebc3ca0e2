"""What a batch cannot show: zeros on both sides, saturated units, ties, and what a layer keeps from its first call."""

import numpy as np
import pytest
from zoo import KINDS
from zoo.activations import Sigmoid as Plain
from zoo.base import Draw
from zoo.hard import normalized, saturated_sigmoid
from zoo.normalization import BatchNorm

from xpnet import Affine, Network, Relu, Sigmoid, TwoLayerNet, check_gradients


def drawn(seed, dtype="float64"):
    return Draw(
        np.random.default_rng(seed), lambda a: np.asarray(a, dtype if np.asarray(a).dtype.kind == "f" else None)
    )


def two_layers(weight=1.0, bias=0.0, activation=Relu, last=1.0, outputs=3, seed=0, first=Affine):
    rng = np.random.default_rng(seed)
    layers = [first(weight * rng.normal(size=(4, 5)), np.full(5, bias)), activation()]
    return Network([*layers, Affine(last * rng.normal(size=(5, outputs)))]), rng.normal(size=(6, 4)), np.arange(6) % 3


class ThreeTimes(Affine):
    def backward_parameters(self, dout):
        super().backward_parameters(dout)
        self.dW = 3 * self.dW


# ── What does nothing, here and elsewhere, is right ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", [Relu, Sigmoid])
@pytest.mark.parametrize("seed", range(3))
def test_a_bias_before_batch_normalization_passes_with_a_note(activation, dtype, seed):
    net, _, x, t = normalized(BatchNorm, activation, 8, 6)(drawn(seed, dtype))
    check = check_gradients(net, x, t)
    assert check, check
    assert [note.partition(" does nothing, here and")[0] for note in check.notes] == ["b1", "b3"]


def test_what_does_nothing_but_has_a_gradient_fails():
    class Decays(Affine):
        def backward_parameters(self, dout):
            super().backward_parameters(dout)
            self.db = self.db + 1e-6 * self.b

    draw = drawn(0)
    net, _, x, t = normalized(BatchNorm, Relu, 8, 6)(draw)
    first = next(iter(net.layers.values()))
    net = Network([Decays(first.W, first.b), *list(net.layers.values())[1:]])
    assert not check_gradients(net, x, t)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_weights_of_zero_pass_because_they_agree_elsewhere(activation, classes):
    t, x = np.tile(np.arange(classes), 3), np.random.default_rng(0).normal(size=(3 * classes, 4))
    check = check_gradients(TwoLayerNet(4, 5, classes, 0.0, activation=activation), x, t)
    assert check, check
    assert any(note.endswith("with all values moved at random, they agree") for note in check.notes)


# ── What matters elsewhere was not tested here ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("first", [Affine, ThreeTimes])
@pytest.mark.parametrize(
    ("how", "names", "cause"),
    [
        ({"bias": -99.0}, ["W1", "b1", "W2"], "its units are dead"),
        ({"bias": 99.0, "activation": Plain}, ["W1", "b1"], "its units are saturated"),
        ({"outputs": 1}, ["W1", "b1", "W2"], "softmax over one score is always 1"),
    ],
)
def test_dead_units_saturated_ones_and_one_score_are_named(how, names, cause, first):
    net, x, t = two_layers(**how, first=first)
    t = np.zeros((6, 1)) if "outputs" in how else t
    check = check_gradients(net, x, t)
    assert not check
    lines = [line for line in check.problems if "nothing was tested" in line]
    assert [line.split()[3] for line in lines] == names
    assert all(cause in line or "with all values moved at random" in line for line in lines)
    assert check.failed == 0


@pytest.mark.parametrize("first", [Affine, ThreeTimes])
def test_inputs_of_zero_are_named(first):
    net, x, t = two_layers(first=first, bias=0.5)
    check = check_gradients(net, 0 * x, t)
    assert not check
    says = "the inputs are all 0" if first is Affine else "backpropagation is 3 times the right one"
    assert any("every entry of W1 is 0 on both sides" in line and says in line for line in check.problems), check


def test_outputs_that_are_certain_of_every_label_are_named():
    net, x, _ = two_layers(last=1e3)
    check = check_gradients(net, x, net.predict(x).argmax(axis=1))
    assert not check
    assert check.failed == 0  # numbers of 1e-93 beside zeros are no mistake
    assert any("as if outputs were saturated" in line for line in check.problems)


# ── Steps of the numbers, and ties ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(4))
def test_slopes_that_come_in_steps_are_no_mistake(seed):
    net, _, x, t = saturated_sigmoid(drawn(seed, "float32"))
    check = check_gradients(net, x, t)
    assert not check.failed, check
    assert all("large enough for float32 to tell" in line for line in check.problems), check


@pytest.mark.parametrize("name", ["Relu", "LeakyRelu", "prelu", "MaxPool", "HardTanh"])
@pytest.mark.parametrize("seed", range(4))
def test_a_layer_alone_on_its_kinks_passes(name, seed):
    kind = next(kind for kind in KINDS if kind.name == name)
    draw = drawn(seed)
    check = check_gradients(kind.make(draw), kind.at_kink(kind.x(draw)))
    assert check, check
    assert sum(p.kinks for p in check.parameters)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("factor", [0.0, -1.0, 0.5, 1.0])
def test_a_check_in_which_nothing_agrees_does_not_pass(factor, dtype):
    """A loss of about 1 whose slopes are lost in its round-off."""

    class Faint:
        def forward(self, x):
            return 1 + 1e-18 * x.sum(axis=1)

        def backward(self, dout):
            return np.asarray(factor * 1e-18, dtype) * np.repeat(dout[:, None], 3, axis=1)

    assert not check_gradients(Faint(), np.random.default_rng(0).normal(size=(4, 3)).astype(dtype))


# ── What a layer keeps from its first call ───────────────────────────────────────────────────────────────────────────


class KeepsX(Affine):
    first = None

    def backward_parameters(self, dout):
        super().backward_parameters(dout)
        if self.first is None:
            self.first = self.x
        self.dW = self.first.T @ dout


class KeepsW(Affine):
    first = None

    def backward(self, dout):
        dx = super().backward(dout)
        if self.first is None:
            self.first = self.W
        return dx if self.first is self.W else dout @ self.first.T


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize(("kind", "wrong"), [(KeepsX, "W"), (KeepsW, "x")])
def test_what_is_kept_from_the_first_call_is_named(kind, wrong, scale, dtype):
    rng = np.random.default_rng(0)
    layer = kind(rng.normal(size=(4, 3)).astype(dtype), rng.normal(size=3).astype(dtype))
    check = check_gradients(layer, (scale * rng.normal(size=(6, 4))).astype(dtype))
    assert [p.name for p in check.parameters if p.failed] == [wrong]
    assert check.problems[-1] == (
        f"backpropagation is right at its first call, but not after one at other values: {wrong}; does a layer keep "
        "what it saw first?"
    )
    assert layer.first is None  # as it was


def test_a_layer_that_has_params_but_no_grads_is_told():
    class Bare:
        def __init__(self):
            self.params = [np.ones(3)]

        def forward(self, x):
            return x * self.params[0]

        def backward(self, dout):
            return dout * self.params[0]

    check = check_gradients(Bare(), np.ones((2, 3)))
    assert check.problems == ["backpropagation gives no gradient for params[0]: forgotten?"]


def test_no_target_may_be_given_as_none():
    assert check_gradients(Relu(), np.random.default_rng(0).normal(size=(3, 4)), None)


@pytest.mark.parametrize("factor", [1.01, 1.001, -1.0])
def test_what_is_wrong_from_the_first_call_on_is_not_said_to_be_kept(factor):
    class Wrong(Sigmoid):
        def backward(self, dout):
            return factor * super().backward(dout)

    check = check_gradients(Wrong(), np.random.default_rng(0).normal(size=(4, 3)))
    assert check.failed == 12
    assert not any("first call" in line for line in check.problems)
