"""Arrays for a page's own script; the live page finds `embed` in `companion.interactive`."""

import base64
import json
import os
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from companion._core.checks import within
from companion._core.words import Unchecked


def embed(name: str, values: Mapping[str, Unchecked]) -> None:
    """Hand values to a script of the page, as JSON in an element with this id.

    A NumPy array becomes the base64 text of its bytes, little-endian, in C order; what its shape is, the
    script must know. In a notebook no script waits for them: there a line says how much it would be.

    Args:
        name: the element's id.
        values: numbers, texts, lists, arrays of numbers, and dictionaries of these.

    Raises:
        TypeError: a value of another kind.
        ValueError: a number that is NaN or infinite, which JSON has not. Arrays may have such entries.
    """
    from IPython.display import HTML, display

    try:
        text = json.dumps(values, default=_encoded, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise ValueError(f"values must be finite where they are no arrays: {error}") from None
    text = text.replace("<", "\\u003c")
    if os.environ.get("COMPANION_PAGE"):
        display(HTML(f'<script type="application/json" id="{name}">{text}</script>'))
    else:
        print(f"{name}: {len(text):,} bytes for the page in the book, which computes with them")


def packed(x: Float32[np.ndarray, "n ..."]) -> dict[str, int | np.ndarray]:
    """Images of eight bits, mostly black, in a third of their bytes: where they are bright, and how much.

    Args:
        x: pixels float32(b / 255) of bytes b, (n, ...).

    Returns:
        `count` n, `pixels` of an image, `mask`, a bit for every pixel, and the bytes of those that are not
        0: what `embed` takes.

    Raises:
        ValueError: pixels that are no such bytes; no images.

    >>> packed(np.array([[0, 1, 0, 0.2]], np.float32))["values"].tolist()
    [255, 51]
    """
    if not len(x):
        raise ValueError(f"x must have one image or more, got shape {x.shape}")
    levels = np.rint(255 * within("x", x, (0.0, 1.0))).astype(np.uint8).reshape(len(x), -1)
    if not np.array_equal(np.divide(levels, 255, dtype=np.float32), x.reshape(len(x), -1)):
        raise ValueError("x must have pixels float32(b / 255) of bytes b, got others")
    shape = {"count": len(x), "pixels": levels.shape[1]}
    return shape | {"mask": np.packbits(levels > 0), "values": levels[levels > 0]}


def _encoded(value: Unchecked) -> str | float | int:
    if isinstance(value, np.bool_ | np.integer | np.floating):
        return value.item()
    kind = type(value).__name__
    value = np.asarray(value) if hasattr(value, "__array__") else value
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise TypeError(f"values must be numbers, texts, lists and arrays of numbers, got {kind}")
    ordered = value.astype(value.dtype.newbyteorder("<"), order="C")
    return base64.b64encode(ordered.tobytes()).decode()
