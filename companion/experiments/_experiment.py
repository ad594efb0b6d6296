"""An experiment as a list of runs, each computed from its own configuration alone."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np
from tqdm.auto import tqdm

from companion import data, results
from companion._core.checks import count
from companion._core.words import Setting
from companion.results import Result
from companion.storage import fingerprint

Arrays = dict[str, np.ndarray]
Place = tuple[int, ...]  # of a run's arrays along the first axes of all
LISTS = MappingProxyType({"lists": True})


@runtime_checkable
class Configuration(Protocol):
    """A frozen dataclass of settings: `Config` of a module, a case, a variant."""

    __dataclass_fields__: Mapping[str, dataclasses.Field]


Part = Configuration | Setting


@dataclass(frozen=True)
class Job:
    """One run to make.

    Attributes:
        config: all that the run depends on, beside the pixels: dataclasses, texts, numbers, and tuples of
            these.
        label: names it, without its seed: "cifar10, PGD, constant rate".
        seed: of the run; runs of one label differ in it alone.
        dataset: names for `data.load`; empty where a run draws its own inputs.
        needs: runs whose arrays it takes, before which it cannot be made.
    """

    config: tuple[Part, ...]
    label: str
    seed: int
    dataset: str
    needs: tuple["Job", ...] = field(default=(), compare=False)


@dataclass(frozen=True, eq=False)
class Experiment:
    """What the engine has to know.

    Attributes:
        name: of its module and of the folder of its records.
        version: of what a run computes. Raise it when that changes: all runs are then made again.
        profiles: configurations by name.
        jobs: the runs of a configuration, the most telling first.
        compute: `compute(*job.config, *arrays of job.needs) -> arrays` of one run.
        gather: `gather(config, arrays by job) -> arrays` of all runs, NaN where one is missing.
        measured: which arrays of a run are measured times.
        checkpoints: whether `compute` takes a `folder`, in which a run that was cut off goes on.
        alone: whether its times are the result, so that it wants a machine of its own: it is made only where
            it is named, never as one of all.
    """

    name: str
    version: int
    profiles: Mapping[str, Configuration]
    jobs: Callable[[Configuration], Sequence[Job]]
    compute: Callable[..., Arrays]
    gather: Callable[[Configuration, Mapping[Job, Mapping[str, np.ndarray]]], Arrays]
    measured: tuple[str, ...] = ()
    checkpoints: bool = False
    alone: bool = False

    def key(self, job: Job) -> str:
        """The name of a run's record: label, seed, and a hash of all that it depends on but the pixels.

        Fields of a configuration that only say which runs there are have the metadata `LISTS` and do not
        count. A field that came later has the metadata `absent`: with that value, which means what was so
        before, it does not count either, and runs made without it stay.
        """
        return self.keys([job])[job]

    def keys(self, jobs: Sequence[Job]) -> dict[Job, str]:
        """`key` of every run and of those that it needs, in the order in which they can be made."""
        found: dict[Job, str] = {}
        written: dict[int, str] = {}  # hundreds of runs share the parts of their configurations
        for job in in_order(jobs):
            for part in job.config:
                if id(part) not in written:
                    written[id(part)] = json.dumps(plain(part, key=True), sort_keys=True)
            own = ", ".join(written[id(part)] for part in job.config)
            needs = json.dumps([found[need] for need in job.needs])
            known = f"[{json.dumps(self.name)}, {self.version}, [{own}], {needs}]"
            digest = hashlib.sha256(known.encode()).hexdigest()
            found[job] = f"{job.label}, seed {job.seed}, {digest[:12]}"
        return found

    def run(self, config: Configuration, *, progress: bool = False, folder: Path | None = None) -> Arrays:
        """Make all runs of a configuration here and now, and record none.

        Args:
            config: a profile's, or one like it.
            progress: show a tqdm bar.
            folder: of checkpoints, where the experiment has them.

        Returns:
            The arrays of `gather`.
        """
        made: dict[Job, Arrays] = {}
        jobs = list(in_order(self.jobs(config)))
        options = {"folder": folder} if self.checkpoints else {}
        for job in tqdm(jobs, desc=self.name, disable=not progress):
            made[job] = computed(self.compute, job.config, [made[need] for need in job.needs], options)
        return self.gather(config, made)

    def recorded(
        self,
        profile: str,
        *,
        complete: bool = True,
        seeds: int | None = None,
        folder: str | Path | None = None,
    ) -> Result:
        """What is recorded of a profile so far.

        Args:
            profile: its name.
            complete: of a profile that has `seeds`, whether those alone count, from 0 on, of which the runs
                of every label that was begun are recorded; else every run that is recorded counts.
            seeds: only runs of the first so many seeds, or splits, count; None for all.
            folder: as for `results.record`.

        Returns:
            The arrays of `gather`, NaN where there is no run. As provenance the configuration, with so many
            seeds; how many the profile plans; the seeds; the sum of the seconds, and of the seconds of cores;
            how many of how many `runs`; the data sets; the machines and JAX's versions, of all in words; and
            commit, device, versions and date of the latest run.

        Raises:
            FileNotFoundError: no seed is complete; the message gives the command that makes the rest.
            TypeError, ValueError: a profile that there is not; a number of seeds that is none.
        """
        if seeds is not None:
            count("seeds", seeds)
        if profile not in self.profiles:
            raise ValueError(f"{self.name} has no profile {profile!r}; it has {', '.join(self.profiles)}")
        config = planned = self.profiles[profile]
        records = results.read_runs(results.place_of(self.name, folder))
        nothing = FileNotFoundError(
            f"no seed of {self.name}, profile {profile!r}, is recorded whole. Make what is missing with: "
            f"python -m companion.experiments {self.name} --profile {profile}"
        )
        if not records:  # keys of hundreds of runs take time
            raise nothing
        keys = self.keys(self.jobs(config))
        if hasattr(config, "seeds"):
            there = {job: key in records and _among(job, seeds) for job, key in keys.items()}
            begun = {job.label for job, done in there.items() if done}
            missing = [job.seed for job, done in there.items() if not done and job.label in begun]
            last = max((job.seed + 1 for job, done in there.items() if done), default=0)
            config = replace(config, seeds=min(missing, default=last) if complete else last)
        jobs = list(in_order(self.jobs(config)))
        named = keys | self.keys([job for job in jobs if job not in keys])
        found = {job: records[named[job]] for job in jobs if named[job] in records and _among(job, seeds)}
        if not found:
            raise nothing
        origins = [one.origin for one in found.values()]
        latest = max(origins, key=lambda one: one["date"])
        provenance = {
            "experiment": self.name,
            "profile": profile,
            "config": plain(config),
            "planned_seeds": getattr(planned, "seeds", None),
            "dataset": "; ".join(dict.fromkeys(one["source"] for one in origins)),
            "seeds": sorted({job.seed for job in found}),
            "seconds": sum(one["seconds"] for one in origins),
            "core_seconds": sum(one["seconds"] * one["device"]["cores"] for one in origins),
            "runs": (len(found), len(keys)),
            "machines": results.machines(origins),
            "jax": ", ".join(sorted({one["versions"]["jax"] for one in origins})),
            **{name: latest[name] for name in ("commit", "device", "versions", "date")},
        }
        arrays = self.gather(config, {job: one.arrays for job, one in found.items()})
        return Result(MappingProxyType({}), MappingProxyType(arrays), MappingProxyType(provenance))


def _among(job: Job, seeds: int | None) -> bool:
    return seeds is None or job.seed < seeds


def computed(
    compute: Callable[..., Arrays],
    config: tuple[Part, ...],
    needed: Sequence[Mapping[str, np.ndarray]],
    options: Mapping[str, Path | None],
) -> Arrays:
    """The arrays of one run, in float32 as its record has them."""
    found = compute(*config, *needed, **options)
    return {name: np.asarray(value).astype(np.float32) for name, value in found.items()}


def in_order(jobs: Sequence[Job]) -> Iterator[Job]:
    """Every job once, after those that it needs."""
    seen: set[Job] = set()
    for job in jobs:
        for one in (*in_order(job.needs), job):
            if one not in seen:
                seen.add(one)
                yield one


def pixels(dataset: str) -> dict[str, str]:
    """Where a data set's pixels come from, and a fingerprint of some hundreds of them."""
    if not dataset:
        return {"source": "drawn by the experiment", "pixels": ""}
    images = data.load(dataset, n_train=200, n_test=200)
    parts = (images.x_train, images.y_train, images.x_test, images.y_test)
    return {"source": images.source, "pixels": fingerprint([np.asarray(part) for part in parts])}


def filled(shape: Place, found: Mapping[Place, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of all runs: the runs' own at their places along the first axes, NaN elsewhere.

    Args:
        shape: of the first axes.
        found: arrays of a run by its place; arrays of one name may differ in length, and get NaN behind.

    Returns:
        Of each name, `shape` and then the largest lengths.
    """
    names = dict.fromkeys(itertools.chain.from_iterable(found.values()))
    arrays = {}
    for name in names:
        values = {place: np.asarray(one[name]) for place, one in found.items() if name in one}
        longest = np.max([value.shape for value in values.values()], axis=0).astype(int)
        arrays[name] = np.full((*shape, *longest), np.nan, np.float32)
        for place, value in values.items():
            arrays[name][(*place, *(slice(length) for length in value.shape))] = value
    return arrays


def plain(value: Part, *, key: bool = False) -> Setting:
    """A configuration as JSON; for a key without the fields that do not count."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            one.name: plain(getattr(value, one.name), key=key)
            for one in dataclasses.fields(value)
            if not (key and _ignored(one, getattr(value, one.name)))
        }
    if isinstance(value, Mapping):
        return {str(name): plain(item, key=key) for name, item in value.items()}
    if isinstance(value, tuple | list | range):
        return [plain(item, key=key) for item in value]
    return value


def _ignored(one: dataclasses.Field, value: Part) -> bool:
    return one.metadata.get("lists", False) or ("absent" in one.metadata and value == one.metadata["absent"])
