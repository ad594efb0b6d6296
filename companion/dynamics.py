"""How a kernel moves while its network trains: distances, polar curves, concentration, velocity, lazy onset.

Everything takes a *path* of kernels K_0, ..., K_T: a list of (n, n) matrices, an array (T + 1, n, n), or
anything with a length whose items are such matrices, such as `KernelPath`, which keeps them in a folder.
Paths are read a few kernels at a time. ⟨K, K'⟩ = Σ_ij K_ij K'_ij is the Frobenius product, ‖K‖ its norm.

Definitions: Tsilivis & Kempe (2022), arXiv 2210.05577; Fort et al. (2020), arXiv 2010.15110; Baratin et al.
(2021), arXiv 2008.00938; Loo et al. (2022), arXiv 2210.12030.
"""

import math
from typing import Any, Literal

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from jaxtyping import Float

from companion._checks import count, finite
from companion._kernel_path import KernelPath, KernelSequence, kernel_at, length, matrix, norm_of

__all__ = [
    "KernelPath",
    "alignment",
    "concentration",
    "distances",
    "effective_rank",
    "inner_products",
    "lazy_onset",
    "per_output",
    "polar",
    "rotation",
    "specialization",
    "velocity",
]


def inner_products(path: KernelSequence, *, memory: int = 10**9) -> Float[np.ndarray, "t t"]:
    """⟨K_s, K_t⟩ for all pairs of a path.

    Args:
        path: kernels K_0, ..., K_T, each (n, n), symmetric.
        memory: bytes for kernels that are held at once; two always are.

    Returns:
        (T + 1, T + 1), float64, symmetric.

    Raises:
        TypeError, ValueError: an empty path, matrices that are not square, symmetric, finite, or of one
            size.

    Cost: O(T² n²) time. A path that does not fit is read about (its bytes / memory) times.

    >>> inner_products([np.eye(2), 2 * np.eye(2)])
    array([[2., 4.],
           [4., 8.]])
    """
    size, first = length(path), matrix("path[0]", path[0])
    n, held = len(first), max(1, count("memory", memory) // (16 * first.size))
    products = np.empty((size, size))

    def block(start: int) -> np.ndarray:
        return np.stack(
            [kernel_at(path, i, n).ravel().astype(float) for i in range(start, min(start + held, size))]
        )

    for i in range(0, size, held):
        rows = block(i)
        for j in range(i, size, held):
            columns = rows if j == i else block(j)
            part = rows @ columns.T
            products[i : i + held, j : j + held] = part
            products[j : j + held, i : i + held] = part.T
    return products


def distances(path: KernelSequence, *, memory: int = 10**9) -> Float[np.ndarray, "t t"]:
    """d(K_s, K_t) = 1 − ⟨K_s, K_t⟩ / (‖K_s‖ ‖K_t‖) for all pairs: 0 where one is a multiple of the other.

    Args:
        path: as for `inner_products`.
        memory: as for `inner_products`.

    Returns:
        (T + 1, T + 1) in [0, 2], in [0, 1] for positive semi-definite kernels; 0 on the diagonal.

    Raises:
        TypeError, ValueError: as `inner_products`; a kernel that is zero.

    Cost: as `inner_products`. Source: Fort et al. (2020), arXiv 2010.15110, section 3.

    >>> distances([np.eye(2), 3 * np.eye(2), np.diag([1.0, 0.0])])[0].round(4)
    array([0.    , 0.    , 0.2929])
    """
    products = inner_products(path, memory=memory)
    squares = np.diag(products)
    if (squares <= 0).any():
        raise ValueError(f"kernel {int(np.argmin(squares))} of the path is zero: it has no direction")
    norms = np.sqrt(squares)
    result = np.clip(1 - products / np.outer(norms, norms), 0, 2)
    np.fill_diagonal(result, 0)
    return result


def polar(
    path: KernelSequence, *, part: Literal["whole", "top", "rest"] = "whole", top: int = 20
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """A path in polar coordinates: how far, and in which direction, each kernel is from the first.

    radius_t = ‖K_t − K_0‖ / ‖K_T − K_0‖ and angle_t = arccos(1 − d(K_t, K_0)). A kernel that only grows
    keeps the angle 0.

    Args:
        path: as for `inner_products`.
        part: "whole": K itself; "top": Σ_{i < top} λ_i v_i v_iᵀ, its part of the largest eigenvalues;
            "rest": what remains.
        top: how many eigenvalues make the top.

    Returns:
        Radii (T + 1,), from 0 to 1 (all 0 if the last kernel is the first), and angles in radians, (T + 1,).

    Raises:
        TypeError, ValueError: as `distances`; top that is not in [1, n].

    Cost: O(T n²), and T eigendecompositions where part is not "whole".
    Source: Tsilivis & Kempe (2022), arXiv 2210.05577, section 5.

    >>> radius, angle = polar([np.eye(2), 2 * np.eye(2), 3 * np.eye(2)])
    >>> radius.tolist(), angle.round(6).tolist()
    ([0.0, 0.5, 1.0], [0.0, 0.0, 0.0])
    """
    size = length(path)
    first = _part(matrix("path[0]", path[0]), part, top)
    norm, radius, angle = norm_of(first, 0), np.zeros(size), np.zeros(size)
    for t in range(1, size):
        kernel = _part(kernel_at(path, t, len(first)), part, top)
        radius[t] = np.linalg.norm(kernel - first)
        cosine = float((kernel * first).sum()) / (norm * norm_of(kernel, t))
        angle[t] = math.acos(min(1.0, max(-1.0, cosine)))
    return radius / radius[-1] if radius[-1] > 0 else radius, angle


def concentration(kernel: Float[Any, "n n"], *, top: int = 20) -> float:
    """Σ_{i < top} λ_i² / Σ_i λ_i²: how much of ‖K‖² lies in the eigenspaces of the largest eigenvalues.

    Args:
        kernel: (n, n), symmetric.
        top: 1 to n.

    Returns:
        A number in [0, 1].

    Raises:
        TypeError, ValueError: a matrix or a top that does not fit; a kernel that is zero.

    Cost: `top` eigenvalues by Lanczos' method, O(n² top), or all of them where that is cheaper.
    Source: Tsilivis & Kempe (2022), arXiv 2210.05577, section 5.

    >>> round(concentration(np.diag([3.0, 1.0]), top=1), 6)
    0.9
    """
    kernel = matrix("kernel", kernel)
    values = _largest(kernel, top)[0]
    return min(1.0, float((values**2).sum() / norm_of(kernel, None) ** 2))


def effective_rank(kernel: Float[Any, "n n"]) -> float:
    """(Σ λ_i)² / Σ λ_i² = (tr K)² / ‖K‖²: r for r equal eigenvalues. It has no cut to choose.

    Args:
        kernel: (n, n), symmetric.

    Returns:
        A number in [1, n] for a positive semi-definite kernel.

    Raises:
        TypeError, ValueError: a matrix that does not fit; a kernel that is zero.

    >>> round(effective_rank(np.diag([2.0, 2.0, 0.0])), 6)
    2.0
    """
    kernel = matrix("kernel", kernel)
    return float(np.trace(kernel) ** 2 / norm_of(kernel, None) ** 2)


def velocity(path: KernelSequence, times: Float[Any, " t"]) -> Float[np.ndarray, " t-1"]:
    """d(K_t, K_{t+Δ}) / Δ between neighbours: how fast the kernel turns, per epoch.

    Args:
        path: as for `inner_products`.
        times: of the kernels, ascending, (T + 1,), in epochs.

    Returns:
        (T,).

    Raises:
        TypeError, ValueError: as `distances`; times that do not ascend, or are not as many as the kernels.

    Cost: O(T n²), two kernels in memory. Source: Fort et al. (2020), arXiv 2010.15110.

    >>> velocity([np.eye(2), np.diag([1.0, 0.0])], np.array([0.0, 2.0])).round(4)
    array([0.1464])
    """
    size = length(path)
    times = _ascending(times, size)
    before, speeds = matrix("path[0]", path[0]), np.empty(size - 1)
    for t in range(1, size):
        now = kernel_at(path, t, len(before))
        speeds[t - 1] = 1 - float((before * now).sum()) / (norm_of(before, t - 1) * norm_of(now, t))
        before = now
    return np.maximum(speeds, 0) / np.diff(times)


def alignment(kernel: Float[Any, "n n"], targets: Float[Any, "m k"]) -> float:
    """⟨K, Y Yᵀ⟩ / (‖K‖ ‖Y Yᵀ‖): how much the kernel looks like the labels' own.

    Args:
        kernel: (n, n), symmetric.
        targets: Y, (n, k), such as `data.targets`.

    Returns:
        A number in [0, 1] for a positive semi-definite kernel.

    Raises:
        TypeError, ValueError: arrays that do not fit, or are zero.

    Cost: O(n² k), no n × n array. Source: Cristianini et al. (2001), On kernel-target alignment.

    >>> alignment(np.ones((2, 2)), np.ones((2, 1)))
    1.0
    """
    kernel, targets = matrix("kernel", kernel), finite("targets", np.asarray(targets, float))
    if targets.ndim != 2 or len(targets) != len(kernel) or not targets.any():
        raise ValueError(f"targets must be ({len(kernel)}, k) and not all zero, got shape {targets.shape}")
    inside = float(((kernel @ targets) * targets).sum())
    return inside / (norm_of(kernel, None) * float(np.linalg.norm(targets.T @ targets)))


def per_output(kernel: Float[Any, "m m"], k: int) -> Float[np.ndarray, "k n n"]:
    """Θ̂_aa for every output a: the diagonal blocks of the full kernel of k outputs, as a `Probe` keeps it.

    Args:
        kernel: (n·k, n·k), row i·k + a for output a of input i.
        k: outputs.

    Returns:
        (k, n, n); their mean is the kernel of `reduce="trace"`.

    Raises:
        TypeError, ValueError: a matrix whose size is no multiple of k.

    >>> per_output(np.diag([1.0, 2.0, 1.0, 2.0]), 2)[1].tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    kernel, k = matrix("kernel", kernel), count("k", k)
    if len(kernel) % k:
        raise ValueError(f"kernel must have a multiple of {k} rows, got {len(kernel)}")
    n = len(kernel) // k
    return np.einsum("iaja->aij", kernel.reshape(n, k, n, k))


def specialization(
    kernels: Float[Any, "k n n"], targets: Float[Any, "m c"]
) -> tuple[float, Float[np.ndarray, "k k"]]:
    """How much the kernel of each output aligns with its own class above the others'.

    A_cd = alignment of output c's kernel with class d's labels, and the specialization is the mean over c of
    A_cc / mean_d A_dc: 1 where all outputs have one kernel, up to k where each sees its own class alone.

    Args:
        kernels: one for each output, as `empirical_ntk(..., reduce="class")` has them, (k, n, n).
        targets: (n, k); column d is class d's labels.

    Returns:
        The specialization, and A (k, k).

    Raises:
        TypeError, ValueError: arrays that do not fit; a class that aligns with no kernel.

    Source: Shan & Bordelon (2021), arXiv 2105.14301; used by Loo et al. (2022), arXiv 2210.12030.

    >>> specialization(np.stack([np.diag([1.0, 0.0]), np.diag([0.0, 1.0])]), np.eye(2))[0]
    2.0
    """
    targets = finite("targets", np.asarray(targets, float))
    if targets.ndim != 2 or len(kernels) != targets.shape[1]:
        raise ValueError(f"kernels must be one for each target, {targets.shape[1]}, got {len(kernels)}")
    aligned = np.array([[alignment(kernel, column[:, None]) for column in targets.T] for kernel in kernels])
    means = aligned.mean(axis=0)
    if (means <= 0).any():
        raise ValueError(f"class {int(np.argmin(means))} aligns with no kernel: its share has no meaning")
    return float((np.diag(aligned) / means).mean()), aligned


def rotation(path: KernelSequence, *, top: int = 20) -> Float[np.ndarray, " t"]:
    """How much of the last kernel's top eigenspace each kernel's top eigenspace has: mean cos² of the angles.

    Args:
        path: as for `inner_products`.
        top: dimension of the spaces, 1 to n.

    Returns:
        (T + 1,) in [0, 1], ending with 1; random spaces have top / n.

    Raises:
        TypeError, ValueError: as `distances`; top that is not in [1, n].

    Cost: T times `top` eigenvectors. Source: in the manner of Ortiz-Jiménez et al. (2021), arXiv 2105.01675.

    >>> rotation([np.diag([1.0, 2.0]), np.diag([2.0, 1.0])], top=1)
    array([0., 1.])
    """
    size = length(path)
    last = matrix("path[-1]", path[size - 1])
    space = _largest(last, top)[1]
    spaces = (_largest(kernel_at(path, t, len(last)), top)[1] for t in range(size))
    return np.array([((one.T @ space) ** 2).sum() / top for one in spaces])


def lazy_onset(
    to_last: Float[Any, " t"], times: Float[Any, " t"], threshold: Float[Any, " q"] | float
) -> float | Float[np.ndarray, " q"]:
    """The first moment from which a kernel stays near the last one: when training has become lazy.

    min {t : d(K_s, K_T) ≤ threshold for all s ≥ t}. It is never later than the last moment, so a run that is
    cut short has an onset too: sweep the threshold, and compare runs of equal length.

    Args:
        to_last: d(K_t, K_T), (T + 1,): the last row of `distances`.
        times: of the kernels, ascending, (T + 1,).
        threshold: ≥ 0, one or several (q,).

    Returns:
        One of `times` for every threshold.

    Raises:
        TypeError, ValueError: arrays that do not fit, a last distance that is not 0.

    Source: the notion of Tsilivis & Kempe (2022), arXiv 2210.05577, section 5, with the threshold stated.

    >>> lazy_onset(np.array([0.5, 0.1, 0.2, 0.0]), np.arange(4.0), np.array([0.15, 0.3]))
    array([3., 1.])
    """
    to_last = finite("to_last", np.asarray(to_last, float))
    if to_last.ndim != 1 or not len(to_last) or abs(to_last[-1]) > 1e-6:
        raise ValueError("to_last must be distances to the last kernel, (t,), and end with 0")
    times = _ascending(times, len(to_last))
    thresholds = np.atleast_1d(np.asarray(threshold, float))
    if not (thresholds >= 0).all():
        raise ValueError(f"threshold must be at least 0, got {thresholds.min()}")
    # The greatest distance from each moment on.
    ahead = np.maximum.accumulate(to_last[::-1])[::-1]
    found = times[[int(np.argmax(ahead <= max(one, 1e-6))) for one in thresholds]]
    return found if np.ndim(threshold) else float(found[0])


def _ascending(times: Any, size: int) -> np.ndarray:
    times = finite("times", np.asarray(times, float))
    if times.shape != (size,) or (np.diff(times) <= 0).any():
        raise ValueError(f"times must be {size} ascending numbers, got {times}")
    return times


def _largest(kernel: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top` largest eigenvalues and their eigenvectors."""
    n = len(kernel)
    if count("top", top) > n:
        raise ValueError(f"top must be at most {n}, got {top}")
    kernel = kernel.astype(float)
    if n > 500 and top < n // 10:
        # A fixed start: the same numbers on every run.
        return scipy.sparse.linalg.eigsh(kernel, top, which="LA", v0=np.ones(n))
    return scipy.linalg.eigh(kernel, subset_by_index=(n - top, n - 1))


def _part(kernel: np.ndarray, part: str, top: int) -> np.ndarray:
    if part == "whole":
        return kernel.astype(float)
    if part not in ("top", "rest"):
        raise ValueError(f"part must be 'whole', 'top' or 'rest', got {part!r}")
    values, vectors = _largest(kernel, top)
    upper = (vectors * values) @ vectors.T
    return upper if part == "top" else kernel - upper
