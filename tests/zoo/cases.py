"""Every case of the zoo: a right or wrong layer or network, with data, in a library and a dtype."""

import zlib
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from . import activations, convolution, dense, losses, normalization, powers, recurrent
from .base import Draw, Kind, space
from .networks import HARD, around, throwaway
from .plants import ALTER, HISTORY, plant

KINDS = [
    kind
    for module in (activations, powers, dense, normalization, convolution, recurrent, losses)
    for kind in module.KINDS
]
FACTORS = {"all": (1e-6, 1e-4, 1e-2, 1e2, 1e4, 1e6), "small": (1e-6, 1e-4, 1e-2)}
TELLS = {"float64": 1e-4, "float32": 2e-3}  # the smallest effect with which a wrong version counts as wrong
SETS = ("layers", "in networks", "scaled", "at kinks", *HARD)


@dataclass(frozen=True)
class Case:
    """One thing to check. ``wrong`` is empty, a bug of the layer, or "HOW: TARGET" planted in it."""

    set: str
    kind: object
    wrong: str = ""
    factor: float = 1.0
    seed: int = 0

    @property
    def name(self):
        kind = self.kind.name if isinstance(self.kind, Kind) else self.kind.__name__
        scale = f" x {self.factor:g}" if self.factor != 1 else ""
        return f"{self.set}/{kind}{scale}/{self.wrong or 'right'}/seed {self.seed}"

    def build(self, xp=np, dtype="float64"):
        """Return (net, x, t), made anew: the same numbers in every library, rounded to ``dtype``."""
        kind = self.kind if isinstance(self.kind, Kind) else None
        key = kind.name if kind else self.kind.__name__
        rng = np.random.default_rng([self.seed, zlib.crc32(key.encode())])

        def put(array, dtype=dtype):
            array = np.asarray(array)
            return xp.asarray(array.astype(dtype) if array.dtype.kind == "f" else array)

        draw = Draw(rng, put)
        if kind is None:
            net, layer, x, t = self.kind(draw)
        elif self.set == "in networks":
            shape = () if kind.t else throwaway(kind, rng)
            layer = kind.make(draw)
            net, x, t = around(layer, kind, shape, draw)
        else:
            layer = net = kind.make(draw)
            x = self.factor * np.asarray(kind.x(Draw(rng)))
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
            extra = [*getattr(layer, "bugs", ()), *plants(names, rng, planted + 2, x)]
            extra = [w for w in extra if layer is not net or w.partition(": ")[0] not in HISTORY]
            found += [Case(name, make, w, seed=seed) for w in ("", *extra)]
    return [case for case in found if case.set in sets]


# ── How wrong a wrong version is ─────────────────────────────────────────────────────────────────────────────────────


def gradients(net, x, t=None):
    """Return the gradients of a net or layer by its own backward, as it has them after a call with other values."""
    names, put = handles(net)
    kept = {name: put(name) for name in names}
    for name, value in kept.items():
        put(name, 1.1 * value)
    _backpropagate(net, 1.1 * x, t)
    for name, value in kept.items():
        put(name, value)
    return _backpropagate(net, x, t)


def handles(net):
    """Return the names of the parameters and a function that gets one, or sets it if there is a value."""
    if hasattr(net, "params"):
        return list(net.params), lambda name, *value: (net.params.__setitem__ if value else net.params.get)(name, *value)
    return net.parameters, lambda name, *value: (setattr if value else getattr)(net, name, *value)


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
    """Return the largest |a − n| of a parameter beside its largest |n|; infinite for another shape."""
    worst = 0.0
    for name, n in right.items():
        a, n = np.asarray(found[name]), np.asarray(n)
        if a.shape != n.shape:
            return np.inf
        largest = np.abs(n).max(initial=0.0)
        off = np.abs(a - n).max(initial=0.0)
        worst = max(worst, off / largest if largest else np.inf if off else 0.0)
    return float(worst)


def effect(case):
    """Return how wrong the gradients of a wrong version are, beside those of the right one; NumPy, float64.

    Parameters whose right gradient is zero but for rounding, as that of a bias before a normalization, are left out.
    """
    with np.errstate(all="ignore"):
        right = gradients(*replace(case, wrong="").build())
        wrong = gradients(*case.build())
    largest = max(np.abs(np.asarray(g)).max(initial=0.0) for g in right.values())
    right = {name: g for name, g in right.items() if np.abs(np.asarray(g)).max(initial=0.0) > 1e-12 * largest}
    return distance(wrong, right)
