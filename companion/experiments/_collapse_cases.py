"""Sizes of the experiment on collapse by class."""

from dataclasses import dataclass, field, replace

from companion.experiments._experiment import LISTS

METHODS = ("standard", "noise", "pgd")
MEASURES = (
    "train", "robust train", "same", "within", "between", "spread", "feature spread", "nc1", "nc2", "nc3",
    "drift",
)  # fmt: skip
KERNELS = ("ntk", "nngp")
ON_PROBE = "limit on the probe"


@dataclass(frozen=True)
class Case:
    """One data set and network.

    Attributes:
        dataset: name for `data.load`.
        eps: L∞ size, pixels in [0, 1].
        classes: those kept; None for all.
        n_class: training images of each class.
        n_probe: of these, in the kernels.
        n_test: test images.
        depth: hidden layers.
        width: units in each.
        epochs: at which is measured; the last is the end.
        batch_size: images in a step.
        rate: of SGD with momentum.
        steps: of PGD in training.
    """

    dataset: str
    eps: float
    classes: tuple[str | int, ...] | None = None
    n_class: int = 50
    n_probe: int = 10
    n_test: int = 1000
    depth: int = 3
    width: int = 100
    epochs: tuple[int, ...] = (0, 5, 10, 20, 40, 80, 160, 300)
    batch_size: int = 50
    rate: float = 0.02
    steps: int = 5


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets.
        seeds: initializations and splits.
        final: steps of PGD on test images.
    """

    cases: tuple[Case, ...] = field(metadata=LISTS)
    seeds: int = field(default=2, metadata=LISTS)
    final: int = 20


_WEAR = ("trouser", "pullover", "bag", "sneaker", "ankle boot")
_DIGITS = Case(
    "mnist5k", 0.1, (0, 1, 2, 3, 4), n_class=20, n_probe=5, n_test=500, width=64,
    epochs=(0, 5, 10, 20, 50, 100, 250), batch_size=20, rate=0.03,
)  # fmt: skip
PROFILES = {
    "quick": Config(
        (replace(_DIGITS, classes=(0, 1, 2, 3), n_test=100, epochs=(0, 10, 40, 120), rate=0.02, steps=3),),
        seeds=1,
    ),
    "full": Config((_DIGITS, replace(_DIGITS, dataset="fashion_mnist", eps=0.05, classes=_WEAR)), seeds=10),
    "paper": Config((Case("mnist5k", 0.1), Case("fashion_mnist", 0.05), Case("cifar10", 4 / 255)), seeds=10),
}
