"""Plain numbers that a caller gives, counts and sizes of steps, and what they must be."""

from numbers import Integral, Real


def is_count(value, lowest=1):
    """Return whether ``value`` is a whole number of at least ``lowest``, of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= lowest


def require_count(name, value, lowest=1):
    """Raise ValueError unless ``value`` is a whole number of at least ``lowest``."""
    if not is_count(value, lowest):
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {lowest}")


def is_number(value, allowed=lambda value: True):
    """Return whether ``value`` is a real number, of Python or NumPy, for which ``allowed`` is true."""
    return isinstance(value, Real) and bool(allowed(value))
