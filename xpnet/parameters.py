"""The parameters of a network by name, each owned by the layer that computes with it, and what else layers keep."""

import contextlib
from collections.abc import Mapping

from array_api_compat import is_writeable_array

from .arrays import detached, require_precision
from .backend import memory_of
from .describing import Described, kind_of, shapes_of
from .functions import namespace
from .layers import parameter_names


def layers_within(layer):
    """Return the layers that ``layer`` is made of: those in its attribute ``layers``, a sequence or a dict."""
    held = getattr(layer, "layers", ())
    held = held.values() if isinstance(held, Mapping) else held if isinstance(held, (list, tuple)) else ()
    return [part for part in held if hasattr(part, "forward") and hasattr(part, "backward")]


def by_class(layers):
    """Return layers by the names Affine1, Relu1, Affine2: their class, and which of that class it is."""
    names, count = {}, {}
    for layer in layers:
        kind = type(layer).__name__
        count[kind] = count.get(kind, 0) + 1
        names[f"{kind}{count[kind]}"] = layer
    return names


def with_parts(layers, prefix=""):
    """Yield (name, layer) for every layer and, as Block1.Affine2, for those that it is made of, to any depth."""
    for name, layer in by_class(layers).items():
        yield f"{prefix}{name}", layer
        yield from with_parts(layers_within(layer), f"{prefix}{name}.")


def _owners(layers, prefix=""):
    """Yield (name, layer, attribute) of all that is learned: W1, and Block2.W1 in layers made of layers."""
    number = 0
    for name, layer in by_class(layers).items():
        attributes, parts = parameter_names(layer), layers_within(layer)
        if parts:
            yield from ((f"{prefix}{name}.{attribute}", layer, attribute) for attribute in attributes)
            yield from _owners(parts, f"{prefix}{name}.")
        elif attributes:
            number += 1
            yield from ((f"{prefix}{attribute}{number}", layer, attribute) for attribute in attributes)


class Parameters(Described, Mapping):
    """The learned arrays of a row of layers under names such as W1, b1, W2, and Block1.W1 in a layer made of layers.

    Reading and assigning go to the layer that owns the array, so ``params[k] -= step`` and ``params[k] = value``
    both change what the layer computes with, also in a library whose arrays are never written, such as JAX. An array
    that can be written is copied when it is assigned, so that no two networks ever train the same one. One array in
    several places of one block is one parameter, and its gradient the sum of theirs. Assigning raises KeyError for an
    unknown name, TypeError for what is no array or one of another library, ValueError for another shape or dtype.
    """

    def __init__(self, layers):
        self._owners, arrays = {}, {}
        for name, layer, attribute in _owners(layers):
            value = getattr(layer, attribute)
            if not hasattr(value, "dtype"):
                self._owners[name] = [(layer, attribute)]
                continue
            if namespace(value, names=f"parameter {name}").isdtype(value.dtype, "real floating"):
                require_precision(f"parameter {name}", value)
            arrays[name] = value
            first, array = next(iter(arrays.items()))
            namespace(array, value, names=f"parameters {first} and {name}")
            if value.dtype != array.dtype:
                raise TypeError(
                    f"parameter {first} has dtype {array.dtype} and {name} {value.dtype}; they must be of "
                    "one dtype, else all that follows would be computed in the wider one"
                )
            twin = next(other for other in arrays if arrays[other] is value)
            block = name.partition(".")[0] if "." in name else None
            if twin != name and twin.partition(".")[0] != block:
                raise ValueError(f"parameters {twin} and {name} are one and the same array; give each layer its own")
            self._owners.setdefault(twin, []).append((layer, attribute))

    def _owners_of(self, name):
        if name not in self._owners:
            raise KeyError(f"there is no parameter {name!r}; the names are {', '.join(self._owners)}")
        return self._owners[name]

    def __getitem__(self, name):
        layer, attribute = self._owners_of(name)[0]
        return getattr(layer, attribute)

    def __setitem__(self, name, value):
        old = self[name]
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
        self._give(name, _of_its_own(value))

    def _give(self, name, value):
        for layer, attribute in self._owners[name]:
            setattr(layer, attribute, value)

    def __iter__(self):
        return iter(self._owners)

    def __len__(self):
        return len(self._owners)

    def _description(self):
        return f"{type(self).__name__}({', '.join([*filter(None, [shapes_of(self)]), kind_of(list(self.values()))])})"

    def held_by(self, layer):
        """Return {name: array} of the parameters that ``layer`` computes with."""
        held = {name: any(owner is layer for owner, _ in owners) for name, owners in self._owners.items()}
        return {name: self[name] for name in held if held[name]}

    @contextlib.contextmanager
    def holding(self, values):
        """Let the layers compute with other arrays, {name: array} of any dtype, and with their own again afterwards."""
        kept = {name: self[name] for name in values}
        try:
            for name, value in values.items():
                self._give(name, value)
            yield
        finally:
            for name, value in kept.items():
                self._give(name, value)

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
            for name, owners in self._owners.items()
            if (own := memory_of(self[name]))
            for layer, other, place in arrays
            if (layer, other) not in owners and place[0] <= own[1] and own[0] <= place[1]
        }

    def names_of(self, layer):
        """Return {attribute: name} of the parameters that ``layer`` alone owns."""
        alone = {name: owners[0] for name, owners in self._owners.items() if len(owners) == 1}
        return {attribute: name for name, (owner, attribute) in alone.items() if owner is layer}

    def gradients(self):
        """Return the gradients that the last backward left beside the parameters: dW beside W."""
        found = {}
        try:
            for name, owners in self._owners.items():
                found[name], *others = (getattr(layer, f"d{attribute}") for layer, attribute in owners)
                for other in others:
                    found[name] = found[name] + other
        except AttributeError as error:
            raise AttributeError(
                f"{type(error.obj).__name__} names {error.name[1:]!r} in its parameters, but its backward left no "
                f"{error.name}: keep the gradient there"
            ) from None
        return found


def _of_its_own(value):
    if not is_writeable_array(value):
        return value
    return namespace(value).asarray(detached(value), copy=True)
