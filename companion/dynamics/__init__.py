"""How a kernel moves while its network trains: distances, polar curves, concentration, velocity, lazy onset.

Everything takes a *path* of kernels K_0, ..., K_T: a list of (n, n) matrices, an array (T + 1, n, n), or
anything with a length whose items are such matrices, such as `KernelPath`, which keeps them in a folder.
Paths are read a few kernels at a time. ⟨K, K'⟩ = Σ_ij K_ij K'_ij is the Frobenius product, ‖K‖ its norm.

`class_blocks` and `variability` say how far a kernel has collapsed by class, `neural_collapse` how far the
features of a last layer have, and `collapse_invariant` what ties the two.

Definitions: Tsilivis & Kempe (2022), arXiv 2210.05577; Fort et al. (2020), arXiv 2010.15110; Baratin et al.
(2021), arXiv 2008.00938; Loo et al. (2022), arXiv 2210.12030; Seleznova et al. (2023), arXiv 2305.16427.
"""

from companion.dynamics._collapse import (
    Blocks,
    Collapse,
    class_blocks,
    collapse_invariant,
    neural_collapse,
    variability,
)
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
    "Blocks",
    "Collapse",
    "KernelPath",
    "alignment",
    "angle",
    "class_blocks",
    "collapse_invariant",
    "concentration",
    "distances",
    "effective_rank",
    "inner_products",
    "lazy_onset",
    "neural_collapse",
    "per_output",
    "polar",
    "remaining",
    "rotation",
    "specialization",
    "successive",
    "variability",
    "velocity",
]
