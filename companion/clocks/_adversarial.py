"""The clocks to which adversarial training comes down in the limit of infinite width."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Float

from companion._core.checks import batch as examples
from companion._core.checks import number
from companion._core.compile import double
from companion._core.types import Array, KernelFunction
from companion._core.words import Unchecked
from companion.architectures import Architecture


def input_gradients(architecture: Unchecked, x: Float[Any, "n ..."]) -> Float[np.ndarray, " n"]:
    """Θ_x(x, x) = E ‖∂f/∂x‖² of wide random networks: the mean squared length of the gradient at an input.

    It is Σ_p ∂²K(x, x′)/∂x_p ∂x′_p at x′ = x for the conjugate kernel K. A dense ReLU network with D hidden
    layers and v = w_std² has v (v/2)^D at every input: half of the units of a layer are active, whatever x
    is; with `bias` it has v² (1 − Φ(h) + h φ(h) / d), h = B √d / (w_std ‖x‖). For erf the derivatives are
    taken by JAX.

    Args:
        architecture: `architectures.fc`.
        x: inputs (n, ...).

    Returns:
        (n,), float64.

    Raises:
        TypeError: no architecture.
        ValueError: one that is not dense; no batch.

    Cost: none for ReLU; n d kernel entries with two derivatives for erf and d pixels.
    Source: Fu & Wang (2024), arXiv 2310.06112, section 4, for Θ_x; its value for ReLU is ours.

    >>> from companion.architectures import fc
    >>> input_gradients(fc(3), np.ones((2, 5), np.float32)).round(6).tolist()
    [2.0, 2.0]
    """
    if not isinstance(architecture, Architecture):
        raise TypeError(f"architecture must be one of companion.architectures, got {architecture!r}")
    if not architecture.name.startswith("FC-"):
        raise ValueError(f"architecture must be dense, architectures.fc(...), got {architecture.name}")
    x = examples("x", x).reshape(len(x), -1).astype(np.float64)
    if architecture.activation == "relu":
        v = architecture.w_std**2
        if architecture.bias is not None:
            lengths = np.sqrt((x**2).sum(axis=1) / x.shape[1])
            # Of an input of zeros no unit is active.
            h = architecture.bias / np.maximum(architecture.w_std * lengths, 1e-300)
            active, density = scipy.stats.norm.sf(h), scipy.stats.norm.pdf(h)
            # Weights of an active unit are longer along x.
            return v * v * (active + h * density / x.shape[1])
        return np.full(len(x), v * (v / 2) ** architecture.hidden)
    with double(x):
        return np.asarray(_traces(architecture.kernel, jnp.asarray(x)))


@functools.partial(jax.jit, static_argnums=0)
def _traces(kernel: KernelFunction, x: Array) -> Array:
    """Σ_p ∂²K(x, x′)/∂x_p ∂x′_p at x′ = x, one input and one direction after the other."""

    def entry(one: Array, other: Array) -> Array:
        return kernel(one[None], other[None], "nngp")[0, 0]

    def of_one(point: Array) -> Array:
        def along(direction: Array) -> Array:
            slope = jax.grad(entry)
            return direction @ jax.jvp(lambda other: slope(point, other), (point,), (direction,))[1]

        return jax.vmap(along)(jnp.eye(len(point), dtype=x.dtype)).sum()

    return jax.lax.map(of_one, x)


def adversarial(
    architecture: Unchecked, x: Float[Any, "n ..."], t: float | int, *, strength: float | int
) -> Float[np.ndarray, " n"]:
    """The clocks of adversarial training for time t: Ξ_i = t exp(strength · Θ_x(x_i, x_i)).

    The attack on x_i is a gradient flow of the loss in x, for time S at the rate η_i; training is a gradient
    flow in the parameters. In the limit of infinite width, f linear in both, this is kernel regression at the
    clocks Ξ_i(t) = ∫₀ᵗ exp(Θ_x(x_i, x_i) η_i S) dτ: an attack multiplies the residual on x_i, and so
    the speed at which x_i is learned. Here η_i is constant, strength = η S, and then this is exact. No clock
    is slower than t, so that all of them end where plain training ends.

    Args:
        architecture: `architectures.fc`.
        x: training inputs (n, ...).
        t: time of training, as for `f.at`.
        strength: η S ≥ 0; 0 is plain training.

    Returns:
        Clocks (n,) for `clocked`, float64.

    Raises:
        TypeError, ValueError: as `input_gradients`; t or strength that is no finite number ≥ 0; clocks that
            pass the largest float64.

    Source: Fu & Wang (2024), arXiv 2310.06112, section 4.

    >>> from companion.architectures import fc
    >>> adversarial(fc(1), np.ones((2, 5), np.float32), 3.0, strength=np.log(2) / 2).round(6).tolist()
    [6.0, 6.0]
    """
    t, strength = number("t", t), number("strength", strength)
    exponents = strength * input_gradients(architecture, x)
    if exponents.max() > 700:
        raise ValueError(
            f"strength must keep strength · Θ_x below 700, got {strength:g} where Θ_x reaches "
            f"{exponents.max() / strength:.3g}"
        )
    with np.errstate(over="ignore"):
        found = t * np.exp(exponents)
    if not np.isfinite(found).all():
        raise ValueError(f"t · exp(strength · Θ_x) must be finite, got t = {t:g} and {exponents.max():.3g}")
    return found
