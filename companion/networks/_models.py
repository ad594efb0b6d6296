"""`Model`, the one interface of all networks, and its evaluation mode."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax
from jax.tree_util import Partial

from companion._core.compile import is_kept, keep_compiled
from companion._core.types import Apply, ApplyModel, Array, Init, Params, Variables
from companion._core.words import Unchecked

Collections = Mapping[str, Params]  # of Flax Linen: "params", "batch_stats" …

OUTSIDE_LOOPS = contextvars.ContextVar("outside_loops", default=False)


@contextlib.contextmanager
def outside_loops() -> Iterator[None]:
    """Trace networks with XLA's convolutions on every device, as empirical kernels are fastest."""
    token = OUTSIDE_LOOPS.set(True)
    try:
        yield
    finally:
        OUTSIDE_LOOPS.reset(token)


@dataclass(frozen=True)
class Model:
    """A network as two functions; make one of your own, or from a Flax module with `from_flax`.

    Attributes:
        name: short label for figures and progress bars.
        init: `init(key, x) -> (params, state)` for a batch x like those to come.
        apply: `apply(params, state, x, training) -> (outputs (n, k), state)`. `training` is a Python bool:
            whether batch statistics are taken from x, and the running ones moved. A JAX function without
            side effects; what it reads besides its arguments is frozen at its first use.
    """

    name: str
    init: Init
    apply: ApplyModel


@functools.lru_cache
def evaluation(model: Model) -> Apply:
    """The model in evaluation mode as `apply_fn(variables, x) -> (n, k)`, with variables = (params, state).

    For `empirical_ntk_fn` and whatever else takes a network: only params have derivatives, those of the
    state are 0. Inside a compiled loop on a CPU its convolutions are slow; `predict_fn` is made for that. Of
    companion's own networks, kernels at other weights are not compiled again.

    Args:
        model: any `Model`. Of a Flax Linen module, variables may be Flax's own, {"params": …, …}, too.

    Returns:
        The function; one and the same for one model, so that compiled code is shared.

    >>> import jax.numpy as jnp
    >>> from companion.networks import mlp
    >>> apply_fn = evaluation(mlp(3, width=8))
    >>> apply_fn(mlp(3, width=8).init(jax.random.key(0), jnp.ones((1, 2))), jnp.ones((5, 2))).shape
    (5, 3)
    """

    def apply_fn(variables: Variables | Collections, x: Array) -> Array:
        with outside_loops():
            return _evaluated(model)(variables, x)

    return keep_compiled(apply_fn) if is_kept(model.apply) else apply_fn


@functools.lru_cache
def _evaluated(model: Model) -> Apply:
    def apply_fn(variables: Variables | Collections, x: Array) -> Array:
        params, state = _pair(variables)
        return model.apply(params, jax.lax.stop_gradient(state), x, False)[0]

    return apply_fn


def predict_fn(model: Model, variables: Variables | Collections) -> Partial:
    """The network in evaluation mode as a function of inputs, to attack.

    Compiled attacks are shared by all variables.

    Args:
        model: the network.
        variables: (params, state), as `training.train` and `model.init` return them; of a Flax Linen module
            also Flax's own, {"params": …, "batch_stats": …}, from wherever it was trained.

    Returns:
        A function of x (n, ...) with outputs (n, k).

    Raises:
        TypeError: no `Model`; variables of another form.

    >>> import jax.numpy as jnp
    >>> from companion.networks import mlp
    >>> model, x = mlp(3, width=8), jnp.ones((5, 2))
    >>> params, state = model.init(jax.random.key(0), x)
    >>> bool((predict_fn(model, (params, state))(x) == predict_fn(model, {"params": params})(x)).all())
    True
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"model must be a Model, such as networks.from_flax(module) returns, got {type(model).__name__}"
        )
    return Partial(_evaluated(model), _pair(variables))


def _pair(variables: Unchecked) -> Variables:
    """(params, state) of themselves, or of Flax's collections."""
    if isinstance(variables, tuple) and len(variables) == 2:
        return variables
    if isinstance(variables, Mapping) and "params" in variables:
        return variables["params"], {name: value for name, value in variables.items() if name != "params"}
    got = (
        f"{type(variables).__name__} of {', '.join(map(str, variables))}"
        if isinstance(variables, Mapping)
        else type(variables).__name__
    )
    raise TypeError(
        'variables must be (params, state), or Flax\'s own {"params": …, "batch_stats": …} as init and apply '
        f"have them, got {got}; parameters alone are (params, {{}})"
    )
