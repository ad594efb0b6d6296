"""Projected ascent on many examples, in one compiled loop or step by step where successes drop out."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from companion._core import geometry
from companion._core.types import Array, Key, LossFunction, Scalar
from companion.attacks._losses import progress_of
from companion.attacks._predict import compiled_outputs, in_batches
from companion.attacks._threat import Threat

Progress = Callable[[int], object]  # told how many steps of one example were done or saved
_State = tuple[Array, Array, Array]  # points, the best so far, and how well they do


def attempt(
    search: "Search", now: np.ndarray, sizes: float | np.ndarray, steps: int, keep: bool, done: Progress
) -> None:
    """All steps of every example, in one compiled loop."""
    everyone = np.arange(len(now))
    search.advance(now, everyone, None if steps == 1 else steps, sizes, keep, done)
    search.settle(now, everyone)


def until_fooled(
    search: "Search", now: np.ndarray, sizes: float | np.ndarray, steps: int, done: Progress
) -> None:
    """Step by step: who is fooled is left alone from then on."""
    todo = search.open(np.arange(len(now)))
    done(steps * (len(now) - len(todo)))
    for step, size in enumerate(np.broadcast_to(sizes, steps)):
        search.advance(now, todo, None, float(size), True, done)
        if step == 0 and size >= search.threat.eps and steps > 1:
            search.settle(now, todo)  # such a step fools most, and to look costs half a gradient
        left = search.open(todo)
        done((steps - step - 1) * (len(todo) - len(left)))
        todo = left
    search.settle(now, todo)


class Search:
    """A function under attack around clean inputs, and the best points found so far."""

    def __init__(
        self,
        predict: Partial,
        x: np.ndarray,
        labels: np.ndarray,
        threat: Threat,
        *,
        loss: LossFunction,
        targeted: bool,
        batch_size: int,
    ) -> None:
        self.predict, self.x, self.labels, self.threat = predict, x, labels, threat
        self.loss, self.targeted, self.batch_size = loss, targeted, batch_size
        self.low, self.high = geometry.box(threat, x)
        self.best, self.score = x.copy(), np.full(len(x), -np.inf, x.dtype)

    def starts(self, key: Key, restart: int) -> np.ndarray:
        """Starting points that depend on the key, the example's place in x and the attempt alone."""
        found, arrays = np.empty_like(self.x), (self.x, self.low, self.high)
        for some in in_batches(np.arange(len(found)), self.batch_size):
            found[some] = _start(
                key, some, restart, self.threat.eps, *(array[some] for array in arrays), norm=self.threat.norm
            )
        return found

    def advance(
        self,
        now: np.ndarray,
        which: np.ndarray,
        steps: int | None,
        sizes: float | np.ndarray,
        keep: bool,
        done: Progress,
    ) -> None:
        """Move these examples' points on, None for one step; with `keep` look at where they were."""
        arrays = now, self.best, self.score, self.x, self.low, self.high, self.labels
        options = {"loss": self.loss, "targeted": self.targeted, "norm": self.threat.norm}
        for some in in_batches(which, self.batch_size):
            now[some], self.best[some], self.score[some] = _advance(
                self.predict,
                *(array[some] for array in arrays),
                steps,
                sizes,
                self.threat.eps,
                keep,
                **options,
            )
            done((steps or 1) * len(np.unique(some)))

    def settle(self, points: np.ndarray, which: np.ndarray) -> None:
        """Look at these examples' points."""
        arrays = points, self.best, self.score, self.labels
        for some in in_batches(which, self.batch_size):
            now, *others = (array[some] for array in arrays)
            outputs = compiled_outputs(self.predict, now)
            self.best[some], self.score[some] = _better(now, outputs, *others, targeted=self.targeted)

    def open(self, which: np.ndarray) -> np.ndarray:
        """Which of these are not yet fooled."""
        return which[~(self.score[which] > 0)]

    def found(self) -> np.ndarray:
        """The best points, within the ball to the last bit; or an error where there was NaN."""
        if bad := int((~np.isfinite(self.score) | np.isnan(self.best).reshape(len(self.x), -1).any(1)).sum()):
            raise ValueError(
                f"predict returned NaN for {bad} of {len(self.x)} examples, or infinity, or its gradient did"
            )
        return geometry.inside(self.threat, self.x, self.best) if self.threat.norm != "linf" else self.best


@functools.partial(jax.jit, static_argnames="norm")
def _start(
    key: Key,
    index: Array,
    restart: Scalar,
    eps: Scalar,
    x: Array,
    low: Array,
    high: Array,
    *,
    norm: str,
) -> Array:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, restart)
    return geometry.start(norm, eps, keys, x, low, high)


@functools.partial(jax.jit, static_argnames=("loss", "targeted", "norm"))
def _advance(
    predict: Partial,
    now: Array,
    best: Array,
    score: Array,
    x: Array,
    low: Array,
    high: Array,
    labels: Array,
    steps: Scalar | None,
    sizes: Scalar,
    eps: Scalar,
    keep: Scalar,
    *,
    loss: LossFunction,
    targeted: bool,
    norm: str,
) -> _State:
    """Some steps, None for one; with `keep` also the best of the points from which they were taken.

    The number of steps of one size is traced: 10 and 40 share their compiled code.
    """
    sizes, eps = jnp.asarray(sizes, x.dtype), jnp.asarray(eps, x.dtype)

    def total(point: Array) -> tuple[Array, Array]:
        outputs = predict(point)
        return loss(outputs, labels).sum() * (-1 if targeted else 1), outputs

    def one(i: Scalar, state: _State) -> _State:
        now, best, score = state
        size = sizes[i] if sizes.ndim else sizes
        gradient, outputs = jax.grad(total, has_aux=True)(now)
        better, higher = _better(now, outputs, best, score, labels, targeted=targeted)
        kept = jnp.broadcast_to(keep, score.shape)
        best, score = geometry.chosen(kept, better, best), jnp.where(keep, higher, score)
        return geometry.step(norm, gradient, now, x, low, high, size, eps), best, score

    with jax.default_matmul_precision("highest"):
        state = now, best, score
        # Outside a loop convolutions run on all cores.
        return one(0, state) if steps is None else jax.lax.fori_loop(0, steps, one, state)


@functools.partial(jax.jit, static_argnames="targeted")
def _better(
    now: Array, outputs: Array, best: Array, score: Array, labels: Array, *, targeted: bool
) -> tuple[Array, Array]:
    reached = progress_of(outputs, labels, targeted=targeted).astype(score.dtype)
    return geometry.chosen(reached > score, now, best), jnp.maximum(reached, score)
