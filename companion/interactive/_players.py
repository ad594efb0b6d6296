"""Frames drawn beforehand, as a player for the page and as one for a running notebook."""

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from companion._core.extras import missing
from companion._core.words import Unchecked
from companion.interactive._frames import Frame, draw_frame
from companion.interactive._parameters import Format, Value, grid, known, start_index, texts

try:
    import ipywidgets as widgets
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise missing("ipywidgets", "plots") from error

MAX_BYTES = 1_000_000

_VIEW = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Player:
    """A picture with its sliders. As the last line of a cell it shows itself.

    Attributes:
        widget: the live controls and picture.
        frames: every picture, the last parameter changing fastest.
        poster: the frame shown where no widget can be: print, PDF, a browser without JavaScript.
    """

    widget: widgets.Widget
    frames: tuple[Frame, ...]
    poster: Frame

    @property
    def nbytes(self) -> int:
        """The weight of the frames in the page, in bytes before compression."""
        return sum(len(frame.html().encode()) for frame in self.frames)

    def _repr_mimebundle_(self, **_: Unchecked) -> dict[str, str | bytes | dict]:
        """Return the widget's view, and for those who cannot show it the poster.

        A page is given both in one piece of HTML, so that one caption can stand under them.
        """
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        bundle = {_VIEW: view, "text/plain": self.poster.alt}
        if "google.colab" in sys.modules:
            return bundle  # Colab takes the richest picture it knows: give it no choice but the widget.
        page = f'<script type="{_VIEW}">{json.dumps(view)}</script><noscript>{self.poster.html()}</noscript>'
        return bundle | {"image/png": self.poster.png, "text/html": page}

    def _ipython_display_(self) -> None:
        """Show the player."""
        from IPython.display import display

        display(self._repr_mimebundle_(), raw=True)


def explore(
    draw: Callable[..., Figure],
    parameters: Mapping[str, Iterable[Value]],
    *,
    alt: Callable[..., str],
    labels: Mapping[str, str] | None = None,
    start: Mapping[str, Value] | None = None,
    fmt: Format = None,
    dpi: int = 110,
    colors: int = 64,
    interval: int = 500,
    max_bytes: int = MAX_BYTES,
) -> Player:
    """Draw a picture for every value of one or two parameters, and put sliders above it.

    Keep the axes' limits fixed in `draw`: then only the data move.

    Args:
        draw: called as `draw(t=value)`, or `draw(t=value, eps=value)`; returns a new matplotlib Figure,
            always of one size. It is closed here.
        parameters: one or two names, each with its values, two or more; at most 30 frames in all.
        alt: called like `draw`; returns what the picture shows, in a sentence.
        labels: what the sliders are called, in plain text; the parameter's name where absent.
        start: the value shown first, per parameter; the first one where absent.
        fmt: how values are written beside the slider: one function, or one per parameter.
        dpi: pixels per inch of the frames.
        colors: palette entries of a frame, 2 to 256.
        interval: milliseconds between frames when playing (one parameter only).
        max_bytes: what the frames may weigh in the page together, before compression.

    Returns:
        The player; show it as the last line of a cell.

    Raises:
        ValueError: no parameter or more than two, too many frames, frames of several sizes or too heavy,
            an empty alt text, a start that is no value of its parameter.
        TypeError: `draw` returns no Figure; `draw` or `alt` is no function; `parameters` is no mapping.

    Cost: one call of `draw` and about 0.1 s per frame; the page grows by the frames' weight.
    """
    for name, function in (("draw", draw), ("alt", alt)):
        if not callable(function):
            raise TypeError(f"{name}: got {function!r}; want a function of the parameters")
    if interval <= 0:
        raise ValueError(f"interval: got {interval}; want milliseconds, more than 0")
    values = grid(parameters)
    known("labels", labels, values)
    known("fmt", fmt if isinstance(fmt, Mapping) else None, values)
    known("start", start, values)
    names = {name: (labels or {}).get(name, name) for name in values}
    written = {name: texts(name, values[name], fmt) for name in values}
    first = tuple(start_index(name, column, start or {}) for name, column in values.items())
    frames = []
    for point in itertools.product(*values.values()):
        point_values = dict(zip(values, point, strict=True))
        frames.append(draw_frame(draw, alt, point_values, dpi=dpi, colors=colors))
        if frames[-1].size != frames[0].size:
            sizes = f"{frames[-1].size} at {point_values}, {frames[0].size} before"
            raise ValueError(f"draw: got frames of several sizes in pixels, {sizes}; want one figure size")
    shape = tuple(len(column) for column in values.values())
    player = _assemble(frames, shape, first, names, written, interval)
    if player.nbytes > max_bytes:
        raise ValueError(
            f"parameters: got {len(frames)} frames of {player.nbytes:,} bytes together, the largest "
            f"{max(len(frame.html()) for frame in frames):,}; want at most max_bytes = {max_bytes:,}: "
            "draw fewer, smaller or plainer frames, or raise max_bytes"
        )
    return player


def _assemble(
    frames: Sequence[Frame],
    shape: tuple[int, ...],
    first: tuple[int, ...],
    names: Mapping[str, str],
    texts: Mapping[str, Sequence[str]],
    interval: int,
) -> Player:
    """Put sliders and frames together in the way that the installed ipywidgets can show."""
    sliders = [
        widgets.SelectionSlider(
            options=[(text, i) for i, text in enumerate(texts[name])],
            index=begin,
            description=names[name],
            style={"description_width": "initial"},
            layout={"flex": "1 1 16rem", "width": "auto", "max_width": "30rem", "min_width": "0"},
        )
        for name, begin in zip(names, first, strict=True)
    ]
    controls = list(sliders)
    if len(sliders) == 1:
        play = widgets.Play(min=0, max=shape[0] - 1, value=first[0], interval=interval, show_repeat=False)
        widgets.jslink((play, "value"), (sliders[0], "index"))
        controls.insert(0, play)
    row = widgets.HBox(
        controls, layout={"flex_flow": "row wrap", "overflow": "visible", "grid_gap": "0.5rem"}
    )
    picture = _live_picture if _needs_python() else _stacked_picture
    strides = (shape[1], 1) if len(shape) == 2 else (1,)
    poster = frames[sum(i * stride for i, stride in zip(first, strides, strict=True))]
    box = widgets.VBox([row, picture(frames, shape, sliders, poster)], layout={"overflow": "visible"})
    box.add_class("companion-player")
    return Player(box, tuple(frames), poster)


def _needs_python() -> bool:
    """Say whether the browser cannot switch frames by itself: ipywidgets 7, Colab's, has no Stack."""
    return not hasattr(widgets, "Stack") or "google.colab" in sys.modules


def _stacked_picture(
    frames: Sequence[Frame], shape: tuple[int, ...], sliders: Sequence[widgets.SelectionSlider], poster: Frame
) -> widgets.Widget:
    """Return a picture that the browser switches: a Stack of frames, or a Stack of Stacks."""
    layout = {"width": "100%", "margin": "0", "overflow": "visible"}
    stack = [widgets.HTML(frame.html(), layout=layout) for frame in frames]
    for slider, size in zip(reversed(sliders), reversed(shape), strict=True):
        rows = [stack[i : i + size] for i in range(0, len(stack), size)]
        stack = [widgets.Stack(row, selected_index=slider.index, layout=layout) for row in rows]
        for one in stack:
            widgets.jslink((slider, "index"), (one, "selected_index"))
    # While one frame replaces another the Stack is empty for a moment: a blank picture of the same shape
    # in the same cell of a grid keeps the text below from jumping.
    blank = (
        f'<svg aria-hidden="true" viewBox="0 0 {poster.size[0]} {poster.size[1]}" '
        'style="display:block;width:100%;height:auto;background:#fff;border-radius:4px"></svg>'
    )
    cell = layout | {"grid_area": "1 / 1 / 2 / 2"}
    stack[0].layout = cell
    return widgets.GridBox(
        [widgets.HTML(blank, layout=cell), stack[0]],
        layout=layout
        | {"max_width": f"{poster.width}px", "margin": "0 auto", "grid_template_columns": "minmax(0, 1fr)"},
    )


def _live_picture(
    frames: Sequence[Frame], shape: tuple[int, ...], sliders: Sequence[widgets.SelectionSlider], poster: Frame
) -> widgets.Widget:
    """Return a picture that Python switches while the kernel runs."""
    picture = widgets.HTML(poster.html(), layout={"width": "100%", "overflow": "visible"})

    def show(_: Unchecked) -> None:
        index = 0
        for slider, size in zip(sliders, shape, strict=True):
            index = index * size + slider.index
        picture.value = frames[index].html()

    for slider in sliders:
        slider.observe(show, names="index")
    return picture
