"""Auto-PGD: projected ascent with momentum that finds its step sizes itself."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion._core import geometry
from companion._core.checks import count, random_key
from companion._core.compile import double
from companion._core.interrupt import deferred
from companion._core.types import Array, Key, LossFunction, Predict, Scalar
from companion.attacks._ascent import Search
from companion.attacks._losses import loss_named, progress_of, targeted_dlr
from companion.attacks._predict import as_partial, checked_inputs, in_batches, some_at_once
from companion.attacks._targets import likely_targets
from companion.attacks._threat import Threat, checked_threat

_MOMENTUM, _RISING = 0.75, 0.75  # α and ρ of the paper
_LOOK = 5  # steps between two looks at who is fooled


@deferred()
def apgd(
    predict: Predict,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    key: Key,
    steps: int = 100,
    loss: Literal["cross_entropy", "dlr", "margin", "squared", "targeted_dlr"]
    | LossFunction = "cross_entropy",
    targets: int = 9,
    restarts: int = 1,
    batch_size: int | None = None,
    progress: bool = False,
) -> Float[np.ndarray, "m ..."]:
    """Auto-PGD: x ← Π(x + ¾ (z − x) + ¼ (x − x_before)), z = Π(x + η · ascent direction), finding η itself.

    η starts at 2 ε. At checkpoints after 22, 41, 57, … of 100 steps it is halved, and the search goes on from
    the best point, where the loss rose in fewer than three quarters of the steps since the last checkpoint,
    or where η stayed and the best loss did too.

    Args:
        predict: as for `pgd`.
        x: clean inputs (m, ...).
        labels: classes (m,).
        threat: norm, eps and bounds.
        key: a JAX random key; starts depend on it, the example's place in x and the attempt alone.
        steps: gradient steps of an attempt, ≥ 1.
        loss: what is to rise: as for `pgd`; or "targeted_dlr", toward one wrong class after the other.
        targets: how many wrong classes "targeted_dlr" tries, those of the largest outputs at x first.
        restarts: attempts, for each target.
        batch_size: examples at once, of those not yet fooled; None: 64 on a CPU, 256 elsewhere.
        progress: show a tqdm bar over examples and steps.

    Returns:
        Attacked inputs: of each example the point that does best of all that were visited, x too. One that is
        fooled is left alone from then on. Ball and bounds hold exactly.

    Raises:
        TypeError, ValueError: as `pgd`.

    Cost: at most `restarts` · `steps` gradients of predict for each example, times the targets.
    Source: Croce & Hein (2020), arXiv 2003.01690, algorithm 1; constants of section 3.

    >>> attacked = apgd(lambda x: x @ jnp.ones((2, 1)), np.full((1, 2), 0.5, np.float32), np.array([1]),
    ...     Threat("linf", 0.25), key=jax.random.key(0), steps=5)
    >>> attacked
    array([[0.25, 0.25]], dtype=float32)
    """
    steps, restarts, targets = count("steps", steps), count("restarts", restarts), count("targets", targets)
    batch_size = some_at_once(batch_size)
    random_key("key", key)
    aimed = loss == "targeted_dlr"
    bounds = checked_threat(threat).bounds
    x, labels = checked_inputs(predict, x, labels, bounds, loss="dlr" if aimed else loss)
    with double(x, predict):
        batch_size = min(batch_size, len(x))
        if aimed:
            wanted, rises = likely_targets(predict, x, labels, targets, batch_size), targeted_dlr
        else:
            wanted, rises = labels[:, None], _untargeted(loss_named(loss))
        options = {"loss": rises, "targeted": False, "batch_size": batch_size}
        search = _Search(as_partial(predict), x, labels, threat, **options)
        search.settle(x, np.arange(len(x)))
        total = len(x) * steps * restarts * wanted.shape[1]
        with tqdm(total=total, desc="APGD", unit="steps", disable=not progress) as bar:
            for attempt in range(restarts * wanted.shape[1]):
                now = search.starts(key, attempt)
                search.attempt(now, wanted[:, attempt % wanted.shape[1]], steps)
                bar.update(len(x) * steps)
        return search.found()


TargetedLoss = Callable[[Array, Array, Array], Array]  # outputs, labels, targets


@functools.lru_cache
def _untargeted(loss: LossFunction) -> TargetedLoss:
    return lambda outputs, labels, _: loss(outputs, labels)


class _State(NamedTuple):
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


class _Search(Search):
    """A function under attack around clean inputs, and the best points found so far."""

    def attempt(self, now: np.ndarray, targets: np.ndarray, steps: int) -> None:
        """All steps from these points, some at a time, so that who is fooled drops out."""
        todo = self.open(np.arange(len(now)))
        state = None
        decisions = checkpoints(steps)
        for first, last in _stretches(steps, decisions):
            if not len(todo):
                return
            parts = []
            for some in in_batches(np.arange(len(todo)), self.batch_size):
                rows = todo[some]
                fixed = self.x[rows], self.low[rows], self.high[rows], self.labels[rows], targets[rows]
                take = functools.partial(
                    _step, self.predict, eps=self.threat.eps, loss=self.loss, norm=self.threat.norm
                )
                if state is None:
                    one = _begun(now[rows], self.best[rows], self.score[rows], self.threat.eps)
                    one = take(one, *fixed, momentum=1.0)  # nowhere, and looks
                else:
                    one = jax.tree.map(lambda leaf, some=some: leaf[some], state)
                for step in range(first, last):
                    one = take(one, *fixed, momentum=1.0 if step == 0 else _MOMENTUM)
                if last in decisions:
                    since = last - max([0, *(at for at in decisions if at < last)])
                    one = _decided(one, since)
                one = jax.tree.map(np.asarray, one)
                self.best[rows], self.score[rows] = one.found, one.score
                parts.append((some, one))
            state = _joined(parts, len(todo))
            left = ~(self.score[todo] > 0)
            todo, state = todo[left], jax.tree.map(lambda leaf, left=left: leaf[left], state)


def _stretches(steps: int, decisions: list[int]) -> Iterator[tuple[int, int]]:
    """First and last step of the stretches between two looks or decisions."""
    ends = sorted({*range(_LOOK, steps, _LOOK), *decisions, steps})
    return zip([0, *ends[:-1]], ends, strict=True)


def _joined(parts: list[tuple[np.ndarray, _State]], n: int) -> _State:
    whole = jax.tree.map(lambda leaf: np.empty((n, *leaf.shape[1:]), leaf.dtype), parts[0][1])
    for some, one in parts:
        for target, leaf in zip(whole, one, strict=True):
            target[some] = leaf
    return whole


def _evaluated(
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


def _begun(now: np.ndarray, found: np.ndarray, score: np.ndarray, eps: float) -> _State:
    """Before the first look: a step from here has no direction, and whatever it sees is the best so far."""
    n, nothing = len(now), np.zeros_like(now)
    worst = np.full(n, -np.inf, now.dtype)
    size = np.full((n, *[1] * (now.ndim - 1)), 2 * eps, now.dtype)
    # The first look is no rise; and a first checkpoint must not find the best value unchanged because it is
    # where the search began.
    rises, halved = np.full(n, -1, np.int32), np.ones(n, bool)
    best = now, worst, nothing
    return _State(now, now, worst, nothing, *best, size, rises, halved, worst, found, score)


def _better(point: Array, here: Array, found: Array, score: Array) -> tuple[Array, Array]:
    # One that is fooled stays as it is; NaN stays too, to be told of.
    improved = (here > score) & ~(score > 0)
    wide = improved.reshape(-1, *[1] * (point.ndim - 1))
    return jnp.where(wide, point, found), jnp.where(score > 0, score, jnp.maximum(here, score))


@functools.partial(jax.jit, static_argnames=("loss", "norm"))
def _step(
    predict: Partial,
    s: _State,
    x: Array,
    low: Array,
    high: Array,
    labels: Array,
    targets: Array,
    *,
    eps: Scalar,
    momentum: Scalar,
    loss: TargetedLoss,
    norm: str,
) -> _State:
    eps, momentum = jnp.asarray(eps, x.dtype), jnp.asarray(momentum, x.dtype)
    ahead = geometry.step(norm, s.gradient, s.now, x, low, high, s.size, eps)
    moved = s.now + momentum * (ahead - s.now) + (1 - momentum) * (s.now - s.before)
    moved = geometry.project(norm, moved, x, low, high, eps)
    value, gradient, here = _evaluated(predict, moved, labels, targets, loss)
    found, score = _better(moved, here, s.found, s.score)
    better = value > s.best_value
    wide = better.reshape(-1, *[1] * (x.ndim - 1))
    return s._replace(
        now=moved,
        before=s.now,
        value=value,
        gradient=gradient,
        best=jnp.where(wide, moved, s.best),
        best_value=jnp.where(better, value, s.best_value),
        best_gradient=jnp.where(wide, gradient, s.best_gradient),
        rises=s.rises + (value > s.value),
        found=found,
        score=score,
    )


@jax.jit
def _decided(s: _State, since: Scalar) -> _State:
    """Halve the step size where the loss oscillates or has not improved, and go on from the best point."""
    halve = (s.rises < _RISING * since) | (~s.halved & (s.best_value <= s.held))
    wide = halve.reshape(-1, *[1] * (s.now.ndim - 1))
    return s._replace(
        now=jnp.where(wide, s.best, s.now),
        value=jnp.where(halve, s.best_value, s.value),
        gradient=jnp.where(wide, s.best_gradient, s.gradient),
        size=jnp.where(wide, s.size / 2, s.size),
        rises=jnp.zeros_like(s.rises),
        halved=halve,
        held=s.best_value,
    )
