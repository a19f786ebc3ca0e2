"""What the entries at hand cannot show: gradients that are all zero here, and layers that keep what they saw first."""

from ..backend import random_generator
from ..functions import namespace
from .causes import CURE, cause_of_zeros, has_zero_weights
from .contracts import gradients_on_host, on_host
from .directions import together
from .elsewhere import does_nothing, scaled
from .measuring import Reference
from .verdicts import FAIL, KINK, PASS, UNDECIDED

LARGER = 1.1  # times as large are parameters beside another batch
FINER = 1 / 4  # of the tolerance: to which sums of all entries are compared for another batch
UNFELT = f"the loss does not feel it here, as if outputs were saturated, though it does elsewhere: {CURE}"
ELSEWHERE = 16  # times the round-off of backpropagation: what it may be at other values


def untested_lines(looks, judged):
    """Return (problems, notes) about arrays of which no entry was decided: all zero, on a kink, or undecided."""
    left = {name: one for name, one in judged.items() if _is_open(one)}
    sums = {name: _undecided_together(looks, name, one) for name, one in left.items()}
    found = [_undecided_line(looks, name, *sums[name], _decided(one)) for name, one in left.items()]
    silent = [name for name, one in left.items() if sums[name][0] is None and not _decided(one)]
    found += [_silent_line(looks, judged[name], name) for name in silent]
    problems, notes = [], []
    for wrong, known in found:
        problems += wrong
        notes += known
    if len(notes) == len(judged) and all("does nothing" in note for note in notes):
        problems.append("nothing that is checked changes the loss, here or at other values: is it computed from it?")
    return problems, notes


def _is_open(one):
    """Return whether single entries leave something to ask of an array as a whole."""
    if one.codes is None or not one.codes.size:
        return False
    return not _decided(one) or (one.how != "difference" and bool((one.codes == UNDECIDED).any()))


def _decided(judged):
    """Return whether anything was compared: entries that pass and are not zero on both sides, or that fail."""
    passed = (judged.codes == PASS) & ((judged.a != 0) | (judged.n != 0))
    return bool(namespace(judged.a).any((judged.codes == FAIL) | passed))


def _is_something(looks, name, one, undecided):
    """Return whether undecided entries are more than zeros with round-off."""
    xp = namespace(one.a)
    least = xp.maximum(looks.noise[name], looks.nothing(name, one.n))
    size = xp.maximum(xp.abs(one.a), xp.abs(one.n))
    return bool(xp.any(undecided & (size > least))) and not looks.does_nothing(name)


def _undecided_together(looks, name, one):
    """Return (code, ratio) of the undecided entries of an array, moved together; no code if they are mere zeros."""
    undecided = one.codes == UNDECIDED
    if undecided.sum() < 2 or not _is_something(looks, name, one, undecided):
        return None, 1.0
    return together(
        looks.reference,
        {name: one.a},
        {name: namespace(one.a).astype(undecided, one.a.dtype)},
        tolerance=looks.tolerance[name],
        noise={name: looks.uncertain(name, undecided)},
        seed=looks.seed,
    )


def _undecided_line(looks, name, code, ratio, decided):
    """Return (problems, notes) about undecided entries that were moved together."""
    what = f"the undecided entries of {name}"
    if code == FAIL:
        return [f"{what}, moved together: backpropagation is {ratio:.5g} times the numerical gradient"], []
    if code == PASS:
        return [], [f"{what} agree when they are moved together"]
    return ([_too_small(looks, name)] if code == UNDECIDED and not decided else []), []


def _too_small(looks, name):
    dtype = str(looks.subject.values[name].dtype).rpartition(".")[2]
    cure = "check in float64" if dtype != "float64" else "check with larger inputs or weights"
    return f"no entry of {name} is large enough for {dtype} to tell; {cure}"


def _silent_line(looks, one, name):
    """Return (problems, notes) about an array with nothing but zeros, or kinks, given what it is at other values."""
    zero = "0 on both sides" if not (one.a.any() or one.n.any()) else "0 within round-off"
    kinks = bool((one.codes == KINK).any())
    what = "on a kink" if kinks else zero
    here, (code, ratio) = f"every entry of {name} is {what}: nothing was tested", at_other_values(looks, name)
    if code == FAIL:
        return [f"{here}, and with all values moved at random backpropagation is {ratio:.5g} times the right one"], []
    if cause := cause_of_zeros(looks.subject):
        return [f"{here}; {cause}"], []
    if code == PASS and (kinks or has_zero_weights(looks.subject)):
        return [], [f"every entry of {name} is {what}; with all values moved at random, they agree"]
    if code == PASS:
        return [f"{here}; {UNFELT}"], []
    if code == UNDECIDED or kinks:
        return [f"{here}, and with all values moved at random it cannot be told"], []
    return [], [f"{name} does nothing, here and with all values moved at random: every entry is {zero}"]


def at_other_values(looks, name):
    """Return (code, ratio) of all entries of an array together, at the first of other places where they do anything.

    The code is None where they do nothing there either.
    """
    for place in looks.elsewhere:
        g = place.gradients.get(name)
        if g is None or place.reference is None:
            continue
        noise = ELSEWHERE * looks.noise[name]
        if does_nothing(place.reference, name, g, noise, looks.seed):
            continue
        everything = {name: namespace(g).ones(g.shape)}
        options = {"tolerance": looks.tolerance[name], "noise": {name: noise}, "seed": looks.seed}
        return together(place.reference, {name: g}, everything, **options)
    return None, 1.0


def other_batch(looks, judged):
    """Return what is wrong with backpropagation on another batch, and with other values, which a layer may overlook.

    It would if it kept what it saw first. The batch is a mixture of the samples in the other order, the parameters are
    a tenth larger. Gradients of inputs that no array of ``values`` needs are compared there too.
    """
    subject = looks.subject
    everything = {**subject.inputs, **subject.values}
    name = "x" if "x" in everything else next(iter(everything))
    mixed = {other: LARGER * value for other, value in subject.values.items()}
    mixed[name] = scaled(_mixed(everything[name]), random_generator(looks.seed, "audit"))  # so that no two stay equal
    try:
        if hasattr(subject, "with_inputs"):
            gradients = {n: g.astype("float64") for n, g in on_host(subject.with_inputs(mixed)).items()}
        else:
            gradients = gradients_on_host(subject, mixed)[0]
        reference = Reference(subject, mixed, looks.reference.wide)
    except Exception:  # whatever a foreign layer raises for a batch that nobody gave
        return []
    usable = [n for n, g in gradients.items() if g.shape == reference.host[n].shape and g.any()]
    everything = {n: namespace(gradients[n]).ones(gradients[n].shape) for n in usable}
    fine = FINER * max(looks.tolerance.values())
    if not usable or together(reference, gradients, everything, tolerance=fine, drawn=0, even=True)[0] != FAIL:
        return []
    fine = max(fine, looks.coarseness())
    return _who(looks, judged, reference, gradients, everything, fine)


def _who(looks, judged, reference, gradients, everything, fine):
    """Tell apart a wrong gradient of an input, something kept from an earlier batch, and wrong numerical gradients."""
    subject, wrong = looks.subject, {}
    for name, mask in everything.items():
        code, ratio = together(reference, gradients, {name: mask}, tolerance=fine, drawn=0)
        if code == FAIL:
            wrong[name] = ratio
            if name in looks.gradients and judged[name].codes is not None:
                clear, mask = 4 * looks.tolerance[name], judged[name].codes == PASS  # slopes at kinks do not add up
                code, ratio = together(looks.reference, looks.gradients, {name: mask}, tolerance=clear, drawn=0)
                if code == FAIL:
                    return [
                        f"all entries of {name}, moved together: backpropagation is {ratio:.5g} times what the loss "
                        "itself says, and so is the numerical gradient; the difference of a layer behind it is wrong"
                    ]
    inputs = [name for name in wrong if name in subject.inputs]
    problems = [
        f"the gradient of {name} that the first layer returns is wrong, {wrong[name]:.4g} times the right one; no "
        "parameter lies before it, so that no entry shows it"
        for name in inputs
    ]
    kept = [name for name in wrong if name not in inputs]
    if kept:
        problems.append(
            f"backpropagation is right here, but not for another batch and other values: {', '.join(kept)}; does a "
            "layer keep what it saw first?"
        )
    return problems


def _mixed(x):
    """Return mixtures of samples in the other order, of the given ones and of the mean: none lies where it did."""
    xp = namespace(x)
    if not x.ndim:
        return LARGER * x
    axis = 0 if x.ndim > 1 and x.shape[0] > 1 else -1
    mixed = 0.75 * xp.flip(x, axis=axis) + 0.15 * x + 0.1 * xp.mean(x)
    return LARGER * x if bool(xp.all(mixed == x)) else mixed
