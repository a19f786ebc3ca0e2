"""Gradient checks: what is right passes, planted mistakes are caught and named, kinks and noise are no errors."""

import io
import re
import sys
import time
from itertools import chain, pairwise, repeat

import numpy as np
import pytest
from array_api_compat import array_namespace
from conftest import Scale

from xpnet import (
    Affine,
    IdentityWithLoss,
    Network,
    Relu,
    Sigmoid,
    Softmax,
    SoftmaxWithLoss,
    TwoLayerNet,
    check_gradients,
)
from xpnet.gradcheck.contracts import backward_problems
from xpnet.gradcheck.report import Entry, GradientCheck, ParameterCheck


def batch(samples=7, features=6, classes=4, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(samples, features)).astype(dtype), rng.integers(0, classes, samples)


def network(hidden=5, activation="sigmoid", dtype="float64", seed=0):
    return TwoLayerNet(6, hidden, 4, 0.5, activation=activation, dtype=dtype, rng=seed)


def parts(net):
    return list(net.layers.values())


def gradient_changed(net, **changes):
    """Replace gradients by name, W1=lambda g: …, after a right backpropagation."""
    right = net.gradient
    net.gradient = lambda x, t: {name: changes.get(name, lambda g: g)(g) for name, g in right(x, t).items()}
    return net


def entry_times(index, factor):
    def change(g):
        g = g.copy()
        g[index] *= factor
        return g

    return change


def failures(check):
    """Return {name: failed entries} of the parameters that have any."""
    return {p.name: p.failed for p in check.parameters if p.failed}


def of(check, name):
    return next(p for p in check.parameters if p.name == name)


def layer_sizes(*sizes, activation=Relu, seed=0, scale=None, dtype="float64"):
    rng = np.random.default_rng(seed)
    layers = []
    for rows, columns in pairwise(sizes):
        W = rng.normal(scale=scale or (2 / rows) ** 0.5, size=(rows, columns)).astype(dtype)
        layers += [Affine(W, np.zeros(columns, dtype=dtype)), activation()]
    return layers[:-1]


# ── What is right passes ────────────────────────────────────────────────────────────────────────────────────────────


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
        assert check_gradients(network(5, activation, dtype, seed), x, t, method=method, seed=seed)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("activation", [Relu, Sigmoid])
    def test_deep_networks_with_soft_targets(self, activation, seed):
        rng = np.random.default_rng(seed)
        net = Network(layer_sizes(6, 8, 8, 8, 4, activation=activation, seed=seed))
        assert check_gradients(net, rng.normal(size=(9, 6)), rng.uniform(size=(9, 4)), seed=seed)

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


# ── What is wrong is caught and named ───────────────────────────────────────────────────────────────────────────────


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


# ── Kinks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── Audit ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class WrongTwice(Sigmoid):
    """Backward and difference agree with one another, and not with forward."""

    def backward(self, dout):
        return 1.01 * super().backward(dout)

    def difference(self, dx, *at):
        return 1.01 * super().difference(dx, *at)


class NegatedTwice(Sigmoid):
    """The same with the sign."""

    def backward(self, dout):
        return -super().backward(dout)

    def difference(self, dx, *at):
        return -super().difference(dx, *at)


class TestAudit:
    def test_a_wrong_difference_is_named(self):
        class WrongDifference(Sigmoid):
            def difference(self, dx, *at):
                return 1.01 * super().difference(dx, *at)

        check = check_gradients(Network(layer_sizes(6, 5, 4, activation=WrongDifference)), *batch())
        assert not check
        assert any("the numerical gradient itself is doubtful" in problem for problem in check.problems)

    @pytest.mark.parametrize("activation", [WrongTwice, NegatedTwice])
    def test_even_if_backward_is_wrong_in_the_same_way(self, activation):
        net, (x, t) = Network(layer_sizes(6, 5, 4, activation=activation)), batch()
        check = check_gradients(net, x, t)
        assert check.failed == 0
        assert not check
        [problem] = check.problems
        assert re.match(
            r"the numerical gradient itself is doubtful: at (W1|b1) \(.*\) it is .*, but the plain loop through loss "
            r"finds .*; the difference of a layer behind \1 is wrong",
            problem,
        )
        agreeing = re.match(r"(\d+) of 16 entries agree with the plain loop", check.audit)[1]
        assert 0 < int(agreeing) < 16
        [problem] = check_gradients(net, x, t, audit=0).problems  # another batch shows it too
        assert re.match(r"all entries of W1, moved together: .*; the difference of a layer behind it is wrong", problem)

    @pytest.mark.parametrize("count", [5, 16, 40])
    def test_count(self, count):
        x, t = batch()
        audit = check_gradients(network(), x, t, audit=count).audit
        assert audit.startswith(f"{count} of {count} entries agree with the plain loop, moved together to ")

    def test_the_only_entry_that_disagrees_is_named(self):
        """Two entries are measured again, the one with the largest error of each parameter; that of W2 is right."""
        W1, W2 = (layer.W for layer in layer_sizes(6, 5, 4)[::2])
        check = check_gradients(Network([Affine(W1), WrongTwice(), Affine(W2)]), *batch(), audit=1)
        assert check.audit.startswith("1 of 2 entries agree with the plain loop")
        [problem] = check.problems
        assert f"at W1 {of(check, 'W1').largest.index} it is" in problem

    def test_largest_difference_is_that_of_the_gradients(self):
        """A right network's plain loop is off by what a central difference is: h²·f‴/6 and ε·f/h, both below 1e-7."""
        right = float(check_gradients(network(), *batch()).audit.split()[-1])
        assert 0 < right < 1e-7
        check = check_gradients(Network(layer_sizes(6, 5, 4, activation=WrongTwice)), *batch(), audit=59)
        gradient = Network(layer_sizes(6, 5, 4, activation=Sigmoid)).gradient(*batch())
        wrong = 0.01 * max(np.max(np.abs(gradient[name])) for name in ("W1", "b1"))
        assert check.audit.endswith(f", largest difference {wrong:.0e}")

    def test_round_off_of_a_large_loss_is_no_wrong_difference(self):
        """A loss of 5e11: the plain loop cannot see the gradients of a weight whose inputs are 1e-9."""
        x, t = batch()
        x[:, 2] *= 1e-9
        targets = np.eye(4)[t]
        targets[:, 0] += 1e6
        net = Network(layer_sizes(6, 5, 4, activation=Sigmoid), IdentityWithLoss())
        check = check_gradients(net, x, targets, audit=59)
        assert check.problems == []

    def test_no_more_than_there_are(self):
        net, (x, t) = Network([Affine(np.eye(6, 4), None)]), batch()
        assert check_gradients(net, x, t, audit=100).audit.startswith("24 of 24 ")

    def test_a_loop_needs_none(self):
        x, t = batch()
        check = check_gradients(network(), x, t, method="loop")
        assert check
        assert check.audit == ""
        assert "audit" not in repr(check)


# ── Problems that are no mistake of backpropagation ─────────────────────────────────────────────────────────────────


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
        title = repr(check_gradients(net, x, t, seed=5)).splitlines()[0]
        assert re.match(r"gradient check   TwoLayerNet, batch 7, float64, seed 5, \d+ ms$", title)

    def test_nan_in_the_targets(self):
        x, t = batch()
        targets = np.eye(4)[t]
        targets[3, 1] = np.nan
        self.only(check_gradients(network(), x, targets), "NaN or infinite values in t: 1 of 28")

    def test_targets_of_a_table_are_refused_by_name(self):
        class Column:
            dtype = np.dtype("int64")  # as a column of a table has

        with pytest.raises(TypeError, match=r"^t: expected arrays of one library, got test_gradcheck\.Column"):
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
        self.only(check, "Dropout.forward answers differently for the same input")

    def test_a_forward_that_draws_into_one_array(self):
        """Both answers are the same array, which holds the second."""
        rng = np.random.default_rng(0)

        class Drawing:
            out = np.zeros((2, 3))

            def forward(self, x):
                return np.multiply(x, rng.uniform(size=x.shape), out=self.out)

            def backward(self, dout):
                return dout

        self.only(check_gradients(Drawing(), np.ones((2, 3))), "Drawing.forward answers differently")

    def test_a_forward_that_is_nan_the_second_time(self):
        class Fading:
            calls = 0

            def forward(self, x):
                self.calls += 1
                return x if self.calls != 3 else x * np.nan

            def backward(self, dout):
                return dout

        self.only(check_gradients(Fading(), np.ones((2, 3))), "Fading.forward answers differently")

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
        with pytest.raises(TypeError, match=r"(?s)net is .*takes a network, with params.*or a layer, with forward"):
            check_gradients(net, np.eye(2))

    def test_integer_input_of_a_layer(self):
        with pytest.raises(TypeError, match="x has dtype int64"):
            check_gradients(Sigmoid(), np.asarray([[1, 2]]))


# ── Single layers ───────────────────────────────────────────────────────────────────────────────────────────────────


class Bent:
    """A user's layer: sin(x @ V) + c·x, with parameters and a gradient by the input."""

    parameters = ("V", "c")

    def __init__(self, V, c):
        self.V, self.c = V, c

    def forward(self, x):
        self.x = x
        return array_namespace(x).sin(x @ self.V) + self.c * x

    def backward(self, dout):
        xp = array_namespace(dout)
        inner = dout * xp.cos(self.x @ self.V)
        self.dV = self.x.T @ inner
        self.dc = xp.sum(dout * self.x, axis=0)
        return inner @ self.V.T + dout * self.c


def bent(asarray=np.asarray):
    rng = np.random.default_rng(0)
    return Bent(asarray(rng.normal(size=(3, 3))), asarray(rng.normal(size=3))), asarray(rng.normal(size=(4, 3)))


class TestSingleLayers:
    def test_right_ones_pass_on_every_backend(self, case):
        layer, x = bent(case.asarray)
        check = check_gradients(layer, x)
        assert check
        assert [(p.name, p.shape) for p in check.parameters] == [("x", (4, 3)), ("V", (3, 3)), ("c", (3,))]
        assert check.title.startswith(f"Bent, x (4, 3), {case.dtype}, plain loop, h = 2^-")

    @pytest.mark.parametrize("layer", [Relu(), Sigmoid(), Softmax(), Affine(np.eye(3, 2), np.ones(2))])
    def test_ours_pass(self, layer):
        assert check_gradients(layer, bent()[1])

    @pytest.mark.parametrize("last", [SoftmaxWithLoss(), IdentityWithLoss()])
    @pytest.mark.parametrize("t", [np.asarray([0, 2, 1, 1]), np.linspace(0, 1, 12).reshape(4, 3)])
    def test_output_layers_pass(self, last, t):
        check = check_gradients(last, bent()[1], t)
        assert check
        assert [p.name for p in check.parameters] == ["x"]

    @pytest.mark.parametrize("name", ["V", "c", "x"])
    def test_a_wrong_entry_is_named(self, name):
        layer, x = bent()
        right = layer.backward

        def backward(dout):
            dx = right(dout)
            where = {"V": (1, 2), "c": (2,), "x": (3, 0)}[name]
            (dx if name == "x" else getattr(layer, f"d{name}"))[where] *= 1.01
            return dx

        layer.backward = backward
        check = check_gradients(layer, x)
        assert failures(check) == {name: 1}
        assert of(check, name).hint == "the ratio is 1.01"

    def test_the_batch_size_is_named(self):
        layer, x = bent()
        right = layer.backward

        def backward(dout):
            dx = right(dout)
            layer.dV, layer.dc = layer.dV / 4, 4 * layer.dc
            return dx

        layer.backward = backward
        check = check_gradients(layer, x)
        assert of(check, "V").hint == "every ratio is 0.25, 1/N: divided by N twice?"
        assert of(check, "c").hint == "every ratio is 4, the batch size: a missing 1/N?"

    def test_a_single_sample_has_no_batch_size(self):
        class Tripled(Sigmoid):
            def backward(self, dout):
                return 3 * super().backward(dout)

        assert of(check_gradients(Tripled(), np.linspace(-1, 1, 3)), "x").hint == "every ratio is 3"

    def test_a_gradient_that_is_missing_is_named(self):
        class Forgetful(Bent):
            def backward(self, dout):
                dx = super().backward(dout)
                del self.dV
                return dx

        layer, x = bent()
        check = check_gradients(Forgetful(layer.V, layer.c), x)
        assert check.problems == ["backpropagation gives no gradient for V: forgotten?"]

    def test_attributes_of_its_own_named_x_and_dx(self):
        class Shift:
            """Its x is no input and its dx is no gradient."""

            x, dx = 3.0, 5.0

            def forward(self, x):
                self.y = x + self.x
                return self.y**2

            def backward(self, dout):
                return 2 * dout * self.y

        layer = Shift()
        assert check_gradients(layer, bent()[1])
        assert (layer.x, layer.dx) == (3.0, 5.0)

    def test_the_step_is_the_one_asked_for_then_smaller_ones(self):
        """With h = 0.05 a sine is off by h²/6, 0.04 %; only smaller steps show that it is right."""
        layer, x = bent()
        largest = {"x": np.abs(x).max(), "V": np.abs(layer.V).max(), "c": np.abs(layer.c).max()}
        for p in check_gradients(layer, x).parameters:
            assert 2.0**-14 < p.h / largest[p.name] < 2.0**-12
        check = check_gradients(layer, x, h=0.05)
        assert check
        assert {p.h for p in check.parameters} == {0.05}

    def test_a_mistake_beside_outputs_a_billion_times_larger(self):
        """Outputs are subtracted before they are summed, so that those which do not move hide nothing."""
        x = bent()[1]
        x[:, 0] *= 1e-5
        layer = Affine(np.eye(3, 2), np.ones(2))
        right = layer.backward

        def backward(dout):
            dx = right(dout)
            layer.dW = layer.dW + 1e-9 * (np.arange(6) == 1).reshape(3, 2)
            return dx

        layer.backward = backward
        assert failures(check_gradients(layer, x, h=2.0**-3)) == {"W": 1}
        assert failures(check_gradients(layer, x)) == {"W": 1}

    def test_dout_ignored(self):
        class Deaf(IdentityWithLoss):
            def backward(self, dout=1.0):
                return super().backward(1.0)

        check = check_gradients(Deaf(), bent()[1], np.asarray([0, 2, 1, 1]))
        assert check.problems == ["half the loss has the same gradient for x: a backward ignores its dout"]

    @pytest.mark.parametrize("calls", [2, 4, 5, 20, 35, 50])
    def test_parameters_are_restored_when_forward_raises(self, calls):
        """But for the first call, which finds out what the layer takes, and the third, at values of the check's own."""
        layer, x = bent()
        V, c, kept = layer.V, layer.c, (layer.V.copy(), layer.c.copy(), x.copy())
        right, count = layer.forward, iter(range(1, 10**6))

        def forward(x):
            if next(count) == calls:
                raise RuntimeError("half-way")
            return right(x)

        layer.forward = forward
        with pytest.raises(RuntimeError, match="half-way"):
            check_gradients(layer, x)
        assert layer.V is V
        assert layer.c is c
        for now, before in zip((V, c, x), kept, strict=True):
            assert now.tobytes() == before.tobytes()


# ── A network of another make ───────────────────────────────────────────────────────────────────────────────────────


class BookNet:
    """As in the book: arrays in ``params``, and the same arrays once more in the layers."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.params = {"W1": rng.normal(size=(3, 4)), "b1": rng.normal(size=4), "W2": rng.normal(size=(4, 2))}
        self.affine1, self.sigmoid = Affine(self.params["W1"], self.params["b1"]), Sigmoid()
        self.affine2, self.last = Affine(self.params["W2"]), SoftmaxWithLoss()

    def loss(self, x, t):
        return self.last.forward(self.affine2.forward(self.sigmoid.forward(self.affine1.forward(x))), t)

    def gradient(self, x, t):
        self.loss(x, t)
        self.affine1.backward(self.sigmoid.backward(self.affine2.backward(self.last.backward())))
        return {"W1": self.affine1.dW, "b1": self.affine1.db, "W2": self.affine2.dW}


class TestForeignNetwork:
    def test_the_plain_loop_checks_it(self):
        net, (x, t) = BookNet(), batch(5, 3, 2)
        before = {name: value.copy() for name, value in net.params.items()}
        held = dict(net.params)
        check = check_gradients(net, x, t)
        assert check
        assert {p.how for p in check.parameters} == {"loop"}
        assert "BookNet, batch 5, float64, plain loop, h = 2^-1" in check.title
        assert {p.h for p in check_gradients(net, x, t, h=0.01).parameters} == {0.01}
        for name, value in net.params.items():
            assert value is held[name]
            assert value.tobytes() == before[name].tobytes()

    def test_a_mistake_is_caught(self):
        x, t = batch(5, 3, 2)
        check = check_gradients(gradient_changed(BookNet(), W2=entry_times((1, 1), -1)), x, t)
        assert failures(check) == {"W2": 1}
        assert of(check, "W2").hint == "the ratio is -1, a sign"

    def test_restored_when_its_loss_raises(self):
        net, (x, t) = BookNet(), batch(5, 3, 2)
        before = {name: value.copy() for name, value in net.params.items()}
        right, count = net.loss, iter(range(10**6))

        def loss(x, t):
            if next(count) == 17:
                raise RuntimeError("half-way")
            return right(x, t)

        net.loss = loss
        with pytest.raises(RuntimeError, match="half-way"):
            check_gradients(net, x, t)
        for name, value in net.params.items():
            assert value.tobytes() == before[name].tobytes()


# ── Our own network afterwards ──────────────────────────────────────────────────────────────────────────────────────


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


# ── The report ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def wrong():
    """A check of a network all but one of whose W1 entries are wrong, by ratios of 1.1, 1.2, …"""
    net = gradient_changed(network(), W1=lambda g: g * (1 + 0.1 * np.arange(30).reshape(6, 5)))
    return check_gradients(net, *batch(), worst=4)


class TestReport:
    def test_layout(self):
        """Columns, the worst entries below the largest, hints, problems, and a verdict that counts the undecided."""
        check = GradientCheck("Net, seed 0", ["something is odd"])
        assert "         0 ms" not in repr(check)
        assert repr(check).splitlines()[0].endswith(", 0 ms")
        check.seconds, check.audit = 0.0124, "16 of 16"
        big, small = Entry((0, 1), 2.0, -2.0, 2.0), Entry((1, 0), 0.5, 1.5, 2 / 3)
        check.parameters = [
            ParameterCheck("W1", (2, 2), "loop", 0.5, 1, 1, 0, 2, big, (small, big), "a hint"),
            ParameterCheck("b1", (3,), "loop", 0.5, 0, 1, 2, 0),
        ]
        head = (
            "gradient check   Net, seed 0, 12 ms\n"
            "audit            16 of 16\n"
            "parameter                    checked        pass        kink   undecided        fail  rel. error\n"
        )
        problem = "problem          something is odd\n"
        first = (
            "W1 (2, 2)                          4           1           1           0           2     2.0e+00\n"
            "                 at (0, 1): numerical 2.00000e+00, backprop -2.00000e+00, ratio -1\n"
            "                 at (1, 0): numerical 5.00000e-01, backprop 1.50000e+00, ratio 3\n"
            "                 a hint\n"
        )
        second = "b1 (3)                             3           0           1           2           0            \n"
        assert repr(check) == head + first + second + problem + "FAIL             2 of 7 entries fail"
        del check.parameters[0]
        assert repr(check) == head + second + problem + "FAIL             see the problem above"
        check.problems.clear()
        check.notes.append("something is worth knowing")
        verdict = "pass             0 entries agree, 1 are on a kink, 2 are undecided"
        assert repr(check) == head + second + "note             something is worth knowing\n" + verdict
        check.notes.clear()
        check.parameters.clear()
        check.problems.append("something is odd")
        assert repr(check).endswith(problem + "FAIL             nothing could be checked")

    @pytest.mark.parametrize(
        ("numerical", "backprop", "ratio"), [(2.0, -3.0, -1.5), (0.0, 3.0, np.inf), (0.0, -3.0, -np.inf)]
    )
    def test_ratio(self, numerical, backprop, ratio):
        assert Entry((0,), numerical, backprop, 1.0).ratio == ratio

    def test_three_failures_of_a_parameter_are_listed_by_default(self):
        check = check_gradients(gradient_changed(network(), W1=lambda g: 3 * g), *batch())
        assert [len(p.worst) for p in check.parameters] == [3, 0, 0, 0]

    def test_counts_add_up(self, wrong):
        assert wrong.checked == 30 + 5 + 20 + 4
        assert wrong.failed == 29
        for p in wrong.parameters:
            assert p.checked == p.passed + p.kinks + p.undecided + p.failed == np.prod(p.shape)

    def test_worst_entries_have_the_largest_absolute_errors(self, wrong):
        p = of(wrong, "W1")
        errors = [abs(entry.backprop - entry.numerical) for entry in p.worst]
        assert len(errors) == 4
        assert errors == sorted(errors, reverse=True)
        for entry in p.worst:
            factor = 1 + 0.1 * (5 * entry.index[0] + entry.index[1])
            assert entry.ratio == pytest.approx(factor, rel=1e-6)
            assert entry.error == pytest.approx(1 - 1 / factor, rel=1e-6)

    def test_largest_is_the_largest_relative_error(self, wrong):
        assert of(wrong, "W1").largest.index == (5, 4)

    def test_text(self, wrong):
        lines = repr(wrong).splitlines()
        assert re.match(
            r"gradient check   TwoLayerNet, batch 7, float64, difference propagation, h = 2\^-\d+, seed 0, \d+ ms$",
            lines[0],
        )
        assert re.match(r"audit +16 of 16 entries agree with the plain loop, moved together to \S+$", lines[1])
        assert lines[2].split()[:6] == ["parameter", "checked", "pass", "kink", "undecided", "fail"]
        assert re.match(r"W1 \(6, 5\) +30 +1 +0 +0 +29 +\d\.\de[+-]\d\d$", lines[3])
        assert re.match(r" +at \(5, 4\): numerical \S+, backprop \S+, ratio 3.9$", lines[4])
        assert all(len(line) <= 100 for line in lines)
        assert lines[-1] == "FAIL             29 of 59 entries fail"

    def test_text_of_a_pass(self):
        begun = time.perf_counter()
        check = check_gradients(network(), *batch())
        assert 0 < check.seconds < time.perf_counter() - begun
        assert repr(check).splitlines()[-1] == "pass             59 entries agree"
        assert bool(check) is True
        assert str(check) == repr(check)

    def test_an_assertion_shows_it(self, wrong):
        with pytest.raises(AssertionError) as caught:
            assert wrong
        assert "29 of 59 entries fail" in str(caught.value)

    def test_one_seed_is_one_report(self):
        def text(seed):
            return re.sub(r"\d+ ms", "", repr(check_gradients(network(activation="relu"), *batch(), seed=seed)))

        assert text(1) == text(1)

    def test_silent_where_stderr_is_no_terminal(self, capsys):
        assert check_gradients(network(), *batch(), method="loop")
        captured = capsys.readouterr()
        assert captured.out == captured.err == ""

    def test_a_bar_on_a_terminal(self, monkeypatch):
        import tqdm

        class Terminal(io.StringIO):
            def isatty(self):
                return True

        bars = []

        class Bar(tqdm.tqdm):
            def __init__(self, **options):
                super().__init__(**options | {"delay": 0, "mininterval": 0, "file": sys.stderr})
                bars.append(self)

        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setattr(tqdm, "tqdm", Bar)
        assert check_gradients(network(), *batch())
        assert "checking gradients" in sys.stderr.getvalue()
        assert bars[0].total == 59
        assert bars[0].n == 59
        x, t = batch()
        x[:2] = 0
        assert check_gradients(network(activation="relu"), x, t)  # its kinks need a second look
        assert [(bar.total, bar.n) for bar in bars[1:]] == [(59, 59)] * 2
        shown = sys.stderr.getvalue()
        assert check_gradients(network(), *batch(), progress=False)
        assert sys.stderr.getvalue() == shown


# ── What must not be blamed on the gradient, and what must not pass ─────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_right_layer_of_ones_own_that_learns_passes(dtype, rng):
    a = lambda *shape: rng.normal(size=shape).astype(dtype)  # noqa: E731
    net = Network([Affine(a(6, 5), a(5)), Scale(a(5)), Relu(), Affine(a(5, 3), a(3))])
    check = check_gradients(net, a(9, 6), rng.integers(3, size=9))
    assert check
    assert {p.name: p.how for p in check.parameters}["gamma2"] == "stacked"
    assert "difference propagation and stacked evaluation, h = 2^-" in check.title
    assert ("measured in float64" in check.title) == (dtype == "float32")


def test_an_output_layer_that_draws_is_named(rng):
    class Noisy(SoftmaxWithLoss):
        def forward(self, x, t):
            return super().forward(x, t) + rng.normal()

    net = Network([Affine(rng.normal(size=(4, 3)))], Noisy())
    check = check_gradients(net, rng.normal(size=(5, 4)), rng.integers(3, size=5))
    assert not check
    assert check.checked == 0
    assert "the loss is another one for the same x and t" in repr(check)


def test_a_layer_that_writes_into_its_input_does_not_reach_the_callers_array(rng):
    class InPlace:
        def forward(self, x):
            self.mask = x <= 0
            x[self.mask] = 0.0
            return x

        def backward(self, dout):
            return np.where(self.mask, 0.0, dout)

    x = rng.normal(size=(4, 3))
    kept = x.copy()
    assert "InPlace.forward changes its input" in repr(check_gradients(InPlace(), x))
    net = Network([InPlace(), Affine(rng.normal(size=(3, 2)))])
    assert "InPlace.forward changes its input" in repr(check_gradients(net, x, np.asarray([0, 1, 0, 1])))
    np.testing.assert_array_equal(x, kept)


def test_a_gradient_that_is_missing_is_named(rng):
    net = Network([Affine(rng.normal(size=(4, 3)), np.zeros(3))])
    right = net.gradient
    net.gradient = lambda x, t: {"W1": right(x, t)["W1"]}
    check = check_gradients(net, rng.normal(size=(5, 4)), rng.integers(3, size=5))
    assert not check
    assert "no gradient for b1: forgotten?" in repr(check)


def test_what_cannot_be_told_does_not_pass(rng):
    """A foreign network in float32: the loop's round-off is larger than every gradient, right or wrong."""

    class Foreign:
        params = {"W": (1e-3 * rng.normal(size=(4, 3))).astype("float32")}  # noqa: RUF012

        def loss(self, x, t):
            return np.float32(5.0) + np.sum(x @ self.params["W"]) * np.float32(1e-6)

        def gradient(self, x, t):
            return {"W": -np.ones((4, 3), dtype="float32") * x.sum(axis=0)[:, None] * np.float32(1e-6)}

    check = check_gradients(Foreign(), rng.normal(size=(5, 4)).astype("float32"), None)
    assert not check
    assert "no entry of W is large enough for float32 to tell; check in float64" in repr(check)


def test_what_float32_cannot_tell_is_measured_in_float64(rng):
    """Gradients of 1e-6 beside a loss of 1, without ``difference``: right ones pass, wrong ones fail."""
    a = lambda *shape: rng.normal(size=shape).astype("float32")  # noqa: E731

    class WithoutDifference(SoftmaxWithLoss):
        def forward(self, x, t):
            return super().forward(x, t)

    net = Network([Affine(a(6, 5)), Scale(a(5)), Affine(1e-6 * a(5, 3))], WithoutDifference())
    x, t = a(9, 6), rng.integers(3, size=9)
    assert check_gradients(net, x, t)
    wrong = gradient_changed(net, gamma2=entry_times(3, 1.01))
    assert failures(check_gradients(wrong, x, t)) == {"gamma2": 1}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda net, x, t: check_gradients(net, [[1.0]], t), "x: expected arrays"),
        (lambda net, x, t: check_gradients(Relu(), [[1.0]]), "x: expected arrays"),
        (lambda net, x, t: check_gradients(net, (255 * x).astype("uint8"), t), "uint8"),
        (lambda net, x, t: check_gradients(net, x, t, h=-1e-4), "positive number"),
        (lambda net, x, t: check_gradients(net, x[:0], t[:0]), "no sample"),
        (lambda net, x, t: check_gradients(Relu(), x[:0]), "no entry"),
        (lambda net, x, t: check_gradients(Network([Relu()]), x, t), "Network has no parameters"),
    ],
)
def test_bad_input_is_refused_by_name(make, says, rng):
    net = Network([Affine(rng.normal(size=(4, 3)))])
    with pytest.raises((TypeError, ValueError), match=says):
        make(net, rng.uniform(size=(5, 4)), rng.integers(3, size=5))


# ── What a layer or network of one's own may get wrong ──────────────────────────────────────────────────────────────


class Adding(Scale):
    def __init__(self, gamma):
        super().__init__(gamma)
        self.dgamma = np.zeros_like(gamma)

    def backward(self, dout):
        self.dgamma += (dout * self.x).sum(axis=0)
        return dout * self.gamma


@pytest.mark.parametrize("alone", [False, True])
def test_a_backward_that_adds_to_its_gradient_is_named(alone, rng):
    x, t = batch()
    layer = Adding(np.ones(6))
    net = Network([layer, Affine(rng.normal(size=(6, 4)))])
    check = check_gradients(layer, x) if alone else check_gradients(net, x, t)
    assert not check
    name = "gamma" if alone else "gamma1"
    assert check.problems == [
        f"backpropagation gives another gradient for {name} the second time: does backward add to the one it keeps? "
        "It must replace it"
    ]


class Clipping(Relu):
    """Gradient clipping inside a backward: right for this loss, wrong for a part of it."""

    def backward(self, dout):
        return np.clip(super().backward(dout), -0.01, 0.01)


def test_a_backward_that_is_not_linear_is_named(rng):
    net = Network([Affine(rng.normal(size=(6, 5))), Clipping(), Affine(rng.normal(size=(5, 4)))])
    check = check_gradients(net, *batch())
    assert check.problems == ["half the loss has not half the gradient for W1: a backward is not linear in its dout"]


def test_half_of_the_smallest_numbers_is_no_mistake(rng):
    """Gradients below the smallest normal number have few digits, and half of them one less."""
    net = Network([Affine(1e-3 * rng.normal(size=(6, 5))), Relu(), Affine(np.full((5, 4), 5e-307))])
    problems = check_gradients(net, *batch()).problems
    assert not any("half the loss" in problem for problem in problems)


class IgnoresDout(SoftmaxWithLoss):
    """Mistake 9 of the notes, and no way to pass a dout at all."""

    def backward(self):
        return super().backward()


def test_an_output_layer_needs_no_dout(rng):
    net = Network([Affine(rng.normal(size=(6, 4)))], IgnoresDout())
    x, t = batch()
    assert check_gradients(net, x, t)
    (_, whole), (_, tenth) = net.loss_and_gradient(x, t), net.loss_and_gradient(x, t, 0.1)
    np.testing.assert_allclose(tenth["W1"], 0.1 * whole["W1"], rtol=1e-12)


class Shortfall(Scale):
    """A user's layer that loses the gradient of everything before it."""

    def backward(self, dout):
        return 0.0 * super().backward(dout)


def test_zeros_that_agree_do_not_hide_that_nothing_could_be_told(rng):
    """Features that are always zero, and a gradient of zero everywhere, which float32 alone cannot tell from noise."""
    x, t = batch(9, 6, 3, dtype="float32")
    x[:, 2:4] = 0.0
    a = lambda *shape: rng.normal(size=shape).astype("float32")  # noqa: E731
    net = Network([Affine(a(6, 5)), Shortfall(a(5)), Affine(np.float32(1e-5) * a(5, 3))])
    check = check_gradients(net, x, t)
    assert of(check, "W1").zeros == 10
    assert of(check, "W1").failed == 20
    assert of(check, "W1").hint == "backpropagation gives 0 for all of them: forgotten?"


class Normalize:
    """Batch normalization without parameters: a bias before it changes nothing."""

    def forward(self, x):
        xp = array_namespace(x)
        self.scale = (xp.mean((x - xp.mean(x, axis=-2, keepdims=True)) ** 2, axis=-2, keepdims=True) + 1e-5) ** -0.5
        self.y = (x - xp.mean(x, axis=-2, keepdims=True)) * self.scale
        return self.y

    def backward(self, dout):
        return self.scale * (dout - dout.mean(axis=0) - self.y * (dout * self.y).mean(axis=0))


def test_a_bias_that_normalization_takes_away_is_no_mistake(rng):
    net = Network([Affine(rng.normal(size=(6, 5)), rng.normal(size=5)), Normalize(), Affine(rng.normal(size=(5, 4)))])
    check = check_gradients(net, *batch())
    assert check, check
    assert of(check, "b1").undecided == 5


def test_a_foreign_network_whose_loss_is_a_python_number(rng):
    """Some libraries would keep it in float32 unless told otherwise."""
    torch = pytest.importorskip("torch")

    class Foreign:
        params = {"W": torch.asarray(rng.normal(size=(4, 3)))}  # noqa: RUF012

        def loss(self, x, t):
            return ((x @ self.params["W"]) ** 2).sum().item()

        def gradient(self, x, t):
            return {"W": 2 * x.T @ (x @ self.params["W"])}

    assert check_gradients(Foreign(), torch.asarray(rng.normal(size=(5, 4))), None)


class Silent(Relu):
    def backward(self, dout):
        super().backward(dout)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x, t: check_gradients(Silent(), x), "Silent.backward returned None; it must return the gradient of"),
        (
            lambda x, t: check_gradients(Network([Affine(np.ones((6, 4))), Silent()]), x, t),
            "Silent.backward returned None; it must return the gradient of",
        ),
        (lambda x, t: check_gradients(type("Volume2", (), {"params": [np.ones(2)]})(), x, t), "net.params is list; it"),
        (lambda x, t: check_gradients(type("S", (Scale,), {"parameters": "gamma"})(np.ones(6)), x), "S.parameters is"),
    ],
)
def test_what_a_beginner_forgets_is_named(make, says):
    with pytest.raises(TypeError, match=says):
        make(*batch())


def test_a_label_that_is_no_class_is_no_random_loss():
    x, t = batch()
    t[0] = 9
    assert check_gradients(network(), x, t).problems == [
        "the loss is NaN: a label that is no class, or numbers too large?"
    ]


@pytest.mark.parametrize(
    ("first", "second", "differ"),
    [
        ([1.0, 2.0], [1.0, 2.0005], False),
        ([1.0, 2.0], [1.0, 2.005], True),
        ([1.0, 2.0], [1.0, -2.0], True),
        ([1.0, 2.0], [1.0], True),
        ([np.nan, 2.0], [np.nan, 2.0], False),
        ([np.nan, 2.0], [1.0, 2.0], True),
        ([np.inf, 0.0], [np.inf, 0.0], False),
    ],
)
def test_which_second_answers_are_another(first, second, differ):
    """To a thousandth: a GPU may add in another order."""
    answers = chain([{"W": np.asarray(first)}], repeat({"W": np.asarray(second)}))
    with np.errstate(invalid="ignore"):
        assert bool(backward_problems(lambda: next(answers))) == differ
