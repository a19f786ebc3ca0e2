"""Axes to draw into, and the colours and styles of lines."""

from __future__ import annotations

from typing import Any

from ..installing import install_command

BLUE, VERMILION, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#767676"
LINES = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": VERMILION, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": BLACK, "linestyle": ":", "marker": "D"},
)


def subplots(*args: Any, **options: Any) -> Any:
    """Return (figure, axes) as ``matplotlib.pyplot.subplots`` does, laid out so that no label is cut.

    Raises ModuleNotFoundError, with the line that installs it, if matplotlib is missing.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("matplotlib"):
            raise
        cure = install_command("matplotlib")
        raise ModuleNotFoundError(f"pictures need matplotlib, which is not installed; run: {cure}") from None
    return plt.subplots(*args, **{"layout": "constrained", **options})
