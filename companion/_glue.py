"""Numbers that the text of a page quotes; chapters find `glue` in `companion.interactive`."""

from typing import Any


def glue(**values: Any) -> None:
    """Print values computed by a cell, and hand them to the page's text.

    A page quotes one as {glue:text}`name`, so no number in the book is typed. In a notebook the printed
    lines stand for it. The page needs nothing but the displayed output: Colab has no myst-nb.

    Args:
        values: each with the text to print, by name; other objects are formatted with `str`.
    """
    from IPython.display import display

    for name, value in values.items():
        text = str(value)
        print(f"{name} = {text}")
        # myst-nb's convention for a stored value that is not shown.
        display(
            {"application/papermill.record/text/plain": text},
            raw=True,
            metadata={"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}},
        )
