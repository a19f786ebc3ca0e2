"""How to install what is missing: the command for the Python that runs, whose pip need not be the one called pip."""

import os
import sys


def install_command(*packages):
    """Return what to type to install ``packages`` for this interpreter, which is named as a shell finds it."""
    return " ".join(map(_quoted, (_this_python(), "-m", "pip", "install", *packages)))


def _this_python():
    """Return "python" or "python3" if a shell finds this interpreter by that name, else where it is."""
    import shutil  # here, because importing it takes a while

    this = sys.executable or "python"
    for name in ("python", "python3"):
        found = shutil.which(name)
        # the folder tells environments apart: their interpreters are links to one and the same file
        beside = found and os.path.dirname(found) == os.path.dirname(this)
        if beside and os.path.realpath(found) == os.path.realpath(this):
            return name
    return this


def _quoted(word):
    """Return ``word`` in double quotes, which all shells take, if it holds what a shell would read otherwise."""
    return word if all(letter.isalnum() or letter in "-_./\\:+" for letter in word) else f'"{word}"'
