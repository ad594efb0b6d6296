"""Paths of kernels: in memory or in a folder, and checked when they are read."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from companion._core.checks import finite, number
from companion._core.words import Unchecked
from companion.storage._files import damaged, held, place, read_array, write_atomically, writing


class KernelPath:
    """Kernels on disk, one file for each moment: a path that need not fit into memory.

    Files are written whole or not at all, so a killed run leaves no broken kernel. From the first `save` on
    no other process can write there, until the path is no longer used.

    Attributes:
        folder: where they are, made if it is missing.

    >>> import tempfile
    >>> path = KernelPath(tempfile.mkdtemp())
    >>> path.save(0.5, np.eye(2))
    >>> path.times, path[0].tolist()
    ([0.5], [[1.0, 0.0], [0.0, 1.0]])
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder, self._hold = place(folder), None
        with writing(self.folder, 0):
            self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def times(self) -> list[float]:
        """The moments that are there, ascending."""
        found = []
        for file in self.folder.glob("*.npy"):
            try:
                found.append(float(file.stem))
            except ValueError:
                raise damaged(file, "the file of a kernel is named by its time") from None
        return sorted(found)

    def save(self, time: float | int, kernel: Float[Any, "n n"]) -> None:
        """Keep a kernel, in place of one of the same time.

        Args:
            time: ≥ 0, in epochs.
            kernel: (n, n), symmetric, finite; the same n as the others.

        Raises:
            TypeError, ValueError: a time or a matrix that does not fit; a folder that another process writes.
            OSError: the file cannot be written.
        """
        self._hold = self._hold or held(self.folder)
        self.put(time, kernel)

    def put(self, time: float | int, kernel: Float[Any, "n n"]) -> None:
        """Save as one who has locked the folder already."""
        kernel = matrix("kernel", kernel)
        if len(self) and self[0].shape != kernel.shape:
            raise ValueError(f"kernel must have the shape of the others, {self[0].shape}, got {kernel.shape}")
        write_atomically(self._file(number("time", time) + 0.0), kernel)  # −0 is 0

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [read_array(self._file(time)) for time in self.times[index]]
        return read_array(self._file(self.times[index]))

    def _file(self, time: float) -> Path:
        return self.folder / f"{time!r}.npy"


KernelSequence = KernelPath | Sequence[np.ndarray] | np.ndarray


def length(path: Unchecked) -> int:
    """How many kernels a path has, at least one; or an error."""
    try:
        size = len(path)
    except TypeError:
        raise TypeError(f"path must be a sequence of kernels, got {type(path).__name__}") from None
    if not size:
        raise ValueError("path must have at least one kernel")
    return size


def matrix(name: str, kernel: Unchecked) -> np.ndarray:
    """A kernel that is square, symmetric and finite; or an error."""
    kernel = np.asarray(kernel)
    if kernel.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64, got {kernel.dtype}")
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not kernel.size:
        raise ValueError(f"{name} must be square (n, n), got shape {kernel.shape}")
    finite(name, kernel)
    if np.abs(kernel - kernel.T).max() > 1e-4 * np.abs(kernel).max():
        raise ValueError(f"{name} must be symmetric")
    return kernel


def kernel_at(path: Unchecked, index: int, n: int) -> np.ndarray:
    """One kernel of a path, of the size of the first."""
    kernel = matrix(f"path[{index}]", path[index])
    if len(kernel) != n:
        raise ValueError(f"path[{index}] must be ({n}, {n}) as path[0], got {kernel.shape}")
    return kernel


def norm_of(kernel: np.ndarray, index: int | None) -> float:
    """Its Frobenius norm, not zero; or an error that names its place."""
    norm = float(np.linalg.norm(kernel.astype(float)))
    if norm == 0:
        raise ValueError(f"kernel{'' if index is None else f' {index} of the path'} is zero: no direction")
    return norm
