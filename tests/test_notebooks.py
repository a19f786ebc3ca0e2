"""The notebooks: converted and run as a reader runs them, outside the repository; a mended exercise is found right."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import running

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples/notebooks").glob("*.py"))
TOOLS = "jupytext, nbclient and ipykernel are in the extra `notebooks`"

RUN = """
import sys, jupytext, nbclient, nbformat
notebook = jupytext.read(sys.argv[1])
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.get("outputs", []):
        if output.output_type == "stream" and output.name == "stdout":
            print(output.text, end="")
        elif output.output_type == "execute_result":
            print(output.data["text/plain"])
        elif "image/png" in output.get("data", {}):
            print("picture")
"""


def execute(script, folder):
    """Return what the cells of ``script`` show if they are run in ``folder``."""
    for module in ("jupytext", "nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(module, reason=TOOLS)
    environment = {name: value for name, value in os.environ.items() if name not in ("XPNET_BACKEND", "MPLBACKEND")}
    environment |= {
        "PYTHONPATH": running.environment()["PYTHONPATH"],
        "PYTHONIOENCODING": "utf-8",
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(script)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["chapter4", "chapter5"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_anywhere_and_says_what_is_not_answered(path, tmp_path):
    shown = execute(path, tmp_path)
    assert "picture" in shown
    assert "not yet" in shown or "not answered yet" in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_exercises_come_in_order_and_each_is_checked(path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"\*\*Exercise (\d)\.", text) == list("12345")
    assert "## Answers" in text
    assert "\nassert " in text.partition("## Answers")[2]


def test_answers_in_place_of_the_exercises_are_found_right(tmp_path):
    """What a learner would write: the answers of chapter 4 under the names of the exercises."""
    text = (ROOT / "examples/notebooks/chapter4.py").read_text(encoding="utf-8")
    exercises, answers = text.split("# ## Answers")
    for number, name in ((1, "my_cross_entropy"), (2, "my_diff"), (3, "my_gradient")):
        answer = re.search(rf"(?ms)^def answer_{number}\(.*?(?=^def |^answer_|^assert )", answers)[0]
        start = exercises.index(f"def {name}(")
        end = exercises.index("# %%", start)
        exercises = exercises[:start] + answer.replace(f"answer_{number}", name) + exercises[end:]
    exercises = exercises.replace("my_rate = 0.1", "my_rate = 0.9")
    script = tmp_path / "chapter4.py"
    script.write_text(exercises, encoding="utf-8")
    shown = execute(script, tmp_path)
    assert re.findall(r"(?m)^exercise (\d): right$", shown) == list("12345"), shown
