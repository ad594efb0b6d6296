"""Claims E1 and E2: the conjugate kernel beside the tangent kernel, and large biases (chapter 10)."""

import functools
from collections.abc import Iterator

import numpy as np

from companion._core.words import Settings
from companion.experiments.neighbours import KINDS
from companion.results import Result
from companion.scorecard._claim import (
    Claim,
    Scale,
    compare,
    datasets,
    each,
    geometric_means,
    means,
    radii,
    span,
)
from companion.scorecard._verdicts import Comparison, paired, relative

WORSE = 0.02
"""Accuracy that "marginally worse" may lose."""
SLOWER = 0.25
"""The share of steps more that "as fast" may take."""


def clean(record: Result) -> Iterator[Comparison]:
    """E1a: clean accuracy of the conjugate kernel minus that of the tangent kernel."""
    yield from _kernels(record, record.arrays.get("clean"))


def attacked(record: Result) -> Iterator[Comparison]:
    """E1b: under PGD, each at its best ridge; and under AutoAttack at one ridge, shown only."""
    along, auto = (record.arrays.get(name) for name in ("along", "auto"))
    yield from _kernels(record, None if along is None else along[..., 1].max(axis=-1), ": own ridge")
    yield from _kernels(record, None if auto is None else auto[..., 1], ": one ridge", counts=False)


def _kernels(
    record: Result, accuracy: np.ndarray | None, named: str = "", *, counts: bool = True
) -> Iterator[Comparison]:
    config = record.provenance["config"]
    for c, case in enumerate(config["cases"] if accuracy is not None else ()):
        for k, kernel in enumerate(config["kernels"]):
            by_kind = dict(zip(KINDS, np.moveaxis(accuracy[c, :, k], -1, 0), strict=True))
            n = case["n_conv" if kernel.startswith("Conv") else "n_train"]
            options = {"beyond": -WORSE, "counts": counts, "unit": "splits"}
            options["note"] = means(tangent=by_kind["ntk"], conjugate=by_kind["nngp"])
            effect = paired(by_kind["nngp"], by_kind["ntk"])
            yield from compare(case["dataset"], f"{kernel}, n = {n:,}{named}", effect, 1, -WORSE, **options)


def active(record: Result) -> Iterator[Comparison]:
    """E2a: how many more units are active after training than before; without biases shown only."""
    for dataset, bias, values in _biases(record, "active"):
        before, after = values[:, 1], values[:, 2]
        options = {
            "beyond": -WORSE,
            "counts": bias > 0,
            "unit": "splits",
            "note": means(before=before, after=after),
        }
        yield from compare(dataset, f"B = {bias:g}", paired(after, before), -1, -WORSE, **options)


def steps(record: Result) -> Iterator[Comparison]:
    """E2b: the share of steps more than without biases."""
    found = {(dataset, bias): values for dataset, bias, values in _biases(record, "gradient_steps")}
    for (dataset, bias), values in found.items():
        if bias > 0:
            dense = found[dataset, 0.0]
            effect, p_value = relative(values, dense)
            options = {"beyond": -SLOWER, "note": geometric_means(dense=dense, sparse=values)}
            options |= {"p_value": p_value, "unit": "splits"}
            yield from compare(dataset, f"B = {bias:g}", effect, -1, -SLOWER, **options)


def biased(record: Result) -> Iterator[Comparison]:
    """E2c: robust accuracy over that at B = 0, and clean accuracy beside it, shown only."""
    found = {(dataset, bias): values for dataset, bias, values in _biases(record, "biased")}
    for (dataset, bias), values in found.items():
        if bias > 0:
            for part, name in ((1, ""), (0, ": clean")):
                one, other = values[:, part], found[dataset, 0.0][:, part]
                options = {
                    "counts": part == 1,
                    "asks": part == 1,
                    "unit": "splits",
                    "note": means(dense=other, sparse=one),
                }
                yield from compare(dataset, f"B = {bias:g}{name}", paired(one, other), 1, WORSE, **options)


def _biases(record: Result, name: str) -> Iterator[tuple[str, float, np.ndarray]]:
    """Data set, B, and values by seed."""
    config = record.provenance["config"]
    values = record.arrays.get(name)
    for c, case in enumerate(config["cases"] if values is not None else ()):
        for b, bias in enumerate(config["biases"]):
            yield case["dataset"], float(bias), values[c, :, b].astype(float)


def _scale(config: Settings, *, biases: bool) -> Scale:
    cases = config["cases"]
    kernels = (
        f"one hidden layer, B = {span(config['biases'], '{:g}')}" if biases else span(config["kernels"], "{}")
    )
    n, attacked = (each(cases, name) for name in ("n_train", "n_attacked"))
    if not biases:
        n = f"{n} ({each(cases, 'n_conv')} for Conv)"
        attacked = f"{attacked} ({each(cases, 'n_conv_attacked')} for Conv)"
    attack = f"PGD-{config['steps']}"
    attack += "" if biases else f"; {span(config['attacks'], '{}')} at ridge .01, shown only"
    return Scale(
        f"closed-form kernels: {kernels}" + (f"; networks of width {config['width']}" if biases else ""),
        f"{datasets(config)}, a pair of classes each, n = {n}; {each(cases, 'n_test')} test images, of which "
        f"{attacked} are attacked",
        "gradient descent with momentum .9 to a tenth of the residual"
        if biases
        else "kernel regression, ridge .01 of the mean diagonal, or the best of five",
        f"L∞ {radii(cases)}, {attack}",
        "the planned size; what is recorded stands beside each effect, n: splits",
    )


_conjugate = functools.partial(
    Claim,
    source="qadeer2023",
    theirs=Scale(
        "kernels of finite networks; GPT-2",
        "regression of smooth functions, and classification",
        "kernel and logistic regression",
        "none",
        "could not be read",
    ),
    effect="accuracy, conjugate − tangent kernel",
    percent=False,
    chapter="10_neighbours",
    experiment="neighbours",
    scale=functools.partial(_scale, biases=False),
)
_large = functools.partial(
    Claim,
    source="yang2024",
    theirs=Scale("one hidden layer, theorems", "unit inputs", "gradient descent", "none", "none"),
    percent=False,
    chapter="10_neighbours",
    experiment="neighbours",
    scale=functools.partial(_scale, biases=True),
)

CLAIMS = (
    _conjugate(
        "E1a",
        "The conjugate kernel is hardly worse than the tangent kernel",
        "the CK performance is only marginally worse than that of the NTK and, in certain cases, is shown to "
        "be superior",
        reading="Kernel regression with the conjugate kernel loses less than .02 of clean accuracy, on the "
        "same images with the same relative ridge.",
        rule="Effect: clean accuracy of the conjugate minus that of the tangent kernel, paired by split. "
        "For: certainly above −.02. Against: certainly below.",
        compare=clean,
    ),
    _conjugate(
        "E1b",
        "It is hardly worse under attack, too",
        "",
        reading="No claim of theirs, but what everyone must know who attacks one kernel in place of the "
        "other.",
        rule="As E1a, of the accuracy that PGD leaves, each kernel at the ridge that is best for it, of five "
        "and picked in each split on the attacked images themselves, which flatters both: one ridge is not "
        "one regularization of two spectra. Where the largest of the five is best a larger one might be "
        "better (chapter 10 counts how often). What both Auto-PGDs leave at one ridge is shown only.",
        compare=attacked,
    ),
    _large(
        "E2a",
        "Few units are active before training and after it",
        "under such initialization, the neural network will have sparse activation throughout the entire "
        "training process",
        reading="The share of pairs of a training image and a unit with a positive preactivation grows by "
        "less than .02 in training, for every B > 0. At B = 2, where theory says .023, this lets the share "
        "almost double. At B = 0 it is shown only.",
        rule="Effect: share after training minus share before, paired by split. For: certainly below .02. "
        "Against: certainly above.",
        effect="share of active units, after − before",
        compare=active,
    ),
    _large(
        "E2b",
        "A network with large biases is trained as fast",
        "the network in this case can achieve as fast convergence as the dense network",
        reading="Biases start at −B. Steps to a tenth of the residual, each network at momentum .9 and a "
        "rate of one over the largest eigenvalue of its kernel: at most a quarter more than at B = 0.",
        rule="Effect: geometric mean of steps over those at B = 0, less 1, paired by split. For: certainly "
        "below .25. Against: certainly above.",
        effect="steps more than at B = 0, as a share",
        percent=True,
        compare=steps,
    ),
    _large(
        "E2c",
        "Large biases make the kernel more robust",
        "",
        reading="No claim of theirs. Sparse units are one of the oldest hopes for robustness; B is a dial "
        "for them.",
        rule="Effect: robust accuracy minus that at B = 0, paired by split, both at a ridge of .01 of the "
        "mean diagonal, which is not the same regularization for two B. Against: less than .02 for certain. "
        "Clean accuracy is shown only.",
        effect="robust accuracy won",
        condition="at one ridge for all B",
        compare=biased,
    ),
)
