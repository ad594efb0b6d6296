"""The kernel of one hidden ReLU layer whose biases all start at the same −B: few units are active.

For standard Gaussian u and v of correlation ρ, and thresholds h and k, the network needs
L = P(u > h, v > k) and M = E (u − h)₊ (v − k)₊. By Price's theorem dM/dρ = L and dL/dρ is the density at
(h, k), so both are integrals from the independent pair at ρ = 0; with ρ = sin θ the integrand has no root.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from companion._core.types import Array, Scalar
from companion.architectures._arccosine import angle_and_rest, inverse_sqrt, safe_sqrt
from companion.architectures._dense import entries, gap_of, moments, variance

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)


def relu_kernel(x1: Array, x2: Array, *, bias: float, w_std: float, b_std: float) -> tuple[Array, Array]:
    """NNGP and NTK of one hidden ReLU layer whose biases start at −B, for inputs (n1, d) and (n2, d).

    With q = w_std²/d x·x', r and r' its roots at x = x' and thresholds h = B/r, k = B/r':

        K = w_std² r r' M(h, k, ρ) + b_std²,    Θ = K + w_std² (q + b_std²) L(h, k, ρ).

    Yang et al. (2024), arXiv 2301.00327, have unit inputs, w_std² = d and b_std = 1 in the hidden layer, and
    do not train the output layer: their H is then (q + 1) L.
    """
    layers = partial(_layers, bias=bias, w_std=w_std, b_std=b_std)
    return entries(layers, moments(x1, x2), x1, x2)


def _layers(
    known: tuple[Array, Array, Array], x1: Array, x2: Array, *, bias: float, w_std: float, b_std: float
) -> tuple[Array, Array]:
    d = x1.shape[-1]
    p1, p2 = (variance(square, d, w_std, 0.0) for square in known[1:])
    gap, positive = gap_of(known, x1, x2, w_std, 0.0)
    # Of an input of zeros no unit is active: its threshold is large, and finite.
    h, k = (bias / safe_sqrt(jnp.maximum(p, 1e-30)) for p in (p1, p2))
    both, product = _upper(h[:, None], k, gap, positive)
    nngp = w_std**2 * safe_sqrt(p1)[:, None] * safe_sqrt(p2) * product + b_std**2
    return nngp, nngp + w_std**2 * (w_std**2 / d * known[0] + b_std**2) * both


@jax.custom_jvp
def _upper(h: Array, k: Array, gap: Array, positive: Array) -> tuple[Array, Array]:
    """L and M for thresholds h and k, of the sign and size of ρ: `positive`, and `gap` = 1 − abs ρ."""
    rho = jnp.where(positive, 1 - gap, gap - 1)
    end = np.pi / 2 - angle_and_rest(gap)[0]
    end = jnp.where(positive, end, -end)
    nodes, weights = (jnp.asarray(part, gap.dtype) for part in ((1 + _NODES) / 2, _WEIGHTS / 2))

    def add(i: Scalar, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        theta = end * nodes[i]
        sine, cosine = jnp.sin(theta), jnp.cos(theta)
        # (h² + k² − 2hk sin θ) / 2cos² θ without the difference of large numbers.
        power = (h - k) ** 2 / (2 * cosine**2) + h * k / (1 + sine)
        density = weights[i] * jnp.exp(-power)
        return sums[0] + density, sums[1] + density * (rho - sine)

    # A loop: written out, it takes XLA ten times as long to compile.
    both, product = jax.lax.fori_loop(0, len(_NODES), add, (jnp.zeros_like(gap), jnp.zeros_like(gap)))
    scale = end / (2 * np.pi)
    apart = _above(h) * _above(k)
    return apart + scale * both, _mean(h) * _mean(k) + rho * apart + scale * product


@_upper.defjvp
def _upper_jvp(primals: tuple, tangents: tuple) -> tuple:
    h, k, gap, positive = primals
    both, product = _upper(h, k, gap, positive)
    rho, turn = jnp.where(positive, 1 - gap, gap - 1), jnp.where(positive, -tangents[2], tangents[2])
    # A gap of the size of squared rounding errors is that of equal inputs, as in `angle_and_rest`.
    inside = gap > (16 * jnp.finfo(gap.dtype).eps) ** 2
    gap = jnp.where(inside, gap, jnp.zeros_like(gap))
    root = safe_sqrt(gap * (2 - gap))
    inverse = inverse_sqrt(gap * (2 - gap))
    power = ((h - k) * inverse) ** 2 / 2 + h * k / jnp.maximum(1 + rho, 1e-18)
    density = jnp.exp(-power) * inverse / (2 * np.pi)
    # How far v must be above its mean given u = h; and the other way round.
    near = jnp.where(positive, safe_sqrt(gap / (2 - gap)), (2 - gap) / jnp.maximum(root, 1e-18))
    apart = (k - h) * inverse
    at_h = _density(h) * _above(apart + h * near)
    at_k = _density(k) * _above(k * near - apart)
    change_both = density * turn - at_h * tangents[0] - at_k * tangents[1]
    change = (
        both * turn
        - (rho * at_h + at_k - k * both) * tangents[0]
        - (rho * at_k + at_h - h * both) * tangents[1]
    )
    return (both, product), (change_both, change)


def _density(h: Array) -> Array:
    return jnp.exp(-h * h / 2) / np.sqrt(2 * np.pi)


def _above(h: Array) -> Array:
    """P(u > h)."""
    return jax.scipy.special.erfc(h / np.sqrt(2)) / 2


def _mean(h: Array) -> Array:
    """E (u − h)₊."""
    return jnp.maximum(_density(h) - h * _above(h), 0)
