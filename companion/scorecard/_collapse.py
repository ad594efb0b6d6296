"""Claim B3: catastrophic overfitting, its warnings and its remedy (chapter 7)."""

import functools
from collections.abc import Callable, Iterator

import numpy as np
import scipy.stats

from companion import catastrophic
from companion._core.words import Settings
from companion.catastrophic import Detector
from companion.experiments.catastrophic import (
    AHEAD,
    ONE_STEP,
    SIDES,
    SIGNALS,
    calibrating,
    fates,
    outcome,
)
from companion.results import Result
from companion.scorecard._claim import Claim, Scale, compare, datasets, each, means, radii, radius, span
from companion.scorecard._normalization import UNREAD
from companion.scorecard._verdicts import Comparison, newcombe, paired
from companion.statistics import Estimate, proportion

SPECTRAL = ("top share", "effective rank", "log trace")


def network(case: Settings) -> str:
    """What sets a case apart from others of its data set."""
    return f"{'residual network' if case['blocks'] else 'small CNN'}, ε = {radius(case['eps'])}"


def rows_of(record: Result, c: int, method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs (r,), accuracy (seeds, r, 3) of a method, and which seeds it has."""
    epochs = np.asarray(record.arrays["epochs"][c], float)
    there = np.isfinite(epochs)
    rows = np.asarray(
        record.arrays["accuracy"][c, list(record.provenance["config"]["methods"]).index(method)]
    )
    rows = rows[:, there].astype(float)
    return epochs[there], rows, np.isfinite(rows).all(axis=(1, 2)) & there.any()


def made(record: Result) -> Iterator[Comparison]:
    """B3a: share of FGSM-trained networks that strictly collapse."""
    for c, case in enumerate(record.provenance["config"]["cases"]):
        epochs, rows, there = rows_of(record, c, "fgsm")
        if there.sum() > 1:
            found = fates(epochs, *rows[there][..., 1:].transpose(2, 0, 1))
            hit = np.isfinite(found.collapse)
            n, robust = len(hit), int((hit & found.robust).sum())
            note = f"{hit.sum()} of {n} networks, {robust} of them robust before"
            effect, p_value = share(hit)
            more = {"beyond": 0.1, "unit": "runs", "note": note, "p_value": p_value}
            yield from compare(case["dataset"], network(case), effect, 1, 0.1, **more)
    yield from at_the_end(record)


def at_the_end(record: Result) -> Iterator[Comparison]:
    """The same of networks at the end, under stronger PGD, by both statistics of batch norm: shown only."""
    if "strong" not in record.arrays:
        return
    steps, restarts = record.provenance["config"]["strong"]
    for c, case in enumerate(record.provenance["config"]["cases"]):
        rows = record.arrays["strong"][c].astype(float)
        rows = rows[np.isfinite(rows).all(axis=(1, 2))]
        for i, name in enumerate(("running", "the batch's own") if len(rows) > 1 else ()):
            clean, fgsm, pgd = rows[:, i].T
            hit = (pgd < 0.1) & (fgsm - pgd >= 0.6)
            effect, p_value = share(hit)
            note = f"{hit.sum()} of {len(hit)} networks; {means(clean=clean, FGSM=fgsm, PGD=pgd)}"
            more = {"beyond": 0.1, "unit": "runs", "counts": False, "note": note, "p_value": p_value}
            where = f"{network(case)}, at the end, {name} statistics, PGD-{steps} × {restarts}"
            yield from compare(case["dataset"], where, effect, 1, 0.1, **more)


def share(hits: np.ndarray, *, level: float = 0.95) -> tuple[Estimate, Callable[[float], float]]:
    """A share of few runs: the exact interval of Clopper & Pearson (1934), and the p-values behind it."""
    n, k = len(hits), int(hits.sum())
    ends = scipy.stats.binomtest(k, n).proportion_ci(level, "exact")

    def p_value(at: float) -> float:
        """Two-sided: twice the smaller tail, so that it is 1 − level at the interval's ends."""
        tails = scipy.stats.binom.cdf(k, n, at), scipy.stats.binom.sf(k - 1, n, at)
        return min(1.0, 2 * float(min(tails)))

    return Estimate(k / n, float(ends.low), float(ends.high), level, n), p_value


def warned(record: Result) -> Iterator[Comparison]:
    """B3b: detectors on the runs of seeds that they were not calibrated on."""
    config = record.provenance["config"]
    first = len(calibrating(config["calibration"]))
    if not first or "threshold" not in record.arrays:
        return
    for c, case in enumerate(config["cases"]):
        for i, signal in enumerate(SIGNALS):
            threshold = float(record.arrays["threshold"][c, i])
            if not np.isfinite(threshold):
                continue
            detector = Detector(threshold, SIDES[i], relative=True)
            hits, false = scored(record, c, i, detector, first)
            note = (
                f"rings within {AHEAD} epochs before {hits.sum()} of {len(hits)} strict collapses of "
                f"networks that had been robust, and falsely in {false.sum()} of {len(false)} other runs"
            )
            more = {"unit": "runs", "counts": signal in SPECTRAL, "note": note}
            setting = f"{signal}, {network(case)}"
            yield from compare(case["dataset"], setting, detection(hits, false), 1, 0.5, **more)


def scored(record: Result, c: int, i: int, detector: Detector, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Of collapses from robustness, which a detector warned of; of all other runs, in which it rang falsely.

    Other runs are those of FGSM training that do not strictly collapse, and of PGD and other one-step
    training, up to their own fall. Collapses of networks that never were robust are in neither.
    """
    hits, false = [], []
    names = list(record.provenance["config"]["methods"])
    for method in (name for name in ("fgsm", "pgd", *ONE_STEP) if name in names):
        epochs, rows, there = rows_of(record, c, method)
        there[:first] = False
        found = fates(epochs, *rows[there][..., 1:].transpose(2, 0, 1))
        signals = record.arrays["signals"][c, names.index(method)]
        signals = signals[there, : len(epochs), i].astype(float)
        alarms = np.array([catastrophic.alarm(epochs, one, detector) for one in signals])
        scored_apart = np.isfinite(found.collapse) & (method == "fgsm")
        hits += list(outcome(alarms, found.collapse)[0][scored_apart & found.robust])
        false += list(outcome(alarms, found.onset)[1][~scored_apart])
    return np.array(hits, bool), np.array(false, bool)


def detection(warned: np.ndarray, false: np.ndarray) -> Estimate | None:
    """Share of collapses warned of minus share of false alarms, with Newcombe's interval.

    Args:
        warned: of the collapses, which had a warning.
        false: of other runs, which had a false alarm.

    Returns:
        The difference; n counts the collapses. None without runs of either kind.
    """
    if not len(warned) or not len(false):
        return None
    found = newcombe(proportion(warned), proportion(false))
    return Estimate(found.value, found.low, found.high, found.level, len(warned))


def remedied(record: Result) -> Iterator[Comparison]:
    """B3c: robust accuracy of noise along leading gradients, minus that of the controls."""
    config = record.provenance["config"]
    names = list(config["methods"])
    for c, case in enumerate(config["cases"]):
        robust = np.asarray(record.arrays["final"][c, :, :, 1, 0], float)
        noise = robust[names.index("gradient noise")]
        for control in ("isotropic noise", "fgsm", "pgd"):
            if control in names:
                other = robust[names.index(control)]
                yield from compare(
                    case["dataset"],
                    f"− {control}, {network(case)}",
                    paired(noise, other),
                    1,
                    0.05,
                    counts=control != "pgd",
                    note=means(gradient_noise=noise, **{control: other}),
                )


def _calibrating(seeds: int) -> str:
    return f"the first {seeds} seeds calibrate detectors" if seeds else "no detector is calibrated"


def scale(config: Settings) -> Scale:
    """Ours."""
    cases = config["cases"]
    return Scale(
        "; ".join(
            dict.fromkeys(f"{network(one).split(',')[0]}, width {one['width']}, batch norm" for one in cases)
        ),
        f"{datasets(config)}, {each(cases, 'n_train')} training images, "
        f"{each(cases, 'n_test')} test images; kernel on "
        f"{each(cases, 'n_probe')}",
        f"SGD with momentum, rates {each(cases, 'rate', '{:g}')}, constant; {each(cases, 'epochs')} epochs",
        f"L∞ {radii(cases)}; FGSM in training, PGD-{span([one['final'][0] for one in cases])} in the test",
        f"n beside each effect; {_calibrating(len(calibrating(config['calibration'])))}",
    )


_claim = functools.partial(
    Claim,
    source="li2023",
    theirs=UNREAD,
    percent=False,
    chapter="07_catastrophic_overfitting",
    experiment="catastrophic",
    profiles=("full", "night"),
    scale=scale,
)


CLAIMS = (
    _claim(
        "B3a",
        "FGSM training collapses strictly in more than one run in ten",
        "",
        reading="No claim of theirs, but what the next two need: networks that really collapse. That it "
        "happens at all is seen in chapter 7; how often is the question here. Networks are tested with the "
        "running statistics of batch normalization; with the batch's own, in which they were trained, a "
        "collapsed ResNet keeps more (chapter 7), so what collapses may be the statistics.",
        rule="Strict collapse: accuracy under PGD is below .1, and that under FGSM above it by .6 or more, "
        "in three of four consecutive records, with or without a rise before. Effect: share of FGSM-trained "
        "networks, with its exact binomial interval and p-value. For: more than a tenth for certain. Shown "
        "only, where it is recorded: the same of the last networks under stronger PGD, by running statistics "
        "and by the batch's.",
        effect="share of networks that strictly collapse",
        compare=made,
    ),
    _claim(
        "B3b",
        "The kernel's spectrum tells it",
        "we study the spectrum feature inside the kernel to address the catastrophic overfitting problem",
        reading="The abstract does not say that the spectrum warns in time; that is our reading. Detectors "
        "are calibrated on PGD runs of other seeds.",
        rule="Effect: share of strict collapses, of networks that had been robust, in which the detector "
        f"first rings within {AHEAD} epochs before; minus share of other runs (PGD, FGSM, one step with "
        "noise) in which it rings falsely: earlier than that before their own fall, or without one. Against: "
        "less than .5 for certain. Signals that are not spectral are shown only.",
        effect="collapses warned of − false alarms",
        compare=warned,
    ),
    _claim(
        "B3c",
        "Anisotropic noise remedies it",
        "",
        reading="The abstract does not speak of noise, and we have not read the text: noise along the "
        "leading input gradients is our construction, and isotropic noise of equal length its control.",
        rule="Effect: robust accuracy minus that of FGSM, and of isotropic noise, paired by seed. Against: "
        "less than .05 for certain. The difference to PGD training is shown only.",
        effect="robust accuracy, gradient noise − control",
        compare=remedied,
    ),
)
