"""Functions of arrays and what is claimed as their gradient: given beside them, as a backward, or with the value."""

import inspect

from array_api_compat import is_array_api_obj

from .arguments import leaves
from .calls import Call, name_of


class WithGradient(Call):
    """A function and what is claimed as its gradient: arrays, a function of the inputs, or of them and a ``dout``."""

    def __init__(self, f, inputs, gradient, seed):
        self.gradient = gradient
        self.kind = "gradient" if not callable(gradient) else name_of(gradient, "gradient")
        super().__init__(f, inputs, seed)
        self.state = (f, gradient, *inputs)

    def forward(self, *args):
        """Return what the function returns."""
        return self.f(*args)

    def gradients(self, changed):
        """Return the claimed gradients; arrays are those of the inputs as given alone."""
        if changed and not callable(self.gradient):
            raise TypeError(f"the gradient of {self.name} was given as arrays, which belong to these inputs alone")
        return super().gradients(changed)

    def takes_dout(self, out):
        """Return whether the gradient takes a ``dout``: always of an array, of a number if it has a place."""
        count = len(self.arguments.args)
        if tuple(getattr(out, "shape", ())) == ():
            return callable(self.gradient) and _requires(self.gradient) == count + 1
        if not callable(self.gradient):
            raise ValueError(
                f"{self.name} returns an array of shape {tuple(out.shape)}, for which gradient= must be a function of "
                "the inputs and of dout, the gradient of a loss with respect to that array"
            )
        return True

    def differentiate(self, args, dout):
        """Return what is claimed."""
        if not callable(self.gradient):
            return self.gradient
        return self.gradient(*args) if dout is None else self.gradient(*args, dout)


class WithCache(Call):
    """``forward(*inputs)`` that returns (out, cache), and ``backward(dout, cache)``, as in course work."""

    def __init__(self, f, inputs, backward, seed):
        self.backward, self.kind = backward, name_of(backward, "backward")
        super().__init__(f, inputs, seed)
        self.state = (f, backward, *inputs)

    def forward(self, *args):
        """Return (out, cache)."""
        out = self.f(*args)
        if not isinstance(out, tuple) or len(out) < 2:
            raise TypeError(f"{self.name} returned {type(out).__name__}; with backward= it must return (out, cache)")
        return out

    def results(self, out):
        """Return all but the cache, which comes last."""
        return out[0] if len(out) == 2 else out[:-1]

    def differentiate(self, args, dout):
        """Return what ``backward(dout, cache)`` returns, with a dout for each output."""
        out = self.forward(*args)
        return self.backward(*(dout if len(out) > 2 else (dout,)), out[-1])


class WithValue(Call):
    """A function that returns its value and its gradient at once, as (loss, dscores)."""

    def forward(self, *args):
        """Return (value, gradient)."""
        return self.f(*args)

    def takes_dout(self, out):
        """Return False: the gradient comes with the value."""
        return False

    def results(self, out):
        """Return the value."""
        return out[0]

    def differentiate(self, args, dout):
        """Return what comes with the value."""
        out = self.f(*args)
        return out[1] if len(out) == 2 else tuple(out[1:])

    def by_name(self, result):
        """Return the gradients by name; of the leading arguments, where there are fewer than arguments of floats."""
        if is_array_api_obj(result):
            (first, *_), others = self.arguments.names, self.arguments.floats
            return {first: result, **dict.fromkeys(set(others) - {first})}, None
        return super().by_name(result)


def returns_value_and_gradient(out):
    """Return whether a function's result is one number and then arrays."""
    if not isinstance(out, tuple) or len(out) < 2:
        return False
    number = isinstance(out[0], (int, float)) or (is_array_api_obj(out[0]) and tuple(out[0].shape) == ())
    found = [leaf for part in out[1:] for _, leaf in leaves(part, "")]
    return number and bool(found) and all(is_array_api_obj(leaf) for leaf in found)


def _requires(function):
    """Return how many positional arguments a function must be given, or 0 where that is not told."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 0
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
