"""Mini-batch gradient descent: batches, updates and a report for every epoch (book, 4.5.2 and 5.7.4)."""

from numbers import Integral
from typing import NamedTuple

from array_api_compat import array_namespace, device

from .backend import random_generator, to_numpy


class EpochRecord(NamedTuple):
    """What an epoch reached: numbers on the host, with ``losses`` one per iteration as a NumPy array."""

    epoch: int
    iteration: int
    loss: float
    train_accuracy: float
    test_accuracy: float | None
    losses: object


def epochs_of_batches(size, batch_size, rng, *, epochs=None, iterations=None, replacement=False):
    """Yield, for every epoch, a list of index arrays (batch,) into ``size`` samples, drawn on the host.

    An epoch uses every sample once, in an order drawn anew, and its last batch may be short. With
    ``replacement=True`` each batch is drawn from all samples, as in the book. ``epochs`` or ``iterations`` says where
    to stop; the last epoch of ``iterations`` may be cut. Raises ValueError unless exactly one of the two is given
    and all counts are positive.
    """
    if (epochs is None) == (iterations is None):
        raise ValueError(f"give epochs or iterations, one of them; got epochs={epochs} and iterations={iterations}")
    counts = {"size": size, "batch_size": batch_size, "epochs": epochs, "iterations": iterations}
    for name, count in counts.items():
        if count is None and name in ("epochs", "iterations"):
            continue
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{name} is {count!r}; it must be a whole number of at least 1")
    starts = range(0, size, batch_size)
    left = epochs * len(starts) if iterations is None else iterations
    while left > 0:
        if replacement:
            order = rng.integers(size, size=len(starts) * batch_size)
        else:
            order = rng.permutation(size)
        batches = [order[start : start + batch_size] for start in starts[:left]]
        yield batches
        left -= len(batches)


def train(
    network,
    x_train,
    t_train,
    x_test=None,
    t_test=None,
    *,
    epochs=None,
    iterations=None,
    batch_size=100,
    learning_rate=0.1,
    replacement=False,
    gradient="backpropagation",
    rng=0,
    on_iteration=None,
):
    """Train ``network`` in place by gradient descent on mini-batches, and yield an ``EpochRecord`` after each epoch.

    ``x_train`` (N, D) and ``t_train``, labels (N,) or weights (N, C), lie on the network's device; test data are
    optional. ``epochs`` or ``iterations`` says how long (the last epoch of ``iterations`` may be cut short);
    ``replacement=True`` draws every batch from all samples, as the book does, instead of using every sample once an
    epoch. ``gradient`` is "backpropagation" or "numerical". ``rng`` is a seed or a ``numpy.random.Generator``; the
    same seed gives the same batches on every backend. ``on_iteration``, if given, is called without arguments
    after each update. Nothing waits for the device within an epoch.

    Nothing happens until the generator is read. Raises ValueError for counts that are not positive, a learning
    rate that is not a positive number, or data whose lengths differ.

    Source: Deep Learning from Scratch, 4.5.2 and 5.7.4.
    """
    if gradient not in ("backpropagation", "numerical"):
        raise ValueError(f"gradient is {gradient!r}; it must be 'backpropagation' or 'numerical'")
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate is {learning_rate}; it must be a positive number")
    if (x_test is None) != (t_test is None):
        raise ValueError("x_test and t_test belong together; give both or neither")
    for x, t, which in ((x_train, t_train, "train"), (x_test, t_test, "test")):
        if x is not None and x.shape[0] != t.shape[0]:
            raise ValueError(f"x_{which} has {x.shape[0]} samples, but t_{which} has {t.shape[0]}")

    xp, where = array_namespace(x_train, t_train), device(x_train)
    learning_rate = float(learning_rate)  # a NumPy scalar would promote float32 parameters on some libraries
    rng = random_generator(rng, "batches")
    iteration = 0
    plan = epochs_of_batches(
        x_train.shape[0], batch_size, rng, epochs=epochs, iterations=iterations, replacement=replacement
    )
    for epoch, batches in enumerate(plan, start=1):
        order = xp.concat([xp.asarray(batch, device=where) for batch in batches])
        losses, start = [], 0
        for batch in batches:
            chosen = order[start : start + batch.shape[0]]
            start += batch.shape[0]
            x, t = xp.take(x_train, chosen, axis=0), xp.take(t_train, chosen, axis=0)
            if gradient == "numerical":
                loss, gradients = network.loss(x, t), network.numerical_gradient(x, t)
            else:
                loss, gradients = network.loss_and_gradient(x, t)
            for name in network.params:
                network.params[name] -= learning_rate * gradients[name]
            losses.append(loss)
            if on_iteration is not None:
                on_iteration()
        iteration += len(batches)
        losses = to_numpy(xp.stack(losses))
        yield EpochRecord(
            epoch,
            iteration,
            float(losses.mean()),
            float(network.accuracy(x_train, t_train)),
            None if x_test is None else float(network.accuracy(x_test, t_test)),
            losses,
        )
