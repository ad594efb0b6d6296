"""Saving time in adversarial training: clean first, and all that it has to beat (chapter 6).

Schedules of one number of epochs from the same starts: PGD from the first step, FGSM with a random start,
free training, ε or the number of steps growing, clean first with the switch by hand and by the kernel's
velocity. Robust accuracy against seconds and against passes through the network. After finding B2 of Li et
al. (2023), arXiv 2312.02236.
"""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from tqdm.auto import tqdm

from companion import data, dynamics, networks, warm_start
from companion.attacks import Replay, Threat, free_training, pgd, robust_accuracy, training_attack
from companion.experiments import main
from companion.experiments._shared import kept, padded, sources, triple
from companion.training import Probe, Run, train

EARLY = ("standard", "again", "fgsm", "pgd")


@dataclass(frozen=True)
class Case:
    """One data set and network.

    Attributes:
        dataset: a name for `data.load`.
        model: "small CNN" or "ResNet-18".
        width: of the network.
        n_train: training images.
        n_test: test images.
        n_watch: how many of them are attacked at every record.
        eps: ε, L∞, in training and test.
        epochs: of training.
        batch_size: images in a step.
        rate: learning rate of SGD.
        steps: of PGD in training and in records.
        switches: epochs of the switch by hand.
        fraction: of the kernel's highest velocity, at which the rule switches.
        record: records in an epoch.
        n_probe: images of the kernel.
        free: replays of free training.
        final: steps and restarts of PGD on the networks at the end.
    """

    dataset: str = "mnist5k"
    model: str = "small CNN"
    width: int = 8
    n_train: int = 600
    n_test: int = 300
    n_watch: int = 50
    eps: float = 0.15
    epochs: int = 6
    batch_size: int = 30
    rate: float = 0.05
    steps: int = 5
    switches: tuple[int, ...] = (2, 4)
    fraction: float = 0.1
    record: int = 2
    n_probe: int = 20
    free: int = 3
    final: tuple[int, int] = (10, 1)


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets and networks.
        rates: "constant", "decayed" or both.
        seeds: initializations.
    """

    cases: tuple[Case, ...] = (Case(),)
    rates: tuple[str, ...] = ("constant",)
    seeds: int = 2


_FASHION = Case(
    "fashion_mnist", n_train=2000, n_test=1000, n_watch=200, eps=0.1, epochs=10, batch_size=50,
    switches=(2, 4, 6, 8), free=5, final=(20, 1),
)  # fmt: skip
_CIFAR = replace(_FASHION, dataset="cifar10", eps=4 / 255, rate=0.02)
_PAPER = replace(
    _CIFAR, model="ResNet-18", width=64, n_train=50_000, n_test=10_000, n_watch=1000, eps=8 / 255, epochs=30,
    batch_size=128, rate=0.1, steps=10, switches=(2, 5, 10, 15, 20, 25), n_probe=50, final=(40, 2),
)  # fmt: skip
PROFILES = {
    "quick": Config(),
    "full": Config((_FASHION, _CIFAR), ("constant", "decayed"), seeds=3),
    "paper": Config((_PAPER,), ("constant", "decayed"), seeds=3),
}


def methods(case: Case) -> tuple[str, ...]:
    """All schedules of a case."""
    by_hand = [f"clean for {epoch}" for epoch in case.switches]
    return ("pgd", "fgsm", "free", "growing ε", "growing steps", *by_hand, "rule", "standard")


def run(config: Config, *, progress: bool = False, folder: Path | None = None) -> dict[str, np.ndarray]:
    """Train by every schedule.

    Args:
        config: sizes.
        progress: show tqdm bars.
        folder: where to keep what is done, so that a stopped run goes on there; None: nowhere.

    Returns:
        Arrays over cases c, rates k, `methods` m, seeds s and records r; NaN where a case has fewer: `epochs`
        (c, r); `clean`, `robust`, `seconds` (c, k, m, s, r) along training, free training's at its own
        records; `final` (c, k, m, s, 2, 3): clean and PGD with restarts at the end, with the ends of 95 %
        intervals; `total` (c, k, m, s): seconds of training, with those of the probe where a rule needed it;
        `probe` (c, k, s): these alone; `passes` (c, k, m, s): forward and backward passes of a training
        image; `switched` (c, k, s): the rule's epoch, infinity for never. Of the constant rate: `between` (c,
        s, r, 4, 4), distances of the kernels of `EARLY` at one epoch; `velocity` (c, s, 4, r).
    """
    found = []
    for case in config.cases:
        names = methods(case)
        shape = len(config.rates), len(names), config.seeds
        rows: dict[str, Any] = {}
        switched, probed = np.full((shape[0], config.seeds), np.inf), np.zeros((shape[0], config.seeds))
        kernels: list[dict[str, np.ndarray]] = [{} for _ in range(config.seeds)]
        jobs = list(np.ndindex(shape))
        for k, m, s in tqdm(jobs, desc=f"{case.dataset} schedules", disable=not progress):
            row = kept(
                folder,
                f"{case.dataset} {names[m]} {config.rates[k]} {s}",
                (case, names[m], config.rates[k], s),
                functools.partial(_one, case, names[m], config.rates[k], s),
            )
            if names[m] == "rule":
                switched[k, s], probed[k, s] = row["switched"], row["probe"]
            if "kernels" in row:
                kernels[s][names[m]] = row.pop("kernels")
            del row["switched"], row["probe"]
            for name, value in row.items():
                target = rows.setdefault(name, np.full((*shape, *_longest(case, value)), np.nan))
                target[k, m, s, *(slice(size) for size in value.shape)] = value
        rows |= {"switched": switched, "probe": probed}
        early = [_early(kernels[s], case, s, folder) for s in range(config.seeds)]
        rows |= {name: np.stack([one[name] for one in early]) for name in ("between", "velocity")}
        rows["epochs"] = np.linspace(0, case.epochs, case.epochs * case.record + 1)
        found.append(rows)
    return {name: padded([np.asarray(one[name]) for one in found]).astype(np.float32) for name in found[0]}


def _longest(case: Case, value: np.ndarray) -> tuple[int, ...]:
    return (case.epochs * case.record + 1,) if value.ndim == 1 else value.shape


def passes(case: Case, method: str, switched: float | None) -> float:
    """Forward and backward passes of each training image, over the whole training."""
    whole = case.steps + 1
    if method == "growing steps":
        steps = case.n_train // case.batch_size
        clock = np.arange(case.epochs * steps) / steps
        grown = 1 + np.floor((case.steps - 1) * np.minimum(1, clock / (case.epochs / 2)))
        return float((grown + 1).sum() / steps)
    clean = 0.0
    if method.startswith("clean"):
        clean = float(method.split()[-1])
    if method == "rule":
        clean = float(case.epochs if switched is None else switched)
    if method == "free":
        return float(case.epochs // case.free * case.free)
    each = {"fgsm": 2, "standard": 1}.get(method, whole)
    return clean + each * (case.epochs - clean)


def model_of(case: Case, n_outputs: int) -> networks.Model:
    """The network of a case."""
    make = {"small CNN": networks.small_cnn, "ResNet-18": networks.resnet18}
    return make[case.model](n_outputs, width=case.width)


@functools.lru_cache
def optimizer_of(case: Case, rate: str) -> optax.GradientTransformation:
    """SGD with momentum, of constant rate or of one that falls to a tenth after half and three quarters."""
    steps = case.epochs * (case.n_train // case.batch_size)
    falls = {steps // 2: 0.1, steps * 3 // 4: 0.1}
    schedule = optax.piecewise_constant_schedule(case.rate, falls) if rate == "decayed" else case.rate
    return optax.sgd(schedule, momentum=0.9)


def attack_of(case: Case, method: str) -> Any:
    """What `train` takes as a schedule's attack."""
    threat = Threat("linf", case.eps)
    whole = training_attack(threat, steps=case.steps)
    if method.startswith("clean"):
        return warm_start.clean_first(whole, until=int(method.split()[-1]))
    return {
        "pgd": whole,
        "fgsm": training_attack(threat, steps=1),
        "free": free_training(threat, times=case.free),
        "growing ε": training_attack(threat, steps=case.steps, ramp=case.epochs / 2),
        "growing steps": warm_start.growing_steps(threat, case.steps, until=case.epochs / 2),
        "rule": warm_start.clean_first(whole, until=warm_start.settled(fraction=case.fraction)),
    }.get(method)


def trained(case: Case, method: str, rate: str, seed: int) -> Run:
    """One network; all schedules of a seed have one start and one order of minibatches."""
    images = data.load(case.dataset, n_train=case.n_train, n_test=case.n_test)
    attack, key = attack_of(case, method), jax.random.key(seed)
    epochs = case.epochs // case.free if isinstance(attack, Replay) else case.epochs
    model = model_of(case, len(images.classes))
    watched = method == "rule" or (method in EARLY and rate == "constant")
    return train(
        model,
        images.x_train,
        images.y_train,
        epochs=epochs,
        optimizer=optimizer_of(case, rate),
        key=jax.random.fold_in(key, int(method == "again")),
        start=model.init(key, images.x_train[:1]),
        batch_size=case.batch_size,
        attack=attack,
        record=np.linspace(0, epochs, epochs * case.record + 1).tolist(),
        x_test=images.x_test[: case.n_watch],
        labels_test=images.y_test[: case.n_watch],
        test_attack=training_attack(Threat("linf", case.eps), steps=2 * case.steps),
        probe=Probe(images.x_train[: case.n_probe], "trace") if watched else None,
    )


def _one(case: Case, method: str, rate: str, seed: int) -> dict[str, np.ndarray]:
    images = data.load(case.dataset, n_train=case.n_train, n_test=case.n_test)
    one = trained(case, method, rate, seed)
    f = one.predict(model_of(case, len(images.classes)))
    steps, restarts = case.final
    x, y = images.x_test, images.y_test
    attacked = pgd(
        f, x, y, Threat("linf", case.eps), steps=steps, restarts=restarts, key=jax.random.key(1000 + seed),
        early_stop=True, batch_size=512,
    )  # fmt: skip
    last = len(one.epochs) - 1
    asked = last if one.switched is None else int(np.searchsorted(one.epochs, one.switched))
    probe = one.probe_seconds[asked] if method == "rule" else 0.0
    kernels = {}
    if method in EARLY and one.kernels is not None:
        kernels = {"kernels": np.stack(one.kernels)}
    return kernels | {
        "clean": one.clean,
        "robust": one.robust,
        "seconds": one.seconds,
        "final": np.array([triple(robust_accuracy(f, points, y)) for points in (x, attacked)]),
        "total": np.array(one.seconds[-1] + probe),
        "probe": np.array(probe),
        "switched": np.array(np.inf if one.switched is None else one.switched),
        "passes": np.array(passes(case, method, one.switched)),
    }


def _early(kernels: dict[str, np.ndarray], case: Case, seed: int, folder: Path | None) -> dict[str, Any]:
    """How far the kernels of `EARLY` are apart, and how fast each moves."""
    again = kept(
        folder,
        f"{case.dataset} again {seed}",
        (case, "again", seed),
        lambda: {"kernels": np.stack(trained(case, "again", "constant", seed).kernels)},
    )
    paths = [(kernels | {"again": again["kernels"]})[name] for name in EARLY]
    times = np.linspace(0, case.epochs, case.epochs * case.record + 1)
    return {
        "between": np.stack([dynamics.distances(list(some)) for some in zip(*paths, strict=True)]),
        "velocity": np.stack([np.append(dynamics.velocity(list(path), times), np.nan) for path in paths]),
    }


if __name__ == "__main__":
    main(
        "warm_start",
        PROFILES,
        run,
        dataset=lambda config: sources(config.cases),
        seeds=lambda config: range(config.seeds),
        checkpoints=True,
    )
