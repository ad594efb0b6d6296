"""One style, one color for each concept, and the drawing of bands, intervals, spectra and power laws."""

import sys
from typing import Any, Literal

import numpy as np
import scipy.stats
from jaxtyping import Real

from companion._core.extras import missing
from companion._core.words import Unchecked
from companion.plots._pictures import finite_array

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
except ModuleNotFoundError as error:
    raise missing("matplotlib", "plots") from error

# Chosen by search: every pair stays 26 apart in CIELAB for normal sight, protanopia and deuteranopia, and
# every color has a contrast of 3 : 1 or more on white (tests/test_plots.py measures both).
COLORS = {
    "clean": "#5d7bef",
    "adversarial": "#b32a19",
    "robust": "#2fa45c",
    "nonrobust": "#cc8202",
    "network": "#7d2b78",
    "kernel": "#111111",
    "chance": "#757575",
}
"""One color per concept. `kernel` is infinite width and theory, `network` finite width, `chance` any
reference line. Every function takes such a name, or any color that matplotlib knows, as `color`."""

WIDTH = 6.5  # inches: the one column width


def use_style() -> None:
    """Set matplotlib for a chapter: column width, fonts, grid, colors, and SVG figures in notebooks.

    The same code gives the same SVG bytes on every run.
    """
    colors = [COLORS[name] for name in ("clean", "adversarial", "robust", "nonrobust", "network", "kernel")]
    mpl.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.labelsize": 10,
            "axes.prop_cycle": mpl.cycler(color=colors),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 10,
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.figsize": (WIDTH, 3.4),
            "font.size": 10,
            "grid.color": "#e4e4e4",
            "image.interpolation": "nearest",
            "legend.fontsize": 9,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "svg.hashsalt": "companion",
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
        }
    )
    ipython = sys.modules.get("IPython")  # not loaded: no notebook, and nothing to set
    if ipython is not None and ipython.get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})


def band(
    ax: Axes,
    x: Real[Any, " m"],
    samples: Real[Any, "seeds m"],
    *,
    label: str,
    color: str,
    kind: Literal["quantile", "minmax", "ci"] = "quantile",
    **line: Unchecked,
) -> Axes:
    """Draw a line through the middle of several runs, and a band for their spread.

    Args:
        ax: where to draw.
        x: places, shape (m,).
        samples: one row per seed, shape (seeds, m).
        label: name in the legend.
        color: a concept of `COLORS` or a color.
        kind: "quantile": median, and the 10th to 90th percentile; "minmax": mean, least and greatest;
            "ci": mean and its 95 % Student interval, which needs two seeds or more.
        line: further settings of the line, such as `linestyle` or `marker`.

    Returns:
        `ax`.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, an unknown `kind`, one seed for "ci".
    """
    x, samples = finite_array("x", x, (1,)), finite_array("samples", samples, (2,))
    _same("samples", samples.shape[1:], x.shape)
    if kind == "ci":
        if len(samples) < 2:
            raise ValueError("samples: got one seed; want two or more for kind 'ci'")
        middle = samples.mean(axis=0)
        half = scipy.stats.t.ppf(0.975, len(samples) - 1) * scipy.stats.sem(samples, axis=0)
        low, high = middle - half, middle + half
    elif kind == "quantile":
        low, middle, high = np.quantile(samples, (0.1, 0.5, 0.9), axis=0)
    elif kind == "minmax":
        low, middle, high = samples.min(axis=0), samples.mean(axis=0), samples.max(axis=0)
    else:
        raise ValueError(f"kind: got {kind!r}; want 'quantile', 'minmax' or 'ci'")
    ax.fill_between(x, low, high, color=_color(color), alpha=0.2, linewidth=0)
    ax.plot(x, middle, color=_color(color), label=label, **line)
    return ax


def interval(
    ax: Axes,
    x: Real[Any, " m"],
    estimate: Real[Any, " m"],
    low: Real[Any, " m"],
    high: Real[Any, " m"],
    *,
    label: str,
    color: str,
    **line: Unchecked,
) -> Axes:
    """Draw estimates as points with intervals as bars; all of shape (m,), low ≤ estimate ≤ high.

    Args:
        ax: where to draw.
        x: places.
        estimate: what was measured.
        low: lower ends of the intervals.
        high: upper ends of the intervals.
        label: name in the legend.
        color: a concept of `COLORS` or a color.
        line: further settings, such as `linestyle` or `marker`.

    Returns:
        `ax`.

    Raises:
        ValueError: shapes that differ, NaN or infinity, an estimate outside its interval.
    """
    given = {"x": x, "estimate": estimate, "low": low, "high": high}
    arrays = {name: finite_array(name, value, (1,)) for name, value in given.items()}
    for name, array in arrays.items():
        _same(name, array.shape, arrays["x"].shape)
    x, estimate, low, high = arrays.values()
    if outside := int(((low > estimate) | (estimate > high)).sum()):
        raise ValueError(f"estimate: got {outside} of {len(x)} outside [low, high]; want none")
    settings = {"marker": "o", "linestyle": "none", "capsize": 3} | line
    # As lists: of one point matplotlib would ask NumPy 2.1 for an array's truth, which warns.
    ends = [(estimate - low).tolist(), (high - estimate).tolist()]
    ax.errorbar(x, estimate, ends, color=_color(color), label=label, **settings)
    return ax


def spectrum(ax: Axes, eigenvalues: Real[Any, " n"], *, label: str, color: str, **line: Unchecked) -> Axes:
    """Draw eigenvalues against their number, both logarithmic; those that are not positive are left out.

    Args:
        ax: where to draw.
        eigenvalues: descending, shape (n,); entry 0 is drawn as number 1.
        label: name in the legend.
        color: a concept of `COLORS` or a color.
        line: further settings of the line.

    Returns:
        `ax`.

    Raises:
        ValueError: not descending, none positive, NaN or infinity.
    """
    values = finite_array("eigenvalues", eigenvalues, (1,))
    if (np.diff(values) > 0).any():
        raise ValueError("eigenvalues: got some that rise; want them descending, entry 0 the largest")
    if not (keep := values > 0).any():
        raise ValueError(f"eigenvalues: got {len(values)}, none positive; want at least one")
    ax.loglog(np.arange(1, len(values) + 1)[keep], values[keep], color=_color(color), label=label, **line)
    ax.set(xlabel="number of the eigenvalue (1 is the largest)", ylabel="eigenvalue")
    return ax


def power_law(
    ax: Axes,
    x: Real[Any, " m"],
    y: Real[Any, " m"],
    *,
    exponent: float | None = None,
    label: str = "",
    color: str = "chance",
    **line: Unchecked,
) -> Axes:
    """Draw c·xᵃ through positive points on logarithmic axes, and write a in the legend.

    Without `exponent`, log c and a are the least-squares line through (log x, log y). With it, a is given
    and the line runs through the points' geometric mean. Up to ten places are the ticks of the x axis.

    Args:
        ax: where to draw.
        x: places, positive, shape (m,), at least two different ones.
        y: values, positive, shape (m,).
        exponent: a, such as −0.5 for a rate that theory predicts.
        label: what the line is, before the exponent.
        color: a concept of `COLORS` or a color.
        line: further settings of the line.

    Returns:
        `ax`.

    Raises:
        ValueError: shapes that differ, a point that is not positive, fewer than two places.
    """
    x, y = finite_array("x", x, (1,)), finite_array("y", y, (1,))
    _same("y", y.shape, x.shape)
    for name, array in {"x": x, "y": y}.items():
        if (array <= 0).any():
            raise ValueError(f"{name}: got a least value of {array.min():g}; want all positive")
    if len(places := np.unique(x)) < 2:
        raise ValueError(f"x: got {len(places)} places; want two or more")
    if exponent is not None and not np.isfinite(exponent):
        raise ValueError(f"exponent: got {exponent}; want a finite number")
    log_x, log_y = np.log(x), np.log(y)
    slope = np.polyfit(log_x, log_y, 1)[0] if exponent is None else exponent
    ends = np.array([x.min(), x.max()])
    fit = np.exp(log_y.mean() + slope * (np.log(ends) - log_x.mean()))
    number = f"slope {slope:.2f}".replace("-", "−")
    settings = {"linestyle": "--", "linewidth": 1.2} | line
    ax.loglog(ends, fit, color=_color(color), label=f"{label}, {number}" if label else number, **settings)
    if len(places) <= 10:
        # Places are often powers of two, not decades; more than six numbers would run into each other.
        skip = 1 if len(places) <= 6 else 2
        ax.set_xticks(places, [f"{place:g}" if i % skip == 0 else "" for i, place in enumerate(places)])
        ax.set_xticks([], minor=True)
    return ax


def _color(name: str) -> str:
    """Return a concept's color, or any color that matplotlib knows."""
    if name not in COLORS and not mpl.colors.is_color_like(name):
        raise ValueError(f"color: got {name!r}; want one of {sorted(COLORS)} or a color of matplotlib's")
    return COLORS.get(name, name)


def _same(name: str, got: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Refuse a shape that does not fit."""
    if got != wanted:
        raise ValueError(f"{name}: got length {got}; want {wanted}, as x has")
