"""Which wrong classes a targeted attack tries, one after the other."""

import jax.numpy as jnp
import numpy as np

from companion._core.types import Array, Predict
from companion.attacks._predict import outputs_of


def likely_targets(
    predict: Predict, x: np.ndarray, labels: np.ndarray, number: int, batch_size: int
) -> np.ndarray:
    """The wrong classes with the largest outputs at x, the likeliest first: (m, t), t = min(number, k − 1).

    One output has one wrong class, the other one.
    """
    outputs = outputs_of(predict, x, batch_size)
    k = outputs.shape[1]
    if k == 1:
        return (1 - labels)[:, None].astype(np.int32)
    outputs = np.where(np.arange(k) == labels[:, None], -np.inf, outputs)
    return np.argsort(-outputs, axis=1, kind="stable")[:, : min(number, k - 1)].astype(np.int32)


def toward(outputs: Array, labels: Array, targets: Array) -> Array:
    """How far the target's output is above the label's, (m,); of one output −s f with s = 2y − 1."""
    if outputs.shape[1] == 1:
        return -(2 * labels.astype(outputs.dtype) - 1) * outputs[:, 0]
    own, wanted = (jnp.take_along_axis(outputs, one[:, None], axis=1)[:, 0] for one in (labels, targets))
    return wanted - own
