"""Steps recorded once and replayed by one launch: PyTorch's own way, and CuPy's with its matrix products."""

import ctypes
import threading
import warnings
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module

WORKSPACE = 2**25  # bytes that cuBLAS may use in a captured graph: what NVIDIA advises for its largest devices

_one_capture = threading.Lock()


def recorded_by_torch(step, practice, arrays):
    """Return launch(count) of ``step(*arrays)`` as PyTorch's compiler makes it, on a GPU as a CUDA graph."""
    torch, proxies = import_module("torch"), import_module("torch.fx.experimental.proxy_tensor")
    where = arrays[1].device
    with warnings.catch_warnings(action="ignore"):  # the compiler's, about itself
        step = torch.compile(proxies.make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*practice))
        if where.type == "cpu":
            step(*practice)
            return lambda count: [step(*arrays) for _ in range(count)]
        with torch.cuda.device(where):
            stream, captured = torch.cuda.Stream(), torch.cuda.CUDAGraph()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):  # libraries set themselves up before the capture
                step(*practice)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(captured):
                step(*arrays)
    return lambda count: [captured.replay() for _ in range(count)]


def _matrices(a, b):
    """Return two matrices and the shape (…, N) of the product ``a`` (…, K) @ ``b`` (K, N) or (K,), if it is one."""
    one = a.ndim and getattr(b, "ndim", 0) in (1, 2) and a.shape[-1] == b.shape[0] and a.dtype == b.dtype
    if one and a.dtype.char in "fd" and a.size and b.size:
        return a.reshape(-1, a.shape[-1]), b.reshape(b.shape[0], -1), a.shape[:-1] + b.shape[1:]
    return None


@contextmanager
def _captured_products(cupy, stream):
    """Send this thread's ``a @ b`` to cuBLAS itself: CuPy refuses its own in a capture, cuBLAS does not."""
    here, original = threading.get_ident(), cupy.ndarray.__matmul__

    def matmul(a, b):
        matrices = _matrices(a, b) if threading.get_ident() == here else None
        return products.of(*matrices) if matrices else original(a, b)

    with _one_capture:
        products = _Products(cupy, stream)
        cupy.ndarray.__matmul__ = matmul
        try:
            yield
        finally:
            del cupy.ndarray.__matmul__  # it is inherited again


@cache
def _cublas(device_id):
    """Return cuBLAS and a handle of it on this device, the current one; for one capture at a time.

    The handle is never destroyed: that waits for the whole device, which breaks a capture going on in another thread.
    """
    cublas = import_module("cupy_backends.cuda.libs.cublas")
    return cublas, cublas.create()


class _Products:
    """Products of matrices by cuBLAS on a stream, with a workspace from the memory that is the graph's own."""

    def __init__(self, cupy, stream):
        cublas, self.handle = _cublas(cupy.cuda.Device().id)
        self.cupy, self.library = cupy, ctypes.CDLL(cublas.__file__)  # its symbols are those of the cuBLAS CuPy uses
        self.workspace = cupy.empty(WORKSPACE, dtype="uint8")
        cublas.setStream(self.handle, stream.ptr)  # which takes back the workspace given before
        arguments = ctypes.c_void_p(self.handle), ctypes.c_void_p(self.workspace.data.ptr), ctypes.c_size_t(WORKSPACE)
        if status := self.library.cublasSetWorkspace_v2(*arguments):
            raise RuntimeError(f"cuBLAS answered a workspace with status {status}")

    def operand(self, x):
        """Return a matrix whose rows or columns lie together, its leading dimension, and whether it lies flipped."""
        for flipped, lying in ((True, x.T), (False, x)):  # a vector lies both ways: as flipped, which CuPy takes first
            apart, between = (stride // x.itemsize for stride in lying.strides)
            rows, columns = lying.shape
            if (between == 1 or columns == 1) and (apart >= columns or rows == 1):
                return x, max(apart, columns), flipped
        return self.operand(self.cupy.ascontiguousarray(x))

    def of(self, a, b, shape):
        """Return a @ b in ``shape`` for matrices of one dtype, float32 or float64."""
        (m, k), n = a.shape, b.shape[1]
        kind, name = {"f": (ctypes.c_float, "cublasSgemm_v2"), "d": (ctypes.c_double, "cublasDgemm_v2")}[a.dtype.char]
        out = self.cupy.empty((m, n), dtype=a.dtype)
        (a, lead_a, flip_a), (b, lead_b, flip_b) = self.operand(a), self.operand(b)
        handle, at_a, at_b, to = (ctypes.c_void_p(at) for at in (self.handle, *(x.data.ptr for x in (a, b, out))))
        one, zero = ctypes.byref(kind(1)), ctypes.byref(kind(0))
        # cuBLAS takes columns for rows: (a @ b)ᵀ = bᵀ @ aᵀ
        arguments = handle, flip_b, flip_a, n, m, k, one, at_b, lead_b, at_a, lead_a, zero, to, n
        if status := getattr(self.library, name)(*arguments):
            raise RuntimeError(f"cuBLAS answered a product with status {status}")
        return out.reshape(shape)


def recorded_by_cupy(step, practice, arrays):
    """Return launch(count) of ``step(*arrays)``, captured as a CUDA graph after a first run as ``step(*practice)``."""
    cupy, where = import_module("cupy"), arrays[1].device
    with where:
        stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()

    @contextmanager
    def aside():
        """Work on the graph's own stream: after what this thread has asked for before, ahead of what it will."""
        with where:
            current = cupy.cuda.get_current_stream()
            stream.wait_event(current.record())
            try:
                with stream:
                    yield
            finally:  # also behind Ctrl-C: what is asked for next comes after what was launched
                current.wait_event(stream.record())

    # a pool of its own, or what the graph sets free would be given to others: cupy issue 9655
    with aside(), cupy.cuda.using_allocator(pool.malloc), _captured_products(cupy, stream):
        step(*practice)  # kernels are compiled, and the pool filled, before the capture
        stream.begin_capture()
        try:
            step(*arrays)
        except BaseException:
            with suppress(Exception):
                stream.end_capture()
            raise
        graph = stream.end_capture()

    def launch(count):
        with aside():
            for _ in range(count):
                graph.launch(stream)
        return pool  # which lives as long as the graph

    return launch
