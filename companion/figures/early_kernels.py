"""Figures of the chapter on saving time, continued: distances of early kernels, and velocity."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Real

from companion.figures._layout import Figure, Places, sheet
from companion.plots import COLORS, band

PAIRS = {
    "again – standard (control)": (0, 1, "chance"),
    "fgsm – standard": (0, 2, "nonrobust"),
    "pgd – standard": (0, 3, "adversarial"),
    "pgd – fgsm": (2, 3, "network"),
}
LEAST = 1e-5  # what a logarithmic axis shows for 0


def apart(panels: Mapping[str, tuple[Real[Any, " r"], Real[Any, "seeds r 4 4"]]]) -> Figure:
    """Draw distances between the kernels of four trainings at one epoch: mean, least and greatest seed.

    Args:
        panels: by title: the epochs, (r,); distances of the kernels of standard training, of another order
            of minibatches, of FGSM and of PGD training, (seeds, r, 4, 4).

    Returns:
        The figure, panels one below the other.
    """
    figure, axes = sheet(*[3.0] * len(panels), sharey=True)
    for ax, (title, (epochs, between)) in zip(axes, panels.items(), strict=True):
        for label, (i, j, color) in PAIRS.items():
            rows = np.maximum(between[..., i, j], LEAST)
            band(ax, np.asarray(epochs), rows, label=label, color=color, kind="minmax")
        ax.set(yscale="log", xlabel="epoch", ylabel="distance d", title=title)
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return figure


def velocity(
    epochs: Places,
    speeds: Real[Any, "seeds m"],
    limits: Real[Any, "seeds m"],
    switched: Real[Any, " seeds"],
) -> Figure:
    """Draw the kernel's velocity in clean training, and where a rule switches: a color for each seed.

    Args:
        epochs: at which the velocity is known, (m,).
        speeds: distance d an epoch, (seeds, m).
        limits: below which the rule switches, (seeds, m).
        switched: the epoch of the switch, infinity for never, (seeds,).

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(2.8)
    hues = ("clean", "network", "nonrobust")
    for s, (speed, limit, at) in enumerate(zip(speeds, limits, switched, strict=True)):
        color = COLORS[hues[s % len(hues)]]
        shown = np.maximum(speed, LEAST)
        ax.plot(epochs, shown, "o-", markersize=3, color=color)
        ax.plot(epochs, limit, "--", linewidth=1, color=color)
        if np.isfinite(at):
            place = shown[np.searchsorted(epochs, at)]
            ax.plot(at, place, "*", markersize=13, color=COLORS["robust"], zorder=5)
    ax.set(yscale="log", xlabel="epoch", ylabel="velocity")
    return figure
