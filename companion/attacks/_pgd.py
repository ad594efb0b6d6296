"""Gradient attacks: projected ascent, and its single step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion._core.checks import count, number, random_key
from companion._core.compile import double
from companion._core.interrupt import deferred
from companion._core.types import Key, Predict
from companion._core.words import Unchecked
from companion.attacks._ascent import Search, attempt, until_fooled
from companion.attacks._losses import Loss, loss_named
from companion.attacks._predict import as_partial, checked_inputs
from companion.attacks._threat import Threat, checked_threat


@deferred()
def pgd(
    predict: Predict,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    steps: int = 10,
    step_size: float | Sequence[float] | np.ndarray | None = None,
    loss: Loss = "margin",
    targeted: bool = False,
    key: Key | None = None,
    restarts: int = 1,
    early_stop: bool = False,
    best_iterate: bool = True,
    batch_size: int = 256,
    progress: bool = False,
) -> Float[np.ndarray, "m ..."]:
    """Projected gradient ascent on a loss of the outputs: the strongest of the simple attacks.

    x ← Π(x + s · sign ∇ₓ loss) for the L∞ ball and Π(x + s · ∇ₓ loss / ‖∇ₓ loss‖₂) for the L2 ball, where Π
    goes back into the ball *around the clean input* and into the pixels' bounds, at every step. For the L1
    ball the pixels of the largest slopes go to their bounds, until s is used, and Π is the projection onto
    ball and bounds at once.

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
            Madry et al. take "cross_entropy".
        targeted: descend the loss toward the labels instead.
        key: a JAX random key: attempts start at random points of the ball, as Madry et al.'s do. None: at x
            itself, so that equal calls give equal results.
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

    >>> import jax.numpy as jnp
    >>> attacked = pgd(lambda x: x @ jnp.ones((2, 1)), np.full((1, 2), 0.5, np.float32), np.array([1]),
    ...     Threat("linf", 0.25))
    >>> attacked
    array([[0.25, 0.25]], dtype=float32)
    """
    steps, restarts = count("steps", steps), count("restarts", restarts)
    batch_size = count("batch_size", batch_size)
    if restarts > 1 and key is None:
        raise ValueError("restarts must be 1 without a key: all attempts would start at x")
    if early_stop and not best_iterate:
        raise ValueError("early_stop must be False without best_iterate: it ends at the first success")
    sizes = _sizes(step_size, steps, checked_threat(threat).eps)
    if key is not None:
        random_key("key", key)
    x, labels = checked_inputs(predict, x, labels, threat.bounds, loss=loss)
    bar = tqdm(total=restarts * steps * len(x), desc="PGD", unit="steps", disable=not progress)
    with double(x, predict), bar:
        options = {"loss": loss_named(loss), "targeted": targeted, "batch_size": min(batch_size, len(x))}
        search = Search(as_partial(predict), x, labels, threat, **options)
        if best_iterate and key is not None:
            search.settle(x, np.arange(len(x)))  # attempts from random starts do not come by x
        for restart in range(restarts):
            now = x.copy() if key is None else search.starts(key, restart)
            if early_stop:
                until_fooled(search, now, sizes, steps, bar.update)
            else:
                attempt(search, now, sizes, steps, best_iterate, bar.update)
        return search.found()


def fgsm(
    predict: Predict,
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

    For the L2 ball x + ε ∇ₓ loss / ‖∇ₓ loss‖₂; for L1 the pixels of the largest slopes go to their bounds,
    until ε is used.

    Args:
        predict: the attacked function, x (m, ...) to outputs (m, k), as for `pgd`.
        x: clean inputs (m, ...), within the threat's bounds.
        labels: classes (m,); with `targeted`, those to be reached.
        threat: norm, ε and bounds, in pixel units.
        loss: what is raised. Goodfellow et al. take "cross_entropy"; "margin", the default here as in `pgd`,
            has no vanishing gradient where the function is sure. For one output both give the same L∞ step.
        targeted: whether `labels` are to be reached instead of left.
        batch_size: examples at once.
        progress: show a tqdm bar.

    Returns:
        Attacked inputs, in x's shape and precision: the step as it is, also where it does harm to the attack.

    Raises:
        TypeError: arrays or functions of the wrong kind.
        ValueError: pixels outside the bounds, labels out of range, an unknown loss.

    Cost: one gradient and one evaluation of predict.
    Source: Goodfellow et al. (2015), arXiv 1412.6572, section 4.

    >>> import jax.numpy as jnp
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
        step_size=checked_threat(threat).eps,
        loss=loss,
        targeted=targeted,
        best_iterate=False,
        batch_size=batch_size,
        progress=progress,
    )


def _sizes(step_size: Unchecked, steps: int, eps: float) -> float | np.ndarray:
    if np.ndim(step_size) == 0:
        return 2.5 * eps / steps if step_size is None else number("step_size", step_size)
    if np.shape(step_size) != (steps,):
        raise ValueError(
            f"step_size must be a number or one for each of {steps} steps, got shape {np.shape(step_size)}"
        )
    return np.array([number("step_size", size) for size in step_size])
