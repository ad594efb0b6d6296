"""Sizes of the experiment of chapter 6."""

from dataclasses import dataclass, field, replace

from companion.experiments._experiment import LISTS

EARLY = ("standard", "again", "fgsm", "pgd")


@dataclass(frozen=True)
class Case:
    """One data set and network.

    Attributes:
        dataset: a name for `data.load`.
        model: "small CNN" or "ResNet-18".
        width: of the network.
        n_train: training images.
        n_test: test images.
        n_watch: how many of them are attacked at every record.
        eps: ε, L∞, in training and test.
        epochs: of training.
        batch_size: images in a step.
        rate: learning rate of SGD.
        steps: of PGD in training and in records.
        switches: epochs of the switch by hand.
        fraction: of the kernel's highest velocity, at which the rule switches.
        record: records in an epoch.
        n_probe: images of the kernel.
        free: replays of free training.
        final: steps and restarts of PGD on the networks at the end.
        others: whether free training and PGD of a growing ε are trained too.
        cheaper: whether PGD of fewer steps and of fewer epochs is trained too.
    """

    dataset: str = "mnist5k"
    model: str = "small CNN"
    width: int = 8
    n_train: int = 600
    n_test: int = 300
    n_watch: int = 50
    eps: float = 0.15
    epochs: int = 6
    batch_size: int = 30
    rate: float = 0.05
    steps: int = 5
    switches: tuple[int, ...] = field(default=(2, 4), metadata=LISTS)
    fraction: float = 0.1
    record: int = 2
    n_probe: int = 20
    free: int = 3
    final: tuple[int, int] = (10, 1)
    others: bool = field(default=True, metadata=LISTS)
    cheaper: bool = field(default=False, metadata=LISTS)

    @property
    def short(self) -> int:
        """Epochs of PGD that takes as many passes as clean training for half of the epochs and PGD then."""
        return round(self.epochs * (1 + 1 / (self.steps + 1)) / 2)


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets and networks.
        rates: "constant", "decayed" or both.
        seeds: initializations.
    """

    cases: tuple[Case, ...] = (Case(),)
    rates: tuple[str, ...] = ("constant",)
    seeds: int = 2


_FASHION = Case(
    "fashion_mnist", n_train=2000, n_test=1000, n_watch=200, eps=0.1, epochs=10, batch_size=50,
    switches=(2, 4, 6, 8), free=5, final=(20, 1),
    cheaper=True,
)  # fmt: skip
_CIFAR = replace(_FASHION, dataset="cifar10", eps=4 / 255, rate=0.02)
_PAPER = replace(
    _CIFAR, model="ResNet-18", width=64, n_train=50_000, n_test=10_000, n_watch=1000, eps=8 / 255, epochs=30,
    batch_size=128, rate=0.1, steps=10, switches=(2, 5, 10, 15, 20, 25), n_probe=50, final=(40, 2),
)  # fmt: skip
PROFILES = {
    "quick": Config((Case(width=6, others=False),)),
    "full": Config((_FASHION, _CIFAR), ("constant", "decayed"), seeds=20),
    "paper": Config((_PAPER,), ("constant", "decayed"), seeds=3),
}
