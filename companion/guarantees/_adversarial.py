"""`fit_adversarial`: kernel regression whose training images are attacked while it is fitted."""

import contextlib
import functools
import warnings
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion._core.checks import batch as examples
from companion._core.checks import class_labels, count, number, within
from companion._core.compile import Kind, double
from companion._core.eigenpairs import eigenpairs
from companion._core.interrupt import deferred, safe_point
from companion._core.types import Kernel
from companion.attacks import Threat, checked_threat, outputs_of, pgd
from companion.data import targets
from companion.guarantees._compiled import compiled_once
from companion.kernels import gram
from companion.regression import KernelPredictor, fit, from_coefficients


@deferred()
def fit_adversarial(
    kernel: Kernel,
    x: Float[Any, "n ..."],
    labels: Int[Any, " n"],
    threat: Threat,
    *,
    ridge: float | int,
    n_classes: int | None = None,
    rounds: int = 20,
    steps: int = 10,
    tolerance: float = 0.01,
    kind: Kind = "ntk",
    batch_size: int = 256,
    progress: bool = False,
) -> KernelPredictor:
    """Adversarial training of a kernel: min_α Σ_i max_{x' in the threat of x_i} ‖f_α(x') − y_i‖² + ρ ‖f_α‖².

    f_α(x) = Θ(x, X) α, ‖f_α‖² = tr αᵀΘ(X, X)α, y the targets of `data.targets`: the objective of
    `regression.fit(..., ridge=ρ)` at attacked images. It is convex in α. Round t attacks α_t by PGD, on the
    margin toward the wrong classes and toward the right one (too large an output is an error too), and takes
    the worse of both; then α_{t+1} is best, on average, against the attacks of all rounds so far,

        α_{t+1} = (1/t Σ_τ B_τᵀB_τ + ρ Θ(X, X))⁻¹ 1/t Σ_τ B_τᵀ Y,  B_τ = Θ(x'_τ, X):

    no step size, and an answer to the last attack alone would go round in circles. The value at α_{t+1} of
    that average is a lower bound of the minimum, whatever the attacks found; the objective at α_t is as right
    as PGD is. Rounds end where the two meet, and the α of the smallest objective is returned, 0 among
    them. Where the two have not met, a warning says how far apart they are.

    Args:
        kernel: an `Architecture`, or a function kernel(x1, x2, get), compiled once for all rounds.
        x: training images X, (n, ...), within the threat's bounds.
        labels: their classes (n,), from 0 to k − 1.
        threat: what the attack may do: norm, eps and bounds.
        ridge: ρ > 0, in the kernel's units.
        n_classes: k; None for the largest label + 1.
        rounds: at most so many attacks on the training set.
        steps: of each attack.
        tolerance: the gap of the bounds, over the objective, at which rounds end.
        kind: "ntk" or "nngp".
        batch_size: images attacked at once.
        progress: show a tqdm bar over the rounds, with the gap.

    Returns:
        The predictor, as from `from_coefficients`: called, differentiated, attacked; it has no spectrum.
        With eps = 0 it is that of `regression.fit`.

    Raises:
        TypeError, ValueError: arguments that do not fit; float64 where JAX computes in float32, as for the
            predictor itself; pixels outside the bounds; a ridge of 0;
            a kernel that is not positive semi-definite in float64.

    Cost of a round: 2 · steps gradients of f at n images, n² kernel entries, and 4/3 n³ for the solution, in
    two n² float64: for n to some thousands. The average over rounds closes the gap as log t / t, faster for
    a larger ridge.
    Source: Madry et al. (2018), arXiv 1706.06083, eq. 2.1, for the objective.

    >>> from companion.attacks import Threat
    >>> x, labels = np.array([[0.2], [0.8]], np.float32), np.array([0, 1])
    >>> linear = lambda a, b, get: 1 + (2 * a - 1) @ (2 * b - 1).T
    >>> for eps in (0.0, 0.2):
    ...     f = fit_adversarial(linear, x, labels, Threat("linf", eps), ridge=0.1)
    ...     print(f"{float(f(x)[1, 0]):.1f}")
    0.9
    1.0
    """
    rounds, steps, ridge = (
        count("rounds", rounds),
        count("steps", steps),
        number("ridge", ridge, open_end=True),
    )
    tolerance, x = (
        number("tolerance", tolerance),
        within("x", examples("x", x), checked_threat(threat).bounds),
    )
    labels = class_labels("labels", labels, len(x))
    wanted = targets(labels, n_classes).astype(np.float64)
    kernel = compiled_once(kernel, kind)
    predictor = functools.partial(from_coefficients, kernel, x, kind=kind)
    predictor(np.zeros_like(wanted))  # its errors belong here, not to the end
    bar = tqdm(total=rounds, desc="adversarial training", unit="round", disable=not progress)
    with double(x), bar:
        matrix = gram(kernel, x, kind=kind).astype(np.float64)
        alpha = fit(matrix, targets=wanted, ridge=ridge, solver="cholesky").coefficients
        square, product = np.zeros_like(matrix), np.zeros_like(wanted)
        # Zero is an answer too.
        best, smallest, bound = np.zeros_like(alpha), float((wanted**2).sum()), 0.0
        for played in range(1, rounds + 1):
            attacked, loss = _worst(predictor(alpha), x, labels, wanted, threat, steps, batch_size)
            objective = loss + ridge * float((alpha * (matrix @ alpha)).sum())
            if objective < smallest:
                best, smallest = alpha, objective
            rows = gram(kernel, attacked, x, kind=kind).astype(np.float64)
            square += rows.T @ rows
            product += rows.T @ wanted
            alpha = _solved(square / played + ridge * matrix, product / played)
            bound = max(bound, float((wanted**2).sum() - (alpha * product).sum() / played))
            bar.update()
            bar.set_postfix(gap=f"{1 - bound / smallest:.2%}")
            safe_point()
            if smallest - bound <= tolerance * smallest:
                break
    if smallest - bound > tolerance * smallest:
        warnings.warn(
            f"after {played} rounds the objective is {smallest:.4g} and its minimum at least {bound:.4g}, "
            f"{1 - bound / smallest:.1%} of it apart; tolerance is {tolerance:.1%}. More rounds or a larger "
            "ridge bring them together",
            stacklevel=3,
        )
    return predictor(best)


def _solved(matrix: np.ndarray, product: np.ndarray) -> np.ndarray:
    """α of least length where several solve it: a kernel of low rank has many, and one f."""
    with contextlib.suppress(np.linalg.LinAlgError, scipy.linalg.LinAlgWarning), warnings.catch_warnings():
        warnings.simplefilter("error", scipy.linalg.LinAlgWarning)
        return scipy.linalg.solve(matrix, product, assume_a="pos")
    values, vectors = eigenpairs(matrix)
    rounding = len(values) * np.finfo(np.float64).eps * np.abs(values).max()
    if values.min() < -rounding:
        raise ValueError(
            "kernel must be positive semi-definite on x in float64: give x in float64, or leave out images "
            "that occur twice"
        )
    seen = values > rounding
    return vectors[:, seen] @ ((vectors[:, seen].T @ product) / values[seen, None])


def _worst(
    f: KernelPredictor,
    x: np.ndarray,
    labels: np.ndarray,
    wanted: np.ndarray,
    threat: Threat,
    steps: int,
    batch_size: int,
) -> tuple[np.ndarray, float]:
    """The worse of two attacks on each image, and the sum of the squared errors there."""
    options = {"steps": steps, "best_iterate": False, "batch_size": batch_size}
    tried = [pgd(f, x, labels, threat, targeted=too_large, **options) for too_large in (False, True)]
    errors = []
    for points in tried:
        outputs = outputs_of(f, points, batch_size).astype(np.float64)
        errors.append(((outputs - wanted) ** 2).sum(axis=1))
    worse = errors[0] >= errors[1]
    chosen = np.where(worse.reshape(-1, *[1] * (x.ndim - 1)), *tried)
    return chosen, float(np.maximum(*errors).sum())
