"""What an attack increases, and when it has succeeded."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from companion._core.checks import predicted
from companion._core.compile import double
from companion._core.types import Array, LossFunction
from companion._core.words import Unchecked

Loss = Literal["margin", "cross_entropy", "squared", "dlr"] | LossFunction


def margin(outputs: Float[Any, "m k"], labels: Int[Any, " m"]) -> Float[jax.Array, " m"]:
    """How far outputs are on the wrong side: max_{j≠y} f_j − f_y; of one output −s f with s = 2y − 1.

    Positive where the prediction is wrong. Its gradient never vanishes because a prediction is certain.

    Args:
        outputs: (m, 1), of which the sign predicts, or (m, k), of which the largest predicts.
        labels: (m,), 0 or 1 for one output, else in [0, k).

    Returns:
        (m,).

    >>> margin(jnp.array([[2.0], [-1.0]]), jnp.array([1, 1]))
    Array([-2.,  1.], dtype=float32)
    """
    with double(outputs):
        outputs, labels = jnp.asarray(outputs), jnp.asarray(labels)
        if outputs.shape[1] == 1:
            return -_sign(outputs, labels) * outputs[:, 0]
        own = jnp.arange(outputs.shape[1]) == labels[:, None]
        other = jnp.where(own, jnp.full_like(outputs, -jnp.inf), outputs).max(axis=1)
        return other - jnp.where(own, outputs, jnp.zeros_like(outputs)).sum(axis=1)


def cross_entropy(outputs: Float[Any, "m k"], labels: Int[Any, " m"]) -> Float[jax.Array, " m"]:
    """−log p_y with p the softmax of the outputs; of one output log(1 + exp(−s f)) with s = 2y − 1.

    Args:
        outputs: (m, 1) or (m, k).
        labels: (m,), 0 or 1 for one output, else in [0, k).

    Returns:
        (m,).

    >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([2])).round(4)
    Array([1.3863], dtype=float32)
    """
    with double(outputs):
        outputs, labels = jnp.asarray(outputs), jnp.asarray(labels)
        if outputs.shape[1] == 1:
            return jax.nn.softplus(-_sign(outputs, labels) * outputs[:, 0])
        return -jnp.take_along_axis(jax.nn.log_softmax(outputs), labels[:, None], axis=1)[:, 0]


def squared(outputs: Float[Any, "m k"], labels: Int[Any, " m"]) -> Float[jax.Array, " m"]:
    """½ ‖f − y‖², the loss that kernel regression minimizes, with the targets of `data.targets`.

    As an attack's loss it misleads: of one output it *falls* with the attack's progress where s f > 1,
    since ∂/∂f ½(f − s)² = f − s changes sign there.

    Args:
        outputs: (m, 1) or (m, k).
        labels: (m,), 0 or 1 for one output, else in [0, k).

    Returns:
        (m,).

    >>> squared(jnp.array([[3.0]]), jnp.array([1]))
    Array([2.], dtype=float32)
    """
    with double(outputs):
        outputs, labels = jnp.asarray(outputs), jnp.asarray(labels)
        k = outputs.shape[1]
        wanted = (
            _sign(outputs, labels)[:, None]
            if k == 1
            else jax.nn.one_hot(labels, k, dtype=outputs.dtype) - 1 / k
        )
        return ((outputs - wanted) ** 2).sum(axis=1) / 2


def dlr(outputs: Float[Any, "m k"], labels: Int[Any, " m"]) -> Float[jax.Array, " m"]:
    """The difference of logits ratio, (max_{j≠y} z_j − z_y) / (z_π1 − z_π3), z_π1 ≥ z_π2 ≥ … the outputs.

    Neither a shift nor a scale of the outputs changes it, so that no network hides behind large ones. It
    needs three classes; of one output or two classes it is the `margin`, whose gradient has its direction.

    Args:
        outputs: (m, 1) or (m, k).
        labels: (m,), 0 or 1 for one output, else in [0, k).

    Returns:
        (m,), in [−1, 1] for k ≥ 3; positive where the prediction is wrong.

    Source: Croce & Hein (2020), arXiv 2003.01690, equation 6.

    >>> dlr(jnp.array([[3.0, 1.0, 0.0, -1.0]]), jnp.array([0])).round(4)
    Array([-0.6667], dtype=float32)
    """
    with double(outputs):
        outputs = jnp.asarray(outputs)
        value = margin(outputs, labels)
        if outputs.shape[1] < 3:
            return value
        first, _, third = _largest(outputs, 3)
        return value / jnp.maximum(first - third, _tiny(outputs))


def targeted_dlr(
    outputs: Float[Any, "m k"], labels: Int[Any, " m"], targets: Int[Any, " m"]
) -> Float[jax.Array, " m"]:
    """The targeted ratio, (z_t − z_y) / (z_π1 − (z_π3 + z_π4) / 2), which rises toward a wrong class t.

    Of three classes the denominator is z_π1 − z_π3. Of fewer there is one wrong class: it is the `margin`.

    Args:
        outputs: (m, 1) or (m, k).
        labels: (m,).
        targets: classes to go to (m,), other than the labels.

    Returns:
        (m,).

    Source: Croce & Hein (2020), arXiv 2003.01690, equation 7.

    >>> targeted_dlr(jnp.array([[3.0, 1.0, 0.0, -1.0]]), jnp.array([0]), jnp.array([1])).round(4)
    Array([-0.5714], dtype=float32)
    """
    with double(outputs):
        outputs, labels, targets = (jnp.asarray(array) for array in (outputs, labels, targets))
        k = outputs.shape[1]
        if k < 3:
            return margin(outputs, labels)
        own, wanted = (jnp.take_along_axis(outputs, one[:, None], axis=1)[:, 0] for one in (labels, targets))
        first, _, *others = _largest(outputs, min(k, 4))
        return (wanted - own) / jnp.maximum(first - sum(others) / len(others), _tiny(outputs))


def _largest(outputs: Array, number: int) -> Iterator[Array]:
    """The largest outputs of each example in turn. A sort and its gradient take as long as a small net."""
    places = jnp.arange(outputs.shape[1])
    for _ in range(number):
        here = places == jnp.argmax(jax.lax.stop_gradient(outputs), axis=1)[:, None]
        yield jnp.where(here, outputs, 0).sum(axis=1)
        outputs = jnp.where(here, -jnp.inf, outputs)


def _tiny(outputs: Array) -> float:
    """Keeps a ratio finite where all outputs are equal."""
    return 1e-12 if outputs.dtype == jnp.float32 else 1e-24


LOSSES = {"margin": margin, "cross_entropy": cross_entropy, "squared": squared, "dlr": dlr}


def loss_named(loss: Unchecked) -> LossFunction:
    """The function that a name stands for, or the one given."""
    if callable(loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"loss must be one of {sorted(LOSSES)} or a function, got {loss!r}")
    return LOSSES[loss]


def progress_of(outputs: Array, labels: Array, *, targeted: bool) -> Array:
    """How successful an attack is, (m,): > 0 where it has succeeded, ≤ 0 elsewhere, larger is better."""
    outputs, labels = jnp.asarray(outputs), jnp.asarray(labels)
    value = margin(outputs, labels) * (-1 if targeted else 1)
    done = (predicted(outputs) == labels) == targeted
    # A tie counts as `predicted` decides it.
    tiny = jnp.finfo(value.dtype).tiny
    return jnp.where(done, jnp.maximum(value, tiny), jnp.minimum(value, jnp.zeros_like(value)))


def _sign(outputs: Array, labels: Array) -> Array:
    return 2 * labels.astype(outputs.dtype) - 1
