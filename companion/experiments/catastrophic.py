"""Catastrophic overfitting: induced, watched in the kernel, foretold and remedied (chapter 7).

Networks are trained by FGSM at a large ε until they resist it and nothing else; beside it PGD training,
which stays calm, and remedies. At every record: accuracy under FGSM and PGD, the spectrum of the empirical
kernel on a fixed probe, the local linearity of the loss. Detectors are calibrated on some seeds and scored on
others.
After finding B3 of Li et al. (2023), arXiv 2312.02236.
"""

from collections.abc import Mapping
from dataclasses import replace

import jax
import numpy as np
from jax.tree_util import Partial

from companion import catastrophic, networks
from companion.attacks import Threat, training_attack
from companion.experiments._catastrophic_batches import in_batches, strongly
from companion.experiments._catastrophic_cases import (
    METHODS,
    PROFILES,
    SIDES,
    SIGNALS,
    STRONG,
    WATCHED,
    Case,
    Config,
)
from companion.experiments._catastrophic_fates import (
    AHEAD,
    CALIBRATION,
    MARGIN,
    ONE_STEP,
    ROBUST,
    alarms,
    calibrated,
    calibrating,
    fates,
    outcome,
)
from companion.experiments._catastrophic_networks import (
    attack_of,
    model_of,
    optimizer_of,
    penalty_of,
    trained,
)
from companion.experiments._catastrophic_watch import surface_of, there, watched
from companion.experiments._experiment import Arrays, Experiment, Job, Part, filled
from companion.experiments._shared import at_the_end, images_of
from companion.normalization import BatchNorm
from companion.training import Run, Switch

__all__ = [
    "AHEAD",
    "CALIBRATION",
    "EXPERIMENT",
    "MARGIN",
    "METHODS",
    "ONE_STEP",
    "PROFILES",
    "ROBUST",
    "SIDES",
    "SIGNALS",
    "STRONG",
    "WATCHED",
    "Case",
    "Config",
    "alarms",
    "attack_of",
    "calibrated",
    "calibrating",
    "compute",
    "fates",
    "gather",
    "jobs",
    "model_of",
    "optimizer_of",
    "outcome",
    "penalty_of",
    "recorded",
    "run",
    "surfaces",
    "trained",
]


def jobs(config: Config) -> list[Job]:
    """Every method on its seeds; a switch on those after the calibration, which it needs."""
    found = []
    for case in config.cases:

        def job(method: str, seed: int, *rest: Part, needs: tuple[Job, ...] = (), case: Case = case) -> Job:
            label = f"{case.dataset}, {model_of(case, 10).name}, ε = {case.eps:.3g}, {method}"
            return Job((case, method, seed, *rest), label, seed, case.dataset, needs)

        calm = tuple(job("pgd", seed) for seed in range(config.calibration))
        found += [
            job(method, seed, config.switch, needs=calm) if method == "switch" else job(method, seed)
            for seed in range(config.seeds)
            for method in config.methods
            if method not in case.skip
            and (method != "switch" or seed >= config.calibration)
            and seed < dict(config.at_most).get(method, np.inf)
        ]
        if case.norm == "batch":
            found += [job(STRONG, seed, *config.strong) for seed in range(config.in_batches)]
    return sorted(found, key=lambda one: one.seed)


def compute(case: Case, method: str, seed: int, *more: Part | Mapping[str, np.ndarray]) -> Arrays:
    """One network, watched; a switch by a signal, the first of more, is calibrated on calm runs, the rest."""
    if method == STRONG:
        return _strong(case, seed, *more)
    if method != "switch":
        return _watched(case, method, seed, attack_of(case, method))
    signal, *calm = more
    detector = calibrated(calm)[SIGNALS.index(signal)]
    rule = catastrophic.alarmed(detector, signal)
    return _watched(case, method, seed, Switch(attack_of(case, "fgsm"), attack_of(case, "pgd"), rule))


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    seeds = config.seeds
    rows, switched, apart, found, strong = {}, {}, {}, {}, {}
    for job, arrays in made.items():
        case, method, seed = job.config[:3]
        c = config.cases.index(case)
        if method == STRONG:
            strong[c, seed] = arrays
            continue
        rows[c, config.methods.index(method), seed] = {
            name: array for name, array in arrays.items() if name not in _APART
        }
        if method == "switch":
            switched[c, seed] = {"switched": arrays["switched"]}
        apart.setdefault((c,), {}).update({name: arrays[name] for name in _APART[:2] if name in arrays})
    for c, case in enumerate(config.cases):
        signals = {
            (method, job.config[2]): arrays["signals"]
            for method in METHODS[:2]
            for job, arrays in made.items()
            if job.config[:2] == (case, method)
        }
        calm = [signals.get(("pgd", seed)) for seed in calibrating(config.calibration)]
        if calm and all(one is not None for one in calm):
            detectors = calibrated([{"signals": one} for one in calm])
            found[(c,)] = {
                "threshold": np.array([detector.threshold for detector in detectors]),
                "alarm": alarms(detectors, signals, apart[(c,)]["epochs"], seeds),
            }
    c = len(config.cases)
    return (
        filled((c, len(config.methods), seeds), rows)
        | filled((c,), found)
        | filled((c,), apart)
        | filled((c, config.in_batches), strong)
        | (filled((c, seeds), switched) or {"switched": np.full((c, seeds), np.nan, np.float32)})
    )


_APART = ("epochs", "surface", "switched")


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Train all methods, watch them, calibrate detectors, score them, switch by them.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays over cases c, methods m, seeds s (calibration first) and records r, NaN where nothing was
        trained: `epochs` (c, r); `accuracy` (c, m, s, r, 3) over `WATCHED`, `loss` (c, m, s, r); `signals`
        (c, m, s, r, 5) over `SIGNALS`; `attacked_signals` (c, m, s, r, 3), the first three on the probe where
        FGSM moves it to; `in_batches` (c, m, s, r, 2), clean and PGD accuracy with the batch's own
        statistics, with batch norm; `spectrum` (c, m, s, r, 20), the largest eigenvalues; `final` (c, m,
        s, 2, 3): clean and PGD with restarts at the end, with the ends of 95 % intervals; `seconds` (c, m, s)
        of training, with the probe's where a switch needs it; `switched` (c, s); `onset` (c, m, s); `alarm`
        (c, 5, 2, s): when each signal's detector rings on "fgsm" and "pgd", infinity for never, and
        `threshold` (c, 5), with calibration; `surface` (c, r, 21, 11): the mean loss of ten images of seed 0
        under "fgsm" along FGSM's direction and a random one of signs; `strong` (c, i, 2, 3), of networks of
        FGSM at the end with running and with the batch's statistics: clean, FGSM, and PGD with restarts.
    """
    return EXPERIMENT.run(config, progress=progress)


def _watched(case: Case, method: str, seed: int, attack: Partial | Switch) -> Arrays:
    images = images_of(case)
    model = model_of(case, len(images.classes))
    one = trained(case, seed, attack, penalty_of(case, method), method=method)
    x, y = images.x_test[: case.n_watch], images.y_test[: case.n_watch]
    pairs = [watched(one.snapshots[epoch], x, y, model=model, eps=case.eps) for epoch in one.epochs]
    fgsm, linearity = np.array(pairs, float).T
    spectrum = catastrophic.spectrum_signals(one.kernels)
    probe = images.x_test[-case.n_probe :], images.y_test[-case.n_probe :]
    moved = catastrophic.spectrum_signals(
        [there(one.snapshots[epoch], *probe, model=model, eps=case.eps) for epoch in one.epochs]
    )
    values = np.array([np.linalg.eigvalsh(kernel.astype(float))[::-1] for kernel in one.kernels])
    last = len(one.epochs) - 1
    asked = last if one.switched is None else int(np.searchsorted(one.epochs, one.switched))
    found = {
        "epochs": one.epochs,
        "accuracy": np.stack([one.clean, fgsm, one.robust], axis=-1),
        "loss": one.loss,
        "signals": np.stack([*(spectrum[name] for name in SIGNALS[:3]), linearity, one.robust], axis=-1),
        "attacked_signals": np.stack([moved[name] for name in SIGNALS[:3]], axis=-1),
        "spectrum": np.pad(values, ((0, 0), (0, 20)), constant_values=np.nan)[:, :20],
        "final": at_the_end(networks.predict_fn(model, one.variables), case, seed),
        "seconds": np.array(
            one.seconds[-1] + (one.probe_seconds[asked] if isinstance(attack, Switch) else 0.0)
        ),
        "switched": np.array(np.inf if one.switched is None else one.switched),
        "onset": np.array(catastrophic.onset(one.epochs, one.robust, least=ROBUST)),
    }
    if case.norm == "batch" and case.batches:
        attack = training_attack(Threat("linf", case.eps), steps=2 * case.steps)
        given = {"model": _models(case)[1]}
        some = x, y, jax.random.key(0), case.eps, attack
        found["in_batches"] = np.array(
            [np.asarray(in_batches(one.snapshots[epoch], *some, **given))[[0, 2]] for epoch in one.epochs]
        )
    if (method, seed) == ("fgsm", 0):
        found["surface"] = surfaces(case, one)
    return found


def _models(case: Case) -> tuple[networks.Model, networks.Model]:
    """A network with its running statistics, and with those of the batch that it is given."""
    return model_of(case, 10), model_of(replace(case, norm=BatchNorm(evaluation="batch")), 10)


def _strong(case: Case, seed: int, steps: int, restarts: int) -> Arrays:
    """FGSM training again, and its network at the end under a strong attack, with both statistics."""
    images, one = images_of(case), trained(case, seed, attack_of(case, "fgsm"))
    sizes = {"steps": steps, "restarts": restarts, "seed": seed}
    given = images.x_test, images.y_test, Threat("linf", case.eps)
    return {"strong": strongly(_models(case), one.variables, *given, **sizes)}


def surfaces(case: Case, one: Run) -> np.ndarray:
    """Mean loss of ten test images along FGSM's direction (21) and a random one (11), at every record."""
    images = images_of(case)
    model = model_of(case, len(images.classes))
    x, y = images.x_test[:10], images.y_test[:10]
    signs = np.random.default_rng(0).choice([-1, 1], x.shape).astype(np.float32)
    return np.stack(
        [
            np.asarray(surface_of(one.snapshots[epoch], x, y, signs, case.eps, model=model))
            for epoch in one.epochs
        ]
    )


EXPERIMENT = Experiment("catastrophic", 1, PROFILES, jobs, compute, gather, measured=("seconds",))
recorded = EXPERIMENT.recorded
