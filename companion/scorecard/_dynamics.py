"""Claims A5, A6, C1 and C2: the kernel under adversarial training (chapter 4)."""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from companion import dynamics
from companion._core.words import Settings
from companion.results import Result
from companion.scorecard._claim import Claim, Scale, compare, datasets, each, means, radii, span
from companion.scorecard._verdicts import Comparison, equal_accuracy, paired

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


def concentrated(record: Result) -> Iterator[Comparison]:
    """A6: effective rank, and mass outside the top 20, relative to standard training as accurate."""
    for dataset, case in _each(record):
        last = len(case.times) - 1
        for rate, standard, other in RATES:
            for measure, (name, read) in MEASURES.items():
                if other not in case.regimes or name not in case.arrays:
                    continue
                base, end = (read(values) for values in case.at_equal_accuracy(name, standard, other))
                late = read(case.of(name, standard)[:, last])
                where = f"{measure}, {rate}, {case.steps:,} steps"
                note = means(PGD=end, standard_as_accurate=base, standard_at_the_end=late)
                yield from compare(dataset, where, paired(end / base, 1.0), -1, 0.1, note=note)
                shown = {"counts": False, "note": note}
                yield from compare(dataset, f"{where}, at the end", paired(end / late, 1.0), -1, 0.1, **shown)


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

    A decayed rate brings every kernel to rest, so those runs are shown only.
    """
    for dataset, case in _each(record):
        for rate, standard, other in RATES:
            if other in case.regimes:
                left = case.remaining(other)
                note = means(PGD=left, standard=case.remaining(standard))
                where = f"{rate}, {case.steps:,} steps"
                counts = rate == "constant"
                yield from compare(dataset, where, paired(left, 0.5), -1, 0.1, counts=counts, note=note)


def inherited(record: Result) -> Iterator[Comparison]:
    """C2a: robust accuracy of benign training on PGD training's kernel, minus on other kernels.

    On standard training's, which training may have made less robust than it was, and on that of the start.
    """
    for dataset, case in _each(record):
        last, after = len(case.plan["linear"]) - 1, f"after {case.steps:,} steps"
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
                yield from compare(dataset, where, paired(other, less), 1, 0.02, note=note)
        if case.plan.get("curve"):
            standard, other = case.arrays["curve"][:, :, 0, -1, 1].T
            note = means(PGD_kernel=other, standard_kernel=standard)
            where = f"{case.plan['curve'][-1]:g} epochs, − standard training's, {after}"
            yield from compare(dataset, where, paired(other, standard), 1, 0.02, note=note)


def second_phase(record: Result) -> Iterator[Comparison]:
    """C2b: adversarial training on the frozen kernel of PGD training, beyond benign training on it."""
    for dataset, case in _each(record):
        last = len(case.plan["linear"]) - 1
        benign, adversarial = case.arrays["linear"][:, 1, last, :, 1].T
        note = means(adversarial=adversarial, benign=benign)
        where = f"{case.plan['linear_epochs']} epochs, after {case.steps:,} steps"
        gap = paired(adversarial, benign)
        yield from compare(dataset, where, gap, 1, 0.02, counts=False, note=note)


def scale(config: Settings) -> Scale:
    """Ours."""
    cases = config["cases"]
    steps = [one["epochs"] * (one["n_train"] // one["batch_size"]) for one in cases]
    return Scale(
        f"{each(cases, 'model', '{}')}, widths {each(cases, 'width')}",
        f"{datasets(config)}, {each(cases, 'n_train')} training images; kernel on "
        f"{each(cases, 'n_probe')} images",
        f"SGD, {each(cases, 'epochs')} epochs ({span(steps)} steps): {', '.join(config['regimes'])}",
        f"L∞ {radii(cases)}; PGD-{each(cases, 'steps')} in training",
        f"n beside each effect, of {config['seeds']} planned",
    )


_A = Scale(
    "convolutional network of six layers",
    "CIFAR-10, 50,000 images; kernel on 250 images, attacked ones",
    "SGD .01, constant, 200 epochs of batches of 250 (40,000 steps)",
    "L∞ 8/255, 20 steps of 2/255",
    "could not be read",
)
_C = Scale(
    "ResNet-18",
    "CIFAR-10 and CIFAR-100; kernel on 500 images",
    "SGD .1 with momentum, divided by 10 at epochs 100 and 150; second phase .01, 100 epochs",
    "L∞ 4/255, 20 steps; test 100 steps",
    "could not be read",
)


_claim = functools.partial(
    Claim,
    percent=False,
    chapter="04_kernel_dynamics",
    experiment="dynamics",
    scale=scale,
    profiles=("full", "long", "quick"),
)
_of_a = functools.partial(_claim, source="tsilivis2022", theirs=_A)
_of_c = functools.partial(_claim, source="loo2022", theirs=_C)

CLAIMS = (
    _of_a(
        "A5",
        "The kernel becomes lazy much earlier",
        "its dynamics falls much earlier into the “lazy” regime",
        reading="*Lazy* is when the kernel has nearly stopped to turn. Without a threshold: the angle that "
        "is left to the last kernel, averaged over training, in units of the whole angle; ½ for a steady "
        "rotation.",
        rule=f"Effect: that share under PGD minus standard training, paired by seed. Against: less than .05 "
        f"earlier for certain. Runs shorter than {LONG:,} steps are shown and do not count: the authors' "
        "are 40,000, and a run that is cut short cannot show when a kernel comes to rest.",
        effect="share of the way left, PGD − standard (left of 0: earlier)",
        compare=earlier,
    ),
    _of_a(
        "A6",
        "The kernel's mass gathers in its top eigenspaces",
        "manifests a much stronger form of the well known bias to prioritize learning features within the "
        "top eigenspaces of the kernel",
        reading="Fewer directions carry the kernel. Concentration changes along any training, and PGD "
        "training is slower, so both are compared at equal clean accuracy, not after equally many epochs.",
        rule="Effect: effective rank, and mass outside the top 20, of PGD training's last kernel, relative "
        "to standard training's at the first record whose clean accuracy reaches what PGD training ends "
        "at. Against: less than 10 % lower for certain. At the end of both, shown only.",
        effect="PGD relative to standard (left of 0: more concentrated)",
        percent=True,
        compare=concentrated,
    ),
    _of_c(
        "C1a",
        "Adversarial training arrives at a different kernel",
        "under adversarial training, the NTK rapidly converges to a different kernel (and feature map) "
        "than standard training",
        reading="*Different*: farther from standard training's kernel than another standard training, from "
        "the same start in another order of minibatches, is, and farther than training on random ±ε is. "
        "At the same epoch one training may only be further along the same road: that is not excluded here.",
        rule="Effect: angle between the last kernels of PGD and standard training, minus that between two "
        "standard trainings, and minus that of training on noise where it was run, in radians. Against: less "
        "than .05 for certain.",
        effect="angle beyond the control, radians",
        condition="measured after equally many epochs",
        compare=different,
    ),
    _of_c(
        "C1b",
        "And it does so rapidly",
        "the NTK rapidly converges",
        reading="*Rapidly* has no number in the abstract. Ours: the kernel is sooner near its end than one "
        "that turns steadily, within our length of training.",
        rule="Effect: share of the way left, averaged over PGD training, minus the ½ of a steady rotation. "
        "Against: less than .1 sooner for certain. With a decayed rate every kernel comes to rest, that of "
        "standard training too: shown only.",
        effect="share of the way left − ½ (left of 0: rapid)",
        compare=rapid,
    ),
    _of_c(
        "C2a",
        "On that kernel even benign training is robust",
        "This new kernel provides adversarial robustness, even when non-robust training is performed on "
        "top of it",
        reading="The network's kernel is frozen at the end, and the linear model on it trained on clean "
        "images: for a few epochs, and in closed form on few images.",
        rule="Effect: robust accuracy on the kernel of PGD training minus on that of standard training, and "
        "minus on the kernel of the start, which no training has spoiled; paired by seed. Against: less than "
        ".02 for certain.",
        effect="robust accuracy, PGD's kernel − another",
        compare=inherited,
    ),
    _of_c(
        "C2b",
        "Adversarial training on a frozen kernel",
        "adversarial training on top of a fixed kernel can yield a classifier with 76.1% robust accuracy "
        "under PGD attacks with ε = 4/255 on CIFAR-10",
        reading="A number for one network, ResNet-18, which needs a GPU. Here only whether an adversarial "
        "second phase adds to a benign one.",
        rule="Effect: robust accuracy after an adversarial minus after a benign second phase on PGD "
        "training's kernel. Shown only: it cannot test the number.",
        effect="robust accuracy, adversarial − benign second phase",
        compare=second_phase,
    ),
)
