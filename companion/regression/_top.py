"""The leading eigenpairs of a kernel matrix, without n³: a randomized block Krylov method in float64."""

from dataclasses import dataclass

import jax
import numpy as np

from companion._core.checks import count, number, random_key
from companion._core.krylov import krylov
from companion._core.types import Key
from companion.regression._factor import product
from companion.regression._spectrum import refuse_negative


@dataclass(frozen=True)
class Top:
    """How `fit` finds the k leading eigenpairs of Θ(X, X) alone: the predictor is then of these features.

    A space K = span(Ω, ΘΩ, Θ²Ω, ...) grows from a random block Ω, kept orthonormal, until the k leading
    eigenpairs of Θ in it (Rayleigh-Ritz) are eigenpairs of Θ. All but the kernel's own entries is float64.

    Attributes:
        k: eigenpairs, ≥ 1 and at most n.
        key: a JAX random key, of Ω. Equal keys give equal results.
        tolerance: ‖Θ v_i − λ_i v_i‖ / λ_i at most, for each of the k, up to n ε λ_1. Errors of the
            eigenvalues are of its second order.
        block: columns of Ω: more make each pass over the kernel dearer and their number smaller. An
            eigenvalue that is there more often than `block` times may be found too seldom.

    Raises:
        TypeError, ValueError: no key; k or block < 1; a tolerance that is not between 0 and 1.

    Time: 2 n² operations for each vector of the space, of which there are some 3 k, and 4 n for each pair of
    them. Memory: 8 n bytes for each, and for each of the k.
    Source: Musco & Musco (2015), arXiv 1504.05477, algorithm 2; with the orthogonalization and the residuals
    of block Lanczos, Golub & Van Loan (2013), Matrix Computations, section 10.3.6.

    >>> from companion.regression import fit
    >>> f = fit(np.diag([1.0, 4.0, 2.0]), targets=np.ones((3, 1)), solver=Top(2, key=jax.random.key(0)))
    >>> f.eigenvalues.round(6)
    array([4., 2.])
    """

    k: int
    key: Key
    tolerance: float = 1e-6
    block: int = 64

    def __post_init__(self) -> None:
        """Refuse what no solver can do."""
        count("k", self.k)
        count("block", self.block)
        random_key("key", self.key)
        if not 0 < number("tolerance", self.tolerance) < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {self.tolerance}")


def at_most(how: Top, n: int) -> None:
    """Refuse more eigenpairs than there are."""
    if how.k > n:
        raise ValueError(f"k must be at most {n}, the number of training inputs, got {how.k}")


def leading(
    kernel: np.ndarray, how: Top, *, resolution: float, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The k leading eigenvalues, descending, (k,), and their eigenvectors, (n, k)."""
    at_most(how, len(kernel))
    diagonal = kernel.diagonal().astype(np.float64)
    chance = np.random.default_rng(np.asarray(jax.random.key_data(how.key)).ravel())  # compiles nothing
    found = krylov(
        lambda v: product(kernel, diagonal, v),
        len(kernel),
        how.k,
        chance=chance,
        tolerance=how.tolerance,
        block=how.block,
        progress=progress,
    )
    refuse_negative(found[0], len(kernel), resolution)
    return found
