"""Catastrophic overfitting: induced, watched in the kernel, foretold and remedied (chapter 7).

Networks are trained by FGSM at a large ε until they resist it and nothing else; beside it PGD training,
which stays calm, and remedies. At every record: accuracy under FGSM and PGD, the spectrum of the empirical
kernel on a fixed probe, the local linearity of the loss. Detectors are calibrated on some seeds and scored on
others.
After finding B3 of Li et al. (2023), arXiv 2312.02236.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from companion import catastrophic, networks
from companion.attacks import Threat, cross_entropy, training_attack
from companion.empirical import empirical_ntk_fn
from companion.experiments._experiment import LISTS, Arrays, Experiment, Job, filled
from companion.experiments._shared import at_the_end, images_of, sgd
from companion.normalization import BatchNorm
from companion.training import Probe, Run, Switch, train

METHODS = (
    "fgsm", "pgd", "fgsm, random start", "isotropic noise", "gradient noise", "half ε", "gradalign", "switch",
    "fgsm, decayed rate",
)  # fmt: skip
SIGNALS = ("top share", "effective rank", "log trace", "linearity", "pgd accuracy")
SIDES = ("above", "below", "above", "below", "below")
WATCHED = ("clean", "fgsm", "pgd")


@dataclass(frozen=True)
class Case:
    """One data set and network.

    Attributes:
        dataset: a name for `data.load`.
        blocks: of a residual network; () for the small CNN.
        width: of the network.
        norm: as for `networks.small_cnn`.
        n_train: training images.
        n_test: test images.
        n_watch: how many of them are attacked at every record.
        eps: ε, L∞.
        epochs: of training.
        batch_size: images in a step.
        rate: learning rate of SGD.
        ramp: epochs over which ε grows in training.
        steps: of PGD in training; twice as many in records.
        record: records in an epoch.
        n_probe: images of the kernel.
        noise: κ of isotropic noise, and of gradient noise of equal length.
        rank: of gradient noise.
        weight: λ of GradAlign.
        final: steps and restarts of PGD on the networks at the end.
        skip: methods that are not trained.
    """

    dataset: str = "mnist5k"
    blocks: tuple[int, ...] = ()
    width: int = 16
    norm: str | BatchNorm | None = "batch"
    n_train: int = 2000
    n_test: int = 300
    n_watch: int = 100
    eps: float = 0.28
    epochs: int = 22
    batch_size: int = 50
    rate: float = 0.1
    ramp: float = 8.0
    steps: int = 4
    record: int = 1
    n_probe: int = 20
    noise: float = 1.0
    rank: int = 5
    weight: float = 0.5
    final: tuple[int, int] = (20, 2)
    skip: tuple[str, ...] = field(default=(), metadata=LISTS)


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets and networks.
        methods: which of `METHODS`; "fgsm" first; "pgd" is needed for calibration.
        seeds: how many.
        calibration: the first of them, on whose PGD runs detectors are calibrated; 0 for none. On the others
            they are scored, and switches are trained.
        switch: which signal triggers the switch to PGD.
        at_most: methods that are trained on the first so many seeds alone.
    """

    cases: tuple[Case, ...] = (Case(),)
    methods: tuple[str, ...] = (METHODS[0], METHODS[3])
    seeds: int = 1
    calibration: int = 0
    switch: str = "log trace"
    at_most: tuple[tuple[str, int], ...] = ()


_DIGITS = Case(n_test=1000, n_watch=150, epochs=25, final=(40, 2))
_RESIDUAL = replace(
    _DIGITS,
    blocks=(2, 2, 2),
    width=4,
    eps=0.15,
    batch_size=25,
    rate=0.05,
    ramp=0.0,
    epochs=12,
    skip=("fgsm, random start", "half ε", "gradalign"),
)
_PAPER = replace(
    _DIGITS, dataset="cifar10", blocks=(2, 2, 2, 2), width=64, n_train=50_000, n_test=10_000,
    n_watch=1000, eps=8 / 255, epochs=30, batch_size=128, ramp=0.0, steps=10, n_probe=100, noise=2.0,
    weight=0.2,
)  # fmt: skip
_SOME = tuple((method, 15 if method == "switch" else 10) for method in METHODS[1:])
PROFILES = {
    "quick": Config(),
    "full": Config((_DIGITS, _RESIDUAL), METHODS, seeds=20, calibration=5, at_most=_SOME),
    "paper": Config((_PAPER, replace(_PAPER, eps=16 / 255)), METHODS, seeds=5, calibration=2),
}


def jobs(config: Config) -> list[Job]:
    """Every method on its seeds; a switch on those after the calibration, which it needs."""
    found = []
    for case in config.cases:

        def job(method: str, seed: int, *rest: Any, needs: tuple[Job, ...] = (), case: Case = case) -> Job:
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
        calm = [signals.get(("pgd", seed)) for seed in range(config.calibration)]
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


def alarms(
    detectors: Sequence[Any], signals: Mapping[tuple[str, int], np.ndarray], epochs: np.ndarray, seeds: int
) -> np.ndarray:
    """When each detector rings (signals, 2, seeds) on "fgsm" and "pgd"; NaN where there is no run."""
    found = np.full((len(detectors), 2, seeds), np.nan)
    for (method, seed), values in signals.items():
        for i, detector in enumerate(detectors):
            found[i, METHODS.index(method), seed] = catastrophic.alarm(epochs, values[:, i], detector)
    return found


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


def calibrated(calm: Sequence[Mapping[str, np.ndarray]]) -> list[Any]:
    """A detector for each of `SIGNALS`, silent on these runs of PGD."""
    return [
        catastrophic.calibrate([one["signals"][:, i] for one in calm], side=side, relative=True, margin=0.1)
        for i, side in enumerate(SIDES)
    ]


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


def attack_of(case: Case, method: str) -> Any:
    """The training attack of a method."""
    threat = Threat("linf", case.eps)
    if method == "pgd":
        return training_attack(threat, steps=case.steps, ramp=case.ramp)
    if method.endswith("noise"):
        kind = "gradient" if method.startswith("gradient") else "isotropic"
        return catastrophic.noisy_fgsm(threat, noise=kind, size=case.noise, rank=case.rank, ramp=case.ramp)
    if method == "half ε":
        threat = Threat("linf", case.eps / 2)
    return training_attack(threat, steps=1, random_start=method.endswith("random start"), ramp=case.ramp)


def penalty_of(case: Case, method: str) -> Any:
    """What a method adds to the loss."""
    if method != "gradalign":
        return None
    return catastrophic.gradalign(Threat("linf", case.eps), weight=case.weight)


def trained(
    case: Case, seed: int, attack: Any, penalty: Any = None, *, method: str = "fgsm", progress: bool = False
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


def _watched(case: Case, method: str, seed: int, attack: Any) -> Arrays:
    images = images_of(case)
    model = model_of(case, len(images.classes))
    one = trained(case, seed, attack, penalty_of(case, method), method=method)
    x, y = images.x_test[: case.n_watch], images.y_test[: case.n_watch]
    pairs = [_watch(one.snapshots[epoch], x, y, model=model, eps=case.eps) for epoch in one.epochs]
    fgsm, linearity = np.array(pairs, float).T
    spectrum = catastrophic.spectrum_signals(one.kernels)
    probe = images.x_test[-case.n_probe :], images.y_test[-case.n_probe :]
    there = catastrophic.spectrum_signals(
        [_there(one.snapshots[epoch], *probe, model=model, eps=case.eps) for epoch in one.epochs]
    )
    values = np.array([np.linalg.eigvalsh(kernel.astype(float))[::-1] for kernel in one.kernels])
    last = len(one.epochs) - 1
    asked = last if one.switched is None else int(np.searchsorted(one.epochs, one.switched))
    found = {
        "epochs": one.epochs,
        "accuracy": np.stack([one.clean, fgsm, one.robust], axis=-1),
        "loss": one.loss,
        "signals": np.stack([*(spectrum[name] for name in SIGNALS[:3]), linearity, one.robust], axis=-1),
        "attacked_signals": np.stack([there[name] for name in SIGNALS[:3]], axis=-1),
        "spectrum": np.pad(values, ((0, 0), (0, 20)), constant_values=np.nan)[:, :20],
        "final": at_the_end(networks.predict_fn(model, one.variables), case, seed),
        "seconds": np.array(
            one.seconds[-1] + (one.probe_seconds[asked] if isinstance(attack, Switch) else 0.0)
        ),
        "switched": np.array(np.inf if one.switched is None else one.switched),
        "onset": np.array(catastrophic.onset(one.epochs, one.robust, least=0.2)),
    }
    if case.norm == "batch":
        found["in_batches"] = np.array(
            [_in_batches(one.snapshots[epoch], x, y, case=case) for epoch in one.epochs]
        )
    if (method, seed) == ("fgsm", 0):
        found["surface"] = surfaces(case, one)
    return found


@functools.lru_cache(maxsize=4)
def _kernel(model: networks.Model) -> Any:
    return empirical_ntk_fn(networks.evaluation(model), reduce="trace")


def _there(variables: Any, x: Any, y: Any, *, model: networks.Model, eps: Any) -> np.ndarray:
    """The kernel of the probe where FGSM moves it to."""
    return np.asarray(_kernel(model)(variables, np.asarray(_fgsm(variables, x, y, eps, model=model))))


@functools.partial(jax.jit, static_argnames="model")
def _fgsm(variables: Any, x: Any, y: Any, eps: Any, *, model: networks.Model) -> Any:
    gradient = jax.grad(lambda z: cross_entropy(model.apply(*variables, z, False)[0], y).sum())(x)
    return jnp.clip(x + eps * jnp.sign(gradient), 0, 1)


@functools.partial(jax.jit, static_argnames="case")
def _in_batches(variables: Any, x: Any, y: Any, *, case: Case) -> Any:
    """Accuracy, clean and under PGD, of the same weights with the statistics of the test batch itself."""
    model = model_of(replace(case, norm=BatchNorm(evaluation="batch")), 10)

    def predict(z: Any) -> Any:
        return model.apply(*variables, z, False)[0]

    attack = training_attack(Threat("linf", case.eps), steps=2 * case.steps)
    moved = attack(predict, x, y, jax.random.key(0), jnp.inf)
    return jnp.array([(predict(z).argmax(axis=1) == y).mean() for z in (x, moved)])


@functools.partial(jax.jit, static_argnames="model")
def _watch(variables: Any, x: Any, y: Any, *, model: networks.Model, eps: Any) -> tuple[Any, Any]:
    """Accuracy under FGSM, and the mean cosine of `local_linearity`."""

    def predict(z: Any) -> Any:
        return model.apply(*variables, z, False)[0]

    gradient = jax.grad(lambda z: cross_entropy(predict(z), y).sum())
    here = gradient(x)
    share = 2 * jax.random.uniform(jax.random.key(0), x.shape) - 1
    there = gradient(jnp.clip(x + eps * share, 0, 1))
    moved = jnp.clip(x + eps * jnp.sign(here), 0, 1)
    one, two = (g.reshape(len(x), -1) for g in (here, there))
    lengths = jnp.linalg.norm(one, axis=1) * jnp.linalg.norm(two, axis=1)
    cosines = (one * two).sum(axis=1) / jnp.maximum(lengths, 1e-30)
    return (predict(moved).argmax(axis=1) == y).mean(), cosines.mean()


def surfaces(case: Case, one: Run) -> np.ndarray:
    """Mean loss of ten test images along FGSM's direction (21) and a random one (11), at every record."""
    images = images_of(case)
    model = model_of(case, len(images.classes))
    x, y = images.x_test[:10], images.y_test[:10]
    signs = np.random.default_rng(0).choice([-1, 1], x.shape).astype(np.float32)
    return np.stack(
        [
            np.asarray(_surface(one.snapshots[epoch], x, y, signs, case.eps, model=model))
            for epoch in one.epochs
        ]
    )


@functools.partial(jax.jit, static_argnames="model")
def _surface(variables: Any, x: Any, y: Any, signs: Any, eps: Any, *, model: networks.Model) -> Any:
    def loss(z: Any) -> Any:
        return cross_entropy(model.apply(*variables, z, False)[0], y).mean()

    ahead = jnp.sign(jax.grad(loss)(x))
    steps, sides = jnp.meshgrid(jnp.linspace(0, 1, 21), jnp.linspace(-1, 1, 11), indexing="ij")

    def at(point: tuple[Any, Any]) -> Any:
        return loss(jnp.clip(x + eps * (point[0] * ahead + point[1] * signs), 0, 1))

    return jax.lax.map(at, (steps.ravel(), sides.ravel())).reshape(steps.shape)


EXPERIMENT = Experiment("catastrophic", 1, PROFILES, jobs, compute, gather, measured=("seconds",))
recorded = EXPERIMENT.recorded
