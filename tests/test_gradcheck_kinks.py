"""Gradient checks: kinks are told from mistakes."""

import itertools

import numpy as np
import pytest
from checking import batch, entry_times, failures, gradient_changed, network, of, parts

from xpnet import Affine, Network, Relu, check_gradients


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


class TestManyKinks:
    """Kinks of several samples at the very weights that are checked, whose slopes add up."""

    @staticmethod
    def zeros(seed, wrong=lambda g: g):
        """A network one of whose layers is zero in some units or all, with or without biases; W1 may be wrong."""
        rng = np.random.default_rng(seed)
        sizes, dtype = [*rng.integers(1, 7, size=rng.integers(2, 5)), 3], rng.choice(["float64", "float32"])
        zero, every, layers = rng.integers(len(sizes) - 2), rng.integers(1, 3), []
        for place, (D, H) in enumerate(itertools.pairwise(sizes)):
            W, b = rng.normal(size=(D, H)).astype(dtype), 0.3 * rng.normal(size=H).astype(dtype)
            if place == zero:
                W[:, ::every], b[::every] = 0, 0
            layers += [Affine(W, b) if seed % 2 else Affine(W), Relu()]
        net, x = Network(layers[:-1]), rng.normal(size=(7, sizes[0])).astype(dtype)
        return gradient_changed(net, W1=wrong), x, rng.integers(3, size=7)

    @pytest.mark.parametrize("method", ["auto", "loop"])
    @pytest.mark.parametrize("seed", range(24))
    def test_what_is_right_is_not_accused(self, seed, method):
        check = check_gradients(*self.zeros(seed), method=method)
        assert failures(check) == {}
        assert not [problem for problem in check.problems if "wrong" in problem or "times" in problem]

    @pytest.mark.parametrize("factor", [-1.0, 0.0, 1.01, 2.0])
    @pytest.mark.parametrize("seed", range(6))
    def test_what_is_wrong_does_not_hide_there(self, seed, factor):
        net, x, t = self.zeros(seed, lambda g: factor * g)
        if np.any(net.gradient(x, t)["W1"]) or factor == 0:
            assert not check_gradients(net, x, t)

    @pytest.mark.parametrize("seed", range(8))
    def test_a_median_of_three_that_are_equal(self, seed):
        """Whichever of them moves changes nothing, and yet one of them has the gradient."""
        x = np.round(np.random.default_rng(seed).normal(size=(8, 5)))

        def gradient(x, dout):
            middle = np.argsort(x, axis=1)[:, 2:3]
            return dout[:, None] * (np.arange(5) == middle)

        assert check_gradients(lambda x: np.median(x, axis=1), x, gradient=gradient)
        assert not check_gradients(lambda x: np.median(x, axis=1), x, gradient=lambda x, dout: 2 * gradient(x, dout))
