"""The compiled part of adversarial training: many minibatches in one call, and accuracy of what came out."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from companion._core.checks import predicted
from companion._core.interrupt import safe_point
from companion.networks import Model


@dataclass(frozen=True)
class Switch:
    """Training with one attack until a rule asks for another.

    Attributes:
        first: the attack at the start; None for clean inputs.
        second: the attack afterwards.
        rule: `rule(run) -> bool`, asked after each record with the `Run` so far (its `epochs`, accuracies,
            `kernels`, ...) until it says True.
    """

    first: Partial | None
    second: Partial | None
    rule: Callable[..., bool]


class Carry(NamedTuple):
    """What goes from step to step: all that a checkpoint has to hold."""

    params: Any
    state: Any
    optimizer: Any
    perturbation: Any  # of free training, else ()
    loss: Any  # summed over steps since it was last read


@functools.partial(
    jax.jit,
    static_argnames=(
        "model",
        "optimizer",
        "loss",
        "batch_size",
        "times",
        "attack_training_mode",
        "clean_too",
    ),
)
def advance(
    carry: Carry,
    x: Any,
    labels: Any,
    attack: Partial | None,
    key: Any,
    epoch: Any,
    first: Any,
    last: Any,
    penalty: Partial | None = None,
    *,
    model: Model,
    optimizer: Any,
    loss: Callable[..., Any],
    batch_size: int,
    times: int,
    attack_training_mode: bool,
    clean_too: bool,
) -> Carry:
    """Steps first, ..., last − 1 of an epoch. All depends on the key, the epoch and the step alone."""
    key = jax.random.fold_in(key, epoch)
    order_key, step_key = jax.random.split(key)
    n_steps = len(x) // batch_size
    order = jax.random.permutation(order_key, len(x))[: n_steps * batch_size].reshape(n_steps, batch_size)

    def objective(params: Any, x: Any, state: Any, y: Any) -> tuple[Any, Any]:
        outputs, state = model.apply(params, state, x, True)
        return loss(outputs, y).mean(), state

    def update(carry: Carry, gradient: Any, state: Any, value: Any) -> Carry:
        changes, moved = optimizer.update(gradient, carry.optimizer, carry.params)
        params = jax.tree.map(lambda p, c: p + c.astype(p.dtype), carry.params, changes)
        return carry._replace(params=params, state=state, optimizer=moved, loss=carry.loss + value)

    def replayed(i: Any, carry: Carry) -> Carry:
        here, y = x[order[i]], labels[order[i]]

        def once(_: Any, carry: Carry) -> Carry:
            # Within the ball around the new inputs and the pixels' bounds, by a step of length 0.
            now = attack(here + carry.perturbation, jnp.zeros_like(here), here)
            (value, state), (gradient, ascent) = jax.value_and_grad(objective, (0, 1), has_aux=True)(
                carry.params, now, carry.state, y
            )
            carry = update(carry, gradient, state, value / times)
            return carry._replace(perturbation=attack(now, ascent, here) - here)

        return jax.lax.fori_loop(0, times, once, carry)

    def step(i: Any, carry: Carry) -> Carry:
        here, y = x[order[i]], labels[order[i]]
        seen, classes, own_key = here, y, jax.random.fold_in(step_key, i)

        def predict(z: Any, params: Any = carry.params) -> Any:
            return model.apply(params, carry.state, z, attack_training_mode)[0]

        if attack is not None:
            seen = attack(predict, here, y, own_key, epoch + i / n_steps)
        if clean_too:
            seen, classes = jnp.concatenate([here, seen]), jnp.concatenate([y, y])

        def penalized(params: Any) -> tuple[Any, Any]:
            value, state = objective(params, seen, carry.state, classes)
            if penalty is not None:
                value += penalty(
                    functools.partial(predict, params=params),
                    here,
                    y,
                    jax.random.fold_in(own_key, 1),
                    epoch + i / n_steps,
                )
            return value, state

        (value, state), gradient = jax.value_and_grad(penalized, has_aux=True)(carry.params)
        return update(carry, gradient, state, value)

    return jax.lax.fori_loop(first, last, replayed if times else step, carry)


def right(
    model: Model, variables: tuple[Any, Any], x: Any, labels: Any, attack: Partial | None, key: Any
) -> np.ndarray:
    """Which inputs are classified rightly, (m,), after an attack or without."""
    size = min(500, len(x))
    parts = []
    for first in range(0, len(x), size):
        rows = np.minimum(np.arange(first, first + size), len(x) - 1)
        found = _right(variables, x[rows], labels[rows], attack, jax.random.fold_in(key, first), model=model)
        parts.append(np.asarray(found)[: len(x) - first])
        safe_point()
    return np.concatenate(parts)


@functools.partial(jax.jit, static_argnames="model")
def _right(variables: Any, x: Any, labels: Any, attack: Any, key: Any, *, model: Model) -> Any:
    def predict(z: Any) -> Any:
        return model.apply(*variables, z, False)[0]

    if attack is not None:
        x = attack(predict, x, labels, key, jnp.inf)
    return predicted(predict(x)) == labels


@functools.partial(jax.jit, static_argnames="model")
def attacked(variables: Any, x: Any, labels: Any, attack: Partial, key: Any, *, model: Model) -> Any:
    """Inputs under an attack on the network as it is."""
    return attack(lambda z: model.apply(*variables, z, False)[0], x, labels, key, jnp.inf)
