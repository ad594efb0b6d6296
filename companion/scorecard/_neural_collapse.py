"""Claims E4: the tangent kernel's collapse by class, also under adversarial training (chapter 10)."""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from companion._core.words import Settings
from companion.experiments.collapse import KERNELS, MEASURES, METHODS
from companion.results import Result
from companion.scorecard._claim import Claim, Scale, compare, datasets, each, geometric_means, means, radii
from companion.scorecard._verdicts import Comparison, paired

FITS = 0.98
"""Training accuracy from which on a run is in the terminal phase."""

_THEIRS = Scale(
    "ResNet20, VGG11 and DenseNet40",
    "MNIST, Fashion-MNIST, CIFAR-10",
    "SGD on the squared loss, 400 epochs",
    "none",
    "could not be read",
)


def measured(record: Result, c: int, method: str, measure: str, epoch: int = -1) -> np.ndarray:
    """A measure at a record, by seed, NaN where there is no run."""
    found = record.arrays["measures"][c, METHODS.index(method), :, epoch]
    return found[:, MEASURES.index(measure)].astype(float)


def at_rest(record: Result, c: int, method: str, measure: str) -> np.ndarray:
    """A measure at the end of the runs that fit their training images, under PGD if trained so; else NaN."""
    fits = measured(record, c, method, "robust train" if method == "pgd" else "train") >= FITS
    return np.where(fits, measured(record, c, method, measure), np.nan)


def block_structure(record: Result) -> Iterator[Comparison]:
    """E4a: how much more of an image's own entry its class shares than other classes do, end minus start."""
    for c, case in enumerate(record.provenance["config"]["cases"]):
        for method in METHODS:
            gap = {}
            for epoch, name in ((-1, "end"), (0, "start")):
                same, within, between = (
                    measured(record, c, method, one, epoch) for one in ("same", "within", "between")
                )
                gap[name] = (within - between) / same
            more = {"note": f"(κc − κn)/κd: {means(**gap)}", "counts": method == "standard"}
            effect = paired(gap["end"], gap["start"])
            yield from compare(case["dataset"], f"dense, {method}", effect, 1, 0.05, **more)


def less_collapsed(record: Result) -> Iterator[Comparison]:
    """E4b: log of the spread within classes, PGD training minus standard; noise beside it."""
    for c, case in enumerate(record.provenance["config"]["cases"]):
        for method in ("pgd", "noise"):
            for measure, name in (("spread", "tangent kernel"), ("nc1", "features, NC1")):
                pair = {one: at_rest(record, c, one, measure) for one in (method, "standard")}
                more = {"note": geometric_means(**pair), "counts": method == "pgd"}
                effect = paired(np.log(pair[method]), np.log(pair["standard"]))
                yield from compare(case["dataset"], f"{name}, {method}", effect, 1, 0.1, **more)


def no_more_collapsed(record: Result) -> Iterator[Comparison]:
    """E4c: log of the spread within classes, NTK minus NNGP, of infinite width."""
    for c, case in enumerate(record.provenance["config"]["cases"]):
        # The kernels are the same for all methods.
        limit = record.arrays["limit"][c, METHODS.index("standard")].astype(float)
        pair = {name: limit[:, i] for i, name in enumerate(KERNELS)}
        effect = paired(np.log(pair["ntk"]), np.log(pair["nngp"]))
        setting = f"FC-{case['depth']}"
        more = {"beyond": -0.05, "note": geometric_means(**pair)}
        yield from compare(case["dataset"], setting, effect, 1, -0.05, **more)


_GAUSSIAN = Scale(
    "infinitely wide networks of one hidden layer, a theorem; networks and kernels beside it",
    "Gaussian data of arbitrary dimension; images",
    "none: closed-form kernels",
    "none",
    "could not be read",
)


def limit_scale(config: Settings) -> Scale:
    """Ours, of the kernels of infinite width."""
    cases = config["cases"]
    return Scale(
        f"closed-form NNGP kernel and NTK, FC-{each(cases, 'depth')}",
        f"{datasets(config)}, {each(cases, 'n_class')} images a class",
        "none: closed-form kernels",
        "none",
        "n beside each effect: draws of the images",
    )


def scale(config: Settings) -> Scale:
    """Ours."""
    cases = config["cases"]
    return Scale(
        f"dense ReLU networks, {each(cases, 'depth')} hidden layers of {each(cases, 'width')}",
        f"{datasets(config)}, {each(cases, 'n_class')} images a class",
        f"SGD with momentum on the squared loss, {cases[0]['epochs'][-1]} epochs",
        f"L∞ {radii(cases)}, PGD-{each(cases, 'steps')} in training",
        "n beside each effect",
    )


def _claim(name: str, title: str, quotation: str, source: str, **rest: str | Scale | Callable) -> Claim:
    make = functools.partial(Claim, chapter="10_neighbours", experiment="collapse", percent=False)
    return make(name, title, quotation, source, **({"theirs": _THEIRS, "scale": scale} | rest))


CLAIMS = (
    _claim(
        "E4a",
        "Training gives the tangent kernel blocks by class",
        "the empirical NTK develops a block structure aligned with the class labels, i.e., samples within "
        "the same class have stronger correlations than samples from different classes",
        "seleznova2023",
        reading="An assumption of theirs, measured: the mean entry of an image with others of its class, "
        "minus that with other classes, in units of its entry with itself, grows by training.",
        rule="Effect: that difference at the end minus at the start, standard training. Noise and PGD "
        "training are shown only. Against: less than .05 for certain.",
        effect="growth of (κc − κn)/κd",
        compare=block_structure,
    ),
    _claim(
        "E4b",
        "Adversarial training collapses less",
        "",
        "seleznova2023",
        reading="No claim of theirs, but a question of ours: images that are moved toward other classes "
        "might keep a network from "
        "collapse. Spread within classes over that between them, of the tangent kernel and, as NC1 "
        "(covariance within over covariance between), of the features, on clean training images at the end.",
        rule="Effect: log of the spread after PGD training minus that after standard training. Random "
        "noise of the same size is shown only. A run counts where it is right on .98 of its training images, "
        "after PGD training of the attacked ones. Against: less than .1 for certain. Five classes and this "
        "length were chosen after trials with ten, which are not kept: PGD training did not fit there, and "
        "the spreads on digits had no clear order.",
        effect="log of the spread, PGD − standard",
        compare=less_collapsed,
    ),
    _claim(
        "E4c",
        "At infinite width the NTK is no more collapsed than the NNGP kernel",
        "the NTK does not represent more collapsed features than the NNGP for Gaussian data of arbitrary "
        "dimensions",
        "kothapalli2025",
        reading="Their theorem is for Gaussian data and one hidden layer; here it is asked of images and of "
        "the kernels of our networks' depth.",
        rule="Effect: log of the spread within classes of the NTK minus that of the NNGP kernel, on the "
        "same images; no less than −.05 speaks for it. Against: below −.05 for certain.",
        effect="log of the spread, NTK − NNGP",
        theirs=_GAUSSIAN,
        scale=limit_scale,
        compare=no_more_collapsed,
    ),
)
