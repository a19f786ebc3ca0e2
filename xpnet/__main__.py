"""The two main jobs without the repository: `python -m xpnet train --help` and `python -m xpnet check --help`.

They are the scripts `examples/train.py` and `examples/check_gradients.py`, which the package carries with it.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

SCRIPTS = {"train": "train.py", "check": "check_gradients.py"}
HERE = Path(__file__).parent


def script_of(job):
    """Return the module of a script: from where the package was installed with it, or from the repository."""
    path = HERE / "examples" / SCRIPTS[job]
    if not path.exists():
        path = HERE.parent / "examples" / SCRIPTS[job]
    spec = importlib.util.spec_from_file_location(f"xpnet_{job}", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def main(arguments=None):
    """Do the job that the first argument names, with the others; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    about = "Train a network on MNIST, or check its backpropagation; %(prog)s train --help tells how."
    parser = argparse.ArgumentParser("python -m xpnet", "%(prog)s {train,check} [options]", about)
    parser.add_argument("job", choices=SCRIPTS, help="what to do; each has options of its own")
    job = parser.parse_args(arguments[:1]).job
    return script_of(job).main(arguments[1:], f"{parser.prog} {job}")


if __name__ == "__main__":
    sys.exit(main())
