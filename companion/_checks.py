"""Argument checks shared by the modules: each error names the argument, what came and what is wanted."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

# A list, or an array of any library.
Numbers = Sequence[float | int] | Shaped[Any, "..."]


def batch(name: str, value: Any) -> np.ndarray:
    """A NumPy batch (n, ...) of float32 or float64, n ≥ 1, all finite; or an error."""
    if _is_traced(value):
        raise TypeError(
            f"{name} is being traced by jax.jit, grad or vmap, and this function computes on concrete "
            "arrays: call it outside; inside, use the architecture's own `kernel` or `apply`"
        )
    array = np.asarray(value)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64, got {array.dtype}: scale pixels to [0, 1] first")
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"{name} must be a batch (n, ...) of at least one example, got shape {array.shape}")
    return finite(name, array)


def finite(name: str, array: np.ndarray) -> np.ndarray:
    """The array itself, or a ValueError that counts its NaN and infinite entries."""
    with np.errstate(over="ignore", invalid="ignore"):
        # One number tells that all is well, without an array of booleans; overflow only costs a second look.
        if np.isfinite(array.sum()):
            return array
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise ValueError(f"{name} has {bad} NaN or infinite entries of {array.size}, all must be finite")
    return array


def count(name: str, value: Any, *, least: int = 1) -> int:
    """An integer of at least `least`, or an error."""
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def number(
    name: str, value: Any, *, least: float = 0.0, open_end: bool = False, infinite: bool = False
) -> float:
    """A real number ≥ `least` (> `least` with `open_end`), finite unless `infinite`; or an error."""
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (value > least if open_end else value >= least):
        raise ValueError(f"{name} must be {'more than' if open_end else 'at least'} {least}, got {value}")
    if not infinite and value == float("inf"):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def one_of(name: str, value: Any, known: tuple[Any, ...]) -> Any:
    """One of the known values, or an error."""
    if type(value) is not type(known[0]) or value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, got {value!r}")
    return value


def same_inputs(first: str, x1: Any, second: str, x2: Any) -> None:
    """Refuse two batches whose examples differ in shape."""
    if x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"{first} and {second} must hold inputs of one shape, got {x1.shape[1:]} and {x2.shape[1:]}"
        )


def _scalar(value: Any) -> Any:
    """A Python number from a NumPy or JAX scalar; anything else as it is."""
    if getattr(value, "ndim", None) == 0 and not _is_traced(value):
        return value.item()
    return value


def _is_traced(value: Any) -> bool:
    """Whether JAX is tracing the value; modules without networks do not load JAX for this question."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)
