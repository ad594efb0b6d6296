"""Figures of the chapter on saving time: schedules by what they cost, and by one criterion."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real

from companion.figures._layout import Axes, Figure, Places, grid, sheet
from companion.interactive import Player, explore
from companion.plots import COLORS, interval

Schedules = Mapping[str, Mapping[str, np.ndarray]]  # by name: "robust" and "passes", one for each seed
Curve = Real[Any, "2 r"]  # passes, and robust accuracy there

LOOK = {
    "pgd": ("adversarial", "s"),
    "fgsm": ("nonrobust", "D"),
    "free": ("network", "P"),
    "growing ε": ("chance", "^"),
    "growing steps": ("kernel", "v"),
    "clean for": ("clean", "o"),
    "rule": ("robust", "*"),
    "pgd, 2 steps": ("#e58a7d", "2"),
    "pgd, 3 steps": ("#6e160c", "3"),
    "pgd for": ("adversarial", "x"),
    "rate anew": ("clean", "P"),
}
OUTCOMES = {"passes": "robust", "open": "chance", "fails": "adversarial"}
BELOW = "outside lower center"
PROPER = {"pgd": "PGD"}


def toy(cosines: Real[Any, " s"], first: Places, passes: Real[Any, " c"], *, fgsm: float | int) -> Figure:
    """Draw the cosine of gradients along clean training, and what the schedules of the toy cost.

    Args:
        cosines: of the clean and the adversarial gradient after 0, 1, … clean steps, (s,).
        first: clean steps before PGD, (c,).
        passes: of these schedules, (c,).
        fgsm: passes of FGSM from the first step.

    Returns:
        The figure: the cosine above, passes below.
    """
    figure, (ax, below) = sheet(2.4, 2.5)
    ax.plot(np.asarray(cosines), color=COLORS["clean"])
    ax.axhline(0, color=COLORS["chance"], linestyle="--", linewidth=1)
    ax.set(xlabel="clean steps", ylabel="cosine of the gradients", ylim=(-1, 1.05))
    below.plot(first, passes, "o-", color=COLORS["clean"], label="PGD-5")
    below.axhline(fgsm, color=COLORS["nonrobust"], label="FGSM only")
    below.set(xlabel="clean steps first", ylabel="passes", ylim=(0, 1.1 * np.max(passes)))
    below.legend()
    return figure


def cosines(epochs: Places, along: Mapping[str, Real[Any, "seeds r 2"]]) -> Figure:
    """Draw the cosine of clean and adversarial gradients of a network, a line for each seed.

    Args:
        epochs: of the records, (r,).
        along: by what the network was trained with, the cosine of clean and attacked, and that of the
            control, (seeds, r, 2).

    Returns:
        The figure, a panel for each training.
    """
    figure, axes = sheet(*[2.6] * len(along), sharey=True)
    for ax, (name, rows) in zip(axes, along.items(), strict=True):
        for k, (label, hue) in enumerate((("clean, attacked", "adversarial"), ("control", "chance"))):
            lines = ax.plot(epochs, rows[..., k].T, "o-", markersize=3, linewidth=1.2, color=COLORS[hue])
            lines[0].set_label(label)
        ax.axhline(0, color="black", linestyle="--", linewidth=1)
        ax.set(
            xlabel="epoch",
            ylabel="cosine of gradients",
            title=f"along {PROPER.get(name, name)} training",
            ylim=(-1, 1.05),
        )
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=2, loc=BELOW)
    return figure


def front(found: Schedules, best: Sequence[str]) -> Figure:
    """Draw robust accuracy against passes, a marker for each schedule.

    Args:
        found: robust accuracy and passes, by schedule; "standard" is left out.
        best: the schedules that no other beats.

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(3.9)
    _front(ax, found, best)
    figure.legend(*ax.get_legend_handles_labels(), loc=BELOW, ncols=3)
    return figure


def on_the_way(
    found: Schedules,
    best: Sequence[str],
    curves: Mapping[int, Curve],
    fgsm: Curve,
    *,
    names: Mapping[int, str],
    start: int,
) -> Player:
    """Let the epoch of the switch run, and show the schedule among all, and its robust accuracy on the way.

    Args:
        found: robust accuracy and passes, by schedule.
        best: the schedules that no other beats.
        curves: of each number of clean epochs passes and robust accuracy on the way, (2, r); that of 0 is
            PGD's from the start, the greatest number that of standard training.
        fgsm: the same of FGSM from the start.
        names: of the schedules with so many clean epochs.
        start: the number shown first.

    Returns:
        The player.
    """
    epochs = list(curves)

    def draw(epoch: int) -> Figure:
        figure, (ax, below) = sheet(2.8, 2.8)
        _front(ax, found, best, marked=names[epoch])
        for curve, color, label in (
            (curves[0], "adversarial", "PGD from the start"),
            (fgsm, "nonrobust", "FGSM from the start"),
            (curves[epoch], "clean", f"clean for {epoch} of {max(epochs)} epochs"),
        ):
            below.plot(*np.asarray(curve), "o-", markersize=3, color=COLORS[color], label=label)
        below.axvline(epoch, color=COLORS["chance"], linestyle="--", linewidth=1)
        below.set(xlabel="passes", ylabel="robust, on the way", ylim=(-0.03, 1.03))
        below.legend(loc="lower right")
        return figure

    def says(epoch: int) -> str:
        return (
            "Robust accuracy against passes of all schedules, and on the way of PGD and FGSM from the start "
            f"and of training that is clean for {epoch} of {max(epochs)} epochs."
        )

    settings = {"labels": {"epoch": "Clean epochs first"}, "start": {"epoch": start}, "fmt": str}
    return explore(draw, {"epoch": epochs}, alt=says, **settings)


def fronts(panels: Mapping[str, Schedules], best: Mapping[str, Sequence[str]]) -> Figure:
    """Draw robust accuracy against passes in several settings, two panels in a row.

    Args:
        panels: of each setting robust accuracy and passes, by schedule.
        best: of each setting the schedules that no other beats.

    Returns:
        The figure.
    """
    figure, axes = grid(len(panels), 2, 3.2)
    legend = {}
    for ax, (title, found) in zip(axes, panels.items(), strict=True):
        _front(ax, found, best[title])
        ax.set_title(title, fontsize=9)
        legend |= dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    for ax in axes[1::2]:
        ax.set_ylabel("")
    figure.legend(legend.values(), legend, loc=BELOW, ncols=3)
    return figure


def one_criterion(
    panels: Mapping[str, Mapping[str, tuple[str, Real[Any, " 3"], float]]],
    names: Sequence[str],
    *,
    margin: float,
) -> Figure:
    """Draw what schedules lose against PGD training, with intervals, colored by what that shows.

    Args:
        panels: of each setting, by schedule: its outcome, one of `OUTCOMES`; the difference to PGD in units
            of PGD's gain, with the ends of its interval, (3,); the share of passes saved.
        names: the schedules from top to bottom.
        margin: what may be lost, in the unit of the differences.

    Returns:
        The figure, two panels in a row.
    """
    figure, axes = grid(len(panels), 2, 0.55 + 0.18 * len(names), sharex=True, sharey=True)
    for ax, (title, found) in zip(axes, panels.items(), strict=True):
        for y, name in enumerate(names):
            if name not in found:
                continue
            word, share, saved = found[name]
            hue = COLORS[OUTCOMES[word]]
            value, *ends = 100 * np.asarray(share)
            ax.plot(np.clip(ends, -115, 82), [y, y], color=hue, linewidth=1.6)
            ax.plot(value, y, "o", markersize=4, color=hue)
            right = {"fontsize": 8, "va": "center", "ha": "right", "color": hue}
            ax.text(112, y, f"{100 * saved:.0f}", **right)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.axvline(-100 * margin, color="black", linestyle="--", linewidth=1)
        ax.set_title(title, fontsize=9)
        ax.tick_params(labelsize=8)
    axes[0].set(xlim=(-115, 115), ylim=(len(names) - 0.5, -0.5))
    axes[0].set_yticks(range(len(names)), names)
    figure.supxlabel("difference to PGD, % of its gain", fontsize=9)
    for word, hue in OUTCOMES.items():
        axes[0].plot([], [], "o-", markersize=4, color=COLORS[hue], label=word)
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=3, loc="outside upper center")
    return figure


def _kind(name: str) -> str:
    """The schedule's entry of the legend."""
    if name.endswith("rate anew"):
        return "rate anew"
    return next((many for many in ("clean for", "pgd for") if name.startswith(many)), name)


def _front(ax: Axes, found: Schedules, best: Sequence[str], marked: str | None = None) -> None:
    """Draw robust accuracy against passes: means with the seeds' range, and the line through the best."""
    shown, means = set(), {}
    for name, one in found.items():
        if name == "standard":
            continue
        color, marker = LOOK[_kind(name)]
        robust = one["robust"][np.isfinite(one["robust"])]
        x, y = means[name] = np.mean(one["passes"][np.isfinite(one["robust"])]), robust.mean()
        ends = ([value] for value in (y, robust.min(), robust.max()))
        size = 9 if name in ("rule", marked) else 6
        look = {"color": color, "marker": marker, "markersize": size, "capsize": 0, "elinewidth": 0.8}
        if marker in ("2", "3", "x"):  # strokes, which a bar of their color would hide
            look |= {"markersize": 9, "markeredgewidth": 1.8}
        interval(
            ax,
            np.array([x]),
            *map(np.array, ends),
            label="_" if _kind(name) in shown else _kind(name),
            **look,
        )
        shown.add(_kind(name))
        if _kind(name) == "clean for":
            ax.annotate(name.split()[-1], (x, y), (3, -10), textcoords="offset points", fontsize=8)
    line = np.transpose(sorted(means[name] for name in best))
    ax.step(*line, where="post", color=COLORS["kernel"], linewidth=0.8, zorder=0)
    ax.set(xlabel="passes", ylabel="robust accuracy")
