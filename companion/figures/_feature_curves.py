"""Curves that several figures on features share: feature by feature, and the first k together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Real
from matplotlib.collections import PathCollection

from companion.figures._layout import Axes, Figure, blank
from companion.plots import COLORS, images, interval, signed_image

TRADES = {
    "top": ("top k", "kernel", "o"),
    "stopped": ("early stopping", "robust", "s"),
    "without": ("without the top k", "nonrobust", "^"),
}


def profile(
    ax: Axes,
    index: Int[Any, " n"],
    rho: Real[Any, " n"],
    gamma: Real[Any, " n"],
    *,
    majority: float,
    count: int,
    noisy: Real[Any, " n"] | None = None,
) -> None:
    """Draw accuracy, under random signs and under attack, of every feature; gray is what guessing gives."""
    spread = 1.96 * np.sqrt(majority * (1 - majority) / count)
    gray = {"color": COLORS["chance"], "alpha": 0.2, "label": "guessing, 95 %"}
    ax.axhspan(majority - spread, majority + spread, **gray)
    scores = (
        (rho, "accuracy ρᵢ", "clean"),
        (noisy, "under random signs", "nonrobust"),
        (gamma, "robustness γᵢ", "adversarial"),
    )
    for values, label, color in scores:
        if values is not None:
            dots = {"color": COLORS[color], "label": label, "markersize": 4, "rasterized": True}
            ax.plot(1 + np.asarray(index), values, ".", **dots)
    ax.set(xscale="log", xlabel="1 + index of the feature", ylim=(-0.03, 1))


def scatter(
    ax: Axes, rho: Real[Any, " n"], gamma: Real[Any, " n"], index: Int[Any, " n"], majority: float
) -> PathCollection:
    """Draw robustness against accuracy, a dot for each feature, and return the dots."""
    for line in (ax.axhline, ax.axvline):
        line(majority, color=COLORS["chance"], linestyle=":")
    ax.plot([0.3, 1], [0.3, 1], color=COLORS["chance"], linewidth=0.8)
    dots = ax.scatter(rho, gamma, c=np.log10(1 + np.asarray(index)), cmap="viridis", s=14, rasterized=True)
    ax.set(xlabel="accuracy ρᵢ", ylabel="robustness γᵢ", xlim=(0.33, 0.77), ylim=(-0.03, 0.77))
    return dots


def by_top(ax: Axes, tops: Int[Any, " k"], top: Real[Any, "k 2 3"]) -> None:
    """Draw accuracy of the first k features, clean and under PGD, with intervals."""
    for j, (label, color) in enumerate((("clean", "clean"), ("PGD", "adversarial"))):
        line = {"label": label, "color": color, "linestyle": "-", "markersize": 4}
        interval(ax, np.asarray(tops), *np.asarray(top)[:, j].T, **line)
    ax.set(xscale="log", xlabel="features kept", ylabel="accuracy", ylim=(-0.03, 1.03))


def trade(ax: Axes, curves: Mapping[str, Real[Any, "m 2"]]) -> None:
    """Draw accuracy under PGD against clean accuracy for the curves of `TRADES`."""
    for name, (label, color, marker) in TRADES.items():
        curve = np.asarray(curves[name])
        line = {"color": COLORS[color], "label": label, "markersize": 4, "linewidth": 1}
        ax.plot(curve[:, 0], curve[:, 1], marker + "-", **line)
    ax.set(xlabel="clean accuracy", ylabel="accuracy under PGD")


def pairs(
    pixels: Real[Any, "n h w c"], deltas: Real[Any, "n h w c"], titles: Sequence[str], *, limit: float
) -> Figure:
    """Draw images and below each a signed one, three in a row."""
    across, rows = 3, -(-len(pixels) // 3)
    figure = blank(3.2 * rows)
    axes = figure.subplots(2 * rows, across, squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    for i, title in enumerate(titles):
        above, below = axes[2 * (i // across) : 2 * (i // across) + 2, i % across]
        images([above], pixels[[i]], titles=[title])
        below.set_axis_on()
        signed_image(below, deltas[i], limit=limit)
    return figure
