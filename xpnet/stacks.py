"""What lies behind a layer: finite changes carried to the loss, by ``difference`` or by running layers on stacks."""

import math
from functools import cached_property

from array_api_compat import device

from .functions import namespace
from .layers import has_own, is_affine
from .moves import moved, positions


def is_ours(layer):
    """Return whether ``layer`` runs a forward of this library: which keeps what it needs by assignment, and no more."""
    return type(layer).__module__.partition(".")[0] == __package__ and has_own(layer, "difference", "forward")


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

    def to_scores(self, moves, some):
        """Return the changes (K, units, N, …) of the scores if, of a sample, one unit moves by moves (K, N, 1)."""
        for k in range(self.alone):
            moves = self._pass(k, moves, lambda a: a[:, some])
        z = namespace(moves).permute_dims(moves, (0, 2, 1))[..., None]
        return self._through(z * self.directions[some, None, :], self.mixing)

    def of_pairs(self, moves, samples, units):
        """Return the loss changes (K, D, P) if units (P,) of samples (P,) move by moves (K, D, P)."""
        xp = namespace(moves)
        for k in range(self.alone):
            moves = self._pass(k, moves, lambda a: a[samples, units])

        def pick(a):
            return xp.take(a, samples, axis=0)

        losses = None if self.losses is None else pick(self.losses)
        inputs, behind = [pick(x) for x in self.inputs[self.mixing :]], slice(self.mixing, None)
        end = self.last_layer, pick(self.t), self.ways[behind], self.loss, self.weight, losses
        behind = Tail(self.layers[behind], inputs, *end)
        return behind.end(behind._through(moves[..., None] * xp.take(self.directions, units, axis=0)))

    def end(self, dx):
        """Return each sample's part (…, N) in the change of the loss if the scores change by dx (…, N, …)."""
        if self.ways[-1] == "difference":
            return self.weight * self.last_layer.difference(self.inputs[-1], self.t, dx)
        return self.weight * (losses_alone(self.last_layer, self.inputs[-1] + dx, self.t, self.ways[-1]) - self.losses)

    def change(self, dx):
        """Return the change (…) of the loss if the first layer's input changes by dx (…, N, …)."""
        if self.samplewise:
            return namespace(dx).sum(self.end(self._through(dx)), axis=-1)
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
        came = f"{type(last_layer).__name__} returns losses of shape {tuple(losses.shape)}"
        raise ValueError(f"{came} for scores of shape {tuple(scores.shape)}")
    return losses


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
