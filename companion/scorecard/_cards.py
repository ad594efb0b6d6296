"""All claims, judged by what is recorded so far."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from companion.results import Result
from companion.scorecard import _collapse, _dynamics, _kernels, _normalization, _schedules
from companion.scorecard._claim import Card, Claim, card

CLAIMS: tuple[Claim, ...] = (
    *_kernels.CLAIMS,
    *(one for one in _dynamics.CLAIMS if one.name[0] == "A"),
    *_normalization.CLAIMS,
    *_schedules.CLAIMS,
    *_collapse.CLAIMS,
    *(one for one in _dynamics.CLAIMS if one.name[0] == "C"),
)


def scorecard(profile: str = "full", *, folder: Any = None) -> Mapping[str, Card]:
    """Judge every claim by the runs that are recorded of a profile.

    Of every comparison the seeds count that both of its sides have: a record that grows speaks at once.

    Args:
        profile: "quick", "full" or "paper".
        folder: of the records, as for `results.record`.

    Returns:
        A card for each claim by its name, in the order of `CLAIMS`; without a record it is *not tested*.
    """
    records = {name: _record(name, profile, folder) for name in {one.experiment for one in CLAIMS}}
    return MappingProxyType({one.name: card(one, records[one.experiment]) for one in CLAIMS})


def _record(name: str, profile: str, folder: Any) -> Result | None:
    experiment = importlib.import_module(f"companion.experiments.{name}").EXPERIMENT
    try:
        return experiment.recorded(profile, whole=False, folder=folder)
    except FileNotFoundError:
        return None
