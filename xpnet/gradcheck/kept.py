"""Layers that keep what they saw first: everything runs at other values before the check, and with others after it."""

import warnings

from ..backend import random_generator
from ..functions import namespace
from .contracts import in_float64, taken
from .directions import compared, together
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
        fresh = taken(subject.gradients({})).host
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


class OtherBatch:
    """Another batch and other values: a layer that kept what it saw first is wrong there.

    The batch is a mixture of the samples in the other order, the parameters are a tenth larger. Gradients of inputs
    that no array of ``values`` needs are compared there too. Backpropagation runs at once, and is looked at later.
    """

    def __init__(self, looks):
        subject, self.looks, self.gradients, self.reference = looks.subject, looks, None, None
        everything = {**subject.inputs, **subject.values}
        name = "x" if "x" in everything else next(iter(everything))
        mixed = {other: LARGER * value for other, value in subject.values.items()}
        mixed[name] = scaled(_mixed(everything[name]), random_generator(looks.seed, "audit"))  # no two stay equal
        try:
            found = getattr(subject, "with_inputs", subject.gradients)(mixed)
            self.gradients = taken({n: found[n] for n in everything if n in found})
            self.reference = Reference(subject, mixed, like=looks.prepared)
        except Exception:  # whatever a foreign layer raises for a batch that nobody gave
            return

    def problems(self, judged):
        """Return what is wrong with backpropagation there."""
        if self.reference is None:
            return []
        gradients, reference = in_float64(self.gradients.host), self.reference
        usable = [n for n, g in gradients.items() if g.shape == reference.host[n].shape and g.any()]
        everything = {n: namespace(gradients[n]).ones(gradients[n].shape) for n in usable}
        fine = FINER * max(self.looks.tolerance.values())
        if not usable or together(reference, gradients, everything, tolerance=fine, drawn=0, even=True)[0] != FAIL:
            return []
        fine = max(fine, self.looks.coarseness())
        return _who(self.looks, judged, reference, gradients, everything, fine)


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
                    beside = compared(ratio, "what the loss itself says")
                    return [
                        f"all entries of {name}, moved together: backpropagation {beside}, and so is the "
                        "numerical gradient; the difference of a layer behind it is wrong"
                    ]
    inputs = [name for name in wrong if name in subject.inputs]
    problems = [
        f"the gradient of {name} that the first layer returns is wrong: all entries together, it "
        f"{compared(wrong[name], 'the right one')}; no parameter lies before it, so that no entry above shows it"
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
    """Return mixtures of samples in the other order, of the given ones and of the mean, somewhat larger than they."""
    if not x.ndim:
        return LARGER * x
    xp, axis = namespace(x), 0 if x.ndim > 1 and x.shape[0] > 1 else -1
    return 0.75 * LARGER * xp.flip(x, axis=axis) + 0.15 * LARGER * x + 0.1 * LARGER * xp.mean(x)
