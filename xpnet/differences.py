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
from .gradients import default_step
from .layers import Affine
from .perturbations import by_loop, by_stacks, loss_with

METHODS = ("auto", "difference", "stacked", "loop")
STEP = 2.0**-20  # about 1e-6: truncation h²·f‴/6 is near round-off, and kinks are met a hundredth as often as at 1e-4
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

    ``h`` is by default 2⁻²⁰ where every layer behind has ``difference``, and ``default_step`` elsewhere; ``second``
    takes a smaller step instead, which meets fewer kinks. ``memory``
    bounds the temporary arrays, in bytes. ``skip_zeros`` says whether zero inputs are left out; None does so on the
    host where it pays, elsewhere finding them would make the device wait. ``progress(n)`` is called when n more entries
    are done. Raises ValueError for an unknown method, for one that a layer does not allow, and for a loss that is not
    one number.
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
    memory = memory or (CACHE if is_numpy_array(x) else DEVICE)
    largest = max(1, int(memory) // (TEMPORARIES * namespace(x).finfo(loss.dtype).bits // 8))
    progress = progress or (lambda count: None)

    changes = {}
    for place, layer in enumerate(layers):
        names = network.params.names_of(layer)
        if not names:
            continue
        rest = _Rest(layers[place + 1 :], inputs[place + 1 :], network.last_layer, t, loss, method != "stacked")
        way, reason = _way(method, rest)
        if reason:
            raise ValueError(f"method={method!r} cannot be used for the parameters of {type(layer).__name__}: {reason}")
        step = h or (STEP if way == "difference" else default_step(loss.dtype, namespace(x)))
        step *= second_step(way, loss.dtype, namespace(x)) if second else 1.0
        flat = isinstance(layer, Affine) and inputs[place].ndim == 2
        if way == "loop":
            for name in names.values():
                sides = by_loop(partial(loss_with, network, name, x, t), network.params[name], step, progress)
                changes[name] = Change(sides, step, way)
        elif flat and way == "difference" and rest.samplewise:
            sides = _affine_by_units(layer, rest, inputs[place], step, largest, skip_zeros, progress)
            changes |= _weight_and_bias(sides, names, step, way)
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


class _Rest:
    """What lies behind a layer: further layers, their inputs (the last are the scores), the output layer, the loss."""

    def __init__(self, layers, inputs, last_layer, t, loss, use_differences):
        self.layers, self.inputs, self.last_layer, self.t, self.loss = layers, inputs, last_layer, t, loss
        self.by_stack = [
            not (use_differences and hasattr(layer, "difference")) for layer in [*self.layers, self.last_layer]
        ]

    @property
    def samplewise(self):
        return all(getattr(layer, "samplewise", False) for layer in [*self.layers, self.last_layer])

    def loss_change(self, dx):
        """Return by how much the loss changes (…) if the first layer's input (N, D) changes by each of dx (…, N, D)."""
        for layer, x, y, by_stack in zip(self.layers, self.inputs, self.inputs[1:], self.by_stack, strict=False):
            dx = layer.forward(x + dx) - y if by_stack else layer.difference(dx)
        if self.by_stack[-1]:
            return self.last_layer.forward(self.inputs[-1] + dx, self.t) - self.loss
        return namespace(dx).sum(self.last_layer.difference(dx), axis=-1)

    def stacked(self):
        """Yield (layer, input, further arguments of forward) for the layers that run on stacks."""
        for layer, x, by_stack in zip([*self.layers, self.last_layer], self.inputs, self.by_stack, strict=True):
            if by_stack:
                yield layer, x, (self.t,) if layer is self.last_layer else ()

    def first_unstackable(self):
        """Return what is wrong with the first of them that does not let leading axes pass, or None."""
        for layer, x, more in self.stacked():
            xp = namespace(x)
            pair = (x, 0.75 * x)
            try:
                singly = xp.stack([layer.forward(one, *more) for one in pair])
                stacked = layer.forward(xp.stack(pair)[:, None, ...], *more)[:, 0, ...]
                tolerance = 1000 * xp.finfo(singly.dtype).eps * xp.max(xp.abs(singly))
                if stacked.shape != singly.shape or not bool(xp.all(xp.abs(stacked - singly) <= tolerance)):
                    return f"{type(layer).__name__} behind it gives other results for a stack of inputs than one by one"
            except Exception as error:  # whatever a foreign layer raises on a stack, it cannot run on one
                return f"{type(layer).__name__} behind it cannot run on a stack of inputs ({error})"
            finally:
                layer.forward(x, *more)
        return None


def _way(method, rest):
    """Return (the way to go, None), or (None, the reason why ``method`` cannot be used)."""
    if method == "loop" or not any(rest.by_stack):
        return ("loop" if method == "loop" else "difference"), None
    if method == "difference":
        lacking = [type(layer).__name__ for layer, _, _ in rest.stacked()]
        return None, f"{', '.join(lacking)} behind it has no method difference(dx)"
    unstackable = rest.first_unstackable()
    if unstackable is None:
        return "stacked", None
    return ("loop", None) if method == "auto" else (None, unstackable)


def _weight_and_bias(sides, names, h, how):
    """Take (2, D + 1, M) apart: the bias is the weight on an input of one."""
    if "b" not in names:
        return {names["W"]: Change(sides, h, how)}
    return {names["W"]: Change(sides[:, :-1, :], h, how), names["b"]: Change(sides[:, -1, :], h, how)}


def _affine_by_units(layer, rest, x, h, largest, skip_zeros, progress):
    """Return the loss changes (2, D + 1, M) of an Affine layer, where a move of W[i, j] changes unit j by ±h·x[:, i].

    Works through chunks (features, samples, units) of at most ``largest`` entries: input features i, the samples that
    are not zero there, and units j.
    """
    xp = namespace(x)
    if layer.b is not None:
        x = xp.concat([x, xp.ones((x.shape[0], 1), dtype=x.dtype, device=device(x))], axis=1)
    units = layer.W.shape[1]
    alone = 0
    while alone < len(rest.layers) and getattr(rest.layers[alone], "elementwise", False):
        alone += 1
    mixing = rest.layers[alone:]
    if mixing and isinstance(mixing[0], Affine):
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
            for layer in rest.layers[:alone]:
                z = layer.difference(z, _of_units(rows, some))
            if series:
                parts = rows(series[-1][:, some]) * z
                for coefficient in series[-2::-1]:
                    parts = (parts + rows(coefficient[:, some])) * z
            else:
                dx = z[..., None] * directions[some, :]  # (2, features, samples, units, all scores)
                for layer in mixing:
                    dx = layer.difference(dx, _of_samples(rows))
                parts = rest.last_layer.difference(dx, _of_samples(rows))
            by_features.append(xp.sum(parts, axis=2))
            progress(values.shape[0] * (some.stop - some.start))
        by_units.append(samples.in_order(xp.concat(by_features, axis=1)))
    return xp.concat(by_units, axis=2)


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
        terms = next((k for k in (2, 3, 4) if float(bound) ** k <= limit), None)
        return terms and last_layer.series(directions, terms)
    if h > STEP:
        return None
    # to look at the bound would make the device wait; beyond it the gradient becomes NaN, and a smaller h mends that
    first, *others = last_layer.series(directions, 4)
    return [xp.where(bound**4 <= limit, first, xp.nan), *others]


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
