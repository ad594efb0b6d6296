"""Structured data: which feature does training learn, the strong and rare or the weak and many (chapter 10)?

Inputs are bags of patches. One patch holds the robust feature of the class, larger than any attack can undo;
many hold its non-robust feature, smaller. A network that sees every patch with the same weights is trained on
inputs as they are, with random signs, and under PGD, and attacked; and so is its linearization, the lazy
control, whose kernel does not move. After Li & Li (2025), arXiv 2410.08503.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from companion import networks
from companion._core.checks import predicted
from companion._core.types import Array, InLoop, Key, Predict, Scalar
from companion.attacks import Threat, pgd, training_attack
from companion.experiments._experiment import LISTS, Arrays, Experiment, Job, filled
from companion.experiments._shared import sgd
from companion.experiments._structured_network import (
    FEATURES,
    aligned,
    patch_network,
    patches,
    shares,
    smoothed_relu,
    strengths,
)
from companion.training import train

__all__ = [
    "EXPERIMENT",
    "FEATURES",
    "PROFILES",
    "Case",
    "Config",
    "Row",
    "aligned",
    "compute",
    "gather",
    "growth",
    "jobs",
    "patch_network",
    "patches",
    "recorded",
    "robust_accuracies",
    "rows",
    "run",
    "shares",
    "smoothed_relu",
    "strengths",
    "window",
]

_BOUNDS = (-8.0, 8.0)  # no input comes near them: the ball alone binds


@dataclass(frozen=True)
class Case:
    """Data, network and training.

    Attributes:
        robust: patches with the robust feature, of size 1.
        weak: patches with the non-robust feature,
        beta: and its size β.
        noise: standard deviation in every coordinate.
        n_train: training inputs.
        n_test: test inputs.
        width: neurons of each class.
        start: standard deviation of weights at the start.
        rho: where the smoothed ReLU becomes linear.
        epochs: at which is measured, of full gradient steps; the last is the end.
        rate: of gradient descent,
        lazy_rate: and of the linearization.
        steps: of PGD in training.
    """

    robust: int = 1
    weak: int = 93
    beta: float = 0.3
    noise: float = 0.02
    n_train: int = 24
    n_test: int = 40
    width: int = 32
    start: float = 0.5
    rho: float = 20.0
    epochs: tuple[int, ...] = (0, 10, 20, 30, 40, 60, 80, 120, 160, 200, 240, 320, 400)
    rate: float = 20.0
    lazy_rate: float = 3e4
    steps: int = 4


@dataclass(frozen=True)
class Row:
    """One way of training.

    Attributes:
        kind: "network", or "lazy": its linearization at the start.
        method: "standard", "noise": random signs, or "pgd".
        eps: L∞ size in training.
    """

    kind: str
    method: str
    eps: float = 0.0


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        case: all but the attacks.
        eps: main size of the attack in training,
        others: further ones, of networks alone.
        sizes: of the attacks at the end.
        seeds: initializations and noises.
        final: steps and restarts of PGD at the end.
    """

    case: Case
    eps: float = 0.16
    others: tuple[float, ...] = field(default=(), metadata=LISTS)
    sizes: tuple[float, ...] = (0.08, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25, 0.36)
    seeds: int = field(default=1, metadata=LISTS)
    final: tuple[int, int] = (20, 2)


PROFILES = {
    "quick": Config(Case(n_test=20), sizes=(0.08, 0.16, 0.36), final=(10, 1)),
    "full": Config(Case(), others=(0.2, 0.36), seeds=8),
    "paper": Config(Case(n_train=200, n_test=1000), others=(0.12, 0.14, 0.18, 0.2, 0.25, 0.36), seeds=20),
}


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Train in every way, look at the weights along the way, and attack at the end.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays, NaN where there is no run, over `rows` r and seeds s. `accuracy` (r, s, 1 + sizes): clean, and
        under attacks of each size: an input counts that neither PGD nor `aligned` fools. `strengths` and
        `shares` (r, s, e, 2), of `FEATURES`, at each epoch e; of a lazy row those of its weights too.
    """
    return EXPERIMENT.run(config, progress=progress)


def rows(config: Config) -> tuple[Row, ...]:
    """The ways of training, those of the control last."""
    own = [Row("network", "pgd", eps) for eps in (config.eps, *config.others)]
    lazy = [Row("lazy", "standard"), Row("lazy", "noise", config.eps), Row("lazy", "pgd", config.eps)]
    return (Row("network", "standard"), Row("network", "noise", config.eps), *own, *lazy)


def jobs(config: Config) -> list[Job]:
    """A run for every row and seed."""
    return [
        Job(
            (config.case, row, config.sizes, config.final, seed),
            f"{row.kind}, {row.method}, ε = {row.eps:g}",
            seed,
            "",
        )
        for seed in range(config.seeds)
        for row in rows(config)
    ]


def compute(case: Case, row: Row, sizes: tuple[float, ...], final: tuple[int, int], seed: int) -> Arrays:
    """One network or linearization."""
    kinds = {"robust": case.robust, "weak": case.weak, "beta": case.beta, "noise": case.noise}
    x, y = patches(case.n_train, seed=2 * seed, **kinds)
    x_test, y_test = patches(case.n_test, seed=2 * seed + 1, **kinds)
    own = patch_network(case.width, start=case.start, rho=case.rho)
    lazy = row.kind == "lazy"
    model = networks.linearized(own, center=True) if lazy else own
    start = own.init(jax.random.key(seed), x)
    made = train(
        model,
        x,
        y,
        epochs=case.epochs[-1],
        optimizer=sgd(case.lazy_rate if lazy else case.rate, 0.0),
        key=jax.random.key(seed),
        batch_size=len(x),
        attack=_attack(row, case.steps),
        start=networks.linearize_at(start) if lazy else start,
        record=case.epochs,
        keep=True,
    )
    first = np.asarray(start[0])
    change = [np.asarray(made.snapshots[e][0]) - (0 if lazy else first) for e in case.epochs]
    f = networks.predict_fn(model, made.variables)
    return {
        "accuracy": robust_accuracies(f, x_test, y_test, sizes, final, seed),
        "strengths": np.array([strengths(first + one) for one in change]),
        "shares": np.array([shares(one) for one in change]),
    }


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    places = {(rows(config).index(job.config[1]), job.seed): arrays for job, arrays in made.items()}
    return filled((len(rows(config)), config.seeds), places)


def robust_accuracies(
    f: Predict, x: np.ndarray, labels: np.ndarray, sizes: tuple[float, ...], final: tuple[int, int], seed: int
) -> np.ndarray:
    """Clean accuracy, and what both PGD and `aligned` leave of it at every size.

    Args:
        f: outputs (n, 2).
        x: inputs (n, patches, d).
        labels: their classes.
        sizes: L∞.
        final: steps and restarts of PGD.
        seed: of its starts.

    Returns:
        (1 + sizes,).
    """
    clean = predicted(f(x)) == labels
    found = [clean]
    for eps in sizes:
        options = {"steps": final[0], "restarts": final[1], "key": jax.random.key(seed)}
        moved = pgd(f, x, labels, Threat("linf", eps, _BOUNDS), batch_size=len(x), **options)
        points = (moved, aligned(x, labels, eps))
        found.append(clean & np.all([predicted(f(one)) == labels for one in points], axis=0))
    return np.mean(found, axis=1)


def growth(case: Case, eps: float | int) -> np.ndarray:
    """At which speed a feature grows from a small start under an attack in every patch.

    A neuron of class k along a feature f has ⟨w, f⟩' = c · g · ⟨w, f⟩², with one c for all and, with n
    patches of size a, g = n [a − ε]₊³ − n' ε³: the first from inputs of its own class, the second from those
    of the other one, to all of whose n' patches the attack adds ε f.

    Args:
        case: with its patches.
        eps: ε ≥ 0.

    Returns:
        g of `FEATURES`, (2,); where it is negative the feature fades.
    """
    added = (case.robust + case.weak) * eps**3
    sizes, counts = np.array([1.0, case.beta]), np.array([case.robust, case.weak])
    return counts * np.maximum(sizes - eps, 0) ** 3 - added


def window(case: Case) -> tuple[float, float]:
    """From which ε on the non-robust feature fades, and up to which ε the robust one grows: g = 0."""
    total = case.robust + case.weak
    low, high = (
        size / (1 + (total / count) ** (1 / 3))
        for size, count in ((case.beta, case.weak), (1.0, case.robust))
    )
    return low, high


def _attack(row: Row, steps: int) -> InLoop | None:
    if row.method == "standard":
        return None
    if row.method == "noise":
        return Partial(_signs, row.eps)
    return training_attack(Threat("linf", row.eps, _BOUNDS), steps=steps, loss="margin")


def _signs(eps: Scalar, f: Predict, x: Array, labels: Array, key: Key, epoch: Scalar) -> Array:  # noqa: ARG001
    return x + eps * jax.random.rademacher(key, jnp.shape(x), x.dtype)


EXPERIMENT = Experiment("structured", 1, PROFILES, jobs, compute, gather)
recorded = EXPERIMENT.recorded
