"""Saving time in adversarial training: clean first, attacked later, and when to switch (chapter 6).

The idea is of Li et al. (2023), arXiv 2312.02236: early in training the kernels of standard and of
adversarial training are near each other, so the early epochs may as well be the cheap ones. `clean_first`
makes the schedule, with the switch at an epoch or where a rule finds that the kernel has slowed down;
`seconds_to`, `robust_within` and `pareto` compare schedules at equal robustness and at equal time, in seconds
or in passes; `step_cosine` says how much a clean step does for the adversarial loss.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Bool, Float, Int, PyTree

from companion import dynamics
from companion._core.checks import Numbers, class_labels, count, finite, number, random_key, within
from companion._core.types import Apply, Array, Key
from companion.attacks import Threat, bounds_of, cross_entropy, training_attack
from companion.training import Run, Switch

__all__ = [
    "after",
    "clean_first",
    "growing_steps",
    "pareto",
    "robust_within",
    "seconds_to",
    "settled",
    "step_cosine",
]


def clean_first(attack: Partial, *, until: float | int | Callable[[Run], bool]) -> Switch:
    """Training on clean inputs first, on attacked ones afterwards.

    Args:
        attack: as for `training.train`.
        until: an epoch, or a rule such as `settled()`, which is asked after each record.

    Returns:
        What `training.train` takes as its attack. The switch comes at a record: list its epoch in `record`.

    >>> from companion.attacks import Threat, training_attack
    >>> clean_first(training_attack(Threat("linf", 0.1)), until=2).first is None
    True
    """
    return Switch(None, attack, until if callable(until) else after(until))


@functools.lru_cache
def after(epoch: float | int) -> Callable[[Run], bool]:
    """A rule that says True from an epoch on.

    Args:
        epoch: from which, ≥ 0.

    Returns:
        The rule, for `clean_first(until=...)` and `training.Switch`.
    """
    epoch = number("epoch", epoch)

    def rule(run: Run) -> bool:
        return bool(run.epochs[-1] >= epoch - 1e-9)

    rule.__qualname__ = f"after {epoch:g}"
    return rule


@functools.lru_cache
def settled(*, fraction: float = 0.1) -> Callable[[Run], bool]:
    """A rule that says True once the kernel's velocity has fallen to a fraction of its highest.

    v_i = d(K_{i-1}, K_i) / (t_i − t_{i-1}) between records of `train`'s probe, with d the distance of
    `dynamics.distances`. The kernel's first rush is common to all ways of training; when it is over, the
    labels' shape is in the kernel and what remains differs.

    Args:
        fraction: of the highest velocity so far, more than 0 and below 1.

    Returns:
        The rule. It needs a probe, and three records.

    Raises:
        ValueError: a fraction out of range; later, training without a probe.

    Cost: a kernel of the probe for each record until the switch: `Run.probe_seconds`.
    """
    if not number("fraction", fraction, open_end=True) < 1:
        raise ValueError(f"fraction must be below 1, got {fraction}")

    def rule(run: Run) -> bool:
        if run.kernels is None:
            raise ValueError("the rule needs kernels: give train a probe")
        if len(run.epochs) < 3:
            return False
        speeds = dynamics.successive(run.kernels) / np.diff(run.epochs)
        return bool(speeds[-1] <= fraction * speeds.max())

    rule.__qualname__ = f"settled {fraction:g}"
    return rule


def growing_steps(threat: Threat, steps: int, *, until: float | int) -> Partial:
    """PGD whose steps grow from 1 to `steps`, linearly in the epoch, for `training.train`.

    At epoch t it takes k = 1 + ⌊(steps − 1) · min(1, t / until)⌋ steps of size 2.5 ε / k (1.25 ε for one).

    Args:
        threat: norm, eps and bounds, in pixel units.
        steps: in the end.
        until: the epoch from which all steps are taken, more than 0.

    Returns:
        The attack.

    >>> from companion.attacks import Threat
    >>> import jax
    >>> attack = growing_steps(Threat("linf", 0.5), 10, until=3)
    >>> attack(lambda x: x @ jnp.ones((2, 1)), jnp.full((1, 2), 0.5), jnp.array([1]), jax.random.key(0), 3)
    Array([[0., 0.]], dtype=float32)
    """
    until = number("until", until, open_end=True)
    return training_attack(threat, steps=count("steps", steps), growth=until)


def step_cosine(
    apply_fn: Apply,
    params: PyTree,
    x: Float[Any, "n ..."],
    labels: Int[Any, " n"],
    attack: Partial | tuple[Float[Any, "m ..."], Int[Any, " m"]],
    *,
    key: Key,
) -> float:
    """Cosine between the parameter gradients of the loss on clean and on attacked inputs: what steps share.

    ⟨g, g_ε⟩ / (‖g‖ ‖g_ε‖), g = ∂/∂θ Σ_i loss(f(x_i; θ)), g_ε the same at the attacked x_i, which stay as they
    are. At 1 a clean step goes where an adversarial one would; below 0 it makes the adversarial loss larger.

    Args:
        apply_fn: the network f, `apply_fn(params, x) -> outputs` (n, k), as the network is evaluated.
        params: a pytree.
        x: inputs.
        labels: classes (n,).
        attack: as for `training.train`; it is asked in its last epoch, whole. Or other inputs and their
            labels, whose gradient takes the place of g_ε: a control, for two sets of images never agree.
        key: a JAX random key.

    Returns:
        A number in [−1, 1]; NaN where a gradient vanishes.

    Raises:
        TypeError: an attack that is neither of the two.
        ValueError: labels or inputs that do not fit, a gradient with NaN.

    Cost: the attack, and two gradients on all inputs at once; both are compiled once for each apply_fn.
    Chapter 6 follows it through training.

    >>> from companion.attacks import Threat, training_attack
    >>> import jax
    >>> attack, x = training_attack(Threat("linf", 0.0), steps=1), jnp.ones((2, 3)) / 2
    >>> f, labels = (lambda w, x: x @ w), jnp.array([0, 0])
    >>> round(step_cosine(f, jnp.ones((3, 2)), x, labels, attack, key=jax.random.key(0)), 4)
    1.0
    """
    k = jax.eval_shape(apply_fn, params, jnp.asarray(x)).shape[-1]
    x, labels = jnp.asarray(x), jnp.asarray(class_labels("labels", labels, len(x), k))
    if isinstance(attack, tuple):
        other, classes = attack
        classes = jnp.asarray(class_labels("attack's labels", classes, len(other), k))
        other = jnp.asarray(other)
    elif not isinstance(attack, Partial):
        raise TypeError(
            f"attack must be a training attack or a pair of inputs and labels, got {type(attack).__name__}"
        )
    else:
        random_key("key", key)
        if (bounds := bounds_of(attack)) is not None:
            within("x", np.asarray(x), bounds)
        other, classes = _moved(apply_fn, params, x, labels, attack, key), labels
    pairs = (x, labels), (other, classes)
    # In float64, where squares of small gradients do not vanish.
    both = [np.asarray(_loss_gradient(apply_fn, params, *pair), np.float64) for pair in pairs]
    one, two = (finite("the loss's gradient", gradient) for gradient in both)
    lengths = np.linalg.norm(one) * np.linalg.norm(two)
    return float(np.clip(one @ two / lengths, -1, 1)) if lengths > 0 else math.nan


@functools.partial(jax.jit, static_argnames="apply_fn")
def _loss_gradient(apply_fn: Apply, params: PyTree, x: Array, labels: Array) -> Array:
    return ravel_pytree(jax.grad(lambda p: cross_entropy(apply_fn(p, x), labels).sum())(params))[0]


@functools.partial(jax.jit, static_argnames="apply_fn")
def _moved(apply_fn: Apply, params: PyTree, x: Array, labels: Array, attack: Partial, key: Key) -> Array:
    return attack(functools.partial(apply_fn, params), x, labels, key, jnp.inf)


def seconds_to(seconds: Numbers, robust: Numbers, accuracy: float | int) -> float:
    """When a run first reaches a robust accuracy, interpolated between records; infinity if never.

    Args:
        seconds: of the records, not decreasing (m,). Any other cost will do, such as passes.
        robust: robust accuracy at each record (m,), in [0, 1].
        accuracy: the robust accuracy to be reached.

    Returns:
        The time, in the unit of `seconds`.

    Raises:
        ValueError: records of two lengths, or none, or not finite; times that decrease.

    >>> seconds_to([0.0, 10.0, 20.0], [0.0, 0.5, 0.4], 0.25)
    5.0
    """
    seconds, robust = _record(seconds, robust)
    reached = np.flatnonzero(robust >= number("accuracy", accuracy))
    if not len(reached):
        return math.inf
    i = int(reached[0])
    if i == 0:
        return float(seconds[0])
    share = (accuracy - robust[i - 1]) / (robust[i] - robust[i - 1])
    return float(seconds[i - 1] + share * (seconds[i] - seconds[i - 1]))


def robust_within(seconds: Numbers, robust: Numbers, budget: float | int) -> float:
    """The robust accuracy of a run that is stopped after so many seconds, interpolated between records.

    Args:
        seconds: of the records, not decreasing (m,).
        robust: robust accuracy at each record (m,), in [0, 1].
        budget: the time when it is stopped; outside the records, the nearest one counts.

    Returns:
        Robust accuracy, in [0, 1].

    Raises:
        ValueError: records of two lengths, or none; times that decrease.

    >>> robust_within([0.0, 10.0, 20.0], [0.0, 0.5, 0.4], 15)
    0.45
    """
    seconds, robust = _record(seconds, robust)
    return float(np.interp(number("budget", budget), seconds, robust))


def pareto(seconds: Numbers, robust: Numbers) -> Bool[np.ndarray, " m"]:
    """Which methods no other beats: at least as fast and as robust as any that is better in either.

    Args:
        seconds: of the methods (m,), or any other cost.
        robust: robust accuracy of the methods (m,).

    Returns:
        (m,), true where no other method is at least as good in both and better in one.

    Raises:
        ValueError: two lengths, NaN.

    >>> pareto([1.0, 2.0, 3.0], [0.2, 0.5, 0.4])
    array([ True,  True, False])
    """
    seconds, robust = np.asarray(seconds, float), np.asarray(robust, float)
    if seconds.shape != robust.shape or seconds.ndim != 1:
        raise ValueError(f"seconds and robust must be of one length, got {seconds.shape} and {robust.shape}")
    if np.isnan(seconds).any() or np.isnan(robust).any():
        raise ValueError("seconds and robust must not be NaN: leave out a method that has none")
    no_worse = (seconds[:, None] <= seconds) & (robust[:, None] >= robust)
    better = (seconds[:, None] < seconds) | (robust[:, None] > robust)
    return ~(no_worse & better).any(axis=0)


def _record(seconds: Numbers, robust: Numbers) -> tuple[np.ndarray, np.ndarray]:
    seconds, robust = np.asarray(seconds, float), np.asarray(robust, float)
    if seconds.shape != robust.shape or seconds.ndim != 1 or not len(seconds):
        raise ValueError(f"seconds and robust must be of one length, got {seconds.shape} and {robust.shape}")
    if not (np.isfinite(seconds).all() and np.isfinite(robust).all()):
        raise ValueError("seconds and robust must be finite: leave records that are not there out of both")
    if (np.diff(seconds) < 0).any():
        raise ValueError("seconds must not decrease")
    return seconds, robust
