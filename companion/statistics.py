"""Estimates with their intervals: no number in the book stands without one."""

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

from companion._core.checks import class_labels, count, finite, predicted

__all__ = ["Estimate", "accuracy", "mean", "paired_shares", "power_law", "proportion"]


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval, or several; formatted as "0.912 [0.893, 0.928]".

    Attributes:
        value: the estimate, or an array of them: `estimate[i]` is then one, `estimate[:5]` are five.
        low: lower end of the interval, as many as there are values.
        high: upper end.
        level: coverage of each interval, such as 0.95.
        n: how many observations each rests on.
    """

    value: float | Float[np.ndarray, " q"]
    low: float | Float[np.ndarray, " q"]
    high: float | Float[np.ndarray, " q"]
    level: float
    n: int

    def __getitem__(self, index: int | np.integer | slice | tuple | list | np.ndarray) -> "Estimate":
        """One or some of several."""
        return Estimate(self.value[index], self.low[index], self.high[index], self.level, self.n)

    def as_array(self) -> Float[np.ndarray, "... 3"]:
        """Value, low and high along the last axis, as records keep them."""
        return np.stack([self.value, self.low, self.high], axis=-1)

    def __format__(self, spec: str) -> str:
        """Value and interval, each in the given number format (.3f by default); several with commas."""
        spec = spec or ".3f"
        if np.ndim(self.value):
            return ", ".join(format(self[i], spec) for i in range(len(self.value)))
        low, high = (_written(end, spec) for end in (self.low, self.high))
        return f"{_written(self.value, spec)} [{low}, {high}]"

    def __str__(self) -> str:
        """The default format."""
        return format(self)


def _written(end: float | np.floating, spec: str) -> str:
    """A value or an end of an interval, which may have none; what is rounded to 0 has no minus."""
    if np.isinf(end):
        return "-∞" if end < 0 else "∞"
    return format(float(end), re.sub(r"^((?:.?[<>=^])?[-+ ]?)z?", r"\1z", spec))


def accuracy(outputs: Float[Any, "n k"], labels: Int[Any, " n"], *, level: float = 0.95) -> Estimate:
    """Share of correct predictions with its Wilson interval.

    One output column means two classes, predicted by sign (label 1 where the output is positive);
    more columns predict by argmax.

    Args:
        outputs: (n, 1) or (n, k), finite.
        labels: (n,) integers, 0 or 1 for one column, in [0, k) otherwise.
        level: coverage, in (0, 1).

    Returns:
        The estimate, in [0, 1].

    Raises:
        TypeError: labels that are no integers.
        ValueError: shapes that do not fit, NaN, labels out of range, level outside (0, 1).

    Source: Wilson (1927), Journal of the American Statistical Association 22.

    >>> print(accuracy(np.array([[1.0], [-1.0], [2.0], [1.0]]), np.array([1, 0, 1, 0])))
    0.750 [0.301, 0.954]
    """
    outputs = np.asarray(outputs)
    if outputs.ndim != 2 or not outputs.size:
        raise ValueError(f"outputs must be (n, k) with n ≥ 1, got {outputs.shape}")
    labels = class_labels("labels", labels, len(outputs), outputs.shape[1])
    finite("outputs", outputs)
    return proportion(predicted(outputs) == labels, level=level)


def proportion(right: Bool[Any, "..."], *, level: float = 0.95) -> Estimate:
    """Share of observations that are so, with its Wilson interval; of each column where there are several.

    Args:
        right: (n,) booleans, or (n, q), such as `features.correct` and `features.correct_under_attack` give:
            then usefulness or robustness of each of q features.
        level: coverage of each interval, in (0, 1).

    Returns:
        The estimate, in [0, 1]; of q columns one with arrays (q,).

    Raises:
        ValueError: no booleans, another shape, n = 0, level outside (0, 1).

    Source: Wilson (1927), Journal of the American Statistical Association 22.

    >>> print(proportion(np.array([True, False, True, True])))
    0.750 [0.301, 0.954]
    """
    right = np.asarray(right)
    if right.ndim not in (1, 2) or right.dtype != bool or not len(right):
        cure = ": right.astype(bool), of 0 and 1" * (right.dtype.kind in "iu")
        raise ValueError(
            f"right must be (n,) or (n, q) booleans, n ≥ 1, got {right.shape} {right.dtype}{cure}"
        )
    _check_level(level)
    n, share, z = len(right), right.mean(axis=0), scipy.stats.norm.isf((1 - level) / 2)
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low, high = np.where(share == 0, 0.0, center - half), np.where(share == 1, 1.0, center + half)
    if right.ndim == 1:
        return Estimate(float(share), float(low), float(high), level, n)
    return Estimate(share, low, high, level, n)


def paired_shares(first: int, second: int, n: int, *, level: float = 0.95) -> Estimate:
    """The difference of two shares of the same n observations, such as two attacks on the same images.

    With b that count for the first share alone, and c for the second alone, it is (b − c) / n. The interval
    has half an observation more in each of the four cells, (b − c) / N ± z √(b + c + 1 − (b − c)² / N) / N
    with N = n + 2: so where b = c = 0 it says how small a difference n observations can miss.

    Args:
        first: b ≥ 0.
        second: c ≥ 0, with b + c ≤ n.
        n: observations, n ≥ 1.
        level: coverage, in (0, 1).

    Returns:
        The estimate, in [−1, 1].

    Raises:
        TypeError: counts that are no integers, such as shares.
        ValueError: counts below 0 or above n, level outside (0, 1).

    Source: Agresti & Min (2005), Statistics in Medicine 24.

    >>> print(paired_shares(0, 0, 200))
    0.000 [-0.010, 0.010]
    """
    first, second = (count(name, one, least=0) for name, one in (("first", first), ("second", second)))
    n = count("n", n)
    if first + second > n:
        raise ValueError(f"n must be first + second or more, got {first}, {second}, {n}")
    _check_level(level)
    gap, wide, z = first - second, first + second + 1, scipy.stats.norm.isf((1 - level) / 2)
    half = z * np.sqrt(wide - gap**2 / (n + 2)) / (n + 2)
    middle = gap / (n + 2)
    # Half an observation draws inward: a narrow interval would leave out a value at the end of [−1, 1].
    low, high = min(middle - half, gap / n), max(middle + half, gap / n)
    return Estimate(gap / n, float(max(low, -1.0)), float(min(high, 1.0)), level, n)


def mean(
    values: Float[Any, " n"],
    *,
    level: float = 0.95,
    bounds: tuple[float | int, float | int] = (-math.inf, math.inf),
) -> Estimate:
    """Mean of independent values, such as one for each seed, with Student's interval, mean ± t · s / √n.

    Args:
        values: (n,), n ≥ 2, finite.
        level: coverage, in (0, 1).
        bounds: which the values cannot leave, such as (0, 1) for shares. The interval is cut there: what it
            loses the mean cannot be, so it covers as often as before.

    Returns:
        The estimate. For two conditions on the same seeds, give it their differences.

    Raises:
        ValueError: fewer than two values, another shape, NaN, values out of bounds, level outside (0, 1).

    Source: Student (1908), Biometrika 6.

    >>> print(mean(np.array([1.0, 2.0, 3.0])))
    2.000 [-0.484, 4.484]
    >>> print(mean(np.array([0.7, 0.9, 0.95]), bounds=(0, 1)))
    0.850 [0.521, 1.000]
    """
    values = finite("values", np.asarray(values, float))
    _check_level(level)
    lowest, highest = bounds
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values must be (n,) with n of at least 2, got shape {values.shape}")
    least, most = values.min(), values.max()
    if not lowest <= least <= most <= highest:
        raise ValueError(
            f"values must lie within bounds, {lowest:g} to {highest:g}, got {least:g} to {most:g}"
        )
    middle, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    half = float(scipy.stats.t.ppf(0.5 + level / 2, len(values) - 1) * error)
    low, high = max(middle - half, lowest), min(middle + half, highest)
    return Estimate(float(middle), float(low), float(high), level, len(values))


def power_law(
    x: Float[Any, " m"], samples: Float[Any, "seeds m"], *, level: float = 0.95
) -> tuple[Estimate, float]:
    """Exponent a and prefactor c of samples ≈ c xᵃ, by least squares on the logarithms.

    Each seed gives one slope; the estimate is their mean with Student's interval over the seeds, so
    points of one seed need not be independent of each other.

    Args:
        x: (m,) positive, at least two different values.
        samples: (seeds, m) positive, at least two seeds.
        level: coverage of the interval, in (0, 1).

    Returns:
        The exponent as an `Estimate` with n = seeds, and the prefactor c.

    Raises:
        ValueError: shapes that do not fit, values that are not positive, fewer than two seeds or points.

    >>> x = np.array([1.0, 2.0, 4.0])
    >>> exponent, c = power_law(x, np.stack([3 * x**-0.5, 3 * x**-0.5]))
    >>> round(exponent.value, 6), round(c, 6)
    (-0.5, 3.0)
    """
    x, samples = np.asarray(x, float), np.asarray(samples, float)
    if samples.ndim != 2 or samples.shape[1:] != x.shape or len(samples) < 2 or len(np.unique(x)) < 2:
        raise ValueError(
            "power_law wants x (m,) with two different values and samples (seeds, m) of two seeds or more, "
            f"got {x.shape} and {samples.shape}"
        )
    _check_level(level)
    finite("x", x)
    finite("samples", samples)
    if not (x > 0).all() or not (samples > 0).all():
        raise ValueError("x and samples must be positive to have a power law")
    slopes, intercepts = np.polyfit(np.log(x), np.log(samples).T, 1)
    exponent = mean(slopes, level=level)
    return exponent, float(np.exp(intercepts.mean()))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
