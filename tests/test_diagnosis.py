"""What is wrong with a training is told: before it begins, or while it goes on; and nothing else is."""

import copy
import pickle
import re
import warnings

import numpy as np
import pytest

from xpnet import (
    Affine,
    IdentityWithLoss,
    Network,
    Relu,
    Sigmoid,
    TrainingError,
    TwoLayerNet,
    check_gradients,
    get_backend,
    load_mnist,
    train,
    why_unusable,
)

ONE_BATCH = {"epochs": 1, "batch_size": 100}


def batch(case, rng, classes=3):
    return case.asarray(rng.normal(size=(12, 4))), case.asarray(np.arange(12) % classes)


class Foreign:
    """A network of another make: a linear classifier with its parameter in a dict."""

    def __init__(self, W):
        self.params = {"W": W}

    def loss(self, x, t):
        return Network([Affine(self.params["W"])]).loss(x, t)

    def gradient(self, x, t):
        return {"W": Network([Affine(self.params["W"])]).gradient(x, t)["W1"]}

    def accuracy(self, x, t):
        return Network([Affine(self.params["W"])]).accuracy(x, t)

    def predict(self, x):
        return x @ self.params["W"]


class Own:
    """A layer that scales its input, with a backward to be planted."""

    parameters = ("a",)

    def __init__(self, a, backward):
        self.a, self.wrong = a, backward

    def forward(self, x):
        self.x = x
        return x * self.a

    def backward(self, dout):
        self.da = self.wrong(self.x, dout)
        return dout * self.a


# ── Before anything happens ─────────────────────────────────────────────────────────────────────────────────────────


class TestBefore:
    def refused(self, error, says, *args, **options):
        with pytest.raises(error, match=says):
            train(*args, **{**ONE_BATCH, **options})  # at once: nobody reads the generator

    def test_a_network_without_parameters(self, case, rng):
        x, t = batch(case, rng, 4)
        self.refused(ValueError, "no parameters, so there is nothing to train", Network([Relu()]), x, t)

    def test_a_parameter_that_cannot_be_written(self, rng):
        """In a dict, a copy might not be what layers compute with; a network of ours computes with what it is given."""
        W, x, t = rng.normal(size=(4, 3)), rng.normal(size=(12, 4)), np.arange(12) % 3
        W.flags.writeable = False
        self.refused(ValueError, "parameter W is read-only and cannot be trained; give .* a copy", Foreign(W), x, t)
        before, ours, same = W.copy(), Network([Affine(W)]), Network([Affine(W.copy())])
        for network in (ours, same):
            list(train(network, x, t, epochs=5))
        assert np.array_equal(W, before)
        assert np.array_equal(ours.params["W1"], same.params["W1"])
        assert not np.array_equal(ours.params["W1"], before)

    def test_entries_that_share_memory(self, rng):
        W = np.lib.stride_tricks.as_strided(np.arange(6.0), (4, 3), (8, 8))
        says = "entries of parameter W share memory; give the network a copy of it"
        self.refused(ValueError, says, Foreign(W), rng.normal(size=(12, 4)), np.arange(12) % 3)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
    def test_half_precision(self, rng, backend, dtype):
        if reason := why_unusable(backend):
            pytest.skip(reason)
        xp = get_backend(backend).xp
        if not hasattr(xp, dtype):
            pytest.skip(f"{backend} has no {dtype}")
        x, t = xp.asarray(rng.normal(size=(12, 4))), xp.asarray(np.arange(12) % 3)
        W = xp.asarray(rng.normal(size=(4, 3)), dtype=getattr(xp, dtype))
        says = rf"W\w* has dtype [\w.]*{dtype}: in half precision .* convert to float32"
        self.refused(TypeError, says, Foreign(W), x, t)
        for build in (lambda: Affine(W), lambda: Network([Own(W, None)])):
            with pytest.raises(TypeError, match=says.replace(r"W\w*", r"\w+")):
                build()
        with pytest.raises(ValueError, match=f"dtype is '{dtype}'.*'float32'"):
            TwoLayerNet(4, 5, 3, dtype=dtype, backend=backend)

    def test_data_in_half_precision_train_networks_in_full(self, rng):
        x, t = rng.normal(size=(12, 4)).astype("float16"), np.arange(12) % 3
        network = TwoLayerNet(4, 5, 3, dtype="float32")
        (record,) = train(network, x, t, epochs=1)
        assert record.loss == pytest.approx(np.log(3), rel=1e-2)
        assert network.params["W1"].dtype == np.float32

    def test_masked_arrays(self, rng):
        x, t = rng.normal(size=(12, 4)), np.arange(12) % 3
        masked = np.ma.masked_array(x, mask=x > 1)
        self.refused(TypeError, r"x_train.*masked array.*\.filled", TwoLayerNet(4, 5, 3), masked, t)

    @pytest.mark.parametrize("which", ["t_train", "x_train", "x_test", "t_test"])
    def test_arrays_of_two_libraries(self, rng, which):
        if reason := why_unusable("torch"):
            pytest.skip(reason)
        asarray = get_backend("torch").asarray
        data = {"x_train": asarray(rng.normal(size=(6, 4))), "t_train": asarray(np.arange(6) % 3)}
        data |= {name.replace("train", "test"): value for name, value in data.items()}
        data[which] = data[which].numpy()
        network = TwoLayerNet(4, 5, 3, backend="torch")
        with pytest.raises(TypeError, match=rf"{which}.*expected arrays of one library, got .*numpy\.ndarray"):
            train(network, **data, epochs=1)

    def test_data_of_another_library_than_the_network(self, rng):
        if reason := why_unusable("torch"):
            pytest.skip(reason)
        asarray = get_backend("torch").asarray
        x, t = asarray(rng.normal(size=(6, 4))), asarray(np.arange(6) % 3)
        self.refused(TypeError, "x_train and parameter W1: .*one library", TwoLayerNet(4, 5, 3), x, t)


# ── In the first step ───────────────────────────────────────────────────────────────────────────────────────────────


class TestFirstStep:
    @pytest.mark.parametrize(
        ("gradient", "error", "says"),
        [
            (lambda x, d: None, ValueError, r"parameter a2 has shape \(3,\), but its gradient has shape None"),
            (lambda x, d: float((x * d).sum()), ValueError, r"parameter a2 .* its gradient is no array"),
            (lambda x, d: (x * d).sum(axis=0).astype(int), TypeError, "gradient of parameter a2 has dtype int64"),
            (lambda x, d: (x * d).sum(axis=0) + 0j, TypeError, "gradient of parameter a2 has dtype complex128"),
            (lambda x, d: [0.0, 0.0, 0.0], ValueError, "parameter a2 .* its gradient is no array"),
        ],
        ids=["None", "number", "integers", "complex", "list"],
    )
    def test_gradients_that_are_none(self, rng, gradient, error, says):
        network = Network([Affine(rng.normal(size=(4, 3))), Own(np.ones(3), gradient)])
        before = {name: value.copy() for name, value in network.params.items()}
        with pytest.raises(error, match=says):
            next(train(network, rng.normal(size=(12, 4)), np.arange(12) % 3, **ONE_BATCH))
        for name, value in before.items():
            assert np.array_equal(network.params[name], value), "nothing was trained"

    def test_a_single_parameter_may_have_a_plain_number_for_its_gradient(self, rng):
        slope = Own(np.asarray(1.0), lambda x, d: float((x * d).sum()))
        exact = Own(np.asarray(1.0), lambda x, d: (x * d).sum())
        W, x, t = rng.normal(size=(4, 3)), rng.normal(size=(12, 4)), np.arange(12) % 3
        for own in (slope, exact):
            list(train(Network([Affine(W.copy()), own]), x, t, **ONE_BATCH))
        assert slope.a == exact.a != 1.0

    def test_a_loss_for_every_sequence(self, rng):
        network = Network([Affine(rng.normal(size=(4, 3)))])
        x, t = rng.normal(size=(8, 5, 4)), rng.integers(0, 3, size=(8, 5))
        with pytest.raises(ValueError, match=r"loss of a batch of shape \(8, 5, 4\) has shape \(8,\); .* one number"):
            next(train(network, x, t, **ONE_BATCH))

    @pytest.mark.parametrize(
        ("backward", "error", "says"),
        [
            (lambda d: d.ravel(), ValueError, r"Bad.backward returned shape \(36,\), but its x \(12, 3\)"),
            (lambda d: d[:1], ValueError, r"Bad.backward returned shape \(1, 3\), but its x \(12, 3\)"),
            (lambda d: (d, d), TypeError, "Bad.backward returned tuple; it must return the gradient of its x"),
            (lambda d: None, TypeError, "Bad.backward returned None; it must return the gradient of its x"),
        ],
        ids=["flat", "broadcast", "tuple", "None"],
    )
    def test_a_backward_that_returns_something_else(self, rng, backward, error, says):
        Bad = type("Bad", (), {"forward": lambda self, x: x, "backward": lambda self, d: backward(d)})
        network = Network([Affine(rng.normal(size=(4, 3))), Bad(), Affine(rng.normal(size=(3, 3)))])
        with pytest.raises(error, match=says):
            network.gradient(rng.normal(size=(12, 4)), np.arange(12) % 3)

    def test_a_forward_that_returns_something_else(self, rng):
        Bad = type("Bad", (), {"forward": lambda self, x: (x, x), "backward": lambda self, d: d})
        with pytest.raises(TypeError, match=r"Bad\.forward returned tuple; it must return one array"):
            Network([Affine(rng.normal(size=(4, 3))), Bad()]).loss(rng.normal(size=(12, 4)), np.arange(12) % 3)


# ── Targets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class TestTargets:
    def regression(self, case):
        return Network([Affine(case.asarray(np.zeros((4, 1))), case.asarray(np.zeros(1)))], IdentityWithLoss())

    @pytest.mark.parametrize("values", [np.linspace(60, 93, 12), np.arange(60, 72), np.zeros(12, dtype=int)])
    def test_targets_of_a_regression_without_their_axis(self, case, rng, values):
        x, t = case.asarray(rng.normal(size=(12, 4))), case.asarray(values)
        network = self.regression(case)
        says = re.escape("targets t of shape (12,) stand beside outputs of shape (12, 1): as values of a regression, "
                         "reshape t to (12, 1)") + ".* labels of a single class they mean nothing"  # fmt: skip
        uses = (network.loss, network.gradient, network.accuracy)
        for use in (*uses, lambda x, t: next(train(network, x, t, **ONE_BATCH))):
            with pytest.raises(ValueError, match=says):
                use(x, t)

    def test_reshaped_as_advised_they_train(self, case, rng):
        x = rng.normal(size=(12, 4))
        t = x @ np.asarray([[1.0], [2.0], [-1.0], [0.5]])
        network = self.regression(case)
        records = list(train(network, case.asarray(x), case.asarray(t), epochs=200, batch_size=12))
        assert records[-1].loss < 1e-3 * records[0].loss

    def test_one_sample(self, case):
        with pytest.raises(ValueError, match=r"t of shape \(\) stand beside outputs of shape \(1,\)"):
            self.regression(case).loss(case.asarray(np.ones(4)), case.asarray(np.asarray(2.0)))

    def test_one_softmax_score_says_that_its_loss_is_always_zero(self, rng):
        x, t = rng.normal(size=(12, 4)), (np.arange(12) % 2.0)[:, None]
        network = TwoLayerNet(4, 5, 1)
        for use in (network.loss, lambda x, t: list(train(network, x, t, **ONE_BATCH))):
            with pytest.warns(UserWarning, match="one score, whose softmax is always 1 and whose loss is always 0"):
                use(x, t)

    def test_accuracy_of_sequences_is_not_taken_for_weights(self, rng):
        """(N, T, C) with N = T = C: labels (N, T) look like weights (N, C)."""
        network = Network([Affine(rng.normal(size=(6, 4)))])
        x, t = rng.normal(size=(4, 4, 6)), rng.integers(0, 4, size=(4, 4))
        right = network.predict(x).argmax(axis=-1) == t
        assert float(network.accuracy(x, t)) == right.mean()
        assert float(network.accuracy(x, np.eye(4)[t], batch_size=3)) == right.mean()

    def test_labels_that_are_no_integers_are_no_classes(self, rng):
        network, t = TwoLayerNet(4, 5, 3), np.arange(12) % 3
        for wrong in (t + 0.9, t.astype(float)):
            with pytest.raises(TypeError, match="labels t have dtype float64, but class numbers are integers"):
                network.accuracy(rng.normal(size=(12, 4)), wrong)


# ── While it goes on ────────────────────────────────────────────────────────────────────────────────────────────────

SIGN = "the mean loss of epoch .*, no better than the 2.3 of a network whose answers are all 0: learning_rate {} is"


@pytest.fixture(scope="module")
def digits():
    (x, t), _ = load_mnist(backend="numpy")
    return x[:2000], t[:2000]


class TestDivergence:
    @pytest.mark.parametrize("seed", [0, 2, 7])
    @pytest.mark.parametrize(("activation", "rate"), [("relu", 2), ("relu", 5), ("relu", 100), ("sigmoid", 30)])
    def test_a_rate_that_destroys_what_was_learned_is_told_once(self, digits, activation, rate, seed):
        """Also where it comes back from above no further than to a guess, as with a rate of 2."""
        network = TwoLayerNet(784, 50, 10, dtype="float32", activation=activation)
        with pytest.warns(UserWarning, match=SIGN.format(rate)) as told:
            records = list(train(network, *digits, epochs=3, learning_rate=rate, rng=seed))
        assert len(told) == 1
        assert records[-1].train_accuracy < 0.35

    def test_one_that_destroys_it_later(self, digits):
        """The rate is right until the third epoch; the loss goes back to that of a guess."""
        x, t = digits
        network = TwoLayerNet(784, 50, 10, dtype="float32")
        seen = 0

        def kill():
            nonlocal seen
            seen += 1
            if seen == 80:
                network.params["b1"] -= 1000.0

        with pytest.warns(UserWarning, match="the mean loss of epoch 5 is"):
            for _ in train(network, x, t, epochs=6, learning_rate=0.5, on_iteration=kill):
                pass

    def test_squares_that_grow(self, rng):
        x = rng.normal(size=(100, 4))
        t = x @ rng.normal(size=(4, 1))
        network = Network([Affine(rng.normal(size=(4, 1)))], IdentityWithLoss())
        with pytest.warns(UserWarning, match="the mean loss of epoch .* learning_rate 2.1 is probably too large"):
            list(train(network, x, t, epochs=12, learning_rate=2.1))

    @pytest.mark.parametrize("activation", ["relu", "sigmoid"])
    @pytest.mark.parametrize("std", [0.01, 0.1, 1.0])
    @pytest.mark.parametrize("rate", [1e-6, 0.01, 0.1, 0.3])
    @pytest.mark.parametrize("batch_size", [10, 100])
    def test_no_false_alarm(self, digits, activation, std, rate, batch_size):
        """Good and slow trainings, from small and from large weights, whose first loss is far above a guess."""
        x, t = digits
        network = TwoLayerNet(784, 20, 10, std, dtype="float32", activation=activation)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            list(train(network, x[:500], t[:500], epochs=3, learning_rate=rate * (0.1 if std == 1.0 else 1.0),
                       batch_size=batch_size))  # fmt: skip

    def test_nothing_to_learn_is_no_alarm(self, rng):
        x, t = rng.normal(size=(60, 4)), rng.integers(0, 3, size=60)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            list(train(TwoLayerNet(4, 5, 3), x, t, epochs=30, batch_size=7))


# ── Copies ──────────────────────────────────────────────────────────────────────────────────────────────────────────

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}


class TestCopies:
    @pytest.mark.parametrize("how", COPIES)
    @pytest.mark.parametrize("used", [False, True])
    @pytest.mark.parametrize("last", [None, IdentityWithLoss()], ids=["softmax", "identity"])
    def test_networks(self, case, rng, how, used, last):
        x, t = batch(case, rng)
        layers = [Affine(*map(case.asarray, (rng.normal(size=(4, 5)), np.zeros(5)))), Relu(), Sigmoid(),
                  Affine(case.asarray(rng.normal(size=(5, 3))))]  # fmt: skip
        network = Network(layers, copy.deepcopy(last))
        if used:
            network.gradient(x, t)
        twin = COPIES[how](network)
        assert type(twin) is Network
        assert list(twin.layers) == list(network.layers)
        assert case.host(twin.loss(x, t)) == case.host(network.loss(x, t))
        for name, gradient in case.host(network.gradient(x, t)).items():
            np.testing.assert_array_equal(case.host(twin.gradient(x, t)[name]), gradient)
        if how != "copy":
            before = case.host(network.loss(x, t))
            for name in twin.params:
                twin.params[name] = twin.params[name] + 1.0
            assert case.host(network.loss(x, t)) == before, "a deep copy shares nothing"
            assert twin.layers["Affine1"].W is twin.params["W1"]

    @pytest.mark.parametrize("how", ["deepcopy", "pickle"])
    def test_a_deep_copy_trains_alone(self, rng, how):
        network = TwoLayerNet(4, 5, 3)
        x, t = rng.normal(size=(12, 4)), np.arange(12) % 3
        list(train(network, x, t, **ONE_BATCH))
        twin, before = COPIES[how](network), network.params["W1"].copy()
        list(train(twin, x, t, **ONE_BATCH))
        assert np.array_equal(network.params["W1"], before)
        list(train(network, x, t, **ONE_BATCH))
        assert np.array_equal(network.params["W1"], twin.params["W1"])

    @pytest.mark.parametrize("how", COPIES)
    def test_a_training_error(self, how):
        error = TrainingError("the loss became nan", 3, 17, {"W1": np.ones(2)})
        twin = COPIES[how](error)
        assert (str(twin), twin.epoch, twin.iteration) == ("the loss became nan", 3, 17)
        assert twin.parameters["W1"].tolist() == [1.0, 1.0]

    def test_a_dict_in_place_of_params_is_refused(self):
        """The book writes self.params = {}; here the layers own what they compute with."""

        class Mine(TwoLayerNet):
            def __init__(self):
                super().__init__(4, 5, 3)
                self.params = {}

        with pytest.raises(AttributeError, match=r"params belong to the layers.*assign single ones, params\['W1'\]"):
            Mine()


# ── PyTorch's own gradients ─────────────────────────────────────────────────────────────────────────────────────────


class TestLeaves:
    """Arrays that require a gradient of PyTorch's: they work, and no graph of computations stays."""

    @pytest.fixture
    def torch(self):
        if reason := why_unusable("torch"):
            pytest.skip(reason)
        return pytest.importorskip("torch")

    def test_parameters_train_as_plain_ones_and_stay_leaves(self, torch, rng):
        W, x, t = rng.normal(size=(4, 3)), torch.tensor(rng.normal(size=(12, 4))), torch.arange(12) % 3
        leaf = torch.nn.Parameter(torch.tensor(W))
        plain = torch.tensor(W)
        for parameter in (leaf, plain):
            list(train(Network([Affine(parameter)]), x, t, epochs=5, batch_size=5))
        assert leaf.is_leaf
        assert leaf.requires_grad
        assert leaf.grad is None
        assert torch.equal(leaf.detach(), plain)
        assert not torch.equal(plain, torch.tensor(W))

    def test_only_one_of_two(self, torch, rng):
        W, b = torch.nn.Parameter(torch.tensor(rng.normal(size=(4, 3)))), torch.zeros(3, dtype=torch.float64)
        network = Network([Affine(W, b)])
        list(train(network, torch.tensor(rng.normal(size=(12, 4))), torch.arange(12) % 3, epochs=5, batch_size=5))
        assert b.grad_fn is None
        assert float(b.abs().max()) > 0

    def test_data_leave_no_graph(self, torch, rng):
        x = torch.tensor(rng.normal(size=(12, 4)), requires_grad=True)
        network = TwoLayerNet(4, 5, 3, backend="torch")
        list(train(network, x, torch.arange(12) % 3, epochs=5, batch_size=5))
        assert all(value.grad_fn is None for value in network.params.values())
        assert all(not value.requires_grad for value in network.params.values())
        assert network.layers["Affine1"].x.grad_fn is None

    def test_what_went_wrong_is_put_back(self, torch, rng):
        W = torch.nn.Parameter(torch.tensor(rng.normal(size=(4, 3))))
        before = W.detach().clone()
        x = torch.tensor(rng.normal(size=(12, 4)))
        x[7, 2] = np.nan
        with pytest.raises(TrainingError):
            list(train(Network([Affine(W)]), x, torch.arange(12) % 3, epochs=9))
        assert torch.equal(W.detach(), before)


def test_a_check_of_one_softmax_score_says_so_in_its_report(rng):
    check = check_gradients(TwoLayerNet(4, 5, 1), rng.normal(size=(6, 4)), (np.arange(6) % 2.0)[:, None])
    assert not check
    assert "softmax over one score is" in str(check)
