"""Activation functions, softmax and one-hot targets: numbers, stability, exactness and refusals."""

import decimal
import re

import numpy as np
import pytest
from array_api_compat import array_namespace

from xpnet import (
    get_backend,
    identity_function,
    log_softmax,
    one_hot,
    relu,
    sigmoid,
    softmax,
    step_function,
    why_unusable,
)
from xpnet.functions import as_targets

SHAPES = [(5,), (4, 5), (2, 3, 5)]


def exact(function, x):
    """Return ``function`` of each number of ``x``, evaluated with 60 digits and rounded once."""
    with decimal.localcontext(prec=60):
        return np.asarray([float(function(decimal.Decimal(float(v)))) for v in x])


def exact_log_softmax(row):
    with decimal.localcontext(prec=60, Emin=-(10**6), Emax=10**6):
        row = [decimal.Decimal(float(v)) for v in row]
        total = sum(v.exp() for v in row).ln()
        return np.asarray([float(v - total) for v in row])


def test_step_function(case):
    x = case.asarray([-1.0, -0.0, 0.0, 1e-30, 2.0, np.nan])
    with case.computing():
        y = step_function(x)
    case.assert_close(y, [0, 0, 0, 1, 1, 0])


def test_relu_keeps_nan(case):
    x = case.asarray([-1.0, 0.0, 2.0, np.nan, -np.inf, np.inf])
    with case.computing():
        y = relu(x)
    case.assert_ours(y)
    np.testing.assert_array_equal(case.host(y), [0.0, 0.0, 2.0, np.nan, 0.0, np.inf])


def test_identity_function_returns_its_argument(case):
    x = case.asarray([[1.0, -2.0]])
    assert identity_function(x) is x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("function", [relu, sigmoid, softmax, log_softmax, step_function])
def test_leading_axes_pass_and_the_argument_stays(case, rng, function, shape):
    host = rng.normal(size=shape)
    x = case.asarray(host)
    before = case.host(x).copy()
    rows = case.asarray(host.reshape(-1, 5))
    with case.computing():
        y = function(x)
        row_by_row = [function(rows[i, ...]) for i in range(rows.shape[0])]
    expected = np.stack([case.host(row) for row in row_by_row]).reshape(shape)
    case.assert_close(y, expected, eps=4)
    np.testing.assert_array_equal(case.host(x), before)


def test_sigmoid_is_exact_in_relative_terms_down_to_minus_100(case):
    lowest = -100.0 if case.dtype == "float64" else -80.0  # below −87 the result is subnormal in float32
    host = np.linspace(lowest, 40.0, 281, dtype=case.dtype)
    x = case.asarray(host)
    with case.computing():
        y = sigmoid(x)
    case.assert_ours(y)
    expected = exact(lambda v: 1 / (1 + (-v).exp()), host)
    np.testing.assert_allclose(case.host(y), expected, rtol=6 * case.eps, atol=0)


@pytest.mark.parametrize("function", [sigmoid, softmax, log_softmax, relu])
def test_finite_at_plus_and_minus_1000_without_a_warning(case, function):
    x = case.asarray([[-1000.0, 0.0, 1000.0], [1000.0, 1000.0, 1000.0], [-1000.0, -1000.0, -1000.0]])
    with case.computing():
        y = function(x)
    third = 1 / 3
    expected = {
        sigmoid: [[0, 0.5, 1], [1, 1, 1], [0, 0, 0]],
        softmax: [[0, 0, 1], [third] * 3, [third] * 3],
        log_softmax: [[-2000, -1000, 0], [np.log(third)] * 3, [np.log(third)] * 3],
        relu: [[0, 0, 1000], [1000] * 3, [0] * 3],
    }[function]
    case.assert_close(y, expected, eps=2)


def test_softmax_of_the_book(case):
    x = case.asarray([0.3, 2.9, 4.0])
    with case.computing():
        y = softmax(x)
        shifted = softmax(x + 1000.0)
    case.assert_close(y, [0.01821127, 0.24519181, 0.73659691], decimals=8)
    # x + 1000 itself is rounded to a unit of 1000, and that is all that may differ
    np.testing.assert_allclose(case.host(shifted), case.host(y), rtol=0, atol=1000 * case.eps)


def test_softmax_rows_are_probabilities(case, rng):
    x = case.asarray(20 * rng.normal(size=(3, 7, 10)))
    with case.computing():
        y = softmax(x)
        total = case.xp.sum(y, axis=-1)
    case.assert_close(total, np.ones((3, 7)))
    assert np.all((case.host(y) >= 0) & (case.host(y) <= 1))


def test_log_softmax_is_exact_where_softmax_underflows(case, rng):
    host = (100 * rng.normal(size=(6, 10))).astype(case.dtype)
    host[0, :3] = [0, -2000, 2000]
    x = case.asarray(host)
    with case.computing():
        y = log_softmax(x)
        p = softmax(x)
    expected = np.stack([exact_log_softmax(row) for row in host])
    assert np.any(case.host(p) == 0), "the test means nothing unless softmax underflows"
    case.assert_close(y, expected, eps=2)
    for row, reference in zip(case.host(y), expected, strict=True):
        np.testing.assert_allclose(row, reference, rtol=4 * case.eps, atol=4 * case.eps)


def test_log_softmax_is_the_logarithm_of_softmax(case, rng):
    x = case.asarray(rng.normal(size=(4, 5)))
    with case.computing():
        difference = case.xp.exp(log_softmax(x)) - softmax(x)
    case.assert_ours(difference)
    assert np.max(np.abs(case.host(difference))) < 8 * case.eps


@pytest.mark.parametrize("shape", [(), (4,), (2, 4), (2, 3, 4)])
def test_one_hot(case, rng, shape):
    host = rng.integers(0, 6, size=shape)
    t = case.asarray(host)
    with case.computing():
        hot = one_hot(t, 6, dtype=case.float)
    case.assert_ours(hot)
    np.testing.assert_array_equal(case.host(hot), np.eye(6)[host])


def test_one_hot_uses_the_default_float_of_the_library(case):
    t = case.asarray([1])
    with case.computing():
        hot = one_hot(t, 3)
    info = case.xp.__array_namespace_info__()
    assert hot.dtype == info.default_dtypes(device=case.device)["real floating"]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_one_hot_takes_every_integer_dtype(case, dtype):
    t = case.asarray([2, 0], dtype=dtype)
    with case.computing():
        hot = one_hot(t, 3, dtype=case.float)
    case.assert_close(hot, [[0, 0, 1], [1, 0, 0]])


def test_a_label_out_of_range_gives_a_row_of_nan(case):
    t = case.asarray([0, 3, -1, 2])
    with case.computing():
        hot = one_hot(t, 3, dtype=case.float)
    nan = [np.nan] * 3
    np.testing.assert_array_equal(case.host(hot), [[1, 0, 0], nan, nan, [0, 0, 1]])


@pytest.mark.parametrize("function", [sigmoid, softmax, log_softmax])
def test_integers_are_refused_with_the_cure(case, function):
    with pytest.raises(TypeError, match=r"x has dtype .*int64.* only real floating.* convert with"):
        function(case.asarray([1, 2, 3]))


@pytest.mark.parametrize("function", [step_function, relu, sigmoid, softmax, log_softmax])
def test_lists_are_refused_with_the_cure(function):
    with pytest.raises(TypeError, match=r"expected an array, got list.* convert with"):
        function([1.0, 2.0])


@pytest.mark.parametrize("dtype", ["float64", "bool"])
def test_one_hot_refuses_what_is_no_class_number(case, dtype):
    if dtype == "float64":
        dtype = case.dtype
    with pytest.raises(TypeError, match=r"labels t have dtype .*(float|bool).* integers; convert with"):
        one_hot(case.asarray([1, 0], dtype=dtype), 3)


def test_one_hot_refuses_a_dtype_that_is_no_float_of_the_library(case):
    for dtype in ("float64", case.xp.int64):
        with pytest.raises(TypeError, match=f"dtype is {re.escape(repr(dtype))}; it must be a float dtype of the lib"):
            one_hot(case.asarray([1, 0]), 3, dtype=dtype)


@pytest.mark.parametrize("num_classes", [0, -1])
def test_one_hot_refuses_no_classes(case, num_classes):
    with pytest.raises(ValueError, match=f"num_classes is {num_classes}; it must be a whole number of at least 1"):
        one_hot(case.asarray([0]), num_classes)


def test_two_libraries_are_refused_by_name():
    other = why_unusable("array_api_strict")
    if other:
        pytest.skip(other)
    y = np.asarray([[0.5, 0.5]])
    t = get_backend("array_api_strict").asarray([0])
    assert array_namespace(y) is not array_namespace(t)
    with pytest.raises(TypeError, match=r"one library, got numpy\.ndarray, array_api_strict\.Array") as raised:
        as_targets(t=t, y=y)
    assert isinstance(raised.value.__cause__, TypeError), "what array_api_compat said is kept"
