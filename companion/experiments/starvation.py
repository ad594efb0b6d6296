"""Gradient starvation in a kernel: does one feature starve the others under the logistic loss (chapter 10)?

A mark in a corner, which tells the class, is put on every training image: a strong feature, and an easy one.
What is left of the accuracy on images without marks, after logistic and after squared loss, with weight decay
and with spectral decoupling; clean and under PGD. And, as the theorem has it, the eigenvector of the kernel
that holds most of the labels is made stronger by hand: what do the others answer? After Pezeshki et al.
(2021), arXiv 2011.09468.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import numpy as np

from companion import data, regression
from companion._core.checks import predicted
from companion._core.types import Kernel
from companion.attacks import Threat, outputs_of, pgd
from companion.experiments._experiment import LISTS, Arrays, Experiment, Job, filled
from companion.experiments._shared import architecture
from companion.kernels import gram
from companion.regression import KernelPredictor

__all__ = [
    "EXPERIMENT",
    "MEASURES",
    "PROFILES",
    "ROWS",
    "WHEN",
    "Case",
    "Config",
    "compute",
    "gather",
    "jobs",
    "marked",
    "recorded",
    "responses",
    "run",
]

ROWS = ("squared", "logistic", "decay", "decoupling")
WHEN = ("best", "end")
MEASURES = ("clean", "reversed", "robust")


@dataclass(frozen=True)
class Case:
    """One data set and kernel.

    Attributes:
        dataset: name for `data.load`.
        classes: the two.
        eps: L∞ size, pixels in [0, 1].
        kernel: of a network family, such as "FC-1".
        n_train: training images.
        n_val: images without marks, of the training split too, on which times and strengths are chosen.
        n_test: test images.
        mark: pixels on a side of the mark.
    """

    dataset: str
    classes: tuple[str | int, str | int]
    eps: float
    kernel: str = "FC-1"
    n_train: int = 400
    n_val: int = 400
    n_test: int = 1000
    mark: int = 4


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets.
        seeds: splits.
        times: in units of one over the mean diagonal of Θ(X, X); the last is the end.
        decays: weight decay, in units of the mean diagonal.
        decouplings: spectral decoupling.
        factors: by which the strong eigenvalue is multiplied.
        steps: of PGD.
    """

    cases: tuple[Case, ...] = field(metadata=LISTS)
    seeds: int = field(default=2, metadata=LISTS)
    times: tuple[float, ...] = tuple(round(10 ** (k / 2), 4) for k in range(-4, 7))
    decays: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    decouplings: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    factors: tuple[float, ...] = (0.25, 1.0, 4.0, 16.0, 64.0)
    steps: int = 20


_DIGITS = Case("mnist5k", (4, 9), 0.1, n_test=200)  # all there are
PROFILES = {
    "quick": Config((Case("mnist5k", (4, 9), 0.1, n_train=200, n_val=200, n_test=200),), steps=10),
    "full": Config(
        (
            _DIGITS,
            Case("fashion_mnist", ("pullover", "coat"), 0.05),
            Case("cifar10", ("airplane", "automobile"), 8 / 255),
        ),
        seeds=10,
    ),
}


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Fit with and without marks on the training images, and ask on images without.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays, NaN where there is no run, over cases c and seeds s. `accuracy` (c, s, 2, r, 2, 3): trained
        without marks and with, of `ROWS`, at the time and strength that validation images chose and at the
        end of training (of "decay" and "decoupling" at the chosen strength): of `MEASURES` the accuracy on
        test images without marks, with the mark of the other class, and without marks under PGD. `chosen`
        (c, s, 2, r, 2): which strength and time. `responses` (c, s, f): to each of the factors.
    """
    return EXPERIMENT.run(config, progress=progress)


def jobs(config: Config) -> list[Job]:
    """A run for every case and seed."""
    how = (config.times, config.decays, config.decouplings, config.factors, config.steps)
    return [
        Job((case, seed, *how), f"{case.dataset} {'/'.join(map(str, case.classes))}", seed, case.dataset)
        for seed in range(config.seeds)
        for case in config.cases
    ]


def compute(
    case: Case,
    seed: int,
    times: tuple[float, ...],
    decays: tuple[float, ...],
    decouplings: tuple[float, ...],
    factors: tuple[float, ...],
    steps: int,
) -> Arrays:
    """All rows of one split."""
    n = case.n_train
    d = data.load(case.dataset, classes=case.classes, n_train=n + case.n_val, n_test=case.n_test, seed=seed)
    kernel, targets = architecture(case.kernel), data.targets(d.y_train)[:n]
    found, chosen = np.zeros((2, len(ROWS), 2, 3)), np.zeros((2, len(ROWS), 2))
    for i in range(2):
        x = marked(d.x_train[:n], d.y_train[:n], case.mark) if i else d.x_train[:n]
        theta = gram(kernel, x)
        unit = float(np.trace(theta) / n)
        moments = [t / unit for t in times]
        f = regression.fit(kernel, x, targets, k_train_train=theta)
        options = {"times": moments, "k_train_train": theta}
        paths = {
            "squared": [[f.at(t) for t in moments]],
            "logistic": [regression.fit_logistic(kernel, x, targets, **options)],
            "decay": [
                regression.fit_logistic(kernel, x, targets, decay=one * unit, **options) for one in decays
            ],
            "decoupling": [
                regression.fit_logistic(kernel, x, targets, decoupling=one, **options) for one in decouplings
            ],
        }
        crosses = _crosses(case, kernel, x, d)
        for r, name in enumerate(ROWS):
            found[i, r], chosen[i, r] = _measured(paths[name], crosses, d, case, seed, steps)
        if not i:
            answers = responses(theta / unit, targets, factors)
    return {"accuracy": found, "chosen": chosen, "responses": answers}


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    places = {(config.cases.index(job.config[0]), job.seed): arrays for job, arrays in made.items()}
    return filled((len(config.cases), config.seeds), places)


def marked(x: np.ndarray, sides: np.ndarray, size: int) -> np.ndarray:
    """Images with a white square in the upper left corner (side 0) or the upper right one (side 1).

    Args:
        x: images (n, h, w, c).
        sides: (n,), 0 or 1.
        size: pixels on a side.

    Returns:
        New images.
    """
    x = np.array(x)
    for image, side in zip(x, sides, strict=True):
        image[:size, -size:] = np.where(side, 1.0, image[:size, -size:])
        image[:size, :size] = np.where(side, image[:size, :size], 1.0)
    return x


def responses(theta: np.ndarray, targets: np.ndarray, factors: tuple[float, ...]) -> np.ndarray:
    """How the other eigenvectors answer when the one that holds most of the labels is made stronger.

    With v that eigenvector, λ its eigenvalue and P = I − v vᵀ: yᵀ P f / yᵀ P y at the end of logistic
    training with a weight decay of 1, for Θ + (factor − 1) λ v vᵀ. After squared loss it does not depend on
    the factor.

    Args:
        theta: Θ(X, X), (n, n), in units of its mean diagonal.
        targets: y, (n, 1), ±1.
        factors: (f,).

    Returns:
        (f,).
    """
    values, vectors = np.linalg.eigh(theta.astype(np.float64))
    strong = int(np.argmax(np.abs(vectors.T @ targets)))
    v = vectors[:, [strong]]
    rest, found = targets - v @ (v.T @ targets), []
    for factor in factors:
        kernel = theta + (factor - 1) * values[strong] * v @ v.T
        f = regression.fit_logistic(kernel, targets=targets, times=[math.inf], decay=1.0)[0]
        found.append(float((rest * (kernel @ f.coefficients)).sum() / (rest**2).sum()))
    return np.array(found)


def _crosses(case: Case, kernel: Kernel, x: np.ndarray, d: data.Dataset) -> dict[str, np.ndarray]:
    """Θ between validation and test images and the training images."""
    wrong = marked(d.x_test, 1 - d.y_test, case.mark)
    parts = {"val": d.x_train[case.n_train :], "clean": d.x_test, "reversed": wrong}
    return {name: gram(kernel, part, x) for name, part in parts.items()}


def _measured(
    paths: list[list[KernelPredictor]], crosses: Mapping[str, np.ndarray], d: data.Dataset, case: Case,
    seed: int, steps: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Accuracies (2, 3) of the best time and strength and of the end, and which these are."""
    labels = d.y_train[case.n_train :]
    scores = np.array(
        [[(predicted(f.from_kernel(crosses["val"])) == labels).mean() for f in path] for path in paths]
    )
    # Of equals the last: the strongest, and the longest.
    last = scores.size - 1 - int(np.argmax(scores.ravel()[::-1]))
    place = np.array(np.unravel_index(last, scores.shape))
    found = []
    for f in (paths[place[0]][place[1]], paths[place[0]][-1]):
        right = [predicted(f.from_kernel(crosses[name])) == d.y_test for name in ("clean", "reversed")]
        moved = pgd(
            f,
            d.x_test,
            d.y_test,
            Threat("linf", case.eps),
            steps=steps,
            early_stop=True,
            batch_size=min(256, case.n_test),
            key=jax.random.key(seed),
        )
        right.append((predicted(outputs_of(f, moved, 256)) == d.y_test) & right[0])
        found.append([one.mean() for one in right])
    return np.array(found), place


EXPERIMENT = Experiment("starvation", 1, PROFILES, jobs, compute, gather)
recorded = EXPERIMENT.recorded
