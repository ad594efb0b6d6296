"""A claim as data, and a claim with what was measured on it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from companion._core.checks import Numbers
from companion._core.words import Setting, Settings
from companion.results import Result
from companion.scorecard._verdicts import Comparison, Judgment, combined, judge
from companion.statistics import Estimate

DATASETS = {
    "digits": "digits",
    "mnist5k": "digits",
    "mnist": "digits",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
}
"""The data sets of `data.load` by the names that pages have for them, in the order of the overview.

Digits are MNIST's, the 5,000 that a package brings along or all 60,000, and scikit-learn's of 8 × 8 pixels.
"""
AUTHORS = {
    "tsilivis2022": "Tsilivis & Kempe (2022)",
    "li2023": "Li et al. (2023)",
    "loo2022": "Loo et al. (2022)",
    "fu2024": "Fu & Wang (2024)",
    "qadeer2023": "Qadeer et al. (2023)",
    "yang2024": "Yang et al. (2024)",
    "kothapalli2025": "Kothapalli & Tirer (2025)",
    "pezeshki2021": "Pezeshki et al. (2021)",
    "seleznova2023": "Seleznova et al. (2023)",
    "li2025": "Li & Li (2025)",
}


@dataclass(frozen=True)
class Scale:
    """How large an experiment was; each in words.

    Attributes:
        model: networks or kernels.
        images: data and how many.
        training: epochs, steps, rate.
        attack: ε and steps.
        seeds: how many.
    """

    model: str
    images: str
    training: str
    attack: str
    seeds: str


@dataclass(frozen=True)
class Claim:
    """What authors claim, and how it is judged here.

    Attributes:
        name: such as "A5"; the parts of one claim are "B1a", "B1b".
        title: ours.
        quotation: the authors' words, from their abstract; empty where it has none on this.
        source: key of `book/references.bib`.
        reading: ours: what we take the words to mean, or why there are none.
        rule: in words: what counts for, what against.
        theirs: the authors' scale.
        effect: what the axis of the figure shows.
        percent: whether effects are shares.
        chapter: page of the book.
        experiment: whose records it rests on,
        profiles: and which of its profiles.
        compare: comparisons of the recorded arrays.
        scale: ours, of the recorded configuration.
        condition: under which alone it can be measured here; then it is *qualified* at best.
        left_out: settings of a record that cannot be judged, with the reason.
    """

    name: str
    title: str
    quotation: str
    source: str
    reading: str
    rule: str
    theirs: Scale
    effect: str
    percent: bool
    chapter: str
    experiment: str
    compare: Callable[[Result], Sequence[Comparison]]
    scale: Callable[[Settings], Scale]
    profiles: tuple[str, ...] = ("full",)
    condition: str = ""
    left_out: Callable[[Result], Iterable[str]] = lambda _: ()


@dataclass(frozen=True)
class Gap:
    """One network's or kernel's robust accuracy, by the PGD of its record and by AutoAttack.

    Attributes:
        experiment: whose network it is.
        data: data set and ε.
        label: how it was trained.
        seeds: how many trainings of it, or splits.
        pgd: mean accuracy over seeds.
        autoattack: mean accuracy over seeds.
        images: attacked in all.
        gap: PGD − AutoAttack, its interval over the images of all seeds.
        by_seed: the same with Student's interval over seeds; None for fewer than two, and for gaps that are
            all equal, whose spread says nothing.
        attack: "AutoAttack", or "both Auto-PGDs", its first two attacks alone.
    """

    experiment: str
    data: str
    label: str
    seeds: int
    pgd: float
    autoattack: float
    images: int
    gap: Estimate
    by_seed: Estimate | None
    attack: str = "AutoAttack"


@dataclass(frozen=True)
class Card:
    """A claim with what was measured on it.

    Attributes:
        claim: as stated.
        comparisons: those that there are.
        judgment: verdict and outcomes.
        ours: our scale, of each profile that is recorded.
        provenances: of these records, by profile.
        gaps: to AutoAttack, of the robust accuracies behind it, or why none is recorded; empty where it does
            not speak of robust accuracy.
        left_out: settings that cannot be judged, with the reason.
    """

    claim: Claim
    comparisons: tuple[Comparison, ...]
    judgment: Judgment
    ours: Mapping[str, Scale]
    provenances: Mapping[str, Settings]
    gaps: tuple[Gap, ...] | str = ()
    left_out: tuple[str, ...] = ()

    def on(self, dataset: str) -> tuple[Judgment, tuple[Comparison, ...]]:
        """Verdict and comparisons of one data set; Holm's correction stays that of the whole claim."""
        pairs = [
            (one, outcome)
            for one, outcome in zip(self.comparisons, self.judgment.outcomes, strict=True)
            if one.dataset == dataset
        ]
        counted = [outcome for one, outcome in pairs if one.counts]
        verdict, reason = combined(counted, self.claim.condition)
        return Judgment(verdict, tuple(outcome for _, outcome in pairs), reason), tuple(
            one for one, _ in pairs
        )


def card(claim: Claim, records: Mapping[str, Result], gaps: tuple[Gap, ...] | str = ()) -> Card:
    """Judge a claim by the records of its profiles that there are; gaps to AutoAttack stand beside."""
    found = tuple(one for record in records.values() for one in claim.compare(record))
    origins = {profile: record.provenance for profile, record in records.items()}
    ours = {profile: claim.scale(_as_planned(origin)) for profile, origin in origins.items()}
    left_out = tuple(one for record in records.values() for one in claim.left_out(record))
    return Card(claim, found, judge(found, condition=claim.condition), ours, origins, gaps, left_out)


def _as_planned(origin: Settings) -> Settings:
    """A record's configuration, with all seeds of its profile: `recorded` has those that there are."""
    seeds = origin.get("planned_seeds")
    return origin["config"] if seeds is None else {**origin["config"], "seeds": seeds}


Field = str | float | bool | Callable[[float], float] | None  # of a `Comparison`


def compare(
    dataset: str, setting: str, effect: Estimate | None, sign: int, smallest: float, **more: Field
) -> list[Comparison]:
    """One comparison with the data set's proper name; none without an effect."""
    if effect is None:
        return []
    return [Comparison(DATASETS.get(dataset, dataset), setting, effect, sign, smallest, **more)]


def radius(eps: float) -> str:
    """ε as the field writes it: 8/255, or 0.1.

    Args:
        eps: ≥ 0, in pixel units.

    Returns:
        k/255 where ε is a whole number k of the 255 levels of a pixel, else its digits.

    >>> radius(8 / 255), radius(0.1)
    ('8/255', '0.1')
    """
    whole = eps * 255
    return f"{whole:.0f}/255" if abs(whole - round(whole)) < 1e-6 else f"{eps:g}"


def means(**values: Numbers) -> str:
    """Names and means of arrays over seeds, for a note: over the seeds that all of them have."""
    return ", ".join(f"{name} {there.mean():.3f}" for name, there in _together(values).items())


def geometric_means(**values: Numbers) -> str:
    """The same with geometric means of positive arrays, beside an effect of logarithms."""
    logs = _together({name: np.log(np.asarray(array, float)) for name, array in values.items()})
    texts = [f"{name} {np.exp(there.mean()):.4g}" for name, there in logs.items()]
    return f"{', '.join(texts)} (geometric means)" if texts else ""


def _together(values: Mapping[str, Numbers]) -> dict[str, np.ndarray]:
    """Arrays by name, without those that have nothing, at the seeds that all others have."""
    arrays = {name.replace("_", " "): np.asarray(array, float) for name, array in values.items()}
    arrays = {name: array for name, array in arrays.items() if np.isfinite(array).any()}
    both = np.isfinite(sum(arrays.values())) if arrays else np.zeros(0, bool)
    return {name: array[both] for name, array in arrays.items() if both.any()}


def span(numbers: Sequence[Setting], form: str = "{:,}") -> str:
    """The different numbers of several cases: "2,000 and 4,000"."""
    return " and ".join(form.format(one) for one in dict.fromkeys(numbers))


def each(cases: Sequence[Settings], name: str, form: str = "{:,}") -> str:
    """The different values of a field of the cases."""
    return span([case[name] for case in cases], form)


def radii(cases: Sequence[Settings]) -> str:
    """The sizes of the perturbation, in the order of the cases."""
    return ", ".join(dict.fromkeys(radius(case["eps"]) for case in cases))


def datasets(config: Settings) -> str:
    """The data sets of a configuration's cases."""
    return ", ".join(
        dict.fromkeys(DATASETS.get(case["dataset"], case["dataset"]) for case in config["cases"])
    )
