"""Gradient checks: problems that are no mistake of backpropagation."""

import re

import numpy as np
import pytest
from checking import batch, layer_sizes, network, parts

from xpnet import Affine, Network, Relu, Sigmoid, check_gradients


class TestProblems:
    @staticmethod
    def only(check, pattern):
        assert not check
        assert check.parameters == []
        assert check.failed == 0
        [problem] = check.problems
        assert re.search(pattern, problem)
        assert "nothing could be checked" in repr(check)

    def test_nan_in_a_weight(self):
        net, (x, t) = network(), batch()
        parts(net)[0].W[1, 2] = np.nan
        self.only(check_gradients(net, x, t), "NaN or infinite values in W1: 1 of 30")

    def test_a_report_without_figures_still_names_the_network(self):
        net, (x, t) = network(), batch()
        parts(net)[0].W[1, 2] = np.nan
        title = repr(check_gradients(net, x, t, rng=5)).splitlines()[0]
        assert re.match(r"gradient check   TwoLayerNet, batch 7, float64, seed 5, \d+ ms$", title)

    def test_nan_in_the_targets(self):
        x, t = batch()
        targets = np.eye(4)[t]
        targets[3, 1] = np.nan
        self.only(check_gradients(network(), x, targets), "NaN or infinite values in t: 1 of 28")

    def test_targets_of_a_table_are_refused_by_name(self):
        class Column:
            dtype = np.dtype("int64")  # as a column of a table has

        with pytest.raises(TypeError, match=rf"^t: expected an array, got {__name__}\.Column"):
            check_gradients(network(), batch()[0], Column())

    def test_infinite_input(self):
        net, (x, t) = network(), batch()
        x[0, :2] = np.inf
        self.only(check_gradients(net, x, t), "NaN or infinite values in x: 2 of 42")

    def test_a_forward_that_changes_its_input(self):
        class InPlace(Relu):
            def forward(self, x):
                x[x <= 0] = 0
                return super().forward(x)

        net, (x, t) = Network([Affine(np.eye(6)), InPlace(), Affine(np.eye(6, 4))]), batch()
        self.only(check_gradients(net, x - 0.5, t), "InPlace.forward changes its input")

    def test_a_forward_that_draws(self):
        rng = np.random.default_rng(0)

        class Dropout(Sigmoid):
            def forward(self, x):
                return super().forward(x) * (rng.uniform(size=x.shape) < 0.5)

        check = check_gradients(Network(layer_sizes(6, 5, 4, activation=Dropout)), *batch())
        self.only(check, r"Dropout.forward\(x\) is random: two calls differ by")

    def test_a_forward_that_draws_into_one_array(self):
        """Both answers are the same array, which holds the second."""
        rng = np.random.default_rng(0)

        class Drawing:
            out = np.zeros((2, 3))

            def forward(self, x):
                return np.multiply(x, rng.uniform(size=x.shape), out=self.out)

            def backward(self, dout):
                return dout

        self.only(check_gradients(Drawing(), np.ones((2, 3))), r"Drawing.forward\(x\) is random")

    def test_a_forward_that_is_nan_the_second_time(self):
        class Fading:
            calls = 0

            def forward(self, x):
                self.calls += 1
                return x if self.calls != 3 else x * np.nan

            def backward(self, dout):
                return dout

        self.only(check_gradients(Fading(), np.ones((2, 3))), r"Fading.forward\(x\) is another the second time")

    def test_a_backward_that_changes_its_dout(self):
        class InPlace(Relu):
            def backward(self, dout):
                dout *= self.x > 0
                return dout

        x = np.linspace(-1, 1, 6).reshape(2, 3)
        self.only(check_gradients(InPlace(), x), "InPlace.backward changes its dout; return a new array")

    def test_a_single_layer_that_changes_its_input(self):
        class Doubling(Sigmoid):
            def forward(self, x):
                x *= 2
                return super().forward(x)

        self.only(check_gradients(Doubling(), np.ones((2, 3))), "Doubling.forward changes its input")

    def test_integer_parameters(self):
        x, t = batch()
        net = Network([Affine(np.eye(6, 4))])
        net.layers["Affine1"].W = np.eye(6, 4, dtype="int64")
        with pytest.raises(TypeError, match=r"W1 has dtype int64.*convert with xp.astype\(W1, xp.float64\)"):
            check_gradients(net, x, t)

    @pytest.mark.parametrize("net", [None, 3, np.eye(2), Affine, "Affine"])
    def test_what_is_neither_network_nor_layer(self, net):
        with pytest.raises(
            TypeError, match=r"(?s)network is .*takes a network, with params.*a layer, with forward.*or a function"
        ):
            check_gradients(net, np.eye(2))

    def test_integer_input_of_a_layer(self):
        with pytest.raises(TypeError, match="x has dtype int64"):
            check_gradients(Sigmoid(), np.asarray([[1, 2]]))
