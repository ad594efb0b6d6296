"""How useful is a whole set of features on average? With intervals that resample the images."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from companion._core.checks import count, random_key
from companion._core.types import Key
from companion.features._tests import booleans, checked_level, patterns
from companion.statistics import Estimate


def mean_accuracy(
    correct: Bool[Any, "m q"], *, key: Key, level: float = 0.95, resamples: int = 1000
) -> Estimate:
    """The mean over q features of their usefulness, with a bootstrap interval over the images.

    All features are scored on the same m images: their accuracies are not q independent numbers, and a
    standard error over features can be far too small. Here whole images are drawn again, with all that the
    features say of them.

    Args:
        correct: from `correct`, (m, q), q ≥ 1.
        key: a JAX random key, of the images drawn.
        level: coverage of the interval.
        resamples: how many times m images are drawn.

    Returns:
        The mean and the ends of the percentile interval, n = m.

    Raises:
        TypeError, ValueError: arrays, level, key or a number that do not fit.

    Cost: O(resamples m). Source: Efron (1979), Annals of Statistics 7.

    >>> two = np.repeat([[True], [False]], 50, axis=0)
    >>> alone, copies = (mean_accuracy(np.repeat(two, q, axis=1), key=jax.random.key(0)) for q in (1, 900))
    >>> bool(copies.low == alone.low < 0.45)  # 900 copies of a feature know no more than one
    True
    """
    each = booleans(correct).mean(axis=1)
    weights = _resampled(len(each), resamples, key)
    return _percentiles(each.mean(), weights @ each, level, len(each))


def mean_correlation(
    outputs: Float[Any, "m q k"],
    targets: Float[Any, "m k"],
    *,
    key: Key,
    level: float = 0.95,
    resamples: int = 1000,
) -> Estimate:
    """The mean over q features of their correlation with the class, with a bootstrap interval over images.

    Args:
        outputs: f⁽ⁱ⁾(x), from `outputs`, as for `correlation`.
        targets: y of the same inputs.
        key: a JAX random key, of the images drawn.
        level: coverage of the interval.
        resamples: how many times m images are drawn.

    Returns:
        The mean of `correlation(outputs, targets).r` and the ends of the percentile interval, n = m. A
        feature that does not vary among the images drawn counts as 0.

    Raises:
        TypeError, ValueError: arrays, level, key or a number that do not fit.

    Cost: O(resamples m q). Source: Efron (1979), Annals of Statistics 7.
    """
    phi, wanted = patterns(outputs, targets)
    weights = _resampled(len(phi), resamples, key)
    whole = np.full((1, len(phi)), 1 / len(phi))
    return _percentiles(_mean_r(phi, wanted, whole)[0], _mean_r(phi, wanted, weights), level, len(phi))


def _mean_r(phi: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the features of Pearson's r, the images weighted, (draws,). Both come centered."""
    left, right = weights @ phi, weights @ wanted
    product = weights @ (phi * wanted) - left * right
    first, second = weights @ phi**2 - left**2, weights @ wanted**2 - right**2
    # A feature that is the same of all images drawn has a variance of rounding.
    varies = (first > 1e-12 * (phi**2).mean(axis=0)) & (second > 1e-12 * (wanted**2).mean(axis=0))
    r = np.where(varies, product, 0) / np.sqrt(np.where(varies, first * second, 1))
    return r.mean(axis=1)


def _resampled(m: int, resamples: int, key: Key) -> np.ndarray:
    """Weights (resamples, m) of the images drawn with replacement; each row sums to 1."""
    random_key("key", key)
    drawn = np.asarray(jax.random.randint(key, (count("resamples", resamples), m), 0, m, np.int32))
    return np.stack([np.bincount(row, minlength=m) for row in drawn]) / m


def _percentiles(value: np.floating | float, draws: np.ndarray, level: float, m: int) -> Estimate:
    tail = (1 - checked_level(level)) / 2
    low, high = np.quantile(draws, (tail, 1 - tail))
    return Estimate(float(value), float(low), float(high), level, m)
