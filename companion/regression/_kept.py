"""A Cholesky factorization in a folder: one that is killed goes on where it was, to the same bytes."""

from pathlib import Path

import numpy as np

from companion.regression._factor import BLOCK, factor
from companion.storage import fingerprint, finished, locked, marking, opened, stored_tile

FORMAT = 1  # to be raised when the same call would give another file


def kept_factor(
    folder: Path,
    kernel: np.ndarray,
    diagonal: np.ndarray,
    precision: str,
    *,
    progress: bool = False,
) -> np.ndarray:
    """The matrix and its factor in one array, as `factor` makes it, read-only, from a folder or into it.

    The upper triangle is written first. A block of columns then depends on it and on the blocks before alone,
    so that what was half written when the process died is written again.

    Raises:
        numpy.linalg.LinAlgError: not positive definite.
        ValueError: the folder holds something else, or is in use.
        OSError: the disk is full.
    """
    n, block = len(kernel), min(BLOCK, len(kernel))
    identity = {
        "format": FORMAT,
        "kind": "Cholesky factor",
        "shape": [n, n],
        "dtype": precision,
        "k_train_train": fingerprint(kernel),
        "diagonal": fingerprint(diagonal),
        "block": block,
    }
    if stored_tile(folder, identity) and (matrix := finished(folder)) is not None:
        return matrix
    with locked(folder):
        blocks = -(-n // block)
        matrix, done = opened(folder, identity, (n, block), 1 + blocks, (n, n), np.dtype(precision))
        with marking(matrix, done) as mark:
            if not done[0]:
                for first in range(0, n, block):
                    matrix[first : first + block] = kernel[first : first + block]
                mark(0)
            first = max(0, int(np.argmin(done)) - 1) if done[0] else 0
            factor(matrix, diagonal, first=first, finish=lambda number: mark(number + 1), progress=progress)
        return finished(folder)
