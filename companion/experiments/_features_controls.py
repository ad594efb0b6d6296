"""Controls of chapter 3: random signs, means over images, and labels that only a perturbation explains."""

import jax
import numpy as np

from companion import data, features, regression
from companion.attacks import Threat, random_sign, robust_accuracy
from companion.experiments._experiment import Arrays
from companion.experiments._features_cases import EDGES, FROM, Case, held_out, spaced
from companion.experiments._shared import architecture, attack_batch


def controlled(case: Case, name: str) -> Arrays:
    """Features under random signs of size ε; means over all from an index on; the exceptions among them.

    Returns:
        `random` (q,), the share of the attacked images of which each attacked feature is right before and
        after random signs; `tail_accuracy` and `tail_correlation` (b, 3), means over the features from every
        edge below n on, with bootstrap intervals over the images; `exceptions` (e, 4), of every feature from
        `FROM[0]` on that either test finds useful (Holm, 5 %): its index, and the share of the attacked
        images of which it is right when they are clean, under random signs and under FGSM.
    """
    x_train, y_train, x, y, k = held_out(case)
    threat, key = Threat("linf", case.eps), jax.random.key(0)
    found = regression.fit(architecture(name), x_train, data.targets(y_train, k))
    outputs, right, wanted = features.outputs(found, x), features.correct(found, x, y), data.targets(y, k)
    some, n = slice(case.n_attacked), len(x_train)
    noisy = random_sign(x[some], threat, key=key)
    kept = right[some] & features.correct(found, noisy, y[some])

    tails = [edge for edge in EDGES if edge < n]
    means = [features.mean_accuracy(right[:, edge:], key=key) for edge in tails]
    correlations = [features.mean_correlation(outputs[:, edge:], wanted, key=key) for edge in tails]
    tests = features.usefulness(right, y), features.correlation(outputs, wanted)
    useful = np.any([test.adjusted < 0.05 for test in tests], axis=0)
    named = np.flatnonzero(useful & (np.arange(n) >= FROM[0]))
    attacked = features.correct_under_attack(found, x[some], y[some], threat, modes=named)
    each = (right[some][:, named], kept[:, named], attacked)
    return {
        "random": kept[:, spaced(n, case.modes)].mean(axis=0),
        "tail_accuracy": np.array([mean.as_array() for mean in means]),
        "tail_correlation": np.array([mean.as_array() for mean in correlations]),
        "exceptions": np.stack([named, *(one.mean(axis=0) for one in each)], axis=1),
    }


def relabeled(case: Case, name: str, steps: int, learners: tuple[str, ...]) -> Arrays:
    """D̂_det of Ilyas et al.: learn from images that a perturbation explains, and be tested on clean ones.

    Returns:
        `relabeled` (3, 1 + learners, 3), accuracy on clean test images of the kernel itself and of the
        learners, trained on the perturbed images, on images under random signs and on the clean ones, all
        with the labels of the next class; `reached` (3,), the share of the perturbed training images that
        the kernel attacked gives that label.
    """
    x_train, y_train, x, y, k = held_out(case)
    threat, batch = Threat("linf", case.eps), attack_batch(architecture(name))
    f = regression.fit(architecture(name), x_train, data.targets(y_train, k))
    moved, wanted = features.determined_dataset(
        f, x_train, y_train, threat, classes=k, steps=steps, batch_size=batch
    )
    noisy = random_sign(x_train, threat, key=jax.random.key(0))

    next_class = data.targets(wanted, k)

    def learned(images: np.ndarray) -> np.ndarray:
        found = {}
        for learner in dict.fromkeys((name, *learners)):
            kernel = architecture(learner)
            g = regression.fit(kernel, images, next_class, solver="cholesky")
            found[learner] = robust_accuracy(g, x, y, batch_size=attack_batch(kernel)).as_array()
        return np.array([found[learner] for learner in (name, *learners)])

    return {
        "relabeled": np.array([learned(images) for images in (moved, noisy, x_train)]),
        "reached": robust_accuracy(f, moved, wanted, batch_size=batch).as_array(),
    }
