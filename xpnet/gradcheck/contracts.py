"""What every forward and backward must keep to, or a gradient check can tell nothing (book, 5.7.3)."""

import math

from ..backend import to_numpy
from ..functions import namespace


def not_finite(arrays):
    """Return a line for each of the named arrays that holds NaN or infinite values."""
    problems = []
    for name, array in arrays.items():
        xp = namespace(array, names=name)
        count = int(xp.count_nonzero(~xp.isfinite(array))) if xp.isdtype(array.dtype, "real floating") else 0
        if count:
            problems.append(f"NaN or infinite values in {name}: {count} of {math.prod(array.shape)}")
    return problems


def forward_problems(layers, x, *more):
    """Return what is wrong with layers whose forward changes its input or answers differently the second time."""
    xp = namespace(x)
    for layer in layers:
        given = [xp.asarray(x, copy=True) for _ in range(2)]  # a layer that writes must not reach the caller's x
        once, again = (xp.asarray(layer.forward(one, *more), copy=True) for one in given)
        name = type(layer).__name__
        if not all(bool(xp.all((one == x) | xp.isnan(x))) for one in given):
            return [f"{name}.forward changes its input; a layer must leave x alone"]
        if once.shape != again.shape or not bool(xp.all((once == again) | (xp.isnan(once) & xp.isnan(again)))):
            return [f"{name}.forward answers differently for the same input; a loss that is drawn has no gradient"]
        x = once
    return []


def backward_problems(gradients, half=None):
    """Return what is wrong if ``gradients()`` answers differently again, or ``half()`` with anything but its half."""
    once, again = _on_host(gradients()), _on_host(gradients())
    for name, g in once.items():
        if _differ(g, again[name]):
            return [
                f"backpropagation gives another gradient for {name} the second time: does backward add to the one it "
                "keeps? It must replace it"
            ]
    for name, g in _on_host(half()).items() if half else ():
        if _differ(2.0 * g, again[name]):
            return [f"half the loss has not half the gradient for {name}: a backward is not linear in its dout"]
    return []


def _on_host(gradients):
    return {name: to_numpy(g).copy() for name, g in gradients.items()}  # a copy, for a backward that adds to them


def _differ(a, b):
    xp = namespace(a, b)
    if a.shape != b.shape:
        return True
    smallest = xp.finfo(a.dtype).smallest_normal  # below which halves are rounded
    near = xp.abs(a - b) <= 1e-3 * xp.maximum(xp.abs(a), xp.abs(b)) + 1e3 * smallest
    return not bool(xp.all(near | (a == b) | (xp.isnan(a) & xp.isnan(b))))
