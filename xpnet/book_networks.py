"""The networks of the book: SimpleNet of chapter 4, TwoLayerNet of chapters 4 and 5, MultiLayerNet of chapter 6."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite, sqrt
from typing import Any

from .annotations import Array, Seed
from .arrays import require_precision
from .backend import Backend, get_backend, random_generator
from .functions import require_floats
from .layers import Affine, Relu, Sigmoid
from .networks import Network
from .scalars import is_count, is_number


class SimpleNet(Network):
    """Chapter 4's smallest network: scores x @ W of one weight ``W`` (2, 3), softmax and cross entropy.

    ``W`` is drawn from a standard normal distribution unless given. ``rng``, ``dtype`` and ``backend`` are as in
    ``TwoLayerNet``. Raises TypeError if ``W`` is not an array of floats, BackendError if the backend cannot be used,
    ValueError for an unknown dtype.

    Source: Deep Learning from Scratch, 4.4.2 (simpleNet).
    """

    def __init__(
        self, W: Array | None = None, *, rng: Seed = 0, dtype: Any = "float64", backend: str | Backend | None = None
    ) -> None:
        if W is None:
            backend = get_backend(backend)
            W = backend.asarray(random_generator(rng, "weights").standard_normal((2, 3)), dtype)
        require_floats("W", W)
        super().__init__([Affine(W)])

    @property
    def W(self) -> Array:
        """The weight; assigning to it is assigning to ``params["W1"]``."""
        return self.params["W1"]

    @W.setter
    def W(self, value: Any) -> None:
        self.params["W1"] = value


class MultiLayerNet(Network):
    """Affine layers with an activation between them, softmax with cross entropy: chapter 6's network of any depth.

    Weights ``W1``, ``W2``, … are normal; ``b1``, ``b2``, … are zero.

    Source: Deep Learning from Scratch, 6.2.2 and 6.5.3 (MultiLayerNet); K. He et al., 2015, section 2.2.

    Parameters
    ----------
    input_size : int
        The number of features.
    hidden_size_list : sequence of int
        The units of each hidden layer, such as (200, 100).
    output_size : int
        The number of classes.
    weight_init_std : float
        The standard deviation of the weights; None is what the activation needs, √(2/n) of the n inputs of a layer with
        "relu" and √(1/n) with "sigmoid".
    activation : str
        "relu" or "sigmoid".
    rng : int or numpy.random.Generator
        A seed, or the generator itself. Weights are drawn on the host: one seed gives the same on every backend.
    dtype : str
        "float32" or "float64".
    backend : str or Backend
        As in ``xpnet.get_backend``.

    Raises
    ------
    TypeError
        For a ``hidden_size_list`` that is no sequence.
    ValueError
        For sizes that are not whole numbers of at least 1, a ``weight_init_std`` that is not a finite number, a dtype
        that does not train or an unknown activation.
    BackendError
        If the backend cannot be used.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        weight_init_std: float | None = None,
        *,
        activation: str = "relu",
        rng: Seed = 0,
        dtype: Any = "float64",
        backend: str | Backend | None = None,
    ) -> None:
        activations = {"relu": (Relu, 2.0), "sigmoid": (Sigmoid, 1.0)}
        if activation not in activations:
            raise ValueError(f"activation is {activation!r}; it must be one of {', '.join(activations)}")
        try:
            sizes = (input_size, *hidden_size_list, output_size)
        except TypeError:
            came = f"hidden_size_list is {hidden_size_list!r}"
            raise TypeError(f"{came}; it must be a sequence of sizes, such as (50,)") from None
        if not all(map(is_count, sizes)):
            raise ValueError(f"sizes are {sizes}; each must be a whole number of at least 1")
        if weight_init_std is not None and not is_number(weight_init_std, isfinite):
            raise ValueError(f"weight_init_std is {weight_init_std!r}; it must be a finite number, about 0.01")
        backend, (Activation, gain) = get_backend(backend), activations[activation]
        layers: list[Any] = []
        generator = random_generator(rng, "weights")
        for rows, columns in pairwise(sizes):
            std = sqrt(gain / rows) if weight_init_std is None else weight_init_std
            layers += [_affine(std * generator.standard_normal((rows, columns)), dtype, backend), Activation()]
        super().__init__(layers[:-1])


class TwoLayerNet(MultiLayerNet):
    """Affine, activation, Affine, softmax with cross entropy: the network of chapters 4 and 5.

    Source: Deep Learning from Scratch, 4.5.1 and 5.7.2.

    Parameters
    ----------
    input_size : int
        The number of features D.
    hidden_size : int
        The number of hidden units M: ``W1`` is (D, M).
    output_size : int
        The number of classes C: ``W2`` is (M, C).
    weight_init_std : float
        The standard deviation of the weights.
    activation : str
        "relu" (chapter 5) or "sigmoid" (chapter 4).
    rng, dtype, backend
        As in ``MultiLayerNet``.

    Raises
    ------
    ValueError, BackendError
        As ``MultiLayerNet`` does.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
        *,
        activation: str = "relu",
        rng: Seed = 0,
        dtype: Any = "float64",
        backend: str | Backend | None = None,
    ) -> None:
        if weight_init_std is None:
            raise ValueError("weight_init_std is None; it must be a finite number, about 0.01")
        super().__init__(
            input_size,
            (hidden_size,),
            output_size,
            weight_init_std,
            activation=activation,
            rng=rng,
            dtype=dtype,
            backend=backend,
        )


def _affine(W, dtype, backend):
    W = backend.asarray(W, dtype)
    try:
        require_precision("W", W)
    except TypeError as error:
        raise ValueError(f"dtype is {dtype!r}; it must be 'float32' or 'float64'") from error
    return Affine(W, backend.xp.zeros((W.shape[1],), dtype=W.dtype, device=backend.device))
