"""A matrix on disk that is filled tile by tile and survives the death of its writer at any moment.

A folder holds `gram.json` (what the matrix is of), `kernel.npy` (the matrix), `done.npy` (which tiles are
finished) and `lock`. They are made in this order, and `done.npy` whole or not at all: where it exists, the
others are complete. A tile's data reach the disk before its mark does.
"""

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

try:
    import fcntl
except ImportError:  # Not on Windows, where two writers are not told apart.
    fcntl = None

import companion
from companion._compile import Kind
from companion._formats import read_limited, write_atomically
from companion._plan import compiled, local_devices

SECONDS_BETWEEN_MARKS = 2.0
_FINGERPRINT_INPUTS = 4


def _sha256(x: np.ndarray) -> str:
    """Hash an array's shape, dtype and values, a little at a time."""
    digest = hashlib.sha256(f"{x.shape} {x.dtype.str} ".encode())
    for start in range(0, len(x), 1024):
        digest.update(np.ascontiguousarray(x[start : start + 1024]))
    return digest.hexdigest()


def identity(
    kernel: Any, kind: Kind, x1: np.ndarray, x2: np.ndarray | None, dtype: np.dtype
) -> dict[str, Any]:
    """Everything that decides the bytes of the matrix, but for the tiles."""
    function, devices = getattr(kernel, "kernel", kernel), local_devices()
    other = x1 if x2 is None else x2
    few = [np.ascontiguousarray(x[:_FINGERPRINT_INPUTS]) for x in (x1, other)]
    specs = [(x.shape, x.dtype.name) for x in few]
    block = compiled(function, kind, *specs, devices[:1], jax.config.jax_enable_x64)
    values = np.asarray(block(*(jax.device_put(x, devices[0]) for x in few)))
    packages = ("jax", "jaxlib", "neural-tangents")
    return {
        "format": 1,
        "kind": kind,
        "shape": [len(x1), len(other)],
        "dtype": dtype.name,
        "x1": _sha256(x1),
        "x2": None if x2 is None else _sha256(x2),
        "kernel": getattr(kernel, "name", None) or getattr(kernel, "__qualname__", type(kernel).__name__),
        "devices": f"{len(devices)} × {devices[0].device_kind}",
        "versions": {"companion": companion.__version__}
        | {package: importlib.metadata.version(package) for package in packages},
        "kernel's values": hashlib.sha256(values.tobytes()).hexdigest(),
    }


def stored_tile(folder: Path, identity: dict[str, Any]) -> tuple[int, int] | None:
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
        stored = json.loads(read_limited(path, limit=1 << 20))
        tile = tuple(stored.pop("tile"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"gram.json cannot be read ({error})") from error
    for field in [*identity, *(stored.keys() - identity.keys())]:
        was, now = stored.get(field), identity.get(field)
        if was != now:
            raise ValueError(
                f"out={str(folder)!r} holds another matrix: {field} was {was}, now it is {now}. "
                "Give another folder, or delete this one"
            )
    return tile


def finished(folder: Path) -> np.ndarray | None:
    """Return the matrix, read-only, if every tile of it is done."""
    if not (folder / "done.npy").exists() or not _open(folder, "done.npy", "r").all():
        return None
    return _open(folder, "kernel.npy", "r")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder alone; the system lets go of it when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"out={str(folder)!r} is being written by process {file.read().strip()}: wait, or end it"
            ) from None
        except OSError as error:
            # Some network file systems have no locks.
            if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK):
                raise
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def opened(
    folder: Path,
    identity: dict[str, Any],
    tile: tuple[int, int],
    tiles: int,
    shape: tuple[int, int],
    dtype: Any,
) -> tuple[np.memmap, np.memmap]:
    """Open the matrix and the marks for writing, making what is not there; the folder must be locked."""
    path = folder / "kernel.npy"
    if not (folder / "done.npy").exists():
        text = json.dumps({**identity, "tile": tile}, indent=1, ensure_ascii=False)
        write_atomically(folder / "gram.json", lambda file: file.write(text.encode()))
        np.lib.format.open_memmap(path, "w+", dtype, shape)
        _reserve(path)
        write_atomically(folder / "done.npy", lambda file: np.save(file, np.zeros(tiles, bool)))
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


def _reserve(path: Path) -> None:
    """Take the room on the disk now: a full disk would otherwise end the process in the middle."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                path.unlink()
                raise


def _open(folder: Path, name: str, mode: str) -> np.memmap:
    try:
        return np.lib.format.open_memmap(folder / name, mode)
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise _damaged(folder, f"{name} cannot be read ({error})") from error


def _damaged(folder: Path, reason: str) -> ValueError:
    return ValueError(f"out={str(folder)!r} is damaged: {reason}. Delete it, then run again")
