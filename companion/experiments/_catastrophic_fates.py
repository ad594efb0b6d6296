"""What became of runs, and of alarms in them: one definition for chapter 7 and the scorecard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from companion import catastrophic
from companion.experiments._catastrophic_cases import METHODS, SIDES

MARGIN = 0.1
"""Of detectors, in units of the range of their signal in the runs that calibrate them."""
CALIBRATION = 2
"""Detectors are calibrated on PGD runs of the first so many seeds, however many seeds there are."""
AHEAD = 3
"""An alarm is a warning within so many epochs before a collapse."""
ROBUST = 0.2
"""Accuracy under PGD from which on a network can lose robustness."""
ONE_STEP = ("isotropic noise", "gradient noise", "fgsm, random start")
"""Methods of one step beside FGSM: controls of detectors, with PGD training."""


def calibrating(calibration: int) -> range:
    """The seeds on whose PGD runs detectors are calibrated; no later count of seeds changes them.

    Args:
        calibration: that of the configuration, with which switches are calibrated.
    """
    return range(min(CALIBRATION, calibration))


def calibrated(calm: Sequence[Mapping[str, np.ndarray]]) -> list[catastrophic.Detector]:
    """A detector for each of `SIGNALS`, with `MARGIN` silent on these runs of PGD."""
    return [
        catastrophic.calibrate(
            [one["signals"][:, i] for one in calm], side=side, relative=True, margin=MARGIN
        )
        for i, side in enumerate(SIDES)
    ]


def alarms(
    detectors: Sequence[catastrophic.Detector],
    signals: Mapping[tuple[str, int], np.ndarray],
    epochs: np.ndarray,
    seeds: int,
) -> np.ndarray:
    """When each detector rings (signals, 2, seeds) on "fgsm" and "pgd"; NaN where there is no run."""
    found = np.full((len(detectors), 2, seeds), np.nan)
    for (method, seed), values in signals.items():
        for i, detector in enumerate(detectors):
            found[i, METHODS.index(method), seed] = catastrophic.alarm(epochs, values[:, i], detector)
    return found


@dataclass(frozen=True)
class Fates:
    """What became of runs; arrays over runs.

    Attributes:
        collapse: epoch of the first record of a strict collapse (`catastrophic.collapsed`), infinity for
            none.
        onset: epoch of that or of a fall by half, whichever comes first.
        robust: whether accuracy under PGD was at least `ROBUST` in a record before the collapse.
        sudden: whether the last record before the collapse had more than half of the highest accuracy under
            PGD until then, and that at least `ROBUST`.
    """

    collapse: Float[np.ndarray, " n"]
    onset: Float[np.ndarray, " n"]
    robust: Bool[np.ndarray, " n"]
    sudden: Bool[np.ndarray, " n"]


def fates(
    epochs: Float[np.ndarray, " r"], fgsm: Float[np.ndarray, "n r"], robust: Float[np.ndarray, "n r"]
) -> Fates:
    """What became of runs.

    Args:
        epochs: of the records.
        fgsm: accuracy under FGSM.
        robust: accuracy under PGD.
    """
    found = []
    masks = catastrophic.collapsed(fgsm, robust), catastrophic.fallen(robust, least=ROBUST)
    for accuracy, strict, fell in zip(robust, *masks, strict=True):
        first = [epochs[mask.argmax()] if mask.any() else np.inf for mask in (strict, fell)]
        before = accuracy[: strict.argmax()] if strict.any() else accuracy[:0]
        best = before.max(initial=0.0)
        was = bool(best >= ROBUST)
        found.append((first[0], min(first), was, was and bool(before[-1] > best / 2)))
    collapse, onset, was, sudden = np.array(found, float).reshape(-1, 4).T
    return Fates(collapse, onset, was.astype(bool), sudden.astype(bool))


def outcome(
    alarms: Float[np.ndarray, " n"], onsets: Float[np.ndarray, " n"]
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Which first alarms warn, and which are false; those at an onset or after it are neither.

    Args:
        alarms: epochs, infinity for none.
        onsets: of the same runs, infinity for none.

    Returns:
        Whether it came within `AHEAD` epochs before the onset; whether it came earlier.
    """
    early = alarms < onsets - AHEAD
    return (alarms < onsets) & ~early, early
