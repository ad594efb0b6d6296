"""What chapter 3 measures of features: one by one, of sums, and of the leading ones of whole data sets."""

import functools

import jax
import numpy as np

from companion import data, features, regression
from companion.attacks import Threat, pgd, random_sign, robust_accuracy
from companion.experiments._experiment import Arrays
from companion.experiments._features_cases import EDGES, RIDGE, Case, held_out, spaced
from companion.experiments._shared import architecture, attack_batch
from companion.kernels import gram
from companion.regression import Cholesky, KernelPredictor, Top
from companion.statistics import proportion


def one_by_one(
    found: KernelPredictor,
    outputs: np.ndarray,
    right: np.ndarray,
    case: Case,
    x: np.ndarray,
    y: np.ndarray,
    *,
    steps: int,
    pgd_modes: int,
) -> Arrays:
    """Every feature that was found: how useful it is, and how robust some of them are.

    `outputs` and `right`: what the features say of the test images x, and whether that is y.
    """
    n, some, threat = len(found.eigenvalues), slice(case.n_attacked), Threat("linf", case.eps)
    useful = features.usefulness(right, y)
    together = features.correlation(outputs, data.targets(y, max(2, outputs.shape[2])))
    modes, first = spaced(n, case.modes), np.arange(min(pgd_modes, n))
    attack = functools.partial(features.correct_under_attack, found, x[some], y[some], threat)
    return {
        "eigenvalues": found.eigenvalues,
        "accuracy": useful.accuracy.as_array(),
        "p_accuracy": useful.p_value,
        "correlation": together.r.as_array(),
        "p_correlation": together.p_value,
        "majority": np.array(useful.majority),
        "modes": modes.astype(float),
        "before": proportion(right[some][:, modes]).as_array(),
        "fgsm": proportion(attack(modes=modes)).as_array(),
        "pgd": proportion(attack(modes=first, steps=steps)).as_array(),
    }


def attacked(
    f: KernelPredictor, x: np.ndarray, y: np.ndarray, threat: Threat, steps: int, batch_size: int
) -> np.ndarray:
    """PGD of falling steps, which begins with FGSM."""
    return pgd(
        f,
        x,
        y,
        threat,
        steps=steps,
        step_size=np.linspace(threat.eps, threat.eps / steps, steps),
        early_stop=True,
        batch_size=batch_size,
    )


def clean_and_attacked(
    f: KernelPredictor, *, x: np.ndarray, y: np.ndarray, threat: Threat, steps: int, batch_size: int
) -> list[np.ndarray]:
    """Accuracy of a sum of features on images and under PGD, with intervals."""
    moved = attacked(f, x, y, threat, steps, batch_size)
    return [robust_accuracy(f, points, y, batch_size=batch_size).as_array() for points in (x, moved)]


def leading(case: Case, name: str, steps: int, pgd_modes: int) -> Arrays:
    """The leading features of a kernel that is too large to decompose, and sums of them.

    Returns:
        The arrays of `one_by_one`, n the number of features; `random` (q,), the share of the attacked images
        of which each attacked feature is right before and after random signs; `top` (b, 2, 3), clean and
        under PGD, of the first 1, 10, ... and n; `all` (2, 3), the same of the whole kernel, with a ridge of
        `RIDGE` times the mean diagonal.

    Memory: n² float32 of all training images. Time: six products of the kernel with as many vectors.
    """
    x_train, y_train, x, y, k = held_out(case)
    architect, threat, some = architecture(name), Threat("linf", case.eps), slice(case.n_attacked)
    problem = {"x": x_train, "targets": data.targets(y_train, k), "k_train_train": gram(architect, x_train)}
    ridge = RIDGE * float(problem["k_train_train"].diagonal().mean())
    found = regression.fit(architect, **problem, solver=Top(case.leading, key=jax.random.key(0)))
    # Last, since the factor takes the kernel's place.
    whole = regression.fit(architect, **problem, ridge=ridge, solver=Cholesky(overwrite=True))
    problem.clear()

    outputs, right = features.outputs(found, x), features.correct(found, x, y)
    noisy = random_sign(x[some], threat, key=jax.random.key(0))
    modes = spaced(case.leading, case.modes)
    kept = right[some][:, modes] & features.correct(found, noisy, y[some], modes=modes)
    options = {"x": x, "y": y, "threat": threat, "steps": steps, "batch_size": attack_batch(architect)}
    both = functools.partial(clean_and_attacked, **options)
    edges = [edge for edge in EDGES[1:] if edge < case.leading] + [case.leading]
    return {
        **one_by_one(found, outputs, right, case, x, y, steps=steps, pgd_modes=pgd_modes),
        "random": kept.mean(axis=0),
        "top": np.array([both(features.classifier(found, edge)) for edge in edges]),
        "all": np.array(both(whole)),
    }
