"""Words for signatures that need no JAX; those that do are in `types`."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Unchecked = object  # what a caller gave, before it is checked
Tree = object  # a pytree, for code that does not load JAX to say so
Same = TypeVar("Same")  # goes in, and comes out as it is
Function = TypeVar("Function", bound=Callable)  # goes in, and comes out as one with the same arguments
Shape = tuple[int, ...]

Setting = str | int | float | bool | Sequence | Mapping | None  # what JSON can hold
Settings = Mapping[str, Setting]
