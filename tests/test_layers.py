"""Layers: numbers, the contract of ``backward``, and gradients against PyTorch's and JAX's autograd."""

import math
import re
from dataclasses import dataclass
from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnet import (
    AddLayer,
    Affine,
    IdentityWithLoss,
    MulLayer,
    Relu,
    Sigmoid,
    Softmax,
    SoftmaxWithLoss,
    TwoLayerNet,
    get_backend,
    why_unusable,
)

D, M = 5, 3  # features of an input, columns of Affine
SHAPES = [(D,), (4, D), (2, 4, D)]
KINDS = ("labels", "one-hot", "soft")


def away_from_kinks(x):
    """Return ``x`` with every entry at least 0.1 from 0, where max(x, 0) has no derivative."""
    return x + np.copysign(0.1, x)


def random_targets(rng, kind, shape):
    """Return targets for scores of ``shape``; the soft ones have both signs and do not sum to one."""
    if kind == "soft":
        return rng.normal(size=shape)
    labels = rng.integers(0, shape[-1], size=shape[:-1])
    return labels if kind == "labels" else np.eye(shape[-1])[labels]


# ── A layer, and the same function written for an autograd library ──────────────────────────────────────────────────


def softmax_for(lib, x):
    return lib.exp(x) / lib.exp(x).sum(-1)[..., None]


@dataclass(frozen=True)
class Inner:
    """A layer with one input and one output; ``function(lib, x, *parameters)`` is it in PyTorch or JAX."""

    make: Any
    function: Any
    parameters: tuple = ()


INNER = {
    "Relu": Inner(Relu, lambda lib, x: (abs(x) + x) / 2),
    "Sigmoid": Inner(Sigmoid, lambda lib, x: 1 / (1 + lib.exp(-x))),
    "Softmax": Inner(Softmax, softmax_for),
    "Affine": Inner(Affine, lambda lib, x, W, b: x @ W + b, ("W", "b")),
    "Affine without b": Inner(Affine, lambda lib, x, W: x @ W, ("W",)),
}

OUTER = {
    "SoftmaxWithLoss": (SoftmaxWithLoss, lambda lib, x, t: -(t * lib.log(softmax_for(lib, x))).sum(-1)),
    "IdentityWithLoss": (IdentityWithLoss, lambda lib, x, t: ((x - t) ** 2).sum(-1) / 2),
}


def average(losses):
    """Average over the batch axis, the last one, if there is one."""
    return losses.mean(-1) if losses.ndim else losses


def draw_parameters(name, rng, columns=M):
    shapes = {"W": (D, columns), "b": (columns,)}
    return [rng.normal(size=shapes[p]) for p in INNER[name].parameters]


def torch_gradients(function, arrays, dout):
    """Return the value of ``function(torch, *arrays)`` and the gradients of Σ value·dout by PyTorch's autograd."""
    reason = why_unusable("torch")
    if reason:
        pytest.skip(reason)
    import torch

    leaves = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    value = function(torch, *leaves)
    (value * torch.as_tensor(dout, dtype=torch.float64)).sum().backward()
    return value.detach().numpy(), [leaf.grad.numpy() for leaf in leaves]


def jax_gradients(function, arrays, dout):
    """Return the same by JAX."""
    reason = why_unusable("jax")
    if reason:
        pytest.skip(reason)
    get_backend("jax")  # switches on 64-bit numbers
    import jax
    import jax.numpy as jnp

    leaves = [jnp.asarray(a) for a in arrays]
    value, pullback = jax.vjp(lambda *leaves: function(jnp, *leaves), *leaves)
    return np.asarray(value), [np.asarray(g) for g in pullback(jnp.broadcast_to(jnp.asarray(dout), value.shape))]


def run_inner(case, name, x, parameters, dout):
    """Run forward and backward on a case; return the value and the gradients of input and parameters."""
    layer = INNER[name].make(*map(case.asarray, parameters))
    x, dout = case.asarray(x), case.asarray(dout)
    with case.computing():
        value = layer.forward(x)
        dx = layer.backward(dout)
    return value, [dx, *(getattr(layer, f"d{p}") for p in INNER[name].parameters)]


def run_outer(case, name, x, t, dout):
    layer = OUTER[name][0]()
    x, t = case.asarray(x), case.asarray(t)
    dout = case.asarray(dout) if isinstance(dout, np.ndarray) else dout
    with case.computing():
        value = layer.forward(x, t)
        dx = layer.backward(dout)
    return value, dx


def compare(case, ours, reference):
    for got, expected in zip(ours, reference, strict=True):
        # the operands are rounded to the dtype first, then sums of up to 24 terms are: a few dozen round-offs
        case.assert_close(got, expected, eps=64)


# ── Apples and oranges: plain numbers ───────────────────────────────────────────────────────────────────────────────


def test_two_apples_with_tax():
    apple, tax = MulLayer(), MulLayer()
    price = tax.forward(apple.forward(100, 2), 1.1)
    assert price == 220.00000000000003
    dapple_price, dtax = tax.backward(1)
    dapple, dnumber = apple.backward(dapple_price)
    assert (dapple, dnumber, dtax) == (2.2, 110.00000000000001, 200)


def test_two_apples_and_three_oranges_with_tax():
    apple, orange, both, tax = MulLayer(), MulLayer(), AddLayer(), MulLayer()
    price = tax.forward(both.forward(apple.forward(100, 2), orange.forward(150, 3)), 1.1)
    assert price == 715.0000000000001
    dboth, dtax = tax.backward(1)
    dapple_price, dorange_price = both.backward(dboth)
    dorange, dorange_number = orange.backward(dorange_price)
    dapple, dapple_number = apple.backward(dapple_price)
    expected = (110.00000000000001, 2.2, 3.3000000000000003, 165.0, 650)
    assert (dapple_number, dapple, dorange, dorange_number, dtax) == expected


def test_mul_and_add_of_arrays(case):
    x, y, dout = case.asarray([2.0, 3.0]), case.asarray([5.0, 7.0]), case.asarray([1.0, 10.0])
    mul, add = MulLayer(), AddLayer()
    with case.computing():
        product, total = mul.forward(x, y), add.forward(x, y)
        (dx, dy), (da, db) = mul.backward(dout), add.backward(dout)
    for got, expected in ((product, [10, 21]), (total, [7, 10]), (dx, [5, 70]), (dy, [2, 30])):
        case.assert_close(got, expected, eps=0)
    for got in (da, db):
        case.assert_close(got, [1, 10], eps=0)


# ── The contract of backward ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("name", INNER)
def test_backward_is_linear_repeatable_and_writes_into_nothing(case, rng, name, shape):
    parameters = draw_parameters(name, rng)
    layer = INNER[name].make(*map(case.asarray, parameters))
    x = case.asarray(away_from_kinks(rng.normal(size=shape)))
    out = shape if not parameters else (*shape[:-1], M)
    u, v = (case.asarray(rng.normal(size=out)) for _ in range(2))
    given = {"x": x, "u": u, "v": v, **{p: getattr(layer, p) for p in INNER[name].parameters}}
    before = {key: np.array(case.host(value)) for key, value in given.items()}

    def gradients(dout):
        dx = layer.backward(dout)
        return {"x": dx, **{p: getattr(layer, f"d{p}") for p in INNER[name].parameters}}

    with case.computing():
        y = layer.forward(x)
        of_u, of_v, again = gradients(u), gradients(v), gradients(u)
        of_sum = gradients(2.0 * u - 3.0 * v)
        y_again = layer.forward(x)
    case.assert_ours(y, out)
    np.testing.assert_array_equal(case.host(y), case.host(y_again))
    for key, value in of_u.items():
        case.assert_ours(value, given[key].shape)
        np.testing.assert_array_equal(case.host(again[key]), case.host(value))
        expected = 2.0 * case.host(value) - 3.0 * case.host(of_v[key])
        case.assert_close(of_sum[key], expected, eps=64)
    for key, value in given.items():
        np.testing.assert_array_equal(case.host(value), before[key], err_msg=f"{key} was written")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", OUTER)
def test_backward_of_an_output_layer_keeps_its_contract(case, rng, name, shape, kind):
    layer = OUTER[name][0]()
    x, t = case.asarray(rng.normal(size=shape)), case.asarray(random_targets(rng, kind, shape))
    stack = shape[:-2]
    u, v = (case.asarray(rng.normal(size=stack)) for _ in range(2))
    before = {key: np.array(case.host(value)) for key, value in (("x", x), ("t", t), ("u", u))}
    with case.computing():
        loss = layer.forward(x, t)
        of_u, of_v, again = layer.backward(u), layer.backward(v), layer.backward(u)
        of_sum = layer.backward(2.0 * u - 3.0 * v)
        of_one, of_three = layer.backward(), layer.backward(3)
    case.assert_ours(loss, stack)
    for dx in (of_u, of_sum, of_one, of_three):
        case.assert_ours(dx, shape)
    np.testing.assert_array_equal(case.host(again), case.host(of_u))
    case.assert_close(of_sum, 2.0 * case.host(of_u) - 3.0 * case.host(of_v), eps=64)
    case.assert_close(of_three, 3.0 * case.host(of_one))
    for key, value in (("x", x), ("t", t), ("u", u)):
        np.testing.assert_array_equal(case.host(value), before[key], err_msg=f"{key} was written")


def test_affine_keeps_only_the_parameters_gradients_when_asked(case, rng):
    W, b = draw_parameters("Affine", rng)
    layer = Affine(case.asarray(W), case.asarray(b))
    x, dout = case.asarray(rng.normal(size=(4, D))), case.asarray(rng.normal(size=(4, M)))
    with case.computing():
        layer.forward(x)
        layer.backward_parameters(dout)
    case.assert_close(layer.dW, case.host(x).T @ case.host(dout))
    case.assert_close(layer.db, case.host(dout).sum(axis=0))


def test_the_loss_layers_keep_loss_and_probabilities(case, rng):
    x, t = case.asarray(rng.normal(size=(4, 5))), case.asarray([0, 4, 2, 2])
    layer = SoftmaxWithLoss()
    with case.computing():
        loss = layer.forward(x, t)
        y = layer.y
    assert layer.loss is loss
    e = np.exp(case.host(x))
    case.assert_close(y, e / e.sum(axis=-1, keepdims=True))
    case.assert_close(layer.t, np.eye(5)[[0, 4, 2, 2]], eps=0)


@pytest.mark.parametrize("name", OUTER)
def test_a_label_out_of_range_gives_nan(case, rng, name):
    x, t = case.asarray(rng.normal(size=(2, 5))), case.asarray([0, 5])
    layer = OUTER[name][0]()
    with case.computing():
        loss = layer.forward(x, t)
        dx = layer.backward()
    assert np.isnan(case.host(loss))
    assert np.isnan(case.host(dx)[1]).all()
    assert np.isfinite(case.host(dx)[0]).all()


def test_softmax_with_loss_is_finite_and_right_for_certain_mistakes(case):
    x, t = case.asarray([[1000.0, 0.0, -1000.0]]), case.asarray([2])
    layer = SoftmaxWithLoss()
    with case.computing():
        loss = layer.forward(x, t)
        dx = layer.backward()
    case.assert_close(loss, 2000.0, eps=1)
    case.assert_close(dx, [[1.0, 0.0, -1.0]], eps=1)


def test_relu_has_derivative_zero_at_zero_and_keeps_nan(case):
    x = case.asarray([-1.0, 0.0, 2.0, np.nan])
    dout = case.asarray([3.0, 5.0, 7.0, 1.0])
    layer = Relu()
    with case.computing():
        y = layer.forward(x)
        dx = layer.backward(dout)
    np.testing.assert_array_equal(case.host(y), [0, 0, 2, np.nan])
    np.testing.assert_array_equal(case.host(dx), [0, 0, 7, 0])


def test_relu_hides_no_gradient_that_went_wrong(case):
    layer = Relu()
    with case.computing(), np.errstate(invalid="ignore"):
        layer.forward(case.asarray([-1.0, 2.0, -1.0, 2.0]))
        dx = layer.backward(case.asarray([np.nan, np.nan, np.inf, np.inf]))
    np.testing.assert_array_equal(case.host(dx), [np.nan, np.nan, np.nan, np.inf])


@pytest.mark.parametrize(("W", "b"), [((D,), None), ((2, D, M), None), ((D, M), (D,)), ((D, M), (1, M)), ((D, M), ())])
def test_affine_refuses_parameters_that_do_not_fit(case, W, b):
    came = re.escape(f"W has shape {W} and b {b}; they must be (D, M) and (M,)")
    W, b = case.asarray(np.zeros(W)), None if b is None else case.asarray(np.zeros(b))
    with pytest.raises(ValueError, match=came):
        Affine(W, b)


@pytest.mark.parametrize(
    ("W", "b", "message"),
    [
        (784, 50, "W is the number 784; Affine takes the array W"),
        ([[1.0]], None, "W: expected an array"),
        (np.eye(2), [1.0, 2.0], "b: expected an array"),
        (np.eye(2, dtype="int64"), None, "W has dtype int64"),
        (np.eye(2), np.ones(2, dtype="int64"), "b has dtype int64"),
        (np.eye(2), np.ones(2, dtype="float32"), "W has dtype float64 and b float32; they must be of one dtype"),
    ],
)
def test_affine_refuses_parameters_that_are_no_arrays_of_floats(W, b, message):
    with pytest.raises(TypeError, match=message):
        Affine(W, b)


def test_affine_refuses_parameters_of_two_libraries():
    with pytest.raises(TypeError, match="W and b: expected arrays of one library"):
        Affine(array_api_strict.eye(2), np.ones(2))


@pytest.mark.parametrize("layer", [Relu(), Sigmoid(), Softmax(), Affine(np.eye(2))])
@pytest.mark.parametrize("x", [None, 1.0, [1.0, 2.0]])
def test_layers_refuse_what_is_no_array(layer, x):
    with pytest.raises(TypeError, match="x: expected an array"):
        layer.forward(x)


@pytest.mark.parametrize("name", OUTER)
def test_output_layers_refuse_what_is_no_array(name):
    for x, t in ((None, np.asarray([0])), ([[1.0, 2.0]], np.asarray([0])), (np.eye(2), [0, 1]), (np.eye(2), None)):
        with pytest.raises(TypeError, match="x and t: expected arrays"):
            OUTER[name][0]().forward(x, t)


@pytest.mark.parametrize(
    "layer",
    [MulLayer(), Relu(), Sigmoid(), Softmax(), Affine(np.eye(2)), SoftmaxWithLoss(), IdentityWithLoss()],
    ids=lambda layer: type(layer).__name__,
)
def test_backward_before_forward_says_what_comes_first(layer):
    with pytest.raises(AttributeError, match=rf"{type(layer).__name__} has no '.*'; forward\(x\) comes first"):
        layer.backward(np.eye(2))


@pytest.mark.parametrize("shape", [(), (M,), (4, M), (D, 1)])
def test_affine_refuses_an_input_that_does_not_fit(case, shape):
    layer = Affine(case.asarray(np.zeros((D, M))))
    with pytest.raises(ValueError, match=r"x has shape .* and W \(5, 3\): the last axis of x must have length 5"):
        layer.forward(case.asarray(np.zeros(shape)))


@pytest.mark.parametrize("name", OUTER)
@pytest.mark.parametrize("t", [np.zeros(3, dtype=int), np.zeros((4, 4)), np.zeros((4, 1)), np.zeros((2, 4, 5))])
def test_output_layers_refuse_targets_that_do_not_fit(case, name, t):
    with pytest.raises(ValueError, match=r"targets t have shape .* does not fit predictions of shape \(4, 5\)"):
        OUTER[name][0]().forward(case.asarray(np.zeros((4, 5))), case.asarray(t))


# ── Gradients against autograd ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", INNER)
def test_gradients_agree_with_pytorch(case, rng, name, shape):
    parameters = draw_parameters(name, rng)
    x = away_from_kinks(rng.normal(size=shape))
    dout = rng.normal(size=(*shape[:-1], M) if parameters else shape)
    value, gradients = run_inner(case, name, x, parameters, dout)
    expected, reference = torch_gradients(INNER[name].function, [x, *parameters], dout)
    compare(case, [value, *gradients], [expected, *reference])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", OUTER)
def test_gradients_of_output_layers_agree_with_pytorch(case, rng, name, shape, kind):
    x, t = rng.normal(size=shape), random_targets(rng, kind, shape)
    dout = rng.uniform(0.5, 2.0, size=shape[:-2])
    value, dx = run_outer(case, name, x, t, dout)
    weights = np.eye(D)[t] if kind == "labels" else t
    expected, (reference,) = torch_gradients(
        lambda torch, x: average(OUTER[name][1](torch, x, torch.as_tensor(weights))), [x], dout
    )
    terms = 1 + np.abs(weights).sum(axis=-1).max()  # soft weights of both signs cancel in the loss
    case.assert_ours(value, expected.shape)
    np.testing.assert_allclose(case.host(value), expected, rtol=0, atol=64 * case.eps * terms)
    compare(case, [dx], [reference])


shapes = st.tuples(
    st.lists(st.integers(1, 4), max_size=2).map(tuple),  # leading axes
    st.none() | st.integers(1, 6),  # batch, or one sample without a batch axis
    st.integers(1, 7),  # features or classes
    st.integers(0, 2**32 - 1),  # seed
).filter(lambda drawn: drawn[1] is not None or not drawn[0])


def spread_shape(drawn):
    leading, batch, features, seed = drawn
    return (*leading, *(() if batch is None else (batch,)), features), np.random.default_rng(seed)


class Host:
    """float64 NumPy as a case, for tests whose inputs hypothesis draws."""

    eps = float(np.finfo("float64").eps)

    @staticmethod
    def check(got, expected, terms):
        """``terms`` bounds the sum of the sizes of what was added up; rounding is relative to that."""
        assert got.shape == expected.shape
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected, rtol=0, atol=32 * Host.eps * terms)


@pytest.mark.parametrize("name", INNER)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(drawn=shapes, columns=st.integers(1, 4))
def test_gradients_on_random_shapes_agree_with_pytorch(name, drawn, columns):
    shape, rng = spread_shape(drawn)
    sizes = {"W": (shape[-1], columns), "b": (columns,)}
    parameters = [rng.normal(size=sizes[p]) for p in INNER[name].parameters]
    x = away_from_kinks(2 * rng.normal(size=shape))
    layer = INNER[name].make(*parameters)
    value = layer.forward(x)
    dout = rng.normal(size=value.shape)
    dx = layer.backward(dout)
    ours = [value, dx, *(getattr(layer, f"d{p}") for p in INNER[name].parameters)]
    expected, reference = torch_gradients(INNER[name].function, [x, *parameters], dout)
    biggest = [np.abs(a).max() for a in (x, dout, *parameters, 1.0)]
    terms = math.prod(max(1.0, size) for size in biggest) * max(shape[-1], value.size)
    for got, reference_value in zip(ours, [expected, *reference], strict=True):
        Host.check(got, reference_value, terms)


@pytest.mark.parametrize("name", OUTER)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(drawn=shapes, kind=st.sampled_from(KINDS), as_number=st.booleans())
def test_gradients_of_output_layers_on_random_shapes_agree_with_pytorch(name, drawn, kind, as_number):
    shape, rng = spread_shape(drawn)
    x, t = 2 * rng.normal(size=shape), random_targets(rng, kind, shape)
    layer = OUTER[name][0]()
    loss = layer.forward(x, t)
    dout = float(rng.normal()) if as_number else rng.normal(size=shape[:-2])
    dx = layer.backward(dout)
    weights = np.eye(shape[-1])[t] if kind == "labels" else t
    expected, (reference,) = torch_gradients(
        lambda torch, x: average(OUTER[name][1](torch, x, torch.as_tensor(weights))), [x], dout
    )
    terms = shape[-1] * (1 + np.abs(x).max() + np.abs(weights).max()) ** 2 * max(1.0, np.abs(dout).max())
    Host.check(np.asarray(loss), np.asarray(expected), terms)
    Host.check(dx, reference, terms)


@pytest.mark.parametrize("name", [*INNER, *OUTER])
def test_gradients_agree_with_jax(name):
    rng = np.random.default_rng(5)
    x = away_from_kinks(rng.normal(size=(2, 4, D)))
    if name in INNER:
        parameters = draw_parameters(name, rng)
        layer = INNER[name].make(*parameters)
        value = layer.forward(x)
        dout = rng.normal(size=value.shape)
        ours = [value, layer.backward(dout), *(getattr(layer, f"d{p}") for p in INNER[name].parameters)]
        expected, reference = jax_gradients(INNER[name].function, [x, *parameters], dout)
    else:
        layer, weights = OUTER[name][0](), rng.normal(size=x.shape)
        value = layer.forward(x, weights)
        dout = rng.normal(size=value.shape)
        ours = [value, layer.backward(dout)]
        expected, reference = jax_gradients(lambda jnp, x: average(OUTER[name][1](jnp, x, weights)), [x], dout)
    for got, reference_value in zip(ours, [expected, *reference], strict=True):
        Host.check(got, reference_value, terms=10.0)


# ── Nothing reads a value ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_a_training_step_runs_without_values(activation):
    """Arrays of PyTorch's meta device have shapes and dtypes but no values: whoever reads one raises."""
    reason = why_unusable("torch:meta")
    if reason:
        pytest.skip(reason)
    backend = get_backend("torch:meta")
    network = TwoLayerNet(6, 4, 3, activation=activation, dtype="float32", backend=backend)
    shapes = {name: tuple(value.shape) for name, value in network.params.items()}
    x = backend.xp.zeros((5, 6), dtype=backend.xp.float32, device="meta")
    with pytest.raises(RuntimeError, match="meta"):
        float(x[0, 0])
    hot = backend.xp.zeros((5, 3), dtype=backend.xp.float32, device="meta")
    for t in (backend.xp.zeros((5,), dtype=backend.xp.int64, device="meta"), hot):
        loss, gradients = network.loss_and_gradient(x, t)
        for name in network.params:
            network.params[name] -= 0.1 * gradients[name]
        accuracy = network.accuracy(x, t, batch_size=2)
        for value, shape in [(loss, ()), (accuracy, ()), *((network.params[k], s) for k, s in shapes.items())]:
            assert value.device.type == "meta"
            assert value.dtype == backend.xp.float32
            assert tuple(value.shape) == shape
    assert tuple(network.predict(x).shape) == (5, 3)
