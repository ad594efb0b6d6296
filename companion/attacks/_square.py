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
from companion._core.checks import channels_last, count, number, random_key
from companion._core.compile import double
from companion._core.interrupt import deferred
from companion._core.types import Array, Key, LossFunction, Predict, Scalar
from companion.attacks._losses import Loss, loss_named, progress_of
from companion.attacks._predict import as_partial, checked_inputs, in_batches
from companion.attacks._square_moves import BumpMoves, LinfMoves
from companion.attacks._threat import Threat, checked_threat


@deferred()
def square(
    predict: Predict,
    x: Float[Any, "m h w c"],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    key: Key,
    queries: int = 1000,
    share: float = 0.8,
    rescaled: bool = True,
    loss: Loss = "margin",
    batch_size: int = 256,
    progress: bool = False,
) -> Float[np.ndarray, "m h w c"]:
    """Square attack: change the perturbation in a random square, keep it if the loss has risen.

    It needs outputs only, so that it finds what gradients miss where they are masked. Squares shrink on a
    fixed schedule as queries are spent. L∞: it starts with vertical stripes, and a square becomes ±ε in each
    channel. L2: it starts with a grid of bumps, and a bump in a square takes the length that another square
    gives up, so that the whole keeps the length ε. L1: as L2, with bumps that fall off faster, projected onto
    ball and bounds.

    Args:
        predict: as for `pgd`; gradients are never taken.
        x: clean images (m, h, w, c).
        labels: classes (m,).
        threat: norm, eps and bounds.
        key: a JAX random key. A random draw depends on it, on the image's place in x and on the query alone.
        queries: evaluations for each image, ≥ 1.
        share: of the pixels that the first square changes, in (0, 1].
        rescaled: whether the schedule, made for 10,000 queries, is shortened to `queries`; else it is
            followed as far as these go, as in AutoAttack.
        loss: what is to rise, as for `pgd`.
        batch_size: images at once; they stop together once all are fooled.
        progress: show a tqdm bar over batches.

    Returns:
        Attacked images; ball and bounds hold exactly.

    Raises:
        TypeError, ValueError: as `pgd`; also inputs that are no images, and for L2 and L1 images smaller
            than 5 × 5.

    Cost: at most `queries` evaluations for each image.
    Source: Andriushchenko et al. (2020), arXiv 1912.00049, algorithms 1 to 3; `share` is their p.
    L1: Croce & Hein (2021), arXiv 2103.01208, section 4.

    >>> x = np.full((1, 4, 4, 1), 0.5, np.float32)
    >>> attacked = square(lambda x: x.mean((1, 2)) - 0.4, x, np.array([1]), Threat("linf", 0.3),
    ...     key=jax.random.key(0), queries=100)
    >>> bool(attacked.mean() <= 0.4)
    True
    """
    queries, batch_size = count("queries", queries), count("batch_size", batch_size)
    share = number("share", share)
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    random_key("key", key)
    x, labels = checked_inputs(predict, x, labels, checked_threat(threat).bounds, loss=loss)
    if x.ndim != 4:
        raise ValueError(f"x must be images (m, h, w, c) for the square attack, got shape {x.shape}")
    channels_last("x", x.shape)
    if threat.norm != "linf" and min(x.shape[1:3]) < 5:
        name = threat.norm.upper()
        raise ValueError(
            f"x must be images of 5 × 5 pixels at least for the {name} attack, got shape {x.shape}"
        )
    spread = 10_000 / queries if rescaled else 1.0
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
                np.float32(share),
                np.float32(spread),
                threat.eps,
                loss=loss_named(loss),
                norm=threat.norm,
            )
            if not np.isfinite(risen).all():
                raise ValueError("predict returned NaN, or infinity, or loss did")
        return geometry.inside(threat, x, attacked) if threat.norm != "linf" else attacked


_State = tuple[Scalar, Array, Array, Array]  # queries, the perturbation, the loss, how well it does


@functools.partial(jax.jit, static_argnames=("loss", "norm"))
def _search(
    predict: Partial,
    key: Key,
    index: Array,
    x: Array,
    low: Array,
    high: Array,
    labels: Array,
    queries: Scalar,
    first_share: Scalar,
    spread: Scalar,
    eps: Scalar,
    *,
    loss: LossFunction,
    norm: str,
) -> tuple[Array, Array]:
    _, height, width, _ = x.shape
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    moves = LinfMoves(low, high) if norm == "linf" else BumpMoves(norm, x, low, high, eps)

    def value(point: Array) -> tuple[Array, Array]:
        outputs = predict(point)
        return loss(outputs, labels), progress_of(outputs, labels, targeted=False)

    def going(state: _State) -> Array:
        query, _, _, reached = state
        return (query < queries) & ~(reached > 0).all()

    def one(state: _State) -> _State:
        query, found, risen, reached = state
        share = first_share * 0.5 ** jnp.searchsorted(_SCHEDULE, query * spread, side="left")
        side = jnp.round(jnp.sqrt(share * height * width))
        now = jax.vmap(jax.random.fold_in, (0, None))(keys, query)
        candidate = moves.moved(now, moves.side(side), found)
        new, new_reached = value(moves.placed(candidate))
        # One that is fooled stays as it is.
        take = (new > risen) & ~(reached > 0)
        found = geometry.chosen(take, candidate, found)
        return query + 1, found, jnp.where(take, new, risen), jnp.where(take, new_reached, reached)

    with jax.default_matmul_precision("highest"):
        found = moves.begun(keys)
        state = jax.lax.while_loop(going, one, (1, found, *value(moves.placed(found))))
    return moves.placed(state[1]), state[2]


# Queries, of 10,000, at which the share of changed pixels halves: their schedule. JAX would take 64-bit
# numbers for 32-bit ones or not, by its precision, and keeps the code it made of them first.
_SCHEDULE = np.array([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000], np.float32)
