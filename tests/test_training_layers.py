"""Dropout, batch normalization and the two modes of a network: what the book's 6.3 and 6.4 promise."""

import numpy as np
import pytest

from xpnet import (
    Affine,
    BatchNormalization,
    Dropout,
    IdentityWithLoss,
    Network,
    Relu,
    check_gradients,
    load_training,
    numerical_gradient,
    save_training,
    train,
)
from xpnet.layer_state import LayerState


def normalization(case, rng, size=3):
    return BatchNormalization(case.asarray(rng.normal(size=size)), case.asarray(rng.normal(size=size)))


# ── Batch normalization ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_is_normalized_and_the_averages_move_a_tenth_of_the_way(case, rng):
    layer, x = normalization(case, rng), rng.normal(2.0, 3.0, size=(7, 3))
    gamma, beta = case.host(layer.gamma), case.host(layer.beta)
    with case.computing():
        out = layer.forward(case.asarray(x))
    mean, var = x.mean(axis=0), x.var(axis=0)
    case.assert_close(out, gamma * (x - mean) / np.sqrt(var + 1e-6) + beta, eps=64)
    case.assert_close(layer.running_mean, 0.1 * mean, eps=32)
    case.assert_close(layer.running_var, 0.9 + 0.1 * var, eps=32)


def test_evaluation_uses_the_averages_and_leaves_them(case, rng):
    layer, x = normalization(case, rng), rng.normal(size=(7, 3))
    layer.forward(case.asarray(x))
    mean, var = case.host(layer.running_mean), case.host(layer.running_var)
    expected = case.host(layer.gamma) * (x[:1] - mean) / np.sqrt(var + 1e-6) + case.host(layer.beta)
    case.assert_close(layer.forward(case.asarray(x[:1]), train_flg=False), expected, eps=64)
    layer.train_flg = False
    case.assert_close(layer.forward(case.asarray(x[:1])), expected, eps=64)
    np.testing.assert_array_equal(case.host(layer.running_mean), mean)
    np.testing.assert_array_equal(case.host(layer.running_var), var)


@pytest.mark.parametrize("training", [True, False])
def test_the_backward_of_a_normalization_is_its_derivative_in_both_modes(rng, training):
    layer = BatchNormalization(rng.normal(size=3), rng.normal(size=3), running_var=np.full(3, 2.0))
    x, dout = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    layer.train_flg = training
    layer.forward(x)
    dx, dgamma, dbeta = layer.backward(dout), layer.dgamma, layer.dbeta
    for name, found in (("x", dx), ("gamma", dgamma), ("beta", dbeta)):
        moved = x if name == "x" else getattr(layer, name)
        expected = numerical_gradient(lambda _: np.sum(dout * layer.forward(x)), moved)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_the_normalization_agrees_with_pytorch(rng):
    torch = pytest.importorskip("torch")
    x, dout, gamma, beta = (rng.normal(size=shape) for shape in ((6, 3), (6, 3), 3, 3))
    layer = BatchNormalization(gamma, beta, epsilon=1e-5)
    theirs = torch.nn.BatchNorm1d(3, eps=1e-5, momentum=0.1, dtype=torch.float64)
    theirs.load_state_dict({"weight": torch.tensor(gamma), "bias": torch.tensor(beta)}, strict=False)
    given = torch.tensor(x, requires_grad=True)
    out = theirs(given)
    out.backward(torch.tensor(dout))
    np.testing.assert_allclose(layer.forward(x), out.detach().numpy(), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(layer.backward(dout), given.grad.numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(layer.dgamma, theirs.weight.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.dbeta, theirs.bias.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "error", "says"),
    [
        (lambda: BatchNormalization(np.ones(3), np.zeros(4)), ValueError, r"beta \(4,\)"),
        (lambda: BatchNormalization(np.ones(3), np.zeros(3, "f4")), ValueError, "float32"),
        (lambda: BatchNormalization(np.ones(3, int), np.zeros(3)), TypeError, "int64"),
        (lambda: BatchNormalization(np.ones(3), np.zeros(3), 1.5), ValueError, "momentum is 1.5"),
        (lambda: BatchNormalization(np.ones(3), np.zeros(3)).forward(np.ones((2, 5, 3))), ValueError, "to rows first"),
        (lambda: BatchNormalization(np.ones(3), np.zeros(3)).forward(np.ones((2, 4))), ValueError, r"\(N, 3\)"),
        (lambda: Dropout(1.0), ValueError, "dropout_ratio is 1.0"),
        (lambda: Dropout("half"), ValueError, "dropout_ratio is 'half'"),
        (lambda: Dropout(rng=None), TypeError, "rng is None"),
        (lambda: Dropout().backward(np.ones(3)), AttributeError, "Dropout has no 'mask'"),
    ],
)
def test_what_cannot_be_built_or_run_says_why(build, error, says):
    with pytest.raises(error, match=says):
        build()


# ── Dropout ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dropout_zeros_its_share_and_backward_takes_the_same_entries(case):
    layer, x = Dropout(0.3, rng=1), case.asarray(np.full((50, 40), 2.0))
    with case.computing():
        out, dx = layer.forward(x), layer.backward(x)
    case.assert_ours(out, (50, 40))
    np.testing.assert_array_equal(case.host(out), case.host(dx))
    values, counts = np.unique(case.host(out), return_counts=True)
    np.testing.assert_array_equal(values, [0.0, 2.0])
    assert abs(counts[0] / 2000 - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)


def test_dropout_evaluates_without_a_draw(case):
    layer, x = Dropout(0.25), case.asarray([[1.0, -2.0]])
    before = layer.rng.bit_generator.state
    case.assert_close(layer.forward(x, train_flg=False), [[0.75, -1.5]])
    case.assert_close(layer.backward(x), [[0.75, -1.5]])
    assert layer.rng.bit_generator.state == before


def test_one_seed_drops_the_same_entries_on_every_backend_and_others_the_next_time(case):
    ours, on_numpy = Dropout(0.5, rng=3), Dropout(0.5, rng=3)
    masks = [case.host(ours.forward(case.asarray(np.ones((4, 5))))) for _ in range(2)]
    np.testing.assert_array_equal(masks[0], on_numpy.forward(np.ones((4, 5))))
    assert (masks[0] != masks[1]).any()


# ── Modes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class ByArgument:
    """The book's way: a mode given to forward."""

    def forward(self, x, train_flg=True):
        return 2 * x if train_flg else 3 * x

    def backward(self, dout):
        return 2 * dout


class ByAttribute:
    """The way of the book's second volume and of PyTorch: a mode that is kept."""

    def __init__(self, name):
        self.name = name
        setattr(self, name, True)

    def forward(self, x):
        return 2 * x if getattr(self, self.name) else 3 * x

    def backward(self, dout):
        return 2 * dout


class Block:
    """A layer made of layers, one after the other."""

    def __init__(self, *layers):
        self.layers = list(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dout):
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


MODAL = {
    "the book's argument": ByArgument,
    "train_flg": lambda: ByAttribute("train_flg"),
    "training": lambda: ByAttribute("training"),
    "within a block": lambda: Block(Block(ByAttribute("train_flg"))),
}


@pytest.mark.parametrize("kind", MODAL)
def test_a_network_tells_its_layers_whether_it_learns(kind):
    network, x, t = Network([MODAL[kind]()], IdentityWithLoss()), np.ones((2, 3)), np.zeros((2, 3))
    np.testing.assert_array_equal(network.predict(x), 3 * x)
    np.testing.assert_array_equal(network.predict(x, train_flg=True), 2 * x)
    assert network.loss(x, t) == 0.5 * 4 * 3
    assert network.loss(x, t, train_flg=False) == 0.5 * 9 * 3
    np.testing.assert_array_equal(network.predict(x), 3 * x)


@pytest.mark.parametrize("name", ["train_flg", "training"])
def test_a_layer_that_evaluates_goes_on_evaluating(name):
    layer = ByAttribute(name)
    setattr(layer, name, False)
    network = Network([layer], IdentityWithLoss())
    assert network.loss(np.ones((1, 1)), np.zeros((1, 1))) == 4.5
    assert getattr(layer, name) is False


def test_a_mode_comes_back_when_a_forward_raises():
    layer = ByAttribute("train_flg")
    network = Network([layer, Affine(np.ones((3, 1)))])
    with pytest.raises(ValueError, match="last axis"):
        network.predict(np.ones((2, 5)))
    assert layer.train_flg is True


def with_normalization(seed=5, ratio=0.4, hidden=8):
    rng = np.random.default_rng(seed)
    return Network(
        [
            Affine(rng.normal(size=(6, hidden))),
            BatchNormalization(np.ones(hidden), np.zeros(hidden)),
            Relu(),
            Dropout(ratio, rng=seed),
            Affine(0.3 * rng.normal(size=(hidden, 3)), np.zeros(3)),
        ]
    )


def test_training_learns_with_both_and_accuracy_evaluates():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 6))
    t = np.argmax(x[:, :3], axis=1)
    network = with_normalization(ratio=0.2, hidden=30)
    *_, last = train(network, x, t, x[:100], t[:100], epochs=20, batch_size=20, learning_rate=0.3)
    assert last.train_accuracy > 0.9
    assert last.test_accuracy == network.accuracy(x[:100], t[:100])  # nothing was drawn and nothing moved


# ── What layers keep is saved, restored and resumed ─────────────────────────────────────────────────────────────────


class OwnDropout:
    """A layer as people write it: a generator of its own, declared nowhere."""

    def __init__(self, seed):
        self.rng = self.generator(seed)

    generator = staticmethod(np.random.default_rng)

    def draw(self, shape):
        return self.rng.random(shape)

    def forward(self, x):
        self.mask = self.draw(x.shape) > 0.3
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class OldNumPy(OwnDropout):
    generator = staticmethod(np.random.RandomState)

    def draw(self, shape):
        return self.rng.rand(*shape)


class FromPython(OwnDropout):
    @staticmethod
    def generator(seed):
        import random

        return random.Random(seed)

    def draw(self, shape):
        return np.asarray([self.rng.random() for _ in range(int(np.prod(shape)))]).reshape(shape)


class FromPyTorch(OwnDropout):
    @staticmethod
    def generator(seed):
        return pytest.importorskip("torch").Generator().manual_seed(seed)

    def draw(self, shape):
        import torch

        return torch.rand(shape, generator=self.rng).numpy()


class OwnNormalization:
    """Running statistics that nobody declared: an array from the start, and, as in the book, None at first."""

    def __init__(self, size):
        self.mean, self.running_var, self.training = np.zeros(size), None, True

    def forward(self, x):
        mean, var = (x.mean(axis=0), x.var(axis=0)) if self.training else (self.mean, self.running_var)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * mean
            self.running_var = var if self.running_var is None else 0.9 * self.running_var + 0.1 * var
        self.scale = 1 / np.sqrt(var + 1e-5)
        self.n = (x - mean) * self.scale
        return self.n

    def backward(self, dout):
        return self.scale * (dout - dout.mean(axis=0) - self.n * (dout * self.n).mean(axis=0))


KEEPING = {
    "our layers": with_normalization,
    "a generator of NumPy": lambda: with_layer(OwnDropout(3)),
    "MT19937": lambda: with_layer(OwnDropoutOf(np.random.Generator(np.random.MT19937(3)))),
    "an older one of NumPy": lambda: with_layer(OldNumPy(3)),
    "one of Python": lambda: with_layer(FromPython(3)),
    "one of PyTorch": lambda: with_layer(FromPyTorch(3)),
    "statistics": lambda: with_layer(OwnNormalization(5)),
    "in a block": lambda: with_layer(Block(OwnNormalization(5), Block(OwnDropout(3)))),
}


def OwnDropoutOf(generator):
    layer = OwnDropout(0)
    layer.rng = generator
    return layer


def with_layer(layer):
    rng = np.random.default_rng(0)
    first, last = Affine(rng.normal(size=(6, 5)), np.zeros(5)), Affine(rng.normal(size=(5, 3)), np.zeros(3))
    return Network([first, layer, Relu(), last])


def data():
    rng = np.random.default_rng(2)
    return rng.normal(size=(47, 6)), rng.integers(3, size=47)


@pytest.mark.filterwarnings("ignore:the mean loss of epoch")  # labels are random: there is nothing to learn
@pytest.mark.parametrize("kind", KEEPING)
@pytest.mark.parametrize("stop", [10, 13])  # at the end of an epoch, and within one
def test_a_training_goes_on_bit_for_bit(tmp_path, kind, stop):
    x, t = data()
    whole = KEEPING[kind]()
    records = list(train(whole, x, t, x, t, iterations=25, batch_size=10, rng=4))
    begun = KEEPING[kind]()
    save_training(begun, list(train(begun, x, t, x, t, iterations=stop, batch_size=10, rng=4)), tmp_path / "a.npz")
    going_on, state = KEEPING[kind](), load_training(tmp_path / "a.npz")
    state.restore(going_on)
    more = list(train(going_on, x, t, x, t, iterations=25, batch_size=10, rng=4, resume=state.records[-1]))
    for name, value in whole.params.items():
        assert value.tobytes() == going_on.params[name].tobytes(), name
    assert more[-1]._replace(losses=0) == records[-1]._replace(losses=0)
    np.testing.assert_array_equal(more[-1].losses, records[-1].losses)


@pytest.mark.filterwarnings("ignore:the mean loss of epoch")
@pytest.mark.parametrize("kind", KEEPING)
def test_without_what_layers_keep_it_would_end_elsewhere(kind):
    """The test above can fail: the state matters, and it is in the list."""
    x, t = data()
    network, other = KEEPING[kind](), KEEPING[kind]()
    list(train(network, x, t, epochs=2, batch_size=10))
    for name, value in network.params.items():
        other.params[name] = value.copy()
    other.loss(x, t)  # running statistics of None have no evaluation
    in_training = kind not in ("our layers", "statistics")
    losses = [each.loss(x, t, train_flg=in_training) for each in (network, other)]
    assert losses[0] != losses[1]
    assert network.layer_state()


def test_state_of_another_backend_and_none_of_a_foreign_layer(case, tmp_path):
    def build(seed):
        rng = np.random.default_rng(seed)
        return Network([Affine(case.asarray(rng.normal(size=(6, 3)))), normalization(case, rng), Dropout(rng=seed)])

    network, other = build(1), build(2)
    x, t = data()
    network.loss(case.asarray(x), case.asarray(t))
    save_training(network, [], tmp_path / "a.npz")
    load_training(tmp_path / "a.npz").restore(other)
    case.assert_close(
        other.layers["BatchNormalization1"].running_mean,
        case.host(network.layer_state()["BatchNormalization1.running_mean"]),
    )
    assert other.layers["Dropout1"].rng.bit_generator.state == network.layers["Dropout1"].rng.bit_generator.state


def test_a_training_that_fails_leaves_what_layers_keep_as_before_the_epoch():
    x, t = data()
    network = with_normalization()
    before = network.layer_state()
    x[20] = np.nan
    with pytest.raises(ArithmeticError, match="x_train holds 6 NaN"):
        list(train(network, x, t, epochs=1, batch_size=10))
    for name, value in network.layer_state().items():
        np.testing.assert_array_equal(value, before[name])


def test_what_does_not_fit_is_named_and_nothing_is_changed(tmp_path):
    network = with_normalization()
    save_training(network, [], tmp_path / "a.npz")
    state = load_training(tmp_path / "a.npz")
    for other, says in (
        (with_normalization(hidden=9), "parameter W1"),
        (
            Network([*list(with_normalization().layers.values())[:3], Affine(np.ones((8, 3)), np.zeros(3))]),
            "Dropout1.rng",
        ),
    ):
        before = {name: value.copy() for name, value in other.params.items()}
        with pytest.raises(ValueError, match=says):
            state.restore(other)
        for name, value in other.params.items():
            np.testing.assert_array_equal(value, before[name])
    other = with_normalization()
    other.layers["Dropout1"].rng = np.random.Generator(np.random.MT19937(1))
    with pytest.raises(ValueError, match=r"Dropout1\.rng is a MT19937, but another kind"):
        state.restore(other)


def test_two_layers_that_draw_the_same_numbers_are_told():
    with pytest.raises(ValueError, match=r"Dropout1\.rng and Dropout2\.rng draw the same numbers; give each"):
        Network([Dropout(), Relu(), Dropout()])
    shared = np.random.default_rng(0)
    Network([Dropout(rng=shared), Relu(), Dropout(rng=shared)])
    Network([Dropout(rng=0), Relu(), Dropout(rng=1)])


@pytest.mark.parametrize(
    ("state", "error", "says"),
    [
        ("rng", TypeError, r"is the string 'rng'; write \('rng',\)"),
        (("gone",), AttributeError, "names 'gone' in its state"),
    ],
)
def test_a_state_that_is_not_there_is_told(state, error, says):
    with pytest.raises(error, match=says):
        Network([type("Own", (OwnDropout,), {"state": state})(1)])


def test_a_file_of_an_older_xpnet_says_that_the_state_begins_anew(tmp_path):
    network = with_normalization()
    save_training(network, [], tmp_path / "a.npz")
    state = load_training(tmp_path / "a.npz")._replace(layer_state=None)
    with pytest.warns(UserWarning, match=r"saved without BatchNormalization1\.running_mean, .*Dropout1\.rng, which"):
        state.restore(with_normalization())


# ── Checks and numerical gradients ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_each_of_the_two_layers_passes_its_check_in_both_modes(rng, training, dtype):
    x = rng.normal(size=(6, 3)).astype(dtype)
    for layer in (Dropout(0.4, rng=1), BatchNormalization(*rng.normal(size=(2, 3)).astype(dtype))):
        layer.train_flg = training
        before = LayerState([layer]).take()
        assert check_gradients(layer, x)
        for name, value in LayerState([layer]).take().items():
            np.testing.assert_array_equal(value, before[name])
        layer.backward = lambda dout, right=layer.backward: 1.05 * right(dout)
        assert not check_gradients(layer, x)


@pytest.mark.parametrize("hidden", [4, 5])
def test_a_network_with_both_passes_and_is_left_as_it_was(hidden):
    x, t = data()
    network = with_normalization(hidden=hidden)
    network.loss(x, t)
    before = network.layer_state()
    assert check_gradients(network, x[:9], t[:9])
    by_backpropagation, by_difference = network.gradient(x[:9], t[:9]), None
    network.restore_layer_state(before)
    by_difference = network.numerical_gradient(x[:9], t[:9])
    for name, value in by_backpropagation.items():
        np.testing.assert_allclose(by_difference[name], value, rtol=1e-4, atol=1e-6)
    for name, value in network.layer_state().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_a_wrong_layer_behind_a_dropout_is_found():
    class Wrong(Affine):
        def backward_parameters(self, dout):
            super().backward_parameters(dout)
            self.dW[2, 1] *= -1

    x, t = data()
    network = with_normalization()
    network.layers["Affine2"].__class__ = Wrong
    check = check_gradients(network, x[:9], t[:9])
    assert {p.name: p.failed for p in check.parameters if p.failed} == {"W3": 1}


@pytest.mark.filterwarnings("ignore:the mean loss of epoch")
def test_chapter_fours_way_trains_through_dropout():
    x, t = data()
    networks = [with_normalization(hidden=3) for _ in range(2)]
    for network, gradient in zip(networks, ("backpropagation", "numerical"), strict=True):
        records = list(train(network, x[:20], t[:20], epochs=2, batch_size=10, gradient=gradient))
        assert np.isfinite(records[-1].loss)


def test_a_dropout_that_does_not_name_its_generator_is_refused():
    x, t = data()
    check = check_gradients(with_layer(OwnDropout(3)), x, t)
    assert not check
    assert "check without dropout" in check.problems[0]
