"""Attacks on kernel predictors, and their transfer to networks that were never attacked (chapter 2).

Claims A1 and A2 of Tsilivis & Kempe (2022), arXiv 2210.05577: adversarial examples computed from the kernel
alone, with no network trained, take its accuracy away; and they fool finite networks in the lazy regime, the
more the wider these are. With the controls: random signs of the same size, and PGD on the networks
themselves.
"""

import functools
from collections.abc import Mapping

import jax
import numpy as np

from companion import data, regression
from companion.attacks import Threat, autoattack, fgsm, pgd, random_sign, robust_accuracy, square
from companion.experiments._attacks_cases import (
    ATTACKS,
    MAKERS,
    PROFILES,
    SOURCES,
    STAGES,
    TARGETS,
    Case,
    Config,
    Evaluation,
    Kinds,
    Path,
    Transfers,
)
from companion.experiments._attacks_networks import of_kinds, transferred
from companion.experiments._attacks_paths import along_time, geometry_of, times_of
from companion.experiments._experiment import Arrays, Experiment, Job, Part, Place, filled
from companion.experiments._linear_control import beside_linear
from companion.experiments._shared import architecture, attack_batch

__all__ = [
    "ATTACKS",
    "EXPERIMENT",
    "MAKERS",
    "PROFILES",
    "SOURCES",
    "STAGES",
    "TARGETS",
    "Case",
    "Config",
    "Evaluation",
    "Kinds",
    "Path",
    "Transfers",
    "compute",
    "evaluation_rows",
    "gather",
    "jobs",
    "path_rows",
    "recorded",
    "rows",
    "run",
    "times_of",
]


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Attack every kernel, and every network with the perturbations of its kernel.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays, r rows as `rows(config)` names them; the last axis of length 3 is a value and the ends of its
        95 % interval: `clean` (r, 3); `accuracy` (r, 4, e, 3) for `ATTACKS` and sizes; `times` (t,) in units
        of 1/λ_max and `along` (r, 2, t, 3), clean and PGD at the main size; of pairs, else NaN: `stronger`
        (r, 2, 3), PGD with restarts and the square attack (dense kernels) at the main size, and `geometry`
        (r, 5) of f at t = ∞: mean size of f, mean ‖∇f‖₁, share of y f > ε ‖∇f‖₁, the norm (αᵀΘα)^½ and the
        condition number.
        Of the networks, for seeds, widths w, levels l and `SOURCES`: `success` (s, w, l, 3), share of the
        flipped among the `right` (s, w, l); `cosine` (s, w, l) of the input gradients of kernel and network;
        `net_clean` (s, w, l), their accuracy; `motion` (s, w, l), ‖Θ_T − Θ_0‖ / ‖Θ_0‖ of the empirical
        kernel, where it is measured; the same, `scaled_...`, with scales in place of widths; and all of that,
        `variant_...`, with the variant as first axis.
        Of `path_rows(config)`, for training sets s and times t: `path` (p, s, t, 2), clean accuracy and PGD;
        `path_geometry` (p, s, t, 3), mean abs(f), mean ‖∇f‖₁ and the norm of f in the kernel divided by its
        mean diagonal; `path_kernel` (p, s, 2), that diagonal and the condition number. Of `evaluation_rows`:
        `auto` (a, 5, 3), accuracy after each of `STAGES`, and `auto_pgd` (a, 3). Of networks of other kinds,
        cases k and `TARGETS`: `kinds_success` (k, s, 3, 5) for `MAKERS`; `kinds_clean` (k, s, 3); with the
        dense and the convolutional kernel, `kinds_cosine` (k, s, 3, 2) and their accuracy `kinds_kernels`
        (k, s, 2). Of `linear` cases l: `linear_success` (l, s, w, 3), `linear_clean` (l, s, 2) and
        `linear_cosine` (l, s), as `_linear_control` describes them.
    """
    return EXPERIMENT.run(config, progress=progress)


def jobs(config: Config) -> list[Job]:
    """Every kernel, and the networks of every seed."""
    how = config.steps, config.times, config.restarts, config.queries, config.n_square
    kernels = [
        Job(
            ("kernel", case, name, *how),
            f"{case.dataset}, {case.n_train:,} images, {name}, ε = {case.main:.3g}",
            0,
            case.dataset,
        )
        for case, name in rows(config)
    ]
    networks = [
        Job(("networks", to, seed), f"{to.dataset}, {to.n_train:,} images, {_named(to)}", seed, to.dataset)
        for to in (config.transfers, *config.variants)
        for seed in range(to.seeds)
    ]
    others = [
        Job(("kinds", one, seed), f"{one.dataset}, {one.n_train:,} images, other networks", seed, one.dataset)
        for one in config.kinds
        for seed in range(one.seeds)
    ]
    linear = [
        Job(
            ("linear", to, seed),
            f"{to.dataset}, {to.n_train:,} images, beside a linear model",
            seed,
            to.dataset,
        )
        for to in config.linear
        for seed in range(to.seeds)
    ]
    paths = [
        Job(("path", case, name, seed), f"{_of(case, name)}, along time", seed, case.dataset)
        for case, name in path_rows(config)
        for seed in range(case.seeds)
    ]
    evaluations = [
        Job(("evaluation", case, name), f"{_of(case, name)}, AutoAttack", 0, case.dataset)
        for case, name in evaluation_rows(config)
    ]
    return [*kernels, *networks, *others, *linear, *paths, *evaluations]


def _of(case: Path | Evaluation, name: str) -> str:
    return f"{case.dataset}, {case.n_train:,} images, {name}, ε = {case.eps:.3g}"


def _named(to: Transfers) -> str:
    return "networks" + (", scaled" if to.scales else "") + ("" if to.center else ", not centered")


def compute(part: str, *sizes: Part) -> Arrays:
    """One kernel, the networks of one seed, or whatever else a job names first."""
    parts = {
        "kernel": _attacked,
        "networks": transferred,
        "kinds": of_kinds,
        "linear": beside_linear,
        "path": along_time,
        "evaluation": _evaluated,
    }
    return parts[part](*sizes)


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    place = {
        "kernel": lambda job: (rows(config).index(job.config[1:3]),),
        "networks": lambda job: (job.seed,),
        "variant": lambda job: (config.variants.index(job.config[1]), job.seed),
        "kinds": lambda job: (config.kinds.index(job.config[1]), job.seed),
        "linear": lambda job: (config.linear.index(job.config[1]), job.seed),
        "path": lambda job: (path_rows(config).index(job.config[1:3]), job.seed),
        "evaluation": lambda job: (evaluation_rows(config).index(job.config[1:3]),),
    }
    parts: dict[str, dict[Place, Mapping[str, np.ndarray]]] = {part: {} for part in place}
    for job, arrays in made.items():
        part = job.config[0]
        if part == "networks" and job.config[1] in config.variants:
            part, arrays = "variant", {f"variant_{name}": array for name, array in arrays.items()}
        parts[part][place[part](job)] = arrays
    shapes = {
        "kernel": (len(rows(config)),),
        "networks": (config.transfers.seeds,),
        "variant": _axes(config.variants),
        "kinds": _axes(config.kinds),
        "linear": _axes(config.linear),
        "path": (len(path_rows(config)), max((case.seeds for case in config.paths), default=0)),
        "evaluation": (len(evaluation_rows(config)),),
    }
    arrays = {"times": times_of(config.times)}
    for part, found in parts.items():
        arrays |= filled(shapes[part], found)
    return arrays


def _axes(cases: tuple[Transfers | Kinds, ...]) -> tuple[int, int]:
    return len(cases), max((case.seeds for case in cases), default=0)


def rows(config: Config) -> list[tuple[Case, str]]:
    """Case and architecture of every row."""
    return [(case, name) for case in config.cases for name in case.architectures]


def path_rows(config: Config) -> list[tuple[Path, str]]:
    """The same of accuracies along time."""
    return [(case, name) for case in config.paths for name in case.architectures]


def evaluation_rows(config: Config) -> list[tuple[Evaluation, str]]:
    """The same of AutoAttack."""
    return [(case, name) for case in config.evaluations for name in case.architectures]


def _attacked(
    case: Case, name: str, steps: tuple[int, int], times: int, restarts: int, queries: int, n_square: int
) -> Arrays:
    images = data.load(case.dataset, classes=case.classes, n_train=case.n_train, n_test=case.n_test)
    kernel, x, y = architecture(name), images.x_test, images.y_test
    targets = data.targets(images.y_train, len(images.classes))
    f = regression.fit(kernel, images.x_train, targets)
    # Where an entry takes memory for every pixel, fewer images at once.
    options = {"early_stop": True, "batch_size": attack_batch(kernel)}
    share = functools.partial(robust_accuracy, batch_size=attack_batch(kernel))
    accuracy, key = [], jax.random.key(0)
    for eps in case.eps:
        threat = Threat("linf", eps)
        attacked = (
            random_sign(x, threat, key=key),
            fgsm(f, x, y, threat, batch_size=options["batch_size"]),
            *(pgd(f, x, y, threat, steps=some, **options) for some in steps),
        )
        accuracy.append([share(f, z, y).as_array() for z in attacked])
    threat, along = Threat("linf", case.main), []
    for t in times_of(times):
        g = f.at(t / f.eigenvalues[0])
        attacked = pgd(g, x, y, threat, steps=steps[0], **options)
        along.append([share(g, z, y).as_array() for z in (x, attacked)])
    stronger, geometry = np.full((2, 3), np.nan), np.full(5, np.nan)
    if len(images.classes) == 2:
        attacked = pgd(f, x, y, threat, steps=steps[1], restarts=restarts, key=key, **options)
        stronger[0] = share(f, attacked, y).as_array()
        if queries and kernel.pixel_power == 0:
            some = slice(n_square)
            attacked = square(f, x[some], y[some], threat, key=key, queries=queries)
            stronger[1] = robust_accuracy(f, attacked, y[some]).as_array()
        # The squared norm of f_∞ is αᵀΘα = αᵀY.
        squared_norm = float((f.coefficients * targets).sum())
        geometry = [
            *geometry_of(f, x, 2.0 * y - 1, case.main, options["batch_size"]),
            np.sqrt(squared_norm),
            regression.condition_number(f),
        ]
    return {
        "clean": share(f, x, y).as_array(),
        "accuracy": np.swapaxes(accuracy, 0, 1),
        "along": np.swapaxes(along, 0, 1),
        "stronger": stronger,
        "geometry": np.array(geometry),
    }


def _evaluated(case: Evaluation, name: str) -> Arrays:
    images = data.load(case.dataset, classes=case.classes, n_train=case.n_train, n_test=case.n_test)
    x, y, threat = images.x_test, images.y_test, Threat("linf", case.eps)
    f = regression.fit(
        architecture(name),
        images.x_train,
        data.targets(images.y_train, len(images.classes)),
        solver="cholesky",
    )
    attacked = pgd(f, x, y, threat, steps=case.steps, early_stop=True)
    found = autoattack(f, x, y, threat, key=jax.random.key(0))
    return {
        "auto": np.array([found.accuracy[stage].as_array() for stage in STAGES]),
        "auto_pgd": robust_accuracy(f, attacked, y).as_array(),
    }


EXPERIMENT = Experiment("attacks", 1, PROFILES, jobs, compute, gather)
recorded = EXPERIMENT.recorded
