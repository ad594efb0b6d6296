"""When a training run records, keeps the network, and comes back from its compiled loop."""

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

from companion._core.checks import Numbers, number


@dataclass(frozen=True)
class Schedule:
    """Moments of a run, as numbers of minibatches from its start.

    Attributes:
        n_steps: minibatches of an epoch.
        end: of the run.
        recorded: after which to record, ascending.
        kept: after which of these to keep the network.
    """

    n_steps: int
    end: int
    recorded: tuple[int, ...]
    kept: frozenset[int]

    def epoch(self, step: int) -> float:
        """How many epochs `step` minibatches are."""
        return step / self.n_steps

    def stop(self, done: int) -> int:
        """The next record or end of an epoch after `done` minibatches."""
        later = bisect.bisect(self.recorded, done)
        return min([(done // self.n_steps + 1) * self.n_steps, *self.recorded[later : later + 1]])


def scheduled(
    record: Numbers | Iterable[float | int] | None, keep: bool | Numbers, epochs: int, n_steps: int
) -> Schedule:
    """The schedule that arguments of `train` ask for; or an error that names one of them."""
    recorded = _marks("record", range(epochs + 1) if record is None else record, epochs, n_steps)
    named = () if isinstance(keep, bool) else keep
    kept = set(recorded if keep is True else _marks("keep", named, epochs, n_steps))
    if not kept <= set(recorded):
        missing = sorted(mark / n_steps for mark in kept.difference(recorded))
        raise ValueError(f"keep must name epochs of record, got {missing}")
    return Schedule(n_steps, epochs * n_steps, tuple(recorded), frozenset(kept))


def _marks(name: str, moments: Iterable[float | int], epochs: int, n_steps: int) -> list[int]:
    """Epochs as numbers of minibatches."""
    found = sorted({round(number(name, epoch) * n_steps) for epoch in moments})
    if found and found[-1] > epochs * n_steps:
        raise ValueError(f"{name} must lie within {epochs} epochs, got {found[-1] / n_steps:g}")
    return found
