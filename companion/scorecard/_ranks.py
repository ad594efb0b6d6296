"""Rank correlations: of independent pairs, and of a series whose neighbors go together."""

import math

import numpy as np
import scipy.stats

from companion._core.checks import Numbers
from companion.statistics import Estimate

DRAWS = 1000
"""Bootstrap samples."""


def rank_correlation(x: Numbers, y: Numbers, *, level: float = 0.95) -> Estimate:
    """Spearman's correlation with the interval of Bonett & Wright (2000), Psychometrika 65.

    Args:
        x: at least four values, not all equal.
        y: as many, not all equal.
        level: of the interval.

    Returns:
        The correlation with its interval.

    Raises:
        ValueError: for fewer values, other lengths, or a constant.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 4:
        raise ValueError(
            f"x and y must be equally long and have at least 4 values, got {x.shape} and {y.shape}"
        )
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError("x and y must not be constant: there is nothing to rank")
    value, n = float(scipy.stats.spearmanr(x, y)[0]), len(x)
    half = scipy.stats.norm.ppf(0.5 + level / 2) * math.sqrt((1 + value**2 / 2) / (n - 3))
    middle = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, value)))
    return Estimate(value, math.tanh(middle - half), math.tanh(middle + half), level, n)


def rank_trend(y: Numbers, *, block: int | None = None, level: float = 0.95, seed: int = 0) -> Estimate:
    """Spearman's correlation of a series with its order, with a bootstrap interval over blocks of neighbors.

    Neighboring eigenfeatures are no independent draws: they have like eigenvalues, are attacked on the same
    images, and mix. So whole blocks of b neighbors are drawn with replacement (on a circle, so that each is
    drawn as often), as many as make up the series, each with its places, and the interval is that of the
    quantiles of the correlations of the samples. It covers where what is left of the series beside its trend
    is forgotten within b places; independence is b = 1.

    Args:
        y: in their order, at least eight, not all equal.
        block: b ≥ 1, at most a half of them; None for √n rounded up.
        level: of the interval.
        seed: of the draws, `DRAWS` of them.

    Returns:
        The correlation with its interval; its n counts blocks.

    Raises:
        ValueError: fewer values, a constant, or a block of another length.

    Cost: O(`DRAWS` n log n).

    Source: Politis & Romano (1992), in Exploring the Limits of Bootstrap (blocks on a circle).

    >>> print(rank_trend([9, 8, 7, 6, 5, 4, 3, 2, 1]))
    -1.000 [-1.000, -1.000]
    """
    y = np.asarray(y, float)
    if y.ndim != 1 or len(y) < 8 or np.ptp(y) == 0:
        raise ValueError(f"y must have at least 8 values that are not all equal, got shape {y.shape}")
    n = len(y)
    block = math.isqrt(n - 1) + 1 if block is None else block
    if not 1 <= block <= n // 2:
        raise ValueError(f"block must be from 1 to {n // 2}, got {block}")
    blocks = -(-n // block)
    starts = np.random.default_rng(seed).integers(n, size=(DRAWS, blocks))
    places = ((starts[..., None] + np.arange(block)) % n).reshape(DRAWS, -1)[:, :n]
    ranks = [scipy.stats.rankdata(one, axis=1) for one in (places, y[places])]
    one, other = (part - part.mean(axis=1, keepdims=True) for part in ranks)
    lengths = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    found = ((one * other).sum(axis=1) / np.where(lengths > 0, lengths, np.nan))[lengths > 0]
    low, high = np.quantile(found, [0.5 - level / 2, 0.5 + level / 2])
    value = float(scipy.stats.spearmanr(np.arange(n), y)[0])
    return Estimate(value, min(float(low), value), max(float(high), value), level, blocks)
