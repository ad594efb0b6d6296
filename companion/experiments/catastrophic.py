"""Catastrophic overfitting: induced, watched in the kernel, foretold and remedied (chapter 7).

Networks are trained by FGSM at a large ε until they resist it and nothing else; beside it PGD training,
which stays calm, and remedies. At every record: accuracy under FGSM and PGD, the spectrum of the empirical
kernel on a fixed probe, the local linearity of the loss. Detectors are calibrated on some seeds and scored on
others.
After finding B3 of Li et al. (2023), arXiv 2312.02236.
"""

import functools
from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from companion import catastrophic, networks
from companion._core.types import Array, Variables
from companion.attacks import Threat, training_attack
from companion.experiments._catastrophic_cases import METHODS, PROFILES, SIDES, SIGNALS, WATCHED, Case, Config
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
from companion.experiments._catastrophic_watch import surface_of, there, watched
from companion.experiments._experiment import Arrays, Experiment, Job, Part, filled
from companion.experiments._shared import at_the_end, images_of, sgd
from companion.normalization import BatchNorm
from companion.training import Probe, Run, Switch, train

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
    return sorted(found, key=lambda one: one.seed)


def compute(case: Case, method: str, seed: int, signal: str = "", *calm: Mapping[str, np.ndarray]) -> Arrays:
    """One network, watched; a switch by a signal is calibrated on calm runs."""
    if method != "switch":
        return _watched(case, method, seed, attack_of(case, method))
    detector = calibrated(calm)[SIGNALS.index(signal)]
    rule = catastrophic.alarmed(detector, signal)
    return _watched(case, method, seed, Switch(attack_of(case, "fgsm"), attack_of(case, "pgd"), rule))


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    seeds = config.seeds
    rows, switched, apart, found = {}, {}, {}, {}
    for job, arrays in made.items():
        case, method, seed = job.config[:3]
        c = config.cases.index(case)
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
        under "fgsm" along FGSM's direction and a random one of signs.
    """
    return EXPERIMENT.run(config, progress=progress)


def model_of(case: Case, n_outputs: int) -> networks.Model:
    """The network of a case."""
    if case.blocks:
        return networks.resnet(n_outputs, blocks=case.blocks, width=case.width, norm=case.norm)
    return networks.small_cnn(n_outputs, width=case.width, norm=case.norm)


def optimizer_of(case: Case, method: str = "fgsm") -> optax.GradientTransformation:
    """SGD with momentum; of constant rate, or of one that falls to a tenth after half and three quarters."""
    steps = case.epochs * (case.n_train // case.batch_size)
    falls = (steps // 2, steps * 3 // 4) if method.endswith("decayed rate") else ()
    return sgd(case.rate, 0.9, falls)


def attack_of(case: Case, method: str) -> Partial:
    """The training attack of a method."""
    threat = Threat("linf", case.eps)
    if method == "pgd":
        return training_attack(threat, steps=case.steps, ramp=case.ramp)
    if method.endswith("noise"):
        kind = "gradient" if method.startswith("gradient") else "isotropic"
        return catastrophic.noisy_fgsm(threat, noise=kind, size=case.noise, top=case.rank, ramp=case.ramp)
    threat = Threat("linf", case.eps / 2) if method == "half ε" else threat
    if method.endswith("random start"):
        return training_attack(threat, steps=1, ramp=case.ramp)
    # Without noise it is FGSM, to the bit, and shares the compiled loop of isotropic noise.
    return catastrophic.noisy_fgsm(threat, size=0, ramp=case.ramp)


def penalty_of(case: Case, method: str) -> Partial | None:
    """What a method adds to the loss."""
    if method != "gradalign":
        return None
    return catastrophic.gradalign(Threat("linf", case.eps), weight=case.weight)


def trained(
    case: Case,
    seed: int,
    attack: Partial | Switch,
    penalty: Partial | None = None,
    *,
    method: str = "fgsm",
    progress: bool = False,
) -> Run:
    """One network with its kernels, and itself at every record."""
    images = images_of(case)
    model, key = model_of(case, len(images.classes)), jax.random.key(seed)
    return train(
        model,
        images.x_train,
        images.y_train,
        epochs=case.epochs,
        optimizer=optimizer_of(case, method),
        key=key,
        batch_size=case.batch_size,
        attack=attack,
        penalty=penalty,
        record=np.linspace(0, case.epochs, case.epochs * case.record + 1).tolist(),
        x_test=images.x_test[: case.n_watch],
        labels_test=images.y_test[: case.n_watch],
        test_attack=training_attack(Threat("linf", case.eps), steps=2 * case.steps),
        probe=Probe(images.x_test[-case.n_probe :], "trace"),
        keep=True,
        progress=progress,
    )


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
        found["in_batches"] = np.array(
            [_in_batches(one.snapshots[epoch], x, y, case=case) for epoch in one.epochs]
        )
    if (method, seed) == ("fgsm", 0):
        found["surface"] = surfaces(case, one)
    return found


@functools.partial(jax.jit, static_argnames="case")
def _in_batches(variables: Variables, x: Array, y: Array, *, case: Case) -> Array:
    """Accuracy, clean and under PGD, of the same weights with the statistics of the test batch itself."""
    model = model_of(replace(case, norm=BatchNorm(evaluation="batch")), 10)

    def predict(z: Array) -> Array:
        return model.apply(*variables, z, False)[0]

    attack = training_attack(Threat("linf", case.eps), steps=2 * case.steps)
    moved = attack(predict, x, y, jax.random.key(0), jnp.inf)
    return jnp.array([(predict(z).argmax(axis=1) == y).mean() for z in (x, moved)])


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
