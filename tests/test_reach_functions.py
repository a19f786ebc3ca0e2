"""Checks of functions and the gradients that are claimed for them: scalar and array-valued, of one or more arrays."""

from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from checking import failed, problem

from xpnet import check_gradients


def bowl(x):
    return float(0.5 * (x**2).sum())


def affine(x, W, b):
    return x @ W + b


def affine_vjp(x, W, b, dout):
    return dout @ W.T, x.T @ dout, dout.sum(axis=0)


@pytest.fixture
def three(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)


# ── Three ways to claim ─────────────────────────────────────────────────────────────────────────────────────────────


def test_arrays_are_a_claim(rng):
    x = rng.normal(size=(4, 3))
    assert check_gradients(bowl, x, gradient=x)
    assert failed(check_gradients(bowl, x, gradient=1.01 * x)) == {"x": 12}


def test_a_function_of_the_inputs_is_a_claim(rng):
    x, A = rng.normal(size=3), rng.normal(size=(3, 3))
    f, gradient = lambda x, A: x @ A @ x, lambda x, A: (A @ x + A.T @ x, np.outer(x, x))
    assert check_gradients(f, x, A, gradient=gradient)
    assert failed(check_gradients(f, x, A, gradient=lambda x, A: (2 * A @ x, np.outer(x, x)))) == {"x": 3}


def test_a_function_of_the_inputs_and_dout_is_a_claim(three):
    assert check_gradients(affine, *three, gradient=affine_vjp)
    wrong = lambda x, W, b, dout: (dout @ W.T, x.T @ dout, dout.mean(axis=0))  # noqa: E731
    assert failed(check_gradients(affine, *three, gradient=wrong)) == {"b": 2}


def test_the_dout_of_one_number_is_not_always_one(rng):
    x = rng.normal(size=3)
    assert check_gradients(bowl, x, gradient=lambda x, dout: dout * x)
    assert "a backward ignores its dout" in problem(check_gradients(bowl, x, gradient=lambda x, dout: x))


def test_one_entry_of_many_is_found(rng):
    x = rng.normal(size=(20, 30))
    claim = x.copy()
    claim[7, 11] *= -1
    check = check_gradients(bowl, x, gradient=claim)
    assert failed(check) == {"x": 1}
    assert check.parameters[0].largest.index == (7, 11)


def test_both_dtypes(rng):
    x = rng.normal(size=(5, 4)).astype("float32")
    f, vjp = lambda x: np.tanh(x) * x, lambda x, d: d * (np.tanh(x) + x * (1 - np.tanh(x) ** 2))
    assert check_gradients(f, x, gradient=vjp)
    assert not check_gradients(f, x, gradient=lambda x, d: np.float32(1.01) * vjp(x, d))


def test_on_every_backend(case, rng):
    x, W = case.asarray(rng.normal(size=(4, 3))), case.asarray(rng.normal(size=(3, 2)))
    if case.guarded:
        pytest.skip("a check reads values on the host")
    assert check_gradients(lambda x, W: x @ W, x, W, gradient=lambda x, W, d: (d @ W.T, x.T @ d))
    assert not check_gradients(lambda x, W: x @ W, x, W, gradient=lambda x, W, d: (d @ W.T, -(x.T @ d)))


# ── Inputs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_integers_and_booleans_are_passed_through(rng):
    def lookup(W, words, keep):
        return W[words] * keep[:, None]

    def gradient(W, words, keep, dout):
        dW = np.zeros_like(W)
        np.add.at(dW, words, dout * keep[:, None])
        return dW

    given = rng.normal(size=(5, 3)), np.asarray([0, 4, 4, 2]), np.asarray([True, True, False, True])
    assert check_gradients(lookup, *given, gradient=gradient)
    assert check_gradients(lookup, *given, gradient=lambda *a: (gradient(*a), None, None))
    twice_is_once = lambda W, i, k, d: [dW := np.zeros_like(W), dW.__setitem__(i, d * k[:, None])][0]  # noqa: E731
    assert failed(check_gradients(lookup, *given, gradient=twice_is_once)) == {"W": 3}


def test_none_leaves_an_input_out_and_the_report_says_so(three):
    check = check_gradients(affine, *three, gradient=lambda x, W, b, dout: (dout @ W.T, x.T @ dout, None))
    assert check
    assert [p.name for p in check.parameters] == ["x", "W"]
    assert "not differentiated: b" in repr(check)


def test_dicts_and_sequences_of_arrays(rng):
    class Pair(NamedTuple):
        left: np.ndarray
        right: np.ndarray

    given = {"W": rng.normal(size=(3, 2)), "more": [rng.normal(size=2)], "times": 3}, Pair(*rng.normal(size=(2, 4, 3)))
    f = lambda p, pair: (pair.left * pair.right) @ p["W"] * p["times"] + p["more"][0]  # noqa: E731

    def gradient(p, pair, dout):
        d = p["times"] * dout
        dx = d @ p["W"].T
        held = {"W": (pair.left * pair.right).T @ d, "more": [dout.sum(axis=0)], "times": None}
        return held, Pair(dx * pair.right, dx * pair.left)

    check = check_gradients(f, *given, gradient=gradient)
    assert check
    assert [p.name for p in check.parameters] == ["p.W", "p.more[0]", "pair[0]", "pair[1]"]

    def swapped(p, pair, dout):
        held, dpair = gradient(p, pair, dout)
        return held, (dpair.right, dpair.left)

    assert failed(check_gradients(f, *given, gradient=swapped)) == {"pair[0]": 12, "pair[1]": 12}
    assert (
        problem(check_gradients(f, *given, gradient=lambda p, q, d: ([1], q)))
        == "gradient returned list for p, which is a dict"
    )
    assert "1 gradients for the 2 parts of pair" in problem(
        check_gradients(f, *given, gradient=lambda *a: (a[0], [a[1][0]]))
    )


def test_a_generator_is_given_as_it_was_to_every_call(rng):
    x, generator = rng.normal(size=(5, 4)), np.random.default_rng(3)
    f = lambda x, rng: (rng.random(x.shape) > 0.5) * x  # noqa: E731
    before = generator.bit_generator.state
    assert check_gradients(f, x, generator, gradient=lambda x, rng, dout: (rng.random(x.shape) > 0.5) * dout)
    assert generator.bit_generator.state == before


def test_what_the_names_come_from(rng):
    x = rng.normal(size=3)
    names = lambda f, *a, g: [p.name for p in check_gradients(f, *a, gradient=g).parameters]  # noqa: E731
    assert names(partial(lambda a, theta: (a * theta).sum(), 2.0), x, g=2 + 0 * x) == ["theta"]
    assert names(np.sum, x, g=np.ones(3)) == ["a"]
    assert names(lambda *a: a[0] @ a[1], x, x + 1, g=(x + 1, x)) == ["x1", "x2"]


# ── Results ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_several_results_have_a_dout_each(rng):
    x = rng.normal(size=(3, 2))
    f = lambda x: {"sum": x.sum(axis=0), "parts": (x**2, np.argmax(x, axis=1))}  # noqa: E731
    gradient = lambda x, dout: dout["sum"] + 2 * x * dout["parts"][0]  # noqa: E731
    assert check_gradients(f, x, gradient=gradient)
    assert failed(check_gradients(f, x, gradient=lambda x, d: 2 * x * d["parts"][0])) == {"x": 6}


def test_a_value_and_its_gradient_returned_at_once(rng):
    def softmax_loss(x, y, right=1.0):
        p = np.exp(x - x.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        dx = p.copy()
        dx[np.arange(len(x)), y] -= 1
        return -np.log(p[np.arange(len(x)), y]).mean(), right * dx / len(x)

    x, y = rng.normal(size=(5, 4)), np.asarray([0, 1, 2, 3, 0])
    assert check_gradients(softmax_loss, x, y)
    assert failed(check_gradients(partial(softmax_loss, right=5), x, y)) == {"x": 20}
    assert check_gradients(lambda x, t: (((x - t) ** 2).sum(), 2 * (x - t)), x, x + 1)  # of the first input alone
    assert check_gradients(lambda x, t: (((x - t) ** 2).sum(), (2 * (x - t), -2 * (x - t))), x, x + 1)


def test_forward_and_backward_with_a_cache(three):
    def affine_forward(x, w, b):
        return x @ w + b, (x, w, b)

    def affine_backward(dout, cache, wrong=1):
        x, w, _ = cache
        return dout @ w.T, wrong * (x.T @ dout), dout.sum(axis=0)

    check = check_gradients(affine_forward, *three, backward=affine_backward)
    assert check
    assert [p.name for p in check.parameters] == ["x", "w", "b"]
    assert failed(check_gradients(affine_forward, *three, backward=partial(affine_backward, wrong=2))) == {"w": 6}


def test_a_mode_in_a_dict_is_passed_through(rng):
    def dropout_forward(x, param):
        mask = np.random.default_rng(param["seed"]).random(x.shape) < param["p"]
        return x * mask / param["p"], (param, mask)

    def dropout_backward(dout, cache):
        return dout * cache[1] / cache[0]["p"]

    assert check_gradients(dropout_forward, rng.normal(size=(4, 5)), {"p": 0.7, "seed": 1}, backward=dropout_backward)


def test_statistics_in_a_dict_are_kept_as_they_were(rng):
    def forward(x, gamma, beta, param):
        mean, var = x.mean(axis=0), x.var(axis=0)
        running = param.get("running_mean", np.zeros(x.shape[1]))
        param["running_mean"] = 0.9 * running + 0.1 * mean
        n = (x - mean) / np.sqrt(var + 1e-5)
        return gamma * n + beta, (gamma, n, var)

    def backward(dout, cache):
        gamma, n, var = cache
        d = dout * gamma
        dx = (d - d.mean(axis=0) - n * (d * n).mean(axis=0)) / np.sqrt(var + 1e-5)
        return dx, (dout * n).sum(axis=0), dout.sum(axis=0)

    for param in ({"mode": "train"}, {"mode": "train", "running_mean": np.full(3, 2.0)}):
        before = dict(param)
        assert check_gradients(forward, rng.normal(size=(6, 3)), np.ones(3), np.zeros(3), param, backward=backward)
        assert param == before or (param["running_mean"] == 2.0).all()


# ── What the claim gets wrong is a verdict ──────────────────────────────────────────────────────────────────────────

X = np.asarray([[1.0, -2.0, 0.5], [0.3, 1.1, -0.7]])
CLAIMS = {
    "another shape": (lambda x, d: (2 * x * d).sum(axis=0), None),
    "too many": (lambda x, d: (d, d, d), "gradient returned 3 values; it must return 1, the gradients of x"),
    "text": (lambda x, d: "2x", "gradient returned str for x; it must be an array"),
    "integers": (lambda x, d: np.ones(x.shape, int), "gradient of x has dtype int64; it must hold real numbers"),
    "complex": (lambda x, d: 2 * x * d + 0j, "gradient of x has dtype complex128; it must hold real numbers"),
    "an exception": (lambda x, d: 1 / 0, "gradient raised ZeroDivisionError: division by zero"),
    "writes": (
        lambda x, d: np.multiply(2 * d, x, out=x),
        "gradient changes its x; it must leave what it is given alone",
    ),
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_a_wrong_claim_is_a_verdict_with_its_reason(kind):
    claim, says = CLAIMS[kind]
    x = X.copy()
    check = check_gradients(lambda x: x**2, x, gradient=claim)
    assert not check
    if says:
        assert problem(check) == says
    else:
        assert "backpropagation has shape (3,)" in repr(check)
    np.testing.assert_array_equal(x, X)


def test_an_input_left_out_is_a_verdict(three):
    check = check_gradients(affine, *three, gradient=lambda x, W, b, dout: (dout @ W.T, x.T @ dout))
    assert problem(check) == "gradient returned 2 values; it must return 3, the gradients of x, W, b"


def test_a_gradient_that_adds_up_or_is_not_linear_is_a_verdict(rng):
    x, kept = rng.normal(size=(3, 2)), np.zeros((3, 2))

    def adds(x, dout):
        kept[...] += 2 * x * dout
        return kept

    assert "another gradient for x the second time" in problem(check_gradients(lambda x: x**2, x, gradient=adds))
    square = lambda x, d: 2 * x * d * abs(d)  # noqa: E731
    assert "a backward must multiply by its dout" in problem(check_gradients(lambda x: x**2, x, gradient=square))


# ── What the function gets wrong is named ───────────────────────────────────────────────────────────────────────────


def test_a_function_that_changes_its_inputs(rng):
    x = X.copy()
    check = check_gradients(lambda x: np.multiply(x, 2, out=x), x, gradient=lambda x, d: 2 * d)
    assert problem(check) == "f changes its x; it must leave what it is given alone"
    np.testing.assert_array_equal(x, X)


def test_a_function_that_is_not_repeatable():
    drawing = np.random.default_rng(0)
    check = check_gradients(lambda x: x * drawing.normal(), X, gradient=lambda x, d: d)
    assert problem(check).startswith("f is random: two calls differ by ")
    assert "give its generator or key as an input" in problem(check)


def test_a_function_that_raises_half_way():
    x, calls = X.copy(), []

    def fails(x):
        calls.append(1)
        x[0, 0] = 7.0 if len(calls) > 10 else x[0, 0]
        if len(calls) > 10:
            raise RuntimeError("out of memory")
        return x**2

    with pytest.raises(RuntimeError, match="out of memory"):
        check_gradients(fails, x, gradient=lambda x, d: 2 * x * d)
    np.testing.assert_array_equal(x, X)


def test_a_function_that_raises_at_once_says_whose_error_it_is():
    def f(x):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no") as caught:
        check_gradients(f, X, gradient=X)
    assert "raised by f when it was called with the inputs as given" in caught.value.__notes__[0]


@pytest.mark.parametrize("infinite", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(infinite):
    x = X.copy()
    x[0, 1] = infinite
    assert problem(check_gradients(bowl, x, gradient=x)) == "NaN or infinite values in x: 1 of 6"
    check = check_gradients(lambda x: x * infinite, X, gradient=lambda x, d: d)
    assert problem(check) == "f returned NaN or infinite values: nothing can be told from them"


# ── What the caller gets wrong is an error ──────────────────────────────────────────────────────────────────────────

ERRORS = {
    "nothing claimed": (lambda: check_gradients(bowl, X), TypeError, "say what its gradient is: gradient="),
    "both": (lambda: check_gradients(bowl, X, gradient=X, backward=bowl), TypeError, "both given"),
    "no floats": (lambda: check_gradients(bowl, np.arange(3), gradient=1), TypeError, "x has dtype int64, and only"),
    "no inputs": (lambda: check_gradients(lambda: 1.0, gradient=1), TypeError, "no inputs; there is nothing"),
    "no function": (lambda: check_gradients(3, X, gradient=X), TypeError, "3 cannot be called"),
    "all None": (lambda: check_gradients(bowl, X, gradient=lambda x: None), ValueError, "None for every input of bowl"),
    "an array's array": (
        lambda: check_gradients(np.exp, X, gradient=X),
        ValueError,
        "a function of the inputs and of dout",
    ),
    "returns None": (lambda: check_gradients(lambda x: None, X, gradient=X), TypeError, "f returned NoneType"),
    "returns text": (lambda: check_gradients(lambda x: "1", X, gradient=X), TypeError, "f returned str"),
    "returns integers": (lambda: check_gradients(lambda x: x.argmax(0), X, gradient=X), TypeError, "arrays of floats"),
    "no cache": (lambda: check_gradients(np.exp, X, backward=bowl), TypeError, r"must return \(out, cache\)"),
    "a list of numbers": (
        lambda: check_gradients(sum, [1.0, 2.0], gradient=[1, 1]),
        TypeError,
        "expected arrays of floats, got list",
    ),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_what_the_caller_gets_wrong_is_an_error(kind):
    call, error, says = ERRORS[kind]
    with pytest.raises(error, match=says):
        call()


def test_a_part_that_the_gradient_leaves_out(rng):
    """A key that is missing is no word about it; None is."""
    given = {"W": rng.normal(size=(3, 2)), "b": rng.normal(size=2)}
    f = lambda p: float((p["W"] ** 2).sum() * p["b"].sum())  # noqa: E731
    check = check_gradients(f, given, gradient=lambda p: {"W": 2 * p["W"] * p["b"].sum()})
    assert not check
    assert "returned nothing for p.b" in check.problems[0]
    check = check_gradients(f, given, gradient=lambda p: {"W": 2 * p["W"] * p["b"].sum(), "b": None})
    assert check
    assert "not differentiated: p.b" in check.title


def test_arrays_without_entries(rng):
    f, gradient = lambda x, y: float((x**2).sum() + y.sum()), lambda x, y: (2 * x, np.ones_like(y))
    assert check_gradients(f, rng.normal(size=(2, 3)), np.zeros((0, 3)), gradient=gradient)
    with pytest.raises(ValueError, match="no entry"):
        check_gradients(f, np.zeros((2, 0)), np.zeros((0, 3)), gradient=gradient)


def test_half_precision_is_refused_by_name(case):
    if case.guarded:
        pytest.skip("a check reads values on the host")
    for dtype in ("float16", "bfloat16"):
        if hasattr(case.xp, dtype):
            x = case.xp.asarray([1.0, 2.0], dtype=getattr(case.xp, dtype))
            with pytest.raises(TypeError, match="half precision"):
                check_gradients(lambda x: x * x, x, gradient=lambda x, dout: 2 * x * dout)


def test_a_loss_in_float64_of_arrays_in_float32(rng):
    """What is summed up in float64 was rounded in float32 all the same."""
    for size in (1e-4, 1e-6, 1e-8):
        x = (size * rng.normal(size=(4, 3))).astype("float32")
        f = lambda x: float(np.log(1 + np.exp(x)).sum(dtype="float64"))  # noqa: E731
        right = (1 / (1 + np.exp(-x))).astype("float32")
        assert check_gradients(f, x, gradient=right).failed == 0
        assert not check_gradients(f, x, gradient=-right)
