"""Full-batch gradient descent on the squared loss, with outputs recorded at given steps."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from companion._core.checks import batch, count, number, same_inputs
from companion._core.compile import double, made_once, network
from companion._core.interrupt import deferred, in_short_loops
from companion._core.types import Apply, Array, Scalar


@deferred()
def gradient_descent(
    apply_fn: Apply,
    params: PyTree,
    x: Float[Any, "n ..."],
    targets: Float[Any, "n k"],
    x_probe: Float[Any, "m ..."],
    *,
    learning_rate: float,
    record: Sequence[int],
    center: bool = True,
) -> Float[np.ndarray, "r m k"]:
    """Train on ½ Σ_i ‖f(x_i) − y_i‖² by full-batch gradient descent; return the outputs on a probe set.

    θ ← θ − η ∂_θ L. After s steps the flow's time is t = η s, so the outputs can be held against
    `regression.fit(...).at(η s)`.

    Args:
        apply_fn: the network, `apply_fn(params, x) -> (n, k)`.
        params: the initial parameters θ₀, float32 or float64; training runs in their precision, with
            "highest" matmul precision (no silent TF32 on GPUs).
        x: training inputs (n, ...), finite.
        targets: regression targets (n, k).
        x_probe: inputs (m, ...) on which the outputs are recorded.
        learning_rate: η > 0. Below 2/λ_max of the NTK, or training diverges.
        record: numbers of steps, increasing, from 0.
        center: train f(x; θ) − f(x; θ₀), which starts at zero as the kernel predictor does.

    Returns:
        Outputs (len(record), m, k), in the parameters' precision.

    Raises:
        TypeError, ValueError: for arguments of the wrong kind, shape or range.
        FloatingPointError: when training diverged; the message says what to change.

    Cost: max(record) forward and backward passes; memory of one.
    Source: linearized dynamics of Lee et al. (2019), arXiv 1902.06720, section 2.2.

    >>> x, y = np.eye(2, dtype=np.float32), np.ones((2, 1), np.float32)
    >>> w = jnp.zeros((2, 1))
    >>> gradient_descent(lambda w, x: x @ w, w, x, y, x, learning_rate=0.5, record=[0, 1])[:, 0, 0]
    array([0. , 0.5], dtype=float32)
    """
    x, targets, x_probe = batch("x", x), batch("targets", targets), batch("x_probe", x_probe)
    number("learning_rate", learning_rate, open_end=True)
    try:
        marks = [count("record", step, least=0) for step in record]
    except TypeError:
        raise TypeError(f"record must be a sequence of integers, got {record!r}") from None
    if not marks or any(b <= a for a, b in itertools.pairwise(marks)):
        raise ValueError(f"record must hold increasing numbers of steps, got {marks[:8]}")
    same_inputs("x", x, "x_probe", x_probe)
    with double(params):
        if (shape := network("apply_fn", apply_fn, params, x)) != targets.shape:
            raise ValueError(f"targets must have the network's output shape {shape}, got {targets.shape}")
        return _trajectory(apply_fn, params, x, targets, x_probe, learning_rate, marks, center)


def _trajectory(
    apply_fn: Apply,
    params: PyTree,
    x: np.ndarray,
    y: np.ndarray,
    x_probe: np.ndarray,
    learning_rate: float,
    marks: list[int],
    center: bool,
) -> np.ndarray:
    dtype = jnp.result_type(*jax.tree.leaves(params))
    x, y, x_probe, learning_rate = (jnp.asarray(a, dtype) for a in (x, y, x_probe, learning_rate))
    outputs, advance = _compiled(apply_fn)
    start, offset = (outputs(params, x), outputs(params, x_probe)) if center else (0.0, 0.0)
    done, trajectory, size = 0, [], 1

    def some(first: int, stop: int) -> None:
        nonlocal params
        params = jax.block_until_ready(advance(params, x, y + start, learning_rate, stop - first))

    for mark in marks:
        size = in_short_loops(some, done, mark, size)
        done = mark
        trajectory.append(np.asarray(outputs(params, x_probe) - offset))
        if not np.isfinite(trajectory[-1]).all():
            raise FloatingPointError(
                f"training diverged within {done} steps at learning_rate={float(learning_rate):g}: "
                "keep it below 2/λ_max of the neural tangent kernel on x"
            )
    return np.stack(trajectory)


@made_once
def _compiled(apply_fn: Apply) -> tuple[Callable[..., Array], Callable[..., PyTree]]:
    def loss(params: PyTree, x: Array, y: Array) -> Array:
        return 0.5 * jnp.sum((apply_fn(params, x) - y) ** 2)

    @jax.jit
    def advance(params: PyTree, x: Array, y: Array, learning_rate: Scalar, steps: Scalar) -> PyTree:
        def step(_: Scalar, params: PyTree) -> PyTree:
            return jax.tree.map(lambda p, g: p - learning_rate * g, params, jax.grad(loss)(params, x, y))

        with jax.default_matmul_precision("highest"):
            return jax.lax.fori_loop(0, steps, step, params)

    @jax.jit
    def outputs(params: PyTree, x: Array) -> Array:
        with jax.default_matmul_precision("highest"):
            return apply_fn(params, x)

    return outputs, advance
