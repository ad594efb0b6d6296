"""Attacks that run inside a compiled training loop, where `pgd` and its bookkeeping cannot."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from companion._core import geometry
from companion._core.checks import count, number
from companion._core.types import Array, Key, LossFunction, Predict, Scalar
from companion.attacks._losses import Loss, loss_named
from companion.attacks._threat import Threat, checked_threat


@dataclass(frozen=True)
class Replay:
    """Free adversarial training, as `attacks.free_training` makes it.

    Attributes:
        replays: how often each minibatch is replayed.
        move: `move(now, gradient, x) -> now`, a step of the perturbed inputs.
    """

    replays: int
    move: Partial


def training_attack(
    threat: Threat,
    *,
    steps: int = 10,
    step_size: float | None = None,
    random_start: bool = True,
    loss: Loss = "cross_entropy",
    ramp: float | int = 0,
    growth: float | int = 0,
) -> Partial:
    """Projected gradient ascent as `training.train` takes it: `attack(predict, x, labels, key, epoch) -> x'`.

    x' ← Π(x' + s · sign ∇ loss), `steps` times, from a random point of the ball or from x. The last point
    counts, whatever it is: a training step has no time to look back. Π is onto the ball within the bounds, so
    inputs outside them would be clipped: `training.train` refuses those. Steps, sizes and ε are ordinary
    numbers to the compiler, so that FGSM and PGD of any strength share their compiled training loop.

    Args:
        threat: norm, eps and bounds, in pixel units.
        steps: gradient steps, ≥ 0; 0 trains on random points, or on x itself. FGSM is `steps=1,
            step_size=threat.eps, random_start=False`.
        step_size: s in pixel units. None: 2.5 ε / steps for several steps, 1.25 ε for one step from a random
            start (Wong et al. 2020, arXiv 2001.03994), ε for one step from x.
        random_start: whether to start from a random point of the ball.
        loss: as for `pgd`, but "cross_entropy" by default, which is what networks are trained on.
        ramp: epochs over which ε, and s with it, grow linearly from 0 to their full size; 0 for none. Large ε
            on small data may otherwise never be learned.
        growth: epochs over which the number of steps grows from 1 to `steps`, 0 for none: at epoch t it takes
            k = 1 + ⌊(steps − 1) · min(1, t / growth)⌋ steps, of size 2.5 ε / k, or 1.25 ε for one.

    Returns:
        The attack; `epoch` is the time in epochs, infinity after training.

    Raises:
        TypeError, ValueError: arguments of the wrong kind or range.

    Cost: `steps` gradients of the network for each minibatch, beside that of the training step.
    Source: Madry et al. (2018), arXiv 1706.06083, section 2.1.

    >>> attack = training_attack(Threat("linf", 0.25), steps=1, random_start=False)
    >>> x = jnp.full((1, 2), 0.5)
    >>> attack(lambda x: x @ jnp.ones((2, 1)), x, jnp.array([1]), jax.random.key(0), jnp.inf)
    Array([[0.25, 0.25]], dtype=float32)
    """
    steps, threat = count("steps", steps, least=0), checked_threat(threat)
    if step_size is None:
        step_size = threat.eps * (2.5 / steps if steps > 1 else 1.25 if random_start else 1.0)
    numbers = number("step_size", step_size), threat.eps, number("ramp", ramp), number("growth", growth)
    ascend = _ascending(threat.norm, threat.bounds, loss_named(loss), bool(random_start))
    return Partial(ascend, steps, *numbers)


def free_training(threat: Threat, *, replays: int = 8) -> Replay:
    """Free adversarial training: each minibatch is replayed, and one backward pass serves both sides.

    Every replay takes ∂loss/∂θ to update the network and ∂loss/∂x of the *same* pass to move the
    perturbation, δ ← Π(δ + ε · sign ∂loss/∂x), which is carried over to the next replay and the next
    minibatch.

    Args:
        threat: norm, eps and bounds, in pixel units.
        replays: how often a minibatch is taken, m. An epoch then costs m ordinary ones: train for 1/m of
            the epochs.

    Returns:
        What `training.train` takes as its attack.

    Raises:
        TypeError, ValueError: arguments of the wrong kind or range.

    Cost: m forward and backward passes for each minibatch, and none for an attack.
    Source: Shafahi et al. (2019), arXiv 1904.12843, algorithm 1.

    >>> free_training(Threat("linf", 0.1), replays=4).replays
    4
    """
    checked_threat(threat)
    return Replay(count("replays", replays), Partial(_mover(threat.norm, threat.bounds), threat.eps))


def bounds_of(attack: Callable[..., Array] | Replay | None) -> tuple[float, float] | None:
    """The bounds into which an attack in the loop clips its inputs; None of one that is not ours.

    They are an attribute of its function or, where they are numbers of the compiled program, `low` and `high`
    of its first argument.
    """
    if isinstance(attack, Replay):
        return bounds_of(attack.move)
    if not isinstance(attack, Partial):
        return None
    ball = attack.args[0] if attack.args else None
    if hasattr(ball, "low") and hasattr(ball, "high"):
        return float(ball.low), float(ball.high)
    return getattr(attack.func, "bounds", None)


def grown(ramp: Scalar, epoch: Scalar, dtype: np.dtype) -> jax.Array:
    """The share of its full size that an attack has after `epoch` epochs of a linear ramp; 1 without one."""
    return jnp.where(ramp > 0, jnp.minimum(1, epoch / jnp.maximum(ramp, 1e-9)), 1).astype(dtype)


@functools.lru_cache
def _ascending(
    norm: str, bounds: tuple[float, float], loss: LossFunction, random_start: bool
) -> Callable[..., Array]:
    """One function for each choice that needs other code."""

    def ascend(
        steps: Scalar,
        size: Scalar,
        eps: Scalar,
        ramp: Scalar,
        growth: Scalar,
        predict: Predict,
        x: Array,
        labels: Array,
        key: Key,
        epoch: Scalar,
    ) -> Array:
        now = 1 + jnp.floor((steps - 1) * jnp.minimum(1, epoch / jnp.maximum(growth, 1e-9)))
        size = jnp.where(growth > 0, eps * jnp.where(now > 1, 2.5 / now, 1.25), size).astype(x.dtype)
        steps = jnp.where(growth > 0, now, steps).astype(int)
        share = grown(ramp, epoch, x.dtype)
        eps, size = share * eps, share * size
        low, high = geometry.pixel_range(norm, eps, bounds, x)
        start = x
        if random_start:
            start = geometry.start(norm, eps, jax.random.split(key, len(x)), x, low, high)

        def one(_: Scalar, now: Array) -> Array:
            gradient = jax.grad(lambda z: loss(predict(z), labels).sum())(now)
            return geometry.step(norm, gradient, now, x, low, high, size, eps)

        return jax.lax.stop_gradient(jax.lax.fori_loop(0, steps, one, start))

    # A checkpoint of training knows an attack by this name and its numbers.
    name = getattr(loss, "__qualname__", repr(loss))
    ascend.__qualname__ = f"training_attack {norm} {bounds} {name} {random_start}"
    ascend.bounds = bounds
    return ascend


@functools.lru_cache
def _mover(norm: str, bounds: tuple[float, float]) -> Callable[..., Array]:
    def move(eps: Scalar, now: Array, gradient: Array, x: Array) -> Array:
        low, high = geometry.pixel_range(norm, eps, bounds, x)
        return geometry.step(norm, gradient, now, x, low, high, eps, eps)

    move.__qualname__ = f"free_training {norm} {bounds}"
    move.bounds = bounds
    return move
