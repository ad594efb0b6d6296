"""Sizes of the experiment of chapter 3."""

from dataclasses import dataclass, field

from companion.experiments._experiment import LISTS

EDGES = (0, 1, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
TOPS = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Case:
    """One data set and the kernels whose features are looked at.

    Attributes:
        dataset: name for `data.load`.
        classes: those kept; None for all.
        n_train: training images, which is the number of features.
        n_test: test images for usefulness and for sums of features.
        architectures: such as "FC-1" or "Conv-1".
        eps: size of the perturbation, L∞, pixels in [0, 1].
        modes: how many features are attacked one by one, spaced evenly in log index; None for all.
        n_attacked: images on which they are.
    """

    dataset: str
    classes: tuple[str | int, ...] | None
    n_train: int
    n_test: int
    architectures: tuple[str, ...] = field(metadata=LISTS)
    eps: float
    modes: int | None
    n_attacked: int


@dataclass(frozen=True)
class Overlap:
    """Kernels on the same training images, whose eigenvectors are compared.

    Attributes:
        dataset: name for `data.load`.
        classes: those kept.
        n_train: images.
        kernels: architectures; a name with " at width w" after it is the empirical NTK of one such network at
            initialization, and "random" is a random orthogonal basis.
        seeds: of the empirical kernels and the random bases.
    """

    dataset: str
    classes: tuple[str | int, ...] | None
    n_train: int
    kernels: tuple[str, ...]
    seeds: int = field(default=3, metadata=LISTS)


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets with their kernels.
        overlap: kernels to compare.
        steps: of PGD, on sums of features and on the first features one by one.
        pgd_modes: how many of the first features are attacked by PGD too.
        times: times between 1/λ_max and 10⁷/λ_max of early stopping.
    """

    cases: tuple[Case, ...]
    overlap: Overlap
    steps: int = 10
    pgd_modes: int = 6
    times: int = 8


_AIR = ("airplane", "automobile")
_WEAR = ("pullover", "coat")

PROFILES = {
    "quick": Config(
        cases=(Case("mnist5k", (4, 9), 400, 600, ("FC-1",), 0.1, None, 200),),
        overlap=Overlap("mnist5k", (4, 9), 300, ("FC-1", "FC-5", "Conv-1", "FC-1 at width 512", "random")),
    ),
    "full": Config(
        cases=(
            Case("cifar10", _AIR, 2000, 2000, ("FC-1",), 8 / 255, None, 1000),
            Case("cifar10", _AIR, 2000, 2000, ("FC-2", "FC-3", "FC-5"), 8 / 255, 60, 1000),
            Case("cifar10", _AIR, 500, 2000, ("FC-1",), 8 / 255, 40, 1000),
            Case("cifar10", _AIR, 5000, 2000, ("FC-1",), 8 / 255, 40, 300),
            Case("cifar10", _AIR, 200, 200, ("FC-1", "Conv-1"), 8 / 255, 20, 100),
            Case("cifar10", None, 2000, 2000, ("FC-1",), 8 / 255, 40, 1000),
            Case("fashion_mnist", _WEAR, 2000, 2000, ("FC-1", "FC-5"), 0.1, 60, 1000),
            Case("mnist5k", (4, 9), 400, 600, ("FC-1",), 0.1, None, 600),
        ),
        overlap=Overlap(
            "cifar10",
            _AIR,
            500,
            (
                "FC-1",
                "FC-2",
                "FC-5",
                "Conv-1",
                "Conv-3",
                "FC-1 at width 4096",
                "Conv-3 at width 128",
                "random",
            ),
        ),
        pgd_modes=12,
        times=12,
    ),
    "paper": Config(
        cases=(
            *(
                Case("cifar10", _AIR, n, 2000, ("FC-1", "FC-2", "FC-3", "FC-5"), 8 / 255, None, 2000)
                for n in (2000, 10_000)
            ),
            Case("cifar10", _AIR, 2000, 2000, ("Conv-2", "Conv-5"), 8 / 255, 100, 1000),
            Case("cifar10", _AIR, 1000, 500, ("Myrtle-5",), 8 / 255, 40, 100),
            Case("cifar10", None, 10_000, 2000, ("FC-1", "FC-5"), 8 / 255, 200, 1000),
            Case("fashion_mnist", None, 10_000, 2000, ("FC-1", "FC-5"), 0.1, 200, 1000),
        ),
        overlap=Overlap(
            "cifar10",
            _AIR,
            2000,
            ("FC-1", "FC-2", "FC-5", "Conv-1", "Conv-3", "Myrtle-5", "Conv-3 at width 512", "random"),
            seeds=5,
        ),
        pgd_modes=100,
        times=20,
    ),
}
