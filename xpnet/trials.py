"""A network's layers on one batch, and what each of them allows: found out by trying, where they are not ours."""

import contextlib
from functools import partial

from array_api_compat import device

from .arrays import holding
from .functions import as_targets, namespace
from .layers import has_own
from .stacks import Tail, is_ours, losses_alone
from .state import unchanged

SLACK = 1000  # unit round-offs of the largest number by which two answers may differ and count as one


class Row:
    """The layers of a network, run on one batch, and what each of them allows.

    ``inputs`` are those of the layers and, last, the scores; ``t`` the targets as the output layer's ``difference``
    takes them. Layers of others are run a few times more to find out what they allow.
    """

    def __init__(self, network, x, t, method, shared):
        self.network, self.x, self.given, self.method, self.shared = network, x, t, method, shared
        self.layers, self.last_layer, self.inputs = list(network.layers.values()), network.last_layer, [x]
        self.foreign = not all(map(is_ours, [*self.layers, self.last_layer]))
        self.drawn = False
        for layer in self.layers:
            self.inputs.append(layer.forward(self.inputs[-1]))
            self.drawn = self.drawn or not (is_ours(layer) or _alike(layer.forward(self.inputs[-2]), self.inputs[-1]))
        self.loss = self.last_layer.forward(self.inputs[-1], t)
        if self.loss.shape != ():
            shape = tuple(self.loss.shape)
            raise ValueError(f"the loss has shape {shape}; a gradient needs one number: x must be one batch")
        self.t = t
        if is_ours(self.last_layer):
            self.t = self.last_layer.t
        elif has_own(self.last_layer, "difference", "forward"):
            with contextlib.suppress(TypeError, ValueError):  # targets of a kind that an output layer of others knows
                self.t = as_targets(t, self.inputs[-1])
        self.found = {}

    def tail(self, place):
        """Return what lies behind the layer ``place``."""
        ways = [self._way_through(k)[0] for k in range(place + 1, len(self.layers))]
        end, weight, losses, _ = self._way_to_end()
        layers, inputs = self.layers[place + 1 :], self.inputs[place + 1 :]
        return Tail(layers, inputs, self.last_layer, self.t, [*ways, end], self.loss, weight, losses)

    def way(self, place, names, tail, by_units):
        """Return "difference", "stacked" or "loop" for parameters of one layer; raise if ``method`` is not allowed."""
        if self.method == "loop" or self.drawn or any(self._acts_elsewhere(place, name) for name in names.values()):
            return "loop"
        reason = self._why_not(place, tail)
        if reason and self.method == "auto":
            return "loop"
        if reason:
            kind = type(self.layers[place]).__name__
            raise ValueError(f"method={self.method!r} cannot be used for the parameters of {kind}: {reason}")
        return "stacked" if tail.runs or not by_units else "difference"

    def _why_not(self, place, tail):
        """Return why changes cannot be followed through what lies behind the layer ``place``, or None."""
        behind = [*self.layers[place + 1 :], self.last_layer]
        lacking = [type(layer).__name__ for layer in behind if not has_own(layer, "difference", "forward")]
        if self.method == "difference" and lacking:
            return f"{', '.join(lacking)} behind it has no method difference"
        if None not in tail.ways:
            return None
        ways = [*(self._way_through(k) for k in range(place + 1, len(self.layers))), self._way_to_end()]
        return next(why for way, *_, why in ways if way is None)

    def loss_at(self, name):
        """Return the loss as a function of a parameter; where it is drawn, each run begins from the same state."""
        f = partial(loss_with, self.network, name, self.x, self.given)
        return partial(_from_here, self.network, f) if self.drawn else f

    def _way_through(self, k):
        """Return (way, reason why there is none) for layer k."""
        layer, x = self.layers[k], self.inputs[k]
        if is_ours(layer):
            return ("rows" if self.method == "stacked" else "difference"), None
        if k not in self.found:
            self.found[k] = way_through(layer, x) if not self.drawn else ("stack", None)
        way, reason = self.found[k]
        return ("rows" if (way, self.method) == ("difference", "stacked") else way), reason

    def _way_to_end(self):
        """Return (way, weight, losses, reason) for the output layer."""
        scores, N = self.inputs[-1], self.inputs[-1].shape[0]
        if "end" not in self.found:
            if not is_ours(self.last_layer):
                self.found["end"] = way_to_end(self.last_layer, scores, self.t, self.loss)
            elif self.method != "stacked":
                return "difference", 1.0 / N, None, None
            else:
                self.found["end"] = "rows", 1.0 / N, losses_alone(self.last_layer, scores, self.t, "rows"), None
        way, weight, losses, reason = self.found["end"]
        if (way, self.method) == ("difference", "stacked"):
            way = "rows"
        return way, weight, losses, reason

    def _acts_elsewhere(self, place, name):
        if name in self.shared or not self.foreign:
            return name in self.shared
        return acts_elsewhere(self.network, place, name, self.inputs, self.given)


def way_through(layer, x):
    """Return (way, None) for a foreign layer with the input x (N, …), or (None, the reason why it has none)."""
    coupled = _coupling(layer, x)
    if coupled is None:
        return ("difference" if has_own(layer, "difference", "forward") else "rows"), None
    unstackable = _unstackable(layer, x)
    return (None, unstackable) if unstackable else ("stack", None)


def way_to_end(last_layer, scores, t, loss):
    """Return (way, weight, each sample's loss, reason) for a foreign output layer: as ``Tail`` has them."""
    xp, name = namespace(scores), type(last_layer).__name__
    for way in ("rows", "singly") if scores.ndim == 2 else ():
        with contextlib.suppress(Exception):  # whatever a foreign layer raises
            losses, other = (losses_alone(last_layer, s, t, way) for s in (scores, 0.75 * scores))
            other_loss = last_layer.forward(0.75 * scores, t)
            for weight in (1.0 / scores.shape[0], 1.0):
                if _alike(weight * xp.sum(losses), loss) and _alike(weight * xp.sum(other), other_loss):
                    return ("difference" if has_own(last_layer, "difference", "forward") else way), weight, losses, None
    unstackable = _unstackable(last_layer, scores, t)
    return (None, 1.0, None, unstackable) if unstackable else ("stack", 1.0, None, f"{name} couples samples")


def _alike(a, b):
    xp = namespace(a, b)
    if a.shape != b.shape:
        return False
    allowed = SLACK * xp.finfo(b.dtype).eps * xp.max(xp.abs(b))
    return bool(xp.all((xp.abs(a - b) <= allowed) | (xp.isnan(a) & xp.isnan(b))))


def _coupling(layer, x):
    """Return how the answers of a layer for samples x (N, …) depend on one another, or None.

    Half the samples are changed, the half whose number has a one in some place, for every place: the others' answers
    must not notice, nor that more samples come behind.
    """
    xp, name = namespace(x), type(layer).__name__
    number = xp.reshape(xp.arange(x.shape[0], device=device(x)), (-1, *[1] * (x.ndim - 1)))
    try:
        y, other = layer.forward(x), layer.forward(0.75 * x)
        shape = (-1, *[1] * (y.ndim - 1))
        for place in range(max(1, (x.shape[0] - 1).bit_length())):
            changed = (number // 2**place) % 2 == 1
            expected = xp.where(xp.reshape(changed, shape), other, y)
            if not _alike(layer.forward(xp.where(changed, 0.75 * x, x)), expected):
                return f"{name} couples samples"
        if not _alike(layer.forward(xp.concat([x, 0.75 * x])), xp.concat([y, other])):
            return f"{name} couples samples"
    except Exception as error:  # whatever a foreign layer raises
        return f"{name} cannot run on other batches ({error})"
    return None


def _unstackable(layer, x, *more):
    """Return why a layer cannot run on a stack of batches, or None."""
    xp, name, pair = namespace(x), type(layer).__name__, (x, 0.75 * x)
    try:
        singly = xp.stack([layer.forward(one, *more) for one in pair])
        stacked = layer.forward(xp.stack(pair)[:, None, ...], *more)[:, 0, ...]
        if not _alike(stacked, singly):
            return f"{name} behind it gives other results for a stack of inputs than one by one"
    except Exception as error:  # whatever a foreign layer raises on a stack, it cannot run on one
        return f"{name} behind it cannot run on a stack of inputs ({error})"
    return None


def acts_elsewhere(network, place, name, inputs, t):
    """Return whether a parameter changes the loss otherwise than through its own layer's output: it is used twice."""
    layers, value = list(network.layers.values()), network.params[name]
    xp = namespace(value)
    other = value + 2.0**-6 * xp.max(xp.abs(value)) + 2.0**-10 * xp.abs(value)
    other = xp.where(value == other, 2.0**-6, other)
    with holding(network.params, {name: other}):
        loss, y = network.loss(inputs[0], t), layers[place].forward(inputs[place])
    for layer in layers[place + 1 :]:
        y = layer.forward(y)
    alone = network.last_layer.forward(y, t)
    return bool(xp.abs(loss - alone) > SLACK * xp.finfo(alone.dtype).eps * xp.abs(loss))


def loss_with(network, name, x, t, value):
    """Return the loss that ``network`` has if parameter ``name`` holds ``value``."""
    with holding(network.params, {name: value}):
        return network.loss(x, t)


def _from_here(network, f, value):
    """Return f(value), and leave the network in the state in which it was."""
    with unchanged(network):
        return f(value)
