"""Claim B3: catastrophic overfitting, its warnings and its remedy (chapter 7)."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from companion.experiments.catastrophic import SIGNALS
from companion.results import Result
from companion.scorecard._claim import Claim, Scale, compare, datasets, each, means, radius, span
from companion.scorecard._normalization import UNREAD
from companion.scorecard._verdicts import Comparison, detection, paired, strict_collapse
from companion.statistics import proportion

SPECTRAL = ("top share", "effective rank", "log trace")


def network(case: Mapping[str, Any]) -> str:
    """What sets a case apart from others of its data set."""
    return f"{'residual network' if case['blocks'] else 'small CNN'}, ε = {radius(case['eps'])}"


def calibration(config: Mapping[str, Any]) -> int:
    """How many of the first seeds calibrate detectors: at most half of those that there are."""
    return min(config["calibration"], config["seeds"] // 2)


def collapses(record: Result, c: int, method: str) -> np.ndarray:
    """By seed, when a network strictly collapses: infinity for never, NaN where there is no run."""
    config = record.provenance["config"]
    epochs = np.asarray(record.arrays["epochs"][c], float)
    rows = np.asarray(record.arrays["accuracy"][c, list(config["methods"]).index(method)], float)
    there = np.isfinite(epochs)
    if not there.any():
        return np.full(len(rows), np.nan)
    return np.array(
        [
            strict_collapse(epochs[there], *row[there][:, 1:].T) if np.isfinite(row[there]).all() else np.nan
            for row in rows
        ]
    )


def made(record: Result) -> Iterator[Comparison]:
    """B3a: share of FGSM-trained networks that strictly collapse."""
    for c, case in enumerate(record.provenance["config"]["cases"]):
        onsets = collapses(record, c, "fgsm")
        onsets = onsets[~np.isnan(onsets)]
        if len(onsets) > 1:
            hit = np.isfinite(onsets)
            note = f"{hit.sum()} of {len(hit)} networks"
            effect = proportion(hit)
            yield from compare(
                case["dataset"], network(case), effect, 1, 0.1, beyond=0.1, unit="runs", note=note
            )


def warned(record: Result) -> Iterator[Comparison]:
    """B3b: detectors on the strict collapses of seeds that they were not calibrated on."""
    config = record.provenance["config"]
    first = calibration(config)
    if not first or "alarm" not in record.arrays:
        return
    for c, case in enumerate(config["cases"]):
        onsets = collapses(record, c, "fgsm")[first:]
        alarms = np.asarray(record.arrays["alarm"][c], float)
        hit = np.isfinite(onsets)
        for i, signal in enumerate(SIGNALS):
            calm = alarms[i, 1, first:]
            calm = calm[~np.isnan(calm)]
            early = alarms[i, 0, first:][hit]
            effect = detection(onsets[hit], early, calm)
            note = (
                f"rings before {int((early < onsets[hit]).sum())} of {hit.sum()} strict collapses, and on "
                f"{int(np.isfinite(calm).sum())} of {len(calm)} calm runs"
            )
            yield from compare(
                case["dataset"],
                f"{signal}, {network(case)}",
                effect,
                1,
                0.5,
                unit="runs",
                counts=signal in SPECTRAL,
                note=note,
            )


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


def scale(config: Mapping[str, Any]) -> Scale:
    """Ours."""
    cases = config["cases"]
    return Scale(
        "; ".join(f"{network(one).split(',')[0]}, width {one['width']}, batch norm" for one in cases),
        f"{datasets(config)}, {each(cases, 'n_train')} training images, "
        f"{each(cases, 'n_test')} test images; kernel on "
        f"{each(cases, 'n_probe')}",
        f"SGD with momentum, rates {each(cases, 'rate', '{:g}')}, constant; {each(cases, 'epochs')} epochs",
        f"L∞ {each(cases, 'eps', '{:g}')}; FGSM in training, "
        f"PGD-{span([one['final'][0] for one in cases])} in the test",
        f"n beside each effect; the first {calibration(config)} seeds calibrate detectors",
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
        "Catastrophic overfitting can be made to happen",
        "",
        reading="No claim, but what the next two need: networks that really collapse.",
        rule="Strict collapse: accuracy under FGSM at least .9 while that under PGD is below .1, three "
        "records running, with or without a rise before. Effect: share of FGSM-trained networks. For: more "
        "than a tenth for certain.",
        effect="share of networks that strictly collapse",
        compare=made,
    ),
    _claim(
        "B3b",
        "The kernel's spectrum tells it",
        "we study the spectrum feature inside the kernel to address the catastrophic overfitting problem",
        reading="The abstract does not say that the spectrum warns in time; that is our reading. Detectors "
        "are calibrated on calm runs of other seeds.",
        rule="Effect: share of strict collapses before whose first record the detector rings, minus share "
        "of PGD runs on which it rings. Against: less than .5 for certain. Signals that are not spectral "
        "are shown only.",
        effect="collapses warned of − false alarms",
        compare=warned,
    ),
    _claim(
        "B3c",
        "Anisotropic noise remedies it",
        "",
        reading="The abstract does not speak of noise, and the text could not be read: noise along the "
        "leading input gradients is our construction, and isotropic noise of equal length its control.",
        rule="Effect: robust accuracy minus that of FGSM, and of isotropic noise, paired by seed. Against: "
        "less than .05 for certain. The difference to PGD training is shown only.",
        effect="robust accuracy, gradient noise − control",
        compare=remedied,
    ),
)
