"""How far the feature map of a network's kernel moves when its input moves, with proofs."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from companion._core.checks import Numbers, count, finite, within
from companion._core.checks import batch as examples
from companion._core.compile import Kind, kernel_function
from companion._core.types import Scalar
from companion._core.words import Unchecked
from companion.architectures import Architecture
from companion.attacks import Threat

_BINS = 4096  # of the first variance, for erf's NTK: their width costs about one part in a thousand
_SAFE = 1 + 1e-9  # far above the float64 rounding of all that is here


class Modulus(NamedTuple):
    """‖φ(x′) − φ(x)‖² ≤ `quadratic` ‖x′ − x‖² + `linear` ‖x′ − x‖, and ‖φ(0)‖ ≤ `origin`.

    `linear` has a value for each input x, `linear_at_0` is that of x = 0.
    """

    quadratic: float
    linear: Float[np.ndarray, " m"]
    linear_at_0: float
    origin: float

    def norms(self, lengths: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Upper bounds of ‖φ(x)‖ for inputs of these lengths."""
        return self.origin + np.sqrt(self.quadratic * lengths**2 + self.linear_at_0 * lengths)


def lipschitz(
    architecture: Architecture,
    shape: int | Sequence[int],
    *,
    kind: Kind = "ntk",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> float:
    """The constant L of a kernel's feature map: ‖φ(x) − φ(x′)‖_H ≤ L ‖x − x′‖₂.

    With d numbers an input, D hidden layers, v = w_std², b = b_std:

    - conjugate kernel (nngp), ReLU: L² = v/d · (v/2)^D for all x and x′;
    - nngp, erf: L² = v/d · Π_l v · 4/π · (1 + 4 p_l)^{−1/2}, with p_1 = b² and
      p_{l+1} = v · 2/π · arcsin(2 p_l / (1 + 2 p_l)) + b²; convolutions have p_l = b² in every layer;
    - ntk, erf: a maximum over the variance of the first layer, for pixels within `bounds`; on all of space
      there is none, it grows like the root of the inputs' length;
    - ntk, ReLU: ∞. Its features move like √‖x − x′‖; `modulus` bounds them.

    Proof. A layer's outputs z are Gaussian over weights, K(x, x′) = E z(x) z(x′), so the squared distance of
    features is E(z(x) − z(x′))². *First layer*: v/d ‖x − x′‖²; biases cancel here and everywhere.
    *Weights* multiply the squared distance of activations by v. *ReLU*: for Gaussian u and u′ of any
    covariance, relu u = (u + abs u)/2, the cross term E(u − u′)(abs u − abs u′) is odd and vanishes, and
    abs is 1-Lipschitz: E(relu u − relu u′)² ≤ ½ E(u − u′)². Moving u by du ⟂ u shows that ½ is reached.
    With `bias` (B ≥ 0) the slope along du = c u + r, r independent of u, is P(u > B) E r² + c² E u² 1[u > B],
    each at most ½ of what it is at all; the segment's path, as for erf, makes it a distance.
    *erf*: H's distance of two inputs is at most the length of the path that the segment between them draws,
    so slopes are enough. Split du = (c/p) u + r with r independent of u, p = E u²; E erf′(u)² = 4/π s for
    s = (1 + 4p)^{−1/2}, and E erf′(u)² u² = 4/π s³ p is less than p times that, so
    E erf′(u)² du² ≤ 4/π s E du². It falls with p, and p_l(x) is smallest at x = 0, where du ⟂ u:
    the constant of a dense network is its slope at 0. *Convolutions*: let ⟨·⟩ be the mean over pixels. A
    3 × 3 window has the mean of nine squared distances, with zeros for padding, and a pixel is in at most
    nine windows, so the window multiplies ⟨E(u − u′)²⟩ by v at most (by v exactly for what is far from the
    border), and in the first layer ⟨·⟩ ≤ v/d ‖x − x′‖² with d = h w c. *Flattening* takes this mean as
    it is; *pooling*, of 2 × 2 pixels or of all, can only lower it (Jensen). So d = h w c and
    the formulas of dense networks hold for all, with variances bounded by b² at a border.

    *NTK*. Θ_{l+1} = K_{l+1} + v K̇_l Θ_l has features (φ_K, √v ψ_l ⊗ φ_Θ), ψ_l = σ′(u), Θ_1 = K_1. For erf,
    E ψ² = 4/π s and, since σ″(u) = −4/√π u e^{−u²}, E σ″(u)² du² ≤ 16/π p s³ max(1, 3 s²) E du². The
    squared slope of a product is ‖dψ‖² ‖φ‖² + ‖ψ‖² ‖dφ‖² + ½ dK̇(x, x) dΘ(x, x), and the last term is not
    positive in a dense network, where all diagonals are functions of p_1: K̇ falls and Θ rises. (With
    e = d log · / d log p_1: e(p_{l+1}) ≤ e(p_l) s by arcsin a ≥ a, so, if e(Θ_l) ≥ e(p_l), e(K̇_l Θ_l) ≥
    e(p_l)(1 − 2p/(1 + 4p)) = e(p_l) (1 + 2p) s² ≥ e(p_l) s ≥ e(p_{l+1}), and so e(Θ_{l+1}) ≥ e(p_{l+1}).)
    In convolutions this is so in the first layer; later (‖dψ‖ ‖φ‖ + ‖ψ‖ ‖dφ‖)², summed over pixels by
    Minkowski's inequality, takes its place. The maximum over p_1 is bounded bin by bin, each factor at the
    end of the bin where it is largest.

    Args:
        architecture: `architectures.fc`, `conv` or `myrtle`.
        shape: of one input, such as `x.shape[1:]`, or d itself.
        kind: "ntk" or "nngp".
        bounds: least and largest value of a pixel, for erf's NTK.

    Returns:
        L, in units of feature per unit of pixels; ∞ for ReLU's NTK. Dense, nngp: the smallest there is.

    Raises:
        TypeError: no architecture.
        ValueError: an empty shape, an unknown kind, bounds that are none; the NTK of a network with `bias`.

    Cost: none. Source: Bietti & Mairal (2019), arXiv 1905.12173, for ReLU; the rest is ours.

    >>> from companion.architectures import fc
    >>> round(lipschitz(fc(1), 784, kind="nngp") * 28, 6) == round(2**0.5, 6)
    True
    >>> lipschitz(fc(1), 784)  # the NTK of a ReLU network has none
    inf
    """
    d, largest = _size(shape), largest_of(bounds)
    spec = _spec(architecture, kind)
    if kind == "ntk" and spec.activation == "relu":
        return math.inf
    return math.sqrt(_squared_constant(spec, d, kind, largest))


def modulus(
    architecture: Architecture,
    x: Float[Any, "m ..."],
    eps: Numbers | float | int,
    *,
    kind: Kind = "ntk",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Float[np.ndarray, "m q"]:
    """A bound on ‖φ(x′) − φ(x)‖_H for all x′ with ‖x′ − x‖₂ ≤ ε: Lε, and for ReLU's NTK √(Aε² + B(x) ε).

    A = (D + 1) γ^D v/d and B(x) = 2/π √(v/d) Σ_{l=1}^D l γ^{D−l+1} γ^{(l−1)/2} √P_l(x), with γ = v/2,
    P_1 = v/d ‖x‖² + b², P_{l+1} = γ P_l + b²; other letters as in `lipschitz`.

    Proof. As there, the features of Θ_{l+1} are (φ_K, √v ψ_l ⊗ φ_Θ), now with ψ = 1[u > 0]. With θ the angle
    of u and u′, E ψ² = ½ and E ψψ′ = ½ (1 − θ/π), so ‖ψ⊗φ − ψ′⊗φ′‖² = ½ ‖φ − φ′‖² + θ/π Θ_l(x, x′).
    Θ_l ≤ l K_l, by induction: K̇_l Θ_l ≤ l K̇_l K_l ≤ l E relu u relu u′, the last two of which differ by
    l ‖u‖ ‖u′‖ sin θ / 2π. And θ K_l = θ cos θ ‖u‖ ‖u′‖ ≤ sin θ ‖u‖ ‖u′‖ ≤ ‖u‖ ‖u − u′‖ (none is positive
    beyond a right angle). So S_{l+1} ≤ γ^l S_1 + γ S_l + v/π l √P_l √(γ^{l−1} S_1) with S_l the squared
    distance, S_1 = v/d ε². In convolutions S, P and ‖u‖ ‖u − u′‖ are means over pixels, the last of which is
    at most √P times a root of the mean (Cauchy–Schwarz); windows and pooling lower them, as in `lipschitz`.
    Near x it is sharp without biases: 2/π is the slope of an angle.

    Args:
        architecture: `architectures.fc`, `conv` or `myrtle`.
        x: inputs (m, ...).
        eps: ε ≥ 0, a number or (q,).
        kind: "ntk" or "nngp".
        bounds: least and largest value of a pixel, for erf's NTK.

    Returns:
        (m, q), with q = 1 for a number.

    Raises:
        TypeError, ValueError: arguments that do not fit; for erf's NTK pixels outside the bounds.

    Cost: none. Source: Bietti & Mairal (2019), arXiv 1905.12173, for the root; the constants are ours.

    >>> from companion.architectures import fc
    >>> x = np.ones((1, 4), np.float32)
    >>> bool(modulus(fc(1), x, 1e-4)[0, 0] > 50 * modulus(fc(1), x, 1e-4, kind="nngp")[0, 0])
    True
    """
    x, eps = examples("x", x), np.atleast_1d(np.asarray(eps, float))
    if eps.ndim != 1 or (finite("eps", eps) < 0).any():
        raise ValueError(f"eps must be a number or (q,), none below 0, got {eps}")
    largest = largest_of(bounds)
    if kind == "ntk" and _spec(architecture, kind).activation == "erf":
        within("x", x, bounds)
    found = modulus_of(architecture, x, kind, largest)
    return np.sqrt(found.quadratic * eps**2 + found.linear[:, None] * eps)


def lengths_of(x: np.ndarray) -> Float[np.ndarray, " m"]:
    """‖x‖₂ of every input, in float64."""
    flat = x.reshape(len(x), -1)
    return np.sqrt(np.einsum("ij,ij->i", flat, flat, dtype=np.float64))


def modulus_of(architecture: Unchecked, x: np.ndarray, kind: Kind, largest: float) -> Modulus:
    """The bound of `modulus` at every input, and what the size of features needs."""
    spec, d = _spec(architecture, kind), _size(x.shape[1:])
    if kind == "ntk" and spec.activation == "relu":
        gamma, depth = spec.w_std**2 / 2, spec.hidden
        slopes = [_linear(spec, d, squares) for squares in (lengths_of(x) ** 2, np.zeros(1))]
        quadratic = (depth + 1) * gamma**depth * spec.w_std**2 / d * _SAFE
        return Modulus(quadratic, slopes[0], float(slopes[1][0]), _origin(spec, kind))
    squared = _squared_constant(spec, d, kind, largest)
    return Modulus(squared, np.zeros(len(x)), 0.0, _origin(spec, kind))


def _linear(spec: Architecture, d: int, squares: np.ndarray) -> np.ndarray:
    """B(x) of ReLU's NTK."""
    gamma, variance, total = spec.w_std**2 / 2, spec.w_std**2 / d * squares + spec.b_std**2, 0.0
    for layer in range(1, spec.hidden + 1):
        weight = layer * gamma ** (spec.hidden - layer + 1) * gamma ** ((layer - 1) / 2)
        total = total + weight * np.sqrt(variance)
        variance = gamma * variance + spec.b_std**2
    return 2 / np.pi * spec.w_std / math.sqrt(d) * total * _SAFE


def largest_of(bounds: tuple[float, float]) -> float:
    """The largest absolute value within bounds; or an error where they are none."""
    return max(map(abs, Threat("l2", 0.0, bounds).bounds))


def _squared_constant(spec: Architecture, d: int, kind: Kind, largest: float) -> float:
    v, b2 = spec.w_std**2, spec.b_std**2
    if kind == "ntk":
        return v / d * _erf_tangent(spec, largest) * _SAFE
    if spec.activation == "relu":
        return v / d * (v / 2) ** spec.hidden * _SAFE
    squared, p = v / d, b2
    for _ in range(spec.hidden):
        squared *= v * _square_slope(p)
        p = b2 if spec.pixel_power else _next(spec, p)
    return float(squared) * _SAFE


def _erf_tangent(spec: Architecture, largest: float) -> float:
    """The largest squared slope of erf's NTK, as a multiple of the first layer's v/d."""
    v, b2, dense = spec.w_std**2, spec.b_std**2, spec.pixel_power == 0
    edges = b2 + v * largest**2 * np.linspace(0, 1, _BINS + 1 if dense else 2)
    low, high = edges[:-1], edges[1:]
    conjugate, tangent, size = np.ones_like(low), np.ones_like(low), high
    for layer in range(spec.hidden):
        product = _square_slope(low) * tangent
        moved = _most_curved(low, high) * conjugate * size
        conjugate = v * _square_slope(low) * conjugate
        apart = product + moved
        tangent = conjugate + v * (apart if dense or layer == 0 else apart + 2 * np.sqrt(product * moved))
        # Θ's diagonal rises with p_1, and so does K̇ Θ of a first layer, in convolutions too.
        slope = _square_slope(high if dense or layer == 0 else low)
        size = _next(spec, high) + v * slope * size
        low, high = (_next(spec, low) if dense else np.full_like(low, b2)), _next(spec, high)
    return float(tangent.max())


def _square_slope(p: Scalar) -> Scalar:
    """E erf′(u)² for u of variance p."""
    return 4 / np.pi / np.sqrt(1 + 4 * p)


def _most_curved(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The maximum over variances in [low, high] of 16/π p s³ max(1, 3 s²)."""
    # Both factors rise to their own peak, at ½ and at 1/6, and fall after it.
    first, second = np.clip(1 / 2, low, high), np.clip(1 / 6, low, high)
    return 16 / np.pi * np.maximum(first * (1 + 4 * first) ** -1.5, 3 * second * (1 + 4 * second) ** -2.5)


def _next(spec: Architecture, p: Scalar) -> Scalar:
    """The variance after a layer of one with variance p."""
    v, b2 = spec.w_std**2, spec.b_std**2
    if spec.activation == "relu":
        return v / 2 * p + b2
    return v * 2 / np.pi * np.arcsin(2 * p / (1 + 2 * p)) + b2


def _origin(spec: Architecture, kind: Kind) -> float:
    """A bound on ‖φ(0)‖."""
    p = tangent = spec.b_std**2
    for _ in range(spec.hidden):
        slope = 1 / 2 if spec.activation == "relu" else 4 / np.pi
        p = _next(spec, p)
        tangent = p + spec.w_std**2 * slope * tangent
    return math.sqrt(p if kind == "nngp" else tangent) * _SAFE


def _size(shape: int | Sequence[int]) -> int:
    sizes = (shape,) if np.ndim(shape) == 0 else tuple(shape)
    if not sizes:
        raise ValueError("shape must be that of one input, such as x.shape[1:], got ()")
    return math.prod(count("shape", size) for size in sizes)


def _spec(architecture: Unchecked, kind: Unchecked) -> Architecture:
    if not isinstance(architecture, Architecture):
        raise TypeError(f"architecture must come from architectures.fc, conv or myrtle, got {architecture!r}")
    kernel_function(architecture, kind)
    if architecture.bias is not None and kind == "ntk":
        raise ValueError(
            f"no bound is known for the NTK of {architecture.name}; there is one for kind='nngp'"
        )
    return architecture
