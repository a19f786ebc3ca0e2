"""Whatever is passed to a public function, the answer is right or an error names the argument.

The property, in every test: either the answer equals that of a plain reference in higher precision, or a TypeError or
ValueError is raised whose message names the argument that is wrong. Nothing else, and never a silent wrong number.
"""

import re
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import xpnet
from xpnet import SimpleNet, TwoLayerNet, get_backend, one_hot, train, why_unusable

# NumPy warns where values that are not finite, or no longer so, are computed with; here the values are what counts
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

quick = settings(max_examples=120, deadline=None, derandomize=True, database=None,
                 suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])  # fmt: skip

FLOATS = ("float32", "float64", "float16", ">f8")
OTHERS = ("int64", "int8", "uint8", "bool", "complex128", "U1", "object")
NOT_ARRAYS = (None, 1, 2.5, True, "abc", [[1.0, 2.0]], (1.0,), {"a": 1}, object(), b"x", {1.0})


def values(dtype):
    kind = np.dtype(dtype).kind
    if kind == "f":
        bits = np.dtype(dtype).itemsize * 8
        special = st.sampled_from([0.0, -0.0, 1.0, -1000.0, 1000.0, np.nan, np.inf, -np.inf])
        return st.one_of(st.floats(-10, 10, width=bits), st.floats(width=bits), special)
    if kind in "iu":
        return st.integers(-3 if kind == "i" else 0, 6)
    return {"b": st.booleans(), "c": st.complex_numbers(max_magnitude=10), "U": st.sampled_from("ab")}.get(
        kind, st.sampled_from([None, 1, "x"])
    )


def laid_out(array, layout):
    """Return equal values in another layout: reversed in memory, with gaps, in Fortran's order, or read-only."""
    if layout == "gaps" and array.ndim:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), dtype=array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if layout == "reversed" and array.ndim:
        return array[..., ::-1].copy()[..., ::-1]
    if layout == "fortran":
        return np.asfortranarray(array)
    array = array.copy()
    array.flags.writeable = layout != "read-only"
    return array


@st.composite
def arrays(draw, shape=None, dtypes=FLOATS + OTHERS):
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    if shape is None:
        shape = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    array = draw(hnp.arrays(dtype, shape, elements=values(dtype)))
    return laid_out(array, draw(st.sampled_from(["plain", "gaps", "reversed", "fortran", "read-only"])))


def answer(names, function, *args, **options):
    """Return what the function answers, or None if it refuses and its message holds one of ``names``."""
    kept = [arg.copy() if isinstance(arg, np.ndarray) else None for arg in args]
    try:
        found = function(*args, **options)
    except (TypeError, ValueError) as error:
        message = str(error)
        assert any(re.search(rf"\b{name}\b", message) for name in names), f"{message!r} names none of {names}"
        found = None
    for arg, copy in zip(args, kept, strict=True):
        if copy is not None:
            np.testing.assert_array_equal(arg, copy)
    return found


def assert_near(found, expected, dtype, size=64):
    """Assert equality within ``size`` round-offs; what comes near the end of a dtype's range may have passed it."""
    info = np.finfo(dtype)
    found, expected = np.asarray(found, dtype="longdouble"), np.asarray(expected, dtype="longdouble")
    assert found.shape == expected.shape
    near_end = np.abs(expected) > info.max / 64
    if near_end.any():
        beyond = np.isnan(found) | (np.abs(found) > info.max / 1024)
        assert beyond[near_end].all()
        found, expected = np.where(near_end, 0, found), np.where(near_end, 0, expected)
    allowed = size * float(info.eps)
    np.testing.assert_allclose(found, expected, rtol=allowed, atol=allowed + 64 * float(info.smallest_subnormal))


def wide(x):
    return np.asarray(x).astype("longdouble")


# ── Functions ───────────────────────────────────────────────────────────────────────────────────────────────────────


def softmax_reference(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax_reference(x):
    z = x - x.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


REFERENCES = {
    "step_function": lambda x: (x > 0).astype("longdouble"),
    "relu": lambda x: np.where(np.isnan(x), x, np.where(x > 0, x, 0)),
    "sigmoid": lambda x: np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))),
    "softmax": softmax_reference,
    "log_softmax": log_softmax_reference,
}


@pytest.mark.parametrize("name", REFERENCES)
@quick
@given(x=arrays())
def test_functions(name, x):
    """The reference's values in the shape of x, for any shape, layout and values; what holds no numbers is refused."""
    found = answer(["x"], getattr(xpnet, name), x)
    accepts = "f" if name not in ("step_function", "relu") else "fiu"
    by_rows = name in ("softmax", "log_softmax")
    if x.dtype.kind not in accepts or (by_rows and (not x.ndim or not x.shape[-1])):
        assert found is None
        return
    assert found is not None
    assert found.dtype.kind == x.dtype.kind
    if x.dtype.kind == "f":
        assume(name != "log_softmax" or not x.size or np.nanmax(np.abs(np.where(np.isinf(x), 0, x))) < 1e4)
        assert_near(found, REFERENCES[name](wide(x)), x.dtype)
    else:
        np.testing.assert_array_equal(found, REFERENCES[name](wide(x)).astype(x.dtype))


@quick
@given(t=arrays(dtypes=("int64", "int8", "uint8", "float64", "bool", "U1")), classes=st.integers(-2, 300))
def test_one_hot(t, classes):
    """A one at the label, also where the labels' dtype cannot count to the last class; NaN for a label outside."""
    found = answer(["t", "num_classes"], one_hot, t, classes)
    if t.dtype.kind not in "iu" or classes < 1:
        assert found is None
        return
    expected = (wide(t)[..., None] == np.arange(classes)).astype(float)
    expected[(t < 0) | (t.astype("int64") >= classes)] = np.nan
    np.testing.assert_array_equal(found, expected)


# ── Losses ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def half_squares(y, t, mean=False):
    parts = (0.5 * (wide(y) - wide(t)) ** 2).sum(axis=-1)
    if mean:
        return 2 * (parts.mean(axis=-1) if y.ndim > 1 else parts)
    return parts.sum(axis=-1) if y.ndim > 1 else parts


@pytest.mark.parametrize("name", ["sum_squared_error", "mean_squared_error", "true mean"])
@quick
@given(data=st.data(), y=arrays())
def test_squared_errors(name, data, y):
    """½ Σ (y − t)² or its mean, if both hold numbers of one shape and there are any."""
    same = data.draw(st.booleans())
    t = data.draw(arrays(shape=y.shape if same else None))
    mean = name == "true mean"
    function = getattr(xpnet, "mean_squared_error" if mean else name)
    found = answer(["y", "t"], function, y, t, **({"mean": True} if mean else {}))
    possible = y.dtype.kind == "f" and t.dtype.kind in "fiub" and y.shape == t.shape and y.ndim and y.size
    assert (found is not None) == bool(possible)
    if possible:
        with np.errstate(all="ignore"):
            assert_near(found, half_squares(y, t.astype(y.dtype), mean), y.dtype)


@quick
@given(data=st.data(), y=arrays(dtypes=("float32", "float64", "int64", "complex128")))
def test_cross_entropy(data, y):
    """−Σ t·log(y + 1e-7) averaged over the batch, for labels and for weights; NaN for a label outside the classes."""
    shape = data.draw(st.sampled_from([y.shape, y.shape[:-1], None]))
    t = data.draw(arrays(shape=shape))
    found = answer(["y", "t"], xpnet.cross_entropy_error, y, t)
    labels = t.dtype.kind in "iu" and t.shape == y.shape[:-1] and t.ndim == y.ndim - 1
    weights = t.dtype.kind in "fiub" and t.shape == y.shape
    # further leading axes of y: one batch of targets serves them all
    shared = t.ndim < y.ndim and min(y.ndim, 2) <= t.ndim and t.dtype.kind in "fb" and t.shape == y.shape[-t.ndim :]
    possible = y.dtype.kind == "f" and y.ndim and y.size and (labels or weights or shared)
    assert (found is not None) == bool(possible)
    if not possible:
        return
    if labels:
        known = (t >= 0) & (t.astype("int64") < y.shape[-1])
        t = np.where(known[..., None], t[..., None] == np.arange(y.shape[-1]), np.nan)
    t = t.astype(y.dtype)
    guarded = y + np.asarray(1e-7, dtype=y.dtype)  # the sum as stored; its rounding is not what is tested
    expected = -(wide(t) * np.log(wide(guarded))).sum(axis=-1)
    assert_near(found, expected if y.ndim == 1 else expected.mean(axis=-1), y.dtype, size=512)


# ── Networks ────────────────────────────────────────────────────────────────────────────────────────────────────────

W1, b1, W2, b2 = (np.random.default_rng(0).normal(size=shape) for shape in ((3, 4), (4,), (4, 2), (2,)))


def network():
    net = TwoLayerNet(3, 4, 2, backend="numpy")
    for name, value in zip(("W1", "b1", "W2", "b2"), (W1, b1, W2, b2), strict=True):
        net.params[name] = value.copy()
    return net


def scores_reference(x):
    h = x @ W1 + b1
    return np.where(np.isnan(h), h, np.maximum(h, 0)) @ W2 + b2


def moderate(x):
    return x.dtype.kind != "f" or not x.size or np.nanmax(np.where(np.isinf(x), 0, np.abs(x))) < 1e100


inputs = st.one_of(arrays(), arrays(shape=(4, 3)), arrays(shape=st.sampled_from([(1, 3), (3,), (2, 4, 3), (4, 2)])))
targets = st.one_of(
    arrays(),
    arrays(shape=st.sampled_from([(4,), (4, 2), (4, 3), (1,), (1, 2), (2, 4), ()]), dtypes=("int64", "float64")),
)  # fmt: skip


@quick
@given(x=inputs, t=targets)
def test_network(x, t):
    """Scores, loss and accuracy are those of three lines of NumPy, or x or t is named."""
    assume(moderate(x) and moderate(t))
    net = network()
    scores = answer(["x"], net.predict, x)
    fits = x.dtype.kind == "f" and x.size and x.ndim and x.shape[-1] == 3
    assert (scores is not None) == bool(fits)
    if fits:
        expected = scores_reference(x.astype("float64"))
        np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-12)
    loss = answer(["x", "t"], net.loss, x, t)
    accuracy = answer(["x", "t"], net.accuracy, x, t)
    if not fits:
        assert loss is accuracy is None
        return
    labels = t.dtype.kind in "iu" and t.shape == x.shape[:-1]
    weights = t.dtype.kind in "fiub" and t.shape == (*x.shape[:-1], 2)
    if labels or weights:
        assert loss is not None
        hot = np.where(((t >= 0) & (t < 2))[..., None], t[..., None] == np.arange(2), np.nan) if labels else t
        parts = -(hot.astype("float64") * log_softmax_reference(expected)).sum(axis=-1)
        reference = parts.mean(axis=-1) if x.ndim > 1 else parts
        if np.isfinite(reference).all():
            np.testing.assert_allclose(loss, reference, rtol=1e-10, atol=1e-10 * (1 + np.max(np.abs(hot), initial=0)))
        else:
            assert not np.isfinite(loss[~np.isfinite(reference)] if reference.ndim else loss).any()
    if x.ndim == 2 and (labels or weights):
        assert accuracy is not None
        named = t if labels else np.argmax(t, axis=-1)
        right = (expected.argmax(axis=-1) == named) & ~np.isnan(expected).any(axis=-1)
        assert float(accuracy) == pytest.approx(right.mean(), abs=1e-3)  # float16 inputs have a float16 accuracy
    elif accuracy is not None:
        assert t.dtype.kind == "f", "labels stored as floats name classes too"
        assert t.shape == x.shape[:1]


@pytest.mark.filterwarnings("ignore:x_train reaches")
@quick
@given(
    x=st.one_of(arrays(shape=(6, 3)), arrays()),
    t=st.one_of(arrays(shape=(6,)), arrays(shape=(6, 2)), arrays()),
)
def test_train(x, t):
    """A record with finite losses and a network of finite parameters, or an error that names what is wrong."""
    net = network()
    before = {name: value.copy() for name, value in net.params.items()}
    try:
        record = next(train(net, x, t, epochs=1, batch_size=4))
    except xpnet.TrainingError as error:
        outcome, named = str(error), r"x_train|t_train|learning_rate"
        for name, value in before.items():
            np.testing.assert_array_equal(net.params[name], value)
    except (TypeError, ValueError) as error:
        outcome, named = str(error), r"\b(x|t|x_train|t_train)\b"
    else:
        outcome, named = "a record", "a record"
        assert x.dtype.kind == "f"
        assert np.isfinite(record.losses).all()
        assert all(np.isfinite(value).all() for value in net.params.values())
    assert re.search(named, outcome), outcome


# ── What is no array, no number, or of another library ──────────────────────────────────────────────────────────────

x, t = np.ones((4, 3)), np.asarray([0, 1, 1, 0])


def loss_of(name, which, bad):
    return getattr(xpnet, name)(*((bad, x) if which == "y" else (x, bad)))


TAKE_ARRAYS = {
    "step_function x": lambda bad: xpnet.step_function(bad),
    "sigmoid x": lambda bad: xpnet.sigmoid(bad),
    "relu x": lambda bad: xpnet.relu(bad),
    "softmax x": lambda bad: xpnet.softmax(bad),
    "log_softmax x": lambda bad: xpnet.log_softmax(bad),
    "one_hot t": lambda bad: one_hot(bad, 3),
    **{
        f"{name} {which}": partial(loss_of, name, which)
        for name in ("sum_squared_error", "mean_squared_error", "cross_entropy_error")
        for which in "yt"
    },
    "numerical_gradient x": lambda bad: xpnet.numerical_gradient(lambda x: x, bad),
    "gradient_descent init_x": lambda bad: xpnet.gradient_descent(lambda x: x, bad),
    "accuracy x": lambda bad: network().accuracy(bad, t),
    "accuracy t": lambda bad: network().accuracy(x, bad),
    "loss t": lambda bad: network().loss(x, bad),
    "train x_train": lambda bad: next(train(network(), bad, t, epochs=1)),
    "train t_train": lambda bad: next(train(network(), x, bad, epochs=1)),
    "train x_test": lambda bad: next(train(network(), x, t, bad, t, epochs=1)),
    "train t_test": lambda bad: next(train(network(), x, t, x, bad, epochs=1)),
    "params b1": lambda bad: network().params.__setitem__("b1", bad),
}


@pytest.mark.parametrize("bad", NOT_ARRAYS, ids=lambda bad: type(bad).__name__)
@pytest.mark.parametrize("where", TAKE_ARRAYS)
def test_what_is_no_array_is_refused_by_name(where, bad):
    name = where.split()[-1]
    with pytest.raises((TypeError, ValueError), match=rf"\b{name.partition(' ')[0]}\b") as caught:
        TAKE_ARRAYS[where](bad)
    assert type(bad).__name__ in str(caught.value) or bad is None, "what came is named too"


odd_numbers = st.one_of(
    st.sampled_from([None, "3", True, 1j, [1], np.ones(2), float("nan"), float("inf"), -float("inf"), object()]),
    st.floats(), st.integers(-3, 3),
)  # fmt: skip


def whole(value, least):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least


def finite(value):
    return isinstance(value, (int, float)) and np.isfinite(value)


def square(x):
    return (x * x).sum()


NUMBERS = {
    "num_classes": (lambda v: one_hot(t, v), lambda v: whole(v, 1)),
    "h": (lambda v: xpnet.numerical_diff(lambda x: x * x, 1.0, h=v), lambda v: finite(v) and 1.0 - v < 1.0 < 1.0 + v),
    "lr": (lambda v: xpnet.gradient_descent(square, np.ones(2), lr=v, step_num=1), finite),
    "step_num": (lambda v: xpnet.gradient_descent(square, np.ones(2), step_num=v), lambda v: whole(v, 0)),
    "batch_size of accuracy": (lambda v: network().accuracy(x, t, batch_size=v), lambda v: whole(v, 1) or v is None),
    "sizes": (lambda v: TwoLayerNet(v, 2, 2, backend="numpy"), lambda v: whole(v, 1)),
    "weight_init_std": (lambda v: TwoLayerNet(2, 2, 2, v, backend="numpy"), finite),
    "rng": (lambda v: TwoLayerNet(2, 2, 2, rng=v, backend="numpy"), lambda v: whole(v, 0)),
    "rng of a check": (lambda v: xpnet.check_gradients(network(), x, t, rng=v), lambda v: whole(v, 0)),
    "epochs": (lambda v: list(train(network(), x, t, epochs=v)), lambda v: whole(v, 1)),
    "iterations": (lambda v: list(train(network(), x, t, iterations=v)), lambda v: whole(v, 1)),
    "batch_size": (lambda v: list(train(network(), x, t, epochs=1, batch_size=v)), lambda v: whole(v, 1)),
    "learning_rate": (
        lambda v: list(train(network(), x, t, epochs=1, learning_rate=v)), lambda v: finite(v) and v > 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
@settings(quick, max_examples=60)
@given(value=odd_numbers)
def test_numbers(name, value):
    """A number in its range is taken; anything else is refused, and the argument is named."""
    call, allowed = NUMBERS[name]
    if allowed(value):
        try:
            call(value)
        except (xpnet.TrainingError, ValueError) as error:
            too_large = str(error)
            assert re.search("learning_rate|lr", too_large)
    else:
        with pytest.raises((TypeError, ValueError), match=rf"\b{name.partition(' ')[0]}\b"):
            call(value)


NEWCOMERS = [
    (lambda: xpnet.MultiLayerNet(4, 5, 3), TypeError, r"hidden_size_list is 5; it must be a sequence of sizes"),
    (lambda: xpnet.Network([xpnet.Relu, xpnet.Relu]), TypeError, "is no layer; a layer is an object with forward"),
    (lambda: network().params["W3"], KeyError, r"no parameter 'W3'; the names are W1, b1, W2, b2"),
    (lambda: xpnet.sigmoid(1.0), TypeError, r"^x: expected an array, got float; convert with numpy\.asarray"),
    (lambda: xpnet.cross_entropy_error(x, [1]), TypeError, "expected arrays of one library, got numpy.ndarray, list;"),
    (lambda: xpnet.check_gradients(network()), TypeError, r"no inputs; write check_gradients\(network, x, t\)"),
    (lambda: xpnet.check_gradients(TwoLayerNet, x, t), TypeError, "network is <class .*takes a network"),
    (lambda: xpnet.check_gradients(network(), x, t, audit=-1), ValueError, "audit is -1; it must be a whole number"),
    (lambda: xpnet.check_gradients(network(), x, t, worst=1.5), ValueError, "worst is 1.5; it must be a whole number"),
    (lambda: xpnet.check_gradients(network(), x, t, tolerance=-1), ValueError, "tolerance is -1; it must be a number"),
    (lambda: xpnet.check_gradients(network(), x, t, tolerance="x"), ValueError, "tolerance is 'x'; it must be a numb"),
    (lambda: train(network(), x, t, epochs=1, learning_rate="0.1"), ValueError, "learning_rate is '0.1'; it must be"),
]


@pytest.mark.parametrize(("call", "kind", "told"), NEWCOMERS, ids=[told[:24] for _, _, told in NEWCOMERS])
def test_what_a_newcomer_may_try_is_refused_in_words(call, kind, told):
    with pytest.raises(kind, match=told):
        call()


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64", "nonsense", "U3", ""])
def test_dtypes_that_do_not_train(dtype):
    with pytest.raises(ValueError, match=r"\bdtype\b"):
        TwoLayerNet(2, 2, 2, dtype=dtype, backend="numpy")


@pytest.mark.parametrize("dtype", ["int64", "complex128", "bool"])
def test_a_weight_that_does_not_train(dtype):
    with pytest.raises(TypeError, match=r"\bW\b"):
        SimpleNet(np.ones((2, 3), dtype=dtype))


def test_an_unknown_parameter():
    with pytest.raises(KeyError, match="no parameter 'W3'; the names are W1, b1, W2, b2"):
        network().params["W3"] = W1


@pytest.mark.parametrize("width", [1, 3, 10])
def test_one_hot_targets_of_another_width(width):
    """The accuracy too: its largest weight would be compared with classes of another network."""
    wrong = np.eye(width)[[0, 0, 0, 0]]
    for call in (network().loss, network().accuracy, network().gradient):
        with pytest.raises(ValueError, match=r"\bt\b"):
            call(x, wrong)


@pytest.mark.parametrize("other", ["array_api_strict", "torch", "jax", "cupy"])
def test_arrays_of_two_libraries(other):
    if reason := why_unusable(other):
        pytest.skip(reason)
    mine, theirs = np.ones((4, 3)), get_backend(other).asarray(np.ones((4, 3)))
    labels = get_backend(other).asarray(t)
    net = network()
    calls = {
        "y": lambda: xpnet.sum_squared_error(mine, theirs),
        "t": lambda: xpnet.cross_entropy_error(mine, theirs),
        "x": lambda: net.accuracy(mine, labels),
        "x and t": lambda: net.loss(mine, labels),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=rf"\b{name}\b.* one library, got numpy\.ndarray, "):
            call()


def test_arrays_of_two_devices():
    """The library that owns the devices refuses; nothing is moved silently."""
    if reason := why_unusable("array_api_strict:device1"):
        pytest.skip(reason)
    one, other = (get_backend(f"array_api_strict:device{n}") for n in (1, 2))
    net = TwoLayerNet(3, 4, 2, dtype="float32", backend=one)
    here, there = (backend.asarray(x, "float32") for backend in (one, other))
    labels = other.asarray(t)
    for call in (
        lambda: net.predict(there),
        lambda: net.loss(here, labels),
        lambda: xpnet.sum_squared_error(here, there),
        lambda: xpnet.cross_entropy_error(here, there),
    ):
        with pytest.raises(ValueError, match=r"[Dd]evice"):
            call()
