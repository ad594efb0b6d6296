"""Results as a table with a caption; chapters find `table` in `companion.interactive`."""

import html
import re
from collections.abc import Sequence

from companion._core.words import Unchecked
from companion.interactive._glue import typeset

_SHORT = 21  # signs, such as 0.968 [0.962, 0.973] has


def table(header: Sequence[Unchecked], rows: Sequence[Sequence[Unchecked]], *, caption: str) -> None:
    """Show rows as an HTML table, which scrolls sideways where it is too wide.

    Args:
        header: names of the columns.
        rows: of each row as many entries as the header has; the first names the row. Other objects than
            texts are formatted with `str`.
        caption: says, read alone, what the numbers are.

    Raises:
        ValueError: a row of another length.
    """
    from IPython.display import HTML, display

    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"rows must have {len(header)} entries as the header, got {len(row)}: {row}")
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in header)
    lines = [
        f'<th scope="row">{_text(first)}</th>' + "".join(_cell(one) for one in rest) for first, *rest in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    display(
        HTML(
            '<div class="table-box" style="overflow-x: auto" tabindex="0"><table class="docutils table">'
            f"<caption><span>{_text(caption)}</span></caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )
    )


def _text(value: Unchecked) -> str:
    """FC-1 and CIFAR-10 do not break."""
    return re.sub(r"\b[A-Z]\w*-\d+\b", r'<span class="w">\g<0></span>', html.escape(typeset(str(value))))


def _cell(value: Unchecked) -> str:
    """Short numbers stay on one line, with an interval too; what is long or has none may break (class l)."""
    text = str(value)
    may_break = " " in text and (len(text) > _SHORT or not any(sign.isdigit() for sign in text))
    return f'<td class="l">{_whole(value)}</td>' if may_break else f"<td>{_whole(value)}</td>"


def _whole(value: Unchecked) -> str:
    """Keep a number and its interval on one line."""
    return re.sub(r" (?=\[)|(?<=,) (?=[+−\d])", "\u00a0", _text(value))
