"""Eigenfeatures of kernel regression: what they say of an input.

With k outputs, feature i is f⁽ⁱ⁾(x) = φ_i(x) c_i for a number φ_i(x) = Θ(x, X) v_i / λ_i and a vector
c_i = v_iᵀ Y. So it can say two classes only, the largest entry of c_i where φ_i > 0 and the smallest where
φ_i < 0.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from companion._core.checks import batch as examples
from companion._core.checks import class_labels
from companion._core.compile import Kind, kernel_function
from companion.kernels import gram
from companion.regression import KernelRegression, checked, finite_gains, mode_indices

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
    return wanted_signs(features, labels, len(values), index) * values > 0


def _activations(
    features: Eigenfeatures, x: Any, modes: Modes, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the modes, and φ_i(x) of each, (m, q)."""
    regression = features.regression
    index = np.arange(len(regression.eigenvalues))[mode_indices(modes, len(regression.eigenvalues))]
    kernel = gram(features.kernel, x, features.x_train, kind=features.kind, progress=progress)
    return index, np.asarray(kernel, np.float64) @ weights(regression, index)


def weights(regression: KernelRegression, index: np.ndarray) -> np.ndarray:
    """v_i / λ_i in columns, (n, q): φ_i(x) = Θ(x, X) v_i / λ_i."""
    return regression.eigenvectors[:, index] * finite_gains(regression, math.inf)[index]


def wanted_signs(features: Eigenfeatures, labels: Any, m: int, index: np.ndarray) -> np.ndarray:
    """The sign of φ_i(x) that names y, (m, q): 0 where neither does."""
    c = features.regression.projections[index]
    labels = class_labels("labels", labels, m, c.shape[1])
    if c.shape[1] == 1:
        return (2 * labels[:, None] - 1) * np.sign(c[:, 0])
    above, below = c.argmax(axis=1) == labels[:, None], c.argmin(axis=1) == labels[:, None]
    return above.astype(int) - below
