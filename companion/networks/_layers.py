"""Layers of `companion.networks` that are fast where a training loop is compiled as a whole."""

import math

import jax
import jax.numpy as jnp

from companion._core.extras import missing
from companion._core.types import Array, Key
from companion.networks._models import OUTSIDE_LOOPS

try:
    import flax.linen as nn
except ModuleNotFoundError as error:
    raise missing("flax", "networks") from error


class Conv(nn.Module):
    """A convolution that pads by (kernel − 1) / 2 on all sides, with the parameters of Flax's own.

    On a CPU it is one product of matrices: XLA runs convolutions inside a compiled loop on one core, many
    times slower than outside, and products on all.

    Attributes:
        features: channels that come out.
        kernel: height and width of the filter, odd.
        stride: of the filter.
        use_bias: whether a bias is added.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, c) to (n, h / stride, w / stride, features)."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        # He's initialization: the layer's signal keeps its size through a ReLU.
        weights = self.param("kernel", he_normal, shape)
        product = jax.default_backend() == "cpu" and not OUTSIDE_LOOPS.get()
        x = (_product if product else _convolution)(x, weights, self.stride)
        if self.use_bias:
            x = x + self.param("bias", nn.initializers.zeros, (self.features,))
        return x


def he_normal(key: Key, shape: tuple[int, ...]) -> Array:
    """Flax's own `he_normal`, drawn as a matrix: the same numbers, which XLA compiles in half the time."""
    return nn.initializers.he_normal()(key, (math.prod(shape[:-1]), shape[-1])).reshape(shape)


def _convolution(x: Array, weights: Array, stride: int) -> Array:
    side = weights.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, weights, (stride, stride), ((side, side),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _product(x: Array, weights: Array, stride: int) -> Array:
    size, _, channels, features = weights.shape
    side = size // 2
    n, h, w = x.shape[0], -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    x = jnp.pad(x, ((0, 0), (side, side), (side, side), (0, 0)))
    shifted = [
        x[:, i : i + stride * (h - 1) + 1 : stride, j : j + stride * (w - 1) + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    patches = jnp.concatenate(shifted, axis=-1).reshape(-1, size * size * channels)
    return (patches @ weights.reshape(-1, features)).reshape(n, h, w, features)


def max_pool(x: Array) -> Array:
    """The largest of each 2×2 pixels; an odd last row or column is left out, as `nn.max_pool` does."""
    n, h, w, c = x.shape
    # By itself four times as fast on a CPU as a window that slides, whose derivative has to search; of a step
    # of training nothing. That derivative gives ties to one pixel, this one shares: recorded runs have it so.
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def average_pool(x: Array) -> Array:
    """The mean of each 2×2 pixels; an odd last row or column is left out."""
    return nn.avg_pool(x, (2, 2), (2, 2))
