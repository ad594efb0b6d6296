"""Records that grow run by run: two text files for an experiment, a line for a run, sorted by name.

`runs.jsonl` holds what runs computed and nothing else, so that the same runs give the same bytes in whatever
order, on however many machines, and after however many kills they were made. `origins.jsonl` holds where
each comes from: configuration, commit, versions, device, date, and seconds, which differ every time.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from companion._core.words import Settings, Unchecked
from companion.results._provenance import settings
from companion.storage import damaged, held, place, write_atomically

VALUES, ORIGINS = "runs.jsonl", "origins.jsonl"
Encoded = list[list[int | float | str]]  # an array's shape and its numbers


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """What one run left.

    Attributes:
        arrays: float32, read-only; NaN and infinity are kept.
        origin: its configuration, data, commit, versions, device, date and seconds.
    """

    arrays: Mapping[str, np.ndarray]
    origin: Settings


@dataclass(frozen=True)
class Merged:
    """What `merge` did.

    Attributes:
        added: runs that the target lacked.
        same: runs that both had, with equal values.
        other: names of runs that both had with other values; the target's stay.
    """

    added: int
    same: int
    other: tuple[str, ...] = field(default=())


def read_runs(folder: str | Path) -> dict[str, RecordedRun]:
    """All runs of a folder by name.

    Args:
        folder: with `runs.jsonl` and `origins.jsonl`; one without them has no runs.

    Returns:
        The runs that stand in both files, sorted by name.

    Raises:
        ValueError: a damaged file, by its name.
    """
    values, origins = _lines(place(folder) / VALUES), _lines(place(folder) / ORIGINS)
    found = {}
    for name in sorted(values.keys() & origins.keys()):
        origin = dict(origins[name])
        measured = origin.pop("measured", {})
        try:
            arrays = {key: _decoded(array) for key, array in (values[name] | measured).items()}
        except (ValueError, TypeError) as error:
            raise damaged(place(folder) / VALUES, f"run {name!r}: {error}") from error
        found[name] = RecordedRun(arrays, origin)
    return found


def add_run(
    folder: str | Path,
    name: str,
    arrays: Mapping[str, Unchecked],
    origin: Settings,
    *,
    measured: Iterable[str] = (),
) -> None:
    """Add one run, or replace it; the others keep their bytes.

    Both files are written aside and renamed, values last: a run that a kill cut off is not there.

    Args:
        folder: made if it is missing.
        name: of the run; a name that is there already is replaced.
        arrays: by name; rounded to float32.
        origin: finite numbers, texts, lists and mappings.
        measured: which of `arrays` are measured times, and so differ every time.

    Raises:
        TypeError, ValueError: a name that is no text, arrays that are no numbers of float32, `measured` that
            are none of them, a damaged file, `origin` with a path, another process that writes there.
        OSError: the folder cannot be written; what it holds is untouched.
    """
    folder, measured = place(folder), set(measured)
    if not isinstance(name, str):
        raise TypeError(f"name must be a text, got {name!r}")
    if lacking := measured - arrays.keys():
        raise ValueError(f"measured must name some of the arrays {sorted(arrays)}, got {sorted(lacking)}")
    encoded = {key: _encoded(value) for key, value in arrays.items()}
    kept = {key: value for key, value in encoded.items() if key not in measured}
    times = {key: value for key, value in encoded.items() if key in measured}
    line = settings("origin", origin) | ({"measured": times} if times else {})
    hold = held(folder)
    for file, new in ((ORIGINS, line), (VALUES, kept)):
        _write(folder / file, _lines(folder / file) | {name: new})
    del hold


def merge(source: str | Path, target: str | Path) -> Merged:
    """Add the runs of one folder to those of another.

    Args:
        source: of another machine, say; it is only read.
        target: takes what it lacks.

    Returns:
        How many were added, and which runs the two have with different values.

    Raises:
        ValueError: a damaged file, or another process that writes to the target.
        OSError: the target cannot be written.
    """
    source, target = place(source), place(target)
    hold = held(target)
    theirs = [_lines(source / file) for file in (ORIGINS, VALUES)]
    ours = [_lines(target / file) for file in (ORIGINS, VALUES)]
    names = theirs[0].keys() & theirs[1].keys()
    both = names & ours[0].keys() & ours[1].keys()
    _same_pixels([theirs[0][name] for name in names - both], list(ours[0].values()))
    if names - both:
        for file, mine, their in zip((ORIGINS, VALUES), ours, theirs, strict=True):
            _write(target / file, mine | {name: their[name] for name in names - both})
    del hold
    other = tuple(sorted(name for name in both if ours[1][name] != theirs[1][name]))
    return Merged(len(names - both), len(both) - len(other), other)


def _same_pixels(new: list[Settings], old: list[Settings]) -> None:
    known = {one.get("dataset"): one for one in old}
    for one in new:
        there = known.get(one.get("dataset"), one)
        if one.get("pixels") != there.get("pixels"):
            raise ValueError(
                f"{one['dataset']} has other pixels in source ({one['source']}) than in target "
                f"({there['source']}): keep their runs in folders of their own"
            )


def _lines(path: Path) -> dict[str, Settings]:
    """The lines of a file by name; a file that is not there has none."""
    if not path.exists():
        return {}
    found = {}
    # Not splitlines, to which some signs within a text end a line too.
    for number, line in enumerate(path.read_text("utf8").removesuffix("\n").split("\n"), start=1):
        try:
            name, value = json.loads(line)
            found[name] = dict(value)
        except (ValueError, TypeError) as error:
            raise damaged(path, f"line {number}: {error}") from error
    return found


def _write(path: Path, lines: Mapping[str, Settings]) -> None:
    text = "".join(
        json.dumps([name, lines[name]], ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        for name in sorted(lines)
    )
    write_atomically(path, text.encode())


def _encoded(value: Unchecked) -> Encoded:
    """An array as its shape and numbers, as few digits as give float32 back; NaN and infinity as texts."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"a run's arrays must hold booleans or real numbers, got {array.dtype}")
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if (np.isinf(single) & np.isfinite(array)).any():
        raise ValueError("a run's arrays must hold numbers of float32, and one is larger")
    array = single
    numbers = [float(str(x)) if np.isfinite(x) else str(x) for x in array.ravel()]
    return [list(array.shape), [int(x) if isinstance(x, float) and x.is_integer() else x for x in numbers]]


def _decoded(value: Encoded) -> np.ndarray:
    shape, numbers = value
    array = np.array([float(x) for x in numbers], np.float32).reshape(shape)
    array.setflags(write=False)
    return array
