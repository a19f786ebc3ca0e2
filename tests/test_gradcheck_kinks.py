"""Gradient checks: kinks are told from mistakes."""

import numpy as np
import pytest
from checking import batch, entry_times, failures, gradient_changed, network, of, parts

from xpnet import check_gradients


class TestKinks:
    @pytest.mark.parametrize("method", ["auto", "stacked", "loop"])
    def test_rows_of_zeros_put_every_bias_on_a_kink(self, method):
        """With biases of zero, an image of zeros gives each hidden unit exactly 0, where relu bends."""
        net, (x, t) = network(activation="relu"), batch()
        x[:2] = 0
        check = check_gradients(net, x, t, method=method)
        assert check
        assert of(check, "b1").kinks == 5
        assert of(check, "W1").kinks == of(check, "W2").kinks == of(check, "b2").kinks == 0

    def test_a_wrong_slope_at_a_kink_is_wrong(self):
        x, t = batch()
        x[:2] = 0
        for wrong in (-1.0, 20.0):
            changed = gradient_changed(network(activation="relu"), b1=entry_times(2, wrong))
            check = check_gradients(changed, x, t)
            assert failures(check) == {"b1": 1}
            assert of(check, "b1").worst[0].index == (2,)

    def test_the_other_slope_is_allowed_too(self):
        net, (x, t) = network(activation="relu"), batch()
        x[:2] = 0
        relu = parts(net)[1]
        relu.backward = lambda dout: np.where(relu.x < 0, 0.0, dout)  # 1 at 0, where ours is 0
        assert check_gradients(net, x, t)

    @staticmethod
    def near_kinks():
        """Each of five units is 0.003 away from bending, at one sample."""
        net, (x, t) = network(activation="relu", seed=3), batch(30)
        W, bias = parts(net)[0].W, parts(net)[0].b
        bias[:] = 3e-3 - (x @ W)[:5].diagonal()
        return net, x, t

    @pytest.mark.parametrize("h", [None, 1e-6, 1e-2])
    def test_steps_that_meet_kinks_or_not_are_no_mistake(self, h):
        assert check_gradients(*self.near_kinks(), h=h, audit=0)

    def test_a_kink_that_only_a_large_step_meets_is_none(self):
        """The slopes do not stay apart as the step shrinks."""
        check = check_gradients(*self.near_kinks(), h=1e-2, audit=0)
        assert check
        assert sum(p.kinks for p in check.parameters) == 0

    @pytest.mark.parametrize("factor", [0.0, -1.0, 3.0])
    def test_a_bias_that_is_wrong_everywhere_is_no_noise(self, factor):
        """Inputs so small that the step takes every unit across zero: the check passes with b1 forgotten."""
        x, t = batch(30)
        wrong = gradient_changed(network(activation="relu", seed=3), b1=lambda g: factor * g)
        assert failures(check_gradients(wrong, 1e-7 * x, t)).keys() == {"b1"}

    def test_a_large_step_is_no_wrong_difference(self):
        x, t = batch(30)
        assert check_gradients(network(activation="relu", seed=3), x, t, h=0.1, audit=59).problems == []

    @pytest.mark.parametrize("h", [None, 1e-2])
    def test_a_smooth_network_has_none(self, h):
        x, t = batch()
        x[:2] = 0
        check = check_gradients(network(), x, t, h=h)
        assert check
        assert sum(p.kinks for p in check.parameters) == 0

    def test_a_mistake_is_not_taken_for_a_kink(self):
        """All entries wrong by a tenth, many of them on a kink or near one."""
        net, (x, t) = network(activation="relu"), batch(50)
        x[:10] = 0
        check = check_gradients(gradient_changed(net, W1=lambda g: 1.1 * g), x, t)
        nonzero = np.count_nonzero(net.gradient(x, t)["W1"])
        assert of(check, "W1").failed == nonzero
        assert of(check, "W1").hint == "every ratio is 1.1"
