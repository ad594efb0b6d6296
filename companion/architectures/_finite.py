"""Finite networks in the NTK parameterization: layers, each a pair (init, apply), one after the other.

Random numbers and the layout of the parameters, a list with a pair (W, b) for each layer of weights and ()
for each other, are those of neural-tangents' `stax`, whose networks these are.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from companion._core.types import Apply, Array, Key


class Layer(NamedTuple):
    """`init(key, shape) -> (shape of the outputs, params)` and `apply(params, x)`."""

    init: Callable[[Key, tuple[int, ...]], tuple[tuple[int, ...], PyTree]]
    apply: Apply


def normal(key: Key, shape: tuple[int, ...]) -> Array:
    """`jax.random.normal`, to the bit, of which one compilation serves every shape up to a power of two.

    What threefry draws at place i depends on the key and on i alone, however many are drawn; and XLA takes up
    to a second to compile the draw of one shape.
    """
    if not jax.config.jax_threefry_partitionable or str(jax.random.key_impl(key)) != "threefry2x32":
        return jax.random.normal(key, shape)
    length = max(1024, 1 << (math.prod(shape) - 1).bit_length())
    return _first(jax.random.normal(key, (length,)), shape)


@functools.partial(jax.jit, static_argnums=1)
def _first(draws: Array, shape: tuple[int, ...]) -> Array:
    return draws[: math.prod(shape)].reshape(shape)


def dense(width: int, w_std: float, b_std: float, *, start: float | None = None) -> Layer:
    """W a · w_std/√d + b · b_std along the last axis; b starts at `start`, None for N(0, 1)."""

    def init(key: Key, shape: tuple[int, ...]) -> tuple[tuple[int, ...], PyTree]:
        first, second = jax.random.split(key)
        weights = normal(first, (shape[-1], width))
        if start is not None:
            return (*shape[:-1], width), (weights, jnp.full((1, width), start, weights.dtype))
        return (*shape[:-1], width), (weights, normal(second, (1, width)))

    def apply(params: PyTree, x: Array) -> Array:
        weights, bias = params
        return w_std / x.shape[-1] ** 0.5 * jnp.dot(x, weights) + b_std * bias

    return Layer(init, apply)


def conv3(width: int, w_std: float, b_std: float) -> Layer:
    """A 3×3 SAME convolution of images (n, h, w, c), scaled as `dense` with d = 9 c."""

    def init(key: Key, shape: tuple[int, ...]) -> tuple[tuple[int, ...], PyTree]:
        first, second = jax.random.split(key)
        weights = normal(first, (3, 3, shape[-1], width))
        return (*shape[:-1], width), (weights, normal(second, (1, 1, 1, width)))

    def apply(params: PyTree, x: Array) -> Array:
        weights, bias = params
        product = jax.lax.conv_general_dilated(
            x, weights, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return w_std / math.prod(weights.shape[:3]) ** 0.5 * product + b_std * bias

    return Layer(init, apply)


def _fixed(change: Callable[[Array], Array], shape_of: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Layer:
    return Layer(lambda _, shape: (shape_of(shape), ()), lambda _, x: change(x))


def _halves(x: Array) -> Array:
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, jnp.zeros((), x.dtype), jax.lax.add, window, window, "VALID") / 4


RELU = _fixed(lambda x: jnp.maximum(x, 0), lambda shape: shape)
ERF = _fixed(jax.scipy.special.erf, lambda shape: shape)
FLATTEN = _fixed(lambda x: x.reshape(len(x), -1), lambda shape: (shape[0], math.prod(shape[1:])))
HALVE = _fixed(_halves, lambda shape: (shape[0], shape[1] // 2, shape[2] // 2, shape[3]))
AVERAGE = _fixed(lambda x: x.mean(axis=(1, 2)), lambda shape: (shape[0], shape[3]))


def serial(layers: Sequence[Layer]) -> Layer:
    """The layers one after the other; the parameters are the list of theirs."""

    def init(key: Key, shape: tuple[int, ...]) -> tuple[tuple[int, ...], PyTree]:
        params = []
        for layer in layers:
            key, own = jax.random.split(key)
            shape, some = layer.init(own, shape)
            params.append(some)
        return shape, params

    def apply(params: PyTree, x: Array) -> Array:
        for layer, some in zip(layers, params, strict=True):
            x = layer.apply(some, x)
        return x

    return Layer(init, apply)
