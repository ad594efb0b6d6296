"""Figures of the chapter on kernels that move: how far, where to, how fast, and where they arrive."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from companion.figures._layout import Figure, Places, blank, grid, sheet
from companion.figures._seed_bands import over_seeds
from companion.interactive import Player, explore
from companion.plots import COLORS

REGIMES = {"standard": "clean", "again": "chance", "fgsm": "nonrobust", "pgd": "robust"}


def in_time(
    epochs: Float[np.ndarray, " r"],
    first: Real[Any, "r r"],
    second: Real[Any, "r r"],
    *,
    names: tuple[str, str],
) -> Figure:
    """Draw distances between the kernels of all pairs of epochs, of two trainings, and their difference.

    Args:
        epochs: of the records, (r,).
        first: distances of one training, (r, r).
        second: of the other, (r, r).
        names: of both.

    Returns:
        The figure, three panels one below the other; the first two have one color scale.
    """
    middle = (epochs[1:] + epochs[:-1]) / 2
    edges = np.concatenate([epochs[:1], middle, epochs[-1:]])  # so that the axes show epochs
    gap = np.asarray(second) - np.asarray(first)
    top, most = max(np.max(first), np.max(second)), np.abs(gap).max()
    both, apart = {"cmap": "viridis", "vmin": 0, "vmax": top}, {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    figure, axes = sheet(3.0, 3.0, 3.0)
    titles = (*names, f"{names[1]} − {names[0]}")
    for ax, matrix, title, look in zip(axes, (first, second, gap), titles, (both, both, apart), strict=True):
        picture = ax.pcolormesh(edges, edges, matrix, edgecolor="face", **look)
        ax.set(title=title, xlabel="epoch", ylabel="epoch", aspect="equal", xticks=[0, 5, 10])
        ax.invert_yaxis()
        ax.grid(visible=False)
        figure.colorbar(picture, ax=ax, shrink=0.7)
    return figure


def polar(
    angles: Mapping[str, Real[Any, "r parts"]],
    lengths: Mapping[str, Real[Any, "r parts"]],
    *,
    parts: tuple[str, ...],
) -> Figure:
    """Draw the way of a kernel from its start: radius and angle, a dot a record.

    Args:
        angles: of each regime the angle to the start in radians, for each part of the kernel, (r, parts).
        lengths: the distance from the start, in units of the last, (r, parts).
        parts: titles.

    Returns:
        The figure, a panel for each part.
    """
    figure = blank(2.8 * len(parts))
    figure.get_layout_engine().set(h_pad=0.15)  # inches: numbers of radii do not count in the layout
    axes = figure.subplots(len(parts), 1, subplot_kw={"projection": "polar"})
    for part, (ax, title) in enumerate(zip(axes, parts, strict=True)):
        for name, angle in angles.items():
            line = {"color": COLORS[REGIMES[name]], "marker": "o", "markersize": 3, "label": name}
            ax.plot(angle[:, part], lengths[name][:, part], **line)
        ax.set(thetamin=0, thetamax=90, title=title, rticks=[0.5, 1])
    axes[0].legend(loc="upper right", bbox_to_anchor=(1.25, 1.05))
    return figure


def speed_and_onset(
    thresholds: Float[np.ndarray, " t"],
    cases: Mapping[str, Mapping[str, tuple[Float[Any, " _"], Real[Any, "_ _"], Real[Any, "_ t"]]]],
) -> Figure:
    """Draw how fast kernels turn, and from when on they stay within a threshold of their last state.

    Args:
        thresholds: in degrees, (t,).
        cases: of each data set and regime, moments in epochs, (q,), degrees per epoch, (seeds, q), and the
            epoch of lazy onset, (seeds, t). A regime whose name ends in "decayed" is drawn dashed.

    Returns:
        The figure, two panels for each data set.
    """
    figure, axes = sheet(*[2.3] * (2 * len(cases)))
    for above, below, (title, regimes) in zip(axes[::2], axes[1::2], cases.items(), strict=True):
        for name, (moments, speed, onset) in regimes.items():
            dashed = "--" if "decayed" in name else "-"
            line = {"label": name, "color": REGIMES[name.split()[0]], "linestyle": dashed}
            over_seeds(above, moments, np.maximum(speed, 1e-2), **line)
            over_seeds(below, thresholds, onset, **line)
        above.set(yscale="log", xlabel="epoch", title=title, ylabel="velocity per epoch")
        ends = above.get_ylim()
        degrees = [0.3, 1, 3, 10, 30, 100, 300]
        above.set_yticks(degrees, [f"{tick:g}°" for tick in degrees])
        above.set_yticks([], minor=True)
        above.set_ylim(ends)
        below.set(xlabel="threshold, degrees", ylabel="lazy onset, epoch")
    axes[0].legend()
    return figure


def along_training(epochs: Places, measures: Mapping[str, Mapping[str, Real[Any, "seeds r"]]]) -> Figure:
    """Draw measures of the kernel against the epoch.

    Args:
        epochs: of the records, (r,).
        measures: of each measure and regime the values, (seeds, r).

    Returns:
        The figure, a panel for each measure.
    """
    figure, axes = sheet(*[2.0] * len(measures), sharex=True)
    for ax, (title, regimes) in zip(axes, measures.items(), strict=True):
        for name, rows in regimes.items():
            over_seeds(ax, epochs, rows, label=name, color=REGIMES[name])
        ax.set(title=title)
    axes[-1].set_xlabel("epoch")
    axes[0].legend(loc="lower left")
    return figure


def each_epoch(
    epochs: list[float],
    cosines: Mapping[str, Real[Any, "e m m"]],
    spectra: Mapping[str, Real[Any, "e q"]],
) -> Player:
    """Move through the epochs: one kernel, what another has more or less, and the spectra of both.

    Args:
        epochs: the values of the slider; it starts at the last.
        cosines: of two regimes, kernels between examples at each epoch, as cosines, (e, m, m).
        spectra: of the same, eigenvalues over the largest, (e, q).

    Returns:
        The player.
    """
    (base, first), (other, second) = cosines.items()

    def draw(epoch: float) -> Figure:
        i = epochs.index(epoch)
        figure = blank(4.6)
        parts = figure.add_gridspec(2, 2, height_ratios=(1.1, 1))
        kernel = {"cmap": "viridis", "vmin": 0, "vmax": 1}
        more = {"cmap": "RdBu_r", "vmin": -0.4, "vmax": 0.4}
        titles = f"{base}, epoch {epoch:g}", f"{other} − {base}"
        for k, (matrix, look) in enumerate(((first[i], kernel), (second[i] - first[i], more))):
            ax = figure.add_subplot(parts[0, k])
            picture = ax.imshow(matrix, **look)
            ax.grid(visible=False)
            ax.set(xticks=[], yticks=[], title=titles[k])
            figure.colorbar(picture, ax=ax, shrink=0.8)
        below = figure.add_subplot(parts[1, :])
        for name, values in spectra.items():
            below.semilogy(values[i], color=COLORS[REGIMES[name]], label=name)
        below.set(ylim=(1e-4, 1.3), xlabel="index i", title="λᵢ / λ₀")
        below.legend()
        return figure

    def says(epoch: float) -> str:
        return (
            f"After epoch {epoch:g}: the {base} kernel of {len(first[0])} digits by class, as cosines, "
            f"what {other} has more or less, and both spectra."
        )

    settings = {"labels": {"epoch": "Epoch"}, "start": {"epoch": epochs[-1]}, "alt": says}
    return explore(draw, {"epoch": epochs}, fmt=lambda epoch: f"{epoch:g}", **settings)


def between(
    epochs: Places,
    together: Mapping[tuple[str, str], Real[Any, "seeds r"]],
    to_the_end: Mapping[tuple[str, str], Real[Any, "seeds r"]],
) -> Figure:
    """Draw distances between the kernels of two trainings.

    Args:
        epochs: of the records, (r,).
        together: of two regimes, distances between their kernels at the same epoch, (seeds, r).
        to_the_end: of two regimes, distances of the first's last kernel to the second's path, (seeds, r).

    Returns:
        The figure, two panels. A pair whose second is not standard training is drawn dashed.
    """
    figure, axes = sheet(2.6, 2.6, sharey=True)
    for ax, pairs, word in zip(axes, (together, to_the_end), ("–", "to"), strict=True):
        for (one, other), rows in pairs.items():
            color = REGIMES[one] if "standard" in (one, other) else "network"
            line = {"linestyle": "-" if other == "standard" else "--", "label": f"{one} {word} {other}"}
            over_seeds(ax, epochs, rows, color=color, **line)
        ax.legend()
    axes[0].set(xlabel="epoch of both", ylabel="d", title="at the same epoch")
    axes[1].set(xlabel="epoch of the path", ylabel="d", title="last kernel to another path")
    return figure


def ranks(
    cases: Mapping[str, Mapping[str, tuple[Float[Any, " _"], Real[Any, "_ _"], Real[Any, "_ _"]]]],
) -> Figure:
    """Draw the effective rank against the epoch and against clean accuracy.

    Args:
        cases: of each data set and regime, epochs of the records, (r,), effective rank and clean accuracy,
            both (seeds, r). Against accuracy records before epoch 1 are left out.

    Returns:
        The figure, a row for each data set; against accuracy a line a seed, which ends at a dot.
    """
    figure, axes = grid(2 * len(cases), 2, 2.6)
    for by_time, by_accuracy, (title, regimes) in zip(axes[::2], axes[1::2], cases.items(), strict=True):
        for name, (epochs, rank, clean) in regimes.items():
            color, later = COLORS[REGIMES[name]], np.asarray(epochs) >= 1
            over_seeds(by_time, epochs, rank, label=name, color=REGIMES[name])
            for x, y in zip(clean, rank, strict=True):
                by_accuracy.plot(x[later], y[later], color=color, linewidth=0.9, alpha=0.6)
                by_accuracy.plot(x[-1:], y[-1:], "o", color=color)
        by_time.set(title=title, xlabel="epoch", ylabel="effective rank")
        by_accuracy.set(title="against accuracy", xlabel="clean accuracy")
    axes[0].legend()
    return figure
