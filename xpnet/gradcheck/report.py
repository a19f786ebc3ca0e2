"""What a gradient check found, as numbers and as text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..annotations import Array, FilePath
from .page import both_gradients, fragment, page

WAYS = {"difference": "difference propagation", "stacked": "stacked evaluation", "loop": "plain loop"}
WAYS["direction"] = "random directions"


class Entry(NamedTuple):
    """One entry of a parameter: where it is, both gradients, and the relative error |a − n| / max(|a|, |n|)."""

    index: tuple  # type: ignore[assignment]  # a tuple has a method of that name
    numerical: float
    backprop: float
    error: float

    @property
    def ratio(self) -> float:
        """Backpropagation over numerical gradient."""
        if self.numerical == 0:
            return math.copysign(math.inf, self.backprop)
        return self.backprop / self.numerical


class ParameterCheck(NamedTuple):
    """The census of one parameter: how many of its entries were checked, and what became of them.

    Attributes
    ----------
    name, shape
        Of the parameter.
    how, h
        In which way, and with which step, the numerical gradient was found.
    passed : int
        Those that agree within the tolerance or the measured error bar.
    kinks : int
        Those on a kink of the loss, where backpropagation's value is an allowed one.
    undecided : int
        Those that agree within the error bar, but that is over a hundredth of their value.
    failed : int
        Those that disagree.
    largest : Entry
        The largest relative error among those that failed, or else passed.
    worst : tuple of Entry
        The failed ones with the largest absolute error.
    hint : str
        What all failures have in common.
    zeros : int
        Those that passed because both gradients are 0.
    unseen : int
        Those that failed and were counted like those looked at closely, because thousands fail alike.
    """

    name: str
    shape: tuple
    how: str
    h: float
    passed: int
    kinks: int
    undecided: int
    failed: int
    largest: Entry | None = None
    worst: tuple = ()
    hint: str = ""
    zeros: int = 0
    unseen: int = 0

    @property
    def checked(self) -> int:
        """The number of entries."""
        return self.passed + self.kinks + self.undecided + self.failed

    @property
    def imprecise(self) -> int:
        """The former name of ``undecided``."""
        return self.undecided


class GradientCheck:
    """What ``check_gradients`` found: true if all is right, and a report as its ``repr``.

    ``parameters`` holds a ``ParameterCheck`` for each array, ``problems`` what made the check impossible or doubtful,
    ``notes`` what a reader should know, and ``audit`` how the numerical gradient itself was confirmed.
    ``numerical`` and ``backprop`` are both gradients by name, NumPy arrays of float64, ``verdicts`` arrays of the words
    "pass", "kink", "undecided" and "fail", one for each entry.
    """

    def __init__(self, title: str, problems: Iterable[str] = ()) -> None:
        self.title, self.audit, self.seconds = title, "", 0.0
        self.parameters: list[ParameterCheck] = []
        self.problems, self.notes = list(problems), list[str]()
        self.numerical, self.backprop, self.verdicts = (dict[str, Array]() for _ in range(3))

    def __bool__(self):
        return bool(self.parameters) and not self.problems and not self.failed

    @property
    def checked(self) -> int:
        """The number of entries of all parameters."""
        return sum(p.checked for p in self.parameters)

    @property
    def failed(self) -> int:
        """The number of entries that failed."""
        return sum(p.failed for p in self.parameters)

    def add(self, other: GradientCheck, rename: Callable[[str], str] = str) -> None:
        """Take in another check, whose arrays have other names: ``rename(name)``."""
        self.title, self.audit = other.title, self.audit or other.audit
        self.parameters += [p._replace(name=rename(p.name)) for p in other.parameters]
        for mine, its in ((self.problems, other.problems), (self.notes, other.notes)):
            mine += [line for line in its if line not in mine]
        for kind in ("numerical", "backprop", "verdicts"):
            getattr(self, kind).update({rename(name): array for name, array in getattr(other, kind).items()})

    def to_dict(self, *, arrays: bool = False) -> dict[str, Any]:
        """Return it as dicts, lists, strings and numbers, with every entry if ``arrays``; None stands for NaN."""
        held = {name: getattr(self, name) for name in ("title", "seconds", "audit", "problems", "notes")}
        parameters = [{**p._asdict(), "checked": p.checked} for p in self.parameters]
        for p in parameters:
            p["shape"], p["worst"] = list(p["shape"]), [_plain(entry) for entry in p["worst"]]
            p["largest"] = _plain(p["largest"]) if p["largest"] else None
        found = {"passed": bool(self), "checked": self.checked, "failed": self.failed, **held, "parameters": parameters}
        if arrays:
            for kind in ("numerical", "backprop", "verdicts"):
                found[kind] = {name: array.tolist() for name, array in getattr(self, kind).items()}
        return found

    def save(self, file: FilePath) -> None:
        """Write the check as a page of HTML, with colours and words, to ``file``; raises OSError if that cannot be."""
        with open(file, "w", encoding="utf-8") as out:
            out.write(page(self))

    def _repr_html_(self):
        return fragment(self)

    def head(self) -> str:
        """Return one line: what was checked, how, and how long it took."""
        took = f"{1000 * self.seconds:.0f} ms" if self.seconds < 10 else f"{self.seconds:.0f} s"
        return f"{self.title}, {took}"

    def __repr__(self):
        lines = _line("gradient check", self.head())
        if self.audit:
            lines += _line("audit", self.audit)
        if self.parameters:
            lines.append(_row("parameter", "checked", "pass", "kink", "undecided", "fail", "rel. error"))
        for p in self.parameters:
            lines += _of_parameter(p)
        for kind, texts in (("problem", self.problems), ("note", self.notes)):
            lines += [line for text in texts for line in _line(kind, text)]
        return "\n".join([*lines, *_line("pass" if self else "FAIL", self.summary())])

    def summary(self) -> str:
        """Return one line: how many entries agree, or fail."""
        what = "directions" if self.parameters and self.parameters[0].how == "direction" else "entries"
        if self.failed:
            return f"{self.failed} of {self.checked} {what} fail"
        if self.problems:
            return "see the problem above" if self.checked else "nothing could be checked"
        others = {"on a kink": sum(p.kinks for p in self.parameters)}
        others["undecided"] = sum(p.undecided for p in self.parameters)
        agree = f"{self.checked - sum(others.values())} {what} agree"
        return agree + "".join(f", {count} are {where}" for where, count in others.items() if count)


WIDTH, INDENT = 100, 17


def _of_parameter(p):
    """Return the lines about one parameter: its counts, and what is known of its failures."""
    name = f"{p.name} ({', '.join(map(str, p.shape))})"
    error = f"{p.largest.error:.1e}" if p.largest else ""
    lines = [_row(name, p.checked, p.passed, p.kinks, p.undecided, p.failed, error)]
    shown = [p.largest] if p.failed and p.largest else []
    for entry in [*shown, *(entry for entry in p.worst if entry.index != p.largest.index)]:
        lines += _line("", f"at {entry.index!s}: {both_gradients(entry)}")
    if p.unseen:
        lines += _line("", f"{p.unseen} of them are counted like the {p.failed - p.unseen} looked at closely")
    return lines + _line("", p.hint)


def _line(head, text):
    """Return a text as lines, with its head before the first."""
    return textwrap.wrap(text, WIDTH, initial_indent=f"{head:<{INDENT}}", subsequent_indent=" " * INDENT)


def _plain(entry):
    numbers = {name: getattr(entry, name) for name in ("numerical", "backprop", "error", "ratio")}
    finite = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
    return {"index": list(entry.index), **finite}


def _row(name, *counts):
    alone = textwrap.shorten(name, WIDTH, placeholder=" …)") + "\n" if len(name) > 24 else ""
    return f"{alone}{'' if alone else name:<24}" + "".join(f"{count:>12}" for count in counts)
