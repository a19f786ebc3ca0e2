"""What the entries at hand cannot show: gradients that are all zero here, and layers that keep what they saw first."""

from ..functions import namespace
from .causes import cause_of_zeros
from .contracts import gradients_on_host, on_host
from .directions import together
from .measuring import Reference, as_array
from .verdicts import FAIL, KINK, PASS, UNDECIDED

LARGER = 1.1  # times as large are parameters beside another batch
FINER = 1 / 4  # of the tolerance: to which sums of all entries are compared for another batch
ELSEWHERE = 16  # times the round-off of backpropagation: what it may be at other values


def untested_lines(looks, judged):
    """Return (problems, notes) about arrays of which no entry was decided: all zero, on a kink, or undecided."""
    problems, notes, silent = [], [], []
    for name, one in judged.items():
        if one.codes is None or not one.codes.size:
            continue
        xp, undecided = namespace(one.a), one.codes == UNDECIDED
        if _decided(one) and (one.how == "difference" or not bool(xp.any(undecided))):
            continue
        code = None
        if int(xp.count_nonzero(undecided)) > 1 and bool(xp.any(xp.abs(one.a[undecided]) > looks.noise[name])):
            code, ratio = _undecided_together(looks, name, one, undecided)
            if code == FAIL:
                problems.append(
                    f"the undecided entries of {name}, moved together: backpropagation is {ratio:.5g} times the "
                    "numerical gradient"
                )
            elif code == PASS:
                notes.append(f"the undecided entries of {name} agree when they are moved together")
        if code is None and not _decided(one):
            silent.append(name)
        elif code == UNDECIDED and not _decided(one):
            problems.append(_too_small(looks, name))
    if silent:
        elsewhere = at_other_values(looks, silent)
        for name in silent:
            problem, note = _silent_line(looks, judged[name], name, *elsewhere[name])
            problems += problem
            notes += note
    return problems, notes


def _decided(judged):
    """Return whether anything was compared: entries that pass and are not zero on both sides, or that fail."""
    passed = (judged.codes == PASS) & ((judged.a != 0) | (judged.n != 0))
    return bool(namespace(judged.a).any((judged.codes == FAIL) | passed))


def _undecided_together(looks, name, one, undecided):
    return together(
        looks.reference,
        {name: one.a},
        {name: namespace(one.a).astype(undecided, one.a.dtype)},
        tolerance=looks.tolerance[name],
        noise=looks.noise,
        seed=looks.seed,
    )


def _too_small(looks, name):
    dtype = str(looks.subject.values[name].dtype).rpartition(".")[2]
    cure = "check in float64" if dtype != "float64" else "check with larger inputs or weights"
    return f"no entry of {name} is large enough for {dtype} to tell; {cure}"


def _silent_line(looks, one, name, code, ratio):
    """Return (problems, notes) about an array with nothing but zeros, or kinks, given what it is at other values."""
    zero = "0 on both sides" if not (one.a.any() or one.n.any()) else "0 within round-off"
    what = zero if bool((one.codes != KINK).any()) else "on a kink"
    here = f"every entry of {name} is {what}: nothing was tested"
    if code == PASS:
        return [], [f"every entry of {name} is {what}; with all values moved at random, they agree"]
    if code == FAIL:
        return [f"{here}, and with all values moved at random backpropagation is {ratio:.5g} times the right one"], []
    if one.a.any() or responds(looks.reference, name):
        return [], [f"every entry of {name} is 0 within round-off, here and elsewhere: what they do cancels"]
    return [f"{here}; {cause_of_zeros(looks.subject)}"], []


def responds(reference, name):
    """Return whether the outputs change at all, if only by round-off, when an array is moved far."""
    if reference.host[name].size == 0:
        return False
    host, xp = reference.host[name], namespace(reference.host[name])
    largest = float(abs(host).max()) or 1.0
    for factor in (1.0, -1.0, 0.37):
        step = 0.3 * factor * largest * xp.sin(1.0 + xp.reshape(xp.arange(host.size, dtype=host.dtype), host.shape))
        if (reference.outputs({name: as_array(host + step, reference.arrays[name])}) != reference.base).any():
            return True
    return False


def at_other_values(looks, names):
    """Return {name: (code, ratio)} of all entries of some arrays together, where every array is moved at random.

    The code is None where the gradient is zero there too, or nothing can be computed.
    """
    found, reference = dict.fromkeys(names, (None, 1.0)), None
    noise = {name: ELSEWHERE * size for name, size in looks.noise.items()}
    for name in names:
        g = looks.elsewhere.gradients.get(name)
        if g is None or not bool((abs(g) > noise[name]).any()):
            continue
        reference = reference or looks.elsewhere.reference()
        if reference is not None:
            everything = {name: namespace(g).ones(g.shape)}
            tolerance = looks.tolerance[name]
            found[name] = together(reference, {name: g}, everything, tolerance=tolerance, noise=noise, seed=looks.seed)
    return found


def other_batch(looks):
    """Return what is wrong with backpropagation on another batch, and with other values, which a layer may overlook.

    It would if it kept what it saw first. The batch is a mixture of the samples in the other order, the parameters are
    a tenth larger. Gradients of inputs that no array of ``values`` needs are compared there too.
    """
    subject = looks.subject
    everything = {**subject.inputs, **subject.values}
    name = "x" if "x" in everything else next(iter(everything))
    mixed = {other: LARGER * value for other, value in subject.values.items()} | {name: _mixed(everything[name])}
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
    return _who(looks, reference, gradients, everything, fine)


def _who(looks, reference, gradients, everything, fine):
    """Tell apart a wrong gradient of an input, something kept from an earlier batch, and wrong numerical gradients."""
    subject, wrong = looks.subject, {}
    for name, mask in everything.items():
        code, ratio = together(reference, gradients, {name: mask}, tolerance=fine, drawn=0)
        if code == FAIL:
            wrong[name] = ratio
            if name in looks.gradients:
                clear = 4 * looks.tolerance[name]
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
