"""Argument checks shared by the modules: each error names the argument, what came and what is wanted."""

from typing import Any

import numpy as np


def batch(name: str, value: Any) -> np.ndarray:
    """A floating-point NumPy batch (n, ...) with n ≥ 1 and finite entries, or an error."""
    array = np.asarray(value)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name} must be floating point, got {array.dtype}")
    if array.ndim < 2 or len(array) == 0:
        raise ValueError(f"{name} must be a batch (n, ...) of at least one example, got shape {array.shape}")
    return finite(name, array)


def finite(name: str, array: np.ndarray) -> np.ndarray:
    """The array itself, or a ValueError that counts its NaN and infinite entries."""
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise ValueError(f"{name} has {bad} NaN or infinite entries of {array.size}, all must be finite")
    return array


def count(name: str, value: Any, *, least: int = 1) -> int:
    """An integer of at least `least`, or an error."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def number(name: str, value: Any, *, least: float = 0.0, open_end: bool = False) -> float:
    """A real number ≥ `least` (or > `least` with `open_end`), or an error; infinity is allowed."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (value > least if open_end else value >= least):
        raise ValueError(f"{name} must be {'more than' if open_end else 'at least'} {least}, got {value}")
    return float(value)
