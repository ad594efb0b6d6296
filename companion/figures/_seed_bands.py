"""Bands over seeds, of which some may not have run yet."""

import numpy as np

from companion._core.types import Array
from companion._core.words import Unchecked
from companion.figures._layout import Axes, Places
from companion.plots import band


def over_seeds(ax: Axes, places: Places, rows: Array, **line: Unchecked) -> None:
    """Draw the mean over seeds and a band from the least to the greatest, of rows (seeds, m) without NaN."""
    rows = np.asarray(rows)
    rows = rows[np.isfinite(rows).all(axis=1)]
    if len(rows):
        band(ax, np.asarray(places), rows, kind="minmax", **line)
