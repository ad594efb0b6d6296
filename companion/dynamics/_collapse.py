"""Collapse by class: of a kernel's entries, of last-layer features, and the invariant that ties them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from companion._core.checks import class_labels, finite
from companion._core.words import Unchecked
from companion.storage import matrix


@dataclass(frozen=True)
class Blocks:
    """Mean entries of a kernel: of an image with itself, with others of its class, with other classes'.

    Attributes:
        same: κ_d, the mean of the diagonal.
        within: κ_c, over pairs of different images of one class.
        between: κ_n, over pairs of images of different classes.
    """

    same: float
    within: float
    between: float


@dataclass(frozen=True)
class Collapse:
    """How far last-layer features have collapsed: 0 each at the end of neural collapse.

    Attributes:
        nc1: tr(Σ_W Σ_B⁺) / C, variability within classes against that between their means.
        nc2: ‖G / ‖G‖ − (I − 11ᵀ/C) / √(C − 1)‖, G the Gram matrix of the centered class means: how far they
            are from a simplex of equal sides.
        nc3: ‖Wᵀ/‖W‖ − M/‖M‖‖, how far the last layer's weights are from the centered class means.
    """

    nc1: float
    nc2: float
    nc3: float


def class_blocks(kernel: Float[Any, "n n"], labels: Int[Any, " n"]) -> Blocks:
    """κ_d, κ_c, κ_n: what a kernel's blocks by class are on average.

    Args:
        kernel: (n, n), symmetric.
        labels: classes (n,), at least two, one of them with two images.

    Returns:
        The three means.

    Raises:
        TypeError, ValueError: arrays that do not fit; no pair of one class, or none of two.

    Source: Seleznova et al. (2023), arXiv 2305.16427, definition 3.1.

    >>> class_blocks(np.array([[3.0, 2.0, 0.5], [2.0, 3.0, 0.5], [0.5, 0.5, 3.0]]), np.array([0, 0, 1]))
    Blocks(same=3.0, within=2.0, between=0.5)
    """
    kernel = matrix("kernel", kernel)
    labels = _classes(labels, len(kernel))
    alike = labels[:, None] == labels
    within = alike & ~np.eye(len(kernel), dtype=bool)
    if not within.any():
        raise ValueError("labels must have a class of two images or more")
    means = (np.diag(kernel).mean(), kernel[within].mean(), kernel[~alike].mean())
    return Blocks(*(float(one) for one in means))


def variability(kernel: Float[Any, "n n"], labels: Int[Any, " n"]) -> float:
    """Spread within classes over that between their means, tr Σ_W / tr Σ_B, of the features behind a kernel.

    Σ_W is the covariance of features around the means of their classes, Σ_B that of these means, weighted by
    the sizes of the classes; both traces are sums of kernel entries.

    Args:
        kernel: (n, n), symmetric and positive semi-definite.
        labels: classes (n,), at least two.

    Returns:
        A number ≥ 0; 0 where all images of a class have one feature vector.

    Raises:
        TypeError, ValueError: arrays that do not fit; class means that are all equal.

    Source: Kothapalli & Tirer (2025), arXiv 2406.02105, theorem 3.1.

    >>> variability(np.diag([1.0, 1.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    2.0
    """
    kernel = matrix("kernel", kernel).astype(float)
    labels = _classes(labels, len(kernel))
    n = len(kernel)
    own = labels[:, None] == np.unique(labels)
    in_means = float(((kernel @ own) * own / own.sum(axis=0)).sum()) / n
    all_in, mean = float(np.trace(kernel)) / n, float(kernel.sum()) / n**2
    if in_means - mean <= 1e-12 * all_in:
        raise ValueError("kernel must tell the classes' means apart, and they are all equal")
    return max(0.0, all_in - in_means) / (in_means - mean)


def neural_collapse(
    features: Float[Any, "n p"], labels: Int[Any, " n"], weights: Float[Any, "p c"]
) -> Collapse:
    """NC1, NC2 and NC3 of last-layer features h(x) and the weights of the layer after them.

    Args:
        features: H, (n, p).
        labels: classes (n,), each of 0 to C − 1 there.
        weights: W, (p, C): outputs are H W plus a bias.

    Returns:
        The three measures, each 0 at full collapse.

    Raises:
        TypeError, ValueError: arrays that do not fit; a class without an image; class means that are all
            equal; weights that are zero.

    Cost: O(n p² + p³). Source: Papyan et al. (2020), arXiv 2008.08186; forms as Zhu et al. (2021),
    arXiv 2105.02375.

    >>> simplex = np.eye(3) - 1 / 3
    >>> found = neural_collapse(np.repeat(simplex, 2, axis=0), np.repeat(np.arange(3), 2), simplex)
    >>> round(found.nc1, 9), round(found.nc2, 9), round(found.nc3, 9)
    (0.0, 0.0, 0.0)
    """
    features, labels, weights = _last_layer(features, labels, weights)
    classes, n = weights.shape[1], len(features)
    means = np.stack([features[labels == c].mean(axis=0) for c in range(classes)])
    centered = means - means.mean(axis=0)
    if np.abs(centered).max() <= 1e-12 * np.abs(features).max() or not weights.any():
        raise ValueError("features must tell the classes' means apart, and weights must not all be zero")
    rest = features - means[labels]
    # Σ_B has rank C − 1 at most; what lies below rounding is no direction.
    inverse = np.linalg.pinv(centered.T @ centered / classes, rcond=1e-10, hermitian=True)
    nc1 = float(np.trace(rest.T @ rest / n @ inverse)) / classes
    gram = centered @ centered.T
    simplex = (np.eye(classes) - 1 / classes) / np.sqrt(classes - 1)
    apart = weights.T / np.linalg.norm(weights) - centered / np.linalg.norm(centered)
    return Collapse(
        nc1, float(np.linalg.norm(gram / np.linalg.norm(gram) - simplex)), float(np.linalg.norm(apart))
    )


def collapse_invariant(
    features: Float[Any, "n p"], labels: Int[Any, " n"], weights: Float[Any, "p c"], blocks: Blocks
) -> Float[np.ndarray, "p p"]:
    """E, which gradient flow on ½ Σ_i ‖h(x_i) W + b − y_i‖² keeps while the features' kernel has blocks.

        E = λ_c W Wᵀ − m M₁ᵀM₁ − (λ_c/λ₀) M₂ᵀM₂ + α C² m h̄ h̄ᵀ,

    λ₀ = κ_d − κ_c, λ_c = λ₀ + m (κ_c − κ_n), α = κ_n / (λ₀/m + κ_c + (C − 1) κ_n); M₁ (C, p) are the means of
    the classes, M₂ (n, p) what is left of the features, h̄ the mean of all. This is λ_c (W Wᵀ − Hᵀ K⁻¹ H) for
    the kernel K of these blocks, each feature's own: the invariant W Wᵀ − Hᵀ K⁻¹ H holds for any constant K.

    Args:
        features: H, (n, p).
        labels: classes (n,), as many images of each, m ≥ 2.
        weights: W, (p, C).
        blocks: κ of the kernel of the features, mean over them, as `class_blocks` gives; λ₀ and λ_c > 0.

    Returns:
        E, (p, p), symmetric.

    Raises:
        TypeError, ValueError: as `neural_collapse`; classes of different sizes; blocks of a kernel that is
            not positive definite.

    Source: Seleznova et al. (2023), arXiv 2305.16427, theorem 4.1; α by the authors' code.

    >>> labels = np.array([0, 0, 1, 1])
    >>> collapse_invariant(np.eye(4), labels, np.zeros((4, 2)), Blocks(1.0, 0.0, 0.0))[0].tolist()
    [-1.0, 0.0, 0.0, 0.0]
    """
    features, labels, weights = _last_layer(features, labels, weights)
    classes, (m, *others) = weights.shape[1], np.bincount(labels)
    if any(size != m for size in others):
        raise ValueError(f"labels must have as many images of each class, got {[m, *others]}")
    least = blocks.same - blocks.within
    own = least + m * (blocks.within - blocks.between)
    whole = least / m + blocks.within + (classes - 1) * blocks.between
    if min(least, own, whole) <= 0:
        raise ValueError(f"blocks must be those of a positive definite kernel, got {blocks}")
    means = np.stack([features[labels == c].mean(axis=0) for c in range(classes)])
    rest, mean = features - means[labels], means.mean(axis=0)
    found = own * weights @ weights.T - m * means.T @ means - own / least * rest.T @ rest
    return found + blocks.between / whole * classes**2 * m * np.outer(mean, mean)


def _classes(labels: Unchecked, n: int) -> np.ndarray:
    labels = class_labels("labels", labels, n)
    if len(np.unique(labels)) < 2:
        raise ValueError("labels must have two classes or more")
    return labels


def _last_layer(
    features: Unchecked, labels: Unchecked, weights: Unchecked
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and weights in float64, or an error."""
    features = finite("features", np.asarray(features, float))
    weights = finite("weights", np.asarray(weights, float))
    if features.ndim != 2 or weights.ndim != 2 or features.shape[1] != len(weights):
        raise ValueError(
            f"features must be (n, p) and weights (p, C), got shapes {features.shape} and {weights.shape}"
        )
    labels = _classes(labels, len(features))
    if set(np.unique(labels)) != set(range(weights.shape[1])):
        raise ValueError(
            f"labels must have every class of 0 to {weights.shape[1] - 1}, as weights have columns, got "
            f"{sorted(set(labels.tolist()))}"
        )
    return features, labels, weights
