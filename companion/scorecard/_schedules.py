"""Claim B2: saving time in adversarial training, and all schedules by one criterion (chapter 6)."""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from companion._core.words import Settings
from companion.experiments import warm_start
from companion.results import Result
from companion.scorecard._claim import DATASETS, Claim, Scale, compare, datasets, each, means, radii, span
from companion.scorecard._normalization import UNREAD
from companion.scorecard._verdicts import MARGIN, SAVED, Comparison, cheaper_and_as_robust, gain_of


def methods(config: Settings) -> list[str]:
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


FRESH = 3
"""Seeds before this one chose the candidate of B2b; only later ones may judge it."""


def judged(
    wanted: Callable[[str], bool], counted: str, first: int = 0
) -> Callable[[Result], Iterator[Comparison]]:
    """Comparisons by the one criterion of some schedules, of which one counts, on seeds from `first` on."""

    def found(record: Result) -> Iterator[Comparison]:
        config = record.provenance["config"]
        names = methods(config)
        for method in (name for name in names if wanted(name)):
            for c, case in enumerate(config["cases"]):
                for k, rate in enumerate(config["rates"]):
                    robust = np.asarray(record.arrays["final"][c, k, :, :, 1, 0], float)
                    saved = time_saved(record, c, k, names, method)
                    some = [robust[names.index(name)] for name in (method, "pgd", "standard")]
                    where = f"{method}, {rate} rate"
                    if method != counted:
                        yield from _criterion(case["dataset"], where, some, saved, counts=False)
                        continue
                    late = [values[first:] for values in some]
                    yield from _criterion(case["dataset"], where, late, saved[first:], counts=True)
                    if first:
                        where = f"{where}, all seeds"
                        yield from _criterion(case["dataset"], where, some, saved, counts=False)

    return found


def _criterion(
    dataset: str, where: str, some: Sequence[np.ndarray], saved: np.ndarray, *, counts: bool
) -> list[Comparison]:
    """One schedule in one setting: robust accuracy of method, PGD and standard training by seed."""
    pair = cheaper_and_as_robust(*some, saved)
    if pair is None:
        return []
    share = f"{np.nanmean(saved):.0%}"
    accuracies = means(robust=some[0], PGD=some[1], standard=some[2])
    note = f"{share} of the passes saved; {accuracies}"
    where = f"{where}, {share} saved".replace("%", " %")
    shown = {"beyond": -MARGIN, "also": pair[1], "counts": counts, "note": note}
    return compare(dataset, where, pair[0], 1, -MARGIN, **shown)


def no_gain(counted: str, first: int = 0) -> Callable[[Result], Iterator[str]]:
    """Settings in which PGD training gains nothing, over the seeds that count."""

    def found(record: Result) -> Iterator[str]:
        config = record.provenance["config"]
        places = [methods(config).index(name) for name in (counted, "pgd", "standard")]
        for c, case in enumerate(config["cases"]):
            for k, rate in enumerate(config["rates"]):
                robust = np.asarray(record.arrays["final"][c, k, :, first:, 1, 0], float)
                gain = gain_of(*robust[places])
                if gain is not None and gain.value <= 0:
                    where = f"{DATASETS.get(case['dataset'], case['dataset'])}, {rate} rate"
                    yield f"{where}: PGD training gains {gain:+.3f} ({gain.n} seeds)"

    return found


def clean_first(name: str) -> bool:
    """Whether a schedule begins with clean images."""
    return name == "rule" or name.startswith("clean for")


def others(name: str) -> bool:
    """Whether a schedule is adversarial from the first step, and not PGD training itself."""
    return not clean_first(name) and name not in ("pgd", "standard")


def scale(config: Settings) -> Scale:
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
    f"One criterion for all schedules. As robust: less than {MARGIN:.0%} lost of what PGD training gains "
    "over standard training; as the gain is not known exactly, the lower end of "
    f"(method − {1 - MARGIN:.1f} PGD − {MARGIN:.1f} standard), paired by seed, is above 0. Cheaper: at least "
    f"{SAVED:.0%} fewer passes forward and backward through the network, in which time is counted here; the "
    "kernels that a rule needs count as passes of equal seconds. For: both for certain. Against: one of them "
    "excluded. Where it is not certain that PGD training gains anything, over the seeds that count, there is "
    "nothing certain to measure by: such a setting is open."
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
        left_out=no_gain("rule"),
    ),
    _claim(
        "B2b",
        "What else is cheaper and as robust: growing steps",
        "",
        reading="No claim of theirs: what the one criterion says of schedules that know no kernel. PGD "
        f"whose steps grow from one is our candidate. It was chosen on the first {FRESH} seeds, so only "
        "later seeds count; these seeds, and the other schedules, are shown. All seeds have the same "
        "training and test images: what these had to do with the choice is not undone.",
        rule=_RULE,
        compare=judged(others, "growing steps", FRESH),
        left_out=no_gain("growing steps", FRESH),
    ),
)
