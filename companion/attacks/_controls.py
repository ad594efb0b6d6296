"""Perturbations that know nothing of the function under attack, and the attack that is a formula."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from companion._core import geometry
from companion._core.checks import batch as examples
from companion._core.checks import count, finite, random_key, within
from companion._core.compile import double
from companion._core.types import Key
from companion.attacks._predict import checked_inputs, in_batches
from companion.attacks._threat import Threat, checked_threat
from companion.regression import KernelPredictor, checked


def random_sign(x: Float[Any, "m ..."], threat: Threat, *, key: Key) -> Float[np.ndarray, "m ..."]:
    """The control of every attack: x ± ε with random signs, or, for L2, a random direction of length ε.

    For L1 what a step of length ε makes of a random gradient: random pixels at their bounds, until ε is used.
    As large as a perturbation of one gradient step before the pixels' bounds cut it, and blind.

    Args:
        x: clean inputs (m, ...), within the threat's bounds.
        threat: norm, eps and bounds.
        key: a JAX random key.

    Returns:
        Perturbed inputs; ball and bounds hold exactly.

    Raises:
        TypeError, ValueError: inputs that are no floating point batch, or outside the bounds.

    >>> x = np.full((1, 4), 0.5, np.float32)
    >>> np.abs(random_sign(x, Threat("linf", 0.25), key=jax.random.key(0)) - x)
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """
    random_key("key", key)
    x = within("x", examples("x", x), checked_threat(threat).bounds)
    with double(x):
        if threat.norm == "linf":
            low, high = geometry.box(threat, x)
            return np.where(np.asarray(geometry.signs(key, x.shape)), high, low)
        delta = np.array(jax.random.normal(key, x.shape, x.dtype))
        if threat.norm == "l1":
            point = geometry.step("l1", delta, x, x, *geometry.box(threat, x), threat.eps, threat.eps)
            return geometry.inside(threat, x, np.asarray(point))
        length = np.linalg.norm(delta.reshape(len(x), -1), axis=1).reshape(-1, *[1] * (x.ndim - 1))
        return geometry.inside(threat, x, x + threat.eps * delta / length)


def random_uniform(x: Float[Any, "m ..."], threat: Threat, *, key: Key) -> Float[np.ndarray, "m ..."]:
    """A random point of each input's ball, uniform before the pixels' bounds cut it.

    Args:
        x: clean inputs (m, ...), within the threat's bounds.
        threat: norm, eps and bounds.
        key: a JAX random key.

    Returns:
        Perturbed inputs; ball and bounds hold exactly.

    Raises:
        TypeError, ValueError: inputs that are no floating point batch, or outside the bounds.

    >>> x = np.full((1, 4), 0.5, np.float32)
    >>> bool(np.abs(random_uniform(x, Threat("linf", 0.25), key=jax.random.key(0)) - x).max() <= 0.25)
    True
    """
    random_key("key", key)
    x = within("x", examples("x", x), checked_threat(threat).bounds)
    with double(x):
        low, high = geometry.box(threat, x)
        keys = jax.random.split(key, len(x))
        return geometry.inside(
            threat, x, np.asarray(geometry.start(threat.norm, threat.eps, keys, x, low, high))
        )


def one_step(
    f: KernelPredictor,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    batch_size: int = 256,
) -> Float[np.ndarray, "m ..."]:
    """The one-step attack on a kernel predictor as a formula, with no loss to differentiate.

    For one output x − ε · s · sign ∇ₓ f(x) with s = 2y − 1, for k outputs
    x + ε · sign Σ_c (p_c − 1[c = y]) ∇ₓ f_c(x) with p the softmax of f(x); ∇ₓ f_c = Σ_i α_ic ∇ₓ Θ(x, x_i).
    The first is the step of *every* loss that falls with s f, the second that of the cross-entropy. For
    L2 the gradient is divided by its length instead of taking its sign; for L1 the pixels of the largest
    slopes go to their bounds, until ε is used.

    Args:
        f: from `regression.fit`.
        x: clean inputs (m, ...), within the threat's bounds.
        labels: classes (m,).
        threat: norm, eps and bounds.
        batch_size: inputs at once.

    Returns:
        Attacked inputs; ball and bounds hold exactly.

    Raises:
        TypeError, ValueError: as `pgd`, and f that is not from `regression.fit`.

    Cost: one gradient of f.
    Source: Tsilivis & Kempe (2022), arXiv 2210.05577, section 3 (there with the network's sign convention).

    >>> from companion.regression import fit
    >>> f = fit(lambda a, b, get: a @ b.T, np.eye(2, dtype=np.float32), np.array([[2.0], [-3.0]]))
    >>> one_step(f, np.full((1, 2), 0.5, np.float32), np.array([1]), Threat("linf", 0.25))
    array([[0.25, 0.75]], dtype=float32)
    """
    checked(f)
    batch_size = count("batch_size", batch_size)
    x, labels = checked_inputs(f, x, labels, checked_threat(threat).bounds)
    (low, high), attacked = geometry.box(threat, x), np.empty_like(x)
    with double(x, f):
        for some in in_batches(np.arange(len(x)), min(batch_size, len(x))):
            here, y = x[some], labels[some]
            outputs = f(here)
            if outputs.shape[1] == 1:
                weights = 1.0 - 2.0 * y[:, None]
            else:
                weights = jax.nn.softmax(outputs) - jax.nn.one_hot(y, outputs.shape[1])
            gradient = f.gradient(here, finite("f's outputs", np.asarray(weights)))
            attacked[some] = geometry.step(
                threat.norm, gradient, here, here, low[some], high[some], threat.eps, threat.eps
            )
    # For inputs of more precision than f has, the L∞ step is rounded too.
    return geometry.inside(threat, x, attacked)
