"""Claim B1: data normalization, and the estimators of batch normalization (chapter 5)."""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from companion._core.words import Settings
from companion.results import Result
from companion.scorecard._claim import Claim, Scale, compare, datasets, each, means, radii, span
from companion.scorecard._verdicts import Comparison, paired

INPUTS = tuple((name, "raw") for name in ("centred", "standardized", "[−1, 1]", "[0, ½]"))
LAYERS = tuple((name, "raw") for name in ("batch norm", "layer norm", "group norm"))
STATISTICS = tuple((name, "batch norm") for name in ("batch at test", "running in training", "frozen"))
ESTIMATORS = (
    ("unbiased", "batch norm"),
    ("running unbiased", "batch norm"),
    ("batches of 8, by image", "batches of 8"),
)


ONE_POSITION = tuple(
    (f"{name}, batches of {size}", f"biased, batches of {size}")
    for size in (4, 8)
    for name in ("unbiased", "running unbiased")
)


STUCK = 0.15
"""Clean accuracy on ten classes below which a training has learned next to nothing."""


def _stuck(name: str, clean: np.ndarray) -> str:
    """How many runs of a variant ended near the accuracy of a constant answer, if any."""
    number, all_of_them = int((clean < STUCK).sum()), int(np.isfinite(clean).sum())
    return f"{number} of {all_of_them} runs of {name} ended near a constant answer" if number else ""


def changed(
    pairs: Sequence[tuple[str, str]],
    *,
    shown: Sequence[tuple[str, str]] = (),
    beside: Sequence[tuple[str, str]] = (),
) -> Callable[[Result], Iterator[Comparison]]:
    """Comparisons of robust accuracy under PGD training, each variant with its control, paired by seed.

    Args:
        pairs: variants with their controls.
        shown: those that do not count.
        beside: nor do these, but they are of one family with those that do.

    Returns:
        The comparisons of a record; at each variant's best rate where it has those.
    """

    def found(record: Result) -> Iterator[Comparison]:
        config = record.provenance["config"]
        names = [one["name"] for one in config["variants"]]
        if not {"tuned", "final"} & set(record.arrays):  # rates are still being chosen
            return
        if "tuned" in record.arrays:
            both = record.arrays["tuned"]
        else:
            both = record.arrays["final"][:, :, list(config["regimes"]).index("pgd")]
        clean, robust = (np.asarray(both[..., k, 0], float) for k in range(2))
        for c, case in enumerate(config["cases"]):
            for name, control in (*pairs, *shown, *beside):
                if {name, control} <= set(names):
                    rows = [names.index(which) for which in (name, control)]
                    one, two = robust[c, rows]
                    more = {"counts": (name, control) in pairs, "family": (name, control) in beside}
                    named = [which.replace("centred", "centered") for which in (name, control)]
                    words = [means(**dict(zip(named, (one, two), strict=True)))]
                    words += [_stuck(names[row], clean[c, row]) for row in rows]
                    more["note"] = "; ".join(filter(None, words))
                    yield from compare(case["dataset"], " − ".join(named), paired(one, two), 0, 0.02, **more)

    return found


def scale(config: Settings) -> Scale:
    """Ours."""
    cases = config["cases"]
    rates = f"rates {each(cases, 'rate', '{:g}')}, not tuned"
    if config.get("rates"):
        rates = f"rates of each variant chosen on validation images from {span(config['rates'], '{:g}')}"
    return Scale(
        f"{span([one.get('model', 'small CNN') for one in cases], '{}')}, width {each(cases, 'width')}",
        f"{datasets(config)}, {each(cases, 'n_train')} training images, {each(cases, 'n_test')} test images",
        f"SGD with momentum, {rates}; "
        f"{each(cases, 'epochs')} epochs in batches of {each(cases, 'batch_size')}",
        f"L∞ {radii(cases)}; PGD-{each(cases, 'steps')} in "
        f"training, PGD-{span([one['final'][0] for one in cases])} in the test",
        f"n beside each effect, of {config['seeds']} planned",
    )


UNREAD = Scale(*["we have not read the text"] * 5)
_RULE = (
    "Effect: robust accuracy minus that of the control, either way, paired by seed. Against: the interval "
    "lies within ±.02, after the correction for all comparisons."
)
_FAMILY = "Inputs and layers are variants of one experiment, and one family for the correction."


_claim = functools.partial(
    Claim,
    source="li2023",
    theirs=UNREAD,
    percent=False,
    chapter="05_normalization",
    experiment="normalization",
    scale=scale,
    effect="robust accuracy, variant − control",
)


_READING = (
    "That inputs on another scale end with another robust accuracy, ε being the same in pixel units. The "
    "abstract says no more."
)
CLAIMS = (
    _claim(
        "B1a",
        "Data normalization changes adversarial training, at one rate",
        "we disclose the impact of data normalization on AT",
        reading=_READING,
        rule=f"{_RULE} {_FAMILY}",
        compare=changed(INPUTS, beside=LAYERS),
        condition="at one learning rate for all, which a variant's scale changes",
    ),
    _claim(
        "B1b",
        "And at each variant's best rate",
        "the impact of data normalization on AT",
        reading=f"{_READING} Here each variant has the rate that is most robust on validation images.",
        rule=f"{_RULE} Normalizing layers are shown only.",
        compare=changed(INPUTS, shown=LAYERS),
        profiles=("tuned",),
    ),
    _claim(
        "B1c",
        "Unbiased estimators in batch norm matter",
        "the importance of unbiased estimators in batch normalization layers",
        reading="The variance of a batch divided by one less. Behind a convolution a batch has thousands of "
        "positions, so the two estimators differ by less than a part in a thousand and cannot matter by "
        "construction. With one position a channel and batches of 4 or 8 they can.",
        rule=f"{_RULE} Convolutional networks are shown only.",
        compare=changed(ONE_POSITION, shown=ESTIMATORS),
        profiles=("full", "estimators"),
    ),
    _claim(
        "B1d",
        "Whose statistics batch norm uses matters",
        "",
        reading="The abstract does not say it. Ours, as the question next to theirs: the batch's own "
        "statistics or running ones, in training and at test. With the batch's own at test the attack is "
        "weaker too (chapter 5), so that difference is shown only.",
        rule=_RULE,
        compare=changed(STATISTICS[1:], shown=STATISTICS[:1]),
        condition="at one learning rate for all",
    ),
    _claim(
        "B1e",
        "Normalizing layers change adversarial training",
        "",
        reading="The abstract does not say it. Ours, for comparison with inputs.",
        rule=f"{_RULE} {_FAMILY}",
        compare=changed(LAYERS, beside=INPUTS),
        condition="at one learning rate for all",
    ),
)
