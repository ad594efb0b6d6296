"""Sizes of the experiment on clocks."""

from dataclasses import dataclass, field

from companion.experiments._experiment import LISTS

LEARNED = ("from 0", "from the best time", "by the released code")
CONTROLS = ("plain", "plain, all images", "best time", "best ridge", "feature space")
# After the clocks that were learned from 0: the same numbers, dealt out anew.
ROWS = (*CONTROLS, *LEARNED, "permuted", "permuted in classes", "one a class")
STRONGEST = ("plain", "best time", "best ridge", *LEARNED[:2])
"""The rows that AutoAttack sees."""
SCALARS = ("time", "ridge")


@dataclass(frozen=True)
class Case:
    """One data set and kernel.

    Attributes:
        dataset: name for `data.load`.
        kernel: of a network family, such as "FC-3", with the authors' weights and biases.
        eps: L∞ size, pixels in [0, 1].
        classes: those kept; None for all.
        n_train: training images.
        n_val: of the training split too; on them, attacked, everything is chosen.
        n_test: test images, attacked by PGD.
        n_auto: the first of these, attacked by both Auto-PGDs as well.
        solver: of the clocks.
    """

    dataset: str
    kernel: str
    eps: float
    classes: tuple[str | int, ...] | None = None
    n_train: int = 1000
    n_val: int = 400
    n_test: int = 1000
    n_auto: int = 100
    solver: str = "eigh"


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets with their kernels.
        seeds: splits into training, validation and test images.
        times: in units of one over the mean diagonal of Θ(X, X), among which the best is chosen.
        ridges: in units of the mean diagonal, likewise.
        steps: of learning clocks.
        batch_size: validation images in a step.
        pgd: steps of the attack in a step, of that on validation images, and of that on test images.
        weights: w_std and b_std.
        zeta: of the authors: length of a step from 0 in their units.
        width: of the finite networks.
        moments: of their training at which they are attacked, in the units of `times`.
        n_autoattack: the first test images, which all of AutoAttack attacks; 0 for none. Of dense kernels
            alone: Square asks 5,000 times for each, hours where an entry takes every pair of pixels.
    """

    cases: tuple[Case, ...] = field(metadata=LISTS)
    seeds: int = field(default=3, metadata=LISTS)
    times: tuple[float, ...] = tuple(round(10 ** (k / 3), 4) for k in range(-9, 7))
    ridges: tuple[float, ...] = tuple(round(10 ** (k / 2), 4) for k in range(-6, 7))
    steps: int = 50
    batch_size: int = 128
    pgd: tuple[int, int, int] = (10, 10, 20)
    weights: tuple[float, float] = (1.76, 0.18)
    zeta: float = 0.1
    width: int = 512
    moments: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    n_autoattack: int = 1000


_AIR, _WEAR = ("airplane", "automobile"), ("pullover", "coat")
_CIFAR = 8 / 255

PROFILES = {
    "quick": Config(
        (Case("mnist5k", "FC-3", 0.1, n_train=300, n_val=200, n_test=200, n_auto=20),),
        seeds=1,
        steps=20,
        n_autoattack=0,
    ),
    "full": Config(
        (
            Case("mnist5k", "FC-3", 0.1),
            Case("cifar10", "FC-3", _CIFAR, _AIR),
            Case("fashion_mnist", "FC-3", 0.05),
            Case("cifar10", "FC-3", _CIFAR),
            Case("mnist5k", "FC-1", 0.1),
            Case("fashion_mnist", "FC-3", 0.05, _WEAR),
            Case("mnist5k", "FC-5", 0.1),
            Case("mnist5k", "FC-3", 0.1, n_train=2000),
            Case("cifar10", "FC-3", _CIFAR, n_train=2000),
            Case("digits", "Conv-2", 0.1, n_train=300, n_val=100, n_test=300, n_auto=50),
        ),
        seeds=5,
    ),
    "paper": Config(
        tuple(
            Case(*one, n_train=10_000, n_val=2000, n_test=10_000, n_auto=1000, solver="chebyshev")
            for one in (
                ("cifar10", "FC-3", _CIFAR),
                ("cifar10", "FC-5", _CIFAR),
                ("mnist", "FC-3", 0.1),
                ("fashion_mnist", "FC-3", 0.05),
            )
        )
    ),
}
