"""The leading eigenpairs of a kernel matrix, without n³: a randomized block Krylov method in float64."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import scipy.linalg
from tqdm.auto import tqdm

from companion._core.checks import count, number, random_key
from companion._core.interrupt import safe_point
from companion._core.types import Key
from companion.regression._factor import product
from companion.regression._spectrum import refuse_negative

_LATER = 1.2  # the space has grown so much before it is looked at again, which costs the cube of its size


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


def leading(
    kernel: np.ndarray, how: Top, *, resolution: float, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The k leading eigenvalues, descending, (k,), and their eigenvectors, (n, k)."""
    if how.k > len(kernel):
        raise ValueError(f"k must be at most {len(kernel)}, the number of training inputs, got {how.k}")
    diagonal = kernel.diagonal().astype(np.float64)
    found = krylov(lambda v: product(kernel, diagonal, v), len(kernel), how, progress=progress)
    refuse_negative(found[0], len(kernel), resolution)
    return found


def krylov(
    times: Callable[[np.ndarray], np.ndarray], n: int, how: Top, *, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The same of a symmetric matrix (n, n) that is known by its products, v to A v."""
    chance = np.random.default_rng(np.asarray(jax.random.key_data(how.key)).ravel())  # compiles nothing
    start = chance.normal(size=(n, min(how.block, n)))
    basis, small = [np.linalg.qr(start)[0]], np.zeros((0, 0))
    look = how.k
    with tqdm(total=n, desc="eigenpairs", unit="vectors", disable=not progress) as bar:
        while True:
            last, m = basis[-1], len(small)
            image = times(last)
            wide = m + last.shape[1]
            small = np.pad(small, (0, last.shape[1]))
            small[:, m:] = _orthogonalized(image, basis)
            new, coupling = _columns(image, np.abs(small).max())
            bar.update(last.shape[1])
            safe_point()
            if wide >= look or wide == n:
                look = _LATER * wide
                values, vectors = scipy.linalg.eigh(
                    small, lower=False, subset_by_index=[wide - how.k, wide - 1]
                )
                # A V − V Λ lies in the new columns alone: it is what the last ones bring there.
                left = np.linalg.norm(coupling @ vectors[m:], axis=0)
                least = n * np.finfo(np.float64).eps * np.abs(values).max()
                if wide == n or (left <= np.maximum(how.tolerance * values, least)).all():
                    break
            basis.append(new if new.shape[1] else _fresh(chance, basis, n - wide))
    rows = np.cumsum([0, *(part.shape[1] for part in basis)])
    found = sum(part @ vectors[a:b, ::-1] for part, a, b in zip(basis, rows[:-1], rows[1:], strict=True))
    return values[::-1].copy(), found


def _orthogonalized(image: np.ndarray, basis: list[np.ndarray]) -> np.ndarray:
    """Take from `image`, in place, what lies in the basis; return its components there. Twice is enough."""
    rows = []
    for part in basis:
        rows.append(part.T @ image)
        image -= part @ rows[-1]
    for row, part in zip(rows, basis, strict=True):
        more = part.T @ image
        image -= part @ more
        row += more
    return np.concatenate(rows)


def _columns(image: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """An orthonormal basis of the columns but for what is rounding, and their components in it."""
    q, r, order = scipy.linalg.qr(image, mode="economic", pivoting=True, check_finite=False)
    rank = int((np.abs(np.diag(r)) > len(image) * np.finfo(np.float64).eps * size).sum())
    coupling = np.empty((rank, image.shape[1]))
    coupling[:, order] = r[:rank]
    return q[:, :rank], coupling


def _fresh(chance: np.random.Generator, basis: list[np.ndarray], left: int) -> np.ndarray:
    """New random columns where the space has closed: A maps it into itself."""
    drawn = chance.normal(size=(len(basis[0]), min(basis[0].shape[1], left)))
    _orthogonalized(drawn, basis)
    return np.linalg.qr(drawn)[0]
