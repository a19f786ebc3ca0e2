"""Numerical gradients of a row of layers, fast and exact: finite changes propagated through the layers.

The book's numerical gradient runs the whole network twice for every parameter. But moving W[i, j] by h changes one
column of the layer's output, by h·x[:, i], and nothing else. Here that *finite change* is carried on to the loss by the
layers' ``difference``. In exact arithmetic the result is the book's number; in floating point it is better, because its
error is relative to the change and not to the loss.
"""

import math
from functools import partial
from typing import Any, NamedTuple

from array_api_compat import device, is_numpy_array

from .functions import namespace
from .gradients import both_sides, default_step, require_step
from .perturbations import Rest, by_stacks, is_affine, loss_with, way_to_go

METHODS = ("auto", "difference", "stacked", "loop")
STEP = 2.0**-30  # about 1e-9: the error is relative to the change, so that no smallness costs precision
CACHE = 2**22  # bytes of all temporary arrays together on the host, where the processor's cache decides: 4 MiB
DEVICE = 2**28  # and elsewhere, where long kernels do: 256 MiB
TEMPORARIES = 16  # arrays of the size of a chunk that are alive at once


class Change(NamedTuple):
    """By how much the loss changes if one entry of a parameter moves: ``sides`` (2, …) for +h and for −h.

    ``how`` names the way it was found: "difference", "stacked" or "loop".
    """

    sides: Any
    h: float
    how: str

    @property
    def gradient(self):
        """The central difference."""
        return (self.sides[0, ...] - self.sides[1, ...]) / (2 * self.h)


def loss_changes(network, x, t, *, h=None, method="auto", second=False, memory=None, skip_zeros=None, progress=None):
    """Return {name: Change} for every parameter of ``network``, whose ``x`` (N, …) and ``t`` are one batch.

    ``network`` has ``layers``, ``last_layer``, ``params`` and ``loss(x, t)``. ``method`` is

    - "difference": by the layers' ``difference``. Changes of one unit stay apart until a layer mixes units, behind the
      last product a power series sums over the classes, and samples whose input is zero are left out;
    - "stacked": the layers behind the parameter run on a stack of changed inputs, without their ``difference``;
    - "loop": the whole network runs twice for every entry;
    - "auto": the first of these that the layers behind the parameter allow.

    ``h`` is by default 2⁻³⁰ where every layer behind has ``difference``, and ``default_step`` elsewhere; ``second``
    takes a smaller step instead, which meets fewer kinks. ``memory`` bounds the temporary arrays of a chunk, in bytes.
    ``skip_zeros`` says whether zero inputs are left out; None does so on the host where it pays, elsewhere finding them
    would make the device wait. ``progress(n)`` is called when n more entries are done. Raises ValueError for an unknown
    method, for one that a layer does not allow, for a step that is not positive, and for a loss that is not one number.

    On other libraries than NumPy the gradient becomes NaN if inputs times weights are so large, about 2e5 in float64,
    that the power series is not exact: a smaller ``h`` mends that.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    layers = list(network.layers.values())
    inputs = [x]
    for layer in layers:
        inputs.append(layer.forward(inputs[-1]))
    loss = network.last_layer.forward(inputs[-1], t)
    if loss.shape != ():
        raise ValueError(f"the loss has shape {tuple(loss.shape)}; a gradient needs one number: x must be one batch")
    if h is not None:
        h = require_step(h)
    t = getattr(network.last_layer, "t", t)  # as weights: labels would have to be told from weights again on a stack
    memory = memory or (CACHE if is_numpy_array(x) else DEVICE)
    largest = max(1, int(memory) // (TEMPORARIES * namespace(x).finfo(loss.dtype).bits // 8))
    progress = progress or (lambda count: None)

    changes = {}
    for place, layer in enumerate(layers):
        names = network.params.names_of(layer)
        if not names:
            continue
        rest = Rest(layers[place + 1 :], inputs[place + 1 :], network.last_layer, t, loss, method != "stacked")
        way, reason = way_to_go(method, rest)
        if reason:
            raise ValueError(f"method={method!r} cannot be used for the parameters of {type(layer).__name__}: {reason}")
        flat = is_affine(layer) and inputs[place].ndim == 2
        if way == "difference" and not flat:
            way = "stacked"  # what moves is found by running the layer itself again, with the round-off of that
        step = (STEP if way == "difference" else default_step(loss.dtype, namespace(x))) if h is None else h
        step *= second_step(way, loss.dtype, namespace(x)) if second else 1.0
        if way == "loop":
            for name in names.values():
                f = partial(loss_with, network, name, x, t)
                values, steps = both_sides(f, network.params[name], step, progress)
                changes[name] = Change((values - loss) * (step / steps), step, way)
        elif flat and way == "difference" and rest.samplewise:
            sides = _affine_by_units(layer, names, rest, inputs[place], step, largest, skip_zeros, progress)
            changes |= {name: Change(side, step, way) for name, side in sides.items()}
        else:
            for attribute, name in names.items():
                sides = by_stacks(layer, attribute, rest, inputs[place], step, largest, progress)
                changes[name] = Change(sides, step, way)
        if way != "difference":
            network.loss(x, t)  # the layers remember this batch again, not a moved one
    return changes


def second_step(way, dtype, xp):
    """Return the share of a step that a check takes for its second look, as small as round-off allows."""
    return 2.0**-20 if way == "difference" else 2.0 ** round(math.log2(xp.finfo(dtype).eps) / 8)


def _affine_by_units(layer, names, rest, x, h, largest, skip_zeros, progress):
    """Return {name: loss changes (2, …)} of an Affine layer, where a move of W[i, j] changes unit j by ±h·x[:, i].

    The bias is one more weight, on an input of one. Works through chunks (features, samples, units) of at most
    ``largest`` entries: input features i, the samples that are not zero there, and units j.
    """
    xp = namespace(x)
    one = xp.ones((x.shape[0], 1), dtype=x.dtype, device=device(x))
    x = xp.concat([{"W": x, "b": one}[attribute] for attribute in names], axis=1)
    units = layer.W.shape[1]
    alone = 0
    while alone < len(rest.layers) and getattr(rest.layers[alone], "elementwise", False):
        alone += 1
    mixing = rest.layers[alone:]
    if mixing and is_affine(mixing[0]):
        directions, mixing = mixing[0].W, mixing[1:]
    else:
        directions = xp.eye(units, dtype=x.dtype, device=device(x))
    series = None if mixing else _series(rest.last_layer, directions, xp.max(xp.abs(x)), h)
    width = 1 if series else max([directions.shape[1], *(y.shape[-1] for y in rest.inputs[alone + 1 :])])

    samples = _Samples(x, skip_zeros)
    together = min(units, max(1, largest // (samples.most * width)))
    by_units = []
    for first in range(0, units, together):
        some = slice(first, min(first + together, units))
        by_features = []
        for values, rows in samples.chunks(largest // (together * width)):
            move = h * values[..., None]
            z = xp.stack([move, -move])  # (2, features, samples, 1), behind the next layer (…, units)
            for single in rest.layers[:alone]:
                z = single.difference(z, _of_units(rows, some))
            if series:
                parts = rows(series[-1][:, some]) * z
                for coefficient in series[-2::-1]:
                    parts = (parts + rows(coefficient[:, some])) * z
            else:
                dx = z[..., None] * directions[some, :]  # (2, features, samples, units, all scores)
                for mixed in mixing:
                    dx = mixed.difference(dx, _of_samples(rows))
                parts = rest.last_layer.difference(dx, _of_samples(rows))
            by_features.append(xp.sum(parts, axis=2))
            progress(values.shape[0] * (some.stop - some.start))
        by_units.append(samples.in_order(xp.concat(by_features, axis=1)))
    sides, found = xp.concat(by_units, axis=2), {}
    for attribute, name in names.items():
        count = 1 if attribute == "b" else sides.shape[1] - ("b" in names)
        start = 0 if attribute == next(iter(names)) else sides.shape[1] - count
        found[name] = xp.reshape(sides[:, start : start + count, :], (2, *getattr(layer, attribute).shape))
    return found


def _of_units(rows, some):
    return lambda kept: rows(kept[:, some])


def _of_samples(rows):
    return lambda kept: rows(kept)[..., None, :]


def _series(last_layer, directions, largest_input, h):
    """Return the coefficients of the output layer's power series along ``directions``, or None if it is not exact.

    Moves are at most |z| ≤ h·largest_input. After K terms a share (R·z)ᴷ/6 of the largest possible change R·z is left
    out, R being the largest range of a direction: K is chosen so that this stays below the unit round-off.
    """
    if not hasattr(last_layer, "series"):
        return None
    xp = namespace(directions)
    bound = h * largest_input * xp.max(xp.max(directions, axis=1) - xp.min(directions, axis=1))
    limit = 6 * xp.finfo(directions.dtype).eps
    if getattr(last_layer, "exact_series", False):
        return last_layer.series(directions, 2)
    if is_numpy_array(directions):
        terms = next((k for k in (2, 3, 4) if float(bound) <= limit ** (1 / k)), None)
        return terms and last_layer.series(directions, terms)
    if h > STEP:
        return None
    # to look at the bound would make the device wait; beyond it the gradient becomes NaN, and a smaller h mends that
    first, *others = last_layer.series(directions, 4)
    return [xp.where(bound <= limit**0.25, first, xp.nan), *others]


class _Samples:
    """For every feature of ``x`` (N, D), the samples that are not zero there: a move of its weights touches no others.

    Features are taken in the order of their counts, so that those of a chunk have about equally many samples; the
    missing ones are filled up with samples whose value is zero, which change nothing.
    """

    def __init__(self, x, skip_zeros):
        xp = namespace(x)
        self.x, self.most, self.order = x, x.shape[0], None
        if skip_zeros is False or (skip_zeros is None and not is_numpy_array(x)):
            return
        counts = xp.count_nonzero(x, axis=0)
        if skip_zeros is None and int(xp.sum(counts)) > 0.7 * x.shape[0] * x.shape[1]:
            return  # gathering costs more than it saves
        self.order = xp.argsort(counts, descending=True)
        self.counts = [int(count) for count in xp.take(counts, self.order)]
        self.rows = xp.argsort(xp.astype(x == 0, xp.uint8), axis=0, stable=True)
        self.most = max(1, self.counts[0])

    def chunks(self, largest):
        """Yield (values (features, samples), rows), where rows brings (N, …) to (features or 1, samples, …)."""
        xp = namespace(self.x)
        start, features = 0, self.x.shape[1]
        while start < features:
            count = self.most if self.order is None else max(1, self.counts[start])
            stop = min(features, start + max(1, largest // count))
            if self.order is None:
                yield self.x[:, start:stop].T, lambda kept: kept[None, ...]
            else:
                some = self.order[start:stop]
                rows = xp.take(self.rows[:count, :], some, axis=1)
                yield xp.take_along_axis(xp.take(self.x, some, axis=1), rows, axis=0).T, _gather(rows.T)
            start = stop

    def in_order(self, by_features):
        """Return results (2, D, …) in the order of the features of ``x``."""
        if self.order is None:
            return by_features
        xp = namespace(by_features)
        return xp.take(by_features, xp.argsort(self.order), axis=1)


def _gather(rows):
    def gather(kept):
        xp = namespace(kept)
        return xp.reshape(xp.take(kept, flat, axis=0), (*rows.shape, kept.shape[1]))

    flat = namespace(rows).reshape(rows, (-1,))
    return gather
