"""A result's two files: written whole, read back and compared with their hash."""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from companion._core.words import Settings, Unchecked
from companion.results._provenance import machines, provenance, settings
from companion.storage import place, write_atomically

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, eq=False)
class Result:
    """A recorded result.

    Attributes:
        values: the numbers and texts, as recorded; tuples come back as lists.
        arrays: read-only NumPy arrays.
        provenance: experiment, profile, commit, device, versions, date, seconds, seeds, dataset and config.
    """

    values: Settings
    arrays: Mapping[str, np.ndarray]
    provenance: Settings


def record(
    experiment: str,
    profile: str,
    *,
    values: Mapping[str, Unchecked],
    arrays: Mapping[str, Unchecked] | None = None,
    config: Mapping[str, Unchecked],
    dataset: str,
    seeds: Iterable[int],
    seconds: float | int,
    folder: str | Path | None = None,
) -> Path:
    """Write a result with its provenance; an earlier one of the same names is replaced.

    Both files are written to temporary names first and then renamed, arrays before values. If the process
    dies between the two renames, `load` sees that they do not belong together and says so.

    Args:
        experiment: the module under `companion.experiments`, such as "convergence".
        profile: "quick", "full" or "paper".
        values: finite numbers, texts, booleans, None, and lists and mappings of these. NaN and infinity,
            which JSON has no words for, are refused: put them into `arrays`, or write None.
        arrays: arrays of booleans or numbers, NaN and infinity included.
        config: the experiment's settings, of the same kinds as `values`.
        dataset: where the pixels came from: `Dataset.source`.
        seeds: the seeds that the result is over.
        seconds: how long it took.
        folder: where results are kept. Default: book/results of the checkout that companion runs from, else
            of the current folder.

    Returns:
        The path of the JSON file.

    Raises:
        ValueError: NaN or infinity; an absolute path, which says nothing on another machine; a bad name.
        TypeError: an entry that JSON or npz cannot hold.
    """
    target = _target(experiment, profile, folder)
    if not isinstance(seeds, Iterable) or not (seeds := list(seeds)):
        raise ValueError(f"seeds must be the seeds that the result is over, one or more, got {seeds!r}")
    content = {
        "values": settings("values", values),
        "provenance": provenance(
            experiment,
            profile,
            config=config,
            dataset=dataset,
            seeds=seeds,
            seconds=seconds,
        ),
        "arrays_sha256": None,
    }
    checked = {_word("arrays", name): _array(name, value) for name, value in (arrays or {}).items()}
    if checked:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **checked)
        content["arrays_sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    if checked:
        write_atomically(target.with_suffix(".npz"), buffer.getvalue())
    write_atomically(target, text.encode())
    if not checked:
        target.with_suffix(".npz").unlink(missing_ok=True)
    return target


def load(experiment: str, profile: str, *, folder: str | Path | None = None) -> Result:
    """Load a recorded result.

    Args:
        experiment: as recorded.
        profile: as recorded.
        folder: as for `record`.

    Returns:
        The values, the arrays and the provenance.

    Raises:
        FileNotFoundError: it was never recorded; the message gives the command that makes it.
        ValueError: the JSON is broken, or the arrays beside it are missing or belong to another run.
    """
    target = _target(experiment, profile, folder)
    cure = f"Make it with: python -m companion.experiments.{experiment} --profile {profile}"
    try:
        text = target.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"no result {target}. {cure}") from None
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
        values, origin, expected = content["values"], content["provenance"], content["arrays_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{target} is no recorded result ({error!r}). {cure}") from error
    arrays = {}
    if expected is not None:
        beside = target.with_suffix(".npz")
        if not beside.exists():
            raise ValueError(f"{target} needs {beside.name}, which is missing. {cure}")
        packed = beside.read_bytes()
        if hashlib.sha256(packed).hexdigest() != expected:
            raise ValueError(f"{beside} belongs to another run than {target.name}: its hash differs. {cure}")
        with np.load(io.BytesIO(packed), allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in npz.files}
        for array in arrays.values():
            array.setflags(write=False)
    return Result(MappingProxyType(values), MappingProxyType(arrays), MappingProxyType(origin))


def caption(result: Result) -> str:
    """Tell in one line where a result comes from, for the text under a figure.

    Args:
        result: as loaded.

    Returns:
        For instance "full profile · 3 seeds · CIFAR-10 (JPEG copy) · NVIDIA H100 · 412 s · jax 0.11.2 ·
        commit abc1234".
    """
    origin = result.provenance
    seeds = len(origin["seeds"])
    commit, changes = re.fullmatch(r"([^+]*)(\+changes)?", origin["commit"]).groups("")
    parts = (
        f"{origin['profile']} profile",
        f"{seeds} seed{'' if seeds == 1 else 's'}",
        origin["dataset"],
        origin.get("machines") or machines([origin]),
        _duration(float(origin["seconds"])),
        f"jax {origin.get('jax') or origin['versions']['jax']}",
        f"commit {commit[:7]}{changes}",
    )
    return " · ".join(parts)


def _duration(seconds: float) -> str:
    """Round to what a reader compares: two figures, whole seconds, or hours."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"
    return f"{seconds:,.0f} s" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def place_of(experiment: str, folder: str | Path | None = None) -> Path:
    """Where an experiment's results and runs are kept.

    Args:
        experiment: as for `record`.
        folder: as for `record`.

    Returns:
        The path, whether it exists or not.

    Raises:
        TypeError, ValueError: a name that cannot be a folder's.
    """
    if folder is None:
        root = _PACKAGE.parent
        folder = (root if (root / "pyproject.toml").is_file() else Path()) / "book" / "results"
    return place(folder) / _word("experiment", experiment)


def _target(experiment: Unchecked, profile: Unchecked, folder: str | Path | None) -> Path:
    """Return the path of the JSON file."""
    return place_of(experiment, folder) / f"{_word('profile', profile)}.json"


def _word(argument: str, name: Unchecked) -> str:
    """Check a name that becomes part of a file name, of a module's name or a key of an npz."""
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be named by a string, got {name!r}")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(
            f"{argument}: a name has letters, digits and _ and starts with a letter, got {name!r}"
        )
    return name


def _array(name: str, value: Unchecked) -> np.ndarray:
    """Check one array."""
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"arrays[{name!r}] must hold booleans or numbers, got {array.dtype}")
    return array


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")
