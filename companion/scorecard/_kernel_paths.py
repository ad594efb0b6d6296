"""What speaks to claims A5, A6, C1 and C2: how kernels move along training, and where they end."""

from collections.abc import Callable, Iterator

import numpy as np

from companion import dynamics
from companion.results import Result
from companion.scorecard._claim import DATASETS, compare, geometric_means, means
from companion.scorecard._verdicts import (
    Comparison,
    beyond_constant,
    equal_accuracy,
    newcombe,
    paired,
    relative,
)
from companion.statistics import proportion

LONG = 10_000
"""Steps of SGD from which on a run can say something of "much earlier": a quarter of the authors' 40,000."""
RATES = (("constant", "standard", "pgd"), ("decayed", "standard decayed", "pgd decayed"))


class Case:
    """One data set's networks: arrays over seeds, by name and regime."""

    def __init__(self, record: Result, index: int) -> None:
        config = record.provenance["config"]
        self.plan, self.regimes = config["cases"][index], list(config["regimes"])
        self.arrays = {name: np.asarray(value[index], float) for name, value in record.arrays.items()}
        self.times = self.arrays["epochs"][np.isfinite(self.arrays["epochs"])]
        self.constant = 1 / len(self.plan.get("classes") or range(10))
        self.steps = self.plan["epochs"] * (self.plan["n_train"] // self.plan["batch_size"])

    def of(self, name: str, regime: str) -> np.ndarray:
        """An array of a regime, seeds first, records second."""
        return self.arrays[name][:, self.regimes.index(regime)]

    def remaining(self, regime: str) -> np.ndarray:
        """Of each seed, how much of its way the kernel has left on average; NaN where there is no run."""
        last = len(self.times) - 1
        rows = self.of("distances", regime)[:, last, : last + 1]
        return np.array(
            [dynamics.remaining(row, self.times) if np.isfinite(row).all() else np.nan for row in rows]
        )

    def apart(self, one: str, other: str) -> np.ndarray:
        """Angle between the last kernels of two regimes."""
        last = len(self.times) - 1
        pair = self.arrays["between"][:, last, self.regimes.index(one), self.regimes.index(other)]
        return dynamics.angle(pair)

    def at_equal_accuracy(self, name: str, standard: str, other: str) -> tuple[np.ndarray, np.ndarray]:
        """Standard training's value once its clean accuracy reaches the other's last, and the other's last.

        NaN where none does.
        """
        last = len(self.times) - 1
        rows, cleans = self.of(name, standard), self.of("clean", standard)
        ends, levels = self.of(name, other)[:, last], self.of("clean", other)[:, last]
        found = np.full(len(rows), np.nan)
        for seed, level in enumerate(levels):
            at = equal_accuracy(cleans[seed, : last + 1], level)
            if at is not None:
                found[seed] = rows[seed, at]
        return found, ends


def _each(record: Result) -> Iterator[tuple[str, Case]]:
    every = (Case(record, index) for index in range(len(record.provenance["config"]["cases"])))
    return ((one.plan["dataset"], one) for one in every if len(one.times))  # of which there is a run


def earlier(record: Result) -> Iterator[Comparison]:
    """A5: how much of its way the kernel has left, PGD minus standard training; and noise, as a control."""
    for dataset, case in _each(record):
        for rate, standard, other in (*RATES, ("noise ±ε", "standard", "noise")):
            if other not in case.regimes:
                continue
            one, two = case.remaining(other), case.remaining(standard)
            counts = case.steps >= LONG and other != "noise"
            note = means(**{other: one, standard: two})
            where = f"{rate}, {case.steps:,} steps"
            yield from compare(dataset, where, paired(one, two), -1, 0.05, counts=counts, note=note)


MEASURES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "effective rank": ("rank", lambda values: values),
    "mass outside the top 20": ("concentration", lambda values: 1 - values),
    "effective rank, attacked": ("attacked_rank", lambda values: values),
    "mass outside, attacked": ("attacked_concentration", lambda values: 1 - values),
}


COUNTED = ("effective rank, attacked", "effective rank")
"""One of these, the first that is recorded: both are of the same networks, and the authors' kernels are on
attacked images. The mass outside the top 20 is the same question again, and shown."""


def concentrated(record: Result, *, at_the_end: bool = False) -> Iterator[Comparison]:
    """A6: effective rank, relative to standard training's as accurate, or at the end of both."""
    for dataset, case in _each(record):
        last = len(case.times) - 1
        for rate, standard, other in RATES:
            if other not in case.regimes:
                continue
            clean = [case.of("clean", one)[:, last] for one in (other, standard)]
            ends = means(PGD=clean[0], standard=clean[1])
            found = {}
            for measure, (name, read) in MEASURES.items():
                if name not in case.arrays:
                    continue
                base, end = (read(values) for values in case.at_equal_accuracy(name, standard, other))
                late = read(case.of(name, standard)[:, last])
                note = geometric_means(PGD=end, standard_as_accurate=base, standard_at_the_end=late)
                found[measure] = (*relative(end, late if at_the_end else base), note)
            counted = next((one for one in COUNTED if one in found and found[one][0] is not None), None)
            for measure, (effect, p_value, note) in found.items():
                more = {"note": f"{note}; clean accuracy at the end: {ends}", "p_value": p_value}
                where = f"{measure}, {rate}, {case.steps:,} steps"
                yield from compare(dataset, where, effect, -1, 0.1, counts=measure == counted, **more)


def never_as_accurate(record: Result) -> Iterator[str]:
    """Of A6a: where standard training does not reach what PGD training ends at, in too many seeds."""
    for dataset, case in _each(record):
        for rate, standard, other in RATES:
            if other not in case.regimes:
                continue
            base, end = case.at_equal_accuracy("rank", standard, other)
            begun, reached = np.isfinite(end).sum(), np.isfinite(base + end).sum()
            if begun > 1 and reached < 2:
                yield (
                    f"{DATASETS[dataset]}, {rate} rate, {case.steps:,} steps: standard training reaches the "
                    f"clean accuracy that PGD training ends at in {reached} of {begun} seeds"
                )


def different(record: Result) -> Iterator[Comparison]:
    """C1a: angle between the last kernels, beyond that of two standard trainings, and of noise."""
    for dataset, case in _each(record):
        apart = {
            name: case.apart("standard", regime)
            for name, regime in (("PGD", "pgd"), ("noise ±ε", "noise"), ("standard", "again"))
            if regime in case.regimes
        }
        for one, other, counts in (
            ("PGD", "standard", True),
            ("PGD", "noise ±ε", True),
            ("noise ±ε", "standard", False),
        ):
            if one in apart and other in apart:
                note = means(**{f"{name} and standard": apart[name] for name in (one, other)})
                where = f"{one} beyond {other}, {case.steps:,} steps"
                gap = paired(apart[one], apart[other])
                yield from compare(dataset, where, gap, 1, 0.05, counts=counts, note=note)


def rapid(record: Result) -> Iterator[Comparison]:
    """C1b: how much less of its way PGD training's kernel has left than a steady rotation.

    A decayed rate brings every kernel to rest, so those runs are shown only; and short ones, as for A5.
    """
    for dataset, case in _each(record):
        for rate, standard, other in RATES:
            if other in case.regimes:
                left = case.remaining(other)
                note = means(PGD=left, standard=case.remaining(standard))
                where = f"{rate}, {case.steps:,} steps"
                counts = rate == "constant" and case.steps >= LONG
                yield from compare(dataset, where, paired(left, 0.5), -1, 0.1, counts=counts, note=note)
                alike = paired(case.remaining(standard), 0.5)
                yield from compare(dataset, f"standard training's, {where}", alike, -1, 0.1, counts=False)


def inherited(record: Result) -> Iterator[Comparison]:
    """C2a: robust accuracy of benign training on PGD training's kernel, minus on other kernels.

    On standard training's, which training may have made less robust than it was, and on that of the start.
    """
    for dataset, case in _each(record):
        last, after = len(case.plan["linear"]) - 1, f"after {case.steps:,} steps"
        if "noise" in case.plan.get("paths", ()):  # its other kernels are those of the profiles above
            yield from beyond_noise(dataset, case)
            continue
        settings = {
            f"{case.plan['linear_epochs']} epochs": case.arrays["linear"][:, :, :, 0, 1],
            "closed form": case.arrays["solved"][..., 1],
        }
        for setting, values in settings.items():
            standard, other = values[:, :, last].T
            kernels = {"standard training's": standard}
            if case.plan["linear"][0] == 0:
                kernels["the start's"] = values[:, 0, 0]
            for name, less in kernels.items():
                note = means(PGD_kernel=other, **{f"{name} kernel": less})
                where = f"{setting}, − {name}, {after}"
                effect = beyond_constant(other, less, case.constant)
                yield from compare(dataset, where, effect, 1, 0.02, note=note)
        if case.plan.get("curve"):
            yield from matched(dataset, case)
            standard, other = case.arrays["curve"][:, :, 0, -1, 1].T
            note = means(PGD_kernel=other, standard_kernel=standard)
            where = f"{case.plan['curve'][-1]:g} epochs, − standard training's, {after}"
            effect = beyond_constant(other, standard, case.constant)
            yield from compare(dataset, where, effect, 1, 0.02, note=note)


def beyond_noise(dataset: str, case: Case) -> Iterator[Comparison]:
    """C2a's control: minus on the kernel of training on random signs ±ε. The abstract does not ask it."""
    last, at = len(case.plan["linear"]) - 1, [case.plan["paths"].index(name) for name in ("pgd", "noise")]
    other, noise = case.arrays["linear"][:, at, last, 0, 1].T
    note = means(PGD_kernel=other, noise_kernel=noise)
    where = f"{case.plan['linear_epochs']} epochs, − noise's, after {case.steps:,} steps"
    effect = beyond_constant(other, noise, case.constant)
    yield from compare(dataset, where, effect, 1, 0.02, counts=False, note=note)


def robust_at(clean: np.ndarray, robust: np.ndarray, level: float) -> float:
    """Robust accuracy where clean accuracy first reaches a level, on the line between two records.

    NaN where it never does, or begins above.
    """
    at = equal_accuracy(clean, level)
    if at is None or (at == 0 and clean[0] > level):
        return np.nan
    if at == 0 or clean[at] == level:
        return float(robust[at])
    part = (level - clean[at - 1]) / (clean[at] - clean[at - 1])
    return float(robust[at - 1] + part * (robust[at] - robust[at - 1]))


def matched(dataset: str, case: Case) -> Iterator[Comparison]:
    """C2a at equal clean accuracy: where both benign second phases reach what the less accurate ends at."""
    curves = case.arrays["curve"][:, :, 0]  # (seeds, kernels, records, clean and robust)
    curves = curves[np.isfinite(curves).all(axis=(1, 2, 3))]
    levels = curves[:, :, -1, 0].min(axis=1)
    pairs = np.array(
        [[robust_at(*one.T, level) for one in pair] for pair, level in zip(curves, levels, strict=True)]
    ).reshape(-1, 2)
    note = means(clean_accuracy=levels, PGD_kernel=pairs[:, 1], standard_kernel=pairs[:, 0])
    where = f"at equal clean accuracy, − standard training's, after {case.steps:,} steps"
    if np.isfinite(pairs).all(axis=1).sum() == 1:
        n = case.plan["n_watch"]
        standard, other = (proportion(np.arange(n) < round(n * one)) for one in np.nanmean(pairs, axis=0))
        more = {"counts": False, "unit": "images", "note": f"one seed: {note}"}
        yield from compare(dataset, where, newcombe(other, standard), 1, 0.02, **more)
        return
    effect = beyond_constant(*pairs[:, ::-1].T, case.constant)
    yield from compare(dataset, where, effect, 1, 0.02, note=note)


def second_phase(record: Result) -> Iterator[Comparison]:
    """C2b: adversarial training on the frozen kernel of PGD training, beyond benign training on it."""
    for dataset, case in _each(record):
        last = len(case.plan["linear"]) - 1
        benign, adversarial = case.arrays["linear"][:, 1, last, :, 1].T
        note = means(adversarial=adversarial, benign=benign)
        where = f"{case.plan['linear_epochs']} epochs, after {case.steps:,} steps"
        gap = paired(adversarial, benign)
        yield from compare(dataset, where, gap, 1, 0.02, counts=False, note=note)
