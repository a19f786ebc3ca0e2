"""Data sets: MNIST, shipped with the package, and any folder of IDX files in its layout (book, 3.6)."""

from .mnist import load_mnist

__all__ = ["load_mnist"]
