"""What AutoAttack takes off recorded robust accuracies."""

import math
from dataclasses import dataclass

import numpy as np

from companion.experiments import evaluation
from companion.results import Result
from companion.scorecard._page import Shown, html_table
from companion.statistics import Estimate


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
        One entry for each network. The images of all seeds count; the interval is that of Agresti & Min for
        paired shares: half an image more in each cell, so that no gap found is not no gap at all.

    Source: Agresti & Min (2005), Statistics in Medicine 24.
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
        gap = _paired_shares(alone, less, n * seeds)
        found.append(Gap(one.label, seeds, float(pgd), float(strongest), n * seeds, gap))
    return found


def _paired_shares(b: int, c: int, n: int) -> Estimate:
    """The difference of two shares of the same n, which b and c tell apart, in either direction."""
    middle, wide = (b - c) / (n + 2), b + c + 1
    half = NORMAL * math.sqrt(wide - (b - c) ** 2 / (n + 2)) / (n + 2)
    return Estimate((b - c) / n, middle - half, middle + half, 0.95, n)


NORMAL = 1.959963984540054


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
