"""Linearized networks solved instead of trained: kernel regression on the kernel that a network has now."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float, PyTree

from companion import regression
from companion._core.checks import batch as examples
from companion._core.checks import count, finite, number
from companion._core.compile import double_where, network
from companion._core.types import Apply, Array, Variables
from companion.empirical import empirical_ntk
from companion.networks import Model, evaluation, linearize_at


@double_where("variables", "x")
def linear_solution(
    model: Model,
    variables: Variables,
    x: Float[Any, "n ..."],
    targets: Float[Any, "n k"],
    *,
    ridge: float | int = 0.0,
    k_train_train: Float[Any, "m m"] | None = None,
) -> Variables:
    """Where training of the centered linearized network on the squared loss ends: δ = Jᵀ (Θ̂ + ρI)⁻¹ Y.

    J = ∂_θ f(X; θ) is (n·k, p) and Θ̂ = J Jᵀ the full empirical kernel at θ, so that ⟨∂_θ f(x; θ), δ⟩ is
    kernel regression, Θ̂(x, X) (Θ̂ + ρI)⁻¹ Y, as a network: evaluated and attacked at the price of two
    forward passes, whatever n is.

    Args:
        model: the network.
        variables: its (params, state), where it is linearized.
        x: training inputs (n, ...).
        targets: Y, (n, k), such as `data.targets`.
        ridge: ρ ≥ 0, added to the diagonal, in the kernel's units as for `regression.fit`. Kernels of trained
            networks are so ill-conditioned that float32 wants some: 1e-4 of the mean eigenvalue, say.
        k_train_train: Θ̂ where it exists already, `empirical_ntk(..., reduce="full")`, (n·k, n·k).

    Returns:
        Variables of `linearized(model, center=True)`.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape or range; a kernel that is singular.

    Warns with a `regression.PrecisionWarning` where rounding in the kernel may spoil the solution.

    Cost: one full empirical kernel and a Cholesky factorization of (n·k)² numbers in float64.
    Source: Loo et al. (2022), arXiv 2210.12030, for the centered network; equation (2) of Lee et al. (2019).

    >>> from companion.networks import linearized, mlp
    >>> model, x = mlp(2, width=64), np.eye(3, dtype=np.float32)
    >>> y = np.array([[1, -1], [-1, 1], [1, 1]], np.float32)
    >>> solved = linear_solution(model, model.init(jax.random.key(0), x), x, y, ridge=1e-3)
    >>> np.allclose(linearized(model, center=True).apply(*solved, x, False)[0], y, atol=0.01)
    True
    """
    x, targets = examples("x", x), finite("targets", np.asarray(targets))
    apply_fn = evaluation(model)
    if (shape := network("model", apply_fn, variables, x)) != targets.shape:
        raise ValueError(f"targets must have the network's output shape {shape}, got {targets.shape}")
    kernel = _full(apply_fn, variables, x) if k_train_train is None else np.asarray(k_train_train)
    if kernel.shape != (targets.size, targets.size):
        raise ValueError(
            f"k_train_train must have shape ({targets.size}, {targets.size}), a row for every output of "
            f"every input, got {kernel.shape}"
        )
    # Each entry is right to about ε.
    resolution = 2 * np.finfo(kernel.dtype).eps * np.linalg.norm(kernel) / math.sqrt(len(kernel))
    f = regression.fit(
        kernel,
        targets=targets.reshape(-1, 1),
        ridge=number("ridge", ridge),
        solver="cholesky",
        resolution=float(resolution),
    )
    weights = f.coefficients.reshape(targets.shape)
    return _combination(apply_fn, variables, x, weights), linearize_at(variables)[1]


@double_where("variables", "x")
def linear_features(
    model: Model,
    variables: Variables,
    x: Float[Any, "n ..."],
    targets: Float[Any, "n k"],
    *,
    top: int,
) -> tuple[Float[np.ndarray, " top"], list[Variables]]:
    """The first eigenfeatures of the kernel that a network has now, each as a linearized network.

    Θ̂ = Σ_i λ_i v_i v_iᵀ on all n·k outputs, and feature i is λ_i⁻¹ Θ̂(x, X) v_i v_iᵀ Y, with k outputs: all
    of them add up to `linear_solution` without a ridge.

    Args:
        model: the network.
        variables: its (params, state).
        x: inputs (n, ...).
        targets: Y, (n, k).
        top: how many features, largest eigenvalues first, 1 to n·k.

    Returns:
        Eigenvalues (top,), descending, and for each feature variables of `linearized(model, center=True)`.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape or range; eigenvalues that are not positive.

    Cost: one full empirical kernel, and its largest eigenvalues in float64.
    Source: the features of Tsilivis & Kempe (2022), arXiv 2210.05577, section 4, with k outputs.

    >>> from companion.networks import mlp
    >>> model, x = mlp(1, width=64), np.eye(3, dtype=np.float32)
    >>> variables = model.init(jax.random.key(0), x)
    >>> values, features = linear_features(model, variables, x, np.ones((3, 1), np.float32), top=2)
    >>> len(features), bool(values[0] >= values[1])
    (2, True)
    """
    x, targets = examples("x", x), finite("targets", np.asarray(targets))
    apply_fn = evaluation(model)
    if (shape := network("model", apply_fn, variables, x)) != targets.shape:
        raise ValueError(f"targets must have the network's output shape {shape}, got {targets.shape}")
    if count("top", top) > targets.size:
        raise ValueError(f"top must be at most {targets.size}, got {top}")
    kernel = _full(apply_fn, variables, x).astype(float)
    size = len(kernel)
    values, vectors = scipy.linalg.eigh(kernel, subset_by_index=(size - top, size - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    if values[-1] <= 0:
        raise ValueError(f"top must leave out eigenvalues that are not positive, got {values[-1]:.3g}")
    scales = vectors.T @ targets.ravel().astype(float) / values
    state = linearize_at(variables)[1]
    features = [
        (_combination(apply_fn, variables, x, (scale * vector).reshape(targets.shape)), state)
        for scale, vector in zip(scales, vectors.T, strict=True)
    ]
    return values, features


def _full(apply_fn: Apply, variables: Variables, x: np.ndarray) -> np.ndarray:
    """The full kernel (n·k, n·k)."""
    return empirical_ntk(apply_fn, variables, x, reduce="full")


def _combination(apply_fn: Apply, variables: Variables, x: np.ndarray, weights: np.ndarray) -> PyTree:
    """Jᵀ times weights (n, k), some inputs at a time."""
    delta = jax.tree.map(jnp.zeros_like, variables[0])
    for first in range(0, len(x), 500):
        some = slice(first, first + 500)
        part = _pulled_back(apply_fn, variables, x[some], weights[some].astype(x.dtype))
        delta = jax.tree.map(jnp.add, delta, part)
    return delta


@functools.partial(jax.jit, static_argnums=0)
def _pulled_back(apply_fn: Apply, variables: Variables, x: Array, weights: Array) -> PyTree:
    """Jᵀ times weights, of one part."""
    with jax.default_matmul_precision("highest"):
        outputs, pull_back = jax.vjp(lambda params: apply_fn((params, variables[1]), x), variables[0])
        return pull_back(jnp.asarray(weights, outputs.dtype))[0]
