"""Figures of the chapter on guarantees, continued: changed labels and poisoned training images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real

from companion.figures._layout import Figure, Places, blank, sheet
from companion.interactive import Player, explore
from companion.plots import COLORS, images, signed_image

GUARDS = ("kernel", "clean", "robust", "nonrobust")
POISONS = ("chance", "nonrobust", "adversarial")


def holders(
    tested: Real[Any, "n h w c"],
    labels: Sequence[str],
    strongest: Real[Any, "n k h w c"],
    shares: Sequence[Sequence[str]],
) -> Figure:
    """Draw test images, and below each the training images that hold its class up most.

    Args:
        tested: pixels in [0, 1], (n, h, w, c).
        labels: above each test image.
        strongest: k training images of each, strongest first, (n, k, h, w, c).
        shares: above each training image.

    Returns:
        The figure, a column for each test image.
    """
    down = 1 + strongest.shape[1]
    figure = blank(1.6 * down)
    axes = figure.subplots(down, len(tested))
    for column, *parts in zip(axes.T, tested, labels, strongest, shares, strict=True):
        image, label, below, said = parts
        images(column, np.concatenate([image[None], below]), titles=[label, *said])
        column[0].title.set_fontweight("bold")
    return figure


def changed_labels(
    budgets: Places,
    kept: Mapping[str, Real[Any, " b"]],
    reached: Mapping[str, tuple[Places, Places]],
    shared: tuple[Real[Any, " b"], Real[Any, " b"]],
) -> Figure:
    """Draw accuracy against the number of changed labels: each image its own, and one set for all.

    Args:
        budgets: numbers of changes, (b,).
        kept: of each fit the accuracy that no changes can lower, (b,); the first is drawn below too.
        reached: of some fits where the attack was carried out, and what it left, (r,) each.
        shared: for one set of changes the certified bound and what an attack leaves, (b,) each.

    Returns:
        The figure.
    """
    figure, (ax, other) = sheet(2.7, 2.7, sharey=True)
    for (name, values), hue in zip(kept.items(), GUARDS, strict=True):
        ax.plot(budgets, values, color=COLORS[hue], label=name)
        if name in reached:
            ax.plot(*reached[name], "x", color=COLORS["adversarial"])
    ax.plot([], [], "x", color=COLORS["adversarial"], label="attack")
    ax.set(xlabel="q, each digit its own", ylabel="accuracy", ylim=(-0.03, 1.03))
    ax.legend()
    bound, attack = shared
    other.fill_between(budgets, bound, attack, color=COLORS["chance"], alpha=0.25)
    other.plot(budgets, attack, color=COLORS["adversarial"], label="attack, one set")
    other.plot(budgets, bound, "--", color=COLORS["robust"], label="bound, one set")
    alone = next(iter(kept.values()))
    other.plot(budgets, alone, color=COLORS["kernel"], label="each its own")
    other.set(xlabel="q, one set for all", ylabel="accuracy")
    other.legend()
    return figure


def one_label_after_another(
    outputs: Real[Any, " b"],
    image: Real[Any, "h w c"],
    says: Sequence[str],
    changed: Real[Any, "k h w c"],
    titles: Sequence[str],
) -> Player:
    """Let the number of changed labels run: the output that is left, and the images whose labels changed.

    Args:
        outputs: for the image's class after 0, 1, … changes, (b,) with b = k + 1.
        image: pixels in [0, 1], (h, w, c).
        says: the class that is said after each number of changes.
        changed: training images, strongest first, (k, h, w, c).
        titles: above each of them.

    Returns:
        The player.
    """

    def draw(r: int) -> Figure:
        down = -(-(1 + len(changed)) // 3)
        figure = blank(2.2 + 1.5 * down)
        parts = figure.add_gridspec(1 + down, 3, height_ratios=(2.2, *[1.5] * down))
        ax = figure.add_subplot(parts[0, :])
        ax.plot(outputs, color=COLORS["adversarial"])
        ax.plot(r, outputs[r], "o", color=COLORS["adversarial"])
        ax.axhline(0, color=COLORS["chance"], linewidth=1)
        ax.set(xlabel="labels changed", ylabel="s f")
        panels = [figure.add_subplot(parts[1 + i // 3, i % 3]) for i in range(3 * down)]
        for panel in panels:
            panel.set_axis_off()
        images(panels[:1], image[None], titles=[f"says {says[r]}"])
        panels[0].title.set_fontweight("bold")
        if r:
            images(panels[1 : 1 + r], changed[:r], titles=titles[:r])
        return figure

    def tells(r: int) -> str:
        return (
            f"{r} labels changed: the output for the digit's class is {outputs[r]:+.2f}; beside it the "
            "training digits whose labels were changed."
        )

    names = {"r": "Labels changed, q"}
    some = {"r": min(3, len(outputs) - 1)}
    return explore(draw, {"r": list(range(len(outputs)))}, labels=names, alt=tells, start=some)


def poison(
    clean: Real[Any, "n h w c"],
    poisoned: Mapping[str, Real[Any, "n h w c"]],
    labels: Sequence[str],
    *,
    eps: float,
) -> Figure:
    """Draw poisoned training images, and below each how it was changed.

    Args:
        clean: pixels in [0, 1], (n, h, w, c).
        poisoned: of each poison the images, (n, h, w, c).
        labels: above each image.
        eps: full color of the changes.

    Returns:
        The figure, a column for each image.
    """
    figure = blank(3.4 * len(poisoned))
    axes = figure.subplots(2 * len(poisoned), len(clean))
    for start, (name, made) in zip(range(0, len(axes), 2), poisoned.items(), strict=True):
        images(axes[start], made, titles=[f"{label}, {name}" for label in labels])
        for ax, change in zip(axes[start + 1], made - clean, strict=True):
            signed_image(ax, change, limit=eps)
            ax.set_xlabel("")
        axes[start + 1, len(clean) // 2].set_xlabel(f"full color: ±{eps:g}")
    return figure


def poisoned(sizes: Places, curves: Mapping[str, Real[Any, "m 3"]]) -> Figure:
    """Draw accuracy on clean images against the size of the poison.

    Args:
        sizes: ε of the training images, (m,).
        curves: of random signs and two poisons accuracy with both ends of its interval, (m, 3).

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(3.0)
    for (name, curve), hue in zip(curves.items(), POISONS, strict=True):
        value, low, high = np.asarray(curve).T
        ax.plot(sizes, value, "o-", color=COLORS[hue], label=name)
        ax.fill_between(sizes, low, high, color=COLORS[hue], alpha=0.2)
    ax.set(xlabel="ε (L∞), of the training images", ylabel="accuracy", ylim=(0, 1.03))
    ax.legend()
    return figure
