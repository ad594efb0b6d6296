"""The first-order polynomial of a network, as a network."""

import functools

import jax
import jax.numpy as jnp

from companion._core.compile import double
from companion._core.types import Array, Key, Params, State, Variables
from companion.networks._models import Model


@functools.lru_cache
def linearized(model: Model, *, center: bool = False) -> Model:
    """The first-order Taylor polynomial of a network in its parameters, as a model of its own.

    f_lin(x; δ) = f(x; θ) + ⟨∂_θ f(x; θ), δ⟩; centered, the second term alone. Gradient descent on δ is kernel
    regression with the kernel Θ̂ at θ, which does not move, without ever forming that kernel.

    Args:
        model: any model. It is linearized in evaluation mode: running statistics stay as they are.
        center: whether f(x; θ) is left out, so that the function starts at 0 and all it learns is the
            kernel's.

    Returns:
        A model whose params are δ and whose state is (θ, the model's own state): see `linearize_at`. Its
        `init` linearizes at a fresh initialization.

    Cost: about two forward passes for one, by forward-mode differentiation.
    Source: Lee et al. (2019), arXiv 1902.06720, equation 5; centered as in Loo et al. (2022), arXiv
    2210.12030.

    >>> square = Model("square", lambda key, x: (jnp.ones(()), {}), lambda p, s, x, _: (p**2 * x, s))
    >>> delta, state = linearize_at((jnp.array(3.0), {}))
    >>> linearized(square).apply(delta + 1, state, jnp.ones((1, 1)), True)[0].item()
    15.0
    """

    def init(key: Key, x: Array) -> Variables:
        return linearize_at(model.init(key, x))

    def apply(params: Params, state: State, x: Array, training: bool) -> tuple[Array, State]:
        del training
        with double(params, state, x):
            point, own = jax.lax.stop_gradient(state)
            outputs, change = jax.jvp(lambda p: model.apply(p, own, x, False)[0], (point,), (params,))
            return change if center else outputs + change, state

    return Model(f"{'centered' if center else 'linearized'} {model.name}", init, apply)


def linearize_at(variables: Variables) -> Variables:
    """Variables with which `linearized(model)` starts from these variables of the model: δ = 0.

    Args:
        variables: (params, state) of the model, where the polynomial is expanded.

    Returns:
        Variables of the linearized model: zeros for its parameters, and `variables` as its state.
    """
    with double(variables):
        return jax.tree.map(jnp.zeros_like, variables[0]), variables
