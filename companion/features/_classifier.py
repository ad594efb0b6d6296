"""Features as classifiers, what excites them, and how an attack's damage divides among them."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from companion._core.checks import batch as examples
from companion._core.checks import class_labels, predicted
from companion._core.words import Unchecked
from companion.attacks import Loss, Threat, pgd
from companion.features._modes import Modes, outputs
from companion.regression import KernelPredictor, decomposed, finite_gains, mode_indices


def classifier(f: KernelPredictor, modes: Modes = None) -> KernelPredictor:
    """The sum of some features as a predictor: the top ones, all but the top, a block, or one alone.

    f_S(x) = Σ_{i∈S} (1 − e^{−(λ_i + ρ)t}) / (λ_i + ρ) · Θ(x, X) v_i v_iᵀ Y: regression on the targets' part
    in the span of the v_i of S. Early stopping, `f.at(t)`, cuts all features softly: those with λ_i t ≪ 1 are
    not yet learned.

    Args:
        f: kernel regression, from `regression.fit`, at its own time and ridge.
        modes: S: an integer for the first so many, a sequence of indices (`range(20, n)` drops the top
            20), or None for all.

    Returns:
        f_S, with zero projections outside of S. It does not warn of lost digits as f does: a feature is what
        the decomposition says.

    Raises:
        TypeError, ValueError: modes that do not fit.

    >>> from companion.regression import fit
    >>> x = np.diag([2.0, 1.0]).astype(np.float32)
    >>> first = classifier(fit(lambda a, b, get: a @ b.T, x, np.array([[8.0], [3.0]])), 1)
    >>> first(np.ones((1, 2), np.float32))
    Array([[4.]], dtype=float32)
    """
    some = mode_indices(modes, len(decomposed(f).eigenvalues))
    if not isinstance(some, slice) and len(some) != len(np.unique(some)):
        raise ValueError(f"modes must be different, got {modes!r}")
    projections = np.zeros_like(f.projections)
    projections[some] = f.projections[some]
    alpha = f.eigenvectors[:, some] @ (finite_gains(f)[some, None] * f.projections[some])
    return dataclasses.replace(f, projections=projections, given=alpha)


def exciting(
    f: KernelPredictor,
    mode: int,
    threat: Threat,
    start: Float[Any, "m ..."],
    *,
    label: int = 1,
    steps: int = 40,
    loss: Loss = "margin",
) -> Float[np.ndarray, "m ..."]:
    """The inputs near `start` that most excite a feature: what it looks for when it says a class.

    Projected gradient ascent on the feature's margin of that class, as `attacks.pgd` targeted at it.

    Args:
        f: kernel regression, from `regression.fit`.
        mode: which feature.
        threat: how far from the start: an ε of half the pixels' range from mid-gray leaves all images.
        start: inputs (m, ...), such as one gray image, `np.full((1, 32, 32, 3), 0.5, np.float32)`.
        label: the class that it shall say.
        steps: of the ascent.
        loss: as for `attacks.pgd`.

    Returns:
        Inputs (m, ...), in the start's precision.

    Raises:
        TypeError, ValueError: arguments that do not fit.

    Cost: `steps` gradients of one feature.
    Source: Erhan et al. (2009), Visualizing higher-layer features of a deep network.
    """
    start, feature = examples("start", start), classifier(f, [mode])
    labels = np.full(len(start), _class(label, feature(start[:1]).shape[1]))
    return pgd(feature, start, labels, threat, targeted=True, steps=steps, loss=loss)


def class_difference(
    f: KernelPredictor, x: Float[Any, "m ..."], mode: int, *, label: int = 1
) -> Float[np.ndarray, "..."]:
    """The mean of the inputs where a feature says a class, less the mean where it says another.

    Args:
        f: kernel regression, from `regression.fit`.
        x: inputs (m, ...).
        mode: which feature.
        label: the class.

    Returns:
        One image, in the inputs' units; zero if the feature says the same of all.

    Raises:
        TypeError, ValueError: arguments that do not fit.
    """
    said = outputs(f, x, modes=[mode])[:, 0]
    yes = predicted(said) == _class(label, said.shape[1])
    x = np.asarray(x)
    if yes.all() or not yes.any():
        return np.zeros_like(x[0])
    return x[yes].mean(axis=0) - x[~yes].mean(axis=0)


def _class(label: Unchecked, outputs: int) -> int:
    """A class of so many outputs, two of which one stands for; or an error."""
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        raise TypeError(f"label must be an integer, got {label!r}")
    if not 0 <= label < max(2, outputs):
        raise ValueError(f"label must lie in [0, {max(2, outputs)}), got {label}")
    return int(label)


def attack_shares(
    f: KernelPredictor,
    x: Float[Any, "m ..."],
    attacked: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    *,
    modes: Modes = None,
) -> Float[np.ndarray, "m q"]:
    """How much of a perturbation's damage goes through each feature; all features sum to the whole damage.

    With one output and s = 2y − 1 the share of feature i is s (f⁽ⁱ⁾(x) − f⁽ⁱ⁾(x′)), and Σ_i of it is
    s (f(x) − f(x′)). With k outputs it is the same of the margin f_y − f_j against the class j ≠ y that is
    largest *after* the attack.

    Args:
        f: kernel regression, from `regression.fit`.
        x: clean inputs (m, ...).
        attacked: x′, (m, ...), from any attack on anything.
        labels: classes (m,).
        modes: as for `outputs`.

    Returns:
        (m, q), positive where the perturbation did harm.

    Raises:
        TypeError, ValueError: arguments that do not fit.

    Cost: Θ at 2 m inputs, O(m n²) time, and m n k numbers of memory.
    """
    if np.shape(x) != np.shape(attacked):
        raise ValueError(f"attacked must have the shape of x, {np.shape(x)}, got {np.shape(attacked)}")
    some = mode_indices(modes, len(decomposed(f).eigenvalues))
    # All features, since the class that wins after the attack is that of their sum.
    before, after = (outputs(f, points) for points in (x, attacked))
    k, change = before.shape[2], (before - after)[:, some]
    labels = class_labels("labels", labels, len(before), k)
    if k == 1:
        return (2 * labels[:, None] - 1) * change[:, :, 0]
    own = np.arange(k) == labels[:, None]
    other = np.where(own, -np.inf, after.sum(axis=1)).argmax(axis=1)
    rows = np.arange(len(labels))
    return change[rows, :, labels] - change[rows, :, other]
