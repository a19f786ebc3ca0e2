"""How far round-off scatters what is computed, measured instead of assumed.

Along a short line the results of an exact computation would be a smooth curve, so that their fourth to sixth
differences are round-off alone. Source: J. Moré and S. Wild, Estimating computational noise, SIAM J. Sci. Comput. 33
(2011).
"""

import math

from array_api_compat import device

from ..backend import random_generator, to_numpy
from ..functions import namespace

SAFE = 4.0  # standard deviations of round-off that are hardly ever exceeded
LINES, POINTS = 3, 8  # along which, and at how many points each, it is measured


def backprop_noise(subject, gradients):
    """Return {name: number}: what round-off may do to an entry of backpropagation, the most of each array.

    It is at most the root of the unit round-off of the largest gradient: what is more is a kink that was met.
    """
    names = [name for name, g in gradients.items() if g.size]
    if not names:
        return dict.fromkeys(gradients, 0.0)
    xp = namespace(gradients[names[0]])
    eps = max(float(namespace(v).finfo(v.dtype).eps) for v in subject.values.values())

    def row(changed):
        found = subject.gradients(changed)
        return xp.concat([xp.reshape(xp.astype(to_numpy(found[name]), xp.float64), (-1,)) for name in names])

    try:
        found = xp.stack([noise_of([row(changed) for changed in line]) for line in lines(subject.values, eps, 1)])
    except (KeyError, TypeError, ValueError, AttributeError):  # none at other values: nothing is known of their noise
        return dict.fromkeys(gradients, 0.0)
    middle = xp.sort(found, axis=0)[LINES // 2, ...]
    most = eps**0.5 * max(float(xp.max(xp.abs(gradients[name]))) for name in names)
    noise, start = dict.fromkeys(gradients, 0.0), 0
    for name in names:
        stop = start + gradients[name].size
        noise[name], start = SAFE * min(float(xp.max(middle[start:stop])), most), stop
    return noise


def lines(values, eps, seed):
    """Yield lines through ``values``, {name: array}, as lists of POINTS such dicts, everything moved a little."""
    rng = random_generator(seed, "audit")
    host = {name: to_numpy(value) for name, value in values.items()}
    sizes = {name: abs(value) + 1e-3 * abs(value).max(initial=0.0) for name, value in host.items()}
    if not any(size.any() for size in sizes.values()):
        sizes = {name: size + 1.0 for name, size in sizes.items()}
    for _ in range(LINES):
        moves = {name: 0.05 * eps**0.5 * rng.standard_normal(size.shape) * size for name, size in sizes.items()}
        yield [
            {
                name: namespace(v).asarray(host[name] + j * moves[name], dtype=v.dtype, device=device(v))
                for name, v in values.items()
            }
            for j in range(1, POINTS + 1)
        ]


def noise_of(rows):
    """Return the standard deviation of what is no smooth curve in rows of numbers along a line; 0 where not finite."""
    xp = namespace(rows[0])
    table, found = xp.stack(rows), []
    for k in range(1, 7):
        table = table[1:, ...] - table[:-1, ...]
        if k >= 4:
            found.append(xp.sqrt(math.factorial(k) ** 2 / math.factorial(2 * k) * xp.mean(table**2, axis=0)))
    least = xp.min(xp.stack(found), axis=0)
    return xp.where(xp.isfinite(least), least, 0.0)
