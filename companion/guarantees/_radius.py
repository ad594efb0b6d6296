"""Certified radii: balls around inputs in which no attack changes the class."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from companion._core.checks import Numbers, count, finite, number, same_inputs
from companion._core.checks import batch as examples
from companion.architectures import Architecture
from companion.attacks import outputs_of
from companion.guarantees._lipschitz import Modulus, largest_of, lengths_of, modulus_of
from companion.guarantees._lipschitz import lipschitz as lipschitz_of
from companion.regression import KernelPredictor, checked
from companion.statistics import Estimate, proportion

# Roundings, as multiples of u: of an entry's d products, of a layer's polynomials and roots, of sums over X.
_PRODUCTS, _LAYER, _SUM = 4, 16, 4


def radius(
    f: KernelPredictor,
    x: Float[Any, "m ..."],
    *,
    lipschitz: float | int | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    batch_size: int = 256,
) -> Float[np.ndarray, " m"]:
    """The certified L2 radius of every input: what is nearer than this has the class that x has.

    f_a − f_b is linear in the features, so for ‖x′ − x‖ ≤ ε it moves by at most ‖f_a − f_b‖_H ω(ε), with
    ω(ε) = Lε (or ReLU's NTK's, see `modulus`) and ‖f_a − f_b‖_H² = (α_a − α_b)ᵀ K(X, X) (α_a − α_b). For the
    class a of x the radius is the least ε, over all others b, at which this reaches f_a(x) − f_b(x); one
    output counts as f against 0. It is a lower bound of the distance to the nearest input of another class,
    whatever the attack; the ridge, early stopping and the conjugate kernel make it larger.

    The guarantee is for f *as computed*. With u half an ulp of 1 in f's precision, an entry of the kernel is
    taken to be right to e √(K_ii K_jj), e = u (4 √d + 16 (D + 1)), some ten times the largest error that is
    measured, near-equal inputs included. Where erf's units saturate its NTK loses more: (1 + 2p)/5 times as
    much where that is above 1, with p = w_std² max(x², 1) + b_std² (its conjugate kernel the root of it).
    Kernels of other libraries are taken to be right to √u, yours to what `resolution` told `fit`. A sum over
    n points in blocks of n′ is right to 4 u √(n′ + n/n′) of Σ_j abs(α_j) √(K_ii K_jj). All errors are added
    up with their worst
    signs: those of f at x and at x′, and those of the norm. What is left shrinks with a small ridge, whose
    α are large: in float32 a part of the radius may be lost, which float64 inputs give back.

    Args:
        f: from `regression.fit` or `from_coefficients`, at its own time and ridge, any number of outputs.
        x: inputs (m, ...), in f's precision.
        lipschitz: L of a kernel of your own, proved by you: ‖φ(x) − φ(x′)‖_H ≤ L ‖x − x′‖₂. None for an
            architecture's, which is known.
        bounds: least and largest value of a pixel, of attacked inputs too: for erf's NTK.
        batch_size: inputs at once.

    Returns:
        (m,), in pixel units, ≥ 0: x′ has x's class if ‖x′ − x‖₂ < radius; ∞ where f is 0 everywhere, as at
        t = 0. Whether the class is the right one is another question, for `certified_accuracy`.

    Raises:
        TypeError: a function of your own as the kernel, without its L; inputs of another precision; a fit of
            a matrix alone.
        ValueError: inputs that do not fit f or, with erf's NTK, outside the bounds.

    Cost: one evaluation of f, O(m n d); O(n² k) for the norms, with a spectrum, else f at X.
    Source: Bietti & Mairal (2019), arXiv 1905.12173.

    >>> from companion.regression import fit
    >>> f = fit(lambda a, b, get: a @ b.T, np.eye(2, dtype=np.float32), np.array([[3.0], [4.0]]))
    >>> radius(f, np.ones((1, 2), np.float32), lipschitz=1).round(2)  # f = 7, its gradient (3, 4)
    array([1.4])
    """
    x_train, x = checked(f).x_train, examples("x", x)
    if x_train is None:
        raise TypeError("f is a fit of a matrix alone and knows no inputs: give fit the kernel and x too")
    same_inputs("x", x, "f's x_train", x_train)
    if x.dtype != x_train.dtype:
        raise TypeError(f"x must be in f's precision, {x_train.dtype}, got {x.dtype}")
    count("batch_size", batch_size)
    largest = largest_of(bounds)
    reach = _modulus(f, x, "x", lipschitz, bounds)
    reach_train = _modulus(f, x_train, "f's x_train", lipschitz, bounds)
    if not f.coefficients.any():
        return np.full(len(x), np.inf)
    outputs = outputs_of(f, x, batch_size).astype(np.float64)
    sizes = reach.norms(lengths_of(x))
    sizes_train = reach_train.norms(lengths_of(x_train))
    largest = max(largest, float(np.abs(x).max()), float(np.abs(x_train).max()))
    entry, error = _errors(f, lipschitz is None, sizes_train, largest)
    entry = error if f.eigenvalues is None else entry
    norms, weights = _norms(f, sizes_train, entry, batch_size)
    margins, norms, weights = _margins(outputs, norms, weights)
    # What the computed f loses at x and at x', where features are by ω longer.
    left = np.maximum(margins - 2 * error * weights * sizes[:, None], 0)
    slope = norms + error * weights
    with np.errstate(divide="ignore", invalid="ignore"):
        allowed = np.where(slope > 0, left / slope, 0).min(axis=1)
    return _inverse(reach, allowed)


def certified_accuracy(
    radii: Float[Any, " m"], right: Bool[Any, " m"], eps: Numbers | float | int, *, level: float = 0.95
) -> Estimate:
    """Share of inputs that are classified rightly within ε whatever the attack, with Wilson intervals.

    Args:
        radii: from `radius`.
        right: whether each input is classified rightly.
        eps: ε ≥ 0, (q,) or a number.
        level: coverage of each interval, in (0, 1).

    Returns:
        An estimate for each ε, q of them: a lower bound of robust accuracy, as an attack's is an upper one.

    Raises:
        ValueError: shapes that do not fit, a negative ε.

    >>> certified_accuracy(np.array([0.5, 2.0]), np.array([True, True]), [0.0, 1.0]).value
    array([1. , 0.5])
    """
    radii, right, eps = np.asarray(radii), np.asarray(right), np.atleast_1d(np.asarray(eps, float))
    if radii.ndim != 1 or right.shape != radii.shape or right.dtype != bool:
        raise ValueError(
            f"radii and right must be (m,), right of booleans, got {radii.shape}, {right.shape} {right.dtype}"
        )
    if eps.ndim != 1 or (finite("eps", eps) < 0).any():
        raise ValueError(f"eps must be a number or (q,), none below 0, got {eps}")
    # At ε = 0 there is nothing to change: not even where rounding leaves no radius.
    return proportion(right[:, None] & ((radii[:, None] > eps) | (eps == 0)), level=level)


def _modulus(
    f: KernelPredictor,
    x: np.ndarray,
    name: str,
    lipschitz: float | int | None,
    bounds: tuple[float, float],
) -> Modulus:
    if lipschitz is not None:
        constant = number("lipschitz", lipschitz, open_end=True)
        if isinstance(f.kernel, Architecture):
            known = lipschitz_of(f.kernel, x.shape[1:], kind=f.kind, bounds=bounds)
            if constant < known:
                raise ValueError(
                    f"lipschitz must be at least {known:.6g}, the constant of f's kernel (kind={f.kind!r}), "
                    f"got {constant:.6g}: leave it out, and what is known of the kernel is used"
                )
        return Modulus(constant**2, np.zeros(len(x)), 0.0, _size_at_zero(f))
    if not isinstance(f.kernel, Architecture):
        raise TypeError(
            "f's kernel must be an Architecture, whose feature map has a known constant, or say yours: "
            "radius(f, x, lipschitz=L) with ‖φ(x) − φ(x′)‖ ≤ L ‖x − x′‖"
        )
    largest = largest_of(bounds)
    if f.kind == "ntk" and f.kernel.activation == "erf" and np.abs(x).max() > largest:
        raise ValueError(
            f"{name} must lie in the bounds {bounds}, where erf's NTK has its constant, "
            f"got {x.min():.4g} to {x.max():.4g}"
        )
    return modulus_of(f.kernel, x, f.kind, largest)


def _size_at_zero(f: KernelPredictor) -> float:
    """‖φ(0)‖ of a kernel of the user's."""
    zero = np.zeros_like(f.x_train[:1])
    value = float(np.asarray(getattr(f.kernel, "kernel", f.kernel)(zero, zero, f.kind))[0, 0])
    return float(np.sqrt(max(value, 0.0))) * (1 + 1e-3)


def _errors(f: KernelPredictor, known: bool, sizes: np.ndarray, largest: float) -> tuple[float, float]:
    """What an entry's rounding is, and with it that of the sum over training points; both relative.

    With pixels of at most `largest`: where erf saturates, 1 − c² is a difference of numbers near 1.
    """
    unit = np.finfo(f.x_train.dtype).eps / 2
    blocks, block = f._x_blocks.shape[:2]
    entry = float(np.sqrt(unit))
    if not known and f.resolution > 0:
        entry = float(f.resolution / (sizes**2).max())
    elif known and f.kernel.pixel_power < 2:
        entry = float(unit * (_PRODUCTS * np.sqrt(f.x_train[0].size) + _LAYER * (f.kernel.hidden + 1)))
        if f.kernel.activation == "erf":
            variance = f.kernel.w_std**2 * max(largest, 1.0) ** 2 + f.kernel.b_std**2
            entry *= max(1.0, (1 + 2 * variance) / 5) ** (1.0 if f.kind == "ntk" else 0.5)
    return entry, entry + float(unit * _SUM * np.sqrt(block + blocks))


def _norms(
    f: KernelPredictor, sizes: np.ndarray, entry: float, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of ‖f_a − f_b‖_H, and Σ_j |α_ja − α_jb| ‖φ(x_j)‖ with |α_ja| + |α_jb|, both (k, k).

    One output is (1, 1), against 0.
    """
    alpha = f.coefficients.astype(np.float64)
    k, values = alpha.shape[1], f.eigenvalues
    if values is None:
        rotated, values, largest = None, None, np.inf
        fitted = outputs_of(f, f.x_train, batch_size).astype(np.float64)
    else:
        rotated = f.eigenvectors.T @ alpha
        largest = len(values) * np.finfo(np.float64).eps * max(values[0], 0.0)
    weights = np.abs(alpha).T @ sizes
    found, sums = np.zeros((k, k)), weights[:, None] + weights[None] if k > 1 else weights[:, None]
    for a in range(k):
        apart = alpha[:, [a]] - alpha if k > 1 else alpha
        if rotated is None:
            outputs = fitted[:, [a]] - fitted if k > 1 else fitted
            squared, lost = (apart * outputs).sum(axis=0), 0.0
        else:
            turned = rotated[:, [a]] - rotated if k > 1 else rotated
            squared = (np.maximum(values, 0)[:, None] * turned**2).sum(axis=0)
            lost = 4 * largest * (apart**2).sum(axis=0)
        size = np.abs(apart).T @ sizes
        # Entries that are wrong by E change αᵀKα by αᵀEα.
        spread = size * (size if rotated is not None else sums[a])
        found[a] = np.sqrt(np.maximum(squared, 0) + entry * spread + lost) * (1 + 1e-9)
    return found, sums


def _margins(
    outputs: np.ndarray, norms: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f_a − f_b of the class a and all others b, (m, k), with ‖f_a − f_b‖ and the errors' weights beside."""
    if outputs.shape[1] == 1:
        return np.abs(outputs), norms, weights
    winner, rows = outputs.argmax(axis=1), np.arange(len(outputs))
    margins = outputs[rows, winner][:, None] - outputs
    margins[rows, winner] = np.inf
    return margins, norms[winner], weights[winner]


def _inverse(reach: Modulus, allowed: np.ndarray) -> np.ndarray:
    """The largest ε with ω(ε) ≤ `allowed`, rounded down."""
    root = np.sqrt(reach.linear**2 + 4 * reach.quadratic * allowed**2)
    with np.errstate(invalid="ignore"):
        found = 2 * allowed**2 / np.where(allowed > 0, reach.linear + root, 1)
    return np.where(np.isinf(allowed), np.inf, found * (1 - 1e-9))
