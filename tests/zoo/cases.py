"""Every case of the zoo: a right or wrong layer or network, with data, in a library and a dtype."""

import zlib
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from . import activations, convolution, dense, losses, normalization, powers, recurrent, weightless
from .base import Draw, Kind, space
from .hard import HARD
from .networks import around, output_shape
from .plants import ALTER, HISTORY, plant

KINDS = [
    kind
    for module in (activations, powers, dense, weightless, normalization, convolution, recurrent, losses)
    for kind in module.KINDS
]
FACTORS = {"all": (1e-6, 1e-4, 1e-2, 1e2, 1e4, 1e6), "small": (1e-6, 1e-4, 1e-2)}
TELLS = {"float64": 1e-4, "float32": 2e-3}  # effects below are too near to what rounding does to a right version
SETS = tuple(dict.fromkeys(("layers", "in networks", "scaled", "at kinks", *HARD)))


@dataclass(frozen=True)
class Case:
    """One thing to check. ``wrong`` is empty, a bug of the layer, or "HOW: TARGET" planted in it."""

    set: str
    kind: object
    wrong: str = ""
    factor: float = 1.0
    seed: int = 0

    @property
    def dtypes(self):
        return ("float32",) if self.set == "float32 alone" else ("float64", "float32")

    @property
    def kind_name(self):
        return self.kind.name if isinstance(self.kind, Kind) else self.kind.__name__

    @property
    def name(self):
        scale = f" x {self.factor:g}" if self.factor != 1 else ""
        return f"{self.set}/{self.kind_name}{scale}/{self.wrong or 'right'}/seed {self.seed}"

    @property
    def later(self):
        """Whether a mistake shows from the second call on only."""
        return self.wrong.startswith(("keeps its first call", "adds to the last gradient", "dx by the first W"))

    def build(self, xp=np, dtype="float64"):
        """Return (net, x, t), made anew: the same numbers in every library, rounded to ``dtype``."""
        kind = self.kind if isinstance(self.kind, Kind) else None
        rng = np.random.default_rng([self.seed, zlib.crc32(self.kind_name.encode())])

        def put(array, dtype=dtype):
            array = np.asarray(array)
            return xp.asarray(array.astype(dtype) if array.dtype.kind == "f" else array)

        draw = Draw(rng, put)
        if kind is None:
            net, layer, x, t = self.kind(draw)
        elif self.set == "in networks":
            shape = () if kind.t else output_shape(kind, rng)
            layer = kind.make(draw)
            net, x, t = around(layer, kind, shape, draw)
        else:
            layer = net = kind.make(draw)
            x = self.factor * kind.x(Draw(rng))
            x = put(kind.at_kink(x) if self.set == "at kinks" else x)
            t = kind.t(draw) if kind.t else None
            if t is not None and self.factor != 1 and kind.name == "CosineLoss":
                t = t * self.factor
        if self.wrong:
            mistake(layer, self.wrong)
        return net, x, t


def mistake(layer, wrong):
    """Make the backward of ``layer`` wrong."""
    how, _, target = wrong.partition(": ")
    if not target:
        layer.bug = wrong
    elif hasattr(layer, "spoil"):
        layer.spoil = {target: ALTER[how]}
    else:
        plant(layer, how, target)


def plants(parameters, rng, count, x=True):
    """Return ``count`` mistakes that fit any layer, drawn without repetition."""
    targets = [*(["x"] if x else []), *parameters]
    every = [f"{how}: {target}" for how in (*ALTER, *HISTORY) for target in targets]
    every = [w for w in every if w not in {"5 % of the value added: x"}]
    return [every[i] for i in rng.choice(len(every), min(count, len(every)), replace=False)]


@cache
def cases(seed=0, sets=SETS, planted=4, wrong_scaled=2):
    """Return the cases of ``seed``: data, mistakes and all."""
    found = []
    for kind in KINDS:
        rng = np.random.default_rng([seed, 1, zlib.crc32(kind.name.encode())])
        layer = kind.make(Draw(np.random.default_rng(0)))
        extra = plants(layer.parameters, rng, planted)
        if kind.t:  # whether an output layer may ignore its dout is nobody's rule
            extra = [w for w in extra if not w.startswith("ignores")]
        wrongs = ["", *layer.bugs, *extra]
        some = ["", *rng.choice(wrongs[1:], wrong_scaled, replace=False)]
        found += [Case("layers", kind, w, seed=seed) for w in wrongs]
        found += [Case("in networks", kind, w, seed=seed) for w in wrongs]
        found += [Case("scaled", kind, w, f, seed) for f in FACTORS.get(kind.scales, ()) for w in some]
        found += [Case("at kinks", kind, w, seed=seed) for w in some if kind.at_kink]
    for name, makers in HARD.items():
        for make in makers:
            rng = np.random.default_rng([seed, 2, zlib.crc32(make.__name__.encode())])
            net, layer, _, _ = make(Draw(np.random.default_rng(0)))
            names = list(layer.params) if layer is net else layer.parameters
            x = layer is not net and layer is not next(iter(net.layers.values()))  # whose dx nobody asks for
            small = [f"1 % too large: {target}" for target in names[:1]]  # in every entry, and hidden by noise in each
            extra = dict.fromkeys([*getattr(layer, "bugs", ()), *small, *plants(names, rng, planted + 2, x)])
            extra = [w for w in extra if layer is not net or w.partition(": ")[0] not in HISTORY]
            found += [Case(name, make, w, seed=seed) for w in ("", *extra)]
    return [case for case in found if case.set in sets]


# ── How wrong a wrong version is ─────────────────────────────────────────────────────────────────────────────────────


def gradients(net, x, t=None):
    """Return the gradients of a net or layer by its own backward, as it has them after a call with other values."""
    kept = parameters_of(net)
    set_parameters(net, {name: 1.1 * value for name, value in kept.items()})
    _backpropagate(net, 1.1 * x, t)
    set_parameters(net, kept)
    return _backpropagate(net, x, t)


def parameters_of(net):
    """Return {name: array} of a network or a layer."""
    return dict(net.params) if hasattr(net, "params") else {name: getattr(net, name) for name in net.parameters}


def set_parameters(net, values):
    """Make ``net`` compute with ``values``, a dict of arrays: these themselves, to which assignment gives copies."""
    if hasattr(net, "layers"):
        for layer in net.layers.values():
            for attribute, name in net.params.names_of(layer).items():
                setattr(layer, attribute, values[name])
    elif hasattr(net, "params"):
        net.params.update(values)
    else:
        for name, value in values.items():
            setattr(net, name, value)


def _backpropagate(net, x, t):
    if hasattr(net, "params"):
        net.loss(x, t)
        return dict(net.gradient(x, t))
    out = net.forward(x, *(() if t is None else (t,)))
    dx = net.backward(dout_of(out))
    return {"x": dx, **{name: getattr(net, f"d{name}") for name in net.parameters}}


def dout_of(out):
    """Return the dout with which gradients of a layer are compared."""
    rng = np.random.default_rng(1)
    return space(out).asarray(rng.standard_normal(tuple(out.shape)), dtype=out.dtype)


def distance(found, right):
    """Return the largest |a − n| of a parameter beside its largest |n|; infinite for another shape.

    A right gradient that is zero but for rounding, as of a bias before a normalization, is compared with the others.
    """
    found, right = ({name: np.asarray(g) for name, g in gradients.items()} for gradients in (found, right))
    sizes = {name: np.abs(n).max(initial=0.0) for name, n in right.items()}
    worst, largest = 0.0, max(sizes.values())
    for name, n in right.items():
        if found[name].shape != n.shape:
            return np.inf
        off = np.abs(found[name] - n).max(initial=0.0)
        worst = max(worst, off / (sizes[name] if sizes[name] > 1e-12 * largest else largest))
    return float(worst)


@cache
def right_gradients(case, dtype="float64"):
    """Return the gradients of the right version of ``case``."""
    with np.errstate(all="ignore"):
        return gradients(*replace(case, wrong="").build(dtype=dtype))


def effect(case):
    """Return how wrong the gradients of a wrong version are beside those of the right one, found in float64."""
    with np.errstate(all="ignore"):
        return distance(gradients(*case.build()), right_gradients(replace(case, wrong="")))


def tells(case, dtype):
    """Return from which effect a wrong version counts in ``dtype``: well above what rounding does to the right one."""
    right = replace(case, wrong="")
    return max(TELLS[dtype], 10 * distance(right_gradients(right, dtype), right_gradients(right)))
