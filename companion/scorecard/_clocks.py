"""Claims D1 and D2: robust overfitting in the kernel limit, and Adv-NTK (chapter 9)."""

import functools
from collections.abc import Iterator

import numpy as np

from companion._core.words import Settings
from companion.experiments import clocks
from companion.experiments.clocks import LEARNED, ROWS
from companion.results import Result
from companion.scorecard._claim import Claim, Scale, compare, datasets, each, means, radii
from companion.scorecard._verdicts import Comparison, paired
from companion.statistics import Estimate, paired_shares, proportion

OURS = LEARNED[:2]
_D = Scale(
    "MLPs and CNNs of depth 3 to 10 as kernels; finite networks beside them",
    "CIFAR-10 and SVHN, 12,000 training images of which 2,000 for validation",
    "50 steps on the clocks; the table could not be read",
    "L∞ 8/255, PGD-10 by their own code",
    "3",
)


def settings(record: Result) -> Iterator[tuple[int, Settings, str]]:
    """Place, case, and what sets it apart from others of its data set."""
    for c, case in enumerate(record.provenance["config"]["cases"]):
        classes = "ten classes" if case["classes"] is None else "a pair"
        pixels = ", 8 × 8 pixels" if case["dataset"] == "digits" else ""  # other digits have 28 × 28
        yield c, case, f"{case['kernel']}, {classes}, n = {case['n_train']:,}{pixels}"


def right(record: Result, c: int, *rows: str, attacked: bool = True) -> tuple[str, np.ndarray]:
    """Whether images are right, (rows, splits, images), of the splits that all rows have; and under what."""
    if attacked:
        return clocks.robust(record, c, *rows)
    m = int(record.provenance["config"]["cases"][c]["n_test"])
    found = record.arrays["right"][c, :, [ROWS.index(row) for row in rows], 0, :m]
    return "no attack", found[:, np.isfinite(found).all(axis=(0, 2))] > 0


def difference(
    record: Result, c: int, one: str, other: str, *, robust: bool = True
) -> tuple[Estimate | None, str]:
    """Accuracy of one row minus another's with its unit: over splits, or over images where there is one."""
    _, (a, b) = right(record, c, one, other, attacked=robust)
    if len(a) != 1:
        return paired(a.mean(axis=1), b.mean(axis=1)), "splits"
    return paired_shares(int((a & ~b).sum()), int((b & ~a).sum()), a.size), "images"


def beyond_constant(
    record: Result, c: int, one: str, other: str, constant: float
) -> tuple[Estimate | None, str]:
    """Robust accuracy of one row beyond another's, or beyond a constant answer's where this is larger."""
    _, (a, b) = right(record, c, one, other)
    if not a.size or b.mean() >= constant:
        return difference(record, c, one, other)
    if len(a) > 1:
        return paired(a.mean(axis=1), constant), "splits"
    found = proportion(a[0])
    low, value, high = (x - constant for x in (found.low, found.value, found.high))
    return Estimate(value, low, high, found.level, found.n), "images"


def compared(
    record: Result, one: str, other: str, smallest: float, *, named: str = "", constant: bool = False
) -> Iterator[Comparison]:
    """Robust accuracy of one row over another, and clean accuracy beside it, shown only.

    With `constant`, over one right answer in k for k classes where the other row keeps less than that.
    """
    for c, case, setting in settings(record):
        effect, unit = difference(record, c, one, other)
        if constant:
            share = 1 / (10 if case["classes"] is None else len(case["classes"]))
            effect, unit = beyond_constant(record, c, one, other, share)
        where = f"{setting}{named}"
        more = {"unit": unit, "note": _note(record, c, one, other)}
        yield from compare(case["dataset"], where, effect, 1, smallest, **more)
        clean, unit = difference(record, c, one, other, robust=False)
        more = {
            "unit": unit,
            "note": _note(record, c, one, other, attacked=False),
            "counts": False,
            "asks": False,
        }
        yield from compare(case["dataset"], f"{where}: clean", clean, 1, smallest, **more)


def _note(record: Result, c: int, one: str, other: str, *, attacked: bool = True) -> str:
    name, found = right(record, c, one, other, attacked=attacked)
    values = {row.replace(" ", "_"): bits.mean(axis=1) for row, bits in zip((one, other), found, strict=True)}
    return f"{f'robust, {name}' if attacked else 'clean'}: {means(**values)}"


def overfits(record: Result) -> Iterator[Comparison]:
    """D1: what the best time has over the end."""
    yield from compared(record, "best time", "plain", 0.02, constant=True)


def adversarial(record: Result) -> Iterator[Comparison]:
    """D2a: what clocks have over plain regression."""
    yield from compared(record, "from 0", "plain", 0.02, constant=True)


def beyond_one_time(record: Result) -> Iterator[Comparison]:
    """D2b: what clocks have over one time for all."""
    for way in OURS:
        yield from compared(record, way, "best time", 0.02, named=f", {way}")


def scale(config: Settings) -> Scale:
    """Ours."""
    cases = config["cases"]
    return Scale(
        f"closed-form kernels: {each(cases, 'kernel', '{}')}",
        f"{datasets(config)}, n = {each(cases, 'n_train')} and {each(cases, 'n_val')} for validation; "
        f"{each(cases, 'n_test')} test images",
        f"{config['steps']} steps on the clocks",
        f"L∞ {radii(cases)}, PGD-{config['pgd'][0]} to choose, AutoAttack in the test where its runs are "
        f"made (the note says so), else PGD-{config['pgd'][2]}",
        "n beside each effect: splits",
    )


_claim = functools.partial(
    Claim,
    source="fu2024",
    theirs=_D,
    effect="robust accuracy won",
    percent=False,
    chapter="09_robust_overfitting",
    experiment="clocks",
    scale=scale,
)

CLAIMS = (
    _claim(
        "D1",
        "In the kernel limit long training costs robust accuracy",
        "a long-term AT will result in a wide DNN degenerates to that obtained without AT and thus cause "
        "robust overfitting",
        reading="The first half is a theorem under an assumption that goes beyond the lazy limit: that the "
        "attack is made on the input gradients of the random start, while the function's own change. Then "
        "adversarial training gives every image a faster clock, and the end is plain regression. What is "
        "measured is the second half: that the kernel at the time that was best on attacked validation "
        "images is more robust than at the end.",
        rule="Effect: robust accuracy at the best time minus that at the end of training, or minus one in k "
        "for k classes where the end keeps less: naming one class resists every attack. Under AutoAttack "
        "on the splits of which it is recorded, else PGD. Paired by split (by image where there is one "
        "split). Against: less than .02 for certain.",
        compare=overfits,
    ),
    _claim(
        "D2a",
        "Adv-NTK makes the kernel more robust",
        "Adv-NTK can help infinite-width DNNs enhance comparable robustness to that of their finite-width "
        "counterparts",
        reading="A clock for every image, learned against a right attack, keeps more accuracy under attack "
        "than plain kernel regression at its end. Networks of one width stand beside plain kernels in the "
        "chapter, and are not counted.",
        rule="Effect: robust accuracy with the clocks learned from 0 minus that of the plain kernel, or "
        "minus one in k for k classes where that keeps less; attacked as for D1. Against: less than .02 for "
        "certain. Clean accuracy is shown only.",
        compare=adversarial,
        condition="measured without the networks that the quotation compares it to",
    ),
    _claim(
        "D2b",
        "A clock for every image gives more than one time for all",
        "",
        reading="No claim of theirs, but the control that the paper lacks, and the reason to have clocks: "
        "one stopping time, chosen on the same attacked validation images.",
        rule="Effect: robust accuracy with learned clocks, begun at 0 and at the best time, minus that at "
        "the best time, attacked as for D1. Against: less than .02 for certain. Clean accuracy is shown "
        "only. Clocks descend on the validation images' labels, the time is only chosen by them: a lead may "
        "be of labels.",
        compare=beyond_one_time,
    ),
)
