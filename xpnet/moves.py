"""Moving single entries of an array, asking a function for its value, and putting them back (book, 4.4)."""

import contextlib
import itertools

from array_api_compat import device, is_writeable_array

from .arrays import detached
from .functions import namespace

CHANGES = "f changes its argument; write x = x - 1 instead of x -= 1, or let f work on a copy"


def positions(shape):
    """Return the indices of all entries of an array, in order."""
    return list(itertools.product(*map(range, shape)))


@contextlib.contextmanager
def left_alone(x, otherwise):
    """Put ``x`` back in the end, to the bit; raise ValueError with ``otherwise`` if anything but us had changed it."""
    if not is_writeable_array(x):
        yield
        return
    x = detached(x)
    xp = namespace(x)
    before = xp.asarray(x, copy=True)
    cause = None
    try:
        yield
    except Exception as error:
        cause = error
        if bool(xp.all((x == before) | (xp.isnan(x) & xp.isnan(before)))):
            raise
    else:
        if bool(xp.all((x == before) | (xp.isnan(x) & xp.isnan(before)))):
            return
    finally:
        x[...] = before
    raise ValueError(otherwise) from cause


@contextlib.contextmanager
def entry_at(x, index, value):
    """Give ``x`` with one entry at ``value``: ``x`` itself, put back in the end, or a copy where it is read-only."""
    if not is_writeable_array(x):
        yield moved(x, index, value)
        return
    held = detached(x)
    stored = namespace(x).asarray(held[index], copy=True)
    held[index] = value
    try:
        yield x
    finally:
        held[index] = stored


def both_sides(f, x, h, progress=None, places=None, map=None):
    """Return the values of ``f`` with each entry of ``x`` moved by +h and by −h, and the steps as stored: (2, …) each.

    ``h`` is one step, or a sequence of one for every entry. With ``places``, a list of indices, both are
    (2, len(places)). ``map`` shares the entries out, see ``workers``. Every plain loop of this library is this one; it
    reads no value on the host but whether a step vanished. Raises ValueError if one did, or if ``f`` returns no number.
    """
    xp = namespace(x)
    chosen = positions(x.shape) if places is None else places
    moves = [(index, h if isinstance(h, float) else h[number]) for number, index in enumerate(chosen)]
    if map is None:
        parts = [_ends((f, x), moves, progress)]
    else:
        from .workers import shared_out

        parts = shared_out(map, _ends_elsewhere, (f, x), moves, progress)
        parts = [[xp.asarray(n, device=device(x)) for n in part] for part in parts]  # they may come by another GPU
    shape = (2, *x.shape) if places is None else (2, len(chosen))
    values, steps = (xp.reshape(xp.reshape(xp.concat(n), (-1, 2)).T, shape) for n in zip(*parts, strict=True))
    if bool(xp.any(steps == 0)):
        raise ValueError(f"h = {h} is too small: an entry plus h is stored as the entry itself")
    return values, steps


def _ends(f_and_x, moves, progress=None):
    """Return the values of f and the steps as stored (2·k), up and down, for k moves (index, step)."""
    (f, x), values, steps = f_and_x, [], []
    for index, step in moves:
        stored = namespace(x).asarray(detached(x)[index], copy=True)
        for end in (stored + step, stored - step):
            with entry_at(x, index, end) as moved_x:
                values.append(scalar(f(moved_x)))
            steps.append(namespace(x).abs(end - stored))
        if progress:
            progress(1)
    return stack_numbers(values, x), stack_numbers(steps, x)


def _ends_elsewhere(f_and_x, moves):
    with left_alone(f_and_x[1], CHANGES):
        return _ends(f_and_x, moves)


def scalar(value):
    """Return what ``f`` returned if it is one number, on whatever device it lies."""
    if isinstance(value, (int, float)):
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "dtype"):
        xp = namespace(value)
        if xp.isdtype(value.dtype, "complex floating"):
            raise ValueError(f"f returned a number of dtype {value.dtype}; a gradient needs a real one")
        return xp.asarray(detached(value), copy=True)  # f may have returned a view of x, which is about to move
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    raise ValueError(
        f"f returned {type(value).__name__}{shape}; a gradient needs one number (sum or average it, or pass "
        "stacked=True if f takes a stack of inputs)"
    )


def stack_numbers(numbers, x):
    """Return numbers and 0-d arrays as a 1-D array in the dtype and on the device of ``x``."""
    xp, where = namespace(x), device(x)

    def array(n):
        if isinstance(n, (int, float)):  # which some libraries would store in fewer digits than x has
            return xp.asarray(n, dtype=x.dtype, device=where)
        return xp.astype(xp.asarray(n, device=where), x.dtype, copy=False)

    return xp.stack([array(n) for n in numbers])


def moved(x, index, value):
    """Return a copy of ``x`` with one entry at ``value``, built without writing."""
    xp = namespace(x)
    here = xp.ones((), dtype=xp.bool, device=device(x))
    for axis, i in enumerate(index):
        line = xp.arange(x.shape[axis], device=device(x)) == i
        here = here & xp.reshape(line, tuple(-1 if a == axis else 1 for a in range(x.ndim)))
    return xp.where(here, value, x)
