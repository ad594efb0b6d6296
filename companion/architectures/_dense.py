"""The kernel of a fully connected network of infinite width, in one fused expression.

For two inputs with variances p, p' and covariance q at some layer, c = q/√(p p') is their correlation. A ReLU
kernel needs the angle arccos c, so what is carried from layer to layer is the gap 1 − c: see `_arccosine`.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from companion._core.types import Array
from companion.architectures._arccosine import angle_and_rest, arcsin, inverse_sqrt, safe_sqrt

# float32 rounds a correlation by some 2e-7. Below this gap that is more than 1e-4 of the gap, so it is
# computed again, from the difference of the two inputs.
_NEAR = 1e-3


Moments = tuple[Array, Array, Array]
Layers = Callable[..., tuple[Array, Array]]  # layers(known, x1, x2)


def _squares(x: Array) -> Array:
    """|x|² of every input (n, d)."""
    return (x * x).sum(-1)


def moments(x1: Array, x2: Array) -> Moments:
    """x1 x2ᵀ, |x1|² and |x2|²: for most pairs of inputs (n, d), all that their kernel depends on."""
    return jnp.matmul(x1, x2.T, precision="highest"), _squares(x1), _squares(x2)


def relu_kernel(x1: Array, x2: Array, *, depth: int, w_std: float, b_std: float) -> tuple[Array, Array]:
    """NNGP and NTK of `depth` hidden ReLU layers for inputs (n1, d) and (n2, d).

    A layer multiplies the NTK by κ₀ and turns the correlation c into κ₁, with φ = arccos c and

        κ₀ = 1 − φ/π,    1 − κ₁ = (1 − c) − (sin φ − φ cos φ)/π;

    for c < 0, φ = arccos |c|, κ₀ = φ/π and κ₁ = (sin φ − φ cos φ)/π (Cho & Saul 2009). Weights and biases
    then scale and add, and the NTK gains the new covariance (Jacot et al. 2018, arXiv 1806.07572, theorem 1).
    In the code `less` is 1 − c or 1 − κ₁, and both kernels are divided by √(p p') up to the end.
    """
    layers = partial(_relu_layers, depth=depth, w_std=w_std, b_std=b_std)
    return entries(layers, moments(x1, x2), x1, x2)


def _relu_layers(
    known: Moments, x1: Array, x2: Array, *, depth: int, w_std: float, b_std: float
) -> tuple[Array, Array]:
    p1, p2 = (variance(square, x1.shape[-1], w_std, b_std) for square in known[1:])
    gap, positive = gap_of(known, x1, x2, w_std, b_std)
    ntk, less = jnp.where(positive, 1 - gap, gap - 1), gap
    for layer in range(depth):
        angle, rest = angle_and_rest(less)
        slope, less = 1 - angle / np.pi, less - rest / np.pi
        if layer == 0:  # later correlations are never negative
            slope = jnp.where(positive, slope, angle / np.pi)
            less = jnp.where(positive, less, 1 - rest / np.pi)
        ntk = slope * ntk
        (a1, b1, p1), (a2, b2, p2) = (_parts(p, w_std, b_std) for p in (p1, p2))
        if b_std:
            share = a1[:, None] * a2
            less = share * less + ((a1[:, None] - a2) ** 2 + (b1[:, None] - b2) ** 2) / 2
            ntk = share * ntk
        ntk = 1 - less + ntk
    scale = jnp.sqrt(p1)[:, None] * jnp.sqrt(p2) if b_std else safe_sqrt(p1)[:, None] * safe_sqrt(p2)
    return scale * (1 - less), scale * ntk


def erf_kernel(x1: Array, x2: Array, *, depth: int, w_std: float, b_std: float) -> tuple[Array, Array]:
    """NNGP and NTK of `depth` hidden erf layers, after Williams (1997), for inputs (n1, d) and (n2, d).

    E[erf u erf v] = 2/π arcsin c and E[erf' u erf' v] = 4/π / √((1 + 2p)(1 + 2p')(1 − c²)), where
    c = 2q/√((1 + 2p)(1 + 2p')).
    """
    layers = partial(_erf_layers, depth=depth, w_std=w_std, b_std=b_std)
    return entries(layers, moments(x1, x2), x1, x2)


def _erf_layers(
    known: Moments, x1: Array, _: Array, *, depth: int, w_std: float, b_std: float
) -> tuple[Array, Array]:
    p1, p2 = (variance(square, x1.shape[-1], w_std, b_std) for square in known[1:])
    q = ntk = w_std**2 / x1.shape[-1] * known[0] + b_std**2
    for _ in range(depth):
        scale = jax.lax.rsqrt(1 + 2 * p1)[:, None] * jax.lax.rsqrt(1 + 2 * p2)
        cosine = 2 * q * scale
        slope = 4 / np.pi * scale * jax.lax.rsqrt((1 - cosine) * (1 + cosine))
        q = w_std**2 * (2 / np.pi) * arcsin(cosine) + b_std**2
        ntk = q + w_std**2 * slope * ntk
        p1, p2 = (w_std**2 * (2 / np.pi) * arcsin(2 * p / (1 + 2 * p)) + b_std**2 for p in (p1, p2))
    return q, ntk


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def entries(layers: Layers, known: Moments, x1: Array, x2: Array) -> tuple[Array, Array]:
    """layers(known, x1, x2), whose entries depend on one entry of x1 x2ᵀ, |x1|² and |x2|² each.

    So a gradient needs only their partial derivatives, and forward mode writes each of these as one fused
    expression. Reverse mode, layer by layer, took twice as long for all but the products.
    """
    return layers(known, x1, x2)


def _entries_jvp(layers: Layers, primals: tuple, tangents: tuple) -> tuple:
    known, x1, x2 = primals
    values, derivative = jax.linearize(lambda *known: layers(known, x1, x2), *known)
    changes = [jnp.zeros_like(value) for value in values]
    for place, change in enumerate(tangents[0]):
        if isinstance(change, SymbolicZero):
            continue
        units = [jnp.ones_like(part) if place == i else jnp.zeros_like(part) for i, part in enumerate(known)]
        # Broadcast by products: what XLA sums on the way back it would else compute one number at a time, or
        # not at all: compiling the gradients of all outputs at 64 inputs ends Python (jaxlib 0.10.2).
        # JAX may call this where the caller's matmul precision holds no longer, so they name their own.
        if place == 1:
            ones = jnp.ones((1, len(known[2])), change.dtype)
            change = jnp.matmul(change[:, None], ones, precision="highest")
        elif place == 2:
            ones = jnp.ones((len(known[1]), 1), change.dtype)
            change = jnp.matmul(ones, change[None], precision="highest")
        changes = [sum + unit * change for sum, unit in zip(changes, derivative(*units), strict=True)]
    return values, tuple(changes)


entries.defjvp(_entries_jvp, symbolic_zeros=True)


def variance(square: Array, d: int, w_std: float, b_std: float) -> Array:
    return w_std**2 / d * square + b_std**2


def _parts(p: Array, w_std: float, b_std: float) -> tuple[Array | None, Array | None, Array]:
    """The unit vector of (w √(p/2), b), a layer's two sources of variance, and the variance of their sum."""
    after = w_std**2 / 2 * p + b_std**2
    if not b_std:
        return None, None, after
    inverse = jax.lax.rsqrt(after)
    return w_std * safe_sqrt(p / 2) * inverse, b_std * inverse, after


def _correlation(known: Moments, d: int, w_std: float, b_std: float) -> Array:
    r1, r2 = (inverse_sqrt(variance(square, d, w_std, b_std)) for square in known[1:])
    return (w_std**2 / d * known[0] + b_std**2) * (r1[:, None] * r2)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def gap_of(known: Moments, x1: Array, x2: Array, w_std: float, b_std: float) -> tuple[Array, Array]:
    """1 − |c| and whether c ≥ 0, for all pairs; its derivative is that of c with respect to `known`.

    Where |c| is near 1 the gap is computed again as ½‖u1 ∓ u2‖², for the unit vectors u of (w x/√d, b): that
    does not cancel. One pair of every row at a time, since few rows have more than one, in the memory of x1.
    """
    d = x1.shape[-1]
    cosine = _correlation(known, d, w_std, b_std)
    gap, positive = jnp.maximum(1 - jnp.abs(cosine), 0), cosine >= 0
    p1, p2 = (variance(square, d, w_std, b_std) for square in known[1:])
    rows = jnp.arange(len(x1))

    def refine(state: tuple[Array, Array]) -> tuple[Array, Array]:
        gap, near = state
        column = jnp.argmax(near, axis=1)
        # u1 ∓ u2 is 1/√p1 times this difference, of x1 and of x2 scaled to the same length.
        root = jnp.sqrt(p1)
        ratio = jnp.where(positive[rows, column], root, -root) * inverse_sqrt(p2[column])
        distance = w_std**2 / d * _squares(x1 - ratio[:, None] * x2[column]) + (b_std * (1 - ratio)) ** 2
        exact = distance * inverse_sqrt(p1) ** 2 / 2
        gap = gap.at[rows, column].set(jnp.where(near[rows, column], exact, gap[rows, column]))
        return gap, near.at[rows, column].set(False)

    return jax.lax.while_loop(lambda state: jnp.any(state[1]), refine, (gap, gap < _NEAR))[0], positive


@gap_of.defjvp
def _gap_jvp(w_std: float, b_std: float, primals: tuple, tangents: tuple) -> tuple:
    known, x1, x2 = primals
    gap, positive = gap_of(known, x1, x2, w_std, b_std)
    slope = partial(_correlation, d=x1.shape[-1], w_std=w_std, b_std=b_std)
    change = jax.jvp(slope, (known,), tangents[:1])[1]
    return (gap, positive), (
        jnp.where(positive, -change, change),
        np.zeros(positive.shape, jax.dtypes.float0),
    )
