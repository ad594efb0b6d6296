"""What a decomposed training kernel has learned at a time, and what its rounding has spoiled."""

import math
from typing import Protocol, runtime_checkable

import numpy as np

from companion.regression._checks import LOST, warn_of_loss


@runtime_checkable
class Spectrum(Protocol):
    """A predictor, as far as its modes go."""

    eigenvalues: np.ndarray
    projections: np.ndarray
    resolution: float
    ridge: float
    t: float


def refuse_negative(values: np.ndarray, n: int, resolution: float) -> None:
    """Refuse eigenvalues, descending, the last of which is clearly negative."""
    if values[-1] < -max(10 * resolution, n * np.finfo(np.float64).eps * np.abs(values).max()):
        raise ValueError(
            f"k_train_train must be positive semi-definite, its smallest eigenvalue is {values[-1]:.3g}"
        )


def shifted(f: Spectrum) -> np.ndarray:
    """λ_i + ρ, with zero for those that are float64 rounding of Θ."""
    found = f.eigenvalues + f.ridge
    return np.where(found > len(found) * np.finfo(np.float64).eps * f.eigenvalues[0], found, 0.0)


def gains(f: Spectrum) -> np.ndarray:
    """(1 − e^{−(λ_i + ρ)t}) / (λ_i + ρ), (n,); t itself, perhaps infinite, where λ_i + ρ is only rounding."""
    values = shifted(f)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, -np.expm1(-values * f.t) / values, f.t)


def finite_gains(f: Spectrum) -> np.ndarray:
    """The gains, with zero for modes that are only rounding at t = ∞: they are never learned."""
    gain = gains(f)
    return np.where(np.isinf(gain), 0.0, gain)


def learned(f: Spectrum) -> np.ndarray:
    """λ_i (1 − e^{−(λ_i + ρ)t}) / (λ_i + ρ), (n,)."""
    values = shifted(f)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.maximum(f.eigenvalues, 0.0) / values
        return np.where(values > 0, share * -np.expm1(-values * f.t), 0.0)


def lost(f: Spectrum) -> float:
    """The estimate of `rounding_error`."""
    gain = gains(f)
    with np.errstate(invalid="ignore"):
        gone = np.where(np.isinf(gain), 1.0, np.minimum(1.0, f.resolution * gain))
    size = np.linalg.norm(f.projections, axis=1)
    error, fitted = (float(np.linalg.norm(part * size)) for part in (gone, learned(f)))
    if error == 0:
        return 0.0
    return error / fitted if fitted > 0 else math.inf


def warn_if_lost(f: Spectrum, *, stacklevel: int) -> None:
    """PrecisionWarning where that estimate passes a tenth."""
    if lost(f) > LOST:
        smallest = f.eigenvalues[-1] + f.ridge
        warn_of_loss(smallest=smallest, resolution=f.resolution, stacklevel=stacklevel + 1)
