"""Gradient attacks: projected ascent, in one compiled loop or step by step where successes drop out."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion._core import geometry
from companion._core.checks import count, number, random_key
from companion._core.compile import double
from companion._core.interrupt import deferred
from companion.attacks._losses import Loss, loss_named, progress_of
from companion.attacks._predict import as_partial, checked_inputs, in_batches
from companion.attacks._threat import Threat


@deferred()
def pgd(
    predict: Callable[..., Any],
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    steps: int = 10,
    step_size: float | Sequence[float] | np.ndarray | None = None,
    loss: Loss = "margin",
    targeted: bool = False,
    key: Any = None,
    restarts: int = 1,
    early_stop: bool = False,
    best_iterate: bool = True,
    batch_size: int = 256,
    progress: bool = False,
) -> Float[np.ndarray, "m ..."]:
    """Projected gradient ascent on a loss of the outputs: the strongest of the simple attacks.

    x ← Π(x + s · sign ∇ₓ loss) for the L∞ ball and Π(x + s · ∇ₓ loss / ‖∇ₓ loss‖₂) for the L2 ball, where Π
    goes back into the ball *around the clean input* and into the pixels' bounds, at every step.

    Args:
        predict: any function of inputs (m, ...) with outputs (m, k) that JAX can differentiate, each output
            from its own input alone: a kernel predictor, one feature of it, a network. Compiled code is kept
            from call to call for pytrees, such as `regression.fit(...)` or `Partial(apply, params)` of
            `jax.tree_util`, and for what `kernels.keep_compiled` marked (what such a function reads besides
            its arguments is frozen), and made anew for any other.
        x: clean inputs (m, ...), within the threat's bounds.
        labels: their classes (m,): 0 or 1 for one output, else in [0, k). Wanted classes if `targeted`.
        threat: norm, eps and bounds.
        steps: gradient steps of an attempt, ≥ 1.
        step_size: s ≥ 0 in pixel units, or one size for each step. None: 2.5 ε / steps, which can cross the
            ball (Madry et al. 2018). Falling sizes, `np.linspace(eps, eps / steps, steps)`, begin with FGSM
            where there is no key: never weaker than it, and soonest done with `early_stop`.
        loss: "margin", "cross_entropy", "squared", or a function of outputs (m, k) and labels, values (m,).
        targeted: descend the loss toward the labels instead.
        key: a JAX random key: attempts start at random points of the ball. None: at x itself.
        restarts: attempts from different starts, the best of which counts; more than one needs a key.
        early_stop: leave an example alone once an attempt has succeeded. The same examples are fooled, by
            less; time falls in proportion to the steps that are saved.
        best_iterate: take the best of x and all points that an attempt visits: then more steps of the same
            size or more restarts are never weaker. False: its last point, whatever it is.
        batch_size: examples at once. Results do not depend on it beyond rounding.
        progress: show a tqdm bar over examples and steps.

    Returns:
        Attacked inputs, in x's shape and precision. Ball and bounds hold exactly: no rounding leaves them.

    Raises:
        TypeError: arrays or functions of the wrong kind.
        ValueError: pixels outside the bounds, labels out of range, several restarts without a key,
            early_stop without best_iterate, and the like; the message says which.

    Cost: `steps` gradients of predict for each example and attempt, and one evaluation.
    Source: Madry et al. (2018), arXiv 1706.06083, section 2.1.

    >>> attacked = pgd(lambda x: x @ jnp.ones((2, 1)), np.full((1, 2), 0.5, np.float32), np.array([1]),
    ...     Threat("linf", 0.25))
    >>> attacked
    array([[0.25, 0.25]], dtype=float32)
    """
    steps, restarts, batch_size = (
        count("steps", steps),
        count("restarts", restarts),
        count("batch_size", batch_size),
    )
    if restarts > 1 and key is None:
        raise ValueError("restarts must be 1 without a key: all attempts would start at x")
    if early_stop and not best_iterate:
        raise ValueError("early_stop must be False without best_iterate: it ends at the first success")
    sizes = _sizes(step_size, steps, threat.eps)
    if key is not None:
        random_key("key", key)
    x, labels = checked_inputs(predict, x, labels, threat.bounds, loss=loss)
    batch_size = min(batch_size, len(x))
    options = {"loss": loss_named(loss), "targeted": targeted, "norm": threat.norm}
    with double(x, predict):
        predict, (low, high) = as_partial(predict), geometry.box(threat, x)
        stride = 1 if early_stop else steps
        bar = tqdm(total=restarts * steps * len(x), desc="PGD", unit="steps", disable=not progress)
        best, score = x.copy(), np.full(len(x), -np.inf, x.dtype)

        def settle(points: np.ndarray, which: np.ndarray) -> None:
            for some in in_batches(which, batch_size):
                best[some], score[some] = _settle(
                    predict, points[some], best[some], score[some], labels[some], targeted=targeted
                )

        with bar:
            if best_iterate and key is not None:
                settle(x, np.arange(len(x)))  # attempts from random starts do not come by x
            for restart in range(restarts):
                todo = np.flatnonzero(~(score > 0)) if early_stop else np.arange(len(x))
                bar.update(steps * (len(x) - len(todo)))
                now = _starts(threat, key, restart, x, low, high) if key is not None else x.copy()
                for done in range(0, steps, stride):
                    for some in in_batches(todo, batch_size):
                        now[some], best[some], score[some] = _advance(
                            predict,
                            *(array[some] for array in (now, best, score, x, low, high, labels)),
                            None if stride == 1 else stride,
                            sizes if np.ndim(sizes) == 0 else sizes[done : done + stride],
                            threat.eps,
                            best_iterate,
                            **options,
                        )
                        bar.update(stride * len(np.unique(some)))
                    if early_stop:
                        if done == 0 and np.ravel(sizes)[0] >= threat.eps and steps > 1:
                            settle(now, todo)  # such a step fools most, and to look costs half a gradient
                        left = todo[~(score[todo] > 0)]
                        bar.update((steps - done - 1) * (len(todo) - len(left)))
                        todo = left
                settle(now, todo)
        if bad := int((~np.isfinite(score) | np.isnan(best).reshape(len(x), -1).any(axis=1)).sum()):
            raise ValueError(
                f"predict returned NaN for {bad} of {len(x)} examples, or infinity, or its gradient did"
            )
        return geometry.inside(threat, x, best) if threat.norm == "l2" else best


def fgsm(
    predict: Callable[..., Any],
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    loss: Loss = "margin",
    targeted: bool = False,
    batch_size: int = 256,
    progress: bool = False,
) -> Float[np.ndarray, "m ..."]:
    """The fast gradient sign method: one step of length ε, x + ε sign ∇ₓ loss, cut at the pixels' bounds.

    For the L2 ball x + ε ∇ₓ loss / ‖∇ₓ loss‖₂. Arguments and errors are those of `pgd`.

    Returns:
        Attacked inputs, in x's shape and precision: the step as it is, also where it does harm to the attack.

    Cost: one gradient and one evaluation of predict.
    Source: Goodfellow et al. (2015), arXiv 1412.6572, section 4.

    >>> fgsm(lambda x: x @ jnp.array([[1.0], [-1.0]]), np.full((1, 2), 0.5, np.float32), np.array([1]),
    ...     Threat("linf", 0.25))
    array([[0.25, 0.75]], dtype=float32)
    """
    return pgd(
        predict,
        x,
        labels,
        threat,
        steps=1,
        step_size=threat.eps,
        loss=loss,
        targeted=targeted,
        best_iterate=False,
        batch_size=batch_size,
        progress=progress,
    )


def _sizes(step_size: Any, steps: int, eps: float) -> float | np.ndarray:
    if np.ndim(step_size) == 0:
        return 2.5 * eps / steps if step_size is None else number("step_size", step_size)
    if np.shape(step_size) != (steps,):
        raise ValueError(
            f"step_size must be a number or one for each of {steps} steps, got shape {np.shape(step_size)}"
        )
    return np.array([number("step_size", size) for size in step_size])


@functools.partial(jax.jit, static_argnames=("loss", "targeted", "norm"))
def _advance(
    predict: Partial,
    now: Any,
    best: Any,
    score: Any,
    x: Any,
    low: Any,
    high: Any,
    labels: Any,
    steps: Any,
    sizes: Any,
    eps: Any,
    keep: Any,
    *,
    loss: Callable[..., Any],
    targeted: bool,
    norm: str,
) -> tuple[Any, Any, Any]:
    """Some steps, None for one; with `keep` also the best of the points from which they were taken.

    The number of steps of one size is traced: 10 and 40 share their compiled code.
    """
    sizes, eps = jnp.asarray(sizes, x.dtype), jnp.asarray(eps, x.dtype)

    def total(point: Any) -> tuple[Any, Any]:
        outputs = predict(point)
        return loss(outputs, labels).sum() * (-1 if targeted else 1), outputs

    def one(i: Any, state: Any) -> Any:
        now, best, score = state
        size = sizes[i] if sizes.ndim else sizes
        gradient, outputs = jax.grad(total, has_aux=True)(now)
        better, higher = _better(now, outputs, best, score, labels, targeted)
        best, score = jnp.where(keep, better, best), jnp.where(keep, higher, score)
        return geometry.step(norm, gradient, now, x, low, high, size, eps), best, score

    with jax.default_matmul_precision("highest"):
        state = now, best, score
        # Outside a loop convolutions run on all cores.
        return one(0, state) if steps is None else jax.lax.fori_loop(0, steps, one, state)


@functools.partial(jax.jit, static_argnames="targeted")
def _settle(
    predict: Partial, now: Any, best: Any, score: Any, labels: Any, *, targeted: bool
) -> tuple[Any, Any]:
    with jax.default_matmul_precision("highest"):
        return _better(now, predict(now), best, score, labels, targeted)


def _better(now: Any, outputs: Any, best: Any, score: Any, labels: Any, targeted: bool) -> tuple[Any, Any]:
    reached = progress_of(outputs, labels, targeted=targeted).astype(score.dtype)
    improved = (reached > score).reshape(-1, *[1] * (now.ndim - 1))
    return jnp.where(improved, now, best), jnp.maximum(reached, score)


def _starts(
    threat: Threat, key: Any, restart: int, x: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Starting points that depend on the key, the example's place in x and the attempt alone."""

    def keys(key: Any, some: np.ndarray) -> Any:
        each = jax.vmap(jax.random.fold_in, (None, 0))(key, some)
        return jax.vmap(jax.random.fold_in, (0, None))(each, restart)

    found = np.empty_like(x)
    for some in in_batches(np.arange(len(x)), min(1024, len(x))):
        found[some] = geometry.start(threat.norm, threat.eps, keys(key, some), x[some], low[some], high[some])
    return found
