"""Make the runs that are missing: here or on any executor, for so many minutes, one record after another."""

import functools
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from companion import results
from companion._core.checks import submits
from companion._core.words import Settings
from companion.experiments._experiment import Arrays, Experiment, Job, Part, computed, pixels, plain
from companion.experiments._forecast import durations
from companion.results import RecordedRun
from companion.storage import held

# What a worker is sent, and what it sends back: arrays, and where they come from.
Work = tuple[Callable[..., Arrays], tuple[Part, ...], list[Mapping[str, np.ndarray]], Path | None]
Made = tuple[Arrays, Settings]


@dataclass(frozen=True)
class Status:
    """How far an experiment is.

    Attributes:
        done: runs recorded.
        missing: runs not recorded.
        seconds: of the recorded.
        core_seconds: the same times the cores that each had; runs that shared them count whole.
        left: expected seconds of the missing; None where nothing of the experiment is recorded.
        guessed: of how many of the missing no run of the same kind, or none of the same data set, is.
    """

    done: int
    missing: int
    seconds: float
    core_seconds: float
    left: float | None
    guessed: int


def status(experiment: Experiment, jobs: Sequence[Job], folder: Path | None = None) -> Status:
    """How many of these runs are recorded, and how long the others will take.

    Args:
        experiment: which.
        jobs: its runs, as `experiment.jobs(config)` lists them; those that they need count too.
        folder: of the records, as for `results.record`.

    Returns:
        Numbers and seconds.
    """
    records = results.read_runs(results.place_of(experiment.name, folder))
    keys = experiment.keys(jobs)
    made = [records[key] for key in keys.values() if key in records]
    missing = [job for job, key in keys.items() if key not in records]
    guess = durations(experiment, jobs, records)
    forecasts = [guess(job) for job in missing]
    times = [one.seconds for one in forecasts]
    left = None if None in times else float(sum(times))
    origins = [one.origin for one in made]
    return Status(
        len(made),
        len(missing),
        float(sum(one["seconds"] for one in origins)),
        float(sum(one["seconds"] * one["device"]["cores"] for one in origins)),
        left,
        sum(not one.known for one in forecasts),
    )


def campaign(
    plan: Sequence[tuple[Experiment, Sequence[Job]]],
    *,
    folder: Path | None = None,
    minutes: float | int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> int:
    """Make the runs that are missing, the first seed of every experiment first.

    A run is recorded as soon as it is made. Whatever ends the work, at most the runs at work are lost; the
    next campaign makes what is missing, here or on another machine whose records are merged.

    Args:
        plan: experiments with their runs.
        folder: of the records, as for `results.record`.
        minutes: after which no run is begun, nor one that is not expected to end before; None for no limit.
        executor: where runs are made: any of `concurrent.futures`, Dask's `client.get_executor()`, MPI's. The
            workers need companion and the data; only this process writes. None: here, one after the other.
        progress: show a tqdm bar.

    Returns:
        How many runs failed; their errors are printed, and the others are made all the same.

    Raises:
        TypeError: an executor that is none.
        ValueError: records of the folder are of other pixels, or another process writes there.
        FileNotFoundError: no run that is missing has its data here. Where some have, the others are left out
            and named.
    """
    submits("executor", executor)
    queue = _Queue(plan, folder)
    end = None if minutes is None else time.monotonic() + 60 * minutes
    with tqdm(total=len(queue.waiting), desc="runs", disable=not progress) as bar:
        if executor is None:
            for one in queue.ready(end):
                bar.set_postfix_str(f"{one[0].name}: {one[1].label}, seed {one[1].seed}")
                queue.settle(one, _attempt(functools.partial(_work, *queue.work(one))))
                bar.update()
        else:
            _everywhere(queue, executor, end, bar)
    return queue.failed


class _Queue:
    """Runs that wait for being made, with what is recorded of those they need."""

    def __init__(self, plan: Sequence[tuple[Experiment, Sequence[Job]]], folder: Path | None) -> None:
        self.folder, self.failed = folder, 0
        self.records, self.guess, self.sources, self.needs = {}, {}, {}, {}
        waiting = []
        for place, (experiment, jobs) in enumerate(plan):
            records = results.read_runs(results.place_of(experiment.name, folder))
            keys = experiment.keys(jobs)
            self.records[experiment.name] = records
            self.guess[experiment.name] = durations(experiment, jobs, records)
            rounds: dict[str, int] = {}
            for number, (job, key) in enumerate(keys.items()):
                turn = rounds[job.label] = rounds.get(job.label, -1) + 1
                if key not in records:
                    needs = [keys[need] for need in job.needs]
                    self.needs[experiment.name, job] = needs
                    waiting.append(((turn, place, number), (experiment, job)))
        self.waiting = [one for _, one in sorted(waiting, key=lambda item: item[0])]
        # Held as long as this lives: two campaigns on one folder would make the same runs.
        self.holds = [held(results.place_of(name, folder)) for name in {one.name for one, _ in self.waiting}]
        self._leave_out_what_is_not_here()
        for experiment, dataset in {(one, job.dataset) for one, job in self.waiting}:
            self._same_pixels(experiment, dataset)

    def _leave_out_what_is_not_here(self) -> None:
        """Say which data sets are not on this machine; their runs stay missing, the others are made."""
        for dataset in dict.fromkeys(job.dataset for _, job in self.waiting):
            try:
                self.sources[dataset] = pixels(dataset)
            except FileNotFoundError as error:
                kept = [(one, job) for one, job in self.waiting if job.dataset != dataset]
                left_out = len(self.waiting) - len(kept)
                if not kept:
                    raise
                print(f"{left_out} runs are left out. {error}", file=sys.stderr)
                self.waiting = kept

    def _same_pixels(self, experiment: Experiment, dataset: str) -> None:
        here = self.sources[dataset]
        for name, record in self.records[experiment.name].items():
            there = record.origin
            if there["dataset"] == dataset and there["pixels"] != here["pixels"]:
                raise ValueError(
                    f"{dataset} has other pixels here ({here['source']}) than in the record of "
                    f"{experiment.name} {name!r} ({there['source']}): give another folder for your records"
                )

    def ready(self, end: float | None) -> Iterator[tuple[Experiment, Job]]:
        """The runs that can be made now, taken off the queue; none that would end too late."""
        going = True
        while going:
            going = False
            for one in list(self.waiting):
                experiment, job = one
                done = self.records[experiment.name]
                if any(need not in done for need in self.needs[experiment.name, job]):
                    continue
                if end is not None:
                    if time.monotonic() >= end:
                        return
                    if time.monotonic() + (self.guess[experiment.name](job).seconds or 0) > end:
                        continue
                self.waiting.remove(one)
                going = True
                yield one
                break

    def work(self, one: tuple[Experiment, Job]) -> Work:
        """The arguments of `_work`."""
        experiment, job = one
        done = self.records[experiment.name]
        needed = [done[need].arrays for need in self.needs[experiment.name, job]]
        return experiment.compute, job.config, needed, self._checkpoints(one)

    def _checkpoints(self, one: tuple[Experiment, Job]) -> Path | None:
        experiment, job = one
        if not experiment.checkpoints:
            return None
        return results.place_of(experiment.name, self.folder) / "checkpoints" / experiment.key(job)[-12:]

    def settle(self, one: tuple[Experiment, Job], outcome: Made | Exception) -> None:
        """Record what was made, or tell why it was not."""
        experiment, job = one
        if isinstance(outcome, Exception):
            self.failed += 1
            print(f"\n{experiment.name}: {job.label}, seed {job.seed} failed:", file=sys.stderr)
            traceback.print_exception(outcome, file=sys.stderr)
            return
        arrays, origin = outcome
        origin = {"dataset": job.dataset, **self.sources[job.dataset], "config": plain(job.config), **origin}
        folder, key = results.place_of(experiment.name, self.folder), experiment.key(job)
        results.add_run(folder, key, arrays, origin, measured=experiment.measured)
        self.records[experiment.name][key] = RecordedRun(arrays, origin)
        if checkpoints := self._checkpoints(one):
            shutil.rmtree(checkpoints, ignore_errors=True)


def _everywhere(queue: _Queue, executor: Executor, end: float | None, bar: tqdm) -> None:
    """Keep the executor's workers busy, and record what they send back."""
    at_once = 2 * (getattr(executor, "_max_workers", None) or 8)
    working: dict[Future, tuple[Experiment, Job]] = {}
    try:
        while True:
            for one in queue.ready(end):
                working[executor.submit(_work, *queue.work(one))] = one
                if len(working) >= at_once:
                    break
            if not working:
                return
            for future in wait(working, return_when=FIRST_COMPLETED).done:
                queue.settle(working.pop(future), _attempt(future.result))
                bar.update()
    finally:
        for future in working:
            future.cancel()


def _attempt(work: Callable[[], Made]) -> Made | Exception:
    try:
        return work()
    except Exception as error:
        return error


def _work(
    compute: Callable[..., Arrays],
    config: tuple[Part, ...],
    needed: list[Mapping[str, np.ndarray]],
    folder: Path | None,
) -> Made:
    """Make one run, in whatever process; return its arrays and where they come from."""
    start = time.perf_counter()
    arrays = computed(compute, config, needed, {} if folder is None else {"folder": folder})
    nice = os.nice(0) if hasattr(os, "nice") else 0
    return arrays, {"seconds": round(time.perf_counter() - start, 3), "nice": nice, **results.here()}
