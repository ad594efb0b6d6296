"""A linear model as a control of chapters 2 and 3: ridge regression on pixels, with the tools of kernels."""

import jax
import numpy as np

from companion import data, features, regression
from companion._core.types import Array
from companion.attacks import Threat, gradient_cosine, pgd, random_sign, transfer
from companion.experiments._attacks_cases import Transfers
from companion.experiments._experiment import Arrays
from companion.experiments._features_cases import LATER, RIDGE, Case, held_out
from companion.experiments._features_measures import clean_and_attacked
from companion.experiments._shared import architecture
from companion.kernels import keep_compiled
from companion.regression import KernelPredictor
from companion.training import train_to_residual

LINEAR = ("kernel", "linear", "random")
KEPT = (10, 20)  # first features


@keep_compiled
def pixels_kernel(x1: Array, x2: Array, get: str = "ntk") -> Array:  # noqa: ARG001
    """Mean product of the pixels, and a constant, whose weight is the bias: of ridge regression on pixels."""
    one, two = (x.reshape(len(x), -1) for x in (x1, x2))
    return one @ two.T / one.shape[1] + 0.01


def ridge_on_pixels(x: np.ndarray, targets: np.ndarray) -> KernelPredictor:
    """Ridge regression, with `RIDGE` times the mean squared length; features are principal components."""
    flat = x.reshape(len(x), -1)
    return regression.fit(pixels_kernel, x, targets, ridge=RIDGE * float((flat**2).mean() + 0.01))


def beside_linear(config: Transfers, seed: int) -> Arrays:
    """Networks of one seed, at the last residual, under PGD on their kernel and on a linear model.

    Returns:
        `linear_success` (w, 3), shares of the flipped among the right by width, for `LINEAR`;
        `linear_clean` (2,), accuracy of kernel and linear model, and `linear_cosine` () of their gradients.
    """
    images = data.load(config.dataset, classes=config.classes, n_train=config.n_train, n_test=config.n_test)
    name, x, y = f"FC-{config.depth}", images.x_test, images.y_test
    threat, targets = Threat("linf", config.eps), data.targets(images.y_train, 2)
    f, g = (
        regression.fit(architecture(name), images.x_train, targets),
        ridge_on_pixels(images.x_train, targets),
    )
    moved = [pgd(one, x, y, threat, steps=10) for one in (f, g)]
    moved.append(random_sign(x, threat, key=jax.random.key(0)))
    attacks, found = dict(zip(LINEAR, moved, strict=True)), []
    for width in config.widths:
        network = architecture(name, width=width)
        (level,) = train_to_residual(
            network.apply,
            network.init(jax.random.key(seed), images.x_train),
            images.x_train,
            targets,
            learning_rate=config.step / float(f.eigenvalues[0]),
            momentum=config.momentum,
            residuals=config.residuals[-1:],
            center=config.center,
        )
        success = transfer(attacks, {"net": level.predict}, x, y).success
        found.append([success[source]["net"].value for source in LINEAR])
    return {
        "linear_success": np.array(found),
        "linear_clean": np.array([np.mean((np.asarray(one(x))[:, 0] > 0) == y) for one in (f, g)]),
        "linear_cosine": gradient_cosine(f, g, x, y).mean(),
    }


def of_pixels(case: Case, steps: int) -> Arrays:
    """Principal components as features of ridge regression on pixels, in sums and one by one.

    Returns:
        `linear_sum` (4, 2, 3), clean and under PGD, of the first 10, the first 20, all, and all from
        `LATER` on; `linear_useful` (2,), of these latter how many are useful by correlation with the labels
        (Holm, 5 %), and how many there are; `linear_majority` (), the largest class's share.
    """
    x_train, y_train, x, y, k = held_out(case)
    f = ridge_on_pixels(x_train, data.targets(y_train, k))
    options = {"x": x, "y": y, "threat": Threat("linf", case.eps), "steps": steps, "batch_size": 256}
    n = len(x_train)
    sums = [features.classifier(f, some) for some in (*KEPT, n, range(LATER, n))]
    tests = features.correlation(features.outputs(f, x), data.targets(y, k))
    hits = tests.adjusted[LATER:] < 0.05
    return {
        "linear_sum": np.array([clean_and_attacked(one, **options) for one in sums]),
        "linear_useful": np.array([hits.sum(), len(hits)]),
        "linear_majority": np.bincount(y).max() / len(y),
    }
