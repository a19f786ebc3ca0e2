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
from functools import reduce
from operator import add
from typing import Any, NamedTuple

from array_api_compat import device

from .functions import namespace, on_host
from .gradients import both_sides, default_step, require_step
from .layer_state import declared_generators, rewound
from .layers import is_affine
from .stacks import by_entries, is_ours
from .state import unchanged
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

    ``how`` names the way it was found: "difference", "stacked" or "loop". ``both`` are the loss changes (2, …) for +h
    and for −h, where they were looked at singly.
    """

    gradient: Any
    h: float
    how: str
    both: Any = None

    @property
    def sides(self):
        """The loss changes (2, …) for +h and for −h; without a bend where they were not looked at singly."""
        if self.both is not None:
            return self.both
        move = self.gradient * self.h
        return namespace(move).stack([move, -move])


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
        changes, progress = {}, progress or (lambda count: None)
        for place, layer in enumerate(row.layers):
            names = network.params.names_of(layer)
            if names:
                changes |= _of_layer(row, place, names, h, second, largest, progress)
        within = [name for name in network.params if name not in changes]  # layers that a layer is made of
        if within and method not in ("auto", "loop"):
            raise ValueError(f"method={method!r} cannot be used for {within[0]}, a parameter within a layer")
        changes |= {name: _by_loop(row, name, h, second, progress) for name in within}
    return {name: changes[name] for name in network.params}


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


def _of_layer(row, place, names, h, second, largest, progress):
    """Return {name: Change} of the parameters ``names`` {attribute: name} of one layer."""
    layer, x, tail, params = row.layers[place], row.inputs[place], row.tail(place), row.network.params
    by_units = is_affine(layer) and x.ndim == 2
    how = row.way(place, names, tail, by_units)
    finer = 1.0 if not second else FINER if how == "difference" else second_step(row.loss)
    if by_units and how != "loop" and tail.samplewise:
        step = (h or (STEP if how == "difference" else _step(row.loss, tail.inputs[0], x))) * finer
        if how == "stacked":
            xp = namespace(x)
            _require_moved(xp.max(xp.abs(tail.inputs[0])), step * xp.max(xp.abs(x)), step)
        gradient = _by_units(tail, _with_ones(x, names), step, largest, progress)
        return {name: Change(part, step, how) for name, part in _split(gradient, layer, names).items()}
    changes = {}
    for attribute, name in names.items():
        step = (h or _step(row.loss, params[name])) * finer
        if how == "loop":
            changes[name] = _by_loop(row, name, h, second, progress)
        else:
            _require_moved(params[name], step, step)
            changes[name] = Change(by_entries(layer, attribute, tail, x, step, largest, progress), step, how)
    return changes


def _by_loop(row, name, h, second, progress):
    value = row.network.params[name]
    step = (h or _step(row.loss, value)) * (second_step(row.loss) if second else 1.0)
    values, steps = both_sides(row.loss_at(name), value, step, progress)
    gradient = (values[0, ...] - values[1, ...]) / (steps[0, ...] + steps[1, ...])
    return Change(gradient, step, "loop", (values - row.loss) * (step / steps))


def _step(loss, moved, by=None):
    """Return a step that, times ``by``, moves an array by about ``default_step`` of its largest entry."""
    xp = namespace(moved)
    scale = float(xp.max(xp.abs(moved))) or 1.0
    scale /= 1.0 if by is None else float(xp.max(xp.abs(by))) or 1.0
    return default_step(loss.dtype, xp) * 2.0 ** math.floor(math.log2(scale) if 0 < scale < math.inf else 0.0)


def second_step(loss):
    """Return the share of its step that a second look takes where losses are subtracted: small, as round-off allows."""
    return 2.0 ** round(math.log2(namespace(loss).finfo(loss.dtype).eps) / 8)


def _require_moved(value, move, h):
    if bool(namespace(value).any((value + move == value) | (value - move == value))):
        raise ValueError(f"h = {h} is too small: an entry plus h is stored as the entry itself")


def _with_ones(x, names):
    """Return the inputs (N, …) that the parameters of an Affine layer multiply: x those of W, one that of b."""
    xp = namespace(x)
    one = xp.ones((x.shape[0], 1), dtype=x.dtype, device=device(x))
    return xp.concat([{"W": x, "b": one}[attribute] for attribute in names], axis=1) if "b" in names else x


def _split(gradient, layer, names):
    """Return {name: its rows of a gradient (…, M) with respect to all weights of an Affine layer}."""
    found, start = {}, 0
    for attribute, name in names.items():
        shape = getattr(layer, attribute).shape
        stop = start + (1 if attribute == "b" else shape[0])
        found[name] = namespace(gradient).reshape(gradient[start:stop, :], shape)
        start = stop
    return found


def _by_units(tail, x, h, largest, progress):
    """Return the gradient (D, M) with respect to weights that multiply ``x`` (N, D) and move units of ``tail``."""
    xp, units, looks = namespace(x), tail.inputs[0].shape[1], on_host(x) or tail.runs
    count = 2 if h <= STEP else 3 if h <= 2.0**-10 else 4  # of moves on either side
    shares = [1.0 - 2 * k / (2 * count - 1) for k in range(count)]  # of a sample's largest move
    reach = xp.max(xp.abs(x), axis=1, keepdims=True)
    reach = xp.where(reach > 0, reach, 1.0)
    bases = _bases(x / reach, shares)
    if looks:  # where a basis is 0, at the shares themselves, nothing is read off
        top = xp.max(xp.abs(bases[-1]), axis=1)
    moves = xp.linspace(-1.0, 1.0, 2 * count, dtype=x.dtype, device=device(x))[:, None, None] * (h * reach)
    together = max(1, largest // (2 * count * x.shape[0] * tail.width))
    columns = []
    for start in range(0, units, together):
        some = slice(start, min(start + together, units))
        values = tail.of_units(moves, some)  # (moves, units, N)
        odd = [(values[-1 - k, ...] - values[k, ...]) * (0.5 / (h * share)) for k, share in enumerate(shares)]
        c = _newton([share**2 for share in shares], odd)
        if looks:
            largest_change = xp.max(xp.abs(values), axis=(0, 2))[:, None]
            rounding = ROUNDING * xp.finfo(x.dtype).eps * (largest_change + tail.noise)
            rough = xp.abs(c[-1]) * (h * top) > rounding
        else:
            rough = xp.full(c[-1].shape, h > STEP, device=device(x))
        one_by_one = bool(xp.any(rough)) if looks else h > STEP
        if one_by_one:
            c = [xp.where(rough, 0.0, part) for part in c]
        part = _sum(basis.T @ coefficient.T for basis, coefficient in zip(bases, c, strict=True))
        if one_by_one:
            part = part + _one_by_one(tail, x, h, rough, start, largest)
        columns.append(part)
        progress(part.shape[0] * part.shape[1])
    return columns[0] if len(columns) == 1 else xp.concat(columns, axis=1)


def _sum(arrays):
    return reduce(add, arrays)  # without the 0 that sum() begins with


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


def _one_by_one(tail, x, h, rough, first, largest):
    """Return the part of ``rough`` (units, N) units of samples in a gradient (D, units), every move looked at alone."""
    xp, where = namespace(x), device(x)
    if on_host(x) or tail.runs:
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
