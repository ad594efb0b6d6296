"""Is a feature useful? Tests against guessing for many features at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

from companion._core.checks import class_labels, finite, number
from companion._core.words import Unchecked
from companion.statistics import Estimate, proportion


@dataclass(frozen=True)
class Usefulness:
    """What q features are worth as classifiers, one by one.

    Attributes:
        accuracy: usefulness ρ_i with its Wilson interval, an `Estimate` of q values.
        majority: accuracy of always naming the most frequent class.
        p_value: of the exact one-sided binomial test of "ρ_i is at most the majority rate", (q,).
        adjusted: these p-values after Holm's correction for q tests: those ≤ α are the features of which all
            are useful, with a chance of at most α that any one is not.
    """

    accuracy: Estimate
    majority: float
    p_value: Float[np.ndarray, " q"]
    adjusted: Float[np.ndarray, " q"]


@dataclass(frozen=True)
class Correlation:
    """How features go together with the classes, in the sense of Ilyas et al. (2019), one by one.

    Attributes:
        r: r_i with its interval (Fisher), an `Estimate` of q values.
        p_value: of the one-sided test of "r_i is at most 0" (Student), (q,).
        adjusted: after Holm's correction.
    """

    r: Estimate
    p_value: Float[np.ndarray, " q"]
    adjusted: Float[np.ndarray, " q"]


def usefulness(correct: Bool[Any, "m q"], labels: Int[Any, " m"], *, level: float = 0.95) -> Usefulness:
    """Accuracies of features, tested against the majority rate, with many tests accounted for.

    Args:
        correct: from `correct`, on clean inputs.
        labels: the classes of these inputs, (m,).
        level: coverage of the intervals.

    Returns:
        See `Usefulness`. A feature that names one class everywhere has at best the majority rate: its p-value
        is near one half.

    Raises:
        ValueError: arrays that do not fit.

    Source: Holm (1979), Scandinavian Journal of Statistics 6.

    >>> right = np.ones((20, 1), bool)
    >>> usefulness(right, np.repeat([0, 1], 10)).p_value * 2**20
    array([1.])
    """
    correct = booleans(correct)
    labels = class_labels("labels", labels, len(correct))
    majority = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    p = scipy.stats.binom.sf(correct.sum(axis=0) - 1, len(correct), majority)
    return Usefulness(proportion(correct, level=level), majority, p, holm(p))


def correlation(
    outputs: Float[Any, "m q k"], targets: Float[Any, "m k"], *, level: float = 0.95
) -> Correlation:
    """The correlation of each feature with the classes: Ilyas' usefulness E[y f], of standardized f.

    With one output it is Pearson's r of f⁽ⁱ⁾ and y. With k it is that of φ_i and c_iᵀ y, where
    f⁽ⁱ⁾ = φ_i c_i: the same for k = 1.

    Args:
        outputs: f⁽ⁱ⁾(x), from `outputs`.
        targets: y of the same inputs, as for regression (`data.targets`): ±1, or centered one-hot.
        level: coverage of the intervals.

    Returns:
        See `Correlation`. A feature or a target that does not vary has r = 0 and p = 1.

    Raises:
        ValueError: arrays that do not fit, fewer than four inputs, NaN.

    Source: Ilyas et al. (2019), arXiv 1905.02175, section 2: a feature is ρ-useful if E[y f(x)] ≥ ρ.

    >>> y = np.array([[1.0], [-1.0], [1.0], [-1.0], [1.0]])
    >>> f"{correlation(3 * y[:, None] + 7, y).r[0].value:.6f}"
    '1.000000'
    """
    phi, wanted = patterns(outputs, targets)
    scale = np.sqrt((phi**2).sum(axis=0) * (wanted**2).sum(axis=0))
    r = np.divide((phi * wanted).sum(axis=0), scale, out=np.zeros(len(scale)), where=scale > 0).clip(-1, 1)
    m, z = len(phi), scipy.stats.norm.isf((1 - checked_level(level)) / 2)
    with np.errstate(divide="ignore"):
        p = np.where(scale > 0, scipy.stats.t.sf(r * np.sqrt((m - 2) / (1 - r**2)), m - 2), 1.0)
        ends = np.tanh(np.arctanh(r) + z / np.sqrt(m - 3) * np.array([[-1], [1]]))
    return Correlation(Estimate(r, *ends, level, m), p, holm(p))


def holm(p: Float[Any, " q"]) -> Float[np.ndarray, " q"]:
    """Holm's adjusted p-values: the i-th smallest times q − i + 1, made monotone, at most 1.

    Args:
        p: (q,) p-values in [0, 1].

    Returns:
        (q,), in the order of p: to reject those ≤ α errs once or more with probability at most α, whatever
        the tests have to do with each other.

    Raises:
        ValueError: numbers outside [0, 1].

    Source: Holm (1979), Scandinavian Journal of Statistics 6.

    >>> holm(np.array([0.02, 0.01, 0.5]))
    array([0.04, 0.03, 0.5 ])
    """
    p = np.asarray(p, float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p must be one axis of numbers in [0, 1]")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1, p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def patterns(outputs: Float[Any, "m q k"], targets: Float[Any, "m k"]) -> tuple[np.ndarray, np.ndarray]:
    """φ_i(x) and c_iᵀ y of each feature, centered over the inputs, (m, q) both, up to a length and a sign."""
    f, y = finite("outputs", np.asarray(outputs, float)), finite("targets", np.asarray(targets, float))
    if f.ndim != 3 or y.shape != (f.shape[0], f.shape[2]) or len(f) < 4 or not f.size:
        raise ValueError(
            f"outputs must be (m, q, k) and targets (m, k), q ≥ 1 and m ≥ 4, got {f.shape} and {y.shape}"
        )
    # c up to its length and sign, both of which cancel: the row of each feature that is largest.
    largest = np.abs(f).sum(axis=2).argmax(axis=0)
    c = f[largest, np.arange(f.shape[1])]
    length = np.linalg.norm(c, axis=1, keepdims=True)
    c = np.divide(c, length, out=np.zeros_like(c), where=length > 0)
    return _centered(np.einsum("mqk,qk->mq", f, c)), _centered(y @ c.T)


def _centered(values: np.ndarray) -> np.ndarray:
    """Columns less their means; exactly zero where they vary by rounding only."""
    centered = values - values.mean(axis=0)
    rounding = 8 * np.finfo(float).eps * np.abs(values).max(axis=0)
    return np.where(np.abs(centered).max(axis=0) > rounding, centered, 0.0)


def booleans(correct: Unchecked) -> np.ndarray:
    correct = np.asarray(correct)
    if correct.ndim != 2 or correct.dtype != bool or not correct.size:
        raise ValueError(
            f"correct must be (m, q) booleans with m ≥ 1 and q ≥ 1, got {correct.shape} {correct.dtype}"
        )
    return correct


def checked_level(level: float) -> float:
    if not 0 < number("level", level) < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    return level
