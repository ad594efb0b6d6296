"""Words for signatures that need no JAX; those that do are in `types`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

Unchecked = object  # what a caller gave, before it is checked
Tree = object  # a pytree, for code that does not load JAX to say so
Same = TypeVar("Same")  # goes in, and comes out as it is
Function = TypeVar("Function", bound=Callable)  # goes in, and comes out as one with the same arguments
Shape = tuple[int, ...]

Setting = str | int | float | bool | Sequence | Mapping | None  # what JSON can hold
Settings = Mapping[str, Setting]


@runtime_checkable
class OnDisk(Protocol):
    """A matrix that is read by slices, such as a `zarr.Array`; `np.asarray` reads it whole."""

    shape: Shape
    dtype: np.dtype

    def __getitem__(self, part: Unchecked, /) -> Unchecked:
        """A part of it, in memory."""
