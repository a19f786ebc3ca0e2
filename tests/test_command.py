"""`python -m xpnet`: the scripts of the repository for who has only installed the package."""

import shutil
from pathlib import Path

import pytest
from running import ROOT, run_python

from xpnet.__main__ import SCRIPTS, main, script_of


def test_both_jobs_are_scripts_of_the_repository():
    for job, script in SCRIPTS.items():
        assert Path(script_of(job).__file__) == ROOT / "examples" / script


def test_the_package_carries_them_with_it():
    tomllib = pytest.importorskip("tomllib")
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {f"examples/{name}": f"xpnet/examples/{name}" for name in SCRIPTS.values()}


def test_check_answers_like_the_script(tmp_path, capsys):
    assert main(["check", "--batch-size", "5", "--hidden", "5"]) == 0
    assert "pass  " in capsys.readouterr().out
    assert main(["check", "--batch-size", "5", "--hidden", "5", "--plant", "sign"]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_train_runs_where_only_the_package_is(tmp_path):
    package = tmp_path / "installed"
    shutil.copytree(ROOT / "xpnet", package / "xpnet", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "xpnet/examples").mkdir()
    for name in SCRIPTS.values():
        shutil.copy(ROOT / "examples" / name, package / "xpnet/examples")
    ran = run_python("-m", "xpnet", "train", "--iterations", "3", cwd=tmp_path, path=package)
    assert ran.returncode == 0, ran.stderr
    assert "test accuracy" in ran.stdout


@pytest.mark.parametrize("arguments", [(), ("predict",), ("--epochs", "1")])
def test_another_job_is_refused_with_those_there_are(tmp_path, arguments):
    ran = run_python("-m", "xpnet", *arguments, cwd=tmp_path)
    assert ran.returncode == 2
    assert "usage: python -m xpnet {train,check} [options]" in ran.stderr
    assert ran.stderr.count("\n") == 2


@pytest.mark.parametrize("job", SCRIPTS)
@pytest.mark.parametrize(
    ("option", "typed", "asked"),
    [
        ("--batch-size", "-3", "a whole number of at least 1"),
        ("--hidden", "0", "a whole number of at least 1"),
        ("--seed", "-1", "a whole number of at least 0"),
        ("--batch-size", "ten", "a whole number of at least 1"),
    ],
)
def test_a_number_that_cannot_be_is_refused_in_words(capsys, job, option, typed, asked):
    with pytest.raises(SystemExit, match="2"):
        main([job, option, typed])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"python -m xpnet {job}: error: argument {option}: got {typed}, but it must be {asked}"


@pytest.mark.parametrize("job", SCRIPTS)
def test_help_and_errors_name_the_command(tmp_path, job):
    told = run_python("-m", "xpnet", job, "--help", cwd=tmp_path)
    assert told.returncode == 0
    assert told.stdout.startswith(f"usage: python -m xpnet {job} [options]")
    wrong = run_python("-m", "xpnet", job, "--backend", "nothing", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(f"python -m xpnet {job}: error: ")
