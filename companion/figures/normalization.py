"""Figures of the chapter on normalization: units of ε, variants, batch statistics, differences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from companion.figures._layout import Axes, Figure, Places, sheet
from companion.figures._seed_bands import over_seeds
from companion.interactive import Player, explore
from companion.plots import COLORS

BOTH = (("clean", "clean"), ("PGD", "robust"))


def two_units(sizes: Places, accuracy: Mapping[str, Real[Any, " e"]]) -> Figure:
    """Draw accuracy against the number that is called ε, read in two units.

    Args:
        sizes: the numbers, (e,).
        accuracy: for ε in pixels and for ε in normalized units, in this order, (e,).

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(2.8)
    for (label, values), color in zip(accuracy.items(), ("robust", "adversarial"), strict=True):
        ax.plot(sizes, values, "o-", label=label, color=COLORS[color])
    ax.set(xlabel="the number called ε", ylabel="accuracy", ylim=(-0.03, 1))
    ax.legend()
    return figure


def variants(names: Sequence[str], accuracy: Real[Any, "v seeds 2"]) -> Figure:
    """Draw clean and robust accuracy of variants, a dot a seed.

    Args:
        names: of the variants, (v,).
        accuracy: clean and under PGD, (v, seeds, 2).

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(2.8)
    for k, (label, color) in enumerate(BOTH):
        for seed, scores in enumerate(accuracy[:, :, k].T):
            places = np.arange(len(names)) + 0.08 * (seed - 1)
            ax.plot(places, scores, "o", color=COLORS[color], label=None if seed else label)
    ax.set_xticks(range(len(names)), names)
    ax.set(ylabel="accuracy", ylim=(0.4, 1))
    ax.legend(loc="lower right")
    return figure


def two_modes(distances: Real[Any, "seeds 2"]) -> Figure:
    """Draw how far the kernels of training and of evaluation mode are apart, a line a seed.

    Args:
        distances: at the start and after training, (seeds, 2).

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(2.3)
    for seed, pair in enumerate(distances):
        ax.plot([0, 1], pair, "o-", color=COLORS["network"], label=None if seed else "a seed")
    ax.set_xticks([0, 1], ["start", "after PGD training"])
    ax.set(xlim=(-0.4, 1.4), ylim=(0, None), ylabel="d(training, evaluation)")
    ax.legend(loc="upper left")
    return figure


def batch_variance(sizes: list[int], ratios: Mapping[str, Real[Any, "b 3 2"]]) -> Player:
    """Slide through batch sizes: three estimators of a batch's variance, and the bias of the first.

    Args:
        sizes: of batches, the values of the slider, (b,).
        ratios: of each of three layers E[estimator] / σ² of the biased variance, the unbiased and that by
            image, as predicted and as measured, (b, 3, 2).

    Returns:
        The player.
    """
    all_of = np.stack(list(ratios.values()))
    colors = ("nonrobust", "clean", "robust")

    def draw(size: int) -> Figure:
        i, where = sizes.index(size), np.arange(len(ratios))
        figure, (ax, below) = sheet(2.8, 2.4)
        for j, (name, color) in enumerate(zip(("biased", "unbiased", "by image"), colors, strict=True)):
            places = where + 0.27 * (j - 1)
            ax.bar(places, all_of[:, i, j, 1], 0.25, color=COLORS[color], label=name)
            dash = {"color": COLORS["kernel"], "markersize": 14, "label": None if j else "predicted"}
            ax.plot(places, all_of[:, i, j, 0], "_", **dash)
        ax.set_xticks(where, list(ratios))
        ax.set(ylim=(0.45, 1.25), ylabel="E[estimator] / σ²", title=f"batches of {size}")
        figure.legend(*ax.get_legend_handles_labels(), ncols=4, loc="outside upper center")
        for k, ((place, row), hue) in enumerate(
            zip(ratios.items(), ("network", "adversarial", "kernel"), strict=True)
        ):
            below.loglog(sizes, 1 - row[:, 0, 0], "--" if k == 1 else "-", color=COLORS[hue], label=place)
        below.axvline(size, color=COLORS["chance"], linestyle="--")
        _mark(below, sizes, [str(one) for one in sizes])
        below.set(xlabel="B", ylabel="bias of σ̂², predicted")
        below.legend()
        return figure

    def says(size: int) -> str:
        first, second, dense = all_of[:, sizes.index(size), 0, 1]
        return (
            f"Batches of {size}: the biased variance is on average {first:.3f} of the true one after the "
            f"first convolution, {second:.3f} after the second, {dense:.2f} in a dense layer."
        )

    return explore(draw, {"size": sizes}, labels={"size": "Batch size"}, fmt=str, alt=says)


def differences(panels: Mapping[str, Mapping[str, Real[Any, "2 3"]]], *, what: str) -> Figure:
    """Draw differences in clean and in robust accuracy with their intervals, a row each.

    Args:
        panels: of each panel and row, for clean images and for attacked ones, the difference and both ends of
            its interval, (2, 3); NaN for one that there is not.
        what: the label below.

    Returns:
        The figure; its axis is linear to ±.05 and logarithmic beyond.
    """
    most = max(len(rows) for rows in panels.values())
    figure, axes = sheet(*[0.9 + 0.34 * most] * len(panels))
    for ax, (title, rows) in zip(axes, panels.items(), strict=True):
        places = np.arange(len(rows))[::-1].astype(float)
        for k, (label, color) in enumerate(BOTH):
            for place, found in zip(places, rows.values(), strict=True):
                value, low, high = found[k]
                if np.isfinite(value):
                    y = place + 0.13 - 0.26 * k
                    ax.plot([low, high], [y, y], color=COLORS[color], linewidth=1.2)
                    ax.plot([value], [y], "o", color=COLORS[color], markersize=3.5)
            ax.plot([], [], "o-", color=COLORS[color], label=label)
        ax.axvline(0, color=COLORS["chance"], linewidth=1)
        ax.set_xscale("symlog", linthresh=0.05)
        _mark(ax, [-0.5, -0.1, -0.03, 0, 0.03, 0.1, 0.5], ["−.5", "−.1", "−.03", "0", ".03", ".1", ".5"])
        ax.set_title(title)
        ax.set_yticks(places, list(rows))
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="outside upper right")
    figure.supxlabel(what, fontsize=9)
    return figure


def over_rates(
    rates: Float[np.ndarray, " q"], cases: Mapping[str, Mapping[str, Real[Any, "q seeds"]]], *, dashed: int
) -> Figure:
    """Draw accuracy under PGD against the learning rate, a curve a variant.

    Args:
        rates: learning rates, (q,).
        cases: of each data set and variant the accuracy, (q, seeds); rates that a seed lacks are left out.
        dashed: the number of the first variant that is drawn dashed.

    Returns:
        The figure, a panel for each data set.
    """
    figure, axes = sheet(*[2.6] * len(cases))
    figure.set_figheight(2.6 * len(cases) + 0.9)
    shades = ("kernel", "clean", "adversarial", "robust", "nonrobust", "network", "clean", "robust")
    for ax, (title, curves) in zip(axes, cases.items(), strict=True):
        for i, (name, robust) in enumerate(curves.items()):
            there = np.isfinite(robust).all(axis=1)
            style = {"linestyle": "--" if i >= dashed else "-", "marker": "o", "markersize": 3}
            if there.any():
                over_seeds(ax, rates[there], robust[there].T, label=name, color=shades[i], **style)
        ax.set(xscale="log", xlabel="learning rate", title=title)
        _mark(ax, rates, [f"{rate:g}" for rate in rates])
    axes[0].set_ylabel("PGD accuracy, validation")
    named = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in axes]
    handles = {label: handle for pairs in named for handle, label in pairs}
    figure.legend(handles.values(), handles, ncols=2, loc="outside lower center")
    return figure


def _mark(ax: Axes, places: Places, names: list[str]) -> None:
    """Mark these places of the axis below, and no others."""
    ax.set_xticks(places, names)
    ax.set_xticks([], minor=True)
