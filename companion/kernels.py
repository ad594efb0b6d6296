"""Gram matrices of analytic kernels, tile by tile, so that memory stays bounded."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float
from tqdm.auto import tqdm

from companion._checks import batch, count, finite, same_inputs
from companion._compile import double, keep_compiled

Kind = Literal["ntk", "nngp"]


def gram(
    kernel: Any,
    x1: Float[Any, "n1 ..."],
    x2: Float[Any, "n2 ..."] | None = None,
    *,
    kind: Kind = "ntk",
    tile: int | None = None,
    progress: bool = False,
) -> Float[np.ndarray, "n1 n2"]:
    """Kernel matrix between all pairs: K_ij = Θ(x1_i, x2_j).

    Tiles are computed one at a time in "highest" matmul precision (no silent TF32 on GPUs) and
    collected in host memory. Without `x2` only the upper triangle is computed and then mirrored,
    so the result equals its transpose bit for bit. Not for use inside `jax.jit` or `jax.grad`: there,
    call the architecture's own `kernel`.

    Args:
        kernel: an `Architecture`, or any neural-tangents `kernel_fn(x1, x2, get)`. A function of your own
            is compiled at every call of `gram`; an architecture's is kept compiled.
        x1: inputs (n1, ...), float32 or float64, finite. Pixels are expected in [0, 1], not required.
        x2: inputs (n2, ...) of the same shape after the first axis; None means x1.
        kind: "ntk" for the tangent kernel Θ, "nngp" for the output covariance at initialization 𝒦.
        tile: rows and columns of one tile, ≥ 1. Any n works: the last tile is padded, so that
            there is one compilation. None: at most 512, and less where a kernel entry takes memory for
            every pixel, or every pair of pixels, so that an intermediate array stays near 0.5 GB.
        progress: show a tqdm bar over the tiles.

    Returns:
        The kernel matrix (n1, n2), in the precision of the inputs: float64 inputs are computed in float64
        even where JAX's own default is float32. In float32 the diagonal of a ReLU kernel is off by up to
        5e-4 (arccos near 1); chapter 1 shows what that does.

    Raises:
        TypeError: inputs that are not float32 or float64; a kernel that is no function.
        ValueError: NaN or infinity in the inputs or the result, shapes that do not fit, an unknown kind,
            tile < 1, a kernel that is not symmetric although there is only x1.

    Memory: the result, plus a few tiles of tile² entries (times the pixels for convolutions).

    >>> from companion.architectures import fc
    >>> gram(fc(1), np.eye(3, dtype=np.float32)).shape
    (3, 3)
    """
    function = getattr(kernel, "kernel", kernel)
    if not callable(function):
        raise TypeError(f"kernel must be an Architecture or a function kernel(x1, x2, get), got {kernel!r}")
    if kind not in ("ntk", "nngp"):
        raise ValueError(f"kind must be 'ntk' or 'nngp', got {kind!r}")
    x1 = batch("x1", x1)
    other = x1 if x2 is None else batch("x2", x2)
    same_inputs("x1", x1, "x2", other)
    side = _default_tile(kernel, x1) if tile is None else count("tile", tile)
    rows, columns = min(side, len(x1)), min(side, len(other))
    corners = [
        (i, j)
        for i in range(0, len(x1), rows)
        for j in range(0, len(other), columns)
        if x2 is not None or j >= i
    ]
    out = np.empty((len(x1), len(other)), np.result_type(x1, other))
    with double(out):
        block = _compiled(function, kind)
        for i, j in tqdm(corners, desc=f"{kind} tiles", disable=not progress):
            values = np.asarray(block(_pad(x1[i : i + rows], rows), _pad(other[j : j + columns], columns)))
            if values.shape != (rows, columns):
                raise ValueError(
                    f"kernel must return shape {(rows, columns)} for so many inputs, got {values.shape}"
                )
            part = out[i : i + rows, j : j + columns]
            part[...] = values[: part.shape[0], : part.shape[1]]
            if x2 is None and i == j:
                _mirror(part)
            elif x2 is None:
                out[j : j + columns, i : i + rows] = part.T
    return finite("the kernel matrix", out)


@keep_compiled
def _compiled(kernel: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    @jax.jit
    def block(x1: Any, x2: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return kernel(x1, x2, kind)

    return block


def _default_tile(kernel: Any, x: np.ndarray) -> int:
    """A tile side for which one float32 intermediate stays near 0.5 GB."""
    power = getattr(kernel, "pixel_power", 1 if x.ndim == 4 else 0)
    entries = 2**27 // math.prod(x.shape[1:3]) ** power
    return min(512, max(1, math.isqrt(entries)))


def _mirror(tile: np.ndarray) -> None:
    """Make a diagonal tile equal its transpose: the library's is symmetric only up to rounding."""
    asymmetry, size = np.abs(tile - tile.T).max(), np.abs(tile).max()
    if asymmetry > np.sqrt(np.finfo(tile.dtype).eps) * size:
        raise ValueError(
            f"kernel must be symmetric where x2 is None: entries differ from their mirror by {asymmetry:.3g}"
        )
    tile[...] = np.triu(tile) + np.triu(tile, 1).T


def _pad(x: np.ndarray, rows: int) -> np.ndarray:
    """Repeat the last example up to `rows`: a real input, so no kernel can divide by zero on it."""
    return x if len(x) == rows else np.concatenate([x, np.repeat(x[-1:], rows - len(x), axis=0)])
