"""Networks with batch normalization under the statistics of the test batch itself, and a strong attack."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from companion._core.types import Array, Key, Scalar, Variables
from companion.attacks import Threat, cross_entropy, training_attack
from companion.experiments._catastrophic_watch import AT_ONCE
from companion.networks import Model


@functools.partial(jax.jit, static_argnames="model")
def in_batches(
    variables: Variables, x: Array, y: Array, key: Key, eps: Scalar, attack: Partial, *, model: Model
) -> Array:
    """Accuracy (3,), clean, under FGSM and under an attack, of one batch that is attacked as a whole.

    With the batch's own statistics an image's output depends on where the others are, so the best points of
    each image do not belong together: all move at once, and the last point of all counts.
    """

    def predict(z: Array) -> Array:
        return model.apply(*variables, z, False)[0]

    slope = jax.grad(lambda z: cross_entropy(predict(z), y).sum())(x)
    moved = jnp.clip(x + eps * jnp.sign(slope), 0, 1), attack(predict, x, y, key, jnp.inf)
    return jnp.array([(predict(z).argmax(axis=1) == y).mean() for z in (x, *moved)])


def strongly(
    models: tuple[Model, ...],
    variables: Variables,
    x: np.ndarray,
    y: np.ndarray,
    threat: Threat,
    *,
    steps: int,
    restarts: int,
    seed: int,
) -> np.ndarray:
    """Accuracy (models, 3), clean, under FGSM and under the strongest of several PGD, in whole batches.

    Args:
        models: one network with several ways to normalize.
        variables: of all.
        x: test images; those that fill no batch of `AT_ONCE` (or of all, where there are fewer) are left out.
        y: their labels.
        threat: L∞.
        steps: of PGD, from random points.
        restarts: of PGD; of each batch the one counts that leaves the fewest right.
        seed: of the random points.
    """
    attack, size = training_attack(threat, steps=steps), min(AT_ONCE, len(x))
    found = []
    for model in models:
        batches = []
        for first in range(0, len(x) - size + 1, size):
            some = slice(first, first + size)
            keys = jax.random.split(jax.random.key(seed), restarts)
            runs = [
                in_batches(variables, x[some], y[some], key, threat.eps, attack, model=model) for key in keys
            ]
            batches.append(np.min(runs, axis=0))  # clean and FGSM are the same in all
        found.append(np.mean(batches, axis=0))
    return np.array(found)
