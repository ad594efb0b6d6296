"""Sliders that move a picture with a kernel and without one.

Every frame is drawn beforehand. In a built page the browser alone switches between them, so the page
works offline; in a running notebook, Colab's included, the same call gives the same player.
"""

from companion.interactive._embed import embed, packed
from companion.interactive._glue import glue
from companion.interactive._parameters import MAX_FRAMES
from companion.interactive._players import MAX_BYTES, Player, explore
from companion.interactive._table import table

__all__ = [
    "MAX_BYTES",
    "MAX_FRAMES",
    "Player",
    "embed",
    "explore",
    "glue",
    "packed",
    "table",
]
