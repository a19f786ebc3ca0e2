"""Two GPUs: results lie where their arguments do, or it is said that they cannot."""

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
from array_api_compat import device
from conftest import ASKED

from xpnet import (
    TwoLayerNet,
    check_gradients,
    get_backend,
    gradient_descent,
    load_parameters,
    load_training,
    numerical_gradient,
    save_parameters,
    save_training,
    to_numpy,
    train,
    why_unusable,
)
from xpnet.backend import backend_of_rank

pytestmark = pytest.mark.skipif(ASKED.partition(":")[0] not in ("", "cupy"), reason=f"{ASKED} is asked for, not CuPy")


@pytest.fixture(autouse=True)
def second():
    """Make the second GPU the current one, as asking for it does; go back to the first behind the test."""
    if reason := why_unusable("cupy:1"):
        pytest.skip(reason)
    yield get_backend("cupy:1")
    get_backend("cupy:0")


def work(name):
    """Return a network and data on one GPU, which becomes the current one."""
    backend, rng = get_backend(name), np.random.default_rng(0)
    network = TwoLayerNet(6, 5, 3, 1.0, backend=name)
    return network, backend.asarray(rng.normal(size=(20, 6))), backend.asarray(rng.integers(3, size=20))


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("gradient", ["backpropagation", "numerical"])
def test_the_second_computes_what_the_first_does(gradient, compile):
    ends = []
    for name in ("cupy:0", "cupy:1"):
        network, x, t = work(name)
        records = list(train(network, x, t, x, t, epochs=2, batch_size=5, gradient=gradient, compile=compile))
        assert all(device(value) == get_backend(name).device for value in network.params.values())
        ends.append([*(record.losses for record in records), *(value.get() for value in network.params.values())])
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_and_checks_lie_there():
    network, x, t = work("cupy:1")
    for gradients in (network.gradient(x, t), network.numerical_gradient(x, t)):
        assert all(device(value) == device(x) for value in gradients.values())
    assert check_gradients(network, x, t)


@pytest.mark.parametrize("compile", [False, True])
def test_data_on_the_other_are_told_before_anything_is_trained(compile):
    network, _, _ = work("cupy:1")
    _, x, t = work("cupy:0")
    with pytest.raises(ValueError, match=r"x_train lies on <CUDA Device 0>, but parameter W1 on <CUDA Device 1>"):
        train(network, x, t, epochs=1, compile=compile)
    _, there, _ = work("cupy:1")
    network, _, _ = work("cupy:0")
    with pytest.raises(ValueError, match=r"x_train lies on <CUDA Device 0>, but x_test on <CUDA Device 1>"):
        train(network, x, t, there, t, epochs=1, compile=compile)


@pytest.mark.parametrize("current", [0, 1])
@pytest.mark.filterwarnings("ignore:The device where the array resides")  # with peer access, CuPy warns
def test_a_thread_begins_on_the_first_and_is_right_or_told(current):
    """A new thread's current device is the first; numbers are right, or CuPy names both devices."""
    network, x, t = work("cupy:1")
    expected, found = float(network.loss(x, t)), []

    def compute():
        with x.device if current else nullcontext():
            try:
                found.append(float(network.loss(x, t)))
            except ValueError as error:
                found.append(str(error))

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    if current == 0 and isinstance(found[0], str):
        assert "resides (1) is different from the current device (0)" in found[0]
    else:
        assert found == [expected]


# ── From a thread whose current device is another ───────────────────────────────────────────────────────────────────


def elsewhere(work, *arguments):
    """Return what ``work`` returns in a thread of its own, where the first GPU is the current device."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work, *arguments).result()


def trained(name, options, resume=None, network=None):
    """Return the records and the parameters of a training on a GPU, read where the first is the current device."""
    made, x, t = work(name)
    network = network or made
    options = {"epochs": 3, "batch_size": 6, **options}
    records = elsewhere(lambda: [*train(network, x, t, x, t, resume=resume, **options)])
    assert all(device(value) == get_backend(name).device for value in network.params.values())
    return records, network


def assert_same_parameters(one, other):
    for name, value in one.params.items():
        np.testing.assert_array_equal(value.get(), other.params[name].get())


@pytest.mark.filterwarnings("error:The device where the array resides")  # with peer access, CuPy would warn
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("gradient", ["backpropagation", "numerical"])
def test_trainings_compute_where_their_data_lie(gradient, compile):
    options = {"gradient": gradient, "compile": compile}
    (expected, first), (found, second) = (trained(name, options) for name in ("cupy:0", "cupy:1"))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one.losses, other.losses)
        assert one.test_accuracy == other.test_accuracy
    assert_same_parameters(first, second)


@pytest.mark.filterwarnings("error:The device where the array resides")
def test_checks_compute_where_the_network_lies():
    network, x, t = work("cupy:1")
    before = {name: value.get() for name, value in network.params.items()}
    assert elsewhere(check_gradients, network, x, t)
    assert elsewhere(check_gradients, network.layers["Affine1"], x)
    assert elsewhere(lambda: check_gradients(squares, x, gradient=lambda x: 2 * x))
    for name, value in before.items():
        np.testing.assert_array_equal(network.params[name].get(), value)
    right = network.gradient
    network.gradient = lambda x, t: {name: 1.001 * value for name, value in right(x, t).items()}
    assert not elsewhere(check_gradients, network, x, t)
    assert device(network.params["W1"]) == device(x)


def test_a_training_may_be_read_in_another_thread_than_it_was_made_in():
    (network, x, t), (other, _, _) = work("cupy:1"), work("cupy:1")
    here = [*train(network, x, t, epochs=2, batch_size=6, compile=True)]
    there = elsewhere(list, train(other, x, t, epochs=2, batch_size=6, compile=True))
    np.testing.assert_array_equal(here[-1].losses, there[-1].losses)


def test_trainings_on_both_at_a_time():
    """Threads that are at work while another one captures its step."""
    ways = [(name, compile) for name in ("cupy:0", "cupy:1") for compile in (False, True)]
    with ThreadPoolExecutor(len(ways)) as threads:
        found = [*threads.map(lambda way: trained(way[0], {"compile": way[1]}), ways)]
    for records, network in found[1:]:
        np.testing.assert_array_equal(records[-1].losses, found[0][0][-1].losses)
        assert_same_parameters(found[0][1], network)


# ── Saved and gone on with ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("goes_on", ["cupy:0", "cupy:1"])
def test_a_training_on_the_second_goes_on_from_a_file(tmp_path, goes_on, compile):
    whole, expected = trained("cupy:1", {"compile": compile})
    records, network = trained("cupy:1", {"epochs": None, "iterations": 6, "compile": compile})
    elsewhere(save_training, network, records, tmp_path / "run.npz")
    state = load_training(tmp_path / "run.npz")
    network, _, _ = work(goes_on)
    elsewhere(state.restore, network)
    found, _ = trained(goes_on, {"compile": compile}, state.records[-1], network)
    np.testing.assert_array_equal(found[-1].losses, whole[-1].losses)
    assert_same_parameters(network, expected)


def test_parameters_are_saved_from_the_second_and_loaded_there(tmp_path):
    saved, _, _ = work("cupy:1")
    saved.params["W1"] *= 2.0
    elsewhere(save_parameters, saved, tmp_path / "parameters.npz")
    for name in ("cupy:0", "cupy:1", "numpy"):
        network = TwoLayerNet(6, 5, 3, 1.0, backend=name)
        elsewhere(load_parameters, network, tmp_path / "parameters.npz")
        assert device(network.params["W1"]) == get_backend(name).device
        np.testing.assert_array_equal(saved.params["W1"].get(), to_numpy(network.params["W1"]))


# ── Functions, workers, ranks ───────────────────────────────────────────────────────────────────────────────────────


def squares(x):
    return (x**2).sum()


@pytest.mark.filterwarnings("ignore:The device where the array resides")
@pytest.mark.parametrize("differentiate", [numerical_gradient, gradient_descent])
def test_gradients_of_functions_lie_where_their_argument_does_or_it_is_told(differentiate):
    x = get_backend("cupy:1").asarray([1.0, -2.0, 0.5])
    expected = differentiate(squares, x)
    assert device(expected) == device(x)
    if pytest.importorskip("cupy").cuda.runtime.deviceCanAccessPeer(0, 1):
        np.testing.assert_array_equal(elsewhere(differentiate, squares, x).get(), expected.get())
    else:
        with pytest.raises(ValueError, match=r"resides \(1\) is different from the current device \(0\)"):
            elsewhere(differentiate, squares, x)


def test_workers_whose_current_device_is_the_first():
    x = get_backend("cupy:1").asarray([1.0, -2.0, 0.5])
    expected = numerical_gradient(squares, x)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = numerical_gradient(squares, x, map=pool.map)
    assert device(found) == device(x)
    np.testing.assert_array_equal(found.get(), expected.get())


def test_ranks_take_the_devices_of_a_machine_in_turn():
    count = pytest.importorskip("cupy").cuda.runtime.getDeviceCount()
    assert [backend_of_rank("cupy", rank).name for rank in range(count + 1)] == [
        *(f"cupy:{number}" for number in range(count)),
        "cupy:0",
    ]
    assert backend_of_rank("cupy:1", 0).name == "cupy:1"
