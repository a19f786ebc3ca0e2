"""PyTorch, CuPy: a step is recorded once, compared with the plain one, and repeated on one batch after another."""

from array_api_compat import array_namespace, device

from .arrays import copies, detached, put
from .repeating import CompileError, same_moves


def replayed(record, function, held, x, t, steps, batch):
    """Return run(order): steps ``function(parameters, x, t, rows)``, which returns (loss, moves), one after another.

    A step in place is recorded by ``record``; a counter on the device says which row of the order is next. Raises
    CompileError where it gives other numbers than the plain step.
    """
    xp, where = array_namespace(x), device(x)
    order, counter = (xp.zeros(shape, dtype=xp.int64, device=where) for shape in ((steps, batch), (1,)))
    losses = xp.zeros((steps,), dtype=next(iter(held.values())).dtype, device=where)
    rest, recorded = (x, t, order, counter, losses, xp.arange(steps, device=where)), {}

    def step(parameters, x, t, order, counter, losses, places):
        loss, moves = function(parameters, x, t, xp.take(order, counter, axis=0)[0, :])
        for value, move in zip(parameters, moves, strict=True):
            value -= move
        losses[...] = xp.where(places == counter, loss, losses)
        counter += 1

    def run(given):
        parameters, count = list(map(detached, held.values())), given.shape[0]
        which = tuple(map(id, parameters))
        if which not in recorded:  # the first time, and where an array has been replaced since
            practice = [xp.asarray(value, copy=True) for value in parameters]
            recorded.clear()
            recorded[which] = record(step, (practice, *rest), (parameters, *rest)), parameters
        order[:count, :], counter[...] = given, 0
        recorded[which][0](count)
        return xp.asarray(losses[:count], copy=True)

    before, rows = copies(held), xp.arange(batch, device=where)

    def as_plain(rows):
        expected = function(list(before.values()), x, t, rows)[1]
        run(rows[None, :])
        after = copies(held)
        put(held, before)
        return same_moves(expected, list(before.values()), list(after.values()))

    if not any(as_plain((rows + shift) % x.shape[0]) for shift in (1, 2)):  # others than it was recorded on
        raise CompileError(
            "repeated on another batch, the recorded step gives other numbers than the plain one; does a layer compute "
            "where it is not recorded, such as on a CUDA stream of its own?"
        )
    return run
