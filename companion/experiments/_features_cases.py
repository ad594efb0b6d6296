"""Sizes of the experiment of chapter 3."""

from dataclasses import dataclass, field

import numpy as np

from companion import data
from companion.experiments._experiment import LISTS

EDGES = (0, 1, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
FROM = (20, 100)  # "later" features are those from these indices on
LATER = FROM[1]
TOPS = (1, 2, 5, 10, 20, 50, 100)
RIDGE = 1e-3  # of whole kernels of whole data sets, in units of the mean diagonal


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
        leading: how many features, by `regression.Top`, where there are too many to find all; None for all.
    """

    dataset: str
    classes: tuple[str | int, ...] | None
    n_train: int
    n_test: int
    architectures: tuple[str, ...] = field(metadata=LISTS)
    eps: float
    modes: int | None
    n_attacked: int
    leading: int | None = field(default=None, metadata={"absent": None})


@dataclass(frozen=True)
class Overlap:
    """Kernels on the same training images, whose eigenvectors are compared.

    Attributes:
        dataset: name for `data.load`.
        classes: those kept.
        n_train: images.
        kernels: architectures; a name with " at width w" after it is the empirical NTK of one such network at
            initialization; "linear" is xᵀx′, "RBF" exp(−‖x − x′‖² / 2s²) with s the median distance, and
            "random" a random orthogonal basis.
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
        learners: kernels that learn from relabeled images, beside the one that was attacked.
        relabel_up_to: training images of the largest case that is relabeled.
        linear: data whose principal components are measured too, as features of ridge regression on pixels.
    """

    cases: tuple[Case, ...]
    overlap: Overlap
    steps: int = 10
    pgd_modes: int = 6
    times: int = 8
    learners: tuple[str, ...] = ("FC-1", "FC-3", "FC-5")
    relabel_up_to: int = 2000
    linear: tuple[Case, ...] = ()


_AIR = ("airplane", "automobile")
_WEAR = ("pullover", "coat")

PROFILES = {
    "quick": Config(
        cases=(Case("mnist5k", (4, 9), 400, 600, ("FC-1",), 0.1, None, 200),),
        overlap=Overlap(
            "mnist5k", (4, 9), 300, ("FC-1", "FC-5", "Conv-1", "FC-1 at width 512", "linear", "RBF", "random")
        ),
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
                "linear",
                "RBF",
                "random",
            ),
        ),
        pgd_modes=12,
        times=12,
        linear=(
            Case("mnist5k", (4, 9), 400, 600, (), 0.1, None, 600),
            Case("cifar10", _AIR, 2000, 2000, (), 8 / 255, None, 1000),
        ),
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
            (
                "FC-1",
                "FC-2",
                "FC-5",
                "Conv-1",
                "Conv-3",
                "Myrtle-5",
                "Conv-3 at width 512",
                "linear",
                "RBF",
                "random",
            ),
            seeds=5,
        ),
        pgd_modes=100,
        times=20,
    ),
}

# Whole data sets: a kernel of 60,000 images takes 14 GB.
PROFILES["whole"] = Config(
    cases=(
        Case("cifar10", None, 50_000, 1000, ("FC-1", "FC-5"), 8 / 255, 60, 300, leading=1000),
        Case("cifar10", _AIR, 10_000, 2000, ("FC-1", "FC-5"), 8 / 255, 60, 1000, leading=1000),
        Case("fashion_mnist", None, 60_000, 1000, ("FC-1",), 0.1, 60, 300, leading=1000),
        Case("mnist", None, 60_000, 1000, ("FC-1",), 0.1, 60, 300, leading=1000),
    ),
    overlap=PROFILES["full"].overlap,
)


def held_out(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Training images and labels, test images and labels, and the number of classes.

    A pair of the embedded digits has 200 test images, too few to see a feature of accuracy 0.55. So the
    training images that are left over are test images too.
    """
    sizes = {"n_train": case.n_train, "n_test": case.n_test} if case.dataset != "mnist5k" else {}
    images = data.load(case.dataset, classes=case.classes, **sizes)
    x = np.concatenate([images.x_test, images.x_train[case.n_train :]])[: case.n_test]
    y = np.concatenate([images.y_test, images.y_train[case.n_train :]])[: case.n_test]
    if len(x) < case.n_test or len(images.x_train) < case.n_train:
        raise ValueError(
            f"{case.dataset} has too few images for n_train={case.n_train}, n_test={case.n_test}"
        )
    return images.x_train[: case.n_train], images.y_train[: case.n_train], x, y, len(images.classes)


def spaced(n: int, number: int | None) -> np.ndarray:
    """Indices 0 to n − 1: all, or so many, evenly spaced in log index."""
    if number is None or number >= n:
        return np.arange(n)
    places = np.geomspace(1, n, 4 * number).astype(int) - 1
    unique = np.unique(places)
    return unique[np.unique(np.linspace(0, len(unique) - 1, number).astype(int))]
