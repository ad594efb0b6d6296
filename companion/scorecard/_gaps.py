"""What AutoAttack takes off recorded robust accuracies."""

from dataclasses import dataclass

import numpy as np

from companion.experiments import evaluation
from companion.results import Result
from companion.scorecard._page import Shown, html_table
from companion.statistics import Estimate, paired_shares


@dataclass(frozen=True)
class Gap:
    """One network's robust accuracy, by the PGD of its record and by AutoAttack.

    Attributes:
        label: of the network.
        seeds: how many trainings of it.
        pgd: mean accuracy over seeds.
        autoattack: mean accuracy over seeds.
        images: attacked in all.
        gap: PGD − AutoAttack, its interval over the images of all seeds.
    """

    label: str
    seeds: int
    pgd: float
    autoattack: float
    images: int
    gap: Estimate


def gaps(record: Result) -> list[Gap]:
    """The gap of every network that is recorded.

    Args:
        record: of the experiment `evaluation`.

    Returns:
        One entry for each network; the images of all its seeds count.
    """
    networks = evaluation.PROFILES[record.provenance["profile"]].networks
    n, last = record.provenance["config"]["n_test"], evaluation.STAGES.index("square")
    found = []
    for i, one in enumerate(networks):
        there = np.isfinite(record.arrays["accuracy"][i, :, 0, 0])
        seeds = int(there.sum())
        if not seeds:
            continue
        alone, less = (int(value) for value in record.arrays["more"][i, there].sum(axis=0))
        pgd, strongest = record.arrays["accuracy"][i, there][:, [1, last], 0].mean(axis=0)
        gap = paired_shares(alone, less, n * seeds)
        found.append(Gap(one.label, seeds, float(pgd), float(strongest), n * seeds, gap))
    return found


def stronger() -> Shown:
    """The recorded gaps as a table, the largest first.

    Returns:
        A row for each network: PGD, AutoAttack, the gap with its interval.
    """
    try:
        record = evaluation.recorded("full", complete=False)
    except FileNotFoundError:
        return Shown("<p>No gap is recorded yet.</p>")
    found = sorted(gaps(record), key=lambda one: -one.gap.value)
    rows = [
        [
            one.label,
            str(one.seeds),
            f"{one.pgd:.3f}",
            f"{one.autoattack:.3f}",
            f"{one.gap:+.3f}",
            f"{one.images:,}",
        ]
        for one in found
    ]
    return Shown(html_table(("network", "seeds", "PGD", "AutoAttack", "gap", "images"), rows))
