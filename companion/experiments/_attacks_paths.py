"""Kernels along time, for the experiment of chapter 2."""

import numpy as np

from companion import data, regression
from companion.attacks import Threat, pgd, robust_accuracy
from companion.experiments._attacks_cases import Path
from companion.experiments._experiment import Arrays
from companion.experiments._shared import architecture
from companion.kernels import gram
from companion.regression import KernelPredictor


def times_of(number: int) -> np.ndarray:
    """Times between 1 and 10⁷, in units of 1/λ_max."""
    return np.geomspace(1, 1e7, number)


def geometry_of(f: KernelPredictor, x: np.ndarray, sign: np.ndarray, eps: float, batch: int) -> list[float]:
    parts = [x[i : i + batch] for i in range(0, len(x), batch)]
    outputs = np.concatenate([np.asarray(f(part))[:, 0] for part in parts])
    gradients = np.concatenate(
        [np.abs(np.asarray(f.gradient(part))).reshape(len(part), -1).sum(1) for part in parts]
    )
    survive = sign * outputs > eps * gradients
    return [float(np.abs(outputs).mean()), float(gradients.mean()), float(survive.mean())]


def along_time(case: Path, name: str, seed: int) -> Arrays:
    images = data.load(
        case.dataset, classes=case.classes, n_train=case.n_train, n_test=case.n_test, seed=seed
    )
    kernel, x, y = architecture(name), images.x_test, images.y_test
    matrix, threat = gram(kernel, images.x_train), Threat("linf", case.eps)
    f = regression.fit(kernel, images.x_train, data.targets(images.y_train, 2), k_train_train=matrix)
    diagonal = float(np.diag(matrix).mean())
    path, sizes = [], []
    for t in times_of(case.times):
        g = f.at(t / f.eigenvalues[0])
        attacked = pgd(g, x, y, threat, steps=case.steps, early_stop=True)
        path.append([robust_accuracy(g, z, y).value for z in (x, attacked)])
        # f = Θα has the squared norm αᵀΘα, and in the kernel Θ/c the c-fold.
        squared_norm = float((g.coefficients * g.from_kernel(matrix)).sum()) * diagonal
        sizes.append([*geometry_of(g, x, 2.0 * y - 1, case.eps, 256)[:2], np.sqrt(max(squared_norm, 0.0))])
    return {
        "path": np.array(path),
        "path_geometry": np.array(sizes),
        "path_kernel": np.array([diagonal, regression.condition_number(f)]),
    }
