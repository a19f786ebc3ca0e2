"""Two GPUs: results lie where their arguments do, or it is said that they cannot."""

import threading
from contextlib import nullcontext

import numpy as np
import pytest
from array_api_compat import device
from conftest import ASKED

from xpnet import TwoLayerNet, check_gradients, get_backend, train, why_unusable

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
