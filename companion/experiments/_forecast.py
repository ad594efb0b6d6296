"""How long a run will take, learned from those that are recorded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from companion._core.words import Settings
from companion.experiments._experiment import Configuration, Experiment, Job, plain
from companion.results import RecordedRun


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        seconds: None where nothing of its experiment is recorded.
        known: whether runs of its kind are recorded, and runs of its data set; else it is a guess.
    """

    seconds: float | None
    known: bool


Guess = Callable[[Job], Forecast]
_FIRST = 10.0  # how much rather a data set, or a part of an experiment, explains a time than what is finer


def durations(experiment: Experiment, jobs: Sequence[Job], records: Mapping[str, RecordedRun]) -> Guess:
    """How to guess a run's seconds: by others of its label, else by its data set and what is done.

    A run of a label that is recorded takes the median of that. For any other, log seconds are the mean of all
    plus one number each for the data set, the case, the part of the experiment and the kind of run, by
    least squares of the smallest norm: a kind that was recorded on digits and on CIFAR-10 tells how much
    longer CIFAR-10 takes, and one that was on digits alone is foretold with this. Data sets and parts weigh
    `_FIRST` times as much in that norm, so a new case is like others of its data set.

    Args:
        experiment: which.
        jobs: its runs.
        records: by name; those alone count that were made on a platform like this one ("cpu", "gpu"), where
            there are any.

    Returns:
        A function of a run.
    """
    keys = experiment.keys(jobs)
    made = [(job, records[key].origin) for job, key in keys.items() if key in records]
    here = [pair for pair in made if pair[1]["device"]["platform"] == jax.default_backend()] or made
    labels: dict[str, list[float]] = {}
    for job, origin in here:
        labels.setdefault(job.label, []).append(origin["seconds"])
    mean, parts = _fitted(here)

    def guess(job: Job) -> Forecast:
        if not here:
            return Forecast(None, known=False)
        if some := labels.get(job.label):
            return Forecast(float(np.median(some)), known=True)
        traits = _traits(job)
        seconds = float(np.exp(mean + sum(parts.get(one, 0.0) for one in traits)))
        return Forecast(seconds, known=traits[0] in parts and traits[-1] in parts)

    return guess


def _fitted(made: Sequence[tuple[Job, Settings]]) -> tuple[float, dict[tuple[str, str], float]]:
    """Mean log seconds, and what each trait adds."""
    if not made:
        return 0.0, {}
    times = np.log([max(origin["seconds"], 1e-3) for _, origin in made])
    rows = [_traits(job) for job, _ in made]
    names = list(dict.fromkeys(trait for row in rows for trait in row))
    weights = np.array([_FIRST if kind in ("data set", "part") else 1.0 for kind, _ in names])
    design = np.array([[name in row for name in names] for row in rows]) * weights
    found = np.linalg.lstsq(design, times - times.mean(), rcond=1e-9)[0] * weights
    return float(times.mean()), dict(zip(names, found, strict=True))


def _traits(job: Job) -> tuple[tuple[str, str], ...]:
    """Data set, case, part and kind. Whole numbers are seeds and sizes that all runs have, and no kind."""
    cases = [one for one in job.config if isinstance(one, Configuration)]
    what = [one for one in job.config if not isinstance(one, Configuration | int)]
    part = next((one for one in what if isinstance(one, str)), "")
    case, kind = (str([plain(one, key=True) for one in some]) for some in (cases, what))
    return ("data set", job.dataset), ("case", case), ("part", part), ("kind", kind)
