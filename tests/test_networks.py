"""Networks: SimpleNet's numbers, one owner for each parameter, layers of one's own, accuracy, gradients."""

import itertools

import numpy as np
import pytest
from array_api_compat import is_writeable_array
from conftest import Scale

from xpnet import (
    Affine,
    IdentityWithLoss,
    MultiLayerNet,
    Network,
    Relu,
    Sigmoid,
    SimpleNet,
    Softmax,
    TwoLayerNet,
    check_gradients,
    cross_entropy_error,
    load_mnist,
    numerical_gradient,
    softmax,
    to_numpy,
    train,
)

W_BOOK = [[-0.48459566, 0.5243312, 0.04511345], [-0.96368618, -1.78325219, -0.88296112]]
GRADIENT_BOOK = np.asarray([[0.17890118, 0.15673873, -0.33563992], [0.26835177, 0.2351081, -0.50345987]])


def small(case, activation="sigmoid", seed=1, std=1.0):
    return TwoLayerNet(4, 3, 2, std, activation=activation, rng=seed, dtype=case.dtype, backend=case.backend)


def small_batch(case, rng):
    return case.asarray(rng.uniform(size=(3, 4))), case.asarray([0, 1, 1])


def affine(case, rng, rows, columns):
    """An Affine whose parameters can be written where the library allows it, as a network's own can."""
    xp = case.xp
    W, b = (case.asarray(rng.normal(size=size)) for size in ((rows, columns), (columns,)))
    return Affine(xp.asarray(W, copy=True), xp.asarray(b, copy=True))


# ── SimpleNet ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_simple_net_of_the_book(case):
    network = SimpleNet(case.asarray(W_BOOK))
    x, t = case.asarray([0.6, 0.9]), case.asarray([0, 0, 1])
    with case.computing():
        scores = network.predict(x)
        loss = network.loss(x, t)
        gradient = network.gradient(x, t)
    case.assert_close(scores, [-1.15807496, -1.29032825, -0.76759694], decimals=7)
    p = np.exp(case.host(scores)) / np.exp(case.host(scores)).sum()
    case.assert_close(loss, -np.log(p[2]))
    # the book differentiated log(p + 1e-7), which makes its gradient smaller by the factor p / (p + 1e-7)
    case.assert_close(gradient["W1"], GRADIENT_BOOK * (p[2] + 1e-7) / p[2], decimals=8)


def test_simple_net_with_the_books_guarded_log_has_the_printed_gradient():
    network = SimpleNet(np.asarray(W_BOOK))
    x, t = np.asarray([0.6, 0.9]), np.asarray([0, 0, 1])

    def loss(_):
        return cross_entropy_error(softmax(network.predict(x)), t)

    np.testing.assert_allclose(numerical_gradient(loss, network.W, h=1e-4), GRADIENT_BOOK, rtol=0, atol=0.6e-8)


def test_simple_net_draws_its_weight_and_lets_it_be_assigned(case):
    network = SimpleNet(rng=3, dtype=case.dtype, backend=case.backend)
    case.assert_ours(network.W, (2, 3))
    W = case.asarray(W_BOOK)
    network.W = W
    np.testing.assert_array_equal(case.host(network.params["W1"]), case.host(W))
    with case.computing():
        scores = network.predict(case.asarray([0.6, 0.9]))
    case.assert_close(scores, [-1.15807496, -1.29032825, -0.76759694], decimals=7)


# ── Parameters have one owner ───────────────────────────────────────────────────────────────────────────────────────


def test_subtracting_in_place_changes_what_the_network_computes(case, rng):
    network = small(case)
    x, _ = small_batch(case, rng)
    for name in network.params:
        with case.computing():
            before = network.predict(x)
            network.params[name] -= 0.5
            after = network.predict(x)
        assert np.all(np.abs(case.host(after) - case.host(before)).max(axis=-1) > 1e-3), name


def test_assigning_changes_what_the_network_computes(case, rng):
    network = small(case)
    x, _ = small_batch(case, rng)
    for name in network.params:
        with case.computing():
            before = network.predict(x)
            network.params[name] = network.params[name] - 0.5
            after = network.predict(x)
        assert np.all(np.abs(case.host(after) - case.host(before)).max(axis=-1) > 1e-3), name


def test_parameters_and_layers_show_the_same_array(case):
    network = small(case)
    assert list(network.params) == ["W1", "b1", "W2", "b2"]
    assert len(network.params) == 4
    value = network.params["W2"] * 2.0
    network.params["W2"] = value
    assert network.layers["Affine2"].W is network.params["W2"]
    np.testing.assert_array_equal(case.host(network.params["W2"]), case.host(value))
    network.layers["Affine1"].b = value = network.params["b1"] + 1.0
    assert network.params["b1"] is value


def test_parameters_of_another_network_are_copied(case, rng):
    one, two = small(case), small(case)
    for name in two.params:
        two.params[name] = one.params[name]
    kept = case.host(one.params["W1"]).copy()
    x, t = small_batch(case, rng)
    list(train(two, x, t, epochs=1, batch_size=2))
    np.testing.assert_array_equal(case.host(one.params["W1"]), kept)
    assert not np.array_equal(case.host(two.params["W1"]), kept)


def test_the_layers_of_a_network_cannot_be_exchanged_behind_its_back(case):
    network = small(case)
    assert list(network.layers) == ["Affine1", "Sigmoid1", "Affine2"]
    with pytest.raises(TypeError, match="item assignment"):
        network.layers["Sigmoid1"] = Relu()


@pytest.mark.parametrize("shape", [(3, 4), (4,), (4, 3, 1), ()])
def test_a_parameter_of_another_shape_is_refused(case, shape):
    network = small(case)
    before = network.params["W1"]
    with pytest.raises(ValueError, match=r"parameter W1 has shape \(4, 3\) and dtype .*; got shape .* and dtype"):
        network.params["W1"] = case.asarray(np.zeros(shape))
    assert network.params["W1"] is before


def test_a_parameter_of_another_dtype_is_refused(case):
    network = small(case)
    with pytest.raises(ValueError, match=r"parameter b1 has shape .* and dtype .*; got shape .* and dtype .*int64"):
        network.params["b1"] = case.asarray([0, 0, 0])


def test_an_unknown_parameter_is_refused(case):
    network = small(case)
    with pytest.raises(KeyError, match="W3"):
        network.params["W3"] = network.params["W1"]
    with pytest.raises(KeyError, match="b3"):
        network.params["b3"]


# ── Rows of layers ──────────────────────────────────────────────────────────────────────────────────────────────────


def assert_gradients_agree(case, network, x, t, *, h=None):
    """Assert that central differences and backpropagation find the same gradient.

    Truncation is h²·f‴/6, and f‴ is at most of order ten here: below 3e-8 for h ≤ 2⁻¹³, the largest in float64, and
    below 3e-5 for h ≤ 2⁻⁸ in float32, where rounding, a few ε·f/h for the plain loop, adds some 5e-5.
    """
    allowed = 1e-7 if case.dtype == "float64" else 1e-4
    numerical = case.host(network.numerical_gradient(x, t, h=h))
    with case.computing():
        gradient = network.gradient(x, t)
    assert list(numerical) == list(gradient) == list(network.params)
    for name, value in gradient.items():
        case.assert_ours(value, network.params[name].shape)
        value = case.host(value)
        assert numerical[name].dtype == case.dtype
        assert np.abs(value).max() > 20 * allowed, f"{name} is too small for the comparison to mean anything"
        np.testing.assert_allclose(numerical[name], value, rtol=0, atol=allowed, err_msg=name)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_numerical_gradient_agrees_with_backpropagation(case, rng, activation):
    network = small(case, activation)
    x, t = small_batch(case, rng)
    hidden = case.host(x) @ case.host(network.params["W1"])
    assert np.abs(hidden).min() > 2**-5, "a kink of relu within the step would be no error of either gradient"
    assert_gradients_agree(case, network, x, t)


def test_numerical_gradient_leaves_the_network_alone(case, rng):
    network = small(case)
    x, t = small_batch(case, rng)
    before = case.host(dict(network.params))
    before = {name: np.array(value) for name, value in before.items()}
    network.numerical_gradient(x, t)
    for name, value in case.host(dict(network.params)).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_deeper_network_is_a_longer_row(case, rng):
    network = Network([affine(case, rng, 4, 3), Sigmoid(), affine(case, rng, 3, 3), Sigmoid(), affine(case, rng, 3, 2)])
    assert list(network.params) == ["W1", "b1", "W2", "b2", "W3", "b3"]
    assert list(network.layers) == ["Affine1", "Sigmoid1", "Affine2", "Sigmoid2", "Affine3"]
    assert_gradients_agree(case, network, *small_batch(case, rng))


def test_the_output_layer_can_be_another(case, rng):
    network = Network([affine(case, rng, 4, 3), Softmax()], IdentityWithLoss())
    x, t = case.asarray(rng.uniform(size=(2, 4))), case.asarray(rng.uniform(size=(2, 3)))
    with case.computing():
        loss, y = network.loss(x, t), network.predict(x)
    case.assert_close(loss, 0.5 * ((case.host(y) - case.host(t)) ** 2).sum() / 2)
    assert_gradients_agree(case, network, x, t)


def test_a_layer_of_ones_own_needs_no_base_class(case, rng):
    gamma = case.xp.asarray(case.asarray([0.5, -1.0, 2.0]), copy=True)
    network = Network([affine(case, rng, 4, 3), Scale(gamma), Sigmoid(), affine(case, rng, 3, 2)])
    assert list(network.params) == ["W1", "b1", "gamma2", "W3", "b3"]
    assert list(network.layers) == ["Affine1", "Scale1", "Sigmoid1", "Affine2"]
    x, t = small_batch(case, rng)
    assert_gradients_agree(case, network, x, t, h=None if case.dtype == "float64" else 2**-8)
    with case.computing():
        before = network.loss(x, t)
        for _ in range(5):
            gradient = network.gradient(x, t)
            network.params["gamma2"] -= 0.1 * gradient["gamma2"]
        after = network.loss(x, t)
    assert case.host(after) < case.host(before) - 1e-3


def test_a_network_without_parameters_or_activation_works(case):
    network = Network([Relu()])
    with case.computing():
        scores = network.predict(case.asarray([[-1.0, 2.0]]))
        gradient = network.gradient(case.asarray([[-1.0, 2.0]]), case.asarray([1]))
    case.assert_close(scores, [[0, 2]], eps=0)
    assert gradient == {}


def test_gradients_of_a_multiple_of_the_loss(case, rng):
    network = TwoLayerNet(4, 3, 2, 0.5, rng=1, dtype=case.dtype, backend=case.backend)
    x, t = case.asarray(rng.normal(size=(5, 4))), case.asarray(rng.integers(2, size=5))
    with case.computing():
        loss, gradients = network.loss_and_gradient(x, t)
        same, steps = network.loss_and_gradient(x, t, 0.1)
    assert float(same) == float(loss)
    for name, value in case.host(gradients).items():
        np.testing.assert_allclose(case.host(steps[name]), 0.1 * value, rtol=8 * case.eps, atol=case.eps / 8)


def test_the_same_layer_twice_is_refused(case, rng):
    layer = affine(case, rng, 3, 3)
    with pytest.raises(ValueError, match=r"a layer stands in the row twice.*make a second one"):
        Network([layer, Relu(), layer])


@pytest.mark.parametrize("layer", [1, None, "Relu", Relu, np.eye(2)])
def test_what_is_no_layer_is_refused(layer):
    with pytest.raises(TypeError, match=r"is no layer; a layer is an object with forward\(x\) and backward\(dout\)"):
        Network([Relu(), layer])


class Gain(Scale):
    """A layer that learns one number, and says so wrongly."""

    def backward(self, dout):
        return dout * self.gamma


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ("gamma", TypeError, r"Gain.parameters is the string 'gamma'; write \('gamma',\)"),
        (("delta",), AttributeError, "Gain names 'delta' in its parameters, but has no such attribute"),
    ],
)
def test_a_layer_that_names_its_parameters_wrongly_is_refused(parameters, error, message):
    layer = Gain(np.ones(3))
    layer.parameters = parameters
    with pytest.raises(error, match=message):
        Network([layer])


def test_a_backward_that_leaves_no_gradient_is_named():
    with pytest.raises(AttributeError, match="Gain names 'gamma' in its parameters, but its backward left no dgamma"):
        Network([Gain(np.ones(3))]).gradient(np.ones((2, 3)), np.asarray([0, 1]))


def test_gradients_before_any_backward_are_named():
    with pytest.raises(AttributeError, match="Affine names 'W' in its parameters, but its backward left no dW"):
        Network([Affine(np.eye(3))]).params.gradients()


def test_parameters_that_do_not_belong_together_are_refused():
    W, b = np.eye(3), np.zeros(3)
    with pytest.raises(ValueError, match="parameters b1 and b2 are one and the same array; give each layer its own"):
        Network([Affine(W, b), Affine(W.copy(), b)])
    with pytest.raises(TypeError, match="parameter W1 has dtype float32 and gamma2 float64; they must be of one dtype"):
        Network([Affine(W.astype("float32")), Scale(np.ones(3))])
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="parameters W1 and gamma2: expected arrays of one library"):
        Network([Affine(W), Scale(torch.ones(3))])


def test_arrays_of_another_library_are_refused_by_name():
    torch = pytest.importorskip("torch")
    network = TwoLayerNet(4, 3, 2, backend="torch")
    with pytest.raises(TypeError, match=r"x and the parameters: .* one library, got numpy\.ndarray, torch\.Tensor"):
        network.predict(np.ones((2, 4)))
    with pytest.raises(TypeError, match=r"parameter b1 and its new value: .* got torch\.Tensor, numpy\.ndarray"):
        network.params["b1"] = np.zeros(3)
    with pytest.raises(TypeError, match=r"x and the parameters: .* got torch\.Tensor, numpy\.ndarray"):
        TwoLayerNet(4, 3, 2).predict(torch.ones((2, 4)))


class Decaying(TwoLayerNet):
    """A network whose loss and gradient are its own: weight decay."""

    def loss(self, x, t):
        return super().loss(x, t) + 0.05 * (self.params["W1"] ** 2).sum()

    def gradient(self, x, t):
        gradients = super().gradient(x, t)
        return gradients | {"W1": gradients["W1"] + 0.1 * self.params["W1"]}


def test_a_gradient_of_its_own_is_what_trains(rng):
    network, x, t = Decaying(4, 3, 2, 1.0), rng.normal(size=(5, 4)), rng.integers(0, 2, 5)
    assert check_gradients(network, x, t)
    loss, steps = network.loss_and_gradient(x, t, 0.5)
    assert loss == network.loss(x, t)
    for name, value in network.gradient(x, t).items():
        np.testing.assert_array_equal(steps[name], 0.5 * value)
    start = np.array(network.params["W1"])
    list(train(network, x, t, epochs=1, batch_size=5, learning_rate=0.5))
    np.testing.assert_allclose(network.params["W1"], start - steps["W1"], rtol=1e-12)


def test_a_network_without_layers_is_refused():
    with pytest.raises(ValueError, match="needs at least one layer"):
        Network([])


# ── What goes in and comes out ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_predict_probabilities_and_loss_let_leading_axes_pass(case, rng, shape):
    network = small(case)
    x = case.asarray(rng.uniform(size=shape))
    t = case.asarray(rng.integers(0, 2, size=shape[:-1]))
    with case.computing():
        scores, p, loss = network.predict(x), network.probabilities(x), network.loss(x, t)
    host = {name: case.host(value) for name, value in network.params.items()}
    hidden = 1 / (1 + np.exp(-(case.host(x) @ host["W1"] + host["b1"])))
    expected = hidden @ host["W2"] + host["b2"]
    case.assert_close(scores, expected, eps=16)
    e = np.exp(expected)
    case.assert_close(p, e / e.sum(axis=-1, keepdims=True), eps=32)
    case.assert_ours(loss, shape[:-2])


def test_inputs_of_another_float_dtype_are_converted(case, rng):
    network = small(case)
    other = "float32" if case.dtype == "float64" else "float64"
    if not hasattr(case.xp, other) or case.id == "strict-no-float64":
        other = "float32"
    x = case.asarray(rng.uniform(size=(3, 4)), dtype=other)
    with case.computing():
        scores = network.predict(x)
    case.assert_ours(scores, (3, 2))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool"])
def test_images_in_0_to_255_are_refused_with_the_cure(case, dtype):
    network = small(case)
    x = case.asarray(np.ones((3, 4)), dtype=dtype)
    for use in (network.predict, network.probabilities, lambda x: network.loss(x, case.asarray([0, 1, 1]))):
        with pytest.raises(TypeError, match=rf"x has dtype .*{dtype}; a network takes floats.*normalize=True"):
            use(x)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4)])
def test_an_empty_batch_is_refused(case, shape):
    with pytest.raises(ValueError, match=r"x has shape .*: there is no sample in it"):
        small(case).predict(case.asarray(np.ones(shape)))


def test_an_input_that_does_not_fit_is_refused(case):
    with pytest.raises(ValueError, match=r"x has shape \(3, 5\) and W \(4, 3\): the last axis of x must have length 4"):
        small(case).predict(case.asarray(np.ones((3, 5))))


@pytest.mark.parametrize("size", [1, 6, 7, 11, 12, 13])
def test_accuracy_for_any_size_and_kind_of_target(case, rng, size):
    network = small(case)
    host, labels = rng.uniform(size=(size, 4)), rng.integers(0, 2, size=size)
    x, t = case.asarray(host), case.asarray(labels)
    hot, soft = case.asarray(np.eye(2)[labels]), case.asarray(0.3 + 0.4 * np.eye(2)[labels])
    with case.computing():
        scores = network.predict(x)
        values = [network.accuracy(x, target, batch_size=6) for target in (t, hot, soft)]
        values.append(network.accuracy(x, t))
    expected = np.mean(np.argmax(case.host(scores), axis=-1) == labels)
    for value in values:
        case.assert_close(value, expected, eps=1)


def test_weights_of_nan_are_no_right_answer(case):
    """As one_hot gives them for a label that is no class; the network answers class 0, where NaN is found too."""
    x, t = case.asarray(np.ones((4, 4))), np.eye(2)[[0, 0, 0, 0]]
    network = small(case)
    network.params["W2"] *= 0.0
    t[1:] = np.nan
    with case.computing():
        value = network.accuracy(x, case.asarray(t))
    case.assert_close(value, 0.25)


def test_one_score_names_no_class(case, rng):
    network = Network([affine(case, rng, 4, 1)], IdentityWithLoss())
    with case.computing():
        value = network.accuracy(case.asarray(np.ones((5, 4))), case.asarray(np.ones((5, 1))))
    assert np.isnan(case.host(value))


@pytest.mark.parametrize("shape", [(4,), (6,), (5, 1, 2), ()])
def test_accuracy_refuses_targets_that_do_not_fit(case, shape):
    with pytest.raises(ValueError, match=r"x has shape \(5, 4\), but targets t have shape"):
        small(case).accuracy(case.asarray(np.ones((5, 4))), case.asarray(np.zeros(shape, dtype=int)))


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_the_books_training_loop_lowers_the_loss(case, rng, activation):
    network = small(case, activation, std=0.5)
    x, t = case.asarray(rng.normal(size=(12, 4))), case.asarray(rng.integers(0, 2, size=12))
    learning_rate = 0.5
    with case.computing():
        before = network.loss(x, t)
        for _ in range(20):
            grad = network.gradient(x, t)
            for key in ("W1", "b1", "W2", "b2"):
                network.params[key] -= learning_rate * grad[key]
        after = network.loss(x, t)
    assert case.host(after) < case.host(before) - 0.05
    for value in network.params.values():
        case.assert_ours(value)


def test_gradients_do_not_change_when_the_network_moves_on(case, rng):
    network = small(case)
    x, t = small_batch(case, rng)
    with case.computing():
        first = network.gradient(x, t)
    before = {name: np.array(value) for name, value in case.host(first).items()}
    with case.computing():
        network.gradient(x * 2.0, t)
        for name in network.params:
            network.params[name] -= first[name]
    for name, value in case.host(first).items():
        np.testing.assert_array_equal(value, before[name])


# ── Weights ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_seed_gives_the_same_weights_on_every_backend(case):
    reference = TwoLayerNet(7, 5, 3, rng=11, backend="numpy")
    network = TwoLayerNet(7, 5, 3, rng=11, dtype=case.dtype, backend=case.backend)
    for name, value in network.params.items():
        case.assert_ours(value)
        assert is_writeable_array(value) or case.backend == "jax"
        np.testing.assert_array_equal(case.host(value), reference.params[name].astype(case.dtype))


def test_weights_have_the_stated_spread_and_biases_are_zero():
    network = TwoLayerNet(200, 100, 100, 0.03, backend="numpy")
    for name, shape in {"W1": (200, 100), "W2": (100, 100)}.items():
        W = network.params[name]
        assert W.shape == shape
        assert abs(W.mean()) < 4 * 0.03 / W.size**0.5
        assert abs(W.std() / 0.03 - 1) < 4 / (2 * W.size) ** 0.5
    assert not network.params["b1"].any()
    assert not network.params["b2"].any()
    assert not np.array_equal(network.params["W1"][:100], network.params["W2"])


def test_seeds_and_generators():
    def W1(rng):
        return TwoLayerNet(4, 3, 2, rng=rng, backend="numpy").params["W1"]

    np.testing.assert_array_equal(W1(5), W1(5))
    np.testing.assert_array_equal(W1(np.random.default_rng(5)), W1(np.random.default_rng(5)))
    assert not np.array_equal(W1(5), W1(6))


@pytest.mark.parametrize("rng", [-1, 1.5, "7", True, None])
def test_what_is_neither_seed_nor_generator_is_refused(rng):
    with pytest.raises(TypeError, match=r"rng is .*; it must be a seed .* or a numpy\.random\.Generator"):
        TwoLayerNet(4, 3, 2, rng=rng, backend="numpy")


@pytest.mark.parametrize("sizes", [(0, 3, 2), (4, 0, 2), (4, 3, 0), (4, -3, 2)])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match=r"sizes are \(.*\); each must be a whole number of at least 1"):
        TwoLayerNet(*sizes, backend="numpy")


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation is 'tanh'; it must be one of relu, sigmoid"):
        TwoLayerNet(4, 3, 2, activation="tanh", backend="numpy")


@pytest.mark.parametrize("dtype", ["float", "double", "xp"])
def test_an_unknown_dtype_is_refused(dtype):
    with pytest.raises(ValueError, match=rf"dtype is '{dtype}', which numpy does not have; 'float32' and 'float64'"):
        TwoLayerNet(4, 3, 2, dtype=dtype, backend="numpy")


# ── The book's setting ──────────────────────────────────────────────────────────────────────────────────────────────

BOOKS_DIFFERENCES = {"W1": 3e-10, "b1": 2e-9, "W2": 5e-9, "b2": 1.4e-7}  # mean absolute, printed in 5.7.3's setting


@pytest.fixture(scope="module")
def books_setting():
    """Return the network 784-50-10 of section 5.7.3, three real images and their targets."""
    (x, t), _ = load_mnist(one_hot_label=True, backend="numpy")
    return TwoLayerNet(784, 50, 10, backend="numpy"), x[:3].astype("float64"), t[:3].astype("float64")


def test_mean_differences_of_the_book_come_from_its_guarded_log(books_setting):
    network, x, t = books_setting
    gradient = network.gradient(x, t)
    for name, printed in BOOKS_DIFFERENCES.items():
        # a slice is a view, so writing to it moves the network; four of W1's fifty columns are sample enough
        part = network.params[name][..., :4] if name == "W1" else network.params[name]
        numerical = numerical_gradient(lambda _: cross_entropy_error(softmax(network.predict(x)), t), part, h=1e-4)
        difference = np.abs(numerical - (gradient[name][..., :4] if name == "W1" else gradient[name])).mean()
        assert printed / 4 < difference < printed * 4, name


def test_mean_differences_are_smaller_with_the_exact_log_softmax(books_setting):
    network, x, t = books_setting
    numerical, gradient = network.numerical_gradient(x, t), network.gradient(x, t)
    for name, printed in BOOKS_DIFFERENCES.items():
        assert np.abs(to_numpy(numerical[name]) - gradient[name]).mean() < printed, name


# ── Networks of any depth ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("activation", "gain"), [("relu", 2.0), ("sigmoid", 1.0)])
def test_a_network_of_any_depth(activation, gain):
    network = MultiLayerNet(400, (300, 200), 100, activation=activation, rng=2, backend="numpy")
    kind = activation.capitalize()
    assert list(network.layers) == ["Affine1", f"{kind}1", "Affine2", f"{kind}2", "Affine3"]
    for number, (rows, columns) in enumerate(itertools.pairwise((400, 300, 200, 100)), start=1):
        W = network.params[f"W{number}"]
        assert W.shape == (rows, columns)
        assert abs(W.std() / (gain / rows) ** 0.5 - 1) < 4 / (2 * W.size) ** 0.5
        assert not network.params[f"b{number}"].any()


def test_with_one_hidden_layer_it_is_the_two_layer_net(case):
    makes = {"rng": 3, "dtype": case.dtype, "backend": case.backend}
    one, other = TwoLayerNet(4, 3, 2, 0.1, **makes), MultiLayerNet(4, [3], 2, 0.1, **makes)
    for name, value in one.params.items():
        np.testing.assert_array_equal(case.host(other.params[name]), case.host(value))


def test_backpropagation_of_a_deep_network_is_right(rng):
    network = MultiLayerNet(6, (5, 4, 3), 3, activation="sigmoid", backend="numpy")
    assert check_gradients(network, rng.normal(size=(7, 6)), rng.integers(0, 3, 7))


def test_what_no_network_of_any_depth_can_be_made_of():
    for sizes, says in (
        ((4, (3, 0), 2), r"sizes are \(4, 3, 0, 2\)"),
        ((4, (3, 1.5), 2), "each must be a whole number"),
    ):
        with pytest.raises(ValueError, match=says):
            MultiLayerNet(*sizes, backend="numpy")
    with pytest.raises(ValueError, match="weight_init_std is nan"):
        MultiLayerNet(4, (3,), 2, float("nan"), backend="numpy")


# ── dout ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_gradient_is_that_of_dout_times_the_loss(case):
    network = TwoLayerNet(4, 3, 2, 0.5, rng=1, dtype=case.dtype, backend=case.backend)
    host = np.random.default_rng(0)
    x, t = case.asarray(host.normal(size=(5, 4))), case.asarray(host.integers(0, 2, 5))
    with case.computing():
        whole, part = network.gradient(x, t), network.gradient(x, t, 0.25)
    for name, value in whole.items():
        case.assert_close(part[name], 0.25 * case.host(value), eps=4)


def test_a_gradient_of_its_own_that_takes_dout_is_followed_too(rng):
    class Doubled(TwoLayerNet):
        def gradient(self, x, t, dout=1.0):
            return super().gradient(x, t, 2.0 * dout)

    network, x, t = Doubled(4, 3, 2, 1.0), rng.normal(size=(5, 4)), rng.integers(0, 2, 5)
    expected = TwoLayerNet(4, 3, 2, 1.0).gradient(x, t)
    for name, value in network.loss_and_gradient(x, t, 0.5)[1].items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-12)
