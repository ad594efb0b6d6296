"""What a query of the square attack changes: signs in a square (L∞), or where the length goes (L2, L1)."""

import jax
import jax.numpy as jnp
import numpy as np

from companion._core import geometry
from companion._core.types import Array, Key, Scalar


class LinfMoves:
    """Perturbations are booleans: which pixels are at the upper end of their range; others at the lower."""

    def __init__(self, low: Array, high: Array) -> None:
        self.low, self.high = low, high

    def begun(self, keys: Key) -> Array:
        """Vertical stripes, of a random sign for each column and channel."""
        height, width, channels = self.low.shape[1:]

        def stripes(key: Key) -> Array:
            signs = geometry.signs(jax.random.fold_in(key, 0), (1, width, channels))
            return jnp.broadcast_to(signs, (height, width, channels))

        return jax.vmap(stripes)(keys)

    def side(self, side: Scalar) -> Scalar:
        """The side of a square, from one pixel on."""
        return jnp.clip(side, 1, min(self.low.shape[1:3])).astype(np.int32)

    def moved(self, keys: Key, side: Scalar, up: Array) -> Array:
        """One random sign a channel in a random square."""
        height, width, channels = self.low.shape[1:]

        def one(key: Key, up: Array) -> Array:
            bits = jax.random.bits(key, (2 + channels,), np.uint32)
            inside = _inside(*_corner(bits[:2], side, height, width), side, height, width)
            return jnp.where(inside[..., None], _sign(bits[2:]), up)

        return jax.vmap(one)(keys, up)

    def placed(self, up: Array) -> Array:
        """The images."""
        return jnp.where(up, self.high, self.low)


class BumpMoves:
    """Perturbations are arrays, in L2 scaled to ε and cut at the pixels' bounds, in L1 projected."""

    def __init__(self, norm: str, x: Array, low: Array, high: Array, eps: Scalar) -> None:
        self.norm, self.x, self.low, self.high, self.eps = norm, x, low, high, jnp.asarray(eps, x.dtype)

    def begun(self, keys: Key) -> Array:
        """A grid of bumps, each of a fifth of the height, of random sign in each channel."""
        height, width, channels = self.x.shape[1:]
        size = height // 5
        down, across = height // size, width // size
        top = left = (height - size * 5) // 2

        def one(key: Key) -> Array:
            turned, signs = jax.random.split(jax.random.fold_in(key, 0))
            flips = geometry.signs(turned, (down, across))
            signs = jnp.where(geometry.signs(signs, (down, across, channels)), 1.0, -1.0)
            bump = bump_of(size, size, size, norm=self.norm)
            cells = jnp.where(flips[..., None, None], bump.T, bump)[..., None] * signs[:, :, None, None, :]
            grid = cells.transpose(0, 2, 1, 3, 4).reshape(down * size, across * size, channels)
            found = jnp.zeros((height + size * down, width + size * across, channels), self.x.dtype)
            found = jax.lax.dynamic_update_slice(found, grid.astype(self.x.dtype), (top, left, 0))
            return found[:height, :width]

        return self._fitted(jax.vmap(one)(keys))

    def side(self, side: Scalar) -> Scalar:
        """The side of a square: odd, and three at least."""
        side = jnp.maximum(side, 3)
        side = side + (side % 2 == 0)
        least = min(self.x.shape[1:3])
        return jnp.minimum(side, least - (least % 2 == 0)).astype(np.int32)

    def moved(self, keys: Key, side: Scalar, found: Array) -> Array:
        """A bump is added in one random square; another random square gives its length."""
        height, width, channels = self.x.shape[1:]
        # All squares have one side: the two patterns are made once, and each image cuts out its own.
        patterns = [bump_of(side, height, width, turned=turned, norm=self.norm) for turned in (False, True)]
        bumps = jnp.stack(patterns)
        bumps = jnp.pad(bumps, ((0, 0), (height, 0), (width, 0)))

        power = _POWER[self.norm]

        def sizes(part: Array) -> Array:
            return (jnp.abs(part) ** power).sum(axis=(0, 1))

        def one(key: Key, delta: Array) -> Array:
            bits = jax.random.bits(key, (5 + channels,), np.uint32)
            corner, other = (_corner(bits[i : i + 2], side, height, width) for i in (0, 2))
            here = _inside(*corner, side, height, width)[..., None]
            there = _inside(*other, side, height, width)[..., None]
            both, old = sizes(jnp.where(here | there, delta, 0)), jnp.where(here, delta, 0)
            old = old / jnp.maximum(sizes(old) ** (1 / power), 1e-12)
            signs = jnp.where(_sign(bits[5:]), 1.0, -1.0).astype(delta.dtype)
            first = _sign(bits[4]).astype(np.int32), height - corner[0], width - corner[1]
            bump = jax.lax.dynamic_slice(bumps, first, (1, height, width))[0, ..., None] * signs
            new = old + jnp.where(here, bump, 0)
            missing = jnp.maximum(self.eps**power - sizes(delta).sum(), 0)
            length = (missing / channels + both) ** (1 / power)
            # In L1 more than the ball holds, so that the projection leaves the largest.
            length = length * channels if power == 1 else length
            new = new / jnp.maximum(sizes(new) ** (1 / power), 1e-12) * length
            return jnp.where(here, new, jnp.where(there, 0, delta)).astype(delta.dtype)

        return self._fitted(jax.vmap(one)(keys, found))

    def _fitted(self, found: Array) -> Array:
        """Within ball and bounds."""
        if self.norm == "l1":
            return self._cut("l1", found) - self.x
        row = geometry.rows(found, 4)
        length = jnp.sqrt((row**2).sum(axis=1, keepdims=True))
        return self._cut("linf", (row * self.eps / jnp.maximum(length, 1e-12)).reshape(found.shape)) - self.x

    def _cut(self, norm: str, found: Array) -> Array:
        return geometry.project(norm, self.x + found, self.x, self.low, self.high, self.eps)

    def placed(self, found: Array) -> Array:
        """The images."""
        return self._cut("linf", found)


_POWER = {"l2": 2, "l1": 1}


def _sign(bits: Array) -> Array:
    return bits >= np.uint32(1 << 31)


def _corner(bits: Array, side: Scalar, height: int, width: int) -> tuple[Array, Array]:
    # Sixteen random bits times the number of places; the upper half counts. It takes less than randint.
    places = (jnp.asarray((height, width)) - side + 1).astype(np.uint32)
    top, left = ((bits >> 16) * places >> 16).astype(np.int32)
    return top, left


def _inside(top: Scalar, left: Scalar, side: Scalar, height: int, width: int) -> Array:
    row, column = jnp.arange(height)[:, None], jnp.arange(width)
    return (row >= top) & (row < top + side) & (column >= left) & (column < left + side)


def bump_of(
    side: Scalar,
    height: int,
    width: int,
    top: Scalar = 0,
    left: Scalar = 0,
    *,
    turned: bool = False,
    norm: str = "l2",
) -> Array:
    """Two opposite bumps, one above the other, in a square of an image (height, width); its norm is 1.

    Each fills half of the square, and falls off around its center: where the larger of the distances in rows
    and columns is D the value is Σ_{t ≥ D} 1 / (t + 1)², t up to the half's larger half side; for
    L1 1 / (t + 1)⁴.
    """
    row, column = jnp.arange(height)[:, None] - top, jnp.arange(width) - left
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    if turned:
        row, column = column, row
    power, half = _POWER[norm], side // 2
    lower = row >= half
    rows = jnp.where(lower, side - half, half)
    far = jnp.maximum(jnp.abs(row - jnp.where(lower, half, 0) - rows // 2), jnp.abs(column - side // 2))
    most = jnp.maximum(rows // 2 + 1, side // 2 + 1)
    tail = jnp.cumsum(1 / jnp.arange(1, height + width + 2, dtype=np.float32) ** (4 // power))
    sums = jnp.concatenate([jnp.zeros(1, np.float32), tail])
    last = len(sums) - 1
    value = sums[jnp.clip(most, 0, last)] - sums[jnp.clip(far, 0, last)]
    value = jnp.where(inside & (far < most), value, 0)

    def length(part: Array) -> Array:
        return (jnp.abs(part) ** power).sum() ** (1 / power)

    lengths = [length(jnp.where(part, value, 0)) for part in (lower, ~lower)]
    value = jnp.where(lower, -value / jnp.maximum(lengths[0], 1e-12), value / jnp.maximum(lengths[1], 1e-12))
    return value / jnp.maximum(length(value), 1e-12)
