"""The kernel of a convolutional network of infinite width with a flattened end, in one fused expression.

As in `_dense_kernel`, at every pixel: a layer's variances p are those of a 3×3 window, zero outside the
image. Arrays of pairs are (h, w, n1, n2): with the pairs innermost every operation runs over long rows.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from companion._core.types import Array, Scalar
from companion.architectures._arccosine import angle_and_rest, arcsin, inverse_sqrt, safe_sqrt

# With a bias this much smaller than the weights, float32 would lose digits in the difference of `_gap`.
_SMALL_BIAS = 0.02


def relu_kernel(x1: Array, x2: Array, *, depth: int, w_std: float, b_std: float) -> tuple[Array, Array]:
    """NNGP and NTK of `depth` convolutions with ReLU, flattened, for images (n1, h, w, c) and (n2, h, w, c).

    Cho & Saul (2009) at every pixel; the recursion over layers is that of Arora et al. (2019), section 4 of
    arXiv 1904.11955.
    """
    gain = w_std**2 / 2
    v1, v2 = (_pixels(x) * (w_std / (9 * x.shape[-1]) ** 0.5) for x in (x1, x2))
    r1, r2 = (safe_sqrt(box((v * v).sum(0)) + b_std**2) for v in (v1, v2))
    gap = _gap(v1, v2, r1, r2, w_std, b_std)
    positive = gap <= 1
    ntk = _outer(r1, r2) * (1 - gap)
    # A gap near 2 has lost its last digits; without negative pixels there is none.
    below = jax.lax.cond(
        jnp.all(positive), lambda: gap, lambda: _gap(v1, -v2, r1, r2, w_std, b_std, opposite=True)
    )
    angle, rest = angle_and_rest(jnp.where(positive, gap, below))
    less = jnp.where(positive, gap - rest / np.pi, 1 - rest / np.pi)
    ntk = ntk * jnp.where(positive, 1 - angle / np.pi, angle / np.pi)

    def layer(_: Scalar, state: tuple) -> tuple:
        less, ntk, r1, r2 = state
        s1, s2 = (safe_sqrt(gain / 9 * box(r * r) + b_std**2) for r in (r1, r2))
        v1, v2 = ((gain / 9) ** 0.5 * r[None] for r in (r1, r2))
        gap = _gap(v1, v2, s1, s2, w_std, b_std, extra=gain / 9 * _outer(r1, r2) * less)
        ntk = _outer(s1, s2) * (1 - gap) + gain / 9 * box(ntk)
        angle, rest = angle_and_rest(gap)
        return gap - rest / np.pi, ntk * (1 - angle / np.pi), s1, s2

    less, ntk, r1, r2 = _repeat(depth - 1, layer, (less, ntk, r1, r2))
    nngp = gain * (_outer(r1, r2) * (1 - less)).mean((0, 1)) + b_std**2
    return nngp, nngp + gain * ntk.mean((0, 1))


def erf_kernel(x1: Array, x2: Array, *, depth: int, w_std: float, b_std: float) -> tuple[Array, Array]:
    """NNGP and NTK of `depth` convolutions with erf, flattened: Williams (1997) at every pixel."""
    v1, v2 = (_pixels(x) * (w_std / (9 * x.shape[-1]) ** 0.5) for x in (x1, x2))
    p1, p2 = (box((v * v).sum(0)) + b_std**2 for v in (v1, v2))
    q = box(_channel_sum(_outer, v1, v2)) + b_std**2

    def activate(q: Array, ntk: Array, p1: Array, p2: Array) -> tuple[Array, Array]:
        scale = _outer(jax.lax.rsqrt(1 + 2 * p1), jax.lax.rsqrt(1 + 2 * p2))
        cosine = 2 * q * scale
        slope = 4 / np.pi * scale * jax.lax.rsqrt((1 - cosine) * (1 + cosine))
        return 2 / np.pi * arcsin(cosine), slope * ntk

    def layer(_: Scalar, state: tuple) -> tuple:
        k, ntk, p1, p2 = state
        q = w_std**2 / 9 * box(k) + b_std**2
        p1, p2 = (w_std**2 / 9 * box(2 / np.pi * arcsin(2 * p / (1 + 2 * p))) + b_std**2 for p in (p1, p2))
        return *activate(q, q + w_std**2 / 9 * box(ntk), p1, p2), p1, p2

    k, ntk, _, _ = _repeat(depth - 1, layer, (*activate(q, q, p1, p2), p1, p2))
    nngp = w_std**2 * k.mean((0, 1)) + b_std**2
    return nngp, nngp + w_std**2 * ntk.mean((0, 1))


def _repeat(times: int, layer: Callable[[Scalar, tuple], tuple], state: tuple) -> tuple:
    """`layer` so many times, each compiled apart from the rest: fused together they run several times slower.

    XLA dissolves a loop of one turn; a condition that holds but that it cannot foresee stands in for it.
    """
    if times != 1:
        return jax.lax.fori_loop(0, times, layer, state)
    return jax.lax.cond(jnp.isfinite(state[-1]).all(), lambda s: layer(0, s), lambda s: s, state)


def box(a: Array) -> Array:
    """Sums over 3×3 windows of (h, w, ...), zero outside: three rows, then three columns.

    Written with slices and not with padding, which XLA's CPU loops would test for at every element.
    """
    for axis in (0, 1):
        n = a.shape[axis]

        def part(start: int, stop: int, a: Array = a, axis: int = axis) -> Array:
            return jax.lax.slice_in_dim(a, start, stop, axis=axis)

        if n > 2:
            inner = part(0, n - 2) + part(1, n - 1) + part(2, n)
            a = jnp.concatenate([part(0, 1) + part(1, 2), inner, part(n - 2, n - 1) + part(n - 1, n)], axis)
        elif n == 2:
            a = jnp.concatenate([part(0, 1) + part(1, 2)] * 2, axis)
    return a


def _gap(
    v1: Array,
    v2: Array,
    r1: Array,
    r2: Array,
    w_std: float,
    b_std: float,
    *,
    extra: Array | None = None,
    opposite: bool = False,
) -> Array:
    """1 − c for the 3×3 windows of v1 and v2 (c, h, w, n), of norms r1 and r2, plus box(extra)/(r1 r2).

    Each window has b_std as one more entry; with `opposite` it has the other sign in the second. Computed
    from 2 r r' (1 − c) = ‖v − v'‖² − (r − r')².
    """
    inverse = _outer(inverse_sqrt(r1 * r1), inverse_sqrt(r2 * r2))
    if b_std > _SMALL_BIAS * w_std:
        distance = _channel_sum(_half_distance, v1, v2)
        both = box(distance if extra is None else distance + extra)
        bias = 2 * b_std**2 if opposite else 0.0
        return jnp.maximum((both + bias - _half_distance(r1, r2)) * inverse, 0)
    # Almost parallel patches of different size, such as flat ones without a bias: there the two terms cancel.
    c1, c2 = b_std * inverse_sqrt(r1 * r1), b_std * inverse_sqrt(r2 * r2)
    between = _half_distance(c1, -c2 if opposite else c2)
    for u1, u2 in zip(_windows(v1, r1), _windows(v2, r2), strict=True):
        between = between + _channel_sum(_half_distance, u1, u2)
    return between if extra is None else between + box(extra) * inverse


def _windows(v: Array, r: Array) -> list[Array]:
    """The nine shifts of v (c, h, w, n), each divided by the norm r of the window that it belongs to."""
    h, w = r.shape[:2]
    padded = jnp.pad(v, ((0, 0), (1, 1), (1, 1), (0, 0)))
    inverse = inverse_sqrt(r * r)
    return [padded[:, i : i + h, j : j + w] * inverse for i in range(3) for j in range(3)]


def _pixels(x: Array) -> Array:
    """Images (n, h, w, c) as (c, h, w, n)."""
    return jnp.transpose(x, (3, 1, 2, 0))


def _outer(a: Array, b: Array) -> Array:
    return a[..., :, None] * b[..., None, :]


def _half_distance(a: Array, b: Array) -> Array:
    """½ (a − b)² of all pairs."""
    return (a[..., :, None] - b[..., None, :]) ** 2 / 2


def _channel_sum(operation: Callable[[Array, Array], Array], v1: Array, v2: Array) -> Array:
    """Σ over channels, one after the other: no array of channels × pairs."""
    return functools.reduce(operator.add, map(operation, v1, v2))
