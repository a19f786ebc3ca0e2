"""What a gradient check found, as numbers and as text."""

import math
from typing import NamedTuple

WAYS = {"difference": "difference propagation", "stacked": "stacked evaluation", "loop": "plain loop"}


class Entry(NamedTuple):
    """One entry of a parameter: where it is, both gradients, and the relative error |a − n| / max(|a|, |n|)."""

    index: tuple
    numerical: float
    backprop: float
    error: float

    @property
    def ratio(self):
        """Backpropagation over numerical gradient."""
        if self.numerical == 0:
            return math.copysign(math.inf, self.backprop)
        return self.backprop / self.numerical


class ParameterCheck(NamedTuple):
    """The census of one parameter: how many of its entries were checked, and what became of them.

    ``passed`` agree within the tolerance or the measured error bound, ``zeros`` of them because both are 0; ``kinks``
    lie on a kink of the loss within the step, where backpropagation's value is an allowed one; ``imprecise`` agree
    within the error bound, but that is over a hundredth of their value; ``failed`` disagree.

    ``largest`` is the entry with the largest relative error among those that failed, or else passed. ``worst`` lists
    the failed ones with the largest absolute error, ``hint`` says what all failures have in common. ``how`` and ``h``
    tell how the numerical gradient was found.
    """

    name: str
    shape: tuple
    how: str
    h: float
    passed: int
    kinks: int
    imprecise: int
    failed: int
    largest: Entry | None = None
    worst: tuple = ()
    hint: str = ""
    zeros: int = 0

    @property
    def checked(self):
        """The number of entries."""
        return self.passed + self.kinks + self.imprecise + self.failed


class GradientCheck:
    """What ``check_gradients`` found: true if all is right, and a report as its ``repr``.

    ``parameters`` holds a ``ParameterCheck`` for each, ``problems`` what made the check impossible or doubtful, and
    ``audit`` how the numerical gradient itself was confirmed.
    """

    def __init__(self, title, problems=()):
        self.title, self.audit, self.seconds = title, "", 0.0
        self.parameters, self.problems = [], list(problems)

    def __bool__(self):
        return bool(self.parameters) and not self.problems and not self.failed

    @property
    def checked(self):
        """The number of entries of all parameters."""
        return sum(p.checked for p in self.parameters)

    @property
    def failed(self):
        """The number of entries that failed."""
        return sum(p.failed for p in self.parameters)

    def __repr__(self):
        lines = [f"gradient check   {self.title}, {1000 * self.seconds:.0f} ms"]
        if self.audit:
            lines.append(f"audit            {self.audit}")
        if self.parameters:
            lines.append(_row("parameter", "checked", "pass", "kink", "precision", "fail") + _LARGEST)
        for p in self.parameters:
            name = f"{p.name} ({', '.join(map(str, p.shape))})"
            lines.append(_row(name, p.checked, p.passed, p.kinks, p.imprecise, p.failed) + _entry(p.largest))
            lines += [_row("", "", "", "", "", "") + _entry(entry) for entry in p.worst if entry != p.largest]
            lines += [f"                 {p.hint}"] if p.hint else []
        lines += [f"problem          {problem}" for problem in self.problems]
        verdict = "pass" if self else "FAIL"
        undecided = {"on a kink": sum(p.kinks for p in self.parameters)}
        undecided["too small to tell"] = sum(p.imprecise for p in self.parameters)
        agree = f"{self.checked - sum(undecided.values())} entries agree"
        agree += "".join(f", {count} are {where}" for where, count in undecided.items() if count)
        if self.failed:
            agree = f"{self.failed} of {self.checked} entries fail"
        if self.problems and not self.failed:
            agree = "see the problem above" if self.checked else "nothing could be checked"
        lines.append(f"{verdict}             {agree}")
        return "\n".join(lines)


_LARGEST = "   largest rel. error  at                numerical     backprop       ratio"


def _row(name, *counts):
    return f"{name:<16}" + "".join(f"{count:>10}" for count in counts)


def _entry(entry):
    if entry is None:
        return ""
    values = f"{entry.numerical:>13.5e}{entry.backprop:>13.5e}{entry.ratio:>12.6g}"
    return f"   {entry.error:<18.1e}  {entry.index!s:<14}{values}"
