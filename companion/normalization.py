"""Normalization of inputs and of layers, with a say in which statistics are taken (chapter 5).

Inputs: `on_normalized_inputs` puts x ↦ (x − shift) / scale *inside* a model, so that an attacker's ε stays in
pixel units whatever the network sees. Layers: `BatchNorm` says whose mean and variance normalize, in training
and in evaluation, and by which estimator; networks take it as their `norm`.
"""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from companion._core.checks import batch, count, number, one_of, precise
from companion._core.compile import double
from companion._core.types import Apply, Array, Key, Params, State, Variables
from companion.networks import BatchNorm, Model, Variance, batch_statistics, layer

VARIES = 1e-6  # of a channel's largest value: a deviation below that is rounding

__all__ = [
    "BatchNorm",
    "Inputs",
    "Variance",
    "batch_statistics",
    "input_statistics",
    "layer",
    "normalize_inputs",
    "on_normalized_inputs",
    "training_mode",
    "variance_ratio",
]

Inputs = Literal["raw", "centred", "standardized"] | tuple[float | int, float | int]


def variance_ratio(
    x: Float[Any, "n ... c"], batch_size: int, variance: Variance = "biased"
) -> Float[np.ndarray, " c"]:
    """E[estimator of a batch] / σ² for batches of `batch_size` images, from the images' own correlations.

    biased: 1 − τ²/(σ² B); unbiased: that times B·P/(B·P − 1); by_image: 1. τ² is the variance of an image's
    mean, σ² that of all values, both over x as the population.

    Args:
        x: activations (n, ..., c) of many images.
        batch_size: B, images in a batch, drawn independently.
        variance: the estimator, as for `batch_statistics`.

    Returns:
        (c,), float64; NaN for a channel that does not vary.

    >>> variance_ratio(np.array([[0.0], [2.0]], np.float32), 4)
    array([0.75])
    """
    x = batch("x", x).astype(np.float64)
    size = count("batch_size", batch_size)
    one_of("variance", variance, ("biased", "unbiased", "by_image"))
    axes = tuple(range(x.ndim - 1))
    total, positions = x.var(axis=axes), x.size // (len(x) * x.shape[-1])
    total = np.where(np.sqrt(total) > VARIES * np.abs(x).max(axis=axes), total, 0)
    if variance == "by_image":
        return np.where(total > 0, 1.0, np.nan)
    images = x.mean(axis=axes[1:]) if len(axes) > 1 else x
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = 1 - images.var(axis=0) / total / size
        values = size * positions
        ratio = np.where(total > 0, ratio, np.nan)
        return ratio * np.divide(values, values - 1) if variance == "unbiased" else ratio


def input_statistics(x: Float[Any, "n ..."], inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale that normalize pixels in [0, 1]: x ↦ (x − shift) / scale.

    Args:
        x: training inputs (n, ..., c).
        inputs: "raw" for 0 and 1; "centred" subtracts each channel's mean; "standardized" divides by its
            standard deviation too; a pair (low, high) maps [0, 1] there, such as (−1, 1) or (0, 255).

    Returns:
        shift (c,), scale (c,), float32.

    Raises:
        ValueError: an unknown choice, an empty range, a channel that cannot be standardized.

    >>> [part.item() for part in input_statistics(np.ones((1, 2, 2, 1), np.float32), (-1, 1))]
    [0.5, 0.5]
    """
    x = batch("x", x)
    axes = tuple(range(x.ndim - 1))
    shift, scale = np.zeros(x.shape[-1]), np.ones(x.shape[-1])
    if isinstance(inputs, tuple):
        low, high = (number("inputs", end, least=-math.inf) for end in inputs)
        if not high > low:
            raise ValueError(f"inputs must be a range (low, high) with low < high, got {inputs}")
        shift, scale = shift - low / (high - low), scale / (high - low)
    elif one_of("inputs", inputs, ("raw", "centred", "standardized")) != "raw":
        shift = x.mean(axis=axes, dtype=float)
        if inputs == "standardized":
            scale = x.std(axis=axes, dtype=float)
            if (scale <= VARIES * np.abs(x).max(axis=axes)).any():
                raise ValueError("x cannot be standardized: a channel does not vary")
    return shift.astype(np.float32), scale.astype(np.float32)


@functools.lru_cache
def on_normalized_inputs(model: Model) -> Model:
    """A model that normalizes its inputs itself: f((x − shift) / scale), of pixels x.

    Attacks on it, and distances, are in pixel units, whatever the network inside sees.

    Args:
        model: any `networks.Model`.

    Returns:
        A model whose state is (shift, scale, the model's own state): see `normalize_inputs`. Its `init` sets
        0 and 1.
    """

    def init(key: Key, x: Array) -> Variables:
        params, state = model.init(key, x)
        channels = x.shape[-1]
        return params, (jnp.zeros(channels, np.float32), jnp.ones(channels, np.float32), state)

    def apply(params: Params, state: State, x: Array, training: bool) -> tuple[Array, State]:
        shift, scale, own = state
        precise("x", x.dtype)
        with double(params, x):
            shift, scale = jax.lax.stop_gradient((shift, scale))
            inside = (x - shift.astype(x.dtype)) / scale.astype(x.dtype)
            outputs, own = model.apply(params, own, inside, training)
            return outputs, (shift, scale, own)

    return Model(f"{model.name}, normalized inputs", init, apply)


def normalize_inputs(
    variables: Variables, statistics: tuple[Float[Any, " c"], Float[Any, " c"]]
) -> Variables:
    """Variables of a model, as `on_normalized_inputs(model)` takes them, with these statistics.

    Args:
        variables: (params, state) of the model itself.
        statistics: shift and scale of each channel (c,), as from `input_statistics`.

    Returns:
        (params, state) of `on_normalized_inputs(model)`; the state holds the statistics.

    >>> from companion.networks import mlp
    >>> model, x = mlp(2, width=4), np.full((3, 2), 0.5, np.float32)
    >>> variables = model.init(jax.random.key(0), x)
    >>> inside = normalize_inputs(variables, input_statistics(x, (-1, 1)))
    >>> outputs, _ = on_normalized_inputs(model).apply(*inside, x, False)
    >>> bool((outputs == model.apply(*variables, 0 * x, False)[0]).all())
    True
    """
    shift, scale = (jnp.asarray(part) for part in statistics)
    return variables[0], (shift, scale, variables[1])


@functools.lru_cache
def training_mode(model: Model) -> Apply:
    """The model in training mode as `apply_fn(variables, x) -> (n, k)`: batch statistics are those of x.

    For `empirical_ntk(..., batch_statistics=True)`, beside `networks.evaluation`.

    Args:
        model: any `Model`.

    Returns:
        The function; one and the same for one model, so that compiled code is shared.
    """

    def apply_fn(variables: Variables, x: Array) -> Array:
        params, state = variables
        return model.apply(params, jax.lax.stop_gradient(state), x, True)[0]

    return apply_fn
