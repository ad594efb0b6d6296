"""Functions under attack: checked, compiled where JAX can, and evaluated in batches."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from companion._checks import batch as examples
from companion._compile import double


def as_partial(predict: Callable[..., Any]) -> Partial:
    """A pytree function. Compiled code is kept for those that came as one, and made anew for others."""
    return predict if isinstance(predict, Partial) else Partial(lambda x: predict(x))


def checked(
    predict: Any, x: Any, labels: Any, bounds: tuple[float, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and int32 labels that fit each other, the function and the bounds; or an error."""
    if not callable(predict):
        raise TypeError(f"predict must be a function of inputs (m, ...), got {predict!r}")
    x, labels = examples("x", x), np.asarray(labels)
    if bounds is not None and (x.min() < bounds[0] or x.max() > bounds[1]):
        raise ValueError(f"x must lie in the bounds {bounds}, got {x.min():.4g} to {x.max():.4g}")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != x.shape[:1]:
        raise ValueError(f"labels must have shape {x.shape[:1]}, got {labels.shape}")
    with double(x):
        spec = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
        shape = getattr(jax.eval_shape(predict, spec), "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != 1:
        raise ValueError(f"predict must return outputs (m, k) for inputs (m, ...), got {shape} for one input")
    n_classes = max(2, shape[1])
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels must lie in [0, {n_classes}), got {labels.min()} to {labels.max()}")
    return x, labels.astype(np.int32)


def in_batches(index: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Parts of `size`, one shape to compile: what the last lacks is filled up with its own first entry."""
    for first in range(0, len(index), size):
        part = index[first : first + size]
        yield np.concatenate([part, np.repeat(part[:1], size - len(part))])


def outputs_of(predict: Callable[..., Any], x: Any, batch: int) -> np.ndarray:
    """Outputs (m, k) of any function of arrays, in "highest" matmul precision; a `Partial` is compiled."""
    x = examples("x", x)
    function = _compiled if isinstance(predict, Partial) else lambda predict, x: predict(x)
    with double(x), jax.default_matmul_precision("highest"):
        parts = [
            (some, np.asarray(function(predict, x[some])))
            for some in in_batches(np.arange(len(x)), min(batch, len(x)))
        ]
    outputs = np.empty((len(x), *parts[0][1].shape[1:]), parts[0][1].dtype)
    for some, values in parts:
        outputs[some] = values
    return outputs


@functools.partial(jax.jit, static_argnames="loss")
def loss_gradient(predict: Partial, x: Any, labels: Any, *, loss: Callable[..., Any]) -> Any:
    """∇ₓ of the loss at every input."""
    with jax.default_matmul_precision("highest"):
        return jax.grad(lambda x: loss(predict(x), labels).sum())(x)


@jax.jit
def _compiled(predict: Partial, x: Any) -> Any:
    return predict(x)
