"""Layers that keep what they saw first: everything runs at other values before the check, and with others after it."""

import warnings

from ..backend import random_generator
from ..functions import namespace
from .contracts import gradients_on_host, on_host
from .directions import together
from .elsewhere import scaled
from .measuring import Reference
from .verdicts import FAIL, PASS

LARGER = 1.1  # times as large are parameters beside another batch
FINER = 1 / 4  # of the tolerance: to which sums of all entries are compared for another batch
CLOSER = 0.1  # of its distance: how near gradients come that were wrong only later


def run_elsewhere(subject, seed):
    """Run a subject forward and backward at other values, before anything else: a layer may keep what it saw first.

    No normalization takes away how ``scaled`` moves them. What is not defined there is not run.
    """
    rng = random_generator(seed, "audit")
    everything = {name: value for name, value in subject.inputs.items() if name != "t"} | dict(subject.values)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subject.gradients({name: scaled(value, rng) for name, value in everything.items()})
    except Exception:  # whatever a foreign layer raises at values that nobody gave
        return


def kept_from_first_call(subject, failed):
    """Return a line if backpropagation is right where it is run for the first time, on objects as they were given.

    ``failed`` holds {name: (backpropagation, numerical gradient, mask of the entries that failed)}.
    """
    try:
        fresh = on_host(subject.gradients({}))
    except Exception:  # whatever a foreign layer raises: that was told
        return []
    right = [
        name
        for name, (a, n, mask) in failed.items()
        if name in fresh
        and fresh[name].shape == n.shape
        and bool(((abs(fresh[name] - n) <= CLOSER * abs(a - n)) | ~namespace(n).asarray(mask)).all())
    ]
    if not right or len(right) < len(failed):
        return []
    return [
        f"backpropagation is right at its first call, but not after one at other values: {', '.join(right)}; does a "
        "layer keep what it saw first?"
    ]


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
