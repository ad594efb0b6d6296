"""How a kernel moves while its network trains: distances, polar curves, concentration, velocity, lazy onset.

Everything takes a *path* of kernels K_0, ..., K_T: a list of (n, n) matrices, an array (T + 1, n, n), or
anything with a length whose items are such matrices, such as `KernelPath`, which keeps them in a folder.
Paths are read a few kernels at a time. ⟨K, K'⟩ = Σ_ij K_ij K'_ij is the Frobenius product, ‖K‖ its norm.

Definitions: Tsilivis & Kempe (2022), arXiv 2210.05577; Fort et al. (2020), arXiv 2010.15110; Baratin et al.
(2021), arXiv 2008.00938; Loo et al. (2022), arXiv 2210.12030.
"""

from companion.dynamics._measures import alignment, concentration, effective_rank, per_output, specialization
from companion.dynamics._paths import (
    angle,
    distances,
    inner_products,
    lazy_onset,
    polar,
    remaining,
    rotation,
    successive,
    velocity,
)
from companion.storage import KernelPath

__all__ = [
    "KernelPath",
    "alignment",
    "angle",
    "concentration",
    "distances",
    "effective_rank",
    "inner_products",
    "lazy_onset",
    "per_output",
    "polar",
    "remaining",
    "rotation",
    "specialization",
    "successive",
    "velocity",
]
