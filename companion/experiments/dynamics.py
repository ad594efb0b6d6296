"""What adversarial training does to the kernel of a network (chapter 4).

Networks are trained from one start on clean inputs (twice, in different orders of the minibatches: the
control), on FGSM's and on PGD's, at a constant and at a decayed rate, and their full empirical kernels on a
fixed probe are followed. Then the networks' kernels at some epochs are frozen and trained on, on clean inputs
and on attacked ones. Tsilivis & Kempe (2022), arXiv 2210.05577, section 5; Loo et al. (2022), arXiv
2210.12030.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from companion import data, dynamics, networks
from companion._core.types import Array, Key, Predict, Scalar, Variables
from companion.attacks import Threat, pgd, robust_accuracy, training_attack
from companion.empirical import empirical_ntk
from companion.experiments._dynamics_cases import PARTS, PATHS, PHASES, PROFILES, REGIMES, TOP, Case, Config
from companion.experiments._dynamics_kernels import across, followed, on_attacked
from companion.experiments._experiment import Arrays, Experiment, Job, filled
from companion.experiments._shared import at_the_end, images_of, sgd
from companion.training import Probe, Run, linear_solution, train

__all__ = [
    "EXPERIMENT",
    "PARTS",
    "PATHS",
    "PHASES",
    "PROFILES",
    "REGIMES",
    "TOP",
    "Case",
    "Config",
    "compute",
    "gather",
    "jobs",
    "model_of",
    "optimizer_of",
    "recorded",
    "run",
    "second_phase",
    "trained",
]


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
        `across` (c, s, g, g, r), of the last kernel of one regime to another's at every record;
        `final` (c, s, g, 2, 3): clean and PGD with restarts at the end, with the ends of 95 % intervals;
        `spectrum` (c, s, g, r, 40), the largest eigenvalues. Of l moments at which the kernels along
        a case's p `paths` are frozen: `linear` (c, s, p, l, 2, 2), over paths, moments, `PHASES`, and clean
        and robust accuracy; `solved` (c, s, p, l, 2) for kernel regression; `curve` (c, s, p, 2, q, 2) of the
        second phase at the end, over paths, `PHASES` and its records. `attacked_concentration`,
        `attacked_rank` (c, s, g, r) and `attacked_distances` (c, s, g, r, r) on attacked images of the probe.
        `seconds` (c, s, g) of training steps; `kernels` (c, g, r, m, m) of seed 0, averaged over outputs.
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


def trained(
    case: Case,
    regime: str,
    seed: int,
    *,
    watch: bool = True,
    progress: bool = False,
    folder: Path | None = None,
) -> Run:
    """One network with its kernels, and itself at every record; accuracies there are NaN without `watch`."""
    images = images_of(case)
    threat, key = Threat("linf", case.eps), jax.random.key(seed)
    model = model_of(case, len(images.classes))
    attacks = {
        "fgsm": training_attack(threat, steps=1, random_start=False, ramp=case.ramp),
        "pgd": training_attack(threat, steps=case.steps, ramp=case.ramp),
        "noise": Partial(_random_signs, case.eps, case.ramp),
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
        x_test=images.x_test[: case.n_watch] if watch else None,
        labels_test=images.y_test[: case.n_watch] if watch else None,
        test_attack=training_attack(threat, steps=case.steps) if watch else None,
        probe=Probe(images.x_train[: case.n_probe]),
        keep=True if case.attacked else case.linear,
        folder=folder and folder / f"{case.dataset} {case.model} {regime} {seed}",
        progress=progress,
    )


def _random_signs(
    eps: Scalar, ramp: Scalar, _: Predict, x: Array, __: Array, key: Key, epoch: Scalar
) -> Array:
    """Noise ±ε of random signs, with ε that grows as the attacks' does: as large, and blind."""
    grown = eps * jnp.where(ramp > 0, jnp.minimum(1, epoch / jnp.maximum(ramp, 1e-6)), 1)
    return jnp.clip(x + grown * jax.random.rademacher(key, x.shape, x.dtype), 0, 1)


def compute(case: Case, regimes: tuple[str, ...], seed: int, folder: Path | None = None) -> Arrays:
    """All regimes from one start, their kernels, and what is trained on those that are frozen."""
    images = images_of(case)
    k = len(images.classes)
    runs = {regime: trained(case, regime, seed, folder=folder) for regime in regimes}
    labels = data.targets(images.y_train[: case.n_probe], k)
    rows = [followed(one, labels) for one in runs.values()]
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    paths = [one.kernels for one in runs.values()]
    arrays["between"] = np.stack([dynamics.distances(kernels) for kernels in zip(*paths, strict=True)])
    arrays["across"] = across(paths)
    arrays["epochs"] = runs[regimes[0]].epochs
    arrays["final"] = np.stack([_final(case, one.variables, seed) for one in runs.values()])
    arrays["seconds"] = np.array([one.seconds[-1] for one in runs.values()])
    if case.kernels and seed == 0:
        arrays["kernels"] = np.stack([[dynamics.per_output(m, k).mean(0) for m in path] for path in paths])
    if case.attacked:
        moved = [on_attacked(model_of(case, k), case, one) for one in runs.values()]
        arrays |= {f"attacked_{name}": np.stack([row[name] for row in moved]) for name in moved[0]}
    if case.curve:
        arrays["curve"] = np.stack([_curves(case, runs[path], seed) for path in case.paths])
    frozen = [_frozen(case, images, runs[path], seed, skip=i > 0) for i, path in enumerate(case.paths)]
    arrays["linear"], arrays["solved"] = (np.stack(part) for part in zip(*frozen, strict=True))
    for name in ("linear", "solved"):
        arrays[name][1:, case.linear.index(0)] = arrays[name][0, case.linear.index(0)]
    return arrays


def _curves(case: Case, one: Run, seed: int) -> np.ndarray:
    """Clean and robust accuracy along the second phase at the end, (phases, records, 2)."""
    variables = one.snapshots[max(one.snapshots)]
    found = np.full((len(PHASES), len(case.curve), 2), np.nan)
    for i, attacked in enumerate((False, True)):
        if not attacked or case.linear[-1] in case.adversarial:
            phase = second_phase(case, variables, attacked, seed, case.curve)
            found[i] = np.stack([phase.clean, phase.robust], axis=-1)
    return found


def second_phase(
    case: Case,
    variables: Variables,
    attacked: bool,
    seed: int,
    record: Sequence[float | int],
    *,
    start: Variables | None = None,
) -> Run:
    """Train the centered linearization of a case's network.

    Args:
        case: sizes, data and ε.
        variables: of the network, at which it is linearized.
        attacked: whether on PGD's images.
        seed: of the order of the minibatches.
        record: epochs at which clean and robust accuracy are recorded, ascending; the last ends it, 0 before
            the first step.
        start: of the linearized network, such as `linear_solution` gives; None: zero, at `variables`.

    Returns:
        The run; `clean` and `robust` of the case's `n_watch` test images at every record.
    """
    images, threat = images_of(case), Threat("linf", case.eps)
    return train(
        networks.linearized(model_of(case, len(images.classes)), center=True),
        images.x_train,
        images.y_train,
        epochs=int(record[-1]),
        optimizer=_ADAM,
        key=jax.random.key(seed),
        batch_size=case.batch_size,
        attack=training_attack(threat, steps=case.steps) if attacked else None,
        start=networks.linearize_at(variables) if start is None else start,
        record=list(record),
        x_test=images.x_test[: case.n_watch],
        labels_test=images.y_test[: case.n_watch],
        test_attack=training_attack(threat, steps=2 * case.steps),
    )


def _final(case: Case, variables: Variables, seed: int) -> np.ndarray:
    model = model_of(case, len(images_of(case).classes))
    return at_the_end(networks.predict_fn(model, variables), case, seed)


def _frozen(
    case: Case, images: data.Dataset, one: Run, seed: int, *, skip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Clean and robust accuracy of what is trained, and of what is solved for, on frozen kernels.

    All paths have one kernel at the start, which may be skipped.
    """
    model = model_of(case, len(images.classes))
    frozen = networks.linearized(model, center=True)
    threat = Threat("linf", case.eps)
    targets = data.targets(images.y_train, len(images.classes))[: case.n_solve]
    linear, solved = np.full((len(case.linear), 2, 2), np.nan), np.full((len(case.linear), 2), np.nan)
    for i, epoch in enumerate(case.linear):
        if skip and epoch == 0:
            continue
        variables = one.snapshots[min(one.snapshots, key=lambda kept: abs(kept - epoch))]
        for j, phase in enumerate(PHASES):
            if phase == "adversarial" and epoch not in case.adversarial:
                continue
            second = second_phase(case, variables, bool(j), seed, [case.linear_epochs])
            linear[i, j] = second.clean[-1], second.robust[-1]
        if case.n_solve:
            some = images.x_train[: case.n_solve]
            kernel = empirical_ntk(networks.evaluation(model), variables, some, reduce="full")
            ridge = 1e-3 * np.trace(kernel, dtype=float) / len(kernel)
            f = networks.predict_fn(
                frozen,
                linear_solution(model, variables, some, targets, ridge=ridge, k_train_train=kernel),
            )
            x, y = images.x_test[: case.n_watch], images.y_test[: case.n_watch]
            attacked = pgd(f, x, y, threat, steps=10, early_stop=True, batch_size=512)
            solved[i] = [robust_accuracy(f, points, y).value for points in (x, attacked)]
    return linear, solved


EXPERIMENT = Experiment(
    "dynamics", 1, PROFILES, jobs, compute, gather, measured=("seconds",), checkpoints=True
)
recorded = EXPERIMENT.recorded
