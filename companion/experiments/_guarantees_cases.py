"""Sizes of the experiment on guarantees."""

from dataclasses import dataclass, field

from companion.experiments._experiment import LISTS

FITS = ("clean", "random", "one step", "pgd")
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Case:
    """One data set and the kernels on it.

    Attributes:
        dataset: name for `data.load`.
        classes: those kept; None for all.
        n_train: training images.
        n_test: test images with certificates and label flips.
        n_attacked: the first of these, which are attacked.
        kernels: such as "FC-1 relu ntk".
        attack_eps: L2 sizes of PGD, pixels in [0, 1].
        targets: wrong classes that FAB tries.
    """

    dataset: str
    classes: tuple[str | int, ...] | None
    n_train: int
    n_test: int
    n_attacked: int
    kernels: tuple[str, ...] = field(metadata=LISTS)
    attack_eps: tuple[float, ...]
    targets: int = 1


@dataclass(frozen=True)
class Poison:
    """One pair whose training images are moved.

    Attributes:
        dataset: name for `data.load`.
        classes: a pair.
        n_train: training images.
        n_val: the attacker's own, from the training split too.
        n_test: clean test images.
        eps: L∞ size of the perturbation, pixels in [0, 1].
        steps: of PGD.
        kernels: the one that is attacked, and those that are fitted to the same images.
        ridge: of all fits, in units of the mean diagonal of the kernel on clean images.
    """

    dataset: str
    classes: tuple[str | int, ...]
    n_train: int
    n_val: int
    n_test: int
    eps: float
    steps: int = 10
    kernels: tuple[str, ...] = ("FC-1 relu ntk", "FC-3 relu ntk")
    ridge: float = 0.1


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets with their kernels.
        poisons: pairs that are poisoned.
        fits: of each kernel: ridge in units of the mean diagonal of Θ(X, X), and time in units of one over
            it, None for the end.
        eps: L2 sizes at which certified and attacked accuracy are recorded.
        budgets: numbers of changed labels.
        pgd: steps and restarts.
        fab: steps.
        seeds: splits into training and test images.
    """

    cases: tuple[Case, ...]
    poisons: tuple[Poison, ...]
    fits: tuple[tuple[float, float | None], ...] = (
        (0.01, None),
        (0.1, None),
        (1.0, None),
        (0.0, 10.0),
        (0.0, 1.0),
    )
    eps: tuple[float, ...] = (0.0, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
    budgets: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50)
    pgd: tuple[int, int] = (10, 2)
    fab: int = 30
    seeds: int = field(default=3, metadata=LISTS)


_KERNELS = ("FC-1 relu nngp", "FC-1 relu ntk", "FC-1 erf ntk", "FC-3 relu nngp", "FC-3 relu ntk")
_AIR = ("airplane", "automobile")
_WEAR = ("pullover", "coat")


def _cases(
    digits: str, digit_pair: tuple[int, int, int], pair: tuple[int, int, int], ten: tuple[int, int, int]
) -> tuple[Case, ...]:
    """All data sets, with the numbers of images for training, certificates and attacks."""
    few = _KERNELS[:3]
    return (
        Case(digits, (4, 9), *digit_pair, _KERNELS, (0.25, 1.0)),
        Case(digits, (0, 1), *digit_pair, _KERNELS, (0.5, 2.0)),
        Case("fashion_mnist", _WEAR, *pair, _KERNELS, (0.25, 1.0)),
        Case("cifar10", _AIR, *pair, _KERNELS, (0.1, 0.5)),
        Case(digits, None, *ten, few, (0.25, 1.0), 3),
        Case("fashion_mnist", None, *ten, few, (0.25, 1.0), 3),
        Case("cifar10", None, *ten[:2], ten[2] // 2, few, (0.1, 0.5), 3),
    )


PROFILES = {
    "quick": Config(
        cases=(Case("mnist5k", (4, 9), 400, 200, 100, _KERNELS[:2], (0.5,)),),
        poisons=(Poison("mnist5k", (4, 9), 400, 200, 200, 0.1, steps=5),),
        fits=((0.01, None), (1.0, None)),
        seeds=1,
    ),
    "full": Config(
        cases=_cases("mnist5k", (400, 200, 200), (1000, 1000, 100), (1000, 1000, 100)),
        poisons=(
            Poison("mnist5k", (4, 9), 400, 400, 200, 0.1),
            Poison("cifar10", _AIR, 400, 400, 1000, 8 / 255),
            Poison("fashion_mnist", _WEAR, 400, 400, 1000, 0.1),
        ),
    ),
    "paper": Config(
        cases=_cases("mnist", (8000, 1000, 1000), (8000, 1000, 1000), (10_000, 2000, 1000)),
        poisons=(Poison("cifar10", _AIR, 2000, 1000, 2000, 8 / 255, steps=40),),
        pgd=(40, 10),
        fab=100,
        seeds=5,
    ),
}
# Eight times as many training images as in "full", at the same ridge and at as much for each image.
PROFILES["large"] = Config(
    cases=tuple(
        Case(dataset, classes, 8000, 1000, 100, ("FC-1 relu nngp", "FC-1 relu ntk"), sizes, targets)
        for dataset, classes, sizes, targets in (
            ("cifar10", _AIR, (0.1, 0.5), 1),
            ("fashion_mnist", _WEAR, (0.25, 1.0), 1),
            ("cifar10", None, (0.1, 0.5), 3),
            ("fashion_mnist", None, (0.25, 1.0), 3),
        )
    ),
    poisons=(),
    fits=((1.0, None), (8.0, None), (0.0, 1.0)),
)
