"""Sizes of the experiment on two relatives of the kernel: without its first layers, and with large biases."""

from dataclasses import dataclass, field

from companion.attacks import STANDARD
from companion.experiments._experiment import LISTS

KINDS = ("ntk", "nngp")
SOURCES = (*KINDS, "random")
TRAININGS = ("none", "standard", "pgd")
PREDICTORS = ("network", *KINDS)


@dataclass(frozen=True)
class Case:
    """One pair of classes.

    Attributes:
        dataset: name for `data.load`.
        classes: a pair.
        eps: L∞ size of the attacks, pixels in [0, 1].
        n_train: training images.
        n_conv: as many of them for convolutions.
        n_trained: and as many for empirical kernels of networks.
        n_test: test images.
        n_attacked: the first of these, which are attacked.
        n_conv_attacked: and those that are attacked through convolutions.
    """

    dataset: str
    classes: tuple[str | int, str | int]
    eps: float
    n_train: int = 600
    n_conv: int = 200
    n_trained: int = 400
    n_test: int = 200
    n_attacked: int = 64
    n_conv_attacked: int = 32


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: pairs of classes.
        kernels: network families, each with its tangent and its conjugate kernel.
        biases: B of one hidden layer, for inputs that are scaled to preactivations of variance 1.
        seeds: splits into training and test images, and networks.
        draws: splits of the first kernel with its conjugate, where they are more: it is cheap.
        ridge: of all kernel regressions, in units of the mean diagonal.
        ridges: along which both kernels are attacked as well, in the same unit.
        radii: L2 sizes at which certified accuracy is recorded.
        attacks: of AutoAttack, in their order.
        queries: of its Square.
        steps: of PGD, where it is not AutoAttack.
        features: the first so many, one by one.
        width: of networks.
        epochs: of training them.
    """

    cases: tuple[Case, ...] = field(metadata=LISTS)
    kernels: tuple[str, ...] = field(default=("FC-1", "FC-5", "Conv-3"), metadata=LISTS)
    biases: tuple[float, ...] = field(default=(0.0, 1.0, 2.0), metadata=LISTS)
    seeds: int = field(default=3, metadata=LISTS)
    draws: int = field(default=0, metadata=LISTS)
    ridge: float = 0.01
    ridges: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0)
    radii: tuple[float, ...] = (0.0, 0.01, 0.03, 0.1, 0.25, 0.5, 1.0)
    attacks: tuple[str, ...] = ("apgd-ce", "apgd-t")
    queries: int = 5000
    steps: int = 20
    features: int = 20
    width: int = 512
    epochs: int = 30


_PAIRS = (
    ("mnist5k", (4, 9), 0.05),
    ("fashion_mnist", ("pullover", "coat"), 0.02),
    ("cifar10", ("airplane", "automobile"), 2 / 255),
)

PROFILES = {
    "quick": Config(
        (Case("mnist5k", (4, 9), 0.05, 100, 40, 60, 60, 24, 4),),
        kernels=("FC-1",),
        biases=(0.0, 1.0),
        seeds=2,
        steps=5,
        width=64,
        epochs=5,
    ),
    # One convolution: with three, a run takes a quarter of an hour.
    "full": Config(
        tuple(Case(*one) for one in _PAIRS), kernels=("FC-1", "FC-5", "Conv-1"), seeds=8, draws=10
    ),
    "paper": Config(
        tuple(Case(*one, 8000, 2000, 2000, 1000, 1000, 1000) for one in _PAIRS if one[0] != "mnist5k"),
        biases=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5),
        seeds=10,
        attacks=STANDARD,
    ),
}
