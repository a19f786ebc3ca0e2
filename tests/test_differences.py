"""Finite changes carried through layers against higher precision, and numerical gradients against a plain loop."""

import tracemalloc
from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np
import pytest
from array_api_compat import array_namespace
from conftest import Scale
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnet import Affine, IdentityWithLoss, Network, Relu, Sigmoid, SimpleNet, Softmax, SoftmaxWithLoss, TwoLayerNet
from xpnet.differences import STEP

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


def test_a_sum_of_changes_as_small_as_they_get_is_no_zero():
    """Subtracting two values of sigmoid would give 0 for these; their change is 4e-30."""
    change = Sigmoid().difference(np.asarray([[-30.0]]), np.asarray([[4e-17]]))
    np.testing.assert_allclose(change, [[4e-17 * np.exp(-30.0)]], rtol=1e-12)


# ── Numerical gradients of networks ─────────────────────────────────────────────────────────────────────────────────


class Tanh:
    """A user's activation: no difference."""

    def forward(self, x):
        self.y = array_namespace(x).tanh(x)
        return self.y

    def backward(self, dout):
        return dout * (1 - self.y**2)


class QuarticLoss:
    """A user's output layer: ¼ Σ (x − t)⁴, averaged over the batch."""

    def forward(self, x, t):
        self.error = x - t
        return array_namespace(x).mean(array_namespace(x).sum(self.error**4 / 4, axis=-1), axis=-1)

    def backward(self, dout=1.0):
        return dout * self.error**3 / self.error.shape[-2]


class Centre:
    """Takes the mean over the batch away, the first axis: samples are coupled, and a stack is not understood."""

    def forward(self, x):
        return x - array_namespace(x).mean(x, axis=0, keepdims=True)

    def backward(self, dout):
        return dout - array_namespace(dout).mean(dout, axis=0, keepdims=True)


class CentreWithDifference:
    """The same over the last axis but one, with a difference, which a layer that couples samples must not have."""

    def forward(self, x):
        return x - array_namespace(x).mean(x, axis=-2, keepdims=True)

    backward = forward

    def difference(self, x, dx):
        return self.forward(dx)


def two_layers(activation):
    return lambda a: [Affine(a(4, 3), a(3)), activation(), Affine(a(3, 3), a(3))]


NETWORKS = {  # name: layers from a(rows, columns), output layer, how "auto" goes for each parameter
    "relu": (two_layers(Relu), SoftmaxWithLoss, ["difference"] * 4),
    "sigmoid": (two_layers(Sigmoid), SoftmaxWithLoss, ["difference"] * 4),
    "three layers": (
        lambda a: [*two_layers(Relu)(a), Sigmoid(), Affine(a(3, 3), a(3))],
        SoftmaxWithLoss,
        ["difference"] * 6,
    ),
    "four layers": (
        lambda a: [*two_layers(Sigmoid)(a), Relu(), Affine(a(3, 3)), Sigmoid(), Affine(a(3, 3), a(3))],
        SoftmaxWithLoss,
        ["difference"] * 7,
    ),
    "two activations": (
        lambda a: [Affine(a(4, 3), a(3)), Sigmoid(), Relu(), Affine(a(3, 3))],
        SoftmaxWithLoss,
        ["difference"] * 3,
    ),
    "two products": (lambda a: [Affine(a(4, 3), a(3)), Affine(a(3, 3))], SoftmaxWithLoss, ["difference"] * 3),
    "squares of softmax": (lambda a: [*two_layers(Relu)(a), Softmax()], IdentityWithLoss, ["difference"] * 4),
    "no bias": (lambda a: [Affine(a(4, 3)), Relu(), Affine(a(3, 3))], SoftmaxWithLoss, ["difference"] * 2),
    "one product": (lambda a: [Affine(a(4, 3))], SoftmaxWithLoss, ["difference"]),
    "a layer without difference": (two_layers(Tanh), SoftmaxWithLoss, ["stacked"] * 2 + ["difference"] * 2),
    "a layer that learns": (
        lambda a: [Affine(a(4, 3)), Scale(a(3)), Sigmoid(), Affine(a(3, 3))],
        SoftmaxWithLoss,
        ["stacked"] * 2 + ["difference"],
    ),
    "an output layer without difference": (two_layers(Sigmoid), QuarticLoss, ["stacked"] * 4),
    "coupled samples": (
        lambda a: [Affine(a(4, 3)), Centre(), Affine(a(3, 3), a(3))],
        SoftmaxWithLoss,
        ["loop"] + ["difference"] * 2,
    ),
    "coupled samples with difference": (
        lambda a: [Affine(a(4, 3), a(3)), CentreWithDifference(), Affine(a(3, 3))],
        SoftmaxWithLoss,
        ["stacked"] * 2 + ["difference"],
    ),
}


def build(name, asarray, seed=3):
    layers, last, _ = NETWORKS[name]
    rng = np.random.default_rng(seed)
    return Network(layers(lambda *shape: asarray(rng.normal(size=shape))), last())


def batch(asarray, seed=4, targets="soft"):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, 4)) * (rng.uniform(size=(5, 4)) < 0.6)
    t = {"soft": rng.uniform(size=(5, 3)), "labels": rng.integers(0, 3, 5)}[targets]
    return asarray(x), asarray(t)


def plain_loop(net, x, t, h):
    """The book's way, on NumPy: every entry up and down, two full evaluations each."""
    found = {}
    for name, value in net.params.items():
        found[name] = np.zeros_like(value)
        for index in np.ndindex(*value.shape):
            kept = value[index]
            value[index] = kept + h
            up = net.loss(x, t)
            value[index] = kept - h
            down = net.loss(x, t)
            value[index] = kept
            found[name][index] = (up - down) / (2 * h)
    return found


def in_float64(case):
    """Return a function that rounds as ``case`` does and gives float64 NumPy arrays."""
    return lambda x: np.asarray(x).astype(case.dtype).astype("float64") if np.asarray(x).dtype.kind == "f" else x


def steps(case, way):
    """Return a step, and the error that rounding may cause in a gradient of size 1 and a loss of about 1."""
    if way == "difference":  # relative to the change
        return (2.0**-13 if case.dtype == "float64" else 2.0**-10), 32 * case.eps
    h = 2.0**-13 if case.dtype == "float64" else 2.0**-6
    return h, 16 * case.eps / h  # relative to the loss


LOOPED = ("one product", "a layer that learns")  # the loop does not look at the layers
WAYS = [(kind, method) for kind in NETWORKS for method in ("auto", "stacked")] + [(kind, "loop") for kind in LOOPED]


@pytest.mark.parametrize("kind", WAYS, ids=str)
def test_every_way_is_the_plain_loop(case, kind):
    kind, method = kind
    net, reference = build(kind, case.asarray), build(kind, in_float64(case))
    x, t = batch(case.asarray)
    h, allowed = steps(case, "stacked")
    if method == "stacked" and kind == "coupled samples":
        with pytest.raises(ValueError, match="Centre behind it gives other results for a stack"):
            net.numerical_gradient(x, t, h=h, method=method)
        return
    changes = net.loss_changes(x, t, h=h, method=method)
    if method == "auto":
        assert [change.how for change in changes.values()] == NETWORKS[kind][2]
    expected = plain_loop(reference, *batch(in_float64(case)), h)
    assert list(changes) == list(expected)
    for name, change in changes.items():
        if case.dtype == "float32" and change.how == "difference":
            continue  # that step is too large for it: see the next test
        case.assert_ours(change.gradient, expected[name].shape)
        error = np.abs(case.host(change.gradient) - expected[name]).max()
        assert error <= allowed * max(1.0, float(reference.loss(*batch(in_float64(case))))), name


@pytest.mark.parametrize("targets", ["soft", "labels"])
@pytest.mark.parametrize("kind", [kind for kind, (_, _, ways) in NETWORKS.items() if set(ways) == {"difference"}])
def test_differences_are_the_plain_loop(case, kind, targets):
    net, reference = build(kind, case.asarray), build(kind, in_float64(case))
    x, t = batch(case.asarray, targets=targets)
    h, allowed = steps(case, "difference")
    with case.computing():
        gradient = net.numerical_gradient(x, t, h=h, method="difference")
    expected = plain_loop(reference, *batch(in_float64(case), targets=targets), h)
    rounding_of_the_loop = 16 * 2.3e-16 / h
    for name, value in gradient.items():
        case.assert_ours(value, expected[name].shape)
        largest = np.abs(expected[name]).max()
        error = np.abs(case.host(value) - expected[name]).max()
        assert error <= allowed * largest + rounding_of_the_loop, name


def test_simple_net(case):
    net, reference = SimpleNet(case.asarray(np.eye(2, 3))), SimpleNet(np.eye(2, 3))
    x, t = np.asarray([0.5, 0.25]), np.asarray([0.0, 0.0, 1.0])
    with case.computing():
        gradient = net.numerical_gradient(case.asarray(x), case.asarray(t))["W1"]
    expected = plain_loop(reference, x, t, 2.0**-13)["W1"]
    np.testing.assert_allclose(case.host(gradient), expected, rtol=0, atol=1e-8 + 8 * case.eps)


@pytest.mark.parametrize(
    "kind", [(t, m) for t in (2, (0.0, 0.5, 0.25)) for m in ("stacked", "loop", "difference")], ids=str
)
def test_one_sample_is_a_batch_of_one(case, kind):
    t, method = kind
    net, (x, _) = build("sigmoid", case.asarray), batch(case.asarray)
    t = case.asarray(np.asarray(t))
    single = net.numerical_gradient(x[1, :], t, method=method)
    one = net.numerical_gradient(x[1:2, :], t[None, ...], method=method)
    for name in one:
        case.assert_close(single[name], case.host(one[name]), eps=0)


def test_default_steps(case):
    """Where layers run, units move by a share of their largest output, as a power of two; elsewhere 2⁻³⁰ serves all."""
    net, (x, t) = build("a layer without difference", case.asarray), batch(case.asarray)
    units = case.host(net.layers["Affine1"].forward(x))
    scale = np.floor(np.log2(np.abs(units).max() / np.abs(case.host(x)).max()))
    for second in (False, True):  # as small as round-off allows: far smaller where the error is relative to the change
        steps = {name: change.h for name, change in net.loss_changes(x, t, second=second).items()}
        share = (2.0**-13, 2.0**-19) if case.dtype == "float64" else (2.0**-6, 2.0**-9)
        stacked, step = share[second] * 2.0**scale, STEP * (2.0**-20 if second else 1.0)
        assert steps == {"W1": stacked, "b1": stacked, "W2": step, "b2": step}


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("method", ["auto", "stacked", "loop"])
def test_steps_follow_the_size_of_what_moves(size, method, rng):
    """Inputs of a millionth or a million, weights of their inverse: the same loss, and the same relative error."""
    W1, W2, x = rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rng.normal(size=(6, 4))
    t = rng.integers(2, size=6)
    net = Network([Affine(W1 / size), Tanh(), Affine(W2)])
    expected = net.gradient(size * x, t)
    for name, found in net.numerical_gradient(size * x, t, method=method).items():
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-7 * np.abs(expected[name]).max())


def test_a_feature_that_is_zero_everywhere_has_gradient_zero(case):
    net, (x, t) = build("relu", case.asarray), batch(case.asarray)
    x = case.xp.concat([x[:, :1] * 0.0, x[:, 1:]], axis=1)
    gradient = case.host(net.numerical_gradient(x, t)["W1"])
    assert (gradient[0] == 0).all()
    assert (gradient[1:] != 0).any(axis=1).all()


@pytest.mark.parametrize(
    "kind",
    [
        (kind, method)
        for kind in ("three layers", "a layer without difference", "a layer that learns", "relu")
        for method in ("stacked", "auto")
    ],
    ids=str,
)
def test_chunks_change_nothing(case, kind):
    kind, method = kind
    net, (x, t) = build(kind, case.asarray), batch(case.asarray)
    tiny, huge = (net.loss_changes(x, t, method=method, memory=memory) for memory in (1, 2**30))
    for name in huge:  # products of other shapes may round otherwise
        gradient = case.host(huge[name].gradient)
        scale = 1.0 if huge[name].how == "difference" else 1 / (2 * huge[name].h * np.abs(gradient).max())
        case.assert_close(tiny[name].gradient, gradient, eps=8 * max(1.0, scale))


@pytest.mark.parametrize("method", ["difference", "stacked"])
def test_memory_is_bounded(method, rng):
    """Beyond the results twice: the budget of 1 MiB, and 4 MB of forward and of powers of the inputs."""
    size, hidden = (784, 200) if method == "difference" else (20, 50)
    net = TwoLayerNet(size, hidden, 10, 0.1, activation="sigmoid")
    x, t = rng.uniform(size=(100, size)) * (rng.uniform(size=(100, size)) < 0.2), rng.integers(0, 10, 100)
    net.loss(x, t)
    tracemalloc.start()
    try:
        net.loss_changes(x, t, method=method, memory=2**20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    results = sum(value.nbytes for value in net.params.values())
    assert peak <= 2 * results + 2**20 + 4e6


@pytest.mark.parametrize("kind", ["relu", "a layer without difference", "a layer that learns"])
@pytest.mark.parametrize("method", ["auto", "stacked"])
@pytest.mark.parametrize("memory", [1, None])
def test_progress_counts_every_entry(kind, method, memory):
    net, (x, t) = build(kind, np.asarray), batch(np.asarray)
    counts = []
    net.loss_changes(x, t, method=method, memory=memory, progress=counts.append)
    assert sum(counts) == sum(value.size for value in net.params.values())


def test_progress_of_the_loop_counts_every_entry():
    net, (x, t) = build("relu", np.asarray), batch(np.asarray)
    counts = []
    net.loss_changes(x, t, method="loop", progress=counts.append)
    assert sum(counts) == sum(value.size for value in net.params.values())


# ── Accuracy ────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=2, max_size=4), samples=st.integers(1, 6), seed=st.integers(0, 2**32 - 1)
)
def test_sigmoid_networks_against_automatic_differentiation(sizes, samples, seed):
    torch = pytest.importorskip("torch")
    sizes = [*sizes, 3]
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape) for a, b in pairwise(sizes) for shape in ((a, b), (b,))]
    layers = [layer for W, b in zip(weights[::2], weights[1::2], strict=True) for layer in (Affine(W, b), Sigmoid())]
    x, t = rng.normal(size=(samples, sizes[0])), rng.integers(0, 3, samples)
    gradient = Network(layers[:-1]).numerical_gradient(x, t)

    leaves = [torch.tensor(w, requires_grad=True) for w in weights]
    y = torch.tensor(x)
    for W, b in zip(leaves[::2], leaves[1::2], strict=True):
        y = (y if W is leaves[0] else torch.sigmoid(y)) @ W + b
    torch.nn.functional.cross_entropy(y, torch.tensor(t)).backward()
    relative = [
        np.abs(n - leaf.grad.numpy()) / np.abs(leaf.grad.numpy())
        for n, leaf in zip(gradient.values(), leaves, strict=True)
    ]
    assert np.median(np.concatenate([np.ravel(r) for r in relative])) <= 1e-9
    largest = max(float(leaf.grad.abs().max()) for leaf in leaves)
    for n, leaf in zip(gradient.values(), leaves, strict=True):
        np.testing.assert_allclose(n, leaf.grad.numpy(), rtol=0, atol=1e-8 * largest)


@pytest.fixture(scope="module")
def trained():
    """Weights of 40-20-5 after 300 steps on samples it learns, with a batch."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 5
    x = np.clip(np.eye(5).repeat(8, axis=1)[labels] * 0.6 + rng.normal(scale=0.35, size=(100, 40)), 0, 1)
    nets = {}
    for activation in ("relu", "sigmoid"):
        net = nets[activation] = TwoLayerNet(40, 20, 5, 0.1, activation=activation)
        for _ in range(300):
            for name, g in net.gradient(x, labels).items():
                net.params[name] -= 0.1 * g
        assert net.accuracy(x, labels) > 0.9
    return nets, x, labels


@pytest.mark.parametrize("kind", ["relu", "sigmoid"])
def test_float32_is_near_a_float64_backpropagation(case, trained, kind):
    """The median relative error is at most 2e-6, where a loop through the loss would be wrong by about a third."""
    nets, x, t = trained
    narrow = TwoLayerNet(40, 20, 5, activation=kind, dtype="float32", backend=case.backend)
    wide = TwoLayerNet(40, 20, 5, activation=kind)
    float32 = {name: value.astype("float32") for name, value in nets[kind].params.items()}
    for name, value in float32.items():
        narrow.params[name] = case.asarray(value, "float32")
        wide.params[name] = value.astype("float64")
    x = x.astype("float32")
    gradient = case.host(narrow.numerical_gradient(case.asarray(x, "float32"), case.asarray(t)))
    exact = wide.gradient(x.astype("float64"), t)
    n, a = (np.concatenate([np.ravel(g[name]) for name in exact]) for g in (gradient, exact))
    assert gradient["W1"].dtype == np.float32
    some = a != 0
    assert np.median(np.abs(n - a)[some] / np.abs(a)[some]) <= 2e-6


def test_float32_is_as_near_where_the_probability_of_a_class_is_small():
    """Where p is small, so is the change of the loss by its score: as accurate as backpropagation, relative to p."""
    W = np.asarray([[0.0, 8.0, 9.0, 20.0]], dtype="float32")
    x, t = np.ones((1, 1), dtype="float32"), np.asarray([3])
    numerical = Network([Affine(W)]).numerical_gradient(x, t)["W1"]
    exact = np.exp(W.astype("float64")) / np.exp(W.astype("float64")).sum()
    np.testing.assert_allclose(numerical[0, :3], exact[0, :3], rtol=2e-5)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_float64_is_near_backpropagation(trained, activation):
    nets, x, t = trained
    net = nets[activation]
    numerical, exact = net.numerical_gradient(x, t), net.gradient(x, t)
    n, a = (np.concatenate([np.ravel(g[name]) for name in exact]) for g in (numerical, exact))
    some = a != 0
    assert np.median(np.abs(n - a)[some] / np.abs(a)[some]) <= 1e-9


# ── Refusals and restoration ────────────────────────────────────────────────────────────────────────────────────────


class TestRefusals:
    def test_integer_parameters(self, case):
        net = Network([Affine(case.asarray([[1.0, 2.0], [3.0, 4.0]]))])
        net.layers["Affine1"].W = case.asarray([[1, 2], [3, 4]])
        with pytest.raises(TypeError, match=r"W1 has dtype .*int64.*convert with xp.astype\(W1, xp.float64\)"):
            net.numerical_gradient(case.asarray([[0.5, 0.5]]), case.asarray([0]))

    def test_complex_parameters(self):
        net = Network([Affine(np.eye(2))])
        net.layers["Affine1"].W = np.eye(2, dtype="complex128")
        with pytest.raises(TypeError, match="W1 has dtype complex128"):
            net.numerical_gradient(np.eye(2), np.asarray([0, 1]))

    def test_an_empty_batch(self, case):
        net = build("relu", case.asarray)
        with pytest.raises(ValueError, match=r"x has shape \(0, 4\): there is no sample"):
            net.numerical_gradient(case.asarray(np.zeros((0, 4))), case.asarray(np.zeros(0, dtype=int)))

    def test_shapes_that_do_not_fit(self, case):
        net, (x, t) = build("relu", case.asarray), batch(case.asarray)
        with pytest.raises(ValueError, match="the last axis of x must have length 4"):
            net.numerical_gradient(x[:, :3], t)
        with pytest.raises(ValueError, match="does not fit predictions"):
            net.numerical_gradient(x, t[:3, :])

    def test_an_unknown_method(self, case):
        net, (x, t) = build("relu", case.asarray), batch(case.asarray)
        with pytest.raises(ValueError, match="method is 'magic'; it must be one of auto, difference, stacked, loop"):
            net.numerical_gradient(x, t, method="magic")

    def test_differences_of_a_layer_that_has_none(self, case):
        net, (x, t) = build("a layer without difference", case.asarray), batch(case.asarray)
        with pytest.raises(ValueError, match=r"for the parameters of Affine: Tanh behind it has no method difference"):
            net.numerical_gradient(x, t, method="difference")

    @pytest.mark.parametrize("method", ["auto", "stacked", "loop"])
    def test_a_stack_of_batches(self, case, method):
        net, (x, t) = build("relu", case.asarray), batch(case.asarray)
        with pytest.raises(ValueError, match=r"the loss has shape \(2,\).*x must be one batch"):
            net.numerical_gradient(case.xp.stack([x, x]), case.xp.stack([t, t]), method=method)


class Fuse(Sigmoid):
    """A sigmoid without difference that blows at a given call of forward, and stays blown."""

    difference = property()  # hasattr is False
    left = 10**9  # of the class: what layers keep is put back

    def forward(self, x):
        Fuse.left -= 1
        if Fuse.left <= 0:
            raise RuntimeError("the fuse has blown")
        return super().forward(x)


@pytest.mark.parametrize("kind", [(m, calls) for m in ("stacked", "loop") for calls in (1, 2, 7, 20)], ids=str)
def test_everything_is_restored_when_a_layer_raises(case, kind, monkeypatch):
    method, calls = kind
    rng = np.random.default_rng(0)
    asarray = lambda *shape: case.asarray(rng.normal(size=shape))  # noqa: E731
    net = Network([Scale(asarray(4)), Affine(asarray(4, 3), asarray(3)), Fuse(), Affine(asarray(3, 3), asarray(3))])
    x, t = batch(case.asarray)
    before = {name: np.array(case.host(value)) for name, value in net.params.items()}
    gradient = {name: np.array(g) for name, g in case.host(net.gradient(x, t)).items()}
    remembered = {name: vars(layer).copy() for name, layer in net.layers.items()}
    monkeypatch.setattr(Fuse, "left", calls)
    with pytest.raises((RuntimeError, ValueError), match="the fuse has blown"):
        net.numerical_gradient(x, t, method=method, memory=1)
    monkeypatch.undo()
    for name, layer in net.layers.items():
        assert vars(layer).keys() == remembered[name].keys()
        assert all(vars(layer)[key] is value for key, value in remembered[name].items())
    for name, value in net.params.items():
        assert case.host(value).tobytes() == before[name].tobytes()
    for name, g in case.host(net.gradient(x, t)).items():
        assert g.tobytes() == gradient[name].tobytes()


@pytest.mark.parametrize(
    "kind",
    [
        (kind, method)
        for kind in ("sigmoid", "a layer without difference", "a layer that learns")
        for method in ("stacked", "loop", "auto")
    ],
    ids=str,
)
def test_layers_remember_afterwards_what_they_remembered_before(case, kind):
    """Another batch: the very same objects, so that backward still belongs to it, and parameters of the same bits."""
    kind, method = kind
    net, (x, t) = build(kind, case.asarray), batch(case.asarray)
    net.gradient(x[:2, :], t[:2, :])
    layers = [*net.layers.values(), net.last_layer]
    held = [vars(layer).copy() for layer in layers]
    before = {name: np.array(case.host(value)) for name, value in net.params.items()}
    net.numerical_gradient(x, t, method=method)
    for layer, kept in zip(layers, held, strict=True):
        assert vars(layer).keys() == kept.keys()
        assert all(vars(layer)[key] is value for key, value in kept.items())
    for name, value in net.params.items():
        assert case.host(value).tobytes() == before[name].tobytes()


# ── What a subclass, a frozen parameter or a loss of one's own changes ──────────────────────────────────────────────


class Leaky(Relu):
    """A forward and backward of its own; what it inherits as difference is that of Relu."""

    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, 0.1 * x)

    def backward(self, dout):
        return np.where(self.x > 0, dout, 0.1 * dout)


class Twice(Affine):
    """Twice the affine map; difference and backward_parameters are inherited from the plain one."""

    def forward(self, x):
        return 2.0 * super().forward(x)

    def backward(self, dout):
        return super().backward(2.0 * dout)


@pytest.mark.parametrize("own", [Leaky, Twice])
def test_a_subclass_with_a_forward_of_its_own_does_not_inherit_a_difference(own, rng):
    a = lambda *shape: rng.normal(size=shape)  # noqa: E731
    first = Twice(a(4, 3), a(3)) if own is Twice else Affine(a(4, 3), a(3))
    net = Network([first, Leaky() if own is Leaky else Relu(), Affine(a(3, 2))])
    x, t = a(6, 4), rng.integers(2, size=6)
    auto, loop, backward = net.numerical_gradient(x, t), net.numerical_gradient(x, t, method="loop"), net.gradient(x, t)
    for name in net.params:
        np.testing.assert_allclose(auto[name], loop[name], atol=1e-6)
        np.testing.assert_allclose(backward[name], loop[name], atol=1e-6)


@pytest.mark.parametrize("learned", [("W",), ("b",), ("b", "W")])
def test_a_frozen_parameter_is_left_out(learned, rng):
    layer = Affine(rng.normal(size=(4, 3)), rng.normal(size=3))
    layer.parameters = learned
    net = Network([layer, Sigmoid(), Affine(rng.normal(size=(3, 2)))])
    x, t = rng.normal(size=(6, 4)), rng.integers(2, size=6)
    numerical, gradient = net.numerical_gradient(x, t), net.gradient(x, t)
    assert numerical.keys() == gradient.keys() == net.params.keys()
    for name in net.params:
        np.testing.assert_allclose(numerical[name], gradient[name], rtol=1e-9, atol=1e-15)


def test_a_loss_of_its_own_takes_the_plain_loop(rng):
    class Decaying(Network):
        def loss(self, x, t):
            return super().loss(x, t) + 0.05 * np.sum(self.params["W1"] ** 2)

    net = Decaying([Affine(rng.normal(size=(4, 3)))])
    x, t = rng.normal(size=(6, 4)), rng.integers(3, size=6)
    expected = net.gradient(x, t)["W1"] + 0.1 * net.params["W1"]
    np.testing.assert_allclose(net.numerical_gradient(x, t)["W1"], expected, atol=1e-7)
    with pytest.raises(ValueError, match="Decaying has a loss or predict of its own"):
        net.numerical_gradient(x, t, method="difference")


def test_one_hot_integers_stay_targets_on_a_stack(rng):
    net = Network([Affine(rng.normal(size=(4, 3)))])
    x, t = rng.normal(size=(3, 4)), np.eye(3, dtype=int)
    expected = net.gradient(x, t)["W1"]
    for method in ("stacked", "difference"):
        np.testing.assert_allclose(net.numerical_gradient(x, t, method=method)["W1"], expected, atol=1e-7)


@pytest.mark.parametrize("h", [0.0, -1e-4, np.nan])
def test_a_step_that_is_not_positive_is_refused(h, rng):
    net = Network([Affine(rng.normal(size=(4, 3)))])
    with pytest.raises(ValueError, match="must be a positive number"):
        net.numerical_gradient(rng.normal(size=(3, 4)), np.asarray([0, 1, 2]), h=h)


def test_a_step_from_numpy_does_not_promote_float32(rng):
    net = Network([Affine(rng.normal(size=(4, 3)).astype("float32"))])
    x, t = rng.normal(size=(3, 4)).astype("float32"), np.asarray([0, 1, 2])
    assert net.numerical_gradient(x, t, h=np.float64(1e-3))["W1"].dtype == np.float32


class Doubling:
    """Twice what a layer answers; what it does not have itself, it takes from that layer, ``difference`` included."""

    def __init__(self, layer):
        self.layer = layer

    def __getattr__(self, name):
        return getattr(self.layer, name)

    def forward(self, x):
        return 2.0 * self.layer.forward(x)

    def backward(self, dout):
        return self.layer.backward(2.0 * dout)


class TwoAxes(Sigmoid):
    """A layer that takes (N, D) and nothing else."""

    def forward(self, x):
        if x.ndim != 2:
            raise ValueError("two axes only")
        return super().forward(x)


@pytest.mark.parametrize("layer", [Doubling(Sigmoid()), TwoAxes()], ids=["a wrapper", "a layer of two axes"])
def test_a_layer_without_a_difference_of_its_own_is_run(layer, rng):
    net = Network([Affine(rng.normal(size=(4, 3)), rng.normal(size=3)), layer, Affine(rng.normal(size=(3, 2)))])
    x, t = rng.normal(size=(6, 4)), rng.integers(2, size=6)
    numerical, gradient = net.numerical_gradient(x, t), net.gradient(x, t)
    for name in net.params:
        np.testing.assert_allclose(numerical[name], gradient[name], rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", ["stacked", "loop"])
def test_a_step_that_is_stored_as_none_is_refused(method, rng):
    net = Network([Affine(rng.normal(size=(4, 3)))])
    with pytest.raises(ValueError, match="h = 1e-30 is too small: an entry plus h is stored as the entry itself"):
        net.numerical_gradient(rng.normal(size=(6, 4)), rng.integers(3, size=6), h=1e-30, method=method)


@pytest.mark.parametrize("gamma", [1.0, -1.0])
def test_a_step_stored_as_none_on_one_side_is_refused(gamma, rng):
    """1 + 2⁻⁵³ is stored as 1, though 1 − 2⁻⁵³ is not."""
    net = Network([Scale(np.full(4, gamma)), Affine(rng.normal(size=(4, 3)))])
    with pytest.raises(ValueError, match=r"h = 1\.1\d*e-16 is too small: an entry plus h is stored as the entry"):
        net.numerical_gradient(rng.normal(size=(6, 4)), rng.integers(3, size=6), h=2.0**-53)


class Offset:
    """x·(gamma − 10⁸): a large parameter of which small differences matter."""

    parameters = ("gamma",)

    def __init__(self, gamma):
        self.gamma = gamma

    def forward(self, x):
        self.x = x
        return x * (self.gamma - 1e8)

    def backward(self, dout):
        self.dgamma = (dout * self.x).sum(axis=0)
        return dout * (self.gamma - 1e8)


@pytest.mark.parametrize("method", ["stacked", "loop"])
def test_the_step_that_was_taken_is_the_divisor(method, rng):
    """At 10⁸ a step of 10⁻⁸ is stored as 1.5·10⁻⁸."""
    net = Network([Offset(np.full(2, 1e8))], IdentityWithLoss())
    x, t = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    expected = net.gradient(x, t)["gamma1"]
    np.testing.assert_allclose(net.numerical_gradient(x, t, h=1e-8, method=method)["gamma1"], expected, rtol=1e-6)


class TinyMean:
    """x less the mean of the whole stack, small: a layer that must not run on stacks."""

    def forward(self, x):
        return 1e-9 * (x - x.mean())

    def backward(self, dout):
        return 1e-9 * (dout - dout.mean())


def test_a_layer_that_couples_a_stack_is_seen_however_small_its_output(rng):
    net = Network([Affine(rng.normal(size=(4, 3))), TinyMean()])
    with pytest.raises(ValueError, match="TinyMean behind it gives other results for a stack of inputs than one by"):
        net.numerical_gradient(rng.normal(size=(6, 4)), rng.integers(3, size=6), method="stacked")
