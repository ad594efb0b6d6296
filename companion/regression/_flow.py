"""f_t from one eigendecomposition: coefficients and outputs at any time and with any ridge."""

import dataclasses
import math

import numpy as np
import scipy.linalg
from jaxtyping import Float

from companion._core.checks import number
from companion.regression._checks import cross_kernel, kernel_and_targets, rounding
from companion.regression._modes import (
    KernelRegression,
    checked,
    finite_gains,
    warn_if_lost,
)


def fit(
    k_train_train: Float[np.ndarray, "n n"],
    targets: Float[np.ndarray, "n k"],
    *,
    ridge: float = 0.0,
    resolution: float | None = None,
) -> KernelRegression:
    """Decompose Θ(X, X) = Σ_i λ_i v_i v_iᵀ once, for predictions at any time and with any ridge.

    Args:
        k_train_train: symmetric kernel matrix Θ(X, X), (n, n), float32 or float64.
        targets: Y, (n, k): ±1 for two classes, centred one-hot for k classes (`data.targets`).
        ridge: ρ, added to the diagonal, ≥ 0, in the kernel's units. `with_ridge` changes it later.
        resolution: rounding error of the kernel, in its units, for the warnings of `predict`. None: √ε times
            the largest diagonal entry, ε of the precision that came in: what an arccosine near 1 costs the
            diagonal of a ReLU kernel in neural-tangents. Of a kernel whose entries are all right to about ε,
            2 ε ‖Θ‖_F / √n is a good estimate (`rounding_error` says what was measured).

    Returns:
        The decomposition, in float64 whatever came in.

    Raises:
        TypeError: another precision; integers are taken as float64.
        ValueError: NaN or infinity, a matrix that is not square or not symmetric, rows that do not
            match, a negative ridge or resolution, a kernel that is not positive semi-definite.

    Cost: O(n³) time, about 10 n³ operations; 3 n² float64 of memory beside the input.
    Source: Jacot et al. (2018), arXiv 1806.07572, section 5; Lee et al. (2019), arXiv 1902.06720, eq. 10.

    >>> from companion.regression import condition_number
    >>> float(condition_number(fit(np.diag([4.0, 1.0]), np.ones((2, 1)))))
    4.0
    """
    kernel, targets = kernel_and_targets(k_train_train, targets)
    ridge, resolution, n = number("ridge", ridge), rounding(kernel, resolution), len(kernel)
    # The transpose of a symmetric matrix is itself, laid out as LAPACK wants it to work in place. The fast
    # driver counts its n² of work space in 32 bits.
    values, vectors = scipy.linalg.eigh(
        np.array(kernel, dtype=np.float64, order="C").T,
        driver="evd" if n < 32_000 else "evr",
        overwrite_a=True,
        check_finite=False,
    )
    values, vectors = values[::-1].copy(), np.ascontiguousarray(vectors[:, ::-1])
    if values[-1] < -max(10 * resolution, n * np.finfo(np.float64).eps * np.abs(values).max()):
        raise ValueError(
            f"k_train_train must be positive semi-definite, its smallest eigenvalue is {values[-1]:.3g}"
        )
    return KernelRegression(values, vectors, vectors.T @ targets, resolution, ridge)


def with_ridge(regression: KernelRegression, ridge: float) -> KernelRegression:
    """The same decomposition with another ridge in place of the old one: f solves (Θ(X, X) + ρI) α = Y.

    Args:
        regression: from `fit`.
        ridge: ρ ≥ 0, in the kernel's units; 0 takes it away.

    Returns:
        A regression that shares the arrays of the first. No cost.

    Raises:
        TypeError, ValueError: a ridge that is no finite number ≥ 0.

    >>> coefficients(with_ridge(fit(np.eye(2), np.ones((2, 1))), 1.0)).ravel()
    array([0.5, 0.5])
    """
    return dataclasses.replace(checked(regression), ridge=number("ridge", ridge))


def coefficients(regression: KernelRegression, *, t: float = math.inf) -> Float[np.ndarray, "n k"]:
    """α_t = Σ_i v_i (1 − e^{−(λ_i + ρ)t}) / (λ_i + ρ) · v_iᵀ Y, so that f_t(x) = Θ(x, X) α_t.

    Where λ_i + ρ is below n ε λ_max, with ε of float64, it is rounding: it counts as 0, and at t = ∞ such
    modes are left out, as in a pseudo-inverse.

    Args:
        regression: from `fit`.
        t: time ≥ 0 of the gradient flow; infinity is the interpolating solution.

    Returns:
        α_t, (n, k), float64. Cost O(n² k).

    Raises:
        TypeError, ValueError: t that is no number ≥ 0.

    Warns:
        PrecisionWarning: as `predict`.

    >>> coefficients(fit(np.eye(2), np.ones((2, 1)))).ravel()
    array([1., 1.])
    """
    alpha = _alpha(regression, t)
    warn_if_lost(regression, t, stacklevel=2)
    return alpha


def coefficient_matrix(regression: KernelRegression, *, t: float = math.inf) -> Float[np.ndarray, "n n"]:
    """C_t = Σ_i v_i (1 − e^{−(λ_i + ρ)t}) / (λ_i + ρ) v_iᵀ, so that α_t = C_t Y for any targets Y.

    At t = ∞ it is (Θ(X, X) + ρI)⁻¹; at early times it is t I. The targets of `fit` play no part.

    Args:
        regression: from `fit`.
        t: time ≥ 0 of the gradient flow.

    Returns:
        C_t, (n, n), symmetric to rounding, float64. Cost O(n³), memory 2 n².

    Raises:
        TypeError, ValueError: t that is no number ≥ 0.

    >>> coefficient_matrix(fit(np.diag([4.0, 1.0]), np.ones((2, 1)))).diagonal()
    array([0.25, 1.  ])
    """
    gain = finite_gains(regression, t)
    return (regression.eigenvectors * gain) @ regression.eigenvectors.T


def predict(
    regression: KernelRegression, k_test_train: Float[np.ndarray, "m n"], *, t: float = math.inf
) -> Float[np.ndarray, "m k"]:
    """f_t(x) = Θ(x, X) Θ(X, X)⁻¹ (I − e^{−tΘ(X, X)}) Y, for every test input.

    With a ridge ρ, both Θ(X, X) become Θ(X, X) + ρI.

    Args:
        regression: from `fit`.
        k_test_train: Θ(x, X), (m, n).
        t: time ≥ 0 of the gradient flow; infinity is kernel regression without early stopping.

    Returns:
        Outputs (m, k), float64.

    Raises:
        ValueError: a kernel matrix whose columns are not the training points; t < 0.

    Warns:
        PrecisionWarning: where `rounding_error` at this time passes 0.1: the second digit is not certain.

    Cost: O(n² k + m n k). Source: Lee et al. (2019), arXiv 1902.06720, eqs. 10-11.

    >>> predict(fit(np.eye(2), np.ones((2, 1))), np.eye(2), t=math.log(2)).ravel()
    array([0.5, 0.5])
    """
    alpha = _alpha(regression, t)
    outputs = cross_kernel(k_test_train, len(alpha)) @ alpha
    warn_if_lost(regression, t, stacklevel=2)
    return outputs


def _alpha(regression: KernelRegression, t: float) -> np.ndarray:
    gain = finite_gains(regression, t)
    return regression.eigenvectors @ (gain[:, None] * regression.projections)
