"""What layers and networks say of themselves: shapes, dtype, device and number of parameters, never a value.

Values would make a device wait, and fill a page. Whatever goes wrong here, in a class of your own too, is no error: the
object is then shown as Python shows any other.
"""

import inspect
from math import prod

from array_api_compat import device

from .functions import on_host


class Described:
    """An object whose ``repr`` is what its method ``_description`` returns."""

    def __repr__(self):
        try:
            return self._description()
        except Exception:
            return object.__repr__(self)


def in_short(thing):
    """Return the first line of the ``repr`` of anything a caller gave, cut to 60 characters."""
    try:
        line = repr(thing).partition("\n")[0]
    except Exception:
        line = object.__repr__(thing)
    return line if len(line) <= 60 else f"{line[:59]}…"


def shapes_of(arrays):
    """Return {name: array} in words: "W1 (784, 50), b1 (50,)"."""
    return ", ".join(f"{name} {tuple(array.shape)}" for name, array in arrays.items())


def dtype_of(array):
    """Return the dtype of an array in one word, the same for all libraries: "float32"."""
    return str(array.dtype).rpartition(".")[2]


def kind_of(arrays):
    """Return in words what parameters are: "float32 on cpu, 39,250 parameters"."""
    if not arrays:
        return "no parameters"
    number = sum(prod(array.shape) for array in arrays)
    where = "cpu" if on_host(arrays[0]) else str(device(arrays[0])).strip("<>")
    return f"{dtype_of(arrays[0])} on {where}, {number:,} parameter{'' if number == 1 else 's'}"


def layer_in_words(layer):
    """Return the class of a layer with the shape of its first parameter, its settings, and what its parameters are.

    Settings are the arguments of its class that it keeps under their names, if they are plain: ``dropout_ratio=0.5``.
    """
    arrays = [getattr(layer, name) for name in getattr(layer, "parameters", ())]
    kept = {name: vars(layer).get(name) for name in inspect.signature(type(layer)).parameters}
    words = list(map(str, arrays[0].shape)) if arrays else []
    words += [f"{name}={value!r}" for name, value in kept.items() if isinstance(value, (bool, int, float, str))]
    return f"{type(layer).__name__}({', '.join([*words, *([kind_of(arrays)] if arrays else [])])})"


def record_in_words(record):
    """Return the ``repr`` of a named tuple in which arrays are told by dtype and shape, and long lists by length."""
    try:
        fields = [f"{name}={_field(value)}" for name, value in record._asdict().items()]
        return f"{type(record).__name__}({', '.join(fields)})"
    except Exception:
        return object.__repr__(record)


def _field(value):
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{dtype_of(value)} {tuple(value.shape)}>" if value.ndim else f"<{dtype_of(value)}>"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_field(each)}' for key, each in value.items())}}}"
    if isinstance(value, (list, tuple)) and len(value) > 3:
        return f"<{len(value)} × {type(value[0]).__name__}>"
    return repr(value)


def network_in_words(kind, rows, arrays):
    """Return a line about the network of class ``kind`` and one for each of its ``rows``: a layer, its parameters."""
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:{width}}  {shapes_of(own)}".rstrip() for name, own in rows]
    return "\n".join([f"{kind}({kind_of(arrays)})", *lines])


def network_as_table(kind, rows, arrays):
    """Return the same as a table of HTML, with the number of parameters of each layer."""
    import html  # here, because importing it takes a while

    numbers = [sum(prod(array.shape) for array in own.values()) for _, own in rows]
    cells = [
        (name, shapes_of(own), f"{number:,}" if own else "") for (name, own), number in zip(rows, numbers, strict=True)
    ]
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
    caption = html.escape(f"{kind}, {kind_of(arrays)}")
    head = "<tr><th>layer</th><th>parameters</th><th>number</th></tr>"
    return f"<table><caption>{caption}</caption><thead>{head}</thead><tbody>{body}</tbody></table>"
