"""Leave things as they were found: what objects keep is remembered, and put back to the bit."""

import array
import collections
import contextlib
import io
import sys
import threading
import types
import warnings
import weakref
from functools import partial

from array_api_compat import array_namespace, device, is_array_api_obj, is_writeable_array

LEFT_ALONE = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, type, property, weakref.ref, io.IOBase),
    *(types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodWrapperType),
    *(type(threading.Lock()), type(threading.RLock())),
)
SEQUENCES = (list, collections.deque, bytearray, array.array)
# modules with a random generator of their own: how it gives its state and takes it back
SHARED = {
    "random": ("getstate", "setstate"),
    "numpy.random": ("get_state", "set_state"),
    "torch": ("get_rng_state", "set_rng_state"),
}
UNSET = type  # stands for an attribute that is not there
WRITTEN_IN_PYTHON = 1 << 9  # a class made by a class statement (Py_TPFLAGS_HEAPTYPE), or one that behaves like it


@contextlib.contextmanager
def unchanged(*things):
    """Whatever is reachable from ``things`` is afterwards as it was before, to the bit, also after an exception.

    That is attributes (those that were added go, those that were removed return), lists, dicts and sets; values,
    shapes, flags and ``grad`` of arrays that can be written; random generators, and besides the random states that
    ``random``, NumPy and PyTorch share. Modules, classes, functions, files and locks are left alone, and so is what
    ``not_restorable`` names.
    """
    with contextlib.ExitStack() as undo:
        for thing in reachable(things):
            for way_back in _ways_back(thing):
                undo.callback(way_back)
        for name, (give, take) in SHARED.items():
            if name in sys.modules:
                undo.callback(getattr(sys.modules[name], take), getattr(sys.modules[name], give)())
        yield


def not_restorable(*things):
    """Return the names of types reachable from ``things`` that may change and cannot be put back, such as iterators."""
    return sorted({type(thing).__name__ for thing in reachable(things) if _is_closed(thing)})


def reachable(things):
    """Yield every object that ``things`` hold, each once, but for what is left alone."""
    seen, waiting = {}, list(things)  # seen holds the objects themselves, so that no id is used twice
    while waiting:
        thing = waiting.pop()
        if id(thing) not in seen and not isinstance(thing, LEFT_ALONE):
            seen[id(thing)] = thing
            yield thing
            waiting += _parts(thing)


def _parts(thing):
    """Return what an object holds."""
    if isinstance(thing, (dict, types.MappingProxyType)):
        parts = [*thing.keys(), *thing.values()]
    elif isinstance(thing, (tuple, list, set, frozenset, collections.deque)):
        parts = list(thing)
    elif isinstance(thing, types.MethodType):
        return [thing.__self__]
    elif isinstance(thing, partial):
        parts = [thing.func, thing.args, thing.keywords]
    elif is_array_api_obj(thing):
        if not _can_change(thing):
            return []
        parts = thing.ravel().tolist() if getattr(thing.dtype, "hasobject", False) else []
        parts += [thing.grad] if getattr(thing, "is_leaf", False) else []
    else:
        parts = [value for _, value in _slots(thing)]
    return [*parts, _attributes(thing)]


def _ways_back(thing):
    """Yield functions that bring an object back to what it is now; the objects in it have ways back of their own."""
    if isinstance(thing, dict):
        yield partial(_refill_dict, thing, dict(thing))
    elif isinstance(thing, SEQUENCES):
        yield partial(_refill, thing, list(thing), "extend")
    elif isinstance(thing, set):
        yield partial(_refill, thing, list(thing), "update")
    elif is_array_api_obj(thing):
        if _can_change(thing):
            yield _array_way_back(thing)
    else:
        for slot, value in _slots(thing):
            yield partial(_refill_slot, slot, thing, value)
        generator = _generator(thing)
        if generator:
            give, take = generator
            yield partial(take, give())


def _is_closed(thing):
    """Return whether an object may keep what can neither be seen nor put back; values such as dtypes do not."""
    seen_through = (*SEQUENCES, dict, set, frozenset, tuple, types.MappingProxyType, types.MethodType, partial)
    if isinstance(thing, seen_through) or is_array_api_obj(thing) or _generator(thing):
        return False
    kind = type(thing)
    if kind.__flags__ & WRITTEN_IN_PYTHON and not hasattr(kind, "__next__"):
        return False
    if kind.__hash__ not in (None, object.__hash__):  # compared by value
        return False
    try:
        return not isinstance(thing.__reduce_ex__(4), str)  # a name: there is one of it
    except Exception:  # whatever a foreign object answers
        return True


def _attributes(thing):
    held = getattr(thing, "__dict__", None)
    return held if isinstance(held, dict) else None


def _slots(thing):
    """Yield (descriptor, value) of the attributes in ``__slots__``; those that are not set have the value ``UNSET``."""
    for kind in type(thing).__mro__:
        for descriptor in vars(kind).values() if "__slots__" in vars(kind) else ():
            if isinstance(descriptor, types.MemberDescriptorType):
                try:
                    yield descriptor, descriptor.__get__(thing)
                except AttributeError:
                    yield descriptor, UNSET


def _generator(thing):
    """Return (give, take) of the state of a random generator, or None."""
    random = sys.modules.get("random")  # not imported: it takes a while, and without it there is none of its generators
    if random and isinstance(thing, random.Random):
        return thing.getstate, thing.setstate
    if not type(thing).__flags__ & WRITTEN_IN_PYTHON:
        source = getattr(thing, "bit_generator", thing)
        if hasattr(source, "random_raw"):
            return partial(getattr, source, "state"), partial(setattr, source, "state")
        if hasattr(thing, "get_state") and hasattr(thing, "set_state"):
            return thing.get_state, thing.set_state
    return None


def _refill_slot(slot, thing, value):
    if value is not UNSET:
        slot.__set__(thing, value)
    else:
        with contextlib.suppress(AttributeError):
            slot.__delete__(thing)


def _refill_dict(held, kept):
    if len(held) == len(kept):
        pairs = zip(held.items(), kept.items(), strict=True)
        if all(now is then and value is old for (now, value), (then, old) in pairs):
            return
    held.clear()
    held.update(kept)


def _refill(held, kept, method):
    held.clear() if hasattr(held, "clear") else held.__delitem__(slice(None))
    getattr(held, method)(kept)


def _can_change(x):
    can_be_locked = hasattr(type(x), "__setitem__") and hasattr(getattr(x, "flags", None), "writeable")
    return can_be_locked or is_writeable_array(x)


def _array_way_back(x):
    """Return a function that brings an array back: where its numbers lie, what they are, and what is said of them."""
    if hasattr(x, "requires_grad"):
        return _graph_array_way_back(x)
    xp, shape, writeable = array_namespace(x), x.shape, getattr(getattr(x, "flags", None), "writeable", None)
    kept = xp.asarray(x, device=device(x), copy=True)

    def back():
        if x.shape != shape:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # NumPy 2.5's
                x.shape = shape
        if writeable and not x.flags.writeable:
            x.flags.writeable = True
        if writeable is None or x.flags.writeable:
            xp.asarray(x, device=device(x))[...] = kept  # without the mask of a masked array
        if writeable is False:
            x.flags.writeable = False

    return back


def _graph_array_way_back(x):
    """Return that function for an array that may belong to a graph of computations, which must not see the writing."""
    values, requires, is_leaf = x.data, x.requires_grad, x.is_leaf
    grad = x.grad if is_leaf else None
    kept = array_namespace(x).asarray(values, copy=True)
    # where one number stands for many, the first of them is written
    once = tuple(slice(None, None if step else 1) for step in values.stride())

    def back():
        if is_leaf and not x.is_leaf:
            x.detach_()
        x.data = values
        values[once] = kept[once]
        if is_leaf and x.requires_grad != requires:
            x.requires_grad_(requires)
        if is_leaf and x.grad is not grad:
            x.grad = grad

    return back
