"""Checks of JAX functions, custom rules included, in the user's setting of 32 or 64 bits."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import xpnet

pytest.importorskip("jax")
ROOT = Path(xpnet.__file__).parent.parent

PRELUDE = """
import sys, numpy as np, jax, jax.numpy as jnp
from xpnet import check_gradients
sys.path.append("tests")
from checking import failed, problem
rng = np.random.default_rng(0)
def array(*shape):
    return jnp.asarray(rng.normal(size=shape))
def custom(rule):
    @jax.custom_vjp
    def exp(x):
        return jnp.exp(x)
    exp.defvjp(lambda x: (jnp.exp(x), jnp.exp(x)), lambda y, dout: (rule(dout, y),))
    return exp
x = array(2, 3)
"""

PROGRAMS = {
    "a custom rule in one call": """
        check = check_gradients(custom(lambda dout, y: dout * y), x)
        assert check
        assert [p.name for p in check.parameters] == ["x"]
        assert not check_gradients(custom(lambda dout, y: 1.01 * dout * y), x)
        assert not check_gradients(custom(lambda dout, y: -dout * y), x)
        assert not check_gradients(custom(lambda dout, y: y), x)
    """,
    "a rule that raises or answers in another shape is a verdict": """
        assert problem(check_gradients(custom(lambda dout, y: 1 / 0), x)).startswith("JAX's gradient raised Zero")
        assert problem(check_gradients(custom(lambda dout, y: dout[0]), x)).startswith("JAX's gradient raised ")
    """,
    "several arguments, containers, integers": """
        def f(p, words, times):
            return times * jnp.tanh(p["W"][words] @ p["V"][0])
        check = check_gradients(f, {"W": array(5, 3), "V": [array(3, 2)]}, jnp.asarray([0, 4, 4]), 2)
        assert check
        assert [p.name for p in check.parameters] == ["p.W", "p.V[0]"]
    """,
    "several results, one number, no floats among some": """
        assert check_gradients(lambda x: {"a": x.sum(), "b": (x**2, x.argmax())}, x)
        assert check_gradients(lambda x: jnp.sum(x**3), x)
        assert check_gradients(jax.jit(lambda x: jax.nn.softmax(x)), x)
    """,
    "a stopped gradient is found": """
        assert failed(check_gradients(lambda x: x * jax.lax.stop_gradient(x), x)) == {"x": 6}
    """,
    "a key is an argument like another": """
        key = jax.random.key(3)
        assert check_gradients(lambda x, key: x * jax.random.bernoulli(key, 0.5, x.shape), x, key)
        assert check_gradients(lambda x, key: x * jax.random.bernoulli(key, 0.5, x.shape), x, jax.random.PRNGKey(3))
    """,
    "a claimed gradient beside JAX": """
        assert check_gradients(lambda x: jnp.sum(x**3), x, gradient=lambda x: 3 * x**2)
        assert failed(check_gradients(lambda x: jnp.sum(x**3), x, gradient=lambda x: x**2)) == {"x": 6}
    """,
    "what is drawn anew is named": """
        drawing = np.random.default_rng(0)
        assert "f is random: two calls differ" in problem(check_gradients(lambda x: x * drawing.normal(), x))
    """,
    "right functions pass here and in jax.test_util": """
        from jax.test_util import check_grads
        for f in (jnp.sin, jax.nn.softplus, lambda x: jnp.linalg.norm(x), lambda x: jnp.cumsum(x, axis=0)):
            check_grads(f, (x,), order=1, modes=["rev"])
            assert check_gradients(f, x), check_gradients(f, x)
    """,
}


@pytest.mark.parametrize("bits", [32, 64])
def test_in_a_process_that_never_made_a_backend(bits):
    """XPNET's backend "jax" switches 64 bits on for the whole process, so each setting needs one of its own."""
    lines = [f"import jax; jax.config.update('jax_enable_x64', {bits == 64})", PRELUDE]
    for name, program in PROGRAMS.items():
        lines += [f"print({name!r}, flush=True)", textwrap.dedent(program)]
        lines += [f"assert jax.config.jax_enable_x64 is {bits == 64} and array(1).dtype == 'float{bits}'"]
    code = "\n".join(lines)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert run.returncode == 0, f"{run.stdout}{run.stderr}"
    assert run.stdout.splitlines() == list(PROGRAMS)


@pytest.mark.parametrize("other", ["torch", "jax"])
def test_neither_library_is_imported_for_the_other_or_for_numpy(other):
    arguments = {"torch": "jax", "jax": "torch"}[other]
    pytest.importorskip(arguments)
    make = {"jax": "import jax.numpy as m; x = m.ones(3)", "torch": "import torch as m; x = m.ones(3)"}[arguments]
    code = f"""
import sys, numpy as np
from xpnet import check_gradients
assert check_gradients(lambda x: (x**2).sum(), np.ones(3), gradient=lambda x: 2 * x)
assert not {{"torch", "jax"}} & set(sys.modules)
{make}
assert check_gradients(lambda x: (x**2).sum(), x)
assert "{other}" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
