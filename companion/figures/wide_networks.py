"""Figures of the chapter on kernels: networks that widen, their motion, and their distance from the limit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Real

from companion.figures._layout import Figure, Places, blank, sheet
from companion.interactive import Player, explore
from companion.plots import COLORS, band, heatmap, power_law

FRAMES = {"dpi": 80, "colors": 32}
PARTS = (("network", "-"), ("#4477aa", ":"), ("#8a6d00", "--"))


def units(
    widths: Sequence[int],
    ways: Mapping[int, Real[Any, "2 w 2"]],
    moved: Real[Any, "widths 2"],
    curves: tuple[Places, Real[Any, "widths p"], Places],
    points: tuple[Places, Places],
    *,
    start: int,
    shown: int = 512,
) -> Player:
    """Let the width run: the weights of each unit before and after training, and what is learned.

    Args:
        widths: of the networks.
        ways: of each width the weights of its units at the start and at the end, (2, w, 2).
        moved: how far training moved the parameters and the kernel, relative, (widths, 2).
        curves: inputs (p,), each network's learned function (widths, p), and that of infinite width (p,).
        points: inputs and targets of the training points, (n,) each.
        start: the width shown first.
        shown: the most units that are drawn.

    Returns:
        The player: weights above, functions below.
    """
    given, (places, learned, limit) = list(widths), curves

    def draw(width: int) -> Figure:
        row = given.index(width)
        figure, (top, low) = sheet(3.8, 2.8)
        way = np.asarray(ways[width])[:, :shown]
        top.plot(*way[0].T, "o", ms=3, color="#9a9a9a", label="start")
        gaps = np.full((1, *way.shape[1:]), np.nan)  # one broken line is drawn far faster than 512
        broken = np.concatenate([way, gaps]).swapaxes(0, 1).reshape(-1, 2)
        top.plot(*broken.T, color=COLORS["network"], lw=1.1, label="way to the end")
        top.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="weight of u", ylabel="weight of 1")
        parameters, kernel = 100 * np.asarray(moved[row])
        top.set_title(f"parameters moved by {parameters:.0f} %, the kernel by {kernel:.0f} %")
        top.legend(loc="upper right")
        low.plot(places, learned[row], color=COLORS["network"], label="network")
        low.plot(places, limit, "--", color=COLORS["kernel"], lw=1.2, label="kernel, infinite width")
        low.plot(*points, "o", color=COLORS["adversarial"], label="targets")
        low.set(xlim=(-2, 2), ylim=(-2.2, 2.2), xlabel="u", ylabel="output")
        low.legend(loc="lower center", ncols=2, fontsize=8)
        return figure

    def says(width: int) -> str:
        return (
            f"Width {width}. Above, weights of the units in the plane with their ways in training: "
            f"parameters moved by {100 * moved[given.index(width)][0]:.0f} % of their length. Below, the "
            "trained network's output, the four targets, and the curve of infinite width."
        )

    settings = {"labels": {"width": "Width"}, "start": {"width": start}, "alt": says, **FRAMES}
    return explore(draw, {"width": given}, **settings)


def motion(widths: Places, moves: Real[Any, "seeds w 3"]) -> Figure:
    """Draw how far training moves parameters, kernel and outputs, against the width.

    Args:
        widths: of the networks, (w,).
        moves: parameters and kernel, both relative to their size, and outputs, (seeds, w, 3).

    Returns:
        The figure: means, and bands from the least seed to the greatest.
    """
    figure, (ax,) = sheet(3.3)
    kinds = (("parameters, relative", "network"), ("kernel, relative", "kernel"), ("outputs", "clean"))
    for i, (label, color) in enumerate(kinds):
        band(ax, np.asarray(widths), moves[:, :, i], label=label, color=color, kind="minmax", marker="o")
    guide = moves[:, -1, 0].mean() * np.sqrt(widths[-1] / np.asarray(widths))
    ax.plot(widths, guide, ":", color=COLORS["chance"], label="slope −1/2")
    ax.set(xscale="log", yscale="log", xlabel="width N", ylabel="change by training")
    ax.set_xticks(widths, widths)
    ax.minorticks_off()
    ax.legend(fontsize=8)
    return figure


def distances(
    widths: Places,
    kernels: Real[Any, "seeds w"],
    trained: Places,
    outputs: Mapping[str, Real[Any, "seeds v"]],
    *,
    marker: str = "",
) -> Figure:
    """Draw the distance of networks from their limit against the width, with slopes of −1/2.

    Args:
        widths: of the networks at the start, (w,).
        kernels: relative distance of their kernels from the limit, (seeds, w).
        trained: widths of the trained networks, (v,).
        outputs: of each part of the outputs' distance, (seeds, v); theory's line goes through the first.
        marker: at the widths.

    Returns:
        The figure: kernels above, outputs below; medians, and bands with the middle 80 % of the seeds.
    """
    figure, (above, below) = sheet(2.9, 2.9)
    panels = (
        (above, widths, {"networks": kernels}, "relative distance of the kernels"),
        (below, trained, outputs, "distance of the outputs"),
    )
    for ax, at, parts, title in panels:
        for (label, samples), (color, style) in zip(parts.items(), PARTS, strict=False):
            band(ax, np.asarray(at), samples, label=label, color=color, linestyle=style, marker=marker)
        middle = np.median(next(iter(parts.values())), axis=0)
        power_law(ax, np.asarray(at), middle, exponent=-0.5, label="theory", color="kernel")
        ax.set(xlabel="width", title=title)
        ax.legend(fontsize=8)
    return figure


def matrices(
    widths: Sequence[int],
    kernels: Real[Any, "w n n"],
    limit: Real[Any, "n n"],
    errors: Real[Any, " w"],
    labels: Int[Any, " n"],
) -> Player:
    """Let the width run: a network's kernel matrix, its limit, and their difference.

    Args:
        widths: of the networks.
        kernels: their matrices, (w, n, n).
        limit: of infinite width, (n, n).
        errors: relative distances, (w,).
        labels: classes of the rows, sorted, (n,).

    Returns:
        The player; the difference has one scale for all widths.
    """
    given, edges = [int(width) for width in widths], (np.flatnonzero(np.diff(labels)) + 1).tolist()
    kernels, limit = np.asarray(kernels), np.asarray(limit)
    top, gap = float(limit.max()), float(np.abs(kernels - limit).max())

    def draw(width: int) -> Figure:
        row = given.index(width)
        figure = blank(4.9)
        axes = figure.subplots(2, 2)
        pictures = (
            (f"network, width {width}", kernels[row], {"limit": top}),
            ("infinite width", limit, {"limit": top}),
            ("difference", kernels[row] - limit, {"limit": gap, "symmetric": True}),
        )
        for ax, (title, matrix, scale) in zip(axes.flat, pictures, strict=False):
            heatmap(ax, matrix, label="", boundaries=edges, **scale)
            ax.set(title=title, xticks=[], yticks=[])
        axes[1, 1].set_axis_off()
        axes[1, 1].text(0, 0.5, f"relative distance\n{errors[row]:.3f}")
        return figure

    def says(width: int) -> str:
        return (
            f"Kernel matrices of {len(limit)} digits: a network of width {width}, the infinite-width limit, "
            f"and their difference, with relative distance {errors[given.index(width)]:.3f}."
        )

    return explore(draw, {"width": given}, labels={"width": "Width"}, alt=says, **FRAMES)


def ensemble(
    times: Places,
    angles: Places,
    members: Real[Any, "seeds t p"],
    moments: Real[Any, "t 2 p"],
    points: tuple[Places, Places],
    *,
    start: float,
) -> Player:
    """Let time run: trained networks on a circle, beside mean and spread of the infinite ensemble.

    Args:
        times: of the gradient flow.
        angles: places on the circle, in radians, (p,).
        members: outputs of each network, (seeds, t, p).
        moments: mean and standard deviation of the ensemble, (t, 2, p).
        points: angles and targets of the training points, (n,) each.
        start: the time shown first.

    Returns:
        The player.
    """
    shown = [float(t) for t in times]

    def draw(t: float) -> Figure:
        figure, (ax,) = sheet(3.4)
        mean, sd = moments[shown.index(t)]
        name = "kernel, ± 2 standard deviations"
        ax.fill_between(angles, mean - 2 * sd, mean + 2 * sd, color="#d9d9d9", label=name)
        lines = {"color": COLORS["network"], "lw": 0.8}
        ax.plot(angles, members[:, shown.index(t)].T, **lines)
        ax.plot([], [], label=f"{len(members)} networks", **lines)
        ax.plot(angles, mean, color=COLORS["kernel"], label="kernel, mean")
        ax.plot(*points, "o", color=COLORS["adversarial"], label="training points", zorder=5)
        ax.set(xlabel="angle on the circle (radians)", ylabel="output", ylim=(-2.4, 2.4))
        ax.legend(ncols=2, loc="upper center", fontsize=8)
        return figure

    def says(t: float) -> str:
        return (
            f"{len(members)} trained networks at time {t:.2f} with the kernel's mean and band: mean band "
            f"half-width {2 * moments[shown.index(t)][1].mean():.2f}."
        )

    settings = {"labels": {"t": "Time t"}, "start": {"t": start}, "alt": says, **FRAMES}
    return explore(draw, {"t": shown}, fmt=lambda t: f"{t:.2f}", **settings)


def robustness(
    widths: Sequence[int],
    kernel: Real[Any, "3"],
    rows: Mapping[str, Real[Any, "w 3"]],
    spared: Mapping[str, Real[Any, "w 3"]],
) -> Figure:
    """Draw accuracy under attack against the width, for networks and their linearizations.

    Args:
        widths: of the networks, (w,).
        kernel: accuracy of the kernel of infinite width with its interval, (3,).
        rows: of "network", "linearized" and others the same by width, (w, 3).
        spared: likewise, under attacks that leave black pixels alone.

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(3.2)
    ax.axhline(kernel[0], color=COLORS["kernel"], label="kernel")
    ax.axhspan(*kernel[1:], color=COLORS["kernel"], alpha=0.12, linewidth=0)
    looks = zip(rows, (("o", "network"), ("s", "adversarial"), ("^", "robust")), strict=False)
    for (name, (mark, hue)), shift in zip(looks, (0.95, 1.05, 1.0), strict=False):
        for some, style, end in ((rows, "-", ""), (spared, ":", ", black pixels left alone")):
            if name not in some:
                continue
            value, low, high = np.asarray(some[name], float).T
            bars = np.nan_to_num(np.clip([value - low, high - value], 0, None))
            look = {"fmt": mark + style, "color": COLORS[hue], "capsize": 3, "markersize": 4}
            places = np.array(widths)[: len(value)] * shift
            ax.errorbar(places, value, bars, label=name + end, **look)
    ax.set(xscale="log", xlabel="width", ylabel="accuracy under PGD", ylim=(0, 1))
    ax.set_xticks(widths, [f"{width:,}" for width in widths])
    ax.minorticks_off()
    ax.legend(fontsize=7, ncols=2, loc="upper left")
    return figure
