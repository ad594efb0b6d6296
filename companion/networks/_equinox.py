"""Equinox modules as a `Model`."""

import inspect

import jax
import jax.numpy as jnp

from companion._core.checks import precise, random_key
from companion._core.compile import double
from companion._core.extras import missing
from companion._core.types import Array, Key, Params, State, Variables
from companion._core.words import Unchecked
from companion.networks._models import Model
from companion.networks._trees import (
    as_precise,
    decoded,
    encoded,
    first_random,
    floating,
    mode_names,
    next_random,
)

_CURE = "module, state = eqx.nn.make_with_state(Net)(...), then from_equinox(module, state)"


def from_equinox(
    module: Unchecked, state: State = None, *, name: str | None = None, axis_name: str = "batch"
) -> Model:
    """An Equinox module, which takes one example, as a `Model`, which takes a batch.

    Its floating point arrays are what is trained; integers, functions and all else stay as they are.
    `eqx.combine(params, static)`, with `static` from `eqx.partition(module, eqx.is_inexact_array)`, gives the
    trained module back.

    Args:
        module: called as `module(x)` for one x, with `key=` where it takes one, as Dropout does, and with
            `state` second where it has one. In evaluation it is in `eqx.nn.inference_mode`.
        state: the `eqx.nn.State` of a module that has one: module, state = eqx.nn.make_with_state(Net)(...).
        name: its label; None: the class's name.
        axis_name: what its layers of `eqx.nn.BatchNorm` call the axis of the batch.

    Returns:
        The model. It starts from the module's own weights, whatever the key. Its state holds the module's
        and a random key where the module takes one.

    Raises:
        ImportError: Equinox is not installed.
        TypeError: no Equinox module; one that needs a state and has none, or wants something else.
    """
    try:
        import equinox as eqx
    except ModuleNotFoundError as error:
        raise missing("equinox") from error

    if not (isinstance(module, eqx.Module) and callable(module)):
        raise TypeError(f"module must be an Equinox module that can be called, got {module!r}")
    if state is None:
        mode_names(module.__call__, known=("key",), cure=_CURE)
    else:
        mode_names(module.__call__, known=("key", "state"))
    takes_key = "key" in inspect.signature(module.__call__).parameters
    params, static = eqx.partition(module, eqx.is_inexact_array)
    floating(params)

    def init(key: Key, x: Array) -> Variables:
        precise("x", x.dtype)
        key = random_key("key", key)
        carried = {} if state is None else {"state": encoded(state)}
        if takes_key:
            carried["random key"] = first_random(key)
        return as_precise((params, carried), x)

    def apply(params: Params, carried: State, x: Array, training: bool) -> tuple[Array, State]:
        precise("x", x.dtype)
        with double(params, x):
            net = eqx.nn.inference_mode(eqx.combine(params, static), value=not training)
            now, keys = dict(carried), None
            if takes_key and training:
                key, now["random key"] = next_random(carried["random key"])
                keys = jax.random.split(key, len(x))

            def one(x: Array, key: Key | None) -> tuple[Array, State]:
                options = {"key": key} if takes_key else {}
                if state is None:
                    return net(x, **options), None
                return net(x, decoded(carried["state"], state), **options)

            outputs, after = jax.vmap(one, axis_name=axis_name, out_axes=(0, None))(jnp.asarray(x), keys)
            if training and state is not None:
                now["state"] = encoded(after)
            return outputs, now

    return Model(type(module).__name__ if name is None else name, init, apply)
