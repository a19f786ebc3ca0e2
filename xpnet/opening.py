"""The way into each array library: what is imported and tried before it is used, and why it cannot be had if not."""

import os
from importlib import import_module

from .installing import install_command

NAMES = ("numpy", "cupy", "cupy:N", "torch", "torch:DEVICE", "jax", "array_api_strict", "array_api_strict:DEVICE")
INSUFFICIENT_DRIVER, NO_DEVICE = 35, 100  # cudaError_t; CuPy has no names for them


class UnusableError(Exception):
    """A library or device that cannot be used: why, and what to do."""

    def __init__(self, why, cure):
        super().__init__(why)
        self.why, self.cure = why, cure


def opened(library, device):
    """Return the namespace of ``library`` and its ``device`` of that name; raise UnusableError if it cannot be had."""
    if library not in _OPEN:
        from difflib import get_close_matches

        close = get_close_matches(library, _OPEN, n=1)
        guess = f" (did you mean {close[0]}?)" if close else ""
        raise UnusableError(f"there is no backend of that name{guess}", f"choose one of {', '.join(NAMES)}")
    return _OPEN[library](device)


def _import(library, package, or_else=""):
    try:
        return import_module(library)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == library:
            raise UnusableError(f"{library} is not installed", f"run: {install_command(package)}{or_else}") from error
        why = f"{library} is installed but cannot be loaded ({error})"
        raise UnusableError(why, f"reinstall {package}{or_else}") from error


def _compat(library):
    return import_module(f"array_api_compat.{library}")


def _open_numpy(device):
    if device not in ("", "cpu"):
        raise UnusableError(f"numpy has no device {device!r}", "use numpy")
    return _compat("numpy"), "cpu"


def _open_cupy(device):
    cupy = _import("cupy", "cupy-cuda12x", " (or cupy-cuda13x for CUDA 13)")
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise UnusableError(*_diagnose(runtime, error.status)) from error
    if device and not (device.isdecimal() and int(device) < count):
        raise UnusableError(f"there is no GPU {device!r}, the visible ones are 0 to {count - 1}", "name one of them")
    gpu = cupy.cuda.Device(int(device or 0))
    try:  # missing CUDA libraries show only when a kernel is compiled or cuBLAS is loaded
        gpu.use()
        two = cupy.ones((2, 2), dtype=cupy.float32)
        (two @ two + 1.0).sum().get()
    except Exception as error:
        raise UnusableError(
            f"CuPy sees the GPU but a first small computation failed ({type(error).__name__}: {error}), usually "
            "because CUDA libraries are missing",
            f"run: {install_command('cupy-cuda12x[ctk]')} (or cupy-cuda13x[ctk] for CUDA 13)",
        ) from error
    return _compat("cupy"), gpu


def _diagnose(runtime, status):
    """Tell apart why no GPU can be used: the status alone calls a missing driver an old one."""
    if runtime.driverGetVersion() == 0:
        return (
            "CuPy is installed, but this machine has no NVIDIA driver",
            "install the driver (in a container, start it with --gpus all)",
        )
    if status == INSUFFICIENT_DRIVER:
        made_for = runtime.runtimeGetVersion() // 1000
        return (
            f"the NVIDIA driver is older than CUDA {made_for}, which this CuPy was built for",
            "update the driver, or install the CuPy wheel of an older CUDA",
        )
    if status == NO_DEVICE:
        return (
            f"there is a driver, but no visible GPU (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')!r})",
            "unset CUDA_VISIBLE_DEVICES or list a GPU in it",
        )
    return f"the CUDA runtime answers with error {status}", "see what nvidia-smi says"


def _open_torch(device):
    torch = _import("torch", "torch")
    try:
        device = torch.empty(1, device=device or "cpu").device  # "cuda" becomes "cuda:0", as arrays will say
    except Exception as error:
        why = f"PyTorch cannot use the device {str(device)!r} ({error})"
        raise UnusableError(why, "use torch for the CPU, torch:cuda for a GPU") from error
    return _compat("torch"), device


def _open_jax(device):
    if device:
        raise UnusableError(f"jax takes no device here, got {device!r}", "use jax, and JAX_PLATFORMS to choose one")
    jax = _import("jax", "jax")
    jax.config.update("jax_enable_x64", True)
    try:
        return import_module("jax.numpy"), jax.devices()[0]
    except RuntimeError as error:
        why = f"JAX finds no device ({error})"
        raise UnusableError(why, "unset JAX_PLATFORMS or name a platform it has") from error


def _open_strict(device):
    strict = _import("array_api_strict", "array-api-strict")
    try:
        return strict, strict.Device(device or "CPU_DEVICE")
    except ValueError as error:
        raise UnusableError(f"array_api_strict cannot use {device!r} ({error})", "use array_api_strict") from error


_OPEN = {
    "numpy": _open_numpy,
    "cupy": _open_cupy,
    "torch": _open_torch,
    "jax": _open_jax,
    "array_api_strict": _open_strict,
}
