"""Parameters and state of other libraries, as trees of floating point arrays."""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from companion._core.compile import double
from companion._core.types import Array, Key, Params, Scalar

# What libraries call the mode of a network, and whether it is true in training.
MODES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def mode_names(
    call: Callable,
    *,
    known: tuple[str, ...] = (),
    cure: str = "give a module that needs nothing else",
) -> tuple[str, ...]:
    """Which of `MODES` a network takes beside its inputs, or a TypeError where it wants more than those."""
    others = list(inspect.signature(call).parameters.values())[1:]
    wanted = [
        one.name
        for one in others
        if one.default is one.empty
        and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        and one.name not in (*MODES, *known)
    ]
    if wanted:
        raise TypeError(
            f"module must be called with inputs alone, or with one of {', '.join(MODES)} beside them; it "
            f"wants {', '.join(wanted)} too: {cure}"
        )
    return tuple(one.name for one in others if one.name in MODES)


def mode(names: tuple[str, ...], training: bool) -> dict[str, bool]:
    """The values of these names in training or evaluation."""
    return {name: MODES[name] == training for name in names}


def floating(params: Params) -> Params:
    """The parameters, or a TypeError where a leaf is no floating point array."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            got = type(leaf).__name__ if dtype is None else f"leaf of {dtype}"
            raise TypeError(
                f"params must hold floating point arrays alone, got a {got} at "
                f"params{jax.tree_util.keystr(path)}. Split the others off. "
                "Equinox: from_equinox(net), or "
                "params, static = eqx.partition(net, eqx.is_inexact_array) and "
                "apply_fn = lambda p, x: jax.vmap(eqx.combine(p, static))(x); "
                "Flax NNX: from_flax(net), or graph, params, rest = nnx.split(net, nnx.Param, ...) and "
                "apply_fn = lambda p, x: nnx.merge(graph, p, rest)(x)"
            )
    return params


def as_precise(tree: PyTree, x: Array) -> PyTree:
    """Arrays of float32 in the precision of x."""
    with double(x):
        return jax.tree.map(lambda a: a.astype(x.dtype) if a.dtype == np.float32 else a, tree)


def encoded(tree: PyTree) -> PyTree:
    """Counters, booleans and random keys as their bytes in float32; floating point arrays as they are.

    What differentiates a network, or turns its state into another precision, takes no others.
    """

    def one(leaf: Scalar) -> jax.Array:
        leaf = jnp.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        whole = leaf.astype(jnp.uint8) if leaf.dtype == bool else leaf
        return jax.lax.bitcast_convert_type(whole, jnp.uint8).astype(jnp.float32)

    return jax.tree.map(one, tree)


def decoded(tree: PyTree, like: PyTree) -> PyTree:
    """What `encoded` was given: a tree whose leaves have the kinds of those of `like`."""

    def one(leaf: Array, like: Scalar) -> Array:
        dtype, is_key = jnp.asarray(like).dtype, jnp.issubdtype(jnp.asarray(like).dtype, jax.dtypes.prng_key)
        if jnp.issubdtype(dtype, jnp.floating):
            return leaf
        whole = jax.lax.stop_gradient(leaf).astype(jnp.uint8)
        if jnp.issubdtype(dtype, bool):
            return whole.astype(bool)
        whole = jax.lax.bitcast_convert_type(whole, jnp.uint32 if is_key else dtype)
        return jax.random.wrap_key_data(whole, impl=jax.random.key_impl(like)) if is_key else whole

    return jax.tree.map(one, tree, like)


def first_random(key: Key) -> jax.Array:
    """A random key of the network's own, encoded, to be carried in its state."""
    return encoded(jax.random.key(jax.random.bits(key)))


def next_random(random: Array) -> tuple[Key, jax.Array]:
    """A key to use now, and what is carried on."""
    now, later = jax.random.split(decoded(random, jax.random.key(0)))
    return now, encoded(later)
