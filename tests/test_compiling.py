"""A compiled step is the plain step: the same losses and parameters to round-off, or a refusal that says why."""

import contextlib
import copy
import gc
import weakref

import numpy as np
import pytest
from array_api_compat import array_namespace
from conftest import ASKED, CASES, Scale, unusable

from xpnet import (
    Affine,
    BatchNormalization,
    CompileError,
    IdentityWithLoss,
    Network,
    Relu,
    Sigmoid,
    Softmax,
    SoftmaxWithLoss,
    TrainingError,
    TwoLayerNet,
    looping,
    train,
)
from xpnet.repeating import same_moves

COMPILERS = [case for case in CASES if case.id in ("jax", "torch", "cupy")]


@pytest.fixture(params=COMPILERS, ids=lambda case: case.id)
def case(request, monkeypatch):
    unusable(request.param)
    if request.param.id == "torch":  # what is ours is the recording; its compiler is tried once, below
        monkeypatch.setattr("torch.compile", lambda graph: graph)
    return request.param


def deep(case, *last):
    rng = np.random.default_rng(1)

    def affine(rows, columns):
        return Affine(case.asarray(rng.normal(size=(rows, columns))), case.asarray(rng.normal(size=columns)))

    layers = [affine(6, 5), Relu(), Scale(case.asarray(np.ones(5))), affine(5, 4), Sigmoid(), affine(4, 3)]
    return Network([*layers, *last[:-1]], *last[-1:])


NETWORKS = {
    "relu": lambda case: TwoLayerNet(6, 5, 3, 1.0, backend=case.backend),
    "sigmoid": lambda case: TwoLayerNet(6, 5, 3, 1.0, activation="sigmoid", backend=case.backend),
    "deep, with a user's layer": deep,
    "softmax and squares": lambda case: deep(case, Softmax(), IdentityWithLoss()),
}


def data(case, count=23, one_hot=True):
    rng = np.random.default_rng(2)
    labels = rng.integers(3, size=count)
    return case.asarray(rng.normal(size=(count, 6))), case.asarray(np.eye(3)[labels] if one_hot else labels)


def trained(case, network, x, t, **options):
    """Return the losses of a training, and the parameters at its end, on the host."""
    records = list(train(network, x, t, **{"epochs": 3, "batch_size": 5, **options}))
    return np.concatenate([record.losses for record in records]), case.host(dict(network.params))


def assert_alike(case, found, expected, eps=64):
    losses, parameters = expected
    np.testing.assert_allclose(found[0], losses, rtol=eps * case.eps)
    for name, value in parameters.items():
        np.testing.assert_allclose(found[1][name], value, rtol=0, atol=eps * case.eps * np.max(np.abs(value)))


@pytest.mark.parametrize("kind", NETWORKS)
def test_compiled_steps_are_the_plain_steps(case, kind):
    """Two epochs and a part of a third, of four whole batches and a short one each."""
    x, t = data(case)
    plain = trained(case, NETWORKS[kind](case), x, t, epochs=None, iterations=12)
    found = trained(case, NETWORKS[kind](case), x, t, epochs=None, iterations=12, compile=True)
    assert found[0].shape == (12,)
    assert_alike(case, found, plain)


@pytest.mark.parametrize(
    "options",
    [
        {"replacement": True},
        {"replacement": True, "batch_size": 40},
        {"batch_size": 100},
        {"batch_size": 23},
        {"batch_size": 1},
    ],
)
def test_any_batch_size(case, options):
    x, t = data(case)
    plain = trained(case, NETWORKS["relu"](case), x, t, **options)
    assert_alike(case, trained(case, NETWORKS["relu"](case), x, t, compile=True, **options), plain)


def test_integer_labels(case):
    x, t = data(case, one_hot=False)
    plain = trained(case, NETWORKS["sigmoid"](case), x, t)
    assert_alike(case, trained(case, NETWORKS["sigmoid"](case), x, t, compile=True), plain)


@pytest.mark.parametrize("kind", ["relu", "sigmoid"])
def test_a_numerical_gradient(case, kind):
    x, t = data(case)
    if case.id == "torch":  # on the host its values are looked at; on a GPU they are not
        with pytest.raises(CompileError, match="torch cannot compile this step: it reads numbers on the host"):
            train(NETWORKS[kind](case), x, t, epochs=1, gradient="numerical", compile=True)
        return
    plain = trained(case, NETWORKS[kind](case), x, t, gradient="numerical", epochs=1)
    found = trained(case, NETWORKS[kind](case), x, t, gradient="numerical", epochs=1, compile=True)
    assert_alike(case, found, plain)


@pytest.mark.parametrize("case", [case for case in CASES if case.id.startswith("cupy")], ids=lambda case: case.id)
@pytest.mark.parametrize("gradient", ["backpropagation", "numerical"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_a_captured_step_is_the_plain_step_to_the_last_bit(case, gradient, activation):
    unusable(case)
    x, t = data(case, 20)
    makes = {"activation": activation, "dtype": case.dtype, "backend": case.backend}
    plain, found = (
        trained(case, TwoLayerNet(6, 5, 3, 1.0, **makes), x, t, gradient=gradient, compile=way) for way in (False, True)
    )
    np.testing.assert_array_equal(found[0], plain[0])
    for name, value in plain[1].items():
        np.testing.assert_array_equal(found[1][name], value)


def test_float32(case):
    x, t = data(case)
    x, t = (array_namespace(x).astype(array, case.xp.float32) for array in (x, t))
    plain, found = (
        trained(case, TwoLayerNet(6, 5, 3, 1.0, dtype="float32", backend=case.backend), x, t, epochs=1, compile=way)
        for way in (False, True)
    )
    assert found[0].dtype == np.float32
    np.testing.assert_allclose(found[0], plain[0], rtol=1e-6)


def test_the_compiler_of_pytorch(tmp_path):
    """Once with the compiler itself, which takes many seconds and a C++ compiler."""
    case = next(case for case in COMPILERS if case.id == "torch")
    unusable(case)
    import shutil

    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("there is no C++ compiler, which PyTorch's compiler calls")
    x, t = data(case)
    plain = trained(case, NETWORKS["relu"](case), x, t)
    assert_alike(case, trained(case, NETWORKS["relu"](case), x, t, compile=True), plain)


def test_the_network_is_left_alone(case):
    """No traced value stays in a layer, and nothing is trained before the first epoch is asked for."""
    x, t = data(case)
    network = deep(case)
    network.loss(x, t)
    held = [dict(vars(layer)) for layer in [*network.layers.values(), network.last_layer]]
    before = case.host(dict(network.params))
    training = train(network, x, t, epochs=2, batch_size=5, compile=True)
    for layer, remembered in zip([*network.layers.values(), network.last_layer], held, strict=True):
        assert vars(layer).keys() == remembered.keys()
        assert all(value is remembered[name] for name, value in vars(layer).items())
    for name, value in case.host(dict(network.params)).items():
        np.testing.assert_array_equal(value, before[name])
    next(training)
    copy.deepcopy(network)
    case.host(network.predict(x))
    assert type(network.params["W1"]) is type(x)


def test_a_parameter_may_be_replaced_between_epochs(case):
    x, t = data(case)
    results = []
    for way in (False, True):
        network, losses = NETWORKS["relu"](case), []
        for record in train(network, x, t, epochs=3, batch_size=5, compile=way):
            losses.append(record.losses)
            network.params["W1"] = case.asarray(np.full((6, 5), 0.1 * record.epoch))
            network.params["b2"] -= case.asarray(np.ones(3))
        results.append((np.concatenate(losses), case.host(dict(network.params))))
    assert_alike(case, results[1], results[0])


def test_two_trainings_at_a_time(case):
    x, t = data(case)
    plain = trained(case, NETWORKS["relu"](case), x, t), trained(case, NETWORKS["sigmoid"](case), x, t)
    networks = NETWORKS["relu"](case), NETWORKS["sigmoid"](case)
    records = zip(*(train(network, x, t, epochs=3, batch_size=5, compile=True) for network in networks), strict=True)
    for network, found, expected in zip(networks, zip(*records, strict=True), plain, strict=True):
        losses = np.concatenate([record.losses for record in found])
        assert_alike(case, (losses, case.host(dict(network.params))), expected)


def test_a_run_goes_on_from_a_record(case):
    x, t = data(case)
    whole = trained(case, NETWORKS["relu"](case), x, t, compile=True)
    network = NETWORKS["relu"](case)
    *_, last = train(network, x, t, iterations=7, batch_size=5, compile=True)
    *_, end = train(network, x, t, epochs=3, batch_size=5, compile=True, resume=last)
    np.testing.assert_allclose(end.losses, whole[0][-5:], rtol=64 * case.eps)


def test_a_training_that_goes_wrong_is_told_and_taken_back(case):
    x, t = data(case)
    network = NETWORKS["softmax and squares"](case)
    before, told = case.host(dict(network.params)), []
    for way in (False, True):
        with pytest.raises(TrainingError) as caught:
            list(train(network, x, t, epochs=1, batch_size=5, learning_rate=1e308, compile=way))
        told.append(str(caught.value))
    assert told[0] == told[1]
    for name, value in case.host(dict(network.params)).items():
        np.testing.assert_array_equal(value, before[name])


# ── What is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


class Passing:
    """A layer that passes what it is given, and does something else besides."""

    def __init__(self, case):
        self.case = case

    def aside(self, x):
        """Do nothing."""

    def forward(self, x):
        self.aside(x)
        return x

    def backward(self, dout):
        return dout


class RunningMean(Passing):
    mean = 0.0

    def aside(self, x):
        self.mean = 0.9 * self.mean + 0.1 * array_namespace(x).mean(x)


class Counter(Passing):
    count = 0

    def aside(self, x):
        self.count += 1


class Dropout(Passing):
    def __init__(self, case):
        super().__init__(case)
        self.rng = np.random.default_rng(0)

    def forward(self, x):
        self.mask = self.case.asarray(self.rng.random(x.shape) * 1.0)
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class Callable(RunningMean):
    def __call__(self, x):
        return self.forward(x)


class FirstMean(Passing):
    """Centres by the mean of the first batch that it ever sees."""

    mean = None

    def forward(self, x):
        if self.mean is None:
            self.mean = array_namespace(x).mean(x, axis=0)
        return x - self.mean


class Noise(Passing):
    """Remembers nothing, and draws from a generator that all share."""

    def forward(self, x):
        return x + self.case.asarray(np.random.normal(size=tuple(x.shape)))


class Enclosed(Passing):
    """Counts in a function of its own."""

    def __init__(self, case):
        super().__init__(case)
        count = 0

        def aside(x):
            nonlocal count
            count += 1

        self.aside = aside


class Looking(Passing):
    """Leaves nothing behind, but depends on a value that it reads on the host."""

    def forward(self, x):
        return x * 2.0 if float(array_namespace(x).sum(x)) > 0 else x


def batch_normalization(case):
    return BatchNormalization(case.asarray(np.ones(3)), case.asarray(np.zeros(3)))


@pytest.mark.parametrize(
    "Layer",
    [RunningMean, Callable, FirstMean, Noise, Counter, Enclosed, Dropout, Looking, batch_normalization],
)
def test_a_layer_that_a_compiled_step_would_freeze_is_refused(case, Layer):
    x, t = data(case)
    network = Network([Affine(case.asarray(np.ones((6, 3)))), Layer(case)])
    with pytest.raises(CompileError, match="step"):
        train(network, x, t, epochs=1, batch_size=5, compile=True)
    assert len(list(train(network, x, t, epochs=1, batch_size=5))) == 1, "the plain step runs"


class Elsewhere(Passing):
    """Computes on a stream of its own, where nothing is recorded."""

    def forward(self, x):
        with pytest.importorskip("cupy").cuda.Stream():
            return x * 2.0


class Waiting(Passing):
    def aside(self, x):
        pytest.importorskip("cupy").cuda.get_current_stream().synchronize()


class FromHost(Passing):
    def forward(self, x):
        return x * array_namespace(x).asarray([0.9, 1.0, 1.1])


def test_moves_are_compared_to_round_off_and_a_kink():
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        W, b = (rng.normal(size=shape).astype(dtype) for shape in ((50, 40), (40,)))
        moves, eps = [0.01 * rng.normal(size=W.shape), np.zeros(40)], np.finfo(dtype).eps
        after = [W - moves[0].astype(dtype), b + eps * rng.normal(size=40).astype(dtype)]
        assert same_moves(moves, [W, b], after)  # of b nothing but round-off
        frozen = moves[0].copy()
        frozen[:, 7] = moves[0][:, 8]
        assert not same_moves([frozen, moves[1]], [W, b], after)
        assert not same_moves(moves, [W, b], [W * np.nan, b])
        assert same_moves([moves[0] * np.inf, b], [W, b], after)  # the training will say so


CUPY = [case for case in COMPILERS if case.id == "cupy"]


@pytest.mark.parametrize("case", CUPY, ids=lambda case: case.id, indirect=True)
@pytest.mark.parametrize(
    ("Layer", "why"),
    [
        (Elsewhere, "other numbers than the plain one; does a layer compute where it is not recorded"),
        (Waiting, "it waits for the device"),
        (FromHost, "it copies numbers from the host"),
    ],
)
def test_what_a_capture_leaves_out_or_forbids_is_told(case, Layer, why):
    x, t = data(case)
    W = np.random.default_rng(0).normal(size=(6, 3))  # with equal ones, no score would matter
    network = Network([Affine(case.asarray(W)), Layer(case)])
    before = case.host(dict(network.params))
    with pytest.raises(CompileError, match=why):
        train(network, x, t, epochs=1, batch_size=5, compile=True)
    np.testing.assert_array_equal(case.host(network.params["W1"]), before["W1"])
    assert trained(case, NETWORKS["relu"](case), x, t, compile=True)[0].shape == (15,), "the next capture works"


def first_epoch(training):
    next(training)
    training.close()


@pytest.mark.parametrize("case", CUPY, ids=lambda case: case.id, indirect=True)
@pytest.mark.parametrize("use", [repr, first_epoch, list], ids=["unread", "closed", "to its end"])
@pytest.mark.parametrize("last", [Passing, Waiting], ids=["captured", "refused"])
@pytest.mark.filterwarnings("ignore:nothing was trained")
def test_memory_of_a_captured_training_is_given_back_at_once(case, use, last, monkeypatch):
    """Without the garbage collector, which nobody calls when a GPU is full."""
    cupy = pytest.importorskip("cupy")
    used, pools = cupy.get_default_memory_pool().used_bytes, weakref.WeakSet()

    class Watched(cupy.cuda.MemoryPool):
        def __init__(self):
            super().__init__()
            pools.add(self)

    monkeypatch.setattr(cupy.cuda, "MemoryPool", Watched)
    network, (x, t) = Network([Affine(case.asarray(np.ones((6, 3)))), last(case)]), data(case, 20)
    gc.collect()
    gc.disable()
    try:
        network.loss(x[:1, :], t[:1, :])  # what layers remember of a batch is no part of it
        before = used()
        with contextlib.suppress(CompileError):
            training = train(network, x, t, epochs=2, batch_size=5, compile=True)
            assert len(pools) == 1
            use(training)
            del training
        network.loss(x[:1, :], t[:1, :])
        assert not pools
        assert used() == before
    finally:
        gc.enable()


class OfTheBook:
    """The book's own make: parameters in a dict, of which the layers hold the same arrays."""

    def __init__(self, case, hold=Affine):
        self.params = {"W1": case.asarray(np.random.default_rng(3).normal(size=(6, 3)))}
        self.layers = {"Affine1": hold(self.params["W1"])}
        self.last_layer = SoftmaxWithLoss()

    def predict(self, x):
        return self.layers["Affine1"].forward(x)

    def loss(self, x, t):
        return self.last_layer.forward(self.predict(x), t)

    def gradient(self, x, t):
        self.loss(x, t)
        self.layers["Affine1"].backward(self.last_layer.backward())
        return {"W1": self.layers["Affine1"].dW}

    def accuracy(self, x, t):
        xp = array_namespace(x)
        return xp.mean(xp.astype(xp.argmax(self.predict(x), axis=1) == xp.argmax(t, axis=1), x.dtype))


def test_parameters_that_lie_in_a_dict_and_in_layers_are_trained_in_both(case):
    x, t = data(case)
    if case.id == "jax":  # whose arrays are not written: the dict would be trained, and the layers not
        for way in (False, True):
            with pytest.raises(ValueError, match=r"W1 is an array that cannot be written.* and train nothing"):
                train(OfTheBook(case), x, t, epochs=1, batch_size=5, compile=way)
        return
    plain, found = (trained(case, OfTheBook(case), x, t, compile=way) for way in (False, True))
    assert_alike(case, found, plain)
    assert found[0][-1] != found[0][0]


@pytest.mark.parametrize(
    "case", [case for case in COMPILERS if case.id != "jax"], ids=lambda case: case.id, indirect=True
)
def test_a_view_of_a_parameter_is_told(case):
    class Flipped(Affine):
        def __init__(self, W):
            super().__init__(W)
            self.view = W.T

        def forward(self, x):
            self.x = x
            return x @ self.view.T

    with pytest.raises(CompileError, match="holds a view"):
        train(OfTheBook(case, Flipped), *data(case), epochs=1, batch_size=5, compile=True)


def test_a_network_that_cannot_be_copied_is_refused(case):
    network = NETWORKS["relu"](case)
    network.open_file = open(__file__)  # noqa: SIM115
    with pytest.raises(CompileError, match="cannot"):
        train(network, *data(case), epochs=1, batch_size=5, compile=True)
    network.open_file.close()


def test_what_the_plain_step_raises_is_raised_as_it_is(case):
    class Wrong(Affine):
        def backward_parameters(self, dout):
            super().backward_parameters(dout)
            self.dW = self.dW[:1, :]

    with pytest.raises(ValueError, match="W1 has shape"):
        train(Network([Wrong(case.asarray(np.ones((6, 3))))]), *data(case), epochs=1, batch_size=5, compile=True)


def test_a_callback_after_each_step_is_refused(case):
    with pytest.raises(ValueError, match="on_iteration"):
        train(NETWORKS["relu"](case), *data(case), epochs=1, compile=True, on_iteration=lambda: None)


@pytest.mark.parametrize("case", [case for case in CASES if case.id in ("numpy", "strict")], ids=lambda case: case.id)
@pytest.mark.skipif(bool(ASKED), reason="about libraries without a compiler")
def test_a_library_without_a_compiler_is_named(case):
    unusable(case)
    with pytest.raises(CompileError, match=f"^{case.backend} runs each operation as it comes"):
        train(NETWORKS["relu"](case), *data(case), epochs=1, compile=True)


@pytest.mark.parametrize(
    "case", [case for case in COMPILERS if case.id == "jax"], ids=lambda case: case.id, indirect=True
)
def test_jax_compiles_a_program_once_and_another_program_anew(case, monkeypatch):
    stages, compiled_programs = pytest.importorskip("jax").stages, []
    compile_program = stages.Lowered.compile

    def counted(program, *arguments, **options):
        compiled_programs.append(program)
        return compile_program(program, *arguments, **options)

    monkeypatch.setattr(stages.Lowered, "compile", counted)
    monkeypatch.setattr(looping, "_programs", {})
    x, t = data(case)

    def weights(learning_rate):
        network = deep(case)
        [*train(network, x, t, iterations=9, batch_size=5, learning_rate=learning_rate, compile=True)]
        return np.asarray(network.params["W1"])

    first, again = weights(0.123), weights(0.123)
    assert len(compiled_programs) == 2, "the epoch, and the report"
    assert np.array_equal(first, again)
    assert not np.array_equal(first, weights(0.321))  # a number in the program is a part of it
    assert len(compiled_programs) == 3, "the epoch"
