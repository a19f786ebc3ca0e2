"""Networks: a row of layers and an output layer that measures the loss (book, 4.5 and 5.7)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from array_api_compat import device

from .annotations import Array
from .arrays import classes_of, in_chunks
from .describing import Described, in_short, network_as_table, network_in_words
from .differences import Change, loss_changes
from .functions import namespace, refuse_single_class, require_floats, softmax
from .layer_state import LayerState
from .layers import has_own
from .modes import Modes
from .output_layers import SoftmaxWithLoss
from .parameters import Parameters, by_class, with_parts
from .scalars import require_count

ONE_SCORE = (
    "the network has one score, whose softmax is always 1 and whose loss is always 0: nothing can be learned; give two "
    "classes two scores, or measure values with last_layer=IdentityWithLoss()"
)


class Network(Described):
    """A row of layers, then an output layer (``SoftmaxWithLoss`` by default) that compares with the target.

    ``layers`` is any sequence of objects with ``forward(x)`` and ``backward(dout)``, ours or yours; see
    ``xpnet.layers``. ``params`` names their learned arrays by their place: W1 and b1 belong to the first layer that
    learns. ``layers`` shows them by class: Affine1, Relu1, Affine2. What a layer made of layers learns, those in its
    attribute ``layers``, is named after it: Block1.W1. Raises TypeError for what is no layer and for parameters of two
    libraries or dtypes, ValueError if a layer stands in the row twice, because it can remember one forward only, or an
    array is a parameter twice.

    Where layers do one thing in training and another in evaluation, ``loss`` and its gradients are those of training,
    and ``predict``, ``probabilities`` and ``accuracy`` evaluate: see ``xpnet.modes``.

    Source: Deep Learning from Scratch, 5.7.2, and 6.3 for the two modes.
    """

    def __init__(self, layers: Iterable[Any], last_layer: Any = None) -> None:
        layers = list(layers)
        if not layers:
            raise ValueError("a network needs at least one layer")
        for layer in layers:
            if not (hasattr(layer, "forward") and hasattr(layer, "backward")) or isinstance(layer, type):
                raise TypeError(
                    f"{in_short(layer)} is no layer; a layer is an object with forward(x) and backward(dout)"
                )
        if len({id(layer) for layer in layers}) < len(layers):
            raise ValueError("a layer stands in the row twice, but remembers one forward only; make a second one")
        self._layers, self._params = by_class(layers), Parameters(layers)
        self._shapes: list[tuple[int, ...]] | None = None
        self.last_layer = SoftmaxWithLoss() if last_layer is None else last_layer
        self._first = next(iter(self.params), None)
        self._modes, self._state = Modes(layers), LayerState(layers)

    def _rows(self):
        rows = [(name, self._params.held_by(layer)) for name, layer in with_parts(self._layers.values())]
        return type(self).__name__, [*rows, (type(self.last_layer).__name__, {})], list(self._params.values())

    def _description(self):
        return network_in_words(*self._rows())

    def _repr_html_(self):
        with suppress(Exception):
            return network_as_table(*self._rows())

    @property
    def layers(self) -> Mapping[str, Any]:
        """The layers by class and number, such as Affine1, Relu1, Affine2."""
        return MappingProxyType(self._layers)

    @property
    def params(self) -> Parameters:
        """The learned arrays by name, such as W1 and b1."""
        return self._params

    @params.setter
    def params(self, value: Any) -> None:
        raise AttributeError(
            "params belong to the layers that compute with them, and a dict in their place would learn nothing; assign "
            "single ones, params['W1'] = W, or give Network layers with arrays of your own"
        )

    def _inputs(self, x):
        """Bring ``x`` to the dtype of the parameters; refuse what would train silently on nonsense."""
        parameter = self.params[self._first] if self._first else x
        xp = namespace(x, parameter, names="x and the parameters")
        if 0 in x.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}: there is no sample in it")
        dtype = parameter.dtype if self._first else None
        if x.dtype == dtype:
            return x
        if not xp.isdtype(x.dtype, "real floating"):
            first = next(iter(self.layers.values()))
            if getattr(first, "takes_integers", False) and xp.isdtype(x.dtype, "integral"):
                return x
            raise TypeError(
                f"x has dtype {x.dtype}; a network takes floats, for images in [0, 1]: load_mnist(normalize=True) "
                "or xp.astype(x, xp.float32) / 255. If its first layer takes integers, as one that looks up words "
                f"does, let it say so: takes_integers = True in {type(first).__name__}"
            )
        return x if dtype is None else xp.astype(x, dtype)

    def predict(self, x: Array, train_flg: bool = False) -> Array:
        """Return the scores (…, N, C) of inputs ``x`` (…, N, D), or (C,) of one sample (D,).

        ``train_flg=False`` evaluates, as the book's; with True, layers do what they do in training. Raises TypeError if
        ``x`` is not an array of floats, ValueError if it is empty or its last axis does not fit.
        """
        x, shapes = self._inputs(x), []
        with self._modes.told(train_flg) as told:
            for layer, mode in zip(self._layers.values(), told, strict=True):
                shapes.append(x.shape)
                x = layer.forward(x, **mode)
                if not hasattr(x, "shape"):
                    came = f"{type(layer).__name__}.forward returned {type(x).__name__}"
                    raise TypeError(f"{came}; it must return one array")
        self._shapes = shapes
        return x

    def probabilities(self, x: Array) -> Array:
        """Return softmax(predict(x)), the probabilities of the classes (…, N, C). Raises as ``predict`` does."""
        return softmax(self.predict(x))

    def loss(self, x: Array, t: Array, train_flg: bool = True) -> Array:
        """Return the loss of inputs ``x`` (N, D) against targets ``t``: labels (N,) or weights (N, C).

        It is the loss that ``gradient`` differentiates: that of training, unless ``train_flg=False`` evaluates. (The
        book's default is False, so that its ``loss`` and its ``gradient`` are of two functions.) Raises as ``predict``
        does, and ValueError or TypeError if targets do not fit. Warns if softmax has one score.
        """
        namespace(x, t, names="x and t")
        in_training = {"train_flg": True} if train_flg and self._modes else {}  # a subclass's predict may take x alone
        scores = self.predict(x, **in_training)
        refuse_single_class(t, scores)
        if isinstance(self.last_layer, SoftmaxWithLoss) and scores.shape[-1:] == (1,):
            warnings.warn(ONE_SCORE, stacklevel=2)
        return self.last_layer.forward(scores, t)

    def accuracy(self, x: Array, t: Array, *, batch_size: int | None = None) -> Array:
        """Return the share, in [0, 1], of inputs ``x`` (N, D) whose largest score is the class ``t`` names.

        Scores and inputs may have further axes in between, as in sequences: then ``t`` holds labels (N, T) or weights
        (N, T, C), and every place counts. ``t`` holds integer labels (N,), or one-hot or soft weights (N, C), of which
        the largest counts. Takes ``batch_size`` samples at a time: by default 2,000 on the host, where intermediate
        results stay in the processor's cache, and 10,000 elsewhere. A sample whose scores or weights hold NaN counts
        as wrong; a network with one score, which names no class, gets NaN. Raises as ``predict`` does, TypeError if
        ``t`` holds no real numbers or labels are floats, and ValueError if it does not fit or ``batch_size`` is not
        positive.
        """
        xp = namespace(x, t, names="x and t")
        if not xp.isdtype(t.dtype, ("real floating", "integral", "bool")):
            raise TypeError(f"targets t have dtype {t.dtype}; they must be integer labels or real weights")
        if batch_size is not None:
            require_count("batch_size", batch_size)
        words = not xp.isdtype(x.dtype, "real floating")  # of which each is a sample
        if x.ndim + words < 2 or 0 in x.shape or 0 in t.shape or not t.ndim or t.shape[0] != x.shape[0]:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, but targets t have shape {tuple(t.shape)}; they must be (N, …) and "
                "labels (N,) or weights (N, C), for at least one sample"
            )

        def right(some, targets):
            scores = self.predict(some)
            labels = classes_of(targets, scores, x)
            if scores.shape[-1] == 1:
                return xp.full(scores.shape[:-1], xp.nan, dtype=scores.dtype, device=device(scores))
            best, unknown = xp.argmax(scores, axis=-1), xp.any(xp.isnan(scores), axis=-1)
            return xp.astype((best == xp.astype(labels, best.dtype)) & ~unknown, scores.dtype)

        return xp.mean(in_chunks(right, batch_size, x, t))

    def layer_state(self) -> dict[str, Any]:
        """Return what layers keep from batch to batch beside ``params``, by name: see ``xpnet.layer_state``."""
        return self._state.take()

    def restore_layer_state(self, state: dict[str, Any]) -> None:
        """Put back what ``layer_state`` returned; raises ValueError, naming it, for what does not fit the layers."""
        self._state.put(state, self.params[self._first] if self._first else None)

    def loss_and_gradient(self, x: Array, t: Array, dout: Array = 1.0) -> tuple[Array, dict[str, Array]]:
        """Return (loss, gradients of dout·loss by backpropagation, named as ``params``). Raises as ``loss`` does.

        With a learning rate for ``dout`` they are the steps of gradient descent: one pass over all parameters less.
        It is ``loss`` and ``gradient`` from one pass forward, and follows a subclass that overrides these two.
        """
        if getattr(self.gradient, "__func__", None) is Network.gradient:
            return self._backpropagate(x, t, dout)
        return self.loss(x, t), {name: dout * value for name, value in self.gradient(x, t).items()}

    def _backpropagate(self, x, t, dout):
        self._shapes = None
        loss = self.loss(x, t)
        last = self.last_layer
        # an output layer of your own may know no dout, or ignore it
        dout = last.backward(dout) if has_own(last, "linear", "backward") else dout * last.backward()
        first, *others = self._layers.values()
        shapes = self._shapes or [None] * (1 + len(others))  # a predict of your own keeps none
        for layer, shape in zip(reversed(others), reversed(shapes), strict=False):
            dout = layer.backward(dout)
            _require_gradient(layer, dout, shape)
        # the gradient with respect to the data is never needed, and costs as much as the first layer's own
        (first.backward_parameters if has_own(first, "backward_parameters", "backward") else first.backward)(dout)
        return loss, self.params.gradients()

    def gradient(self, x: Array, t: Array, dout: Array = 1.0) -> dict[str, Array]:
        """Return the gradient of dout·loss by backpropagation, a dict with the names of ``params``.

        It is the one method to override for a gradient of your own, with ``dout`` or without: training, checks and
        ``loss_and_gradient`` follow it. Raises as ``loss`` does.

        Source: Deep Learning from Scratch, 5.7.2.
        """
        return self._backpropagate(x, t, dout)[1]

    def numerical_gradient(
        self, x: Array, t: Array, *, h: float | None = None, method: str = "auto", memory: float | None = None
    ) -> dict[str, Array]:
        """Return the gradient of the loss by central differences, a dict with the names of ``params``.

        Source: Deep Learning from Scratch, 4.5.1; propagated as finite changes instead of running the network again.

        Parameters
        ----------
        x : array
            A batch (N, D) or one sample (D,).
        t : array
            Its targets.
        h : float
            The step; by default what suits the way that is taken.
        method : str
            "auto", "difference", "stacked" or "loop": see ``xpnet.differences.loss_changes``.
        memory : float
            A bound on temporary arrays, in bytes.

        Returns
        -------
        dict of arrays

        Raises
        ------
        TypeError
            As ``loss`` does.
        ValueError
            As ``loss`` does, and for a method that a layer does not allow.
        """
        changes = self.loss_changes(x, t, h=h, method=method, memory=memory)
        return {name: change.gradient for name, change in changes.items()}

    def loss_changes(self, x: Array, t: Array, **options: Any) -> dict[str, Change]:
        """Return {name: Change}: by how much the loss changes when a parameter entry moves up or down by a step.

        Arguments and errors are those of ``numerical_gradient``, with the options of
        ``xpnet.differences.loss_changes``.
        """
        x = self._inputs(x)
        if x.ndim == 1 and namespace(x).isdtype(x.dtype, "real floating"):
            x, t = x[None, :], t[None, ...]
        for name, value in self.params.items():
            require_floats(name, value)
        if any(getattr(type(self), own) is not getattr(Network, own) for own in ("loss", "predict")):
            if options.get("method", "auto") not in ("auto", "loop"):
                name = type(self).__name__
                raise ValueError(f"{name} has a loss or predict of its own, so only method='loop' fits it")
            options["method"] = "loop"
        shared = self.params.shared([*self.layers.values(), self.last_layer])
        return loss_changes(self, x, t, shared=shared, **options)


def _require_gradient(layer, dout, shape):
    """Raise unless ``dout``, what a backward returned, is an array of the ``shape`` of the layer's input."""
    returned = f"{type(layer).__name__}.backward returned"
    if not hasattr(dout, "shape"):
        came = "None" if dout is None else type(dout).__name__
        raise TypeError(f"{returned} {came}; it must return the gradient of its x, one array")
    if shape is not None and dout.shape != shape:
        raise ValueError(f"{returned} shape {tuple(dout.shape)}, but its x {tuple(shape)}; they must be equal")
