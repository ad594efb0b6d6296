"""Normalizing layers of Flax networks."""

import jax
import jax.numpy as jnp

from companion._core.extras import missing
from companion._core.types import Array, Layer
from companion.networks._norm import BatchNorm, Norm, batch_statistics

try:
    import flax.linen as nn
except ModuleNotFoundError as error:
    raise missing("flax", "networks") from error


def normalizing(norm: Norm, training: bool) -> Layer:
    """The layer that `companion.networks.layer` promises, of a norm that is known."""
    if norm is None:
        return lambda x: x
    if norm == "batch":
        norm = BatchNorm()
    if isinstance(norm, BatchNorm):
        return _BatchNorm(norm, training)
    return lambda x: nn.GroupNorm(num_groups=_groups(x, 1 if norm == "layer" else 8))(x)


def _groups(x: Array, most: int) -> int:
    """Up to so many groups of channels, of four values of an example or more: one becomes 0, two signs."""
    channels, values = x.shape[-1], x[0].size
    if values < 2:
        raise ValueError("norm 'layer' and 'group' want two values of an example or more, got a width of 1")
    sizes = (groups for groups in range(min(most, channels), 0, -1) if channels % groups == 0)
    return next((groups for groups in sizes if values // groups >= 4), 1)


class _BatchNorm(nn.Module):
    statistics: BatchNorm
    training: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        how, channels = self.statistics, x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (how.parts, channels))
        variance = self.variable("batch_stats", "var", jnp.ones, (how.parts, channels))
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        if self.is_initializing():
            normalized = self._by(x, x.mean(axis=tuple(range(x.ndim - 1))), 1.0)
        elif not self.training:
            if how.evaluation == "batch":
                normalized = self._by(x, *batch_statistics(x, how.variance))
            else:
                normalized = self._by(x, mean.value[how.part], variance.value[how.part])
        else:
            if len(x) % how.parts:
                raise ValueError(f"a batch of {len(x)} does not split into {how.parts} equal parts")
            pieces = x.reshape(how.parts, -1, *x.shape[1:])
            if how.training == "batch":
                normalized = [self._by(a, *batch_statistics(a, how.variance)) for a in pieces]
            else:
                normalized = [self._by(a, mean.value[i], variance.value[i]) for i, a in enumerate(pieces)]
            normalized = jnp.concatenate(normalized)
            if how.training != "frozen" and self.is_mutable_collection("batch_stats"):
                found = [batch_statistics(jax.lax.stop_gradient(a), how.running_variance) for a in pieces]
                for kept, new in zip((mean, variance), zip(*found, strict=True), strict=True):
                    kept.value = how.momentum * kept.value + (1 - how.momentum) * jnp.stack(new)
        return normalized * scale + bias

    def _by(self, x: Array, mean: Array, variance: Array | float) -> Array:
        return (x - mean) * jax.lax.rsqrt(variance + self.statistics.eps)
