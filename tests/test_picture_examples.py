"""The picture scripts: every one writes the PNG files it promises, without a display, and the path shows them all."""

import re

import pytest
from running import ROOT, run_python

from xpnet.installing import install_command

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("ch[0-9]*.py"))
PROMISED = {
    path.name: set(re.findall(r'show_or_save\(.+, "(\w+)", options\)', path.read_text(encoding="utf-8")))
    for path in SCRIPTS
}
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def matplotlib():
    return pytest.importorskip("matplotlib", reason="matplotlib is an extra: pip install 'xpnet[plot]'")


@pytest.fixture(scope="module")
def drawn(matplotlib, tmp_path_factory):
    """Return the folder into which the one command that draws everything drew, and what it printed."""
    cwd = tmp_path_factory.mktemp("drawn")
    command = ("-W", "error", EXAMPLES / "draw_all.py", "--quick", "--save", "a/folder")
    ran = run_python(*command, cwd=cwd, PYTHONWARNINGS="error")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return cwd / "a/folder", ran.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_writes_what_it_promises(drawn, path):
    from matplotlib.image import imread

    folder, printed = drawn
    written = re.search(rf"(?m)^\d+ of \d+: {path.name}\n((?:(?!\d+ of \d+: ).*\n)*)", printed)[1]
    assert PROMISED[path.name]
    assert set(re.findall(r"(\w+)\.png$", written, re.MULTILINE)) == PROMISED[path.name]
    for name in PROMISED[path.name]:
        assert name.startswith(path.stem[:5])  # sorts beside its script
        height, width, _ = (pixels := imread(folder / f"{name}.png")).shape
        assert 400 <= width <= 1200
        assert 200 <= height <= 700
        assert pixels[..., :3].std() > 0.02  # not empty


def test_nothing_else_is_written(drawn):
    folder, _ = drawn
    assert {path.name for path in folder.iterdir()} == {f"{name}.png" for name in set.union(*PROMISED.values())}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_two_scripts_never_write_the_same_file():
    names = [name for promised in PROMISED.values() for name in promised]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_opens_as_a_notebook(path):
    source = path.read_text(encoding="utf-8")
    assert len(re.findall(r"(?m)^# %%", source)) >= 2
    assert "__main__" not in source
    assert "plt.show" not in source


def test_script_runs_in_a_notebook_which_has_another_command_line(matplotlib, tmp_path):
    script = EXAMPLES / "ch4_3_tangent.py"
    code = (
        "import sys, types, matplotlib; sys.modules['ipykernel'] = types.ModuleType('ipykernel'); "
        "sys.argv[1:] = ['-f', 'kernel.json']; "
        "import matplotlib.pyplot as plt; plt.show = lambda: print('shown'); "
        f"exec(open({str(script)!r}, encoding='utf-8').read())"
    )
    ran = run_python("-c", code, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("shown\n")
    assert not list(tmp_path.iterdir())


def test_script_needs_nothing_of_the_repository_but_the_library(matplotlib, tmp_path):
    script = tmp_path / "ch4_3_tangent.py"
    script.write_text((EXAMPLES / script.name).read_text(encoding="utf-8"), encoding="utf-8")
    ran = run_python(script, "--save", ".", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "ch4_3_tangent.png").exists()


def test_no_script_imports_another_file_of_this_folder():
    files = {path.stem for path in EXAMPLES.glob("*.py")}
    for path in SCRIPTS:
        imported = re.findall(r"(?m)^ *(?:from|import) +(\w+)", path.read_text(encoding="utf-8"))
        assert not files & set(imported), path.name


def test_where_no_window_can_open_it_says_what_to_do(matplotlib, tmp_path):
    ran = run_python(EXAMPLES / "ch4_3_tangent.py", cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr == ("ch4_3_tangent.py: error: no window can be opened here; write files instead: --save FOLDER\n")


def test_without_matplotlib_it_says_what_to_do(tmp_path):
    code = (
        "import runpy, sys; sys.modules['matplotlib'] = None; "
        "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    script = tmp_path / "start.py"
    script.write_text(code)
    ran = run_python(script, EXAMPLES / "ch4_3_tangent.py", "--save", "x", cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr == f"ch4_3_tangent.py: error: pictures need matplotlib; run: {install_command('matplotlib')}\n"


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("ch4_2_why_not_accuracy", "array_api_strict"),
        ("ch5_7_gradient_check", "array_api_strict"),
        ("ch5_7_wrong_digits", "torch"),
    ],
)
def test_script_runs_on_another_backend(matplotlib, tmp_path, name, backend):
    from xpnet import why_unusable

    if reason := why_unusable(backend):
        pytest.skip(reason)
    ran = run_python(EXAMPLES / f"{name}.py", "--quick", "--save", tmp_path, cwd=tmp_path, XPNET_BACKEND=backend)
    assert ran.returncode == 0, ran.stderr


class TestPath:
    def test_every_script_is_on_it(self):
        files = {path: path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py")}
        imported = {name for source in files.values() for name in re.findall(r"(?m)^(?:from|import) +(\w+)", source)}
        for path in files:
            if path.stem not in imported:  # what others import is a part of them
                assert f"{path.name}" in README, f"give {path.name} its place in examples/README.md"

    def test_chapters_come_in_order(self):
        places = [README.index(f"`{path.name}`") for path in SCRIPTS]
        assert places == sorted(places)

    def test_every_file_it_names_is_there(self):
        for name in re.findall(r"`(\w+\.py)`", README):
            assert (EXAMPLES / name).exists(), name

    def test_committed_pictures_are_those_that_are_drawn_and_each_is_shown(self):
        committed = {path.name for path in (EXAMPLES / "pictures").iterdir()}
        assert committed == {f"{name}.png" for name in set.union(*PROMISED.values())}
        assert set(re.findall(r'src="pictures/([^"]+)"', README)) == committed

    def test_every_picture_says_in_words_what_it_shows(self):
        for tag in re.findall(r"<img [^>]+>", README):
            assert len(re.search(r'alt="([^"]*)"', tag)[1]) > 20, tag

    def test_committed_pictures_are_small(self):
        assert sum(path.stat().st_size for path in (EXAMPLES / "pictures").iterdir()) < 1_000_000

    def test_names_of_the_library_exist(self):
        import xpnet
        from xpnet import plotting

        names = re.findall(r"`(\w+(?:\.\w+)?)`", README.split("## Chapter 4")[1])
        names = [name for name in names if not name.endswith(".py")]
        assert len(names) > 20
        for name in names:
            owner, _, attribute = name.rpartition(".")
            place = {"": xpnet, "plotting": plotting, "network": xpnet.TwoLayerNet}[owner]
            assert hasattr(place, attribute), name
