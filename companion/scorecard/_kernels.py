"""Claims A1 to A4: attacks on kernels, their transfer, eigenfeatures (chapters 2 and 3)."""

import functools
from collections.abc import Iterator

import numpy as np

from companion import features
from companion._core.words import Settings
from companion.experiments.features import EDGES, TOPS
from companion.results import Result
from companion.scorecard._claim import DATASETS, Claim, Scale, compare, datasets, each, radius, span
from companion.scorecard._verdicts import Comparison, newcombe, paired, rank_correlation
from companion.statistics import Estimate, proportion

_A_KERNELS = Scale(
    "closed-form kernels: fully connected, convolutional, Myrtle",
    "CIFAR-10, airplane and automobile, n = 2,000; 100 test images (their notebook)",
    "none: kernel regression",
    "L∞ 8/255, FGSM and PGD-10",
    "1",
)


def rows(config: Settings) -> list[tuple[Settings, str]]:
    """Case and architecture of every row."""
    return [(case, name) for case in config["cases"] for name in case["architectures"]]


def named(case: Settings, name: str) -> str:
    """What sets a kernel apart from others of its data set."""
    return f"{name}, {'all classes' if case['classes'] is None else 'a pair'}, n = {case['n_train']:,}"


def _estimate(triple: np.ndarray, n: int) -> Estimate:
    value, low, high = (float(x) for x in triple)
    return Estimate(value, low, high, 0.95, n)


def _beyond(one: Estimate, other: Estimate, constant: float) -> Estimate:
    """A share beyond another, or beyond that of a constant answer where this is larger."""
    if other.value >= constant:
        return newcombe(one, other)
    return Estimate(one.value - constant, one.low - constant, one.high - constant, one.level, one.n)


def attacked(record: Result) -> Iterator[Comparison]:
    """A1: accuracy that FGSM takes beyond random signs."""
    for row, (case, name) in enumerate(rows(record.provenance["config"])):
        if not np.isfinite(record.arrays["clean"][row]).all():
            continue
        size = int(np.argmin(np.abs(np.array(case["eps"]) - case["main"])))
        accuracy = [_estimate(one[size], case["n_test"]) for one in record.arrays["accuracy"][row]]
        note = (
            f"clean {record.arrays['clean'][row, 0]:.3f}, random signs {accuracy[0].value:.3f}, "
            f"FGSM {accuracy[1].value:.3f}, PGD-40 {accuracy[3].value:.3f}"
        )
        gap = newcombe(accuracy[0], accuracy[1])
        yield from compare(case["dataset"], named(case, name), gap, 1, 0.25, unit="images", note=note)


def transferred(record: Result) -> Iterator[Comparison]:
    """A2a: success of the kernel's perturbations on networks beyond that of random signs, by width."""
    if "success" not in record.arrays:
        return
    plan, last = record.provenance["config"]["transfers"], record.arrays["success"][:, :, -1].astype(float)
    for i, width in enumerate(plan["widths"]):
        kernel, white, random = last[:, i].T
        note = (
            f"success {np.nanmean(kernel):.3f}, white-box PGD {np.nanmean(white):.3f}, "
            f"random signs {np.nanmean(random):.3f}"
        )
        yield from compare(plan["dataset"], f"width {width:,}", paired(kernel, random), 1, 0.1, note=note)


def widening(record: Result) -> Iterator[Comparison]:
    """A2b: what doubling the width adds to the success, as a share of white-box PGD's."""
    if "success" not in record.arrays:
        return
    plan, success = record.provenance["config"]["transfers"], record.arrays["success"].astype(float)
    for level, residual in enumerate(plan["residuals"]):
        of_white = success[:, :, level, 0] / success[:, :, level, 1]
        whole = of_white[np.isfinite(of_white).all(axis=1)]
        if len(whole) < 2:
            continue
        slopes = np.polyfit(np.log2(plan["widths"]), whole.T, 1)[0]
        note = ", ".join(
            f"width {w:,}: {v:.3f}" for w, v in zip(plan["widths"], whole.mean(axis=0), strict=True)
        )
        setting = f"residual {residual:g} of training"
        yield from compare(plan["dataset"], setting, paired(slopes, 0.0), 1, 0.005, note=note)


def by_index(record: Result) -> Iterator[Comparison]:
    """A3a: rank correlation of a feature's robustness with its index, over the first 200."""
    found = record.arrays
    for row, (case, name) in enumerate(rows(record.provenance["config"])):
        near = found["modes"][row] < 200  # False for NaN
        if near.sum() < 10:
            continue
        index, robust = found["modes"][row, near], found["fgsm"][row, near, 0]
        note = f"robustness of feature 1 {robust[0]:.3f}, of the last below 200 {robust[-1]:.3f}"
        effect = rank_correlation(index, robust)
        yield from compare(case["dataset"], named(case, name), effect, -1, 0.2, unit="features", note=note)


def later(record: Result) -> Iterator[Comparison]:
    """A3b: useful features from 100 on, one by one, and what their sum knows and loses under PGD."""
    found, hundred = record.arrays, list(EDGES).index(100)
    for row, (case, name) in enumerate(rows(record.provenance["config"])):
        n = case["n_train"]
        if n < 400 or not np.isfinite(found["without"][row, hundred]).all():
            continue
        clean, robust = (_estimate(one, case["n_test"]) for one in found["without"][row, hundred])
        majority = float(found["majority"][row])
        above = Estimate(clean.value - majority, clean.low - majority, clean.high - majority, 0.95, clean.n)
        where, unit = named(case, name), {"unit": "images"}
        note = f"clean {clean.value:.3f}, PGD {robust.value:.3f}, the largest class {majority:.3f}"
        yield from compare(case["dataset"], f"{where}: sum is useful", above, 1, 0.02, note=note, **unit)
        drop = newcombe(clean, robust)
        yield from compare(case["dataset"], f"{where}: sum is fragile", drop, 1, 0.1, note=note, **unit)
        hits = features.holm(found["p_correlation"][row, :n].astype(float))[100:] < 0.05
        one = proportion(hits)
        note = f"{hits.sum()} of {n - 100:,} by correlation with the labels (Holm, 5 %)"
        setting = f"{where}: useful singly"
        yield from compare(case["dataset"], setting, one, 1, 0.01, beyond=0.01, unit="features", note=note)


def shared(record: Result) -> Iterator[Comparison]:
    """A3c: how much of the top ten of FC-1 other kernels share, beyond random bases."""
    if "angles" not in record.arrays:
        return
    plan = record.provenance["config"]["overlap"]
    names, ten = list(plan["kernels"]), TOPS.index(10)
    first = record.arrays["angles"][:, 0, :, ten].astype(float)
    random = first[:, names.index("random")]
    controls = [
        f"{word} {np.nanmean(first[:, names.index(name)]):.3f}"
        for name, word in (("random", "random bases"), ("linear", "PCA"), ("RBF", "RBF kernel"))
        if name in names
    ]
    for i, name in enumerate(names):
        if name in ("FC-1", "random", "linear", "RBF"):
            continue
        note = ", ".join([f"mean cos² {np.nanmean(first[:, i]):.3f}", *controls])
        yield from compare(
            plan["dataset"], f"FC-1 and {name}", paired(first[:, i], random), 1, 0.2, note=note
        )


def traded(record: Result) -> Iterator[Comparison]:
    """A4: robust accuracy won, and clean lost, by the top 20 features alone and by stopping early.

    Won beyond the whole and beyond naming the largest class for every image, whichever keeps more.
    """
    found, twenty = record.arrays, list(EDGES).index(20) - 1
    stop = int(np.argmin(np.abs(np.log10(found["times"]) - 2)))
    for row, (case, name) in enumerate(rows(record.provenance["config"])):
        last = int(np.isfinite(found["top"][row, :, 0, 0]).sum()) - 1
        if case["n_train"] < 400 or last < 0:
            continue
        n, where = case["n_test"], named(case, name)
        whole = [_estimate(one, n) for one in found["top"][row, last]]
        constant = float(found["majority"][row])
        for kind, pair in (("top 20", found["top"][row, twenty]), ("stopped", found["stopped"][row, stop])):
            part = [_estimate(one, n) for one in pair]
            note = (
                f"{kind}: clean {part[0].value:.3f}, PGD {part[1].value:.3f}; "
                f"whole: {whole[0].value:.3f}, {whole[1].value:.3f}; the largest class: {constant:.3f}"
            )
            gained, lost = _beyond(part[1], whole[1], constant), newcombe(whole[0], part[0])
            unit = {"unit": "images", "note": note}
            yield from compare(case["dataset"], f"{where}, {kind}: robust won", gained, 1, 0.05, **unit)
            yield from compare(
                case["dataset"], f"{where}, {kind}: clean lost", lost, 1, 0.0, counts=False, **unit
            )


def kernel_scale(config: Settings) -> Scale:
    """Ours, of attacks and of features on kernels."""
    cases = config["cases"]
    return Scale(
        f"closed-form kernels: {', '.join(dict.fromkeys(name for _, name in rows(config)))}",
        f"{datasets(config)}, n = {each(cases, 'n_train')}; {each(cases, 'n_test')} test images",
        "none: kernel regression",
        f"L∞ {span([radius(one.get('main', one.get('eps'))) for one in cases], '{}')}, FGSM and PGD",
        "1 (intervals over test images)",
    )


def transfer_scale(config: Settings) -> Scale:
    """Ours, of transfer."""
    plan = config["transfers"]
    return Scale(
        f"FC-{plan['depth']} networks f(θ) − f(θ₀), widths {plan['widths'][0]:,} to {plan['widths'][-1]:,}",
        f"{DATASETS[plan['dataset']]}, a pair, n = {plan['n_train']:,}; {plan['n_test']:,} test images",
        f"to residuals {span(plan['residuals'], '{:g}')}, momentum {plan['momentum']:g}",
        f"L∞ {radius(plan['eps'])}, PGD-10 on the kernel",
        f"{plan['seeds']} networks a width",
    )


_claim = functools.partial(Claim, source="tsilivis2022", theirs=_A_KERNELS, percent=False, scale=kernel_scale)
_attack = functools.partial(
    _claim, chapter="02_attacks_without_training", experiment="attacks", profiles=("full", "quick")
)
_feature = functools.partial(_claim, chapter="03_robust_features", experiment="features")

CLAIMS = (
    _attack(
        "A1",
        "Attacks on the kernel need no training",
        "We show how NTKs allow to generate adversarial examples in a “training-free” fashion",
        reading="One FGSM step on the kernel's own formula takes accuracy away that random signs of the "
        "same size leave. Their notebook: clean .81, FGSM .02, PGD .02.",
        rule="Effect: accuracy under random signs minus accuracy under FGSM, same ε. Against: less than "
        ".25 for certain.",
        effect="accuracy that FGSM takes beyond random signs",
        compare=attacked,
    ),
    _attack(
        "A2a",
        "These perturbations fool networks",
        "they transfer to fool their finite-width neural net counterparts in the “lazy” regime",
        reading="On networks that were never attacked, the kernel's perturbations succeed more often than "
        "random signs. Whether laziness is *needed* is not tested at this scale.",
        rule="Effect: share of right images that the kernel's PGD flips, minus that of random signs, "
        "paired by seed. Against: less than .1 for certain.",
        effect="success beyond random signs",
        compare=transferred,
        scale=transfer_scale,
        condition="beyond random signs; whether it takes the network's kernel, or a linear classifier's "
        "perturbations do as well, this record does not tell",
    ),
    _attack(
        "A2b",
        "The wider the network, the more",
        "",
        reading="The abstract does not say it; a figure of the paper, whose numbers could not be read, is "
        "read so by us.",
        rule="Effect: slope, over doublings of the width, of success as a share of white-box PGD's. "
        "Against: less than .005 a doubling for certain.",
        effect="share of white-box success added by doubling the width",
        compare=widening,
        scale=transfer_scale,
    ),
    _feature(
        "A3a",
        "The top eigenfeatures are the robust ones",
        "robust features tend to correspond to the largest eigenvalues of the model",
        reading="Robustness of a feature, attacked by itself, falls with its index. Their notebook: .50 "
        ".49 .47 .44 .33 .33 for features 0 to 5, .25 for 10, .07 for 25, 0 for 1500.",
        rule="Effect: rank correlation of robustness with the index, over the first 200 features that were "
        "attacked (beyond them robustness is 0 up to noise). Against: weaker than −.2 for certain.",
        effect="rank correlation of robustness and index",
        compare=by_index,
    ),
    _feature(
        "A3b",
        "Later features are useful and not robust",
        "Our framework allows us to identify and visualize non-robust yet useful features",
        reading="Their abstract names no number; *many* is our reading of their figure. So two tests: the "
        "sum of all features from 100 on, and how many of them are useful one by one.",
        rule="Of the sum: clean accuracy above the largest class's share (against: less than .02 for "
        "certain) and what PGD takes (against: less than .1). One by one: more than 1 % useful, by "
        "correlation with the labels after Holm's correction; against: less than 1 % for certain.",
        effect="accuracy, or share of features",
        compare=later,
    ),
    _feature(
        "A3c",
        "Architectures share their features",
        "such features are surprisingly consistent across architectures",
        reading="The top ten eigenvectors on the same images span nearly the same space. Whether that is "
        "*surprising* is another question: the eigenvectors of two kernels that are no networks', the linear "
        "(PCA) and a Gaussian one, stand beside them and do not enter the verdict.",
        rule="Effect: mean cos² of the principal angles to FC-1's top ten, minus that of random bases. "
        "Against: less than .2 for certain.",
        effect="mean cos² beyond random bases",
        compare=shared,
        condition="beyond random bases; the linear kernel's eigenvectors, which know no network, are shared "
        "too",
    ),
    _feature(
        "A4",
        "Fewer features: less accurate, more robust",
        "the reliance on both for standard classification and the robustness-accuracy trade-off",
        reading="Keeping the top 20 features, or stopping at 100/λ₁, wins robust accuracy. What it loses "
        "in clean accuracy is shown, and does not enter the verdict.",
        rule="Effect: PGD accuracy of the part minus that of the whole, or minus the largest class's share "
        "where this is larger: naming one class resists every attack. Against: less than .05 for certain.",
        effect="accuracy",
        compare=traded,
    ),
)
