"""What every forward and backward must keep to, or a gradient check can tell nothing (book, 5.7.3)."""

import math

from ..functions import namespace
from ..layer_state import declared_generators, rewound
from .host import OnTheWay

ROUND_OFF = 2**10  # unit round-offs of the largest number: what another order of summation may do
SAME = 1e-3  # of two gradients: what that may do where they cancel


def floats_of(arrays):
    """Return those of the named arrays that hold floats."""
    return {
        name: array
        for name, array in arrays.items()
        if hasattr(array, "dtype") and namespace(array, names=name).isdtype(array.dtype, "real floating")
    }


def not_finite(arrays):
    """Return a line for each of the named arrays of floats, ``OnTheWay``, that holds NaN or infinite values."""
    problems = []
    for name, array in arrays.host.items():
        xp = namespace(array)
        if not xp.all(xp.isfinite(array)):
            count = int(xp.count_nonzero(~xp.isfinite(array)))
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
        answers, left_alone = zip(*(forward_once(layer, x, *more) for _ in range(2)), strict=True)
        flags, numbers = OnTheWay(dict(enumerate(left_alone))), OnTheWay(dict(enumerate(answers)))
        if not all(flags.host.values()):
            return [changes_its_input(layer)]
        name, once = type(layer).__name__, answers[0]
        apart = distance(*numbers.host.values())
        if apart > _allowed(once):
            return [is_random(f"{name}.forward(x)", apart, " of the largest number")]
        if apart:
            notes.append(f"two calls of {name}.forward differ by round-off, {apart:.0e}; it is taken into account")
        if once.dtype != x.dtype and namespace(x).isdtype(x.dtype, "real floating"):
            notes.append(returns_another_dtype(layer, x, once))
        x = once
    return []


def forward_once(layer, x, *more):
    """Return (output, flag) of a layer, whose forward must leave its input alone: the flag, an array, says it did."""
    xp = namespace(x)
    given = xp.asarray(x, copy=True)  # a layer that writes must not reach the caller's x
    with rewound(declared_generators([layer])):
        answer = layer.forward(given, *more)
    require_array(layer, "forward", answer, "an array, its output")
    return xp.asarray(answer, copy=True), xp.all((given == x) | xp.isnan(x))


def is_random(what, apart, of=""):
    """Return the line that says so of ``what``, of which two calls are ``apart``, a share."""
    if not math.isfinite(apart):
        return f"{what} is another the second time: its shape, or what is NaN or infinite in it, has changed"
    cure = "check without dropout, or let every call draw the same numbers"
    return f"{what} is random: two calls differ by {100 * apart:.3g} %{of}; {cure}"


def changes_its_input(layer):
    """Return the line that says so."""
    return f"{type(layer).__name__}.forward changes its input; a layer must leave x alone"


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
    once, again = map(float, OnTheWay({"first": first, "second": second}).host.values())
    if math.isnan(once):
        return ["the loss is NaN: a label that is no class, or numbers too large?"]
    apart = abs(once - again) / max(abs(once), abs(again)) if once != again else 0.0
    if not apart <= (_allowed(first) if hasattr(first, "dtype") else ROUND_OFF * 2.0**-23):
        return [is_random("loss(x, t)", apart)]
    if apart:
        notes.append(f"two calls of loss(x, t) differ by round-off, {apart:.0e}; it is taken into account")
    return []


def backward_problems(gradients):
    """Return what is wrong if ``gradients()`` answers differently again."""
    once, again = taken(gradients()), taken(gradients())
    return _told_apart(once.host, again.host, gradients)


def linear_problems(once, half, gradients):
    """Return what is wrong if ``half`` is not half of ``once``, both on the host; ``gradients()`` may tell why."""
    different = [name for name in half if name in once and _differ(2.0 * half[name], once[name], _slack(once))]
    if not different:
        return []
    name = different[0]
    deaf = f"half of dout gives the same gradient for {name}: a backward ignores its dout"
    bent = f"half of dout does not give half of the gradient for {name}: a backward must multiply by its dout"
    ignores = all(not _differ(half[name], once[name], _slack(once)) for name in half)
    return _told_apart(once, taken(gradients()).host, gradients) or [deaf if ignores else bent]


def _told_apart(once, again, gradients):
    for name, g in once.items():
        if _differ(g, again[name], _slack(once)):
            adds = "does backward add to the one it keeps? It must replace it"
            why = adds if _adds(g, again[name], taken(gradients()).host[name]) else "is something drawn, as by dropout?"
            return [f"backpropagation gives another gradient for {name} the second time: {why}"]
    return []


def taken(gradients):
    """Return the arrays and numbers among gradients on their way, as they are: the next backward may write there."""
    numbers = {n: g for n, g in gradients.items() if hasattr(g, "dtype") or isinstance(g, float)}
    return OnTheWay(numbers, copy=True)


def _slack(gradients):
    """Return what round-off may do to gradients that cancel, from the largest of them all."""
    if not gradients:
        return 0.0
    largest = max(float(abs(g).max(initial=0.0)) for g in gradients.values())
    eps = max(float(namespace(g).finfo(g.dtype).eps) for g in gradients.values())
    return ROUND_OFF * eps * largest if math.isfinite(largest) else 0.0


def gradient_problems(subject, gradients):
    """Return (problems, notes) about what a subject's backpropagation returned, before its numbers are known."""
    problems, notes = [], []
    for name, value in subject.values.items():
        g = gradients.get(name)
        if g is None:
            given = "None" if name in gradients else "no gradient"
            problems.append(f"backpropagation gives {given} for {name}: forgotten?")
        elif hasattr(g, "dtype") and not namespace(g).isdtype(g.dtype, "real floating"):
            problems.append(f"the gradient for {name} has dtype {g.dtype}; it must be of floats, as {name} is")
        elif hasattr(g, "dtype") and g.dtype != value.dtype:
            notes.append(f"the gradient for {name} has dtype {_name(g.dtype)}, but {name} has {_name(value.dtype)}")
        elif not hasattr(g, "dtype") and not isinstance(g, float):
            problems.append(f"the gradient for {name} is a {type(g).__name__}; it must be an array like {name}")
    return problems, notes


def gradients_on_host(subject, changed):
    """Return {name: array of float64 on the host} of a subject's gradients; nothing unless all can be used."""
    found = subject.gradients(changed)
    if gradient_problems(subject, found)[0]:
        return {}
    return in_float64(taken({name: found[name] for name in subject.values}).host)


def in_float64(host):
    """Return arrays on the host as copies in float64."""
    return {name: namespace(array).astype(array, namespace(array).float64) for name, array in host.items()}


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
