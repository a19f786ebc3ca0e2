"""Kinks of the loss at the very values that are checked, where slopes to both sides may be no bounds.

Weights of 0 before a Relu put each of its units on its kink. Slopes to the right and to the left bound what
backpropagation may say of one kink. They do not where the loss is a sum of several that an entry passes in opposite
directions: |u| + |−2u| goes up by 3 to both sides, and whoever takes the slope of |u| at 0 for 1 says −1. So what is
right beside a kink is not said to be wrong on it.
"""

from ..backend import random_generator
from ..functions import namespace
from .elsewhere import Elsewhere
from .host import OnTheWay
from .measuring import as_array

DRAWN = 8  # places close by; each lies on one side of every kink
WIDE, CLOSE = 2.0**-12, 2.0**-18  # of the largest entry of what is moved: how far away
STAYS = 0.5  # the share of a jump that stays as places come closer


def jumps(subject, seed):
    """Return {name: array}: how far gradients here and where all is moved a little are apart, however little.

    It is 0 where they come together as what is moved moves less.
    """
    wide, close = (_apart(subject, seed, share) for share in (WIDE, CLOSE))
    both = {name: (wide[name], close[name]) for name in wide.keys() & close.keys()}
    return {name: namespace(now).where(now > STAYS * before, now, 0.0) for name, (before, now) in both.items()}


def _apart(subject, seed, share):
    rng, found = random_generator(seed, "audit"), []
    everything = {name: value for name, value in subject.inputs.items() if name != "t"} | dict(subject.values)
    host = OnTheWay(everything).host
    # the first is not moved, but laid out in memory as the others are: what depends on that is no kink
    for far in (0.0, *[share] * DRAWN):
        moved = {}
        for name, value in host.items():
            size = float(abs(value).max(initial=0.0)) or 1.0
            moved[name] = as_array(value + far * size * rng.standard_normal(value.shape), everything[name])
        found.append(Elsewhere(subject, moved).gradients)
    known = [name for name in subject.values if all(name in gradients for gradients in found)]
    stacks = {name: namespace(found[0][name]).stack([gradients[name] for gradients in found]) for name in known}
    return {
        name: namespace(stack).max(stack, axis=0) - namespace(stack).min(stack, axis=0)
        for name, stack in stacks.items()
    }
