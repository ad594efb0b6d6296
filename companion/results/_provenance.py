"""Where a result comes from: commit, device, versions, date; and no name of the machine or of its folders."""

import math
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import companion
from companion._core.checks import count, number
from companion._core.versions import versions
from companion._core.words import Setting, Settings, Unchecked

# A path from the root or the home folder, in Unix's or Windows's words: the whole text, or a part of it.
_ABSOLUTE = re.compile(
    r"""^[~/] | file:/ | (?:^|[\s"'(=,\[]) (?: ~/ | ~?/[\w.~-]+/ | [A-Za-z]:[\\/] | \\\\\w )""", re.VERBOSE
)


def provenance(
    experiment: str,
    profile: str,
    *,
    config: Mapping[str, Unchecked],
    dataset: str,
    seeds: Iterable[int],
    seconds: float | int,
) -> dict[str, Setting]:
    """Collect what is needed to make a result again and to judge it.

    Args:
        experiment: its name.
        profile: its profile.
        config: its settings.
        dataset: where the pixels came from.
        seeds: the seeds it is over.
        seconds: how long it took.

    Returns:
        These, with the commit of companion's code, the device, the versions and the date (UTC).

    Raises:
        ValueError: a text with an absolute path, NaN or infinity.
        TypeError: a setting that JSON cannot hold.
    """
    if not isinstance(dataset, str):
        raise TypeError(f"dataset must be a text, such as Dataset.source, got {dataset!r}")
    return {
        "experiment": experiment,
        "profile": profile,
        "config": settings("config", config),
        "dataset": plain("dataset", dataset),
        "seeds": [count("each of seeds", seed, least=0) for seed in seeds],
        "seconds": round(plain("seconds", number("seconds", seconds)), 3),
        **here(),
    }


def here() -> dict[str, Setting]:
    """Commit of companion's code, device, versions and date of what is computed now.

    Returns:
        "commit", "device", "versions" and "date" (UTC), as a record holds them.
    """
    return {
        "commit": commit(Path(companion.__file__).parent),
        "device": _device(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machines(origins: Iterable[Settings]) -> str:
    """Name the devices of runs in words: one, or each with its number of runs, the most first.

    Args:
        origins: of the runs, each with a "device" as `here` has it.

    Returns:
        For instance "2 CPU cores", or "CPU cores (278 runs), NVIDIA H100 (101 runs)".
    """
    devices = [origin["device"] for origin in origins]
    names = Counter(_named(device) for device in devices)
    if set(names) == {"CPU cores"}:
        cores = sorted({device["cores"] for device in devices})
        plural = "" if cores == [1] else "s"
        return f"{'–'.join(map(str, dict.fromkeys((cores[0], cores[-1]))))} CPU core{plural}"
    if len(names) == 1:
        return next(iter(names))
    return ", ".join(f"{name} ({runs} run{'' if runs == 1 else 's'})" for name, runs in names.most_common())


def _named(device: Settings) -> str:
    if device["platform"] == "cpu":
        return "CPU cores"
    return f"{device['count']} × {device['kind']}" if device["count"] > 1 else device["kind"]


def commit(package: Path) -> str:
    """Return the commit that the code of `package` is at.

    Args:
        package: a folder of code.

    Returns:
        40 hexadecimal digits, with "+changes" where files in the folder differ from that commit, or "unknown"
        where git or the repository is missing or does not track the folder (an installed package, say).
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout.strip()

    try:
        # Without this, a package installed inside someone else's repository would be given their commit.
        if not git("ls-files", "--", "."):
            return "unknown"
        changed = git("status", "--porcelain", "--", ".")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def settings(where: str, value: Unchecked) -> dict[str, Setting]:
    """Check that a value is a mapping, and make it plain."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{where} must be a mapping from names, got {value!r}")
    return plain(where, value)


def plain(where: str, value: Unchecked) -> Setting:
    """Turn a value into what strict JSON can hold and give back unchanged.

    Args:
        where: its name, for errors.
        value: text, boolean, None, finite number (of NumPy or JAX too), or a list, tuple or mapping of these.

    Returns:
        The same in plain Python; tuples become lists.

    Raises:
        ValueError: NaN, infinity, or an absolute path.
        TypeError: anything else, arrays included.
    """
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: keys must be strings, got {key!r}")
        return {plain(where, key): plain(f"{where}[{key!r}]", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(f"{where}[{i}]", item) for i, item in enumerate(value)]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, which JSON cannot hold: put it into arrays, or write None")
        return value
    if isinstance(value, str):
        if _ABSOLUTE.search(value):
            raise ValueError(f"{where} holds a path of this machine, {value!r}: record a name instead")
        return str(value)
    kind = "an array (put it into arrays)" if isinstance(value, np.ndarray) or hasattr(value, "ndim") else ""
    raise TypeError(
        f"{where} must be text, number, boolean, None, list or mapping, got {kind or repr(value)}"
    )


def _device() -> dict[str, Setting]:
    """Describe the accelerator that JAX uses first."""
    import jax

    from companion._core.compile import cores

    devices = jax.devices()
    return {
        "kind": devices[0].device_kind,
        "platform": devices[0].platform,
        "count": len(devices),
        "cores": cores(),
    }
