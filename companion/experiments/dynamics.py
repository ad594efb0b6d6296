"""What adversarial training does to the kernel of a network (chapter 4).

Networks are trained from one start on clean inputs (twice, in different orders of the minibatches: the
control), on FGSM's and on PGD's, at a constant and at a decayed rate, and their full empirical kernels on a
fixed probe are followed. Then the networks' kernels at some epochs are frozen and trained on, on clean inputs
and on attacked ones. Tsilivis & Kempe (2022), arXiv 2210.05577, section 5; Loo et al. (2022), arXiv
2210.12030.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from companion import data, dynamics, networks
from companion.attacks import Threat, pgd, robust_accuracy, training_attack
from companion.experiments._experiment import Arrays, Experiment, Job, filled
from companion.experiments._shared import at_the_end, images_of, sgd
from companion.training import Probe, Run, linear_solution, train

REGIMES = ("standard", "again", "fgsm", "pgd", "standard decayed", "pgd decayed")
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
        adversarial: at which of these the second phase is run on attacked inputs too.
        linear_epochs: of the second phase.
        n_solve: images of the kernel regression; 0 for none.
        final: steps and restarts of PGD on the networks at the end.
        kernels: whether the run of seed 0 keeps the kernels themselves.
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
PROFILES = {
    "quick": Config(),
    "full": Config((_CIFAR, _FASHION), REGIMES, seeds=10),
    "paper": Config((_PAPER, _RESNET), REGIMES),
}


def jobs(config: Config) -> list[Job]:
    """All regimes of a seed, whose kernels are compared, are one run."""
    return [
        Job(
            (case, config.regimes, seed),
            f"{case.dataset}, {case.model}, {case.epochs} epochs",
            seed,
            case.dataset,
        )
        for seed in range(config.seeds)
        for case in config.cases
    ]


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    rows, first = {}, {}
    for job, arrays in made.items():
        c, seed = config.cases.index(job.config[0]), job.config[2]
        rows[c, seed] = {name: array for name, array in arrays.items() if name not in _FIRST}
        if seed == 0:
            first[(c,)] = {name: array for name, array in arrays.items() if name in _FIRST}
    arrays = filled((len(config.cases), config.seeds), rows) | filled((len(config.cases),), first)
    if "epochs" in arrays:
        turned = dynamics.angle(np.diagonal(arrays["distances"], 1, -2, -1))
        arrays["velocity"] = np.full(arrays["rank"].shape, np.nan, np.float32)
        arrays["velocity"][..., :-1] = turned / np.diff(arrays["epochs"])[:, None, None]
    return arrays


_FIRST = ("epochs", "kernels")


def run(config: Config, *, progress: bool = False, folder: Path | None = None) -> Arrays:
    """Train, follow the kernels, freeze them, train on them.

    Args:
        config: sizes.
        progress: show a tqdm bar.
        folder: where to keep checkpoints, so that a stopped run goes on there; None: nowhere.

    Returns:
        Arrays, with a first axis over cases, then over seeds s; what a case does not have is NaN. Of g
        regimes at r records: `epochs` (c, r); `loss`, `clean`, `robust`, `concentration`, `rank`
        (effective), `alignment`, `specialization`, `rotation`, `velocity` (c, s, g, r), the last in radians
        per epoch between a record and the next; `radius` and `angle` (c, s, g, r, 3), over `PARTS`;
        `distances` (c, s, g, r, r); `between` (c, s, r, g, g), distances between regimes at one epoch;
        `final` (c, s, g, 2, 3): clean and PGD with restarts at the end, with the ends of 95 % intervals;
        `spectrum` (c, s, g, r, 40), the largest eigenvalues. Of l moments at which the kernels along
        `PATHS` are frozen: `linear` (c, s, 2, l, 2, 2), over paths, moments, `PHASES`, and clean and robust
        accuracy; `solved` (c, s, 2, l, 2) for kernel regression. `seconds` (c, s, g) of training steps;
        `kernels` (c, g, r, m, m) of seed 0, averaged over outputs.
    """
    return EXPERIMENT.run(config, progress=progress, folder=folder)


def model_of(case: Case, n_outputs: int) -> networks.Model:
    """The network of a case."""
    make = {"small CNN": networks.small_cnn, "CNN": networks.cnn, "ResNet-18": networks.resnet18}
    return make[case.model](n_outputs, width=case.width)


def optimizer_of(case: Case, decayed: bool) -> optax.GradientTransformation:
    """SGD of constant rate, or of one that falls to a tenth after half and after three quarters."""
    steps = case.epochs * (case.n_train // case.batch_size)
    return sgd(case.rate, case.momentum, (steps // 2, steps * 3 // 4) if decayed else ())


# Rates of SGD that suit a kernel differ by orders along training; Adam's does not.
_ADAM = optax.adam(1e-3)


def trained(case: Case, regime: str, seed: int, *, progress: bool = False, folder: Path | None = None) -> Run:
    """One network with its kernels, and itself at every record."""
    images = images_of(case)
    threat, key = Threat("linf", case.eps), jax.random.key(seed)
    model = model_of(case, len(images.classes))
    attacks = {
        "fgsm": training_attack(threat, steps=1, random_start=False, ramp=case.ramp),
        "pgd": training_attack(threat, steps=case.steps, ramp=case.ramp),
    }
    return train(
        model,
        images.x_train,
        images.y_train,
        epochs=case.epochs,
        optimizer=optimizer_of(case, "decayed" in regime),
        key=jax.random.fold_in(key, int(regime == "again")),
        batch_size=case.batch_size,
        attack=attacks.get(regime.split()[0]),
        start=model.init(key, images.x_train[:1]),
        record=case.record,
        x_test=images.x_test[: case.n_watch],
        labels_test=images.y_test[: case.n_watch],
        test_attack=training_attack(threat, steps=case.steps),
        probe=Probe(images.x_train[: case.n_probe]),
        keep=case.linear,
        folder=folder and folder / f"{case.dataset} {case.model} {regime} {seed}",
        progress=progress,
    )


def compute(case: Case, regimes: tuple[str, ...], seed: int, folder: Path | None = None) -> Arrays:
    """All regimes from one start, their kernels, and what is trained on those that are frozen."""
    images = images_of(case)
    k = len(images.classes)
    runs = {regime: trained(case, regime, seed, folder=folder) for regime in regimes}
    labels = data.targets(images.y_train[: case.n_probe], k)
    rows = [_followed(one, labels) for one in runs.values()]
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    paths = [one.kernels for one in runs.values()]
    arrays["between"] = np.stack([dynamics.distances(kernels) for kernels in zip(*paths, strict=True)])
    arrays["epochs"] = runs[regimes[0]].epochs
    arrays["final"] = np.stack([_final(case, one.variables, seed) for one in runs.values()])
    arrays["seconds"] = np.array([one.seconds[-1] for one in runs.values()])
    if case.kernels and seed == 0:
        arrays["kernels"] = np.stack([[dynamics.per_output(m, k).mean(0) for m in path] for path in paths])
    frozen = [_frozen(case, images, runs[path], seed, skip=path != PATHS[0]) for path in PATHS]
    arrays["linear"], arrays["solved"] = (np.stack(part) for part in zip(*frozen, strict=True))
    for name in ("linear", "solved"):
        arrays[name][1, case.linear.index(0)] = arrays[name][0, case.linear.index(0)]
    return arrays


def _followed(one: Run, labels: np.ndarray) -> dict[str, np.ndarray]:
    """All that is said about the kernels of one run."""
    k = labels.shape[1]
    classes = [dynamics.per_output(kernel, k) for kernel in one.kernels]
    # One eigendecomposition of each kernel serves all that follows.
    pairs = [np.linalg.eigh(kernel.astype(float)) for kernel in one.kernels]
    values = [value[::-1] for value, _ in pairs]
    spaces = [vectors[:, -TOP:] for _, vectors in pairs]
    tops = [(space * value[-TOP:]) @ space.T for (value, _), space in zip(pairs, spaces, strict=True)]
    rests = [kernel - top for kernel, top in zip(one.kernels, tops, strict=True)]
    polar = [dynamics.polar(path) for path in (one.kernels, tops, rests)]
    return {
        "loss": one.loss,
        "clean": one.clean,
        "robust": one.robust,
        "concentration": np.array([(v[:TOP] ** 2).sum() / (v**2).sum() for v in values]),
        "rank": np.array([dynamics.effective_rank(kernel) for kernel in one.kernels]),
        "alignment": np.array([dynamics.alignment(c.mean(axis=0), labels) for c in classes]),
        "specialization": np.array([dynamics.specialization(c, labels)[0] for c in classes]),
        "rotation": np.array([((space.T @ spaces[-1]) ** 2).sum() / TOP for space in spaces]),
        "radius": np.stack([radius for radius, _ in polar], axis=-1),
        "angle": np.stack([angle for _, angle in polar], axis=-1),
        "distances": dynamics.distances(one.kernels),
        "spectrum": np.stack([v[:40] for v in values]),
    }


def _final(case: Case, variables: Any, seed: int) -> np.ndarray:
    model = model_of(case, len(images_of(case).classes))
    return at_the_end(networks.predict_fn(model, variables), case, seed)


def _frozen(
    case: Case, images: data.Dataset, one: Run, seed: int, *, skip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Clean and robust accuracy of what is trained, and of what is solved for, on frozen kernels.

    All paths have one kernel at the start, which may be skipped.
    """
    model = model_of(case, len(images.classes))
    frozen = networks.linearised(model, centre=True)
    threat = Threat("linf", case.eps)
    test = training_attack(threat, steps=2 * case.steps)
    targets = data.targets(images.y_train, len(images.classes))[: case.n_solve]
    linear, solved = np.full((len(case.linear), 2, 2), np.nan), np.full((len(case.linear), 2), np.nan)
    for i, epoch in enumerate(case.linear):
        if skip and epoch == 0:
            continue
        variables = one.snapshots[min(one.snapshots, key=lambda kept: abs(kept - epoch))]
        for j, phase in enumerate(PHASES):
            if phase == "adversarial" and epoch not in case.adversarial:
                continue
            second = train(
                frozen,
                images.x_train,
                images.y_train,
                epochs=case.linear_epochs,
                optimizer=_ADAM,
                key=jax.random.key(seed),
                batch_size=case.batch_size,
                attack=training_attack(threat, steps=case.steps) if j else None,
                start=networks.linearise_at(variables),
                record=[case.linear_epochs],
                x_test=images.x_test[: case.n_watch],
                labels_test=images.y_test[: case.n_watch],
                test_attack=test,
            )
            linear[i, j] = second.clean[-1], second.robust[-1]
        if case.n_solve:
            f = networks.predict_fn(
                frozen, linear_solution(model, variables, images.x_train[: case.n_solve], targets, ridge=1e-3)
            )
            x, y = images.x_test[: case.n_watch], images.y_test[: case.n_watch]
            attacked = pgd(f, x, y, threat, steps=10, early_stop=True, batch_size=512)
            solved[i] = [robust_accuracy(f, points, y).value for points in (x, attacked)]
    return linear, solved


EXPERIMENT = Experiment(
    "dynamics", 1, PROFILES, jobs, compute, gather, measured=("seconds",), checkpoints=True
)
recorded = EXPERIMENT.recorded
