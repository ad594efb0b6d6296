"""Claim B1: data normalization, and the estimators of batch normalization (chapter 5)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

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


def changed(
    pairs: Sequence[tuple[str, str]], *, counts: bool = True
) -> Callable[[Result], Iterator[Comparison]]:
    """Comparisons of robust accuracy under PGD training, each variant with its control, paired by seed."""

    def found(record: Result) -> Iterator[Comparison]:
        config = record.provenance["config"]
        names = [one["name"] for one in config["variants"]]
        trained = list(config["regimes"]).index("pgd")
        for c, case in enumerate(config["cases"]):
            robust = np.asarray(record.arrays["final"][c, :, trained, :, 1, 0], float)
            for name, control in pairs:
                if {name, control} <= set(names):
                    one, two = robust[names.index(name)], robust[names.index(control)]
                    note = means(**{name: one, control: two})
                    setting = f"{name} − {control}"
                    yield from compare(
                        case["dataset"], setting, paired(one, two), 0, 0.02, counts=counts, note=note
                    )

    return found


def scale(config: Mapping[str, Any]) -> Scale:
    """Ours."""
    cases = config["cases"]
    return Scale(
        f"small CNN, width {each(cases, 'width')}",
        f"{datasets(config)}, {each(cases, 'n_train')} training images, {each(cases, 'n_test')} test images",
        f"SGD with momentum, rates {each(cases, 'rate', '{:g}')}, not tuned; "
        f"{each(cases, 'epochs')} epochs in batches of {each(cases, 'batch_size')}",
        f"L∞ {radii(cases)}; PGD-{each(cases, 'steps')} in "
        f"training, PGD-{span([one['final'][0] for one in cases])} in the test",
        f"n beside each effect, of {config['seeds']} planned",
    )


UNREAD = Scale(*["could not be read"] * 5)
_RULE = (
    "Effect: robust accuracy minus that of the control, either way, paired by seed. Against: the interval "
    "lies within ±.02."
)


def _claim(name: str, title: str, quotation: str, **rest: Any) -> Claim:
    fixed = {
        "source": "li2023",
        "theirs": UNREAD,
        "percent": False,
        "chapter": "05_normalization",
        "experiment": "normalization",
        "scale": scale,
        "effect": "robust accuracy, variant − control",
    }
    return Claim(name=name, title=title, quotation=quotation, **(fixed | rest))


CLAIMS = (
    _claim(
        "B1a",
        "Data normalization changes adversarial training",
        "we disclose the impact of data normalization on AT",
        reading="That inputs on another scale end with another robust accuracy, ε being the same in pixel "
        "units. The abstract says no more.",
        rule=_RULE,
        compare=changed(INPUTS),
        condition="at one learning rate for all, which a variant's scale changes",
    ),
    _claim(
        "B1b",
        "Unbiased estimators in batch norm matter",
        "the importance of unbiased estimators in batch normalization layers",
        reading="The variance of a batch divided by one less. Behind a convolution a batch has thousands "
        "of positions, so the two estimators differ by less than a part in a thousand: here they cannot "
        "differ by construction.",
        rule=f"{_RULE} None of these counts: a test needs one position a channel and batches of 4 or 8.",
        compare=changed(ESTIMATORS, counts=False),
    ),
    _claim(
        "B1c",
        "Whose statistics batch norm uses matters",
        "",
        reading="The abstract does not say it. Ours, as the question next to theirs: the batch's own "
        "statistics or running ones, in training and at test.",
        rule=_RULE,
        compare=changed(STATISTICS),
        condition="at one learning rate for all",
    ),
    _claim(
        "B1d",
        "Normalizing layers change adversarial training",
        "",
        reading="The abstract does not say it. Ours, for comparison with inputs.",
        rule=_RULE,
        compare=changed(LAYERS),
        condition="at one learning rate for all",
    ),
)
