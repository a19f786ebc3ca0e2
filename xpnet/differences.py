"""Numerical gradients of a row of layers, fast and exact: changes of the loss, tabulated for every unit and sample.

The book moves one weight by h and runs the whole network again, twice for each of 39,760 weights. Here only what moves
is followed. Take a layer y = x @ W + b of D features and M units, and N samples whose losses Lₙ are averaged:

1. Moving W[i, j] by h moves unit j of sample n by u = h·x[n, i], and nothing else; moving b[j] moves it by h.
2. So all weights into unit j ask the same question of sample n: by how much does its loss change if the unit moves by
   u? Call the answer F(u), one function for each sample and unit. The central difference of the loss is

       (L(W[i, j] + h) − L(W[i, j] − h)) / 2h  =  Σₙ (Fₙⱼ(h·x[n, i]) − Fₙⱼ(−h·x[n, i])) / 2h.

3. F is measured at a few moves ±s·r, r the sample's largest: finite changes are carried through the layers behind by
   their ``difference``, or by running layers that have none on one long batch. No two near numbers are subtracted by
   ``difference``, so the error is relative to the change, and the step may be as small as we like.
4. Between these moves F is read off. Half of F(u) − F(−u) is an odd function, u·(c₀ + c₁·(u² − s₁²) + …) (Newton's
   interpolation), whose coefficients c (N, M) follow from what was measured. Summed over the samples that is

       gradient (D, M) = uᵀ @ c₀ + (u·(u² − s₁²))ᵀ @ c₁ + …,

   two matrix products in place of 79,520 runs of the network.
5. The last coefficient tells whether it may be read off: beyond round-off there is a kink between the moves, as where a
   ReLU switches, or F bends too much. There the moves of all features are taken one by one. Off the host nothing is
   looked at, which would make the device wait: by the default step F is then read off always, by larger ones never.

No line of this is a derivative, and nothing that ``forward`` kept for ``backward`` is read. What it shares with
backpropagation is that an affine layer is x @ W + b, and that the samples' losses are averaged.

Source: carrying finite changes exactly is old (T. Reps and L. Rall, Computational divided differencing and
divided-difference arithmetics, 2003; slopes of Krawczyk, Neumaier and Rump; DeepLIFT's multipliers), as is moving a
unit and multiplying by its input (Madaline rule III; Flower and Jabri 1992), which is exact only as h → 0. We know of
nobody who tabulates F for each unit and sample to have all weights at a finite h, with control of the error.
"""

import contextlib
import math
from typing import Any, NamedTuple

from array_api_compat import device

from .describing import record_in_words
from .functions import namespace, on_host
from .layer_state import declared_generators, rewound
from .layers import is_affine
from .moves import both_sides
from .stacks import by_entries, is_ours
from .state import unchanged
from .steps import default_step, require_step
from .trials import Row

METHODS = ("auto", "difference", "stacked", "loop")
STEP = 2.0**-30  # about 1e-9: the error is relative to the change, so that no smallness costs precision
FINER = 2.0**-20  # the share of it that a second look takes
CACHE = 2**22  # bytes of all temporary arrays together on the host, where the processor's cache decides: 4 MiB
DEVICE = 2**28  # and elsewhere, where long kernels do: 256 MiB
TEMPORARIES = 8  # arrays of the size of a chunk that are alive at once
ROUNDING = 32  # unit round-offs of a unit's largest change: a coefficient that makes no more of a difference is none


class Change(NamedTuple):
    """How the loss changes with one parameter: its central-difference ``gradient`` by the step ``h``.

    ``how`` names the way it was found: "difference", "stacked" or "loop".
    """

    gradient: Any
    h: float
    how: str

    def __repr__(self):
        return record_in_words(self)


def loss_changes(network, x, t, *, h=None, method="auto", second=False, memory=None, shared=(), progress=None):
    """Return {name: Change} for every parameter of ``network``, whose ``x`` (N, …) and ``t`` are one batch.

    ``network`` has ``layers``, ``last_layer``, ``params`` and ``loss(x, t)``; it is afterwards as before. ``method`` is

    - "difference": what lies behind a parameter is followed by the layers' ``difference``;
    - "stacked": the layers behind run on more inputs at once, without their ``difference``;
    - "loop": the whole network runs twice for every entry;
    - "auto": the first of these that the layers behind the parameter allow.

    Only the loop is right, and taken, for parameters that are ``shared`` with another layer or found to act elsewhere,
    and where a layer draws its answer anew: then every run begins from the same state.

    ``h`` is by default 2⁻³⁰ where changes are followed by ``difference``, and elsewhere ``default_step`` of the outputs
    or parameters that move; ``second`` takes a smaller step instead, which meets fewer kinks. ``memory`` bounds the
    temporary arrays of a chunk, in bytes. ``progress(n)`` is called when n more entries are done. Raises ValueError for
    an unknown method, for one that a layer does not allow, for a step that is not positive or vanishes beside what it
    is added to, and for a loss that is not one number.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    h = None if h is None else require_step(h)
    layers = [*network.layers.values(), network.last_layer]
    foreign = [layer for layer in layers if not is_ours(layer)]
    with unchanged(*foreign) if foreign else contextlib.nullcontext(), _attributes_kept(filter(is_ours, layers)):
        with rewound(declared_generators(network.layers.values())):  # what is drawn now is drawn in every run
            row = Row(network, x, t, method, shared)
        memory = memory or (CACHE if on_host(x) else DEVICE)
        largest = max(1, int(memory) // (TEMPORARIES * namespace(x).finfo(row.loss.dtype).bits // 8))
        return _of_row(row, h, second, largest, progress or (lambda count: None))


def _of_row(row, h, second, largest, progress):
    """Return {name: Change}: units of all layers by tables, filled together; other parameters entry by entry."""
    params, changes, tables = row.network.params, {}, []
    for place, layer in enumerate(row.layers):
        names, x = params.names_of(layer), row.inputs[place]
        if not names:
            continue
        tail, by_units = row.tail(place), is_affine(layer) and x.ndim == 2
        how = row.way(place, names, tail, by_units)
        if by_units and how != "loop" and tail.samplewise:
            step = _step(row, how, h, second, row.inputs[place + 1], x)
            tables.append(_Table(layer, names, tail, x, how, step))
        else:
            changes |= _by_entries(row, place, names, tail, how, h, second, largest, progress)
    for chunk in _chunks(tables, largest):
        _fill(chunk, largest, progress)
    for table in tables:
        changes |= table.changes()
    within = {name: name for name in params if name not in changes}  # learned by layers that a layer is made of
    if within and row.method not in ("auto", "loop"):
        raise ValueError(f"method={row.method!r} cannot be used for {next(iter(within))}, a parameter within a layer")
    changes |= _by_entries(row, None, within, None, "loop", h, second, largest, progress)
    return {name: changes[name] for name in params}


@contextlib.contextmanager
def _attributes_kept(layers):
    """Let layers of ours remember afterwards what they remember now: what they keep, they keep by assignment."""
    kept = [(vars(layer), dict(vars(layer))) for layer in layers]
    try:
        yield
    finally:
        for held, before in kept:
            held.clear()
            held.update(before)


def _step(row, how, h, second, moved, by=None):
    """Return the step: 2⁻³⁰, or where losses are subtracted the one that moves an array as far as is best for it.

    That is ``default_step`` of the largest number in ``moved``; the step is multiplied by the numbers in ``by``.
    """
    if how == "difference":
        return (h or STEP) * (FINER if second else 1.0)
    xp, dtype, reach = namespace(row.loss), row.loss.dtype, 1.0 if by is None else _largest(by)
    scale = _largest(moved) / reach
    step = h or default_step(dtype, xp) * 2.0 ** math.floor(math.log2(scale) if 0 < scale < math.inf else 0.0)
    step *= 2.0 ** round(math.log2(xp.finfo(dtype).eps) / 8) if second else 1.0
    if how == "stacked" and bool(xp.any((moved + step * reach == moved) | (moved - step * reach == moved))):
        raise ValueError(f"h = {step} is too small: an entry plus h is stored as the entry itself")
    return step


def _largest(x):
    return float(namespace(x).max(namespace(x).abs(x))) or 1.0


def _by_entries(row, place, names, tail, how, h, second, largest, progress):
    """Return {name: Change} of parameters that are looked at entry by entry: by the plain loop, or on stacks."""
    changes, params = {}, row.network.params
    for attribute, name in names.items():
        step = _step(row, how, h, second, params[name])
        if how == "loop":
            values, steps = both_sides(row.loss_at(name), params[name], step, progress)
            gradient = (values[0, ...] - values[1, ...]) / (steps[0, ...] + steps[1, ...])
        else:
            gradient = by_entries(row.layers[place], attribute, tail, row.inputs[place], step, largest, progress)
        changes[name] = Change(gradient, step, how)
    return changes


class _Table:
    """What moves of the units of one Affine layer do to every sample's loss, measured at a few shares and read off."""

    def __init__(self, layer, names, tail, x, how, h):
        xp, self.layer, self.names, self.tail, self.how, self.h = namespace(x), layer, names, tail, how, h
        self.x = xp.concat([x if attribute == "W" else xp.ones_like(x[:, :1]) for attribute in names], axis=1)
        self.looks = on_host(x) or tail.runs
        count = 2 if h <= STEP else 3 if h <= 2.0**-10 else 4  # of moves on either side
        self.shares = [1.0 - 2 * k / (2 * count - 1) for k in range(count)]  # of a sample's largest move
        reach = xp.max(xp.abs(self.x), axis=1, keepdims=True)
        reach = xp.maximum(reach, xp.finfo(x.dtype).smallest_normal)
        self.bases = _bases(self.x / reach, self.shares)
        self.moves = xp.linspace(-1.0, 1.0, 2 * count, dtype=x.dtype, device=device(x))[:, None, None] * (h * reach)
        self.units, self.size = layer.W.shape[1], 2 * count * x.shape[0] * tail.width  # numbers for each unit
        self.columns = []

    def read_off(self, values, some, largest):
        """Add the gradient (D, units) of some units, from the loss changes (moves, units, N) that were measured."""
        xp, half = namespace(values), len(self.shares)
        rise = values[half:, ...] - xp.flip(values[:half, ...], axis=0)  # the largest moves last
        odd = [rise[-1 - k, ...] * (0.5 / (self.h * share)) for k, share in enumerate(self.shares)]
        c, rough = _newton([share**2 for share in self.shares], odd), None
        if self.looks:  # where a basis is 0, at the shares themselves, nothing is read off
            beside = xp.max(xp.abs(values), axis=(0, 2))[:, None] + self.tail.noise
            top = self.h * xp.max(xp.abs(self.bases[-1]), axis=1)
            rough = xp.abs(c[-1]) * top > ROUNDING * xp.finfo(values.dtype).eps * beside
            rough = rough if bool(xp.any(rough)) else None
        elif self.h > STEP:
            rough = xp.ones(c[-1].shape, dtype=xp.bool, device=device(values))
        if rough is not None:
            c = [xp.where(rough, 0.0, part) for part in c]
        column = self.bases[0].T @ c[0].T
        for basis, part in zip(self.bases[1:], c[1:], strict=True):
            column = column + basis.T @ part.T
        if rough is not None:
            column = column + _one_by_one(self.tail, self.x, self.h, rough, some.start, largest, self.looks)
        self.columns.append(column)

    def changes(self):
        """Return {name: Change} of the layer's parameters, which are rows of W and one of b."""
        xp, found, start = namespace(self.x), {}, 0
        gradient = self.columns[0] if len(self.columns) == 1 else xp.concat(self.columns, axis=1)
        for attribute, name in self.names.items():
            shape = getattr(self.layer, attribute).shape
            stop = start + (1 if attribute == "b" else shape[0])
            found[name] = Change(xp.reshape(gradient[start:stop, :], shape), self.h, self.how)
            start = stop
        return found


def _chunks(tables, largest):
    """Yield lists of (table, some of its units) whose moves fit together into ``largest`` numbers."""
    chunk, room = [], largest
    for table in tables:
        start = 0
        while start < table.units:
            if chunk and (room < table.size or len(table.shares) != len(chunk[0][0].shares)):
                yield chunk
                chunk, room = [], largest
            stop = min(table.units, start + max(1, room // table.size))
            chunk.append((table, slice(start, stop)))
            room -= (stop - start) * table.size
            start = stop
    if chunk:
        yield chunk


def _fill(chunk, largest, progress):
    """Measure what moves of a chunk of units do, those of several layers together in the output layer."""
    at_scores = [table.tail.to_scores(table.moves, some) for table, some in chunk]
    dx = at_scores[0] if len(at_scores) == 1 else namespace(at_scores[0]).concat(at_scores, axis=1)
    values, start = chunk[0][0].tail.end(dx), 0
    for table, some in chunk:
        stop = start + some.stop - some.start
        table.read_off(values[:, start:stop, :], some, largest)
        progress(table.x.shape[1] * (stop - start))
        start = stop


def _newton(nodes, values):
    """Return the coefficients c of c₀ + c₁·(v − v₀) + c₂·(v − v₀)·(v − v₁) + …, which has the values at the nodes v."""
    found = []
    for node, c in zip(nodes, values, strict=True):
        for other, earlier in zip(nodes, found, strict=False):
            c = (c - earlier) * (1.0 / (node - other))
        found.append(c)
    return found


def _bases(u, shares):
    """Return what these coefficients multiply, for v = u² and the squares of ``shares`` as nodes, each times u."""
    found = [u]
    for share in shares[:-1]:
        found.append(found[-1] * (u * u - share**2))
    return found


def _one_by_one(tail, x, h, rough, first, largest, looks):
    """Return the part of ``rough`` (units, N) units of samples in a gradient (D, units), every move looked at alone."""
    xp, where = namespace(x), device(x)
    if looks:
        units, samples = xp.nonzero(rough)
    else:
        every = xp.arange(rough.shape[0] * rough.shape[1], device=where)
        units, samples = every // rough.shape[1], every % rough.shape[1]
    features = min(x.shape[1], max(1, largest // (2 * tail.width)))
    together = max(1, largest // (2 * tail.width * features))
    rows = []
    for top in range(0, x.shape[1], features):
        values = x[:, top : min(top + features, x.shape[1])]
        total = xp.zeros((values.shape[1], rough.shape[0]), dtype=x.dtype, device=where)
        for start in range(0, units.shape[0], together):
            stop = min(start + together, units.shape[0])
            of_samples, of_units = samples[start:stop], units[start:stop]
            moves = h * xp.take(values, of_samples, axis=0).T
            plus_minus = tail.of_pairs(xp.stack([moves, -moves]), of_samples, of_units + first)
            here = xp.astype(of_units[:, None] == xp.arange(rough.shape[0], device=where), x.dtype)
            total = total + (plus_minus[0, ...] - plus_minus[1, ...]) @ here
        rows.append(total * (0.5 / h))
    return xp.concat(rows)
