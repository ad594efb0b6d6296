"""Rules of verdicts: from effects with intervals to a word. Pure functions on numbers.

A claim says in which direction an effect goes; we say how small an effect would not matter. Then an effect
that matters, with an interval beyond 0, speaks for the claim; an interval that excludes all that matters
speaks against it; any other leaves it open: absence of evidence is *undecided*, never *not reproduced*.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.stats

from companion import features, statistics
from companion._core.checks import Numbers
from companion.statistics import Estimate

Verdict = Literal["reproduced", "qualified", "not reproduced", "undecided", "not tested"]
Outcome = Literal["for", "against", "open"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "qualified", "not reproduced", "undecided", "not tested")


@dataclass(frozen=True)
class Comparison:
    """One effect that speaks to a claim.

    Attributes:
        dataset: where it was measured.
        setting: what sets it apart from others of its data set.
        effect: with its interval; its n counts `unit`.
        sign: in which direction the claim says it goes: 1, −1, or 0 for either.
        smallest: effect of interest, ≥ 0 in the claimed direction; an interval short of it speaks against,
            and a value short of it does not speak for the claim.
        beyond: what an interval must lie beyond to speak for the claim. 0, or −δ where the claim is "no worse
            by δ or more"; then `smallest` is −δ too.
        unit: what the effect's n counts: "seeds", "splits", "images", "features", "blocks" of these, "runs".
        also: outcome of a second condition that must hold with the first, such as the time saved.
        counts: whether it enters the verdict; a control, or what cannot test the claim, is shown only.
        family: whether Holm's correction is made over it too though it does not count: what the same
            question asks of other variants in one experiment.
        lower_bound: whether what is asked for may be larger than the effect says: then it speaks for a claim
            or leaves it open.
        asks: whether it asks the claim's question; of a price that stands beside it no outcome is shown.
        note: numbers behind it.
        p_value: two-sided, of a value of the effect, where it is not that of Student's interval.
    """

    dataset: str
    setting: str
    effect: Estimate
    sign: int
    smallest: float
    beyond: float = 0.0
    unit: str = "seeds"
    also: Outcome = "for"
    counts: bool = True
    family: bool = False
    lower_bound: bool = False
    asks: bool = True
    note: str = ""
    p_value: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        if self.sign not in (1, -1, 0):
            raise ValueError(f"sign must be 1, -1 or 0, got {self.sign}")
        if self.smallest < self.beyond:
            raise ValueError(f"smallest must be at least beyond, got {self.smallest} and {self.beyond}")
        if self.sign == 0 and self.beyond != 0:
            raise ValueError(f"beyond must be 0 where either direction counts, got {self.beyond}")

    @property
    def excluded(self) -> float:
        """The smallest effect in the claimed direction that the interval excludes: this one and all larger.

        Negative where the interval lies wholly on the other side.
        """
        low, high = self.effect.low, self.effect.high
        return max(abs(low), abs(high)) if self.sign == 0 else high if self.sign > 0 else -low


@dataclass(frozen=True)
class Judgment:
    """What comparisons say together.

    Attributes:
        verdict: one of `VERDICTS`.
        outcomes: of every comparison, in their order; those that do not count have theirs too.
        reason: in words.
    """

    verdict: Verdict
    outcomes: tuple[Outcome, ...]
    reason: str


def judge(comparisons: Sequence[Comparison], *, condition: str = "", level: float = 0.95) -> Judgment:
    """The verdict of a claim.

    Comparisons that count, or belong to their `family`, are those over which Holm's correction is made,
    twice: for the tests that speak for the claim, and for those that speak against it. With one comparison
    this is its interval. Of those that count, all for the claim: *reproduced*; more than half: *qualified*;
    more than half against it: *not reproduced*; neither: *undecided*; none that counts: *not tested*.

    Args:
        comparisons: of one claim.
        condition: under which alone it was measured, if any: then the best verdict is *qualified*.
        level: of the intervals.

    Returns:
        The verdict with the outcomes behind it.
    """
    found = outcomes(comparisons, level=level)
    counted = [outcome for one, outcome in zip(comparisons, found, strict=True) if one.counts]
    verdict, reason = combined(counted, condition)
    return Judgment(verdict, found, reason)


def combined(counted: Sequence[Outcome], condition: str = "") -> tuple[Verdict, str]:
    """The verdict of outcomes that count, and why."""
    n, held, failed = len(counted), counted.count("for"), counted.count("against")
    if not n:
        return "not tested", "no comparison tests it"
    words = f"for in {held}, against in {failed}, open in {n - held - failed} of {n} comparisons"
    if 2 * failed > n:
        return "not reproduced", words
    if 2 * held <= n:
        return "undecided", words
    if condition:
        return "qualified", f"{words}; {condition}"
    return ("reproduced" if held == n else "qualified"), words


def outcomes(comparisons: Sequence[Comparison], *, level: float = 0.95) -> tuple[Outcome, ...]:
    """What each comparison says by Holm's adjusted p-values.

    Those that count and their family are corrected together, and apart from them those that are shown only.
    """
    pairs = np.array([_p_values(one) for one in comparisons]).reshape(-1, 2)
    counts = np.array([one.counts or one.family for one in comparisons], bool)
    for some in (counts, ~counts):
        for column in range(2):
            if some.any():
                pairs[some, column] = features.holm(pairs[some, column])
    found: list[Outcome] = []
    for one, (p_for, p_against) in zip(comparisons, pairs, strict=True):
        first: Outcome = "against" if p_against < 1 - level else "for" if p_for < 1 - level else "open"
        both = (first, one.also)
        found.append("against" if "against" in both else "open" if "open" in both else "for")
    return tuple(found)


def _p_values(one: Comparison) -> tuple[float, float]:
    """Two-sided p of "nothing beyond", where the effect lies there, and of "at least the smallest effect"."""
    value, sign = one.effect.value, one.sign
    p = one.p_value or functools.partial(_p, one.effect)
    if sign == 0:
        beside = [p(edge) if abs(value) < one.smallest else 1.0 for edge in _edges(one)]
        return p(0.0) if abs(value) >= one.smallest else 1.0, max(beside)
    p_for = p(sign * one.beyond) if sign * value >= one.smallest else 1.0
    below = sign * value < one.smallest and not one.lower_bound
    return p_for, p(sign * one.smallest) if below else 1.0


def _edges(one: Comparison) -> tuple[float, float]:
    return -one.smallest, one.smallest


def _p(effect: Estimate, at: float) -> float:
    """Two-sided p-value of a value, from the interval: it is 1 − level at the interval's ends.

    Student's with n − 1 degrees of freedom; the half width is that of the side on which the value lies. Where
    all n are equal their spread says nothing, as on a coarse grid they often are by chance, and the sign test
    is left: 2^(1 − n).
    """
    half = effect.value - effect.low if at < effect.value else effect.high - effect.value
    if half == 0:
        return 1.0 if at == effect.value else 2.0 ** (1 - effect.n)
    freedom = max(effect.n - 1, 1)
    error = half / scipy.stats.t.ppf(0.5 + effect.level / 2, freedom)
    return float(2 * scipy.stats.t.sf(abs(effect.value - at) / error, freedom))


def paired(one: Numbers, other: Numbers | float, *, level: float = 0.95) -> Estimate | None:
    """Mean of one − other over seeds that have both, with Student's interval; None for fewer than two."""
    gaps = np.asarray(one, float) - np.asarray(other, float)
    gaps = gaps[np.isfinite(gaps)]
    return statistics.mean(gaps, level=level) if len(gaps) > 1 else None


def beyond_constant(one: Numbers, other: Numbers, constant: float, *, level: float = 0.95) -> Estimate | None:
    """`paired`, where the other keeps less than a constant answer does on average minus that answer's share.

    Naming one class for every input resists every attack: what is won below it is no robustness.
    """
    one, other = np.asarray(one, float), np.asarray(other, float)
    both = np.isfinite(one + other)
    if both.any() and other[both].mean() < constant:
        other = np.where(both, constant, np.nan)
    return paired(one, other, level=level)


def relative(
    one: Numbers, other: Numbers, *, level: float = 0.95
) -> tuple[Estimate | None, Callable[[float], float] | None]:
    """Geometric mean of one / other over seeds that have both, less 1, and the p-value of such a share.

    Student's interval is that of the logarithms: no end of it lies below −1, as no ratio lies below 0.
    """
    logs = paired(np.log(np.asarray(one, float)), np.log(np.asarray(other, float)), level=level)
    if logs is None:
        return None, None
    value, low, high = np.expm1([logs.value, logs.low, logs.high]).tolist()
    return Estimate(value, low, high, level, logs.n), lambda share: _p(logs, math.log1p(share))


def newcombe(one: Estimate, other: Estimate) -> Estimate:
    """Difference of two independent shares, from their Wilson intervals.

    Of two shares on the same images, whose errors go together, it is too wide.

    Source: Newcombe (1998), Statistics in Medicine 17, method 10.
    """
    value = one.value - other.value
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, low, high, one.level, min(one.n, other.n))


MARGIN = 0.2
"""The share of PGD training's gain over standard training that "as robust" may lose."""
SAVED = 0.1
"""The share of time that "cheaper" must save."""


def cheaper_and_as_robust(
    method: Numbers, pgd: Numbers, standard: Numbers, saved: Numbers, *, level: float = 0.95
) -> tuple[Estimate, Outcome] | None:
    """The one criterion for schedules of adversarial training.

    As robust: the method loses less than `MARGIN` of what PGD training gains over standard training. The gain
    has an error of its own, so both sides are one contrast, paired by seed: with m = `MARGIN`,
    method − (1 − m) PGD − m standard > 0. Cheaper: the lower end of the time saved lies above `SAVED`.

    Args:
        method: robust accuracy by seed, NaN where there is none.
        pgd: of PGD training, the same seeds.
        standard: of standard training, the same seeds.
        saved: 1 − time of the method / time of PGD training, the same seeds.
        level: of the intervals.

    Returns:
        The contrast in units of PGD training's mean gain, less m: the difference to PGD in units of its
        gain, to be compared with −`MARGIN`, with an interval without ends where that gain is not certain; and
        the outcome of the time. None for fewer than two seeds, or where the mean gain is not above 0.
    """
    method, pgd, standard, saved = (np.asarray(values, float) for values in (method, pgd, standard, saved))
    contrast = paired(method, (1 - MARGIN) * pgd + MARGIN * standard, level=level)
    gain = gain_of(method, pgd, standard, level=level)
    time = paired(saved[np.isfinite(method + pgd + standard)], 0.0, level=level)
    if contrast is None or gain is None or time is None or gain.value <= 0:
        return None
    # In units of what may be nothing any difference is possible.
    low, high = (contrast.low, contrast.high) if gain.low > 0 else (-math.inf, math.inf)
    scaled = (one / gain.value - MARGIN for one in (contrast.value, low, high))
    effect = Estimate(*scaled, level, contrast.n)
    return effect, "for" if time.low >= SAVED else "against" if time.high < SAVED else "open"


def gain_of(method: Numbers, pgd: Numbers, standard: Numbers, *, level: float = 0.95) -> Estimate | None:
    """PGD training's gain over standard training on the seeds that a method has; None for fewer than two."""
    method, pgd, standard = (np.asarray(values, float) for values in (method, pgd, standard))
    there = np.isfinite(method)
    return paired(pgd[there], standard[there], level=level)


def equal_accuracy(clean: Numbers, level: float) -> int | None:
    """The first record whose clean accuracy reaches a level; None if none does."""
    reached = np.asarray(clean, float) >= level
    return int(reached.argmax()) if reached.any() else None
