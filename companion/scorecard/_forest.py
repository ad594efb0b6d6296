"""A forest plot: effects with their intervals, a row each, readable on a phone."""

import io
import itertools
import math
import re
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from companion.plots import COLORS
from companion.scorecard._verdicts import Comparison, Outcome

WIDTH = 4.2  # inches: on a phone of 390 pixels it is shown at nearly its own size
ROW, HEADING = 0.36, 0.34
_FAR = 1e6
MARKS: dict[Outcome, tuple[str, str]] = {
    "for": ("o", COLORS["clean"]),
    "against": ("X", COLORS["adversarial"]),
    "open": ("D", COLORS["chance"]),
}


def forest(
    pairs: Sequence[tuple[Comparison, Outcome]], effect: str, *, percent: bool = False, format: str = "svg"
) -> bytes:
    """Draw effects with intervals, grouped by data set.

    A circle speaks for the claim, a cross against it, a diamond leaves it open; hollow ones do not count.
    The line is what an interval must lie beyond, the tick in a row the smallest effect of interest; an
    arrow says that an interval goes on.

    Args:
        pairs: comparisons with their outcomes.
        effect: what the axis shows.
        percent: whether effects are shares.
        format: "svg" or "png".

    Returns:
        The picture's bytes, the same on every call.
    """
    groups = [
        (name, list(some)) for name, some in itertools.groupby(_sorted(pairs), lambda one: one[0].dataset)
    ]
    height = 0.95 + sum(HEADING + ROW * len(some) for _, some in groups)
    settings = {
        "svg.hashsalt": "companion",
        "font.size": 9.5,
        "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
        "axes.spines.left": False,
        "svg.fonttype": "none",
    }
    with mpl.rc_context(settings | {"axes.spines.right": False, "axes.spines.top": False}):
        figure = Figure(figsize=(WIDTH, height), layout=None)
        FigureCanvasSVG(figure)
        ax = figure.add_axes((0.04, 0.62 / height, 0.92, 1 - 0.92 / height))
        _rows(ax, groups)
        _limits(ax, pairs)
        for value in {one.sign * one.beyond for one, _ in pairs}:
            ax.axvline(value, color=COLORS["kernel"], linewidth=0.9, zorder=1)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, percent)))
        ax.set_yticks([])
        ax.grid(visible=True, axis="x", color="#e4e4e4")
        ax.set_axisbelow(True)
        ax.set_xlabel(effect, loc="left")
        _key(figure, height)
        buffer = io.BytesIO()
        silent = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        options = {"metadata": silent} if format == "svg" else {"dpi": 160}
        figure.savefig(buffer, format=format, facecolor="white", **options)
    drawn = buffer.getvalue()
    return _slim(drawn) if format == "svg" else drawn


def _slim(drawn: bytes) -> bytes:
    """The same picture in fewer bytes: a page has dozens.

    Places (in tags, not words) are cut to a hundredth of a point; names of groups, turns by nothing and
    indentation go.
    """
    short = re.sub(rb"<[^>]*>", lambda tag: re.sub(rb"\b([1-9]\d*\.\d\d)\d+", rb"\1", tag[0]), drawn)
    short = re.sub(rb'(<g) id="[^"]*"', rb"\1", short)
    short = re.sub(rb' transform="rotate\(-?0 [^"]*"', b"", short)
    return re.sub(rb"\n\s*", b"\n", short)


def _sorted(pairs: Sequence[tuple[Comparison, Outcome]]) -> list[tuple[Comparison, Outcome]]:
    order = list(dict.fromkeys(one.dataset for one, _ in pairs))
    return sorted(pairs, key=lambda pair: order.index(pair[0].dataset))


def _rows(ax: Axes, groups: Sequence[tuple[str, Sequence[tuple[Comparison, Outcome]]]]) -> None:
    y, behind = 0.0, {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    style = {"transform": ax.get_yaxis_transform(), "va": "baseline", "bbox": behind, "zorder": 1.5}
    for name, some in groups:
        y += HEADING
        ax.text(0, y - 0.08, name, weight="bold", **style)
        for one, outcome in some:
            y += ROW
            _row(ax, one, outcome, y)
            # How many images or features there are stands in the table of numbers.
            many = one.unit in ("seeds", "splits", "runs")
            label = f"{one.setting} (n = {one.effect.n:,})" if many else one.setting
            ax.text(0, y - 0.12, label, fontsize=8.5, color="#333333", **style)
    ax.set_ylim(y + 0.14, 0)


def _row(ax: Axes, one: Comparison, outcome: Outcome, y: float) -> None:
    marker, color = MARKS[outcome]
    for edge in _edges(one):
        ax.plot([edge, edge], [y - 0.1, y + 0.1], color=COLORS["nonrobust"], linewidth=1.4, zorder=1)
    effect, width = one.effect, 2.2 if one.counts else 1.2
    ends = [max(effect.low, -_FAR), min(effect.high, _FAR)]  # an interval may have none
    ax.plot(ends, [y, y], color=color, linewidth=width, solid_capstyle="butt", zorder=2)
    face = color if one.counts else "white"
    ax.plot(effect.value, y, marker, color=color, markerfacecolor=face, markersize=6.5, zorder=3)


def _ends(one: Comparison) -> tuple[float, ...]:
    """Of the interval, or the value where it has none."""
    return tuple(x if math.isfinite(x) else one.effect.value for x in (one.effect.low, one.effect.high))


def _edges(one: Comparison) -> tuple[float, ...]:
    """Where effects of interest begin: on both sides if either counts."""
    return (one.sign * one.smallest,) if one.sign else (-one.smallest, one.smallest)


def _limits(ax: Axes, pairs: Sequence[tuple[Comparison, Outcome]]) -> None:
    """All estimates and lines; intervals that are far longer than the others run out of the picture."""
    points = [value for one, _ in pairs for value in (one.effect.value, *_edges(one), 0.0)]
    ends = sorted(end for one, _ in pairs for end in _ends(one))
    cut = len(ends) // 12
    low, high = min(*points, ends[cut]), max(*points, ends[len(ends) - 1 - cut])
    room = 0.06 * (high - low or 1)
    ax.set_xlim(low - room, high + room)
    for line in [line for line in ax.lines if len(line.get_xdata()) == 2]:
        (left, right), y = line.get_xdata(), sum(line.get_ydata()) / 2
        if left < low - room:
            ax.plot(low - room, y, "<", color=line.get_color(), markersize=5, clip_on=False)
        if right > high + room:
            ax.plot(high + room, y, ">", color=line.get_color(), markersize=5, clip_on=False)


def _number(value: float, percent: bool) -> str:
    text = f"{100 * value:.0f} %" if percent else f"{value:.3g}"
    return text.replace("-", "−")


def _key(figure: Figure, height: float) -> None:
    words = {"for": "for", "against": "against", "open": "open"}
    ax = figure.add_axes((0.04, 1 - 0.28 / height, 0.92, 0.2 / height))
    ax.axis("off")
    ax.set(xlim=(0, 1), ylim=(-1, 1))
    places = {"for": 0.02, "against": 0.15, "open": 0.36}
    for outcome, word in words.items():
        marker, color = MARKS[outcome]
        ax.plot(places[outcome], 0, marker, color=color, markersize=6.5, clip_on=False)
        ax.text(places[outcome] + 0.03, 0, word, va="center", fontsize=8.5)
    ax.plot(0.53, 0, "o", color="#555555", markerfacecolor="white", markersize=6.5)
    ax.text(0.56, 0, "shown only", va="center", fontsize=8.5)
    ax.plot([0.8, 0.8], [-0.8, 0.8], color=COLORS["nonrobust"], linewidth=1.4)
    ax.text(0.82, 0, "smallest", va="center", fontsize=8.5)
