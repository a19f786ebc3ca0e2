"""What the picture scripts share, in one process; tests/test_picture_examples.py runs the scripts themselves."""

import sys

import pytest

from xpnet import showing


@pytest.fixture
def plt(monkeypatch):
    """Return pyplot on a backend without windows; command lines and hooks are as before afterwards."""
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is an extra: pip install 'xpnet[plot]'")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    yield plt
    plt.close("all")


def options_of(monkeypatch, *arguments, hosted=False):
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
    monkeypatch.setattr(showing, "HOSTED", hosted)
    return showing.command_line("What it shows.")


def test_a_picture_is_written_into_a_folder_that_is_made_for_it(plt, monkeypatch, tmp_path, capsys):
    options = options_of(monkeypatch, "--save", tmp_path / "a/b", "--quick")
    assert options.quick
    showing.show_or_save(plt.figure(), "name", options)
    assert capsys.readouterr().out == f"{tmp_path / 'a/b/name.png'}\n"
    assert plt.imread(tmp_path / "a/b/name.png").shape[2] >= 3
    assert not plt.get_fignums()


def test_who_hosts_a_script_keeps_the_command_line_and_shows_the_picture(plt, monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    options = options_of(monkeypatch, "-f", "kernel.json", hosted=True)
    assert (options.save, options.quick) == (None, False)
    showing.show_or_save(plt.figure(), "name", options)
    assert shown
    assert sys.excepthook is sys.__excepthook__


def test_no_window_and_no_folder_is_an_error_that_says_what_to_do(plt, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        options_of(monkeypatch)
    assert stopped.value.code == 2
    assert "write files instead: --save FOLDER" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_an_error_a_traceback(plt, monkeypatch, tmp_path, capsys):
    options_of(monkeypatch, "--save", tmp_path)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    sys.excepthook(ValueError, ValueError("this"), None)
    printed = capsys.readouterr()
    assert printed.out == "stopped by Ctrl-C\n"
    assert "ValueError: this" in printed.err


def test_progress_is_silent_unless_on_a_terminal(capsys):
    with showing.progress(3) as bar:
        bar.update()
    assert capsys.readouterr() == ("", "")
