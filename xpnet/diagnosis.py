"""What is wrong with a training, in words: before it begins, while it goes on, and when it has failed."""

from array_api_compat import array_namespace, device, is_array_api_obj, is_writeable_array

from .arrays import require_precision, shares_memory
from .backend import to_numpy
from .functions import namespace
from .scalars import is_number
from .state import reachable

LARGE = 20.0  # inputs beyond this are blamed before the learning rate: standardized data stay far below
FEW = 100  # an epoch of fewer samples tells nothing: its mean is that of chance
ABOVE, FAR, BELOW = 1.04, 1.5, 0.8  # shares of the loss of a guess: above it, far above it, and of one that has learned
STILL = 0.98  # the share of an epoch's loss, or of a guess's, that the next has at least if nothing is learned


def require_rate(learning_rate):
    """Return a learning rate as a float: a NumPy scalar would promote float32 parameters on some libraries."""
    if not is_number(learning_rate, lambda rate: 0 < rate < float("inf")):
        raise ValueError(f"learning_rate is {learning_rate!r}; it must be a positive number")
    return float(learning_rate)


def require_data(parameters, x_train, t_train, x_test, t_test):
    """Refuse data that are no arrays of one library on one device, or do not fit; those for tests may be None."""
    if (x_test is None) != (t_test is None):
        raise ValueError("x_test and t_test belong together; give both or neither")
    _require_samples("train", x_train, t_train, x_train)
    namespace(x_train, t_train, names="x_train and t_train")
    if x_test is not None:
        _require_samples("test", x_test, t_test, x_train)
        namespace(x_train, x_test, t_test, names="x_train, x_test and t_test")
    require_learnable(parameters, x_train)
    named = {f"parameter {name}": value for name, value in parameters.items()}
    require_one_device({"x_train": x_train, "t_train": t_train, "x_test": x_test, "t_test": t_test, **named})


def _require_samples(which, x, t, x_train):
    for name, array in ((f"x_{which}", x), (f"t_{which}", t)):
        if not is_array_api_obj(array) or not array.ndim:
            raise TypeError(f"{name} is {type(array).__name__}; it must be an array with one entry for each sample")
    if x.shape[0] != t.shape[0]:
        raise ValueError(f"x_{which} has {x.shape[0]} samples, but t_{which} has {t.shape[0]}")
    if tuple(x.shape[1:]) != tuple(x_train.shape[1:]) or 0 in x.shape:
        shapes = f"x_{which} has shape {tuple(x.shape)} and x_train {tuple(x_train.shape)}"
        raise ValueError(f"{shapes}; both must be (N, D), of one D, and not empty")


def require_learnable(parameters, x):
    """Refuse parameters that updates would not change, or wrongly: none, in half precision, shared, read-only."""
    if not parameters:
        raise ValueError("the network has no parameters, so there is nothing to train")
    for name, value in parameters.items():
        if not hasattr(value, "dtype"):
            raise TypeError(f"parameter {name} is {type(value).__name__}; it must be an array of floats")
        namespace(x, value, names=f"x_train and parameter {name}")
        require_precision(f"parameter {name}", value)
        if is_read_only(value) and isinstance(parameters, dict):  # a copy in it might not be what layers compute with
            raise ValueError(f"parameter {name} is read-only and cannot be trained; give the network a copy of it")
        if is_writeable_array(value) and shares_memory(value):
            raise ValueError(f"entries of parameter {name} share memory; give the network a copy of it")


def require_updates_arrive(network):
    """Refuse parameters in a dict that an update can only replace there, while something else computes with the old."""
    parameters = network.params
    if not isinstance(parameters, dict) or all(map(is_writeable_array, parameters.values())):
        return
    held = dict(parameters)
    parameters.clear()  # what is found now is held by others, too
    try:
        elsewhere = {id(thing) for thing in reachable([network])}
    finally:
        parameters.update(held)
    for name, value in held.items():
        if id(value) in elsewhere and not is_writeable_array(value):
            raise ValueError(
                f"parameter {name} is an array that cannot be written, which network.params and something else in the "
                "network hold, a layer perhaps; an update would replace it in params alone, and train nothing: let "
                "layers read it from params, or build an xpnet.Network"
            )


def require_one_device(arrays):
    """Refuse arrays, by name, that do not all lie on one device; those that are None lie nowhere."""
    (first, there), *others = ((name, device(x)) for name, x in arrays.items() if x is not None)
    for name, where in others:
        if where != there:
            raise ValueError(
                f"{first} lies on {there}, but {name} on {where}; make both by one backend, as "
                "get_backend(...).asarray does, or copy one to where the other is"
            )


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


def require_step(loss, steps, parameters, x):
    """Refuse steps that do not fit the parameters, and a loss for every sample of the batch ``x``.

    The gradient of such a loss would be that of its sum, and the learning rate another.
    """
    require_shapes(steps, parameters)
    if shape := tuple(getattr(loss, "shape", ())):
        raise ValueError(
            f"the loss of a batch of shape {tuple(x.shape)} has shape {shape}; it must be one number, the mean "
            "over the batch: give x as (N, D), or an output layer that averages over all of x"
        )


def is_read_only(x):
    """Return whether ``x`` cannot be written, though arrays of its library can."""
    return hasattr(x, "flags") and not is_writeable_array(x)


class Progress:
    """The losses of a training from its first one on, watched for a learning rate that destroys what it learned."""

    def __init__(self, learning_rate, batch_size):
        self.learning_rate, self.batch_size = learning_rate, batch_size
        self.start = self.best = self.previous = None
        self.rose = self.told = False

    def sign_of_divergence(self, epoch, losses, network, x, t):
        """Return in words, once, that an epoch left the loss above that of a network that answers nothing, or None.

        Where that loss is not known, or the training began above it, the losses must have risen far.
        """
        full = losses[:-1] if len(losses) > 1 else losses  # the last batch may be of few samples
        mean, highest = float(full.mean()), float(full.max())
        if self.start is None:
            self.start = float(losses[0])
        what = None
        if not self.told and len(full) * self.batch_size >= FEW and self._is_high(mean):
            guess = _loss_of_nothing(network, x, t)
            if guess is None or self.start >= 1.1 * guess:
                # by chance, the loss of a batch differs from others by the square root of its size
                if mean > self.start and highest > (1 + 10 / self.batch_size**0.5) * self.start:
                    what = f"and began at {self.start:.3g}"
            elif self._is_no_better(mean, guess, network, x):
                what = f"no better than the {guess:.3g} of a network whose answers are all 0"
        self._remember(mean)
        if what is None:
            return None
        self.told, rate = True, self.learning_rate
        return (
            f"the mean loss of epoch {epoch} is {mean:.3g}, {what}: learning_rate {rate:g} is probably too large, and "
            f"units that it pushed too far do not come back; start again with about {rate / 10:g}"
        )

    def _is_high(self, mean):
        """Return whether the mean loss of an epoch is worth a look, which takes a pass through the network."""
        return mean > min(ABOVE * self.start, self._least(mean)) or (self.rose and mean > STILL * self.start)

    def _is_no_better(self, mean, guess, network, x):
        lost = self._least(mean) <= BELOW * guess and mean > guess / ABOVE
        back = self.rose and mean > STILL * guess  # from above, where a rate that is right never is
        stuck = self.previous is not None and min(self.previous, mean) > ABOVE * guess and mean > STILL * self.previous
        return lost or back or stuck or mean > FAR * guess or (mean > ABOVE * guess and _answers_alike(network, x))

    def _least(self, mean):
        return mean if self.best is None else self.best

    def _remember(self, mean):
        self.best, self.previous = min(mean, self._least(mean)), mean
        self.rose = self.rose or mean > ABOVE * self.start


def _answers_alike(network, x):
    """Return whether a network names the same class for all inputs."""
    scores = network.predict(x[: min(2000, x.shape[0]), ...])
    xp = array_namespace(scores)
    best = xp.argmax(scores, axis=-1)
    return scores.shape[-1] > 1 and bool(xp.min(best) == xp.max(best))


def _loss_of_nothing(network, x, t):
    """Return the loss of outputs that are all zero, or None if the network does not say how it measures."""
    if not hasattr(network, "last_layer"):
        return None
    x, t = x[: min(2000, x.shape[0]), ...], t[: min(2000, t.shape[0]), ...]
    scores = network.predict(x)
    loss = network.last_layer.forward(array_namespace(scores).zeros_like(scores), t)
    return float(to_numpy(loss)) if tuple(getattr(loss, "shape", ())) == () else None


def likely_cause(network, x, t, learning_rate):
    """Return in words why a training went wrong: now is the time to look at the values."""
    xp = array_namespace(x, t)
    for name, value in network.params.items():
        if not bool(xp.all(xp.isfinite(value))):
            return f"parameter {name} held NaN or infinite values before this epoch"
    for name, array in (("x_train", x), ("t_train", t)):
        wrong = 0 if xp.isdtype(array.dtype, "integral") else int(xp.count_nonzero(~xp.isfinite(array)))
        if wrong:
            return f"{name} holds {wrong} NaN or infinite values; take those samples out"
    if t.ndim == 1:
        classes, lowest, highest = network.predict(x[:1, ...]).shape[-1], int(xp.min(t)), int(xp.max(t))
        if lowest < 0 or highest >= classes:
            return (
                f"t_train has labels from {lowest} to {highest}, but the network has {classes} classes, which are "
                f"0 to {classes - 1}"
            )
    if large := too_large(x):
        return large
    return f"learning_rate {learning_rate:g} is probably too large; try {learning_rate / 10:g}"


def too_large(x):
    """Return in words that inputs are far from the scale that trains well, or None."""
    xp = array_namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):
        return None  # which the network refuses
    largest = float(to_numpy(xp.max(xp.abs(x))))
    if largest > LARGE:
        return f"x_train reaches {largest:g}; bring inputs to about 0 to 1, images by dividing by 255"
    return None
