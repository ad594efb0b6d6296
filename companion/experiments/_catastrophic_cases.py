"""Sizes and methods of the experiment of chapter 7."""

from dataclasses import dataclass, field, replace

from companion.experiments._experiment import LISTS
from companion.normalization import BatchNorm

METHODS = (
    "fgsm", "pgd", "fgsm, random start", "isotropic noise", "gradient noise", "half ε", "gradalign", "switch",
    "fgsm, decayed rate",
)  # fmt: skip
STRONG = "fgsm, in batches"
"""FGSM training again, whose network is tested with the batch's own statistics too."""
SIGNALS = ("top share", "effective rank", "log trace", "linearity", "pgd accuracy")
SIDES = ("above", "below", "above", "below", "below")
WATCHED = ("clean", "fgsm", "pgd")


@dataclass(frozen=True)
class Case:
    """One data set and network.

    Attributes:
        dataset: a name for `data.load`.
        blocks: of a residual network; () for the small CNN.
        width: of the network.
        norm: as for `networks.small_cnn`.
        n_train: training images.
        n_test: test images.
        n_watch: how many of them are attacked at every record.
        eps: ε, L∞.
        epochs: of training.
        batch_size: images in a step.
        rate: learning rate of SGD.
        ramp: epochs over which ε grows in training.
        steps: of PGD in training; twice as many in records.
        record: records in an epoch.
        n_probe: images of the kernel.
        noise: κ of isotropic noise, and of gradient noise of equal length.
        rank: of gradient noise.
        weight: λ of GradAlign.
        final: steps and restarts of PGD on the networks at the end.
        skip: methods that are not trained.
        batches: whether networks with batch norm are evaluated by a test batch's own statistics too.
    """

    dataset: str = "mnist5k"
    blocks: tuple[int, ...] = ()
    width: int = 16
    norm: str | BatchNorm | None = "batch"
    n_train: int = 2000
    n_test: int = 300
    n_watch: int = 100
    eps: float = 0.28
    epochs: int = 22
    batch_size: int = 50
    rate: float = 0.1
    ramp: float = 8.0
    steps: int = 4
    record: int = 1
    n_probe: int = 20
    noise: float = 1.0
    rank: int = 5
    weight: float = 0.5
    final: tuple[int, int] = (20, 2)
    skip: tuple[str, ...] = field(default=(), metadata=LISTS)
    batches: bool = field(default=True, metadata={"absent": True})


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets and networks.
        methods: which of `METHODS`; "fgsm" first; "pgd" is needed for calibration.
        seeds: how many.
        calibration: the first of them, on whose PGD runs switches are calibrated, 0 for none; switches are
            trained on the others. Detectors that are scored are calibrated on fewer: `calibrating`.
        switch: which signal triggers the switch to PGD.
        at_most: methods that are trained on the first so many seeds alone.
        in_batches: seeds of FGSM whose networks with batch norm are tested by `STRONG` too.
        strong: steps and restarts of its PGD.
    """

    cases: tuple[Case, ...] = (Case(),)
    methods: tuple[str, ...] = (METHODS[0], METHODS[3])
    seeds: int = 1
    calibration: int = 0
    switch: str = "log trace"
    at_most: tuple[tuple[str, int], ...] = ()
    in_batches: int = 0
    strong: tuple[int, int] = (50, 3)


_DIGITS = Case(n_test=1000, n_watch=150, epochs=25, final=(40, 2))
_RESIDUAL = replace(
    _DIGITS,
    blocks=(2, 2, 2),
    width=4,
    eps=0.15,
    batch_size=25,
    rate=0.05,
    ramp=0.0,
    epochs=12,
    skip=("fgsm, random start", "half ε", "gradalign"),
)
_PAPER = replace(
    _DIGITS, dataset="cifar10", blocks=(2, 2, 2, 2), width=64, n_train=50_000, n_test=10_000,
    n_watch=1000, eps=8 / 255, epochs=30, batch_size=128, ramp=0.0, steps=10, n_probe=100, noise=2.0,
    weight=0.2,
)  # fmt: skip
_NIGHT = replace(
    _DIGITS, dataset="cifar10", blocks=(2, 2, 2), width=16, n_train=10_000, n_test=1000, n_watch=500,
    epochs=30, batch_size=128, rate=0.1, ramp=0.0, n_probe=50, noise=2.0,
)  # fmt: skip
_SOME = tuple((method, 15 if method == "switch" else 10) for method in METHODS[1:])
PROFILES = {
    "quick": Config((Case(width=8, eps=0.24, epochs=18, ramp=6.0, batches=False),)),
    "full": Config((_DIGITS, _RESIDUAL), METHODS, seeds=20, calibration=5, at_most=_SOME, in_batches=3),
    # Outside digits: a night on two cores.
    "night": Config(
        tuple(replace(_NIGHT, eps=eps / 255) for eps in (8, 12, 16)),
        ("fgsm", "pgd", "isotropic noise", "gradient noise"),
        seeds=3,
    ),
    "paper": Config((_PAPER, replace(_PAPER, eps=16 / 255)), METHODS, seeds=5, calibration=2),
}
