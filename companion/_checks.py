"""Argument checks shared by the modules: each error names the argument, what came and what is wanted."""

from typing import Any

import jax
import numpy as np


def batch(name: str, value: Any) -> np.ndarray:
    """A NumPy batch (n, ...) of float32 or float64, n ≥ 1, all finite; or an error."""
    if isinstance(value, jax.core.Tracer):
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


def network(name: str, apply_fn: Any, params: Any, x: np.ndarray) -> tuple[int, int]:
    """The output shape (n, k) of a network on a batch, without running it; or an error."""
    if not callable(apply_fn):
        raise TypeError(f"{name} must be a function apply(params, x), got {apply_fn!r}")
    for leaf in jax.tree.leaves(params):
        if not jax.numpy.issubdtype(jax.numpy.result_type(leaf), jax.numpy.floating):
            raise TypeError(f"params must be floating point, got a leaf of {jax.numpy.result_type(leaf)}")
    outputs = jax.eval_shape(apply_fn, params, x)
    if getattr(outputs, "ndim", None) != 2 or outputs.shape[0] != len(x):
        raise ValueError(f"{name}(params, x) must return one array (n, k), got {outputs}")
    return outputs.shape


def same_inputs(first: str, x1: Any, second: str, x2: Any) -> None:
    """Refuse two batches whose examples differ in shape."""
    if x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"{first} and {second} must hold inputs of one shape, got {x1.shape[1:]} and {x2.shape[1:]}"
        )


def _scalar(value: Any) -> Any:
    """A Python number from a NumPy or JAX scalar; anything else as it is."""
    if getattr(value, "ndim", None) == 0 and not isinstance(value, jax.core.Tracer):
        return value.item()
    return value
