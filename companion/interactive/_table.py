"""Tables of a page: numbers aligned, a caption that can be read alone, scrolled sideways on a phone."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from companion.interactive._glue import typeset


@dataclass(frozen=True)
class Table:
    """Rows under heads, with a caption; a notebook and a page show it as HTML."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{_cell(text)}</th>' for text in self.heads)
        body = "".join(
            f'<tr><th scope="row">{_cell(row[0])}</th>'
            + "".join(f"<td>{_cell(text)}</td>" for text in row[1:])
            + "</tr>"
            for row in self.rows
        )
        return (
            f'<div class="pst-scrollable-table-container" tabindex="0"><table class="table numbers">'
            f"<caption>{_cell(self.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
            "</table></div>"
        )


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table for a page, as the last line of a cell or for `IPython.display.display`.

    Args:
        caption: what the numbers are, over how many runs.
        heads: one for each column; the first column names the rows.
        rows: as long as `heads`; anything but text is formatted with `str`. Minus signs are typeset.

    Returns:
        The table.

    Raises:
        ValueError: no columns, or a row of another length than `heads`.

    >>> table("Accuracy", ["method", "robust"], [["FGSM", "-0.1"]]).rows
    (('FGSM', '-0.1'),)
    """
    texts = tuple(tuple(str(cell) for cell in row) for row in rows)
    if not heads or any(len(row) != len(heads) for row in texts):
        raise ValueError(f"rows must be as long as heads, {len(heads)}, got {[len(row) for row in texts]}")
    return Table(caption, tuple(heads), texts)


def _cell(text: str) -> str:
    return html.escape(typeset(text), quote=False)
