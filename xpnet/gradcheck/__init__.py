"""Gradient checks that explain themselves: backpropagation against numerical gradients, every entry (book, 5.7.3)."""

import contextlib
import math
import sys
import time
from functools import partial

from ..backend import random_generator, to_numpy
from ..differences import Change, second_step
from ..functions import namespace
from ..gradients import both_sides, default_step, require_step
from .report import WAYS, GradientCheck
from .subjects import subject_of
from .verdicts import NOISE, agree, census, noise, position, round_off, tolerance_of


def check_gradients(
    net, x, t=None, *, h=None, method="auto", tolerance=None, audit=16, worst=3, seed=0, progress=True
):
    """Compare backpropagation with numerical gradients, every entry, and say what was found.

    ``net`` is a network, ours or any object with ``params``, ``loss(x, t)`` and ``gradient(x, t)``; ``x`` (N, D) and
    ``t`` are a batch. Or it is a single layer: then its gradients with respect to ``x`` and its ``parameters`` are
    checked, for a random ``dout``, or as an output layer if there is a ``t``.

    An entry passes if |a − n| ≤ ``tolerance``·max(|a|, |n|), by default 1e-6 in float64 and 3.5e-4, the square root of
    the unit round-off, in float32. The others are measured again with a smaller step, and may then differ by what
    round-off can do. Where the loss has a kink within the step, backpropagation may be anything between the one-sided
    differences. ``audit`` entries drawn with ``seed`` are measured once more by the plain loop through ``loss`` itself.
    ``h`` and ``method`` are those of ``Network.numerical_gradient``. ``worst`` failures are listed. ``progress`` shows
    a bar on a terminal if the check takes long. Parameters are restored, also when something raises.

    Returns a ``GradientCheck``, true if all is right: ``assert check_gradients(net, x, t)`` shows it when not. Raises
    TypeError for what is neither network nor layer and for integer or complex parameters, and what ``net`` raises.

    Source: Deep Learning from Scratch, 5.7.3; the bounds are those of a central difference.
    """
    start = time.perf_counter()
    subject = subject_of(net, x, t, seed)
    check = GradientCheck(f"{subject.title}, seed {seed}", problems=subject.problems())
    gradients = {} if check.problems else {name: to_numpy(g) for name, g in subject.gradients({}).items()}
    if gradients:
        missing = [name for name in subject.values if name not in gradients]
        check.problems += [f"backpropagation gives no gradient for {name}: forgotten?" for name in missing]
    if not check.problems:
        entries = sum(math.prod(value.shape) for value in subject.values.values())
        with _bar(progress, "checking gradients", entries) as tick:
            changes = _changes(subject, h, method, tick)
        first, second = _on_host(changes), {}
        if _doubtful(gradients, first, tolerance):
            with _bar(progress, "with a smaller step", entries) as tick:
                second = _on_host(_changes(subject, h, method, tick, second=True))
        ways = " and ".join(sorted({WAYS[change.how] for change in changes.values()}))
        steps = sorted({f"2^{math.log2(change.h):.3g}" for change in changes.values()})
        check.title = f"{subject.title}, {ways}, h = {' and '.join(steps)}, seed {seed}"
        name, value = next(iter(subject.values.items()))
        loss = max(1.0, abs(float(_loss_with(subject, name, value))))  # a small one is a difference of numbers near 1
        largest = max(float(abs(change.gradient).max()) for change in first.values())
        for name, change in first.items():
            verdicts = census(
                name, gradients[name], change, second.get(name), loss, tolerance, worst, subject.samples
            )
            check.parameters.append(verdicts)
            decided = verdicts.checked - verdicts.imprecise - verdicts.zeros
            if verdicts.imprecise and not decided:
                size = noise(second[name], loss)
                if size > tolerance_of(change.sides, tolerance) * largest:  # else they are zeros beside the others
                    dtype = gradients[name].dtype
                    cure = "check in float64" if dtype.name != "float64" else "check with larger inputs or weights"
                    check.problems.append(f"no entry of {name} is large enough for {dtype} to tell; {cure}")
        if audit and any(change.how != "loop" for change in changes.values()):
            check.audit, problems = _audit(subject, first, check.parameters, loss, method, audit, seed)
            check.problems += problems
        subject.run({})  # the layers remember this batch again, not a moved one
    check.seconds = time.perf_counter() - start
    return check


def _changes(subject, h, method, tick, second=False):
    if hasattr(subject, "changes"):
        return subject.changes({}, h, method, second, tick)
    changes = {}
    for name, value in subject.values.items():
        step = default_step(value.dtype, namespace(value)) if h is None else require_step(h)
        step *= second_step(value) if second else 1.0
        values, steps = both_sides(partial(_loss_with, subject, name), value, step, tick)
        sides = (values - _loss_with(subject, name, value)) * (step / steps)
        changes[name] = Change((sides[0, ...] - sides[1, ...]) / (2 * step), step, "loop", sides)
    return changes


def _loss_with(subject, name, value):
    out = subject.run({name: value})
    return out if subject.weights is None else namespace(out).sum(subject.weights * out)


@contextlib.contextmanager
def _bar(progress, what, total):
    """Show the progress of a check that takes over a second, on a terminal only."""
    if not (progress and sys.stderr.isatty()):
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit=" entries", unit_scale=True, delay=1, leave=False) as bar:
        yield bar.update


def _on_host(changes):
    return {
        name: Change(to_numpy(change.gradient), change.h, change.how, to_numpy(change.sides))
        for name, change in changes.items()
    }


def _doubtful(gradients, changes, tolerance):
    """Return whether any entry needs a second look."""
    return any(
        gradients[name].shape == change.gradient.shape
        and not agree(gradients[name], change.gradient, tolerance_of(change.sides, tolerance)).all()
        for name, change in changes.items()
    )


def _audit(subject, changes, parameters, loss, method, count, seed):
    """Measure entries again by the plain loop through ``loss`` itself; return a line about it and the problems."""
    rng = random_generator(seed, "audit")
    chosen = {(p.name, p.largest.index) for p in parameters if p.largest}
    names = list(changes)
    while len(chosen) < min(count, sum(p.checked for p in parameters)):
        name = names[rng.integers(len(names))]
        shape = changes[name].gradient.shape
        chosen.add((name, position(int(rng.integers(math.prod(shape))), shape)))
    wrong, furthest, same_step = [], 0.0, None
    for name, index in sorted(chosen):
        value = subject.values[name]
        h = default_step(value.dtype, namespace(value))
        noise = NOISE * round_off(changes[name].sides) * loss / h
        expected = float(changes[name].gradient[index])
        measured = _measure(subject, name, index, h)
        if not abs(measured - expected) <= noise + 1e-3 * abs(expected):
            # another step meets other kinks: take the same
            same_step = same_step or _on_host(_changes(subject, h, method, lambda count: None))
            expected = float(same_step[name].gradient[index])
            if not abs(measured - expected) <= noise + 1e-3 * abs(expected):
                wrong.append((name, index, expected, measured))
        furthest = max(abs(measured - expected), furthest)  # in this order, NaN stays
    agree = f"{len(chosen) - len(wrong)} of {len(chosen)} entries agree with the plain loop"
    problems = []
    if wrong:
        name, index, expected, measured = wrong[0]
        problems.append(
            f"the numerical gradient itself is doubtful: at {name} {index} it is {expected:.6e}, but the plain loop "
            f"through loss finds {measured:.6e}; the difference of a layer behind {name} is wrong"
        )
    return f"{agree}, largest difference {furthest:.0e}", problems


def _measure(subject, name, index, h):
    """Return the central difference of the loss itself at one entry."""
    values, steps = both_sides(partial(_loss_with, subject, name), subject.values[name], h, places=[index])
    return float(values[0, 0] - values[1, 0]) / float(steps[0, 0] + steps[1, 0])
