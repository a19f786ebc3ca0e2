"""What lies behind a layer: finite changes carried to the loss, by ``difference`` or by running layers on more inputs."""

import contextlib
import math
from functools import cached_property, partial

from array_api_compat import device, is_writeable_array

from .arrays import detached
from .functions import namespace
from .layers import has_own, is_affine
from .moves import moved, positions
from .state import unchanged

SLACK = 1000  # unit round-offs of the largest number by which two answers may differ and count as one


class Tail:
    """The layers behind one layer: their inputs, of which the last are the scores, the output layer and the targets.

    ``ways`` says how a change passes each of them, the output layer last: by its "difference"; by running it on "rows",
    one long batch, or "singly", because it treats samples so; on a "stack" of batches; or not at all, None. ``weight``
    is what a sample's own loss counts in the loss, and ``losses`` are these where the output layer runs.
    """

    def __init__(self, layers, inputs, last_layer, t, ways, loss, weight=1.0, losses=None):
        self.layers, self.inputs, self.last_layer, self.t, self.ways = layers, inputs, last_layer, t, ways
        self.loss, self.weight, self.losses = loss, weight, losses
        self.samplewise = not {None, "stack"} & {*ways}  # every sample's loss depends on that sample alone
        self.runs = bool({"rows", "singly", "stack"} & {*ways})  # with the round-off of what layers answer
        self.alone = 0  # so many layers leave a change in its unit
        while self.alone < len(layers) and is_ours(layers[self.alone]) and hasattr(layers[self.alone], "elementwise"):
            self.alone += 1
        self.mixing = self.alone
        if self.mixing < len(layers) and is_affine(layers[self.mixing]) and ways[self.mixing] == "difference":
            self.mixing += 1
        self.width = max(math.prod(y.shape[1:]) for y in inputs[self.mixing :])  # numbers of a sample from there on

    @property
    def noise(self):
        """The size of the numbers whose round-off a change carries where layers run."""
        xp = namespace(self.loss)
        return self.weight * xp.maximum(xp.abs(self.loss), xp.ones_like(self.loss)) if self.runs else 0.0

    @cached_property
    def directions(self):
        """V: a change z of unit j is one of z·V[j, :] before the layer ``mixing``."""
        if self.mixing > self.alone:
            return self.layers[self.alone].W
        y = self.inputs[self.alone]
        return namespace(y).eye(y.shape[1], dtype=y.dtype, device=device(y))

    def of_units(self, moves, some):
        """Return the loss changes (K, units, N) if, of a sample, one of ``some`` units moves by moves (K, N, 1)."""
        for k in range(self.alone):
            moves = self._pass(k, moves, lambda a: a[:, some])
        z = namespace(moves).permute_dims(moves, (0, 2, 1))[..., None]
        return self.parts(z * self.directions[some, None, :], self.mixing)

    def of_pairs(self, moves, samples, units):
        """Return the loss changes (K, D, P) if units (P,) of samples (P,) move by moves (K, D, P)."""
        xp = namespace(moves)
        for k in range(self.alone):
            moves = self._pass(k, moves, lambda a: a[samples, units])
        pick = partial(xp.take, indices=samples, axis=0)
        losses = None if self.losses is None else pick(self.losses)
        inputs, t = [pick(x) for x in self.inputs[self.mixing :]], pick(self.t)
        behind = Tail(
            self.layers[self.mixing :], inputs, self.last_layer, t, self.ways[self.mixing :], self.loss, self.weight, losses
        )
        return behind.parts(moves[..., None] * xp.take(self.directions, units, axis=0))

    def parts(self, dx, place=0):
        """Return each sample's part (…, N) in the change of the loss if the input of layer ``place`` changes by dx."""
        dx = self._through(dx, place)
        if self.ways[-1] == "difference":
            return self.weight * self.last_layer.difference(self.inputs[-1], self.t, dx)
        return self.weight * (losses_alone(self.last_layer, self.inputs[-1] + dx, self.t, self.ways[-1]) - self.losses)

    def change(self, dx):
        """Return the change (…) of the loss if the first layer's input changes by dx (…, N, …)."""
        if self.samplewise:
            return namespace(dx).sum(self.parts(dx), axis=-1)
        return self.last_layer.forward(self.inputs[-1] + self._through(dx), self.t) - self.loss

    def _through(self, dx, place=0):
        for k in range(place, len(self.layers)):
            dx = self._pass(k, dx)
        return dx

    def _pass(self, k, dx, pick=lambda a: a):
        layer, x, way = self.layers[k], pick(self.inputs[k]), self.ways[k]
        if way == "difference":
            return layer.difference(x, dx)
        xp, stack, y = namespace(dx), x + dx, pick(self.inputs[k + 1])
        if way == "stack":
            return layer.forward(stack) - y
        out = layer.forward(xp.reshape(stack, (-1, *x.shape[1:])))
        return xp.reshape(out, (*stack.shape[: stack.ndim - x.ndim + 1], *y.shape[1:])) - y


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
        # as weights: labels would have to be told from weights again on a stack
        self.t = self.last_layer.t if is_ours(self.last_layer) else t
        self.found = {}

    def tail(self, place):
        """Return what lies behind the layer ``place``."""
        ways = [self._way_through(k)[0] for k in range(place + 1, len(self.layers))]
        end, weight, losses, _ = self._way_to_end()
        behind = slice(place + 1, None)
        return Tail(self.layers[behind], self.inputs[behind], self.last_layer, self.t, [*ways, end], self.loss, weight, losses)

    def way(self, place, names, tail, by_units):
        """Return "difference", "stacked" or "loop" for the parameters of one layer; raise if ``method`` is not allowed."""
        reason = None
        if self.method == "loop":
            return "loop"
        if self.drawn:
            reason = "a layer draws its answer anew"
        elif any(name in self.shared or (self.foreign and self._acts_elsewhere(place, name)) for name in names.values()):
            reason = f"{' and '.join(names.values())} act elsewhere too, not through this layer alone"
        elif None in tail.ways:
            behind = [self._way_through(k) for k in range(place + 1, len(self.layers))]
            reason = next(why for way, *_, why in [*behind, self._way_to_end()] if way is None)
        if reason and self.method == "auto":
            return "loop"
        if self.method == "difference" and not reason:
            behind = [*self.layers[place + 1 :], self.last_layer]
            lacking = [type(layer).__name__ for layer in behind if not has_own(layer, "difference", "forward")]
            reason = f"{', '.join(lacking)} behind it has no method difference(x, dx)" if lacking else None
        if reason:
            kind = type(self.layers[place]).__name__
            raise ValueError(f"method={self.method!r} cannot be used for the parameters of {kind}: {reason}")
        return "stacked" if tail.runs or not by_units else "difference"

    def loss_at(self, name):
        """Return the loss as a function of parameter ``name``; each run begins from the same state where one is drawn."""
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
        if name not in self.found:
            self.found[name] = acts_elsewhere(self.network, place, name, self.inputs, self.given)
        return self.found[name]


def _from_here(network, f, value):
    """Return f(value), and leave the network in the state in which it was."""
    with unchanged(network):
        return f(value)


def is_ours(layer):
    """Return whether ``layer`` runs a forward of this library: which keeps what it needs by assignment, and no more."""
    return type(layer).__module__.partition(".")[0] == __package__ and has_own(layer, "difference", "forward")


# ── What a layer allows, found out by trying ────────────────────────────────────────────────────────────────────────


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


def losses_alone(last_layer, scores, t, way):
    """Return the loss (…, N) that every sample of scores (…, N, …) has by itself."""
    xp = namespace(scores)
    if way == "rows":
        losses = last_layer.forward(scores[..., None, :], t[:, None, ...])
    else:
        rows, N = xp.reshape(scores, (-1, *scores.shape[-1:])), t.shape[0]
        one = [last_layer.forward(rows[i : i + 1, ...], t[i % N : i % N + 1, ...]) for i in range(rows.shape[0])]
        losses = xp.reshape(xp.stack([xp.asarray(a, dtype=scores.dtype) for a in one]), scores.shape[:-1])
    if losses.shape != scores.shape[:-1]:
        raise ValueError(f"{type(last_layer).__name__} gives {tuple(losses.shape)} losses of {tuple(scores.shape)}")
    return losses


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


# ── Entries one by one ──────────────────────────────────────────────────────────────────────────────────────────────


def by_entries(layer, attribute, tail, x, h, largest, progress):
    """Return the gradient of one parameter of any layer: it runs for every entry, what lies behind it on stacks."""
    xp, value = namespace(x), getattr(layer, attribute)
    together = max(1, largest // (2 * max(math.prod(y.shape) for y in tail.inputs)))
    changes = _affine_changes if is_affine(layer) and x.ndim == 2 else _output_changes
    found, places = [], positions(value.shape)
    for start in range(0, len(places), together):
        some = places[start : start + together]
        plus, minus = (tail.change(dx) for dx in changes(layer, attribute, x, tail.inputs[0], some, h))
        found.append((plus - minus) / (2 * h))
        progress(len(some))
    return xp.reshape(xp.concat(found), value.shape)


def _affine_changes(layer, attribute, x, y, places, h):
    """Return the changes (S, N, M) of x @ W + b if entries of W or b move by h and by −h: those of x, in one column."""
    xp, where = namespace(x), device(x)
    columns = xp.asarray([index[-1] for index in places], device=where)
    only = xp.astype(columns[:, None] == xp.arange(y.shape[1], device=where), x.dtype)
    if attribute == "W":
        moves = xp.take(x, xp.asarray([index[0] for index in places], device=where), axis=1).T
    else:
        moves = xp.ones_like(x[:, :1]).T
    dx = h * moves[..., None] * only[:, None, :]
    return dx, -dx


def _output_changes(layer, attribute, x, y, places, h):
    """Return the changes (S, N, …) of a layer's output y if entries of a parameter move by h and by −h."""
    xp, value, both = namespace(x), getattr(layer, attribute), []
    try:
        for step in (h, -h):
            outputs = []
            for index in places:
                end = value[index] + step
                setattr(layer, attribute, moved(value, index, end))
                outputs.append((layer.forward(x) - y) * (step / (end - value[index])))
            both.append(xp.stack(outputs))
    finally:
        setattr(layer, attribute, value)
    return both


@contextlib.contextmanager
def parameter_at(params, name, value):
    """Let parameter ``name`` hold ``value``, and put it back.

    Arrays that can be written are written in place: a network of another make may hold them in two places.
    """
    held = params[name]
    if value is held:  # moved in place already
        yield
    elif is_writeable_array(held):
        memory = detached(held)  # a leaf that requires a gradient is not to be written itself
        kept = namespace(memory).asarray(memory, copy=True)
        try:
            memory[...] = detached(value)
            yield
        finally:
            memory[...] = kept
    else:
        params[name] = value
        try:
            yield
        finally:
            params[name] = held


def loss_with(network, name, x, t, value):
    """Return the loss that ``network`` has if parameter ``name`` holds ``value``."""
    with parameter_at(network.params, name, value):
        return network.loss(x, t)


def acts_elsewhere(network, place, name, inputs, t):
    """Return whether a parameter changes the loss otherwise than through its own layer's output: it is used twice."""
    layers, value = list(network.layers.values()), network.params[name]
    xp = namespace(value)
    other = value + 2.0**-6 * xp.max(xp.abs(value)) + 2.0**-10 * xp.abs(value)
    other = xp.where(value == other, 2.0**-6, other)
    with parameter_at(network.params, name, other):
        loss, y = network.loss(inputs[0], t), layers[place].forward(inputs[place])
    for layer in layers[place + 1 :]:
        y = layer.forward(y)
    alone = network.last_layer.forward(y, t)
    return bool(xp.abs(loss - alone) > SLACK * xp.finfo(alone.dtype).eps * xp.abs(loss))
