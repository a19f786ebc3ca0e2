"""How many array operations a step, a report, a gradient and a check ask for: on a GPU, each is a kernel or a product.

They are counted on array-api-strict, on a device whose every read on the host a GPU would wait for.
"""

import contextlib
import types
from collections import Counter

import numpy as np
import pytest
from conftest import ASKED

from xpnet import TwoLayerNet, check_gradients, get_backend, one_hot, train

pytestmark = pytest.mark.skipif(bool(ASKED), reason="counted on array-api-strict, whatever backend is asked for")

PRODUCTS = {"__matmul__", "__rmatmul__", "__imatmul__", "matmul"}
READS = {"__bool__", "__float__", "__int__", "__index__", "__array__", "__buffer__", "__dlpack__"}
# no kernels: views, questions about dtypes, and the move that comes before a read
VIEWS = ("__getitem__", "reshape", "expand_dims", "squeeze", "permute_dims", "matrix_transpose", "broadcast_to")
NONE = {*VIEWS, "finfo", "iinfo", "isdtype", "result_type", "can_cast", "astype, no copy", "to_device"}
ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
OTHERS = ("abs", "neg", "invert", "eq", "ne", "lt", "le", "gt", "ge", "getitem", "setitem")
METHODS = [f"__{which}{name}__" for name in ARITHMETIC for which in ("", "r", "i")] + [f"__{name}__" for name in OTHERS]


@contextlib.contextmanager
def counted():
    """Yield a Counter of the operations that are asked for here, not of those that they are made of."""
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    found, within = Counter(), []

    def counting(name, function):
        def call(*args, **kwargs):
            if not within:
                same = name == "astype" and args[0].dtype == args[1]
                found["astype, no copy" if same else name] += 1
            within.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                within.pop()

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in dir(strict):
            if isinstance(function := getattr(strict, name), types.FunctionType) and name[0] != "_":
                patch.setattr(strict, name, counting(name, function))
        for name in [*METHODS, *READS]:
            if function := getattr(strict._array_object.Array, name, None):
                patch.setattr(strict._array_object.Array, name, counting(name, function))
        yield found


def count(work):
    """Return (kernels, products, reads) of ``work()``."""
    with counted() as found:
        work()
    products, reads, none = (sum(found[name] for name in names) for names in (PRODUCTS, READS, NONE))
    return found.total() - products - reads - none, products, reads


@pytest.fixture(params=["relu", "sigmoid"])
def activation(request):
    return request.param


@pytest.fixture
def network(activation):
    return TwoLayerNet(784, 50, 10, activation=activation, backend="array_api_strict:device1")


@pytest.fixture
def batch():
    backend, rng = get_backend("array_api_strict:device1"), np.random.default_rng(0)
    labels = backend.asarray(rng.integers(0, 10, 40))
    return backend.asarray(rng.random((40, 784))), one_hot(labels, 10, dtype=backend.xp.float64), labels


def per_step(network, x, t):
    """Return what a step of ``train`` takes: how much longer an epoch of twice as many steps is."""
    few, many = (count(lambda size=size: list(train(network, x, t, epochs=1, batch_size=size))) for size in (10, 5))
    return [(b - a) / 4 for a, b in zip(few, many, strict=True)]


def at_most(found, kernels, products, reads=0):
    assert all(n <= bound for n, bound in zip(found, (kernels, products, reads), strict=True)), found


def test_a_training_step(network, activation, batch):
    """With its batch and its updates; nothing is read within an epoch."""
    x, one_hot_targets, labels = batch
    at_most(per_step(network, x, one_hot_targets), *{"relu": (28, 5), "sigmoid": (33, 5)}[activation])
    at_most(per_step(network, x, labels), *{"relu": (33, 5), "sigmoid": (38, 5)}[activation])


def test_a_report_is_read_three_times(network, batch):
    x, t, _ = batch
    *_, reads = count(lambda: list(train(network, x, t, x, t, epochs=4, batch_size=40)))
    *_, once = count(lambda: list(train(network, x, t, x, t, epochs=1, batch_size=40)))
    assert reads - once <= 3 * 3


def test_a_numerical_gradient(network, activation, batch):
    x, t, _ = batch
    found = count(lambda: network.numerical_gradient(x, t))
    at_most(found, *{"relu": (89, 8), "sigmoid": (110, 8)}[activation])


def test_a_check(network, activation, batch):
    x, t, _ = batch
    found = count(lambda: check_gradients(network, x, t))
    at_most(found, *{"relu": (360, 41, 5), "sigmoid": (443, 41, 5)}[activation])


def test_the_count_itself():
    xp = get_backend("array_api_strict").xp
    x = xp.ones((3, 3))
    assert count(lambda: float(xp.sum(xp.exp(x @ x[:2, :].T) + 1.0))) == (3, 1, 1)
    assert count(lambda: xp.astype(xp.reshape(x, (9,)), x.dtype)) == (0, 0, 0)
    assert count(lambda: bool(xp.all(xp.maximum(x, 0) == 1.0 / x))) == (4, 0, 1)
