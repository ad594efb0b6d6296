"""The sheet that the figures of the chapters are drawn on: one width, panels one below the other."""

from collections.abc import Sequence

import numpy as np

from companion._core.extras import missing
from companion._core.words import Unchecked

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise missing("matplotlib", "plots") from error

WIDTH = 5.0  # inches: letters of ten points have ten pixels on a phone of 390, and thirteen on a page
Places = Sequence[float | int] | np.ndarray
TIME = r"time $t$, in $1/\bar{\lambda}$"


def blank(height: float) -> Figure:
    """Return an empty figure of this height, in inches.

    It is no page of pyplot's: a notebook shows it once, as the value of its cell.
    """
    return Figure(figsize=(WIDTH, height), layout="constrained")


def sheet(*heights: float, **settings: Unchecked) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel of each height, in inches, one below the other."""
    figure = blank(sum(heights))
    axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False, **settings)
    return figure, list(axes[:, 0])


def grid(count: int, across: int, height: float, **settings: Unchecked) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels of one height, `across` in a row; those left over are empty."""
    down = -(-count // across)
    figure = blank(down * height)
    axes = figure.subplots(down, across, squeeze=False, **settings).ravel()
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, list(axes[:count])
