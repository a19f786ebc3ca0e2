"""What every forward and backward must keep to, or a gradient check can tell nothing (book, 5.7.3)."""

import math

from ..backend import to_numpy
from ..functions import namespace
from ..layer_state import declared_generators, rewound

ROUND_OFF = 2**10  # unit round-offs of the largest number: what another order of summation may do
SAME = 1e-3  # of two gradients: what that may do where they cancel


def not_finite(arrays):
    """Return a line for each of the named arrays that holds NaN or infinite values."""
    problems = []
    for name, array in arrays.items():
        xp = namespace(array, names=name)
        count = int(xp.count_nonzero(~xp.isfinite(array))) if xp.isdtype(array.dtype, "real floating") else 0
        if count:
            problems.append(f"NaN or infinite values in {name}: {count} of {math.prod(array.shape)}")
    return problems


def require_array(layer, method, value, what):
    """Raise TypeError if what a layer's method returned is no array."""
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        came = "None" if value is None else f"a {type(value).__name__}"
        raise TypeError(f"{type(layer).__name__}.{method} returned {came}; it must return {what}")


def forward_problems(layers, x, *more, notes=None):
    """Return what is wrong with layers whose forward changes its input or answers differently the second time.

    What a reader should know is added to ``notes``.
    """
    notes = [] if notes is None else notes
    for layer in layers:
        answers = []
        for _ in range(2):
            answer, problems = forward_once(layer, x, *more)
            if problems:
                return problems
            answers.append(answer)
        name, (once, again) = type(layer).__name__, answers
        apart = distance(once, again)
        if apart > _allowed(once):
            drawn = f"two calls of forward(x) differ by {apart:.2g} of the largest number: is there dropout?"
            return [f"{name}.forward answers differently for the same input; {drawn}"]
        if apart:
            notes.append(f"two calls of {name}.forward differ by round-off, {apart:.0e}; it is taken into account")
        if once.dtype != x.dtype and namespace(x).isdtype(x.dtype, "real floating"):
            notes.append(returns_another_dtype(layer, x, once))
        x = once
    return []


def forward_once(layer, x, *more):
    """Return (output, problems) of a layer, whose forward must leave its input alone."""
    xp = namespace(x)
    given = xp.asarray(x, copy=True)  # a layer that writes must not reach the caller's x
    with rewound(declared_generators([layer])):
        answer = layer.forward(given, *more)
    require_array(layer, "forward", answer, "an array, its output")
    answer = xp.asarray(answer, copy=True)
    if not bool(xp.all((given == x) | xp.isnan(x))):
        return answer, [f"{type(layer).__name__}.forward changes its input; a layer must leave x alone"]
    return answer, []


def returns_another_dtype(layer, x, out):
    """Return the line that says so."""
    return f"{type(layer).__name__}.forward returns {_name(out.dtype)} for an input of {_name(x.dtype)}"


def _allowed(outputs):
    """Return the share of the largest of some outputs by which round-off may move them from one call to the next."""
    xp = namespace(outputs)
    return ROUND_OFF * float(xp.finfo(outputs.dtype).eps) if xp.isdtype(outputs.dtype, "real floating") else 0.0


def distance(once, again):
    """Return the largest difference of two arrays, as a share of the largest number; NaN is like NaN."""
    if once.shape != again.shape:
        return math.inf
    xp = namespace(once, again)
    same = (once == again) | (xp.isnan(once) & xp.isnan(again))
    if bool(xp.all(same)):
        return 0.0
    largest = float(xp.max(xp.abs(once)))
    apart = float(xp.max(xp.where(same, xp.zeros_like(once), xp.abs(once - again))))
    return apart / largest if apart == apart and largest > 0 else math.inf


def loss_problems(first, second, notes):
    """Return what is wrong with two values of the loss for the same x and t; add to ``notes`` what should be known."""
    if getattr(first, "shape", ()) != ():
        raise ValueError(
            f"the loss has shape {tuple(first.shape)}; a gradient needs one number: x must be one batch (N, …) with N "
            "targets"
        )
    once, again = float(first), float(second)
    if math.isnan(once):
        return ["the loss is NaN: a label that is no class, or numbers too large?"]
    apart = abs(once - again) / max(abs(once), abs(again)) if once != again else 0.0
    if not apart <= (_allowed(first) if hasattr(first, "dtype") else ROUND_OFF * 2.0**-23):
        drawn = f"two calls of loss(x, t) differ by {apart:.2g} of it: is there dropout?"
        return [f"the loss is another one for the same x and t; {drawn}"]
    if apart:
        notes.append(f"two calls of loss(x, t) differ by round-off, {apart:.0e}; it is taken into account")
    return []


def backward_problems(gradients, half=None):
    """Return what is wrong if ``gradients()`` answers differently again, or ``half()`` with anything but its half."""
    once = on_host(gradients())
    found = _told_apart(once, gradients)
    return found or (linear_problems(once, on_host(half()), gradients) if half else [])


def linear_problems(once, half, gradients):
    """Return what is wrong if ``half`` is not half of ``once``, both on the host; ``gradients()`` may tell why."""
    different = [name for name in half if name in once and _differ(2.0 * half[name], once[name], _slack(once))]
    if not different:
        return []
    name = different[0]
    deaf = f"half the loss has the same gradient for {name}: a backward ignores its dout"
    bent = f"half the loss has not half the gradient for {name}: a backward is not linear in its dout"
    ignores = all(not _differ(half[name], once[name], _slack(once)) for name in half)
    return _told_apart(once, gradients) or [deaf if ignores else bent]


def _told_apart(once, gradients):
    again = on_host(gradients())
    for name, g in once.items():
        if _differ(g, again[name], _slack(once)):
            adds = "does backward add to the one it keeps? It must replace it"
            why = adds if _adds(g, again[name], on_host(gradients())[name]) else "is something drawn, as by dropout?"
            return [f"backpropagation gives another gradient for {name} the second time: {why}"]
    return []


def on_host(gradients):
    """Return the arrays among gradients as copies on the host, for a backward that adds to them."""
    return {name: to_numpy(g).copy() for name, g in gradients.items() if hasattr(g, "dtype")}


def _slack(gradients):
    """Return what round-off may do to gradients that cancel, from the largest of them all."""
    if not gradients:
        return 0.0
    largest = max(float(abs(g).max(initial=0.0)) for g in gradients.values())
    eps = max(float(namespace(g).finfo(g.dtype).eps) for g in gradients.values())
    return ROUND_OFF * eps * largest if math.isfinite(largest) else 0.0


def gradients_on_host(subject, changed):
    """Return ({name: array of float64 on the host}, problems, notes) of a subject's gradients by backpropagation."""
    found, problems, notes, host = subject.gradients(changed), [], [], {}
    for name, value in subject.values.items():
        g = found.get(name)
        if g is None:
            given = "None" if name in found else "no gradient"
            problems.append(f"backpropagation gives {given} for {name}: forgotten?")
            continue
        if not isinstance(g, (int, float)) and not hasattr(g, "dtype"):
            problems.append(f"the gradient for {name} is a {type(g).__name__}; it must be an array like {name}")
            continue
        array = to_numpy(g)
        xp = namespace(array)
        if not xp.isdtype(array.dtype, "real floating"):
            problems.append(f"the gradient for {name} has dtype {array.dtype}; it must be of floats, as {name} is")
        elif hasattr(g, "dtype") and g.dtype != value.dtype:
            notes.append(f"the gradient for {name} has dtype {_name(g.dtype)}, but {name} has {_name(value.dtype)}")
        if not problems:
            host[name] = xp.astype(array, xp.float64, copy=True)
    return host, problems, notes


def _name(dtype):
    return str(dtype).rpartition(".")[2]


def _differ(a, b, slack):
    xp = namespace(a, b)
    if a.shape != b.shape:
        return True
    smallest = xp.finfo(a.dtype).smallest_normal  # below which halves are rounded
    near = xp.abs(a - b) <= SAME * xp.maximum(xp.abs(a), xp.abs(b)) + 1e3 * smallest + slack
    return not bool(xp.all(near | (a == b) | (xp.isnan(a) & xp.isnan(b))))


def _adds(once, again, third):
    """Return whether gradients grow by multiples of the same, as if each were added to the one before."""
    xp = namespace(once, again)
    if not once.shape == again.shape == third.shape:
        return False
    grown, more = again - once, third - again
    length, along = float(xp.sum(grown**2)), float(xp.sum(grown * more))
    return along > 0 and float(xp.sum((more - along / length * grown) ** 2)) <= 1e-4 * float(xp.sum(more**2))
