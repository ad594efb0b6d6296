"""Figures of the chapter on kernels that move: what frozen kernels attend to, and what is trained on them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from companion._core.words import Unchecked
from companion.figures._attack_curves import ticks
from companion.figures._layout import Axes, Figure, Places, blank, grid, sheet
from companion.figures._seed_bands import over_seeds
from companion.plots import images, signed_image

PATHS = {"start": "chance", "standard": "clean", "noise": "nonrobust", "pgd": "robust"}
PHASES = ("-", "--")
IMAGES = {"benign": "clean images", "adversarial": "attacked images"}


def first_features(image: Real[Any, "h w c"], slopes: Mapping[str, Real[Any, "f h w c"]]) -> Figure:
    """Draw an image and, of every kernel, the input gradient of the loss of its first features.

    Args:
        image: pixels in [0, 1], (h, w, c).
        slopes: of each kernel, a gradient for each feature, (f, h, w, c).

    Returns:
        The figure: a column for each kernel, the image on top and a row for each feature.
    """
    count = len(next(iter(slopes.values())))
    figure = blank(1.55 * (1 + count))
    axes = figure.subplots(1 + count, len(slopes), squeeze=False)
    for column, (name, given) in zip(axes.T, slopes.items(), strict=True):
        images(column[:1], np.asarray(image)[None], titles=[name])
        for i, (ax, slope) in enumerate(zip(column[1:], given, strict=True)):
            signed_image(ax, np.asarray(slope), title=f"feature {i}")
            ax.set_xlabel("")
    return figure


def frozen_at(cases: Mapping[str, tuple[Places, Real[Any, "_ 2 l 2"]]]) -> Figure:
    """Draw accuracy of what is trained on frozen kernels, against the epoch of freezing.

    Args:
        cases: of each data set, epochs at which the kernel was frozen, (l,), and accuracy along the paths of
            standard and of PGD training, clean and robust, (seeds, 2, l, 2); the name is the panel's title.

    Returns:
        The figure, a panel for each data set; clean dotted, robust solid.
    """
    figure, axes = sheet(*[2.6 if len(cases) > 1 else 3.0] * len(cases), sharey=True)
    for ax, (title, (moments, accuracy)) in zip(axes, cases.items(), strict=True):
        for j, path in enumerate(("standard", "pgd")):
            for k, (kind, style) in enumerate((("clean", ":"), ("robust", "-"))):
                line = {"color": PATHS[path], "linestyle": style, "marker": "o"}
                places = np.arange(len(moments))
                over_seeds(ax, places, accuracy[:, j, :, k], label=f"{path} kernel, {kind}", **line)
        ax.set_xticks(range(len(moments)), [f"{epoch:g}" for epoch in moments])
        ax.set(xlabel="kernel frozen at epoch", ylabel="accuracy", ylim=(-0.03, 1.03), title=title)
    axes[0].legend()
    return figure


def second_phase(steps: Float[Any, " q"], curves: Mapping[str, Real[Any, "seeds q 2"]]) -> Figure:
    """Draw clean and robust accuracy along a second phase on frozen kernels.

    Args:
        steps: of the second phase, (q,).
        curves: of the kernels of the start, of standard and of PGD training, accuracy, (seeds, q, 2).

    Returns:
        The figure: clean above, robust below.
    """
    figure, axes = sheet(2.55, 2.55, sharey=True)
    for name, rows in curves.items():
        _phase(axes, steps, rows, label=f"{name} kernel", color=PATHS[name], marker="o")
    axes[1].legend()
    return figure


def second_phases(
    cases: Mapping[str, tuple[Float[Any, " _"], Mapping[tuple[str, str], Real[Any, "_ _ 2"]]]],
) -> Figure:
    """Draw clean and robust accuracy along second phases on clean and on attacked images.

    Args:
        cases: of each data set, the steps, (q,), and of each kernel and phase the accuracy, (seeds, q, 2).
            The first phase is drawn solid, the second dashed.

    Returns:
        The figure, a row for each data set, clean and robust.
    """
    figure, axes = grid(2 * len(cases), 2, 2.2, sharey=True)
    for i, (title, (steps, curves)) in enumerate(cases.items()):
        pair = axes[2 * i : 2 * i + 2]
        phases = list(dict.fromkeys(phase for _, phase in curves))
        for (path, phase), rows in curves.items():
            style = PHASES[phases.index(phase)]
            name = {"pgd": "PGD"}.get(path, path)
            label = f"{name} kernel, {IMAGES.get(phase, phase)}"
            _phase(pair, steps, rows, label=label, color=PATHS[path], linestyle=style)
        for ax, kind in zip(pair, ("clean", "robust"), strict=True):
            ax.set_title(f"{title}: {kind}")
            ticks(ax, steps[:: 3 if len(steps) > 4 else 1])
        pair[1].set_ylabel("")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return figure


def _phase(axes: list[Axes], steps: Places, rows: Real[Any, "seeds q 2"], **line: Unchecked) -> None:
    """Draw one curve into both panels, clean and robust."""
    for k, (ax, title) in enumerate(zip(axes, ("clean", "robust"), strict=True)):
        over_seeds(ax, steps, rows[:, :, k], **line)
        ax.set(xscale="log", xlabel="steps of the second phase", title=title, ylim=(-0.03, 1.03))
        ticks(ax, steps)
        ax.set_ylabel("accuracy")
