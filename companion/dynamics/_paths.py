"""What is measured between the kernels of a path: distances, velocity, rotation, lazy onset."""

import math
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from companion._core.checks import count, finite
from companion.dynamics._measures import largest
from companion.storage import KernelSequence, kernel_at, length, matrix, norm_of


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
        chord = float(np.linalg.norm(kernel / norm_of(kernel, t) - first / norm))
        angle[t] = 2 * math.asin(min(1.0, chord / 2))
    return radius / radius[-1] if radius[-1] > 0 else radius, angle


def successive(path: KernelSequence) -> Float[np.ndarray, " s"]:
    """d(K_t, K_{t+1}) between neighbors of a path.

    Args:
        path: as for `inner_products`.

    Returns:
        (T,), in [0, 2].

    Raises:
        TypeError, ValueError: as `distances`.

    Cost: O(T n²), two kernels in float64 in memory.

    >>> successive([np.eye(2), np.diag([1.0, 0.0])]).round(4)
    array([0.2929])
    """
    size = length(path)
    first, moved = matrix("path[0]", path[0]), np.empty(size - 1)
    before = first.astype(float) / norm_of(first, 0)
    for t in range(1, size):
        now = kernel_at(path, t, len(before))
        now = now.astype(float) / norm_of(now, t)
        moved[t - 1] = ((before - now) ** 2).sum() / 2  # 1 − their product would lose small moves
        before = now
    return np.minimum(moved, 2)


def angle(distance: Float[Any, "*shape"] | float) -> Float[np.ndarray, "*shape"]:
    """arccos(1 − d), the angle between two kernels of distance d: unlike d, it adds up along a rotation.

    Args:
        distance: d in [0, 2], as of `distances`; NaN stays NaN.

    Returns:
        Radians, in the shape of `distance`.

    Raises:
        ValueError: a distance outside [0, 2].

    >>> angle(np.array([0.0, 1.0])).round(4)
    array([0.    , 1.5708])
    """
    distance = np.asarray(distance, float)
    if ((distance < 0) | (distance > 2)).any():
        raise ValueError(f"distance must lie in [0, 2], got {np.nanmin(distance)} to {np.nanmax(distance)}")
    return 2 * np.arcsin(np.sqrt(distance / 2))  # exact for small d, where 1 − d loses digits


def velocity(path: KernelSequence, times: Float[Any, " t"]) -> Float[np.ndarray, " t-1"]:
    """arccos(1 − d(K_t, K_{t+Δ})) / Δ between neighbors: by how much the kernel turns, in radians per epoch.

    A steady rotation has one velocity, however far apart its records lie; d / Δ would grow with Δ.

    Args:
        path: as for `inner_products`.
        times: of the kernels, ascending, (T + 1,), in epochs.

    Returns:
        (T,).

    Raises:
        TypeError, ValueError: as `distances`; times that do not ascend, or are not as many as the kernels.

    Cost: O(T n²), two kernels in memory. Source: after Fort et al. (2020), arXiv 2010.15110, who divide d.

    >>> velocity([np.eye(2), np.diag([1.0, 0.0])], np.array([0.0, 2.0])).round(4)
    array([0.3927])
    """
    times = _ascending(times, length(path))
    return angle(successive(path)) / np.diff(times)


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
    space = largest(last, top)[1]
    spaces = (largest(kernel_at(path, t, len(last)), top)[1] for t in range(size - 1))
    return np.array([*(((one.T @ space) ** 2).sum() / top for one in spaces), 1.0])


def lazy_onset(
    to_last: Float[Any, " t"], times: Float[Any, " t"], threshold: Float[Any, " q"] | float
) -> float | Float[np.ndarray, " q"]:
    """The first moment from which a kernel stays near the last one: when training has become lazy.

    min {t : d(K_s, K_T) ≤ threshold for all s ≥ t}. It is never later than the last moment, so a run that is
    cut short has an onset too: sweep the threshold, and compare runs of equal length.

    Args:
        to_last: d(K_t, K_T), (T + 1,): the last row of `distances`.
        times: of the kernels, ascending, (T + 1,).
        threshold: ≥ 0, one or several (q,); below 1e-6, the rounding of distances, as 1e-6.

    Returns:
        One of `times` for every threshold.

    Raises:
        TypeError, ValueError: arrays that do not fit, a last distance that is not 0.

    Source: the notion of Tsilivis & Kempe (2022), arXiv 2210.05577, section 5, with the threshold stated.

    >>> lazy_onset(np.array([0.5, 0.1, 0.2, 0.0]), np.arange(4.0), np.array([0.15, 0.3]))
    array([3., 1.])
    """
    to_last = _to_last(to_last)
    times = _ascending(times, len(to_last))
    thresholds = np.atleast_1d(np.asarray(threshold, float))
    if not (thresholds >= 0).all():
        raise ValueError(f"threshold must be at least 0, got {thresholds.min()}")
    ahead = np.maximum.accumulate(to_last[::-1])[::-1]  # the greatest distance from each moment on
    found = times[[int(np.argmax(ahead <= max(one, 1e-6))) for one in thresholds]]
    return found if np.ndim(threshold) else float(found[0])


def remaining(to_last: Float[Any, " t"], times: Float[Any, " t"]) -> float:
    """How much of its way a kernel still has to go, averaged over training: lazy onset without a threshold.

    ∫ ∠(K_t, K_T) dt / (T' ∠(K_0, K_T)) over the times, by trapezoids, with the angles ∠ = arccos(1 − d) and
    T' the whole time: 0 for a kernel that jumps to its end at once, ½ for one that turns there steadily.

    Args:
        to_last: d(K_t, K_T), (t,): the last row of `distances`.
        times: of the kernels, ascending, (t,).

    Returns:
        A number ≥ 0, above 1 if the kernel turned away from its end on the way.

    Raises:
        TypeError, ValueError: as `lazy_onset`; a kernel that ends where it began.

    >>> round(remaining(1 - np.cos(np.array([0.4, 0.2, 0.0])), np.arange(3.0)), 6)
    0.5
    """
    to_last = _to_last(to_last)
    times = _ascending(times, len(to_last))
    if to_last[0] <= 0:
        raise ValueError("to_last must begin above 0: this kernel ends where it began")
    left = angle(np.clip(to_last, 0, 2))
    return float(np.trapezoid(left, times) / (times[-1] - times[0]) / left[0])


def _to_last(to_last: Float[Any, " t"]) -> np.ndarray:
    to_last = finite("to_last", np.asarray(to_last, float))
    if to_last.ndim != 1 or not len(to_last) or abs(to_last[-1]) > 1e-6:
        raise ValueError("to_last must be distances to the last kernel, (t,), and end with 0")
    return to_last


def _ascending(times: Float[Any, " t"], size: int) -> np.ndarray:
    times = finite("times", np.asarray(times, float))
    if times.shape != (size,) or (np.diff(times) <= 0).any():
        raise ValueError(f"times must be {size} ascending numbers, got {times}")
    return times


def _part(kernel: np.ndarray, part: str, top: int) -> np.ndarray:
    if part == "whole":
        return kernel.astype(float)
    if part not in ("top", "rest"):
        raise ValueError(f"part must be 'whole', 'top' or 'rest', got {part!r}")
    values, vectors = largest(kernel, top)
    upper = (vectors * values) @ vectors.T
    rest, small = kernel - upper, 10 * len(kernel) * np.finfo(kernel.dtype).eps * np.linalg.norm(kernel)
    return upper if part == "top" else rest * (np.linalg.norm(rest) > small)  # else rounding alone
