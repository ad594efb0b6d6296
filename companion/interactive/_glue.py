"""Numbers that the text of a page quotes; chapters find `glue` in `companion.interactive`."""

import os
import re

from companion._core.words import Unchecked


def glue(**values: Unchecked) -> None:
    """Print values computed by a cell, and hand them to the page's text.

    A page quotes one as {glue:text}`name`, so no number in the book is typed. In a notebook the printed
    lines stand for it; while the page is built (COMPANION_PAGE is set) they would only repeat the text.
    The page needs nothing but the displayed output: Colab has no myst-nb.

    Args:
        values: each with the text to print, by name; other objects are formatted with `str`.
    """
    from IPython.display import display

    for name, value in values.items():
        text = typeset(str(value))
        if not os.environ.get("COMPANION_PAGE"):
            print(f"{name} = {text}")
        # myst-nb's convention for a stored value that is not shown; it reads the text as a Python literal.
        display(
            {"application/papermill.record/text/plain": repr(text)},
            raw=True,
            metadata={"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}},
        )


def typeset(text: str) -> str:
    """Write minus signs, shares and powers of ten as a book does: −0.49, 12 %, 3.4×10⁻⁴."""
    text = re.sub(r"(?<![\w.])-(?=[\d.])", "−", text)
    text = re.sub(r"−(?=0(?![\d.]))", "", text)  # what rounds to 0 has no sign
    text = re.sub(r"(?<=\d) ?%", "\u00a0%", text)
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(r"(?<=\d)e([+-]\d+)\b", lambda match: "×10" + str(int(match[1])).translate(raised), text)
