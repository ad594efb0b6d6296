"""Eigenfeatures of kernel regression: what they say of an input, and their worst case around it.

With k outputs, feature i is f⁽ⁱ⁾(x) = φ_i(x) c_i for a number φ_i(x) = Θ(x, X) v_i / λ_i and a vector
c_i = v_iᵀ Y. So it can say two classes only, the largest entry of c_i where φ_i > 0 and the smallest where
φ_i < 0, and an attack on it has one number to push: this is what makes all n features affordable.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from tqdm.auto import tqdm

from companion import _attack_threat as geometry
from companion._attack_threat import Threat
from companion._checks import batch as examples
from companion._checks import count, number, same_inputs
from companion._compile import Kind, double, keep_compiled, kernel_function, pixels
from companion._regression_modes import KernelRegression, checked, finite_gains, mode_indices
from companion.kernels import gram

Modes = int | Any | None


@dataclass(frozen=True)
class Eigenfeatures:
    """Kernel regression together with the inputs it was fitted on: all that its features need.

    Attributes:
        kernel: an `Architecture` or a neural-tangents `kernel_fn(x1, x2, get)`.
        x_train: training inputs X, (n, ...).
        regression: the decomposition of Θ(X, X), from `regression.fit`.
        kind: "ntk" or "nngp".
    """

    kernel: Any
    x_train: Float[np.ndarray, "n ..."]
    regression: KernelRegression
    kind: Kind = "ntk"


def eigenfeatures(
    regression: KernelRegression, kernel: Any, x_train: Float[Any, "n ..."], *, kind: Kind = "ntk"
) -> Eigenfeatures:
    """The features f⁽ⁱ⁾(x) = λ_i⁻¹ Θ(x, X) v_i v_iᵀ Y of a fitted regression, whose sum is f_∞.

    With a ridge ρ, (λ_i + ρ)⁻¹ takes the place of λ_i⁻¹. Directions of which λ_i + ρ is only rounding are
    never learned: their features are zero.

    Args:
        regression: from `regression.fit`, of Θ(X, X).
        kernel: what computed it: an `Architecture`, or a neural-tangents `kernel_fn(x1, x2, get)`.
        x_train: X, (n, ...), in the regression's order.
        kind: "ntk" or "nngp", as for `kernels.gram`.

    Returns:
        The features; nothing is computed yet.

    Raises:
        TypeError: arguments of the wrong kind.
        ValueError: inputs that are not as many as the decomposition has; an unknown kind.

    Source: Tsilivis & Kempe (2022), arXiv 2210.05577, section 4.

    >>> from companion import regression
    >>> x = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> all_of_it = eigenfeatures(regression.fit(x @ x.T, np.ones((2, 1))), lambda a, b, get: a @ b.T, x)
    >>> outputs(all_of_it, np.array([[2.0, 2.0]]))[0, :, 0]
    array([1., 2.])
    """
    kernel_function(kernel, kind)
    x = examples("x_train", x_train)
    if len(x) != (n := len(checked(regression).eigenvalues)):
        raise ValueError(f"x_train must have the regression's {n} examples, got {len(x)}")
    return Eigenfeatures(kernel, x, regression, kind)


def outputs(
    features: Eigenfeatures, x: Float[Any, "m ..."], *, modes: Modes = None, progress: bool = False
) -> Float[np.ndarray, "m q k"]:
    """f⁽ⁱ⁾(x) for one, many or all features. The sign of an eigenvector cancels.

    Args:
        features: from `eigenfeatures`.
        x: inputs (m, ...).
        modes: an integer q for the first q, a sequence of indices (0 has the largest eigenvalue), or None
            for all n.
        progress: show the kernel's tqdm bar.

    Returns:
        (m, q, k), float64.

    Raises:
        TypeError, ValueError: inputs or modes that do not fit.

    Cost: Θ(x, X), and O(m n q).
    """
    index, values = _activations(features, x, modes, progress)
    return values[:, :, None] * features.regression.projections[index]


def correct(
    features: Eigenfeatures,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    *,
    modes: Modes = None,
    progress: bool = False,
) -> Bool[np.ndarray, "m q"]:
    """Whether each feature, used alone as a classifier, is right about each input.

    One output predicts by its sign, more by the largest. A feature that is zero is right about nothing.

    Args:
        features: from `eigenfeatures`.
        x: inputs (m, ...).
        labels: classes (m,): 0 or 1 for one output, else in [0, k).
        modes: as for `outputs`.
        progress: show the kernel's tqdm bar.

    Returns:
        (m, q): the mean over m is the usefulness ρ_i = P[f⁽ⁱ⁾(x) names y].

    Raises:
        TypeError, ValueError: inputs, labels or modes that do not fit.

    Source: Ilyas et al. (2019), arXiv 1905.02175, section 2, with accuracy in place of the correlation.
    """
    index, values = _activations(features, x, modes, progress)
    return _wanted(features, labels, len(values), index) * values > 0


def correct_under_attack(
    features: Eigenfeatures,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    modes: Modes = None,
    steps: int = 1,
    step_size: float | None = None,
    progress: bool = False,
) -> Bool[np.ndarray, "m q"]:
    """Whether each feature stays right when each is attacked by itself: its own perturbation of every input.

    One step is FGSM, x + ε sign of the gradient (for L2, ε along it), with the accuracy that it leaves; more
    are PGD, and an input counts as fooled if any point on the way fools. Inputs that the feature has wrong
    from the start are not attacked.

    Args:
        features: from `eigenfeatures`.
        x: clean inputs (m, ...), within the threat's bounds.
        labels: classes (m,).
        threat: norm, eps and bounds.
        modes: as for `outputs`.
        steps: ≥ 1.
        step_size: s ≥ 0 in pixel units; None: ε for one step, else 2.5 ε / steps.
        progress: show a tqdm bar over the inputs.

    Returns:
        (m, q): the mean over m is the robustness γ_i.

    Raises:
        TypeError, ValueError: inputs, labels, modes or the threat's bounds that do not fit.

    Cost: for a fully connected kernel two products of q × n by n × d numbers for an input and a step, 4 q n d
    operations: Θ(x, X) and the weights of its gradient are computed once for all q features. Feature by
    feature three are needed, and all that is not a product is repeated. Memory: some q × (n + 6 d) numbers,
    in blocks of features.
    Source: Tsilivis & Kempe (2022), arXiv 2210.05577, section 4; their notebook attacks one after the other.
    """
    steps = count("steps", steps)
    size = _step(step_size, steps, threat.eps)
    x, regression = examples("x", x), features.regression
    same_inputs("x", x, "x_train", features.x_train)
    if x.min() < threat.bounds[0] or x.max() > threat.bounds[1]:
        raise ValueError(f"x must lie in the bounds {threat.bounds}, got {x.min():.4g} to {x.max():.4g}")
    index = np.arange(len(regression.eigenvalues))[mode_indices(modes, len(regression.eigenvalues))]
    wanted = _wanted(features, labels, len(x), index)
    weights = _weights(regression, index).T
    low, high = geometry.box(threat, x)
    result = np.zeros((len(x), len(index)), bool)
    with double(features.x_train):
        attack, again, still = _compiled(kernel_function(features.kernel, features.kind), features.kind)
        x_train, weights = jnp.asarray(features.x_train), jnp.asarray(weights, features.x_train.dtype)
        options = {"norm": threat.norm, "size": size, "eps": threat.eps}
        for one in tqdm(range(len(x)), desc="features", unit="image", disable=not progress):
            for some in _blocks(features, len(index)):
                ball = x[one], low[one], high[one]
                rows, signs = weights[some], jnp.asarray(wanted[one, some], x_train.dtype)
                points, right = attack(x_train, rows, signs, *ball, **options)
                for _ in range(steps - 1):
                    points, right = again(x_train, rows, signs, points, right, *ball, **options)
                result[one, some] = still(x_train, rows, signs, points, right)
    return result


def _step(step_size: Any, steps: int, eps: float) -> float:
    if step_size is None:
        return eps if steps == 1 else 2.5 * eps / steps
    return number("step_size", step_size)


def _activations(
    features: Eigenfeatures, x: Any, modes: Modes, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the modes, and φ_i(x) of each, (m, q)."""
    regression = features.regression
    index = np.arange(len(regression.eigenvalues))[mode_indices(modes, len(regression.eigenvalues))]
    kernel = gram(features.kernel, x, features.x_train, kind=features.kind, progress=progress)
    return index, np.asarray(kernel, np.float64) @ _weights(regression, index)


def _weights(regression: KernelRegression, index: np.ndarray) -> np.ndarray:
    """v_i / λ_i in columns, (n, q): φ_i(x) = Θ(x, X) v_i / λ_i."""
    return regression.eigenvectors[:, index] * finite_gains(regression, math.inf)[index]


def _wanted(features: Eigenfeatures, labels: Any, m: int, index: np.ndarray) -> np.ndarray:
    """The sign of φ_i(x) that names y, (m, q): 0 where neither does."""
    labels, c = np.asarray(labels), features.regression.projections[index]
    k = max(2, c.shape[1])
    if labels.shape != (m,) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be {m} integers, got shape {labels.shape} of {labels.dtype}")
    if labels.min() < 0 or labels.max() >= k:
        raise ValueError(f"labels must lie in [0, {k}), got {labels.min()} to {labels.max()}")
    if c.shape[1] == 1:
        return (2 * labels[:, None] - 1) * np.sign(c[:, 0])
    above, below = c.argmax(axis=1) == labels[:, None], c.argmin(axis=1) == labels[:, None]
    return above.astype(int) - below


def _blocks(features: Eigenfeatures, q: int) -> Iterator[slice]:
    """Features at once: a block's kernel entries and points take some 0.2 GB."""
    each = features.x_train.shape[0] * pixels(features.kernel, features.x_train) + features.x_train[0].size
    number = math.ceil(q / max(1, min(q, 2**24 // each))) if q else 1
    size = max(1, math.ceil(q / number))
    for first in range(0, q, size):
        yield slice(first, min(first + size, q))


@keep_compiled
def _compiled(kernel: Callable[..., Any], kind: Kind) -> tuple[Callable[..., Any], ...]:
    """The first step, where all features share the input; the others, where each has its own; the verdict."""

    def move(gradient: Any, points: Any, x: Any, low: Any, high: Any, size: Any, eps: Any, norm: str) -> Any:
        dtype = points.dtype
        return geometry.step(
            norm, gradient, points, x[None], low, high, jnp.asarray(size, dtype), jnp.asarray(eps, dtype)
        )

    @functools.partial(jax.jit, static_argnames="norm")
    def first(
        x_train: Any, rows: Any, signs: Any, x: Any, low: Any, high: Any, *, norm: str, size: Any, eps: Any
    ) -> tuple[Any, Any]:
        with jax.default_matmul_precision("highest"):
            entries, pullback = jax.vjp(lambda x: kernel(x[None], x_train, kind)[0], x)
            right = signs * (rows @ entries) > 0
            gradient = jax.vmap(lambda row: pullback(row)[0])(-signs[:, None] * rows)
            start = jnp.broadcast_to(x, gradient.shape)
            return move(gradient, start, x, low, high, size, eps, norm), right

    @functools.partial(jax.jit, static_argnames="norm")
    def again(
        x_train: Any,
        rows: Any,
        signs: Any,
        points: Any,
        right: Any,
        x: Any,
        low: Any,
        high: Any,
        *,
        norm: str,
        size: Any,
        eps: Any,
    ) -> tuple[Any, Any]:
        with jax.default_matmul_precision("highest"):
            entries, pullback = jax.vjp(lambda points: kernel(points, x_train, kind), points)
            right = right & (_own(entries, rows, signs) > 0)
            return move(pullback(-signs[:, None] * rows)[0], points, x, low, high, size, eps, norm), right

    @jax.jit
    def still(x_train: Any, rows: Any, signs: Any, points: Any, right: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return right & (_own(kernel(points, x_train, kind), rows, signs) > 0)

    return first, again, still


def _own(entries: Any, rows: Any, signs: Any) -> Any:
    """Every feature at its own point. A product sums, since XLA would sum one number at a time."""
    return signs * ((entries * rows) @ jnp.ones(entries.shape[1], entries.dtype))
