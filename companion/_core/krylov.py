"""The leading eigenpairs of a matrix that is known by its products: a randomized block Krylov method."""

from collections.abc import Callable

import numpy as np
import scipy.linalg
from tqdm.auto import tqdm

from companion._core.interrupt import safe_point

_LATER = 1.2  # the space has grown so much before it is looked at again, which costs the cube of its size


def krylov(
    times: Callable[[np.ndarray], np.ndarray],
    n: int,
    k: int,
    *,
    chance: np.random.Generator,
    tolerance: float = 1e-6,
    block: int = 64,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The k leading eigenvalues, descending, (k,), and eigenvectors, (n, k), from `times`, v to A v; float64.

    `regression.Top` says how, and what tolerance and block are.
    """
    start = chance.normal(size=(n, min(block, n)))
    basis, small = [np.linalg.qr(start)[0]], np.zeros((0, 0))
    look = k
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
                values, vectors = scipy.linalg.eigh(small, lower=False, subset_by_index=[wide - k, wide - 1])
                # A V − V Λ lies in the new columns alone: it is what the last ones bring there.
                left = np.linalg.norm(coupling @ vectors[m:], axis=0)
                least = n * np.finfo(np.float64).eps * np.abs(values).max()
                if wide == n or (left <= np.maximum(tolerance * values, least)).all():
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
