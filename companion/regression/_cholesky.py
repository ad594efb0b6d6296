"""The interpolating solution alone: one Cholesky factorization instead of an eigendecomposition."""

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from companion.regression._checks import LOST, warn_of_loss

# In blocks nearly all of it is matrix products. The factorization of the whole, with the OpenBLAS that NumPy
# and SciPy bring, ended in a segmentation fault at n = 16,000 on two threads.
_BLOCK = 512


def solve(kernel: np.ndarray, targets: np.ndarray, *, ridge: float, resolution: float) -> np.ndarray:
    """α = (Θ(X, X) + ρI)⁻¹ Y, float64, of a kernel and targets that were checked.

    Memory: one n² float64 beside the kernel, which may be a memory map, and a few n × 512.
    Source: Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, algorithm 2.1.
    """
    n = len(kernel)
    work = np.array(kernel, dtype=np.float64, order="C")
    work.flat[:: n + 1] += ridge
    norm = lapack.dlange("1", work.T)
    try:
        _factor(work)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"k_train_train + {ridge:g} · I is not positive definite in float64 ({error}): add a ridge above "
            "minus its smallest eigenvalue. Where that is the kernel's rounding error, about "
            f"{resolution:.2g}, `fit` leaves such modes out; where it is more, this is no kernel matrix, and "
            "`fit` refuses it with that eigenvalue"
        ) from None
    alpha = _substitute(work, targets)
    # LAPACK counts columns first: to it, the lower triangle is an upper one.
    reciprocal, _ = lapack.dpocon(work.T, norm, uplo="U")
    # Θα = Y − ρα: how far the kernel's rounding moves it is the rule of `rounding_error` at t = ∞.
    lost = resolution * np.linalg.norm(alpha) > LOST * np.linalg.norm(targets - ridge * alpha)
    if lost or reciprocal < n * np.finfo(np.float64).eps:
        warn_of_loss(smallest=norm * reciprocal, resolution=resolution, stacklevel=3)
    return alpha


def _blocks(n: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]


def _factor(a: np.ndarray) -> None:
    """Overwrite the lower triangle of a with its Cholesky factor, a block of columns at a time."""
    for block in _blocks(len(a)):
        below, before = slice(block.start, None), slice(0, block.start)
        a[below, block] -= a[below, before] @ a[block, before].T
        a[block, block] = np.linalg.cholesky(a[block, block])
        rest = slice(block.stop, None)
        a[rest, block] = scipy.linalg.solve_triangular(
            a[block, block], a[rest, block].T, lower=True, check_finite=False
        ).T


def _substitute(factor: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Solve L Lᵀ α = Y for the lower triangle L of `factor`."""
    alpha = targets.copy()
    for block in _blocks(len(alpha)):
        alpha[block] -= factor[block, : block.start] @ alpha[: block.start]
        alpha[block] = scipy.linalg.solve_triangular(factor[block, block], alpha[block], lower=True)
    for block in reversed(_blocks(len(alpha))):
        alpha[block] -= factor[block.stop :, block].T @ alpha[block.stop :]
        alpha[block] = scipy.linalg.solve_triangular(
            factor[block, block], alpha[block], lower=True, trans="T"
        )
    return alpha
