"""Sizes and variants of the experiment of chapter 5."""

from dataclasses import dataclass, field, replace

from companion import normalization
from companion.experiments._experiment import LISTS
from companion.normalization import BatchNorm

REGIMES = ("standard", "pgd")
ESTIMATORS = ("biased", "unbiased", "by_image")


@dataclass(frozen=True)
class Variant:
    """A way to normalize.

    Attributes:
        name: its label.
        inputs: as for `normalization.input_statistics`.
        norm: as for `networks.small_cnn`.
        clean_too: whether steps see clean and attacked images.
        batch_size: other than the case's.
        warm: whether running statistics start as those of the training images, not at 0 and 1.
    """

    name: str
    inputs: normalization.Inputs = "raw"
    norm: str | BatchNorm | None = None
    clean_too: bool = False
    batch_size: int | None = None
    warm: bool = False


INPUTS = (
    Variant("raw"),
    Variant("centred", "centred"),
    Variant("standardized", "standardized"),
    Variant("[−1, 1]", (-1.0, 1.0)),
    Variant("[0, ½]", (0.0, 0.5)),
)
LAYERS = (
    Variant("batch norm", norm="batch"),
    Variant("layer norm", norm="layer"),
    Variant("group norm", norm="group"),
)
STATISTICS = (
    Variant("unbiased", norm=BatchNorm(variance="unbiased", running_variance="unbiased")),
    Variant("running unbiased", norm=BatchNorm(running_variance="unbiased")),
    Variant("batches of 8, no norm", batch_size=8),
    Variant("batches of 8", norm="batch", batch_size=8),
    Variant(
        "batches of 8, by image",
        norm=BatchNorm(variance="by_image", running_variance="by_image"),
        batch_size=8,
    ),
    Variant("batch at test", norm=BatchNorm(evaluation="batch")),
    Variant("running in training", norm=BatchNorm(training="running"), warm=True),
    Variant("frozen", norm=BatchNorm(training="frozen"), warm=True),
    Variant("both, shared", norm="batch", clean_too=True),
    Variant("both, separate", norm=BatchNorm(parts=2, part=1), clean_too=True),
)


# Where a channel has one position, and a batch few examples, the estimators of a variance differ by 1 / B.
FEW = tuple(
    Variant(f"{name}, batches of {size}", norm=norm, batch_size=size)
    for size in (4, 8)
    for name, norm in (
        ("biased", BatchNorm()),
        ("unbiased", BatchNorm(variance="unbiased", running_variance="unbiased")),
        ("running unbiased", BatchNorm(running_variance="unbiased")),
    )
)


@dataclass(frozen=True)
class Case:
    """One data set and network.

    Attributes:
        dataset: a name for `data.load`.
        width: of the network's first layer.
        n_train: training images.
        n_test: test images.
        n_watch: how many of them are classified at every record.
        eps: ε, L∞, in pixel units.
        epochs: of training.
        batch_size: images in a step.
        rate: learning rate of SGD.
        ramp: epochs over which ε grows in training.
        steps: of PGD in training and in records.
        n_probe: images of the kernels.
        sizes: batch sizes at which the bias of variances is measured.
        draws: images in all batches of a size.
        final: steps and restarts of PGD on the networks at the end.
        statistics: whether the variants of `STATISTICS` are trained.
        model: "small CNN", or "MLP" of one hidden layer, which has one position a channel.
    """

    dataset: str = "mnist5k"
    width: int = 8
    n_train: int = 600
    n_test: int = 300
    n_watch: int = 150
    eps: float = 0.2
    epochs: int = 6
    batch_size: int = 40
    rate: float = 0.02
    ramp: float = 2.0
    steps: int = 4
    n_probe: int = 20
    sizes: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    draws: int = 3_000
    final: tuple[int, int] = (10, 1)
    statistics: bool = field(default=True, metadata=LISTS)
    model: str = field(default="small CNN", metadata={"absent": "small CNN"})


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets and networks.
        variants: ways to normalize.
        regimes: which of `REGIMES` are trained; those of `STATISTICS` by PGD only.
        seeds: initializations.
        rates: learning rates among which each variant takes, for PGD training, the one that is most robust
            on validation images, mean over `tuning` seeds; () for none.
        tuning: how many of the seeds choose the rate.
    """

    cases: tuple[Case, ...] = (Case(),)
    variants: tuple[Variant, ...] = (*INPUTS[:3], LAYERS[0])
    regimes: tuple[str, ...] = ("pgd",)
    seeds: int = 3
    rates: tuple[float, ...] = ()
    tuning: int = 3


_FASHION = Case(
    "fashion_mnist", n_train=2000, n_test=1000, n_watch=200, eps=0.1, epochs=8, batch_size=50,
    ramp=2.0, n_probe=50, draws=40_000, final=(10, 1),
)  # fmt: skip
_CIFAR = replace(_FASHION, dataset="cifar10", eps=4 / 255, rate=0.01, ramp=0.0, statistics=False)
_PAPER = replace(
    _CIFAR, width=64, n_train=50_000, n_test=10_000, n_watch=1000, eps=8 / 255, epochs=60, batch_size=128,
    steps=10, n_probe=100, statistics=True,
)  # fmt: skip
_ALL = (*INPUTS, *LAYERS, *STATISTICS)
_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
PROFILES = {
    "quick": Config(),
    # What chapter 5 shows of digits; two of the variants at five times the rate.
    "digits": Config(),
    "faster": Config((replace(Case(), rate=5 * Case().rate),), (INPUTS[0], INPUTS[2])),
    "full": Config((_FASHION, _CIFAR), _ALL, REGIMES, seeds=20),
    "tuned": Config((_FASHION, _CIFAR), (*INPUTS, *LAYERS), (), seeds=20, rates=_RATES),
    "estimators": Config((replace(_FASHION, model="MLP", width=256),), FEW, ("pgd",), seeds=20),
    "paper": Config((_PAPER,), _ALL, REGIMES, seeds=5),
}
