"""Training and evaluation: layers that do one thing while a network learns and another when it is used (book, 6.3).

Three ways to write such a layer are in print, and a ``Network`` knows them all:

- ``forward(x, train_flg=True)`` takes the mode as an argument, as in the book;
- an attribute ``train_flg``, or ``training``, holds it, as in the book's second volume and in PyTorch. Layers within
  layers are told only in this way.

A layer by itself is in training unless its attribute says otherwise. A network that evaluates tells its layers so for
the time of that call, and then leaves them as they were.
"""

import contextlib
import inspect

from .parameters import with_parts

ATTRIBUTES = ("train_flg", "training")


class Modes:
    """Which of a row of ``layers`` have two modes, and how each is told in which of them it is."""

    def __init__(self, layers):
        self._evaluate = [{"train_flg": False} if _takes_mode(layer) else {} for layer in layers]
        parts = [layer for _, layer in with_parts(layers)]
        self._holding = [layer for layer in parts if any(hasattr(layer, name) for name in ATTRIBUTES)]

    def __bool__(self):
        return bool(self._holding) or any(self._evaluate)

    @contextlib.contextmanager
    def told(self, train_flg):
        """Within this context, layers evaluate unless ``train_flg``; it gives the arguments of each one's forward."""
        if train_flg or not self:
            yield [{} for _ in self._evaluate]
            return
        held = [(layer, name, getattr(layer, name, None)) for layer in self._holding for name in ATTRIBUTES]
        held = [(layer, name, flag) for layer, name, flag in held if isinstance(flag, bool)]
        for layer, name, _ in held:
            setattr(layer, name, False)
        try:
            yield self._evaluate
        finally:
            for layer, name, flag in held:
                setattr(layer, name, flag)


def _takes_mode(layer):
    try:
        return "train_flg" in inspect.signature(layer.forward).parameters
    except (TypeError, ValueError):  # written in C, without a signature
        return False
