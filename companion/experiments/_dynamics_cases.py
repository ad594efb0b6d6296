"""Sizes of the experiment of chapter 4."""

from dataclasses import dataclass, field, replace

REGIMES = ("standard", "again", "fgsm", "pgd", "standard decayed", "pgd decayed", "noise")
PATHS = ("standard", "pgd")
PHASES = ("benign", "adversarial")
PARTS = ("whole", "top", "rest")
TOP = 20


@dataclass(frozen=True)
class Case:
    """One data set and network.

    Attributes:
        dataset: a name for `data.load`.
        model: "small CNN", "CNN" or "ResNet-18".
        width: of the network.
        n_train: training images.
        n_test: test images.
        n_watch: how many of them are classified at every record, and on frozen kernels.
        eps: ε, L∞, in training and test.
        epochs: of training.
        batch_size: images in a step.
        rate: learning rate of SGD.
        momentum: of SGD.
        ramp: epochs over which ε grows in training.
        steps: of PGD in training and in records; twice as many on frozen kernels.
        record: epochs at which the kernel is recorded.
        n_probe: images of the kernel.
        linear: epochs at which the kernel is frozen.
        adversarial: at which of these the second phase is run on attacked inputs too; its curve, at the last.
        linear_epochs: of the second phase.
        n_solve: images of the kernel regression; 0 for none.
        final: steps and restarts of PGD on the networks at the end.
        kernels: whether the run of seed 0 keeps the kernels themselves.
        curve: epochs of the second phase, at the last of `linear`, at which it is recorded; () for none.
        attacked: whether the kernel is followed on attacked images of the probe too, as paper A did.
        paths: regimes along which kernels are frozen and trained on.
    """

    dataset: str = "mnist5k"
    model: str = "small CNN"
    width: int = 8
    n_train: int = 800
    n_test: int = 300
    n_watch: int = 100
    eps: float = 0.2
    epochs: int = 10
    batch_size: int = 40
    rate: float = 0.05
    momentum: float = 0.9
    ramp: float = 4.0
    steps: int = 4
    record: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
    n_probe: int = 40
    linear: tuple[float, ...] = (0.0, 1.0, 4.0, 10.0)
    adversarial: tuple[float, ...] = (10.0,)
    linear_epochs: int = 2
    n_solve: int = 0
    final: tuple[int, int] = (10, 2)
    kernels: bool = True
    curve: tuple[float, ...] = field(default=(), metadata={"absent": ()})
    attacked: bool = field(default=False, metadata={"absent": False})
    paths: tuple[str, ...] = field(default=PATHS, metadata={"absent": PATHS})


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets and networks.
        regimes: which of `REGIMES` are trained.
        seeds: initializations.
    """

    cases: tuple[Case, ...] = (Case(),)
    regimes: tuple[str, ...] = REGIMES[:4]
    seeds: int = 3


_EPOCHS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0)
_FASHION = Case(
    "fashion_mnist", width=16, n_train=5000, n_test=1000, n_watch=500, eps=0.1, epochs=15, batch_size=100,
    ramp=2.0, steps=5, record=_EPOCHS, n_probe=50, linear=(0.0, 1.0, 4.0, 15.0), adversarial=(),
    linear_epochs=2, n_solve=100, final=(40, 2), kernels=False,
)  # fmt: skip
_CIFAR = replace(_FASHION, dataset="cifar10", width=32, eps=8 / 255, rate=0.02, ramp=0.0)
_LONG = (*_EPOCHS[:10], *(float(e) for e in range(8, 201, 4)))
_PAPER = replace(
    _CIFAR, model="CNN", n_train=50_000, n_test=10_000, n_watch=2000, epochs=200, batch_size=250, rate=0.01,
    final=(40, 3), momentum=0.0, steps=20, record=_LONG, n_probe=250, linear=(0.0, 1.0, 8.0, 48.0, 200.0),
    adversarial=(200.0,), linear_epochs=20, n_solve=0,
)  # fmt: skip
_RESNET = replace(
    _PAPER, model="ResNet-18", width=64, eps=4 / 255, batch_size=128, rate=0.1, momentum=0.9, steps=10,
    n_probe=50, linear_epochs=100,
)  # fmt: skip
_CURVE = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_FASHION_LONG = replace(
    _FASHION, n_train=2500, batch_size=50, epochs=200, record=_LONG, linear=(0.0, 200.0),
    adversarial=(200.0,), curve=_CURVE, attacked=True,
)  # fmt: skip
# Whether a kernel of training on noise is robust too, which no attack has formed.
_ON_NOISE = {"paths": (*PATHS, "noise"), "adversarial": (), "curve": _CURVE, "kernels": False}
_NOISE = tuple(
    replace(case, linear=(0.0, case.record[-1]), **_ON_NOISE) for case in (Case(), _FASHION, _CIFAR)
)
_CIFAR_TWICE = replace(_CIFAR, linear=(0.0, 15.0), adversarial=(15.0,), curve=_CURVE, attacked=True)
PROFILES = {
    # One seed, while the reader waits; the same networks with all controls and more seeds are recorded.
    "quick": Config(regimes=PATHS, seeds=1),
    "digits": Config((replace(Case(), kernels=False),)),
    "full": Config((_CIFAR, _FASHION), REGIMES[:6], seeds=10),
    # The length of paper A in steps and what it lacked: noise as a control, the second phase step by step.
    "long": Config((_CIFAR_TWICE, _FASHION_LONG), ("standard", "again", "pgd", "noise"), seeds=5),
    "noise": Config(_NOISE, (*PATHS, "noise"), seeds=10),
    "paper": Config((_PAPER, _RESNET), REGIMES[:6]),
}
