"""Gram matrices of analytic kernels, tile by tile, so that memory stays bounded."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float
from tqdm.auto import tqdm

from companion._checks import batch, count
from companion.architectures import Architecture

Kind = Literal["ntk", "nngp"]


def gram(
    kernel: Architecture | Callable[..., Any],
    x1: Float[Any, "n1 ..."],
    x2: Float[Any, "n2 ..."] | None = None,
    *,
    kind: Kind = "ntk",
    tile: int = 512,
    progress: bool = False,
) -> Float[np.ndarray, "n1 n2"]:
    """Kernel matrix between all pairs: K_ij = Θ(x1_i, x2_j).

    Tiles are computed one at a time in "highest" matmul precision (no silent TF32 on GPUs) and
    collected in host memory. Without `x2` only the upper triangle is computed and then mirrored,
    so the result equals its transpose bit for bit.

    Args:
        kernel: an `Architecture`, or any neural-tangents `kernel_fn(x1, x2, get)`.
        x1: inputs (n1, ...), floating point, finite. Pixels are expected in [0, 1], not required.
        x2: inputs (n2, ...) of the same shape after the first axis; None means x1.
        kind: "ntk" for the tangent kernel Θ, "nngp" for the output covariance at initialization 𝒦.
        tile: rows and columns of one tile, ≥ 1. Any n works: the last tile is padded, so that
            there is one compilation.
        progress: show a tqdm bar over the tiles.

    Returns:
        The kernel matrix (n1, n2), in the precision of the inputs: float64 inputs are computed in float64
        even where JAX's own default is float32.

    Raises:
        TypeError: inputs that are not floating point.
        ValueError: NaN or infinity, shapes that do not fit, an unknown kind, tile < 1.

    Memory: the result, plus a few tiles of tile² entries (times the pixels for convolutions).

    >>> from companion.architectures import fc
    >>> gram(fc(1), np.eye(3, dtype=np.float32)).shape
    (3, 3)
    """
    x1, tile = batch("x1", x1), count("tile", tile)
    other = x1 if x2 is None else batch("x2", x2)
    if other.shape[1:] != x1.shape[1:]:
        raise ValueError(f"x1 and x2 must hold inputs of one shape, got {x1.shape[1:]} and {other.shape[1:]}")
    if kind not in ("ntk", "nngp"):
        raise ValueError(f"kind must be 'ntk' or 'nngp', got {kind!r}")
    block = _compiled(kernel.kernel if isinstance(kernel, Architecture) else kernel, kind)
    rows, columns = min(tile, len(x1)), min(tile, len(other))
    corners = [
        (i, j)
        for i in range(0, len(x1), rows)
        for j in range(0, len(other), columns)
        if x2 is not None or j >= i
    ]
    out = np.empty((len(x1), len(other)), np.result_type(x1, other))
    for i, j in tqdm(corners, desc=f"{kind} tiles", disable=not progress):
        with _precision(out.dtype):
            values = np.asarray(block(_pad(x1[i : i + rows], rows), _pad(other[j : j + columns], columns)))
        part = out[i : i + rows, j : j + columns]
        part[...] = values[: part.shape[0], : part.shape[1]]
        if x2 is None and i == j:
            # The library's diagonal tile is symmetric only up to rounding.
            part[...] = np.triu(part) + np.triu(part, 1).T
        elif x2 is None:
            out[j : j + columns, i : i + rows] = part.T
    return out


@functools.lru_cache(maxsize=32)
def _compiled(kernel: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    """One compiled tile function for each kernel, so that repeated calls do not compile again."""

    @jax.jit
    def block(x1: Any, x2: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return kernel(x1, x2, kind)

    return block


def _precision(dtype: np.dtype) -> contextlib.AbstractContextManager:
    """Float64 inside the block for float64 inputs: JAX would cut them to float32 without a word."""
    if dtype != np.float64:
        return contextlib.nullcontext()
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    # Its place before JAX 0.8.
    from jax.experimental import enable_x64

    return enable_x64()


def _pad(x: np.ndarray, rows: int) -> np.ndarray:
    """Repeat the last example up to `rows`: a real input, so no kernel can divide by zero on it."""
    return x if len(x) == rows else np.concatenate([x, np.repeat(x[-1:], rows - len(x), axis=0)])
