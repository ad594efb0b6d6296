"""Figures of the chapter on attacks, continued: how a kernel's perturbations transfer to networks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Real

from companion.figures._attack_curves import DEPTHS, over_eps, seeds, success_over, ticks
from companion.figures._layout import Figure, Places, sheet
from companion.interactive import Player, explore
from companion.plots import interval


def over_width(
    widths: Places, success: Real[Any, "seeds w 3"], cosine: Real[Any, "seeds w"], *, title: str
) -> Figure:
    """Draw success of three attacks on networks, and the cosine of gradients, against the width.

    Args:
        widths: of the networks, (w,).
        success: for `SOURCES`, (seeds, w, 3).
        cosine: between gradients of kernel and network, (seeds, w).
        title: of the panel of success.

    Returns:
        The figure: success above, the cosine below.
    """
    figure, (ax, below) = sheet(2.5, 2.0, sharex=True)
    success_over(ax, widths, success)
    ax.set(ylabel="success", title=title)
    ax.legend()
    seeds(below, widths, cosine, label="cosine of gradients", color="robust")
    below.set(xscale="log", xlabel="width of the network", ylabel="cosine", ylim=(-0.03, 1.03))
    ticks(below, widths)
    return figure


def while_training(levels: Places, widths: Places, success: Real[Any, "seeds w l 3"]) -> Player:
    """Let the width run, and show success of three attacks on networks while they train.

    Args:
        levels: residuals on the training set, falling, (l,).
        widths: of the networks, (w,).
        success: for `SOURCES`, (seeds, w, l, 3).

    Returns:
        The player.
    """
    shown = list(widths)

    def draw(width: int) -> Figure:
        figure, (ax,) = sheet(3.0)
        success_over(ax, levels, success[:, shown.index(width)])
        ax.set(xlabel="residual on the training set (training goes right)", ylabel="success")
        ax.set_xlim(1.1 * levels[0], 0.9 * levels[-1])
        ticks(ax, levels)
        ax.legend(loc="center left")
        return figure

    def says(width: int) -> str:
        first, last = success[:, shown.index(width), [0, -1], 0].mean(axis=0)
        return (
            f"Success of the kernel's attack on networks of width {width} while they train, from {first:.2f} "
            f"at the first level to {last:.2f} at the last."
        )

    return explore(draw, {"width": shown}, labels={"width": "Width"}, alt=says)


def laziness(
    scales: Places,
    success: Real[Any, "seeds k 3"],
    motion: Real[Any, "seeds k"],
    cosine: Real[Any, "seeds k"],
    *,
    title: str,
) -> Figure:
    """Draw success on networks κf, and how far their kernels move, against the scale κ.

    Args:
        scales: κ, (k,).
        success: for `SOURCES`, (seeds, k, 3).
        motion: of the network's kernel, relative, (seeds, k).
        cosine: between gradients of kernel and network, (seeds, k).
        title: of the panel of success.

    Returns:
        The figure: success above, motion and cosine below.
    """
    figure, (ax, below) = sheet(2.4, 2.2, sharex=True)
    success_over(ax, scales, success)
    ax.set(ylabel="success", title=title)
    ax.legend(loc="center left")
    seeds(below, scales, motion, label="motion of the kernel", color="network")
    seeds(below, scales, cosine, label="cosine of gradients", color="robust")
    below.set(xscale="log", yscale="log", xlabel="scale κ")
    below.legend()
    return figure


def recorded(
    eps: Places,
    attacks: Mapping[str, Real[Any, "e 3"]],
    depths: Mapping[str, Real[Any, "e 3"]],
    widths: Places,
    success: Mapping[str, Real[Any, "seeds w 3"]],
) -> Figure:
    """Draw the recorded run: accuracy against ε by attack and by depth, and success on networks.

    Args:
        eps: sizes in steps of a pixel, the first 0, (e,).
        attacks: accuracy under `random`, `fgsm` and `pgd_long`, with both ends of its interval, (e, 3).
        depths: accuracy under PGD of each kernel, from shallow to deep, (e, 3).
        widths: of the networks, (w,).
        success: of each panel's title that of the attacks, (seeds, w, 3).

    Returns:
        The figure, panels one below the other.
    """
    figure, (first, second, *others) = sheet(2.2, 2.2, *[2.2] * len(success))
    over_eps(first, eps, attacks)
    first.set(xlabel="ε · 255", ylabel="accuracy", title=next(iter(depths)))
    first.legend()
    for (name, values), color in zip(depths.items(), DEPTHS, strict=False):
        line = {"color": color, "linestyle": "-", "markersize": 4}
        interval(second, eps, *np.asarray(values).T, label=name, **line)
    second.set(xlabel="ε · 255", ylabel="accuracy under PGD", ylim=(-0.03, 1.03))
    second.legend()
    for ax, (title, values) in zip(others, success.items(), strict=True):
        success_over(ax, widths, values)
        ax.set(xlabel="width", ylabel="success", title=title)
    others[-1].legend(loc="lower left", bbox_to_anchor=(0, 0.06))
    return figure
