"""Matrices and pixel images on matplotlib axes; chapters find these functions in `companion.plots`."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Real

from companion._core.checks import finite
from companion._core.extras import missing
from companion._core.words import Unchecked

try:
    from matplotlib.axes import Axes
except ModuleNotFoundError as error:
    raise missing("matplotlib", "plots") from error


def heatmap(
    ax: Axes,
    matrix: Real[Any, "n m"],
    *,
    label: str,
    boundaries: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    symmetric: bool = False,
    limit: float | None = None,
) -> Axes:
    """Draw a matrix in color, with its color bar and lines between classes.

    Args:
        ax: where to draw.
        matrix: shape (n, m), such as a Gram matrix with its rows sorted by class.
        label: what the color means, beside the bar.
        boundaries: rows (and columns) at which a new class begins, ascending, in 1 ... n − 1.
        names: the classes' names, one more than `boundaries`.
        symmetric: a diverging map that is white at zero, for values of both signs.
        limit: the largest value of the color scale (±limit if symmetric; else the scale begins at 0);
            the data's ends where absent. Give one limit to pictures that are compared.

    Returns:
        `ax`.

    Raises:
        ValueError: not a matrix, NaN or infinity, boundaries out of range or out of order, a wrong
            number of names, a limit that is not positive.
    """
    matrix = finite_array("matrix", matrix, (2,))
    edges = [] if boundaries is None else list(boundaries)
    if any(edge != int(edge) for edge in edges):
        raise ValueError(f"boundaries: got {edges}; want whole rows")
    edges = [int(edge) for edge in edges]
    if edges != sorted(set(edges)) or (edges and not 1 <= edges[0] <= edges[-1] < min(matrix.shape)):
        raise ValueError(f"boundaries: got {edges}; want ascending rows in 1 ... {min(matrix.shape) - 1}")
    if names is not None and len(names) != len(edges) + 1:
        raise ValueError(f"names: got {len(names)}; want {len(edges) + 1}, one more than boundaries")
    if symmetric:
        top = _limit(limit, matrix)
        drawn = ax.imshow(matrix, cmap="RdBu_r", vmin=-top, vmax=top, interpolation="nearest")
    else:
        # One limit makes pictures comparable only if both ends of their scales agree.
        ends = {} if limit is None else {"vmin": min(0.0, matrix.min()), "vmax": _limit(limit, matrix)}
        drawn = ax.imshow(matrix, cmap="viridis", interpolation="nearest", **ends)
    for edge in edges:
        for line in (ax.axhline, ax.axvline):
            # White on black: seen on every color of either map.
            line(edge - 0.5, color="black", linewidth=1.6)
            line(edge - 0.5, color="white", linewidth=0.8)
    ax.grid(visible=False)
    if names is not None:
        ends = [0, *edges, min(matrix.shape)]
        centers = [(a + b - 1) / 2 for a, b in itertools.pairwise(ends)]
        ax.set_xticks(centers, names)
        ax.set_yticks(centers, names)
    ax.figure.colorbar(drawn, ax=ax, label=label)
    return ax


def images(
    axes: Axes | Sequence[Axes] | np.ndarray,
    pixels: Real[Any, "n h w c"] | Real[Any, "n h w"],
    *,
    titles: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw pixel images, one on each axes; axes left over are emptied.

    Args:
        axes: one axes or an array of them, as `plt.subplots` gives, at least n.
        pixels: values in [0, 1], shape (n, h, w), (n, h, w, 1) or (n, h, w, 3).
        titles: one per image.

    Returns:
        The axes in a flat array.

    Raises:
        ValueError: a wrong shape, pixels outside [0, 1], too few axes, a wrong number of titles.
    """
    pixels = finite_array("pixels", pixels, (3, 4))
    if pixels.ndim == 4 and pixels.shape[-1] not in (1, 3):
        raise ValueError(f"pixels: got {pixels.shape[-1]} channels; want 1 or 3, last")
    if pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(f"pixels: got values in [{pixels.min():g}, {pixels.max():g}]; want [0, 1]")
    flat = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(flat) < len(pixels):
        raise ValueError(f"axes: got {len(flat)}; want at least {len(pixels)}, one per image")
    if titles is not None and len(titles) != len(pixels):
        raise ValueError(f"titles: got {len(titles)}; want {len(pixels)}, one per image")
    for ax, image in zip(flat, pixels, strict=False):
        image = image[..., 0] if image.shape[-1] == 1 and image.ndim == 3 else image
        ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for ax in flat:
        ax.set_axis_off()
    for ax, title in zip(flat, titles or (), strict=False):
        ax.set_title(title)
    return flat


def signed_image(
    ax: Axes,
    delta: Real[Any, "h w c"] | Real[Any, "h w"],
    *,
    limit: float | None = None,
    title: str = "",
) -> Axes:
    """Draw a perturbation or a gradient on a symmetric color scale, with the scale printed below.

    One channel: red is up, blue is down, white is zero. Three channels: each is gray at zero.

    Args:
        ax: where to draw.
        delta: signed values, shape (h, w), (h, w, 1) or (h, w, 3).
        limit: the value at full color; the largest magnitude where absent. Give one limit to images
            that are compared.
        title: above the image.

    Returns:
        `ax`.

    Raises:
        ValueError: a wrong shape, NaN or infinity, a limit that is not positive.
    """
    delta = finite_array("delta", delta, (2, 3))
    if delta.ndim == 3 and delta.shape[-1] not in (1, 3):
        raise ValueError(f"delta: got {delta.shape[-1]} channels; want 1 or 3, last")
    top = _limit(limit, delta)
    if delta.shape[-1] == 3 and delta.ndim == 3:
        ax.imshow(np.clip(delta / (2 * top) + 0.5, 0, 1), interpolation="nearest")
    else:
        flat = delta[..., 0] if delta.ndim == 3 else delta
        ax.imshow(flat, cmap="RdBu_r", vmin=-top, vmax=top, interpolation="nearest")
    ax.grid(visible=False)
    ax.set(xticks=[], yticks=[], title=title, xlabel=f"full color: ±{top:.3g}")
    return ax


def finite_array(name: str, value: Unchecked, ndim: tuple[int, ...]) -> np.ndarray:
    """Return finite float64 values with an allowed number of axes, none empty, or say what came."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim not in ndim or 0 in array.shape:
        wanted = " or ".join(map(str, ndim))
        raise ValueError(f"{name}: got shape {array.shape}; want {wanted} axes, none empty")
    return finite(name, array)


def _limit(limit: float | None, values: np.ndarray) -> float:
    """Return the end of a color scale: the one given, or the largest magnitude (1 where all is zero)."""
    if limit is None:
        return float(np.abs(values).max()) or 1.0
    if not 0 < limit < np.inf:
        raise ValueError(f"limit: got {limit}; want a positive number")
    return float(limit)
