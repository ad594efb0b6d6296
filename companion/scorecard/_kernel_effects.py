"""What speaks to claims A1 to A4: attacks on kernels, their transfer, eigenfeatures, and linear controls."""

from collections.abc import Iterator

import numpy as np

from companion import features
from companion._core.words import Settings
from companion.experiments.features import EDGES, TOPS
from companion.experiments.scale import kernel_of
from companion.results import Result
from companion.scorecard._claim import compare, means
from companion.scorecard._ranks import rank_trend
from companion.scorecard._verdicts import Comparison, newcombe, paired
from companion.statistics import Estimate, proportion


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
        four = _estimate(record.arrays["clean"][row], case["n_test"]), accuracy[0], accuracy[1], accuracy[3]
        yield from _in_one_step(case, name, four, 40)


def _in_one_step(
    case: Settings, name: str, accuracies: tuple[Estimate, ...], steps: int
) -> Iterator[Comparison]:
    clean, random, fast, slow = accuracies
    note = (
        f"clean {clean.value:.3f}, random signs {random.value:.3f}, "
        f"FGSM {fast.value:.3f}, PGD-{steps} {slow.value:.3f}"
    )
    gap = newcombe(random, fast)
    yield from compare(case["dataset"], named(case, name), gap, 1, 0.25, unit="images", note=note)


def attacked_whole(record: Result) -> Iterator[Comparison]:
    """A1b: the same of kernels on ten thousand images and more, up to whole data sets."""
    config = record.provenance["config"]
    for row, one in enumerate((config, *config["beside"])):
        found = record.arrays["attacked"][row] if "attacked" in record.arrays else np.array([np.nan])
        if not np.isfinite(found).all():
            continue
        four = tuple(_estimate(share, one["n_attacked"]) for share in found)
        name = kernel_of(one["depth"], one.get("convolutions", 0))
        yield from _in_one_step(one, name, four, one["steps"])


def transferred(record: Result) -> Iterator[Comparison]:
    """A2a: success of the kernel's perturbations on networks, and of a linear model's, shown only."""
    yield from by_width(record)
    yield from beside_linear(record)


def by_width(record: Result) -> Iterator[Comparison]:
    """Success of the kernel's perturbations beyond that of random signs, by width."""
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


def beside_linear(record: Result) -> Iterator[Comparison]:
    """What a linear model's perturbations do beyond random signs, and the kernel's beyond them."""
    if "linear_success" not in record.arrays:
        return
    for c, plan in enumerate(record.provenance["config"]["linear"]):
        for i, width in enumerate(plan["widths"]):
            kernel, linear, random = record.arrays["linear_success"][c, :, i].astype(float).T
            values = means(kernel=kernel, linear=linear, random_signs=random)
            where, more = f"n = {plan['n_train']:,}, width {width:,}", {"counts": False, "note": values}
            dataset = plan["dataset"]
            yield from compare(dataset, f"linear model, {where}", paired(linear, random), 1, 0.1, **more)
            yield from compare(dataset, f"kernel − linear, {where}", paired(kernel, linear), 1, 0.1, **more)


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
    """A3a: rank correlation of a feature's robustness with its index, over the first 200, in blocks."""
    found = record.arrays
    for row, (case, name) in enumerate(rows(record.provenance["config"]) if "modes" in found else ()):
        near = found["modes"][row] < 200  # False for NaN
        if near.sum() < 10:
            continue
        robust, constant = found["fgsm"][row, near, 0], float(found["majority"][row])
        note = (
            f"{near.sum()} features; robustness of feature 1 {robust[0]:.3f}, of the last below 200 "
            f"{robust[-1]:.3f}; {(robust > constant).sum()} of them above the largest class's {constant:.3f}"
        )
        effect = rank_trend(robust)
        yield from compare(case["dataset"], named(case, name), effect, -1, 0.2, unit="blocks", note=note)


def later(record: Result) -> Iterator[Comparison]:
    """A3b: useful features from 100 on, one by one, and what their sum knows and loses under PGD."""
    found, hundred = record.arrays, list(EDGES).index(100)
    for row, (case, name) in enumerate(rows(record.provenance["config"])):
        n = case["n_train"]
        if not np.isfinite(found["without"][row, hundred]).all():
            continue
        clean, robust = (_estimate(one, case["n_test"]) for one in found["without"][row, hundred])
        majority = float(found["majority"][row])
        above = Estimate(clean.value - majority, clean.low - majority, clean.high - majority, 0.95, clean.n)
        where, unit = named(case, name), {"unit": "images"}
        note = f"clean {clean.value:.3f}, PGD {robust.value:.3f}, the largest class {majority:.3f}"
        yield from compare(case["dataset"], f"{where}: sum is useful", above, 1, 0.02, note=note, **unit)
        # What is not useful may well be fragile: that is no non-robust feature.
        also = "for" if above.low > 0 else "open"
        drop, more = newcombe(clean, robust), {"note": note, "also": also, **unit}
        yield from compare(case["dataset"], f"{where}: sum is fragile", drop, 1, 0.1, **more)
        hits = features.holm(found["p_correlation"][row, :n].astype(float))[100:] < 0.05
        one = proportion(hits)
        note = f"{hits.sum()} of {n - 100:,} by correlation with the labels (Holm, 5 %)"
        setting = f"{where}: useful singly"
        more = {"beyond": 0.01, "unit": "features", "note": note, "lower_bound": True}
        yield from compare(case["dataset"], setting, one, 1, 0.01, **more)
    yield from later_components(record)


def later_components(record: Result) -> Iterator[Comparison]:
    """A3b of principal components, as features of ridge regression on pixels: shown only."""
    for c, case in enumerate(record.provenance["config"].get("linear", ())):
        sums = record.arrays.get("linear_sum")
        if sums is None or not np.isfinite(sums[c]).all():
            continue
        n, majority = case["n_test"], float(record.arrays["linear_majority"][c])
        ten, twenty, whole, rest = ([_estimate(one, n) for one in pair] for pair in sums[c])
        where = f"ridge on pixels, n = {case['n_train']:,}"
        note = ", ".join(
            f"{name}: clean {pair[0].value:.3f}, PGD {pair[1].value:.3f}"
            for name, pair in (("first 10", ten), ("first 20", twenty), ("all", whole), ("from 100 on", rest))
        )
        more = {"counts": False, "unit": "images", "note": note}
        above = _beyond(rest[0], Estimate(0.0, 0.0, 0.0, 0.95, n), majority)
        yield from compare(case["dataset"], f"{where}: sum is useful", above, 1, 0.02, **more)
        drop = newcombe(*rest)
        yield from compare(case["dataset"], f"{where}: sum is fragile", drop, 1, 0.1, **more)
        hits, many = (int(one) for one in record.arrays["linear_useful"][c])
        share = proportion(np.arange(many) < hits)
        more = {"counts": False, "unit": "features", "note": f"{hits} of {many:,} by correlation"}
        setting = f"{where}: useful singly"
        yield from compare(case["dataset"], setting, share, 1, 0.01, beyond=0.01, lower_bound=True, **more)


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
        if name in ("FC-1", "random"):
            continue
        counts = name not in ("linear", "RBF")  # these are no networks'
        note = ", ".join([f"mean cos² {np.nanmean(first[:, i]):.3f}", *controls])
        gap, more = paired(first[:, i], random), {"note": note, "counts": counts}
        yield from compare(plan["dataset"], f"FC-1 and {name}", gap, 1, 0.2, **more)


def traded(record: Result) -> Iterator[Comparison]:
    """A4: robust accuracy won, and clean lost, by the top 20 features alone and by stopping early.

    Won beyond both the whole and naming the largest class for every image, whichever keeps more.
    """
    found, twenty = record.arrays, list(EDGES).index(20) - 1
    for row, (case, name) in enumerate(rows(record.provenance["config"]) if "top" in found else ()):
        last = int(np.isfinite(found["top"][row, :, 0, 0]).sum()) - 1
        if last < 0:
            continue
        n, where = case["n_test"], named(case, name)
        # Of a kernel too large to decompose the whole is a fit of its own.
        every = found["all"][row] if "all" in found else found["top"][row, last]
        whole = [_estimate(one, n) for one in every]
        constant = float(found["majority"][row])
        parts = [("top 20", found["top"][row, twenty])]
        if "stopped" in found:
            stop = int(np.argmin(np.abs(np.log10(found["times"]) - 2)))
            parts.append(("stopped", found["stopped"][row, stop]))
        for kind, pair in parts:
            part = [_estimate(one, n) for one in pair]
            note = (
                f"{kind}: clean {part[0].value:.3f}, PGD {part[1].value:.3f}; "
                f"whole: {whole[0].value:.3f}, {whole[1].value:.3f}; the largest class: {constant:.3f}"
            )
            gained, lost = _beyond(part[1], whole[1], constant), newcombe(whole[0], part[0])
            unit = {"unit": "images", "note": note}
            setting = f"{where}, {kind}: robust beyond both"
            yield from compare(case["dataset"], setting, gained, 1, 0.05, **unit)
            yield from compare(
                case["dataset"],
                f"{where}, {kind}: clean lost",
                lost,
                1,
                0.0,
                counts=False,
                asks=False,
                **unit,
            )
