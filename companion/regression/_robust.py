"""`fit_robust`: regression against the worst perturbation in the kernel's own feature space."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from companion._core.checks import count, number
from companion._core.compile import Kind
from companion._core.interrupt import deferred, safe_point
from companion._core.types import Array, Kernel
from companion.regression._checks import LOST, PrecisionWarning, rounding, warn_of_loss
from companion.regression._cholesky import solve
from companion.regression._fit import training_problem
from companion.regression._predictor import KernelPredictor

# Of a share η of 1 the ridge would be infinite; it is met only where f is going to 0.
_LARGEST_SHARE = 1 - 1e-9


@deferred()
def fit_robust(
    kernel: Kernel | Array,
    x: Float[Any, "n ..."] | None = None,
    targets: Float[Any, "n k"] | None = None,
    *,
    delta: float | int | None = None,
    kind: Kind = "ntk",
    tolerance: float = 1e-4,
    max_steps: int = 1000,
    k_train_train: Float[Any, "n n"] | None = None,
    resolution: float | None = None,
    batch_size: int | None = None,
    memory: int | None = None,
    progress: bool = False,
) -> KernelPredictor:
    """Adversarial training in feature space: min_f Σ_i (abs(y_i − f(x_i)) + δ ‖f‖)², ‖f‖ the kernel's norm.

    Each term is the worst squared error over all feature vectors φ(x_i) + d with ‖d‖ ≤ δ, where
    f(x) = ⟨f, φ(x)⟩. The training points share ‖f‖ and not d. Every output is a problem of its own.

    With (a + b)² = min_{0<η<1} a²/η + b²/(1 − η), a round is ridge regression with a ridge for each example:

        α = (Θ(X, X) + λ diag η)⁻¹ y,  λ = δ² Σ_i 1/(1 − η_i),  then η_i = abs(r_i) / (abs(r_i) + δ ‖f‖),

    r = y − Θ(X, X) α. For every α there is a lower bound of the minimum too, from the dual, max 2 vᵀy − ‖w‖²
    over abs(v_i) ≤ w_i and √(vᵀΘv) ≤ δ Σ w_i, at the best multiple of v = α: (αᵀy)² / ‖w‖², where
    w_i = max(abs(α_i), τ) with the least τ ≥ 0 that makes Σ w_i ≥ ‖f‖ / δ. Rounds end where the bound meets
    the objective. A small δ leaves the minimum-norm interpolant as it is, exactly where
    δ ≤ ‖f‖ / (n max abs(α_i)) of that interpolant; a large one gives f = 0.

    Args:
        kernel: as for `fit`, or a Gram matrix by itself.
        x: training inputs X, (n, ...); None beside a matrix.
        targets: Y, (n, k).
        delta: δ ≥ 0, a length in feature space: the square root of the kernel's units. None:
            0.4 √(tr Θ(X, X)) / n. 0 gives the interpolant of `fit(..., solver="cholesky")`.
        kind: "ntk" or "nngp".
        tolerance: the gap between objective and lower bound, over the objective, at which rounds end.
        max_steps: rounds at most.
        k_train_train: Θ(X, X) where it exists already.
        resolution: rounding error of the kernel, as for `fit`.
        batch_size: training points in a block of the predictor.
        memory: bytes for the work on Θ(X, X).
        progress: show the kernel's tqdm bar.

    Returns:
        The predictor, as from `from_coefficients`: called, differentiated, attacked; it has no spectrum.

    Raises:
        TypeError, ValueError: as `fit`; δ < 0; a kernel that is not positive definite in float64; no
            convergence in `max_steps` rounds, with the gap that is left.

    Warns:
        PrecisionWarning: where r ‖α‖ > 0.1 ‖Θ α‖ for the resolution r.

    Cost: Θ(X, X), and a Cholesky factorization, n³/3, for each output and round; on 400 digits 5 to 30 rounds
    at the default tolerance for δ from a tenth of the default to 30 times it. Two n² float64 of memory.
    Source: Ribeiro et al. (2025), arXiv 2510.20883.

    >>> matrix, y = np.diag([4.0, 1.0]), np.array([[1.0], [-1.0]])
    >>> [fit_robust(matrix, targets=y, delta=d).coefficients.ravel().round(3).tolist() for d in (0.1, 0.8)]
    [[0.25, -1.0], [0.25, -0.607]]
    """
    tolerance = number("tolerance", tolerance, open_end=True)
    max_steps = count("max_steps", max_steps)
    given = {"delta": delta, "resolution": resolution}
    delta, resolution = (one if one is None else number(name, one) for name, one in given.items())
    options = {"kind": kind, "batch_size": batch_size, "memory": memory, "progress": progress}
    matrix, targets, inputs, _ = training_problem(kernel, x, targets, k_train_train, **options)
    resolution = rounding(matrix, resolution)
    if delta is None:
        delta = 0.4 * float(np.sqrt(np.trace(matrix, dtype=np.float64))) / len(matrix)
    if delta == 0:
        alpha = solve(matrix, targets, ridge=0.0, resolution=resolution)
        return KernelPredictor(**inputs, resolution=resolution, given=alpha)
    matrix = matrix.astype(np.float64, copy=False)
    alpha = np.stack([_reweighted(matrix, y, delta, tolerance, max_steps) for y in targets.T], axis=1)
    if resolution * np.linalg.norm(alpha) > LOST * np.linalg.norm(matrix @ alpha):
        norms = np.linalg.norm(matrix @ alpha) / max(np.linalg.norm(alpha), np.finfo(np.float64).tiny)
        warn_of_loss(smallest=float(norms), resolution=resolution, stacklevel=3)
    return KernelPredictor(**inputs, resolution=resolution, given=alpha)


def _reweighted(
    kernel: np.ndarray, y: np.ndarray, delta: float, tolerance: float, max_steps: int
) -> np.ndarray:
    """Coefficients (n,) of one output."""
    if not y.any():
        return np.zeros_like(y)
    share = np.full(len(y), 0.5)
    for _ in range(max_steps):
        alpha = _weighted_ridge(kernel, y, delta**2 * (1 / (1 - share)).sum() * share)
        fitted = kernel @ alpha
        norm, residual = float(np.sqrt(max(alpha @ fitted, 0.0))), np.abs(y - fitted)
        objective = float(((residual + delta * norm) ** 2).sum())
        bound = float(alpha @ y) ** 2 / (_raised(np.abs(alpha), norm / delta) ** 2).sum()
        if objective - bound <= tolerance * objective:
            return alpha
        share = np.minimum(residual / (residual + delta * norm), _LARGEST_SHARE)
        safe_point()
    raise ValueError(
        f"max_steps={max_steps} rounds left the objective {objective:.6g} at most "
        f"{objective / bound - 1:.2g} above its minimum, and tolerance={tolerance:g} is wanted: give more "
        "rounds, or a larger tolerance"
    )


def _weighted_ridge(kernel: np.ndarray, y: np.ndarray, ridges: np.ndarray) -> np.ndarray:
    """α = (Θ + diag ρ)⁻¹ y, (n,)."""
    matrix = kernel.copy()
    matrix.flat[:: len(y) + 1] += ridges
    try:
        with warnings.catch_warnings():  # of digits that are lost on the way; what comes out is looked at
            warnings.simplefilter("ignore", PrecisionWarning)
            return solve(matrix, y[:, None], ridge=0.0, resolution=0.0, ours=True)[:, 0]
    except ValueError:
        raise ValueError(
            "k_train_train must be positive definite in float64, up to its weighted ridges of at most "
            f"{ridges.max():.2g}: compute the kernel in float64, or raise delta"
        ) from None


def _raised(least: np.ndarray, total: float) -> np.ndarray:
    """The shortest w ≥ `least` ≥ 0 whose entries sum to `total` or more: max(least, τ) for some τ."""
    if least.sum() >= total:
        return least
    ordered = np.sort(least)[::-1]
    above = np.concatenate([[0.0], np.cumsum(ordered)[:-1]])
    # τ if the k largest stay as they are; right for the first k whose next one does not pass it.
    levels = (total - above) / np.arange(len(least), 0, -1)
    return np.maximum(least, levels[np.argmax(levels >= ordered)])
