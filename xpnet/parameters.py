"""The parameters of a network by name, each owned by the layer that computes with it."""

import contextlib
from collections.abc import Mapping

from array_api_compat import is_writeable_array

from .arrays import detached, require_precision
from .backend import memory_of
from .functions import namespace
from .layers import parameter_names


class Parameters(Mapping):
    """The learned arrays of a row of layers under names such as W1, b1, W2.

    Reading and assigning go to the layer that owns the array, so ``params[k] -= step`` and ``params[k] = value``
    both change what the layer computes with, also in a library whose arrays are never written, such as JAX. An array
    that can be written is copied when it is assigned, so that no two networks ever train the same one. Assigning
    raises KeyError for an unknown name, TypeError for what is no array or one of another library, ValueError for
    another shape or dtype.
    """

    def __init__(self, layers):
        learning = [layer for layer in layers if parameter_names(layer)]
        self._owners = {
            f"{attribute}{number}": (layer, attribute)
            for number, layer in enumerate(learning, start=1)
            for attribute in layer.parameters
        }
        arrays = {name: value for name, value in self.items() if hasattr(value, "dtype")}
        for name, value in arrays.items():
            if namespace(value, names=f"parameter {name}").isdtype(value.dtype, "real floating"):
                require_precision(f"parameter {name}", value)
            first, array = next(iter(arrays.items()))
            namespace(array, value, names=f"parameters {first} and {name}")
            if value.dtype != array.dtype:
                raise TypeError(
                    f"parameter {first} has dtype {array.dtype} and {name} {value.dtype}; they must be of one, or "
                    "the wider would spread through the network"
                )
            twin = next(other for other in arrays if arrays[other] is value)
            if twin != name:
                raise ValueError(f"parameters {twin} and {name} are one and the same array; give each layer its own")

    def __getitem__(self, name):
        layer, attribute = self._owners[name]
        return getattr(layer, attribute)

    def __setitem__(self, name, value):
        if name not in self._owners:
            raise KeyError(f"there is no parameter {name!r}; the names are {', '.join(self._owners)}")
        layer, attribute = self._owners[name]
        old = getattr(layer, attribute)
        if value is old:  # as after params[name] -= step, where arrays can be written
            return
        if not (hasattr(value, "shape") and hasattr(value, "dtype")):
            raise TypeError(f"parameter {name} is an array of shape {tuple(old.shape)}; got {type(value).__name__}")
        namespace(old, value, names=f"parameter {name} and its new value")
        if tuple(value.shape) != tuple(old.shape) or value.dtype != old.dtype:
            raise ValueError(
                f"parameter {name} has shape {tuple(old.shape)} and dtype {old.dtype}; got shape "
                f"{tuple(value.shape)} and dtype {value.dtype}"
            )
        setattr(layer, attribute, _of_its_own(value))

    def __iter__(self):
        return iter(self._owners)

    def __len__(self):
        return len(self._owners)

    @contextlib.contextmanager
    def holding(self, values):
        """Let the layers compute with other arrays, {name: array} of any dtype, and with their own again afterwards."""
        kept = {name: self[name] for name in values}
        try:
            for name, value in values.items():
                setattr(*self._owners[name], value)
            yield
        finally:
            for name, value in kept.items():
                setattr(*self._owners[name], value)

    def shared(self, layers):
        """Return the names of parameters whose memory another array of one of the ``layers`` uses too: W and W.T."""
        arrays = [
            (layer, attribute, place)
            for layer in layers
            for attribute, value in vars(layer).items()
            if hasattr(value, "dtype") and hasattr(value, "shape") and (place := memory_of(value))
        ]
        return {
            name
            for name, (owner, attribute) in self._owners.items()
            if (own := memory_of(self[name]))
            for layer, other, place in arrays
            if (layer, other) != (owner, attribute) and place[0] <= own[1] and own[0] <= place[1]
        }

    def names_of(self, layer):
        """Return {attribute: name} of the parameters that ``layer`` owns."""
        return {attribute: name for name, (owner, attribute) in self._owners.items() if owner is layer}

    def gradients(self):
        """Return the gradients that the last backward left beside the parameters: dW beside W."""
        try:
            return {name: getattr(layer, f"d{attribute}") for name, (layer, attribute) in self._owners.items()}
        except AttributeError as error:
            raise AttributeError(
                f"{type(error.obj).__name__} names {error.name[1:]!r} in its parameters, but its backward left no "
                f"{error.name}: keep the gradient there"
            ) from None


def _of_its_own(value):
    if not is_writeable_array(value):
        return value
    return namespace(value).asarray(detached(value), copy=True)
