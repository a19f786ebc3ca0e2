"""Arrays of which no entry was decided: what they are when moved together, what elsewhere, and why they are zero."""

from ..functions import namespace
from .directions import compared, together
from .elsewhere import does_nothing
from .verdicts import FAIL, KINK, PASS, UNDECIDED

CURE = "check with other inputs or weights"
UNFELT = f"the loss does not depend on it here, as if outputs were saturated, though it does elsewhere: {CURE}"
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
        problems.append(
            "nothing that is checked changes the loss, here or at other values: is the loss computed from it?"
        )
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
        {name: looks.wide_gradients.get(name, one.a)},
        {name: namespace(one.a).astype(undecided, one.a.dtype)},
        tolerance=looks.tolerance[name],
        noise={name: looks.uncertain(name, undecided)},
        seed=looks.seed,
    )


def _undecided_line(looks, name, code, ratio, decided):
    """Return (problems, notes) about undecided entries that were moved together."""
    what = f"the undecided entries of {name}"
    if code == FAIL:
        return [f"{what}, moved together: backpropagation {compared(ratio, 'the numerical gradient')}"], []
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
        return [f"{here}, and with all values moved at random backpropagation {compared(ratio, 'the right one')}"], []
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


def cause_of_zeros(subject):
    """Return why arrays of a subject have no gradient, and what to do; nothing if neither inputs nor units tell."""
    x = subject.inputs.get("x", subject.values.get("x"))
    if x is not None and not bool(namespace(x).any(x != 0)):
        return f"the inputs are all 0: {CURE}"
    found = []
    for title, layer in subject.layers[:-1]:
        x = layer.forward(x)
        found += _what_units_give(title, x)
    if subject.layers[:-1] and x.shape[-1] == 1 and float(subject.run({})) == 0:
        return "softmax over one score is always 1, and the loss always 0: take two classes, or another output layer"
    return "" if has_zero_weights(subject) or not found else found[0]


def _what_units_give(title, x):
    """Return a line if a layer gives nothing, or the same for every sample."""
    xp = namespace(x)
    if not bool(xp.any(x != 0)):
        return [f"{title} gives 0 for every sample, its units are dead: {CURE}"]
    if x.ndim > 1 and x.shape[0] > 1 and bool(xp.all(x == x[:1, ...])):
        return [f"{title} gives the same for every sample, its units are saturated: {CURE}"]
    return []


def has_zero_weights(subject):
    """Return whether all weights of a layer are 0: a beginning at which the gradients of others are 0 by symmetry."""
    weights = (value for name, value in subject.values.items() if name != "x" and value.ndim > 1)
    return any(not bool(namespace(value).any(value != 0)) for value in weights)
