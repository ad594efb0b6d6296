"""Find a data set's file: in NTK_DATA_HOME, in the cache, or, checked against its published hash, online."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from companion._core.extras import missing

_STALE_SECONDS = 3600


@dataclass(frozen=True)
class Remote:
    """One official file.

    Attributes:
        name: its file name, also in the cache.
        known_hash: "md5:…" or "sha256:…" as published.
        folders: the addresses to try, in this order; each ends in "/".
        also: other names it may have in NTK_DATA_HOME, where it may lie unpacked.
    """

    name: str
    known_hash: str
    folders: tuple[str, ...]
    also: tuple[str, ...] = ()


def cache_folder() -> Path:
    """Return the folder of the user's cache that downloads are kept in (it may not exist yet)."""
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise missing("pooch", "data") from error

    return Path(pooch.os_cache("ntk-robustness"))


def home_folders(name: str) -> list[Path]:
    """List the folders of NTK_DATA_HOME where the files of one data set may lie, most special first.

    Args:
        name: the data set.

    Returns:
        `[<home>/<name>, <home>]`, or `[]` where NTK_DATA_HOME is not set.

    Raises:
        FileNotFoundError: NTK_DATA_HOME names no folder.
    """
    value = os.environ.get("NTK_DATA_HOME", "")
    if not value:
        return []
    home = Path(value).expanduser()
    if not home.is_dir():
        # A typing error here would otherwise start a download.
        raise FileNotFoundError(f"NTK_DATA_HOME is {value!r}, which is no folder. Correct or unset it.")
    return [home / name, home]


def find(name: str, remote: Remote, *, download: bool, progress: bool) -> Path:
    """Return the path of one official file, downloaded if that is allowed and needed.

    Files in the cache are checked against the published hash each time. Files in NTK_DATA_HOME are the user's
    own: only their format and labels are checked, when they are read.

    Args:
        name: the data set the file belongs to; its own folder in the cache.
        remote: the file.
        download: whether the network may be used.
        progress: whether to show a bar.

    Returns:
        A file, or a folder for an archive that lies unpacked in NTK_DATA_HOME.

    Raises:
        FileNotFoundError: it is nowhere, and downloading was not allowed or failed.
        OSError: the cache cannot be read or written.
    """
    folders = home_folders(name)
    for folder in folders:
        for candidate in (remote.name, *remote.also):
            if (folder / candidate).exists():
                return folder / candidate
    cached = cache_folder() / name / remote.name
    if _matches(cached, remote.known_hash):
        return cached
    reasons = ["the copy in the cache is damaged"] if cached.is_file() else []
    if download:
        _remove_stale(cached.parent)
        for address in remote.folders:
            try:
                return _retrieve(address + remote.name, remote, cached.parent, progress)
            except (OSError, ValueError) as error:
                reasons.append(f"{address + remote.name}: {_reason(error, cached)}")
    else:
        reasons.append("download=False")
    looked = ", ".join(str(folder) for folder in [*folders, cached.parent])
    raise FileNotFoundError(
        f"{name}: {remote.name} was looked for in {looked}, and was not downloaded ({'; '.join(reasons)}). "
        f"Try again with a network and download=True, or put the official file into <folder>/{name}/ and set "
        "NTK_DATA_HOME=<folder>. load('mnist5k') gives 5,000 real digits without any download."
    )


def _retrieve(url: str, remote: Remote, folder: Path, progress: bool) -> Path:
    """Download with pooch, which writes to a temporary name, checks the hash and only then renames."""
    import pooch
    from tqdm import tqdm

    # Any total but none: pooch asks for the bar's truth before it sets the real one.
    options = {"desc": remote.name, "unit": "B", "unit_scale": True, "total": 1, "disable": not progress}
    with _quiet(), tqdm(**options) as bar:
        return Path(pooch.retrieve(url, remote.known_hash, fname=remote.name, path=folder, progressbar=bar))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pooch from announcing a download with the whole path; the bar says enough."""
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def _matches(path: Path, known_hash: str) -> bool:
    """Tell whether the file is there and has the hash."""
    import pooch

    algorithm, _, value = known_hash.partition(":")
    return path.is_file() and pooch.file_hash(str(path), alg=algorithm) == value


def _remove_stale(folder: Path) -> None:
    """Remove what a killed download left: pooch names it tmp… and nothing else ever cleans it up."""
    for path in folder.glob("tmp*"):
        try:
            # A live download writes every few seconds, or pooch gives up on it after thirty.
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
        except OSError:
            continue


def _reason(error: Exception, cached: Path) -> str:
    """Say in one line why a download failed; a fault of the cache folder itself is raised at once."""
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, exceptions.Timeout):
        return "no answer in time"
    if isinstance(error, exceptions.ChunkedEncodingError):
        return "the connection broke off; nothing was kept"
    if isinstance(error, exceptions.ConnectionError):
        return "no connection"
    if isinstance(error, OSError) and not isinstance(error, exceptions.RequestException):
        raise type(error)(
            error.errno,
            f"{error.strerror or error}: the cache cannot take {cached.name}. Make the folder writable, or "
            "set XDG_CACHE_HOME (Linux) to one that is, or NTK_DATA_HOME to a folder that holds the file",
            str(cached.parent),
        ) from error
    if isinstance(error, ValueError) and not isinstance(error, exceptions.RequestException):
        return "what came has the wrong checksum (a proxy's page, or a changed file?) and was deleted"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
