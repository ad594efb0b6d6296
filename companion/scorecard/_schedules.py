"""Claim B2: saving time in adversarial training, and all schedules by one criterion (chapter 6)."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from companion.experiments import warm_start
from companion.results import Result
from companion.scorecard._claim import Claim, Scale, compare, datasets, each, radii, span
from companion.scorecard._normalization import UNREAD
from companion.scorecard._verdicts import MARGIN, SAVED, Comparison, cheaper_and_as_robust


def methods(config: Mapping[str, Any]) -> list[str]:
    """The schedules in the order of the arrays."""
    rates = warm_start.Config(rates=tuple(config["rates"]))
    cases = [
        {name: tuple(value) if isinstance(value, list) else value for name, value in case.items()}
        for case in config["cases"]
    ]
    return list(max((warm_start.every_method(rates, warm_start.Case(**case)) for case in cases), key=len))


def time_saved(record: Result, c: int, k: int, names: list[str], method: str) -> np.ndarray:
    """1 − passes of a method / passes of PGD training, by seed; the rule's kernels count as passes too.

    Passes do not depend on what else a machine does. A pass takes as long as the method's own seconds say.
    """
    arrays = record.arrays
    passes = np.asarray(arrays["passes"][c, k, names.index(method)], float)
    if method == "rule":
        total, probe = (np.asarray(arrays[name], float)[c, k] for name in ("total", "probe"))
        total = total[names.index(method)]
        passes = passes * total / (total - probe)
    return 1 - passes / np.asarray(arrays["passes"][c, k, names.index("pgd")], float)


def judged(wanted: Callable[[str], bool], counted: str) -> Callable[[Result], Iterator[Comparison]]:
    """Comparisons by the one criterion of some schedules, of which one counts."""

    def found(record: Result) -> Iterator[Comparison]:
        config = record.provenance["config"]
        names = methods(config)
        for method in (name for name in names if wanted(name)):
            for c, case in enumerate(config["cases"]):
                for k, rate in enumerate(config["rates"]):
                    robust = np.asarray(record.arrays["final"][c, k, :, :, 1, 0], float)
                    saved = time_saved(record, c, k, names, method)
                    some = [robust[names.index(name)] for name in (method, "pgd", "standard")]
                    pair = cheaper_and_as_robust(*some, saved)
                    if pair is None:
                        continue
                    note = (
                        f"{np.nanmean(saved):.0%} of the passes saved; robust {np.nanmean(some[0]):.3f}, "
                        f"PGD {np.nanmean(some[1]):.3f}, standard {np.nanmean(some[2]):.3f}"
                    )
                    yield from compare(
                        case["dataset"],
                        f"{method}, {rate} rate, {np.nanmean(saved):.0%} saved".replace("%", " %"),
                        pair[0],
                        1,
                        -MARGIN,
                        beyond=-MARGIN,
                        also=pair[1],
                        counts=method == counted,
                        note=note,
                    )

    return found


def clean_first(name: str) -> bool:
    """Whether a schedule begins with clean images."""
    return name == "rule" or name.startswith("clean for")


def others(name: str) -> bool:
    """Whether a schedule is adversarial from the first step, and not PGD training itself."""
    return not clean_first(name) and name not in ("pgd", "standard")


def scale(config: Mapping[str, Any]) -> Scale:
    """Ours."""
    cases = config["cases"]
    return Scale(
        f"{each(cases, 'model', '{}')}, width {each(cases, 'width')}",
        f"{datasets(config)}, {each(cases, 'n_train')} training images, {each(cases, 'n_test')} test images",
        f"SGD with momentum, rates {each(cases, 'rate', '{:g}')}, "
        f"{span(config['rates'], '{}')}; {each(cases, 'epochs')} epochs",
        f"L∞ {radii(cases)}; PGD-{each(cases, 'steps')} in "
        f"training, PGD-{span([one['final'][0] for one in cases])} in the test",
        f"n beside each effect, of {config['seeds']} planned",
    )


_RULE = (
    f"One criterion for all schedules. As robust: the lower end of (method − PGD), paired by seed, above "
    f"−{MARGIN:.0%} of what PGD training gains over standard training. Cheaper: at least {SAVED:.0%} fewer "
    "passes forward and backward through the network, in which time is counted here; the kernels that a "
    "rule needs count as passes of equal seconds. For: both for certain. Against: one of them excluded."
)


_claim = functools.partial(
    Claim,
    source="li2023",
    theirs=UNREAD,
    percent=True,
    chapter="06_saving_time",
    experiment="warm_start",
    scale=scale,
    effect="robust accuracy, method − PGD, of PGD's gain",
)


CLAIMS = (
    _claim(
        "B2a",
        "Clean first, attacked later: cheaper and as robust",
        "we experimentally explore the kernel dynamics and propose more time-saving AT methods",
        reading="The abstract does not say which methods. Ours: train on clean images until the kernel has "
        "slowed down, then on PGD's. Switches by hand are shown, and do not count.",
        rule=_RULE,
        compare=judged(clean_first, "rule"),
    ),
    _claim(
        "B2b",
        "What else is cheaper and as robust: growing steps",
        "",
        reading="No claim of theirs: what the one criterion says of schedules that know no kernel. PGD "
        "whose steps grow from one is our candidate, and counts; the others are shown.",
        rule=_RULE,
        compare=judged(others, "growing steps"),
    ),
)
