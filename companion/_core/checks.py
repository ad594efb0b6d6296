"""Argument checks shared by the modules: each error names the argument, what came and what is wanted."""

import math
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from companion._core.words import Same, Unchecked

# A list, or an array of any library.
Numbers = Sequence[float | int] | Shaped[Any, "..."]

_ROUNDING = 1e-3  # of the range; what is farther outside is no rounding, and clipping would spoil it
_BYTES = 16  # a largest pixel that no normalization reaches
_CHANNELS = 4  # of an image: more are a side of it


def batch(name: str, value: Unchecked) -> np.ndarray:
    """A NumPy batch (n, ...) of float32 or float64, n ≥ 1, all finite; or an error."""
    if _is_traced(value):
        raise TypeError(
            f"{name} is being traced by jax.jit, grad or vmap, and this function computes on concrete "
            "arrays: call it outside; inside, use the architecture's own `kernel` or `apply`. (The "
            "predictor of an empirical kernel is training.linear_solution, evaluated by networks.linearized)"
        )
    array = np.asarray(value)
    precise(name, array.dtype)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"{name} must be a batch (n, ...) of at least one example, got shape {array.shape}")
    return finite(name, array)


def precise(name: str, dtype: Unchecked) -> None:
    """Refuse all but float32 and float64: kernels of half precision overflow, and integers are no pixels."""
    if dtype not in (np.float32, np.float64):
        whole = getattr(dtype, "kind", None) in ("i", "u")
        cure = f'{name}.astype("float32")' + (" / 255, of pixels from 0 to 255" if whole else "")
        raise TypeError(f"{name} must be float32 or float64, got {dtype}: {cure}")


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


def reach(bounds: tuple[float, float], dtype: np.dtype) -> tuple[float, float]:
    """Bounds as `np.clip` has them in this precision: float32 has no 0.1, and its nearest lies beyond."""
    low, high = bounds
    return min(low, float(dtype.type(low))), max(high, float(dtype.type(high)))


def within(name: str, array: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """The array itself, or a ValueError that says what is outside the bounds, by how much, and what helps."""
    low, high = reach(bounds, array.dtype)
    least, largest = float(array.min()), float(array.max())
    if least >= low and largest <= high:
        return array
    value, by = (least, low - least) if low - least > largest - high else (largest, largest - high)
    if by <= _ROUNDING * (high - low):
        cure = (
            f"{value!r} is outside by {by:.3g}. Where that is rounding, np.clip({name}, {low:g}, {high:g}) "
            "cures it"
        )
    elif bounds == (0, 1) and _BYTES <= largest <= 255 and least >= 0:
        cure = (
            f"pixels from 0 to 255? Divide them, {name} / 255, here and where the function was fitted or "
            "trained. (Clipped, every pixel above 0 would be 1.)"
        )
    else:
        cure = (
            "normalized images? Keep images in the bounds, so that eps is in pixels, and put the "
            "normalization into the function, lambda x: f((x - mean) / std)"
        )
    raise ValueError(f"{name} must lie in the bounds {bounds}, got {least:.4g} to {largest:.4g}: {cure}")


def channels_last(name: str, shape: Sequence[int]) -> None:
    """Warn of images (n, h, w, c) whose shape is rather that of (n, c, h, w): every number would be wrong."""
    if len(shape) == 4 and shape[1] in (1, 3) and min(shape[2:]) > _CHANNELS:
        _, channels, height, width = shape
        warnings.warn(
            f"{name} looks like images (n, c, h, w), got (n, {channels}, {height}, {width}), and is read as "
            f"(n, h, w, c): {width} channels. np.moveaxis({name}, 1, -1) puts the channels last",
            stacklevel=3,
        )


def class_labels(name: str, value: Unchecked, n: int, n_outputs: int | None = None) -> np.ndarray:
    """Labels (n,) as int32, in [0, max(2, n_outputs)) where the number of outputs is known; or an error."""
    labels = np.asarray(value)
    if labels.shape == (n,) and labels.dtype.kind in "UOST":
        raise TypeError(
            f"{name} must be integers, got {labels.dtype}: np.unique({name}, return_inverse=True)[1] numbers "
            "the classes from 0"
        )
    if labels.ndim == 2 and len(labels) == n and labels.shape[1] > 1:
        raise ValueError(
            f"{name} must have shape ({n},), got {labels.shape}: of a one-hot matrix, {name}.argmax(axis=1)"
        )
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"{name} must be integers, got {labels.dtype}: {name}.astype(int), if these are whole"
        )
    if labels.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {labels.shape}")
    least, most = (int(labels.min()), int(labels.max())) if n else (0, 0)
    if not -(2**31) <= least <= most < 2**31:
        raise ValueError(
            f"{name} must be numbers of classes, got {least} to {most}: "
            f"np.unique({name}, return_inverse=True)[1] numbers classes with other names from 0"
        )
    if n_outputs is not None and n and (least < 0 or most >= max(2, n_outputs)):
        raise ValueError(
            f"{name} must lie in [0, {max(2, n_outputs)}), got {least} to {most}: "
            f"np.unique({name}, return_inverse=True)[1] numbers classes with other names from 0"
        )
    return labels.astype(np.int32)


def predicted(outputs: Shaped[Any, "m k"]) -> Shaped[Any, " m"]:
    """Classes (m,): 1 where one output is positive, else the largest of several."""
    return (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(axis=1)


def random_key(name: str, value: Same) -> Same:
    """A JAX random key, typed or of raw uint32 as older code has them; or an error."""
    dtype, shape, jax = getattr(value, "dtype", None), getattr(value, "shape", None), sys.modules.get("jax")
    typed = jax is not None and dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
    raw = dtype == np.uint32 and shape in ((2,), (4,))
    if not ((typed and shape == ()) or raw):
        got = repr(value) if shape is None else f"shape {shape} of {dtype}"
        raise TypeError(f"{name} must be a JAX random key such as jax.random.key(0), got {got}")
    return value


def count(name: str, value: Unchecked, *, least: int = 1) -> int:
    """An integer of at least `least`, or an error."""
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def number(
    name: str, value: Unchecked, *, least: float = 0.0, open_end: bool = False, infinite: bool = False
) -> float:
    """A real number ≥ `least` (> `least` with `open_end`), finite unless `infinite`; or an error."""
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (value > least if open_end else value >= least):
        raise ValueError(f"{name} must be {'more than' if open_end else 'at least'} {least}, got {value}")
    if not infinite and math.isinf(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def submits(name: str, value: Same) -> Same:
    """An executor, or None, itself; or an error."""
    if value is not None and not callable(getattr(value, "submit", None)):
        raise TypeError(f"{name} must be a concurrent.futures.Executor, or like one, got {value!r}")
    return value


def one_of(name: str, value: Unchecked, known: tuple[str | bool, ...]) -> str | bool:
    """One of the known values, or an error."""
    if type(value) is not type(known[0]) or value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, got {value!r}")
    return value


def same_inputs(first: str, x1: Shaped[Any, "..."], second: str, x2: Shaped[Any, "..."]) -> None:
    """Refuse two batches whose examples differ in shape."""
    if x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"{first} and {second} must hold inputs of one shape, got {x1.shape[1:]} and {x2.shape[1:]}"
        )


def _scalar(value: Unchecked) -> Unchecked:
    """A Python number from a NumPy or JAX scalar; anything else as it is."""
    if getattr(value, "ndim", None) == 0 and not _is_traced(value):
        return value.item()
    return value


def _is_traced(value: Unchecked) -> bool:
    """Whether JAX is tracing the value; modules without networks do not load JAX for this question."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)
