"""DataParallel against one process, on every backend: ranks are threads here, and MPI is played by a few lines."""

import re
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xpnet import (
    Network,
    TwoLayerNet,
    load_mnist,
    load_training,
    ranks,
    save_training,
    to_numpy,
    train,
)
from xpnet.backend import backend_of_rank
from xpnet.parallel import DataParallel, RankError, describe_ranks, rank_backend

IN_PLACE = object()


def new_meeting(size):
    return {
        "barrier": threading.Barrier(size, timeout=30),
        "slots": [None] * size,
        "attributes": [{} for _ in range(size)],
    }


class ThreadComm:
    """A communicator of threads: each of its calls waits for all, exchanges objects, and goes on."""

    def __init__(self, rank, size, shared=None):
        self.rank, self.size, self.shared = rank, size, shared or new_meeting(size)
        self.attributes = self.shared["attributes"][rank]

    def allgather(self, thing):
        self.shared["slots"][self.rank] = thing
        self.shared["barrier"].wait()
        found = list(self.shared["slots"])
        self.shared["barrier"].wait()
        return found

    def bcast(self, thing, root=0):
        return self.allgather(thing)[root]

    def Bcast(self, buffer, root=0):
        buffer[...] = self.allgather(buffer.copy())[root]

    def Allreduce(self, sent, buffer):
        assert sent is IN_PLACE
        assert buffer.flags.c_contiguous
        assert buffer.flags.writeable
        buffer[...] = sum(self.allgather(buffer.copy()))

    def Dup(self):
        return ThreadComm(self.rank, self.size, self.bcast(new_meeting(self.size) if self.rank == 0 else None))

    def Split_type(self, kind):
        return self

    def Get_info(self):
        return {}

    def Create_keyval(self):
        return "a key"

    def Get_attr(self, key):
        return self.attributes.get(key)

    def Set_attr(self, key, value):
        self.attributes[key] = value


@pytest.fixture
def on_ranks(monkeypatch):
    """Return a function that runs another one on ranks that are threads, and returns what each returned or raised."""
    leaving, aborted = [], []
    mpi = types.SimpleNamespace(
        IN_PLACE=IN_PLACE, COMM_TYPE_SHARED=0, INFO_ENV={"mpi_memory_alloc_kinds": "system,mpi"},
        Get_processor_name=lambda: "here", Get_library_version=lambda: "MPICH Version:\t5.0\nand more",
        COMM_WORLD=types.SimpleNamespace(Abort=aborted.append),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "mpi4py", types.SimpleNamespace(MPI=mpi))
    monkeypatch.setattr(ranks, "atexit", types.SimpleNamespace(register=leaving.append))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(ranks, "_KEY", None)

    def run(size, function, *arguments):
        shared = ThreadComm(0, size).shared

        def one(rank):
            try:
                return function(ThreadComm(rank, size, shared), *arguments)
            except Exception as error:
                return error

        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(one, range(size)))

    yield run
    with ThreadPoolExecutor(max(1, len(leaving))) as pool:
        list(pool.map(lambda leave: leave(), leaving))  # all at once, as ranks wait for each other's end
    assert not aborted


def data(case, samples=23, features=6, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return case.asarray(rng.random((samples, features))), case.asarray(rng.integers(0, classes, samples))


def net(case, rng=0, **options):
    return TwoLayerNet(6, 5, 4, rng=rng, dtype=case.dtype, backend=case.backend, **options)


def close(case, found, expected, eps=40):
    for name, value in expected.items():
        case.assert_close(found[name], to_numpy(value), eps=eps)


SIZES = (1, 2, 3)


class TestAsOneProcess:
    @pytest.mark.parametrize("size", SIZES)
    def test_a_training_is_that_of_one_process_and_alike_on_all_ranks(self, case, on_ranks, size):
        alone = net(case)
        expected = list(train(alone, *data(case), *data(case, seed=1), epochs=3, batch_size=7))

        def training(comm):
            network = DataParallel(net(case, rng=comm.rank), comm)
            return network, list(train(network, *data(case), *data(case, seed=1), epochs=3, batch_size=7))

        found = on_ranks(size, training)
        for network, records in found:
            close(case, network.params, dict(alone.params.items()))
            for ours, theirs in zip(records, expected, strict=True):
                assert (ours.epoch, ours.iteration) == (theirs.epoch, theirs.iteration)
                assert ours[2:5] == pytest.approx(theirs[2:5], rel=100 * case.eps)
            for name, value in network.params.items():
                assert to_numpy(value).tobytes() == to_numpy(found[0][0].params[name]).tobytes()

    @pytest.mark.parametrize("samples", [1, 2, 3, 4, 7])
    def test_uneven_shares_and_batches_smaller_than_the_ranks_are_weighted_rightly(self, case, on_ranks, samples):
        alone, (x, t) = net(case), data(case, samples)

        def measure(comm):
            network = DataParallel(net(case), comm)
            loss, steps = network.loss_and_gradient(x, t, 0.25)
            return loss, steps, network.loss(x, t), network.accuracy(x, t), network.gradient(x, t)

        expected, steps = alone.loss_and_gradient(x, t, 0.25)
        for loss, found, again, accuracy, gradient in on_ranks(3, measure):
            case.assert_close(loss, to_numpy(expected))
            case.assert_close(again, to_numpy(expected))
            assert accuracy == pytest.approx(float(alone.accuracy(x, t)))
            close(case, found, steps)
            close(case, gradient, alone.gradient(x, t))

    def test_numerical_gradients_are_summed_over_shares_of_the_samples(self, case, on_ranks):
        alone, (x, t) = net(case), data(case, 7)
        expected = alone.numerical_gradient(x, t)
        for found in on_ranks(3, lambda comm: DataParallel(net(case), comm).numerical_gradient(x, t)):
            for name, value in expected.items():
                np.testing.assert_allclose(case.host(found[name]), case.host(value), rtol=1e-3, atol=50 * case.eps)


class Foreign:
    """A network of another make: a dict, a loss, a gradient."""

    def __init__(self, reduce=np.mean):
        self.params, self.reduce = {"w": np.arange(6.0) / 7}, reduce

    def loss(self, x, t):
        return 0.5 * self.reduce((x @ self.params["w"] - t) ** 2)

    def gradient(self, x, t):
        return {"w": x.T @ (x @ self.params["w"] - t) / len(t)}

    def accuracy(self, x, t):
        return np.mean(np.round(x @ self.params["w"]) == t)


class BatchNorm:
    def forward(self, x):
        return x - x.mean(axis=0)

    def backward(self, dout):
        return dout - dout.mean(axis=0)


HOST = np.random.default_rng(0)
X, T = HOST.random((12, 6)), HOST.integers(0, 4, 12)


def small(rng=0, **options):
    return TwoLayerNet(6, 5, 4, rng=rng, backend="numpy", **options)


class TestOtherNetworks:
    def test_one_that_has_params_loss_and_gradient_only(self, on_ranks):
        alone = Foreign()
        list(train(alone, X, T, epochs=2, batch_size=5))

        def training(comm):
            network = DataParallel(Foreign(), comm)
            list(train(network, X, T, epochs=2, batch_size=5))
            return network.params["w"]

        for w in on_ranks(3, training):
            np.testing.assert_allclose(w, alone.params["w"], rtol=1e-14)

    def test_a_loss_that_is_a_sum_over_samples_is_refused(self, on_ranks):
        for error in on_ranks(2, lambda comm: DataParallel(Foreign(np.sum), comm).gradient(X, T)):
            assert isinstance(error, ValueError)
            assert "the loss is a sum over the samples" in str(error)

    def test_a_layer_that_looks_at_the_whole_batch_is_said_to_see_its_share(self, on_ranks):
        def training(comm):
            layers = [*small().layers.values()]
            return DataParallel(Network([layers[0], BatchNorm(), *layers[1:]]), comm).gradient(X, T)

        with pytest.warns(UserWarning, match=r"a layer looks at the whole batch.* the rank's own share"):
            on_ranks(2, training)


def changed(comm, one, other):
    return one if comm.rank < comm.size - 1 else other


class TestBegunAlike:
    @pytest.mark.parametrize(
        ("make", "settings", "words"),
        [
            (small, {"seed": 1}, "with seed 1, but rank 0 with seed 0"),
            (lambda: TwoLayerNet(6, 7, 4, backend="numpy"), {}, r"parameter W1 of shape \(6, 7\) and dtype float64, "),
            (lambda: small(dtype="float32"), {}, r"of shape \(6, 5\) and dtype float32, .*but rank 0 with .* float64"),
            (lambda: small(activation="sigmoid"), {}, "layers Affine, Sigmoid, Affine, but rank 0 with layers Affine"),
            (Foreign, {}, "network Foreign, .*but rank 0 with network TwoLayerNet"),
        ],
    )
    def test_a_difference_is_an_error_on_all_ranks_that_names_both_sides(self, on_ranks, make, settings, words):
        def begin(comm):
            network, here = changed(comm, small(), make()), changed(comm, {"seed": 0}, {"seed": 0, **settings})
            return DataParallel(network, comm, settings=here)

        for error in on_ranks(3, begin):
            assert isinstance(error, ValueError)
            assert str(error).startswith("rank 2 begins with ")
            assert re.search(words, str(error)), error

    def test_another_batch_is_an_error(self, on_ranks):
        for other in (X[::-1].copy(), X[:6]):

            def begin(comm, x=other):
                return DataParallel(small(), comm).gradient(changed(comm, X, x), T[: len(x)])

            errors = on_ranks(2, begin)
            assert all("rank 1 is given a first batch with" in str(error) for error in errors), errors

    def test_later_batches_of_other_sizes_are_an_error(self, on_ranks):
        def steps(comm):
            network = DataParallel(small(), comm)
            network.gradient(X, T)
            size = changed(comm, 12, 11)
            return network.gradient(X[:size], T[:size])

        for error in on_ranks(2, steps):
            assert "rank 1 is given a batch with samples 11, but rank 0 with samples 12" in str(error)

    def test_the_parameters_are_those_of_rank_0(self, on_ranks):
        networks = on_ranks(3, lambda comm: DataParallel(small(rng=comm.rank), comm))
        for network in networks:
            assert np.array_equal(network.params["W1"], small(rng=0).params["W1"])

    @pytest.mark.parametrize(
        ("wrong", "error", "words"),
        [
            ({"comm": 3}, TypeError, "comm is 3; it must be a communicator of mpi4py"),
            ({"timeout": 0}, ValueError, "timeout is 0; it must be a positive number"),
            ({"params": {"w": np.zeros(3, "float16")}}, TypeError, "the parameters are w float16; MPI can add"),
        ],
    )
    def test_what_is_not_possible_is_refused(self, on_ranks, wrong, error, words):
        def begin(comm):
            network = small() if "params" not in wrong else types.SimpleNamespace(params=wrong["params"])
            return DataParallel(network, wrong.get("comm", comm), timeout=wrong.get("timeout", 60.0))

        for raised in on_ranks(2, begin):
            assert isinstance(raised, error)
            assert words in str(raised)


class TestOneRankGoesWrong:
    def broken(self, comm, who, what):
        class Net(TwoLayerNet):
            def loss(self, x, t):
                return what(super().loss(x, t)) if comm.rank in who else super().loss(x, t)

        return DataParallel(Net(6, 5, 4, backend="numpy"), comm)

    def raises(self, loss):
        raise LookupError("planted")

    def test_an_exception_on_one_rank_is_raised_by_all_and_names_it(self, on_ranks):
        errors = on_ranks(3, lambda comm: self.broken(comm, [1], self.raises).gradient(X, T))
        assert {type(error) for error in errors} == {RankError}
        assert {str(error) for error in errors} == {"rank 1 of 3: LookupError: planted"}
        assert {error.rank for error in errors} == {1}
        assert isinstance(errors[1].__cause__, LookupError)

    def test_one_that_all_ranks_raise_is_that_one(self, on_ranks):
        errors = on_ranks(2, lambda comm: self.broken(comm, [0, 1], self.raises).gradient(X, T))
        assert {type(error) for error in errors} == {LookupError}
        errors = on_ranks(2, lambda comm: DataParallel(small(), comm).gradient(X, T[:5]))
        assert {type(error) for error in errors} == {ValueError}

    def test_nan_on_one_rank_names_it_and_its_samples(self, on_ranks):
        for error in on_ranks(3, lambda comm: self.broken(comm, [2], lambda loss: loss * np.nan).gradient(X, T)):
            assert isinstance(error, RankError)
            assert "rank 2 of 3: the loss or the gradient of its share" in str(error)
            assert "4 samples from sample 8 on" in str(error)

    def test_nan_on_all_ranks_is_for_the_training_to_explain(self, on_ranks):
        def training(comm):
            with np.errstate(all="ignore"):
                return list(train(DataParallel(small(), comm), X, T, epochs=3, learning_rate=1e200))

        for error in on_ranks(2, training):
            assert type(error).__name__ == "TrainingError"
            assert "learning_rate 1e+200 is probably too large" in str(error)

    def test_ctrl_c_on_one_rank_stops_all_in_the_same_step(self, on_ranks):
        def training(comm):
            network = DataParallel(small(), comm)
            network.gradient(X, T)
            if comm.rank == 1:
                network._ranks()._interrupt(2, None)
            try:
                network.gradient(X, T)
            except KeyboardInterrupt:
                return network.loss(X, T)

        assert on_ranks(3, training) == [pytest.approx(float(small().loss(X, T)))] * 3


class TestByShare:
    def test_the_mean_is_over_all_samples_of_all_ranks(self, on_ranks):
        parts = [(X[:2], T[:2]), (X[2:9], T[2:9]), (X[9:], T[9:])]

        def measure(comm):
            network = DataParallel(small(), comm, by_share=True)
            part = parts[comm.rank]
            return network.loss_and_gradient(*part, 0.5), network.loss(*part), network.accuracy(*part)

        loss, steps = small().loss_and_gradient(X, T, 0.5)
        for (found, gradients), again, accuracy in on_ranks(3, measure):
            assert float(found) == pytest.approx(float(loss), rel=1e-14)
            assert float(again) == pytest.approx(float(loss), rel=1e-14)
            assert accuracy == pytest.approx(float(small().accuracy(X, T)))
            for name, value in steps.items():
                np.testing.assert_allclose(gradients[name], value, atol=1e-17)

    def test_the_shares_of_mnist_are_all_of_it(self):
        whole = load_mnist(normalize=False, backend="numpy")
        shares = [load_mnist(normalize=False, backend="numpy", share=(rank, 7)) for rank in range(7)]
        for part in (0, 1):
            for entry in (0, 1):
                for rank, share in enumerate(shares):
                    assert np.array_equal(share[part][entry], whole[part][entry][rank::7])

    @pytest.mark.parametrize("share", [(2, 2), (-1, 2), (0, 0), (0.0, 1), (0, 10_001)])
    def test_what_is_no_share_is_refused(self, share):
        with pytest.raises(ValueError, match=r"share is|too few"):
            load_mnist(backend="numpy", share=share)


class TestWhoSpeaks:
    def test_only_rank_0_saves(self, on_ranks, tmp_path):
        def save(comm):
            save_training(DataParallel(small(rng=comm.rank), comm), [], tmp_path / f"{comm.rank}.npz")

        on_ranks(3, save)
        assert [file.name for file in tmp_path.iterdir()] == ["0.npz"]
        assert np.array_equal(load_training(tmp_path / "0.npz").parameters["W1"], small().params["W1"])

    def test_how_many_ranks_there_are_and_how_sums_travel(self, on_ranks):
        expected = "2 ranks on 1 machine, MPICH 5.0, sums through host memory"
        assert on_ranks(2, lambda comm: describe_ranks(comm, X)) == [expected, expected]
        assert on_ranks(1, lambda comm: rank_backend(comm, "numpy").name) == ["numpy"]

    def test_a_backend_without_gpus_is_the_same_for_all_ranks(self, monkeypatch):
        assert backend_of_rank("numpy", 3).name == "numpy"
        monkeypatch.setenv("XPNET_BACKEND", "array_api_strict")
        assert backend_of_rank(None, 3).name == "array_api_strict"
