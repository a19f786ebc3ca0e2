"""The arguments and results of functions, arrays within dicts and sequences included, as arrays by name."""

import inspect
from collections.abc import Mapping

from array_api_compat import is_array_api_obj, is_writeable_array

from ...functions import namespace


def is_floats(thing):
    """Return whether ``thing`` is an array of real floating-point numbers."""
    if not is_array_api_obj(thing):
        return False
    try:
        return bool(namespace(thing).isdtype(thing.dtype, "real floating"))
    except TypeError:  # a dtype of its own kind, such as that of JAX's random keys
        return False


def leaves(tree, name):
    """Yield (name, leaf) of all that is in a dict or sequence, to any depth: x, pair[0], params.W1."""
    if isinstance(tree, Mapping):
        for key, part in tree.items():
            yield from leaves(part, f"{name}.{key}")
    elif isinstance(tree, (tuple, list)):
        for i, part in enumerate(tree):
            yield from leaves(part, f"{name}[{i}]")
    else:
        yield name, tree


def replaced(tree, name, changed):
    """Return ``tree`` with the leaves that ``changed`` names in place of its own; containers are copied."""
    if isinstance(tree, Mapping):
        parts = {key: replaced(part, f"{name}.{key}", changed) for key, part in tree.items()}
        return parts if type(tree) is dict else type(tree)(parts)
    if isinstance(tree, (tuple, list)):
        parts = [replaced(part, f"{name}[{i}]", changed) for i, part in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return changed.get(name, tree)


def argument_names(function, count):
    """Return names for the first ``count`` positional arguments of ``function``: its own where they can be seen."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C, without a signature
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:count]
    if len(names) < count:  # fewer than were given: it takes *args, and what they are is not told
        names = ["x"] if count == 1 else [f"x{i + 1}" for i in range(count)]
    return names


class Arguments:
    """The positional arguments ``args`` of a call under ``names``, with the arrays of floats among them by name."""

    def __init__(self, names, args):
        self.names, self.args = names, args
        found = [leaf for name, arg in zip(names, args, strict=True) for leaf in leaves(arg, name)]
        self.floats = {name: leaf for name, leaf in found if is_floats(leaf)}

    def changed(self, changed):
        """Return the arguments with the arrays of ``changed``, {name: array}, in place of their own."""
        return [replaced(arg, name, changed) for name, arg in zip(self.names, self.args, strict=True)]

    def copies(self):
        """Return {name: copy} of all arrays that can be written, for a call that may do so."""
        found = (leaf for name, arg in zip(self.names, self.args, strict=True) for leaf in leaves(arg, name))
        return {name: namespace(a).asarray(a, copy=True) for name, a in found if is_writeable_array(a)}

    def written(self, given):
        """Return the name of the first array of ``given``, made by ``copies``, that is no longer like its own."""
        for name, arg in zip(self.names, self.args, strict=True):
            for leaf_name, own in leaves(arg, name):
                if leaf_name in given and not same(own, given[leaf_name]):
                    return leaf_name
        return None

    def by_name(self, result, what):
        """Return ({name: array or None}, None) of a gradient ``result``, as the arguments are built, or a reason.

        It is the gradient of the only argument with floats, or a tuple for all arguments or for those with floats; a
        dict of settings that holds running statistics may be left out. ``what`` names what returned it.
        """
        args = dict(zip(self.names, self.args, strict=True))
        floating = [name for name, arg in args.items() if any(is_floats(leaf) for _, leaf in leaves(arg, name))]
        several = isinstance(result, (tuple, list)) and not (
            len(floating) == 1 and isinstance(result, type(args[floating[0]]))
        )
        parts = result if several else (result,)
        of = self._in_number(len(parts), floating)
        if of is None:
            came = f"{len(parts)} values" if several else type(result).__name__
            return {}, f"{what} returned {came}; it must return {len(floating)}, the gradients of {', '.join(floating)}"
        claimed = {leaf: None for name in floating for leaf, value in leaves(args[name], name) if is_floats(value)}
        for name, part in zip(of, parts, strict=True):
            for leaf, value in _aligned(args[name], part, name):
                if isinstance(value, str):
                    return {}, f"{what} returned {value}"
                claimed[leaf] = value
        return claimed, None

    def _in_number(self, count, floating):
        """Return the names of the arguments of which ``count`` values can be the gradients, or None."""
        args = dict(zip(self.names, self.args, strict=True))
        unsettled = [name for name in floating if not _holds_settings(args[name])]
        of = next((names for names in (self.names, floating, unsettled) if len(names) == count), None)
        return (floating or of) if of and count == 1 else of


def _holds_settings(arg):
    """Return whether an argument is a dict that holds more than arrays, such as {"mode": "train"}."""
    return isinstance(arg, Mapping) and not all(is_array_api_obj(leaf) for _, leaf in leaves(arg, ""))


def _aligned(own, claim, name):
    """Yield (name, claimed gradient or None) of each array of floats in ``own``, or (name, what came instead)."""
    if isinstance(own, (Mapping, tuple, list)):
        yield from _aligned_parts(own, claim, name)
    elif is_floats(own):
        if claim is None or hasattr(claim, "dtype"):
            yield name, claim
        elif isinstance(claim, (int, float, list)):
            yield name, namespace(own).asarray(claim, dtype=own.dtype)
        else:
            yield name, f"{type(claim).__name__} for {name}; it must be an array"


def _aligned_parts(own, claim, name):
    if claim is None:
        yield from ((leaf, None) for leaf, value in leaves(own, name) if is_floats(value))
    elif isinstance(own, Mapping) and isinstance(claim, Mapping):
        yield from _aligned_by_key(own, claim, name)
    elif isinstance(own, Mapping) or not isinstance(claim, (tuple, list)):
        yield name, f"{type(claim).__name__} for {name}, which is a {type(own).__name__}"
    elif len(own) != len(claim):
        yield name, f"{len(claim)} gradients for the {len(own)} parts of {name}"
    else:
        for i, (part, given) in enumerate(zip(own, claim, strict=True)):
            yield from _aligned(part, given, f"{name}[{i}]")


def _aligned_by_key(own, claim, name):
    optional = _holds_settings(own)
    for key, part in own.items():
        if optional or key in claim or not any(is_floats(leaf) for _, leaf in leaves(part, "")):
            yield from _aligned(part, claim.get(key), f"{name}.{key}")
        else:
            yield name, f"nothing for {name}.{key}: forgotten? Return None for what is not differentiated"


def same(a, b):
    """Return whether two arrays hold the same, NaN where the other holds NaN."""
    if tuple(a.shape) != tuple(b.shape) or a.dtype != b.dtype:
        return False
    xp = namespace(a)
    alike = a == b
    if not xp.isdtype(a.dtype, ("bool", "integral")):
        alike = alike | ((a != a) & (b != b))
    return bool(xp.all(alike))
