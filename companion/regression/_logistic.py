"""Kernel gradient flow on the logistic loss, with weight decay or with spectral decoupling."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.integrate
import scipy.linalg
import scipy.optimize
import scipy.special
from jaxtyping import Float

from companion._core.checks import number
from companion._core.compile import Kind
from companion._core.interrupt import safe_point
from companion._core.types import Array, Kernel
from companion._core.words import Unchecked
from companion.regression._checks import rounding
from companion.regression._cholesky import solve
from companion.regression._fit import training_problem
from companion.regression._predictor import KernelPredictor

_RELATIVE, _ABSOLUTE = 1e-7, 1e-9  # errors of the flow, coefficients in units of one over the mean diagonal
_ROUNDS = 200


def fit_logistic(
    kernel: Kernel | Array,
    x: Float[Any, "n ..."] | None = None,
    targets: Float[Any, "n k"] | None = None,
    *,
    times: Sequence[float | int],
    decay: float | int = 0.0,
    decoupling: float | int = 0.0,
    kind: Kind = "ntk",
    k_train_train: Float[Any, "n n"] | None = None,
    batch_size: int | None = None,
    memory: int | None = None,
    progress: bool = False,
) -> list[KernelPredictor]:
    """Gradient flow on the logistic loss in the kernel's space, at several times: f_t(x) = Θ(x, X) α_t.

    The loss is Σ_i log(1 + e^{−y_i f(x_i)}) + ½ w ‖f‖² + ½ s Σ_i f(x_i)², a sum as for `fit`, with weight
    decay w on the function's norm in the kernel's space and spectral decoupling s on its outputs. A network
    in the lazy regime that starts at f = 0 follows

        α′ = y σ(−y f) − s f − w α,  f = Θ(X, X) α,  α(0) = 0,

    σ the logistic function. It has no closed form: what one eigenvector of Θ has learned lowers the residuals
    y σ(−y f) of all. The end, t = ∞, is the one root: with decay a ridge solution for this loss, and with
    decoupling alone *kernel regression*, as it has f(x_i) = c y_i for all i, σ(−c) = s c.

    Args:
        kernel: as for `fit`, or a Gram matrix by itself.
        x: training inputs X, (n, ...); None beside a matrix.
        targets: y, (n, k), each ±1: of k > 1 outputs each has a problem of two classes of its own.
        times: t ≥ 0, increasing, in the units of `KernelPredictor.at`; infinity where there is decay or
            decoupling.
        decay: w ≥ 0, in the units of a ridge over a time: of `fit`'s loss ρ does the same.
        decoupling: s ≥ 0, without a unit.
        kind: "ntk" or "nngp".
        k_train_train: Θ(X, X) where it exists already.
        batch_size: training points in a block of the predictors.
        memory: bytes for the work on Θ(X, X).
        progress: show the kernel's tqdm bar.

    Returns:
        A predictor for each time, as from `from_coefficients`: called, differentiated, attacked; it has no
        spectrum, as the loss couples the eigenvectors.

    Raises:
        TypeError, ValueError: as `fit`; targets that are not ±1; times that do not increase; infinity without
            decay and decoupling, where the coefficients grow without bound.

    Warns:
        PrecisionWarning: at t = ∞ with decoupling alone, as `fit(..., solver="cholesky")` does.

    Cost: Θ(X, X); for each output some hundred steps of an implicit method, with an n³/3 factorization in
    about one of ten. On 400 digits a second or two for all times. Two n² float64 of memory.
    Source: Pezeshki et al. (2021), arXiv 2011.09468, equations 3 and 16, in the primal.

    >>> y = np.array([[1.0], [-1.0]])
    >>> f, end = fit_logistic(np.diag([4.0, 1.0]), targets=y, times=[1.0, np.inf], decoupling=0.1)
    >>> f.coefficients.ravel().round(3).tolist(), (np.diag([4.0, 1.0]) @ end.coefficients).ravel().round(3)
    ([0.276, -0.422], array([ 1.634, -1.634]))
    """
    decay, decoupling = number("decay", decay), number("decoupling", decoupling)
    moments = _checked(times, decay + decoupling > 0)
    options = {"kind": kind, "batch_size": batch_size, "memory": memory, "progress": progress}
    matrix, targets, inputs, _ = training_problem(kernel, x, targets, k_train_train, check=_signs, **options)
    resolution = rounding(matrix, None)
    unit = float(np.trace(matrix, dtype=np.float64)) / len(matrix) or 1.0
    scaled = matrix.astype(np.float64) / unit
    finite = np.array([t for t in moments if t < math.inf]) * unit
    columns = [_flow(scaled, y, finite, decay / unit, decoupling) for y in targets.T]
    alphas = list(np.stack(columns, axis=-1) / unit)
    if len(alphas) < len(moments):
        alphas.append(_end(matrix, scaled, targets, unit, decay, decoupling, resolution))
    return [
        KernelPredictor(**inputs, resolution=resolution, t=t, given=alpha)
        for t, alpha in zip(moments, alphas, strict=True)
    ]


def _signs(targets: np.ndarray) -> None:
    if not (np.abs(targets) == 1).all():
        raise ValueError(
            "targets must be 1 or -1 for the logistic loss, as data.targets gives, and some are not"
        )


def _checked(times: Unchecked, bounded: bool) -> list[float]:
    if np.ndim(times) != 1:
        raise TypeError(f"times must be a sequence of numbers, such as [1.0, 10.0], got {times!r}")
    moments = [number(f"times[{i}]", t, infinite=True) for i, t in enumerate(times)]
    if not moments or any(b <= a for a, b in itertools.pairwise(moments)):
        raise ValueError(f"times must be one or more and increase, got {moments}")
    if moments[-1] == math.inf and not bounded:
        raise ValueError("times must be finite without decay and decoupling: the loss has no minimum")
    return moments


def _flow(theta: np.ndarray, y: np.ndarray, times: np.ndarray, decay: float, decoupling: float) -> np.ndarray:
    """Coefficients (t, n) of one output at finite times."""
    found = np.zeros((len(times), len(y)))
    later = times > 0
    if not later.any():
        return found

    def slope(_: float, alpha: np.ndarray) -> np.ndarray:
        safe_point()
        f = theta @ alpha
        return y * scipy.special.expit(-y * f) - decoupling * f - decay * alpha

    def jacobian(_: float, alpha: np.ndarray) -> np.ndarray:
        return -_curvature(theta, alpha, decay, decoupling)

    made = scipy.integrate.solve_ivp(
        slope,
        (0.0, times[-1]),
        np.zeros_like(y),
        method="BDF",
        t_eval=times[later],
        jac=jacobian,
        rtol=_RELATIVE,
        atol=_ABSOLUTE,
    )
    if not made.success:
        raise ValueError(f"the flow could not be followed to t = {times[-1]:g}: {made.message}")
    found[later] = made.y.T
    return found


def _curvature(theta: np.ndarray, alpha: np.ndarray, decay: float, decoupling: float) -> np.ndarray:
    """−∂α′/∂α, (n, n)."""
    share = scipy.special.expit(theta @ alpha)
    matrix = (share * (1 - share) + decoupling)[:, None] * theta
    matrix.flat[:: len(theta) + 1] += decay
    return matrix


def _end(
    matrix: np.ndarray, theta: np.ndarray, targets: np.ndarray, unit: float, decay: float, decoupling: float,
    resolution: float,
) -> np.ndarray:  # fmt: skip
    """Coefficients (n, k) at t = ∞."""
    if decay == 0:
        level = scipy.optimize.brentq(lambda c: scipy.special.expit(-c) - decoupling * c, 0, 0.5 / decoupling)
        return solve(matrix, level * targets, ridge=0.0, resolution=resolution)
    roots = [_root(theta, y, decay / unit, decoupling) for y in targets.T]
    return np.stack(roots, axis=1) / unit


def _root(theta: np.ndarray, y: np.ndarray, decay: float, decoupling: float) -> np.ndarray:
    """The minimum (n,) of one output, by Newton's method with steps that are halved until they descend."""

    def loss(alpha: np.ndarray) -> float:
        f = theta @ alpha
        fit = np.logaddexp(0, -y * f).sum() + decoupling / 2 * f @ f
        return float(fit + decay / 2 * alpha @ f)

    alpha, value = np.zeros_like(y), len(y) * math.log(2)
    for _ in range(_ROUNDS):
        safe_point()
        f = theta @ alpha
        slope = y * scipy.special.expit(-y * f) - decoupling * f - decay * alpha
        step = scipy.linalg.solve(_curvature(theta, alpha, decay, decoupling), slope)
        size = 1.0
        while (lower := loss(alpha + size * step)) > value and size > 1e-10:
            size /= 2
        if lower > value:  # by rounding alone
            return alpha
        alpha, value = alpha + size * step, lower
        if np.abs(step).max() <= 1e-13 * np.abs(alpha).max():
            return alpha
    return alpha
