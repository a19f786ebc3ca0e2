"""Gradient checks that explain themselves: backpropagation against numerical gradients, every entry (book, 5.7.3)."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from ..annotations import Map, Seed
from ..backend import computing_beside, seed_of
from ..scalars import is_number, require_count
from ..state import reachable, unchanged
from ..steps import require_step
from .audit import audit as audited
from .census import census
from .contracts import gradient_problems, in_float64, linear_problems, taken
from .jacobians import of_each_output
from .kept import OtherBatch, kept_from_first_call, run_elsewhere
from .overlooked import forgotten, modes, shared_memory, used_twice
from .report import WAYS, GradientCheck
from .samples import Sample
from .subjects import subject_for
from .untested import untested_lines
from .verdicts import in_words

NOT_AUDITED = ("loop", "direction")  # measured through the subject itself

__all__ = ["GradientCheck", "check_gradients"]


def check_gradients(
    network: Any,
    *inputs: Any,
    gradient: Any = None,
    backward: Callable[..., Any] | None = None,
    jacobian: bool = False,
    entries: int | None = None,
    directions: int | None = None,
    h: float | None = None,
    method: str = "auto",
    tolerance: float | None = None,
    audit: int = 16,
    worst: int = 3,
    rng: Seed = 0,
    progress: bool = True,
    map: Map | None = None,
) -> GradientCheck:
    """Compare backpropagation with numerical gradients, every entry, and say what was found.

    An entry passes if |a − n| ≤ ``tolerance``·max(|a|, |n|), or within a measured error bar that is at most a hundredth
    of it. The others lie on a kink of the loss, where backpropagation may be anything between the one-sided slopes; are
    undecided, because round-off is more than a hundredth of them; or fail. Float32 is measured in float64 where the
    layers compute with that. Whatever the check runs is afterwards as it was, also when something raises.

    What is checked, ``network`` with its ``inputs``, is one of these:

    - a network, ours or any object with ``params``, ``loss(x, t)`` and ``gradient(x, t)`` (or whose loss returns both),
      with a batch ``x`` (N, D) and ``t``;
    - a layer, with ``forward`` and ``backward``, and its inputs: what it returns is weighted by a random ``dout``;
    - a function of PyTorch tensors, a module, or a function of JAX arrays: its own differentiation is checked;
    - any other function, with ``gradient`` or ``backward``, or one that returns (loss, gradient) by itself.

    Source: Deep Learning from Scratch, 5.7.3; the procedure: docs/gradient_checks.md.

    Parameters
    ----------
    network : network, layer or function
        Its parameters are differentiated, and those inputs of a layer or function that are arrays of floats.
    *inputs : arrays, or dicts and sequences of them
        All else is passed through; a random generator is given to every call as it was.
    gradient : arrays or callable
        What is to be checked of a function: arrays, a function of the inputs, or of the inputs and a ``dout`` if it
        returns arrays; in the order of the inputs, with None for those not differentiated.
    backward : callable
        The same of a function that returns (out, cache): a function of (dout, cache).
    jacobian : bool
        Whether every result is checked by itself, instead of their random sum.
    entries : int
        How many entries of each array, drawn with ``rng``, the plain loop looks at, if all are too many.
    directions : int
        Along how many random directions all entries move at once, for what is larger still.
    h, method
        As in ``Network.numerical_gradient``.
    tolerance : float
        By default 5e-6 in float64 and 3.5e-4, the square root of the unit round-off, in float32.
    audit : int
        How many entries, drawn with ``rng``, are measured once more by the plain loop through ``loss`` itself.
    worst : int
        How many failures are listed.
    rng : int or numpy.random.Generator
        A seed, or what one is drawn from; the report names it.
    progress : bool
        Whether a bar is shown, on a terminal, if the check takes long.
    map : callable
        Such as that of a ``ProcessPoolExecutor``: shares out the plain loop, by which all but networks of ours are
        checked; ``network`` must be picklable then.

    Returns
    -------
    GradientCheck
        True if all is right; ``assert check_gradients(network, x, t)`` shows it when not. What the gradient gets wrong,
        an exception included, is told there.

    Raises
    ------
    TypeError
        For what has no gradient to be checked, and for integer or complex parameters.
    ValueError
        For options that do not fit. What ``network`` itself raises comes through.
    """
    start = time.perf_counter()
    seed, h = seed_of(rng), None if h is None else require_step(h)
    for name, number in (("audit", audit), ("worst", worst)):
        require_count(name, number, lowest=0)
    if tolerance is not None and not is_number(tolerance, lambda tolerance: 0 <= tolerance < 1):
        raise ValueError(f"tolerance is {tolerance!r}; it must be a number of at least 0 and below 1")
    with _as_it_was(network, gradient, backward, *inputs), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the network has one score")  # the check says it itself
        subject = subject_for(network, inputs, gradient, backward, seed)
        check = GradientCheck(f"{subject.title}, seed {seed}")
        with subject.context() if hasattr(subject, "context") else contextlib.nullcontext():
            for one, rename in of_each_output(subject) if jacobian else [(subject, str)]:
                part = GradientCheck(check.title)
                options = {"method": method, "map": map, "entries": entries, "directions": directions}
                examine(part, one, h, tolerance, audit, worst, seed, progress, **options)
                check.add(part, rename)
    if check.failed and not jacobian:  # all is as it was given
        names = [p.name for p in check.parameters if p.failed and p.name in check.verdicts]
        failed = {name: (check.backprop[name], check.numerical[name], check.verdicts[name] == "fail") for name in names}
        with _as_it_was(network, gradient, backward, *inputs):
            check.problems += kept_from_first_call(subject, failed)
            check.notes += modes(network, inputs)
    check.seconds = time.perf_counter() - start
    return check


@contextlib.contextmanager
def _as_it_was(*things):
    """Compute where the arrays in these things lie, and put back in the end what they are."""
    with computing_beside(reachable(things)), unchanged(*things):
        yield


def examine(check, subject, h, tolerance, audit, worst, seed, progress, **options):
    """Fill in what becomes of a subject: contracts first, then every entry, then what no entry shows."""
    run_elsewhere(subject, seed)
    gradients, shared = _contracts(check, subject)
    if check.problems:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps that lead out of where a function is defined
        options |= {"h": h, "tolerance": tolerance, "seed": seed, "by_loop": shared}
        looks = Sample(subject, gradients, **options)
        other_batch = OtherBatch(looks)
        judged = looks.judge(lambda what, total: _bar(progress, what, total))
        check.notes += looks.notes
        _title(check, subject, looks, judged, seed)
        _count(check, subject, judged, worst)
        _audit(check, looks, judged, audit, seed)
        _ask_further(check, looks, judged, other_batch)


def _contracts(check, subject):
    """Add to the problems of the check what is wrong before any entry; return gradients, and if arrays share memory."""
    check.problems += subject.problems()
    check.notes += getattr(subject, "notes", [])
    if check.problems:
        return {}, False
    check.problems, pairs = shared_memory(subject.values)
    check.notes += [f"{one} and {two} share memory: each is checked as if it had its own" for one, two in pairs]
    return _gradients(check, subject) if not check.problems else {}, bool(pairs)


def _gradients(check, subject):
    """Return gradients by backpropagation on the host, or add to the problems of the check."""
    found = subject.gradients({})
    problems, notes = gradient_problems(subject, found)
    once = taken({name: found[name] for name in subject.values} if not problems else {})
    check.problems += problems + forgotten(subject)
    check.notes += notes
    if not check.problems and hasattr(subject, "half"):
        half = taken(subject.half())
        check.problems += linear_problems(once.host, half.host, lambda: subject.gradients({}))
    return in_float64(once.host)


def _count(check, subject, judged, worst):
    """Fill in what became of the entries of each array."""
    for name, one in judged.items():
        check.parameters.append(census(name, one, subject.values[name], worst, subject.samples))
        check.notes += used_twice(subject, name) if one.how == "loop" and len(subject.layers) > 1 else []
        check.numerical[name], check.backprop[name] = one.n, one.a
        if one.codes is not None:
            check.verdicts[name] = in_words(one.codes)


def _audit(check, looks, judged, count, seed):
    """Have some entries that were found in faster ways measured again."""
    faster = {name: one for name, one in judged.items() if one.how not in NOT_AUDITED and one.codes is not None}
    if count and faster:
        check.audit, problems = audited(looks.reference, faster, count, seed)
        check.problems += problems


def _ask_further(check, looks, judged, other_batch):
    """Add what no single entry shows: arrays of which nothing was decided, and another batch."""
    problems, notes = untested_lines(looks, judged) if not looks.directions else looks.untested(judged)
    check.problems += problems
    check.notes += notes
    if check and not any(p.passed for p in check.parameters):
        check.problems.append("no entry agrees, all are on a kink or undecided: check with other inputs or weights")
    if check:
        check.problems += other_batch.problems(judged)


def _title(check, subject, looks, judged, seed):
    ways = " and ".join(sorted({WAYS[one.how] for one in judged.values()}))
    steps = [f"2^{math.log2(h):.3g}" for h in sorted({one.h for one in judged.values()}, reverse=True)]
    steps = " and ".join(steps) if len(steps) <= 2 else f"{steps[0]} … {steps[-1]}"
    wide = ", measured in float64" if looks.measured_wide else ""
    check.title = f"{subject.title}, {ways}, h = {steps}{wide}, seed {seed}"


@contextlib.contextmanager
def _bar(progress, what, total):
    """Show the progress of a check that takes over a second, on a terminal only."""
    if not (progress and sys.stderr.isatty()):
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit=" entries", unit_scale=True, delay=1, leave=False) as bar:
        yield bar.update
