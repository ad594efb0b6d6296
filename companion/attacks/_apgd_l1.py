"""A step of Auto-PGD for L1: a few pixels at once, as many as the best point so far has taught."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from companion._core import geometry
from companion._core.types import Array, Scalar
from companion.attacks._apgd_steps import TargetedLoss, looked

# Of the paper: how many times sparser a step is than the best point, when that counts as sparser than before,
# and by what and down to which share of ε a step is shortened.
_SPARSER, _FEWER, _SHORTER, _SHORTEST = 1.5, 0.95, 1.5, 0.1


class State(NamedTuple):
    """Of each example: points, values of the loss and gradients, and what decides on length and sparsity."""

    now: Array
    gradient: Array
    best: Array
    best_value: Array
    best_gradient: Array
    size: Array
    changed: Array  # ‖best − x‖₀ at the last checkpoint; a step takes 1.5 times fewer pixels
    found: Array  # the point that does best, and how well
    score: Array


def stages(eps: float, steps: int) -> list[tuple[float, int]]:
    """Radii and numbers of steps: 3 ε and 2 ε for three tenths of the steps each, then ε."""
    early = 3 * steps // 10
    return [
        (share * eps, number) for share, number in ((3, early), (2, early), (1, steps - 2 * early)) if number
    ]


def checkpoints(steps: int) -> list[int]:
    """After how many steps sizes are decided on: every 4 % of them."""
    every = max(4 * steps // 100, 1)
    return list(range(every, steps, every))


def begun(now: np.ndarray, x: np.ndarray, found: np.ndarray, score: np.ndarray, eps: float) -> State:
    """Before the first look, which sees the best point so far whatever it is."""
    nothing, worst = np.zeros_like(now), np.full(len(now), -np.inf, now.dtype)
    changed = _changed(now, x).astype(now.dtype)
    size = np.full(len(now), eps, now.dtype)
    return State(now, nothing, now, worst, nothing, size, changed, found, score)


def _changed(point: Array, x: Array) -> Array:
    return (point != x).reshape(len(x), -1).sum(axis=1)


@functools.partial(jax.jit, static_argnames=("loss", "norm"))
def step(
    predict: Partial,
    s: State,
    x: Array,
    low: Array,
    high: Array,
    labels: Array,
    targets: Array,
    *,
    eps: Scalar,
    first: Scalar,  # noqa: ARG001
    loss: TargetedLoss,
    norm: str,  # noqa: ARG001
) -> State:
    """Up by the signs of the largest slopes, of length size in all; then the projection, and a look."""
    # A pixel at its bound goes no further: were it taken, a step of few pixels would go nowhere.
    gradient, now, lowest, highest = (geometry.rows(one, x.ndim) for one in (s.gradient, s.now, low, high))
    slope = jnp.where(jnp.where(gradient > 0, now < highest, now > lowest), gradient, 0)
    slopes = jnp.abs(slope)
    d = slopes.shape[1]
    # In whole pixels, rounded down: up, two pixels would stay two, and steps along them are all alike.
    place = d - jnp.clip(s.changed / _SPARSER, 1, d).astype(np.int32)
    least = jnp.take_along_axis(jnp.sort(slopes, axis=1), place[:, None], axis=1)
    # So put, what is NaN stays and is found; a row of it would stand still and pass for one that resists.
    signs = jnp.where(slopes < least, 0, jnp.sign(slope))
    length = (s.size / jnp.maximum(jnp.abs(signs).sum(axis=1), 1))[:, None]
    moved = geometry.project("l1", s.now + (length * signs).reshape(x.shape), x, low, high, eps)
    return looked(predict, s, moved, labels, targets, loss)[0]


@jax.jit
def decided(s: State, x: Array, since: Scalar, eps: Scalar) -> State:  # noqa: ARG001
    """Where the best point has become sparser go on from it by the longest step, else by a shorter one."""
    changed = _changed(s.best, x).astype(s.changed.dtype)
    fewer = changed < _FEWER * s.changed
    size = jnp.where(fewer, eps, jnp.maximum(s.size / _SHORTER, _SHORTEST * eps)).astype(s.size.dtype)
    return s._replace(
        now=geometry.chosen(fewer, s.best, s.now),
        gradient=geometry.chosen(fewer, s.best_gradient, s.gradient),
        size=size,
        changed=changed,
    )
