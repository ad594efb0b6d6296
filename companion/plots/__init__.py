"""The book's figures: one style, one fixed color per concept, one call per idea.

Every function takes the axes, draws, and returns them; none shows anything. `use_style` is the only
one that changes matplotlib's settings, and only when a chapter calls it.
"""

from companion.plots._draw import COLORS, WIDTH, band, interval, power_law, spectrum, use_style
from companion.plots._pictures import heatmap, images, signed_image

__all__ = [
    "COLORS",
    "WIDTH",
    "band",
    "heatmap",
    "images",
    "interval",
    "power_law",
    "signed_image",
    "spectrum",
    "use_style",
]
