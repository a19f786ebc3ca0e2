"""Finite changes carried through layers, against 50 digits."""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from xpnet import Affine, IdentityWithLoss, Relu, Sigmoid, Softmax, SoftmaxWithLoss

SIZES = (1e-12, 1e-9, 1e-6, 1e-3, 1.0)
LEADING = ((), (2,))
N, C = 3, 4

# ── References in 50 digits ─────────────────────────────────────────────────────────────────────────────────────────


def exactly(f, *arrays):
    """Apply ``f``, which takes and returns lists of Decimals, to the rows of arrays, in 50 digits."""
    with localcontext() as context:
        context.prec = 50
        rows = [np.reshape(a, (-1, a.shape[-1])) for a in map(np.asarray, arrays)]
        results = [f(*([Decimal(float(v)) for v in row] for row in several)) for several in zip(*rows, strict=True)]
        return np.asarray([[float(v) for v in row] for row in results])


def exact_relu(x, dx):
    return [max(a + d, 0) - max(a, 0) for a, d in zip(x, dx, strict=True)]


def exact_sigmoid(x, dx):
    return [1 / (1 + (-a - d).exp()) - 1 / (1 + (-a).exp()) for a, d in zip(x, dx, strict=True)]


def exact_softmax(x, dx):
    def softmax(row):
        powers = [v.exp() for v in row]
        return [power / sum(powers) for power in powers]

    return [q - p for q, p in zip(softmax([a + d for a, d in zip(x, dx, strict=True)]), softmax(x), strict=True)]


def exact_cross_entropy(x, dx, t):
    def loss(row):
        total = sum(v.exp() for v in row).ln()
        return sum(w * (total - v) for w, v in zip(t, row, strict=True))

    return [loss([a + d for a, d in zip(x, dx, strict=True)]) - loss(x)]


def exact_squares(x, dx, t):
    return [sum(d * (a - w) + d * d / 2 for a, d, w in zip(x, dx, t, strict=True))]


def inputs_and_changes(case, rng, size, leading=(), spread=3.0):
    x = case.asarray(rng.normal(scale=spread, size=(N, C)))
    dx = case.asarray(rng.normal(scale=size, size=(*leading, N, C)))
    return x, dx, np.broadcast_to(case.host(x), (*leading, N, C)).astype("float64"), case.host(dx).astype("float64")


# ── Changes of every layer ──────────────────────────────────────────────────────────────────────────────────────────
# A unit round-off below is case.eps, the distance from 1 to the next number.


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("size", SIZES)
class TestDifference:
    def test_relu_is_the_nearest_number_to_the_change(self, case, rng, size, leading):
        x, dx, x64, dx64 = inputs_and_changes(case, rng, size, leading, spread=2 * size)  # half of them cross zero
        layer = Relu()
        with case.computing():
            change = layer.difference(x, dx)
        case.assert_ours(change, dx.shape)
        exact = exactly(exact_relu, x64, dx64).reshape(dx64.shape)
        assert (np.abs(case.host(change) - exact) <= 0.5 * case.eps * np.abs(exact)).all()
        assert np.count_nonzero((x64 > 0) != (x64 + dx64 > 0)) > 0

    def test_sigmoid_to_four_round_offs_of_the_change(self, case, rng, size, leading):
        x, dx, x64, dx64 = inputs_and_changes(case, rng, size, leading)
        layer = Sigmoid()
        with case.computing():
            change = layer.difference(x, dx)
        case.assert_ours(change, dx.shape)
        exact = exactly(exact_sigmoid, x64, dx64).reshape(dx64.shape)
        assert np.max(np.abs(case.host(change) - exact) / np.abs(exact)) <= 4 * case.eps

    def test_affine_to_the_rounding_of_its_sum(self, case, rng, size, leading):
        x, dx, _, dx64 = inputs_and_changes(case, rng, size, leading)
        W, b = case.asarray(rng.normal(size=(C, 5))), case.asarray(rng.normal(size=5))
        layer = Affine(W, b)
        with case.computing():
            change = layer.difference(x, dx)
        case.assert_ours(change, (*leading, N, 5))
        W64 = case.host(W).astype("float64")
        allowed = 0.5 * C * case.eps * (np.abs(dx64) @ np.abs(W64))  # C products and C − 1 additions, half each
        assert (np.abs(case.host(change) - dx64 @ W64) <= allowed * (1 + 1e-6)).all()

    def test_softmax_to_two_round_offs_of_the_largest_change(self, case, rng, size, leading):
        x, dx, x64, dx64 = inputs_and_changes(case, rng, size, leading)
        layer = Softmax()
        with case.computing():
            change = layer.difference(x, dx)
        case.assert_ours(change, dx.shape)
        exact = exactly(exact_softmax, x64, dx64).reshape(dx64.shape)
        largest = np.max(np.abs(dx64), axis=-1, keepdims=True)
        assert np.max(np.abs(case.host(change) - exact) / largest) <= 2 * case.eps

    @pytest.mark.parametrize("targets", ["labels", "one-hot", "soft"])
    def test_cross_entropy_to_three_round_offs_of_the_largest_change(self, case, rng, size, leading, targets):
        x, dx, x64, dx64 = inputs_and_changes(case, rng, size, leading)
        labels = rng.integers(0, C, N)
        weights = rng.uniform(-0.5, 1.5, size=(N, C)) if targets == "soft" else np.eye(C)[labels]
        t = case.asarray(labels if targets == "labels" else weights)
        layer = SoftmaxWithLoss()
        layer.forward(x, t)
        with case.computing():
            change = layer.difference(x, layer.t, dx)
        case.assert_ours(change, (*leading, N))
        weights = np.broadcast_to(case.host(layer.t).astype("float64"), dx64.shape)
        exact = exactly(exact_cross_entropy, x64, dx64, weights).reshape(dx64.shape[:-1])
        scale = np.max(np.abs(dx64), axis=-1) * np.sum(np.abs(weights), axis=-1)
        assert np.max(np.abs(case.host(change) - exact) / scale) <= 3 * case.eps

    def test_squared_error_to_two_round_offs_of_its_terms(self, case, rng, size, leading):
        x, dx, x64, dx64 = inputs_and_changes(case, rng, size, leading)
        t = case.asarray(rng.normal(size=(N, C)))
        layer = IdentityWithLoss()
        with case.computing():
            change = layer.difference(x, t, dx)
        case.assert_ours(change, (*leading, N))
        t64 = np.broadcast_to(case.host(t).astype("float64"), dx64.shape)
        exact = exactly(exact_squares, x64, dx64, t64).reshape(dx64.shape[:-1])
        terms = np.sum(np.abs(dx64) * (np.abs(x64 - t64) + 0.5 * np.abs(dx64)), axis=-1)
        assert np.max(np.abs(case.host(change) - exact) / terms) <= 2 * case.eps


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("x", [-30.0, 30.0])
def test_sigmoid_changes_where_it_is_saturated(dtype, size, x):
    x, dx = np.full((1, 2), x, dtype=dtype), np.asarray([[size, -size]], dtype=dtype)
    exact = exactly(exact_sigmoid, x, dx)
    assert np.max(np.abs(Sigmoid().difference(x, dx) / exact - 1)) <= 4 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("x", [12.0, 30.0, 60.0, 85.0, 300.0, 1500.0])
@pytest.mark.parametrize("beyond", [-3.0, 0.0, 2.0, 40.0, 1e4])
def test_sigmoid_changes_from_one_end_to_the_other(dtype, x, beyond):
    x = np.asarray([[x, -x]], dtype=dtype)
    dx = -np.sign(x) * (np.abs(x) + np.asarray(beyond, dtype=dtype))
    exact = exactly(exact_sigmoid, x, dx)
    assert np.max(np.abs(Sigmoid().difference(x, dx) / exact - 1)) <= 4 * np.finfo(dtype).eps


def test_a_sum_of_changes_as_small_as_they_get_is_no_zero():
    """Subtracting two values of sigmoid would give 0 for these; their change is 4e-30."""
    change = Sigmoid().difference(np.asarray([[-30.0]]), np.asarray([[4e-17]]))
    np.testing.assert_allclose(change, [[4e-17 * np.exp(-30.0)]], rtol=1e-12)
