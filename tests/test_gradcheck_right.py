"""Gradient checks: what is right passes, and the network is afterwards as it was before."""

import numpy as np
import pytest
from checking import batch, entry_times, gradient_changed, layer_sizes, network, of, parts

from xpnet import IdentityWithLoss, Network, Relu, Sigmoid, Softmax, TwoLayerNet, check_gradients


class TestRightOnesPass:
    @pytest.mark.parametrize("kind", ["relu", "sigmoid"])
    def test_on_every_backend(self, case, kind):
        net = TwoLayerNet(4, 3, 3, 0.5, activation=kind, dtype=case.dtype, backend=case.backend, rng=1)
        x, t = batch(5, 4, 3)
        check = check_gradients(net, case.asarray(x), case.asarray(t), audit=4)
        assert check
        assert check.checked == 27
        assert f", batch 5, {case.dtype}, " in check.title
        assert check.audit.startswith("4 of 4 entries agree")

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("method", ["auto", "stacked", "loop"])
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    @pytest.mark.parametrize("activation", ["relu", "sigmoid"])
    def test_two_layers(self, activation, dtype, method, seed):
        x, t = batch(seed=seed, dtype=dtype)
        assert check_gradients(network(5, activation, dtype, seed), x, t, method=method, rng=seed)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("activation", [Relu, Sigmoid])
    def test_deep_networks_with_soft_targets(self, activation, seed):
        rng = np.random.default_rng(seed)
        net = Network(layer_sizes(6, 8, 8, 8, 4, activation=activation, seed=seed))
        assert check_gradients(net, rng.normal(size=(9, 6)), rng.uniform(size=(9, 4)), rng=seed)

    @pytest.mark.parametrize("seed", range(3))
    def test_squares_of_softmax(self, seed):
        rng = np.random.default_rng(seed)
        net = Network([*layer_sizes(6, 5, 4, seed=seed), Softmax()], IdentityWithLoss())
        assert check_gradients(net, rng.normal(size=(9, 6)), rng.uniform(size=(9, 4)))

    @pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3])
    def test_inputs_of_any_size(self, factor):
        x, t = batch()
        net = Network(layer_sizes(6, 5, 4, activation=Sigmoid, scale=0.5 / max(factor, 1)))
        assert check_gradients(net, factor * x, t)

    def test_dead_units_and_features_have_gradient_zero(self):
        net, (x, t) = network(activation="relu"), batch()
        x[:, 2] = 0
        parts(net)[0].b[1] = -100
        check = check_gradients(net, x, t)
        assert check
        assert of(check, "W1").passed == 30

    def test_one_sample(self):
        x, t = batch()
        check = check_gradients(network(), x[0], t[0])
        assert check
        assert "batch 1, " in check.title

    def test_a_large_batch_in_float32(self):
        x, t = batch(1000, dtype="float32")
        assert check_gradients(network(activation="relu", dtype="float32"), x, t)

    def test_a_network_that_guesses_with_certainty(self):
        """Losses of hundreds, probabilities of 1e-200: the gradient is that of p − t all the same."""
        net, (x, t) = network(), batch()
        parts(net)[2].W *= 500
        assert check_gradients(net, x, t)

    def test_a_saturated_sigmoid(self):
        """Inputs of 0 … 255 and weights of 1: y·(1 − y) has no digits left, and that is no mistake."""
        x, t = batch(20, 10, 4)
        net = Network(layer_sizes(10, 9, 8, 7, 4, activation=Sigmoid, scale=1.0))
        assert check_gradients(net, 255 * x, t)

    def test_a_larger_tolerance_passes_more_and_a_smaller_one_is_met_by_the_error_bound(self):
        x, t = batch()
        wrong = gradient_changed(network(), W1=entry_times((2, 3), 1.0005))
        assert not check_gradients(wrong, x, t)
        assert check_gradients(wrong, x, t, tolerance=1e-3)
        for impossible in (1e-13, 1e-20):
            assert check_gradients(network(), x, t, tolerance=impossible)

    def test_the_batch_is_taken_in_the_dtype_of_the_parameters(self):
        """Backpropagation computes in float32; losses alone are also measured with parameters and batch in float64."""
        net, (x, t) = network(dtype="float32"), batch()
        seen, backpropagated, loss, gradient = set(), set(), net.loss, net.gradient
        net.loss = lambda x, t: seen.add((x.dtype.name, net.params["W1"].dtype.name)) or loss(x, t)
        net.gradient = lambda x, t: backpropagated.add(x.dtype.name) or gradient(x, t)
        assert "measured in float64" in check_gradients(net, x, t, method="loop").title
        assert seen == {("float32", "float32"), ("float64", "float64")}
        assert backpropagated == {"float32"}


@pytest.mark.parametrize("kind", ["auto", "stacked", "loop"])
def test_the_network_is_as_before(case, kind):
    net = TwoLayerNet(4, 3, 2, 0.5, dtype=case.dtype, backend=case.backend)
    x, t = (case.asarray(a) for a in batch(5, 4, 2))
    before = {name: np.array(case.host(value)) for name, value in net.params.items()}
    expected = {name: np.array(g) for name, g in case.host(net.gradient(x, t)).items()}
    given = np.array(case.host(x))
    check_gradients(net, x, t, method=kind, audit=4)
    assert case.host(x).tobytes() == given.tobytes()
    for name, g in case.host(net.gradient(x, t)).items():
        assert case.host(net.params[name]).tobytes() == before[name].tobytes()
        assert g.tobytes() == expected[name].tobytes()
