"""Fast adaptive boundary: the smallest perturbation that changes the class, for a whole curve over ε."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Bool, Float, Int
from tqdm.auto import tqdm

from companion._core import geometry, l1
from companion._core.checks import count, number, one_of, predicted
from companion._core.compile import double
from companion._core.interrupt import deferred
from companion._core.shown import brief
from companion._core.types import Array, Predict, Scalar
from companion.attacks._losses import progress_of
from companion.attacks._predict import as_partial, checked_inputs, in_batches, outputs_of
from companion.attacks._targets import likely_targets, toward
from companion.attacks._threat import NORMS, Threat

# α_max, η and β of the paper: how far back to the input, how far over the boundary, how far back once fooled.
_BACK, _OVER, _INWARD = 0.1, 1.05, 0.9
_NEWTON = 16  # steps to the hyperplane at most; of 784 pixels some six are needed
_EXACT = 1e-6  # the last one moves by less than this share
_ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


@dataclass(frozen=True, eq=False)
class Smallest:
    """The smallest perturbations that an attack found.

    Attributes:
        attacked: inputs just over the boundary (m, ...); x itself where none was found.
        distance: ‖attacked − x‖ (m,), 0 where x is classified wrongly, infinity where none was found. Each is
            an upper bound of the distance to the boundary.
    """

    attacked: Float[np.ndarray, "m ..."]
    distance: Float[np.ndarray, " m"]

    __repr__ = brief

    def fooled(self, eps: float) -> Bool[np.ndarray, " m"]:
        """Which inputs are fooled within ε."""
        return self.distance <= eps


@deferred()
def fab(
    predict: Predict,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    *,
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 1.0),
    steps: int = 100,
    targets: int = 9,
    enough: float | int = 0.0,
    batch_size: int = 256,
    progress: bool = False,
) -> Smallest:
    """Targeted FAB: to the linearized boundary with each wrong class, and back toward the input.

    With w = ∇(f_t − f_y) at the point z: d₁ and d₂ are the shortest ways from z and from x to the hyperplane
    (f_t − f_y)(z) + ⟨w, · − z⟩ = 0 within the pixels' bounds, and z ← Π((1 − α)(z + η d₁) + α (x + η d₂)),
    α = min(‖d₁‖ / (‖d₁‖ + ‖d₂‖), α_max). Where z is fooled and nearer than before it is kept, and then z ←
    x + β (z − x). At the end the boundary between x and what was kept is found by bisection.

    Args:
        predict: as for `pgd`.
        x: clean inputs (m, ...).
        labels: classes (m,).
        norm: "linf", "l2" or "l1", what is to be small.
        bounds: of the pixels.
        steps: for each wrong class, ≥ 1.
        targets: how many wrong classes are tried, those of the largest outputs at x first.
        enough: an example whose distance is at most this is left alone from then on.
        batch_size: examples at once.
        progress: show a tqdm bar over examples and steps.

    Returns:
        Points and distances; `robust_curve` makes robust accuracy over all ε of them.

    Raises:
        TypeError, ValueError: as `pgd`.

    Cost: a gradient and an evaluation for each step, example and target.
    Source: Croce & Hein (2020), arXiv 1907.02044, algorithm 1; targeted as in arXiv 2003.01690, section 4.

    >>> found = fab(lambda x: x @ jnp.ones((2, 1)) - 0.6, np.full((1, 2), 0.5, np.float32), np.array([1]))
    >>> found.distance.round(3)
    array([0.2], dtype=float32)
    """
    steps, targets, batch_size = (
        count("steps", steps), count("targets", targets), count("batch_size", batch_size),
    )  # fmt: skip
    one_of("norm", norm, NORMS)
    bounds = Threat(norm, 0.0, bounds).bounds
    enough = number("enough", enough)
    x, labels = checked_inputs(predict, x, labels, bounds)
    with double(x, predict):
        predict, batch_size = as_partial(predict), min(batch_size, len(x))
        wanted = likely_targets(predict, x, labels, targets, batch_size)
        best, distance = x.copy(), np.full(len(x), np.inf, x.dtype)
        distance[_wrong(predict, x, labels, batch_size)] = 0
        with tqdm(total=len(x) * wanted.shape[1], desc="FAB", unit="targets", disable=not progress) as bar:
            for goal in wanted.T:
                todo = np.flatnonzero(distance > enough)
                for some in in_batches(todo, batch_size) if len(todo) else ():
                    fixed = x[some], labels[some], goal[some], *bounds
                    now = x[some], best[some], distance[some]
                    for _ in range(steps):
                        now = _step(predict, *now, *fixed, norm=norm)
                    best[some], distance[some] = now[1], now[2]
                bar.update(len(x))
        if np.isnan(distance).any():
            raise ValueError("predict returned NaN, or its gradient did")
        found = np.isfinite(distance) & (distance > 0)
        best[found] = _bisected(predict, best[found], x[found], labels[found], batch_size)
        distance[found] = _lengths((best - x)[found], norm)
        return Smallest(best, distance)


def _lengths(delta: np.ndarray, norm: str) -> np.ndarray:
    flat = delta.reshape(len(delta), math.prod(delta.shape[1:]))
    return np.linalg.norm(flat, ord=_ORDER[norm], axis=1)


def _wrong(predict: Partial, x: np.ndarray, labels: np.ndarray, batch_size: int) -> np.ndarray:
    return predicted(outputs_of(predict, x, batch_size)) != labels


@functools.partial(jax.jit, static_argnames="norm")
def _step(
    predict: Partial,
    now: Array,
    best: Array,
    distance: Array,
    x: Array,
    labels: Array,
    targets: Array,
    low: Scalar,
    high: Scalar,
    *,
    norm: str,
) -> tuple[Array, Array, Array]:
    def total(point: Array) -> tuple[Array, Array]:
        value = toward(predict(point), labels, targets)
        return value.sum(), value

    with jax.default_matmul_precision("highest"):
        gradient, value = jax.grad(total, has_aux=True)(now)
        flat = [array.reshape(len(x), -1) for array in (now, x, gradient)]
        ways = jax.vmap(functools.partial(_ways, norm=norm), (0, 0, 0, 0, None, None))
        here, there = (way.reshape(x.shape) for way in ways(*flat, value, low, high))
        lengths = [_length(way, norm) for way in (here, there)]
        share = jnp.minimum(lengths[0] / jnp.maximum(lengths[0] + lengths[1], 1e-12), _BACK)
        share = share.reshape(-1, *[1] * (x.ndim - 1))
        moved = jnp.clip((1 - share) * (now + _OVER * here) + share * (x + _OVER * there), low, high)
        outputs = predict(moved)
        fooled = progress_of(outputs, labels, targeted=False) > 0
    parts = outputs, value, gradient
    broken = [jnp.isnan(one).reshape(len(x), -1).any(axis=1) for one in parts]
    length = _length(moved - x, norm)
    nearer = fooled & (length < distance)
    best = geometry.chosen(nearer, moved, best)
    distance = jnp.where(nearer, length, distance)
    distance = jnp.where(broken[0] | broken[1] | broken[2], jnp.nan, distance)  # and stays so, to be told of
    return geometry.chosen(fooled, x + _INWARD * (moved - x), moved), best, distance


def _length(way: Array, norm: str) -> Array:
    flat = way.reshape(len(way), -1)
    return jnp.linalg.norm(flat, ord=_ORDER[norm], axis=1)


def _ways(
    now: Array, x: Array, gradient: Array, value: Array, low: Scalar, high: Scalar, *, norm: str
) -> tuple[Array, Array]:
    """The shortest ways from the point and from x to the linearized boundary (one example)."""
    at_x = value + gradient @ (x - now)
    return to_plane(now, gradient, value, low, high, norm), to_plane(x, gradient, at_x, low, high, norm)


def to_plane(point: Array, w: Array, value: Array, low: Scalar, high: Scalar, norm: str) -> Array:
    """The shortest δ with value + ⟨w, δ⟩ = 0 and low ≤ point + δ ≤ high; as far as one can if there is none.

    Every pixel j moves by min(t c_j, room_j) in the direction that helps, c_j = 1 (L∞) or |w_j| (L2), with
    one t for all. What that gains, Σ |w_j| min(t c_j, room_j), is concave in t and piecewise linear: Newton's
    method from t = 0 never goes too far, and ends where no more pixel meets its bound. In L1 the pixels of
    the largest |w_j| go to their bounds, one after the other, until it is reached.
    """
    sign, weight = -jnp.sign(value) * jnp.sign(w), jnp.abs(w)
    if norm == "l1":
        room = jnp.where(sign > 0, high - point, jnp.where(sign < 0, point - low, 0))
        return sign * l1.filled(weight, room, weight, jnp.abs(value))
    speed = jnp.where(weight > 0, jnp.ones_like(w) if norm == "linf" else weight, 0)
    room = jnp.where(sign > 0, high - point, point - low)

    def newton(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, t, _ = state
        gained = (weight * jnp.minimum(t * speed, room)).sum()
        slope = jnp.where(t * speed < room, weight * speed, 0).sum()
        missing = jnp.maximum(jnp.abs(value) - gained, 0)
        more = jnp.where(slope > 0, missing / jnp.where(slope > 0, slope, 1), 0)
        return i + 1, t + more, more > _EXACT * t

    def going(state: tuple[Array, Array, Array]) -> Array:
        i, _, moved = state
        return moved & (i < _NEWTON)

    start = np.int32(0), jnp.zeros((), w.dtype), np.True_
    t = jax.lax.while_loop(going, newton, start)[1]
    return sign * jnp.minimum(t * speed, room)


def _bisected(
    predict: Partial, good: np.ndarray, x: np.ndarray, labels: np.ndarray, batch_size: int
) -> np.ndarray:
    """The point nearest to x, of ten halvings of the way, that is still fooled."""
    bad = x
    for _ in range(10 * bool(len(x))):
        middle = (good + bad) / 2
        fooled = _wrong(predict, middle, labels, batch_size).reshape(-1, *[1] * (x.ndim - 1))
        good, bad = np.where(fooled, middle, good), np.where(fooled, bad, middle)
    return good
