"""Functions of JAX arrays as subjects: what is checked is JAX's own differentiation of them, ``custom_vjp`` included.

This module adapts JAX, and is imported only where an argument is an array of it.
"""

import jax

from ...layer_state import rewound
from .arguments import is_floats, leaves
from .calls import Call


class TracedFunction(Call):
    """A function of JAX arrays; all arrays of floats among its inputs are differentiated.

    Gradients are taken in the user's setting of 32 or 64 bits. Values in 64 bits are computed where they are asked for.
    """

    kind = "JAX's gradient"

    def __init__(self, f, inputs, seed):
        self.by_default_64 = jax.config.jax_enable_x64
        super().__init__(f, inputs, seed)

    def context(self):
        """Return a context in which arrays of 64 bits can be made."""
        return jax.enable_x64(True)

    def evaluated(self, changed):
        """Return the outputs with the arrays of ``changed``."""
        with rewound(self.generators), self._setting(changed):
            return self._joined(self.f(*self.arguments.changed(changed)))

    def _claims(self, changed, weights):
        floats = {name: changed.get(name, value) for name, value in self.arguments.floats.items()}
        with rewound(self.generators), self._setting(changed):
            _, back = jax.vjp(self._outputs, floats)
            douts = {name: dout for name, dout in leaves(self._split(weights), "out") if dout is not None}
            return back(douts)[0]

    def _outputs(self, given):
        """Return the outputs of floats by name: others have no gradient to give."""
        out = self.f(*self.arguments.changed(given))
        return {name: part for name, part in leaves(out, "out") if is_floats(part)}

    def _setting(self, changed):
        wide = any(value.dtype.itemsize == 8 for value in changed.values())
        return jax.enable_x64(wide or self.by_default_64)
