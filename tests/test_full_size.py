"""The book's network at full size, 784-50-10 on real digits: every library takes NumPy's steps, and a GPU never waits.

What only a GPU can show is skipped without one; ``XPNET_BACKEND=cupy python -m pytest`` runs it there.
"""

import contextlib
import gc
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import no_host_reads
from running import run_python

import xpnet.training
from xpnet import TwoLayerNet, check_gradients, get_backend, load_mnist, to_numpy, train, why_unusable

ROOT = Path(__file__).parent.parent


def unless_usable(library):
    return pytest.mark.skipif(bool(why_unusable(library)), reason=str(why_unusable(library)))


LIBRARIES = [pytest.param(name, marks=unless_usable(name)) for name in ("array_api_strict", "torch", "jax", "cupy")]
on_a_gpu = unless_usable("cupy")
each_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])
each_library = pytest.mark.parametrize("library", LIBRARIES)


@pytest.fixture(scope="module")
def digits():
    return load_mnist(backend="numpy")[0]


def network_for(library, dtype, activation="relu"):
    return TwoLayerNet(784, 50, 10, activation=activation, dtype=dtype, backend=library)


def put(library, dtype, x, t):
    backend = get_backend(library)
    return backend.asarray(x, dtype), backend.asarray(t)


# ── Every library ───────────────────────────────────────────────────────────────────────────────────────────────────


def parameters_after(library, dtype, digits, steps):
    network = network_for(library, dtype)
    x, t = (part[:5000] for part in digits)
    list(train(network, *put(library, dtype, x, t), iterations=steps, batch_size=100, learning_rate=0.1))
    return {name: to_numpy(value) for name, value in network.params.items()}


@pytest.mark.parametrize("steps", [1, 200])
@each_dtype
@each_library
def test_the_same_steps_as_numpy(library, dtype, digits, steps):
    """Seed, weights and batches are the same, so only the order of sums differs.

    A parameter of size up to 1 moves by 0.1 times a gradient, which sums 100 terms and is rounded by a few round-offs
    of its size of at most 1; gradient descent at this rate does not amplify: 2 round-offs a step are allowed.
    """
    expected = parameters_after("numpy", dtype, digits, steps)
    start = network_for("numpy", dtype).params
    found = parameters_after(library, dtype, digits, steps)
    allowed = 2 * steps * float(np.finfo(dtype).eps)
    for name, value in expected.items():
        assert np.abs(value - start[name]).max() > 100 * allowed, "a step is far larger than what may differ"
        assert found[name].dtype == dtype
        np.testing.assert_allclose(found[name], value, rtol=0, atol=allowed)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@each_dtype
@each_library
def test_gradients_pass_their_check(library, dtype, activation, digits):
    network = network_for(library, dtype, activation)
    x, t = put(library, dtype, digits[0][:20], digits[1][:20])
    check = check_gradients(network, x, t)
    assert check, check
    assert check.checked == 784 * 50 + 50 + 50 * 10 + 10

    right = network.gradient

    def wrong(x, t):
        gradients = right(x, t)
        return gradients | {"W2": gradients["W2"] * 1.01}

    network.gradient = wrong
    assert check_gradients(network, x, t).failed > 250, "half of the entries of W2 at least are large enough to tell"


@each_dtype
@each_library
def test_all_images_in_one_batch(library, dtype, digits):
    """The gradient of all 60,000 is the mean of the gradients of six parts, up to the rounding of longer sums."""
    network = network_for(library, dtype)
    x, t = put(library, dtype, *digits)
    whole = network.gradient(x, t)
    parts = [network.gradient(x[i : i + 10_000, ...], t[i : i + 10_000]) for i in range(0, 60_000, 10_000)]
    for name, value in whole.items():
        expected = np.mean([to_numpy(part[name]) for part in parts], axis=0, dtype="float64")
        allowed = 100 * float(np.finfo(dtype).eps) * np.abs(expected).max()  # √60,000 roundings, should they add up
        np.testing.assert_allclose(to_numpy(value), expected, rtol=0, atol=allowed)


# ── Nobody waits ────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def no_waiting():
    """Make CuPy raise wherever the host would wait for the GPU; yield a context in which it may again."""
    import cupyx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # CuPy warns that it cannot see every wait
        with cupyx.allow_synchronize(False):
            yield lambda: cupyx.allow_synchronize(True)


@contextlib.contextmanager
def no_reading():
    """The same for a device of array-api-strict, from which a whole array may be brought to the host at any time."""
    with no_host_reads():
        yield contextlib.nullcontext


guarded_devices = pytest.mark.parametrize(
    ("device", "guard"),
    [
        pytest.param("array_api_strict:device1", no_reading, marks=unless_usable("array_api_strict"), id="strict"),
        pytest.param("cupy", no_waiting, marks=unless_usable("cupy"), id="cupy"),
    ],
)


@guarded_devices
@each_dtype
def test_the_host_never_waits_within_an_epoch(device, guard, dtype, digits, monkeypatch):
    """Six hundred steps and one numerical gradient; a look at the inputs and the report are the only transfers."""
    network, transfers = network_for(device, dtype), []
    x, t = put(device, dtype, *digits)
    network.numerical_gradient(x[:100, ...], t[:100])  # libraries set themselves up, which may wait
    list(train(network, x, t, iterations=2))
    monkeypatch.setattr(network, "accuracy", lambda x, t: 0.5)
    with guard() as waiting:

        def transfer(x):
            transfers.append(tuple(x.shape))
            with waiting():
                return to_numpy(x)

        for module in (xpnet.training, xpnet.diagnosis):
            monkeypatch.setattr(module, "to_numpy", transfer)
        network.numerical_gradient(x[:100, ...], t[:100])
        (record,) = train(network, x, t, epochs=1)
    assert transfers == [(), (600 + 4,)], "the largest input; losses, and whether parameters are finite"
    assert record.losses[-1] < record.losses[0] / 4


@guarded_devices
def test_the_guard_sees_a_host_that_waits(device, guard):
    x = get_backend(device).asarray([1.0, 2.0])
    with guard(), pytest.raises(Exception) as raised:  # noqa: PT011 (the class is CuPy's own, named below)
        float(x[0])
    assert type(raised.value).__name__ in ("AssertionError", "DeviceSynchronized")


# ── On a GPU ────────────────────────────────────────────────────────────────────────────────────────────────────────


@on_a_gpu
@each_dtype
def test_memory_returns_to_its_level(dtype, digits):
    import cupy

    network = network_for("cupy", dtype)
    x, t = put("cupy", dtype, *digits)

    def work():
        list(train(network, x, t, iterations=600))
        network.numerical_gradient(x[:100, ...], t[:100])
        check_gradients(network, x[:20, ...], t[:20])
        network.loss(x[:100, ...], t[:100])  # layers remember the last batch that they saw, whose size differs
        gc.collect()
        return cupy.get_default_memory_pool().used_bytes()

    level = work()
    assert [work() for _ in range(3)] == [level] * 3


@on_a_gpu
def test_a_hidden_gpu_is_named():
    ran = run_python("-c", "import xpnet; print(xpnet.why_unusable('cupy'))", CUDA_VISIBLE_DEVICES="")
    assert "no visible GPU (CUDA_VISIBLE_DEVICES='')" in ran.stdout
    assert "unset CUDA_VISIBLE_DEVICES" in ran.stdout
