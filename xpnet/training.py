"""The learning loop: mini-batch gradient descent, and a report after every epoch (book, 4.5.2 and 5.7.4)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from .annotations import Array, Seed
from .arrays import copies, detached, put
from .backend import computing_beside, seed_of, to_numpy
from .batches import epochs_of_batches, remaining, require_counts, steps_per_epoch
from .compiling import compiled
from .describing import record_in_words
from .diagnosis import (
    Progress,
    is_read_only,
    likely_cause,
    require_data,
    require_rate,
    require_step,
    require_updates_arrive,
    too_large,
)


class TrainingError(ArithmeticError):
    """A training that went wrong: the loss or a parameter became NaN or infinite. The message names the likely cause.

    ``epoch`` and ``iteration`` say when; ``parameters`` are the last good ones, those from before that epoch, which
    the network holds again.
    """

    def __init__(self, message: str, epoch: int, iteration: int, parameters: dict[str, Array]) -> None:
        super().__init__(message)
        self.epoch, self.iteration, self.parameters = epoch, iteration, parameters

    def __reduce__(self):  # an exception is otherwise made again from its message alone
        return type(self), (*self.args, self.epoch, self.iteration, self.parameters)


class EpochRecord(NamedTuple):
    """What an epoch reached: numbers on the host, with ``losses`` one per iteration as a NumPy array.

    The batches of the epoch were drawn from ``seed`` and the number of the epoch; so ``train`` can go on behind it.
    """

    epoch: int
    iteration: int
    loss: float
    train_accuracy: float
    test_accuracy: float | None
    losses: Array
    seed: int | None = None

    def __repr__(self):
        return record_in_words(self)


def train(
    network: Any,
    x_train: Array,
    t_train: Array,
    x_test: Array | None = None,
    t_test: Array | None = None,
    *,
    epochs: int | None = None,
    iterations: int | None = None,
    batch_size: int = 100,
    learning_rate: float = 0.1,
    replacement: bool = False,
    gradient: str = "backpropagation",
    rng: Seed = 0,
    on_iteration: Callable[[], Any] | None = None,
    resume: EpochRecord | None = None,
    compile: bool = False,
) -> Iterator[EpochRecord]:
    """Train ``network`` in place by gradient descent on mini-batches, and yield an ``EpochRecord`` after each epoch.

    ``x_train`` (N, D) and ``t_train``, labels (N,) or weights (N, C), lie on the network's device; test data are
    optional. ``epochs`` or ``iterations`` says how long (the last epoch of ``iterations`` may be cut short);
    ``replacement=True`` draws every batch from all samples, as the book does, instead of using every sample once an
    epoch. ``gradient`` is "backpropagation" or "numerical". ``rng`` is a seed, or a ``numpy.random.Generator`` from
    which one is drawn; the same seed gives the same batches on every backend. ``on_iteration``, if given, is called
    without arguments after each update. Nothing waits for the device within an epoch.

    ``resume`` is the last record of a run that stopped, with ``network`` as it was then, what its layers keep
    included (see ``xpnet.load_training``): with the same data and settings, the run goes on as if it had not stopped,
    from the seed in the record, on NumPy bit for bit (with one number of BLAS threads). ``epochs`` and ``iterations``
    count from the very beginning. An epoch that was cut short is finished, and its record comes again.

    Everything is checked at once, but nothing is trained until the records are read: ``for record in train(...)``.
    Warns if nobody reads them, if inputs are beyond 20, such as images that nobody has divided by 255, and if an epoch
    leaves the loss above that of a network that answers nothing. Raises ValueError for counts that are not positive, a
    learning rate that is not a positive number, data whose shapes or devices do not fit, parameters that are none or,
    in a dict, cannot be written, a gradient that has not the shape of its parameter, or a ``resume`` that does not fit;
    TypeError for data that are not arrays of one library, and for parameters and gradients that are no floats of 32
    bits or more; TrainingError after an epoch in which the loss or a parameter became NaN or infinite.

    Source: Deep Learning from Scratch, 4.5.2 and 5.7.4.
    """
    if gradient not in ("backpropagation", "numerical"):
        raise ValueError(f"gradient is {gradient!r}; it must be 'backpropagation' or 'numerical'")
    if compile and on_iteration is not None:
        raise ValueError("on_iteration is called after each step, where compile does not stop; give one of the two")
    learning_rate = require_rate(learning_rate)
    require_data(network.params, x_train, t_train, x_test, t_test)
    where = computing_beside([x_train])
    with where:
        require_updates_arrive(network)
        size, seed, first, taken = x_train.shape[0], seed_of(rng), 1, 0
        require_counts(size, batch_size, epochs, iterations)
        if resume is not None:
            _require_record(resume, size, batch_size)
            seed, first, taken = resume.seed, resume.epoch, len(resume.losses)

        x, t, step = detached(x_train), detached(t_train), _step_by(gradient, learning_rate)
        descend = partial(_descend, network, x, t, step, on_iteration)
        if compile:
            descend = _compiled(network, x, t, step, batch_size if replacement else min(batch_size, size), descend)
    how = {"epochs": epochs, "iterations": iterations, "replacement": replacement}
    plan = remaining(epochs_of_batches(size, batch_size, seed, first=first, **how), first, taken)
    progress = Progress(learning_rate, batch_size)
    return Training(_records(network, (x, t, x_test, t_test), plan, descend, progress, seed, resume), where)


class Training(Iterator):
    """A training that goes on while its ``EpochRecord``s are read; given up unread, it says that it trained nothing."""

    def __init__(self, records, where):
        self._records, self._where, self._begun = records, where, False

    def __next__(self):
        self._begun = True
        with self._where:
            return next(self._records)

    def close(self):
        """End the training here; the network stays as it is."""
        self._begun = True
        self._records.close()

    def __repr__(self):
        return f"<training, {'begun' if self._begun else 'not begun'}; to go on: for record in train(...)>"

    def __del__(self):
        if not self._begun:
            what = "nothing was trained, because nobody read what train(...) returns"
            warnings.warn(f"{what}; write: for record in train(...): print(record)", RuntimeWarning, stacklevel=2)


def _records(network, data, epochs, descend, progress, seed, resume):
    """Yield the record of each of the ``epochs``, (number, batches); ``descend(batches)`` returns their losses."""
    x, t, *_ = data
    _begin(network, x)
    iteration = 0 if resume is None else resume.iteration
    for epoch, batches in epochs:
        before = copies(network.params), _kept_by_layers(network)
        losses = descend(batches)
        losses = _sound(losses, network, before, epoch, iteration, (x, t, progress.learning_rate))
        iteration += len(losses)
        if resume is not None and epoch == resume.epoch:
            losses = array_namespace(losses).concat([resume.losses, losses])
        accuracies = _look_at(network, data, epoch, losses, progress)
        yield EpochRecord(epoch, iteration, float(losses.mean()), *accuracies, losses, seed)


def _descend(network, x, t, step, on_iteration, batches):
    """Take a step on each of the ``batches``, as in chapter 4; return their losses (K,), on the device."""
    xp, losses = array_namespace(x), []
    for chosen in _on_device_of(x, batches):
        x_batch, t_batch = xp.take(x, chosen, axis=0), xp.take(t, chosen, axis=0)
        loss, steps = step(network, x_batch, t_batch)
        if not losses:
            require_step(loss, steps, network.params, x_batch)
        for name in network.params:
            _subtract(network.params, name, detached(steps[name]))
        losses.append(detached(loss))
        if on_iteration is not None:
            on_iteration()
    return xp.stack(losses)


def _on_device_of(x, batches):
    """Return the batches as arrays on the device of ``x``, brought there together."""
    order = array_namespace(x).asarray(array_namespace(batches[0]).concat(batches), device=device(x))
    ends = accumulate((batch.shape[0] for batch in batches), initial=0)
    return [order[start:stop] for start, stop in pairwise(ends)]


def _subtract(parameters, name, step):
    """Update a parameter; a leaf that requires a gradient of its library's own is written beneath that record."""
    if getattr(parameters[name], "requires_grad", False):
        memory = detached(parameters[name])
        memory -= step
    else:
        parameters[name] -= step


def _step_by(gradient, learning_rate):
    """Return step(network, x, t), which returns the loss and what to subtract from each parameter."""

    def step(network, x, t):
        if gradient == "backpropagation" and hasattr(network, "loss_and_gradient"):
            return network.loss_and_gradient(x, t, learning_rate)
        differentiate = network.numerical_gradient if gradient == "numerical" else network.gradient
        loss, gradients = network.loss(x, t), differentiate(x, t)
        return loss, {name: learning_rate * value for name, value in gradients.items()}

    return step


def _compiled(network, x, t, step, size, descend):
    """Return what does as ``descend`` does, with the steps on batches of ``size`` samples compiled."""

    def sound_step(network, x, t):
        loss, steps = step(network, x, t)
        require_step(loss, steps, network.params, x)
        return loss, steps

    xp = array_namespace(x)
    run = compiled(sound_step, network, x, t, steps_per_epoch(x.shape[0], size), size)

    def compiled_descend(batches):
        whole = [batch for batch in batches if batch.shape[0] == size]  # all but a last one that is short
        losses = [run(xp.stack(_on_device_of(x, whole)))] if whole else []
        return xp.concat(losses + ([descend(batches[len(whole) :])] if batches[len(whole) :] else []))

    return compiled_descend


def _begin(network, x):
    """Warn of inputs that are far too large, and give the network parameters that can be written."""
    if large := too_large(x[: min(2000, x.shape[0]), ...]):
        warnings.warn(large, stacklevel=4)
    for name, value in network.params.items():
        if is_read_only(value):
            network.params[name] = array_namespace(value).asarray(value, copy=True)


def _sound(losses, network, before, epoch, iteration, causes):
    """Return the ``losses`` of an epoch on the host; raise TrainingError if one, or a parameter, is not finite."""
    xp, count = array_namespace(losses), losses.shape[0]
    sound = xp.stack([xp.all(xp.isfinite(value)) for value in network.params.values()])
    told = to_numpy(xp.concat([losses, xp.astype(sound, losses.dtype)]))  # together, to wait once
    losses, sound = told[:count], told[count:]
    finite = abs(losses) < float("inf")  # false for NaN too
    if finite.all() and sound.all():
        return losses
    parameters, kept = before
    put(network.params, parameters)
    if kept:
        network.restore_layer_state(kept)
    bad = iteration + (count if finite.all() else int(finite.argmin()) + 1)
    what = "a parameter became NaN or infinite" if finite.all() else f"the loss became {losses[~finite][0]}"
    message = f"in epoch {epoch}, iteration {bad}, {what}: {likely_cause(network, *causes)}."
    raise TrainingError(f"{message} The network is as it was before this epoch", epoch, bad, parameters)


def _look_at(network, data, epoch, losses, progress):
    """Return the accuracies on training and test data; warn if the ``losses`` of the epoch say that it diverges."""
    x, t, x_test, t_test = data
    kept = _kept_by_layers(network)
    accuracies = float(network.accuracy(x, t)), None if x_test is None else float(network.accuracy(x_test, t_test))
    if sign := progress.sign_of_divergence(epoch, losses, network, x, t):
        warnings.warn(sign, stacklevel=4)
    if kept:  # a layer without modes draws here too; a run that is cut and goes on looks once more
        network.restore_layer_state(kept)
    return accuracies


def _kept_by_layers(network):
    return network.layer_state() if hasattr(network, "layer_state") else {}


def _require_record(resume, size, batch_size):
    """Raise unless ``resume`` is the record of a run on ``size`` samples in batches of ``batch_size``."""
    if not isinstance(resume, EpochRecord):
        raise TypeError(f"resume is {type(resume).__name__}; it must be an EpochRecord, the last one of a run")
    count, steps = len(resume.losses), steps_per_epoch(size, batch_size)
    if not 0 < count <= steps or (resume.epoch - 1) * steps + count != resume.iteration:
        raise ValueError(
            f"resume is at epoch {resume.epoch}, iteration {resume.iteration}, which {size} samples in batches of "
            f"{batch_size} never reach; go on with the data and the batch_size that the run began with"
        )
    if resume.seed is None:
        raise ValueError(
            "resume carries no seed: it was saved by an xpnet that drew batches in another way, and going on would "
            "take samples twice; finish the run with that xpnet (load_training(file).version), or begin a new one, "
            "without resume, from the parameters that it reached"
        )
