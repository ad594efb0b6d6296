"""Sizes of the experiment of chapter 2."""

from dataclasses import dataclass, field

from companion.experiments._experiment import LISTS

ATTACKS = ("random", "fgsm", "pgd", "pgd_long")
SOURCES = ("kernel", "white_box", "random")


@dataclass(frozen=True)
class Case:
    """One data set and the kernels on it.

    Attributes:
        dataset: name for `data.load`.
        classes: those kept; None for all.
        n_train: training images.
        n_test: test images that are attacked.
        architectures: such as "FC-1" or "Conv-2".
        eps: sizes of the perturbation, L∞, pixels in [0, 1].
        main: the size at which time, geometry and the stronger attacks are looked at.
    """

    dataset: str
    classes: tuple[str | int, ...] | None
    n_train: int
    n_test: int
    architectures: tuple[str, ...] = field(metadata=LISTS)
    eps: tuple[float, ...]
    main: float


@dataclass(frozen=True)
class Transfers:
    """Networks that are attacked with perturbations of their kernel.

    Attributes:
        dataset: name for `data.load`.
        classes: a pair.
        n_train: training images of kernel and networks.
        n_test: test images.
        eps: size of the perturbation, L∞.
        depth: hidden layers.
        widths: hidden units.
        seeds: networks of each width.
        residuals: levels of ‖f(X) − Y‖ / ‖Y‖ at which a network in training is attacked.
        scales: s of networks s · f, attacked at the last level: the smaller, the more their features move;
            none to leave them out.
        scale_width: hidden units of these.
        momentum: of the gradient descent.
        step: learning rate in units of 1/λ_max of the kernel on the training set.
        scaled_step: the same, times 1/s², of the networks s · f, whose kernels grow as they train.
    """

    dataset: str = "mnist5k"
    classes: tuple[str | int, ...] = (4, 9)
    n_train: int = 200
    n_test: int = 200
    eps: float = 0.1
    depth: int = 1
    widths: tuple[int, ...] = (32, 128, 512)
    seeds: int = field(default=3, metadata=LISTS)
    residuals: tuple[float, ...] = (0.5, 0.2, 0.1)
    scales: tuple[float, ...] = (0.03, 0.2, 1.0)
    scale_width: int = 128
    momentum: float = 0.98
    step: float = 0.5
    scaled_step: float = 0.02


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets with their kernels; every one with the same number of sizes `eps`.
        transfers: networks to transfer to.
        steps: of PGD, and of a longer PGD, both with steps that can cross the ball.
        times: times between 1/λ_max and 10⁷/λ_max at which the main attack is repeated.
        restarts: of the stronger PGD on pairs.
        queries: of the square attack on pairs; 0 for none.
        n_square: images for it.
    """

    cases: tuple[Case, ...]
    transfers: Transfers = field(default_factory=Transfers)
    steps: tuple[int, int] = (10, 40)
    times: int = 8
    restarts: int = 3
    queries: int = 0
    n_square: int = 100


_PIXELS = tuple(k / 255 for k in (1, 2, 4, 8, 16))
_INK = (0.02, 0.05, 0.1, 0.2, 0.3)
_AIR = ("airplane", "automobile")
_WEAR = ("pullover", "coat")
_DEPTHS = ("FC-1", "FC-2", "FC-3", "FC-5")

PROFILES = {
    "quick": Config(
        cases=(
            Case("mnist5k", (4, 9), 800, 200, ("FC-1", "FC-5"), _INK, 0.1),
            Case("mnist5k", None, 800, 256, ("FC-1",), _INK, 0.1),
        ),
    ),
    "full": Config(
        cases=(
            Case("cifar10", _AIR, 2000, 1000, _DEPTHS, _PIXELS, 8 / 255),
            Case("cifar10", None, 4000, 1000, ("FC-1",), _PIXELS, 8 / 255),
            Case("cifar10", _AIR, 200, 100, ("FC-1", "Conv-1"), _PIXELS, 8 / 255),
            Case("fashion_mnist", _WEAR, 2000, 1000, ("FC-1", "FC-5"), _INK, 0.1),
        ),
        transfers=Transfers(
            dataset="cifar10",
            classes=_AIR,
            n_train=500,
            n_test=1000,
            eps=8 / 255,
            widths=tuple(2**i for i in range(6, 13)),
            residuals=(0.5, 0.2),
            scales=(),
        ),
        restarts=5,
        queries=500,
        n_square=250,
    ),
    "paper": Config(
        cases=(
            *(
                Case("cifar10", _AIR, n, 2000, ("FC-1", "FC-2", "FC-3", "FC-5", "FC-10"), _PIXELS, 8 / 255)
                for n in (2000, 10_000)
            ),
            Case("cifar10", _AIR, 2000, 1000, ("Conv-2", "Conv-5"), _PIXELS, 8 / 255),
            Case("cifar10", _AIR, 2000, 100, ("Myrtle-5",), _PIXELS, 8 / 255),
            *(
                Case("cifar10", None, n, 1000, ("FC-1", "FC-5"), _PIXELS, 8 / 255)
                for n in (2000, 10_000, 50_000)
            ),
        ),
        transfers=Transfers(
            dataset="cifar10",
            classes=_AIR,
            n_train=2000,
            n_test=2000,
            eps=8 / 255,
            widths=tuple(2**i for i in range(6, 15)),
            seeds=5,
            residuals=(0.7, 0.5, 0.3, 0.1),
            scale_width=1024,
            scaled_step=0.1,
        ),
        times=12,
        restarts=5,
        queries=5000,
        n_square=1000,
    ),
}
