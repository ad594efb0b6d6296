"""The kernel predictor as a function of its inputs: differentiable, compiled, in bounded memory.

Attacks on kernels need gradients of f_t in its inputs, many times, and never a new solve: the coefficients of
`companion.regression` stay what they are.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float

from companion._core.checks import batch as examples
from companion._core.checks import count, finite, precise, same_inputs
from companion._core.compile import (
    Kind,
    double,
    keep_compiled,
    kernel_entries,
    kernel_function,
    pixels,
    refuse_mixed_entries,
    refuse_other_functions,
)


def predictor(
    kernel: Any,
    x_train: Float[Any, "n ..."],
    coefficients: Float[Any, "n k"],
    *,
    kind: Kind = "ntk",
    batch: int | None = None,
) -> Partial:
    """The function f(x) = Θ(x, X) α of the inputs, to differentiate, compile and attack.

    The sum over training points runs in blocks, forwards and backwards: of a block's part of Θ(x, X) only
    matrix products are kept for its gradient, and the rest is computed again. "highest" matmul precision (no
    silent TF32).

    Args:
        kernel: an `Architecture`, or any neural-tangents `kernel_fn(x1, x2, get)`. An architecture's
            predictors share their compiled code; a function of your own is compiled for every predictor.
        x_train: training inputs X, (n, ...), finite. Their precision is that of f; float64 needs JAX's x64
            mode.
        coefficients: α, (n, k): from `regression.coefficients` at any time and ridge, or `regression.solve`.
        kind: "ntk", or "nngp" for regression with the covariance at initialization.
        batch: training points in a block, ≥ 1; any number works. None: at most 1,024, and fewer where a
            kernel entry takes memory for every pixel or pair of pixels.

    Returns:
        f: inputs (m, ...) to outputs (m, k). It is a pytree of X and α: inside `jax.jit`, pass f as an
        argument, `jax.jit(lambda f, x: f(x))(f, x)`. A function that closes over f works too, but JAX may
        then copy X into the program as a constant.

    Raises:
        TypeError: inputs or coefficients that are no floating point numbers; a kernel that is no function.
        ValueError: NaN or infinity, rows that do not match, batch < 1, an unknown kind, float64 inputs where
            JAX computes in float32.

    Cost: O(m n d) time for a fully connected kernel, about twice that with a gradient. Memory: X once on the
    device, m · batch kernel entries with their intermediate values, and with a gradient m · n numbers.
    Source: Lee et al. (2019), arXiv 1902.06720, eq. 10.

    >>> f = predictor(lambda a, b, get: a @ b.T, np.eye(2, dtype=np.float32), np.array([[2.0], [3.0]]))
    >>> f(jnp.ones((1, 2)))
    Array([[5.]], dtype=float32)
    """
    function = kernel_function(kernel, kind)
    x, alpha = examples("x_train", x_train), np.asarray(coefficients)
    if x.dtype == np.float64 and not jax.config.jax_enable_x64:
        raise ValueError(
            "x_train is float64, and JAX computes in float32: pass x_train.astype(np.float32), or switch "
            'float64 on with jax.config.update("jax_enable_x64", True)'
        )
    if alpha.dtype not in (np.float32, np.float64):
        raise TypeError(f"coefficients must be float32 or float64, got {alpha.dtype}")
    if alpha.ndim != 2 or len(alpha) != len(x):
        raise ValueError(f"coefficients must have shape ({len(x)}, k), got {alpha.shape}")
    finite("coefficients", alpha)
    refuse_mixed_entries(kernel, kind, x, x)
    limit = _default_batch(kernel, x) if batch is None else count("batch", batch)
    return Partial(_compiled(function, kind), *_blocks(x, alpha.astype(x.dtype), limit))


def input_gradient(
    f: Partial, x: Float[Any, "m ..."], weights: Float[Any, "m k"] | None = None
) -> Float[jax.Array, "m ..."]:
    """Gradients of a predictor's outputs in its inputs: of one combination for each input, or of all outputs.

    With weights, ∇_x Σ_c w_c f_c(x) at every input, which is all that a gradient of a loss needs
    (w_c = ∂loss/∂f_c). Without, ∇_x f_c(x) for every output c.

    Args:
        f: from `predictor`.
        x: inputs (m, ...).
        weights: w, (m, k), or None.

    Returns:
        With weights the shape of x; without, (m, k, ...): x's shape with an axis of outputs after the first.

    Raises:
        TypeError: f that is not from `predictor`.
        ValueError: weights that are not (m, k).

    Cost: with weights about two evaluations of f. Without, the kernel's part once and k backward passes
    at once, in k times the memory.

    >>> f = predictor(lambda a, b, get: a @ b.T, np.eye(2, dtype=np.float32), np.array([[2.0], [3.0]]))
    >>> input_gradient(f, jnp.ones((1, 2)))
    Array([[[2., 3.]]], dtype=float32)
    """
    refuse_other_functions("f", f)
    # For derivatives that a kernel defines by itself: JAX calls them after f has set the precision back.
    with double(f), jax.default_matmul_precision("highest"):
        found = _all_gradients(f, x) if weights is None else _weighted_gradient(f, x, weights)
    if not isinstance(found, jax.core.Tracer) and not jnp.isfinite(found).all():
        finite("f's gradient in its inputs", np.asarray(found))
    return found


@jax.jit
def _weighted_gradient(f: Partial, x: Any, weights: Any) -> Any:
    outputs, pullback = jax.vjp(f, x)
    if jnp.shape(weights) != outputs.shape:
        raise ValueError(f"weights must have shape {outputs.shape}, got {jnp.shape(weights)}")
    return pullback(jnp.asarray(weights, outputs.dtype))[0]


@jax.jit
def _all_gradients(f: Partial, x: Any) -> Any:
    outputs, pullback = jax.vjp(f, x)
    # An output depends on its own input alone, so one pass with e_c for every input gives all ∇ f_c.
    units = jnp.broadcast_to(
        jnp.eye(outputs.shape[1], dtype=outputs.dtype)[:, None], (outputs.shape[1], *outputs.shape)
    )
    return jnp.moveaxis(jax.vmap(lambda unit: pullback(unit)[0])(units), 0, 1)


@keep_compiled
def _compiled(kernel: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    @jax.jit
    def evaluate(x_blocks: Any, alpha_blocks: Any, x: Any) -> Any:
        x = jnp.asarray(x)
        precise("x", x.dtype)
        x = x.astype(x_blocks.dtype)
        same_inputs("x", x, "x_train", x_blocks[0])

        # The products x x_iᵀ are kept for the gradient, all else is computed again: fast, and small.
        @functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
        def add(outputs: Any, block: Any) -> Any:
            x_block, alpha_block = block
            return outputs + kernel_entries(kernel, x, x_block, kind) @ alpha_block, None

        start = jnp.zeros((len(x), alpha_blocks.shape[-1]), x.dtype)
        with jax.default_matmul_precision("highest"):
            return jax.lax.scan(add, start, (x_blocks, alpha_blocks))[0]

    evaluate.is_predictor = True
    return evaluate


def _blocks(x: np.ndarray, alpha: np.ndarray, limit: int) -> tuple[jax.Array, jax.Array]:
    """Blocks of equal size, (blocks, size, ...). The last is filled with real inputs of coefficient zero."""
    number = math.ceil(len(x) / limit)
    size = math.ceil(len(x) / number)
    missing = number * size - len(x)
    x = np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x
    alpha = np.pad(alpha, ((0, missing), (0, 0)))
    return (
        jnp.asarray(x.reshape(number, size, *x.shape[1:])),
        jnp.asarray(alpha.reshape(number, size, -1)),
    )


def _default_batch(kernel: Any, x: np.ndarray) -> int:
    """A block whose intermediate arrays stay near 0.1 GB with some hundred inputs, or in a CPU's cache.

    With 32 test images of 28×28 pixels, blocks of 20 gave gradients 2.8 times as fast as blocks of 200.
    """
    most = 2**14 if jax.default_backend() == "cpu" else 2**18
    return min(1024, max(1, (most if pixels(kernel, x) > 1 else 2**18) // pixels(kernel, x)))
