"""A `Model` of a module of Flax: Linen's or NNX's."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from companion._core.checks import precise, random_key
from companion._core.compile import double, precision
from companion._core.extras import missing
from companion._core.types import ApplyModel, Array, Init, Key, Params, State, Variables
from companion._core.words import Unchecked
from companion.networks._models import Model
from companion.networks._trees import (
    MODES,
    as_precise,
    decoded,
    encoded,
    first_random,
    floating,
    mode,
    mode_names,
    next_random,
)

try:
    import flax.linen as nn
    from flax.errors import InvalidRngError, ScopeCollectionNotFound
except ModuleNotFoundError as error:
    raise missing("flax", "networks") from error

# Where the random key of layers such as Dropout is in the state; no name that Flax gives a collection.
_RANDOM = "random key"
_Pair = tuple[Init, ApplyModel]
Collections = dict[str, PyTree]  # of Linen: "params", "batch_stats" …


def model(module: Unchecked, name: str | None) -> Model:
    """What `from_flax` promises."""
    name = type(module).__name__ if name is None else name
    if isinstance(module, nn.Module):
        return _of_linen(module, name)
    from flax import nnx  # which takes a second to import

    if isinstance(module, nnx.Module):
        return Model(name, *of_nnx(module))
    raise TypeError(f"module must be a Flax module, of Linen or NNX, got {module!r}")


@functools.lru_cache
def _of_linen(module: nn.Module, name: str) -> Model:
    return Model(name, *of_linen(module))


def of_linen(module: nn.Module) -> _Pair:
    """Flax Linen: collections other than "params" are state, and so is a random key where one is needed."""
    names = mode_names(module.__call__)
    # A module whose mode is one of its fields is another module in training.
    fields = tuple(f.name for f in dataclasses.fields(module) if f.name in MODES and not names)
    modules = {now: module.clone(**mode(fields, now)) if fields else module for now in (False, True)}

    def run(
        collections: Collections,
        x: Array,
        training: bool,
        mutable: list[str] | bool = False,
        rngs: dict[str, Key] | None = None,
    ) -> Array | tuple[Array, Collections]:
        options = {"mutable": mutable, "rngs": rngs} | mode(names, training)
        try:
            return modules[training].apply(collections, x, **options)
        except ScopeCollectionNotFound as error:
            had = ", ".join(name for name in collections if name != "params") or "none"
            raise ValueError(
                f'state must hold collections of Flax by name, such as {{"batch_stats": …}}; it has '
                f'{had}. Flax\'s own variables, {{"params": …, "batch_stats": …}}, go in whole: '
                "networks.predict_fn(model, variables)"
            ) from error

    @jax.jit  # op by op every random draw would be compiled alone, in twice the time
    def draw(key: Key, x: Array) -> Variables:
        variables = dict(modules[False].init(key, x, **mode(names, False)))
        params, state = variables.pop("params", {}), variables
        if (names or fields) and _draws(run, {"params": params, **state}, x):
            state[_RANDOM] = first_random(jax.random.fold_in(key, 1))
        return params, state

    def init(key: Key, x: Array) -> Variables:
        precise("x", x.dtype)
        # The same numbers whatever JAX is set to, then in the precision of x.
        with precision(np.float32(0)):
            variables = draw(random_key("key", key), x[:1].astype(np.float32))
        return as_precise(variables, x)

    def apply(params: Params, state: State, x: Array, training: bool) -> tuple[Array, State]:
        precise("x", x.dtype)
        collections = {name: value for name, value in state.items() if name != _RANDOM}
        with double(params, x):
            if not (training and state):
                return run({"params": params, **collections}, jnp.asarray(x), training), state
            rngs, after = None, {}
            if _RANDOM in state:
                now, after[_RANDOM] = next_random(state[_RANDOM])
                rngs = {"params": now}  # from which Flax takes every other name too
            outputs, changed = run(
                {"params": params, **collections}, jnp.asarray(x), True, list(collections), rngs
            )
            return outputs, {**changed, **after}

    return init, apply


def _draws(run: Callable, variables: Collections, x: Array) -> bool:
    """Whether a module asks for a random key in training; found without computing anything."""
    mutable = [name for name in variables if name != "params"]
    # So many that layers which split a batch into equal parts can.
    batch = jax.ShapeDtypeStruct((24, *x.shape[1:]), x.dtype)
    try:
        jax.eval_shape(lambda v, x: run(v, x, True, mutable=mutable), variables, batch)
    except InvalidRngError:
        return True
    except Exception:  # Whatever else is wrong in training is said there, in the module's own words.
        return False
    return False


def of_nnx(module: Callable) -> _Pair:
    """Flax NNX: `nnx.Param` is trained, all other variables are state; starts from the module's own."""
    from flax import nnx

    names, graphs = mode_names(module.__call__), {}
    for training in (True, False):
        copy = nnx.clone(module)
        # "train" is the name of a method.
        attributes = mode(tuple(name for name in MODES if name != "train"), training)
        copy.set_attributes(**attributes, raise_if_not_found=False)
        graphs[training], params, rest = nnx.split(copy, nnx.Param, ...)
    floating(params)

    def init(key: Key, x: Array) -> Variables:
        precise("x", x.dtype)
        random_key("key", key)
        return as_precise((params, encoded(rest)), x)

    def apply(params: Params, state: State, x: Array, training: bool) -> tuple[Array, State]:
        precise("x", x.dtype)
        with double(params, x):
            net = nnx.merge(graphs[training], params, decoded(state, rest))
            outputs = net(jnp.asarray(x), **mode(names, training))
            return outputs, encoded(nnx.split(net, nnx.Param, ...)[2]) if training else state

    return init, apply
