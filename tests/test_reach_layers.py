"""Checks of layers and networks as others write them: several inputs and outputs, integers, lists of arrays."""

import numpy as np
import pytest
from checking import failed, problem

from xpnet import AddLayer, MulLayer, Network, SoftmaxWithLoss, TimeSoftmaxWithLoss, check_gradients, train

# ── Several inputs and outputs ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layer", [MulLayer, AddLayer])
def test_our_layers_of_two_inputs(case, rng, layer):
    if case.guarded:
        pytest.skip("a check reads values on the host")
    x, y = (case.asarray(rng.normal(size=(2, 3))) for _ in range(2))
    check = check_gradients(layer(), x, y)
    assert check
    assert [p.name for p in check.parameters] == ["x", "y"]


def test_our_layers_on_plain_numbers():
    assert check_gradients(MulLayer(), 100.0, 2.0)
    assert check_gradients(AddLayer(), 100.0, 2.0)


def test_a_layer_that_returns_its_gradients_the_wrong_way_round(rng):
    class Swapped(MulLayer):
        def backward(self, dout):
            return dout * self.x, dout * self.y

    x, y = rng.normal(size=(2, 2, 3))
    assert failed(check_gradients(Swapped(), x, y)) == {"x": 6, "y": 6}


class LSTM:
    """One step of an LSTM of the book's second volume: three inputs, two outputs, parameters and gradients in lists."""

    def __init__(self, Wx, Wh, b, planted=1.0):
        self.params, self.grads = [Wx, Wh, b], [np.zeros_like(p) for p in (Wx, Wh, b)]
        self.planted = planted

    def forward(self, x, h_prev, c_prev):
        Wx, Wh, b = self.params
        H = h_prev.shape[1]
        A = x @ Wx + h_prev @ Wh + b
        sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
        f, g, i, o = sigmoid(A[:, :H]), np.tanh(A[:, H : 2 * H]), sigmoid(A[:, 2 * H : 3 * H]), sigmoid(A[:, 3 * H :])
        c = f * c_prev + g * i
        h = o * np.tanh(c)
        self.cache = x, h_prev, c_prev, i, f, g, o, c
        return h, c

    def backward(self, dh, dc):
        Wx, Wh, _ = self.params
        x, h_prev, c_prev, i, f, g, o, c = self.cache
        ds = dc + dh * o * (1 - np.tanh(c) ** 2)
        dA = np.hstack(
            (ds * c_prev * f * (1 - f), ds * i * (1 - g**2), ds * g * i * (1 - i), dh * np.tanh(c) * o * (1 - o))
        )
        self.grads[0][...] = x.T @ dA
        self.grads[1][...] = h_prev.T @ dA
        self.grads[2][...] = dA.sum(axis=0)
        return dA @ Wx.T, self.planted * (dA @ Wh.T), ds * f


def lstm(rng, dtype, planted=1.0):
    arrays = [(0.5 * rng.normal(size=s)).astype(dtype) for s in ((3, 8), (2, 8), 8, (4, 3), (4, 2), (4, 2))]
    return LSTM(*arrays[:3], planted), *arrays[3:]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_step_of_an_lstm(rng, dtype):
    check = check_gradients(*lstm(rng, dtype))
    assert check
    names = ["x", "h_prev", "c_prev", "params[0]", "params[1]", "params[2]"]
    assert [p.name for p in check.parameters] == names


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_wrong_step_of_an_lstm(rng, dtype):
    assert failed(check_gradients(*lstm(rng, dtype, planted=1.02))) == {"h_prev": 8}


def test_a_layer_is_left_as_it_was(rng):
    layer, *given = lstm(rng, "float64")
    layer.forward(*given)
    before = [p.copy() for p in layer.params], layer.cache
    check_gradients(layer, *given)
    for value, expected in zip(layer.params, before[0], strict=True):
        np.testing.assert_array_equal(value, expected)
    assert layer.cache is before[1]


def test_several_outputs_with_one_dout_for_all(rng):
    class Split:
        def forward(self, x):
            return [x[:, :2], 3 * x[:, 2:]]

        def backward(self, douts):
            return np.hstack((douts[0], 3 * douts[1]))

    assert check_gradients(Split(), rng.normal(size=(3, 5)))


def test_a_target_among_the_inputs_is_not_differentiated(rng):
    check = check_gradients(SoftmaxWithLoss(), rng.normal(size=(4, 3)), np.asarray([0, 2, 1, 0]))
    assert check
    assert [p.name for p in check.parameters] == ["x"]


# ── Integers ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Embedding:
    """Rows of W, by number. Its input has no gradient."""

    parameters = ("W",)
    takes_integers = True

    def __init__(self, W, add=True):
        self.W, self.add = W, add

    def forward(self, words):
        self.words = words
        return self.W[words]

    def backward(self, dout):
        self.dW = np.zeros_like(self.W)
        if self.add:
            np.add.at(self.dW, self.words, dout)
        else:
            self.dW[self.words] = dout


class InLists(Embedding):
    """The same, as in the book's second volume."""

    parameters = ()

    def __init__(self, W, add=True):
        self.params, self.grads, self.add = [W], [np.zeros_like(W)], add

    def forward(self, words):
        (self.W,) = self.params
        return super().forward(words)

    def backward(self, dout):
        super().backward(dout)
        self.grads[0][...] = self.dW


@pytest.mark.parametrize("kind", [Embedding, InLists])
def test_integers_go_in_and_what_is_learned_is_checked(rng, kind):
    W, words = rng.normal(size=(5, 3)), np.asarray([[0, 4], [4, 2]])
    name = "W" if kind is Embedding else "params[0]"
    check = check_gradients(kind(W), words)
    assert check
    assert [p.name for p in check.parameters] == [name]
    assert failed(check_gradients(kind(W, add=False), words)) == {name: 3}


def test_a_network_of_sequences_of_words_with_a_label_that_is_ignored(rng):
    class TimeAffine:
        parameters = ("W",)

        def __init__(self, W):
            self.W = W

        def forward(self, x):
            self.x = x
            return x @ self.W

        def backward(self, dout):
            self.dW = np.einsum("ntd,ntc->dc", self.x, dout)
            return dout @ self.W.T

    x, t = rng.integers(6, size=(5, 4)), rng.integers(3, size=(5, 4))
    t[:, -1] = -1
    network = Network([Embedding(rng.normal(size=(6, 4))), TimeAffine(rng.normal(size=(4, 3)))], TimeSoftmaxWithLoss())
    assert check_gradients(network, x, t)
    loss = network.loss(x, t)
    assert network.loss(x, np.where(t < 0, -1, t)) == loss
    changed = network.predict(x)
    changed[:, -1] = 100.0  # of the ignored
    assert network.last_layer.forward(changed, t) == loss


def test_integers_that_a_first_layer_did_not_ask_for(rng):
    with pytest.raises(TypeError, match=r"let it say so: takes_integers = True in Affine"):
        Network([__import__("xpnet").Affine(rng.normal(size=(3, 2)))]).predict(np.asarray([[1, 2, 3]]))


# ── Sequences ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_loss_of_a_sequence_is_the_mean_over_labels_that_count(case, rng):
    x, t = rng.normal(size=(2, 3, 4)), np.asarray([[0, -1, 3], [-1, 2, 1]])
    log_y = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    expected = -np.mean([log_y[n, s, t[n, s]] for n in range(2) for s in range(3) if t[n, s] >= 0])
    layer = TimeSoftmaxWithLoss()
    with case.computing():
        loss, dx = layer.forward(case.asarray(x), case.asarray(t)), layer.backward()
    case.assert_close(loss, expected)
    assert (case.host(dx)[t == -1] == 0).all()
    weights = (np.eye(4)[np.where(t < 0, 0, t)] * (t >= 0)[..., None]) / 4
    case.assert_close(dx, np.exp(log_y) * weights.sum(axis=-1, keepdims=True) - weights, eps=32)
    stack = np.stack([x, 2 * x])
    with case.computing():
        losses = layer.forward(case.asarray(stack), case.asarray(t))
    assert tuple(losses.shape) == (2,)
    np.testing.assert_allclose(case.host(losses)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_backward_of_a_sequence(rng, dtype):
    x, t = rng.normal(size=(2, 3, 4)).astype(dtype), np.asarray([[0, -7, 3], [-7, 2, 1]])
    assert check_gradients(TimeSoftmaxWithLoss(ignore_label=-7), x, t)


def test_labels_of_a_sequence_that_do_not_fit(rng):
    layer, x = TimeSoftmaxWithLoss(), rng.normal(size=(2, 3, 4))
    with pytest.raises(ValueError, match=r"labels t have shape \(2, 2\) and scores \(2, 3, 4\)"):
        layer.forward(x, np.zeros((2, 2), int))
    with pytest.raises(TypeError, match="labels t have dtype float64"):
        layer.forward(x, np.zeros((2, 3)))
    assert np.isnan(layer.forward(x, np.full((2, 3), -1)))
    assert np.isnan(layer.forward(x, np.full((2, 3), 4)))


# ── Networks of another make ────────────────────────────────────────────────────────────────────────────────────────


class FromACourse:
    """A network whose loss returns gradients too, or scores without targets."""

    def __init__(self, rng, right=1.0):
        self.params = {"W1": rng.normal(size=(4, 5)), "b1": np.zeros(5), "W2": rng.normal(size=(5, 3))}
        self.right = right

    def loss(self, X, y=None):
        W1, b1, W2 = self.params.values()
        h = np.tanh(X @ W1 + b1)
        scores = h @ W2
        if y is None:
            return scores
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        d = p.copy()
        d[np.arange(len(y)), y] -= 1
        d /= len(y)
        dh = (d @ W2.T) * (1 - h**2)
        grads = {"W1": X.T @ dh, "b1": self.right * dh.sum(axis=0), "W2": h.T @ d}
        return -np.log(p[np.arange(len(y)), y]).mean(), grads


def test_a_network_whose_loss_returns_gradients_too(rng):
    X, y = rng.normal(size=(6, 4)), np.arange(6) % 3
    check = check_gradients(FromACourse(rng), X, y)
    assert check
    assert check.title.startswith("FromACourse, batch 6")
    assert failed(check_gradients(FromACourse(rng, right=6), X, y)) == {"b1": 5}


# ── What goes wrong is a verdict or an error ────────────────────────────────────────────────────────────────────────


def layer(forward, backward=lambda self, d: d, **more):
    return type("Own", (), {"forward": forward, "backward": backward, **more})()


def test_what_a_backward_returns_instead_is_named(rng):
    x, y = rng.normal(size=(2, 2, 3))
    both = lambda self, x, y: x * y  # noqa: E731
    assert "backward returned 3 values; it must return 2" in problem(
        check_gradients(layer(both, lambda s, d: (d, d, d)), x, y)
    )
    assert "Own.backward raised ZeroDivisionError" in problem(
        check_gradients(layer(lambda s, x: (x, x), lambda s, d: 1 / 0), x)
    )
    assert "it must return the gradient of its x" in problem(
        check_gradients(layer(lambda s, x: (x, x), lambda s, a, b: None), x)
    )


def test_what_a_forward_returns_instead_is_named(rng):
    x = rng.normal(size=(2, 3))
    assert check_gradients(layer(lambda s, x: float(x.sum()), lambda s, d: np.full((2, 3), d)), x)
    with pytest.raises(TypeError, match="Own returned str"):
        check_gradients(layer(lambda s, x: "x"), x)


def test_lists_that_hold_no_floats_are_named(rng):
    with pytest.raises(TypeError, match=r"params\[0\] of Own is int64; what is learned must be arrays of floats"):
        check_gradients(layer(lambda s, x: x, params=[np.arange(3)], grads=[None]), rng.normal(size=(2, 3)))
    check = check_gradients(
        layer(lambda s, x: x * s.params[0], params=[np.ones(3)], grads=[None]), rng.normal(size=(2, 3))
    )
    assert problem(check) == "backpropagation gives no gradient for params[0]: forgotten?"


def test_a_network_of_lists_trains_by_its_own_means(rng):
    """The lists of the second volume are for checks; a network of ours names what its layers learn."""
    network = Network([Embedding(rng.normal(size=(6, 3)))])
    records = list(train(network, rng.integers(6, size=20), rng.integers(3, size=20), epochs=2, batch_size=5))
    assert records[1].loss < records[0].loss
