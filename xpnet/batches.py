"""The mini-batches of a training: which samples each step is given, drawn on the host from a seed (book, 4.2.3)."""

from .backend import random_generator, seed_of
from .scalars import require_count


def epochs_of_batches(size, batch_size, rng, *, epochs=None, iterations=None, replacement=False, first=1):
    """Yield, for every epoch, a list of index arrays (batch,) into ``size`` samples, drawn on the host.

    An epoch uses every sample once, in an order of its own, and its last batch may be short. With
    ``replacement=True`` each batch is drawn from all samples, as in the book. ``epochs`` or ``iterations`` says where
    to stop; the last epoch of ``iterations`` may be cut. ``first`` is the number of the epoch to begin with: the
    batches of an epoch follow from its number and the seed ``rng`` alone. Raises as ``require_counts`` does.
    """
    import numpy as np

    require_counts(size, batch_size, epochs, iterations)
    seed, steps = seed_of(rng), steps_per_epoch(size, batch_size)
    left = (epochs * steps if iterations is None else iterations) - (first - 1) * steps
    while left > 0:
        generator = random_generator(seed, "batches", first)
        drawn = generator.integers(size, size=steps * batch_size) if replacement else generator.permutation(size)
        order = drawn.astype(np.intp, copy=False)  # as indices must be where 64 bits are too many
        batches = [order[k * batch_size : (k + 1) * batch_size] for k in range(min(steps, left))]
        yield batches
        left, first = left - len(batches), first + 1


def remaining(epochs, first, taken):
    """Yield (number, batches) of ``epochs``, the ``first`` of them without the ``taken`` batches it begins with."""
    for epoch, batches in enumerate(epochs, start=first):
        if batches[taken:]:
            yield epoch, batches[taken:]
        taken = 0


def steps_per_epoch(size, batch_size):
    """Return how many batches hold ``size`` samples."""
    return -(-size // batch_size)


def require_counts(size, batch_size, epochs, iterations):
    """Raise ValueError unless all counts are positive and one of ``epochs`` and ``iterations`` is given."""
    if (epochs is None) == (iterations is None):
        raise ValueError(f"give either epochs or iterations; got epochs={epochs} and iterations={iterations}")
    counts = {"size": size, "batch_size": batch_size, "epochs": epochs, "iterations": iterations}
    for name, count in counts.items():
        if count is not None or name in ("size", "batch_size"):
            require_count(name, count)
