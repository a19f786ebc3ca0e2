"""Training: the same run on every backend, epochs, seeds, and no reading of values within an epoch."""

import contextlib
import itertools
import re

import numpy as np
import pytest
from array_api_compat import array_namespace

import xpnet.training
from xpnet import EpochRecord, TrainingError, TwoLayerNet, load_mnist, to_numpy, train
from xpnet.training import epochs_of_batches


def batches(size, batch_size, seed=0, **how):
    return list(epochs_of_batches(size, batch_size, np.random.default_rng(seed), **how))


def network_for(case, activation="relu", seed=4):
    return TwoLayerNet(12, 8, 5, 0.3, activation=activation, rng=seed, dtype=case.dtype, backend=case.backend)


def data(seed=9, size=43):
    """Return inputs (size, 12) whose label depends on them, on the host."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 12))
    return x, np.argmax(x[:, :5] + 0.3 * rng.normal(size=(size, 5)), axis=-1)


def parameters(case, network):
    return {name: np.array(value) for name, value in case.host(dict(network.params)).items()}


# ── Parity ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def trained(activation, backend, dtype, asarray, **how):
    network = TwoLayerNet(12, 8, 5, 0.3, activation=activation, rng=4, dtype=dtype, backend=backend)
    x, t = data()
    records = list(train(network, asarray(x), asarray(t), batch_size=10, rng=8, **how))
    return network, records


@pytest.mark.parametrize("iterations", [1, 20])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_every_backend_takes_the_same_steps(case, activation, iterations):
    """The same seed leads to the same parameters as on NumPy in float64.

    A step sums at most 12 products per score and 10 per gradient, so that rounding moves a parameter of order one by
    some 10 round-offs at learning rate 0.1, and the steps contract rather than amplify: 16 round-offs for the first
    and 16 for each further one bound the difference. In float32 the data and weights are rounded first, once.
    """
    how = {"iterations": iterations, "learning_rate": 0.1}
    reference, expected = trained(activation, "numpy", "float64", np.asarray, **how)
    network, records = trained(activation, case.backend, case.dtype, case.asarray, **how)
    for name, value in parameters(case, network).items():
        moved = np.abs(reference.params[name] - TwoLayerNet(12, 8, 5, 0.3, rng=4, backend="numpy").params[name])
        assert moved.max() > 1e-3, "the steps must be far larger than what is allowed to differ"
        np.testing.assert_allclose(value, reference.params[name], rtol=0, atol=16 * iterations * case.eps)
        case.assert_ours(network.params[name])
    losses = np.concatenate([record.losses for record in records])
    reference_losses = np.concatenate([record.losses for record in expected])
    assert losses.dtype == case.dtype
    np.testing.assert_allclose(losses, reference_losses, rtol=0, atol=32 * iterations * case.eps)


def test_training_numerically_is_training_by_backpropagation():
    """On NumPy alone: that every backend finds the numerical gradient is tested with the networks."""
    x, t = data()
    by = {}
    for gradient in ("backpropagation", "numerical"):
        network = TwoLayerNet(12, 8, 5, 0.3, activation="sigmoid", rng=4, backend="numpy")
        list(train(network, x, t, gradient=gradient, iterations=5, batch_size=10))
        by[gradient] = network.params
    for name, value in by["numerical"].items():
        np.testing.assert_allclose(value, by["backpropagation"][name], rtol=0, atol=5 * 0.1 * 1e-8)


# ── Nothing waits ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_epoch_reads_no_value_on_the_host(case, monkeypatch):
    """Under the guard any reading raises; accuracies belong to the report, so here they are not computed."""
    transfers = []
    for module in (xpnet.training, xpnet.diagnosis):
        monkeypatch.setattr(module, "to_numpy", lambda x: transfers.append(x.shape) or to_numpy(x))
    network = network_for(case)
    asked = []
    monkeypatch.setattr(network, "accuracy", lambda x, t: asked.append(x.shape[0]) or 0.5)
    x, t = map(case.asarray, data())
    with case.computing():
        records = list(train(network, x, t, x, t, epochs=2, batch_size=10))
    looked_at, *epochs = transfers  # how large the inputs are, once, before the first epoch
    assert looked_at == ()
    assert epochs == [(5 + 4,)] * 2, "an epoch's losses, and whether its four parameters are finite, come together"
    assert asked == [43] * 4
    assert all(np.isfinite(record.losses).all() for record in records)


def test_the_guard_catches_a_loss_that_is_read_at_every_step(case, monkeypatch):
    if not case.guarded:
        pytest.skip("this backend lets values be read anywhere")
    network = network_for(case)
    step = network.loss_and_gradient
    read = []

    def reading(x, t, dout):
        loss, gradients = step(x, t, dout)
        read.append(float(loss))
        return loss, gradients

    monkeypatch.setattr(network, "loss_and_gradient", reading)
    x, t = map(case.asarray, data())
    with case.computing(), pytest.raises(AssertionError, match=r"__float__ reads a value .* a GPU would wait here"):
        next(train(network, x, t, epochs=1))
    assert not read


# ── Epochs and batches ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("size", "batch_size", "lengths"), [
    (10, 5, [5, 5]), (11, 5, [5, 5, 1]), (9, 10, [9]), (3, 1, [1, 1, 1]), (1, 1, [1]),
])  # fmt: skip
def test_an_epoch_uses_every_sample_once(size, batch_size, lengths):
    epochs = batches(size, batch_size, epochs=3)
    assert len(epochs) == 3
    for epoch in epochs:
        assert [batch.shape[0] for batch in epoch] == lengths
        np.testing.assert_array_equal(np.sort(np.concatenate(epoch)), np.arange(size))


def test_every_epoch_has_an_order_of_its_own():
    first, second = (np.concatenate(epoch) for epoch in batches(100, 10, epochs=2))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, np.arange(100))


def test_iterations_may_cut_the_last_epoch():
    epochs = batches(50, 10, iterations=12)
    assert [len(epoch) for epoch in epochs] == [5, 5, 2]
    assert [len(epoch) for epoch in batches(50, 10, iterations=10)] == [5, 5]
    for cut, whole in zip(epochs, batches(50, 10, epochs=3), strict=True):
        for one, other in zip(cut, whole, strict=False):
            np.testing.assert_array_equal(one, other)


def test_replacement_draws_every_batch_from_all_samples():
    epochs = batches(50, 20, epochs=40, replacement=True)
    drawn = np.concatenate([batch for epoch in epochs for batch in epoch])
    assert all([batch.shape[0] for batch in epoch] == [20, 20, 20] for epoch in epochs)
    assert np.array_equal(np.unique(drawn), np.arange(50))
    first = np.concatenate(epochs[0])
    assert np.unique(first).shape[0] < first.shape[0], "60 draws from 50 must repeat"
    # 2,400 draws, 48 of each expected with standard deviation 6.9
    assert np.abs(np.bincount(drawn) - 48).max() < 5 * 6.9


def test_batches_come_from_the_seed_alone():
    def drawn(seed, **how):
        return np.concatenate([batch for epoch in batches(40, 7, seed, epochs=2, **how) for batch in epoch])

    for how in ({}, {"replacement": True}):
        np.testing.assert_array_equal(drawn(3, **how), drawn(3, **how))
        assert not np.array_equal(drawn(3, **how), drawn(4, **how))


@pytest.mark.parametrize("replacement", [False, True])
def test_an_epoch_follows_from_its_number_and_the_seed(replacement):
    """Whatever came before it: epoch 3 of seed 5 is drawn from SeedSequence(5) at place 3 of the stream of batches."""
    whole = list(epochs_of_batches(43, 10, 5, epochs=4, replacement=replacement))
    late = list(epochs_of_batches(43, 10, 5, epochs=4, replacement=replacement, first=3))
    assert len(late) == 2
    np.testing.assert_array_equal(np.concatenate(late[0]), np.concatenate(whole[2]))
    rng = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(1, 3)))
    expected = rng.integers(43, size=50) if replacement else rng.permutation(43)
    np.testing.assert_array_equal(np.concatenate(late[0]), expected)


@pytest.mark.parametrize("replacement", [False, True])
def test_where_an_index_has_32_bits_batches_are_the_same(monkeypatch, replacement):
    """As on Windows with a 32-bit Python, where NumPy takes no entries at places of 64 bits."""
    x, t = data()
    expected = TwoLayerNet(12, 8, 5, rng=4, backend="numpy")
    how = {"iterations": 7, "batch_size": 10, "replacement": replacement}
    list(train(expected, x, t, **how))
    xp = array_namespace(x)
    take = xp.take

    def narrow(x, indices, **axis):
        if not np.can_cast(indices.dtype, np.intp, "safe"):
            raise TypeError(f"Cannot cast array data from {indices.dtype} to {np.intp} according to the rule 'safe'")
        return take(x, indices, **axis)

    monkeypatch.setattr(xp, "take", narrow)
    monkeypatch.setattr(np, "intp", np.int32)
    network = TwoLayerNet(12, 8, 5, rng=4, backend="numpy")
    list(train(network, x, t, **how))
    for name, value in network.params.items():
        np.testing.assert_array_equal(value, expected.params[name])


@pytest.mark.parametrize("replacement", [False, True])
def test_train_uses_the_samples_of_its_batches(replacement):
    """The network sees exactly the inputs and targets that the plan names, in its order."""
    x = np.arange(23.0)[:, None] * np.ones((1, 2)) / 2
    network = TwoLayerNet(2, 3, 23, backend="numpy")
    seen = []
    step = network.loss_and_gradient

    def spy(x, t, dout):
        seen.append((2 * x[:, 0], t))
        return step(x, t, dout)

    network.loss_and_gradient = spy
    how = {"epochs": 2, "replacement": replacement}
    list(train(network, x, np.arange(23), batch_size=5, rng=np.random.default_rng(2), **how))
    plan = [batch for epoch in batches(23, 5, 2, **how) for batch in epoch]
    for (images, labels), batch in zip(seen, plan, strict=True):
        np.testing.assert_array_equal(images, batch)
        np.testing.assert_array_equal(labels, batch)


# ── The loop ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_is_the_books(case):
    network, by_hand = network_for(case), network_for(case)
    host_x, host_t = data(size=10)
    x, t = case.asarray(host_x), case.asarray(host_t)
    next(train(network, x, t, epochs=1, batch_size=10, learning_rate=0.25))
    with case.computing():
        grad = by_hand.gradient(x, t)
        for key in ("W1", "b1", "W2", "b2"):
            by_hand.params[key] -= 0.25 * grad[key]
    for name, value in by_hand.params.items():
        case.assert_close(network.params[name], case.host(value), eps=16)  # the samples come in another order


def test_records(case):
    network = network_for(case)
    x, t = map(case.asarray, data())
    records = list(train(network, x, t, x[:7, ...], t[:7], iterations=12, batch_size=10))
    assert [record.epoch for record in records] == [1, 2, 3]
    assert [record.iteration for record in records] == [5, 10, 12]
    assert [record.losses.shape for record in records] == [(5,), (5,), (2,)]
    for record in records:
        assert isinstance(record, EpochRecord)
        assert isinstance(record.losses, np.ndarray)
        assert record.loss == pytest.approx(record.losses.mean(dtype="float64"), rel=16 * case.eps)
        for value in (record.loss, record.train_accuracy, record.test_accuracy):
            assert type(value) is float
    with case.computing():
        accuracy, test_accuracy = network.accuracy(x, t), network.accuracy(x[:7, ...], t[:7])
    assert records[-1].train_accuracy == float(case.host(accuracy))
    assert records[-1].test_accuracy == float(case.host(test_accuracy))


def test_without_test_data_there_is_no_test_accuracy(case):
    x, t = map(case.asarray, data())
    assert next(train(network_for(case), x, t, epochs=1)).test_accuracy is None


def test_nothing_happens_before_the_generator_is_read(case):
    network = network_for(case)
    before = parameters(case, network)
    x, t = map(case.asarray, data())
    records = train(network, x, t, epochs=3)
    for name, value in parameters(case, network).items():
        np.testing.assert_array_equal(value, before[name])
    next(records)
    after_one = parameters(case, network)
    assert not np.array_equal(after_one["W1"], before["W1"])
    records.close()
    for name, value in parameters(case, network).items():
        np.testing.assert_array_equal(value, after_one[name])


def test_a_training_that_nobody_reads_says_so():
    network = TwoLayerNet(12, 8, 5, backend="numpy")
    with pytest.warns(RuntimeWarning, match=r"nothing was trained, .* write: for record in train\(\.\.\.\)") as caught:
        train(network, *data(), epochs=1)
    assert caught[0].filename == __file__, "the line that is to be changed"


def test_what_a_training_shows_of_itself():
    """In a notebook, where what a call returns is kept and shown, it is never given up."""
    records = train(TwoLayerNet(12, 8, 5, backend="numpy"), *data(), epochs=2)
    assert repr(records) == "<training, not begun; to go on: for record in train(...)>"
    record = next(records)
    assert repr(records) == "<training, begun; to go on: for record in train(...)>"
    assert repr(record).startswith("EpochRecord(epoch=1, iteration=1, loss=")
    assert repr(record).endswith("test_accuracy=None, losses=<float64 (1,)>, seed=0)")


@pytest.mark.parametrize("end", [lambda records: records.close(), list, next], ids=["close", "list", "next"])
def test_a_training_that_was_read_or_closed_says_nothing(end):
    end(train(TwoLayerNet(12, 8, 5, backend="numpy"), *data(), epochs=1))


def test_what_is_wrong_is_said_at_the_call():
    """A generator would say it where it is read, or never."""
    network, (x, t) = TwoLayerNet(12, 8, 5, backend="numpy"), data()
    for bad in ({"epochs": 0}, {"epochs": 1, "learning_rate": -1}, {"epochs": 1, "batch_size": 0}, {}):
        with pytest.raises(ValueError, match=r"must be|give either epochs"):
            train(network, x, t, **bad)
    with pytest.raises(TypeError, match="rng is 'x'"):
        train(network, x, t, epochs=1, rng="x")
    with pytest.raises(TypeError, match="resume is int"):
        train(network, x, t, epochs=1, resume=3)


def test_on_iteration_is_called_after_every_update(case):
    network = network_for(case)
    x, t = map(case.asarray, data())
    seen = []
    list(
        train(
            network, x, t, iterations=7, batch_size=10,
            on_iteration=lambda: seen.append(parameters(case, network)["b2"]),
        )
    )  # fmt: skip
    assert len(seen) == 7
    for one, next_one in itertools.pairwise(seen):
        assert not np.array_equal(one, next_one)
    np.testing.assert_array_equal(seen[-1], parameters(case, network)["b2"])


def test_one_seed_fixes_everything(case):
    def run(seed):
        network = network_for(case, seed=seed)
        x, t = map(case.asarray, data())
        losses = [record.losses for record in train(network, x, t, epochs=2, batch_size=10, rng=seed)]
        return np.concatenate(losses), parameters(case, network)

    losses, weights = run(6)
    again, weights_again = run(6)
    other, _ = run(7)
    np.testing.assert_array_equal(losses, again)
    for name, value in weights.items():
        np.testing.assert_array_equal(value, weights_again[name])
    assert not np.array_equal(losses, other)


def test_weights_and_batches_of_one_seed_are_independent_streams():
    """Otherwise the first numbers of both would be the same bits in two disguises."""
    from xpnet.backend import random_generator

    drawn = {purpose: random_generator(3, purpose).random(4) for purpose in ("weights", "batches", "audit")}
    for one, other in itertools.combinations(drawn.values(), 2):
        assert not np.isin(one, other).any()


def test_data_are_not_written(case):
    x, t = map(case.asarray, data())
    list(train(network_for(case), x, t, epochs=1, batch_size=10))
    host_x, host_t = data()
    np.testing.assert_array_equal(case.host(x), host_x.astype(case.dtype))
    np.testing.assert_array_equal(case.host(t), host_t)


def test_one_hot_targets_train_as_labels_do(case):
    networks = [network_for(case), network_for(case)]
    host_x, host_t = data()
    x = case.asarray(host_x)
    for network, t in zip(networks, (host_t, np.eye(5)[host_t]), strict=True):
        list(train(network, x, case.asarray(t), epochs=1, batch_size=10))
    for name, value in networks[0].params.items():
        case.assert_close(networks[1].params[name], case.host(value), eps=4)


@pytest.mark.parametrize("learning_rate", [np.float64(0.1), np.float32(0.1), 1])
def test_a_learning_rate_of_another_kind_keeps_the_dtype(case, learning_rate):
    network = network_for(case)
    x, t = map(case.asarray, data())
    next(train(network, x, t, epochs=1, learning_rate=learning_rate))
    for value in network.params.values():
        case.assert_ours(value)


@pytest.fixture(scope="module")
def digits():
    (x_train, t_train), (x_test, t_test) = load_mnist(normalize=False, backend="numpy")
    return [np.array(a[:n]) for a, n in ((x_train, 500), (t_train, 500), (x_test, 250), (t_test, 250))]


def test_learns_handwritten_digits(case, digits):
    """40 steps on 500 real images; guessing is right for a tenth of the test images."""
    x_train, t_train, x_test, t_test = digits
    x_train, x_test = (case.asarray(x.astype(case.dtype) / 255) for x in (x_train, x_test))
    network = TwoLayerNet(784, 30, 10, 0.05, dtype=case.dtype, backend=case.backend)
    records = list(
        train(
            network, x_train, case.asarray(t_train), x_test, case.asarray(t_test),
            epochs=4, batch_size=50, learning_rate=0.5,
        )
    )  # fmt: skip
    assert records[-1].test_accuracy > 0.6
    assert records[-1].train_accuracy > records[0].train_accuracy
    assert records[-1].loss < records[0].loss / 1.5


# ── Training that goes wrong ────────────────────────────────────────────────────────────────────────────────────────

# NumPy warns of overflow while it happens, the other libraries do not
overflows = pytest.mark.filterwarnings("ignore::RuntimeWarning")
OF_SAMPLE_20 = next(i for i, batch in enumerate(batches(40, 10, 8, epochs=1)[0], start=1) if 20 in batch)


def enormous(case):
    """Return a number whose square is infinite."""
    return 1e25 if case.dtype == "float32" else 1e200


def spoiled(case, how):
    """Return (network, x, t, learning rate, the iteration at which it goes wrong, what must be said of the cause)."""
    x, t = data(size=40)
    network, rate, iteration, big = network_for(case), 0.1, OF_SAMPLE_20, enormous(case)
    match how:
        case "learning rate":
            rate, iteration = big, 2
            tenth = re.escape(f"{big / 10:g}")
            says = rf"the loss became (nan|inf): learning_rate 1e.\d+ is probably too large; try {tenth}"
        case "learning rate, weights for labels":
            t, rate, iteration = np.eye(5)[t], big, 2
            says = r"the loss became (nan|inf): learning_rate 1e.\d+ is probably too large"
        case "input scale":
            x, iteration = x * big, 2
            says = r"the loss became (nan|inf): x_train reaches .*e\+\d+; bring inputs to about 0 to 1"
        case "label too large":
            t[20] = 5
            says = "the loss became nan: t_train has labels from 0 to 5, but .* 5 classes, which are 0 to 4"
        case "label below zero":
            t[20] = -1
            says = "the loss became nan: t_train has labels from -1 to 4, but the network has 5 classes"
        case "NaN among inputs":
            x[20, 3] = np.nan
            says = "the loss became nan: x_train holds 1 NaN or infinite values"
        case "infinite weights":
            t = np.eye(5)[t]
            t[20, :2] = np.inf
            says = "the loss became (nan|inf): t_train holds 2 NaN or infinite values"
        case "parameter":
            network.params["b2"] = network.params["b2"] + case.asarray(np.asarray([0, np.nan, 0, 0, 0]))
            iteration, says = 1, "the loss became nan: parameter b2 held NaN or infinite values before this epoch"
    return network, case.asarray(x), case.asarray(t), rate, iteration, says


@overflows
@pytest.mark.filterwarnings("ignore:x_train reaches")
@pytest.mark.parametrize("how", [
    "learning rate", "learning rate, weights for labels", "input scale", "label too large", "label below zero",
    "NaN among inputs", "infinite weights", "parameter",
])  # fmt: skip
def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_cause(case, how):
    network, x, t, rate, iteration, says = spoiled(case, how)
    before = parameters(case, network)
    records = train(network, x, t, epochs=3, batch_size=10, learning_rate=rate, rng=np.random.default_rng(8))
    with pytest.raises(TrainingError, match=rf"^in epoch 1, iteration {iteration}, {says}") as caught:
        next(records)
    assert (caught.value.epoch, caught.value.iteration) == (1, iteration)
    for found in (parameters(case, network), case.host(caught.value.parameters)):
        for name, value in before.items():
            np.testing.assert_array_equal(found[name], value)
    assert list(records) == [], "the run is over"


@overflows
def test_the_last_good_parameters_are_those_of_the_epoch_before(case):
    """Two good epochs, then the learning rate is turned up in the middle of the third."""
    network = network_for(case)
    x, t = map(case.asarray, data())
    step, calls = network.loss_and_gradient, itertools.count(1)

    def bad_in_the_third(x, t, dout):
        loss, gradients = step(x, t, dout)
        factor = enormous(case) if next(calls) == 13 else 1.0
        return loss, {name: factor * gradient for name, gradient in gradients.items()}

    network.loss_and_gradient = bad_in_the_third
    records = train(network, x, t, epochs=3, batch_size=10)
    assert [next(records).epoch, next(records).epoch] == [1, 2]
    good = parameters(case, network)
    with pytest.raises(TrainingError, match=r"^in epoch 3, iteration 14, .* The network is as it was before") as caught:
        next(records)
    for found in (parameters(case, network), case.host(caught.value.parameters)):
        for name, value in good.items():
            np.testing.assert_array_equal(found[name], value)


@overflows
def test_a_parameter_that_overflows_in_the_last_update_is_found(case):
    """All losses are finite; only the network that would be handed over is not."""
    network = network_for(case)
    step = network.loss_and_gradient

    def infinite(x, t, dout):
        loss, gradients = step(x, t, dout)
        return loss, {name: gradient + float("inf") for name, gradient in gradients.items()}

    network.loss_and_gradient = infinite
    x, t = map(case.asarray, data())
    with pytest.raises(TrainingError, match="epoch 1, iteration 1, a parameter became NaN or infinite: learning_rate"):
        next(train(network, x, t, iterations=1))


@overflows
def test_the_last_good_parameters_return_to_a_network_of_another_make():
    """As in the book: the layer and the dict hold one array, which must be written and not replaced."""
    ours = TwoLayerNet(12, 8, 5, backend="numpy")

    class Books:
        params = dict(ours.params)  # noqa: RUF012 - one network, one dict
        loss_and_gradient, accuracy, predict = ours.loss_and_gradient, ours.accuracy, ours.predict

    before = {name: value.copy() for name, value in Books.params.items()}
    x, t = data()
    with pytest.raises(TrainingError):
        next(train(Books(), x, t, epochs=1, batch_size=10, learning_rate=1e200))
    for name, value in before.items():
        np.testing.assert_array_equal(Books.params[name], value)
        np.testing.assert_array_equal(ours.params[name], value)


# ── Refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "give either epochs or iterations; got epochs=None and iterations=None"),
        ({"epochs": 1, "iterations": 1}, "give either epochs or iterations; got epochs=1 and iterations=1"),
        ({"epochs": 0}, "epochs is 0; it must be a whole number of at least 1"),
        ({"epochs": -1}, "epochs is -1; it must be a whole number"),
        ({"epochs": 1.5}, "epochs is 1.5; it must be a whole number"),
        ({"iterations": 0}, "iterations is 0; it must be a whole number"),
        ({"iterations": 468.75}, "iterations is 468.75; it must be a whole number"),
        ({"epochs": 1, "batch_size": 0}, "batch_size is 0; it must be a whole number"),
        ({"epochs": 1, "batch_size": 2.5}, "batch_size is 2.5; it must be a whole number"),
        ({"epochs": 1, "learning_rate": 0}, "learning_rate is 0; it must be a positive number"),
        ({"epochs": 1, "learning_rate": -0.1}, "learning_rate is -0.1; it must be a positive number"),
        ({"epochs": 1, "learning_rate": float("nan")}, "learning_rate is nan; it must be a positive number"),
        ({"epochs": 1, "learning_rate": float("inf")}, "learning_rate is inf; it must be a positive number"),
        ({"epochs": 1, "gradient": "exact"}, "gradient is 'exact'; it must be 'backpropagation' or 'numerical'"),
        ({"epochs": 1, "x_test": np.ones((2, 12))}, "x_test and t_test belong together"),
        ({"epochs": 1, "t_test": np.ones(2, dtype=int)}, "x_test and t_test belong together"),
        (
            {"epochs": 1, "x_test": np.ones((2, 12)), "t_test": np.ones(3, dtype=int)},
            "x_test has 2 samples, but t_test has 3",
        ),
    ],
)
def test_bad_arguments_are_refused_before_anything_changes(bad, message):
    network = TwoLayerNet(12, 8, 5, backend="numpy")
    before = network.params["W1"].copy()
    x, t = data()
    with pytest.raises(ValueError, match=message):
        next(train(network, x, t, **bad))
    np.testing.assert_array_equal(network.params["W1"], before)


def network_of_another_make(W):
    """Anything with params, loss and gradient: x @ W towards t."""

    class Linear:
        params = {"W": W}  # noqa: RUF012

        def loss(self, x, t):
            return 0.5 * np.mean((x @ self.params["W"] - t) ** 2)

        def gradient(self, x, t):
            return {"W": x.T @ (x @ self.params["W"] - t) / t.size}

        def accuracy(self, x, t):
            return 0.0

    return Linear()


def test_a_network_of_another_make_trains_by_its_own_gradient(rng):
    x, W = rng.normal(size=(40, 3)), rng.normal(size=(3, 2))
    network = network_of_another_make(np.zeros((3, 2)))
    *_, last = train(network, x, x @ W, epochs=60, batch_size=10, learning_rate=0.5)
    assert last.loss < 1e-6
    np.testing.assert_allclose(network.params["W"], W, atol=1e-2)


def test_a_gradient_of_another_shape_is_refused(rng):
    """An update would stretch it over the parameter, and train on."""
    network = network_of_another_make(np.zeros((3, 2)))
    right, x = network.gradient, rng.normal(size=(10, 3))
    network.gradient = lambda x, t: {"W": right(x, t)["W"].sum(axis=0)}
    with pytest.raises(ValueError, match=r"W has shape \(3, 2\), but its gradient has shape \(2,\); check_gradients"):
        next(train(network, x, x[:, :2], epochs=1))
    network.gradient = lambda x, t: {}
    with pytest.raises(ValueError, match=r"W has shape \(3, 2\), but its gradient has shape None; check_gradients"):
        next(train(network, x, x[:, :2], epochs=1))
    assert not network.params["W"].any()


def test_data_of_different_lengths_are_refused(case):
    x, t = map(case.asarray, data())
    with pytest.raises(ValueError, match="x_train has 43 samples, but t_train has 42"):
        next(train(network_for(case), x, t[:42], epochs=1))


@pytest.mark.parametrize("rng", ["7", -1, True, None, 0.5])
def test_what_is_no_seed_is_refused(rng):
    x, t = data()
    with pytest.raises(TypeError, match=r"rng is .*; it must be a seed .* or a numpy\.random\.Generator"):
        next(train(TwoLayerNet(12, 8, 5, backend="numpy"), x, t, epochs=1, rng=rng))


@pytest.mark.parametrize("resume", [True, 3, {"epoch": 1}])
def test_what_is_no_record_is_refused(resume):
    x, t = data()
    with pytest.raises(TypeError, match=r"resume is .*; it must be an EpochRecord, the last one of a run"):
        next(train(TwoLayerNet(12, 8, 5, backend="numpy"), x, t, epochs=1, resume=resume))


def test_floats_in_0_to_255_are_warned_of(case):
    x, t = data()
    x = 255 * (x - x.min()) / (x.max() - x.min())
    records = train(network_for(case), case.asarray(x), case.asarray(t), epochs=1, learning_rate=1e-6)
    with pytest.warns(UserWarning, match="^x_train reaches 255; bring inputs to about 0 to 1, images by dividing"):
        next(records)


def test_images_in_0_to_255_are_refused(case):
    _, t = data()
    with pytest.raises(TypeError, match=r"x has dtype .*uint8; a network takes floats.*normalize=True"):
        next(train(network_for(case), case.asarray(np.ones((43, 12), dtype="uint8")), case.asarray(t), epochs=1))


def test_stopping_in_the_middle_leaves_a_network_that_works(case):
    network = network_for(case)
    x, t = map(case.asarray, data())
    calls = itertools.count()

    def interrupt():
        if next(calls) == 2:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        list(train(network, x, t, epochs=1, batch_size=10, on_iteration=interrupt))
    assert next(calls) == 3
    with case.computing():
        loss = network.loss(x, t)
    assert np.isfinite(case.host(loss))
