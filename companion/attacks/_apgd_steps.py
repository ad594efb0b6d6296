"""A step of Auto-PGD for L∞ and L2: ascent with momentum, and sizes that are halved at checkpoints."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from companion._core import geometry
from companion._core.types import Array, Scalar
from companion.attacks._losses import progress_of

_MOMENTUM, _RISING = 0.75, 0.75  # α and ρ of the paper

TargetedLoss = Callable[[Array, Array, Array], Array]  # outputs, labels, targets
S = TypeVar("S", bound=tuple[Any, ...])  # the state of one of the two rules


class State(NamedTuple):
    """Of each example: points, values of the loss and gradients, and what decides on the step size."""

    now: Array
    before: Array
    value: Array
    gradient: Array
    best: Array
    best_value: Array
    best_gradient: Array
    size: Array
    rises: Array  # steps since the last checkpoint in which the loss rose
    halved: Array  # whether the last checkpoint halved the size
    held: Array  # the best value at the last checkpoint
    found: Array  # the point that does best, and how well
    score: Array


def checkpoints(steps: int) -> list[int]:
    """After how many steps sizes are decided on: 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    length, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    found, at = [], 0
    while at + length < steps:
        at += length
        found.append(at)
        length = max(length - less, least)
    return found


def evaluated(
    predict: Partial, point: Array, labels: Array, targets: Array, loss: TargetedLoss
) -> tuple[Array, Array, Array]:
    """Values of the loss, its gradient, and how well the point does."""

    def total(point: Array) -> tuple[Array, tuple[Array, Array]]:
        outputs = predict(point)
        values = loss(outputs, labels, targets)
        return values.sum(), (values, progress_of(outputs, labels, targeted=False))

    with jax.default_matmul_precision("highest"):
        gradient, (values, score) = jax.grad(total, has_aux=True)(point)
    return values, gradient, score


def begun(now: np.ndarray, x: np.ndarray, found: np.ndarray, score: np.ndarray, eps: float) -> State:  # noqa: ARG001
    """Before the first look: a step from here has no direction, and whatever it sees is the best so far."""
    n, nothing = len(now), np.zeros_like(now)
    worst = np.full(n, -np.inf, now.dtype)
    size = np.full((n, *[1] * (now.ndim - 1)), 2 * eps, now.dtype)
    # The first look is no rise; and a first checkpoint must not find the best value unchanged because it is
    # where the search began.
    rises, halved = np.full(n, -1, np.int32), np.ones(n, bool)
    best = now, worst, nothing
    return State(now, now, worst, nothing, *best, size, rises, halved, worst, found, score)


def looked(
    predict: Partial, s: S, moved: Array, labels: Array, targets: Array, loss: TargetedLoss
) -> tuple[S, Array]:
    """The state at the next points, with the best so far, and the loss there."""
    value, gradient, here = evaluated(predict, moved, labels, targets, loss)
    # One that is fooled stays as it is; NaN stays too, to be told of.
    improved, higher = (here > s.score) & ~(s.score > 0), value > s.best_value
    state = s._replace(
        now=moved,
        gradient=gradient,
        best=geometry.chosen(higher, moved, s.best),
        best_value=jnp.where(higher, value, s.best_value),
        best_gradient=geometry.chosen(higher, gradient, s.best_gradient),
        found=geometry.chosen(improved, moved, s.found),
        score=jnp.where(s.score > 0, s.score, jnp.maximum(here, s.score)),
    )
    return state, value


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
    first: Scalar,
    loss: TargetedLoss,
    norm: str,
) -> State:
    eps, momentum = jnp.asarray(eps, x.dtype), jnp.where(first, 1, _MOMENTUM).astype(x.dtype)
    ahead = geometry.step(norm, s.gradient, s.now, x, low, high, s.size, eps)
    moved = s.now + momentum * (ahead - s.now) + (1 - momentum) * (s.now - s.before)
    moved = geometry.project(norm, moved, x, low, high, eps)
    state, value = looked(predict, s, moved, labels, targets, loss)
    return state._replace(before=s.now, value=value, rises=s.rises + (value > s.value))


@jax.jit
def decided(s: State, x: Array, since: Scalar, eps: Scalar) -> State:  # noqa: ARG001
    """Halve the step size where the loss oscillates or has not improved, and go on from the best point."""
    halve = (s.rises < _RISING * since) | (~s.halved & (s.best_value <= s.held))
    return s._replace(
        now=geometry.chosen(halve, s.best, s.now),
        value=jnp.where(halve, s.best_value, s.value),
        gradient=geometry.chosen(halve, s.best_gradient, s.gradient),
        size=geometry.chosen(halve, s.size / 2, s.size),
        rises=jnp.zeros_like(s.rises),
        halved=halve,
        held=s.best_value,
    )
