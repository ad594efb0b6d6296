"""Figures of the chapter on features, continued: wrong labels, the first k features, other kernels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Real

from companion.figures._attack_curves import seeds
from companion.figures._feature_curves import by_top, pairs, profile, trade
from companion.figures._layout import Figure, Places, blank, sheet
from companion.interactive import Player, explore
from companion.plots import COLORS, images, signed_image

SIX = ("robust", "clean", "network", "adversarial", "nonrobust", "chance")
NINE = (
    "#9ecae1",
    "#08519c",
    "#41ab5d",
    "#00441b",
    "#b07cc6",
    "#54278f",
    "adversarial",
    "nonrobust",
    "chance",
)


def relabeled(
    pixels: Real[Any, "n h w c"], deltas: Real[Any, "n h w c"], titles: Sequence[str], *, eps: float
) -> Figure:
    """Draw training images with the labels that they are given, and what was added to each.

    Args:
        pixels: in [0, 1], (n, h, w, c).
        deltas: what was added, (n, h, w, c).
        titles: one for each.
        eps: full color of the additions.

    Returns:
        The figure, three images in a row.
    """
    return pairs(pixels, deltas, titles, limit=eps)


def lessons(names: Sequence[str], taught: Mapping[str, Real[Any, "r 3"]]) -> Figure:
    """Draw what wrongly labeled images teach, a row for each kernel.

    Args:
        names: of the rows.
        taught: clean accuracy with both ends of its interval after attacked images, after random signs and
            after clean images, (r, 3).

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(0.3 * len(names) + 1.3)
    looks = (("adversarial", "o"), ("nonrobust", "s"), ("chance", "|"))
    for i, ((label, values), (color, marker)) in enumerate(zip(taught.items(), looks, strict=True)):
        value, low, high = np.asarray(values).T
        ends = (value - low, high - value)
        dots = {"fmt": marker, "color": COLORS[color], "label": label, "markersize": 4}
        ax.errorbar(value, np.arange(len(names)) + 0.2 * (i - 1), xerr=ends, **dots)
    ax.axvline(0.5, color=COLORS["chance"], linestyle=":")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="accuracy on clean test images", xlim=(0, 0.75))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def first_features(tops: Places, top: Real[Any, "k 2 3"], curves: Mapping[str, Real[Any, "m 2"]]) -> Figure:
    """Draw accuracy of the first k features, and what truncation and early stopping trade.

    Args:
        tops: k, (k,).
        top: accuracy clean and under PGD with both ends of its interval, (k, 2, 3).
        curves: clean and robust accuracy of `top`, `stopped` and `without`, (m, 2).

    Returns:
        The figure.
    """
    figure, (ax, below) = sheet(2.5, 2.7)
    by_top(ax, tops, top)
    ax.legend()
    trade(below, curves)
    below.legend()
    return figure


def one_k(
    kept: list[int],
    tops: Places,
    top: Real[Any, "k 2 3"],
    changes: Real[Any, "s h w c"],
    attacked: Real[Any, "s h w c"],
    scores: Real[Any, "s 2"],
    *,
    eps: float,
    start: int,
) -> Player:
    """Let k run: accuracy of the first k features, and one image under their attack.

    Args:
        kept: the values of the slider.
        tops: k of the curves, (k,).
        top: accuracy clean and under PGD with both ends of its interval, (k, 2, 3).
        changes: what the attack adds for each value, (s, h, w, c).
        attacked: the attacked image, (s, h, w, c).
        scores: output for the image and the attacked one, (s, 2).
        eps: full color of the changes.
        start: the value shown first.

    Returns:
        The player.
    """

    def draw(k: int) -> Figure:
        i, figure = kept.index(k), blank(4.6)
        parts = figure.add_gridspec(2, 2, height_ratios=(1.3, 1))
        ax = figure.add_subplot(parts[0, :])
        by_top(ax, tops, top)
        ax.axvline(k, color=COLORS["chance"], linestyle="--")
        ax.legend(loc="lower left")
        signed_image(figure.add_subplot(parts[1, 0]), changes[i], limit=eps)
        title = f"f: {scores[i, 0]:+.2f} to {scores[i, 1]:+.2f}"
        images([figure.add_subplot(parts[1, 1])], attacked[[i]], titles=[title])
        return figure

    def says(k: int) -> str:
        before, after = scores[kept.index(k)]
        first = f"The classifier of the first {k} features"
        return f"{first}: one nine under PGD, from {before:+.2f} to {after:+.2f}."

    labels = {"k": "Features kept"}
    return explore(draw, {"k": kept}, labels=labels, start={"k": start}, alt=says, dpi=80, colors=17)


def agreement(tops: Places, panels: Mapping[str, Mapping[str, Real[Any, "seeds k"]]]) -> Figure:
    """Draw how well the first k eigenvectors of kernels agree with those of FC-1.

    Args:
        tops: k.
        panels: of each measure, for each kernel, the agreement, (seeds, k).

    Returns:
        The figure, a panel for each measure.
    """
    figure, axes = sheet(*[2.7] * len(panels), sharex=True)
    for ax, (title, kernels) in zip(axes, panels.items(), strict=True):
        for (name, values), color in zip(
            kernels.items(), SIX if len(kernels) <= len(SIX) else NINE, strict=False
        ):
            seeds(ax, tops, values, label=name, color=color)
        ax.set(xscale="log", ylim=(-0.03, 1.03), ylabel="agreement with FC-1", title=title)
    axes[-1].set_xlabel("k")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def recorded(
    scores: Mapping[str, Real[Any, " n"]],
    tops: Places,
    top: Real[Any, "k 2 3"],
    curves: Mapping[str, Real[Any, "m 2"]],
    *,
    majority: float,
    count: int,
) -> Figure:
    """Draw a recorded kernel: every feature, the first k, and what is traded.

    Args:
        scores: `index`, `rho`, `gamma` and `noisy` of the features, (n,).
        tops: k, (k,).
        top: accuracy clean and under PGD with both ends of its interval, (k, 2, 3).
        curves: clean and robust accuracy of `top`, `stopped` and `without`, (m, 2).
        majority: share of the larger class.
        count: number of images.

    Returns:
        The figure, three panels.
    """
    figure, (ax, middle, below) = sheet(2.5, 2.3, 2.6)
    profile(ax, **scores, majority=majority, count=count)
    by_top(middle, tops, top)
    trade(below, curves)
    for one in (ax, middle, below):
        one.legend(ncols=2 if one is ax else 1)
    return figure


def each_kernel(
    names: Sequence[str],
    scores: Sequence[Mapping[str, Real[Any, " n"]]],
    tops: Sequence[Int[Any, " k"]],
    top: Sequence[Real[Any, "k 2 3"]],
    limits: Sequence[tuple[float, int]],
) -> Player:
    """Let the recorded kernel run: every feature, and the first k.

    Args:
        names: of the kernels and data.
        scores: of each, `index`, `rho`, `gamma` and `noisy` of its features, (n,).
        tops: of each, k, (k,).
        top: of each, accuracy clean and under PGD with both ends of its interval, (k, 2, 3).
        limits: of each, the share of the larger class, and the number of images.

    Returns:
        The player.
    """

    def draw(row: int) -> Figure:
        figure, (ax, below) = sheet(2.5, 2.3, sharex=True)
        majority, count = limits[row]
        profile(ax, **scores[row], majority=majority, count=count)
        by_top(below, tops[row], top[row])
        below.set_xlim(0.8, 6000)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
        below.legend()
        return figure

    def says(row: int) -> str:
        return (
            f"{names[row]}: accuracy, accuracy under random signs and robustness of its features against "
            "their index, and accuracy of the top k, clean and under PGD."
        )

    rows = {"row": list(range(len(names)))}
    return explore(
        draw, rows, labels={"row": "Kernel"}, fmt=lambda row: names[row], alt=says, dpi=80, colors=17
    )
