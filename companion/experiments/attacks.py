"""Attacks on kernel predictors, and their transfer to networks that were never attacked (chapter 2).

Claims A1 and A2 of Tsilivis & Kempe (2022), arXiv 2210.05577: adversarial examples computed from the kernel
alone, with no network trained, take its accuracy away; and they fool finite networks in the lazy regime, the
more the wider these are. With the controls: random signs of the same size, and PGD on the networks
themselves.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from companion import data, regression
from companion.attacks import (
    Threat,
    fgsm,
    gradient_cosine,
    pgd,
    random_sign,
    robust_accuracy,
    square,
    transfer,
)
from companion.experiments._attacks_cases import ATTACKS, PROFILES, SOURCES, Case, Config, Transfers
from companion.experiments._experiment import Arrays, Experiment, Job, filled
from companion.experiments._shared import architecture, attack_batch
from companion.training import train_to_residual

__all__ = [
    "ATTACKS",
    "EXPERIMENT",
    "PROFILES",
    "SOURCES",
    "Case",
    "Config",
    "Transfers",
    "compute",
    "gather",
    "jobs",
    "recorded",
    "rows",
    "run",
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
        `net_clean` (s, w, l), their accuracy; and the same, `scaled_...`, with scales in place of widths at
        the last level.
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
    to = config.transfers
    label = f"{to.dataset}, {to.n_train:,} images, networks"
    return kernels + [Job(("networks", to, seed), label, seed, to.dataset) for seed in range(to.seeds)]


def compute(part: str, *sizes: Any) -> Arrays:
    """One kernel, or the networks of one seed."""
    return {"kernel": _attacked, "networks": _transferred}[part](*sizes)


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    kernels, networks = {}, {}
    for job, arrays in made.items():
        if job.config[0] == "kernel":
            kernels[(rows(config).index(job.config[1:3]),)] = arrays
        else:
            networks[(job.seed,)] = arrays
    return (
        filled((len(rows(config)),), kernels)
        | filled((config.transfers.seeds,), networks)
        | {"times": _times(config.times)}
    )


def rows(config: Config) -> list[tuple[Case, str]]:
    """Case and architecture of every row."""
    return [(case, name) for case in config.cases for name in case.architectures]


def _times(number: int) -> np.ndarray:
    return np.geomspace(1, 1e7, number)


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
    for t in _times(times):
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
            *_geometry(f, x, 2.0 * y - 1, case.main, options["batch_size"]),
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


def _geometry(f: Any, x: np.ndarray, sign: np.ndarray, eps: float, batch_size: int) -> list[float]:
    parts = [x[i : i + batch_size] for i in range(0, len(x), batch_size)]
    outputs = np.concatenate([np.asarray(f(part))[:, 0] for part in parts])
    gradients = np.concatenate(
        [np.abs(np.asarray(f.gradient(part))).reshape(len(part), -1).sum(1) for part in parts]
    )
    survive = sign * outputs > eps * gradients
    return [float(np.abs(outputs).mean()), float(gradients.mean()), float(survive.mean())]


def _transferred(config: Transfers, seed: int) -> Arrays:
    images = data.load(config.dataset, classes=config.classes, n_train=config.n_train, n_test=config.n_test)
    name, x, y = f"FC-{config.depth}", images.x_test, images.y_test
    f = regression.fit(architecture(name), images.x_train, data.targets(images.y_train, 2))
    threat, top = Threat("linf", config.eps), float(f.eigenvalues[0])
    fixed = {
        "kernel": pgd(f, x, y, threat, steps=10),
        "random": random_sign(x, threat, key=jax.random.key(0)),
    }

    def networks(width: int, scale: float, step: float, residuals: Sequence[float]) -> list[Any]:
        network = architecture(name, width=width)
        return train_to_residual(
            network.apply,
            network.init(jax.random.key(seed), images.x_train),
            images.x_train,
            data.targets(images.y_train, 2),
            learning_rate=step / top / scale**2,
            momentum=config.momentum,
            residuals=residuals,
            scale=scale,
        )

    def measured(net: Any) -> dict[str, Any]:
        attacks = fixed | {"white_box": pgd(net.predict, x, y, threat, steps=10)}
        found = transfer({source: attacks[source] for source in SOURCES}, {"net": net.predict}, x, y)
        right = np.asarray(net.predict(x))[:, 0] * (2 * y - 1) > 0
        return {
            "success": [found.success[source]["net"].value for source in SOURCES],
            "right": right.sum(),
            "net_clean": right.mean(),
            "cosine": gradient_cosine(f, net.predict, x, y).mean(),
        }

    wide = [(width, 1.0, config.step, config.residuals) for width in config.widths]
    last = config.residuals[-1:]
    scaled = [(config.scale_width, scale, config.scaled_step, last) for scale in config.scales]
    arrays = {}
    for prefix, settings in (("", wide), *([("scaled_", scaled)] if scaled else [])):
        found = [[measured(net) for net in networks(*setting)] for setting in settings]
        for measure in ("success", "right", "net_clean", "cosine"):
            array = np.array([[net[measure] for net in level] for level in found])
            arrays[prefix + measure] = array if not prefix else array[:, -1]
    return arrays


EXPERIMENT = Experiment("attacks", 1, PROFILES, jobs, compute, gather)
recorded = EXPERIMENT.recorded
