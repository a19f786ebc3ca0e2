"""Networks, ours and of other makes, and single layers, as subjects of a check."""

import contextlib
import warnings

from array_api_compat import device

from ...arrays import holding
from ...backend import random_generator
from ...functions import namespace
from ...layer_state import declared_generators, rewound
from ...layers import parameter_names
from ...networks import Network as OurNetwork
from ...state import unchanged
from ..contracts import (
    backward_problems,
    changes_its_input,
    floats_of,
    forward_once,
    forward_problems,
    loss_problems,
    not_finite,
    require_array,
    returns_another_dtype,
)
from ..host import OnTheWay


class ForeignNetwork:
    """Anything with ``params``, ``loss(x, t)`` and ``gradient(x, t)``, and a batch."""

    weights = None
    layers = ()

    def __init__(self, net, x, t):
        xp = namespace(x, names="x")
        self.net, self.t, self.values = net, t, dict(net.params)
        if not self.values:
            raise ValueError(f"{type(net).__name__} has no parameters whose gradients could be checked")
        if 0 in x.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}: there is no sample in it")
        dtype = next(iter(self.values.values())).dtype
        if not xp.isdtype(x.dtype, "real floating"):
            net.loss(x, t)  # which knows better what is wrong with it
        elif x.dtype != dtype:
            x = xp.astype(x, dtype)
        self.x, self.inputs = x, floats_of({"x": x, "t": t})
        self.state, self.notes = (net, x, t), []
        self.samples = x.shape[0] if x.ndim > 1 else 1
        self.title = f"{type(net).__name__}, batch {self.samples}, {str(dtype).rpartition('.')[2]}"

    def run(self, changed):
        """Return the outputs with the arrays of ``changed``."""
        with self._holding(changed):
            return self.net.loss(*self._batch(changed))

    def gradients(self, changed):
        """Return the gradients by backpropagation with the arrays of ``changed``."""
        with self._holding(changed):
            return dict(self.net.gradient(*self._batch(changed)))

    def problems(self):
        """Return what makes a check impossible."""
        found = not_finite(OnTheWay({**self.values, **self.inputs}))
        found = found or loss_problems(self.run({}), self.run({}), self.notes)
        return found or backward_problems(lambda: self.gradients({}))

    def _batch(self, changed):
        return changed.get("x", self.x), changed.get("t", self.t)

    def _holding(self, changed):
        values = {name: changed[name] for name in changed.keys() & self.values.keys()}
        for name, value in values.items():
            if value.dtype != self.net.params[name].dtype:
                raise TypeError(f"{type(self.net).__name__} holds {name} in {self.net.params[name].dtype} only")
        return holding(self.net.params, values)


class WithLossAndGradients:
    """A network whose ``loss(x, t)`` returns the loss and its gradients at once, as one with a ``gradient``."""

    def __init__(self, net):
        self.net, self.params = net, net.params

    def loss(self, x, t):
        """Return the loss."""
        return self.net.loss(x, t)[0]

    def gradient(self, x, t):
        """Return the gradients by name."""
        return self.net.loss(x, t)[1]


def with_gradient(net):
    """Return a network that has no ``gradient`` as one that has it, under its own name."""
    if hasattr(net, "gradient"):
        return net
    return type(type(net).__name__, (WithLossAndGradients,), {})(net)


class Network(ForeignNetwork):
    """A network of ours: a row of layers."""

    def __init__(self, net, x, t):
        super().__init__(net, x, t)
        self.layers = [*net.layers.items(), (type(net.last_layer).__name__, net.last_layer)]

    def changes(self, changed, h, method, second, tick):
        """Return numerical gradients as ``Network.loss_changes`` finds them."""
        with self._holding(changed):
            return self.net.loss_changes(*self._batch(changed), h=h, method=method, second=second, progress=tick)

    def problems(self):
        """Return what makes a check impossible: every layer runs once by itself, then the network.

        Layers run once more only if the losses differ. That backpropagation answers alike, the check itself tells from
        ``half()``.
        """
        told, error, layers = {}, None, self.net.layers
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is not finite
                self._run_alone(told)
        except Exception as raised:
            error = raised
        numbers, told = OnTheWay({**self.values, **self.inputs}), OnTheWay(told)
        changed = [changes_its_input(layers[title]) for title, alone in told.host.items() if title and not alone]
        if found := not_finite(numbers) or changed:
            return found
        if error:
            raise error
        if told.host[""]:
            return []
        return forward_problems(layers.values(), self.x) or loss_problems(self.run({}), self.run({}), self.notes)

    def _run_alone(self, told):
        """Add to ``told`` which layers left their input alone, and as "" whether the loss is that of the network."""
        x = self.x
        for title, layer in self.net.layers.items():
            given, (x, told[title]) = x, forward_once(layer, x)
            if x.dtype != given.dtype and floats_of({"x": given}):
                self.notes.append(returns_another_dtype(layer, given, x))
        loss, again = self.net.last_layer.forward(x, self.t), self.run({})
        self.outputs = OnTheWay({"": again}, copy=True)
        told[""] = loss == again if getattr(loss, "shape", None) == () else False

    def half(self):
        """Return the gradients of half the loss."""
        with self._holding({}):
            return self.net.loss_and_gradient(*self._batch({}), 0.5)[1]

    def with_inputs(self, changed):
        """Return the gradients of the parameters and of x, by one pass back through all layers.

        A network with a loss or gradient of its own is asked for the latter: no layer knows what they add.
        """
        if not all(_is_inherited(self.net, method) for method in ("loss", "predict", "gradient")):
            return self.gradients(changed)
        with self._holding(changed):
            self.net.loss(*self._batch(changed))
            dout = self.net.last_layer.backward()
            for layer in reversed(self.net.layers.values()):
                dout = layer.backward(dout)
            return {**self.net.params.gradients(), "x": dout}

    @contextlib.contextmanager
    def _holding(self, changed):
        held = {name: changed[name] for name in changed.keys() & self.values.keys()}
        with rewound(declared_generators(self.net.layers.values())), self.net.params.holding(held):
            yield


def _is_inherited(net, method):
    return getattr(getattr(net, method), "__func__", None) is getattr(OurNetwork, method)


class Layer:
    """A single layer, its input and its parameters; the loss is a random weighted sum of its output."""

    def __init__(self, layer, x, t, seed):
        self.layer, self.t, self.notes = layer, t, []
        self.values = {"x": x, **{name: getattr(layer, name) for name in parameter_names(layer)}}
        xp = namespace(x, names="x")
        if 0 in x.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}: there is no entry in it")
        self.inputs = floats_of({"t": t})
        self.state, self.layers = (layer, x, t), [(type(layer).__name__, layer)]
        self.samples = x.shape[0] if x.ndim > 1 else 1
        self.title = f"{type(layer).__name__}, x {tuple(x.shape)}, {str(x.dtype).rpartition('.')[2]}"
        with unchanged(layer):  # so that nothing is kept from here
            out = self.run({"x": xp.asarray(x, copy=True)})
        require_array(layer, "forward", out, "an array, its output")
        draw = random_generator(seed, "audit").standard_normal(tuple(out.shape))
        self.weights = xp.asarray(draw, dtype=out.dtype, device=device(x))

    def run(self, changed):
        """Return the outputs with the arrays of ``changed``."""
        with self._holding(changed):
            return self.layer.forward(changed.get("x", self.values["x"]), *self._targets(changed))

    def gradients(self, changed):
        """Return the gradients by backpropagation with the arrays of ``changed``."""
        return self._backpropagate(changed, self._fresh_weights())

    def half(self):
        """Return the gradients of half the loss."""
        return self._backpropagate({}, 0.5 * self.weights)

    def _backpropagate(self, changed, dout):
        with self._holding(changed):
            self.layer.forward(changed.get("x", self.values["x"]), *self._targets(changed))
            found = {"x": self.layer.backward(dout)}
            require_array(self.layer, "backward", found["x"], "the gradient of its x")
            names = [name for name in self.values if name != "x" and hasattr(self.layer, f"d{name}")]
            return found | {name: getattr(self.layer, f"d{name}") for name in names}

    def problems(self):
        """Return what makes a check impossible."""
        x, more = self.values["x"], self._targets({})
        found = not_finite(OnTheWay(self.values)) or forward_problems([self.layer], x, *more, notes=self.notes)
        if not found:
            given = self._fresh_weights()
            self.layer.backward(given)
            if not bool(namespace(given).all(given == self.weights)):
                found = [f"{type(self.layer).__name__}.backward changes its dout; return a new array"]
        return found

    def _targets(self, changed):
        return () if self.t is None else (changed.get("t", self.t),)

    def _fresh_weights(self):
        return namespace(self.weights).asarray(self.weights, copy=True)

    @contextlib.contextmanager
    def _holding(self, changed):
        kept = {name: getattr(self.layer, name) for name in changed if name not in ("x", "t")}
        try:
            for name in kept:
                setattr(self.layer, name, changed[name])
            with rewound(declared_generators([self.layer])):
                yield
        finally:
            for name, value in kept.items():
                setattr(self.layer, name, value)
