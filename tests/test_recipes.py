"""Pages whose code is run: recipes, and the table of six faults that a program makes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import xpnet

ROOT = Path(xpnet.__file__).parent.parent
RECIPES = ROOT / "docs" / "check_anything.md"


def recipes():
    """Yield (title, code) of every block of the page."""
    text = RECIPES.read_text(encoding="utf-8")
    for part in text.split("\n## ")[1:]:
        title = part.splitlines()[0]
        for code in re.findall(r"```python\n(.*?)```", part, re.DOTALL):
            yield title, code


BLOCKS = dict(recipes())


def test_every_audience_has_a_recipe():
    for word in ("PyTorch", "JAX", "SciPy", "Course", "CuPy"):
        assert any(word in title for title in BLOCKS), word


@pytest.mark.parametrize("title", BLOCKS)
def test_a_recipe_runs(title):
    for library in re.findall(r"^(?:import|from) (torch|jax|scipy|cupy)\b", BLOCKS[title], re.MULTILINE):
        pytest.importorskip(library)
    if "import cupy" in BLOCKS[title] and (reason := xpnet.why_unusable("cupy")):
        pytest.skip(reason)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKS[title]], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert run.returncode == 0, run.stderr


def test_the_page_of_six_faults_says_what_the_program_finds(tmp_path):
    for library in ("torch", "jax", "scipy"):
        pytest.importorskip(library)
    program, page = ROOT / "docs" / "six_faults.py", ROOT / "docs" / "why_not_gradcheck.md"
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    verdicts = re.compile(
        r"^(?:###.*|\| `\S+` \| (?:accepted|refused) \| \S+(?: \S+)? \||\| `\S+` \| \d of \d.*)", re.MULTILINE
    )
    assert verdicts.findall(run.stdout)
    assert verdicts.findall(run.stdout) == verdicts.findall(page.read_text(encoding="utf-8"))
    assert "| `xpnet.check_gradients` | 6 of 6 | 2 of 2 |" in run.stdout
