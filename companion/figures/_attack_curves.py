"""Curves that several figures on attacks share: accuracy against ε, success against anything."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Real

from companion._core.words import Unchecked
from companion.figures._layout import Axes, Places
from companion.plots import band, interval

ATTACKS = {
    "random": ("random signs", "clean", ":", "o"),
    "pgd_long": ("PGD, 40 steps", "adversarial", "-", ""),
    "fgsm": ("FGSM, 1 step", "nonrobust", "none", "s"),
}
SOURCES = (("the kernel's", "kernel"), ("white-box PGD", "network"), ("random signs", "clean"))
DEPTHS = ("#f08a3c", "#d9541a", "#9c3306", "#4a1800")  # from shallow to deep


def over_eps(ax: Axes, eps: Places, curves: Mapping[str, Real[Any, "e 3"]], *, pgd: str = "-") -> None:
    """Draw accuracy with its interval against ε for the attacks of `ATTACKS`; PGD as a line, or as points."""
    for name, (label, color, style, marker) in ATTACKS.items():
        if name == "pgd_long" and pgd == "none":
            style, marker = "none", "o"
        kind = {"label": label, "color": color, "linestyle": style, "marker": marker, "markersize": 4}
        if name == "fgsm":  # often where PGD is, which stays to be seen
            kind |= {"markersize": 8, "markerfacecolor": "none"}
        interval(ax, np.asarray(eps), *np.asarray(curves[name]).T, **kind)
    ax.set(ylim=(-0.03, 1.03))


def success_over(ax: Axes, places: Places, success: Real[Any, "seeds m 3"]) -> None:
    """Draw the success of the attacks of `SOURCES`: mean, and from the least seed to the greatest."""
    for i, (label, color) in enumerate(SOURCES):
        seeds(ax, places, success[..., i], label=label, color=color)
    ax.set(xscale="log", ylim=(-0.03, 1.03))


def seeds(ax: Axes, places: Places, values: Real[Any, "seeds m"], **line: Unchecked) -> None:
    """Draw the mean over seeds, and a band from the least to the greatest."""
    band(ax, np.asarray(places), values, kind="minmax", marker="o", markersize=4, **line)


def ticks(ax: Axes, places: Places) -> None:
    """Mark these places of a logarithmic axis, and no others."""
    ax.set_xticks(places, [f"{place:g}" for place in places])
    ax.minorticks_off()
