"""What is drawn on a figure, for tests: lines, points with bars, titles; and a player's functions."""

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from companion import figures, interactive
from companion.interactive._frames import Frame


def keep_players(monkeypatch):
    """Of the next player its functions `draw` and `alt` and its settings; no frame is drawn."""
    found = {}

    def kept(draw, parameters, **settings):
        found.update(draw=draw, parameters=parameters, **settings)
        return interactive.Player(widgets.HTML(), (), Frame(b"", "none", (1, 1), 1))

    for module in vars(figures).values():
        if hasattr(module, "explore"):
            monkeypatch.setattr(module, "explore", kept)
    return found


def drawn(ax):
    """The lines of an axes with their labels: (label or None, x, y)."""
    lines = [(line.get_label(), *np.asarray(line.get_data())) for line in ax.lines]
    return [(None if name.startswith("_") else name, x, y) for name, x, y in lines]


def named(ax):
    """The lines that have a label."""
    return {name: (x, y) for name, x, y in drawn(ax) if name}


def middles(ax):
    """Points that have bars, by label."""
    return {bars.get_label(): np.asarray(bars.lines[0].get_data()) for bars in ax.containers}


def bars(ax):
    """Lower and upper ends of bars, by label, (m, 2)."""
    return {one.get_label(): np.array(one.lines[2][0].get_segments())[:, :, 1] for one in ax.containers}


def titles(figure):
    """Of every axes."""
    return [ax.get_title() for ax in figure.axes]


def is_narrow(figure):
    """Whether it is as wide as all figures of the chapters."""
    return isinstance(figure, Figure) and figure.get_figwidth() == 5.0
