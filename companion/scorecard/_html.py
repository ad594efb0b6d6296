"""Pieces of HTML: tables, folded parts, escaped words."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shown:
    """HTML that a notebook shows."""

    html: str

    def __repr__(self) -> str:
        return f"{len(self.html):,} characters of HTML"

    def _repr_html_(self) -> str:
        return self.html


def html_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "words", caption: str = ""
) -> str:
    """A table that scrolls on a narrow page; with a caption as chapters have them, the first cell a head."""
    head = "".join(f'<th scope="col">{escaped(one)}</th>' for one in heads)
    box, kind = ("table-box", "docutils table") if caption else ("scroll", f"table {kind}")
    first = '<th scope="row">{}</th>' if caption else "<td>{}</td>"
    body = "".join(
        f"<tr>{first.format(escaped(name))}{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>"
        for name, *row in rows
    )
    caption = f"<caption><span>{escaped(caption)}</span></caption>" if caption else ""
    return (
        f'<div class="{box}" style="overflow-x: auto" tabindex="0"><table class="{kind}">{caption}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, inside: str) -> str:
    """A part that opens on a click."""
    return f"<details><summary>{summary}</summary>{inside}</details>"


def escaped(plain: str) -> str:
    """Escaped, with minus signs, and a space before %."""
    text = re.sub(r"(?<![\w.])-(?=[\d.∞])", "−", html.escape(plain))
    return re.sub(r"(?<=\d)%", " %", text)


def marked(plain: str) -> str:
    """The same, with *emphasis*."""
    return re.sub(r"\*([^*]+)\*", r"<i>\1</i>", escaped(plain))
