"""The switch: who decides, what each unusable backend says, and that nothing ever falls back to the CPU silently."""

import importlib.util
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from running import run_python

import xpnet
from xpnet import Backend, BackendError, TwoLayerNet, get_backend, load_mnist, to_numpy, why_unusable
from xpnet.backend import NAMES, random_generator
from xpnet.installing import install_command

VARIABLE = "XPNET_BACKEND"
PACKAGE = Path(xpnet.__file__).parent


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


class TestPrecedence:
    def test_numpy_is_the_default(self):
        assert get_backend().name == "numpy"

    def test_variable_decides_before_the_default(self, monkeypatch):
        monkeypatch.setenv(VARIABLE, "array_api_strict")
        assert get_backend().name == "array_api_strict"

    def test_argument_decides_before_the_variable(self, monkeypatch):
        monkeypatch.setenv(VARIABLE, "array_api_strict")
        assert get_backend("numpy").name == "numpy"

    def test_variable_is_not_even_looked_at_when_an_argument_is_given(self, monkeypatch):
        monkeypatch.setenv(VARIABLE, "nonsense")
        assert get_backend("numpy").name == "numpy"

    @pytest.mark.parametrize("value", ["", "   "])
    def test_empty_variable_means_unset(self, monkeypatch, value):
        monkeypatch.setenv(VARIABLE, value)
        assert get_backend().name == "numpy"

    def test_spaces_around_the_variable_do_not_matter(self, monkeypatch):
        monkeypatch.setenv(VARIABLE, " array_api_strict ")
        assert get_backend().name == "array_api_strict"

    def test_variable_is_read_at_every_call(self, monkeypatch):
        assert get_backend().name == "numpy"
        monkeypatch.setenv(VARIABLE, "array_api_strict")
        assert get_backend().name == "array_api_strict"

    def test_backend_object_passes_through(self):
        backend = get_backend("array_api_strict:device1")
        assert get_backend(backend) is backend
        assert why_unusable(backend) is None

    def test_what_creates_arrays_obeys_the_variable(self, monkeypatch):
        import array_api_strict

        monkeypatch.setenv(VARIABLE, "array_api_strict:device1")
        W = TwoLayerNet(4, 3, 2).params["W1"]
        assert W.device == array_api_strict.Device("device1")


class TestNames:
    def test_device_of_numpy(self):
        assert get_backend("numpy:cpu").device == "cpu"
        assert "numpy has no device 'gpu'" in why_unusable("numpy:gpu")

    def test_device_of_array_api_strict(self):
        import array_api_strict

        for name in ("device1", "device2", "no_float64"):
            assert get_backend(f"array_api_strict:{name}").device == array_api_strict.Device(name)
        assert "array_api_strict cannot use 'device9'" in why_unusable("array_api_strict:device9")

    def test_device_of_torch(self):
        torch = pytest.importorskip("torch")
        assert get_backend("torch").device == torch.device("cpu")
        assert get_backend("torch:meta").device == torch.device("meta")
        for device in ("nonsense", "cuda:99"):
            assert f"PyTorch cannot use the device '{device}'" in why_unusable(f"torch:{device}")

    def test_jax_counts_in_64_bits_and_takes_no_device(self):
        jax = pytest.importorskip("jax")
        assert get_backend("jax").asarray([1.0], "float64").dtype == np.float64
        assert get_backend("jax").device == jax.devices()[0]
        assert "jax takes no device here, got 'gpu'" in why_unusable("jax:gpu")

    @pytest.mark.parametrize(
        ("wrong", "right"), [("nunpy", "numpy"), ("cpy", "cupy"), ("pytorch", "torch"), ("jaxx", "jax")]
    )
    def test_misspelt_name_gets_a_suggestion(self, wrong, right):
        with pytest.raises(BackendError, match=rf"no backend of that name \(did you mean {right}\?\)"):
            get_backend(wrong)

    @pytest.mark.parametrize("name", [3, b"numpy", ["numpy"], True])
    def test_what_is_no_name_is_refused(self, name):
        with pytest.raises(BackendError, match=r"backend is .*; it must be one of the names numpy, cupy"):
            get_backend(name)

    def test_unknown_name_lists_every_known_one(self, monkeypatch):
        monkeypatch.setenv(VARIABLE, "abacus")
        with pytest.raises(BackendError) as caught:
            get_backend()
        assert str(caught.value).startswith("XPNET_BACKEND=abacus: there is no backend of that name. ")
        assert all(name in str(caught.value) for name in NAMES)
        assert "did you mean" not in str(caught.value)

    def test_description_is_one_line_with_name_device_and_versions(self, case):
        line = get_backend(case.backend).describe()
        assert line.startswith(f"backend {case.backend}, device ")
        assert f"numpy {np.__version__}" in line
        assert "array-api-compat " in line
        assert "\n" not in line


class TestCreatingArrays:
    def test_asarray_puts_values_on_the_device(self, case):
        x = get_backend(case.backend).asarray([1.0, 2.0], case.dtype)
        assert x.device == case.device
        assert x.dtype == case.float
        assert case.host(x).tolist() == [1.0, 2.0]

    @pytest.mark.parametrize("name", ["float33", "asarray", "", "complex64"])
    def test_dtype_that_does_not_exist_or_cannot_train(self, name):
        with pytest.raises(ValueError, match=f"dtype is '{name}', which numpy does not have; 'float32' and"):
            get_backend("numpy").asarray([1.0], name)

    def test_dtype_objects_and_none_pass(self):
        backend = get_backend("numpy")
        assert backend.dtype(None) is None
        assert backend.dtype(np.float32) is np.float32


class CUDARuntimeError(RuntimeError):
    def __init__(self, status):
        super().__init__(f"cudaError {status}")
        self.status = status


class FakeArray:
    """What the first small computation touches."""

    def __init__(self, error):
        self.error = error

    def __matmul__(self, other):
        if self.error:
            raise self.error
        return self

    def __add__(self, other):
        return self

    def sum(self):
        return self

    def get(self):
        return 12.0


@pytest.fixture
def fake_cupy(monkeypatch):
    """Install a stand-in for CuPy; like CuPy itself, its runtime module has no constants for error codes."""

    def install(status=0, driver=13000, gpus=1, first_kernel=None, use=None):
        used = []

        def count():
            if status:
                raise CUDARuntimeError(status)
            return gpus

        class Device:
            def __init__(self, number):
                self.id = number

            def use(self):
                if use:
                    raise use
                used.append(self.id)

        cupy = types.ModuleType("cupy")
        cupy.float32 = np.float32
        cupy.ones = lambda shape, dtype: FakeArray(first_kernel)
        runtime = types.SimpleNamespace(
            getDeviceCount=count,
            CUDARuntimeError=CUDARuntimeError,
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: 12090,
            getDeviceProperties=lambda number: {"name": f"Fake GPU {number}".encode()},
        )
        cupy.cuda = types.SimpleNamespace(runtime=runtime, Device=Device)
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        namespace = types.ModuleType("array_api_compat.cupy")
        monkeypatch.setitem(sys.modules, "array_api_compat.cupy", namespace)
        cupy.used, cupy.namespace = used, namespace
        return cupy

    return install


# what the machine looks like, which backend is asked for, what the sentence must say
DIAGNOSES = [
    pytest.param({"status": 35, "driver": 0}, "cupy", "this machine has no NVIDIA driver", id="no driver"),
    pytest.param({"status": 35, "driver": 11080}, "cupy", "older than CUDA 12", id="old driver"),
    pytest.param({"status": 100}, "cupy", "no visible GPU (CUDA_VISIBLE_DEVICES='')", id="no GPU"),
    pytest.param({"status": 46}, "cupy", "answers with error 46", id="another status"),
    pytest.param({"gpus": 2}, "cupy:2", "no GPU '2', the visible ones are 0 to 1", id="number out of range"),
    pytest.param({"gpus": 2}, "cupy:one", "no GPU 'one', the visible ones are 0 to 1", id="not a number"),
    pytest.param({"gpus": 2}, "cupy:-1", "no GPU '-1', the visible ones are 0 to 1", id="negative number"),
    pytest.param(
        {"first_kernel": ImportError("libnvrtc.so.12: cannot open")},
        "cupy",
        "first small computation failed (ImportError: libnvrtc.so.12: cannot open)",
        id="missing libraries",
    ),
    pytest.param(
        {"use": CUDARuntimeError(46)},
        "cupy",
        "cudaError 46",
        id="GPU in use by another process",
    ),
]


class TestCuPyDiagnoses:
    @pytest.mark.parametrize(("machine", "name", "says"), DIAGNOSES)
    def test_sentence_says_what_is_wrong_and_how_to_go_on(self, monkeypatch, fake_cupy, machine, name, says):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        fake_cupy(**machine)
        with pytest.raises(BackendError) as caught:
            get_backend(name)
        assert says in str(caught.value)
        assert str(caught.value).startswith(f"backend={name!r}: ")
        assert str(caught.value).endswith(", or pass backend='numpy'")
        assert why_unusable(name) == str(caught.value)
        monkeypatch.setenv(VARIABLE, name)
        assert why_unusable().startswith(f"{VARIABLE}={name}: ")
        assert why_unusable().endswith(", or unset XPNET_BACKEND to use NumPy")
        assert says in why_unusable()

    @pytest.mark.parametrize(
        ("machine", "kind"),
        [({"status": 35, "driver": 0}, CUDARuntimeError), ({"first_kernel": OSError("libcublas.so.12")}, OSError)],
    )
    def test_original_error_is_the_cause(self, fake_cupy, machine, kind):
        fake_cupy(**machine)
        with pytest.raises(BackendError) as caught:
            get_backend("cupy")
        assert isinstance(caught.value.__cause__, kind)

    def test_a_working_gpu_becomes_the_current_one(self, fake_cupy):
        cupy = fake_cupy(gpus=2)
        backend = get_backend("cupy:1")
        assert cupy.used == [1]
        assert backend.device.id == 1
        assert backend.xp is cupy.namespace
        assert backend.describe().startswith("backend cupy:1, device Fake GPU 1, ")

    def test_first_gpu_without_a_number(self, fake_cupy):
        cupy = fake_cupy(gpus=2)
        assert get_backend("cupy").device.id == 0
        assert cupy.used == [0]

    @pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
    def test_real_cupy_without_a_gpu_says_so(self):
        import cupy

        if cupy.is_available():
            pytest.skip("here is a GPU")
        reason = why_unusable("cupy")
        assert re.search("no NVIDIA driver|older than CUDA|no visible GPU", reason)
        assert reason.endswith("or pass backend='numpy'")


class TestUnusable:
    @pytest.mark.parametrize(
        ("library", "install"),
        [
            ("cupy", "cupy-cuda12x"),
            ("torch", "torch"),
            ("jax", "jax"),
            ("array_api_strict", "array-api-strict"),
        ],
    )
    def test_library_that_is_not_installed(self, monkeypatch, library, install):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(BackendError) as caught:
            get_backend(library)
        assert str(caught.value) == (
            f"backend='{library}': {library} is not installed. To fix this, run: {install_command(install)}"
            f"{' (or cupy-cuda13x for CUDA 13)' if library == 'cupy' else ''}, or pass backend='numpy'"
        )
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)

    @pytest.mark.parametrize(
        ("source", "says"),
        [
            ("raise ImportError('libcudart.so is missing')", "cannot be loaded (libcudart.so is missing)"),
            ("import a_dependency_that_is_missing", "cannot be loaded (No module named"),
        ],
    )
    def test_library_that_is_installed_but_cannot_be_loaded(self, monkeypatch, tmp_path, source, says):
        (tmp_path / "cupy.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        with pytest.raises(BackendError) as caught:
            get_backend("cupy")
        assert f"cupy is installed but {says}" in str(caught.value)
        assert isinstance(caught.value.__cause__, ImportError)

    def test_jax_that_finds_no_such_platform(self):
        pytest.importorskip("jax")
        ran = run_python("-c", "import xpnet; print(xpnet.why_unusable('jax'))", JAX_PLATFORMS="nonsense")
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith("backend='jax': ")

    def test_nothing_falls_back_to_the_cpu(self, monkeypatch):
        monkeypatch.setenv(VARIABLE, "cupy")
        monkeypatch.setitem(sys.modules, "cupy", None)
        for make in (get_backend, load_mnist, lambda: TwoLayerNet(4, 3, 2), xpnet.SimpleNet):
            with pytest.raises(BackendError, match="XPNET_BACKEND=cupy: cupy is not installed"):
                make()

    @pytest.mark.parametrize("missing", [None, "cupy", "torch", "jax", "array_api_strict"])
    @pytest.mark.parametrize(
        "name", [None, "numpy", "numpy:gpu", "cupy", "cupy:7", "torch", "jax", "array_api_strict", "abacus"]
    )
    def test_reason_and_error_agree(self, monkeypatch, missing, name):
        if missing:
            monkeypatch.setitem(sys.modules, missing, None)
        reason = why_unusable(name)
        if reason is None:
            assert isinstance(get_backend(name), Backend)
        else:
            with pytest.raises(BackendError) as caught:
                get_backend(name)
            assert str(caught.value) == reason


class TestToNumpy:
    def test_values_shape_and_dtype_survive(self, case):
        for values in (np.arange(6.0).reshape(2, 3), np.arange(3), np.asarray([True, False]), np.float64(2.5)):
            x = case.asarray(values)
            host = to_numpy(x)
            assert type(host) is np.ndarray
            assert host.dtype == (case.dtype if values.dtype.kind == "f" else values.dtype)
            assert np.array_equal(host, values)

    def test_unsigned_bytes(self, case):
        assert to_numpy(case.asarray(np.asarray([0, 255], dtype=np.uint8))).dtype == np.uint8

    def test_tensor_that_records_its_gradient(self):
        torch = pytest.importorskip("torch")
        assert to_numpy(torch.ones(2, requires_grad=True)).tolist() == [1.0, 1.0]

    def test_numbers_and_lists(self):
        assert to_numpy(2.5).shape == ()
        assert to_numpy([[1, 2]]).shape == (1, 2)


class TestRandomGenerator:
    def draw(self, rng, purpose):
        return random_generator(rng, purpose).integers(2**63, size=4).tolist()

    def test_one_seed_and_purpose_give_one_stream(self):
        assert self.draw(3, "weights") == self.draw(3, "weights") == self.draw(np.int64(3), "weights")

    def test_streams_of_other_seeds_and_purposes_differ(self):
        streams = [self.draw(seed, purpose) for seed in (0, 1, 2**70) for purpose in ("weights", "batches", "audit")]
        assert len({value for stream in streams for value in stream}) == 9 * 4

    def test_streams_of_one_seed_are_uncorrelated(self):
        a, b = (random_generator(0, purpose).standard_normal(100_000) for purpose in ("weights", "batches"))
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(100_000)

    def test_generator_is_used_as_it_is(self):
        rng = np.random.default_rng(0)
        assert random_generator(rng, "batches") is rng

    @pytest.mark.parametrize("rng", [None, -1, 1.0, True, "0", np.float64(1), np.random.RandomState(0)])
    def test_anything_else_is_refused(self, rng):
        with pytest.raises(TypeError, match=r"must be a seed \(a whole number ≥ 0\) or a numpy.random.Generator"):
            random_generator(rng, "weights")


@pytest.mark.parametrize(
    "namespace",
    ["array_api_compat.numpy", "array_api_compat.torch", "array_api_compat.cupy", "jax.numpy", "array_api_strict"],
)
def test_every_function_the_package_uses_exists_in(namespace):
    """This needs no GPU: CuPy can be imported without one."""
    library = namespace.removeprefix("array_api_compat.").partition(".")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    xp = importlib.import_module(namespace)
    used = {
        name
        for file in PACKAGE.rglob("*.py")
        for name in re.findall(r"\b(?:xp|backend\.xp)\.(\w+)", file.read_text(encoding="utf-8"))
    }
    assert {"where", "maximum", "astype"} <= used
    assert [name for name in sorted(used) if not hasattr(xp, name)] == []
