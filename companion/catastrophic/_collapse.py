"""Catastrophic overfitting in records: where robust accuracy is lost, and since when."""

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from companion._core.checks import Numbers, count, number


def fallen(
    robust: Float[Any, "*runs r"] | Numbers, *, fall: float = 0.5, least: float | int = 0.0
) -> Bool[np.ndarray, "*runs r"]:
    """Records in which robust accuracy is below a share of its highest value so far.

    Args:
        robust: accuracy under a strong attack, records on the last axis; NaN where there is none.
        fall: the share, in (0, 1).
        least: what the highest value must have reached, so that the noise of early epochs is no fall.

    Returns:
        The mask, in the shape of `robust`.

    >>> fallen([0.1, 0.6, 0.5, 0.2])
    array([False, False, False,  True])
    """
    fall = number("fall", fall, open_end=True)
    if fall >= 1:
        raise ValueError(f"fall must be less than 1, got {fall}")
    robust = np.asarray(robust, float)
    highest = np.fmax.accumulate(robust, axis=-1)
    return (robust < fall * highest) & (highest >= number("least", least))


def collapsed(
    fgsm: Float[Any, "*runs r"] | Numbers,
    robust: Float[Any, "*runs r"] | Numbers,
    *,
    gap: float | int = 0.6,
    low: float = 0.1,
    high: float | int = 0.0,
    records: int = 3,
    of: int = 4,
) -> Bool[np.ndarray, "*runs r"]:
    """Records of a network that resists FGSM and no strong attack, several nearly running.

    The gap is asked for, not a level of FGSM accuracy, and one record of a stretch may miss it: accuracy on a
    few hundred images has an error of some hundredths, on which no run's fate should hang.

    Whether it resisted the strong attack before does not count: a network that learns to fool FGSM from the
    beginning has collapsed too.

    Args:
        fgsm: accuracy under FGSM, records on the last axis; NaN where there is none.
        robust: accuracy under a strong attack, of the same shape.
        gap: accuracy under FGSM is by this above that under the strong attack,
        low: which is below this,
        high: and accuracy under FGSM at least this,
        records: in so many,
        of: out of so many consecutive records.

    Returns:
        The mask, in the shape of both: of such a stretch the records that are so.

    Raises:
        ValueError: shapes that differ; fewer than one record, or more than `of`.

    Source: the phenomenon is Wong et al.'s (2020), arXiv 2001.03994, section 5; the numbers are ours.

    >>> collapsed([0.3, 0.95, 0.95, 0.95], [0.2, 0.05, 0.0, 0.05])
    array([False,  True,  True,  True])
    """
    fgsm, robust = np.asarray(fgsm, float), np.asarray(robust, float)
    if fgsm.shape != robust.shape:
        raise ValueError(f"fgsm and robust must be of one shape, got {fgsm.shape} and {robust.shape}")
    if count("records", records) > count("of", of):
        raise ValueError(f"records must be at most of = {of}, got {records}")
    # A little room: .7 − .1 is less than .6 in floating point.
    there = (fgsm - robust >= number("gap", gap) - 1e-6) & (robust < low) & (fgsm >= high)
    found = np.zeros_like(there)
    for first in range(max(there.shape[-1] - of, 0) + 1):
        stretch = slice(first, first + of)
        enough = there[..., stretch].sum(axis=-1, keepdims=True) >= records
        found[..., stretch] |= there[..., stretch] & enough
    return found


def onset(epochs: Numbers, robust: Numbers, *, fall: float = 0.5, least: float | int = 0.0) -> float:
    """When robust accuracy first falls below a share of its highest value so far; infinity if never.

    Args:
        epochs: of the records.
        robust: accuracy under a strong attack (r,).
        fall: as for `fallen`.
        least: as for `fallen`.

    Returns:
        The epoch of that record.

    Raises:
        ValueError: as for `fallen`.

    >>> onset([0, 1, 2, 3], [0.1, 0.6, 0.5, 0.2])
    3.0
    """
    epochs, robust = series(epochs, robust)
    return first_time(epochs, fallen(robust, fall=fall, least=least))


def series(epochs: Numbers, values: Numbers) -> tuple[np.ndarray, np.ndarray]:
    epochs, values = np.asarray(epochs, float), np.asarray(values, float)
    if epochs.shape != values.shape or epochs.ndim != 1:
        raise ValueError(f"epochs and values must be of one length, got {epochs.shape} and {values.shape}")
    return epochs, values


def first_time(epochs: np.ndarray, where: np.ndarray) -> float:
    return float(epochs[where.argmax()]) if where.any() else math.inf
