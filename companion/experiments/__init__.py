"""Recorded experiments, one module each, as lists of runs that add up.

`python -m companion.experiments [NAME ...] --profile full --minutes 60` makes what is missing and can be
ended at any moment; `--status` says how far it is. A module has a frozen `Config`, its `PROFILES`, and
`run(config)`, which makes the runs here and now and gives arrays. Chapters run the quick profile and show
beside it what is `recorded(profile)` so far.
"""

from companion.experiments._engine import Status, campaign, status
from companion.experiments._experiment import Experiment, Job

__all__ = ["Experiment", "Job", "Status", "campaign", "status"]
