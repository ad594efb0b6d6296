"""Kernel regression under gradient flow: f_t in closed form from one eigendecomposition.

Time is the gradient flow's own, for the loss ½ Σ_i ‖f(x_i) − y_i‖² (a sum, not a mean). Gradient
descent with learning rate η has reached t = η · steps.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float

from companion._checks import finite, number


class PrecisionWarning(UserWarning):
    """The kernel's rounding error is as large as its smallest eigenvalues: digits are lost at late times."""


@dataclass(frozen=True, eq=False)
class KernelRegression:
    """A training kernel, decomposed in float64, with its targets.

    Attributes:
        eigenvalues: λ_i of Θ(X, X) + ridge · I, descending, (n,).
        eigenvectors: v_i in the columns, (n, n).
        projections: v_iᵀ Y, (n, k).
        resolution: estimate of the rounding error of Θ(X, X), in the units of λ: the larger of ε λ_max and
            √ε times the largest diagonal entry, for the machine precision ε of the kernel as it came. The
            second is what an arccosine near 1 costs the diagonal of a ReLU kernel.
    """

    eigenvalues: Float[np.ndarray, " n"]
    eigenvectors: Float[np.ndarray, "n n"]
    projections: Float[np.ndarray, "n k"]
    resolution: float


def fit(
    k_train_train: Float[np.ndarray, "n n"], targets: Float[np.ndarray, "n k"], *, ridge: float = 0.0
) -> KernelRegression:
    """Decompose Θ(X, X) + ridge · I = Σ_i λ_i v_i v_iᵀ once, for predictions at any time.

    Args:
        k_train_train: symmetric kernel matrix Θ(X, X), (n, n), any floating precision.
        targets: Y, (n, k): ±1 for two classes, centred one-hot for k classes (`data.targets`).
        ridge: added to the diagonal, ≥ 0, in the kernel's units.

    Returns:
        The decomposition, in float64 whatever came in.

    Raises:
        ValueError: NaN or infinity, a matrix that is not square or not symmetric, rows that do not
            match, a negative ridge, a matrix that is not positive semi-definite.

    Warns:
        PrecisionWarning: when the smallest eigenvalue is below the kernel's rounding error.

    Cost: O(n³) time, about 10 n³ operations; about 5 n² float64 of memory.
    Source: Jacot et al. (2018), arXiv 1806.07572, section 5; Lee et al. (2019), arXiv 1902.06720, eq. 10.

    >>> float(condition_number(fit(np.diag([4.0, 1.0]), np.ones((2, 1)))))
    4.0
    """
    kernel, targets = _real("k_train_train", k_train_train), _real("targets", targets).astype(np.float64)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not len(kernel):
        raise ValueError(f"k_train_train must be square (n, n), got shape {kernel.shape}")
    if targets.ndim != 2 or len(targets) != len(kernel):
        raise ValueError(f"targets must have shape ({len(kernel)}, k), got {targets.shape}")
    finite("k_train_train", kernel)
    finite("targets", targets)
    epsilon = np.finfo(kernel.dtype).eps
    asymmetry = float(np.abs(kernel - kernel.T).max())
    if asymmetry > 1e3 * epsilon * np.abs(kernel).max():
        raise ValueError(
            f"k_train_train must be symmetric, entries differ from their mirror by {asymmetry:.3g}"
        )
    shifted = kernel.astype(np.float64)
    shifted.flat[:: len(kernel) + 1] += number("ridge", ridge)
    values, vectors = scipy.linalg.eigh(shifted, driver="evd", overwrite_a=True)
    values, vectors = values[::-1].copy(), np.ascontiguousarray(vectors[:, ::-1])
    resolution = float(max(epsilon * np.abs(values).max(), epsilon**0.5 * np.abs(np.diag(kernel)).max()))
    if values[-1] < -10 * resolution:
        raise ValueError(
            f"k_train_train must be positive semi-definite, its smallest eigenvalue is {values[-1]:.3g}"
        )
    if values[-1] <= resolution:
        warnings.warn(
            f"the smallest eigenvalue of k_train_train, {values[-1]:.2g}, is below the rounding error, about "
            f"{resolution:.2g} in {kernel.dtype}: late predictions lose digits. Add a ridge, stop early, "
            "or compute the kernel in float64.",
            PrecisionWarning,
            stacklevel=2,
        )
    return KernelRegression(values, vectors, vectors.T @ targets, resolution)


def coefficients(regression: KernelRegression, *, t: float = math.inf) -> Float[np.ndarray, "n k"]:
    """α_t = Σ_i v_i (1 − e^{−λ_i t}) / λ_i · v_iᵀ Y, so that f_t(x) = Θ(x, X) α_t.

    Eigenvalues below n ε λ_max, with ε of float64, are rounding: they count as λ = 0, and at t = ∞ their
    modes are left out, as in a pseudo-inverse.

    Args:
        regression: from `fit`.
        t: time ≥ 0 of the gradient flow; infinity is the interpolating solution.

    Returns:
        α_t, (n, k), float64. Cost O(n² k).

    Raises:
        TypeError, ValueError: t that is no number ≥ 0.

    >>> coefficients(fit(np.eye(2), np.ones((2, 1)))).ravel()
    array([1., 1.])
    """
    values, t = _positive(regression), number("t", t, infinite=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = -np.expm1(-values * t) / values
    # The limit of (1 − e^{−λt})/λ as λ → 0 is t; at t = ∞ such a mode is never learned.
    gain = np.where(values > 0, gain, 0.0 if math.isinf(t) else t)
    return regression.eigenvectors @ (gain[:, None] * regression.projections)


def predict(
    regression: KernelRegression, k_test_train: Float[np.ndarray, "m n"], *, t: float = math.inf
) -> Float[np.ndarray, "m k"]:
    """f_t(x) = Θ(x, X) Θ(X, X)⁻¹ (I − e^{−tΘ(X, X)}) Y, for every test input.

    Args:
        regression: from `fit`.
        k_test_train: Θ(x, X), (m, n).
        t: time ≥ 0 of the gradient flow; infinity is kernel regression without early stopping.

    Returns:
        Outputs (m, k), float64.

    Raises:
        ValueError: a kernel matrix whose columns are not the training points; t < 0.

    Cost: O(n² k + m n k). Source: Lee et al. (2019), arXiv 1902.06720, eqs. 10-11.

    >>> predict(fit(np.eye(2), np.ones((2, 1))), np.eye(2), t=math.log(2)).ravel()
    array([0.5, 0.5])
    """
    alpha = coefficients(regression, t=t)
    kernel, n = _real("k_test_train", k_test_train).astype(np.float64), len(alpha)
    if kernel.ndim != 2 or kernel.shape[1] != n:
        raise ValueError(f"k_test_train must have shape (m, {n}), got {kernel.shape}")
    return finite("k_test_train", kernel) @ alpha


def learned_fraction(regression: KernelRegression, *, t: float) -> Float[np.ndarray, " n"]:
    """How much of each eigendirection is fitted at time t: 1 − e^{−λ_i t}, in [0, 1], (n,).

    Args:
        regression: from `fit`.
        t: time ≥ 0 of the gradient flow.

    Raises:
        TypeError, ValueError: t that is no number ≥ 0.

    >>> learned_fraction(fit(np.eye(2), np.ones((2, 1))), t=0.0)
    array([0., 0.])
    """
    values, t = _positive(regression), number("t", t, infinite=True)
    with np.errstate(invalid="ignore"):
        return np.where(values > 0, -np.expm1(-values * t), 0.0)


def target_energy(regression: KernelRegression) -> Float[np.ndarray, " n"]:
    """Share of the targets on each eigenvector: ‖v_iᵀ Y‖² / ‖Y‖², non-negative, summing to 1, (n,).

    Raises:
        ValueError: when all targets are zero.

    >>> target_energy(fit(np.diag([4.0, 1.0]), np.array([[3.0], [4.0]])))
    array([0.36, 0.64])
    """
    energy = (regression.projections**2).sum(axis=1)
    if energy.sum() == 0:
        raise ValueError("targets are all zero, so they have no direction")
    return energy / energy.sum()


def condition_number(regression: KernelRegression) -> float:
    """λ_max / λ_min of the decomposed kernel; infinite when the smallest eigenvalue is only rounding.

    >>> condition_number(fit(np.diag([4.0, 1.0]), np.ones((2, 1))))
    4.0
    """
    values = _positive(regression)
    return float(values[0] / values[-1]) if values[-1] > 0 else math.inf


def _positive(regression: KernelRegression) -> np.ndarray:
    """The eigenvalues, with zero for those that are float64 rounding."""
    if not isinstance(regression, KernelRegression):
        raise TypeError(f"regression must come from regression.fit, got {type(regression).__name__}")
    values = regression.eigenvalues
    return np.where(values > len(values) * np.finfo(np.float64).eps * values[0], values, 0.0)


def _real(name: str, value: object) -> np.ndarray:
    """A real array in float32 or float64; integers become float64."""
    array = np.asarray(value)
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64, got {array.dtype}")
    return array
