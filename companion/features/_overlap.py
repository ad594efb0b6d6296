"""Do two kernels see the same features? Angles between their eigenspaces, and a matching one by one."""

from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Float, Int

from companion._core.checks import count, finite


def principal_angles(
    first: Float[Any, "n p"], second: Float[Any, "n r"], *, top: int
) -> Float[np.ndarray, " top"]:
    """Angles between the spaces that the first `top` eigenvectors of two kernels span, ascending.

    Two kernels on the same n inputs have eigenvectors in the same space. 0 is a direction that both share,
    π/2 one that the other space has nothing of. The mean of their squared cosines is ‖V₁ᵀV₂‖²_F / top, which
    is top/n for random spaces.

    Args:
        first: eigenvectors in columns, descending eigenvalues, orthonormal: `regression.fit` has them.
        second: of the other kernel, on the same inputs in the same order.
        top: how many columns span a space, 1 ≤ top ≤ p.

    Returns:
        (top,) radians in [0, π/2].

    Raises:
        ValueError: shapes that do not fit, NaN, columns that are not orthonormal.

    Cost: O(n top²). Source: Björck & Golub (1973), Mathematics of Computation 27.

    >>> principal_angles(np.eye(3), np.eye(3)[:, ::-1], top=1) / np.pi
    array([0.5])
    """
    first, second = _spaces(first, second, top)
    return np.sort(scipy.linalg.subspace_angles(first, second))


def match(
    first: Float[Any, "n p"], second: Float[Any, "n r"], *, top: int
) -> tuple[Int[np.ndarray, " top"], Float[np.ndarray, " top"]]:
    """A partner among the second kernel's features for each of the first's, all fitting best.

    The assignment with the largest Σ_i ⟨v_i, w_partner(i)⟩² (squared: the signs mean nothing).

    Args:
        first: eigenvectors in columns, as for `principal_angles`.
        second: of the other kernel.
        top: how many of each to match.

    Returns:
        The partners (top,), and the sizes of the cosines ⟨v_i, w_partner(i)⟩ (top,).

    Raises:
        ValueError: as `principal_angles`.

    Cost: O(n top² + top³). Source: Crouse (2016) by `scipy.optimize.linear_sum_assignment`.

    >>> match(np.eye(3), np.eye(3)[:, [1, 0, 2]], top=2)[0]
    array([1, 0])
    """
    first, second = _spaces(first, second, top)
    cosines = np.abs(first.T @ second)
    _, partner = scipy.optimize.linear_sum_assignment(cosines**2, maximize=True)
    return partner, cosines[np.arange(top), partner]


def _spaces(first: Float[Any, "n p"], second: Float[Any, "n r"], top: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = finite("first", np.asarray(first, float)), finite("second", np.asarray(second, float))
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise ValueError(f"first and second must be (n, p) of the same n, got {first.shape}, {second.shape}")
    if count("top", top) > min(first.shape[1], second.shape[1]):
        raise ValueError(f"top must be at most {min(first.shape[1], second.shape[1])}, got {top}")
    first, second = first[:, :top], second[:, :top]
    for name, space in (("first", first), ("second", second)):
        if np.abs(space.T @ space - np.eye(top)).max() > 1e-6:
            raise ValueError(
                f"{name} must have orthonormal columns: eigenvectors as `regression.fit` has them"
            )
    return first, second
