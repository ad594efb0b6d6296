"""Which statistics normalize a layer, and how they are estimated."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from companion._core.checks import count, number, one_of
from companion._core.types import Array

Variance = Literal["biased", "unbiased", "by_image"]


@dataclass(frozen=True)
class BatchNorm:
    """Which statistics batch normalization takes; a network's `norm`. The defaults are Flax's.

    PyTorch's is `BatchNorm(running_variance="unbiased")`.

    Attributes:
        training: what normalizes in training mode: the statistics of the "batch"; the "running" ones, which
            follow the batches but pass no gradient; or the "frozen" ones, which stay as they are.
        evaluation: what normalizes in evaluation mode: the "running" statistics or those of the "batch",
            under which an example's outputs depend on its company.
        variance: estimator of a batch's variance that normalizes; see `batch_statistics`.
        running_variance: estimator that the running variance follows.
        momentum: weight of the past in running statistics, 0 to 1.
        eps: added to the variance.
        parts: 2 when training batches are clean and attacked halves, as `train(clean_too=True)` makes them,
            with statistics apart; scale and bias are shared.
        part: whose running statistics evaluation takes: 0 (clean) or 1 (attacked) of 2.

    Raises:
        TypeError, ValueError: choices and numbers out of range.

    Source: Ioffe & Szegedy (2015), arXiv 1502.03167; separate statistics as in Xie & Yuille (2020), arXiv
    1906.03787, who separate scale and bias too.
    """

    training: Literal["batch", "running", "frozen"] = "batch"
    evaluation: Literal["running", "batch"] = "running"
    variance: Variance = "biased"
    running_variance: Variance = "biased"
    momentum: float = 0.9
    eps: float = 1e-5
    parts: int = 1
    part: int = 0

    def __post_init__(self) -> None:
        one_of("training", self.training, ("batch", "running", "frozen"))
        one_of("evaluation", self.evaluation, ("running", "batch"))
        one_of("variance", self.variance, ("biased", "unbiased", "by_image"))
        one_of("running_variance", self.running_variance, ("biased", "unbiased", "by_image"))
        number("eps", self.eps)
        if not 0 <= number("momentum", self.momentum) <= 1:
            raise ValueError(f"momentum must lie in [0, 1], got {self.momentum}")
        if count("part", self.part, least=0) >= count("parts", self.parts):
            raise ValueError(f"part must be below parts = {self.parts}, got {self.part}")


Norm = Literal["batch", "layer", "group"] | BatchNorm | None


def batch_statistics(x: Array, variance: Variance = "biased") -> tuple[Array, Array]:
    """Mean and variance of every channel over a batch and its positions.

    For B images with P positions, m = Σ a / (B·P): "biased" is s² = Σ (a − m)² / (B·P); "unbiased" divides by
    B·P − 1, as if all values were independent; "by_image" is s² + Σ_b (ā_b − m)² / (B (B − 1)) with the means
    ā_b of images, which is unbiased for *images* drawn independently, whatever correlates within one.

    Args:
        x: activations (B, ..., c).
        variance: the estimator. With one image "by_image" is NaN, with one value "unbiased" is.

    Returns:
        Mean (c,) and variance (c,).

    Derivation: E s² = σ² − Var m, and Var m = τ²/B with the variance τ² of an image's mean. Bessel's factor
    takes Var m for σ²/(B·P). See `variance_ratio`.

    >>> batch_statistics(jnp.array([[[1.0], [1.0]], [[3.0], [3.0]]]))[1]
    Array([1.], dtype=float32)
    >>> batch_statistics(jnp.array([[[1.0], [1.0]], [[3.0], [3.0]]]), "by_image")[1]
    Array([2.], dtype=float32)
    """
    one_of("variance", variance, ("biased", "unbiased", "by_image"))
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axis=axes)
    biased = jnp.square(x - mean).mean(axis=axes)
    if variance == "biased":
        return mean, biased
    if variance == "unbiased":
        values = x.size // x.shape[-1]
        return mean, biased * (values / (values - 1) if values > 1 else jnp.nan)
    images = x.mean(axis=axes[1:]) if len(axes) > 1 else x
    spread = jnp.square(images - mean).sum(axis=0)
    return mean, biased + (spread / (len(x) * (len(x) - 1)) if len(x) > 1 else jnp.nan)


def known_norm(norm: Norm) -> Norm:
    """One of the norms by name, or as it is; or an error."""
    if norm is not None and not isinstance(norm, BatchNorm):
        one_of("norm", norm, ("batch", "layer", "group"))
    return BatchNorm() if norm == "batch" else norm
