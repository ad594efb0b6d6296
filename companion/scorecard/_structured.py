"""Claims E5: which of two features training learns from structured data (chapter 10)."""

import functools
from collections.abc import Iterator

import numpy as np

from companion._core.words import Settings
from companion.experiments.structured import FEATURES
from companion.results import Result
from companion.scorecard._claim import Claim, Scale, compare, geometric_means, means
from companion.scorecard._verdicts import Comparison, paired

TWICE = 0.69
"""The logarithm of a factor of two."""
HALF = 0.5
"""The accuracy of an answer that never changes."""
_DATA = "patches"
_THEIRS = Scale(
    "a two-layer convolutional network with smoothed ReLU; networks for images",
    "drawn patches, as here; MNIST, CIFAR-10, SVHN",
    "gradient descent",
    "gradient ascent",
    "could not be read",
)


def trained(record: Result, kind: str, method: str, eps: float | None = None) -> int:
    """The place of a way of training; the first of its method where no ε is given."""
    rows = _rows(record.provenance["config"])
    return next(i for i, row in enumerate(rows) if row[:2] == (kind, method) and eps in (None, row[2]))


def strength(record: Result, row: int, feature: str) -> np.ndarray:
    """Of a feature in the weights, at the end, by seed; NaN where there is no run."""
    return record.arrays["strengths"][row, :, -1, FEATURES.index(feature)].astype(float)


def accuracy(record: Result, row: int, eps: float) -> np.ndarray:
    """By seed, clean at ε = 0 or under attack; NaN where there is no run."""
    sizes = (0.0, *record.provenance["config"]["sizes"])
    return record.arrays["accuracy"][row, :, sizes.index(eps)].astype(float)


def nonrobust_first(record: Result) -> Iterator[Comparison]:
    """E5a: the non-robust feature over the robust one after standard training, and what an attack takes."""
    eps = record.provenance["config"]["eps"]
    for kind in ("network", "lazy"):
        row, counts = trained(record, kind, "standard"), kind == "network"
        if counts:  # the weights of a linearization are those of no network
            pair = {one: strength(record, row, one) for one in FEATURES}
            effect = paired(np.log(pair["nonrobust"]), np.log(pair["robust"]))
            setting = f"{kind}, log of the features' strengths"
            yield from compare(_DATA, setting, effect, 1, TWICE, note=geometric_means(**pair))
        pair = {"clean": accuracy(record, row, 0.0), "attacked": accuracy(record, row, eps)}
        setting = f"{kind}, accuracy lost at ε = {eps:g}"
        effect = paired(pair["clean"], pair["attacked"])
        yield from compare(_DATA, setting, effect, 1, 0.1, note=means(**pair), counts=counts)


def robust_under_attack(record: Result) -> Iterator[Comparison]:
    """E5b: PGD training minus standard training: the robust feature, the non-robust one, accuracy."""
    config, standard = record.provenance["config"], trained(record, "network", "standard")
    for eps in (config["eps"], *config["others"]):
        row = trained(record, "network", "pgd", eps)
        for feature, sign in zip(FEATURES, (1, -1), strict=True):
            pair = {
                name: strength(record, one, feature) for name, one in (("pgd", row), ("standard", standard))
            }
            effect = paired(np.log(pair["pgd"]), np.log(pair["standard"]))
            setting = f"ε = {eps:g}, log of the {feature} feature"
            yield from compare(_DATA, setting, effect, sign, TWICE, note=geometric_means(**pair))
        pair = {name: accuracy(record, one, eps) for name, one in (("pgd", row), ("standard", standard))}
        setting = f"ε = {eps:g}, accuracy under attack"
        effect = paired(pair["pgd"], np.maximum(pair["standard"], HALF))
        yield from compare(_DATA, setting, effect, 1, 0.1, note=means(**pair))
    pair = {"noise": accuracy(record, trained(record, "network", "noise"), config["eps"])}
    pair["standard"] = accuracy(record, standard, config["eps"])
    effect = paired(pair["noise"], np.maximum(pair["standard"], HALF))
    setting = f"ε = {config['eps']:g}, random signs, accuracy under attack"
    yield from compare(_DATA, setting, effect, 1, 0.1, note=means(**pair), counts=False)


def lazy_control(record: Result) -> Iterator[Comparison]:
    """E5c: accuracy under attack after PGD training, network minus linearization."""
    config = record.provenance["config"]
    eps, rows = config["eps"], {kind: trained(record, kind, "pgd") for kind in ("network", "lazy")}
    for size in config["sizes"]:
        pair = {kind: accuracy(record, row, size) for kind, row in rows.items()}
        effect, setting = paired(pair["network"], pair["lazy"]), f"trained at {eps:g}, attacked at {size:g}"
        yield from compare(_DATA, setting, effect, 1, 0.1, note=means(**pair), counts=size == eps)
    pair = {name: accuracy(record, trained(record, "lazy", name), eps) for name in ("pgd", "standard")}
    effect, setting = paired(pair["pgd"], pair["standard"]), f"lazy, PGD − standard training, ε = {eps:g}"
    yield from compare(_DATA, setting, effect, 1, 0.1, note=means(**pair), counts=False)


def scale(config: Settings) -> Scale:
    """Ours."""
    case = config["case"]
    trained_at = ", ".join(f"{eps:g}" for eps in (config["eps"], *config["others"]))
    return Scale(
        f"a two-layer network of patches with smoothed ReLU, {case['width']} neurons a class",
        f"{case['n_train']} drawn inputs, {case['robust']} patch of size 1 and {case['weak']} of size "
        f"{case['beta']:g}; {case['n_test']} test inputs",
        f"{case['epochs'][-1]} full gradient steps",
        f"L∞ in every patch; {trained_at} in training, PGD-{case['steps']}",
        "n beside each effect",
    )


def _rows(config: Settings) -> list[tuple[str, str, float]]:
    """As `experiments.structured.rows` has them, of a configuration as JSON."""
    eps, others = config["eps"], config["others"]
    network = [("network", "pgd", one) for one in (eps, *others)]
    lazy = [("lazy", "standard", 0.0), ("lazy", "noise", eps), ("lazy", "pgd", eps)]
    return [("network", "standard", 0.0), ("network", "noise", eps), *network, *lazy]


_claim = functools.partial(
    Claim,
    source="li2025",
    theirs=_THEIRS,
    percent=False,
    chapter="10_neighbours",
    experiment="structured",
    scale=scale,
)

CLAIMS = (
    _claim(
        "E5a",
        "On structured data standard training learns the non-robust feature",
        "by using standard training (gradient descent over the empirical risk), the network learner "
        "primarily learns the non-robust feature rather than the robust feature",
        reading="On patches that we draw so that many weak ones together outweigh a strong one: Σβ³ > Σα³. "
        "The strength of a feature is its largest product with a neuron's weights, the mean over classes.",
        rule="Effects: log of the non-robust over the robust feature's strength at the end, and the accuracy "
        "that an attack in every patch takes. The lazy control is shown only. Against: less than a factor of "
        "2, and less than .1, for certain.",
        effect="log of strengths, or accuracy",
        compare=nonrobust_first,
    ),
    _claim(
        "E5b",
        "On structured data adversarial training learns the robust feature",
        "the adversarial training method can provably strengthen the robust feature learning and suppress "
        "the non-robust feature learning to improve the network robustness",
        reading="Under PGD in every coordinate of every patch, at a size between half of the non-robust "
        "feature and all of it, and at larger ones. Their theorem could not be read beyond the abstract.",
        rule="Effects, PGD minus standard training, at each size of the attack in training: log of the "
        "strength of the robust feature (more), of the non-robust one (less), and accuracy under an attack "
        "so large (more; one half, which an answer that never changes has, where standard training leaves "
        "less). Random signs are shown only. Against: less than a factor of 2, and less than .1.",
        effect="log of strengths, or accuracy",
        compare=robust_under_attack,
    ),
    _claim(
        "E5c",
        "On structured data this needs features that move",
        "",
        reading="No claim in the abstract, but our question: does adversarial training of the linearized "
        "network, whose kernel stands still, stay less robust?",
        rule="Effect: accuracy under attack after PGD training at the same size, network minus its "
        "linearization. Attacks of other sizes are shown only. Against: less than .1 for certain.",
        effect="accuracy, network − lazy",
        compare=lazy_control,
    ),
)
