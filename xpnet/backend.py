"""The backend switch: with which array library, on which device, new arrays are made.

A backend is asked for by name: an argument, else the environment variable ``XPNET_BACKEND``, else ``numpy``. It
serves whoever *creates* arrays (networks, data sets, scripts). Computing takes library and device from the arrays.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from .annotations import Array
from .opening import NAMES, UnusableError, opened

if TYPE_CHECKING:
    import numpy as np

ENVIRONMENT_VARIABLE = "XPNET_BACKEND"


class BackendError(RuntimeError):
    """A backend was asked for that cannot be had; the message says which, why, and what to do."""


class Backend(NamedTuple):
    """An array namespace ``xp`` and a ``device`` of it, with the ``name`` they were asked for by."""

    name: str
    xp: Any
    device: Any

    def asarray(self, x: Array, dtype: Any = None) -> Array:
        """Return ``x`` (a NumPy array, a list or a number) as an array of this backend, on its device."""
        return self.xp.asarray(x, dtype=self.dtype(dtype), device=self.device)

    def dtype(self, dtype: Any) -> Any:
        """Return a dtype of this backend from its name, such as "float32"; None and dtypes pass.

        Raises ValueError for a name that the library does not have.
        """
        if not isinstance(dtype, str):
            return dtype
        found = getattr(self.xp, dtype, None) if dtype.startswith(("float", "int", "uint", "bool")) else None
        if found is None:
            raise ValueError(f"dtype is {dtype!r}, which {self.name} does not have; 'float32' and 'float64' train")
        return found

    def describe(self) -> str:
        """Return one line for a reader: name, device and versions."""
        library = self.name.partition(":")[0]
        packages = [library] if library != "cupy" else ["cupy-cuda12x", "cupy-cuda13x", "cupy"]
        packages += [] if library == "numpy" else ["numpy"]
        versions = ", ".join(f"{p} {v}" for p in [*packages, "array-api-compat"] if (v := _version(p)))
        return f"backend {self.name}, device {_device_name(self)}, {versions}"


def get_backend(name: str | Backend | None = None) -> Backend:
    """Return the backend ``name``: one of ``NAMES``, None for the environment's choice, or a Backend.

    ``cupy:N`` also makes GPU N (``cupy`` makes GPU 0) this thread's current device, and ``jax`` switches on its 64-bit
    numbers. Raises BackendError if it cannot be used; there is no silent fall-back to the CPU.

    Source: the design of DeZero's and Thinc's switches, with the reason in the error.

    >>> get_backend("numpy").name
    'numpy'
    """
    if isinstance(name, Backend):
        return name
    if name is not None and not isinstance(name, str):
        raise BackendError(f"backend is {name!r}; it must be one of the names {', '.join(NAMES)}")
    if name:
        asked_by, way_out = f"backend={name!r}", "pass backend='numpy'"
    else:
        name = os.environ.get(ENVIRONMENT_VARIABLE, "").strip() or "numpy"
        asked_by, way_out = f"{ENVIRONMENT_VARIABLE}={name}", f"unset {ENVIRONMENT_VARIABLE} to use NumPy"
    library, _, device = name.partition(":")
    try:
        xp, device = opened(library, device)
    except UnusableError as error:
        raise BackendError(f"{asked_by}: {error.why}. To fix this, {error.cure}, or {way_out}") from error.__cause__
    return Backend(name, xp, device)


def backend_of_rank(name, number):
    """Return the backend ``name``, or the environment's choice, on GPU ``number`` of this machine, counted round.

    A name that says which device keeps it. Raises BackendError as ``get_backend`` does.
    """
    asked, gpus = name or os.environ.get(ENVIRONMENT_VARIABLE, "").strip(), 0
    with contextlib.suppress(Exception):  # which get_backend explains
        if asked == "cupy":
            gpus = import_module("cupy").cuda.runtime.getDeviceCount()
        elif asked == "torch:cuda":
            gpus = import_module("torch").cuda.device_count()
    return get_backend(f"{asked}:{number % gpus}" if gpus else name)


def why_unusable(name: str | Backend | None = None) -> str | None:
    """Return None if the backend ``name`` can be used, else the sentence that says why not and what to do.

    >>> why_unusable("numpy") is None
    True
    """
    try:
        get_backend(name)
    except BackendError as error:
        return str(error)
    return None


def to_numpy(x: Array, *, page_locked: bool = False) -> np.ndarray:
    """Return an array of any backend and device as a NumPy array on the host; waits for the device.

    ``page_locked`` takes memory of the host to which a GPU copies faster.

    >>> to_numpy([1.0, 2.0])
    array([1., 2.])
    """
    import numpy as np

    library = type(x).__module__.partition(".")[0]
    if library == "cupy":
        return x.get(out=import_module("cupyx").empty_pinned(x.shape, x.dtype) if page_locked else None)
    if library == "torch":
        if page_locked and x.is_cuda:
            return import_module("torch").empty_like(x, device="cpu", pin_memory=True).copy_(x.detach()).numpy()
        return x.detach().cpu().numpy()
    if library == "array_api_strict":
        return np.asarray(x.to_device(import_module(library).Device("CPU_DEVICE")))
    x = np.asarray(x)
    return x.astype("float32") if x.dtype.name == "bfloat16" else x


def computing_beside(things):
    """Return a context in which is computed where the first array among ``things`` lies that has a GPU for its own.

    CuPy computes on a thread's current device, which in a new thread is the first; the others look at the arrays.
    """
    arrays = (thing for thing in things if type(thing).__module__.partition(".")[0] == "cupy")
    return next((array.device for array in arrays if hasattr(array, "device")), contextlib.nullcontext())


def memory_of(x):
    """Return (first, last): the addresses between which the numbers of an array lie, or None where no one can write."""
    library = type(x).__module__.partition(".")[0]
    x = x._array if library == "array_api_strict" else x
    try:
        if library == "torch":
            first, strides = x.data_ptr(), [step * x.element_size() for step in x.stride()]
        else:
            first, strides = x.data.ptr if library == "cupy" else x.__array_interface__["data"][0], x.strides
    except (AttributeError, RuntimeError):  # also a tensor that stands for others while a step is recorded
        return None
    reach = [step * (length - 1) for step, length in zip(strides, x.shape, strict=True)]
    return first + sum(min(r, 0) for r in reach), first + sum(max(r, 0) for r in reach)


def wide_numbers(wide=None):
    """Return whether JAX keeps 64-bit numbers here; with ``True``, let it, as in the process that sends arrays here."""
    if wide:
        opened("jax", "")
    return hasattr(sys.modules.get("jax"), "config") and bool(sys.modules["jax"].config.jax_enable_x64)


def random_generator(rng, purpose, *part):
    """Return a ``numpy.random.Generator`` on the host: ``rng`` itself, or one made from the seed ``rng``.

    ``purpose`` is "weights", "batches", "audit" or "dropout": from one seed, each gets a stream of its own, and so does
    each ``part`` of it, such as an epoch's number. Raises TypeError if ``rng`` is neither a whole number ≥ 0 nor a
    Generator, because a run nobody can repeat is worth little.
    """
    import numpy as np

    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, bool) or not isinstance(rng, (int, np.integer)) or rng < 0:
        raise TypeError(f"rng is {rng!r}; it must be a seed (a whole number ≥ 0) or a numpy.random.Generator")
    stream = ("weights", "batches", "audit", "dropout").index(purpose)
    return np.random.default_rng(np.random.SeedSequence(int(rng), spawn_key=(stream, *part)))


def seed_of(rng):
    """Return the seed ``rng``, or one drawn from the generator ``rng``. Raises as ``random_generator`` does."""
    generator = random_generator(rng, "batches")
    return int(generator.integers(2**63)) if generator is rng else int(rng)


def _version(package):
    from importlib import metadata  # takes longer to import than all of xpnet

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _device_name(backend):
    if backend.name.startswith("cupy"):
        runtime = import_module("cupy").cuda.runtime
        return runtime.getDeviceProperties(backend.device.id)["name"].decode()
    return str(backend.device)
