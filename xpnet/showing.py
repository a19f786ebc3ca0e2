"""Show a picture in a window or the notebook, or save it: the command line that all picture scripts share.

A script that runs in a notebook, or for the gallery of the documentation, has no command line; there its pictures
appear below their cells.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from xpnet.installing import install_command

HOSTED = bool({"ipykernel", "sphinx_gallery"} & set(sys.modules))


def command_line(text):
    """Return the options ``save`` and ``quick`` of a script whose docstring is ``text``."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write PNG files there instead of opening a window")
    parser.add_argument("--quick", action="store_true", help="do not train for long: only to see that it runs")
    options = parser.parse_args([] if HOSTED else None)
    if not HOSTED:
        sys.excepthook = one_line_for_ctrl_c
    try:
        import matplotlib
    except ModuleNotFoundError:
        parser.exit(2, f"{parser.prog}: error: pictures need matplotlib; run: {install_command('matplotlib')}\n")
    if options.save:
        matplotlib.use("agg")
    elif not HOSTED and matplotlib.get_backend().lower() == "agg":
        parser.exit(2, f"{parser.prog}: error: no window can be opened here; write files instead: --save FOLDER\n")
    return options


def one_line_for_ctrl_c(kind, error, trace):
    """Print no traceback if the reader stopped the script."""
    if kind is KeyboardInterrupt:
        print("stopped by Ctrl-C")
    else:
        sys.__excepthook__(kind, error, trace)


def show_or_save(figure, name, options):
    """Show ``figure``, or write it as ``name``.png into the folder that ``--save`` names."""
    import matplotlib.pyplot as plt
    from PIL import Image

    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
        file = options.save / f"{name}.png"
        figure.savefig(file, dpi=100, metadata={"Software": None})
        plt.close(figure)
        with Image.open(file) as image:  # 256 colours are enough, and a third of the size
            small = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        small.save(file, optimize=True)
        print(file)
    else:
        plt.show()


def progress(iterations):
    """Return a bar for ``train(..., on_iteration=bar.update)``, which shows on a terminal only."""
    return tqdm(total=iterations, unit=" iterations", leave=False, disable=None)
