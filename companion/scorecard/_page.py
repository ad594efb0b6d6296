"""Claims as HTML for the page What reproduces: a matrix, a card for each, and what it took."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields

from companion.scorecard._claim import AUTHORS, DATASETS, Card, Scale
from companion.scorecard._forest import forest
from companion.scorecard._html import Shown, escaped, folded, html_table, marked
from companion.scorecard._stronger import apart, attack_of, gap_rows, span_of
from companion.scorecard._verdicts import VERDICTS, Comparison, Outcome, Verdict
from companion.statistics import Estimate

SIGNS: dict[Verdict, str] = {
    "reproduced": "✓",
    "qualified": "◐",
    "not reproduced": "✗",
    "undecided": "?",
    "not tested": "–",
}
COLUMNS = tuple(dict.fromkeys(DATASETS.values()))
MOST = 30
"""Rows of a figure; of more, those that do not count are folded."""


def matrix(cards: Mapping[str, Card]) -> Shown:
    """Claims against data sets: a sign and a color for each verdict, with how many seeds.

    Args:
        cards: of `scorecard`.

    Returns:
        A table with its key.
    """
    head = "".join(f'<th scope="col">{name}</th>' for name in ("claim", *COLUMNS, "verdict"))
    lines = [f'<table class="verdicts"><thead><tr>{head}</tr></thead><tbody>']
    for name, one in cards.items():
        title = f'<a href="#claim-{name.lower()}"><b>{name}</b> {escaped(one.claim.title)}</a>'
        title += "" if one.claim.quotation else "<small>not in the abstract</small>"
        made = {item.dataset for item in one.comparisons} - set(COLUMNS)
        cells = "".join(_cell(one, column) for column in COLUMNS)
        if made and not any(one.on(column)[1] for column in COLUMNS):  # drawn by the experiment itself
            cells = "".join(_cell(one, name, span=len(COLUMNS)) for name in made)
        verdict = f"{badge(one.judgment.verdict)}<small>{_counts(one)}</small>{_beyond_pgd(one)}"
        lines.append(f'<tr><th scope="row">{title}</th>{cells}<td>{verdict}</td></tr>')
    key = " ".join(f"{badge(verdict)} {_MEANING[verdict]}" for verdict in VERDICTS)
    return Shown("".join([*lines, f'</tbody></table><p class="verdict-key">{key}</p>']))


_MEANING: dict[Verdict, str] = {
    "reproduced": "in every comparison;",
    "qualified": "in more than half, or under a condition that is named;",
    "not reproduced": "more than half exclude the smallest effect of interest;",
    "undecided": "neither;",
    "not tested": "nothing that is recorded can tell. Under a verdict how many comparisons speak "
    "for, against, and leave it open; under a sign how many seeds, splits or runs there are. One split: a "
    "single training set, with an interval over that many test images (im.), features (f.), or blocks of "
    "neighboring features. AutoAttack: what it takes off the robust accuracies behind a claim that PGD was "
    "measured by.",
}


def _cell(one: Card, dataset: str, span: int = 1) -> str:
    judged, some = one.on(dataset)
    wide, named = (f' colspan="{span}"', f"{dataset}, ") if span > 1 else ("", "")
    if not some:
        return '<td><span class="visually-hidden">no data</span></td>'
    counted = [item for item in some if item.counts] or list(some)
    sign, verdict = SIGNS[judged.verdict], judged.verdict
    return (
        f'<td{wide}><span class="verdict {_class(verdict)}" title="{verdict}">{sign}'
        f'<span class="visually-hidden"> {verdict}</span></span><small>{named}{_amount(counted)}</small></td>'
    )


def _counts(one: Card) -> str:
    """How many comparisons speak for the claim, against it, and leave it open."""
    found = [o for item, o in zip(one.comparisons, one.judgment.outcomes, strict=True) if item.counts]
    words = {"for": "for", "against": "against", "open": "open"}
    return ", ".join(f"{found.count(each)} {word}" for each, word in words.items() if each in found)


def _beyond_pgd(one: Card) -> str:
    """What AutoAttack takes off the robust accuracies behind a claim, in short."""
    if not one.gaps:
        return ""
    if isinstance(one.gaps, str):
        some = "not recorded" if one.gaps.startswith("none") else "in part"
        return f"<small>AutoAttack: {some}</small>"
    return f"<small>{attack_of(one.gaps)}: gap {span_of(one.gaps)}</small>"


def _amount(some: Sequence[Comparison]) -> str:
    """The numbers behind comparisons, for each unit: of one training set, images or features."""
    parts = []
    for unit in dict.fromkeys(item.unit for item in some):
        numbers = [item.effect.n for item in some if item.unit == unit]
        low, high = min(numbers), max(numbers)
        number = f"{low:,}{'' if low == high else f'–{high:,}'}"
        after = {"images": "im.", "features": "f.", "blocks": "blocks of f."}.get(unit)
        parts.append(f"one split, {number} {after}" if after else f"{number} {unit}")
    return "; ".join(parts)


def badge(verdict: Verdict) -> str:
    """A verdict as a word with its sign on its color."""
    return f'<span class="verdict {_class(verdict)}">{SIGNS[verdict]} {verdict}</span>'


def _class(verdict: Verdict) -> str:
    return verdict.replace(" ", "-")


def show(cards: Mapping[str, Card], *names: str) -> Shown:
    """Cards of some claims: words, figure, rule, scale of theirs and ours, numbers.

    Args:
        cards: of `scorecard`.
        names: of the claims.

    Returns:
        One section for each.
    """
    return Shown("".join(_section(cards[name]) for name in names))


def _section(one: Card) -> str:
    claim = one.claim
    author = AUTHORS[claim.source]
    quoted = (
        f"<blockquote>“{escaped(claim.quotation)}” <cite>{author}, abstract</cite></blockquote>"
        if claim.quotation
        else f"<p><i>Not in the abstract of {author}.</i></p>"
    )
    parts = [
        f'<section class="claim" id="claim-{claim.name.lower()}">'
        f"<h3>{claim.name} · {escaped(claim.title)}</h3>",
        f"<p>{badge(one.judgment.verdict)} <span>{escaped(one.judgment.reason)}.</span></p>",
        quoted,
        f"<p><b>Our reading.</b> {marked(claim.reading)}</p>",
        *_figures(one),
        f"<p><b>Rule.</b> {marked(claim.rule)}</p>",
        f"<p><b>Condition.</b> {escaped(claim.condition[0].upper() + claim.condition[1:])}.</p>"
        if claim.condition
        else "",
        f"<p><b>Left out.</b> {escaped('; '.join(one.left_out))}.</p>" if one.left_out else "",
        folded("Scale: theirs and ours", _scales(one)),
    ]
    parts += _overstated(one)
    if one.comparisons:
        parts.append(folded(f"Numbers: {len(one.comparisons)} comparisons", _numbers(one)))
    else:
        parts.append(f"<p>Nothing is recorded yet that speaks to it (<code>{claim.experiment}</code>).</p>")
    return "".join([*parts, f"<p>{_links(one)}</p></section>"])


def _overstated(one: Card) -> list[str]:
    """What AutoAttack takes off the robust accuracies behind a claim, with its table; or why nobody knows."""
    if not one.gaps:
        return []
    if isinstance(one.gaps, str):
        return [f"<p><b>AutoAttack.</b> {escaped(one.gaps[0].upper() + one.gaps[1:])}.</p>"]
    name = attack_of(one.gaps)
    words = (
        f"Of the accuracy that PGD leaves another {span_of(one.gaps)} is lost; on one data set these gaps "
        f"differ by {apart(one.gaps):.3f} at most. These are point estimates; over images, the interval that "
        f"reaches farthest ends at {max(gap.gap.high for gap in one.gaps):.3f}."
    )
    table = folded(f"{len(one.gaps)} gaps: PGD − {name}", html_table(*gap_rows(one.gaps)))
    return [f"<p><b>{name}.</b> {escaped(words)}</p>{table}"]


def _figures(one: Card) -> list[str]:
    pairs = list(zip(one.comparisons, one.judgment.outcomes, strict=True))
    main = [pair for pair in pairs if pair[0].counts] if len(pairs) > MOST else pairs
    rest = [pair for pair in pairs if not pair[0].counts] if len(pairs) > MOST else []
    found = [_figure(one, main)] if main else []
    return (
        [*found, folded("Shown only: comparisons that do not count", _figure(one, rest))] if rest else found
    )


def _figure(one: Card, pairs: Sequence[tuple[Comparison, Outcome]]) -> str:
    counts = [outcome for item, outcome in pairs if item.counts]
    alt = (
        f"Forest plot of {one.claim.name}: {one.claim.effect}. {len(pairs)} effects with 95 % intervals. Of "
        f"those that count {counts.count('for')} speak for the claim, {counts.count('against')} against it, "
        f"{counts.count('open')} leave it open; {len(pairs) - len(counts)} are shown only."
    )
    picture = base64.b64encode(forest(pairs, one.claim.effect, percent=one.claim.percent)).decode()
    return f'<img class="forest" alt="{escaped(alt)}" src="data:image/svg+xml;base64,{picture}">'


def _scales(card: Card) -> str:
    """Theirs beside ours as planned, with how much of the plan is recorded."""
    ours = card.ours
    heads = ["", "theirs"]
    for profile in ours:
        done, planned = card.provenances[profile].get("runs", (0, 0))
        made = f", as planned: {done:,} of {planned:,} runs recorded" if done < planned else ""
        heads.append(f"ours, {profile}{made}")
    rows = [
        [field.name, *(getattr(one, field.name) for one in (card.claim.theirs, *ours.values()))]
        for field in fields(Scale)
    ]
    return html_table(
        heads if ours else [*heads, "ours"], rows if ours else [[*row, "no run yet"] for row in rows]
    )


def _numbers(one: Card) -> str:
    form = "+.0%" if one.claim.percent else "+.3f"
    rows = []
    for item, outcome in zip(one.comparisons, one.judgment.outcomes, strict=True):
        where = f"{item.setting}{'' if item.counts else ' (shown only)'}"
        rows.append(
            [
                item.dataset,
                where,
                _effect(item.effect, form),
                f"{item.effect.n:,} {item.unit.removesuffix('s') if item.effect.n == 1 else item.unit}",
                outcome if item.asks else "–",
                _excluded(item, form.removeprefix("+")),
                item.note,
            ]
        )
    heads = (
        "data set",
        "setting",
        "effect [95 %]",
        "n",
        "speaks",
        "larger effects that it rules out",
        "numbers behind it",
    )
    return html_table(heads, rows, "numbers")


def _effect(effect: Estimate, form: str) -> str:
    """With its interval, where that has ends."""
    if math.isfinite(effect.low) and math.isfinite(effect.high):
        return format(effect, form)
    return f"{effect.value:{form}}, no bounded interval"


def _excluded(item: Comparison, form: str) -> str:
    if math.isinf(item.excluded) or item.effect.low == item.effect.high:
        return "none"
    if item.sign == 0:
        return f"beyond ±{item.excluded:{form}}"
    return f"{'above' if item.sign > 0 else 'below'} {item.sign * item.excluded:{form}}"


def _links(one: Card) -> str:
    chapter = f'<a href="{one.claim.chapter}.html">the chapter</a>'
    record = f"<code>book/results/{one.claim.experiment}/runs.jsonl</code>"
    command = f"<code>python -m companion.experiments {one.claim.experiment}</code>"
    return f"More in {chapter}. Record: {record}, made by {command}."


def compute(cards: Mapping[str, Card]) -> Shown:
    """What the records took: runs, hours, machine.

    Args:
        cards: of `scorecard`.

    Returns:
        A table, one row for each experiment.
    """
    known = {
        f"{card.claim.experiment}, {profile}": origin
        for card in cards.values()
        for profile, origin in card.provenances.items()
    }
    rows, hours, cores = [], 0.0, 0.0
    for name, origin in known.items():
        done, wanted = origin["runs"]
        took = [origin[one] / 3600 for one in ("seconds", "core_seconds")]
        hours, cores = hours + took[0], cores + took[1]
        text = [f"{done:,} of {wanted:,}", *(f"{one:.2f}" for one in took), origin["machines"]]
        rows.append([name, *text, origin["commit"][:7], f"jax {origin['jax']}", origin["dataset"]])
    rows.append(["all", "", f"{hours:.2f}", f"{cores:.2f}", "", "", "", ""])
    return Shown(
        html_table(("record", "runs", "hours", "core-hours", "machine", "commit", "versions", "data"), rows)
    )
