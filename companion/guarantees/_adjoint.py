"""How the coefficients of a fit change with the entries of its Gram matrix."""

import math
from collections.abc import Callable

import numpy as np

from companion.regression import finite_gains, fit, shifted

Rows = Callable[[np.ndarray], np.ndarray]  # rows i of M + Mᵀ, (b, n)

# Gains whose eigenvalues are closer than this share take the slope between them: an error of 1e-9, as large
# as that of the difference.
_CLOSE = 1e-4


def fitted(
    matrix: np.ndarray, targets: np.ndarray, *, ridge: float, t: float
) -> tuple[np.ndarray, Callable[[np.ndarray], Rows]]:
    """The coefficients α (n, k), and from B = ∂L/∂α the gradient M = ∂L/∂Θ of L in Θ, by rows of M + Mᵀ."""
    if t == math.inf:
        alpha = fit(matrix, targets=targets, ridge=ridge, solver="cholesky").coefficients

        def at_the_end(b: np.ndarray) -> Rows:
            p = fit(matrix, targets=b, ridge=ridge, solver="cholesky").coefficients
            return lambda some: -(p[some] @ alpha.T + alpha[some] @ p.T)

        return alpha, at_the_end
    f = fit(matrix, targets=targets, ridge=ridge).at(t)
    vectors = f.eigenvectors

    def at_time_t(b: np.ndarray) -> Rows:
        inner = _divided_gains(shifted(f), finite_gains(f), t)
        inner *= (vectors.T @ b) @ f.projections.T
        whole = vectors @ (inner + inner.T) @ vectors.T
        return lambda some: whole[some]

    return f.coefficients, at_time_t


def _divided_gains(values: np.ndarray, gains: np.ndarray, t: float) -> np.ndarray:
    """Φ_ij = (g_i − g_j) / (s_i − s_j) of g(s) = (1 − e^{−st}) / s, and g′ between s_i and s_j where near."""
    z = values * t
    apart, middle = z[:, None] - z, (z[:, None] + z) / 2
    near = np.abs(apart) < _CLOSE * (1 + np.abs(middle))
    with np.errstate(divide="ignore", invalid="ignore"):
        divided = (gains[:, None] - gains) / apart * t
    # g(s) = t φ(st), φ′(z) = (e^{−z} (1 + z) − 1) / z², by its series near 0.
    safe = np.where(np.abs(middle) < 1e-3, 1.0, middle)
    slope = (np.exp(-safe) * (1 + safe) - 1) / safe**2
    slope = np.where(np.abs(middle) < 1e-3, -1 / 2 + middle / 3 - middle**2 / 8, slope)
    return np.where(near, slope * t**2, divided)
