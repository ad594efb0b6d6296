"""How wide intervals are, and how many seeds or splits would decide what is open."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from companion._core.checks import number
from companion.scorecard._claim import Card
from companion.scorecard._html import Shown, html_table
from companion.scorecard._verdicts import Comparison

MOST = 100_000


class Decided(NamedTuple):
    """How many comparisons that count are decided, for or against, of how many."""

    decided: int
    all: int


def decided(cards: Mapping[str, Card]) -> Decided:
    """The share of comparisons that the records decide.

    Args:
        cards: of `scorecard`.

    Returns:
        Those of all claims that count and are not open, and all that count.
    """
    found = Counter(
        outcome
        for card in cards.values()
        for one, outcome in zip(card.comparisons, card.judgment.outcomes, strict=True)
        if one.counts
    )
    return Decided(found["for"] + found["against"], found.total())


def half_width(one: Comparison) -> float:
    """Of an effect's interval."""
    return (one.effect.high - one.effect.low) / 2


def wanted(one: Comparison, half: float) -> int:
    """How many seeds, splits or images would give an interval of this half width, with the spread of today.

    Student's interval has half width t_{n−1} s / √n, so from today's n and half width follows s, and from s
    the least n; before Holm's correction, which wants more.

    Args:
        one: with an interval.
        half: the half width wanted, > 0.

    Returns:
        The least such n ≥ 2; `MOST` where no number up to it is enough.

    Raises:
        ValueError: a half width that is not > 0.
    """
    half = number("half", half, open_end=True)
    n, level = one.effect.n, 0.5 + one.effect.level / 2
    spread = half_width(one) * np.sqrt(n) / scipy.stats.t.ppf(level, max(n - 1, 1))
    numbers = np.arange(2, MOST + 1)
    enough = scipy.stats.t.ppf(level, numbers - 1) * spread / np.sqrt(numbers) <= half
    return int(numbers[enough.argmax()]) if enough.any() else MOST


def power(cards: Mapping[str, Card], *names: str) -> Shown:
    """How wide the intervals of some claims are today, and what would narrow them.

    Args:
        cards: of `scorecard`.
        names: of the claims.

    Returns:
        A table: for each claim and unit how many comparisons count and how many are open, n and half widths
        today, and the n at which the widest would have half the width of the smallest effect of interest, and
        twice that, "> 100,000" where more than so many are wanted; of images of one split, which no number of
        images turns into many splits, nothing.

    Raises:
        ValueError: a claim that is not among the cards.
    """
    if unknown := [name for name in names if name not in cards]:
        raise ValueError(f"there is no claim {', '.join(unknown)}; there are {', '.join(cards)}")
    rows = [row for name in names for row in _rows(cards[name])]
    heads = ("claim", "intervals over", "comparisons", "open", "n", "half width (median, widest)")
    more = ("smallest effect", "n that makes the half width this", "half of this", "runs recorded")
    return Shown(html_table((*heads, *more), rows, "numbers"))


def _at_most(n: int) -> str:
    return f"> {MOST:,}" if n >= MOST else f"{n:,}"


def _rows(card: Card) -> list[Sequence[str]]:
    pairs = [pair for pair in zip(card.comparisons, card.judgment.outcomes, strict=True) if pair[0].counts]
    runs = "; ".join(
        f"{profile}: {origin['runs'][0]:,} of {origin['runs'][1]:,}"
        for profile, origin in card.provenances.items()
    )
    found = []
    for unit in dict.fromkeys(one.unit for one, _ in pairs):
        some = [one for one, _ in pairs if one.unit == unit]
        halves, numbers = [half_width(one) for one in some], [one.effect.n for one in some]
        widest, smallest = some[int(np.argmax(halves))], max(abs(one.smallest) for one in some)
        aims = (
            ("", "")
            if unit in ("images", "features", "blocks") or not smallest
            else tuple(_at_most(wanted(widest, share * smallest)) for share in (1, 0.5))
        )
        opened = sum(outcome == "open" for one, outcome in pairs if one.unit == unit)
        low, high = min(numbers), max(numbers)
        over = {"images": "images of one split", "features": "features of one kernel"}.get(unit, unit)
        number = f"{low:,}" if low == high else f"{low:,}–{high:,}"
        widths = f"{np.median(halves):.3f}, {max(halves):.3f}"
        counts = (f"{len(some)}", f"{opened}")
        found.append((card.claim.name, over, *counts, number, widths, f"{smallest:g}", *aims, runs))
    return found
