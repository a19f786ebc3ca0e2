"""Gradient checkers as their documentation says to use them, in one shape: a case and a dtype in, a verdict out."""

import re
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from xpnet import check_gradients

from .view import View


class Contender(NamedTuple):
    """``check(case, dtype)`` returns (passed, told, reason); told is False where a checker says that it cannot tell."""

    check: Callable
    needs: str = "numpy"
    dtypes: tuple = ("float64", "float32")

    def absent(self):
        """Return why it cannot be used, or an empty string."""
        return "" if find_spec(self.needs) else f"{self.needs} is not installed"


def verdict(contender, case, dtype):
    """Return (passed, told, reason) of a contender; an exception is a refusal."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            passed, told, why = contender.check(case, dtype)
    except Exception as error:
        passed, told, why = False, True, f"{type(error).__name__}: {error}"
    return bool(passed), told, " ".join(why.split())[:400]


def xpnet(case, dtype, library="numpy"):
    xp = np
    if library == "torch":
        import torch as xp
    net, x, t = case.build(xp, dtype)
    found = check_gradients(net, x, t, progress=False)
    _, *lines = repr(found).splitlines()
    why = " ".join(lines[next((i for i, line in enumerate(lines) if line.startswith("problem")), -1) :])
    untold = not found.failed and re.search(r"to tell|nothing was tested|undecided|cannot be told", why)
    return bool(found), not untold, why


def torch_gradcheck(case, dtype, **options):
    import torch

    view = View(case, dtype)

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *values):
            ctx.save_for_backward(*values)
            return torch.from_numpy(view.out(*(v.numpy() for v in values)).copy())

        @staticmethod
        def backward(ctx, dout):
            values = (v.detach().numpy() for v in ctx.saved_tensors)
            return tuple(torch.from_numpy(g.copy()) for g in view.vjp(dout.detach().numpy(), *values))

    torch.manual_seed(0)
    inputs = tuple(torch.from_numpy(value.copy()).requires_grad_() for value in view.values)
    return torch.autograd.gradcheck(Function.apply, inputs, **options), True, ""


def jax_check_vjp(case, dtype):
    import jax
    from jax.test_util import check_vjp

    view = View(case, dtype)

    def f_vjp(*values):
        values = [np.asarray(value) for value in values]
        return view.out(*values), lambda dout: tuple(view.vjp(np.asarray(dout), *values))

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        check_vjp(view.out, f_vjp, tuple(view.values))
    finally:
        jax.config.update("jax_enable_x64", before)
    return True, True, ""


def autograd_check_grads(case, dtype):
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    view = View(case, dtype)
    function = primitive(lambda *values: view.out(*values))
    makers = [lambda out, *values, i=i: lambda dout: view.vjp(dout, *values)[i] for i in range(len(view.names))]
    defvjp(function, *makers)
    np.random.seed(0)
    for i in range(len(view.names)):
        check_grads(function, i, modes=["rev"], order=1)(*view.values)
    return True, True, ""


def scipy_check_grad(case, dtype, limit):
    from scipy.optimize import check_grad

    view = View(case, dtype)
    value, gradients = view.weighted()
    ends = np.cumsum([v.size for v in view.values])[:-1]

    def values(flat):
        parts = np.split(flat, ends)
        return [part.astype(v.dtype).reshape(v.shape) for part, v in zip(parts, view.values, strict=True)]

    def gradient(flat):
        return np.concatenate([g.ravel() for g in gradients(*values(flat))])

    start = np.concatenate([v.ravel() for v in view.values])
    error = check_grad(lambda flat: value(*values(flat)), gradient, start)
    allowed = limit(float(np.linalg.norm(gradient(start))))
    return error <= allowed, True, f"error {error:.1e}, allowed {allowed:.1e}"


def entries(view, h, chosen):
    """Yield (name, backpropagation, central differences) of some entries of each array."""
    value, gradients = view.weighted()
    analytic = [np.array(g) for g in gradients(*view.values)]
    for i, (name, array) in enumerate(zip(view.names, view.values, strict=True)):
        if analytic[i].shape != array.shape:
            raise ValueError(f"the gradient of {name} has another shape")
        a, n = [], []
        for index in chosen(array):
            sides = []
            for sign in (1, -1):
                moved = [np.array(v) for v in view.values]
                moved[i][index] += sign * h
                sides.append(value(*moved))
            a.append(analytic[i][index])
            n.append((sides[0] - sides[1]) / (2 * h))
        yield name, np.asarray(a), np.asarray(n)


def book(case, dtype):
    """Deep Learning from Scratch, 5.7.3: h = 1e-4, and the average of |a − n| of a parameter is below 1e-7."""
    for name, a, n in entries(View(case, dtype), 1e-4, lambda array: np.ndindex(array.shape)):
        if not np.average(np.abs(a - n)) < 1e-7:
            return False, True, f"{name}: average {np.average(np.abs(a - n)):.1e}"
    return True, True, ""


def cs231n(case, dtype, limit):
    """Ten random entries of each array, h = 1e-5, |a − n|/(|a| + |n|) below ``limit``."""
    rng = np.random.default_rng(0)

    def chosen(array):
        return [tuple(int(rng.integers(n)) for n in array.shape) for _ in range(10)]

    for name, a, n in entries(View(case, dtype), 1e-5, chosen):
        size = np.abs(a) + np.abs(n)
        error = np.where(size > 0, np.abs(a - n) / np.where(size > 0, size, 1), 0.0).max()
        if not error < limit:
            return False, True, f"{name}: relative error {error:.1e}"
    return True, True, ""


F64, F32 = ("float64",), ("float32",)
CONTENDERS = {
    "xpnet": Contender(xpnet),
    "xpnet-torch": Contender(partial(xpnet, library="torch"), "torch"),
    "torch": Contender(torch_gradcheck, "torch"),
    "torch-fast": Contender(partial(torch_gradcheck, fast_mode=True), "torch"),
    "torch-eps-3e-4": Contender(partial(torch_gradcheck, eps=3e-4, atol=5e-5), "torch", F32),  # its own tests' float32
    "torch-eps-1e-3": Contender(partial(torch_gradcheck, eps=1e-3, atol=1e-2), "torch", F32),  # as many projects do
    "jax": Contender(jax_check_vjp, "jax"),
    "scipy-1e-6": Contender(partial(scipy_check_grad, limit=lambda size: 1e-6 * max(1.0, size)), "scipy"),
    "scipy-1e-4": Contender(partial(scipy_check_grad, limit=lambda size: 1e-4 * size), "scipy"),
    "autograd": Contender(autograd_check_grads, "autograd"),
    "book": Contender(book),
    "cs231n-1e-7": Contender(partial(cs231n, limit=1e-7)),
    "cs231n-1e-4": Contender(partial(cs231n, limit=1e-4)),
}
