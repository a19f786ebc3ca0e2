"""Layers made of layers in a network: names, shared weights, gradients, training."""

import copy

import numpy as np
import pytest

from xpnet import (
    Affine,
    IdentityWithLoss,
    Network,
    Relu,
    Sigmoid,
    check_gradients,
    get_backend,
    numerical_gradient,
    train,
)


class Residual:
    """x plus what its layers make of x."""

    def __init__(self, *layers):
        self.layers = layers

    def forward(self, x):
        out = x
        for layer in self.layers:
            out = layer.forward(out)
        return x + out

    def backward(self, dout):
        dx = dout
        for layer in reversed(self.layers):
            dx = layer.backward(dx)
        return dout + dx


class Gated:
    """Parts by name, and a parameter of its own."""

    parameters = ("gate",)

    def __init__(self, gate, **layers):
        self.gate, self.layers = gate, layers

    def forward(self, x):
        self.x, self.out = x, x
        for layer in self.layers.values():
            self.out = layer.forward(self.out)
        return x + self.gate * self.out

    def backward(self, dout):
        self.dgate = (dout * self.out).sum(axis=0)
        dx = dout * self.gate
        for layer in reversed(self.layers.values()):
            dx = layer.backward(dx)
        return dout + dx


def a(rng, *shape):
    return rng.normal(size=shape)


def residual(rng):
    return Residual(Affine(a(rng, 4, 5), a(rng, 5)), Sigmoid(), Affine(a(rng, 5, 4), a(rng, 4)))


def deep(rng):
    gated = Gated(a(rng, 4), one=Affine(a(rng, 4, 4)), two=residual(rng))
    return Network([Affine(a(rng, 3, 4), a(rng, 4)), residual(rng), Relu(), gated, residual(rng), Affine(a(rng, 4, 3))])


def shared(rng, residual=Residual):
    W = a(rng, 4, 4)
    return Network([residual(Affine(W, a(rng, 4)), Sigmoid(), Affine(W, a(rng, 4))), Affine(a(rng, 4, 3))])


NETWORKS = {"deep": deep, "shared": shared}


def test_names_say_which_block_and_which_layer_in_it(rng):
    names = ["W1", "b1", "Residual1.W1", "Residual1.b1", "Residual1.W2", "Residual1.b2", "Gated1.gate", "Gated1.W1"]
    inside = [f"Gated1.Residual1.{name}" for name in ("W1", "b1", "W2", "b2")]
    names += [*inside, *(f"Residual2.{name}" for name in ("W1", "b1", "W2", "b2")), "W2"]
    network = deep(rng)
    assert list(network.params) == names
    assert network.params["Gated1.Residual1.b2"] is network.layers["Gated1"].layers["two"].layers[2].b


def test_one_array_in_two_places_of_a_block_is_one_parameter(rng):
    network = shared(rng)
    assert list(network.params) == ["Residual1.W1", "Residual1.b1", "Residual1.b2", "W1"]
    first, _, last = network.layers["Residual1"].layers
    network.params["Residual1.W1"] = np.ones((4, 4))
    assert first.W is last.W
    np.testing.assert_array_equal(first.W, np.ones((4, 4)))


def test_one_array_in_two_layers_of_a_network_is_an_accident(rng):
    W = a(rng, 4, 4)
    with pytest.raises(ValueError, match=r"parameters W1 and Residual1\.W1 are one and the same array"):
        Network([Affine(W), Residual(Affine(W))])


@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_are_those_of_the_loss(rng, kind):
    network, x, t = NETWORKS[kind](rng), a(rng, 6, 3 if kind == "deep" else 4), np.arange(6) % 3
    by_backpropagation, by_difference = network.gradient(x, t), network.numerical_gradient(x, t)
    assert list(by_backpropagation) == list(by_difference) == list(network.params)
    for name, value in network.params.items():
        book = numerical_gradient(lambda _: network.loss(x, t), value)
        np.testing.assert_allclose(by_backpropagation[name], book, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(by_difference[name], book, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_check_passes_and_names_the_entry_that_does_not(rng, kind):
    network, x, t = NETWORKS[kind](rng), a(rng, 6, 3 if kind == "deep" else 4), np.arange(6) % 3
    assert check_gradients(network, x, t)

    class Wrong(Affine):
        def backward_parameters(self, dout):
            super().backward_parameters(dout)
            self.dW[1, 2] *= -1

    planted = network.layers["Residual1"].layers[2]
    planted.__class__ = Wrong
    check = check_gradients(network, x, t)
    assert not check
    wrong = "Residual1.W1" if kind == "shared" else "Residual1.W2"
    assert {p.name: p.failed for p in check.parameters if p.failed} == {wrong: 1}
    assert next(p for p in check.parameters if p.name == wrong).largest.index == (1, 2)


@pytest.mark.parametrize("library", ["numpy", "jax", "torch"])
def test_training_moves_every_parameter_wherever_it_is(rng, library):
    pytest.importorskip(library, reason=f"{library} is not installed")
    backend = get_backend(library)
    network = deep(rng)
    for block in (network,):
        for name in block.params:
            owner, attribute = network.params._owners[name][0]
            setattr(owner, attribute, backend.asarray(block.params[name]))
    x, t = backend.asarray(a(rng, 20, 3)), backend.asarray(np.arange(20) % 3)
    before = {name: copy.deepcopy(np.asarray(value)) for name, value in network.params.items()}
    records = list(train(network, x, t, epochs=10, batch_size=10, learning_rate=0.05))
    assert records[-1].loss < records[0].loss
    for name, value in network.params.items():
        assert (np.asarray(value) != before[name]).any(), name


@pytest.mark.parametrize("method", ["difference", "stacked"])
def test_a_way_that_does_not_fit_is_told(rng, method):
    with pytest.raises(ValueError, match=rf"method='{method}' cannot be used for Residual1\.W1"):
        shared(rng).numerical_gradient(a(rng, 6, 4), np.arange(6) % 3, method=method)


def test_what_is_called_layers_but_holds_none_is_no_part(rng):
    for held in (3, "many", [1, 2], {"a": 1}, iter(())):
        layer = Affine(a(rng, 3, 3))
        layer.layers = held
        assert list(Network([layer], IdentityWithLoss()).params) == ["W1"]
