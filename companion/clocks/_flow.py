"""The flow with a clock for every example, its coefficients, and their gradient in the clocks."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Float, Int

from companion._core.checks import finite, number, one_of
from companion._core.compile import double
from companion._core.eigenpairs import eigenpairs
from companion._core.types import Array, Scalar
from companion._core.words import Unchecked
from companion.regression import KernelPredictor, shifted, warn_if_lost, whole

Solver = Literal["eigh", "chebyshev"]
Pull = Callable[[np.ndarray], np.ndarray]  # ∂L/∂α (n, k) to ∂L/∂ϖ (n,)

# Below this share of their mean a clock is too slow to divide by.
_SLOWEST = 1e-8
_ROUNDING = 1e-15  # of φ(0) = 1


def clocked(
    f: Unchecked, clocks: Float[Any, " n"] | Int[Any, " n"] | float | int, *, solver: Solver = "eigh"
) -> KernelPredictor:
    """Kernel regression at a time of its own for every training example: f_ϖ(x) = Θ(x, X) α_ϖ.

    α_ϖ is what α′ = diag(ϖ) (Y − Θα), α(0) = 0, has reached at time 1; Θ includes the ridge of f. With the
    eigenpairs s, V of √ϖ Θ √ϖ,

        α_ϖ = √ϖ V φ(s) Vᵀ √ϖ Y,  φ(s) = (1 − e^{−s}) / s,

    without an inverse: where Θ has one, this is Θ⁻¹ (I − e^{−Θ diag(ϖ)}) Y. Equal clocks t are `f.at(t)`.
    A clock of 0 leaves its example out.

    Args:
        f: from `regression.fit`, with a spectrum; its own time does not matter.
        clocks: ϖ ≥ 0, (n,), or one number for all, in the units of `f.at`.
        solver: "eigh", or "chebyshev": the flow as a polynomial of Θ, for large n and short times.

    Returns:
        The predictor, as from `regression.from_coefficients`: called, differentiated, attacked; it has no
        spectrum.

    Raises:
        TypeError: a predictor without a spectrum, or with a part of it.
        ValueError: clocks of another shape, negative, NaN or infinite.

    Warns:
        PrecisionWarning: where f at the mean clock would.

    Cost: "eigh" about 12 n³ operations; "chebyshev" 2 n² k for each of about 5 λ^½ + 10 terms, λ the largest
    eigenvalue of √ϖ Θ √ϖ. Θ is put together from the spectrum of f: 2 n³. Three n² float64 of memory,
    "chebyshev" two.
    Source: Fu & Wang (2024), arXiv 2310.06112, section 5; the form without an inverse is ours.

    >>> from companion.regression import fit
    >>> f = fit(np.diag([1.0, 1.0]), targets=np.ones((2, 1)))
    >>> clocked(f, np.array([np.log(2), 0.0])).coefficients.ravel().round(6).tolist()
    [0.5, 0.0]
    """
    matrix, targets = problem(f)
    clocks = checked_clocks(clocks, len(matrix))
    warn_if_lost(f.at(float(clocks.mean())), stacklevel=2)
    alpha, _ = flow(matrix, targets, clocks, solver)
    return with_coefficients(f, alpha)


def problem(f: Unchecked) -> tuple[np.ndarray, np.ndarray]:
    """Θ + ρI (n, n) and Y (n, k) of a predictor, from its spectrum, without what is rounding of it."""
    vectors = whole(f).eigenvectors
    matrix = (vectors * shifted(f)) @ vectors.T
    return (matrix + matrix.T) / 2, vectors @ f.projections


def with_coefficients(f: KernelPredictor, alpha: np.ndarray) -> KernelPredictor:
    """The predictor of the same kernel and inputs with other coefficients."""
    gone = dict.fromkeys(("eigenvalues", "eigenvectors", "projections"))
    return dataclasses.replace(f, given=alpha, t=math.inf, **gone)


def checked_clocks(clocks: Unchecked, n: int, name: str = "clocks") -> np.ndarray:
    """Clocks (n,) in float64, or an error."""
    if np.ndim(clocks) == 0:
        return np.full(n, number(name, clocks))
    found = np.asarray(clocks)
    if found.dtype.kind in "iu":
        found = found.astype(np.float64)
    if found.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64, got {found.dtype}")
    if found.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one for each training input, got {found.shape}")
    finite(name, found)
    if found.min() < 0:
        raise ValueError(f"{name} must be at least 0, got {found.min():.3g}")
    return found.astype(np.float64)


def flow(matrix: np.ndarray, targets: np.ndarray, clocks: np.ndarray, solver: str) -> tuple[np.ndarray, Pull]:
    """α_ϖ (n, k), and the function that takes ∂L/∂α to ∂L/∂ϖ."""
    one_of("solver", solver, ("eigh", "chebyshev"))
    if not clocks.any():
        return np.zeros_like(targets), lambda slope: (slope * targets).sum(axis=1)
    return (_decomposed if solver == "eigh" else _expanded)(matrix, targets, clocks)


def _decomposed(matrix: np.ndarray, targets: np.ndarray, clocks: np.ndarray) -> tuple[np.ndarray, Pull]:
    """By eigenpairs.

    With residuals r = Y − Θα and adjoints λ, λ′ = Θ ϖ λ, λ(1) = ∂L/∂α,

    ∂L/∂ϖ_i = ∫ Σ_c λ_ic r_ic dτ = 1/ϖ_i Σ_jk V_ij V_ik (Vᵀ√ϖ ∂L/∂α)_j · (Vᵀ√ϖ Y)_k E_jk,

    E_jk = ∫ e^{−(1−τ) s_j − τ s_k} dτ = e^{−min(s_j, s_k)} φ(abs(s_j − s_k)): nothing cancels. Where
    ϖ_i is 0, V_ik / √ϖ_i is W_ik = (Θ√ϖ V)_ik / s_k, and what W leaves of Y_i and ∂L/∂α_i stands still.
    """
    root = np.sqrt(clocks)[:, None]
    s, v = eigenpairs(root * matrix * root.T)
    s = np.maximum(s, 0.0)  # what is below is rounding, and would grow like e^|s|
    at_targets, once = v.T @ (root * targets), _phi(s)[:, None]
    alpha = root * (v @ (once * at_targets))
    slow = clocks <= _SLOWEST * clocks.mean()
    seen = s > len(s) * np.finfo(np.float64).eps * s.max()

    def pull(slope: np.ndarray) -> np.ndarray:
        at_slope = v.T @ (root * slope)
        inner = at_slope @ at_targets.T
        inner *= np.exp(-np.minimum(s[:, None], s))
        inner *= _phi(np.abs(s[:, None] - s))
        found = ((v @ inner) * v).sum(axis=1) / np.where(slow, 1.0, clocks)
        if slow.any():
            w = np.where(seen, matrix[slow] @ (root * v) / np.where(seen, s, 1.0), 0.0)
            y, g = targets[slow] - w @ at_targets, slope[slow] - w @ at_slope
            still = y * g + y * (w @ (once * at_slope)) + g * (w @ (once * at_targets))
            found[slow] = still.sum(axis=1) + ((w @ inner) * w).sum(axis=1)
        return found

    return alpha, pull


def _phi(s: np.ndarray) -> np.ndarray:
    safe = np.where(s == 0, 1.0, s)
    return np.where(s == 0, 1.0, -np.expm1(-safe) / safe)


def _expanded(matrix: np.ndarray, targets: np.ndarray, clocks: np.ndarray) -> tuple[np.ndarray, Pull]:
    """By Chebyshev polynomials T_j of M = diag(ϖ) Θ and, backwards, by differentiating their recurrence.

    α_ϖ = φ(M) diag(ϖ) Y, for M has the eigenvalues of √ϖ Θ √ϖ; φ(s) = Σ_j c_j T_j(2 s / λ − 1) on [0, λ].
    """
    root = np.sqrt(clocks)
    # No eigenvalue is larger than a row's sum of absolute values; of a positive kernel it is a close bound.
    largest = float((root * (np.abs(matrix) @ root)).max()) or 1.0
    terms = _coefficients(largest)
    # Few sizes, so that learning compiles the loops a few times only.
    some = 2 * math.ceil(math.sqrt(len(terms)) / 2)
    terms = np.pad(terms, (0, some**2 - len(terms))).reshape(some, some)
    with double(matrix):
        arrays = [jnp.asarray(one) for one in (matrix, targets, clocks, terms)]
        alpha = np.asarray(_summed(*arrays, largest))

    def pull(slope: np.ndarray) -> np.ndarray:
        with double(matrix):
            return np.asarray(_pulled(*arrays, largest, jnp.asarray(slope)))

    return alpha, pull


def _coefficients(largest: float) -> np.ndarray:
    """Those of φ on [0, largest], as many as are above rounding."""
    n = 64 + math.ceil(10 * math.sqrt(largest))
    values = _phi(largest * np.cos(np.pi / 2 * (np.arange(n) + 0.5) / n) ** 2)
    found = scipy.fft.dct(values) / n
    found[0] /= 2
    kept = np.flatnonzero(np.abs(found) > _ROUNDING)
    return found[: kept[-1] + 1]


@jax.jit
def _summed(theta: Array, targets: Array, clocks: Array, terms: Array, largest: Scalar) -> Array:
    """Σ_j c_j T_j diag(ϖ) Y; backwards some states are kept, and as many computed again at a time."""

    def mapped(state: Array) -> Array:
        return 2 / largest * clocks[:, None] * (theta @ state) - state

    def term(states: tuple[Array, Array, Array], c: Array) -> tuple[tuple[Array, Array, Array], None]:
        now, after, total = states
        return (after, 2 * mapped(after) - now, total + c * now), None

    @jax.checkpoint
    def some(states: tuple[Array, Array, Array], cs: Array) -> tuple[tuple[Array, Array, Array], None]:
        return jax.lax.scan(term, states, cs)[0], None

    with jax.default_matmul_precision("highest"):
        first = clocks[:, None] * targets
        start = first, mapped(first), jnp.zeros_like(first)
        return jax.lax.scan(some, start, terms)[0][2]


@jax.jit
def _pulled(
    theta: Array, targets: Array, clocks: Array, terms: Array, largest: Scalar, weights: Array
) -> Array:
    return jax.grad(lambda clocks: (weights * _summed(theta, targets, clocks, terms, largest)).sum())(clocks)
