"""Robust accuracy over all ε, from the smallest perturbations that one run found."""

from typing import Any

import numpy as np
from jaxtyping import Float

from companion._core.checks import Numbers
from companion.attacks._fab import Smallest
from companion.statistics import Estimate, proportion


def robust_curve(
    smallest: Smallest, eps: Float[Any, " q"] | Numbers | float | int, *, level: float = 0.95
) -> Estimate:
    """The share of inputs whose distance to the boundary is above ε, for every ε at once.

    Each distance is that of a point that was found, an upper bound of the true one. So the whole curve is an
    upper bound of robust accuracy: an attack made for one ε, such as `autoattack`, may find more there. It
    never rises with ε, and is the clean accuracy at ε = 0.

    Args:
        smallest: what `fab` found, with `enough=0`: an input that was left alone early has a distance too
            large for ε below `enough`.
        eps: sizes of perturbations (q,), or one, each ≥ 0, in the norm and the pixel units of the distances.
        level: coverage of each Wilson interval; not of all of them together.

    Returns:
        The estimate with its intervals, arrays (q,).

    Raises:
        ValueError: no sizes, one below 0 or not finite, NaN among the distances, level outside (0, 1).

    Cost: m · q comparisons.

    >>> found = Smallest(np.zeros((4, 2), np.float32), np.array([0.0, 0.1, 0.2, np.inf], np.float32))
    >>> robust_curve(found, [0.0, 0.1, 1.0]).value
    array([0.75, 0.5 , 0.25])
    """
    if not isinstance(smallest, Smallest):
        raise TypeError(
            f"smallest must be what fab(predict, x, labels, enough=0) found, got {type(smallest).__name__}"
        )
    sizes = np.atleast_1d(np.asarray(eps, float))
    if sizes.ndim != 1 or not sizes.size or not (np.isfinite(sizes) & (sizes >= 0)).all():
        raise ValueError(f"eps must be one or more finite numbers ≥ 0, (q,), got {eps!r}")
    if np.isnan(smallest.distance).any():
        raise ValueError("smallest holds a distance that is NaN")
    return proportion(np.stack([~smallest.fooled(float(size)) for size in sizes], axis=1), level=level)
