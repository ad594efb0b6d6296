"""Finite networks trained on the squared loss until a stated residual, for the lazy regime."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, PyTree
from tqdm.auto import tqdm

from companion._core.checks import batch as examples
from companion._core.checks import count, number, random_key
from companion._core.compile import double, made_once, network
from companion._core.interrupt import deferred, in_short_loops
from companion._core.types import Apply, Array, Key, Scalar


@dataclass(frozen=True)
class Trained:
    """A network that has come down to a residual.

    Attributes:
        predict: the trained function of inputs (m, ...), outputs (m, k), to evaluate, differentiate and
            attack; without its values at initialization where training was centered.
        params: its parameters.
        residual: ‖f(X) − Y‖_F / ‖Y‖_F on the training set.
        steps: gradient steps from the start.
    """

    predict: Partial
    params: PyTree
    residual: float
    steps: int


@deferred()
def train_to_residual(
    apply_fn: Apply,
    params: PyTree,
    x: Float[Any, "n ..."],
    targets: Float[Any, "n k"],
    *,
    learning_rate: float,
    residuals: Sequence[float] = (0.1,),
    momentum: float = 0.0,
    max_steps: int = 100_000,
    batch_size: int | None = None,
    key: Key | None = None,
    center: bool = True,
    scale: float = 1.0,
    progress: bool = False,
) -> list[Trained]:
    """Train on ½ Σ_i ‖f(x_i) − y_i‖² by gradient descent until ‖f(X) − Y‖ / ‖Y‖ falls to each of some levels.

    v ← μ v − η ∂L, θ ← θ + μ v − η ∂L (Nesterov's momentum μ; plain gradient descent at μ = 0). A minibatch's
    gradient counts n / batch_size times, as an estimate of the full one.

    Args:
        apply_fn: the network, `apply_fn(params, x) -> (n, k)`. An architecture's is kept compiled, and
            what `kernels.keep_compiled` marked; any other is compiled at every call.
        params: the initial parameters θ₀, float32 or float64.
        x: training inputs (n, ...).
        targets: regression targets (n, k).
        learning_rate: η > 0. Full-batch descent wants less than 2 / λ_max of the NTK on x, 1 / λ_max with
            momentum; both times 1 / scale².
        residuals: levels in (0, 1), decreasing.
        momentum: μ in [0, 1).
        max_steps: gradient steps after which training that has not reached a level is an error.
        batch_size: examples of a step, drawn without repetition within an epoch; None: all of them.
        key: a JAX random key for the minibatches; needed with `batch_size`.
        center: train f(x; θ) − f(x; θ₀), which starts at zero as the kernel predictor does.
        scale: s, train s · f. Small s makes the same network learn features: it has to move far to fit.
            Large s keeps it lazy (Chizat et al. 2019).
        progress: show a tqdm bar over levels.

    Returns:
        The network at each level.

    Raises:
        TypeError, ValueError: for arguments of the wrong kind, shape or range.
        FloatingPointError: when training diverged, or did not reach a level; the message says what to change.

    Cost: one forward and backward pass a step; without minibatches the residual is known from it, with
    them it takes one more forward pass for each epoch.
    Source: Chizat et al. (2019), arXiv 1812.07956, section 2, for the scale.

    >>> x, y = np.eye(2, dtype=np.float32), np.ones((2, 1), np.float32)
    >>> found = train_to_residual(lambda w, x: x @ w, jnp.zeros((2, 1)), x, y, learning_rate=0.5)
    >>> found[0].steps, found[0].residual
    (4, 0.0625)
    """
    x, targets = examples("x", x), examples("targets", targets)
    number("learning_rate", learning_rate, open_end=True)
    number("scale", scale, open_end=True)
    max_steps = count("max_steps", max_steps)
    if number("momentum", momentum) >= 1:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
    levels = [number("residuals", level, open_end=True) for level in residuals]
    if not levels or levels[0] >= 1 or any(b >= a for a, b in itertools.pairwise(levels)):
        raise ValueError(f"residuals must decrease within (0, 1), got {levels}")
    if batch_size is not None and (count("batch_size", batch_size) > len(x) or key is None):
        found = f"{batch_size} and key {key!r}"
        raise ValueError(f"batch_size must be at most {len(x)} and come with a key, got {found}")
    key = key if key is None else random_key("key", key)
    with double(params):
        if (shape := network("apply_fn", apply_fn, params, x)) != targets.shape:
            raise ValueError(f"targets must have the network's output shape {shape}, got {targets.shape}")
        if not targets.any():
            raise ValueError("targets must not all be 0: the residual ‖f(X) − Y‖ / ‖Y‖ has no value then")
        dtype = jnp.result_type(*jax.tree.leaves(params))
        x, y, rate, scale = (jnp.asarray(a, dtype) for a in (x, targets, learning_rate, scale))
        size = len(x) if batch_size in (None, len(x)) else batch_size
        scaled = _scaled(apply_fn)
        function = Partial(scaled, scale)
        with jax.default_matmul_precision("highest"):  # as `_train`, of whose outputs it is taken off
            offset = function(params, x) if center else jnp.zeros_like(y)
        start = Partial(scaled, scale, params) if center else None
        targets, momentum = y + offset, jnp.asarray(momentum, dtype)
        options = (function, x, targets, jnp.linalg.norm(y), rate, momentum, key if size < len(x) else None)
        state, found = _start(params, targets.dtype, full=size == len(x)), []
        steps = 1
        for level in tqdm(levels, desc="training", disable=not progress):

            def some(_: int, stop: int, level: float = level) -> bool:
                nonlocal state
                state = jax.block_until_ready(_train(*options, state, level, stop, size=size))
                return not state.residual > level

            steps = in_short_loops(some, int(state.steps), max_steps, steps)
            if not (residual := float(state.residual)) <= level:
                raise FloatingPointError(_failure(residual, int(state.steps), level, learning_rate))
            predict = Partial(_difference, function, state.params, start)
            found.append(Trained(predict, state.params, residual, int(state.steps)))
        return found


def _failure(residual: float, steps: int, level: float, rate: float) -> str:
    if not np.isfinite(residual) or residual > 1:
        return (
            f"training diverged within {steps} steps at learning_rate={rate:g}: keep it below 1/λ_max of the "
            "neural tangent kernel on x, times 1/scale²"
        )
    return (
        f"training reached a residual of {residual:.3g} in max_steps={steps} steps, not {level:g}: give it "
        "more steps, momentum nearer to 1, or a larger learning rate"
    )


@made_once
def _scaled(apply_fn: Apply) -> Apply:
    """The network times s. Trainings of one architecture from other weights share what is compiled."""

    def function(scale: Scalar, params: PyTree, x: Array) -> Array:
        return scale * apply_fn(params, x)

    return function


def _difference(function: Partial, params: PyTree, start: Partial | None, x: Array) -> Array:
    return function(params, x) if start is None else function(params, x) - start(x)


class _State(NamedTuple):
    params: PyTree
    velocity: PyTree
    gradient: PyTree  # at params, where training is full-batch
    steps: Array
    residual: Array


def _start(params: PyTree, dtype: np.dtype | type, *, full: bool) -> _State:
    """The state before the first step, of which `_train` finds residual and gradient."""
    params = jax.tree.map(jnp.asarray, params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    return _State(params, zeros, zeros if full else None, jnp.zeros((), int), jnp.zeros((), dtype))


@functools.partial(jax.jit, static_argnames="size")
def _train(
    function: Partial,
    x: Array,
    y: Array,
    norm: Scalar,
    rate: Scalar,
    momentum: Scalar,
    key: Key | None,
    state: _State,
    level: Scalar,
    stop: Scalar,
    *,
    size: int,
) -> _State:
    """Go on from a state, down to a level or to some number of steps."""

    def loss(params: PyTree, x: Array, y: Array) -> tuple[Array, Array]:
        wrong = function(params, x) - y
        return 0.5 * jnp.sum(wrong**2), jnp.linalg.norm(wrong) / norm

    def evaluate(params: PyTree, velocity: PyTree, steps: Scalar) -> _State:
        if size < len(x):
            return _State(params, velocity, None, steps, loss(params, x, y)[1])
        gradient, residual = jax.grad(loss, has_aux=True)(params, x, y)
        return _State(params, velocity, gradient, steps, residual)

    def update(params: PyTree, velocity: PyTree, gradient: PyTree) -> tuple[PyTree, PyTree]:
        velocity = jax.tree.map(lambda v, g: momentum * v - rate * g, velocity, gradient)
        return jax.tree.map(lambda p, v, g: p + momentum * v - rate * g, params, velocity, gradient), velocity

    def step(state: _State) -> _State:
        return evaluate(*update(state.params, state.velocity, state.gradient), state.steps + 1)

    def epoch(state: _State) -> _State:
        order = jax.random.permutation(jax.random.fold_in(key, state.steps), len(x))
        order = order[: len(x) // size * size].reshape(-1, size)

        def one(carry: tuple[PyTree, PyTree], some: Array) -> tuple[tuple[PyTree, PyTree], None]:
            gradient, _ = jax.grad(loss, has_aux=True)(carry[0], x[some], y[some])
            return update(*carry, jax.tree.map(lambda g: g * (len(x) / size), gradient)), None

        carry, _ = jax.lax.scan(one, (state.params, state.velocity), order)
        return evaluate(*carry, state.steps + len(order))

    def going(state: _State) -> Array:
        return (state.residual > level) & (state.steps < stop)

    with jax.default_matmul_precision("highest"):
        # Of a new state: one program for the first part and all others.
        state = jax.lax.cond(
            state.steps == 0,
            lambda new: evaluate(new.params, new.velocity, new.steps),
            lambda old: old,
            state,
        )
        return jax.lax.while_loop(going, step if size == len(x) else epoch, state)
