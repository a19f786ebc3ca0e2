"""Calls as subjects of a check: a forward, a backward, and their arguments and results as arrays by name.

``Call`` is what every kind of function has in common; each kind says what it calls, ``forward(*args)``, and how it
is differentiated, ``differentiate(args, dout)``.
"""

import contextlib
import math

from array_api_compat import device, is_array_api_obj

from ...arrays import require_precision
from ...backend import get_backend, random_generator
from ...functions import namespace
from ...layer_state import is_generator, rewound
from ...state import unchanged
from ..contracts import backward_problems, not_finite
from ..host import OnTheWay
from .arguments import Arguments, argument_names, is_floats, leaves, replaced

SAME = 1e-3  # two calls that differ by more than this share are of another function each time


class Call:
    """A function of ``inputs`` and its gradient by backpropagation; see ``xpnet.gradcheck.subjects`` for the protocol.

    ``values`` are the arrays of floats among the inputs, under the names of the function's parameters, but for those
    whose gradient is None. Results are weighted with random numbers; so is one number, unless its gradient is claimed
    without a ``dout``.
    """

    layers = ()
    kind = "gradient"  # what is blamed for a wrong gradient, in words

    def __init__(self, f, inputs, seed):
        self.name, self.f = name_of(f), f
        inputs = _as_arrays(inputs)
        self.arguments = Arguments(argument_names(self.signature(), len(inputs)), inputs)
        self.generators = [arg for arg in inputs if is_generator(arg)]
        self.state = (f, *inputs)
        self.seed, self.failure, self.notes = seed, None, []
        self._prepare()
        if self.weights is not None:
            self.half = self._half  # only a gradient for a dout has one

    def signature(self):
        """Return the function whose parameters name the inputs."""
        return self.f

    def _prepare(self):
        """Evaluate once each way, and settle what is differentiated and how results are weighted."""
        floats = self._floats()
        if not floats:
            raise TypeError(self._without_floats())
        if not any(math.prod(value.shape) for value in floats.values()):
            raise ValueError(f"{' and '.join(floats)} of {self.name}: there is no entry in it")
        first = next(iter(floats.values()))
        self.samples = first.shape[0] if first.ndim > 1 else 1
        shown = self.arguments.floats or floats
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in shown.items())
        self.title = f"{self.name}, {shapes}, {str(first.dtype).rpartition('.')[2]}"
        self.values, self.inputs = floats, {}
        with unchanged(*self.state):  # so that nothing is kept from here
            try:
                out = self.run({})
            except Exception as error:
                error.add_note(
                    f"raised by {self.name} when it was called with the inputs as given, which are as before"
                )
                raise
            self.weights = self._weights(out, first)
            claims = self._try_gradients()
        self._settle(floats, claims)

    def _settle(self, floats, claims):
        """Tell the arrays of floats that are differentiated from those whose gradient is None."""
        left_out = [name for name, claim in claims.items() if claim is None]
        self.inputs = {name: floats[name] for name in left_out}
        self.values = {name: value for name, value in floats.items() if name not in left_out}
        if not self.values and not self.failure:
            raise ValueError(f"{self.kind} is None for every input of {self.name}, so there is nothing to check")
        for name, value in self.values.items():
            require_precision(name, value)
        if of_inputs := [name for name in left_out if name in self.arguments.floats]:
            self.title += f", not differentiated: {', '.join(of_inputs)}"

    def _without_floats(self):
        """Return what is wrong where there is nothing to differentiate."""
        names, args = self.arguments.names, self.arguments.args
        for name, arg in zip(names, args, strict=True):
            if is_array_api_obj(arg):
                return f"{name} has dtype {arg.dtype}, and only floats have a derivative: xp.astype({name}, xp.float64)"
        came = f"{names[0]}: expected arrays of floats, got {type(args[0]).__name__}" if args else "no inputs"
        return f"{came}; there is nothing to differentiate in {self.name}"

    def _floats(self):
        return dict(self.arguments.floats)

    def _weights(self, out, like):
        if not self.takes_dout(out):
            return None
        shape, rng = tuple(getattr(out, "shape", ())), random_generator(self.seed, "audit")
        draw = rng.standard_normal(shape) if shape else 1.5 + rng.random()  # far from 1, which may be ignored
        like = out if is_array_api_obj(out) else like
        return namespace(like).asarray(draw, dtype=like.dtype, device=device(like))

    def takes_dout(self, out):
        """Return whether the gradient is one for a ``dout``; without, ``out`` must be one number."""
        return True

    def run(self, changed):
        """Return the outputs with the arrays of ``changed``: as they come if it is one array, else joined to a row."""
        try:
            return self.evaluated(changed)
        except Exception as error:
            other = [name for name, value in changed.items() if value.dtype != self._own(name).dtype]
            if other:  # whatever it raises then, it was not made for this dtype
                raise TypeError(f"{self.name} does not compute with {other[0]} in {changed[other[0]].dtype}") from error
            raise

    def _own(self, name):
        return self.values[name] if name in self.values else self.inputs[name]

    def evaluated(self, changed):
        """Return the outputs with the arrays of ``changed``, or raise whatever the function raises."""
        with rewound(self.generators), self.holding(changed):
            out = self.forward(*self.arguments.changed(changed))
        return self._joined(self.results(out))

    def gradients(self, changed):
        """Return the gradients by backpropagation with the arrays of ``changed``."""
        try:
            return self._claimed(changed, self.weights)
        except Exception as error:
            if changed:  # what it answers for the inputs as given is known
                raise TypeError(f"{self.kind} raised {type(error).__name__} for other inputs") from error
            raise

    def _half(self):
        return self._claimed({}, 0.5 * self.weights)

    def context(self):
        """Return a context in which the whole check runs."""
        return contextlib.nullcontext()

    def holding(self, changed):
        """Return a context in which what is changed beside the arguments is in place."""
        return contextlib.nullcontext()

    def _claims(self, changed, weights):
        dout = None if weights is None else self._split(weights)
        with rewound(self.generators), self.holding(changed):
            result = self.differentiate(self.arguments.changed(changed), dout)
        claims, reason = self.by_name(result)
        if reason:
            raise ClaimError(reason)
        for name, claim in claims.items():
            if claim is not None and not is_floats(claim):
                raise ClaimError(f"{self.kind} of {name} has dtype {claim.dtype}; it must hold real numbers")
        return claims

    def by_name(self, result):
        """Return ({name: array or None}, None) of what ``differentiate`` returned, or why it cannot be read."""
        return self.arguments.by_name(result, self.kind)

    def results(self, out):
        """Return the part of what ``forward`` returned that is differentiated."""
        return out

    def _try_gradients(self):
        try:
            return self._claims({}, self.weights)
        except ClaimError as error:
            self.failure = str(error)
        except Exception as error:  # whatever a backward raises is its failure, not the caller's
            self.failure = f"{self.kind} raised {type(error).__name__}: {error}"
        return {}

    def _joined(self, out):
        """Return what a call returned as one array, or as the one number that it is."""
        self.structure = out
        parts = [part for _, part in leaves(out, "")]
        if len(parts) == 1 and isinstance(parts[0], float) and not is_array_api_obj(parts[0]):
            return parts[0] if self._plain() else self._array(parts[0])
        floats = self._floats_among(parts)
        if len(parts) == 1:
            return floats[0]
        xp = namespace(*floats)
        return xp.concat([xp.reshape(part, (-1,)) for part in floats])

    def _floats_among(self, parts):
        floats = [part for part in parts if is_floats(part)]
        others = [part for part in parts if not is_array_api_obj(part)]
        if not floats or others:
            came = ", ".join(sorted({type(part).__name__ for part in others or parts})) or "nothing"
            raise TypeError(f"{self.name} returned {came}; it must return arrays of floats, or one number")
        return floats

    def _plain(self):
        return not hasattr(self, "weights") or self.weights is None

    def _array(self, number):
        like = next(iter(self.values.values()))
        return namespace(like).asarray(number, dtype=like.dtype, device=device(like))

    def _split(self, weights):
        """Return ``weights`` in the structure of the outputs; None stands where there are no floats."""
        found = list(leaves(self.structure, "dout"))
        if len(found) == 1:
            return replaced(self.structure, "dout", {found[0][0]: weights})
        parts, start = {}, 0
        for name, part in found:
            size = math.prod(part.shape) if is_floats(part) else 0
            taken = weights[start : start + size]
            parts[name] = namespace(weights).reshape(taken, tuple(part.shape)) if is_floats(part) else None
            start += size
        return replaced(self.structure, "dout", parts)

    def problems(self):
        """Return what makes a check impossible."""
        found = not_finite(OnTheWay({**self.values, **self.inputs})) or self._forward_problems()
        if found or self.failure:
            return found or [self.failure]
        if written := self._written(lambda given: self._claims(given, self.weights)):
            return [f"{self.kind} changes its {written}; it must leave what it is given alone"]
        return [] if self.weights is not None else backward_problems(lambda: self.gradients({}))

    def _claimed(self, changed, weights):
        claims = self._claims(changed, weights)
        return {name: claims[name] for name in self.values if claims.get(name) is not None}

    def _written(self, call):
        """Return the name of an argument that a call changes; it is given copies."""
        given = self.arguments.copies()
        call(given)
        return self.arguments.written(given)

    def _forward_problems(self):
        if written := self._written(self.evaluated):
            return [f"{self.name} changes its {written}; it must leave what it is given alone"]
        once, again = (OnTheWay({"": self.run({})}, copy=True) for _ in range(2))
        once, again = once.host[""], again.host[""]
        if not math.isfinite(abs(once).sum()):
            return [f"{self.name} returned NaN or infinite values: nothing can be told from them"]
        difference, size = (abs(once - again).max(), abs(once).max()) if once.shape == again.shape else (1, 1)
        if difference > SAME * size:
            return [
                f"{self.name} is random: two calls differ by {100 * difference / size:.3g} %; what is drawn anew has "
                "no gradient: give its generator or key as an input"
            ]
        return []


class ClaimError(TypeError):
    """A gradient that cannot be compared, and why."""


def _as_arrays(inputs):
    """Return plain numbers as arrays where there is no array among the inputs: all there is to differentiate."""
    if not inputs or any(is_array_api_obj(leaf) for arg in inputs for _, leaf in leaves(arg, "")):
        return inputs
    xp = get_backend("numpy").xp
    return tuple(xp.asarray(x) if isinstance(x, float) else x for x in inputs)


def name_of(f, otherwise="f"):
    """Return the name of a function, a class's method or an object's class; ``otherwise`` for what has none."""
    f = getattr(f, "func", f)  # of a partial
    name = getattr(f, "__name__", None) or type(f).__name__
    if isinstance(getattr(f, "__self__", None), type):  # a method of a class, such as apply
        name = f"{f.__self__.__name__}.{name}"
    return otherwise if name == "<lambda>" else name
