"""Mini-batch gradient descent: batches, updates and a report for every epoch (book, 4.5.2 and 5.7.4)."""

import warnings
from numbers import Integral, Real
from typing import NamedTuple

from array_api_compat import array_namespace, device, is_array_api_obj

from .arrays import detached, put_back
from .backend import random_generator, to_numpy
from .compiling import compiled
from .describing import record_in_words
from .diagnosis import Progress, is_read_only, likely_cause, require_learnable, require_one_device, too_large
from .functions import namespace


class TrainingError(ArithmeticError):
    """A training that went wrong: the loss or a parameter became NaN or infinite. The message names the likely cause.

    ``epoch`` and ``iteration`` say when; ``parameters`` are the last good ones, those from before that epoch, which
    the network holds again.
    """

    def __init__(self, message, epoch, iteration, parameters):
        super().__init__(message)
        self.epoch, self.iteration, self.parameters = epoch, iteration, parameters

    def __reduce__(self):  # an exception is otherwise made again from its message alone
        return type(self), (*self.args, self.epoch, self.iteration, self.parameters)


class EpochRecord(NamedTuple):
    """What an epoch reached: numbers on the host, with ``losses`` one per iteration as a NumPy array.

    ``rng_state`` is the state of the random numbers from which the batches of this epoch were drawn; with it, ``train``
    can go on behind this record.
    """

    epoch: int
    iteration: int
    loss: float
    train_accuracy: float
    test_accuracy: float | None
    losses: object
    rng_state: dict | None = None

    def __repr__(self):
        return record_in_words(self)


def epochs_of_batches(size, batch_size, rng, *, epochs=None, iterations=None, replacement=False, first=1):
    """Yield, for every epoch, a list of index arrays (batch,) into ``size`` samples, drawn on the host.

    An epoch uses every sample once, in an order drawn anew, and its last batch may be short. With
    ``replacement=True`` each batch is drawn from all samples, as in the book. ``epochs`` or ``iterations`` says where
    to stop; the last epoch of ``iterations`` may be cut. ``first`` is the number of the epoch to begin with. Raises
    ValueError unless exactly one of the two is given and all counts are positive.
    """
    if (epochs is None) == (iterations is None):
        raise ValueError(f"give epochs or iterations, one of them; got epochs={epochs} and iterations={iterations}")
    counts = {"size": size, "batch_size": batch_size, "epochs": epochs, "iterations": iterations}
    for name, count in counts.items():
        if count is None and name in ("epochs", "iterations"):
            continue
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{name} is {count!r}; it must be a whole number of at least 1")
    starts = range(0, size, batch_size)
    left = (epochs * len(starts) if iterations is None else iterations) - (first - 1) * len(starts)
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
    resume=None,
    compile=False,
):
    """Train ``network`` in place by gradient descent on mini-batches, and yield an ``EpochRecord`` after each epoch.

    ``x_train`` (N, D) and ``t_train``, labels (N,) or weights (N, C), lie on the network's device; test data are
    optional. ``epochs`` or ``iterations`` says how long (the last epoch of ``iterations`` may be cut short);
    ``replacement=True`` draws every batch from all samples, as the book does, instead of using every sample once an
    epoch. ``gradient`` is "backpropagation" or "numerical". ``rng`` is a seed or a ``numpy.random.Generator``; the
    same seed gives the same batches on every backend. ``on_iteration``, if given, is called without arguments
    after each update. Nothing waits for the device within an epoch.

    ``resume`` is the last record of a run that stopped, with ``network`` as it was then, what its layers keep
    included (see ``xpnet.load_training``): with the same data and settings, the run goes on as if it had not stopped,
    on NumPy bit for bit. ``epochs`` and ``iterations`` count from the very beginning. An epoch that was cut short is
    finished, and its record comes again.

    Data and parameters are checked at once, but nothing is trained until the generator is read: ``for record in
    train(...)``. Warns if inputs are beyond 20, such as images that nobody has divided by 255, and if an epoch leaves
    the loss above that of a network that answers nothing. Raises ValueError for counts that are not positive, a
    learning rate that is not a positive number, data whose shapes or devices do not fit, parameters that are none or,
    in a dict, cannot be written, a gradient that has not the shape of its parameter, or a ``resume`` that does not fit;
    TypeError for data that are not arrays of one library, and for parameters and gradients that are no floats of 32
    bits or more; TrainingError after an epoch in which the loss or a parameter became NaN or infinite.

    Source: Deep Learning from Scratch, 4.5.2 and 5.7.4.
    """
    if gradient not in ("backpropagation", "numerical"):
        raise ValueError(f"gradient is {gradient!r}; it must be 'backpropagation' or 'numerical'")
    if not isinstance(learning_rate, Real) or not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate is {learning_rate}; it must be a positive number")
    if (x_test is None) != (t_test is None):
        raise ValueError("x_test and t_test belong together; give both or neither")
    for x, t, which in ((x_train, t_train, "train"), (x_test, t_test, "test")):
        if x is None and which == "test":
            continue
        for name, array in ((f"x_{which}", x), (f"t_{which}", t)):
            if not is_array_api_obj(array) or not array.ndim:
                raise TypeError(f"{name} is {type(array).__name__}; it must be an array with one entry for each sample")
        if x.shape[0] != t.shape[0]:
            raise ValueError(f"x_{which} has {x.shape[0]} samples, but t_{which} has {t.shape[0]}")
        if tuple(x.shape[1:]) != tuple(x_train.shape[1:]) or 0 in x.shape:
            shapes = f"x_{which} has shape {tuple(x.shape)} and x_train {tuple(x_train.shape)}"
            raise ValueError(f"{shapes}; both must be (N, D), of one D, and not empty")

    xp, where = namespace(x_train, t_train, names="x_train and t_train"), device(x_train)
    if x_test is not None:
        namespace(x_train, x_test, t_test, names="x_train, x_test and t_test")
    require_learnable(network.params, x_train)
    parameters = {f"parameter {name}": value for name, value in network.params.items()}
    require_one_device({"x_train": x_train, "t_train": t_train, "x_test": x_test, "t_test": t_test, **parameters})
    x_train, t_train = detached(x_train), detached(t_train)
    learning_rate = float(learning_rate)  # a NumPy scalar would promote float32 parameters on some libraries
    rng = random_generator(rng, "batches")

    def step(network, x, t):
        if gradient == "backpropagation" and hasattr(network, "loss_and_gradient"):
            return network.loss_and_gradient(x, t, learning_rate)
        differentiate = network.numerical_gradient if gradient == "numerical" else network.gradient
        loss, gradients = network.loss(x, t), differentiate(x, t)
        return loss, {name: learning_rate * value for name, value in gradients.items()}

    def sound_step(network, x, t):
        loss, steps = step(network, x, t)
        require_shapes(steps, network.params)
        _require_one_loss(loss, x)
        return loss, steps

    if compile:
        if on_iteration is not None:
            raise ValueError("on_iteration is called after each step, where compile does not stop; give one of the two")
        size = batch_size if replacement else min(batch_size, x_train.shape[0])
        steps_an_epoch = -(-x_train.shape[0] // batch_size)
        epoch_of_steps = compiled(sound_step, network, x_train, t_train, steps_an_epoch, size)

    def records():
        if large := too_large(x_train[: min(2000, x_train.shape[0]), ...]):
            warnings.warn(large, stacklevel=2)
        for name, value in network.params.items():
            if is_read_only(value):
                network.params[name] = xp.asarray(value, copy=True)
        progress = Progress(learning_rate, batch_size)
        first, iteration = 1, 0
        if resume is not None:
            if not isinstance(resume, EpochRecord):
                raise TypeError(f"resume is {type(resume).__name__}; it must be an EpochRecord, the last one of a run")
            _rewind(rng, resume, x_train.shape[0], batch_size)
            first, iteration = resume.epoch, resume.iteration
        length = {"epochs": epochs, "iterations": iterations}
        plan = epochs_of_batches(x_train.shape[0], batch_size, rng, replacement=replacement, first=first, **length)
        rng_state = rng.bit_generator.state
        for epoch, batches in enumerate(plan, start=first):
            earlier = resume.losses if resume is not None and epoch == first else ()
            batches = batches[len(earlier) :]
            if not batches:
                rng_state = rng.bit_generator.state
                continue
            good = {name: xp.asarray(detached(value), copy=True) for name, value in network.params.items()}
            kept = network.layer_state() if hasattr(network, "layer_state") else {}
            order = xp.asarray(array_namespace(batches[0]).concat(batches), device=where)
            losses, compiled_losses, whole = [], [], 0
            if compile:  # all but a last batch that is short
                whole = sum(batch.shape[0] == size for batch in batches)
                compiled_losses.append(epoch_of_steps(xp.reshape(order[: whole * size], (whole, size))))
            start = sum(batch.shape[0] for batch in batches[:whole])
            for batch in batches[whole:]:
                chosen = order[start : start + batch.shape[0]]
                start += batch.shape[0]
                x, t = xp.take(x_train, chosen, axis=0), xp.take(t_train, chosen, axis=0)
                loss, steps = (sound_step if not losses else step)(network, x, t)
                _descend(network.params, steps)
                losses.append(detached(loss))
                if on_iteration is not None:
                    on_iteration()
            losses = xp.concat([*compiled_losses, *([xp.stack(losses)] if losses else [])])
            sound = xp.stack([xp.all(xp.isfinite(value)) for value in network.params.values()])
            told = to_numpy(xp.concat([losses, xp.astype(sound, losses.dtype)]))  # together, to wait once
            losses, sound = told[: len(batches)], told[len(batches) :]
            finite = abs(losses) < float("inf")  # false for NaN too
            if not (finite.all() and sound.all()):
                put_back(network, good)
                if kept:
                    network.restore_layer_state(kept)
                bad = iteration + (len(losses) if finite.all() else int(finite.argmin()) + 1)
                what = "a parameter became NaN or infinite" if finite.all() else f"the loss became {losses[~finite][0]}"
                why = likely_cause(network, x_train, t_train, learning_rate)
                message = f"in epoch {epoch}, iteration {bad}, {what}: {why}."
                raise TrainingError(f"{message} The network is as it was before this epoch", epoch, bad, good)
            if len(earlier):
                losses = array_namespace(losses).concat([earlier, losses])
            iteration += len(batches)
            kept = network.layer_state() if hasattr(network, "layer_state") else {}
            accuracies = float(network.accuracy(x_train, t_train)), None
            if x_test is not None:
                accuracies = accuracies[0], float(network.accuracy(x_test, t_test))
            if sign := progress.sign_of_divergence(epoch, losses, network, x_train, t_train):
                warnings.warn(sign, stacklevel=2)
            if kept:  # a layer without modes draws here too; a run that is cut and goes on looks once more
                network.restore_layer_state(kept)
            yield EpochRecord(epoch, iteration, float(losses.mean()), *accuracies, losses, rng_state)
            rng_state = rng.bit_generator.state

    return records()


def require_shapes(steps, parameters):
    """Refuse gradients that an update would stretch or round, or that are missing."""
    for name, value in parameters.items():
        step = steps.get(name)
        if isinstance(step, (int, float)) and not value.ndim:
            continue
        if not hasattr(step, "shape") or tuple(step.shape) != tuple(value.shape):
            shape = f"has shape {tuple(step.shape)}" if hasattr(step, "shape") else "is no array"
            shape = "has shape None" if step is None else shape
            raise ValueError(
                f"parameter {name} has shape {tuple(value.shape)}, but its gradient {shape}; check_gradients says more"
            )
        xp = namespace(value, step, names=f"parameter {name} and its gradient")
        if not xp.isdtype(step.dtype, "real floating"):
            raise TypeError(f"the gradient of parameter {name} has dtype {step.dtype}; it must hold floats")


def _require_one_loss(loss, x):
    """Refuse a loss for every sample: its gradient would be that of their sum, and the learning rate another."""
    if shape := tuple(getattr(loss, "shape", ())):
        raise ValueError(
            f"the loss of a batch of shape {tuple(x.shape)} has shape {shape}; it must be one number, the mean "
            "over the batch: give x as (N, D), or an output layer that averages over all of x"
        )


def _descend(parameters, steps):
    """Take the steps; a leaf that requires a gradient of its library's own is written beneath that record."""
    for name in parameters:
        step = detached(steps[name])
        if getattr(parameters[name], "requires_grad", False):
            memory = detached(parameters[name])
            memory -= step
        else:
            parameters[name] -= step


def _rewind(rng, resume, size, batch_size):
    """Bring ``rng`` to where the epoch of the record ``resume`` was drawn; refuse a record of another kind of run."""
    count = len(resume.losses)
    per_epoch = -(-size // batch_size)
    if not 0 < count <= per_epoch or (resume.epoch - 1) * per_epoch + count != resume.iteration:
        raise ValueError(
            f"resume is at epoch {resume.epoch}, iteration {resume.iteration}, which {size} samples in batches of "
            f"{batch_size} never reach; go on with the data and the batch_size that the run began with"
        )
    kind, state = type(rng.bit_generator).__name__, resume.rng_state
    if state is None or state["bit_generator"] != kind:
        drawn_by = "no state of random numbers" if state is None else f"the state of {state['bit_generator']}"
        raise ValueError(f"resume carries {drawn_by}, but rng is {kind}; pass the kind of rng that the run began with")
    rng.bit_generator.state = state
