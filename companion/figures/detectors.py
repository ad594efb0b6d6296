"""Figures of the chapter on catastrophic overfitting, continued: detectors, signals and remedies compared."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Real

from companion.figures._layout import Figure, sheet
from companion.figures.catastrophic import ALARMS, BELOW, shade
from companion.plots import COLORS

SOUND = (("chance", "o"), ("robust", "s"), ("network", "^"))  # of references, in their order
REMEDIES = {
    "isotropic noise": "network",
    "gradient noise": "kernel",
    "gradalign": "clean",
    "switch": "adversarial",
    "pgd": "robust",
}  # all others: nonrobust


def at_work(
    epochs: Real[np.ndarray, " r"],
    collapsed: Bool[Any, " r"],
    panels: Mapping[str, Mapping[str, Real[Any, "..."] | float]],
) -> Figure:
    """Draw detectors at work on one run: how far a signal has left its past, the threshold, the alarm.

    Args:
        epochs: of the records, (r,).
        collapsed: records that are shaded, (r,).
        panels: of each signal "calm", the calm runs, (n, m), and "run", the run itself, (m,), at the last m
            epochs; "threshold"; "alarm", its epoch, infinity for none.

    Returns:
        The figure, a panel for each signal.
    """
    figure, axes = sheet(*[2.6] * len(panels), sharex=True)
    for ax, (title, one) in zip(axes, panels.items(), strict=True):
        run = np.asarray(one["run"])
        times = epochs[-len(run) :]
        calm = ax.plot(times, np.asarray(one["calm"]).T, color=COLORS["robust"], linewidth=0.8)
        calm[0].set_label("calm PGD runs")
        ax.plot(times, run, color=COLORS["nonrobust"], label="FGSM run")
        ax.axhline(one["threshold"], color="black", linestyle="--", linewidth=1, label="threshold")
        if np.isfinite(one["alarm"]):
            there = run[np.searchsorted(times, one["alarm"])]
            ax.plot(one["alarm"], there, "X", markersize=9, color="black", label="alarm")
        shade(ax, epochs, collapsed, label="strict collapse")
        ax.set(ylabel="difference to own past", title=title)
    axes[-1].set_xlabel("epoch")
    handles = {}
    for ax in axes:
        handles |= dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(handles.values(), handles, ncols=3, loc=BELOW)
    return figure


def margins(panels: Mapping[str, Mapping[str, Real[Any, "m 2"]]]) -> Figure:
    """Draw warnings against false alarms as the margin grows, a curve for each signal.

    Args:
        panels: by title, of each signal the share of other runs with a false alarm and of collapses warned
            of, for each margin, (m, 2); NaN where there are no such runs.

    Returns:
        The figure, panels one below the other.
    """
    figure, axes = sheet(*[3.0] * len(panels), sharey=True)
    for ax, (title, paths) in zip(axes, panels.items(), strict=True):
        for k, ((name, path), hue) in enumerate(zip(paths.items(), ALARMS, strict=True)):
            x, y = np.asarray(path).T + 0.012 * (k - 2)  # curves on each other lie side by side
            ax.plot(x, y, "o-", markersize=3, color=COLORS[hue], label=name)
            ax.plot(x[0], y[0], "o", markersize=8, color=COLORS[hue])
        ends = (-0.06, 1.06)
        ax.set(xlabel="other runs with a false alarm", ylabel="collapses warned of", xlim=ends, ylim=ends)
        ax.set_title(title)
        if not any(np.isfinite(path[:, 1]).any() for path in paths.values()):
            ax.text(0.5, 0.5, "no such collapse\nin held-out seeds", ha="center")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=3, loc=BELOW)
    return figure


def pairs(
    panels: Mapping[str, Mapping[str, Real[Any, "runs q"]]], names: Sequence[str], references: Sequence[str]
) -> Figure:
    """Draw how often signals order pairs of a collapsed and a sound record rightly: runs, and their mean.

    Args:
        panels: by title, of each signal the share of pairs in order, for each run and each reference that the
            sound record is from, (runs, q); NaN where there is none.
        names: the signals from top to bottom.
        references: what the sound records are from, (q,).

    Returns:
        The figure, panels one below the other.
    """
    figure, axes = sheet(*[0.8 + 0.36 * len(names)] * len(panels), sharex=True)
    for ax, (title, order) in zip(axes, panels.items(), strict=True):
        for i, (reference, (hue, marker)) in enumerate(zip(references, SOUND, strict=True)):
            places = np.arange(len(names)) + 0.22 * (i - 1)
            means = []
            for name, place in zip(names, places, strict=True):
                values = order.get(name, np.full((0, len(references)), np.nan))[:, i]
                values = values[np.isfinite(values)]
                dots = {"markersize": 3, "alpha": 0.6, "color": COLORS[hue]}
                ax.plot(values, np.full(len(values), place), ".", **dots)
                means.append(values.mean() if len(values) else np.nan)
            ax.plot(means, places, marker, markersize=6, color=COLORS[hue], label=reference)
        ax.axvline(0.5, color="black", linestyle="--", linewidth=1)
        ax.set_yticks(range(len(names)), names)
        ax.set(xlim=(-0.05, 1.05), ylim=(len(names) - 0.5, -0.5), title=title)
    axes[-1].set_xlabel("pairs in order")
    look = {"ncols": 3, "loc": BELOW, "title": "sound records from"}
    figure.legend(*axes[0].get_legend_handles_labels(), **look)
    return figure


def remedies(panels: Mapping[str, Mapping[str, Real[Any, " runs"]]], names: Sequence[str]) -> Figure:
    """Draw robust accuracy at the end of every run, a row for each method, and the mean.

    Args:
        panels: by title, accuracy under PGD with restarts of each method's runs, (runs,); NaN for none.
        names: the methods from top to bottom.

    Returns:
        The figure, panels one below the other.
    """
    figure, axes = sheet(*[0.9 + 0.24 * len(names)] * len(panels), sharex=True)
    for ax, (title, found) in zip(axes, panels.items(), strict=True):
        for name, values in found.items():
            hue, y = COLORS[REMEDIES.get(name, "nonrobust")], list(names).index(name)
            ax.plot(values, np.full(len(values), y), "o", markersize=4, alpha=0.5, color=hue)
            ax.plot(np.nanmean(values), y, "|", markersize=16, markeredgewidth=2, color=hue)
        ax.set_yticks(range(len(names)), names)
        ax.set(xlim=(-0.03, 1), ylim=(len(names) - 0.5, -0.5), title=title)
    axes[-1].set_xlabel("accuracy under PGD, restarts")
    return figure
