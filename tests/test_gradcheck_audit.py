"""Gradient checks: the faster ways are themselves checked against the plain loop."""

import re

import numpy as np
import pytest
from checking import batch, layer_sizes, network, of

from xpnet import Affine, IdentityWithLoss, Network, Sigmoid, TwoLayerNet, check_gradients


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
            r"finds .*; is the difference of a layer behind \1 right\?",
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


@pytest.mark.parametrize("size", [1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kinks_nearer_than_the_plain_loop_can_see_accuse_no_difference(size, dtype):
    """With such weights and biases of 0 all kinks lie within a step of the loop, whose slopes settle on others."""
    rng, accused = np.random.default_rng(0), []
    for seed in range(20):
        x, t = rng.normal(size=(10, 6)).astype(dtype), rng.integers(0, 4, 10)
        check = check_gradients(TwoLayerNet(6, 5, 4, weight_init_std=size, dtype=dtype, rng=seed), x, t)
        accused += [check] * (not check)
    assert not accused
