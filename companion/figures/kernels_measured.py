"""Figures of the chapter on kernels, continued: shifted images, rounding, and what kernels cost."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Real

from companion.figures._layout import Figure, Places, sheet
from companion.plots import COLORS, interval, power_law

NETWORKS = (("kernel", "-"), ("clean", "--"))
ROUNDED = (("network", "-"), ("network", "--"), ("kernel", ":"))
TASKS = (("kernel", "o"), ("network", "s"), ("clean", "^"))


def shifts(
    places: Places,
    likeness: Mapping[str, Real[Any, " m"]],
    strangers: Mapping[str, float],
    pooled: Real[Any, " m"],
    accuracy: Mapping[str, Real[Any, "m 3"]],
) -> Figure:
    """Draw what kernels say of shifted images, and accuracy on them.

    Args:
        places: shifts in pixels, (m,).
        likeness: of each network the kernel between an image and its shifted copy, relative, (m,).
        strangers: of each network the same with images of another class.
        pooled: likeness of a network that averages over pixels, (m,).
        accuracy: of each network, with both ends of its interval, (m, 3).

    Returns:
        The figure: likeness above, accuracy below.
    """
    figure, (above, below) = sheet(3.1, 3.1)
    for (label, values), (color, style) in zip(likeness.items(), NETWORKS, strict=True):
        line = {"color": COLORS[color], "linestyle": style}
        above.plot(places, values, marker="o", label=label, **line)
        above.axhline(strangers[label], color=COLORS[color], linestyle=":", lw=1)
        curve = np.asarray(accuracy[label]).T
        interval(below, np.asarray(places), *curve, label=label, color=color, linestyle=style)
    above.plot(places, pooled, "s-", color=COLORS["robust"], label="pooled")
    above.set(xlabel="shift (pixels)", title="Θ(x, shifted x) / Θ(x, x)", ylim=(0, 1.05))
    lowest = next(iter(strangers.values()))
    above.text(places[-1], lowest - 0.09, "another class", ha="right", fontsize=8)
    below.set(xlabel="shift of the test digits (pixels)", title="test accuracy")
    for ax in (above, below):
        ax.set_xticks(places)
        ax.legend(loc="lower left", fontsize=8)
    return figure


def rounding(times: Places, errors: Mapping[str, Real[Any, " m"]]) -> Figure:
    """Draw the relative error of predictions over time, a line for each float32 kernel.

    Args:
        times: of the gradient flow, (m,).
        errors: of each kernel, (m,).

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(3.3)
    for (label, values), (color, style) in zip(errors.items(), ROUNDED, strict=True):
        ax.loglog(times, values, style, color=COLORS[color], label=label)
    ax.set(xlabel="time t", ylabel="relative error of $f_t$")
    ax.set_ylim(top=50 * max(map(np.max, errors.values())))  # room for the legend
    ax.legend(title="float32 kernel of", loc="upper left")
    return figure


def cost(sizes: Mapping[str, Places], measured: Mapping[str, Real[Any, "2 m"]], *, fitted: int) -> Figure:
    """Draw seconds and bytes of each task against the number of images.

    Args:
        sizes: numbers of images of each task, (m,).
        measured: seconds and bytes of each, (2, m).
        fitted: how many of the largest sizes a power law goes through.

    Returns:
        The figure: seconds above, bytes below.
    """
    figure, axes = sheet(3.1, 3.1)
    for (label, values), (color, marker) in zip(measured.items(), TASKS, strict=True):
        at = np.asarray(sizes[label])
        for ax, one in zip(axes, np.asarray(values), strict=True):
            ax.loglog(at, one, marker, color=COLORS[color])
            power_law(ax, at[-fitted:], one[-fitted:], label=label, color=color)
    marks = sorted(set().union(*sizes.values()))
    for ax, title in zip(axes, ("seconds", "bytes"), strict=True):
        ax.set(xlabel="images n", title=title)
        ax.set_xticks(marks, marks)
        ax.legend(fontsize=8)
    return figure
