"""Figures of the chapter on features: what each is worth, how robust it is, and what it looks like."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Real
from matplotlib.patches import Rectangle

from companion.figures._feature_curves import pairs, profile, scatter
from companion.figures._layout import Axes, Figure, blank, sheet
from companion.interactive import Player, explore
from companion.plots import COLORS, images, power_law, signed_image


def linear_split(
    useful: Real[Any, " n"],
    price: Real[Any, " n"],
    sums: Mapping[str, tuple[float, float]],
    *,
    eps: float,
    used_up: Sequence[float],
) -> Figure:
    """Draw usefulness and price of linear features, against their index and against each other.

    Args:
        useful: usefulness of each direction, (n,); those that are not positive have no dot above.
        price: what the attack takes of each, (n,).
        sums: usefulness and price of sums of directions, two of them.
        eps: size of the attack.
        used_up: sizes for which a line says where a feature is used up.

    Returns:
        The figure.
    """
    figure, (ax, below) = sheet(2.6, 3.4)
    place = np.arange(1, len(useful) + 1)
    for values, name, color in ((useful, "usefulness", "clean"), (price, "price", "adversarial")):
        shown = np.where(values > 0, values, np.nan)
        ax.loglog(place, shown, ".", color=COLORS[color], label=name, rasterized=True)
    ax.set(xlabel="1 + index of the direction", ylim=(5e-3, 60))
    ax.legend()
    dots = below.scatter(np.abs(useful), price, c=np.log10(place), cmap="viridis", s=14, rasterized=True)
    for (name, point), marker in zip(sums.items(), "*D", strict=True):
        below.plot(*point, "k" + marker, markersize=8, label=f"sum of {name}")
    ends = np.geomspace(1e-3, 1, 20)  # straight where both axes are linear, and one is not
    for size in used_up:
        line = {"linestyle": "-" if size == eps else ":", "label": f"used up at ε = {size:g}"}
        below.plot(ends, ends * eps / size, color=COLORS["chance"], linewidth=0.8, **line)
    below.set(yscale="log", xlabel="usefulness", ylabel=f"price at ε = {eps:g}")
    below.set(xlim=(0, 1), ylim=(0.01, 60))
    below.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, markerscale=0.7)
    figure.colorbar(dots, ax=below, label="log₁₀(1 + index)")
    return figure


def boundaries(
    points: Real[Any, "p 2"],
    regions: Bool[Any, "w g g f"],
    crossed: Bool[Any, "p f"],
    windows: Sequence[tuple[Real[Any, " 2"], float]],
    *,
    titles: Sequence[str],
    radius: float,
) -> Figure:
    """Draw where features are positive in a plane, and which balls around the points they cut.

    Args:
        points: training inputs, (p, 2).
        regions: whether each feature is positive on a grid in each window, (w, g, g, f).
        crossed: whether the boundary of a feature crosses a point's ball, (p, f).
        windows: center and half a side of each; the second is framed in the first.
        titles: one for each feature.
        radius: of the balls.

    Returns:
        The figure, a row for each window and a column for each feature.
    """
    figure = blank(3.9)
    axes = figure.subplots(len(windows), len(titles), squeeze=False)
    for row, seen, (middle, half), thick in zip(axes, regions, windows, (0.6, 1.4), strict=True):
        inside = (np.abs(points - middle) < half + radius).all(axis=1)
        for k, ax in enumerate(row):
            _plane(ax, points[inside], seen[:, :, k], crossed[inside, k], (middle, half, radius, thick))
    middle, half = windows[-1]
    for ax, title in zip(axes[0], titles, strict=True):
        ax.add_patch(Rectangle(middle - half, 2 * half, 2 * half, fill=False, color="black", linewidth=1))
        ax.set_title(title)
    return figure


def _plane(
    ax: Axes,
    points: Real[Any, "p 2"],
    region: Bool[Any, "g g"],
    crossed: Bool[Any, " p"],
    window: tuple[Real[Any, " 2"], float, float, float],
) -> None:
    """Draw one feature in one window: its sign, the points, and their balls."""
    middle, half, radius, thick = window
    x_ends, y_ends = ((m - half, m + half) for m in middle)
    sign = {"cmap": "coolwarm", "alpha": 0.4, "interpolation": "nearest"}
    ax.imshow(region, extent=[*x_ends, *y_ends], origin="lower", **sign)
    ax.plot(*points.T, ".", markersize=2 * thick, color="black", rasterized=True)
    for point, cut in zip(points, crossed, strict=True):
        line = {"color": COLORS["adversarial" if cut else "chance"], "linewidth": thick}
        ax.add_patch(Rectangle(point - radius, 2 * radius, 2 * radius, fill=False, rasterized=True, **line))
    ax.set(xticks=[], yticks=[], xlim=x_ends, ylim=y_ends)
    ax.grid(visible=False)


def distances(
    lengths: Real[Any, " l"],
    moved_by: Mapping[str, Real[Any, "l k"]],
    needed: Real[Any, "m n"],
    *,
    traveled: float,
    fitted: int,
) -> Figure:
    """Draw how far kernels see an image move, and how far it has to move to flip a feature.

    Args:
        lengths: of random perturbations, (l,).
        moved_by: kernel distance by "ntk" and "nngp" of k images, (l, k).
        needed: distance to flip each feature for each image, (m, n).
        traveled: distance that an attack travels, the median.
        fitted: how many of the lengths the power laws are fitted to.

    Returns:
        The figure.
    """
    figure, (ax, below) = sheet(2.5, 2.5)
    for (kind, moved), color in zip(moved_by.items(), ("kernel", "network"), strict=True):
        typical = moved.mean(axis=1)
        ax.loglog(lengths, typical, "o", color=COLORS[color])
        power_law(ax, lengths[:fitted], typical[:fitted], label=kind.upper(), color=color)
    ax.set_xticks([1e-4, 1e-3, 1e-2, 1e-1, 1], ["10⁻⁴", "10⁻³", "10⁻²", "0.1", "1"])
    ax.set(xlabel="length of the perturbation", ylabel="kernel distance")
    ax.legend()
    numbers = np.arange(1, needed.shape[1] + 1)
    middle, low, high = np.quantile(needed, (0.5, 0.1, 0.9), axis=0)
    robust = {"color": COLORS["robust"], "rasterized": True}
    below.loglog(numbers, middle, label="needed to flip", **robust)
    below.fill_between(numbers, low, high, alpha=0.2, **robust)
    below.axhline(traveled, color=COLORS["adversarial"], label="FGSM travels")
    below.set(xlabel="1 + index of the feature", ylabel="kernel distance")
    below.legend()
    return figure


def one_by_one(
    index: Int[Any, " n"],
    rho: Real[Any, " n"],
    gamma: Real[Any, " n"],
    noisy: Real[Any, " n"],
    *,
    majority: float,
    count: int,
) -> Figure:
    """Draw accuracy, accuracy under random signs and robustness of every feature.

    Args:
        index: of the features, (n,).
        rho: accuracy of each, (n,).
        gamma: accuracy under attack, (n,).
        noisy: accuracy under random signs, (n,).
        majority: share of the larger class.
        count: number of images.

    Returns:
        The figure: against the index above, robustness against accuracy below.
    """
    figure, (ax, below) = sheet(2.6, 3.4)
    profile(ax, index, rho, gamma, majority=majority, count=count, noisy=noisy)
    ax.legend(loc="upper right", ncols=2)
    dots = scatter(below, rho, gamma, index, majority)
    figure.colorbar(dots, ax=below, label="log₁₀(1 + index)")
    return figure


def one_feature(
    shown: list[int],
    scores: tuple[Int[Any, " n"], Real[Any, " n"], Real[Any, " n"]],
    excited: Real[Any, "s h w c"],
    changes: Real[Any, "s h w c"],
    *,
    majority: float,
    count: int,
    eps: float,
) -> Player:
    """Let the feature run: its place among all, its attack on one image, and the image that excites it most.

    Args:
        shown: indices of the slider.
        scores: index, accuracy and robustness of all features, (n,) each.
        excited: the most exciting image of each that is shown, (s, h, w, c).
        changes: the attack of each that is shown on one image, (s, h, w, c).
        majority: share of the larger class.
        count: number of images.
        eps: full color of the attack.

    Returns:
        The player.
    """
    index, rho, gamma = scores

    def draw(i: int) -> Figure:
        figure = blank(4.6)
        parts = figure.add_gridspec(2, 2, height_ratios=(1.3, 1))
        ax = figure.add_subplot(parts[0, :])
        profile(ax, index, rho, gamma, majority=majority, count=count)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
        ax.plot([1 + i] * 2, [rho[i], gamma[i]], "ko", fillstyle="none")
        images([figure.add_subplot(parts[1, 0])], excited[[shown.index(i)]], titles=["most exciting"])
        attack = figure.add_subplot(parts[1, 1])
        signed_image(attack, changes[shown.index(i)], limit=eps, title="its attack on a 9")
        return figure

    def says(i: int) -> str:
        return (
            f"Feature {i}: usefulness {rho[i]:.2f}, robustness {gamma[i]:.2f}; "
            "the image that excites it most, and its perturbation of a nine."
        )

    return explore(
        draw, {"i": shown}, labels={"i": "Feature"}, start={"i": shown[0]}, alt=says, dpi=80, colors=18
    )


def gallery(
    index: Sequence[int],
    scores: Real[Any, "f 2"],
    excited: Real[Any, "f h w c"],
    differences: Real[Any, "f h w c"],
    *,
    limit: float,
) -> Figure:
    """Draw of each feature the image that excites it most, and the difference of its two mean images.

    Args:
        index: of the features.
        scores: accuracy and robustness, (f, 2).
        excited: pixels in [0, 1], (f, h, w, c).
        differences: signed, (f, h, w, c).
        limit: full color of the differences.

    Returns:
        The figure, three features in a row.
    """
    titles = [f"feature {i}\nρ {r:.2f}, γ {g:.2f}" for i, (r, g) in zip(index, scores, strict=True)]
    return pairs(excited, differences, titles, limit=limit)
