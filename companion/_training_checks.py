"""Arguments of training, checked, and what tells one from another in a checkpoint."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from companion._checks import batch as examples
from companion._checks import number
from companion._compile import network
from companion.networks import Model, evaluation


def data(name: str, x: Any, labels_name: str, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    x, labels = examples(name, x), np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.shape != x.shape[:1]:
        raise ValueError(
            f"{labels_name} must be integers of shape {x.shape[:1]}, got {labels.dtype} {labels.shape}"
        )
    return x, labels.astype(np.int32)


def fits(model: Model, variables: Any, x: np.ndarray, labels: np.ndarray) -> None:
    k = network("model", evaluation(model), variables, x)[1]
    if labels.min() < 0 or labels.max() >= max(2, k):
        raise ValueError(f"labels must lie in [0, {max(2, k)}), got {labels.min()} to {labels.max()}")


def marks(name: str, moments: Any, epochs: int, n_steps: int) -> list[int]:
    """Epochs as numbers of minibatches."""
    found = sorted({round(number(name, epoch) * n_steps) for epoch in moments})
    if found and found[-1] > epochs * n_steps:
        raise ValueError(f"{name} must lie within {epochs} epochs, got {found[-1] / n_steps:g}")
    return found


def label(function: Any) -> str:
    """What a function is called."""
    function = getattr(function, "func", function)
    return getattr(function, "__qualname__", type(function).__name__)


def first_step(optimizer: Any, params: Any) -> Any:
    """The update of gradients of one: it tells optimizers of other rates apart."""
    return optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)[0]
