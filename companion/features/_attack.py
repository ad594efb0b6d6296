"""The worst case of every eigenfeature around an input, each attacked by itself.

An attack on feature f⁽ⁱ⁾(x) = φ_i(x) c_i has one number to push, φ_i: this is what makes all n affordable.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from tqdm.auto import tqdm

from companion._core import geometry
from companion._core.checks import batch as examples
from companion._core.checks import count, number, same_inputs, within
from companion._core.compile import Kind, double, kernel_entries, kernel_function, made_once, pixels
from companion._core.types import Array, KernelFunction, Scalar
from companion._core.words import Unchecked
from companion.attacks import Threat, checked_threat
from companion.features._modes import Modes, feature_indices, wanted_signs, weights
from companion.regression import KernelPredictor


def correct_under_attack(
    f: KernelPredictor,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    modes: Modes = None,
    steps: int = 1,
    step_size: float | None = None,
    progress: bool = False,
) -> Bool[np.ndarray, "m q"]:
    """Whether each feature stays right when each is attacked by itself: its own perturbation of every input.

    One step is FGSM, x + ε sign of the gradient (for L2, ε along it), with the accuracy that it leaves; more
    are PGD, and an input counts as fooled if any point on the way fools. Inputs that the feature has wrong
    from the start are not attacked.

    Args:
        f: kernel regression, from `regression.fit`.
        x: clean inputs (m, ...), within the threat's bounds.
        labels: classes (m,).
        threat: norm, eps and bounds.
        modes: as for `outputs`.
        steps: ≥ 1.
        step_size: s ≥ 0 in pixel units; None: ε for one step, else 2.5 ε / steps.
        progress: show a tqdm bar over the inputs.

    Returns:
        (m, q): the mean over m is the robustness γ_i.

    Raises:
        TypeError, ValueError: inputs, labels, modes or the threat's bounds that do not fit.

    Cost: for a fully connected kernel two products of q × n by n × d numbers for an input and a step, 4 q n d
    operations: Θ(x, X) and the weights of its gradient are computed once for all q features. Feature by
    feature three are needed, and all that is not a product is repeated. Memory: some q × (n + 6 d) numbers,
    in blocks of features.
    Source: Tsilivis & Kempe (2022), arXiv 2210.05577, section 4; their notebook attacks one after the other.
    """
    steps = count("steps", steps)
    size = _step(step_size, steps, checked_threat(threat).eps)
    x, index = examples("x", x), feature_indices(f, modes)
    same_inputs("x", x, "x_train", f.x_train)
    within("x", x, threat.bounds)
    wanted = wanted_signs(f, labels, len(x), index)
    all_rows = weights(f, index).T
    low, high = geometry.box(threat, x)
    result = np.zeros((len(x), len(index)), bool)
    with double(f.x_train):
        attack, again, still = _compiled(kernel_function(f.kernel, f.kind), f.kind)
        x_train, all_rows = jnp.asarray(f.x_train), jnp.asarray(all_rows, f.x_train.dtype)
        for one in tqdm(range(len(x)), desc="features", unit="image", disable=not progress):
            ball = _Ball(x[one], low[one], high[one], size, threat.eps)
            for some in _blocks(f, len(index)):
                rows, signs = all_rows[some], jnp.asarray(wanted[one, some], x_train.dtype)
                points, right = attack(x_train, rows, signs, ball, norm=threat.norm)
                for _ in range(steps - 1):
                    points, right = again(x_train, rows, signs, points, right, ball, norm=threat.norm)
                result[one, some] = still(x_train, rows, signs, points, right)
    return result


def _step(step_size: Unchecked, steps: int, eps: float) -> float:
    if step_size is None:
        return eps if steps == 1 else 2.5 * eps / steps
    return number("step_size", step_size)


def _blocks(f: KernelPredictor, q: int) -> Iterator[slice]:
    """Features at once: a block's kernel entries and points take some 0.2 GB."""
    each = f.x_train.shape[0] * pixels(f.kernel, f.x_train) + f.x_train[0].size
    number = math.ceil(q / max(1, min(q, 2**24 // each))) if q else 1
    size = max(1, math.ceil(q / number))
    for first in range(0, q, size):
        yield slice(first, min(first + size, q))


class _Ball(NamedTuple):
    """One input, the box around it, the length of a step and ε."""

    x: Array
    low: Array
    high: Array
    size: Scalar
    eps: Scalar


@made_once
def _compiled(kernel: KernelFunction, kind: Kind) -> tuple[Callable[..., Array | tuple[Array, Array]], ...]:
    """The first step, where all features share the input; the others, where each has its own; the verdict."""

    @functools.partial(jax.jit, static_argnames="norm")
    def first(x_train: Array, rows: Array, signs: Array, ball: _Ball, *, norm: str) -> tuple[Array, Array]:
        with jax.default_matmul_precision("highest"):
            entries, pullback = jax.vjp(lambda x: kernel_entries(kernel, x[None], x_train, kind)[0], ball.x)
            right = signs * (rows @ entries) > 0
            gradient = jax.vmap(lambda row: pullback(row)[0])(-signs[:, None] * rows)
            return _moved(ball, jnp.broadcast_to(ball.x, gradient.shape), gradient, norm), right

    @functools.partial(jax.jit, static_argnames="norm")
    def again(
        x_train: Array, rows: Array, signs: Array, points: Array, right: Array, ball: _Ball, *, norm: str
    ) -> tuple[Array, Array]:
        with jax.default_matmul_precision("highest"):
            entries, pullback = jax.vjp(lambda points: kernel_entries(kernel, points, x_train, kind), points)
            right = right & (_own(entries, rows, signs) > 0)
            return _moved(ball, points, pullback(-signs[:, None] * rows)[0], norm), right

    @jax.jit
    def still(x_train: Array, rows: Array, signs: Array, points: Array, right: Array) -> Array:
        with jax.default_matmul_precision("highest"):
            return right & (_own(kernel_entries(kernel, points, x_train, kind), rows, signs) > 0)

    return first, again, still


def _moved(ball: _Ball, points: Array, gradient: Array, norm: str) -> Array:
    """Every feature's point one step on."""
    size, eps = (jnp.asarray(number, points.dtype) for number in (ball.size, ball.eps))
    return geometry.step(norm, gradient, points, ball.x[None], ball.low, ball.high, size, eps)


def _own(entries: Array, rows: Array, signs: Array) -> Array:
    """Every feature at its own point. A product sums, since XLA would sum one number at a time."""
    return signs * ((entries * rows) @ jnp.ones(entries.shape[1], entries.dtype))
