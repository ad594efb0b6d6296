"""The share of inputs that are classified rightly under the worst of several attacks."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int

from companion._core.checks import count, predicted
from companion._core.compile import double
from companion._core.types import Array, Predict
from companion.attacks._predict import as_partial, outputs_of
from companion.statistics import Estimate, accuracy


def robust_accuracy(
    predict: Predict,
    attacked: Float[Any, "m ..."] | Sequence[Float[Any, "m ..."]],
    labels: Int[Any, " m"],
    *,
    level: float = 0.95,
    batch_size: int = 256,
) -> Estimate:
    """Share of inputs that are classified rightly under an attack, or under the worst of several.

    Args:
        predict: from inputs (m, ...), NumPy arrays, to outputs (m, k); it is not differentiated.
        attacked: attacked inputs (m, ...), or a list of such arrays: an input counts only where it is
            classified rightly in all of them. Put the clean inputs into the list.
        labels: classes (m,).
        level: coverage of the Wilson interval.
        batch_size: inputs at once.

    Returns:
        The estimate with its interval. An attack gives an upper bound: a stronger one may find more.

    Raises:
        TypeError, ValueError: as `statistics.accuracy`; also an empty list.

    Cost: one evaluation of every array.

    >>> x = np.ones((2, 1), np.float32)
    >>> robust_accuracy(lambda x: x - 0.5, [x, 0 * x], np.array([1, 1])).value
    0.0
    """
    arrays = [attacked] if hasattr(attacked, "shape") else list(attacked)
    if not arrays:
        raise ValueError("attacked must hold at least one array, got none")
    batch_size = count("batch_size", batch_size)
    outputs = [outputs_of(predict, array, batch_size) for array in arrays]
    labels = np.asarray(labels)
    for one in outputs:
        accuracy(one, labels, level=level)  # complains about what does not fit
    right = np.all([predicted(one) == labels for one in outputs], axis=0)
    return accuracy(np.where(right, 1.0, -1.0)[:, None], np.ones(len(labels), int), level=level)


def two_logits(predict: Predict) -> Partial:
    """One output f as two logits, (−f/2, f/2), for libraries that predict by the largest, such as foolbox.

    The softmax cross-entropy of these logits is the cross-entropy of f, and their margin is f's.

    Args:
        predict: from inputs (m, ...) to outputs (m, 1).

    Returns:
        From inputs (m, ...) to logits (m, 2).

    >>> two_logits(lambda x: x)(jnp.array([[3.0]]))
    Array([[-1.5,  1.5]], dtype=float32)
    """
    return Partial(_two_logits, as_partial(predict))


def _two_logits(predict: Partial, x: Array) -> Array:
    with double(x, predict):
        outputs = predict(x)
        if outputs.shape[1:] != (1,):
            raise ValueError(f"predict must have one output, got {outputs.shape[1:]}")
        return jnp.concatenate([-outputs, outputs], axis=1) / 2
