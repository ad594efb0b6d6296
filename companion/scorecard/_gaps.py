"""What AutoAttack takes off recorded robust accuracies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from companion._core.words import Settings
from companion.experiments import attacks, clocks, evaluation, neighbours
from companion.results import Result
from companion.scorecard._claim import DATASETS, Gap, radius
from companion.scorecard._collapse import network
from companion.scorecard._verdicts import newcombe, paired
from companion.statistics import Estimate, paired_shares, proportion

CLOCKS = ("plain", "best time", "from 0", "from the best time")
TWO = "both Auto-PGDs"
Folder = str | Path | None


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
        if there.any():
            alone, less = (int(value) for value in record.arrays["more"][i, there].sum(axis=0))
            left = record.arrays["accuracy"][i, there][:, [1, last], 0].astype(float).T
            over = paired_shares(alone, less, n * int(there.sum()))
            found.append(_gap(one.experiment, _data(vars(one.case)), _how(one), *left, over))
    return found


def _gap(
    experiment: str,
    data: str,
    label: str,
    pgd: np.ndarray,
    auto: np.ndarray,
    over_images: Estimate,
    attack: str = "AutoAttack",
) -> Gap:
    by_seed = paired(pgd, auto)
    if by_seed is not None and by_seed.low == by_seed.high:
        by_seed = None
    means = float(pgd.mean()), float(auto.mean())
    return Gap(experiment, data, label, len(pgd), *means, over_images.n, over_images, by_seed, attack)


def _data(case: Settings) -> str:
    classes = ", a pair" if case.get("classes") else ", ten classes" if "classes" in case else ""
    return f"{DATASETS[case['dataset']]}{classes}, ε = {radius(case['eps'])}"


def _how(one: evaluation.Network) -> str:
    if one.experiment == "normalization":
        return one.how[0].name.replace("centred", "centered")
    if one.experiment == "catastrophic":
        return f"{network(vars(one.case)).split(',')[0]}, {one.how[0]}"
    return "{}, {} rate".format(*one.how)


def _of_kernels(record: Result) -> Iterator[Gap]:
    """Kernels of chapter 2. Which images differ is not recorded: Newcombe's interval, which is too wide."""
    config = record.provenance["config"]
    rows = [(case, name) for case in config["evaluations"] for name in case["architectures"]]
    for i, (case, name) in enumerate(rows if "auto" in record.arrays else ()):
        pgd, auto = record.arrays["auto_pgd"][i, :1], record.arrays["auto"][i, -1, :1]
        if np.isfinite([pgd, auto]).all():
            pair = [one.astype(float) for one in (pgd, auto)]
            yield _gap("attacks", _data(case), name, *pair, _apart(*pair, case["n_test"]))


def _of_clocks(record: Result) -> Iterator[Gap]:
    """Kernels of chapter 9: AutoAttack on what PGD leaves; both Auto-PGDs where it is not run."""
    for c, case in enumerate(record.provenance["config"]["cases"]):
        for row in CLOCKS:
            k = clocks.ROWS.index(row)
            auto, pgd = record.arrays["auto"][c, :, k], record.arrays["right"][c, :, k, 1]
            attack = TWO
            if clocks.robust(record, c, row)[0] != "PGD":
                auto, attack = record.arrays["autoattack"][c, :, k, -1], "AutoAttack"
            there = np.isfinite(auto[:, 0]) & np.isfinite(pgd[:, 0])
            if there.any():
                auto = auto[there][:, np.isfinite(auto[there][0])] > 0
                pgd = pgd[there][:, : auto.shape[1]] > 0
                over = paired_shares(int((pgd & ~auto).sum()), int((auto & ~pgd).sum()), auto.size)
                label = f"{case['kernel']}, n = {case['n_train']:,}, {row}"
                yield _gap("clocks", _data(case), label, pgd.mean(axis=1), auto.mean(axis=1), over, attack)


def _of_neighbours(record: Result) -> Iterator[Gap]:
    """Kernels of chapter 10 at one ridge: both Auto-PGDs; as `_of_kernels`, Newcombe's interval."""
    config = record.provenance["config"]
    at = config["ridges"].index(config["ridge"])
    for c, case in enumerate(config["cases"] if "auto" in record.arrays else ()):
        for k, name in enumerate(config["kernels"]):
            for i, kind in enumerate(neighbours.KINDS):
                pgd = record.arrays["along"][c, :, k, i, at, 1].astype(float)
                auto = record.arrays["auto"][c, :, k, i, 1].astype(float)
                there = np.isfinite(pgd + auto)
                n = case["n_conv_attacked" if name.startswith("Conv") else "n_attacked"]
                if there.any():
                    over = _apart(pgd[there], auto[there], n)
                    yield _gap(
                        "neighbours", _data(case), f"{name}, {kind}", pgd[there], auto[there], over, TWO
                    )


def _apart(pgd: np.ndarray, auto: np.ndarray, n: int) -> Estimate:
    """The difference of two shares of the same images, of which it is not known which differ."""
    total = n * len(pgd)
    return newcombe(*(proportion(np.arange(total) < round(float(one.mean()) * total)) for one in (pgd, auto)))


_READERS: Mapping[str, tuple[Callable[[Result], Sequence[Gap] | Iterator[Gap]], Callable[..., Result]]]
_READERS = MappingProxyType(
    {
        "evaluation": (gaps, evaluation.recorded),
        "attacks": (_of_kernels, attacks.recorded),
        "clocks": (_of_clocks, clocks.recorded),
        "neighbours": (_of_neighbours, neighbours.recorded),
    }
)


def recorded_gaps(*experiments: str, folder: Folder = None) -> list[Gap]:
    """The gaps of some experiments' networks and kernels that are recorded so far.

    Args:
        experiments: "warm_start", "normalization", "catastrophic", which `evaluation` trains again;
            "attacks", "clocks", "neighbours", the last two with both Auto-PGDs alone where not all of
            AutoAttack is run. None: all.
        folder: of the records, as for `results.record`.

    Returns:
        One entry for each network or kernel, in the order of the records.
    """
    found = []
    for read, recorded in _READERS.values():
        try:
            found += read(recorded("full", complete=False, folder=folder))
        except FileNotFoundError:
            continue
    return [one for one in found if not experiments or one.experiment in experiments]
