"""An experiment of runs that take no time, for tests of the engine; importable in other processes."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from companion.experiments import Experiment, Job, campaign
from companion.experiments._experiment import LISTS, filled


@dataclass(frozen=True)
class Case:
    """One size."""

    size: int = 2
    names: tuple[str, ...] = field(default=("normal", "uniform"), metadata=LISTS)
    shift: float = field(default=0.0, metadata={"absent": 0.0})


@dataclass(frozen=True)
class Config:
    """Sizes."""

    cases: tuple[Case, ...] = (Case(), Case(3))
    seeds: int = 3
    pause: float = field(default=0.0, metadata=LISTS)


def jobs(config):
    """Draws of every kind, and their sum."""
    found = []
    for seed in range(config.seeds):
        for case in config.cases:
            draws = tuple(
                Job((case, name, seed), f"size {case.size}, {name}", seed, "mnist5k") for name in case.names
            )
            found += [Job((case, "sum", seed), f"size {case.size}, sum", seed, "mnist5k", draws), *draws]
    return found


def compute(case, name, seed, *needed):
    """A draw, or the sum of draws."""
    if name == "fails":
        raise ZeroDivisionError("as it should")
    time.sleep(0.02)
    rng = np.random.default_rng(seed)
    if name == "sum":
        draw = np.sum([one["draw"] for one in needed], axis=0)
    else:
        draw = getattr(rng, name)(size=case.size) + case.shift
    return {"draw": draw, "odd": [np.nan, np.inf, -np.inf, 1e-30], "seconds": time.perf_counter()}


def gather(config, made: Mapping):
    """Draws (cases, kinds, seeds, size)."""
    kinds = ("normal", "uniform", "sum")
    places = {
        (config.cases.index(job.config[0]), kinds.index(job.config[1]), job.seed): arrays
        for job, arrays in made.items()
    }
    return filled((len(config.cases), len(kinds), config.seeds), places)


EXPERIMENT = Experiment(
    "toy", 1, {"quick": Config(seeds=1), "full": Config()}, jobs, compute, gather, measured=("seconds",)
)

if __name__ == "__main__":
    campaign([(EXPERIMENT, jobs(Config()))], folder=Path(sys.argv[1]), progress=False)
