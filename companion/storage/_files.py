"""Files written whole or not at all, by one process at a time; errors of disk and damaged files by name."""

import contextlib
import errno
import os
import secrets
import shutil
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

try:
    import fcntl
except ImportError:  # Not on Windows, where two writers are not told apart.
    fcntl = None

Content = bytes | np.ndarray | Mapping[str, np.ndarray]


def place(path: str | os.PathLike) -> Path:
    """A path that a user gave, with `~` for the home folder."""
    return Path(path).expanduser()


def write_atomically(path: Path, content: Content) -> None:
    """Write `path` under a temporary name in the same folder, then rename it.

    A reader sees the old file, the new file or none, never half of one, whatever stops the writer.

    Args:
        path: the final name; missing parent folders are made.
        content: bytes as they are, an array as npy, or arrays by name as npz.

    Raises:
        OSError: the file cannot be written; the old one is untouched. See `writing`.
    """
    with writing(path, _bytes(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        # Opened by name, not with tempfile, whose 0600 would make the final file private to one user.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
        try:
            # With "x+b" NumPy writes through Python, whose errors say what the disk said.
            with temporary.open("x+b") as file:
                _write(file, content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(path: Path, wanted: int) -> Iterator[None]:
    """Say with an error of the disk which file it was, how many bytes it wanted and how many are free."""
    try:
        yield
    except OSError as error:
        there = next((folder for folder in path.absolute().parents if folder.is_dir()), None)
        free = "an unknown number of" if there is None else f"{shutil.disk_usage(there).free:,}"
        reason = f"{error.strerror or error}: {wanted:,} bytes wanted, {free} bytes free"
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file; or a ValueError that names the file."""
    try:
        # Opened here, because NumPy forgets to close a file that turns out to be broken.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is no archive of arrays")
            return dict(archive)
    except OSError:
        raise
    except Exception as error:  # A broken zip or header raises whatever zipfile, zlib or tokenize do.
        raise damaged(path, error) from error


def read_array(path: Path) -> np.ndarray:
    """The array of an npy file; or a ValueError that names the file."""
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:
        raise damaged(path, error) from error


def damaged(path: Path, reason: object) -> ValueError:
    return ValueError(f"{path} is damaged or of another kind: {reason}. Delete it, or give another folder")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder alone; the system lets go of it when the process ends, however it ends."""
    lock = _lock(folder)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


@dataclass(frozen=True, eq=False)
class Hold:
    """A folder held by this process, for as long as someone keeps this object."""

    folder: Path


_held: weakref.WeakValueDictionary[Path, Hold] = weakref.WeakValueDictionary()


def held(folder: Path) -> Hold:
    """Hold the folder for this process, whose own writers share it."""
    folder = folder.absolute()
    hold = _held.get(folder)
    if hold is None:
        lock, hold = _lock(folder), Hold(folder)
        if lock is not None:
            weakref.finalize(hold, os.close, lock)
        _held[folder] = hold
    return hold


def _lock(folder: Path) -> int | None:
    """The open lock of a folder; None where there are no locks, or nobody here could write anyway."""
    path = folder / "lock"
    with writing(path, 0):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            if not path.exists():
                return None
            lock = os.open(path, os.O_RDONLY)
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        writer = os.pread(lock, 20, 0).decode(errors="replace")
        os.close(lock)
        raise ValueError(
            f"folder {str(folder)!r} is being written by process {writer}: wait, or end it"
        ) from None
    except OSError as error:
        # Some network file systems have no locks.
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK):
            os.close(lock)
            raise
    with contextlib.suppress(OSError):  # Only for the message: a full disk or a read-only lock is no harm.
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
    return lock


def _bytes(content: Content) -> int:
    if isinstance(content, Mapping):
        return sum(np.asarray(array).nbytes for array in content.values())
    return len(content) if isinstance(content, bytes) else content.nbytes


def _write(file: BinaryIO, content: Content) -> None:
    if isinstance(content, bytes):
        file.write(content)
    elif isinstance(content, Mapping):
        np.savez(file, **content)
    else:
        np.save(file, content)


def _remove_stale(path: Path) -> None:
    """Remove what writers killed more than an hour ago left of `path`."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > 3600:
                part.unlink()
