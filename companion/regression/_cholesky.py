"""The interpolating solution alone: one Cholesky factorization instead of an eigendecomposition."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import psutil
from scipy.linalg import lapack

from companion._core.amounts import size
from companion._core.checks import number, one_of
from companion._core.interrupt import safe_point
from companion.regression._checks import LOST, warn_of_loss
from companion.regression._factor import factor, product, restore, substitute
from companion.regression._kept import kept_factor
from companion.storage import place

_MOST_STEPS = 30  # of conjugate gradients; each costs n² (2 + 1/10) operations an output, in float64
_INVERSE_STEPS = 4
# Times ε ‖Θ‖: the ridge that is proposed. With it the condition number is at most 10⁶ in float32.
_SAFE = 8


@dataclass(frozen=True)
class Cholesky:
    """How `fit` solves (Θ(X, X) + ρI) α = Y: a factorization, and in float32 conjugate gradients after it.

    The factor takes the place of the kernel's lower triangle, in one array of n² numbers. One in float32 is
    half as large and found in half the time; it solves the system to some digits, and as the preconditioner
    of conjugate gradients in float64, on the kernel as it was given, to all that are asked for.

    Attributes:
        precision: of the factor, "float32" or "float64". None: the kernel's own, and float64 where float32
            does not do (Θ + ρI not positive definite in it, or no convergence) and half of the free memory
            holds n² float64.
        tolerance: ‖Y − (Θ + ρI) α‖ / ‖Y‖ in every output, at most, after a factor in float32; up to
            what float64 can tell, ε ‖Θ‖ ‖α‖. One in float64 solves directly.
        out: a folder to keep the factor in, n² numbers: a fit that was killed or interrupted goes on there,
            to the same bytes, and memory holds of it what there is room for. Float32 is then not followed by
            float64. None: memory alone.
        overwrite: whether a Gram matrix that `fit` is given may be destroyed, which saves its copy: a
            contiguous NumPy array that can be written, in the factor's precision. What `fit` computes itself
            is overwritten always.

    Raises:
        TypeError, ValueError: an unknown precision; a tolerance that is not between 0 and 1; both `out` and
            `overwrite`.

    Memory: n² numbers (10 GB at n = 50,000 in float32) beside a matrix that is not overwritten, and 256 n.
    Time: n³/3 operations, and in float32 for each of a few steps 4 n² for every output. Threads are BLAS's:
    the environment's OPENBLAS_NUM_THREADS, or `threadpoolctl.threadpool_limits`.
    Source: Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, algorithm 2.1; the
    refinement in the manner of Carson & Higham (2018), doi 10.1137/17M1140819.

    >>> from companion.regression import fit
    >>> matrix = np.diag([4.0, 1.0]).astype(np.float32)
    >>> fit(matrix, targets=np.ones((2, 1)), solver=Cholesky(overwrite=True)).coefficients.ravel()
    array([0.25, 1.  ])
    """

    precision: Literal["float32", "float64"] | None = None
    tolerance: float = 1e-10
    out: str | os.PathLike | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse what no solver can do."""
        if self.precision is not None:
            one_of("precision", self.precision, ("float32", "float64"))
        if not 0 < number("tolerance", self.tolerance) < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {self.tolerance}")
        if one_of("overwrite", self.overwrite, (False, True)) and self.out is not None:
            raise ValueError("overwrite must be False where `out` keeps the factor, got True")


def solve(
    kernel: np.ndarray,
    targets: np.ndarray,
    *,
    ridge: float,
    resolution: float,
    how: Cholesky = Cholesky(),
    ours: bool = False,
    progress: bool = False,
) -> np.ndarray:
    """α = (Θ(X, X) + ρI)⁻¹ Y, float64, of a kernel and targets that were checked.

    `ours`: the kernel is nobody else's, and may be overwritten.
    """
    precision = how.precision or kernel.dtype.name
    diagonal = kernel.diagonal().astype(np.float64) + ridge
    work = None if how.out is not None else _work(kernel, precision, how.overwrite, ours)

    def factored(work: np.ndarray | None, precision: str) -> np.ndarray:
        if work is None:
            return kept_factor(place(how.out), kernel, diagonal, precision, progress=progress)
        try:
            factor(work, diagonal, progress=progress)
        except np.linalg.LinAlgError:
            restore(work, diagonal - ridge)
            raise
        return work

    if precision == "float32":
        alpha, wrong = None, "is not positive definite in float32"
        with contextlib.suppress(np.linalg.LinAlgError):
            found = factored(work, precision)
            # Where the given matrix is still there and has more digits, they count.
            stored = found if kernel.dtype == np.float32 else kernel
            alpha, wrong = _refined(found, stored, diagonal, targets, how.tolerance)
        if alpha is not None:
            # Θα = Y − ρα: how far the kernel's rounding moves it is the rule of `rounding_error` at t = ∞.
            if _lost(alpha, targets, ridge, resolution):
                warn_of_loss(smallest=_smallest(found), resolution=resolution, stacklevel=3)
            return alpha
        enough = 16 * kernel.size <= psutil.virtual_memory().available
        if work is None or how.precision is not None or not enough:
            norm = _norm(kernel if work is None else work, diagonal)
            raise ValueError(_refusal(wrong, ridge, norm, kernel.size, how.precision is None and not enough))
        restore(work, diagonal - ridge)
        work = work.astype(np.float64)
    try:
        found = factored(work, "float64")
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"k_train_train + {ridge:g} · I is not positive definite in float64 ({error}): add a ridge above "
            "minus its smallest eigenvalue. Where that is the kernel's rounding error, about "
            f"{resolution:.2g}, a ridge above that is enough, and solver='eigh' leaves such modes out; where "
            "it is more, this is no kernel matrix, and solver='eigh' refuses it with that eigenvalue"
        ) from None
    alpha, norm = substitute(found, targets), _norm(found, diagonal)
    reciprocal = _reciprocal(found, norm)
    singular = reciprocal < len(kernel) * np.finfo(np.float64).eps
    if singular or _lost(alpha, targets, ridge, resolution):
        warn_of_loss(smallest=norm * reciprocal, resolution=resolution, stacklevel=3)
    return alpha


def _refined(
    factor: np.ndarray, stored: np.ndarray, diagonal: np.ndarray, targets: np.ndarray, tolerance: float
) -> tuple[np.ndarray | None, str]:
    """The coefficients by a factor in float32, or None and what is wrong."""
    alpha, left, steps = conjugate_gradients(
        lambda v: product(stored, diagonal, v), lambda v: substitute(factor, v), targets, tolerance
    )
    if left <= tolerance:
        return alpha, ""
    return None, f"is too ill-conditioned for float32: {steps} steps left a relative residual of {left:.2g}"


def _work(kernel: np.ndarray, precision: str, overwrite: bool, ours: bool) -> np.ndarray:
    """The array to work in: the kernel's own where that is allowed."""
    flags = kernel.flags
    fits = kernel.dtype == precision and flags.writeable and (flags.c_contiguous or flags.f_contiguous)
    if overwrite and not ours and not fits:
        raise ValueError(
            f"k_train_train must be a contiguous array of {precision} that can be written, where it "
            f"is to be overwritten, got {kernel.dtype}, "
            f"{'contiguous' if flags.c_contiguous or flags.f_contiguous else 'not contiguous'}, "
            f"{'writeable' if flags.writeable else 'read-only'}"
        )
    if fits and (overwrite or ours):
        return kernel if flags.c_contiguous else kernel.T
    return np.array(kernel, dtype=precision, order="C")


def conjugate_gradients(
    times: Callable[[np.ndarray], np.ndarray],
    nearly_solve: Callable[[np.ndarray], np.ndarray],
    targets: np.ndarray,
    tolerance: float,
) -> tuple[np.ndarray, float, int]:
    """Solve A α = Y for all columns at once by flexible conjugate gradients.

    Args:
        times: v to A v, A symmetric and positive definite.
        nearly_solve: v to about A⁻¹ v, in any precision; it need not be linear to the last digit.
        targets: Y, (n, k), float64.
        tolerance: relative residual in every column at which it ends.

    Returns:
        α, the largest relative residual that is left, and the steps taken.

    Source: Golub & Ye (1999), doi 10.1137/S1064827597323415.
    """
    sizes = _positive(np.linalg.norm(targets, axis=0))
    alpha, direction, slope = np.zeros_like(targets), np.zeros_like(targets), np.ones(targets.shape[1])
    residual = before = targets
    for step in range(_MOST_STEPS + 1):
        scale = np.linalg.norm(residual, axis=0)
        left = float((scale / sizes).max())
        if left <= tolerance or not np.isfinite(left) or step == _MOST_STEPS:
            break
        scale = _positive(scale)  # without it a small residual would be lost in float32
        near = nearly_solve(residual / scale).astype(np.float64) * scale
        direction = near + direction * ((near * (residual - before)).sum(axis=0) / slope)
        image = times(direction)
        slope = _positive((near * residual).sum(axis=0))
        gain = (direction * residual).sum(axis=0) / _positive((direction * image).sum(axis=0))
        before = residual
        alpha, residual = alpha + gain * direction, residual - gain * image
        safe_point()
    return alpha, left, step


def _positive(values: np.ndarray) -> np.ndarray:
    """The values, with 1 for what is 0: a column that is solved stays as it is."""
    return np.where(values == 0, 1.0, values)


def _lost(alpha: np.ndarray, targets: np.ndarray, ridge: float, resolution: float) -> bool:
    return bool(resolution * np.linalg.norm(alpha) > LOST * np.linalg.norm(targets - ridge * alpha))


def _norm(work: np.ndarray, diagonal: np.ndarray) -> float:
    """‖Θ + ρI‖ in the Frobenius norm, from the strict upper triangle and the diagonal."""
    total = float(np.sum(diagonal**2))
    for row in range(len(work) - 1):
        part = work[row, row + 1 :]
        total += 2 * float(np.dot(part, part))
    return total**0.5


def _reciprocal(work: np.ndarray, norm: float) -> float:
    """An estimate of 1 / (‖A⁻¹‖₁ norm) from the factor in the lower triangle."""
    # LAPACK counts columns first: to it, the lower triangle is an upper one.
    return float(lapack.get_lapack_funcs("pocon", (work,))(work.T, norm, uplo="U")[0])


def _smallest(work: np.ndarray) -> float:
    """About the smallest eigenvalue, by inverse iteration; LAPACK may not count so many numbers."""
    v = np.random.default_rng(0).normal(size=(len(work), 1))
    for _ in range(_INVERSE_STEPS):
        v = substitute(work, v / np.linalg.norm(v)).astype(np.float64)
    return 1 / float(np.linalg.norm(v))


def _refusal(why: str, ridge: float, norm: float, entries: int, no_memory: bool) -> str:
    proposed = ridge + _SAFE * float(np.finfo(np.float32).eps) * norm
    wide = f"{size(8 * entries)} of memory"
    return (
        f"k_train_train + {ridge:g} · I {why}: ridge={proposed:.2g} would do, or "
        f'solver=Cholesky(precision="float64"), which takes {wide}'
        + (", more than half of what is free" if no_memory else "")
    )
