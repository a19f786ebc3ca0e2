"""Gradient checks: layers and networks of one's own, and what they may get wrong."""

from itertools import chain, repeat

import numpy as np
import pytest
from array_api_compat import array_namespace
from checking import batch, entry_times, failures, gradient_changed, network, of
from conftest import Scale

from xpnet import Affine, Network, Relu, Sigmoid, SoftmaxWithLoss, check_gradients
from xpnet.gradcheck.contracts import backward_problems

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
    assert "loss(x, t) is random: two calls differ by" in repr(check)


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
        (lambda net, x, t: check_gradients(net, [[1.0]], t), "x: expected an array"),
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
    assert check.problems == [
        "half of dout does not give half of the gradient for W1: a backward must multiply by its dout"
    ]


def test_half_of_the_smallest_numbers_is_no_mistake(rng):
    """Gradients below the smallest normal number have few digits, and half of them one less."""
    net = Network([Affine(1e-3 * rng.normal(size=(6, 5))), Relu(), Affine(np.full((5, 4), 5e-307))])
    problems = check_gradients(net, *batch()).problems
    assert not any("half of dout" in problem for problem in problems)


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
        (
            lambda x, t: check_gradients(type("Volume2", (), {"params": [np.ones(2)]})(), x, t),
            "network.params is a list; it",
        ),
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
