"""Figures of the chapter on catastrophic overfitting: the toy, two trainings watched, every recorded run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Real
from matplotlib.ticker import MaxNLocator

from companion.figures._layout import Axes, Figure, Places, grid, sheet
from companion.interactive import Player, explore
from companion.plots import COLORS

WATCHED = {"clean": "clean", "under FGSM": "adversarial", "under PGD": "robust"}
TRAINED = ("nonrobust", "network", "robust")  # colors of trainings, in their order
ALARMS = ("kernel", "chance", "network", "nonrobust", "clean")  # colors of signals, in their order
BELOW = "outside lower center"


def bent_loss(
    ball: Real[np.ndarray, " p"],
    losses: Mapping[str, Real[Any, " p"]],
    margins: Mapping[str, Real[Any, "s 2"]],
    *,
    center: float,
) -> Figure:
    """Draw the toy's loss over the ball of its input, and margins along training.

    Args:
        ball: places, (p,).
        losses: there, before training and after each kind of it, (p,).
        margins: of each kind at every step that at FGSM's point and the least in the ball, (s, 2).
        center: the input.

    Returns:
        The figure: the loss above, margins below.
    """
    figure, (ax, below) = sheet(2.4, 3.1)
    for (name, loss), hue in zip(losses.items(), ("chance", *TRAINED), strict=False):
        ax.plot(ball, loss, color=COLORS[hue], label=name)
    ax.axvline(center, color=COLORS["chance"], linestyle=":")
    ax.set(xlabel=f"z, around the input at {center:g}", ylabel="loss")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    for (name, rows), hue in zip(margins.items(), TRAINED, strict=False):
        below.plot(rows[:, 1], color=COLORS[hue], label=f"{name}: worst")
        below.plot(rows[:, 0], color=COLORS[hue], linestyle=":", label="at its own point")
    below.axhline(0, color=COLORS["chance"], linewidth=1)
    below.set(xlabel="step", ylabel="margin")
    below.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def two_trainings(epochs: Places, accuracy: Mapping[str, Real[Any, "r 3"]], *, onset: float | int) -> Figure:
    """Draw accuracy along each training.

    Args:
        epochs: of the records, (r,).
        accuracy: of each training's title clean, under FGSM and under PGD, (r, 3).
        onset: the epoch that is marked in the first.

    Returns:
        The figure, a panel for each training.
    """
    figure, axes = sheet(*[2.7] * len(accuracy), sharey=True)
    for ax, (title, rows) in zip(axes, accuracy.items(), strict=True):
        _accuracies(ax, epochs, rows)
        ax.set_title(title)
    axes[0].axvline(onset, color=COLORS["chance"], linestyle="--")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=3, loc=BELOW)
    return figure


def one_epoch(
    epochs: Real[np.ndarray, " r"],
    accuracy: Real[Any, "r 3"],
    shares: Real[Any, "r k"],
    surfaces: Real[Any, "r a b"],
    *,
    shown: Sequence[int],
) -> Player:
    """Let a run's epoch run, and show accuracy, the kernel's spectrum and the loss along two directions.

    Args:
        epochs: of the records, (r,).
        accuracy: clean, under FGSM and under PGD, (r, 3).
        shares: eigenvalues of the kernel in units of their sum, (r, k).
        surfaces: the loss, from 0 to ε along FGSM's direction and from −ε to ε along a random one, (r, a, b).
        shown: numbers of the records on the slider; it starts at the last.

    Returns:
        The player.
    """

    def draw(i: int) -> Figure:
        figure, (ax, spectrum, surface) = sheet(2.4, 2.4, 2.4)
        _accuracies(ax, epochs, accuracy)
        ax.axvline(epochs[i], color=COLORS["chance"], linestyle="--")
        ax.set_title("FGSM training", pad=24)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
        for r, hue in ((0, "chance"), (i, "network")):
            spectrum.semilogy(shares[r], color=COLORS[hue])
        spectrum.set(ylim=(1e-4, 1), xlabel="index", title="spectrum, as shares")
        spectrum.xaxis.set_major_locator(MaxNLocator(integer=True))
        place = {"extent": (0, 1, -1, 1), "aspect": "auto", "origin": "lower"}
        picture = surface.imshow(surfaces[i].T, **place, cmap="viridis", vmin=0, vmax=3)
        surface.grid(visible=False)
        surface.set(xlabel="FGSM's step / ε", ylabel="random / ε", title=f"loss, epoch {epochs[i]:g}")
        figure.colorbar(picture, ax=surface)
        return figure

    def says(i: int) -> str:
        _, fgsm, pgd = accuracy[i]
        return (
            f"FGSM training after epoch {epochs[i]:g}: accuracy {fgsm:.2f} under FGSM and {pgd:.2f} under "
            "PGD, the kernel's spectrum beside the one at the start in gray, and the loss along FGSM's "
            "direction and a random one."
        )

    settings = {"labels": {"i": "Epoch"}, "start": {"i": shown[-1]}, "fmt": lambda i: f"{epochs[i]:g}"}
    return explore(draw, {"i": list(shown)}, alt=says, **settings)


def signals(
    epochs: Places,
    names: Mapping[str, str],
    clean: Mapping[str, Real[Any, "r k"]],
    attacked: Mapping[str, Real[Any, "r a"]],
    *,
    onset: float | int,
) -> Figure:
    """Draw signals along trainings.

    Args:
        epochs: of the records, (r,).
        names: of the signals, each with the side on which its detector rings, "above" or "below".
        clean: of each training the signals on the clean probe, (r, k).
        attacked: of each training the first of them on the attacked probe, (r, a).
        onset: the epoch that is marked.

    Returns:
        The figure, two panels in a row, with the legend in the place after the last.
    """
    figure, axes = grid(len(names) + 1, 2, 1.8)
    for k, (ax, (name, side)) in enumerate(zip(axes, names.items(), strict=False)):
        for training, hue in zip(clean, TRAINED, strict=False):
            ax.plot(epochs, clean[training][:, k], color=COLORS[hue])
            if k < attacked[training].shape[1]:
                ax.plot(epochs, attacked[training][:, k], ":", color=COLORS[hue])
        ax.axvline(onset, color=COLORS["chance"], linestyle="--")
        ax.set_title(f"{name} {dict(above='↑', below='↓')[side]}")
    for ax in axes[-3:-1]:
        ax.set_xlabel("epoch")
    for training, hue in zip(clean, TRAINED, strict=False):
        axes[-1].plot([], color=COLORS[hue], label=training)
    axes[-1].plot([], ":", color="black", label="attacked probe")
    axes[-1].legend(loc="center")
    axes[-1].set_axis_off()
    return figure


def every_seed(
    epochs: Real[np.ndarray, " r"],
    accuracy: Mapping[str, Real[Any, "r 2"]],
    collapsed: Bool[Any, "n r"],
    onsets: Real[Any, " n"],
    alarms: Real[Any, "n k"],
    *,
    signals: Sequence[str],
    title: str,
) -> Figure:
    """Draw every run of one training: two accuracies, the onset, collapses, and when detectors ring.

    Args:
        epochs: of the records, (r,).
        accuracy: of each run's title accuracy under FGSM and under PGD, (r, 2).
        collapsed: records that are shaded, (n, r).
        onsets: of a fall, infinity for none, (n,).
        alarms: the first of each signal, NaN or infinity for none, (n, k).
        signals: their names.
        title: of all.

    Returns:
        The figure, two panels in a row.
    """
    figure, axes = grid(len(accuracy), 2, 1.45, sharex=True, sharey=True)
    for s, (ax, (name, rows)) in enumerate(zip(axes, accuracy.items(), strict=True)):
        for column, hue, label in ((0, "adversarial", "FGSM"), (1, "robust", "PGD")):
            ax.plot(epochs, rows[:, column], color=COLORS[hue], linewidth=1.2, label=label)
        shade(ax, epochs, collapsed[s])
        if np.isfinite(onsets[s]):
            ax.axvline(onsets[s], color="black", linestyle=":", linewidth=1)
        for k, (at, hue) in enumerate(zip(alarms[s], ALARMS, strict=True)):
            if np.isfinite(at):
                ax.plot(at, -0.1 - 0.1 * k, "s", markersize=3.5, color=COLORS[hue])
        ax.set_title(name, fontsize=9)
    axes[0].set(ylim=(-0.6, 1.05), xlim=(-0.5, epochs[-1] + 0.5), yticks=(0, 0.5, 1))
    for hue, name in zip(ALARMS, signals, strict=True):
        axes[0].plot([], [], "s", markersize=4, color=COLORS[hue], label=f"rings: {name}")
    for ax in axes[::2]:
        ax.set_ylabel("accuracy")
    for ax in axes[-2:]:
        ax.set_xlabel("epoch")
        ax.tick_params(labelbottom=True)  # the last of an odd number stands above nothing
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, ncols=3, loc=BELOW)
    figure.suptitle(title, fontsize=10)
    return figure


def shade(ax: Axes, epochs: Places, where: Bool[Any, " r"], **label: str) -> None:
    """Shade records from the bottom of a panel to its top."""
    whole = {"transform": ax.get_xaxis_transform(), "step": "mid", "linewidth": 0, "alpha": 0.15}
    ax.fill_between(epochs, 0, 1, where=where, color=COLORS["adversarial"], **whole, **label)


def _accuracies(ax: Axes, epochs: Places, rows: Real[Any, "r 3"]) -> None:
    """Draw clean accuracy and that under FGSM and PGD."""
    for k, (name, hue) in enumerate(WATCHED.items()):
        ax.plot(epochs, rows[:, k], color=COLORS[hue], label=name)
    ax.set(xlabel="epoch", ylabel="accuracy", ylim=(-0.03, 1.03))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
