"""Gradient checks: mistakes planted in gradients are caught, and what they look like is named."""

import numpy as np
import pytest
from array_api_compat import array_namespace
from checking import batch, entry_times, failures, gradient_changed, layer_sizes, network, of, parts

from xpnet import Network, Sigmoid, SoftmaxWithLoss, TwoLayerNet, check_gradients


class TestPlanted:
    @pytest.mark.parametrize("method", ["auto", "loop"])
    @pytest.mark.parametrize("index", [(0, 0), (2, 3), (5, 4)])
    def test_five_hundredths_of_a_percent_in_one_entry(self, index, method):
        x, t = batch()
        check = check_gradients(gradient_changed(network(), W1=entry_times(index, 1.0005)), x, t, method=method)
        assert not check
        assert failures(check) == {"W1": 1}
        assert of(check, "W1").worst[0].index == index
        assert of(check, "W1").hint == "the ratio is 1.0005"

    @pytest.mark.parametrize("activation", ["relu", "sigmoid"])
    def test_five_hundredths_of_a_percent_in_float32(self, activation):
        x, t = batch(dtype="float32")
        wrong = gradient_changed(network(activation=activation, dtype="float32"), W2=entry_times((1, 2), 1.0005))
        check = check_gradients(wrong, x, t)
        assert failures(check) == {"W2": 1}
        assert of(check, "W2").largest.index == (1, 2)

    def test_one_sign_among_39_200_weights(self, rng):
        net = TwoLayerNet(784, 50, 10)
        x, t = rng.uniform(size=(10, 784)), rng.integers(0, 10, 10)
        check = check_gradients(gradient_changed(net, W1=entry_times((406, 17), -1)), x, t)
        assert failures(check) == {"W1": 1}
        entry = of(check, "W1").worst[0]
        assert entry.index == (406, 17)
        assert entry.ratio == pytest.approx(-1)
        assert of(check, "W1").hint == "the ratio is -1, a sign"
        assert check.checked == 39_760

    def test_mean_forgotten(self):
        net, (x, t) = network(), batch()
        right = net.last_layer.backward
        net.last_layer.backward = lambda dout=1.0: right(dout) * 7
        check = check_gradients(net, x, t)
        assert check.failed == check.checked
        for p in check.parameters:
            assert p.hint == "every ratio is 7, the batch size: a missing 1/N?"

    def test_mean_taken_twice(self):
        net, (x, t) = network(), batch()
        right = net.last_layer.backward
        net.last_layer.backward = lambda dout=1.0: right(dout) / 7
        assert {p.hint for p in check_gradients(net, x, t).parameters} == {
            "every ratio is 0.142857, 1/N: divided by N twice?"
        }

    @pytest.mark.parametrize(("factor", "says"), [(2.0, "2, a factor of two"), (0.5, "0.5, a factor of two")])
    def test_doubled_or_halved(self, factor, says):
        x, t = batch()
        check = check_gradients(gradient_changed(network(), W2=lambda g: factor * g), x, t)
        assert failures(check) == {"W2": 20}
        assert of(check, "W2").hint == f"every ratio is {says}"

    def test_negated(self):
        x, t = batch()
        check = check_gradients(gradient_changed(network(), b2=lambda g: -g), x, t)
        assert failures(check) == {"b2": 4}
        assert of(check, "b2").hint == "every ratio is -1, a sign"

    def test_transposed_square(self):
        x, t = batch()
        check = check_gradients(gradient_changed(network(hidden=4), W2=lambda g: g.T), x, t)
        assert failures(check) == {"W2": 12}
        assert of(check, "W2").hint == "every entry is that of the transposed matrix"

    def test_transposed_shape(self):
        x, t = batch()
        check = check_gradients(gradient_changed(network(), W1=lambda g: g.T), x, t)
        assert failures(check) == {"W1": 30}
        assert of(check, "W1").hint == "backpropagation has shape (5, 6): transposed?"

    def test_bias_forgotten(self):
        x, t = batch()
        check = check_gradients(gradient_changed(network(), b1=lambda g: 0 * g), x, t)
        assert failures(check) == {"b1": 5}
        assert of(check, "b1").hint == "backpropagation gives 0 for all of them: forgotten?"

    def test_sum_over_the_batch_forgotten_in_the_shape(self):
        net, (x, t) = network(), batch()
        affine = parts(net)[2]
        right = affine.backward

        def backward(dout):
            dx = right(dout)
            affine.db = dout
            return dx

        affine.backward = backward
        check = check_gradients(net, x, t)
        assert failures(check) == {"b2": 4}
        assert of(check, "b2").hint == "backpropagation has shape (7, 4): a sum over the batch is missing?"

    def test_sum_over_the_batch_forgotten_in_the_values(self):
        net, (x, t) = network(), batch()
        affine = parts(net)[2]
        right = affine.backward

        def backward(dout):
            dx = right(dout)
            affine.db = dout[0]
            return dx

        affine.backward = backward
        assert failures(check_gradients(net, x, t)) == {"b2": 4}

    def test_zero_for_everything(self):
        x, t = batch()
        wrong = gradient_changed(network(), **{name: lambda g: 0 * g for name in ("W1", "b1", "W2", "b2")})
        check = check_gradients(wrong, x, t)
        assert check.failed == check.checked
        assert {p.hint for p in check.parameters} == {"backpropagation gives 0 for all of them: forgotten?"}

    def test_derivative_of_sigmoid_as_y(self):
        net, (x, t) = network(), batch()
        sigmoid = parts(net)[1]
        sigmoid.backward = lambda dout: dout * sigmoid.y
        assert failures(check_gradients(net, x, t)) == {"W1": 30, "b1": 5}

    def test_mask_of_relu_missing(self):
        net, (x, t) = network(activation="relu"), batch()
        parts(net)[1].backward = lambda dout: dout
        check = check_gradients(net, x, t)
        assert set(failures(check)) == {"W1", "b1"}
        assert 0 < of(check, "b1").failed <= 5

    def test_nan_in_the_gradient(self):
        x, t = batch()
        check = check_gradients(gradient_changed(network(), W1=entry_times((1, 1), np.nan)), x, t)
        assert not check
        assert failures(check) == {"W1": 1}

    def test_a_loss_that_is_not_quite_the_one_differentiated(self):
        """log(y + 1e-7) instead of log(y): no entry is far off, nearly all are a little."""

        class Guarded(SoftmaxWithLoss):
            difference = property()  # not that of this loss

            def forward(self, x, t):
                super().forward(x, t)
                xp = array_namespace(x)
                self.loss = -xp.mean(xp.sum(self.t * xp.log(self.y + 3e-5), axis=-1), axis=-1)
                return self.loss

        check = check_gradients(Network(layer_sizes(6, 5, 4, activation=Sigmoid), Guarded()), *batch())
        assert not check
        assert check.failed > 0.5 * check.checked
        assert max(p.largest.error for p in check.parameters) < 1e-2
