"""A symmetric matrix and its Cholesky factor in one array: factor, solve, and multiply by the matrix itself.

The strict upper triangle keeps the matrix, the lower one with its diagonal receives the factor, and the
matrix's own diagonal is a vector beside them.
"""

from collections.abc import Callable

import numpy as np
import scipy.linalg
from scipy.linalg import get_blas_funcs
from tqdm.auto import tqdm

from companion._core.interrupt import safe_point

# Columns at a time: enough for a product with so many to run at its full rate, and few enough for the rest of
# the work, n² × BLOCK operations at half that rate, to be small. LAPACK's factorization of the whole, in the
# OpenBLAS that SciPy brings, ended in a segmentation fault at n = 16,000 in float64, at 50,000 in float32.
BLOCK = 256
PIECE = 256, 2048  # rows and columns that are turned into float64 at once, and stay in the cache


def factor(
    a: np.ndarray,
    diagonal: np.ndarray,
    *,
    first: int = 0,
    finish: Callable[[int], None] = lambda _: None,
    progress: bool = False,
) -> None:
    """Overwrite the lower triangle of a with the factor of its upper one and this diagonal.

    A block of columns is made of the upper triangle and the blocks before it.

    Args:
        a: (n, n), symmetric, float32 or float64, its rows contiguous. Where it is not positive definite in
            its precision, numpy's LinAlgError leaves it half done; `restore` gives it back.
        diagonal: (n,), float64.
        first: blocks that are there already.
        finish: called with the number of every block that is made.
        progress: show a tqdm bar.

    n³/3 operations; memory of n × `BLOCK` numbers beside a.
    """
    n = len(a)
    space = np.empty(n * min(BLOCK, n), a.dtype)
    with tqdm(total=n**3, desc="Cholesky", unit_scale=True, disable=not progress, unit="") as bar:
        for number, block in enumerate(_blocks(n, BLOCK)):
            bar.update(_done(n, block.stop) - _done(n, block.start))
            if number < first:
                continue
            width, below = block.stop - block.start, slice(block.stop, None)
            part = space[: (n - block.start) * width].reshape(n - block.start, width)
            np.matmul(a[block.start :, : block.start], a[block, : block.start].T, out=part)
            upper = np.triu(a[block, block], 1)
            square = (upper + upper.T).astype(np.float64)
            square.flat[:: width + 1] = diagonal[block]
            low = np.linalg.cholesky(square - part[:width]).astype(a.dtype)
            a[block, block] = low + upper
            rest = np.subtract(a[block, below].T, part[width:], out=part[width:])
            # To BLAS, which counts columns first, the rows of `rest` are columns: L X = restᵀ, in its place.
            triangular = get_blas_funcs("trsm", (rest,))
            a[below, block] = triangular(1.0, low, rest.T, lower=1, overwrite_b=1).T
            finish(number)
            safe_point()


def _done(n: int, columns: int) -> int:
    """The operations for the first columns, of n³ for all."""
    return 3 * columns * columns * n - 2 * columns**3


def substitute(a: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve L Lᵀ x = right, (n, k), in the precision of a."""
    x = right.astype(a.dtype)
    for block in _blocks(len(a), BLOCK):
        x[block] -= a[block, : block.start] @ x[: block.start]
        x[block] = _triangular(a[block, block], x[block])
    for block in reversed(_blocks(len(a), BLOCK)):
        x[block] -= a[block.stop :, block].T @ x[block.stop :]
        x[block] = _triangular(a[block, block], x[block], trans="T")
    return x


def _triangular(low: np.ndarray, right: np.ndarray, trans: str = "N") -> np.ndarray:
    return scipy.linalg.solve_triangular(low, right, lower=True, trans=trans, check_finite=False)


def product(a: np.ndarray, diagonal: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The matrix of the strict upper triangle of a and this diagonal times v, (n, k), in float64."""
    out, n = diagonal[:, None] * v, len(a)
    rows, columns = PIECE
    for block in _blocks(n, rows):
        square = np.triu(a[block, block], 1).astype(np.float64)
        out[block] += (square + square.T) @ v[block]
        for start in range(block.stop, n, columns):
            across = slice(start, min(start + columns, n))
            part = a[block, across].astype(np.float64)
            out[block] += part @ v[across]
            out[across] += part.T @ v[block]
    return out


def restore(a: np.ndarray, diagonal: np.ndarray) -> None:
    """Put the matrix back: the mirror image of the upper triangle, and its diagonal."""
    for block in _blocks(len(a), BLOCK):
        upper = np.triu(a[block, block], 1)
        a[block, block] = upper + upper.T
        a[block.stop :, block] = a[block, block.stop :].T
    a.flat[:: len(a) + 1] = diagonal


def _blocks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
