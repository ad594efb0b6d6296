"""Functions given by the user: checked, compiled, kept compiled where that is safe, in which precision."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def immutable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function of ours that will never compute anything else, so its compiled form can be kept."""
    function.immutable = True
    return function


def keep_compiled(make: Callable[..., Any]) -> Callable[..., Any]:
    """Call `make(function, ...)` once for each immutable function, and every time for any other.

    A foreign function may read a variable that changes between two calls. The compiled form would not
    notice.
    """
    kept = functools.lru_cache(maxsize=64)(make)

    @functools.wraps(make)
    def compiled(function: Callable[..., Any], *options: Any) -> Any:
        return (kept if getattr(function, "immutable", False) else make)(function, *options)

    return compiled


def double(*trees: Any) -> contextlib.AbstractContextManager:
    """Float64 inside the block where an array is float64: JAX would cut it to float32 without a word."""
    leaves = jax.tree.leaves(trees)
    if not any(getattr(leaf, "dtype", None) == np.float64 for leaf in leaves):
        return contextlib.nullcontext()
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    # Its place before JAX 0.8.
    from jax.experimental import enable_x64

    return enable_x64()


def network(name: str, apply_fn: Any, params: Any, x: np.ndarray) -> tuple[int, int]:
    """The output shape (n, k) of a network on a batch, without running it; or an error."""
    if not callable(apply_fn):
        raise TypeError(f"{name} must be a function apply(params, x), got {apply_fn!r}")
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"params must be floating point, got a leaf of {jnp.result_type(leaf)}")
    outputs = jax.eval_shape(apply_fn, params, x)
    if getattr(outputs, "ndim", None) != 2 or outputs.shape[0] != len(x):
        raise ValueError(f"{name}(params, x) must return one array (n, k), got {outputs}")
    return outputs.shape
