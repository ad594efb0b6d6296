"""Figures of the chapter on neighbors: conjugate kernel, silent units, starvation, collapse by class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real

from companion._core.words import Unchecked
from companion.figures._layout import Axes, Figure, Places, sheet
from companion.plots import COLORS

KERNELS = ("kernel", "nonrobust")
LOSSES = (("adversarial", "o"), ("kernel", "s"))
METHODS = {"standard": ("clean", "o"), "noise": ("nonrobust", "^"), "pgd": ("adversarial", "s")}


def two_kernels(
    radii: Places,
    certified: Mapping[str, Real[Any, "m 3"]],
    ridges: Places,
    accuracy: Mapping[str, Mapping[str, Real[Any, "r 3"]]],
) -> Figure:
    """Draw what is certified of two kernels against the radius, and their accuracy along the ridge.

    Args:
        radii: L2 sizes, (m,).
        certified: of each kernel the share that is certainly right, with its interval, (m, 3).
        ridges: (r,).
        accuracy: of each kernel, clean (dashed) and under attack, with intervals, (r, 3).

    Returns:
        The figure: certificates above, accuracy below.
    """
    figure, (ax, bars) = sheet(2.8, 2.8)
    for (name, sure), hue in zip(certified.items(), KERNELS, strict=True):
        value, low, high = np.asarray(sure).T
        ax.plot(radii, value, color=COLORS[hue], label=name)
        ax.fill_between(radii, low, high, color=COLORS[hue], alpha=0.2)
        for curve, style in zip(accuracy[name].values(), ("--", "-"), strict=True):
            _points(bars, ridges, curve, fmt="o" + style, color=COLORS[hue])
    ax.set(xlabel="L2 radius, pixels in [0, 1]", ylabel="certainly right", ylim=(0, 1.02))
    ax.legend(fontsize=8)
    bars.set(ylabel="accuracy", xlabel="ridge / mean diagonal", ylim=(0, 1.02), xscale="log")
    return figure


def biases(
    theory: tuple[Places, Real[Any, " m"]],
    spectra: Mapping[float, Real[Any, " n"]],
    active: Mapping[str, Real[Any, "b 4"]],
    steps: Real[Any, "b 4"],
    accuracy: Mapping[str, Real[Any, "b 4"]],
) -> Figure:
    """Draw four measures along the bias B: active units, spectra, steps of training, accuracy.

    Args:
        theory: B and the share of active units at the start, (m,) each.
        spectra: of some B the eigenvalues over their mean, (n,).
        active: before and after training, rows (B, mean, low, high), (b, 4); NaN: no interval.
        steps: to the residual, in the same way.
        accuracy: clean and under attack, in the same way.

    Returns:
        The figure: panels one below the other.
    """
    figure, (share, spectrum, step, robust) = sheet(*[2.5] * 4)
    share.plot(*theory, color=COLORS["kernel"], label=r"$1 - \Phi(B)$")
    for b, values in spectra.items():
        spectrum.semilogy(np.arange(1, 1 + len(values)), values, label=f"B = {b:g}")
    spectrum.set(xlabel="index", ylabel="eigenvalue / mean")
    looks = (
        (share, active, (("clean", "o"), ("network", "x"))),
        (step, {"": steps}, (("network", "o"),)),
        (robust, accuracy, (("clean", "o"), ("robust", "o"))),
    )
    for ax, series, marks in looks:
        for (label, rows), (hue, mark) in zip(series.items(), marks, strict=True):
            places, *curve = np.asarray(rows, float).T
            _points(ax, places, np.transpose(curve), fmt=mark, color=COLORS[hue], label=label or None)
    share.set(xlabel="B", ylabel="active units", ylim=(0, 0.55))
    step.set(xlabel="B", ylabel="steps to a tenth", ylim=(0, None))
    robust.set(xlabel="B", ylabel="accuracy", ylim=(0, 1.02))
    for ax in (share, spectrum, robust):
        ax.legend(fontsize=8)
    return figure


def starvation(
    strengths: Places,
    weak: Mapping[str, Real[Any, " m"]],
    names: Sequence[str],
    lost: Mapping[str, Real[Any, "d 3"]],
) -> Figure:
    """Draw a weak feature's response against the strength of another, and accuracy lost to a mark.

    Args:
        strengths: of the other feature, (m,).
        weak: of each loss the response relative to its first, (m,).
        names: of the data sets.
        lost: of each loss accuracy with its interval, (d, 3).

    Returns:
        The figure: the response above, what is lost below.
    """
    figure, (toy, real) = sheet(2.8, 2.8)
    for i, ((name, response), (hue, mark)) in enumerate(zip(weak.items(), LOSSES, strict=True)):
        toy.plot(strengths, response, color=COLORS[hue], label=name)
        places = np.arange(len(names)) + (0.12 if i else -0.12)
        kind = {"fmt": mark, "color": COLORS[hue], "capsize": 3, "label": f"{name} loss"}
        _points(real, places, lost[name], **kind)
    toy.set(xlabel=r"strength $\lambda$ of the other", ylabel="response of the weak feature")
    toy.legend(fontsize=8)
    real.axhline(0, color=COLORS["chance"], linewidth=1)
    real.set_xticks(range(len(names)), names)
    real.set(ylabel="accuracy lost to the mark", xlim=(-0.5, len(names) - 0.5))
    real.legend(fontsize=8)
    return figure


def collapse(
    epochs: Places,
    live: Mapping[str, Real[Any, " e"]],
    names: Sequence[str],
    recorded: Mapping[str, Real[Any, "d 3"]],
    limits: Real[Any, "d 2"],
) -> Figure:
    """Draw the spread within classes along training, and at the end of recorded runs.

    Args:
        epochs: (e,); the first, 0, is drawn at 5.
        live: of each method of `METHODS` the spread, (e,).
        names: of the recorded data sets.
        recorded: of each method the spread at the end with its interval, (d, 3).
        limits: of the kernels of infinite width, NTK and NNGP, (d, 2).

    Returns:
        The figure: live above, recorded below.
    """
    figure, (ax, below) = sheet(3.0, 3.0, sharey=True)
    for method, spread in live.items():
        hue, mark = METHODS[method]
        ax.semilogy(np.maximum(epochs, 5), spread, marker=mark, color=COLORS[hue], label=method)
    ax.set(xlabel="epoch", ylabel="spread within classes", xscale="log")
    later = [epoch for epoch in (10, 100, 1000) if 5 < epoch <= max(epochs)]
    ax.set_xticks([5, *later], ["start", *map(str, later)])
    ax.minorticks_off()
    if live:
        ax.legend(fontsize=8)
    for shift, (method, rows) in zip((-0.15, 0, 0.15), recorded.items(), strict=False):
        hue, mark = METHODS[method]
        kind = {"fmt": mark, "color": COLORS[hue], "capsize": 3, "label": method}
        _points(below, np.arange(len(names)) + shift, rows, **kind)
    for i, pair in enumerate(limits):
        for value, style in zip(pair, ("-", ":"), strict=True):
            below.plot([i + 0.25, i + 0.42], [value] * 2, style, color=COLORS["kernel"])
    below.set_xticks(range(len(names)), names)
    below.set(xlim=(-0.6, max(len(names), 1) - 0.4), ylabel="spread within classes")
    if len(names):
        below.set_ylim(top=15)
        below.legend(fontsize=7, ncols=3, loc="upper right", columnspacing=1)
    return figure


def _points(ax: Axes, places: Places, curve: Real[Any, "m 3"], **look: Unchecked) -> None:
    """Draw estimates with bars for their intervals, none where these are NaN."""
    value, low, high = np.asarray(curve, float).reshape(-1, 3).T
    ax.errorbar(places, value, np.nan_to_num([value - low, high - value]), **look)
