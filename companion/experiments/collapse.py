"""Collapse of the tangent kernel by class, under standard, noisy and adversarial training (chapter 10).

A network is trained with the squared loss far beyond the point where it fits all of its training images.
Along the way: mean entries of its tangent kernel by class, the spread that is left within classes of that
kernel and of the last layer's features, NC1 to NC3, and the invariant. After Seleznova et al. (2023), arXiv
2305.16427; the kernels of infinite width beside it after Kothapalli & Tirer (2025), arXiv 2406.02105.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from companion import data, dynamics, networks
from companion._core.checks import predicted
from companion._core.types import Array, InLoop, Key, NetworkKernel, Params, Predict, Scalar
from companion.architectures import fc
from companion.attacks import Threat, outputs_of, pgd, training_attack
from companion.empirical import empirical_ntk_fn
from companion.experiments._collapse_cases import KERNELS, MEASURES, METHODS, ON_PROBE, PROFILES, Case, Config
from companion.experiments._collapse_network import dense, feature_kernel, features
from companion.experiments._experiment import Arrays, Experiment, Job, filled
from companion.experiments._shared import sgd
from companion.kernels import gram
from companion.training import train

__all__ = [
    "EXPERIMENT",
    "KERNELS",
    "MEASURES",
    "METHODS",
    "ON_PROBE",
    "PROFILES",
    "Case",
    "Config",
    "attack_of",
    "compute",
    "drift",
    "gather",
    "images",
    "jobs",
    "measures",
    "recorded",
    "run",
]


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Train every network and measure it along the way; NaN of one whose training diverges.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays, NaN where there is no run, over cases c, `METHODS` m and seeds s. `measures` (c, m, s, e, 11):
        of `MEASURES`, at each epoch e. `accuracy` (c, m, s, 2): at the end, on test images as they are, and
        under PGD. `limit` (c, m, s, 2): the spread within classes of `KERNELS`, FC of the same depth, on all
        training images; `limit on the probe` (c, s, 2): on those of the networks' kernels.
    """
    return EXPERIMENT.run(config, progress=progress)


def jobs(config: Config) -> list[Job]:
    """A run for every case, method and seed, and one for the kernels of infinite width on the probe."""
    return [
        Job(
            (case, what, seed, config.final if what in METHODS else 0),
            f"{case.dataset}, ε = {case.eps:.3g}, {what}",
            seed,
            case.dataset,
        )
        for seed in range(config.seeds)
        for case in config.cases
        for what in (*METHODS, ON_PROBE)
    ]


def compute(case: Case, method: str, seed: int, final: int) -> Arrays:
    """One network, NaN where its training diverges; or the kernels of infinite width on the probe alone."""
    d = images(case, seed)
    if method == ON_PROBE:
        return {ON_PROBE: _limits(case, *_probe(case, d))}
    try:
        found = _trained(case, method, seed, final, d)
    except FloatingPointError:
        found = {
            "measures": np.full((len(case.epochs), len(MEASURES)), np.nan),
            "accuracy": np.full(2, np.nan),
        }
    return found | {"limit": _limits(case, d.x_train, d.y_train)}


def _probe(case: Case, d: data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The first training images of each class, and their classes."""
    rows = np.concatenate([np.flatnonzero(d.y_train == c)[: case.n_probe] for c in range(len(d.classes))])
    return d.x_train[rows], d.y_train[rows]


def _limits(case: Case, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The spread within classes of the kernels of infinite width, (2,)."""
    return np.array([dynamics.variability(gram(fc(case.depth), x, kind=kind), y) for kind in KERNELS])


def _trained(case: Case, method: str, seed: int, final: int, d: data.Dataset) -> Arrays:
    key = jax.random.key(seed)
    k = len(d.classes)
    model = dense(k, depth=case.depth, width=case.width)
    made = train(
        model,
        d.x_train,
        d.y_train,
        epochs=case.epochs[-1],
        optimizer=sgd(case.rate, 0.9),
        key=key,
        batch_size=case.batch_size,
        attack=attack_of(case, method),
        loss="squared",
        record=case.epochs,
        keep=True,
    )
    path = [made.snapshots[epoch][0] for epoch in case.epochs]
    found = [
        measures(case, params, before, d, key)
        for params, before in zip(path, [None, *path[:-1]], strict=True)
    ]
    rows = np.array([[one[name] for name in MEASURES] for one in found])
    f, threat = networks.predict_fn(model, made.variables), Threat("linf", case.eps)
    moved = pgd(f, d.x_test, d.y_test, threat, steps=final, early_stop=True, batch_size=min(500, case.n_test))
    clean, attacked = (predicted(outputs_of(f, x, 500)) == d.y_test for x in (d.x_test, moved))
    return {"measures": rows, "accuracy": np.array([clean.mean(), (clean & attacked).mean()])}


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    networks, limits, shape = {}, {}, (len(config.cases), len(METHODS), config.seeds)
    for job, arrays in made.items():
        case, what, seed, _ = job.config
        if what == ON_PROBE:
            limits[config.cases.index(case), seed] = arrays
        else:
            networks[config.cases.index(case), METHODS.index(what), seed] = arrays
    return filled(shape, networks) | filled(shape[::2], limits)


def images(case: Case, seed: int) -> data.Dataset:
    """The images of a split, as many of each class."""
    spec = data.load(case.dataset, classes=case.classes, n_train=case.n_class, n_test=case.n_test)
    k = len(spec.classes)
    return data.load(
        case.dataset, classes=case.classes, n_train=k * case.n_class, n_test=case.n_test, seed=seed
    )


def attack_of(case: Case, method: str) -> InLoop | None:
    """PGD, a random sign in every pixel, or nothing."""
    if method == "standard":
        return None
    threat = Threat("linf", case.eps)
    return training_attack(threat, steps=case.steps) if method == "pgd" else Partial(_noise, case.eps)


def _noise(eps: Scalar, f: Predict, x: Array, labels: Array, key: Key, epoch: Scalar) -> Array:  # noqa: ARG001
    return jnp.clip(x + eps * jax.random.rademacher(key, x.shape, x.dtype), 0, 1)


def measures(
    case: Case, params: Params, before: Params | None, d: data.Dataset, key: Key
) -> dict[str, float]:
    """All of `MEASURES` of one network, on clean training images.

    Args:
        case: with its sizes.
        params: of the network.
        before: those of the record before, or None.
        d: the images.
        key: of the attack.

    Returns:
        By name: training accuracy, clean and under PGD; κ_d, κ_c, κ_n of the tangent kernel; the spread
        within classes of the tangent kernel and of the features' Gram matrix; NC1 to NC3; and the drift: how
        much of the change since the record before, of the invariant's two sides, does not cancel, 0 to 1.
    """
    x, y, k = d.x_train, d.y_train, len(d.classes)
    model = dense(k, depth=case.depth, width=case.width)
    f, h = networks.predict_fn(model, (params, {})), np.asarray(features(params, x))
    moved = pgd(f, x, y, Threat("linf", case.eps), steps=case.steps, batch_size=min(500, len(x)), key=key)
    right = [float((predicted(outputs_of(f, points, 500)) == y).mean()) for points in (x, moved)]
    probe, classes = _probe(case, d)
    kernel = _kernel(model)((params, {}), probe)
    entries = dynamics.class_blocks(kernel, classes)
    own = dynamics.class_blocks(feature_kernel(case.width)(params, probe), classes)
    weights = np.asarray(params[-1][0])
    collapse = dynamics.neural_collapse(h, y, weights)
    return {
        "train": right[0],
        "robust train": right[1],
        "same": entries.same,
        "within": entries.within,
        "between": entries.between,
        "spread": dynamics.variability(kernel, classes),
        "feature spread": dynamics.variability(h @ h.T, y),
        "nc1": collapse.nc1,
        "nc2": collapse.nc2,
        "nc3": collapse.nc3,
        "drift": np.nan if before is None else drift(params, before, x, y, own),
    }


def drift(params: Params, before: Params, x: np.ndarray, y: np.ndarray, blocks: dynamics.Blocks) -> float:
    """‖E − E′‖ / (‖A − A′‖ + ‖B − B′‖) of the invariant E = A − B at two moments, A = λ_c W Wᵀ.

    Args:
        params: at the later moment.
        before: at the earlier one.
        x: images, as many of each class.
        y: their classes.
        blocks: of the features' kernel at the later moment, for both.

    Returns:
        0 where the two sides change alike, 1 where nothing cancels; NaN where the blocks are none of a
        positive definite kernel.
    """
    sides = []
    for one in (params, before):
        h, w = np.asarray(features(one, x)), np.asarray(one[-1][0])
        try:
            whole = dynamics.collapse_invariant(h, y, w, blocks)
            sides.append((whole, whole - dynamics.collapse_invariant(h, y, 0 * w, blocks)))
        except ValueError:
            return float("nan")
    (now, a), (then, b) = sides
    parts = np.linalg.norm(a - b) + np.linalg.norm((now - a) - (then - b))
    return float(np.linalg.norm(now - then) / parts)


@functools.lru_cache
def _kernel(model: networks.Model) -> NetworkKernel:
    return empirical_ntk_fn(networks.evaluation(model))


EXPERIMENT = Experiment("collapse", 1, PROFILES, jobs, compute, gather)
recorded = EXPERIMENT.recorded
