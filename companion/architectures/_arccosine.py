"""Angles between inputs, fast and without cancellation: what the fused kernels are made of.

An angle near 0 is the difficulty. Its cosine c is then near 1, and rounding c to float32 moves the angle by
up to √ε = 3e-4, however exact the arccosine. So these functions take the gap m = 1 − |c|, which the callers
compute without subtracting nearly equal numbers, and use polynomials that XLA turns into vector instructions.
"""

from collections.abc import Callable
from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from companion._core.types import Array


@jax.custom_jvp
def angle_and_rest(m: Array) -> tuple[Array, Array]:
    """φ = arccos(1 − m) and sin φ − φ cos φ, for m in [0, 1].

    Both are powers of √m times a polynomial: φ = √m · P(m) and sin φ − φ cos φ = √m · m · Q(m). Their
    derivatives are 1/√(m (2 − m)) and φ. At m = 0 the first one is infinite and a kernel has a kink: there it
    is taken as 0, the mean of the slopes on the two sides. The same holds for m of the size of squared
    rounding errors, which is where two computations of one norm leave the gap of equal inputs. Such an m may
    be negative too, where XLA computes it twice and rounds otherwise: it counts as 0.
    """
    m = jnp.maximum(m, jnp.zeros_like(m))
    # Two roots, for memory: of a shared one XLA would store every entry. Time is the same.
    # A power of two keeps the cube of a small m from vanishing.
    large = 2.0**40 * m
    cube = 2.0**-60 * jnp.sqrt(large * large * large)
    return jnp.sqrt(m) * _polynomial(_arc, 1.0, m), cube * _polynomial(_rest, 1.0, m)


@angle_and_rest.defjvp
def _angle_and_rest_jvp(primals: tuple, tangents: tuple) -> tuple:
    (m,), (change,) = primals, tangents
    angle, rest = angle_and_rest(m)
    inside = m > (16 * jnp.finfo(m.dtype).eps) ** 2
    slope = _where(inside, lambda m: jax.lax.rsqrt(m * (2 - m)), m)
    return (angle, rest), (slope * change, angle * change)


@jax.custom_jvp
def arcsin(c: Array) -> Array:
    """The arcsine for c in [−1, 1], relatively exact at 0: c · R(c²) up to ½, then π/2 − arccos c."""
    size = jnp.abs(c)
    near_zero = size * _polynomial(_arcsin_ratio, 0.25, jnp.minimum(c * c, 0.25))
    gap = jnp.maximum(1 - size, 0)
    near_one = np.pi / 2 - jnp.sqrt(gap) * _polynomial(_arc, 1.0, gap)
    return jnp.sign(c) * jnp.where(size < 0.5, near_zero, near_one)


@arcsin.defjvp
def _arcsin_jvp(primals: tuple, tangents: tuple) -> tuple:
    (c,), (change,) = primals, tangents
    return arcsin(c), change * jax.lax.rsqrt((1 - c) * (1 + c))


def _where(inside: Array, function: Callable[[Array], Array], p: Array) -> Array:
    """function(p) inside, else 0, with its derivative.

    Without numbers of Python's: `jnp.where` keeps them in the precision in which it was traced first.
    """
    one, zero = jnp.ones_like(p), jnp.zeros_like(p)
    return jnp.where(inside, function(jnp.where(inside, p, one)), zero)


def safe_sqrt(p: Array) -> Array:
    """√p, with derivative 0 at p = 0."""
    inside = p > 0
    return _where(inside, jnp.sqrt, p)


def inverse_sqrt(p: Array) -> Array:
    """1/√p, and 0 at p = 0."""
    inside = p > 0
    return _where(inside, jax.lax.rsqrt, p)


def _polynomial(function: Callable[[np.ndarray], np.ndarray], end: float, m: Array) -> Array:
    """The polynomial through `function` at the Chebyshev points of [0, end], by Horner's rule."""
    degree = 18 if m.dtype == np.float64 else 7
    coefficients = Chebyshev.interpolate(function, degree, domain=[0, end]).convert(kind=Polynomial).coef
    value = jnp.full_like(m, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * m + m.dtype.type(coefficient)
    return value


def _arc(m: np.ndarray) -> np.ndarray:
    """arccos(1 − m) / √m, by 1 − cos φ = 2 sin²(φ/2)."""
    half = np.sqrt(m / 2)
    return np.sqrt(2) * _arcsin_ratio(half**2)


def _rest(m: np.ndarray) -> np.ndarray:
    """(sin φ − φ cos φ) / m^{3/2}, by its Taylor series in φ²."""
    square = m * _arc(m) ** 2
    series = sum((-square) ** k * 2 * (k + 1) / factorial(2 * k + 3) for k in range(14))
    return _arc(m) ** 3 * series


def _arcsin_ratio(square: np.ndarray) -> np.ndarray:
    """arcsin(c) / c as a function of c², for c² > 0."""
    c = np.sqrt(square)
    return np.arcsin(c) / c
