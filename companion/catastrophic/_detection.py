"""Signals that might warn of catastrophic overfitting, and detectors that are scored."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from companion._core.checks import Numbers, count, number, one_of
from companion.catastrophic._collapse import first_time, series
from companion.storage import KernelSequence, matrix
from companion.training import Run

SPECTRUM = ("top share", "effective rank", "log trace")
SIDES = ("above", "below")


def spectrum_signals(path: KernelSequence, *, top: int = 1) -> dict[str, np.ndarray]:
    """What the spectra of a path of kernels say, one number a kernel, for a `Detector`.

    Args:
        path: kernels K_0, ..., K_T.
        top: how many eigenvalues count as the top.

    Returns:
        "top share" Σ_{i≤top} λ_i / Σ λ_i, "effective rank" (Σλ)² / Σλ², "log trace" ln Σ λ_i; each (T + 1,).

    Raises:
        ValueError: kernels that are no square, symmetric, finite matrices of one size; `top` above that size.

    >>> spectrum_signals([np.eye(4)])["top share"]
    array([0.25])
    """
    kernels = [matrix(f"path[{t}]", np.asarray(kernel, float)) for t, kernel in enumerate(path)]
    if len({len(kernel) for kernel in kernels}) != 1:
        raise ValueError(f"path must hold square kernels of one size, got {[k.shape for k in kernels][:3]}")
    if count("top", top) > len(kernels[0]):
        raise ValueError(f"top must be at most {len(kernels[0])}, the size of the kernels, got {top}")
    values = np.array([np.linalg.eigvalsh(kernel)[::-1] for kernel in kernels])
    total = values.sum(axis=1)
    return {
        "top share": values[:, :top].sum(axis=1) / total,
        "effective rank": total**2 / (values**2).sum(axis=1),
        "log trace": np.log(total),
    }


@dataclass(frozen=True)
class Detector:
    """An alarm where a signal passes a threshold.

    Attributes:
        threshold: as `calibrate` finds it.
        side: "above" or "below", where the alarm is.
        relative: whether the signal is taken as its difference to the mean of its earlier records.
    """

    threshold: float | int
    side: Literal["above", "below"]
    relative: bool = False

    def __post_init__(self) -> None:
        one_of("side", self.side, SIDES)


@dataclass(frozen=True)
class Score:
    """How a detector did on runs that it has not seen.

    Attributes:
        leads: onset minus alarm in epochs, of each run that overfits; −infinity for a missed one.
        false_alarms: share of the runs without an onset in which it rang.
    """

    leads: Float[np.ndarray, " m"]
    false_alarms: float

    @property
    def missed(self) -> float:
        """Share of overfitting runs without an alarm before or at the onset."""
        return float((self.leads < 0).mean()) if len(self.leads) else math.nan


def calibrate(
    calm: Sequence[Numbers],
    *,
    side: Literal["above", "below"],
    relative: bool = False,
    skip: int = 1,
    margin: float | int = 0.0,
) -> Detector:
    """The most sensitive detector that stays silent on runs without overfitting.

    Its threshold is the most extreme value of the signal in these runs, and a margin of `margin` times their
    range beyond it.

    Args:
        calm: the signal of each calm run, or of the calm part of a run.
        side: where the alarm is.
        relative: see `Detector`.
        skip: how many first records are ignored, in running means too: a network that has learned nothing is
            no measure.
        margin: ≥ 0.

    Returns:
        The detector.

    Raises:
        ValueError: no runs, or none with more than `skip` records.

    >>> calibrate([[9.0, 1.0, 2.0], [0.0, 3.0]], side="above").threshold
    3.0
    """
    one_of("side", side, SIDES)
    parts = [_taken(np.asarray(run, float)[count("skip", skip, least=0) :], relative) for run in calm]
    values = np.concatenate(parts) if parts else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError(f"calm must hold runs of more than skip = {skip} records")
    beyond = number("margin", margin) * (values.max() - values.min())
    threshold = values.max() + beyond if side == "above" else values.min() - beyond
    return Detector(float(threshold), side, relative)


def alarm(epochs: Numbers, signal: Numbers, detector: Detector, *, skip: int = 1) -> float:
    """When a detector first rings; infinity if never. A record whose signal is NaN is left out.

    Args:
        epochs: of the records (r,).
        signal: of a run (r,).
        detector: from `calibrate`, on other runs.
        skip: as for `calibrate`.

    Returns:
        The epoch of that record.

    Raises:
        ValueError: series of two lengths.

    >>> alarm([0, 1, 2], [5.0, 1.0, 4.0], Detector(3.0, "above"))
    2.0
    """
    epochs, signal = series(epochs, signal)
    taken = _taken(signal[count("skip", skip, least=0) :], detector.relative)
    over = taken > detector.threshold if detector.side == "above" else taken < detector.threshold
    return first_time(epochs[skip:], over)


def score(
    epochs: Numbers,
    signals: Sequence[Numbers],
    onsets: Numbers,
    detector: Detector,
    *,
    skip: int = 1,
) -> Score:
    """Lead and false alarms of a detector on held-out runs.

    Args:
        epochs: of the records, of all runs.
        signals: of each run.
        onsets: of each run, from `onset`; infinity for calm runs.
        detector: calibrated on *other* runs.
        skip: as for `calibrate`.

    Returns:
        Leads, and the share of calm runs in which it rings: see `Score`.

    >>> score([0, 1, 2], [[0, 0, 5], [0, 0, 0]], [2, np.inf], Detector(3.0, "above"))
    Score(leads=array([0.]), false_alarms=0.0)
    """
    onsets = np.asarray(onsets, float)
    if len(signals) != len(onsets):
        raise ValueError(f"signals and onsets must be of one length, got {len(signals)} and {len(onsets)}")
    if np.isnan(onsets).any():
        raise ValueError("onsets must not be NaN: infinity is for calm runs")
    rings = np.array([alarm(epochs, signal, detector, skip=skip) for signal in signals])
    hit = np.isfinite(onsets)
    calm = ~hit
    return Score(onsets[hit] - rings[hit], float(np.isfinite(rings[calm]).mean()) if calm.any() else math.nan)


def alarmed(
    detector: Detector, signal: Literal["top share", "effective rank", "log trace"], *, skip: int = 1
) -> Callable[[Run], bool]:
    """A rule for `training.Switch`: the spectrum of the probe's kernel sets off the detector.

    Args:
        detector: calibrated on other runs.
        signal: which of `spectrum_signals`.
        skip: as for `calibrate`.

    Returns:
        The rule; it needs a probe.
    """
    one_of("signal", signal, SPECTRUM)

    def rule(run: Run) -> bool:
        if run.kernels is None:
            raise ValueError("the rule needs kernels: give train a probe")
        return math.isfinite(alarm(run.epochs, spectrum_signals(run.kernels)[signal], detector, skip=skip))

    rule.__qualname__ = f"alarmed {signal} {detector}"
    return rule


def _taken(signal: np.ndarray, relative: bool) -> np.ndarray:
    if not relative:
        return signal
    there = np.isfinite(signal)
    seen, before = (
        np.concatenate([[0], np.cumsum(one)[:-1]]) for one in (there, np.where(there, signal, 0.0))
    )
    return np.where(seen > 0, signal - before / np.maximum(seen, 1), np.where(np.isnan(signal), np.nan, 0.0))
