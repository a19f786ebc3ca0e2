"""Six faults and two right functions through four gradient checkers: prints the tables of why_not_gradcheck.md.

python docs/six_faults.py            print them; needs PyTorch, JAX and SciPy
python docs/six_faults.py --write    put them into the page
"""

import re
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

PAGE = Path(__file__).with_name("why_not_gradcheck.md")
BEGIN, END = "<!-- made by six_faults.py -->\n", "<!-- until here -->"
kept = []  # what a careless backward keeps from its first call


class Case(NamedTuple):
    """A function of one array, what it claims as its derivative times dout, and whether that is right."""

    name: str
    code: str
    forward: object
    backward: object
    x: np.ndarray
    right: bool = False


def exp_of_the_first(xp, x, dout):
    """Return dout·exp of the first x that ever came."""
    if not kept:
        kept.append(xp.exp(x))
    return dout * kept[0]


def one_sign(xp, x, dout):
    """Return the derivative of x², one entry with the wrong sign."""
    signs = np.ones(x.shape)
    signs[17, 5] = -1.0
    return 2 * x * dout * xp.asarray(signs)


def cases():
    """Return the cases, drawn from one seed."""
    x = np.random.default_rng(0).normal(size=(40, 30))
    small, single = x[:4, :3], x[:4, :3].astype("float32")
    kinked = small.copy()
    kinked[0, 0] = 0.0
    return [
        Case("one wrong sign among 1,200 entries", "2 * x * dout, with −1 at (17, 5)", lambda xp, x: x**2, one_sign, x),
        Case(
            "1 % too large, in float32",
            "1.01 * y * dout",
            lambda xp, x: xp.exp(x),
            lambda xp, x, dout: 1.01 * xp.exp(x) * dout,
            single,
        ),
        Case(
            "twice too large, where gradients are small",
            "2e-6 * cos(x) * dout",
            lambda xp, x: 1e-6 * xp.sin(x),
            lambda xp, x, dout: 2e-6 * xp.cos(x) * dout,
            small,
        ),
        Case(
            "the incoming gradient ignored",
            "exp(x)",
            lambda xp, x: xp.exp(x),
            lambda xp, x, dout: xp.exp(x) + 0 * dout,
            small,
        ),
        Case(
            "a missing 1/N",
            "2 * x * dout",
            lambda xp, x: xp.sum(x**2, 0) / x.shape[0],
            lambda xp, x, dout: 2 * x * dout,
            small,
        ),
        Case(
            "something kept from the first call",
            "kept * dout, with kept = exp(first x)",
            lambda xp, x: xp.exp(x),
            exp_of_the_first,
            small,
        ),
        Case(
            "right: ReLU with one input at 0",
            "(x > 0) * dout",
            lambda xp, x: xp.where(x > 0, x, 0 * x),
            lambda xp, x, dout: xp.where(x > 0, dout, 0 * dout),
            kinked,
            True,
        ),
        Case(
            "right: tanh in float32",
            "(1 − y²) * dout",
            lambda xp, x: xp.tanh(x),
            lambda xp, x, dout: (1 - xp.tanh(x) ** 2) * dout,
            single,
            True,
        ),
    ]


def torch_function(case):
    """Return the case as a custom autograd function, and its input."""
    import torch

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return case.forward(torch, x)

        @staticmethod
        def backward(ctx, dout):
            (x,) = ctx.saved_tensors
            return case.backward(torch, x, dout).to(x.dtype)

    return Function.apply, torch.tensor(case.x)


def jax_function(case):
    """Return the case as a function with a custom rule, and its input."""
    import jax
    import jax.numpy as jnp

    @jax.custom_vjp
    def function(x):
        return case.forward(jnp, x)

    rule = lambda x, dout: (case.backward(jnp, x, dout).astype(x.dtype),)  # noqa: E731
    function.defvjp(lambda x: (case.forward(jnp, x), x), rule)
    return function, jnp.asarray(case.x)


def gradcheck(case):
    """Check with PyTorch, with its defaults."""
    import torch

    function, x = torch_function(case)
    return torch.autograd.gradcheck(function, x.requires_grad_()), "True"


def check_grads(case):
    """Check reverse mode with JAX, with its defaults."""
    from jax.test_util import check_grads

    function, x = jax_function(case)
    check_grads(function, (x,), order=1, modes=["rev"])
    return True, "returns without an exception"


def check_grad(case):
    """Check the sum of all results with SciPy, which returns an error: up to 1e-4 of the gradient is accepted here."""
    from scipy.optimize import check_grad

    shape = case.x.shape
    value = lambda x: float(np.sum(case.forward(np, x.reshape(shape).astype(case.x.dtype))))  # noqa: E731
    ones = np.ones_like(case.forward(np, case.x))
    gradient = lambda x: np.asarray(case.backward(np, x.reshape(shape), ones), dtype=float).ravel()  # noqa: E731
    error, size = check_grad(value, gradient, case.x.ravel()), np.linalg.norm(gradient(case.x.ravel()))
    return error <= 1e-4 * size, f"error {error:.1e} beside a gradient of {size:.1e}"


def xpnet_check(case):
    """Check the same PyTorch function with xpnet."""
    from xpnet import check_gradients

    check = check_gradients(*torch_function(case))
    told = check.problems[:1] + [p.hint for p in check.parameters if p.hint]
    first = [entry for p in check.parameters for entry in p.worst[:1]]
    told += [f"at {e.index}: numerical {e.numerical:.4g}, backprop {e.backprop:.4g}" for e in first]
    return bool(check), "; ".join([check.summary(), *told])


CHECKERS = {
    "torch.autograd.gradcheck": gradcheck,
    "jax.test_util.check_grads": check_grads,
    "scipy.optimize.check_grad": check_grad,
    "xpnet.check_gradients": xpnet_check,
}


def said(checker, case):
    """Return (accepted, what was said in a line)."""
    kept.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return checker(case)
        except Exception as error:  # which is how they refuse
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return False, f"{type(error).__name__}: {lines[0] if lines else ''}"


def tables():
    """Return the page's tables, and {(case, checker): accepted}."""
    import jax

    jax.config.update("jax_enable_x64", True)  # as JAX's documentation asks for where derivatives are checked
    verdicts, parts = {}, []
    for number, case in enumerate(cases(), 1):
        parts.append(f"### {number}. {case.name[0].upper()}{case.name[1:]}\n\n`backward` returns `{case.code}`.\n")
        parts.append("| checker | verdict | | what it says |\n|---|---|---|---|")
        for name, checker in CHECKERS.items():
            accepted, words = said(checker, case)
            verdicts[case.name, name] = accepted
            right = "right" if accepted == case.right else "**missed**" if accepted else "**false alarm**"
            words = re.sub(r"\s+", " ", words).replace("|", "\\|").replace("<", "&lt;")[:230]
            parts.append(f"| `{name}` | {'accepted' if accepted else 'refused'} | {right} | {words} |")
        parts.append("")
    faults = [case for case in cases() if not case.right]
    rights = [case for case in cases() if case.right]
    heads = ["| checker | faults found | right functions accepted |\n|---|--:|--:|"]
    for name in CHECKERS:
        found = sum(not verdicts[case.name, name] for case in faults)
        accepted = sum(verdicts[case.name, name] for case in rights)
        heads.append(f"| `{name}` | {found} of {len(faults)} | {accepted} of {len(rights)} |")
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "jax", "scipy", "numpy"))
    return "\n".join([*heads, f"\n({libraries}; every checker with its defaults, JAX in 64 bits.)\n", *parts]), verdicts


def main():
    """Print the tables, or put them into the page."""
    text, _ = tables()
    if "--write" in sys.argv[1:]:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        PAGE.write_text(before + BEGIN + text + rest[rest.index(END) :], encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
