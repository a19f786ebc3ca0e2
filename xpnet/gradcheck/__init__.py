"""Gradient checks that explain themselves: backpropagation against numerical gradients, every entry (book, 5.7.3)."""

import contextlib
import math
import sys
import time
import warnings

from ..gradients import require_step
from ..state import unchanged
from .audit import audit as audited
from .census import census
from .contracts import gradients_on_host, linear_problems, on_host
from .dispatch import subject_for
from .looks import Looks
from .overlooked import forgotten, shared_memory, used_twice
from .report import WAYS, GradientCheck
from .untested import other_batch, untested_lines
from .verdicts import in_words

__all__ = ["GradientCheck", "check_gradients"]


def check_gradients(
    net,
    *inputs,
    gradient=None,
    backward=None,
    h=None,
    method="auto",
    tolerance=None,
    audit=16,
    worst=3,
    seed=0,
    progress=True,
):
    """Compare backpropagation with numerical gradients, every entry, and say what was found.

    ``net`` is a network, ours or any object with ``params``, ``loss(x, t)`` and ``gradient(x, t)``; ``x`` (N, D) and
    ``t`` are a batch. Or it is a single layer: then its gradients with respect to ``x`` and its ``parameters`` are
    checked, for a random ``dout``, or as an output layer if there is a ``t``.

    An entry passes if |a − n| ≤ ``tolerance``·max(|a|, |n|), by default 5e-6 in float64 and 3.5e-4, the square root of
    the unit round-off, in float32, or if it is within a measured error bar that is at most a hundredth of it. The
    others lie on a kink of the loss, where backpropagation may be anything between the one-sided slopes; are undecided,
    because round-off is more than a hundredth of them; or fail. Float32 is measured in float64 where the layers compute
    with that. ``audit`` entries drawn with ``seed`` are measured once more by the plain loop through ``loss`` itself.
    ``h`` and ``method`` are those of ``Network.numerical_gradient``. ``worst`` failures are listed. ``progress`` shows
    a bar on a terminal if the check takes long. Whatever the check runs is afterwards as it was, also when something
    raises.

    Returns a ``GradientCheck``, true if all is right: ``assert check_gradients(net, x, t)`` shows it when not. Raises
    TypeError for what is neither network nor layer and for integer or complex parameters, and what ``net`` raises.

    Source: Deep Learning from Scratch, 5.7.3; the procedure: docs/gradient_checks.md.
    """
    start = time.perf_counter()
    h = None if h is None else require_step(h)
    with unchanged(net, gradient, backward, *inputs):
        subject = subject_for(net, inputs, gradient, backward, seed)
        check = GradientCheck(f"{subject.title}, seed {seed}")
        with subject.context() if hasattr(subject, "context") else contextlib.nullcontext():
            examine(check, subject, h, method, tolerance, audit, worst, seed, progress)
    check.seconds = time.perf_counter() - start
    return check


def examine(check, subject, h, method, tolerance, audit, worst, seed, progress):
    """Fill in what becomes of a subject: contracts first, then every entry, then what no entry shows."""
    check.problems += subject.problems()
    check.notes += getattr(subject, "notes", [])
    found, pairs = shared_memory(subject.values) if not check.problems else ([], [])
    check.problems += found
    check.notes += [f"{one} and {two} share memory: each is checked as if it had its own" for one, two in pairs]
    gradients = _gradients(check, subject) if not check.problems else {}
    if check.problems:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps that lead out of where a function is defined
        looks = Looks(subject, gradients, h=h, method=method, tolerance=tolerance, seed=seed, by_loop=bool(pairs))
        judged = looks.judge(lambda what, total: _bar(progress, what, total))
        _title(check, subject, looks, judged, seed)
        for name, one in judged.items():
            check.parameters.append(census(name, one, subject.values[name], worst, subject.samples))
            check.notes += used_twice(subject, name) if one.how == "loop" and len(subject.layers) > 1 else []
            check.numerical[name], check.backprop[name] = one.n, one.a
            if one.codes is not None:
                check.verdicts[name] = in_words(one.codes)
        faster = {name: one for name, one in judged.items() if one.how != "loop" and one.codes is not None}
        if audit and faster:
            check.audit, problems = audited(looks.reference, faster, audit, seed)
            check.problems += problems
        problems, notes = untested_lines(looks, judged)
        check.problems += problems
        check.notes += notes
        if check:
            check.problems += other_batch(looks)


def _gradients(check, subject):
    """Return gradients by backpropagation on the host, or add to the problems of the check."""
    gradients, problems, notes = gradients_on_host(subject, {})
    check.problems += problems + forgotten(subject)
    check.notes += notes
    if not check.problems and hasattr(subject, "half"):
        half = on_host(subject.half())
        check.problems += linear_problems(gradients, half, lambda: subject.gradients({}))
    return gradients


def _title(check, subject, looks, judged, seed):
    ways = " and ".join(sorted({WAYS[one.how] for one in judged.values()}))
    steps = sorted({f"2^{math.log2(one.h):.3g}" for one in judged.values()})
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
