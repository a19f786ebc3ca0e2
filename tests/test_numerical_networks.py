"""Numerical gradients of networks: every way is the plain loop, whatever the layers, the chunks and the sizes."""

import tracemalloc

import numpy as np
import pytest
from numerical import NETWORKS, Tanh, batch, build, plain_loop

from xpnet import Affine, Network, SimpleNet, TwoLayerNet
from xpnet.differences import STEP


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
