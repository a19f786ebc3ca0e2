"""Python run as a user runs it, in a process of its own, with the library of this repository."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment(path=ROOT, **more):
    """Return the environment for it: no display, and no backend asked for by name unless told otherwise."""
    paths = os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH"))))
    ours = {"PYTHONPATH": paths, "XPNET_BACKEND": "", "MPLBACKEND": "agg", "PYTHONIOENCODING": "utf-8"}
    return {**os.environ, **ours, **more}


def run_python(*command, cwd=None, **more):
    """Run it to its end, in another directory; ``more`` is what the environment has beside."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment(**more),
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
