"""Gradient checkers as their documentation says to use them, in one shape: a case and a dtype in, a verdict out."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from xpnet import check_gradients


class Contender(NamedTuple):
    """``check(case, dtype)`` returns (passed, told, reason); told is False where a checker says that it cannot tell."""

    check: Callable
    needs: str = "numpy"
    dtypes: tuple = ("float64", "float32")

    def absent(self):
        """Return why it cannot be used, or an empty string."""
        return "" if find_spec(self.needs) else f"{self.needs} is not installed"


def xpnet(library):
    def check(case, dtype):
        xp = np
        if library == "torch":
            import torch as xp
        net, x, t = case.build(xp, dtype)
        found = check_gradients(net, x, t, progress=False)
        return bool(found), bool(found.failed) or "raised" in repr(found), reason(repr(found))

    return check


def reason(report):
    """Return the lines of a report that say what is wrong, else its verdict."""
    lines = [" ".join(line.split()) for line in report.splitlines()]
    told = [line for line in lines if line.startswith(("problem", "FAIL", "undecided", "not tested"))]
    return "; ".join(told or lines[-1:])


CONTENDERS = {
    "xpnet": Contender(xpnet("numpy")),
    "xpnet-torch": Contender(xpnet("torch"), "torch"),
}
