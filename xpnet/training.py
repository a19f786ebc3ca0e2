"""The learning loop: mini-batch gradient descent, and a report after every epoch (book, 4.5.2 and 5.7.4)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

from array_api_compat import array_namespace, device

from .annotations import Array, Seed
from .arrays import copies, detached, put
from .backend import computing_beside, seed_of, to_numpy
from .batches import epochs_of_batches, remaining, require_counts, steps_per_epoch
from .compiling import compiled, compiled_look
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
from .records import EpochRecord, TrainingError, require_record


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

    Everything is checked at once, but nothing is trained until the records are read: ``for record in train(...)``.
    Nothing waits for the device within an epoch.

    Source: Deep Learning from Scratch, 4.5.2 and 5.7.4.

    Parameters
    ----------
    network : Network
        Ours or your own, with ``params``, ``loss``, ``gradient`` and ``accuracy``.
    x_train : array (N, D)
        Inputs, on the device of the network.
    t_train : array
        Labels (N,) or weights (N, C).
    x_test, t_test : arrays
        Others, of which the records tell the accuracy.
    epochs : int
        How often to go through the data, counted from the very beginning.
    iterations : int
        How many steps, instead; the last epoch may be cut short.
    batch_size : int
        The samples of a step.
    learning_rate : float
        What a gradient is multiplied by in a step, above 0.
    replacement : bool
        Whether every batch is drawn from all samples, as in the book, or every sample is used once in an epoch.
    gradient : str
        "backpropagation" or "numerical".
    rng : int or numpy.random.Generator
        A seed, or what one is drawn from; one seed gives the same batches on every backend.
    on_iteration : callable
        What is called without arguments after each step.
    resume : EpochRecord
        The last of a run that stopped, with ``network`` as it was then, what its layers keep included (see
        ``xpnet.load_training``). With the same data and settings the run goes on from the record's seed as if it had
        not stopped: on NumPy bit for bit, with one number of BLAS threads. An epoch that was cut short is finished, and
        its record comes again.
    compile : bool
        Whether JAX, PyTorch or CuPy records the step once and repeats it, which saves the time that Python takes.

    Yields
    ------
    EpochRecord

    Raises
    ------
    ValueError
        For counts and rates that are not positive, data whose shapes or devices do not fit, parameters that are none
        or, in a dict, cannot be written, a gradient of another shape than its parameter, or an unfit ``resume``.
    TypeError
        For data that are not arrays of one library, parameters and gradients that are no floats of 32 bits or more.
    CompileError
        If the step cannot be compiled.
    TrainingError
        After an epoch in which the loss or a parameter became NaN or infinite.

    Warns
    -----
    UserWarning
        If inputs are beyond 20, such as images that nobody has divided by 255, or an epoch leaves the loss above that
        of a network that answers nothing.
    RuntimeWarning
        If nobody reads the records.
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
            require_record(resume, size, batch_size)
            seed, first, taken = resume.seed, resume.epoch, len(resume.losses)

        x, t, step = detached(x_train), detached(t_train), _step_by(gradient, learning_rate)
        descend = partial(_descend, network, x, t, step, on_iteration)
        parts = [(x, t)] if x_test is None else [(x, t), (x_test, t_test)]
        look = partial(_accuracies, network, parts)
        if compile:
            batch = batch_size if replacement else min(batch_size, size)
            descend = _compiled(network, x, t, step, batch, descend)
            look = compiled_look(_accuracies, network, parts, batch)
    how = {"epochs": epochs, "iterations": iterations, "replacement": replacement}
    plan = remaining(epochs_of_batches(size, batch_size, seed, first=first, **how), first, taken)
    progress = Progress(learning_rate, batch_size)
    return Training(_records(network, x, t, plan, descend, look, progress, seed, resume), where)


class Training(Iterator):
    """A training that goes on while its records are read; given up unread, it says that it trained nothing."""

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


def _records(network, x, t, epochs, descend, look, progress, seed, resume):
    """Yield the record of each of the ``epochs``, (number, batches).

    ``descend(batches)`` returns their losses, ``look()`` the accuracies behind them.
    """
    _begin(network, x)
    iteration = 0 if resume is None else resume.iteration
    for epoch, batches in epochs:
        before = copies(network.params), _kept_by_layers(network)
        losses = descend(batches)
        losses = _sound(losses, network, before, epoch, iteration, (x, t, progress.learning_rate))
        iteration += len(losses)
        if resume is not None and epoch == resume.epoch:
            losses = array_namespace(losses).concat([resume.losses, losses])
        kept = _kept_by_layers(network)
        accuracy, test_accuracy = (*map(float, look()), None)[:2]
        if sign := progress.sign_of_divergence(epoch, losses, network, x, t):
            warnings.warn(sign, stacklevel=3)
        if kept:  # a layer without modes draws here too; a run that is cut and goes on looks once more
            network.restore_layer_state(kept)
        yield EpochRecord(epoch, iteration, float(losses.mean()), accuracy, test_accuracy, losses, seed)


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
        losses = [run(xp.asarray(array_namespace(whole[0]).stack(whole), device=device(x)))] if whole else []
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


def _accuracies(network, parts):
    """Return the accuracies of ``network`` on the ``parts``, pairs (x, t)."""
    return [network.accuracy(x, t) for x, t in parts]


def _kept_by_layers(network):
    return network.layer_state() if hasattr(network, "layer_state") else {}
