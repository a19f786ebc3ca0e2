"""Numerical gradients against the plain loop in 60 digits, and the cases where a change may not simply be read off."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
from array_api_compat import array_namespace

from xpnet import Affine, IdentityWithLoss, Network, Relu, Sigmoid, Softmax, SoftmaxWithLoss, differences, softmax
from xpnet.differences import STEP

# ── The plain loop in 60 digits ─────────────────────────────────────────────────────────────────────────────────────

exactly = np.vectorize(lambda v: mpmath.mpf(float(v)), otypes=[object])
exp, log = (np.vectorize(f, otypes=[object]) for f in (mpmath.exp, mpmath.log))


def exact_loss(weights, activation, last, x, t):
    y = x
    for W, b in weights[:-1]:
        y = y.dot(W) + b
        y = np.where(y > 0, y, mpmath.mpf(0)) if activation is Relu else 1 / (1 + exp(-y))
    y = y.dot(weights[-1][0]) + weights[-1][1]
    if last is SoftmaxWithLoss:
        return (log(exp(y).sum(axis=1)) - (y * t).sum(axis=1)).sum() / len(x)
    return ((y - t) ** 2).sum() / (2 * len(x))


def exact_gradient(weights, activation, last, x, t, h):
    """The central difference of every entry, in 60 digits, as {name: float64 array}."""
    with mpmath.workdps(60):
        x, t, h = exactly(x), exactly(t), mpmath.mpf(h)
        weights, found = [(exactly(W), exactly(b)) for W, b in weights], {}
        for number, pair in enumerate(weights, start=1):
            for name, array in zip("Wb", pair, strict=True):
                gradient = found[f"{name}{number}"] = np.zeros(array.shape)
                for index in np.ndindex(array.shape):
                    kept, ends = array[index], []
                    for end in (kept + h, kept - h):
                        array[index] = end
                        ends.append(exact_loss(weights, activation, last, x, t))
                    array[index] = kept
                    gradient[index] = float((ends[0] - ends[1]) / (2 * h))
    return found


def problem(sizes, last, seed, scale=1.0):
    """Weights, inputs and targets that float32 holds exactly; three of ten inputs are zero."""
    rng = np.random.default_rng(seed)
    in_float32 = lambda a: np.asarray(a).astype("float32").astype("float64")  # noqa: E731
    shapes = pairwise(sizes)
    weights = [
        (in_float32(scale * rng.normal(size=(a, b)) / a**0.5), in_float32(0.1 * rng.normal(size=b))) for a, b in shapes
    ]
    x = in_float32(rng.normal(size=(5, sizes[0])) * (rng.uniform(size=(5, sizes[0])) > 0.3))
    t = (
        np.eye(sizes[-1])[rng.integers(sizes[-1], size=5)]
        if last is SoftmaxWithLoss
        else in_float32(rng.normal(size=(5, sizes[-1])))
    )
    return weights, x, t


def network(weights, activation, last, asarray):
    layers = [layer for W, b in weights for layer in (Affine(asarray(W), asarray(b)), activation())]
    return Network(layers[:-1], last())


def near_kinks(weights, h):
    """The first layer so near to 0 that most moves by h·x cross a kink."""
    (W, b), *others = weights
    near = (np.float32(2 * h) * np.stack([*W, b])).astype("float64")
    return [(near[:-1], near[-1]), *others]


def errors(weights, activation, last, x, t, h, dtype):
    """The largest error of each parameter in unit round-offs of its largest entry, and of its units' largest."""
    asarray = lambda a: np.asarray(a, dtype=dtype)  # noqa: E731
    exact = exact_gradient(weights, activation, last, x, t, h)
    found = network(weights, activation, last, asarray).numerical_gradient(asarray(x), asarray(t), h=h)
    eps = np.finfo(dtype).eps
    of_all, of_units = {}, {}
    for name, expected in exact.items():
        error = np.abs(found[name] - expected)
        largest = np.abs(expected).reshape(-1, expected.shape[-1]).max(axis=0)
        of_all[name] = error.max() / largest.max() / eps
        of_units[name] = (error.reshape(-1, error.shape[-1]).max(axis=0) / np.where(largest, largest, 1)).max() / eps
    return of_all, of_units


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("h", [2.0**-3, 2.0**-9, 2.0**-13, 2.0**-20, STEP])
@pytest.mark.parametrize("last", [SoftmaxWithLoss, IdentityWithLoss])
@pytest.mark.parametrize(
    ("activation", "sizes", "kinks"),
    [
        (Sigmoid, (4, 3, 3), False),
        (Sigmoid, (3, 3, 2, 3), False),
        (Relu, (4, 3, 3), False),
        (Relu, (4, 3, 3), True),
        (Relu, (3, 5, 4, 3), True),
    ],
    ids=["sigmoid", "sigmoid, deep", "relu", "relu, kinks", "relu, deep, kinks"],
)
def test_every_entry_to_ten_round_offs_of_the_largest(activation, sizes, kinks, last, h, dtype):
    weights, x, t = problem(sizes, last, seed=len(sizes))
    weights = near_kinks(weights, h) if kinks else weights
    of_all, _ = errors(weights, activation, last, x, t, h, dtype)
    assert max(of_all.values()) <= 10, of_all


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("h", [2.0**-7, STEP])
def test_a_unit_with_tiny_weights_behind_it_keeps_its_kinks(h, dtype):
    """Beside the others' changes its own are nothing, but its column of the gradient is as exact as theirs."""
    weights, x, t = problem((4, 3, 3), SoftmaxWithLoss, seed=1)
    weights[1][0][0, :] *= 2.0**-23
    _, of_units = errors(near_kinks(weights, h), Relu, SoftmaxWithLoss, x, t, h, dtype)
    assert of_units["W1"] <= 32
    assert of_units["b1"] <= 32


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_large_weights(dtype):
    weights, x, t = problem((4, 3, 3), SoftmaxWithLoss, seed=2, scale=20.0)
    of_all, _ = errors(weights, Sigmoid, SoftmaxWithLoss, x, t, 2.0**-5, dtype)
    assert max(of_all.values()) <= 10


# ── Kinks, and what must not be taken for one ───────────────────────────────────────────────────────────────────────


def plain_loop(net, x, t, h):
    """The book's way, on NumPy."""
    found = {}
    for name, value in net.params.items():
        found[name] = np.zeros_like(value)
        for index in np.ndindex(*value.shape):
            kept, ends = value[index], []
            for end in (kept + h, kept - h):
                value[index] = end
                ends.append(net.loss(x, t))
            value[index] = kept
            found[name][index] = (ends[0] - ends[1]) / (2 * h)
    return found


@pytest.mark.parametrize("last", [SoftmaxWithLoss, IdentityWithLoss])
def test_kinks_within_the_step_on_every_library(case, last):
    h = 2.0**-7
    weights, x, t = problem((4, 3, 3, 3), last, seed=5)
    weights = near_kinks(weights, h)
    with case.computing():
        found = network(weights, Relu, last, case.asarray).numerical_gradient(case.asarray(x), case.asarray(t), h=h)
    expected = exact_gradient(weights, Relu, last, x, t, h)
    for name, gradient in found.items():
        case.assert_close(gradient, expected[name], eps=16)


@pytest.fixture
def moves_singly(monkeypatch):
    """The number of units and samples whose moves were taken one by one."""
    counts, original = [], differences._one_by_one

    def counting(tail, x, h, rough, *more):
        counts.append(int(np.count_nonzero(np.asarray(rough))))
        return original(tail, x, h, rough, *more)

    monkeypatch.setattr(differences, "_one_by_one", counting)
    return counts


def test_by_the_default_step_changes_are_read_off(moves_singly, rng):
    for activation in (Relu, Sigmoid):
        net = network(problem((6, 5, 4, 3), SoftmaxWithLoss, seed=0)[0], activation, SoftmaxWithLoss, np.asarray)
        net.numerical_gradient(rng.normal(size=(20, 6)), rng.integers(3, size=20))
    assert moves_singly == []


@pytest.mark.parametrize("h", [STEP, 2.0**-13])
def test_blank_samples_are_read_off_too(moves_singly, h):
    """Their units lie exactly on the kink of a ReLU: half of what a move does on one side, and that is read off."""
    weights, x, t = problem((4, 3, 3), SoftmaxWithLoss, seed=6)
    weights[0] = (weights[0][0], np.zeros(3))
    x[1:4] = 0.0
    found = network(weights, Relu, SoftmaxWithLoss, np.asarray).numerical_gradient(x, t, h=h)
    assert moves_singly == []
    for name, expected in exact_gradient(weights, Relu, SoftmaxWithLoss, x, t, h).items():
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-15)


def test_blank_samples_on_every_library(case, rng):
    weights, x, t = problem((4, 3, 3), SoftmaxWithLoss, seed=6)
    weights[0] = (weights[0][0], np.zeros(3))
    x[1:4] = 0.0
    with case.computing():
        found = network(weights, Relu, SoftmaxWithLoss, case.asarray).numerical_gradient(
            case.asarray(x), case.asarray(t)
        )
    expected = exact_gradient(weights, Relu, SoftmaxWithLoss, x, t, STEP)
    for name, gradient in found.items():
        case.assert_close(gradient, expected[name], eps=16)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_only_where_there_is_a_kink_moves_are_taken_singly(moves_singly, share):
    """One unit of one sample of three switches within the step, at a share of its largest move."""
    first, second = Affine(np.asarray([[1.0, 1.0]]), np.asarray([1.0, 0.0])), Affine(np.asarray([[1.0], [2.0]]))
    net = Network([first, Relu(), second], IdentityWithLoss())
    x, t = np.asarray([[3.0], [share * 2.0**-10], [-2.0]]), np.ones((3, 1))
    found, expected = net.numerical_gradient(x, t, h=2.0**-10), plain_loop(net, x, t, 2.0**-10)
    assert sum(moves_singly) == 1
    for name in net.params:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("h", [0.25, 2.0**-13, STEP])
def test_moves_so_large_that_exp_would_overflow(h):
    """Warnings are errors here: there is none, and the numbers are those of the plain loop."""
    W = 30.0 * np.asarray([[1.0, -1.0, 1.0]])
    net = Network([Affine(30.0 * np.ones((1, 1))), Sigmoid(), Sigmoid(), Affine(W), Affine(30.0 * np.ones((3, 3)))])
    x, t = np.asarray([[0.01]]), np.asarray([0])
    found, expected = net.numerical_gradient(x, t, h=h), plain_loop(net, x, t, max(h, 2.0**-13))
    for name in net.params:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=0, atol=1e-6 * max(1, np.abs(expected[name]).max())
        )
    for dtype in ("float32", "float64"):
        size = 40.0 if dtype == "float32" else 300.0
        far, moved = size * np.asarray([[-1.0, 0.0, 1.0]], dtype=dtype), size * np.asarray([[1, 3, -1]], dtype=dtype)
        np.testing.assert_allclose(Sigmoid().difference(far, moved), [[0.5, 0.5, -0.5]], rtol=1e-5)
        np.testing.assert_allclose(Softmax().difference(far, moved), [[0.0, 1.0, -1.0]], rtol=1e-5, atol=1e-15)
        assert np.isfinite(Sigmoid().difference(100 * far, 100 * moved)).all()


def test_a_softmax_in_the_middle_that_is_all_but_certain():
    """Its probabilities are 1 − 4e-18 and 4e-18; what moves it changes them by as little, and not by rounding."""
    net = Network(
        [Affine(np.asarray([[40.0, 0.0]])), Softmax(), Affine(np.asarray([[1.0], [2.0]]))], IdentityWithLoss()
    )
    found = net.numerical_gradient(np.ones((1, 1)), np.zeros((1, 1)))["W1"]
    np.testing.assert_allclose(found, [[-np.exp(-40.0), np.exp(-40.0)]], rtol=1e-12)


# ── What layers of others do ────────────────────────────────────────────────────────────────────────────────────────


class Layer:
    """A layer of a user from two functions."""

    def __init__(self, forward, backward=None):
        self.forward, self.backward = forward, backward


class BatchNormalization:
    """Couples samples, and keeps running means."""

    def __init__(self, size, axis):
        self.axis, self.mean, self.count = axis, np.zeros(size), 0

    def forward(self, x):
        if x.ndim != 2 and self.axis == 0:
            raise ValueError("two axes only")
        mean, self.count = x.mean(axis=self.axis, keepdims=True), self.count + 1
        self.mean *= 0.9  # in place
        self.mean += 0.1 * mean.reshape(-1, x.shape[-1])[0]
        return (x - mean) / np.sqrt(x.var(axis=self.axis, keepdims=True) + 1e-3)

    backward = None


class Dropout:
    """Draws its mask from a generator of its own at every forward."""

    def __init__(self, rng):
        self.rng, self.calls = rng, []

    def forward(self, x):
        self.mask = self.rng.random(x.shape) < 0.5
        self.calls.append(x.shape)
        return x * self.mask

    backward = None


def between(layer, rng, last=None):
    return Network([Affine(rng.normal(size=(4, 3)), rng.normal(size=3)), layer, Affine(rng.normal(size=(3, 2)))], last)


COUPLED = {
    "batch normalization": (lambda: BatchNormalization(3, -2), ["stacked"] * 2),
    "batch normalization of two axes": (lambda: BatchNormalization(3, 0), ["loop"] * 2),
    "a millionth of the next sample": (lambda: Layer(lambda x: x + 1e-6 * np.roll(x, 1, axis=0)), ["loop"] * 2),
    "all onto the first sample": (
        lambda: Layer(lambda x: x + (np.arange(len(x)) == 0)[:, None] * x.mean(axis=0)),
        ["loop"] * 2,
    ),
}


@pytest.mark.parametrize("kind", COUPLED)
def test_layers_that_couple_samples_are_found_out(kind, rng):
    make, ways = COUPLED[kind]
    net, x, t = between(make(), rng), rng.normal(size=(6, 4)), rng.integers(2, size=6)
    changes, expected = net.loss_changes(x, t), plain_loop(net, x, t, 2.0**-13)
    assert [change.how for change in changes.values()] == [*ways, "difference"]
    for name, change in changes.items():
        np.testing.assert_allclose(change.gradient, expected[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", ["auto", "loop"])
@pytest.mark.parametrize("axis", [0, -2])
def test_running_means_are_as_before(axis, method, rng):
    layer = BatchNormalization(3, axis)
    net, x, t = between(layer, rng), rng.normal(size=(6, 4)), rng.integers(2, size=6)
    net.loss(x, t)
    mean, kept, count = layer.mean, layer.mean.copy(), layer.count
    net.numerical_gradient(x[:4], t[:4], method=method)
    assert layer.mean is mean
    assert layer.mean.tobytes() == kept.tobytes()
    assert layer.count == count


@pytest.mark.parametrize("method", ["auto", "stacked", "loop"])
def test_a_mask_that_is_drawn_is_one_mask_for_the_whole_gradient(method, rng):
    """Every run begins from the same state of the generator, which is afterwards as before."""
    layer = Dropout(np.random.default_rng(3))
    net, x, t = between(layer, rng), rng.normal(size=(6, 4)), rng.integers(2, size=6)
    state, generator = layer.rng.bit_generator.state, np.random.default_rng(3)
    found = net.numerical_gradient(x, t, method=method)
    assert layer.rng.bit_generator.state == state
    assert layer.calls == []
    masks = [generator.random((6, 3)) < 0.5 for _ in range(3)]
    expected = []
    for mask in masks:
        fixed = Network([net.layers["Affine1"], Layer(lambda x, mask=mask: x * mask), net.layers["Affine2"]])
        expected.append(plain_loop(fixed, x, t, 2.0**-13))
    distances = [
        max(np.abs(found[name] - one[new]).max() for name, new in zip(found, one, strict=True)) for one in expected
    ]
    assert min(distances) <= 1e-7


class MeanOnly:
    """A loss as people write it: one number for whatever comes, no axes of its own."""

    def __init__(self, reduce):
        self.reduce = reduce

    def forward(self, x, t):
        return self.reduce((x - t) ** 4)

    backward = None


LOSSES = {
    "mean": (np.mean, "stacked"),
    "sum": (np.sum, "stacked"),
    "a root of the mean": (lambda a: np.sqrt(np.mean(a)), "loop"),
    "the largest": (np.max, "loop"),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_any_loss(kind, rng):
    reduce, way = LOSSES[kind]
    net, x, t = between(Relu(), rng, MeanOnly(reduce)), rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    changes, expected = net.loss_changes(x, t), plain_loop(net, x, t, 2.0**-13)
    assert {change.how for change in changes.values()} == {way}
    for name, change in changes.items():
        np.testing.assert_allclose(
            change.gradient, expected[name], rtol=0, atol=1e-6 * max(1, np.abs(expected[name]).max())
        )


class WrongSlope(Sigmoid):
    """Keeps y·(1 + y) for its backward; the output is right."""

    def forward(self, x):
        y = super().forward(x)
        self.slope = y * (1 + y)
        return y

    backward, difference = Sigmoid.backward, Sigmoid.difference


class WrongProbabilities(SoftmaxWithLoss):
    """Keeps other probabilities for its backward; the loss is right."""

    def forward(self, x, t):
        loss = super().forward(x, t)
        self.y = softmax(1.01 * x)
        return loss

    difference = SoftmaxWithLoss.difference


@pytest.mark.parametrize("targets", ["labels", "weights"])
def test_nothing_that_forward_kept_for_backward_is_read(targets, rng):
    weights, x, t = problem((4, 3, 3), SoftmaxWithLoss, seed=8)
    t = t.argmax(axis=1) if targets == "labels" else t
    right = network(weights, Sigmoid, SoftmaxWithLoss, np.asarray)
    wrong = network(weights, WrongSlope, WrongProbabilities, np.asarray)
    expected, found = right.numerical_gradient(x, t), wrong.loss_changes(x, t)
    for name, change in found.items():
        assert change.how == "difference"
        np.testing.assert_allclose(change.gradient, expected[name], rtol=1e-13, atol=1e-16)
    assert np.abs(wrong.gradient(x, t)["W1"] - expected["W1"]).max() > 0.01


# ── A weight that is used twice ─────────────────────────────────────────────────────────────────────────────────────


class Decoder:
    """Computes with the transposed weight of another layer, which it holds or has been told in a function."""

    def __init__(self, weight):
        self.weight = weight

    def forward(self, x):
        return x @ self.weight().T

    backward = None


@pytest.mark.parametrize("method", ["auto", "stacked", "loop"])
def test_a_weight_that_another_layer_uses_too(case, method):
    rng = np.random.default_rng(0)
    encoder, x = Affine(case.asarray(rng.normal(size=(4, 3)))), case.asarray(rng.normal(size=(5, 4)))
    net = Network([encoder, Sigmoid(), Decoder(lambda: encoder.W)], IdentityWithLoss())
    change = net.loss_changes(x, x, method=method)["W1"]
    W64, x64 = case.host(encoder.W).astype("float64"), case.host(x).astype("float64")
    twin = Affine(W64)
    expected = plain_loop(Network([twin, Sigmoid(), Decoder(lambda: twin.W)], IdentityWithLoss()), x64, x64, 2.0**-13)
    assert change.how == "loop"
    np.testing.assert_allclose(
        case.host(change.gradient), expected["W1"], rtol=0, atol=1e-6 if case.eps < 1e-9 else 2e-3
    )


@pytest.mark.parametrize("method", ["auto", "difference", "stacked", "loop"])
@pytest.mark.parametrize("learned", [("W",), ()], ids=["both learn", "one learns"])
def test_memory_that_two_layers_share(method, learned, rng):
    W, x = rng.normal(size=(4, 3)), rng.normal(size=(5, 4))
    second = Affine(W.T)
    second.parameters = learned
    net = Network([Affine(W), Sigmoid(), second], IdentityWithLoss())
    changes, expected = net.loss_changes(x, x, method=method), plain_loop(net, x, x, 2.0**-13)
    for name, change in changes.items():
        assert change.how == "loop"
        np.testing.assert_allclose(change.gradient, expected[name], rtol=0, atol=1e-7)


def test_parts_of_one_vector_are_not_shared(rng):
    """All parameters in one array, as optimizers like them, do not overlap."""
    flat, x = rng.normal(size=4 * 3 + 3 + 3 * 2), rng.normal(size=(5, 4))
    net = Network([Affine(flat[:12].reshape(4, 3), flat[12:15]), Relu(), Affine(flat[15:].reshape(3, 2))])
    assert {change.how for change in net.loss_changes(x, np.zeros(5, dtype=int)).values()} == {"difference"}


def test_array_namespace_is_that_of_the_inputs(case):
    net = network(problem((4, 3, 3), SoftmaxWithLoss, seed=0)[0], Relu, SoftmaxWithLoss, case.asarray)
    x, t = case.asarray(np.ones((2, 4))), case.asarray([0, 1])
    for gradient in net.numerical_gradient(x, t).values():
        assert array_namespace(gradient) is case.xp
