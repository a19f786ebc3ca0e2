"""The report after a compiled epoch says what the plain one says: compiled itself on JAX, where it can be."""

import numpy as np
import pytest
from array_api_compat import array_namespace
from conftest import CASES, unusable

from xpnet import Affine, Network, Relu, Sigmoid, SoftmaxWithLoss, looping, train

CALLS = []


class Noted(Network):
    """Notes each time its accuracy is computed operation by operation, or recorded."""

    def accuracy(self, x, t, **options):
        CALLS.append(x.shape)
        return super().accuracy(x, t, **options)


@pytest.fixture(params=[case for case in CASES if case.id in ("jax", "torch", "cupy")], ids=lambda case: case.id)
def case(request, monkeypatch):
    unusable(request.param)
    if request.param.id == "torch":
        monkeypatch.setattr("torch.compile", lambda graph: graph)
    monkeypatch.setattr(looping, "CHUNK", 8)
    CALLS.clear()
    return request.param


@pytest.fixture
def jax(case):
    if case.id != "jax":
        pytest.skip("only JAX's loop is a program of its own")


def make(case, *more, last=None, kind=Noted, columns=6):
    rng = np.random.default_rng(1)

    def affine(rows, columns):
        return Affine(case.asarray(rng.normal(size=(rows, columns))), case.asarray(rng.normal(size=columns)))

    return kind([affine(columns, 5), Relu(), affine(5, 3), *more], last)


def data(case, count, *places, columns=6):
    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(count, *places, columns)), rng.integers(3, size=(count, *places))
    return case.asarray(x), case.asarray(np.eye(3)[labels]), case.asarray(labels)


def accuracies(network, *data, compile, **options):
    training = train(network, *data, epochs=4, batch_size=5, compile=compile, learning_rate=0.5, **options)
    before = len(CALLS)
    found = [(record.train_accuracy, record.test_accuracy) for record in training]
    return found, len(CALLS) - before


@pytest.mark.parametrize(
    ("count", "targets"), [(5, "labels"), (8, "one-hot"), (9, "labels"), (16, "labels"), (21, "one-hot")]
)
def test_accuracies_are_those_of_the_plain_report(case, count, targets):
    x, *t = data(case, count)
    x_test, *t_test = data(case, 11)
    given = x, t[targets == "labels"], x_test, t_test[targets == "labels"]
    plain, calls = accuracies(make(case), *given, compile=False)
    found, fewer = accuracies(make(case), *given, compile=True)
    np.testing.assert_allclose(found, plain, rtol=4 * case.eps)
    assert len({accuracy for accuracy, _ in plain}) > 1, "they change from epoch to epoch"
    assert (calls, fewer) == (8, 0 if case.id == "jax" else 8)


def test_without_test_data_there_is_no_accuracy_of_them(case):
    x, t, _ = data(case, 20)
    found, _ = accuracies(make(case), x, t, compile=True)
    assert [test for _, test in found] == [None] * 4


class OverPlaces(SoftmaxWithLoss):
    """Averages over all places of all sequences."""

    def forward(self, y, t):
        xp, self.shape = array_namespace(y), y.shape
        return super().forward(xp.reshape(y, (-1, y.shape[-1])), xp.reshape(t, (-1, *t.shape[2:])))

    def backward(self, dout=1.0):
        dx = super().backward(dout)
        return array_namespace(dx).reshape(dx, self.shape)


@pytest.mark.parametrize("targets", ["one-hot", "labels"])
def test_sequences(case, targets):
    x, *t = data(case, 10, 3)
    t = t[targets == "labels"]
    plain, found = (accuracies(make(case, last=OverPlaces()), x, t, x, t, compile=way)[0] for way in (False, True))
    np.testing.assert_allclose(found, plain, rtol=4 * case.eps)


def test_what_is_no_number_counts_as_wrong_and_one_score_names_no_class(case):
    x, t, _ = data(case, 20)
    x_test = case.asarray(np.where(np.arange(20)[:, None] % 4, case.host(x), np.nan))
    plain, found = (accuracies(make(case), x, t, x_test, t, compile=way)[0] for way in (False, True))
    np.testing.assert_allclose(found, plain, rtol=4 * case.eps)
    assert max(test for _, test in found) <= 0.75
    network = make(case, Affine(case.asarray(np.ones((3, 1)))))
    with pytest.warns(UserWarning, match="one score"):
        found, _ = accuracies(network, x, t[:, :1], compile=True)
    assert np.isnan(found[-1][0])


class Alternating:
    """Turns its scores round at every second evaluation; in training it passes them."""

    def __init__(self):
        self.sign = 1.0

    def forward(self, x, train_flg=True):
        if train_flg:
            return x
        self.sign = -self.sign
        return x * self.sign

    def backward(self, dout):
        return dout


class OnHost(Noted):
    def accuracy(self, x, t):
        return float(super().accuracy(x, t))


class ByDistance(Noted):
    """An accuracy of another kind, which is no mean over chunks."""

    def accuracy(self, x, t):
        CALLS.append(x.shape)
        xp = array_namespace(x)
        wrong = xp.max(xp.mean(xp.abs(self.probabilities(x) - t), axis=0))
        return 1.0 - wrong


@pytest.mark.parametrize(
    ("more", "kind", "compiled"),
    [([Alternating], Noted, False), ([], OnHost, False), ([Sigmoid], ByDistance, True)],
    ids=["an evaluation that changes", "an accuracy read on the host", "an accuracy of another kind"],
)
def test_an_accuracy_that_cannot_be_compiled_runs_as_it_is_and_no_other_does(case, more, kind, compiled):
    x, t, _ = data(case, 21)
    networks = [make(case, *(Layer() for Layer in more), kind=kind) for _ in range(2)]
    (plain, calls), (found, same) = (
        accuracies(network, x, t, x, t, compile=way) for network, way in zip(networks, (False, True), strict=True)
    )
    np.testing.assert_allclose(found, plain, rtol=64 * case.eps)
    assert same == (0 if compiled and case.id == "jax" else calls)


def test_a_broken_accuracy_is_raised_as_it_is(case):
    class Broken(Noted):
        def accuracy(self, x, t):
            raise KeyError("mine")

    x, t, _ = data(case, 20)
    with pytest.raises(KeyError, match="mine"):
        accuracies(make(case, kind=Broken), x, t, compile=True)


def test_the_network_is_left_alone(case, jax):
    x, t, _ = data(case, 20)
    network = make(case)
    training = train(network, x, t, epochs=2, batch_size=5, compile=True)
    assert not vars(network.layers["Relu1"])
    next(training)
    case.host(network.predict(x))


def test_a_report_takes_the_memory_of_a_chunk(case, jax, monkeypatch):
    """A loop of which XLA knew all rounds would copy the whole of x at a time."""
    monkeypatch.setattr(looping, "CHUNK", 100)
    x, t, _ = data(case, 25_000, columns=50)
    next(train(make(case, columns=50), x, t, x, t, epochs=1, batch_size=25_000, compile=True))
    temporary = looping._programs["look"][1].memory_analysis().temp_size_in_bytes
    assert temporary < case.host(x).nbytes / 4
