"""Which gaps to AutoAttack belong to which claim, and where none is recorded and why."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from companion.experiments import evaluation
from companion.results import caption
from companion.scorecard._claim import Gap
from companion.scorecard._gaps import TWO, Folder, recorded_gaps
from companion.scorecard._html import Shown, html_table
from companion.statistics import Estimate

Wanted = tuple[str, Callable[[Gap], bool]]


def _named(experiment: str, *labels: str) -> Wanted:
    return experiment, lambda one: one.label.startswith(labels) or one.label.endswith(labels)


_FGSM = ("catastrophic", lambda one: one.label.endswith((", fgsm", ", pgd")))
_SUMS = "none is recorded of features and their sums; of whole kernels chapter 2 has it (A1)"
_FROZEN = "none is recorded of what is trained on frozen kernels"
_KERNELS = "none is recorded of these kernels: robust accuracy is what PGD leaves"
_PATCHES = "none is recorded: inputs are patches, attacked by PGD and along the known features"

CHECKED: Mapping[str, Wanted | str] = MappingProxyType(
    {
        "A1": _named("attacks", ""),
        "A1b": "recorded of the pair (Status of this copy); of kernels of ten classes it is what PGD leaves",
        "A2b": "none is recorded of these networks: white-box success is PGD's",
        "A3a": "none is recorded of single features, which are attacked by FGSM",
        "A3b": _SUMS,
        "A4": _SUMS,
        "C2a": _FROZEN,
        "C2b": _FROZEN,
        "B1a": _named("normalization", "raw", "centered"),
        "B1b": "none is recorded at each variant's best rate",
        "B1c": "none is recorded of these estimators",
        "B1d": "none is recorded of these statistics",
        "B1e": _named("normalization", "raw", "batch norm"),
        "B2a": "none is recorded of the rule's runs; of a switch at a set epoch it is (Attacks, below)",
        "B2b": _named("warm_start", "growing steps", "fgsm", "free", "pgd", "standard"),
        "B3a": _FGSM,
        "B3b": _FGSM,
        "B3c": _named("catastrophic", "noise", "fgsm", "pgd"),
        "D1": _named("clocks", "plain", ", best time"),
        "D2a": _named("clocks", "plain", "from 0"),
        "D2b": _named("clocks", ", best time", "from 0", "from the best time"),
        "E1b": "none is recorded at a kernel's own ridge; at one ridge it is (chapter 10)",
        "E2c": _KERNELS,
        "E3b": _KERNELS,
        "E5a": _PATCHES,
        "E5b": _PATCHES,
        "E5c": _PATCHES,
    }
)
"""Of each claim that speaks of robust accuracy: whose gaps bear on it, or why there are none."""


def checked(folder: Folder = None) -> Mapping[str, tuple[Gap, ...] | str]:
    """What AutoAttack takes off the robust accuracies behind each claim.

    Args:
        folder: of the records, as for `results.record`.

    Returns:
        By the claims' names the gaps that are recorded, or why there are none; claims that do not speak of
        robust accuracy are left out.
    """
    found, known = {}, recorded_gaps(folder=folder)
    for name, wanted in CHECKED.items():
        if isinstance(wanted, str):
            found[name] = wanted
            continue
        some = tuple(one for one in known if one.experiment == wanted[0] and wanted[1](one))
        found[name] = some or "none is recorded yet"
    return MappingProxyType(found)


def span_of(found: Sequence[Gap]) -> str:
    """The least and the largest of some gaps: "0.000 to 0.040".

    Args:
        found: one at least.

    Returns:
        Both, or one where they are written alike.
    """
    values = sorted(one.gap.value for one in found)
    low, high = (f"{one:.3f}".replace("-0.000", "0.000") for one in (values[0], values[-1]))
    return low if low == high else f"{low} to {high}"


def attack_of(found: Sequence[Gap]) -> str:
    """What stands beside PGD: AutoAttack, or of it the two Auto-PGDs; AutoAttack where some have the one."""
    kinds = {one.attack for one in found}
    name = kinds.pop() if len(kinds) == 1 else "AutoAttack"
    return name[0].upper() + name[1:]


def apart(found: Sequence[Gap]) -> float:
    """By how much the gaps of two networks on one data set differ at most: what a comparison may owe them.

    Args:
        found: of `recorded_gaps`.

    Returns:
        The largest difference, over experiments, data sets and ε; 0 where none has two networks.
    """
    sets: dict[str, list[float]] = {}
    for one in found:
        sets.setdefault(f"{one.experiment}, {one.data}", []).append(one.gap.value)
    return max((max(values) - min(values) for values in sets.values()), default=0.0)


def gap_rows(found: Sequence[Gap]) -> tuple[list[str], list[list[str]]]:
    """Gaps as a table's heads and rows, the largest first.

    Args:
        found: of `recorded_gaps`.

    Returns:
        Heads, and of each network or kernel its name, seeds, both accuracies, the gap with its intervals over
        the images of all seeds and over seeds, and images.
    """
    chapters, mixed = len({one.experiment for one in found}) > 1, len({one.attack for one in found}) > 1
    attack = attack_of(found)
    heads = ["network or kernel", "seeds", "PGD", attack, "gap, over images", "over seeds", "images"]
    rows = [
        [
            f"{f'{one.experiment}: ' if chapters else ''}{one.data}, {one.label}"
            + (f" ({one.attack} alone)" if mixed and one.attack == TWO else ""),
            str(one.seeds),
            f"{one.pgd:.3f}",
            f"{one.autoattack:.3f}",
            f"{one.gap:+.3f}",
            _over(one.by_seed),
            f"{one.images:,}",
        ]
        for one in sorted(found, key=lambda one: -one.gap.value)
    ]
    return heads, rows


def stronger(*experiments: str) -> Shown:
    """The recorded gaps as a table, the largest first.

    Args:
        experiments: whose, as for `recorded_gaps`; none for all.

    Returns:
        The rows of `gap_rows` under a caption that says what was attacked how.
    """
    found = recorded_gaps(*experiments)
    if not found:
        return Shown("<p>No gap is recorded yet.</p>")
    return Shown(html_table(*gap_rows(found), caption=_caption(found)))


def _caption(found: Sequence[Gap]) -> str:
    again = {one.experiment for one in found} - {"attacks", "clocks", "neighbours"}
    trained = again == {one.experiment for one in found}
    words = (
        f"Robust accuracy under the PGD of the record and under {attack_of(found)}, on the same test images"
    )
    if again:
        record = evaluation.recorded("full", complete=False)
        config = record.provenance["config"]
        words += f" ({config['n_test']} a seed; Square with {config['queries']:,} queries"
        words += ")" if trained else ", with 5,000 on kernels)"
    kernels = "" if trained else " (of kernels of chapters 2 and 10 unpaired, which makes them too wide)"
    words += (
        f". Gap: PGD − {attack_of(found)}, with 95 % intervals over the images of all seeds{kernels}, and "
        "over seeds where there are two or more whose gaps differ."
    )
    return f"{words} {caption(record)}." if again and not trained else words


def _over(by_seed: Estimate | None) -> str:
    return "–" if by_seed is None else f"[{by_seed.low:+.3f}, {by_seed.high:+.3f}]"
