"""Eigenfeatures of kernel regression: what they say of an input.

With k outputs, feature i is f⁽ⁱ⁾(x) = φ_i(x) c_i for a number φ_i(x) = g_i Θ(x, X) v_i and a vector
c_i = v_iᵀ Y, with g_i = (1 − e^{−(λ_i + ρ)t}) / (λ_i + ρ), which is 1 / λ_i in the end. So it can say two
classes only, the largest entry of c_i where φ_i > 0 and the smallest where φ_i < 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from companion._core.checks import class_labels
from companion._core.words import Unchecked
from companion.kernels import gram
from companion.regression import KernelPredictor, decomposed, finite_gains, mode_indices

Modes = int | Sequence[int] | np.ndarray | None


def outputs(
    f: KernelPredictor, x: Float[Any, "m ..."], *, modes: Modes = None, progress: bool = False
) -> Float[np.ndarray, "m q k"]:
    """f⁽ⁱ⁾(x) for one, many or all features. The sign of an eigenvector cancels.

    Args:
        f: kernel regression, from `regression.fit`.
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
    index, values = _activations(f, x, modes, progress)
    return values[:, :, None] * f.projections[index]


def correct(
    f: KernelPredictor,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    *,
    modes: Modes = None,
    progress: bool = False,
) -> Bool[np.ndarray, "m q"]:
    """Whether each feature, used alone as a classifier, is right about each input.

    One output predicts by its sign, more by the largest. A feature that is zero is right about nothing.

    Args:
        f: kernel regression, from `regression.fit`.
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
    index, values = _activations(f, x, modes, progress)
    return wanted_signs(f, labels, len(values), index) * values > 0


def _activations(
    f: KernelPredictor, x: Unchecked, modes: Modes, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the modes, and φ_i(x) of each, (m, q)."""
    index = feature_indices(f, modes)
    kernel = gram(f.kernel, x, f.x_train, kind=f.kind, progress=progress)
    return index, np.asarray(kernel, np.float64) @ weights(f, index)


def feature_indices(f: KernelPredictor, modes: Modes) -> np.ndarray:
    """The numbers of the features asked for; or an error, also where f has none."""
    if decomposed(f).x_train is None:
        raise TypeError("f must know its inputs: fit(kernel, x, targets), not a matrix alone")
    n = len(f.eigenvalues)
    return np.arange(n)[mode_indices(modes, n)]


def weights(f: KernelPredictor, index: np.ndarray) -> np.ndarray:
    """g_i v_i in columns, (n, q): φ_i(x) = g_i Θ(x, X) v_i."""
    return f.eigenvectors[:, index] * finite_gains(f)[index]


def wanted_signs(f: KernelPredictor, labels: Int[Any, " m"], m: int, index: np.ndarray) -> np.ndarray:
    """The sign of φ_i(x) that names y, (m, q): 0 where neither does."""
    c = f.projections[index]
    labels = class_labels("labels", labels, m, c.shape[1])
    if c.shape[1] == 1:
        return (2 * labels[:, None] - 1) * np.sign(c[:, 0])
    above, below = c.argmax(axis=1) == labels[:, None], c.argmin(axis=1) == labels[:, None]
    return above.astype(int) - below
