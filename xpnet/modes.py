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
    """Which of a row of ``layers`` have two modes, and a forward through all of them in one of the two."""

    def __init__(self, layers):
        self.layers = list(layers)
        self.by_argument = [_takes_mode(layer) for layer in self.layers]
        parts = [layer for _, layer in with_parts(self.layers)]
        self.by_attribute = [layer for layer in parts if any(hasattr(layer, name) for name in ATTRIBUTES)]

    def __bool__(self):
        return bool(self.by_attribute) or any(self.by_argument)

    def forward(self, x, train_flg):
        """Return the output of the row of layers for the input ``x``; ``train_flg=False`` evaluates."""
        if train_flg or not self:
            for layer in self.layers:
                x = layer.forward(x)
            return x
        with self._evaluating():
            for layer, by_argument in zip(self.layers, self.by_argument, strict=True):
                x = layer.forward(x, train_flg=False) if by_argument else layer.forward(x)
        return x

    @contextlib.contextmanager
    def _evaluating(self):
        held = [(layer, name, getattr(layer, name, None)) for layer in self.by_attribute for name in ATTRIBUTES]
        held = [(layer, name, flag) for layer, name, flag in held if isinstance(flag, bool)]
        for layer, name, _ in held:
            setattr(layer, name, False)
        try:
            yield
        finally:
            for layer, name, flag in held:
                setattr(layer, name, flag)


def _takes_mode(layer):
    try:
        return "train_flg" in inspect.signature(layer.forward).parameters
    except (TypeError, ValueError):  # written in C, without a signature
        return False
