"""Matplotlib figures as small palette PNG pictures, all of one size: the frames of `interactive.explore`."""

import base64
import html
import io
from collections.abc import Callable
from dataclasses import dataclass

from companion._core.extras import missing
from companion.interactive._parameters import Value

try:
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure
    from PIL import Image
except ModuleNotFoundError as error:
    raise missing("matplotlib", "plots") from error


CSS_DPI = 96  # the pixels that a browser gives to an inch


@dataclass(frozen=True)
class Frame:
    """One picture of a player.

    Attributes:
        png: the file, a palette PNG.
        alt: what it shows, for those who cannot see it.
        size: width and height in pixels.
        width: the width in CSS pixels at which text has its printed size.
    """

    png: bytes
    alt: str
    size: tuple[int, int]
    width: int

    def html(self) -> str:
        """Return the `<img>`, with the picture inside: as wide as its column, up to its printed width."""
        columns, rows = self.size
        data = base64.b64encode(self.png).decode("ascii")
        # With width and height given, the browser keeps the room free before it has decoded the picture;
        # decoded in step with the page, one frame replaces another without a white flash.
        return (
            f'<img class="companion-frame" alt="{html.escape(self.alt, quote=True)}" width="{columns}" '
            f'height="{rows}" decoding="sync" style="display:block;width:100%;max-width:{self.width}px;'
            f'height:auto;padding:0;border-radius:4px" src="data:image/png;base64,{data}">'
        )


def render(figure: Figure, *, dpi: int, colors: int) -> tuple[bytes, tuple[int, int]]:
    """Draw a figure to a PNG with at most `colors` colors.

    The whole figure is drawn, on white, whatever `savefig.bbox` says: a tight box would change the
    size from frame to frame.

    Args:
        figure: what to draw.
        dpi: pixels per inch.
        colors: palette entries, 2 to 256.

    Returns:
        The PNG file and its (width, height) in pixels.
    """
    raw = io.BytesIO()
    with mpl.rc_context({"savefig.bbox": None}):
        figure.savefig(raw, format="png", dpi=dpi)
    raw.seek(0)
    picture = Image.open(raw).convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    opaque = Image.alpha_composite(paper, picture).convert("RGB")
    # Of Pillow's methods this one is nearest to the original and smallest on plots. No dithering: on flat
    # colors it only adds noise, which neither reads nor compresses well.
    palette = opaque.quantize(colors, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    out = io.BytesIO()
    palette.save(out, format="PNG", optimize=True)
    return out.getvalue(), opaque.size


def draw_frame(
    draw: Callable[..., Figure], alt: Callable[..., str], values: dict[str, Value], *, dpi: int, colors: int
) -> Frame:
    """Draw one frame and close its figure.

    Args:
        draw: returns a Figure, given the values by name.
        alt: returns the alt text, given the values by name.
        values: one value for each parameter.
        dpi: pixels per inch.
        colors: palette entries.

    Returns:
        The frame.

    Raises:
        TypeError: `draw` returned no Figure.
        ValueError: the alt text is empty.
    """
    if not 2 <= colors <= 256:
        raise ValueError(f"colors: got {colors}; want 2 to 256")
    text = alt(**values)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"alt: got {text!r} at {values}; want a sentence that says what the picture shows")
    before = plt.get_fignums()
    try:
        figure = draw(**values)
        if not isinstance(figure, Figure):
            raise TypeError(f"draw: got {type(figure).__name__} at {values}; want a matplotlib Figure")
        png, size = render(figure, dpi=dpi, colors=colors)
        width = round(float(figure.get_size_inches()[0]) * CSS_DPI)
    except BaseException:
        for number in set(plt.get_fignums()).difference(before):
            plt.close(number)
        raise
    plt.close(figure)
    return Frame(png, text.strip(), size, width)
