"""The Flax modules of `companion.networks`."""

from companion._core.checks import channels_last
from companion._core.extras import missing
from companion._core.types import Array
from companion.networks._layers import Conv, average_pool, max_pool
from companion.networks._norm import Norm
from companion.networks._normalizing import normalizing

try:
    import flax.linen as nn
except ModuleNotFoundError as error:
    raise missing("flax", "networks") from error


def _check(network: str, x: Array, least: int) -> None:
    """Refuse inputs that are no images, or of which pooling would leave nothing; warn of channels first."""
    channels_last("x", x.shape)
    if x.ndim != 4 or min(x.shape[1:3]) < least:
        raise ValueError(
            f"{network} wants x as images (n, h, w, c) of {least} × {least} pixels at least, got shape "
            f"{x.shape}"
        )


class MLP(nn.Module):
    """`depth` dense ReLU layers of `width` units, and a linear one."""

    n_outputs: int
    depth: int
    width: int
    norm: Norm = None

    @nn.compact
    def __call__(self, x: Array, training: bool = False) -> Array:
        """(n, ...) to (n, n_outputs)."""
        x = x.reshape(len(x), -1)
        for _ in range(self.depth):
            dense = nn.Dense(self.width, kernel_init=nn.initializers.he_normal())
            x = nn.relu(normalizing(self.norm, training)(dense(x)))
        return nn.Dense(self.n_outputs)(x)


class SmallCNN(nn.Module):
    """Two convolutions with pooling, and a dense layer on all pixels."""

    n_outputs: int
    width: int
    norm: Norm

    @nn.compact
    def __call__(self, x: Array, training: bool = False) -> Array:
        """(n, h, w, c) to (n, n_outputs)."""
        _check("small_cnn", x, 4)
        for channels in (self.width, 2 * self.width):
            x = average_pool(nn.relu(normalizing(self.norm, training)(Conv(channels)(x))))
        return nn.Dense(self.n_outputs)(x.reshape(len(x), -1))


class CNN(nn.Module):
    """Six convolutions, pooled twice, and a dense layer on all pixels."""

    n_outputs: int
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, ...) to (n, n_outputs)."""
        _check("cnn", x, 4)
        for factor in (1, 1):
            x = nn.relu(Conv(factor * self.width)(x))
        x = max_pool(x)
        for factor in (2, 2, 4, 4):
            x = nn.relu(Conv(factor * self.width)(x))
        return nn.Dense(self.n_outputs)(average_pool(x).reshape(len(x), -1))


class ResNet(nn.Module):
    """Stages of residual blocks, each but the first at half the size, then the mean over pixels."""

    n_outputs: int
    width: int
    norm: Norm
    blocks: tuple[int, ...] = (2, 2, 2, 2)

    @nn.compact
    def __call__(self, x: Array, training: bool = False) -> Array:
        """(n, h, w, c) to (n, n_outputs)."""

        def normalized(x: Array) -> Array:
            return normalizing(self.norm, training)(x)

        _check("resnet", x, 1)
        bias = self.norm is None
        x = nn.relu(normalized(Conv(self.width, use_bias=bias)(x)))
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                channels, stride = self.width * 2**stage, 2 if stage and not block else 1
                y = nn.relu(normalized(Conv(channels, stride=stride, use_bias=bias)(x)))
                y = normalized(Conv(channels, use_bias=bias)(y))
                if x.shape != y.shape:
                    x = normalized(Conv(channels, kernel=1, stride=stride, use_bias=bias)(x))
                x = nn.relu(x + y)
        return nn.Dense(self.n_outputs)(x.mean(axis=(1, 2)))
