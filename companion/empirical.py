"""The empirical neural tangent kernel of any finite network."""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float

from companion._checks import batch, finite, same_inputs
from companion._compile import double, keep_compiled, network
from companion.neural_tangents import nt

Reduce = Literal["trace", "full"]


def empirical_ntk(
    apply_fn: Callable[..., Any],
    params: Any,
    x1: Float[Any, "n1 ..."],
    x2: Float[Any, "n2 ..."] | None = None,
    *,
    reduce: Reduce = "trace",
) -> Float[np.ndarray, "..."]:
    """Empirical NTK at `params`: Θ̂(x, x')_ab = ⟨∂_θ f_a(x), ∂_θ f_b(x')⟩.

    Args:
        apply_fn: the network, `apply_fn(params, x) -> (n, k)`: a stax network, a Flax `module.apply`,
            or any plain function built from differentiable JAX operations. Each example's output must
            depend on that example alone (no batch statistics). An architecture's `apply` is kept compiled;
            any other function is compiled at every call.
        params: its parameters θ, a pytree of float32 or float64 arrays; float64 is computed as such.
        x1: inputs (n1, ...), floating point, finite.
        x2: inputs (n2, ...); None means x1.
        reduce: "trace" for the mean over outputs, (1/k) Σ_a Θ̂_aa, which tends to the analytic kernel
            as the width grows; "full" for all pairs of outputs.

    Returns:
        (n1, n2) for "trace"; (n1, n2, k, k) for "full".

    Raises:
        TypeError: inputs or parameters that are not floating point.
        ValueError: NaN or infinity, an unknown `reduce`, a network whose output is not (n, k) or mixes
            examples.

    Cost: structured derivatives of Novak et al. (2022), arXiv 2206.08720: for fully connected layers no
    larger than a few forward passes for each output, without forming the (n·k, parameters) Jacobian.

    >>> x = np.eye(3, dtype=np.float32)
    >>> np.allclose(empirical_ntk(lambda w, x: x @ w, np.ones((3, 1), np.float32), x), x @ x.T)
    True
    """
    x1 = batch("x1", x1)
    x2 = None if x2 is None else batch("x2", x2)
    if reduce not in ("trace", "full"):
        raise ValueError(f"reduce must be 'trace' or 'full', got {reduce!r}")
    if x2 is not None:
        same_inputs("x1", x1, "x2", x2)
    with double(params), warnings.catch_warnings():
        # Layers without a structured rule take the library's general path, which is as exact.
        warnings.filterwarnings("ignore", message="No Jacobian rule found")
        network("apply_fn", apply_fn, params, x1)
        _refuse_mixing(apply_fn, params, x1)
        return finite("the kernel", np.asarray(_compiled(apply_fn, reduce)(x1, x2, params)))


def _refuse_mixing(apply_fn: Callable[..., Any], params: Any, x: np.ndarray) -> None:
    """Raise where an output depends on other examples: each kernel entry is computed from two alone."""
    together, alone = np.asarray(apply_fn(params, x[:2]))[0], np.asarray(apply_fn(params, x[:1]))[0]
    if not np.allclose(together, alone, rtol=1e-2, atol=1e-3 * np.abs(together).max()):
        raise ValueError(
            "apply_fn mixes examples: its output for x1[0] changes with x1[1]. Use running statistics "
            "(evaluation mode) instead of batch statistics"
        )


@keep_compiled
def _compiled(apply_fn: Callable[..., Any], reduce: Reduce) -> Callable[..., Any]:
    ntk_fn = nt.empirical_ntk_fn(
        apply_fn,
        trace_axes=(-1,) if reduce == "trace" else (),
        vmap_axes=0,
        implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    )

    @jax.jit
    def kernel(x1: Any, x2: Any, params: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return ntk_fn(x1, x2, params)

    return kernel
