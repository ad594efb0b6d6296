"""Figures of the chapter on kernels, continued: what is learned when, and the pictures behind it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real

from companion.figures._layout import Axes, Figure, Places, blank, grid, sheet
from companion.plots import COLORS, images, signed_image, spectrum

ROWS = (("clean", "-"), ("network", "-"), ("kernel", "-"))
KERNELS = (("kernel", "-"), ("robust", "--"))


def two_outputs(
    times: Real[Any, " m"], formula: Real[Any, "m 2"], descent: Real[Any, "m 2"], *, every: int
) -> Figure:
    """Draw two outputs over time: the formula as lines, gradient descent as dots.

    Args:
        times: (m,).
        formula: of each output, (m, 2).
        descent: of each output, (m, 2).
        every: how many steps lie between two dots.

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(2.9)
    ax.plot(times, formula, color=COLORS["kernel"])
    for i, marker in enumerate("os"):
        name = f"gradient descent, $x_{i + 1}$"
        ax.plot(times[::every], descent[::every, i], marker, color=COLORS["network"], label=name)
    ax.plot([], [], color=COLORS["kernel"], label="formula")
    ax.set(xlabel="time t", ylabel="output")
    ax.legend(loc="center right")
    return figure


def directions_learned(
    eigenvalues: Real[Any, " n"],
    energy: Real[Any, " n"],
    learned: Mapping[float, Real[Any, " n"]],
    *,
    name: str,
) -> Figure:
    """Draw a kernel's spectrum, and what its leading directions hold of the targets and of the outputs.

    Args:
        eigenvalues: descending, (n,).
        energy: share of the targets along each direction, (n,).
        learned: of each time that of the outputs, (n,).
        name: of the kernel.

    Returns:
        The figure: eigenvalues above; below, shares added up from the first direction.
    """
    figure, (above, below) = sheet(2.8, 3.0)
    spectrum(above, eigenvalues, label=name, color="kernel")
    count = np.arange(1, len(energy) + 1)
    below.semilogx(count, energy.cumsum(), color=COLORS["kernel"], label="in the targets")
    for (t, shares), style in zip(learned.items(), (":", "--", "-"), strict=False):
        kind = {"color": COLORS["network"], "label": f"in the outputs at t = {t:g}"}
        below.semilogx(count, shares.cumsum(), style, **kind)
    below.set(xlabel="number of leading directions", ylabel="share of ‖Y‖²", ylim=(0, 1))
    below.legend(fontsize=8)
    return figure


def directions(pictures: Real[Any, "n h w c"]) -> Figure:
    """Draw signed images of eigendirections, three in a row, each on its own scale.

    Args:
        pictures: (n, h, w, c); the largest magnitude of each has full color.

    Returns:
        The figure.
    """
    figure, axes = grid(len(pictures), 3, 1.9)
    for i, (ax, picture) in enumerate(zip(axes, pictures, strict=True)):
        signed_image(ax, picture, title=f"i = {i}")
        ax.set_xlabel("")
    return figure


def accuracies(times: Places, curves: Mapping[str, Real[Any, "m 3"]]) -> Figure:
    """Draw accuracy against the time of training.

    Args:
        times: of the gradient flow, (m,).
        curves: of each case accuracy with both ends of its interval, (m, 3).

    Returns:
        The figure.
    """
    figure, (ax,) = sheet(3.3)
    for (label, curve), (color, style) in zip(curves.items(), ROWS, strict=False):
        _with_band(ax, times, curve, label=label, color=color, style=style)
    ax.set(xlabel="time t of the gradient flow", ylabel="accuracy", ylim=(0.3, 1.02))
    ax.legend(loc="lower right")
    return figure


def gradients(
    pixels: Real[Any, "n h w c"], slopes: Real[Any, "n h w c"], titles: Sequence[str], *, says: str
) -> Figure:
    """Draw images, and below each the gradient of a predictor in its pixels, on one scale.

    Args:
        pixels: in [0, 1], (n, h, w, c).
        slopes: of the output by the pixels, (n, h, w, c).
        titles: one for each image.
        says: what red and blue mean.

    Returns:
        The figure.
    """
    figure, limit = blank(4.0), float(np.abs(slopes).max())
    axes = figure.subplots(2, len(pixels))
    images(axes[0], pixels, titles=titles)
    for ax, slope in zip(axes[1], slopes, strict=True):
        signed_image(ax, slope, limit=limit)
        ax.set_xlabel("")
    axes[1, len(pixels) // 2].set_xlabel(f"{says} (scale ±{limit:.2f})")
    return figure


def two_kernels(
    spectra: Mapping[str, Real[Any, " n"]], steps: Places, accuracy: Mapping[str, Real[Any, "m 3"]]
) -> Figure:
    """Draw the spectra of two kernels, and how accuracy grows with steps of the largest stable size.

    Args:
        spectra: of each kernel its eigenvalues as shares of their sum, descending, (n,).
        steps: times in units of 1/λ₀, (m,).
        accuracy: of each kernel, with both ends of its interval, (m, 3).

    Returns:
        The figure: spectra above, accuracy below.
    """
    figure, (above, below) = sheet(2.9, 2.9)
    for (label, shares), (color, style) in zip(spectra.items(), KERNELS, strict=True):
        spectrum(above, shares, label=label, color=color, linestyle=style)
        _with_band(below, steps, accuracy[label], label=label, color=color, style=style)
    above.set(xlabel="number of the eigenvalue", ylabel="eigenvalue / sum of all")
    above.legend()
    below.set(xlabel="time in steps of size 1 / λ₀", ylabel="test accuracy")
    below.legend(loc="lower right")
    return figure


def _with_band(
    ax: Axes, places: Places, curve: Real[Any, "m 3"], *, label: str, color: str, style: str
) -> None:
    """Draw estimates as a line on a logarithmic axis, and their intervals as a band."""
    value, low, high = np.asarray(curve).T
    ax.semilogx(places, value, style, color=COLORS[color], label=label)
    ax.fill_between(places, low, high, color=COLORS[color], alpha=0.2, linewidth=0)
