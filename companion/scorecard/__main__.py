"""Say which comparisons the records decide, at which width, and what that took."""

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from companion import results, scorecard
from companion.scorecard import Card, Decided, decided, half_width
from companion.storage import place


def table(cards: Mapping[str, Card]) -> str:
    """A line for each claim, and what all took."""
    lines = [f"{'claim':6}{'verdict':16}{'for':>5}{'against':>9}{'open':>6}{'n':>14}{'half width':>12}"]
    for name, card in cards.items():
        pairs = zip(card.comparisons, card.judgment.outcomes, strict=True)
        some = [(one, outcome) for one, outcome in pairs if one.counts]
        counts = [sum(outcome == word for _, outcome in some) for word in ("for", "against", "open")]
        numbers, widths = [one.effect.n for one, _ in some], [half_width(one) for one, _ in some]
        n = "" if not some else f"{min(numbers):,}–{max(numbers):,}"
        width = "" if not some else f"{np.median(widths):.3f}"
        line = f"{name:6}{card.judgment.verdict:16}{counts[0]:5}{counts[1]:9}{counts[2]:6}{n:>14}{width:>12}"
        lines.append(line)
    origins = {
        (card.claim.experiment, profile): origin
        for card in cards.values()
        for profile, origin in card.provenances.items()
    }
    runs = sum(origin["runs"][0] for origin in origins.values())
    hours, cores = (sum(one[name] for one in origins.values()) / 3600 for name in ("seconds", "core_seconds"))
    lines += ["", f"decided: {share(decided(cards))}; n and the median half width are of those that count"]
    lines += [f"  in {paper}: {share(decided(some))}" for paper, some in by_paper(cards).items()]
    return "\n".join([*lines, f"runs: {runs:,}, in {hours:.1f} hours, {cores:.1f} core-hours"])


def by_paper(cards: Mapping[str, Card]) -> dict[str, dict[str, Card]]:
    """The cards of each paper, by its letter."""
    return {
        paper: {name: card for name, card in cards.items() if name[0] == paper}
        for paper in dict.fromkeys(name[0] for name in cards)
    }


def share(found: Decided) -> str:
    """In words."""
    percent = 100 * found.decided / max(found.all, 1)
    return f"{found.decided} of {found.all} comparisons that count ({percent:.0f} %)"


def at(commit: str, target: Path) -> None:
    """Put the records as they were at a commit into a folder."""
    here = results.place_of("attacks").parent
    command = ["git", "-C", str(here), "archive", commit, "."]
    packed = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(target, filter="data")


def main(arguments: list[str] | None = None) -> int:
    """Print the table; with --since what the records of a commit decided by the rules of today."""
    parser = argparse.ArgumentParser(prog="python -m companion.scorecard", description=__doc__)
    parser.add_argument("--folder", type=place, help="of the records (default: book/results)")
    parser.add_argument("--since", metavar="COMMIT", help="whose records are judged by the same rules too")
    parser.add_argument("--seeds", type=int, metavar="N", help="only the first N seeds, or splits")
    options = parser.parse_args(arguments)
    if options.seeds is not None and options.seeds < 1:
        parser.error("--seeds must be at least 1")
    print(table(scorecard.scorecard(seeds=options.seeds, folder=options.folder)))
    if options.since:
        with tempfile.TemporaryDirectory() as folder:
            at(options.since, Path(folder))
            before = scorecard.scorecard(seeds=options.seeds, folder=folder)
            print(f"at {options.since}: {share(decided(before))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
