"""Figures of the chapter on attacks: losses, accuracy against ε, depth, transfer to networks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from companion.figures._attack_curves import DEPTHS, over_eps
from companion.figures._layout import Figure, Places, blank, sheet
from companion.interactive import Player, explore
from companion.plots import COLORS, images, signed_image


def fooled_digits(
    versions: Mapping[str, Real[Any, "n h w c"]],
    outputs: Mapping[str, Real[Any, " n"]],
    *,
    eps: float,
) -> Figure:
    """Draw images clean, what an attack adds, attacked, and under a control.

    Args:
        versions: clean, attacked and control images, in this order, pixels in [0, 1], (n, h, w, c).
        outputs: the predictor's outputs for each, (n,).
        eps: full color of the perturbation.

    Returns:
        The figure, a column for each image.
    """
    clean, attacked, _ = versions.values()
    figure = blank(6.6)
    axes = figure.subplots(4, len(clean))
    for row, name in zip((0, 2, 3), versions, strict=True):
        titles = [f"{name}: {output:+.1f}".replace("-", "−") for output in outputs[name]]
        images(axes[row], versions[name], titles=titles)
    for ax, delta in zip(axes[1], attacked - clean, strict=True):
        signed_image(ax, delta, limit=eps)
        ax.set_xlabel("")
    axes[1, len(clean) // 2].set_xlabel(f"red adds ink, blue removes it: at most {eps}")
    return figure


def losses(
    grid: Float[np.ndarray, " m"],
    values: Mapping[str, Real[Any, " m"]],
    outputs: Real[Any, " n"],
) -> Figure:
    """Draw losses of one signed output, and where the outputs of test images lie.

    Args:
        grid: signed outputs, (m,).
        values: of each loss its values there, (m,).
        outputs: signed outputs of test images, (n,).

    Returns:
        The figure: losses above, a histogram below.
    """
    figure, (ax, histogram) = sheet(2.4, 2.0, sharex=True)
    for (name, loss), style in zip(values.items(), ("-", "--", ":"), strict=True):
        ax.plot(grid, loss, style, color=COLORS["adversarial"], label=name)
    ax.set(ylabel="loss", ylim=(-2.6, 3))
    ax.legend()
    histogram.hist(outputs, 24, color=COLORS["clean"])
    histogram.axvline(1, color=COLORS["chance"], linestyle="--")
    histogram.set(xlabel="s f", ylabel="digits")
    return figure


def against_eps(
    eps: Places,
    panels: Mapping[str, Mapping[str, Real[Any, "e 3"]]],
    sizes: Places,
    curves: Mapping[str, Real[Any, "q 3"]],
) -> Figure:
    """Draw accuracy against the size of the perturbation: the whole curve, and attacks made for one size.

    Args:
        eps: sizes of these attacks, (e,).
        panels: of each task, for `random`, `fgsm` and `pgd_long`, accuracy with its interval, (e, 3).
        sizes: places of the curve, (q,).
        curves: of each task, what the smallest perturbations leave, with its interval, (q, 3).

    Returns:
        The figure, a panel for each task.
    """
    figure, axes = sheet(*[2.3] * len(panels), sharex=True)
    for ax, (title, points) in zip(axes, panels.items(), strict=True):
        value, low, high = np.asarray(curves[title]).T
        ax.plot(sizes, value, color=COLORS["adversarial"], label="smallest perturbations")
        ax.fill_between(sizes, low, high, color=COLORS["adversarial"], alpha=0.2)
        over_eps(ax, eps, points, pgd="none")
        ax.set(ylabel="accuracy", title=title)
    axes[-1].set_xlabel("ε (pixels in [0, 1])")
    axes[-1].legend()
    return figure


def along_training(panels: Mapping[str, Mapping[str, Real[Any, "m 2"]]]) -> Figure:
    """Draw robust against clean accuracy along training, a curve for each depth, a square at its end.

    Args:
        panels: of each data set, from shallow to deep, clean and robust accuracy in time, (m, 2).

    Returns:
        The figure, a panel for each data set.
    """
    figure, axes = sheet(*[2.5] * len(panels))
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for (name, curve), color in zip(curves.items(), DEPTHS, strict=False):
            clean, robust = curve.T
            ax.plot(clean, robust, "o-", markersize=3, color=color, label=name)
            ax.plot(clean[-1:], robust[-1:], "s", markersize=7, color=color)
        ax.set(ylabel="accuracy under PGD", xlabel="clean accuracy", title=title)
    axes[0].legend()
    return figure


def along_time(
    times: Float[np.ndarray, " m"],
    accuracy: Mapping[str, Real[Any, "m 3"]],
    image: Real[Any, "h w c"],
    attacked: Real[Any, "m h w c"],
    scores: Real[Any, "m 2"],
    *,
    eps: float,
    start: int,
) -> Player:
    """Let training time run: accuracy clean and under PGD, and one image with its attack at that time.

    Args:
        times: (m,).
        accuracy: "clean" and "PGD", each with both ends of its interval, (m, 3).
        image: pixels in [0, 1], (h, w, c).
        attacked: the image attacked at each time, (m, h, w, c).
        scores: outputs for the image and the attacked one, (m, 2).
        eps: full color of the perturbation.
        start: number of the time shown first.

    Returns:
        The player.
    """
    shown = [float(t) for t in times]

    def draw(t: float) -> Figure:
        i = shown.index(t)
        figure = blank(4.4)
        parts = figure.add_gridspec(2, 3, height_ratios=(1.5, 1))
        ax = figure.add_subplot(parts[0, :])
        for (name, (value, low, high)), color in zip(
            ((name, values.T) for name, values in accuracy.items()), ("clean", "adversarial"), strict=True
        ):
            ax.semilogx(times, value, color=COLORS[color], label=name)
            ax.fill_between(times, low, high, color=COLORS[color], alpha=0.2)
            ax.plot([t], value[[i]], "o", color=COLORS[color])
        ax.set(xlabel="time t", ylabel="accuracy", ylim=(0, 1.03))
        ax.legend(loc="lower left")
        before, change, after = (figure.add_subplot(parts[1, k]) for k in range(3))
        images([before], image[None], titles=[f"f = {scores[i, 0]:+.2f}".replace("-", "−")])
        signed_image(change, attacked[i] - image, limit=eps)
        images([after], attacked[[i]], titles=[f"f = {scores[i, 1]:+.2f}".replace("-", "−")])
        return figure

    def says(t: float) -> str:
        clean, robust = (values[shown.index(t), 0] for values in accuracy.values())
        return (
            f"At time {t:.2g}: clean accuracy {clean:.2f}, accuracy under PGD {robust:.2f}, and one digit "
            "before and after."
        )

    settings = {"labels": {"t": "Time t"}, "start": {"t": shown[start]}, "alt": says}
    return explore(draw, {"t": shown}, fmt=lambda t: f"{t:.2g}", **settings)


def one_perturbation(
    sizes: Places,
    outputs: Mapping[str, Places],
    image: Real[Any, "h w c"],
    attacked: Real[Any, "m h w c"],
    *,
    start: float | int,
) -> Player:
    """Let ε run: outputs of a kernel and of a network for one image, its perturbation, and the image.

    Args:
        sizes: ε, (m,).
        outputs: of "kernel" and "network", above 0 for the other class, (m,).
        image: pixels in [0, 1], (h, w, c).
        attacked: the image at each size, (m, h, w, c).
        start: the size shown first.

    Returns:
        The player.
    """
    shown = [float(size) for size in sizes]

    def draw(size: float) -> Figure:
        i = shown.index(size)
        figure = blank(5.0)
        parts = figure.add_gridspec(2, 2, height_ratios=(1.3, 1))
        ax = figure.add_subplot(parts[0, :])
        for name, values in outputs.items():
            ax.plot(sizes, values, color=COLORS[name], label=name)
            ax.plot([size], [values[i]], "o", color=COLORS[name])
        ax.axhline(0, color=COLORS["chance"], linestyle="--")
        ax.set(xlabel="ε", ylabel="output (above 0 means 9)")
        ax.legend()
        signed_image(figure.add_subplot(parts[1, 0]), attacked[i] - image, limit=max(sizes))
        images([figure.add_subplot(parts[1, 1])], attacked[[i]], titles=[f"ε = {size}"])
        return figure

    def says(size: float) -> str:
        kernel, network = (values[shown.index(size)] for values in outputs.values())
        return (
            f"At ε = {size} the kernel gives {kernel:+.2f} and the network {network:+.2f} to the digit shown."
        )

    return explore(draw, {"size": shown}, labels={"size": "ε"}, start={"size": start}, alt=says)
