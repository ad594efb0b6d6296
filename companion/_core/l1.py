"""The L1 ball within the pixels' bounds: the projection onto both at once, and the steepest way in it."""

import jax
import jax.numpy as jnp
import numpy as np

from companion._core.types import Array, Scalar

_ROUNDS = 90  # of three, one halves the bracket; some eight are needed


def project(point: Array, x: Array, low: Array, high: Array, eps: Scalar) -> jax.Array:
    """The nearest point z with ‖z − x‖₁ ≤ ε and low ≤ z ≤ high.

    z_i − x_i = sign(δ_i) min(max(|δ_i| − λ, 0), room_i), room_i the way from x_i to the bound in the
    direction of δ = point − x, with the one λ ≥ 0 for which the lengths sum to ε, and λ = 0
    where they sum to less.
    Source: Croce & Hein (2021), arXiv 2103.01208, proposition 2.1.
    """
    delta = point - x
    size, room = _rows(jnp.abs(delta)), _rows(jnp.where(delta > 0, high - x, x - low))
    kept = jnp.clip(size - _excess(size, room, jnp.asarray(eps, size.dtype)), 0, room)
    return jnp.clip(x + jnp.sign(delta) * kept.reshape(delta.shape), low, high)


def _excess(size: Array, room: Array, eps: Array) -> jax.Array:
    """λ (m, 1). What is kept is piecewise linear in it and falls: Newton's method, in a bracket."""
    tiny = jnp.finfo(size.dtype).eps

    def one(state: tuple[Array, ...]) -> tuple[Array, ...]:
        i, least, largest, at, _ = state
        kept = jnp.clip(size - at, 0, room).sum(axis=1, keepdims=True)
        moving = ((size > at) & (size - at < room)).sum(axis=1, keepdims=True).astype(size.dtype)
        above = kept > eps
        least, largest = jnp.where(above, at, least), jnp.where(above, largest, at)
        near, narrow = jnp.abs(kept - eps) <= 32 * tiny * eps, largest - least <= tiny * largest
        newton, middle = at + (kept - eps) / jnp.maximum(moving, 1), (least + largest) / 2
        good = (moving > 0) & (newton > least) & (newton < largest) & (i % 3 < 2)
        following = jnp.where(narrow, largest, jnp.where(good, newton, middle))
        return i + 1, least, largest, jnp.where(near, at, following), near | narrow

    def going(state: tuple[Array, ...]) -> Array:
        return (state[0] < _ROUNDS) & ~state[-1].all()

    zero = jnp.zeros((len(size), 1), size.dtype)
    start = np.int32(0), zero, jnp.maximum(size.max(axis=1, keepdims=True), 0), zero, zero > 0
    return jax.lax.while_loop(going, one, start)[3]


def steepest(gradient: Array, now: Array, low: Array, high: Array, size: Scalar) -> jax.Array:
    """The δ with ‖δ‖₁ ≤ size and low ≤ now + δ ≤ high that gains most along a gradient.

    Pixels of the largest slope go first, each to its bound, the last as far as the length reaches.
    Source: Croce & Hein (2021), arXiv 2103.01208, proposition 2.2.
    """
    room = _rows(jnp.where(gradient > 0, high - now, jnp.where(gradient < 0, now - low, 0)))
    weight, size = _rows(jnp.abs(gradient)), jnp.broadcast_to(jnp.reshape(size, (-1,)), (len(room),))
    way = jax.vmap(filled)(weight, room, jnp.ones_like(room), size.astype(room.dtype))
    return jnp.sign(gradient) * way.reshape(gradient.shape)


def filled(weight: Array, room: Array, cost: Array, budget: Scalar) -> jax.Array:
    """How far each of d entries goes: to its room, the heaviest first, until Σ cost · way is the budget."""
    order = jnp.argsort(-weight)
    price = (cost * room)[order]
    before = jnp.cumsum(price) - price
    share = jnp.clip((budget - before) / jnp.where(price > 0, price, 1), 0, 1)
    return room * share[jnp.argsort(order)]


def _rows(array: Array) -> jax.Array:
    return array.reshape(len(array), -1)
