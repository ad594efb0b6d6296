"""Saving time in adversarial training: clean first, and all that it has to beat (chapter 6).

Schedules of one number of epochs from the same starts: PGD from the first step, FGSM with a random start,
free training, ε or the number of steps growing, clean first with the switch by hand and by the kernel's
velocity. Robust accuracy against seconds and against passes through the network. After finding B2 of Li et
al. (2023), arXiv 2312.02236.
"""

from collections.abc import Mapping

import jax
import numpy as np
import optax
from jax.tree_util import Partial

from companion import dynamics, networks, warm_start
from companion.attacks import Replay, Threat, free_training, training_attack
from companion.experiments._experiment import Arrays, Experiment, Job, filled
from companion.experiments._shared import at_the_end, images_of, sgd
from companion.experiments._warm_start_cases import EARLY, PROFILES, Case, Config
from companion.training import Probe, Run, Switch, train

__all__ = [
    "EARLY",
    "EXPERIMENT",
    "PROFILES",
    "Case",
    "Config",
    "attack_of",
    "clean_epochs",
    "compute",
    "epochs_of",
    "every_method",
    "gather",
    "jobs",
    "methods",
    "model_of",
    "optimizer_of",
    "passes",
    "pgd_steps",
    "recorded",
    "run",
    "trained",
]


def methods(case: Case, rate: str = "constant") -> tuple[str, ...]:
    """The schedules of a case at a rate; where the rate falls, one too that starts it anew."""
    by_hand = [f"clean for {epoch}" for epoch in case.switches]
    others = ("free", "growing ε") if case.others else ()
    base = ("pgd", "fgsm", *others, "growing steps", *by_hand, "rule", "standard")
    if not case.cheaper:
        return base
    anew = [f"{by_hand[len(by_hand) // 2 - 1]}, rate anew"] if rate == "decayed" else []
    return (*base, "pgd, 2 steps", "pgd, 3 steps", f"pgd for {case.short}", *anew)


def every_method(config: Config, case: Case) -> tuple[str, ...]:
    """The schedules of a case at any of the rates."""
    return max((methods(case, rate) for rate in config.rates), key=len)


def jobs(config: Config) -> list[Job]:
    """Every schedule; those of `EARLY` at the constant rate, with their kernels, are one run."""
    found = []
    for seed in range(config.seeds):
        for case in config.cases:
            label = f"{case.dataset}, ε = {case.eps:.3g}"
            found.append(Job((case, "early", "constant", seed), f"{label}, kernels", seed, case.dataset))
            for rate in config.rates:
                found += [
                    Job((case, method, rate, seed), f"{label}, {method}, {rate} rate", seed, case.dataset)
                    for method in methods(case, rate)
                    if method not in EARLY or rate != "constant"
                ]
    return found


def compute(case: Case, method: str, rate: str, seed: int) -> Arrays:
    """One schedule; or those of `EARLY`, one after the other on a first axis, and their kernels."""
    if method != "early":
        return _measured(case, method, trained(case, method, rate, seed), seed)
    runs = {name: trained(case, name, rate, seed) for name in EARLY}
    rows = [_measured(case, name, one, seed) for name, one in runs.items()]
    paths = [list(one.kernels) for one in runs.values()]
    times = np.linspace(0, case.epochs, case.epochs * case.record + 1)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]} | {
        "between": np.stack([dynamics.distances(list(some)) for some in zip(*paths, strict=True)]),
        "velocity": np.stack(
            [np.append(dynamics.successive(path) / np.diff(times), np.nan) for path in paths]
        ),
    }


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    places: dict[str, dict[tuple[int, ...], dict[str, np.ndarray]]] = {"kernels": {}, "rule": {}, "rows": {}}
    for job, arrays in made.items():
        case, method, rate, seed = job.config
        c, k, names = config.cases.index(case), config.rates.index(rate), every_method(config, case)
        if method == "early":
            places["kernels"][c, seed] = {name: arrays[name] for name in ("between", "velocity")}
            for i, name in enumerate(EARLY):
                if name in names:
                    row = {key: arrays[key][i] for key in _MEASURES}
                    places["rows"][c, k, names.index(name), seed] = row
            continue
        places["rows"][c, k, names.index(method), seed] = {name: arrays[name] for name in _MEASURES}
        if method == "rule":
            places["rule"][c, k, seed] = {name: arrays[name] for name in ("switched", "probe")}
    c, k, s = len(config.cases), len(config.rates), config.seeds
    times = [np.linspace(0, case.epochs, case.epochs * case.record + 1) for case in config.cases]
    return (
        filled((c, k, max(len(every_method(config, case)) for case in config.cases), s), places["rows"])
        | filled((c, k, s), places["rule"])
        | filled((c, s), places["kernels"])
        | filled((c,), {(i,): {"epochs": time} for i, time in enumerate(times)})
    )


_MEASURES = ("clean", "robust", "seconds", "final", "total", "passes")


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Train by every schedule.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays over cases c, rates k, `every_method` m, seeds s and records r; NaN where a case has fewer:
        `epochs` (c, r); `clean`, `robust`, `seconds` (c, k, m, s, r) along training, free training's at its
        own records; `final` (c, k, m, s, 2, 3): clean and PGD with restarts at the end, with the ends of 95
        % intervals; `total` (c, k, m, s): seconds of training, with those of the probe where a rule needed
        it; `probe` (c, k, s): these alone; `passes` (c, k, m, s): forward and backward passes of a training
        image; `switched` (c, k, s): the rule's epoch, infinity for never. Of the constant rate: `between`
        (c, s, r, 4, 4), distances of the kernels of `EARLY` at one epoch; `velocity` (c, s, 4, r), d per
        epoch, which the rule looks at.
    """
    return EXPERIMENT.run(config, progress=progress)


def passes(case: Case, method: str, switched: float | None) -> float:
    """Forward and backward passes of each training image, over the whole training."""
    if method == "growing steps":
        steps = case.n_train // case.batch_size
        clock = np.arange(case.epochs * steps) / steps
        grown = 1 + np.floor((case.steps - 1) * np.minimum(1, clock / (case.epochs / 2)))
        return float((grown + 1).sum() / steps)
    if method == "free":
        return float(case.epochs // case.free * case.free)
    clean = float(clean_epochs(method))
    if method == "rule":
        clean = float(case.epochs if switched is None else switched)
    each = {"fgsm": 2, "standard": 1}.get(method, pgd_steps(case, method) + 1)
    return clean + each * (epochs_of(case, method) - clean)


def clean_epochs(method: str) -> int:
    """After how many epochs a schedule switches by hand."""
    return int(method.split()[2].strip(",")) if method.startswith("clean for") else 0


def pgd_steps(case: Case, method: str) -> int:
    """Steps of PGD in training."""
    return int(method.split()[1]) if method.endswith(" steps") and method.startswith("pgd,") else case.steps


def epochs_of(case: Case, method: str) -> int:
    """How many epochs a schedule takes; free training counts the images it replays."""
    return int(method.split()[-1]) if method.startswith("pgd for") else case.epochs


def model_of(case: Case, n_outputs: int) -> networks.Model:
    """The network of a case."""
    make = {"small CNN": networks.small_cnn, "ResNet-18": networks.resnet18}
    return make[case.model](n_outputs, width=case.width)


def optimizer_of(case: Case, rate: str, method: str = "pgd") -> optax.GradientTransformation:
    """SGD with momentum, of constant rate or of one that falls to a tenth after half and three quarters.

    Of a shorter training, or where the rate starts anew with the attack, half and three quarters of that.
    """
    steps = case.n_train // case.batch_size
    begin = clean_epochs(method) * steps if method.endswith("rate anew") else 0
    whole = epochs_of(case, method) * steps - begin
    falls = (begin + whole // 2, begin + whole * 3 // 4) if rate == "decayed" else ()
    return sgd(case.rate, 0.9, falls)


def attack_of(case: Case, method: str) -> Partial | Replay | Switch | None:
    """What `train` takes as a schedule's attack."""
    threat = Threat("linf", case.eps)
    whole = training_attack(threat, steps=pgd_steps(case, method))
    if clean_epochs(method):
        return warm_start.clean_first(whole, until=clean_epochs(method))
    if method.startswith("pgd"):
        return whole
    return {
        "fgsm": training_attack(threat, steps=1),
        "free": free_training(threat, replays=case.free),
        "growing ε": training_attack(threat, steps=case.steps, ramp=case.epochs / 2),
        "growing steps": warm_start.growing_steps(threat, case.steps, until=case.epochs / 2),
        "rule": warm_start.clean_first(whole, until=warm_start.settled(fraction=case.fraction)),
    }.get(method)


def trained(case: Case, method: str, rate: str, seed: int) -> Run:
    """One network; all schedules of a seed have one start and one order of minibatches."""
    images = images_of(case)
    attack, key = attack_of(case, method), jax.random.key(seed)
    epochs = case.epochs // case.free if isinstance(attack, Replay) else epochs_of(case, method)
    model = model_of(case, len(images.classes))
    watched = method == "rule" or (method in EARLY and rate == "constant")
    return train(
        model,
        images.x_train,
        images.y_train,
        epochs=epochs,
        optimizer=optimizer_of(case, rate, method),
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


def _measured(case: Case, method: str, one: Run, seed: int) -> Arrays:
    f = networks.predict_fn(model_of(case, len(images_of(case).classes)), one.variables)
    last = len(one.epochs) - 1
    asked = last if one.switched is None else int(np.searchsorted(one.epochs, one.switched))
    probe = one.probe_seconds[asked] if method == "rule" else 0.0
    return {
        "clean": one.clean,
        "robust": one.robust,
        "seconds": one.seconds,
        "final": at_the_end(f, case, seed),
        "total": np.array(one.seconds[-1] + probe),
        "probe": np.array(probe),
        "switched": np.array(np.inf if one.switched is None else one.switched),
        "passes": np.array(passes(case, method, one.switched)),
    }


EXPERIMENT = Experiment(
    "warm_start", 1, PROFILES, jobs, compute, gather, measured=("seconds", "total", "probe")
)
recorded = EXPERIMENT.recorded
