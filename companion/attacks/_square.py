"""A black-box attack: random search over squares, which never sees a gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion._core import geometry
from companion._core.checks import count, random_key
from companion._core.compile import double
from companion._core.interrupt import deferred
from companion._core.types import Array, Key, LossFunction, Predict, Scalar
from companion.attacks._losses import Loss, loss_named, progress_of
from companion.attacks._predict import as_partial, checked_inputs, in_batches
from companion.attacks._threat import Threat

_SHARE = 0.8  # of the pixels, changed by the first square; their paper's setting for CIFAR-10 and MNIST


@deferred()
def square(
    predict: Predict,
    x: Float[Any, "m h w c"],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    key: Key,
    queries: int = 1000,
    loss: Loss = "margin",
    batch_size: int = 256,
    progress: bool = False,
) -> Float[np.ndarray, "m h w c"]:
    """Square attack: change a random square of the perturbation to ±ε, keep it if the loss has risen.

    It needs outputs only, so that it finds what gradients miss where they are masked. It starts with
    vertical stripes; squares shrink on a fixed schedule as queries are spent.

    Args:
        predict: as for `pgd`; gradients are never taken.
        x: clean images (m, h, w, c).
        labels: classes (m,).
        threat: of the L∞ norm.
        key: a JAX random key. A random draw depends on it, on the image's place in x and on the query alone.
        queries: evaluations for each image, ≥ 1.
        loss: what is to rise, as for `pgd`.
        batch_size: images at once; they stop together once all are fooled.
        progress: show a tqdm bar over batches.

    Returns:
        Attacked images; ball and bounds hold exactly.

    Raises:
        TypeError, ValueError: as `pgd`; also a norm other than "linf" and inputs that are no images.

    Cost: at most `queries` evaluations for each image.
    Source: Andriushchenko et al. (2020), arXiv 1912.00049, algorithms 1 and 2.

    >>> x = np.full((1, 4, 4, 1), 0.5, np.float32)
    >>> attacked = square(lambda x: x.mean((1, 2)) - 0.4, x, np.array([1]), Threat("linf", 0.3),
    ...     key=jax.random.key(0), queries=100)
    >>> bool(attacked.mean() <= 0.4)
    True
    """
    queries, batch_size = count("queries", queries), count("batch_size", batch_size)
    if threat.norm != "linf":
        raise ValueError(f"norm must be 'linf' for the square attack, got {threat.norm!r}")
    random_key("key", key)
    x, labels = checked_inputs(predict, x, labels, threat.bounds, loss=loss)
    if x.ndim != 4:
        raise ValueError(f"x must be images (m, h, w, c) for the square attack, got shape {x.shape}")
    with double(x, predict):
        predict, (low, high), attacked = as_partial(predict), geometry.box(threat, x), x.copy()
        parts = list(in_batches(np.arange(len(x)), min(batch_size, len(x))))
        for some in tqdm(parts, desc="square attack", disable=not progress):
            attacked[some], risen = _search(
                predict,
                key,
                some,
                x[some],
                low[some],
                high[some],
                labels[some],
                queries,
                loss=loss_named(loss),
            )
            if not np.isfinite(risen).all():
                raise ValueError("predict returned NaN, or infinity, or loss did")
        return attacked


_State = tuple[Scalar, Array, Array, Array]  # queries, which pixels are up, the loss, how well it does


@functools.partial(jax.jit, static_argnames="loss")
def _search(
    predict: Partial,
    key: Key,
    index: Array,
    x: Array,
    low: Array,
    high: Array,
    labels: Array,
    queries: Scalar,
    *,
    loss: LossFunction,
) -> tuple[Array, Array]:
    _, height, width, channels = x.shape
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    row, column = jnp.arange(height)[:, None], jnp.arange(width)

    def value(point: Array) -> tuple[Array, Array]:
        outputs = predict(point)
        return loss(outputs, labels), progress_of(outputs, labels, targeted=False)

    def stripes(key: Key) -> Array:
        signs = geometry.signs(jax.random.fold_in(key, 0), (1, width, channels))
        return jnp.broadcast_to(signs, (height, width, channels))

    def proposal(key: Key, query: Scalar, side: Scalar, up: Array) -> Array:
        r, c, s = jax.random.split(jax.random.fold_in(key, query), 3)
        top = jax.random.randint(r, (), 0, height - side + 1, np.int32)
        left = jax.random.randint(c, (), 0, width - side + 1, np.int32)
        inside = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
        return jnp.where(inside[..., None], geometry.signs(s, (channels,)), up)

    def placed(up: Array) -> Array:
        return jnp.where(up, high, low)

    def going(state: _State) -> Array:
        query, _, _, reached = state
        return (query < queries) & ~(reached > 0).all()

    def one(state: _State) -> _State:
        query, up, risen, reached = state
        share = _SHARE * 0.5 ** jnp.searchsorted(_SCHEDULE, query * (10_000 / queries), side="left")
        side = jnp.clip(jnp.round(jnp.sqrt(share * height * width)), 1, min(height, width)).astype(np.int32)
        candidate = jax.vmap(proposal, (0, None, None, 0))(keys, query, side, up)
        new, new_reached = value(placed(candidate))
        # One that is fooled stays as it is.
        take = (new > risen) & ~(reached > 0)
        up = jnp.where(take[:, None, None, None], candidate, up)
        return query + 1, up, jnp.where(take, new, risen), jnp.where(take, new_reached, reached)

    with jax.default_matmul_precision("highest"):
        up = jax.vmap(stripes)(keys)
        state = jax.lax.while_loop(going, one, (1, up, *value(placed(up))))
    return placed(state[1]), state[2]


# Queries, of 10,000, at which the share of changed pixels halves: their schedule. JAX would take 64-bit
# numbers for 32-bit ones or not, by its precision, and keeps the code it made of them first.
_SCHEDULE = np.array([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000], np.float32)
