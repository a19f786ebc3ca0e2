"""A case as a function of arrays with its vector-Jacobian product, which is what checkers of functions take."""

import numpy as np

from .cases import dout_of, parameters_of


class View:
    """The output of a layer as a function of x and its parameters, or the loss of a network as one of its parameters.

    Parameters are set in place, and forward is run again before each backward, because a layer remembers one call.
    """

    def __init__(self, case, dtype):
        self.net, x, self.t = case.build(dtype=dtype)
        self.network = hasattr(self.net, "params")
        values = parameters_of(self.net)
        self.x = x
        if not self.network:
            values = {"x": x, **values}
        self.names = list(values)
        self.values = [np.array(value) for value in values.values()]

    def out(self, *values):
        """Return the output for ``values``, in the order of ``names``, as a NumPy array."""
        x = self.x
        for name, value in zip(self.names, values, strict=True):
            if name == "x":
                x = np.asarray(value, dtype=x.dtype).copy()
            else:
                parameters_of(self.net)[name][...] = value
        given = () if self.t is None else (self.t,)
        return np.asarray(self.net.loss(x, self.t) if self.network else self.net.forward(x, *given))

    def vjp(self, dout, *values):
        """Return the gradients of Σ dout·out for ``values``, by the case's own backward."""
        out = self.out(*values)
        if self.network:
            found = self.net.gradient(self.x, self.t)
            return [np.asarray(dout * found[name]) for name in self.names]
        found = {"x": self.net.backward(np.asarray(dout, dtype=out.dtype).copy())}
        return [np.array(found["x"] if name == "x" else getattr(self.net, f"d{name}")) for name in self.names]

    def weighted(self):
        """Return the function Σ dout·out for one random dout, and its gradients."""
        dout = np.ones(()) if self.network else dout_of(self.out(*self.values))
        return lambda *values: (dout * self.out(*values)).sum(), lambda *values: self.vjp(dout, *values)
