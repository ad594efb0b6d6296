"""What the experiment of chapter 4 says about the kernels of one run."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from companion import dynamics, networks
from companion._core.types import Array, InLoop, Predict
from companion.attacks import Threat, training_attack
from companion.empirical import empirical_ntk_fn
from companion.experiments._dynamics_cases import TOP, Case
from companion.experiments._shared import images_of
from companion.storage import KernelSequence
from companion.training import Run


def followed(one: Run, labels: np.ndarray) -> dict[str, np.ndarray]:
    """All that is said about the kernels of one run."""
    k = labels.shape[1]
    classes = [dynamics.per_output(kernel, k) for kernel in one.kernels]
    # One eigendecomposition of each kernel serves all that follows.
    pairs = [np.linalg.eigh(kernel.astype(float)) for kernel in one.kernels]
    values = [value[::-1] for value, _ in pairs]
    spaces = [vectors[:, -TOP:] for _, vectors in pairs]
    tops = [(space * value[-TOP:]) @ space.T for (value, _), space in zip(pairs, spaces, strict=True)]
    rests = [kernel - top for kernel, top in zip(one.kernels, tops, strict=True)]
    polar = [dynamics.polar(path) for path in (one.kernels, tops, rests)]
    return {
        "loss": one.loss,
        "clean": one.clean,
        "robust": one.robust,
        "concentration": np.array([(v[:TOP] ** 2).sum() / (v**2).sum() for v in values]),
        "rank": np.array([dynamics.effective_rank(kernel) for kernel in one.kernels]),
        "alignment": np.array([dynamics.alignment(c.mean(axis=0), labels) for c in classes]),
        "specialization": np.array([dynamics.specialization(c, labels)[0] for c in classes]),
        "rotation": np.array([((space.T @ spaces[-1]) ** 2).sum() / TOP for space in spaces]),
        "radius": np.stack([radius for radius, _ in polar], axis=-1),
        "angle": np.stack([angle for _, angle in polar], axis=-1),
        "distances": dynamics.distances(one.kernels),
        "spectrum": np.stack([v[:40] for v in values]),
    }


def across(paths: Sequence[KernelSequence]) -> np.ndarray:
    """Distances of the last kernel of each path to every kernel of each, (paths, paths, records)."""
    rows = [[[_apart(path[len(path) - 1], k) for k in other] for other in paths] for path in paths]
    return np.array(rows)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(dynamics.distances([one, other])[0, 1])


def on_attacked(model: networks.Model, case: Case, one: Run) -> dict[str, np.ndarray]:
    """The kernels on the probe where the attack of the records moves it to, anew at every record."""
    images = images_of(case)
    x = images.x_train[: case.n_probe]
    attack = training_attack(Threat("linf", case.eps), steps=case.steps)
    kernel = empirical_ntk_fn(networks.evaluation(model), reduce="full")
    kernels = []
    for variables in one.snapshots.values():
        moved = _moved(networks.predict_fn(model, variables), x, images.y_train[: case.n_probe], attack)
        kernels.append(kernel(variables, np.asarray(moved)))
    values = [np.linalg.eigvalsh(one.astype(float))[::-1] for one in kernels]
    return {
        "concentration": np.array([(v[:TOP] ** 2).sum() / (v**2).sum() for v in values]),
        "rank": np.array([v.sum() ** 2 / (v**2).sum() for v in values]),
        "distances": dynamics.distances(kernels),
    }


@jax.jit
def _moved(f: Predict, x: Array, y: Array, attack: InLoop) -> Array:
    return attack(f, x, y, jax.random.key(0), jnp.inf)
