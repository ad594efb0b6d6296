"""Figures of the chapter on guarantees: certified balls, certified and attacked accuracy, radii."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from companion._core.extras import missing
from companion.figures._layout import Axes, Figure, Places, blank, sheet
from companion.interactive import Player, explore
from companion.plots import COLORS, images, signed_image

try:
    from matplotlib.patches import Circle
except ModuleNotFoundError as error:
    raise missing("matplotlib", "plots") from error

DIAL = (
    ("kernel", "o-"),
    ("clean", "s--"),
    ("nonrobust", "^-"),
    ("robust", "v:"),
    ("network", "D-"),
)
Known = tuple[Real[Any, " m"], Real[Any, " m"]]  # shares that are certified, and that attacks leave


def balls(
    plane: tuple[Float[Any, "n 2"], Real[Any, " n"]],
    values: tuple[Places, Real[Any, "m m"]],
    discs: tuple[Float[Any, "b 2"], Real[Any, " b"]],
    lengths: Places,
    slopes: Mapping[str, Real[Any, " l"]],
    bounds: tuple[float, Real[Any, " l"]],
) -> Figure:
    """Draw certified balls in the plane; and how far feature maps move for each unit that the input moves.

    Args:
        plane: points of two classes and their sides, ±1, (n, 2) and (n,).
        values: places along either axis, (m,), and the predictor there, rows along the second input, (m, m).
        discs: centers and radii of the balls, (b, 2) and (b,).
        lengths: of the steps, (l,).
        slopes: of the conjugate kernel's features and of the NTK's, (l,) each.
        bounds: L of the first, and the bound of the second, (l,).

    Returns:
        The figure: the plane above, slopes below.
    """
    figure, (ax, below) = sheet(3.0, 2.4)
    (points, sides), (ticks, outputs) = plane, values
    ax.contour(ticks, ticks, outputs, levels=[0], colors=COLORS["kernel"])
    for side, hue in ((1, "clean"), (-1, "nonrobust")):
        ax.plot(*points[sides == side].T, ".", color=COLORS[hue], ms=5)
    for center, radius in zip(*discs, strict=True):
        ax.plot(*center, "x", color=COLORS["robust"])
        ax.add_patch(Circle(center, radius, color=COLORS["robust"], alpha=0.3))
    ends = (ticks[0], ticks[-1])
    ax.set(aspect="equal", xlim=ends, ylim=ends, xlabel="first input", ylabel="second input")
    for (label, measured), hue in zip(slopes.items(), ("kernel", "network"), strict=True):
        below.loglog(lengths, measured, "o", ms=4, color=COLORS[hue], label=label)
    below.axhline(bounds[0], color=COLORS["robust"], label="L")
    below.loglog(lengths, bounds[1], ":", color=COLORS["robust"], label="bound of the NTK")
    below.set(xlabel="length of the step", ylabel="slope of the features")
    below.legend()
    return figure


def known(grid: Places, panels: Mapping[str, Known], *, ends: Sequence[float | int]) -> Figure:
    """Draw certified and attacked accuracy against the size, and what lies between; a panel for each task.

    Args:
        grid: sizes, (m,).
        panels: of each task the share that is certified, and that attacks leave, (m,) each.
        ends: of each panel's axis.

    Returns:
        The figure.
    """
    figure, axes = sheet(*[2.6] * len(panels), sharey=True)
    for ax, (title, shares), end in zip(axes, panels.items(), ends, strict=True):
        _known(ax, grid, shares, end)
        ax.set(title=title, ylabel="accuracy")
    axes[0].legend(loc="lower left")
    return figure


def along_ridge(
    grid: Places,
    curves: Mapping[float, Known],
    facts: Mapping[float, tuple[float, float, float]],
    *,
    end: float | int,
    start: float,
) -> Player:
    """Let the ridge run, and show certified and attacked accuracy against the size.

    Args:
        grid: sizes, (m,).
        curves: of each ridge the share that is certified, and that attacks leave, (m,) each.
        facts: of each ridge clean accuracy, median radius, median distance of the nearest attack.
        end: of the axis.
        start: the ridge shown first.

    Returns:
        The player.
    """

    def draw(ridge: float) -> Figure:
        figure, (ax,) = sheet(3.0)
        _known(ax, grid, curves[ridge], end)
        ax.set(ylabel="accuracy")
        ax.legend(loc="upper right")
        return figure

    def says(ridge: float) -> str:
        right, radius, found = facts[ridge]
        return (
            f"Ridge {ridge:g} mean diagonals: {right:.2f} right, median certified radius {radius:.2f}, "
            f"median distance of the nearest attack found {found:.2f}."
        )

    settings = {"labels": {"ridge": "Ridge, in mean diagonals"}, "start": {"ridge": start}, "alt": says}
    return explore(draw, {"ridge": list(curves)}, fmt=lambda ridge: f"{ridge:g}", **settings)


def dial(lines: Mapping[str, Real[Any, "m 2"]]) -> Figure:
    """Draw clean accuracy against the median certified radius, a line for each kernel and what is turned.

    Args:
        lines: radius and accuracy along each, (m, 2).

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(3.5)
    for (label, points), (hue, style) in zip(lines.items(), DIAL, strict=True):
        ax.plot(*np.asarray(points).T, style, ms=4, color=COLORS[hue], label=label)
    ax.set(xscale="log", xlabel="median certified radius (L2)", ylabel="clean accuracy", ylim=(0.75, 1.0))
    ax.legend(loc="lower left")
    return figure


def nearest(
    clean: Real[Any, "n h w c"],
    found: Real[Any, "n h w c"],
    titles: Sequence[str],
    attacked: Sequence[str],
    *,
    limit: float,
) -> Figure:
    """Draw images, the change to the nearest input of another class, and that input, a row for each image.

    Args:
        clean: pixels in [0, 1], (n, h, w, c).
        found: the inputs of another class, (n, h, w, c).
        titles: above each image.
        attacked: above each input found.
        limit: full color of the change.

    Returns:
        The figure: three columns.
    """
    figure = blank(1.9 * len(clean))
    axes = figure.subplots(len(clean), 3)
    images(axes[:, 0], clean, titles=titles)
    images(axes[:, 2], found, titles=attacked)
    for ax, change in zip(axes[:, 1], found - clean, strict=True):
        signed_image(ax, change, limit=limit)
        ax.set_xlabel("")
    axes[-1, 1].set_xlabel(f"full color: ±{limit:g}")
    return figure


def floor(
    sizes: Sequence[float],
    outputs: Real[Any, " m"],
    certified: Real[Any, " m"],
    moved: Real[Any, "m h w c"],
    says: Sequence[str],
    *,
    radius: float,
    limit: float,
    start: int,
) -> Player:
    """Let the size of an attack run: its output, the floor that no attack can pass, and the image.

    Args:
        sizes: of the attack, the first 0, (m,).
        outputs: for the true class, (m,).
        certified: the floor, (m,).
        moved: the image at each size, (m, h, w, c).
        says: the class that is said at each size.
        radius: of the certificate.
        limit: full color of the change.
        start: number of the size shown first.

    Returns:
        The player.
    """

    def draw(i: int) -> Figure:
        figure = blank(4.8)
        parts = figure.add_gridspec(2, 2, height_ratios=(1.3, 1))
        ax = figure.add_subplot(parts[0, :])
        change, picture = (figure.add_subplot(parts[1, k]) for k in range(2))
        ax.plot(sizes, outputs, color=COLORS["adversarial"], label="PGD")
        ax.plot(sizes, certified, color=COLORS["robust"], label="certified floor")
        ax.axhline(0, color=COLORS["chance"], linewidth=1)
        ax.axvline(radius, color=COLORS["robust"], linestyle=":")
        ax.plot(sizes[i], outputs[i], "o", color=COLORS["adversarial"])
        ax.set(xlabel="ε (L2)", ylabel="s f", ylim=(-1.5, 1.2))
        ax.legend(loc="lower left")
        signed_image(change, moved[i] - moved[0], limit=limit, title="change")
        images([picture], moved[[i]], titles=[f"says {says[i]}"])
        return figure

    def tells(i: int) -> str:
        return (
            f"ε = {sizes[i]:g}: the output for the true class under PGD is {outputs[i]:+.2f}, the certified "
            f"floor {certified[i]:+.2f}."
        )

    settings = {"labels": {"i": "ε"}, "start": {"i": start}, "alt": tells}
    return explore(draw, {"i": list(range(len(sizes)))}, fmt=lambda i: f"{sizes[i]:g}", **settings)


def recorded_radii(names: Sequence[str], radii: Mapping[str, Real[Any, "n 2"]], *, least: float) -> Figure:
    """Draw a bar from the median certified radius to the nearest attack found, for each row and ridge.

    Args:
        names: of the rows.
        radii: of two ridges radius and distance, (n, 2).
        least: left end of the axis; a smaller radius begins there.

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(0.9 + 0.32 * len(names))
    looks = ((-0.15, "nonrobust"), (0.15, "robust"))
    for (label, rows), (offset, hue) in zip(radii.items(), looks, strict=True):
        line = {"color": COLORS[hue], "linewidth": 4, "alpha": 0.5}
        for place, (radius, distance) in enumerate(rows):
            low = max(radius, least)
            ax.plot([low, distance], [place + offset] * 2, **line)
            for at, color in ((low, hue), (distance, "adversarial")):
                ax.plot(at, place + offset, "|", color=COLORS[color], ms=9, mew=2)
        ax.plot([], [], label=label, **line)
    ax.set(xscale="log", xlim=(least, 10), ylim=(len(names) - 0.5, -0.5))
    ax.set_xlabel("L2 distance: certified | found")
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    ax.grid(axis="y", visible=False)
    return figure


def _known(ax: Axes, grid: Places, shares: Known, end: float | int) -> None:
    """Draw what is certified and what attacks leave, with the unknown between them."""
    certified, left = shares
    ax.fill_between(grid, certified, left, color=COLORS["chance"], alpha=0.25, label="unknown")
    ax.plot(grid, left, color=COLORS["adversarial"], label="attacked")
    ax.plot(grid, certified, color=COLORS["robust"], label="certified")
    ax.set(xlim=(0, end), ylim=(-0.03, 1.03), xlabel="ε (L2)")
