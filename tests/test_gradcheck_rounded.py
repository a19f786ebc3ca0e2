"""Gradient checks where functions, or their backpropagation, round away what they are given."""

import numpy as np
import pytest

from xpnet import check_gradients


class Elementwise:
    """y = f(x), with what is claimed to be its derivative."""

    def __init__(self, f, slope):
        self.f, self.slope = f, slope

    def forward(self, x):
        self.x = x
        return self.f(x)

    def backward(self, dout):
        return dout * self.slope(self.x).astype(dout.dtype)


def logistic(x):
    return 1 / (1 + np.exp(-x))


# right, and flat or in steps where x is small beside 1, or beside 1000
ROUNDING = {
    "log(1 + x²)": (lambda x: np.log(1 + x * x), lambda x: 2 * x / (1 + x * x)),
    "1 − cos x": (lambda x: 1 - np.cos(x), np.sin),
    "√(1 + x²) − 1": (lambda x: np.sqrt(1 + x * x) - 1, lambda x: x / np.sqrt(1 + x * x)),
    "x − tanh x": (lambda x: x - np.tanh(x), lambda x: np.tanh(x) ** 2),
    "log cosh x": (lambda x: np.log(np.cosh(x)), np.tanh),
    "exp(x) − 1": (lambda x: np.exp(x) - 1, np.exp),
    "x + 1000 − 1000": (lambda x: (x + 1000) - 1000, np.ones_like),
    "exp(−x²)": (lambda x: np.exp(-x * x), lambda x: -2 * x * np.exp(-x * x)),
}
SIZES = (1e-2, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12)
STEPS = {
    "round": np.round,
    "floor": np.floor,
    "sign": np.sign,
    "eight bits": lambda x: np.round(128 * x) / 128,
    "ignored": lambda x: 0 * x + 1,
    "dead": lambda x: np.maximum(-abs(x), 0),
}


def small(size, dtype, seed=0):
    return (size * np.random.default_rng(seed).normal(size=(4, 3))).astype(dtype)


def cannot_tell(check):
    told = ("large enough", "cannot be told", "does not depend on it here", "no entry agrees")
    return bool(check.problems) and all(any(words in line for words in told) for line in check.problems)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ROUNDING)
def test_right_gradients_of_what_is_rounded_away_pass_or_cannot_be_told(name, size, dtype):
    check = check_gradients(Elementwise(*ROUNDING[name]), small(size, dtype))
    assert check.failed == 0
    assert check or cannot_tell(check), str(check)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ROUNDING)
def test_wrong_ones_never_pass(name, size, dtype):
    f, slope = ROUNDING[name]
    assert not check_gradients(Elementwise(f, lambda x: 2 * slope(x)), small(size, dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("name", STEPS)
def test_steps_that_belong_to_the_function_are_no_round_off(name, size, dtype):
    """What is handed straight through flat land is wrong there, however small the numbers."""
    check = check_gradients(Elementwise(STEPS[name], np.ones_like), small(size, dtype))
    assert not check
    assert check.failed == 12


def test_slopes_that_agree_by_chance_do_not_pass():
    """Sums beside 1000 come in steps; a slope over a step of 2⁻ᵏ then happens to be exactly 2, as often as 0."""
    for seed in range(5):
        check = check_gradients(
            Elementwise(ROUNDING["x + 1000 − 1000"][0], lambda x: 2 + 0 * x), small(1e-3, "f4", seed)
        )
        assert not check


def test_functions_that_refuse_what_is_far_away():
    """The height of a step is looked for at values that nobody gave."""

    def bounded(x):
        if abs(x).max() > 1e-7:
            raise ValueError("x is too large")
        return np.log(1 + x * x)

    check = check_gradients(bounded, small(1e-9, "float64"), gradient=lambda x, dout: dout * 2 * x)
    assert not check
    assert "too large" not in str(check)


def sinc_slope(x):
    return (x * np.cos(x) - np.sin(x)) / x**2


@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("seed", range(4))
def test_backpropagation_that_cancels_in_float32(seed, size):
    layer = Elementwise(lambda x: np.sin(x) / x, sinc_slope)
    check = check_gradients(layer, small(size, "float32", seed))
    assert check.failed == 0
    assert check or cannot_tell(check), str(check)


@pytest.mark.parametrize("factor", [-1, 0.5, 2])
def test_and_is_wrong_besides(factor):
    layer = Elementwise(lambda x: np.sin(x) / x, lambda x: factor * sinc_slope(x))
    assert check_gradients(layer, small(1e-2, "float32")).failed


def test_in_float64_too():
    for size in (1e-4, 1e-5, 1e-6, 1e-7):
        check = check_gradients(Elementwise(lambda x: np.sin(x) / x, sinc_slope), small(size, "float64"))
        assert check.failed == 0
        assert check or cannot_tell(check), str(check)


@pytest.mark.parametrize("seed", range(4))
def test_what_computes_in_float32_inside(seed):
    """Arrays and loss are of float64, so that nothing tells of it but the steps in which the loss comes."""
    rng = np.random.default_rng(seed)
    x, W = rng.normal(size=(4, 3)), rng.normal(size=(3, 2))

    def loss(x, W):
        return float((np.tanh(x.astype("float32") @ W.astype("float32")) ** 2).sum())

    def gradient(x, W, factor=1.0):
        y = np.tanh(x @ W)
        dout = 2 * y * (1 - y * y)
        return factor * dout @ W.T, x.T @ dout

    assert check_gradients(loss, x, W, gradient=gradient)
    for factor in (-1.0, 1.05, 2.0):
        assert check_gradients(loss, x, W, gradient=lambda x, W, by=factor: gradient(x, W, by)).failed >= 6
