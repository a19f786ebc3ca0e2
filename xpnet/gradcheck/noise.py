"""How far round-off scatters what is computed, measured instead of assumed.

Along a short line the results of an exact computation would be a smooth curve, so that their fourth to sixth
differences are round-off alone. Source: J. Moré and S. Wild, Estimating computational noise, SIAM J. Sci. Comput. 33
(2011).
"""

import math

from array_api_compat import device

from ..backend import random_generator
from ..functions import namespace
from .host import OnTheWay

SAFE = 4.0  # standard deviations of round-off that are hardly ever exceeded
TERMS, CANCELLED = 8, 64  # unit round-offs that a sum may be wrong by, and one that cancels, of its terms
SCATTERED = 4.0  # times the middle of how far steps along a line differ from their middle: standard deviations at most
WIDER = 6  # moves, where numbers come in steps
LINES, POINTS = 3, 8  # along which, and at how many points each, it is measured


def backprop_noise(subject, gradients, elsewhere):
    """Return {name: number}: what round-off may do to an entry of backpropagation, the most of each array.

    Beyond the root of the unit round-off of the largest gradient only what scatters from point to point counts: a jump
    or two are kinks that were met. And it is at least some unit round-offs of the largest entry, or of that
    ``elsewhere``, at the nearest of other places, if it is far larger there: then sums cancel here whose terms are
    about as large. All places tell of zeros.
    """
    names = [name for name, g in gradients.items() if g.size]
    if not names:
        return dict.fromkeys(gradients, 0.0)
    xp = namespace(gradients[names[0]])
    eps = {name: float(namespace(value).finfo(value.dtype).eps) for name, value in subject.values.items()}
    largest = {name: float(abs(gradients[name]).max()) for name in names}
    most = max(eps.values()) ** 0.5 * max(largest.values())
    noise, start, rows = dict.fromkeys(gradients, 0.0), 0, _along_lines(subject, names, max(eps.values()))
    middle = None if rows is None else _middle(xp.stack([_capped(line, most) for line in rows]))
    for name in names:
        stop = start + gradients[name].size
        measured = 0.0 if middle is None else float(xp.max(middle[start:stop]))
        others = elsewhere if largest[name] == 0 else elsewhere[:1]
        other = max((float(abs(found[name]).max()) for found in others if name in found), default=0.0)
        cancelled = CANCELLED * other if other > 100 * largest[name] else 0.0
        noise[name], start = max(SAFE * measured, eps[name] * max(TERMS * largest[name], cancelled)), stop
    return noise


def stairs(subject, gradients):
    """Return {name: array}: what round-off may do to every entry of backpropagation, where moves are larger.

    Numbers such as 1 − y of a y near 1 come in steps that small moves do not leave. The lines that scatter least count,
    two of them in case one met no step: larger moves meet kinks, though hardly one on every line.
    """
    names = [name for name, g in gradients.items() if g.size]
    eps = max(float(namespace(v).finfo(v.dtype).eps) for v in subject.values.values())
    rows = _along_lines(subject, names, WIDER**2 * eps**0.5)
    if rows is None:
        return {name: g * 0.0 for name, g in gradients.items()}
    xp = namespace(rows[0][0])
    least, second = xp.sort(xp.stack([noise_of(line) for line in rows]), axis=0)[:2, ...]
    scatter, found, start = 2 * SAFE * (least * second) ** 0.5, {}, 0
    for name in names:
        stop = start + gradients[name].size
        found[name], start = scatter[start:stop].reshape(gradients[name].shape), stop
    return found


def _along_lines(subject, names, eps):
    """Return all gradients in one row at every point of each line, or None."""

    def row(changed):
        found = subject.gradients(changed)
        flat = [array.reshape(-1) for array in OnTheWay({name: found[name] for name in names}).host.values()]
        xp = namespace(flat[0])
        return xp.concat([xp.astype(one, xp.float64) for one in flat])

    try:
        return [[row(changed) for changed in line] for line in lines(subject.values, eps, 1)]
    except Exception:  # whatever a foreign backward raises at values that nobody gave
        return None


def lines(values, eps, seed):
    """Yield lines through ``values``, {name: array}, as lists of POINTS such dicts, everything moved a little."""
    rng = random_generator(seed, "audit")
    host = OnTheWay(values).host
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


def _capped(rows, most):
    """Return ``noise_of`` rows, where it is more than ``most`` without the few jumps that kinks on the line may be."""
    xp = namespace(rows[0])
    steps = xp.stack(rows)[1:, ...] - xp.stack(rows)[:-1, ...]
    scatter = _middle(xp.abs(steps - _middle(steps)))
    return xp.minimum(noise_of(rows), xp.maximum(SCATTERED * xp.where(xp.isfinite(scatter), scatter, 0.0), most))


def _middle(rows):
    return namespace(rows).sort(rows, axis=0)[rows.shape[0] // 2, ...]
