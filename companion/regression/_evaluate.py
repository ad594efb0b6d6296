"""f(x) = Θ(x, X) α as compiled code over blocks of training points."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from companion._core.checks import precise, same_inputs
from companion._core.compile import Kind, kernel_entries, made_once, pixels
from companion._core.types import Array, Kernel, KernelFunction, Predict, Scalar

Evaluate = Callable[[Array, Array, Array], jax.Array]  # X and α in blocks, and inputs


@made_once
def compiled(kernel: KernelFunction, kind: Kind) -> Evaluate:
    """The function of X and α in blocks and of inputs x; one for each kernel whose code is kept."""

    @jax.jit
    def evaluate(x_blocks: Array, alpha_blocks: Array, x: Array) -> jax.Array:
        x = jnp.asarray(x)
        precise("x", x.dtype)
        x = x.astype(x_blocks.dtype)
        same_inputs("x", x, "x_train", x_blocks[0])
        if not len(x):
            raise ValueError(f"x must be a batch (n, ...) of at least one example, got shape {x.shape}")

        # The products x x_iᵀ are kept for the gradient, all else is computed again: fast, and small.
        @functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
        def add(outputs: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
            x_block, alpha_block = block
            return outputs + kernel_entries(kernel, x, x_block, kind) @ alpha_block, None

        start = jnp.zeros((len(x), alpha_blocks.shape[-1]), x.dtype)
        with jax.default_matmul_precision("highest"):
            return jax.lax.scan(add, start, (x_blocks, alpha_blocks))[0]

    return evaluate


def in_blocks(rows: np.ndarray, limit: int, *, fill: Scalar) -> np.ndarray:
    """Blocks of equal size of at most `limit` rows, (blocks, size, ...); what the last lacks is `fill`."""
    number = math.ceil(len(rows) / limit)
    size = math.ceil(len(rows) / number)
    found = np.empty((number * size, *rows.shape[1:]), rows.dtype)
    found[: len(rows)], found[len(rows) :] = rows, fill
    return found.reshape(number, size, *rows.shape[1:])


def default_batch(kernel: Kernel, x: np.ndarray) -> int:
    """A block whose intermediate arrays stay near 0.1 GB with some hundred inputs, or in a CPU's cache.

    With 32 test images of 28×28 pixels, blocks of 20 gave gradients 2.8 times as fast as blocks of 200.
    """
    most = 2**14 if jax.default_backend() == "cpu" else 2**18
    return min(1024, max(1, (most if pixels(kernel, x) > 1 else 2**18) // pixels(kernel, x)))


@jax.jit
def weighted_gradient(f: Predict, x: Array, weights: Array) -> jax.Array:
    """∇_x Σ_c w_c f_c(x) at every input."""
    outputs, pullback = jax.vjp(f, x)
    if jnp.shape(weights) != outputs.shape:
        raise ValueError(f"weights must have shape {outputs.shape}, got {jnp.shape(weights)}")
    return pullback(jnp.asarray(weights, outputs.dtype))[0]


@jax.jit
def all_gradients(f: Predict, x: Array) -> jax.Array:
    """∇_x f_c(x) at every input, for every output c."""
    outputs, pullback = jax.vjp(f, x)
    # An output depends on its own input alone, so one pass with e_c for every input gives all ∇ f_c.
    units = jnp.broadcast_to(
        jnp.eye(outputs.shape[1], dtype=outputs.dtype)[:, None], (outputs.shape[1], *outputs.shape)
    )
    return jnp.moveaxis(jax.vmap(lambda unit: pullback(unit)[0])(units), 0, 1)
