"""The ball around an input within the pixels' bounds: its box, random points, steps, rounding."""

import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from companion._core import l1
from companion._core.types import Array, Key, Scalar

# The chance of a random sign: of one precision, so that the same signs are drawn whatever JAX is set to.
_HALF = np.float32(0.5)


@runtime_checkable
class Ball(Protocol):
    """What `attacks.Threat` says: {x' : ‖x' − x‖ ≤ ε, low ≤ x' ≤ high}, the norm "linf", "l2" or "l1"."""

    norm: str
    eps: float
    bounds: tuple[float, float]


def box(ball: Ball, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value of every pixel, rounded inwards: both lie in the ball exactly."""
    (low, high), eps = ball.bounds, ball.eps if ball.norm == "linf" else np.inf
    least, largest = np.empty_like(x), np.empty_like(x)
    # Some inputs at a time, so that all that is computed in double precision stays in a cache.
    size = max(1, 2**15 // x[0].size)
    for first in range(0, len(x), size):
        some = slice(first, first + size)
        wide = _wide(x[some])
        least[some] = _rounded_toward(x[some], np.maximum(wide - eps, low), eps)
        largest[some] = _rounded_toward(x[some], np.minimum(wide + eps, high), eps)
    return least, largest


def pixel_range(
    norm: str, eps: Scalar, bounds: tuple[Scalar, Scalar], x: Array
) -> tuple[jax.Array, jax.Array]:
    """The box of numbers that are traced, for training: rounded as it comes."""
    if norm == "linf":
        return jnp.maximum(x - eps, bounds[0]), jnp.minimum(x + eps, bounds[1])
    return jnp.full_like(x, bounds[0]), jnp.full_like(x, bounds[1])


def rows(array: Array | Scalar, ndim: int) -> Array | Scalar:
    """Each example's pixels in one row, (m, d) or, of a number an example, (m, 1); a lone number as it is.

    XLA's code for a CPU runs over the last axis, and images have one channel or three: sums over their pixels
    take longer than over rows, which cost nothing to make (benchmarks/tricks.py).

    Args:
        array: examples, one example for all, or a number for each or for all.
        ndim: how many axes examples have, their own included.
    """
    if jnp.ndim(array) < ndim - 1 or jnp.ndim(array) == 0:
        return array
    return array.reshape(len(array) if array.ndim == ndim else 1, -1)


def chosen(some: Array, one: Array, other: Array) -> jax.Array:
    """One for some examples, the other for the rest."""
    return jnp.where(some.reshape(-1, *[1] * (one.ndim - 1)), one, other)


def signs(key: Key, shape: tuple[int, ...]) -> jax.Array:
    """Random signs as booleans, as often up as down."""
    # In one row, here and below: the same draws, which XLA compiles in half the time.
    return jax.random.bernoulli(key, _HALF, (math.prod(shape),)).reshape(shape)


def uniform(key: Key, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Random numbers, uniform in [−1, 1), the same in every precision."""
    row = jax.random.uniform(key, (math.prod(shape),), np.float32).reshape(shape)
    return (2 * row - 1).astype(dtype)


def inside(ball: Ball, x: np.ndarray, attacked: np.ndarray) -> np.ndarray:
    """Attacked inputs with the rounding of their projection taken back: the ball holds to the last bit."""
    delta = _wide(attacked) - _wide(x)
    if ball.norm != "linf":
        power = {"l2": 2, "l1": 1}[ball.norm]
        length = (np.abs(delta) ** power).sum(axis=_pixels(x), keepdims=True) ** (1 / power)
        delta *= np.minimum(1, ball.eps / np.maximum(length, np.finfo(x.dtype).tiny))
    low, high = box(ball, x)
    return np.clip(_rounded_toward(x, _wide(x) + delta, np.abs(delta)), low, high)


def start(norm: str, eps: Scalar, keys: Key, x: Array, low: Array, high: Array) -> jax.Array:
    """A random point of each input's ball, uniform before the pixels' bounds cut it."""
    if norm == "linf":
        share = jax.vmap(lambda key: uniform(key, x.shape[1:], x.dtype))(keys)
        return project(norm, x + eps * share, x, low, high, eps)

    def point(key: Key) -> jax.Array:
        draw = jax.random.normal if norm == "l2" else jax.random.laplace
        row = draw(jax.random.fold_in(key, 0), (x[0].size,), np.float32)
        direction = row.reshape(x.shape[1:]).astype(x.dtype)
        radius = jax.random.uniform(jax.random.fold_in(key, 1), (), np.float32) ** (1 / direction.size)
        length = jnp.linalg.norm(direction.ravel(), ord=2 if norm == "l2" else 1)
        return eps * radius * direction / length

    return jnp.clip(x + jax.vmap(point)(keys), low, high)


def step(
    norm: str, gradient: Array, now: Array, x: Array, low: Array, high: Array, size: Scalar, eps: Scalar
) -> jax.Array:
    """Steepest ascent in the norm, then back into the ball around x and the pixels' bounds.

    In L1 it is the steepest within the bounds: beside them a step of one pixel would go nowhere.
    """
    shape = now.shape
    gradient, now, x, low, high, size = (rows(one, len(shape)) for one in (gradient, now, x, low, high, size))
    if norm == "l1":
        moved = l1.project(now + l1.steepest(gradient, now, low, high, size), x, low, high, eps)
    else:
        direction = jnp.sign(gradient) if norm == "linf" else gradient / _length(gradient)
        moved = project(norm, now + size * direction, x, low, high, eps)
    return moved.reshape(shape)


def project(norm: str, point: Array, x: Array, low: Array, high: Array, eps: Scalar) -> jax.Array:
    """Back into the ball around x and the pixels' bounds."""
    shape = point.shape
    point, x, low, high = (rows(one, len(shape)) for one in (point, x, low, high))
    if norm == "linf":
        return jnp.clip(point, low, high).reshape(shape)
    if norm == "l1":
        return l1.project(point, x, low, high, eps).reshape(shape)
    delta = point - x
    return jnp.clip(x + delta * jnp.minimum(1, eps / _length(delta)), low, high).reshape(shape)


def _length(delta: Array) -> jax.Array:
    """Euclidean length of each row, 1 for 0; scaled, so that squares of tiny gradients do not vanish."""
    tiny = jnp.finfo(delta.dtype).tiny
    scale = jnp.maximum(jnp.abs(delta).max(axis=1, keepdims=True), tiny)
    length = scale * jnp.sqrt(((delta / scale) ** 2).sum(axis=1, keepdims=True))
    return jnp.where(length > 0, length, jnp.ones_like(length))


def _pixels(x: Array) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)


def _rounded_toward(x: np.ndarray, wide: np.ndarray, most: np.ndarray | float) -> np.ndarray:
    """The nearest numbers of x's type that are no farther from x than these, nor than `most`."""
    near = wide.astype(x.dtype)
    moved = np.abs(_wide(near) - _wide(x))
    farther = (moved > np.abs(wide - _wide(x))) | (moved > most)
    return np.where(farther, np.nextafter(near, x), near)
