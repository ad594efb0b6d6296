"""The compiled part of adversarial training: many minibatches in one call, and accuracy of what came out."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import PyTree

from companion._core.checks import predicted
from companion._core.extras import missing
from companion._core.interrupt import safe_point
from companion._core.types import Array, Key, LossFunction, Scalar, Variables
from companion.networks import Model

try:
    import optax
except ModuleNotFoundError as error:  # met here first, whoever imports training
    raise missing("optax", "networks") from error


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


class Examples(NamedTuple):
    """What minibatches are drawn from, and the key that says in which order."""

    x: Array
    labels: Array
    key: Key


class Carry(NamedTuple):
    """What goes from step to step: all that a checkpoint has to hold."""

    params: PyTree
    state: PyTree
    optimizer: PyTree
    perturbation: PyTree  # of free training, else ()
    loss: Array  # summed over steps since it was last read

    @property
    def variables(self) -> Variables:
        """The network."""
        return self.params, self.state


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, beside numbers: for each another loop is compiled.

    Attributes:
        model: the network.
        optimizer: from Optax.
        loss: of outputs and labels.
        batch_size: examples of a minibatch.
        replays: how often free training replays a minibatch; 0 for any other training.
        attack_training_mode: whether the attacker meets the network in training mode.
        clean_too: whether clean inputs are trained on beside attacked ones.
    """

    model: Model
    optimizer: optax.GradientTransformation
    loss: LossFunction
    batch_size: int
    replays: int
    attack_training_mode: bool
    clean_too: bool

    def start(self, variables: Variables, x: Array) -> Carry:
        """Where training begins, on inputs like x."""
        perturbation = jnp.zeros((self.batch_size, *x.shape[1:]), x.dtype) if self.replays else ()
        optimizer = self.optimizer.init(variables[0])
        return Carry(*jax.tree.map(jnp.array, variables), optimizer, perturbation, jnp.zeros(()))

    def objective(self, params: PyTree, x: Array, state: PyTree, labels: Array) -> tuple[Array, PyTree]:
        """The mean loss in training mode, and the state after it."""
        outputs, state = self.model.apply(params, state, x, True)
        return self.loss(outputs, labels).mean(), state

    def update(self, carry: Carry, gradient: PyTree, state: PyTree, value: Array) -> Carry:
        """One step of the optimizer."""
        changes, moved = self.optimizer.update(gradient, carry.optimizer, carry.params)
        params = jax.tree.map(lambda p, c: p + c.astype(p.dtype), carry.params, changes)
        return carry._replace(params=params, state=state, optimizer=moved, loss=carry.loss + value)


@functools.partial(jax.jit, static_argnames="recipe")
def advance(
    recipe: Recipe,
    carry: Carry,
    examples: Examples,
    attack: Partial | None,
    penalty: Partial | None,
    epoch: Scalar,
    first: Scalar,
    last: Scalar,
) -> Carry:
    """Minibatches first, ..., last − 1 of an epoch. All depends on the key, the epoch and the step alone."""
    x, labels, key = examples
    order_key, step_key = jax.random.split(jax.random.fold_in(key, epoch))
    size, n_steps = recipe.batch_size, len(x) // recipe.batch_size
    order = jax.random.permutation(order_key, len(x))[: n_steps * size].reshape(n_steps, size)

    def minibatch(i: Array, carry: Carry) -> Carry:
        here, y = x[order[i]], labels[order[i]]
        if recipe.replays:
            return _replayed(recipe, carry, here, y, attack)
        own_key = jax.random.fold_in(step_key, i)
        return _attacked_once(recipe, carry, here, y, attack, penalty, own_key, epoch + i / n_steps)

    return jax.lax.fori_loop(first, last, minibatch, carry)


def _attacked_once(
    recipe: Recipe,
    carry: Carry,
    x: Array,
    labels: Array,
    attack: Partial | None,
    penalty: Partial | None,
    key: Key,
    epoch: Array,
) -> Carry:
    """Madry et al.'s step: attack the minibatch, then go down its loss."""

    def predict(params: PyTree, z: Array) -> Array:
        return recipe.model.apply(params, carry.state, z, recipe.attack_training_mode)[0]

    seen, classes = x, labels
    if attack is not None:
        seen = attack(functools.partial(predict, carry.params), x, labels, key, epoch)
    if recipe.clean_too:
        seen, classes = jnp.concatenate([x, seen]), jnp.concatenate([labels, labels])

    def penalized(params: PyTree) -> tuple[Array, PyTree]:
        value, state = recipe.objective(params, seen, carry.state, classes)
        if penalty is not None:
            own_key = jax.random.fold_in(key, 1)
            value += penalty(functools.partial(predict, params), x, labels, own_key, epoch)
        return value, state

    (value, state), gradient = jax.value_and_grad(penalized, has_aux=True)(carry.params)
    return recipe.update(carry, gradient, state, value)


def _replayed(recipe: Recipe, carry: Carry, x: Array, labels: Array, move: Partial) -> Carry:
    """Free training's minibatch: each replay moves the network down and the perturbation up, by one pass."""

    def once(_: Array, carry: Carry) -> Carry:
        # Within the ball around the new inputs and the pixels' bounds, by a step of length 0.
        now = move(x + carry.perturbation, jnp.zeros_like(x), x)
        (value, state), (gradient, ascent) = jax.value_and_grad(recipe.objective, (0, 1), has_aux=True)(
            carry.params, now, carry.state, labels
        )
        carry = recipe.update(carry, gradient, state, value / recipe.replays)
        return carry._replace(perturbation=move(now, ascent, x) - x)

    return jax.lax.fori_loop(0, recipe.replays, once, carry)


def right(
    model: Model, variables: Variables, x: np.ndarray, labels: np.ndarray, attack: Partial | None, key: Key
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
def _right(
    variables: Variables, x: Array, labels: Array, attack: Partial | None, key: Key, *, model: Model
) -> Array:
    def predict(z: Array) -> Array:
        return model.apply(*variables, z, False)[0]

    if attack is not None:
        x = attack(predict, x, labels, key, jnp.inf)
    return predicted(predict(x)) == labels


@functools.partial(jax.jit, static_argnames="model")
def attacked(
    variables: Variables, x: Array, labels: Array, attack: Partial, key: Key, *, model: Model
) -> Array:
    """Inputs under an attack on the network as it is."""
    return attack(lambda z: model.apply(*variables, z, False)[0], x, labels, key, jnp.inf)
