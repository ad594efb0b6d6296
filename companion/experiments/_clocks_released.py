"""The attack of the authors' released code (Fu & Wang 2024), re-enacted."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from companion._core.types import Array, Key, Predict, Scalar
from companion.attacks import Threat, squared


def released_attack(threat: Threat, *, steps: int = 10) -> Partial:
    """The attack of the authors' released code, re-enacted: no projected gradient descent, for two reasons.

    Every step takes the gradient at the *start*, so that the direction never changes; and the random start
    takes the place of the image as the center of the ball, so that a pixel may move by 2 ε.

    Args:
        threat: L∞; its ε.
        steps: of size ε/5, as theirs.

    Returns:
        An attack for `clocks.learn`.
    """
    return Partial(_released, steps, threat.eps, *threat.bounds)


def _released(
    steps: Scalar, eps: Scalar, low: Scalar, high: Scalar, f: Predict, x: Array, labels: Array, key: Key,
    epoch: Scalar,  # noqa: ARG001
) -> Array:  # fmt: skip
    start = jnp.clip(x + jax.random.uniform(key, x.shape, x.dtype, -eps, eps), low, high)
    direction = jnp.sign(jax.grad(lambda x: squared(f(x), labels).sum())(start))
    far = jnp.minimum(steps * eps / 5, eps)
    return jnp.clip(start + far * direction, low, high)
