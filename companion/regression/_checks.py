"""What kernel regression takes: checked kernels and targets, and the warning when digits are lost."""

import warnings

import numpy as np

from companion._core.checks import finite, number
from companion._core.words import Unchecked

# An estimate of 0.1 means that not even the second digit of a prediction is certain.
LOST = 0.1
_BLOCK = 1024


class PrecisionWarning(UserWarning):
    """Raised if rounding in the kernel may change predictions by a tenth: no second digit is certain."""


def warn_of_loss(*, smallest: float, resolution: float, stacklevel: int) -> None:
    """Say what is lost and what helps; one text for all times, so that a loop over t shows it once."""
    warnings.warn(
        f"predictions lose digits: the kernel's rounding error, about {resolution:.2g}, is too large beside "
        f"its smallest eigenvalue plus ridge, {smallest:.2g}, for these targets. Add a ridge, stop early, "
        "compute the kernel in float64, or pass `resolution` if the kernel is more precise than that.",
        PrecisionWarning,
        stacklevel=stacklevel + 1,
    )


def kernel_and_targets(
    k_train_train: Unchecked, targets: Unchecked, *, symmetric: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The kernel in its own precision and the targets in float64; or an error.

    Reads the kernel in blocks: no temporary array of n² entries. One that is known to be finite and
    `symmetric`, as `gram` makes it, is not read.
    """
    kernel = real("k_train_train", k_train_train)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not len(kernel):
        raise ValueError(f"k_train_train must be square (n, n), got shape {kernel.shape}")
    targets = targets_of(targets, len(kernel))
    if not symmetric:
        _symmetric(kernel)
    return kernel, targets


def targets_of(targets: Unchecked, n: int) -> np.ndarray:
    """Targets (n, k) in float64; or an error."""
    targets = real("targets", targets)
    if targets.ndim != 2 or len(targets) != n:
        labels = ": of labels, data.targets(labels)" if targets.shape == (n,) else ""
        raise ValueError(f"targets must have shape ({n}, k), got {targets.shape}{labels}")
    return finite("targets", targets).astype(np.float64)


def _symmetric(kernel: np.ndarray) -> None:
    bad, largest, asymmetry = 0, 0.0, 0.0
    corners = range(0, len(kernel), _BLOCK)
    for i in corners:
        for j in (j for j in corners if j >= i):
            tile, mirror = kernel[i : i + _BLOCK, j : j + _BLOCK], kernel[j : j + _BLOCK, i : i + _BLOCK].T
            wrong = tile.size - np.isfinite(tile).sum()
            wrong += mirror.size - np.isfinite(mirror).sum() if j > i else 0
            bad += int(wrong)
            if not bad:
                largest = max(largest, float(np.abs(tile).max()))
                asymmetry = max(asymmetry, float(np.abs(tile - mirror).max()))
    if bad:
        raise ValueError(
            f"k_train_train has {bad} NaN or infinite entries of {kernel.size}, all must be finite"
        )
    if asymmetry > 1e3 * np.finfo(kernel.dtype).eps * largest:
        single = asymmetry <= 1e3 * np.finfo(np.float32).eps * largest
        hint = ", as float32 rounds: (k + k.T) / 2 is" if single else ""
        raise ValueError(
            f"k_train_train must be symmetric, entries differ from their mirror by {asymmetry:.3g}{hint}"
        )


def rounding(kernel: np.ndarray, resolution: float | None) -> float:
    """The kernel's rounding error in the units of its eigenvalues: as told, or √ε times the largest diagonal.

    An arccosine near 1 turns a rounding of ε into √ε: no kernel on images should be worse.
    """
    if resolution is not None:
        return number("resolution", resolution)
    return float(np.sqrt(np.finfo(kernel.dtype).eps) * np.abs(np.diag(kernel)).max())


def real(name: str, value: Unchecked) -> np.ndarray:
    """A real array in float32 or float64; integers become float64."""
    array = np.asarray(value)
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64, got {array.dtype}")
    return array


def cross_kernel(k_test_train: Unchecked, n: int) -> np.ndarray:
    """Θ(x, X) in float64 for n training points; or an error."""
    kernel = real("k_test_train", k_test_train)
    if kernel.ndim != 2 or kernel.shape[1] != n:
        raise ValueError(f"k_test_train must have shape (m, {n}), got {kernel.shape}")
    return finite("k_test_train", kernel).astype(np.float64, copy=False)
