"""A matrix on disk that is filled tile by tile and survives the death of its writer at any moment.

A folder holds `gram.json` (what the matrix is of), `kernel.npy` (the matrix), `done.npy` (which tiles are
finished) and `lock`. They are made in this order, and `done.npy` whole or not at all: where it exists, the
others are complete. A tile's data reach the disk before its mark does.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from companion._core.versions import versions
from companion._core.words import Settings
from companion.storage._files import write_atomically, writing

SECONDS_BETWEEN_MARKS = 2.0


def stored_tile(folder: Path, identity: Settings) -> tuple[int, int] | None:
    """Return the tile shape of the store in a folder, None where there is no store.

    Args:
        folder: the folder.
        identity: what the matrix must be of; plain JSON.

    Returns:
        Rows and columns of a tile.

    Raises:
        ValueError: the store is of another matrix (the message says which field differs), or no store.
    """
    path = folder / "gram.json"
    if not path.exists():
        if foreign := [name for name in ("kernel.npy", "done.npy") if (folder / name).exists()]:
            raise ValueError(
                f"out={str(folder)!r} holds {foreign[0]} but no gram.json: it is no store of gram"
            )
        return None
    try:
        stored = json.loads(path.read_bytes())
        tile = tuple(stored.pop("tile"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"gram.json cannot be read ({error})") from error
    same_matrix(folder, stored, identity)
    return tile


def same_matrix(out: Path | str, stored: Settings, identity: Settings) -> None:
    """Refuse a store that is of another matrix; the message says what differs."""
    # Versions are there for people: the kernel's values tell what a version has changed.
    for field in [*identity, *(stored.keys() - identity.keys() - {"versions"})]:
        was, now = stored.get(field), identity.get(field)
        if was != now:
            raise ValueError(
                f"out={str(out)!r} holds another matrix: {field} was {was}, now it is {now}. "
                "Give another folder, or delete this one"
            )


def finished(folder: Path) -> np.ndarray | None:
    """Return the matrix, read-only, if every tile of it is done."""
    if not (folder / "done.npy").exists() or not _open(folder, "done.npy", "r").all():
        return None
    return _open(folder, "kernel.npy", "r")


def opened(
    folder: Path,
    identity: Settings,
    tile: tuple[int, int],
    tiles: int,
    shape: tuple[int, int],
    dtype: np.dtype,
) -> tuple[np.memmap, np.memmap]:
    """Open the matrix and the marks for writing, making what is not there; the folder must be locked."""
    path = folder / "kernel.npy"
    if not (folder / "done.npy").exists():
        text = json.dumps({**identity, "tile": tile, "versions": versions()}, indent=1, ensure_ascii=False)
        write_atomically(folder / "gram.json", text.encode())
        _reserve(path, dtype, shape)
        write_atomically(folder / "done.npy", np.zeros(tiles, bool))
    matrix, done = _open(folder, "kernel.npy", "r+"), _open(folder, "done.npy", "r+")
    for name, array, wanted in (("kernel.npy", matrix, (shape, dtype)), ("done.npy", done, ((tiles,), bool))):
        if (array.shape, array.dtype) != wanted:
            raise _damaged(folder, f"{name} has shape {array.shape} and type {array.dtype}")
    return matrix, done


@contextlib.contextmanager
def marking(matrix: np.memmap, done: np.memmap) -> Iterator[Callable[[int], None]]:
    """Give a function that marks a tile as done: now and then, and at the end, in the safe order."""
    waiting: list[int] = []
    due = time.monotonic() + SECONDS_BETWEEN_MARKS

    def flush() -> None:
        matrix.flush()
        done[waiting] = True
        done.flush()
        waiting.clear()

    def mark(index: int) -> None:
        nonlocal due
        waiting.append(index)
        if (start := time.monotonic()) >= due:
            flush()
            # A slow disk must not take more than a fifth of the time.
            due = time.monotonic() + max(SECONDS_BETWEEN_MARKS, 4 * (time.monotonic() - start))

    try:
        yield mark
    finally:
        flush()


def _reserve(path: Path, dtype: np.dtype, shape: tuple[int, int]) -> None:
    """Make the matrix, with its room on the disk: a full disk would otherwise end the process midway."""
    try:
        with writing(path, int(np.prod(shape)) * np.dtype(dtype).itemsize):
            np.lib.format.open_memmap(path, "w+", dtype, shape)
            if not hasattr(os, "posix_fallocate"):
                return
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        # Some file systems cannot reserve.
        if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
            path.unlink(missing_ok=True)
            raise


def _open(folder: Path, name: str, mode: str) -> np.memmap:
    try:
        return np.lib.format.open_memmap(folder / name, mode)
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise _damaged(folder, f"{name} cannot be read ({error})") from error


def _damaged(folder: Path, reason: str) -> ValueError:
    return ValueError(f"out={str(folder)!r} is damaged: {reason}. Delete it, then run again")
