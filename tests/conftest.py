"""The array backends every test of mathematics runs on, and what each of them catches.

``XPNET_BACKEND`` in the environment picks one: then its being unusable is a failure. Without it, every backend that
can be used is tested, and each that cannot is a skip with the reason a user would read.
"""

import contextlib
import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
from array_api_compat import array_namespace, device
from hypothesis import settings

from xpnet import get_backend, to_numpy, why_unusable
from xpnet.backend import ENVIRONMENT_VARIABLE

# a test that names no backend is about NumPy; the processes that pytest-xdist starts later are told by the second name
ASKED = (os.environ.pop(ENVIRONMENT_VARIABLE, "") or os.environ.get("XPNET_TESTED_BACKEND", "")).strip()
os.environ["XPNET_TESTED_BACKEND"] = ASKED
collect_ignore = ["on_ranks.py", "together.py"]  # programs for ranks, which run when they are imported
settings.register_profile("any clock", deadline=None)  # a machine that is busy fails no test
settings.load_profile("any clock")


@dataclass(frozen=True)
class Case:
    """One way to make and use arrays."""

    id: str
    backend: str
    dtype: str = "float64"
    read_only: bool = False
    guarded: bool = False  # reading a value on the host raises
    static_shapes: bool = False  # no boolean indexing, no shapes that depend on data

    @property
    def xp(self):
        return get_backend(self.backend).xp

    @property
    def device(self):
        return get_backend(self.backend).device

    @property
    def float(self):
        return getattr(self.xp, self.dtype)

    @property
    def eps(self):
        return float(np.finfo(self.dtype).eps)

    def asarray(self, x, dtype=None):
        """Return ``x`` on this backend, floats in this case's dtype, integers and booleans as they are."""
        x = np.asarray(x)
        if dtype is None:
            dtype = self.dtype if x.dtype.kind == "f" else {"i": "int64", "b": "bool", "u": x.dtype.name}[x.dtype.kind]
        x = get_backend(self.backend).asarray(x.astype(dtype))
        if self.read_only:
            x = x.copy()
            x.flags.writeable = False
        return x

    def host(self, x):
        """Return an array, or a dict of arrays, on the host."""
        if isinstance(x, dict):
            return {name: to_numpy(value) for name, value in x.items()}
        return to_numpy(x)

    def assert_ours(self, x, shape=None):
        """Assert that ``x`` is an array of this case's library, device and dtype, and of ``shape`` if given."""
        assert array_namespace(x) is self.xp
        assert device(x) == self.device
        assert x.dtype == self.float
        assert shape is None or tuple(x.shape) == tuple(shape)

    def assert_close(self, x, expected, *, eps=8.0, decimals=None):
        """Assert that ``x`` is one of our arrays and holds ``expected``, in shape too.

        The largest difference allowed is ``eps`` unit round-offs of the largest expected entry: what rounding may
        do where terms of that size are summed. ``decimals`` is for references that were printed with that many.
        """
        expected = np.asarray(expected)
        self.assert_ours(x, expected.shape)
        allowed = eps * self.eps * np.max(np.abs(expected), initial=0.0)
        if decimals is not None:
            allowed += 0.5001 * 10.0**-decimals
        np.testing.assert_allclose(self.host(x), expected, rtol=0, atol=allowed)

    def computing(self):
        """Return a context in which mathematics must run: under the restrictions of this case."""
        stack = contextlib.ExitStack()
        if self.static_shapes:
            import array_api_strict

            stack.enter_context(
                array_api_strict.ArrayAPIStrictFlags(boolean_indexing=False, data_dependent_shapes=False)
            )
        if self.guarded:
            stack.enter_context(no_host_reads())
        return stack


CASES = (
    Case("numpy", "numpy"),
    Case("numpy-float32", "numpy", "float32"),
    Case("numpy-readonly", "numpy", read_only=True),
    Case("strict", "array_api_strict"),
    Case("strict-device1", "array_api_strict:device1", guarded=True),
    Case("strict-device2", "array_api_strict:device2", "float32"),
    Case("strict-no-float64", "array_api_strict:no_float64", "float32"),
    Case("strict-static", "array_api_strict:device1", guarded=True, static_shapes=True),
    Case("torch", "torch"),
    Case("jax", "jax"),
    Case("cupy", "cupy"),
    Case("cupy-float32", "cupy", "float32"),
)


@contextlib.contextmanager
def no_host_reads():
    """Make strict arrays that are not on the CPU device raise when a value of theirs is read on the host.

    A GPU would wait at each such place. It wraps private names of array-api-strict, so its version is pinned.
    """
    import array_api_strict
    from array_api_strict._array_object import Array

    names = ("__float__", "__bool__", "__int__", "__index__", "__complex__", "__dlpack__", "__buffer__", "__array__")
    original = {name: getattr(Array, name) for name in names if hasattr(Array, name)}
    on_host = array_api_strict.Device("CPU_DEVICE")

    def refuse(name, method):
        def guarded(self, *args, **kwargs):
            if self.device != on_host:
                raise AssertionError(f"{name} reads a value from {self.device}: a GPU would wait here")
            return method(self, *args, **kwargs)

        return guarded

    for name, method in original.items():
        setattr(Array, name, refuse(name, method))
    try:
        yield
    finally:
        for name, method in original.items():
            setattr(Array, name, method)


def unusable(case):
    """Skip ``case`` if its backend cannot be used; fail if it was asked for by name."""
    if ASKED and case.backend.partition(":")[0] != ASKED.partition(":")[0]:
        pytest.skip(f"{ENVIRONMENT_VARIABLE}={ASKED} asks for that backend alone")
    reason = why_unusable(case.backend)
    if reason and ASKED:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(params=CASES, ids=lambda case: case.id)
def case(request):
    """Every backend on which values can be computed and compared, on the device that was asked for."""
    case = request.param
    if ASKED.partition(":")[0] == case.backend:
        case = replace(case, backend=ASKED)
    unusable(case)
    return case


def pytest_collection_modifyitems(config, items):
    """Leave out all but the last of the shapes of a test on JAX, unless JAX is asked for by name.

    JAX compiles every operation anew for every shape, which would be most of the suite's time.
    """
    if ASKED:
        return
    last, repeated = {}, []
    for item in items:
        params = getattr(item, "callspec", None) and item.callspec.params
        if params and getattr(params.get("case"), "backend", "") == "jax":
            others = [(k, str(v)) for k, v in params.items() if k not in ("case", "shape", "leading", "size", "kind")]
            key = (item.path, item.originalname, *others)
            if key in last:
                repeated.append(last[key])
            last[key] = item
    if repeated:
        config.hook.pytest_deselected(items=repeated)
        items[:] = [item for item in items if item not in set(repeated)]


class Scale:
    """A user's layer that learns, on any backend: x·gamma, one factor for each feature, without difference."""

    parameters = ("gamma",)

    def __init__(self, gamma):
        self.gamma = gamma

    def forward(self, x):
        self.x = x
        return x * self.gamma

    def backward(self, dout):
        self.dgamma = array_namespace(dout).sum(dout * self.x, axis=0)
        return dout * self.gamma


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


def pytest_report_header():
    lines = ["xpnet backends:"]
    for name in dict.fromkeys(case.backend.partition(":")[0] for case in CASES):
        lines.append(f"  {name}: {why_unusable(name) or get_backend(name).describe()}")
    return lines
