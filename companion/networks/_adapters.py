"""Networks that come from elsewhere as a `Model`, to be trained and attacked as every other."""

import functools

import jax
import jax.numpy as jnp

from companion._core.checks import precise, random_key
from companion._core.compile import double, is_kept, keep_compiled
from companion._core.types import Apply, Array, Init, Key, Params, State, Variables
from companion.architectures import Architecture
from companion.networks._models import Model
from companion.networks._trees import floating


@functools.lru_cache
def from_architecture(architecture: Architecture) -> Model:
    """A finite network of an `Architecture`, such as `fc(1, width=512, n_outputs=10)`, as a `Model`.

    So a network in the NTK parameterization, with random weights of unit variance, trains in
    `training.train` and has its limit beside it: `architecture.kernel`.

    Args:
        architecture: from `companion.architectures`.

    Returns:
        The model, without state; one and the same for one architecture, so that compiled code is shared.

    Raises:
        TypeError: anything else.

    >>> from companion.architectures import fc
    >>> model = from_architecture(fc(1, width=8, n_outputs=3))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> model.apply(params, state, jnp.ones((5, 4)), True)[0].shape, state
    ((5, 3), ())
    """
    if not isinstance(architecture, Architecture):
        raise TypeError(f"architecture must come from companion.architectures, got {architecture!r}")

    def init(key: Key, x: Array) -> Variables:
        return architecture.init(key, x), ()

    return from_apply(architecture.apply, init, name=architecture.name)


def from_apply(
    apply_fn: Apply,
    params: Params | Init,
    *,
    name: str | None = None,
) -> Model:
    """A function `apply_fn(params, x) -> (n, k)` of any library as a `Model`.

    Args:
        apply_fn: the network, each output from its own input alone, without state or mode.
        params: parameters to start from, a pytree of floating point arrays; or `params(key, x)`, which draws
            them and returns (params, ()).
        name: its label; None: the function's name.

    Returns:
        The model. Compiled code is kept for it as long as it lives; for all models of one function where
        `kernels.keep_compiled` marked that.

    Raises:
        TypeError: no function; parameters with a leaf that is no floating point array. The message has the
            line that splits such leaves off.

    >>> model = from_apply(lambda w, x: x @ w, jnp.ones((4, 3)))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> model.apply(params, state, jnp.ones((5, 4)), False)[0].shape
    (5, 3)
    """
    if not callable(apply_fn):
        raise TypeError(f"apply_fn must be a function apply_fn(params, x), got {apply_fn!r}")
    draws = callable(params) and jax.tree_util.all_leaves([params])
    if not draws:
        floating(params)

    def init(key: Key, x: Array) -> Variables:
        key = random_key("key", key)
        found, state = params(key, x) if draws else (params, ())
        return floating(found), state

    def apply(params: Params, state: State, x: Array, training: bool) -> tuple[Array, State]:  # noqa: ARG001
        precise("x", x.dtype)
        with double(params, x):
            return apply_fn(params, jnp.asarray(x)), state

    if is_kept(apply_fn):
        keep_compiled(apply)
    return Model(getattr(apply_fn, "__name__", "network") if name is None else name, init, apply)
