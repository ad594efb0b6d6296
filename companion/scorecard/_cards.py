"""All claims, judged by what is recorded so far."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from companion.results import Result
from companion.scorecard import (
    _clocks,
    _collapse,
    _dynamics,
    _kernels,
    _neighbours,
    _neural_collapse,
    _normalization,
    _schedules,
    _starvation,
    _structured,
)
from companion.scorecard._claim import Card, Claim, card
from companion.scorecard._stronger import checked

CLAIMS: tuple[Claim, ...] = (
    *_kernels.CLAIMS,
    *(one for one in _dynamics.CLAIMS if one.name[0] == "A"),
    *_normalization.CLAIMS,
    *_schedules.CLAIMS,
    *_collapse.CLAIMS,
    *(one for one in _dynamics.CLAIMS if one.name[0] == "C"),
    *_clocks.CLAIMS,
    *_neighbours.CLAIMS,
    *_starvation.CLAIMS,
    *_neural_collapse.CLAIMS,
    *_structured.CLAIMS,
)


def scorecard(*, seeds: int | None = None, folder: str | Path | None = None) -> Mapping[str, Card]:
    """Judge every claim by the runs that are recorded.

    Of every comparison the seeds count that both of its sides have: a record that grows speaks at once.

    Args:
        seeds: what the first so many seeds, or splits, alone would say, by the same rules; None for all.
        folder: of the records, as for `results.record`.

    Returns:
        A card for each claim by its name, in the order of `CLAIMS`; without a record it is *not tested*.
    """
    wanted = dict.fromkeys((one.experiment, profile) for one in CLAIMS for profile in one.profiles)
    known = {pair: record for pair in wanted if (record := _record(*pair, seeds, folder))}
    gaps = checked(folder)
    return MappingProxyType({one.name: card(one, _of(one, known), gaps.get(one.name, ())) for one in CLAIMS})


def _of(claim: Claim, known: Mapping[tuple[str, str], Result]) -> dict[str, Result]:
    pairs = ((profile, known.get((claim.experiment, profile))) for profile in claim.profiles)
    return {profile: record for profile, record in pairs if record is not None}


def _record(name: str, profile: str, seeds: int | None, folder: str | Path | None) -> Result | None:
    experiment = importlib.import_module(f"companion.experiments.{name}").EXPERIMENT
    if profile not in experiment.profiles:
        return None
    try:
        return experiment.recorded(profile, complete=False, seeds=seeds, folder=folder)
    except FileNotFoundError:
        return None
