"""What layers keep from batch to batch beside their parameters: running statistics, random generators.

A layer names it in ``state``: arrays, random generators, numbers. Of a layer that does not, as most in print, these are
taken for it: every random generator, every array that is there, beside the parameters, when the network is built, and
what is called ``running_…``. What comes and goes with a batch is then not there yet.
"""

import contextlib

from array_api_compat import device, is_array_api_obj

from .functions import namespace
from .layers import parameter_names
from .parameters import with_parts


class LayerState:
    """The state of a row of ``layers`` by names such as BatchNormalization1.running_mean, to take and to put back.

    Raises TypeError for a ``state`` that is a string, AttributeError if it names what the layer lacks, ValueError if
    two layers have generators of their own that draw the same numbers.
    """

    def __init__(self, layers):
        self.places = [
            (f"{name}.{attribute}", layer, attribute)
            for name, layer in with_parts(layers)
            for attribute in _names(layer)
        ]
        seen = {}
        for name, layer, attribute in self.places:
            held = getattr(layer, attribute)
            if is_generator(held) and id(held) not in {id(other) for other, _ in seen.values()}:
                drawn = repr(state_of(held))
                if drawn in seen:
                    raise ValueError(
                        f"{seen[drawn][1]} and {name} draw the same numbers; give each layer a seed of its own (rng=1, "
                        "rng=2, …) or all of them one generator"
                    )
                seen[drawn] = held, name

    def take(self):
        """Return {name: value}: arrays as copies, generators as what their state is, numbers as they are."""
        return {name: state_of(getattr(layer, attribute)) for name, layer, attribute in self.places}

    def put(self, taken, like=None):
        """Put back what ``take`` returned, arrays on the device of ``like`` where none is held; all of it or nothing.

        Raises ValueError, naming it, for what does not fit these layers.
        """
        names = [name for name, _, _ in self.places]
        if sorted(names) != sorted(taken):
            raise ValueError(
                f"the layers keep {', '.join(names) or 'nothing'}, but {', '.join(taken) or 'nothing'} was saved; "
                "build the network as it was when it was saved"
            )
        ready = []
        for name, layer, attribute in self.places:
            held, value = getattr(layer, attribute), taken[name]
            if is_generator(held):
                _require_kind(name, held, value)
            elif is_array_api_obj(value):
                if is_array_api_obj(held) and tuple(held.shape) != tuple(value.shape):
                    was = f"was saved with shape {tuple(value.shape)}"
                    raise ValueError(f"{name} has shape {tuple(held.shape)}, but {was}")
                value = _moved(value, held if is_array_api_obj(held) else like)
            ready.append((layer, attribute, held, value))
        for layer, attribute, held, value in ready:
            if is_generator(held):
                set_state_of(held, value)
            else:
                setattr(layer, attribute, value)


def _declared(layer):
    """Return the names in ``layer.state``, or None if there is no such list of names."""
    declared = getattr(layer, "state", None)
    if isinstance(declared, str):
        raise TypeError(f"{type(layer).__name__}.state is the string {declared!r}; write ({declared!r},)")
    if not isinstance(declared, (tuple, list)) or not all(isinstance(name, str) for name in declared):
        return None
    for name in declared:
        if not hasattr(layer, name):
            raise AttributeError(f"{type(layer).__name__} names {name!r} in its state, but has no such attribute")
    return tuple(declared)


def _names(layer):
    """Return the names of the attributes that ``layer`` keeps from batch to batch."""
    declared = _declared(layer)
    if declared is not None:
        return declared
    learned = parameter_names(layer)
    known = {*learned, *(f"d{name}" for name in learned)}
    return tuple(
        name
        for name, value in getattr(layer, "__dict__", {}).items()
        if name not in known and (is_generator(value) or is_array_api_obj(value) or name.startswith("running_"))
    )


def declared_generators(layers):
    """Return the random generators that layers, and those within them, name in their ``state``."""
    declared = (getattr(layer, name, None) for _, layer in with_parts(layers) for name in _declared(layer) or ())
    return list({id(held): held for held in declared if is_generator(held)}.values())


@contextlib.contextmanager
def rewound(generators):
    """Within this context generators draw what they would draw next, and afterwards they are where they were."""
    kept = [(generator, state_of(generator)) for generator in generators]
    try:
        yield
    finally:
        for generator, state in kept:
            set_state_of(generator, state)


def is_generator(thing):
    """Return whether ``thing`` is a random generator of NumPy, Python or PyTorch, by what it can do."""
    return hasattr(thing, "bit_generator") or any(
        hasattr(thing, get) and hasattr(thing, put)
        for get, put in (("get_state", "set_state"), ("getstate", "setstate"))
    )


def state_of(held):
    """Return the state of a generator, a copy of an array, and anything else as it is."""
    if hasattr(held, "bit_generator"):
        return held.bit_generator.state
    if hasattr(held, "getstate"):
        return held.getstate()
    if hasattr(held, "get_state") and hasattr(held, "set_state"):
        state = held.get_state()
        return held.get_state(legacy=False) if isinstance(state, tuple) else state  # NumPy's older kind
    return namespace(held).asarray(held, copy=True) if is_array_api_obj(held) else held


def set_state_of(held, value):
    """Bring a generator to the state ``value``, which ``state_of`` returned, also after a way through JSON."""
    if hasattr(held, "bit_generator"):
        held.bit_generator.state = value
    elif hasattr(held, "setstate"):
        held.setstate(tuple(tuple(part) if isinstance(part, list) else part for part in value))
    else:
        held.set_state(_moved(value, held.get_state()) if is_array_api_obj(value) else value)


def _require_kind(name, held, value):
    """Raise ValueError unless ``value`` is the state of a generator of the kind of ``held``."""
    now = state_of(held)
    kinds = [state.get("bit_generator") if isinstance(state, dict) else None for state in (now, value)]
    alike = (
        isinstance(value, dict)
        if isinstance(now, dict)
        else isinstance(value, (tuple, list)) or hasattr(value, "dtype")
    )
    if not alike or kinds[0] != kinds[1]:
        raise ValueError(f"{name} is a {kinds[0] or type(held).__name__}, but another kind of generator was saved")


def _moved(value, like):
    """Return an array as one of the library and on the device of ``like``, if there is one."""
    return value if like is None else namespace(like).asarray(value, device=device(like), copy=True)
