"""A dense ReLU network with its last-layer features in reach, and the kernel of these features."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from companion._core.types import Array, Key, NetworkKernel, Params, State, Variables
from companion.empirical import empirical_ntk_fn
from companion.networks import Model

_PROJECTIONS = 16


def features(params: Params, x: Array) -> Array:
    """The activations before the last layer, (n, p)."""
    h = x.reshape(len(x), -1)
    for weights, bias in params[:-1]:
        h = jax.nn.relu(h @ weights + bias)
    return h


@functools.lru_cache
def dense(classes: int, *, depth: int, width: int) -> Model:
    """A network of `depth` hidden layers of `width` units with He's initialization and zero biases."""

    def init(key: Key, x: Array) -> Variables:
        sizes = [x[0].size, *[width] * depth, classes]
        keys = jax.random.split(key, depth + 1)
        layers = [
            (jax.random.normal(key, (n, m)) * (2 / n) ** 0.5, jnp.zeros(m))
            for key, n, m in zip(keys, sizes, sizes[1:], strict=False)
        ]
        return layers, {}

    def apply(params: Params, state: State, x: Array, training: bool) -> tuple[Array, State]:  # noqa: ARG001
        weights, bias = params[-1]
        return features(params, x) @ weights + bias, state

    return Model(f"dense-{depth}", init, apply)


@functools.lru_cache
def feature_kernel(width: int) -> NetworkKernel:
    """The mean over features a of ⟨∂h_a(x), ∂h_a(x')⟩, by random signs: unbiased, and 1/8 as dear."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (width, _PROJECTIONS)).astype(np.float32)

    def projected(params: Params, x: Array) -> Array:
        return features(params, x) @ (signs / width**0.5)

    return empirical_ntk_fn(projected)
