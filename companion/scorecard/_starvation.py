"""Claims E3: gradient starvation and spectral decoupling, in a kernel (chapter 10)."""

import functools
from collections.abc import Iterator

import numpy as np

from companion._core.words import Settings
from companion.experiments.starvation import MEASURES, ROWS, WHEN
from companion.results import Result
from companion.scorecard._claim import Claim, Scale, compare, datasets, each, means, radii
from companion.scorecard._verdicts import Comparison, beyond_constant, paired

_THEIRS = Scale(
    "a theory of networks in the lazy regime; CNNs and ResNets",
    "two moons, colored digits, CIFAR-10 and CIFAR-100, CelebA",
    "cross-entropy, with weight decay or with spectral decoupling",
    "PGD on CIFAR; else shifts of the distribution",
    "10 on the colored digits",
)


def accuracy(record: Result, c: int, row: str, when: str, measure: str, *, marks: bool) -> np.ndarray:
    """Accuracy of a row by seed, NaN where there is no run."""
    found = record.arrays["accuracy"][c, :, int(marks), ROWS.index(row), WHEN.index(when)]
    return found[:, MEASURES.index(measure)].astype(float)


def starved(record: Result, *, more_than_squared: bool = False) -> Iterator[Comparison]:
    """E3a: what the marks cost under logistic loss; E3c: over what they cost under squared loss."""
    for c, case in enumerate(record.provenance["config"]["cases"]):
        for when in WHEN:
            lost = {
                row: accuracy(record, c, row, when, "clean", marks=False)
                - accuracy(record, c, row, when, "clean", marks=True)
                for row in ("logistic", "squared")
            }
            effect = paired(lost["logistic"], lost["squared"] if more_than_squared else 0.0)
            setting = f"{case['kernel']}, marks, {'best time' if when == 'best' else 'end'}"
            more = {"note": f"accuracy lost: {means(**lost)}", "unit": "splits"}
            yield from compare(case["dataset"], setting, effect, 1, 0.02, **more)
        answers = record.arrays["responses"][c].astype(float)
        note = f"response: {means(weak=answers[:, 0], strong=answers[:, -1])}"
        effect = paired(1 - answers[:, -1] / answers[:, 0], 0.0)
        setting = f"{case['kernel']}, a stronger eigenvector"
        yield from compare(case["dataset"], setting, effect, 1, 0.05, note=note, unit="splits")


def decoupled(record: Result) -> Iterator[Comparison]:
    """E3b: what spectral decoupling has over weight decay, trained on marks."""
    words = {"clean": "without marks", "robust": "without marks, under PGD"}
    for c, case in enumerate(record.provenance["config"]["cases"]):
        for measure, named in words.items():
            pair = {
                row: accuracy(record, c, row, "best", measure, marks=True) for row in ("decoupling", "decay")
            }
            setting, note = f"{case['kernel']}, {named}", means(**pair)
            effect = beyond_constant(pair["decoupling"], pair["decay"], 0.5)
            yield from compare(case["dataset"], setting, effect, 1, 0.02, note=note, unit="splits")


def scale(config: Settings) -> Scale:
    """Ours."""
    cases = config["cases"]
    return Scale(
        f"closed-form NTK {each(cases, 'kernel', '{}')}",
        f"{datasets(config)}, pairs, n = {each(cases, 'n_train')}, each with a white mark of "
        f"{each(cases, 'mark')} pixels a side; {each(cases, 'n_test')} test images",
        f"gradient flow; time and strength chosen on {each(cases, 'n_val')} images without marks",
        f"L∞ {radii(cases)}, PGD-{config['steps']}",
        "n beside each effect: splits",
    )


_claim = functools.partial(
    Claim,
    source="pezeshki2021",
    theirs=_THEIRS,
    percent=False,
    chapter="10_neighbours",
    experiment="starvation",
    scale=scale,
)

CLAIMS = (
    _claim(
        "E3a",
        "Under cross-entropy a strong feature starves the others",
        "Gradient Starvation arises when cross-entropy loss is minimized by capturing only a subset of "
        "features relevant for the task, despite the presence of other predictive features that fail to be "
        "discovered.",
        reading="In a kernel, where the theory is exact. A strong feature is a mark on the training images "
        "that tells the class; or the eigenvector with most of the labels, made stronger by hand. That it is "
        "cross-entropy which does it is E3c.",
        rule="Effect of marks: accuracy on images without marks that is lost by training with them under the "
        "logistic loss, at the best time and at the end. Effect of a stronger "
        "eigenvector: share of the others' response that is lost. Against: "
        "less than .02, and less than .05, for certain.",
        effect="accuracy, or share of the response, starved",
        compare=starved,
    ),
    _claim(
        "E3b",
        "Spectral decoupling does better than weight decay",
        "a novel regularization method aimed at decoupling feature learning dynamics, improving accuracy and "
        "robustness in cases hindered by gradient starvation",
        reading="Trained on images with marks, each at the strength and time that images without marks "
        "choose: accuracy on images without marks, and under an attack on these. The authors mean shifts of "
        "the distribution first; adversarial robustness is one of their experiments.",
        rule="Effect: accuracy with spectral decoupling minus that with weight decay, or minus the .5 of "
        "naming one class where that keeps less, paired by split. Against: less than .02 for certain.",
        effect="accuracy won by decoupling",
        compare=decoupled,
        condition="measured in a kernel, with weight decay of 0.03 of the mean diagonal or more: where the "
        "smallest is chosen (chapter 10 counts how often), less might do better, and the test is not fair to "
        "decay",
    ),
    _claim(
        "E3c",
        "The logistic loss starves more than the squared loss",
        "",
        reading="The abstract does not compare cross-entropy with another loss. The control is "
        "ours: under the squared loss the eigenvectors of a kernel learn alone, so what that loses too is "
        "not starvation by the loss.",
        rule="As E3a, of the marks logistic minus squared loss, at the best time of each and at the end; the "
        "share of a response that is lost is under the squared loss exactly 0.",
        effect="accuracy, or share of the response, starved beyond the squared loss",
        compare=functools.partial(starved, more_than_squared=True),
    ),
)
