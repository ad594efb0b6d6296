"""A network of patches with smoothed ReLU, its inputs, and what its weights have learned of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from companion._core.types import Array, Key, Params, Scalar, State, Variables
from companion.networks import Model

FEATURES = ("robust", "nonrobust")


def smoothed_relu(z: Array, rho: Scalar) -> Array:
    """z³/(3 ρ²) from 0 to ρ, z − 2ρ/3 beyond, 0 below 0: a ReLU that begins as a third power.

    Args:
        z: anything.
        rho: ρ > 0, where it becomes linear.

    Returns:
        Of the shape of z.
    """
    bent = jnp.clip(z / rho, 0, 1)
    return rho * (bent**3 / 3 + jnp.maximum(z / rho - 1, 0))


@functools.lru_cache
def patch_network(width: int, *, start: float, rho: float) -> Model:
    """F_k(x) = Σ_r Σ_p σ̃(⟨w_kr, x_p⟩) for two classes k: one layer, the same weights for every patch.

    Args:
        width: neurons r of each class.
        start: standard deviation of the weights at the start.
        rho: of `smoothed_relu`.

    Returns:
        A model of inputs (n, patches, d) whose parameters are the weights (2, width, d).
    """

    def init(key: Key, x: Array) -> Variables:
        return start * jax.random.normal(key, (2, width, x.shape[-1])), ()

    def apply(params: Params, state: State, x: Array, training: bool) -> tuple[Array, State]:  # noqa: ARG001
        hidden = smoothed_relu(jnp.einsum("npd,krd->nkrp", x, params), rho)
        return hidden.sum(axis=(-2, -1)), state

    return Model(f"patches-{width}", init, apply)


def patches(
    n: int, *, robust: int, weak: int, beta: float, noise: float, seed: int, dim: int = 6
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of which a few patches hold the class's robust feature, and many its non-robust one, weakly.

    Coordinates 0 and 1 of a patch are the robust features u₀ and u₁ of the classes, coordinates 2 and 3 the
    non-robust v₀ and v₁; the others are noise alone.

    Args:
        n: how many, half of each class.
        robust: patches u_y + noise.
        weak: patches β v_y + noise.
        beta: β, in units of the robust feature.
        noise: standard deviation, in every coordinate.
        seed: of the noise.
        dim: coordinates of a patch.

    Returns:
        x, (n, robust + weak, dim), and the classes y, (n,), 0 and 1 in turn.
    """
    y = np.arange(n) % 2
    x = noise * np.random.default_rng(seed).normal(size=(n, robust + weak, dim))
    x[np.arange(n), :robust, y] += 1.0
    x[np.arange(n), robust:, 2 + y] += beta
    return x.astype(np.float32), y


def aligned(x: np.ndarray, labels: np.ndarray, eps: float) -> np.ndarray:
    """In every patch, ε less of both features of the own class and ε more of both of the other one."""
    own, other = np.zeros((2, len(x), 1, x.shape[-1]), x.dtype)
    for first in (0, 2):
        own[np.arange(len(x)), 0, first + labels] = 1
        other[np.arange(len(x)), 0, first + 1 - labels] = 1
    # Rounding may leave the ball by the last digit.
    return np.clip(x + np.float32(eps) * (other - own), x - np.float32(eps), x + np.float32(eps))


def strengths(weights: np.ndarray) -> np.ndarray:
    """max_r ⟨w_kr, u_k⟩ and max_r ⟨w_kr, v_k⟩, the mean over the classes k; (2,), of `FEATURES`."""
    best = np.asarray(weights).max(axis=1)
    return np.array([np.mean([best[k, first + k] for k in range(2)]) for first in (0, 2)])


def shares(change: np.ndarray) -> np.ndarray:
    """Of the squared length of a change of weights, what lies along u_k and along v_k.

    Args:
        change: of the weights (2, width, d).

    Returns:
        (2,), of `FEATURES`; NaN where nothing changed.
    """
    square = np.asarray(change, float) ** 2
    with np.errstate(invalid="ignore"):
        own = [sum(square[k, :, first + k].sum() for k in range(2)) for first in (0, 2)]
        return np.array(own) / square.sum()
