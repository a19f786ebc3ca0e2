"""Gradient checks that explain themselves: backpropagation against numerical gradients, every entry (book, 5.7.3)."""

import contextlib
import math
import sys
import time
from collections.abc import Mapping
from functools import partial

from array_api_compat import device

from .backend import random_generator, to_numpy
from .census import NOISE, agree, census, noise, position, round_off, tolerance_of
from .contracts import backward_problems, forward_problems, not_finite
from .differences import Change
from .functions import namespace, require_floats
from .gradients import both_sides, default_step, require_step
from .layers import parameter_names
from .stacks import loss_with
from .report import WAYS, GradientCheck


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
    if not isinstance(getattr(net, "params", {}), Mapping):
        raise TypeError(f"net.params is {type(net.params).__name__}; it must be a dict of arrays by name: W1, b1, …")
    methods = ("loss", "gradient") if hasattr(net, "params") else ("forward", "backward")
    if isinstance(net, type) or not all(hasattr(net, method) for method in methods):
        raise TypeError(
            f"net is {net!r:.60}; check_gradients takes a network, with params, loss(x, t) and gradient(x, t), or a "
            "layer, with forward(x) and backward(dout)"
        )
    subject = _Network(net, x, t) if hasattr(net, "params") else _Layer(net, x, t, seed)
    for name, value in subject.values.items():
        require_floats(name, value)
    check = GradientCheck(f"{subject.title}, seed {seed}", problems=subject.problems())
    gradients = {} if check.problems else {name: to_numpy(g) for name, g in subject.gradients().items()}
    if gradients:
        missing = [name for name in subject.values if name not in gradients]
        check.problems += [f"backpropagation gives no gradient for {name}: forgotten?" for name in missing]
    if not check.problems:
        entries = sum(math.prod(value.shape) for value in subject.values.values())
        with _bar(progress, "checking gradients", entries) as tick:
            changes = subject.changes(h, method, tick)
        first, second = _on_host(changes), {}
        if _doubtful(gradients, first, tolerance):
            with _bar(progress, "with a smaller step", entries) as tick:
                second = _on_host(subject.changes(h, method, tick, second=True))
        ways = " and ".join(sorted({WAYS[change.how] for change in changes.values()}))
        steps = sorted({f"2^{math.log2(change.h):.3g}" for change in changes.values()})
        check.title = f"{subject.title}, {ways}, h = {' and '.join(steps)}, seed {seed}"
        loss = max(1.0, abs(float(subject.loss())))  # a small one is a difference of numbers near 1
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
        subject.loss()  # the layers remember this batch again, not a moved one
    check.seconds = time.perf_counter() - start
    return check


class _Network:
    """A network and a batch, as something that has arrays and a loss."""

    def __init__(self, net, x, t):
        xp = namespace(x, names="x")
        self.values = dict(net.params)
        if not self.values:
            raise ValueError(f"{type(net).__name__} has no parameters whose gradients could be checked")
        dtype = next(iter(self.values.values())).dtype
        if not xp.isdtype(x.dtype, "real floating"):
            net.loss(x, t)  # which knows better what is wrong with it
        elif x.dtype != dtype:
            x = xp.astype(x, dtype)
        self.net, self.x, self.t = net, x, t
        self.samples = x.shape[0] if x.ndim > 1 else 1
        self.title = f"{type(net).__name__}, batch {self.samples}, {str(dtype).rpartition('.')[2]}"

    def problems(self):
        ours = hasattr(self.net, "loss_changes")
        targets = {"t": self.t} if hasattr(self.t, "dtype") else {}
        found = not_finite({**self.values, "x": self.x, **targets})
        found = found or (forward_problems(list(self.net.layers.values()), self.x) if ours else [])
        if not found and (loss := float(self.loss())) != float(self.loss()):
            drawn = "the loss is another one for the same x and t; a loss that is drawn has no gradient"
            found = [drawn if loss == loss else "the loss is NaN: a label that is no class, or numbers too large?"]
        half = (lambda: self.net.loss_and_gradient(self.x, self.t, 0.5)[1]) if ours else None
        return found or backward_problems(self.gradients, half)

    def loss(self):
        return self.net.loss(self.x, self.t)

    def loss_with(self, name, value):
        return loss_with(self.net, name, self.x, self.t, value)

    def gradients(self):
        return self.net.gradient(self.x, self.t)

    def changes(self, h, method, tick, second=False):
        if hasattr(self.net, "loss_changes"):
            return self.net.loss_changes(self.x, self.t, h=h, method=method, second=second, progress=tick)
        return _changes_by_loop(self, h, tick, second)


class _Layer:
    """A single layer, its input and its parameters; the loss is a random weighted sum of its output."""

    def __init__(self, layer, x, t, seed):
        self.layer, self.more = layer, () if t is None else (t,)
        self.values = {"x": x, **{name: getattr(layer, name) for name in parameter_names(layer)}}
        xp = namespace(x, names="x")
        if 0 in x.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}: there is no entry in it")
        self.samples = x.shape[0] if x.ndim > 1 else 1
        self.title = f"{type(layer).__name__}, x {tuple(x.shape)}, {str(x.dtype).rpartition('.')[2]}"
        out = layer.forward(xp.asarray(x, copy=True), *self.more)
        draw = random_generator(seed, "audit").standard_normal(tuple(out.shape))
        self.dout = xp.asarray(draw, dtype=out.dtype, device=device(x))

    def problems(self):
        found = not_finite(self.values) or forward_problems([self.layer], self.values["x"], *self.more)
        if not found:
            given = self._fresh_dout()
            self.layer.backward(given)
            if not bool(namespace(given).all(given == self.dout)):
                found = [f"{type(self.layer).__name__}.backward changes its dout; return a new array"]
        return found or backward_problems(self.gradients)

    def _fresh_dout(self):
        return namespace(self.dout).asarray(self.dout, copy=True)

    def loss(self):
        return self.loss_with("x", self.values["x"])

    def loss_with(self, name, value):
        x = value if name == "x" else self.values["x"]
        if name != "x":
            setattr(self.layer, name, value)
        try:
            return namespace(x).sum(self.dout * self.layer.forward(x, *self.more))
        finally:
            if name != "x":
                setattr(self.layer, name, self.values[name])

    def gradients(self):
        self.loss()
        found = {"x": self.layer.backward(self._fresh_dout())}
        if found["x"] is None:
            raise TypeError(f"{type(self.layer).__name__}.backward returned None; it must return the gradient of its x")
        names = [name for name in self.values if name != "x" and hasattr(self.layer, f"d{name}")]
        return found | {name: getattr(self.layer, f"d{name}") for name in names}

    def changes(self, h, method, tick, second=False):
        return _changes_by_loop(self, h, tick, second)


def _changes_by_loop(subject, h, tick, second):
    changes = {}
    for name, value in subject.values.items():
        xp = namespace(value)
        step = default_step(value.dtype, xp) if h is None else require_step(h)
        step *= second_step("loop", value.dtype, xp) if second else 1.0
        values, steps = both_sides(partial(subject.loss_with, name), value, step, tick)
        changes[name] = Change((values - subject.loss()) * (step / steps), step, "loop")
    return changes


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
    return {name: Change(to_numpy(change.sides), change.h, change.how) for name, change in changes.items()}


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
            same_step = same_step or _on_host(subject.changes(h, method, lambda count: None))
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
    values, steps = both_sides(partial(subject.loss_with, name), subject.values[name], h, places=[index])
    return float(values[0, 0] - values[1, 0]) / float(steps[0, 0] + steps[1, 0])
