"""A training step compiled by the array library: JAX scans an epoch, PyTorch and CuPy replay a step recorded once.

Where Python decides the time, one launch a step instead of some thirty is what a fast device is worth. A copy of the
network is run once and recorded; the network itself, its layers and yours stay as they are.
"""

import copy
import ctypes
import threading
import weakref
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module

from array_api_compat import array_namespace, device, is_array_api_obj

from .backend import to_numpy

WORKSPACE = 2**25  # bytes that cuBLAS may use in a captured graph: what NVIDIA advises for its largest devices


class CompileError(RuntimeError):
    """A step that cannot be compiled; the message says why. Without ``compile`` it runs as it is."""


def compiled(step, network, x, t, steps, batch):
    """Return run(order), which takes up to ``steps`` steps on the rows of ``order`` (K, batch), and returns their losses.

    ``step(network, x, t)`` returns (loss, what to subtract from each parameter). It is run on a copy of ``network``, on
    batches of ``x`` and ``t``, and must depend on its parameters and its batch alone. Raises CompileError where the
    library has no compiler, refuses this step, or a layer's memory changes from step to step.
    """
    xp = array_namespace(x)
    library = xp.__name__.removeprefix("array_api_compat.").partition(".")[0]
    if library not in _WAYS:
        raise CompileError(f"{library} runs each operation as it comes, there is nothing to compile; leave compile out")
    try:
        return _WAYS[library](step, network, copy.deepcopy(network), x, t, steps, batch)
    except CompileError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CompileError(f"{library} cannot compile this step ({type(error).__name__}: {reason})") from error


def _state(thing, path, seen):
    """Yield (path, value) for all that an object remembers, arrays by their bytes; what is being traced is unknown."""
    if id(thing) in seen:
        return
    seen[id(thing)] = thing
    if is_array_api_obj(thing):
        with suppress(TypeError, RuntimeError):
            yield path, to_numpy(thing).tobytes()
    elif isinstance(thing, (Mapping, list, tuple)):
        for name, part in thing.items() if isinstance(thing, Mapping) else enumerate(thing):
            yield from _state(part, f"{path}[{name!r}]", seen)
    elif hasattr(thing, "bit_generator"):
        yield path, repr(thing.bit_generator.state)
    elif hasattr(thing, "__dict__") and not callable(thing):
        for name, part in vars(thing).items():
            yield from _state(part, f"{path}.{name}", seen)
    else:
        yield path, repr(thing)


def _require_function(run, network):
    """Run a step twice on the same numbers; refuse one that leaves something else behind the second time."""
    run()
    before = dict(_state(network, "network", {}))
    run()
    after = dict(_state(network, "network", {}))
    changed = [path for path in before | after if before.get(path) != after.get(path)]
    if changed:
        raise CompileError(f"{changed[0]} changes from step to step, and a compiled step would not change it")


def _scanned(step, network, twin, x, t, steps, batch):
    """JAX: the whole epoch as one loop, compiled for as many steps as there are."""
    jax, xp, names = import_module("jax"), array_namespace(x), list(network.params)

    def one(parameters, x, t, chosen):
        for name, value in zip(names, parameters, strict=True):
            twin.params[name] = value
        loss, moves = step(twin, xp.take(x, chosen, axis=0), xp.take(t, chosen, axis=0))
        return [value - moves[name] for name, value in zip(names, parameters, strict=True)], loss

    @jax.jit
    def epoch(parameters, x, t, order, count):
        def body(i, carried):
            parameters, loss = one(carried[0], x, t, order[i])
            return parameters, carried[1].at[i].set(loss)

        return jax.lax.fori_loop(0, count, body, (parameters, xp.zeros((steps,), dtype=parameters[0].dtype)))

    arrays = [network.params[name] for name in names], x, t
    order = xp.zeros((steps, batch), dtype=xp.int64)
    _require_function(lambda: jax.eval_shape(one, *arrays, order[0]), twin)
    jax.eval_shape(epoch, *arrays, order, 1)

    def run(order):
        count = order.shape[0]
        order = xp.concat([order, xp.zeros((steps - count, batch), dtype=order.dtype)])
        parameters, losses = epoch([network.params[name] for name in names], x, t, order, count)
        for name, value in zip(names, parameters, strict=True):
            network.params[name] = value
        return losses[:count]

    return run


def _replayed(step, network, twin, x, t, steps, batch, record, wrap=lambda array: array):
    """A step in place, recorded once; a counter on the device says which row of the order is next."""
    xp, where, names = array_namespace(x), device(x), list(network.params)
    order, counter = (xp.zeros(shape, dtype=xp.int64, device=where) for shape in ((steps, batch), (1,)))
    losses = xp.zeros((steps,), dtype=network.params[names[0]].dtype, device=where)
    places = xp.arange(steps, device=where)

    def one(parameters, x, t, order, counter, losses, places):
        for name, value in zip(names, parameters, strict=True):
            twin.params[name] = wrap(value)
        chosen = xp.take(order, counter, axis=0)[0, :]
        loss, moves = step(twin, wrap(xp.take(x, chosen, axis=0)), xp.take(t, chosen, axis=0))
        for name, value in zip(names, parameters, strict=True):
            value -= moves[name]
        losses[...] = xp.where(places == counter, loss, losses)
        counter += 1

    rows = slice(0, batch)
    _require_function(lambda: step(twin, x[rows, ...], t[rows, ...]), twin)
    recorded = {}

    def run(given):
        parameters = [network.params[name] for name in names]
        held = tuple(map(id, parameters))
        if held not in recorded:  # another array of the same name, since the last epoch
            copies = [xp.asarray(value, copy=True) for value in parameters]
            rest = x, t, order, counter, losses, places
            recorded.clear()
            recorded[held] = record(one, (copies, *rest), (parameters, *rest)), parameters
        count = given.shape[0]
        order[:count, :], counter[...] = given, 0
        recorded[held][0](count)
        return xp.asarray(losses[:count], copy=True)

    run(order[:0, :])
    return run


def _recorded_by_torch(one, practice, arrays):
    """Return launch(count) of the step as PyTorch's compiler makes it, on a GPU as a CUDA graph."""
    torch, proxy_tensor = import_module("torch"), import_module("torch.fx.experimental.proxy_tensor")
    graph = proxy_tensor.make_fx(one, tracing_mode="fake", _allow_non_fake_inputs=True)(*practice)
    step = torch.compile(graph)
    if not arrays[1].is_cuda:
        step(*practice)
        return lambda count: [step(*arrays) for _ in range(count)]
    stream, cuda_graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries must have set themselves up before the capture
        for _ in range(3):
            step(*practice)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(cuda_graph):
        step(*arrays)
    return lambda count: [cuda_graph.replay() for _ in range(count)]


_capturing = threading.local()  # the products of the capture that this thread is in


@cache
def _capturable():
    """Return CuPy's array with products that can be captured: CuPy refuses its own in a capture, cuBLAS does not."""
    cupy = import_module("cupy")

    class Capturable(cupy.ndarray):
        __array_priority__ = 100.0

        def __matmul__(self, other):
            return _capturing.product(self, other) if self.ndim == other.ndim == 2 else super().__matmul__(other)

        def __rmatmul__(self, other):
            return _capturing.product(other, self) if self.ndim == other.ndim == 2 else super().__rmatmul__(other)

    return Capturable


class _Products:
    """Products of matrices by a cuBLAS handle and workspace of their own, which live as long as the captured graph."""

    def __init__(self, cupy, stream):
        cublas = import_module("cupy_backends.cuda.libs.cublas")
        self.cupy, self.library = cupy, ctypes.CDLL(cublas.__file__)  # its symbols are those of the cuBLAS CuPy uses
        self.handle, self.workspace = cublas.create(), cupy.empty(WORKSPACE, dtype="uint8")
        weakref.finalize(self, cublas.destroy, self.handle)
        cublas.setStream(self.handle, stream.ptr)
        sized = ctypes.c_void_p(self.workspace.data.ptr), ctypes.c_size_t(WORKSPACE)
        self.library.cublasSetWorkspace_v2(ctypes.c_void_p(self.handle), *sized)

    def operand(self, x):
        """Return a matrix whose rows or columns lie together, with its leading dimension and whether it lies flipped."""
        rows, columns = (stride // x.itemsize for stride in x.strides)
        if columns == 1 or x.shape[1] == 1:
            return x, max(rows, x.shape[1]), 0
        if rows == 1 or x.shape[0] == 1:
            return x, max(columns, x.shape[0]), 1
        return self.operand(self.cupy.ascontiguousarray(x))

    def __call__(self, a, b):
        (m, k), n = a.shape, b.shape[1]
        kind, name = {"f": (ctypes.c_float, "cublasSgemm_v2"), "d": (ctypes.c_double, "cublasDgemm_v2")}[a.dtype.char]
        if a.dtype != b.dtype or k != b.shape[0]:
            raise TypeError(f"a product of {a.dtype} {a.shape} and {b.dtype} {b.shape}")
        out = self.cupy.empty((m, n), dtype=a.dtype).view(_capturable())
        (a, lead_a, flip_a), (b, lead_b, flip_b) = self.operand(a), self.operand(b)
        pointers = [ctypes.c_void_p(array.data.ptr) for array in (b, a, out)]
        one, zero = ctypes.byref(kind(1)), ctypes.byref(kind(0))
        status = getattr(self.library, name)(  # cuBLAS takes columns for rows: (a @ b)ᵀ = bᵀ @ aᵀ
            *(ctypes.c_void_p(self.handle), flip_b, flip_a, n, m, k, one),
            *(pointers[0], lead_b, pointers[1], lead_a, zero, pointers[2], n),
        )
        if status:
            raise RuntimeError(f"cuBLAS answered a product with status {status}")
        return out


def _recorded_by_cupy(one, practice, arrays):
    """Return launch(count) of the step captured as a CUDA graph."""
    cupy = import_module("cupy")
    where = arrays[1].device
    with where:
        stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
        products = _Products(cupy, stream)

    @contextmanager
    def aside():
        """Work on the graph's own stream, after what this thread's stream has been given, and before what it will be."""
        with where:
            current = cupy.cuda.get_current_stream()
            stream.wait_event(current.record())
            with stream:
                yield
            current.wait_event(stream.record())

    # what the graph has freed may be used by others, were the pool not its own: cupy issue 9655
    with aside(), cupy.cuda.using_allocator(pool.malloc):
        _capturing.product = products
        one(*practice)  # kernels are compiled, and the pool filled, before the capture
        stream.begin_capture()
        try:
            one(*arrays)
        except BaseException:
            with suppress(Exception):
                stream.end_capture()
            raise
        graph = stream.end_capture()

    def launch(count):
        with aside():
            for _ in range(count):
                graph.launch(stream)
        return products, pool  # which live as long as the graph

    return launch


def _on_torch(*arguments):
    return _replayed(*arguments, _recorded_by_torch)


def _on_cupy(*arguments):
    return _replayed(*arguments, _recorded_by_cupy, lambda array: array.view(_capturable()))


_WAYS = {"jax": _scanned, "torch": _on_torch, "cupy": _on_cupy}
