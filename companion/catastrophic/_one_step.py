"""One-step adversarial training and what keeps it from collapsing: noise, and a penalty on bent losses."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int

from companion._core import geometry
from companion._core.checks import count, finite, number, one_of, random_key
from companion._core.compile import double
from companion._core.types import Array, Key, Predict, Scalar
from companion.attacks import Threat, as_partial, checked_inputs, checked_threat, cross_entropy, grown


def noisy_fgsm(
    threat: Threat,
    *,
    noise: Literal["isotropic", "gradient"] = "isotropic",
    size: float | int = 2.0,
    top: int = 5,
    step_size: float | int | None = None,
    ramp: float | int = 0,
) -> Partial:
    """One-step training with noise before the step and no projection after it, for `training.train`.

    x' = Π(x₁ + s · sign ∂loss(x₁)/∂x₁), x₁ = Π(x + η), with Π on the pixels' bounds alone, not on the ball.
    "isotropic": η uniform in [−κε, κε]^d, which is N-FGSM. "gradient", anisotropic: η in the span of the
    minibatch's `top` leading input-gradient directions (`gradient_directions`), normal there and scaled to
    the length κε √(d/3) that isotropic noise has on average.

    Args:
        threat: L∞, with eps and bounds in pixel units.
        noise: its kind.
        size: κ, the noise's half-width in units of eps.
        top: how many directions anisotropic noise has.
        step_size: s in pixel units; None: eps.
        ramp: epochs over which noise and step grow linearly from 0; 0 for none.

    Returns:
        The attack. Its points lie outside the ball; it is for training, not for measuring.

    Raises:
        TypeError, ValueError: another norm, arguments of the wrong kind or range.

    Cost: a gradient by x for each minibatch; two, and one eigendecomposition of a matrix of the minibatch's
    size, with "gradient".
    Source: de Jorge et al. (2022), arXiv 2202.01181, for N-FGSM; anisotropic noise after the idea of Li et
    al. (2023), arXiv 2312.02236, in our construction.

    >>> from companion.attacks import Threat
    >>> attack = noisy_fgsm(Threat("linf", 0.1), size=0)
    >>> attack(lambda x: x @ jnp.ones((2, 1)), jnp.full((1, 2), 0.5), jnp.array([1]), jax.random.key(0), 0)
    Array([[0.4, 0.4]], dtype=float32)
    """
    ball = _ball(threat)
    one_of("noise", noise, ("isotropic", "gradient"))
    step = threat.eps if step_size is None else number("step_size", step_size)
    sizes = _Sizes(number("size", size) * threat.eps, step, number("ramp", ramp))
    draw = _isotropic if noise == "isotropic" else _along_gradients(count("top", top))
    return Partial(_noisy(draw), ball, sizes)


class _Ball(NamedTuple):
    """An L∞ ball's radius and the pixels' bounds, as numbers that do not make another program."""

    low: Scalar
    high: Scalar
    eps: Scalar


class _Sizes(NamedTuple):
    """Of a noisy step: the noise's half-width, the step, epochs until both are whole."""

    width: Scalar
    step: Scalar
    ramp: Scalar


def _ball(threat: Threat) -> _Ball:
    if checked_threat(threat).norm != "linf":
        raise ValueError(f"threat must be L∞, got {threat}")
    return _Ball(*map(float, threat.bounds), threat.eps)


@functools.lru_cache
def _noisy(draw: Callable[..., Array]) -> Callable[..., Array]:
    """The step from a point that `draw(width, predict, x, labels, key)` takes off x; one for each kind."""

    def attack(
        ball: _Ball, sizes: _Sizes, predict: Predict, x: Array, labels: Array, key: Key, epoch: Scalar
    ) -> Array:
        share = grown(sizes.ramp, epoch, x.dtype)
        noise = draw(share * sizes.width, predict, x, labels, key)
        start = jnp.clip(x + noise, ball.low, ball.high)
        ascent = share * sizes.step * jnp.sign(_gradient(predict, start, labels))
        return jax.lax.stop_gradient(jnp.clip(start + ascent, ball.low, ball.high))

    # A checkpoint of training knows an attack by this name and its numbers.
    attack.__qualname__ = f"noisy_fgsm {draw.__qualname__}"
    return attack


def _isotropic(width: Scalar, predict: Predict, x: Array, labels: Array, key: Key) -> Array:
    del predict, labels
    return width * geometry.uniform(key, x.shape, x.dtype)


@functools.lru_cache
def _along_gradients(rank: int) -> Callable[..., Array]:
    def draw(width: Scalar, predict: Predict, x: Array, labels: Array, key: Key) -> Array:
        directions = _leading(_gradient(predict, x, labels).reshape(len(x), -1), min(rank, len(x)))
        noise = jax.random.normal(key, (len(x), len(directions)), x.dtype) @ directions
        length = jnp.linalg.norm(noise, axis=1, keepdims=True)
        wanted = width * math.sqrt(directions.shape[1] / 3)
        return (noise * (wanted / jnp.maximum(length, jnp.finfo(x.dtype).tiny))).reshape(x.shape)

    draw.__qualname__ = f"gradient noise of rank {rank}"
    return draw


def _gradient(predict: Predict, x: Array, labels: Array) -> Array:
    return jax.grad(lambda z: cross_entropy(predict(z), labels).sum())(x)


def gradient_directions(
    predict: Predict, x: Float[Any, "n ..."], labels: Int[Any, " n"], *, top: int
) -> tuple[Float[np.ndarray, "r ..."], Float[np.ndarray, " r"]]:
    """Where a minibatch's losses change most: leading right singular vectors of its input gradients.

    Args:
        predict: the network, x (n, ...) to outputs (n, k).
        x: inputs.
        labels: classes (n,).
        top: how many, r ≤ n and ≤ the number of pixels.

    Returns:
        Directions (r, ...), orthonormal, and the share of Σ_i ‖∂loss_i/∂x_i‖² along each (r,), descending: 0
        beyond the gradients' rank.

    Raises:
        TypeError, ValueError: as `attacks.pgd`; more directions than there are.

    Cost: one gradient of predict on all inputs at once, and the singular value decomposition of a matrix
    (n, d): about n² d operations for n ≤ d.

    >>> weights = jnp.array([[1.0, -1.0], [0.0, 0.0]])
    >>> directions, shares = gradient_directions(
    ...     lambda x: x @ weights, np.ones((3, 2), np.float32), np.zeros(3, int), top=1)
    >>> np.abs(directions).round(3), shares.round(3)
    (array([[1., 0.]], dtype=float32), array([1.], dtype=float32))
    """
    x, labels = checked_inputs(predict, x, labels)
    if count("top", top) > (most := min(len(x), x[0].size)):
        raise ValueError(f"top must be at most {most}, the number of inputs and of pixels, got {top}")
    with double(x, predict):
        gradients = finite(
            "predict's gradients", np.asarray(_gradient(predict, jnp.asarray(x), jnp.asarray(labels)))
        )
    # An orthonormal basis also beyond the gradients' own rank, where a smaller Gram matrix has none.
    _, sizes, directions = np.linalg.svd(gradients.reshape(len(x), -1).astype(float), full_matrices=False)
    shares = sizes**2 / max((sizes**2).sum(), np.finfo(float).tiny)
    return directions[:top].reshape(top, *x.shape[1:]).astype(x.dtype), shares[:top].astype(x.dtype)


def _leading(gradients: Array, rank: int) -> Array:
    """Leading right singular vectors (rank, d) of (n, d), by the smaller Gram matrix; 0 beyond their rank."""
    lengths = jnp.maximum(jnp.abs(gradients).max(), jnp.finfo(gradients.dtype).tiny)
    gradients = gradients / lengths
    values, vectors = jnp.linalg.eigh(gradients @ gradients.T)
    found = (vectors[:, ::-1][:, :rank].T @ gradients).astype(gradients.dtype)
    there = values[::-1][:rank, None] > len(gradients) * jnp.finfo(found.dtype).eps * values[-1]
    return jnp.where(there, found / jnp.where(there, jnp.linalg.norm(found, axis=1, keepdims=True), 1), 0)


def local_linearity(
    predict: Predict, x: Float[Any, "n ..."], labels: Int[Any, " n"], threat: Threat, *, key: Key
) -> Float[np.ndarray, " n"]:
    """Cosine between ∂loss/∂x at an input and at a random point of its ε-ball: 1 where the loss is linear.

    Args:
        predict: the network, x (n, ...) to outputs (n, k). As for `attacks.pgd`, compiled code is kept for
            pytrees.
        x: inputs.
        labels: classes (n,).
        threat: the ball; only L∞. The random point is uniform, before the pixels' bounds cut it.
        key: a JAX random key.

    Returns:
        (n,), in [−1, 1]; 0 where a gradient vanishes.

    Raises:
        TypeError, ValueError: as `attacks.pgd`; another norm.

    Cost: two gradients of predict on all inputs at once.
    Source: Andriushchenko & Flammarion (2020), arXiv 2007.02617, section 4.1.

    >>> from companion.attacks import Threat
    >>> weights = jnp.array([[1.0, -1.0], [0.0, 0.0]])
    >>> local_linearity(lambda x: x @ weights, np.ones((1, 2), np.float32), np.zeros(1, int),
    ...     Threat("linf", 0.1), key=jax.random.key(0)).round(3)
    array([1.], dtype=float32)
    """
    random_key("key", key)
    x, labels = checked_inputs(predict, x, labels)
    with double(x, predict):
        cosines = _measured(as_partial(predict), x, labels, _ball(threat), key)
    return finite("the cosine of predict's gradients", np.asarray(cosines, x.dtype))


@jax.jit
def _measured(predict: Partial, x: Array, labels: Array, ball: _Ball, key: Key) -> Array:
    with jax.default_matmul_precision("highest"):
        return _cosines(predict, x, labels, ball, key)[0]


def _cosines(predict: Predict, x: Array, labels: Array, ball: _Ball, key: Key) -> tuple[Array, Array]:
    """Cosines, 0 where a gradient vanishes, and where none does."""
    other = jnp.clip(x + ball.eps * geometry.uniform(key, x.shape, x.dtype), ball.low, ball.high)
    pair = [_gradient(predict, z, labels).reshape(len(x), -1) for z in (x, other)]
    sizes = [jax.lax.stop_gradient(jnp.abs(g).max(axis=1, keepdims=True)) for g in pair]
    # A cosine knows no scale: taken out first, squares of small gradients do not vanish, and as a constant
    # it has no derivative to overflow. Where the loss is 0 to the last bit there is no direction.
    # NaN stays NaN.
    live = ~(jnp.minimum(*sizes) <= 1e-20)
    none = jnp.ones_like(sizes[0])
    one, two = (
        jnp.where(live, g / jnp.where(live, size, none), none) for g, size in zip(pair, sizes, strict=True)
    )
    lengths = jnp.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    return jnp.where(live[:, 0], (one * two).sum(axis=1) / lengths, jnp.zeros_like(lengths)), live[:, 0]


def gradalign(threat: Threat, *, weight: float | int = 0.2) -> Partial:
    """GradAlign: λ (1 − mean cosine of `local_linearity`), for `training.train(penalty=...)`.

    The mean is over examples whose gradients do not vanish.

    Args:
        threat: the ball; only L∞.
        weight: λ.

    Returns:
        The penalty, a function of the clean minibatch.

    Cost: its derivative goes twice through the network: about three ordinary gradients.
    Source: Andriushchenko & Flammarion (2020), arXiv 2007.02617, equation 5.

    >>> from companion.attacks import Threat
    >>> penalty = gradalign(Threat("linf", 0.1), weight=1.0)
    >>> x, labels = jnp.ones((1, 2)), jnp.array([1])
    >>> float(penalty(lambda x: x @ jnp.eye(2), x, labels, jax.random.key(0), 0.0).round(3))
    0.0
    """
    return Partial(_misaligned, number("weight", weight), _ball(threat))


def _misaligned(
    weight: Scalar, ball: _Ball, predict: Predict, x: Array, labels: Array, key: Key, epoch: Scalar
) -> Array:
    del epoch
    cosines, live = _cosines(predict, x, labels, ball, key)
    return weight * (live.sum() - cosines.sum()) / jnp.maximum(live.sum(), 1)
