"""Auto-PGD: projected ascent with momentum that finds its step sizes itself."""

import functools
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion._core import l1
from companion._core.checks import count, random_key
from companion._core.compile import double
from companion._core.interrupt import deferred
from companion._core.types import Array, Key, LossFunction, Predict, Scalar
from companion.attacks import _apgd_l1, _apgd_steps
from companion.attacks._apgd_steps import TargetedLoss
from companion.attacks._ascent import Search
from companion.attacks._losses import loss_named, targeted_dlr
from companion.attacks._predict import as_partial, checked_inputs, in_batches, some_at_once
from companion.attacks._targets import likely_targets
from companion.attacks._threat import Threat, checked_threat

_State = _apgd_steps.State | _apgd_l1.State
_LOOK = 5  # steps between two looks at who is fooled, while there are some
_FEW = 0.95  # left at a look: few were fooled since the last


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

    L1 has its own: x ← Π(x + η · signs of the k largest slopes / k), Π onto ball and bounds at once, without
    momentum, within 3 ε for 30 % of the steps, within 2 ε for as many, then within ε. It starts where Π takes
    normal noise. At every checkpoint k becomes ‖x_best − x‖₀ / 1.5; η goes back to ε, and the search to
    the best point, where that has become sparser by 5 %; elsewhere η is divided by 1.5, down to ε / 10.
    Unlike the authors' program k is rounded down, to 1 at least, and pixels that would leave the bounds are
    passed over: with few pixels their steps come to rest short of the maximum.

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
    Source: Croce & Hein (2020), arXiv 2003.01690, algorithm 1; constants of section 3. For L1
    Croce & Hein (2021), arXiv 2103.01208, algorithm 1.

    >>> import jax.numpy as jnp
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


@functools.lru_cache
def _untargeted(loss: LossFunction) -> TargetedLoss:
    return lambda outputs, labels, _: loss(outputs, labels)


class _Search(Search):
    """A function under attack around clean inputs, and the best points found so far."""

    def starts(self, key: Key, restart: int) -> np.ndarray:
        """As for PGD; for L1 noise, which is projected where the search begins."""
        if self.threat.norm != "l1":
            return super().starts(key, restart)
        now = np.empty_like(self.x)
        for some in in_batches(np.arange(len(now)), self.batch_size):
            now[some] = _noisy(key, some, restart, self.x[some])
        return now

    def attempt(self, now: np.ndarray, targets: np.ndarray, steps: int) -> None:
        """All steps from these points, for L1 within larger balls first."""
        eps, todo = self.threat.eps, self.open(np.arange(len(now)))
        now = now[todo]
        for radius, number in _apgd_l1.stages(eps, steps) if self.threat.norm == "l1" else [(eps, steps)]:
            if len(todo):
                todo, now = self.climbed(todo, now, targets, number, radius)

    def climbed(
        self, todo: np.ndarray, now: np.ndarray, targets: np.ndarray, steps: int, eps: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Who is not fooled after all steps within ε, some at a time, and the points of largest loss."""
        rule = _apgd_l1 if self.threat.norm == "l1" else _apgd_steps
        state, decisions, counts = None, rule.checkpoints(steps), eps <= self.threat.eps
        options = {"eps": eps, "loss": self.loss, "norm": self.threat.norm}
        first, last = 0, min(_LOOK, steps)
        while first < steps:
            parts = []
            for some in in_batches(np.arange(len(todo)), self.batch_size):
                rows = todo[some]
                x = self.x[rows]
                fixed = x, self.low[rows], self.high[rows], self.labels[rows], targets[rows]
                take = functools.partial(rule.step, self.predict, **options)
                if state is None:
                    point = now[some]
                    if self.threat.norm == "l1":  # the balls shrink
                        point = np.asarray(_projected(point, *fixed[:3], eps))
                    one = rule.begun(point, x, self.best[rows], self.score[rows], eps)
                    one = take(one, *fixed, first=True)  # nowhere, and looks
                else:
                    one = jax.tree.map(lambda leaf, some=some: leaf[some], state)
                for step in range(first, last):
                    one = take(one, *fixed, first=step == 0)
                    if step + 1 in decisions:
                        since = step + 1 - max([0, *(at for at in decisions if at <= step)])
                        one = rule.decided(one, x, since, eps)
                one = jax.tree.map(np.asarray, one)
                if counts:
                    self.best[rows], self.score[rows] = one.found, one.score
                parts.append((some, one))
            state = _joined(parts, len(todo))
            left = ~(self.score[todo] > 0)
            todo, state = todo[left], jax.tree.map(lambda leaf, left=left: leaf[left], state)
            if not len(todo):
                break
            # Looking costs copies of the state, not looking steps of what is fooled: rarely where few are.
            look = 2 * (last - first) if left.mean() > _FEW else _LOOK
            first, last = last, min(last + look, steps)
        return todo, state.best


_projected = jax.jit(l1.project)


@jax.jit
def _noisy(key: Key, index: Array, restart: Scalar, x: Array) -> Array:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, restart)
    row = jax.vmap(lambda key: jax.random.normal(key, (x[0].size,), np.float32))(keys)
    return x + row.reshape(x.shape).astype(x.dtype)


def _joined(parts: list[tuple[np.ndarray, _State]], n: int) -> _State:
    whole = jax.tree.map(lambda leaf: np.empty((n, *leaf.shape[1:]), leaf.dtype), parts[0][1])
    for some, one in parts:
        for target, leaf in zip(whole, one, strict=True):
            target[some] = leaf
    return whole
