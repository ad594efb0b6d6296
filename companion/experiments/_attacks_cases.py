"""Sizes of the experiment of chapter 2."""

from dataclasses import dataclass, field

from companion._core.words import Setting
from companion.experiments._experiment import LISTS

ATTACKS = ("random", "fgsm", "pgd", "pgd_long")
SOURCES = ("kernel", "white_box", "random")
STAGES = ("clean", "apgd-ce", "apgd-t", "fab-t", "square")
TARGETS = ("FC, gradient descent", "FC, Adam", "CNN, Adam")
MAKERS = ("FC-1 kernel", "FC-1 kernel, stopped", "Conv kernel", "own", "random")


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
        scales: κ of networks κ · f: the smaller, the more their features move; none to leave them out.
        scale_width: hidden units of these.
        momentum: of the gradient descent.
        step: learning rate in units of 1/λ_max of the kernel on the training set; times 1/κ² with a scale.
        scaled_step: the same with κ < 1, where kernels grow as networks train.
        center: whether f(θ) − f(θ₀) is trained and attacked, else f(θ).
        moved: on how many training images the motion of the empirical kernel is measured; 0 for not at all.
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
    scales: tuple[float, ...] = ()
    scale_width: int = 128
    momentum: float = 0.98
    step: float = 0.5
    scaled_step: float = 0.02
    center: bool = field(default=True, metadata={"absent": True})
    moved: int = field(default=0, metadata={"absent": 0})


@dataclass(frozen=True)
class Path:
    """Clean and robust accuracy along time, kernel by kernel, on several training sets.

    Attributes:
        dataset: name for `data.load`.
        classes: a pair.
        n_train: training images, others for every seed.
        n_test: test images, others for every seed as far as there are.
        architectures: dense ones.
        eps: size of the perturbation, L∞.
        times: between 1/λ_max and 10⁷/λ_max.
        steps: of PGD.
        seeds: training sets.
    """

    dataset: str
    classes: tuple[str | int, ...]
    n_train: int
    n_test: int
    architectures: tuple[str, ...] = field(metadata=LISTS)
    eps: float
    times: int = 15
    steps: int = 10
    seeds: int = field(default=5, metadata=LISTS)


@dataclass(frozen=True)
class Evaluation:
    """Kernels at t = ∞ under AutoAttack.

    Attributes:
        dataset: name for `data.load`.
        classes: those kept; None for all.
        n_train: training images.
        n_test: test images that are attacked.
        architectures: dense ones.
        eps: size of the perturbation, L∞.
        steps: of the PGD beside it.
    """

    dataset: str
    classes: tuple[str | int, ...] | None
    n_train: int
    n_test: int
    architectures: tuple[str, ...] = field(metadata=LISTS)
    eps: float
    steps: int = 40


@dataclass(frozen=True)
class Kinds:
    """Networks of several kinds (`TARGETS`) under the FGSM of several kernels (`MAKERS`), on the same images.

    Attributes:
        dataset: name for `data.load`.
        classes: a pair.
        n_train: training images of kernels and networks, others for every seed.
        n_test: test images.
        eps: size of the perturbation, L∞.
        conv: the convolutional kernel, such as "Conv-1".
        stopped: time of the kernel that is stopped early, in units of 1/λ_max.
        width: hidden units of the dense networks.
        channels: of the convolutional network's two layers.
        updates: of Adam, on batches of 64.
        rate: of Adam.
        residual: down to which gradient descent trains.
        seeds: training sets, with a network of each kind.
    """

    dataset: str = "mnist5k"
    classes: tuple[str | int, ...] = (4, 9)
    n_train: int = 200
    n_test: int = 200
    eps: float = 0.1
    conv: str = "Conv-1"
    stopped: float = 100.0
    width: int = 512
    channels: tuple[int, int] = (8, 16)
    updates: int = 200
    rate: float = 3e-3
    residual: float = 0.2
    seeds: int = field(default=3, metadata=LISTS)


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets with their kernels; every one with the same number of sizes `eps`.
        transfers: networks to transfer to.
        variants: more of them: not centered, with scales.
        paths: accuracies along time.
        evaluations: AutoAttack.
        kinds: networks of other kinds.
        linear: networks under the perturbations of a linear model too, at the last of their residuals.
        steps: of PGD, and of a longer PGD, both with steps that can cross the ball.
        times: times between 1/λ_max and 10⁷/λ_max at which the main attack is repeated.
        restarts: of the stronger PGD on pairs.
        queries: of the square attack on pairs; 0 for none.
        n_square: images for it.
    """

    cases: tuple[Case, ...]
    transfers: Transfers = field(default_factory=Transfers)
    variants: tuple[Transfers, ...] = ()
    paths: tuple[Path, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    kinds: tuple[Kinds, ...] = ()
    linear: tuple[Transfers, ...] = ()
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
_SCALES = (0.04, 0.2, 1.0, 5.0, 25.0)


def _air(**changes: Setting) -> Transfers:
    """Networks for airplanes and automobiles, small enough to train many."""
    small = {"dataset": "cifar10", "classes": _AIR, "n_train": 200, "n_test": 500, "eps": 8 / 255}
    return Transfers(**{**small, "residuals": (0.5, 0.2), "seeds": 5, **changes})


PROFILES = {
    "quick": Config(
        cases=(
            Case("mnist5k", (4, 9), 800, 200, ("FC-1",), _INK, 0.1),
            Case("mnist5k", None, 800, 256, ("FC-1",), _INK, 0.1),
        ),
        variants=(Transfers(widths=(), scales=_SCALES, moved=100),),
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
        ),
        variants=(
            Transfers(widths=(), scales=_SCALES, moved=100, seeds=5),
            Transfers(seeds=5),
            Transfers(center=False, seeds=5),
            _air(widths=(), scales=_SCALES[1:], moved=100),
            _air(widths=(64, 256, 1024)),
            _air(widths=(64, 256, 1024), center=False),
        ),
        kinds=(
            Kinds(seeds=5),
            Kinds("cifar10", _AIR, eps=8 / 255, updates=400, seeds=5),
        ),
        linear=(Transfers(residuals=(0.2,)), _air(widths=(64, 256, 1024), residuals=(0.2,), seeds=3)),
        paths=(
            Path("cifar10", _AIR, 500, 300, ("FC-1", "FC-5", "FC-3"), 4 / 255),
            Path("mnist5k", (4, 9), 400, 200, ("FC-1", "FC-5", "FC-3"), 0.1),
        ),
        evaluations=(
            Evaluation("cifar10", _AIR, 2000, 200, ("FC-1", "FC-5"), 8 / 255),
            Evaluation("mnist5k", (4, 9), 800, 200, ("FC-1", "FC-5"), 0.1),
            Evaluation("fashion_mnist", _WEAR, 2000, 200, ("FC-1", "FC-5"), 0.1),
            Evaluation("cifar10", None, 4000, 200, ("FC-1",), 8 / 255),
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
            scales=_SCALES,
            scale_width=1024,
            scaled_step=0.1,
            moved=500,
        ),
        paths=(Path("cifar10", _AIR, 5000, 2000, (*_DEPTHS, "FC-10"), 4 / 255, seeds=10),),
        evaluations=(Evaluation("cifar10", _AIR, 10_000, 2000, ("FC-1", "FC-5", "FC-10"), 8 / 255),),
        kinds=(Kinds("cifar10", _AIR, 2000, 2000, 8 / 255, updates=2000, seeds=10),),
        times=12,
        restarts=5,
        queries=5000,
        n_square=1000,
    ),
}
