"""Numerical gradients of networks: what is refused, and that everything is put back whatever happens."""

import numpy as np
import pytest
from conftest import Scale
from numerical import batch, build

from xpnet import Affine, Network, Sigmoid


class TestRefusals:
    def test_integer_parameters(self, case):
        net = Network([Affine(case.asarray([[1.0, 2.0], [3.0, 4.0]]))])
        net.layers["Affine1"].W = case.asarray([[1, 2], [3, 4]])
        with pytest.raises(TypeError, match=r"W1 has dtype .*int64.*convert with xp.astype\(W1, xp.float64\)"):
            net.numerical_gradient(case.asarray([[0.5, 0.5]]), case.asarray([0]))

    def test_complex_parameters(self):
        net = Network([Affine(np.eye(2))])
        net.layers["Affine1"].W = np.eye(2, dtype="complex128")
        with pytest.raises(TypeError, match="W1 has dtype complex128"):
            net.numerical_gradient(np.eye(2), np.asarray([0, 1]))

    def test_an_empty_batch(self, case):
        net = build("relu", case.asarray)
        with pytest.raises(ValueError, match=r"x has shape \(0, 4\): there is no sample"):
            net.numerical_gradient(case.asarray(np.zeros((0, 4))), case.asarray(np.zeros(0, dtype=int)))

    def test_shapes_that_do_not_fit(self, case):
        net, (x, t) = build("relu", case.asarray), batch(case.asarray)
        with pytest.raises(ValueError, match="the last axis of x must have length 4"):
            net.numerical_gradient(x[:, :3], t)
        with pytest.raises(ValueError, match="does not fit predictions"):
            net.numerical_gradient(x, t[:3, :])

    def test_an_unknown_method(self, case):
        net, (x, t) = build("relu", case.asarray), batch(case.asarray)
        with pytest.raises(ValueError, match="method is 'magic'; it must be one of auto, difference, stacked, loop"):
            net.numerical_gradient(x, t, method="magic")

    def test_differences_of_a_layer_that_has_none(self, case):
        net, (x, t) = build("a layer without difference", case.asarray), batch(case.asarray)
        with pytest.raises(ValueError, match=r"for the parameters of Affine: Tanh behind it has no method difference"):
            net.numerical_gradient(x, t, method="difference")

    @pytest.mark.parametrize("method", ["auto", "stacked", "loop"])
    def test_a_stack_of_batches(self, case, method):
        net, (x, t) = build("relu", case.asarray), batch(case.asarray)
        with pytest.raises(ValueError, match=r"the loss has shape \(2,\).*x must be one batch"):
            net.numerical_gradient(case.xp.stack([x, x]), case.xp.stack([t, t]), method=method)


class Fuse(Sigmoid):
    """A sigmoid without difference that blows at a given call of forward, and stays blown."""

    difference = property()  # hasattr is False
    left = 10**9  # of the class: what layers keep is put back

    def forward(self, x):
        Fuse.left -= 1
        if Fuse.left <= 0:
            raise RuntimeError("the fuse has blown")
        return super().forward(x)


@pytest.mark.parametrize("kind", [(m, calls) for m in ("stacked", "loop") for calls in (1, 2, 7, 20)], ids=str)
def test_everything_is_restored_when_a_layer_raises(case, kind, monkeypatch):
    method, calls = kind
    rng = np.random.default_rng(0)
    asarray = lambda *shape: case.asarray(rng.normal(size=shape))  # noqa: E731
    net = Network([Scale(asarray(4)), Affine(asarray(4, 3), asarray(3)), Fuse(), Affine(asarray(3, 3), asarray(3))])
    x, t = batch(case.asarray)
    before = {name: np.array(case.host(value)) for name, value in net.params.items()}
    gradient = {name: np.array(g) for name, g in case.host(net.gradient(x, t)).items()}
    remembered = {name: vars(layer).copy() for name, layer in net.layers.items()}
    monkeypatch.setattr(Fuse, "left", calls)
    with pytest.raises((RuntimeError, ValueError), match="the fuse has blown"):
        net.numerical_gradient(x, t, method=method, memory=1)
    monkeypatch.undo()
    for name, layer in net.layers.items():
        assert vars(layer).keys() == remembered[name].keys()
        assert all(vars(layer)[key] is value for key, value in remembered[name].items())
    for name, value in net.params.items():
        assert case.host(value).tobytes() == before[name].tobytes()
    for name, g in case.host(net.gradient(x, t)).items():
        assert g.tobytes() == gradient[name].tobytes()


@pytest.mark.parametrize(
    "kind",
    [
        (kind, method)
        for kind in ("sigmoid", "a layer without difference", "a layer that learns")
        for method in ("stacked", "loop", "auto")
    ],
    ids=str,
)
def test_layers_remember_afterwards_what_they_remembered_before(case, kind):
    """Another batch: the very same objects, so that backward still belongs to it, and parameters of the same bits."""
    kind, method = kind
    net, (x, t) = build(kind, case.asarray), batch(case.asarray)
    net.gradient(x[:2, :], t[:2, :])
    layers = [*net.layers.values(), net.last_layer]
    held = [vars(layer).copy() for layer in layers]
    before = {name: np.array(case.host(value)) for name, value in net.params.items()}
    net.numerical_gradient(x, t, method=method)
    for layer, kept in zip(layers, held, strict=True):
        assert vars(layer).keys() == kept.keys()
        assert all(vars(layer)[key] is value for key, value in kept.items())
    for name, value in net.params.items():
        assert case.host(value).tobytes() == before[name].tobytes()
