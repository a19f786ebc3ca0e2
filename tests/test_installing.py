"""The command that installs what is missing, for the Python that runs and in every shell."""

import os
import shutil
import subprocess
import sys

import pytest

from xpnet import installing
from xpnet.installing import install_command


@pytest.fixture
def interpreters(tmp_path, monkeypatch):
    """Return a function that makes links to this interpreter, lets a shell find them, and runs as one of them."""

    def run_as(this, *names):
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).symlink_to(os.path.realpath(sys.executable))
        monkeypatch.setattr(sys, "executable", str(tmp_path / this))
        monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in ("first", "second")))
        return str(tmp_path / this)

    return run_as


def test_an_interpreter_that_a_shell_finds_is_named_shortly(interpreters):
    interpreters("first/python", "first/python", "second/python")
    assert install_command("matplotlib") == "python -m pip install matplotlib"
    interpreters("first/python3", "first/python3")
    assert install_command("matplotlib") == "python -m pip install matplotlib"


def test_where_only_python3_is_found_that_is_named(interpreters):
    interpreters("second/python3", "second/python3")
    assert install_command("mpi4py", "mpich") == "python3 -m pip install mpi4py mpich"


def test_another_environment_that_comes_first_is_not_taken_for_this_one(interpreters):
    """Both are links to one file, as the interpreters of two environments are."""
    this = interpreters("second/python", "first/python", "first/python3", "second/python")
    assert install_command("jax") == f"{this} -m pip install jax"


def test_an_interpreter_that_nobody_finds_is_named_by_its_place(interpreters):
    this = interpreters("third/python", "third/python")
    assert install_command("jax") == f"{this} -m pip install jax"


def test_a_program_without_an_interpreter_of_its_own(monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    assert install_command("jax") == "python -m pip install jax"


def test_what_a_shell_would_read_otherwise_is_quoted(monkeypatch):
    monkeypatch.setattr(installing, "_this_python", lambda: r"C:\Program Files\Python\python.exe")
    assert install_command("xpnet[plot]") == r'"C:\Program Files\Python\python.exe" -m pip install "xpnet[plot]"'


def test_the_command_runs_with_this_interpreter():
    command = install_command("--help").replace("-m pip install --help", "-c 'import sys; print(sys.executable)'")
    shell = shutil.which("sh") or pytest.skip("there is no shell of this kind")
    ran = subprocess.run([shell, "-c", command], capture_output=True, text=True, check=True)
    assert os.path.dirname(ran.stdout.strip()) == os.path.dirname(sys.executable)
