"""Figures of the chapter on robust overfitting: the road of training in time, and learned clocks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Real

from companion.figures._layout import TIME, Figure, blank, grid, sheet
from companion.interactive import Player, explore
from companion.plots import COLORS, images, signed_image


def one_clock(
    clocks: list[float],
    places: Float[np.ndarray, " p"],
    curves: Float[np.ndarray, "clocks p"],
    inputs: Float[np.ndarray, " n"],
    labels: Float[np.ndarray, " n"],
    *,
    square: int,
    others: float,
) -> Player:
    """Let the clock of one example run, and show the predictor that results.

    Args:
        clocks: the values of the slider.
        places: inputs at which the predictor is drawn, (p,).
        curves: the predictor at the places for each clock, (clocks, p).
        inputs: of the examples, (n,).
        labels: of the examples, (n,).
        square: the example whose clock it is, drawn as a square.
        others: the clock of the others.

    Returns:
        The player.
    """

    def draw(clock: float) -> Figure:
        figure, (ax,) = sheet(2.8)
        ax.axhline(0, color=COLORS["chance"], linewidth=1)
        ax.plot(places, curves[clocks.index(clock)], color=COLORS["kernel"])
        rest = np.arange(len(inputs)) != square
        ax.plot(inputs[rest], labels[rest], "o", color=COLORS["clean"], label=f"clock {others:g}")
        marker = {"color": COLORS["adversarial"], "markersize": 8, "label": f"clock {clock:g}"}
        ax.plot(inputs[[square]], labels[[square]], "s", **marker)
        ax.set(ylim=(-1.8, 1.8), xlabel="input", ylabel="f")
        ax.legend(loc="upper left")
        return figure

    def passes(clock: float) -> str:
        value = np.interp(inputs[square], places, curves[clocks.index(clock)])
        return f"Clock {clock:g}: the curve passes {value:+.2f} at the wrong label."

    labelled = {"clock": "Clock of the square"}
    return explore(draw, {"clock": clocks}, labels=labelled, fmt=lambda clock: f"{clock:g}", alt=passes)


def road(
    times: Float[np.ndarray, " m"],
    accuracy: Float[np.ndarray, "m 2"],
    left_over: Float[np.ndarray, " m"],
    *,
    factor: float | int,
) -> Figure:
    """Draw accuracy and what is not learned along time, for plain training and for clocks that run faster.

    Args:
        times: of plain training, in 1/λ̄, (m,).
        accuracy: clean and robust, in [0, 1], (m, 2).
        left_over: share of the labels that is not yet learned, (m,).
        factor: how many times as fast the clocks run in adversarial training.

    Returns:
        The figure: accuracy above, what is left over below.
    """
    figure, (ax, fade) = sheet(2.7, 2.2, sharex=True)
    for shift, style, name in ((1, "-", "plain"), (factor, "--", "adversarial")):
        ax.semilogx(times / shift, accuracy[:, 0], style, color=COLORS["clean"], label=f"{name}, clean")
        ax.semilogx(times / shift, accuracy[:, 1], style, color=COLORS["robust"], label=f"{name}, under PGD")
        fade.semilogx(times / shift, left_over, style, color=COLORS["kernel"], label=name)
    ax.set(ylabel="accuracy", ylim=(0, 1))
    ax.legend(loc="lower right")
    fade.set(xlabel=TIME, ylabel="labels not learned", xlim=(times[0] / factor, times[-1]))
    fade.legend()
    return figure


def one_digit(
    times: Float[np.ndarray, " m"],
    margins: Float[np.ndarray, "m 2"],
    slopes: Real[Any, "m h w c"],
    image: Real[Any, "h w c"],
    *,
    label: int,
    rival: int,
    start: int = 0,
) -> Player:
    """Let time run, and show the margin of one image and the gradient that an attack follows.

    Args:
        times: in 1/λ̄, (m,).
        margins: clean and under attack, wrong below 0, (m, 2).
        slopes: gradient of the rival's output minus its own in the pixels, (m, h, w, c).
        image: pixels in [0, 1], (h, w, c).
        label: the image's class.
        rival: the class next to its own.
        start: number of the time shown first.

    Returns:
        The player.
    """
    shown = [float(time) for time in times]

    def draw(t: float) -> Figure:
        i = shown.index(t)
        figure = blank(4.6)
        parts = figure.add_gridspec(2, 2)
        ax = figure.add_subplot(parts[0, :])
        for part, name, hue in ((0, "clean", "clean"), (1, "under PGD", "adversarial")):
            ax.semilogx(times, margins[:, part], color=COLORS[hue], label=name)
        ax.semilogx([t] * 2, margins[i], "o", color=COLORS["kernel"])
        ax.axhline(0, color=COLORS["chance"], linewidth=1)
        ax.set(xlabel=TIME, ylabel="margin of the output")
        ax.legend()
        images([figure.add_subplot(parts[1, 0])], image[None], titles=[f"a {label}"])
        signed_image(figure.add_subplot(parts[1, 1]), slopes[i], title=f"toward {rival}")
        return figure

    def says(t: float) -> str:
        clean, attacked = margins[shown.index(t)]
        return f"Time {t:.3g}: margin {clean:+.3f} clean and {attacked:+.3f} under PGD."

    first = {"t": shown[start]}
    names = {"t": "Time, in 1/λ̄"}
    return explore(draw, {"t": shown}, labels=names, fmt=lambda t: f"{t:.3g}", start=first, alt=says)


def learned_clocks(
    clocks: Mapping[str, Float[np.ndarray, " n"]],
    x: Real[Any, "n h w c"],
    labels: Int[Any, " n"],
    *,
    best: float,
    each: int = 6,
) -> Figure:
    """Draw how learned clocks are spread, by class, and the images with the shortest and the longest.

    Args:
        clocks: of every way to learn them the clocks, in 1/λ̄, (n,); classes and images are of the first.
        x: the images, pixels in [0, 1], (n, h, w, c).
        labels: their classes, 0 to 9, (n,).
        best: the best single time.
        each: how many images of either end.

    Returns:
        The figure: histograms, boxes by class, and two rows of images with class and clock above.
    """
    figure = blank(7.2)
    parts = figure.add_gridspec(4, each, height_ratios=(2.2, 2.2, 1, 1))
    ax, boxes = figure.add_subplot(parts[0, :]), figure.add_subplot(parts[1, :])
    for (name, values), hue in zip(clocks.items(), ("network", "nonrobust"), strict=False):
        ax.hist(values, bins=20, histtype="step", color=COLORS[hue], label=name)
    ax.axvline(best, color=COLORS["chance"], linestyle=":", label="best single time")
    ax.set(xlabel=r"clock, in $1/\bar{\lambda}$", ylabel="digits")
    ax.legend()
    name, given = next(iter(clocks.items()))
    of_class = [given[labels == c] for c in range(10)]
    boxes.boxplot(of_class, tick_labels=list("0123456789"), showfliers=False)
    boxes.set(xlabel="class", ylabel=f"clock {name}")
    order = np.argsort(given, kind="stable")
    for row, chosen in ((2, order[:each]), (3, order[-each:])):
        small = [figure.add_subplot(parts[row, k]) for k in range(each)]
        images(small, x[chosen], titles=[f"{labels[i]}: {given[i]:.1f}" for i in chosen])
    return figure


def network_road(
    times: Float[np.ndarray, " m"],
    kernel: Float[Any, "m 2"],
    moments: Float[np.ndarray, " q"],
    networks: Float[Any, "2 q 2"],
    *,
    factor: float | int,
) -> Figure:
    """Draw accuracy along time for a kernel and for networks, trained plainly and against attacks.

    Args:
        times: of the kernel, in 1/λ̄, (m,).
        kernel: its clean and robust accuracy, (m, 2).
        moments: of the networks' training, in the same units, (q,).
        networks: clean and robust accuracy (2, q, 2): trained plainly, and against attacks.
        factor: how many times as fast the clocks run in adversarial training of the kernel.

    Returns:
        The figure: robust accuracy above, clean below.
    """
    figure, axes = sheet(2.7, 2.7, sharex=True)
    for ax, part, name in ((axes[0], 1, "under PGD"), (axes[1], 0, "clean")):
        ax.semilogx(times, kernel[:, part], color=COLORS["kernel"], label="kernel")
        ax.semilogx(times / factor, kernel[:, part], "--", color=COLORS["kernel"], label="in the limit")
        for way, hue, mark, how in (
            (0, "network", "o-", "network, plain"),
            (1, "adversarial", "s-", "network, PGD"),
        ):
            ax.semilogx(moments, networks[way, :, part], mark, color=COLORS[hue], markersize=4, label=how)
        ax.set(ylabel=f"accuracy, {name}", ylim=(0, 1))
    axes[1].legend(loc="lower right")
    axes[1].set(xlabel=TIME, xlim=(times[0], times[-1]))
    return figure


def recorded_roads(
    times: Float[np.ndarray, " m"],
    curves: Mapping[str, Float[Any, "splits m 2"]],
    clocks: Mapping[str, float],
    floors: Mapping[str, float],
) -> Figure:
    """Draw accuracy along time for each recorded case, a thin line a split, and what clocks reach.

    Args:
        times: in 1/λ̄, (m,).
        curves: of each case clean and robust accuracy, (splits, m, 2); the name is the panel's title.
        clocks: of each case the mean robust accuracy of learned clocks; those that were not run are left out.
        floors: of each case the accuracy of naming one class for all.

    Returns:
        The figure, two panels in a row.
    """
    figure, axes = grid(len(curves), 2, 2.5, sharey=True, sharex=True)
    for ax, (title, curve) in zip(axes, curves.items(), strict=True):
        for part, hue, name in ((0, "clean", "clean"), (1, "robust", "under PGD")):
            ax.semilogx(times, curve[:, :, part].T, color=COLORS[hue], alpha=0.35, linewidth=1)
            ax.semilogx(times, curve[:, :, part].mean(axis=0), color=COLORS[hue], label=name)
        if title in clocks:
            ax.axhline(clocks[title], color=COLORS["network"], linestyle="--", label="clocks, under PGD")
        ax.axhline(floors[title], color=COLORS["chance"], linestyle=":", label="one class for all")
        ax.set(ylim=(0, 1))
        ax.set_title(_two_lines(title), fontsize=9)
    for ax in axes[-2:]:
        ax.set_xlabel(TIME)
        ax.tick_params(labelbottom=True)
    for ax in axes[::2]:
        ax.set_ylabel("accuracy")
    handles, names = max((ax.get_legend_handles_labels() for ax in axes), key=lambda both: len(both[1]))
    figure.legend(handles, names, loc="outside upper center", ncols=2)
    return figure


def _two_lines(title: str) -> str:
    """A title of parts between commas, broken in the middle."""
    parts = title.split(", ")
    half = (len(parts) + 1) // 2
    return ", ".join(parts[:half]) + ",\n" + ", ".join(parts[half:])


def recorded_gains(cases: Sequence[str], gains: Mapping[str, Real[Any, "cases 3"]]) -> Figure:
    """Draw differences with their intervals, below one another, the name of each case above its own.

    Args:
        cases: their names.
        gains: of each kind of difference, named in the legend, value and both ends of its interval for each
            case, (cases, 3); NaN where it was not run.

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(1.0 + 0.62 * len(cases))
    looks = (("o", "clean"), ("s", "network"), ("^", "nonrobust"))
    step = 0.2
    for k, ((name, found), (marker, hue)) in enumerate(zip(gains.items(), looks, strict=True)):
        rows = np.flatnonzero(np.isfinite(found[:, 0]))
        values, *ends = found[rows].T
        error = np.abs(np.array(ends) - values)
        bar = {"color": COLORS[hue], "label": name, "markersize": 5, "linewidth": 1.5}
        ax.errorbar(values, rows + step * k, xerr=error, fmt=marker, **bar)
    ax.axvline(0, color=COLORS["chance"], linewidth=1)
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    for i, name in enumerate(cases):
        style = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 9, "bbox": behind}
        ax.text(0.015, i - 0.3, name, **style)
    ax.set(ylim=(len(cases) - 0.35, -0.55), yticks=[], xlabel="difference in accuracy under attack")
    figure.legend(loc="outside upper center", ncols=1)
    return figure
