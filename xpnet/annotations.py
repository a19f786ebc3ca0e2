"""What signatures are annotated with: ``Array`` for the arrays of every library, and a few words that occur often."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = Any
"""An array of NumPy, CuPy, PyTorch, JAX or another Array API library; there is no type that all of them share."""

Function: TypeAlias = Callable[[Any], Any]
"""A function of one array or number."""

Map: TypeAlias = Callable[..., Iterable[Any]]
"""A function such as ``map``, or the ``map`` of a ``ProcessPoolExecutor``."""

FilePath: TypeAlias = "str | PathLike[str]"
"""Where a file is."""

Seed: TypeAlias = "int | np.random.Generator"
"""A seed, or a generator that goes on from where it is."""
