"""Turn MyST Markdown into the plain Markdown that Jupyter and Colab show: no directive or role is left.

A directive or role that has no translation here is an error that names it: nothing is dropped in silence.
"""

import re
from pathlib import PurePosixPath

import repository
from cross_references import Book, reference, role
from myst import DOLLARS, NOUNS, TARGET, Block, Code, split

GONE = {"bibliography", "toctree", "tableofcontents", "contents", "index", "nb-exec-table", "only", "glue",
        "chapter-map", "house", "exercise-end", "solution-end"}  # fmt: skip
THROUGH = {"grid", "grid-item", "card", "grid-item-card", "tab-set", "div", "container", "centered"}
FOLDED = {"dropdown", "solution"}
BOXES = {"note", "tip", "warning", "important", "caution", "danger", "error", "attention", "hint", "seealso",
         "margin", "sidebar", "topic", "epigraph", "pull-quote"}  # fmt: skip
NAMED = {
    "seealso": "See also",
    "sidebar": "Note",
    "margin": "Note",
    "topic": "",
    "epigraph": "",
    "pull-quote": "",
}
ROLE_OR_CODE = re.compile(
    r"\{(?P<role>[a-zA-Z][\w:+-]*)\}(?P<t>`+)(?P<text>.+?)(?P=t)(?!`)"
    r"|(?P<code>`+)(?!`).+?(?<!`)(?P=code)(?!`)",
    re.S,
)
LINK = re.compile(r"(?<!!)\[(?P<shown>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)\)")
AMS = re.compile(
    r"^\\begin\{(equation|align|gather|multline)(\*?)\}\n(.*?)^\\end\{\1\2\}[ \t]*$", re.M | re.S
)
LEFT = re.compile(r"\{[a-zA-Z][\w:+-]*\}`|^[ \t>]*:{3,}|^[ \t>]*(?:`{3,}|~{3,})\{|^\([\w:-]+\)=", re.M)


def translate(text: str, book: Book) -> str:
    """Return the text as plain Markdown.

    Raises:
        ValueError: a directive, role, label or citation that cannot be translated, with its name.
    """
    pieces = []
    for part in split(text):
        if isinstance(part, Code):
            pieces.append(part.text)
        elif isinstance(part, Block):
            plain = directive(part, book)
            pieces.append("\n".join(part.indent + line if line else "" for line in plain.split("\n")))
        else:
            pieces.append(prose(part, book))
    return "\n\n".join(piece for piece in (piece.strip("\n") for piece in pieces) if piece.strip())


def leftovers(text: str) -> list[str]:
    """Return the raw MyST that a reader of plain Markdown would see; code is left out of the search."""
    text = re.sub(r"^(?:[ \t]*>[ ]?)+", "", text, flags=re.M)
    text = "\n".join(part if isinstance(part, str) else f"```{{{part.name}}}" for part in pieces_of(text))
    return [match[0].strip() for match in LEFT.finditer(re.sub(r"(?<![`}])(`+)(?!`)[^`]+?\1(?!`)", "", text))]


def pieces_of(text: str) -> list[str | Block]:
    """Return the text without its fenced code."""
    return [part for part in split(text) if not isinstance(part, Code)]


def directive(part: Block, book: Book) -> str:
    """Translate one directive with all that is inside it."""
    name, body = part.name, part.body
    if name in GONE or name.startswith("glue:"):
        return ""
    if name == "raw":
        return "*What moves here is on the page of the book: a notebook shows the numbers alone.*"
    if name == "math":
        return display(body, number_of(part, book))
    if name in ("code-block", "code", "sourcecode"):
        return f"```{part.argument}\n{body}\n```"
    if name in ("figure", "image"):
        return picture(part, book)
    if name in ("table", "list-table"):
        rows = list_table(body) if name == "list-table" else body
        return "\n\n".join(filter(None, [bold(headline(part, book)), translate(rows, book)]))
    inner = translate(body, book)
    if name in THROUGH:
        return inner
    if name == "tab-item":
        return f"**{inline(part.argument, book)}**\n\n{inner}"
    if name == "exercise-start":
        return f"{bold(headline(part, book))}\n\n{inner}"
    if name == "solution-start":
        # The text up to the end of its cell belongs to it; the exporter closes the fold there.
        return f"<details>\n<summary>{headline(part, book)}</summary>\n\n{inner}".rstrip()
    if name in FOLDED or "dropdown" in str(part.options.get("class", "")):
        summary = re.sub(r"\$|\*\*|`", "", headline(part, book))
        return f"<details>\n<summary>{summary}</summary>\n\n{inner}\n\n</details>"
    if name in BOXES or name == "admonition" or name == "exercise" or name.startswith("prf:"):
        lines = (
            [bold(headline(part, book)), "", *inner.split("\n")]
            if headline(part, book)
            else inner.split("\n")
        )
        return "\n".join(f"> {line}".rstrip() for line in lines)
    raise ValueError(f"no plain Markdown is known for the directive {{{name}}}")


def headline(part: Block, book: Book) -> str:
    """Return a directive's title as the book prints it, with its number."""
    name, title = part.name, inline(part.argument, book)
    if name in ("solution", "solution-start"):
        return f"Solution to {reference('ref', part.argument, book)}"
    if name in ("admonition", "dropdown", "topic", "sidebar") and title:
        return title
    kind = name.removesuffix("-start").removeprefix("prf:")
    noun = NOUNS.get(kind, NAMED.get(name, kind.capitalize()))
    shown = f"{noun} {number_of(part, book)}".strip()
    return f"{shown} ({title})" if title and name not in BOXES else (title or shown)


def number_of(part: Block, book: Book) -> str:
    """Return the number of a labeled directive; one without a label is never referred to."""
    target = book.targets.get(part.options.get("label") or part.options.get("name") or "")
    return target.number if target else ""


def bold(text: str) -> str:
    """Return the text in bold, or nothing for nothing."""
    return f"**{text}**" if text else ""


def display(body: str, number: str) -> str:
    """Return a displayed equation; Sphinx aligns one with line breaks, and so do we."""
    body = body.strip()
    if "\\\\" in body and "\\begin{" not in body:
        body = f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"
    tag = f" \\tag{{{number}}}" if number else ""
    return f"$$\n{body}{tag}\n$$"


def picture(part: Block, book: Book) -> str:
    """Return an image by its address in the repository, and its caption with its number."""
    path = part.argument
    if "://" not in path:
        path = str(PurePosixPath(book.page).parent / path.lstrip("/")) if path[0] != "/" else path.lstrip("/")
        path = f"https://raw.githubusercontent.com/{book.repo}/{repository.BRANCH}/{path}"
    image = f"![{part.options.get('alt', '')}]({path})"
    return f"{image}\n\n{figure_caption(part.body, number_of(part, book), book)}" if part.body else image


def list_table(body: str) -> str:
    """Return a list-table's body as a pipe table, its first row as the head."""
    rows = []
    for line in body.split("\n"):
        if match := re.match(r"^[*-] +[*-] ?(.*)$", line):
            rows.append([match[1]])
        elif match := re.match(r"^  +[*-] ?(.*)$", line):
            rows[-1].append(match[1])
        elif line.strip() and rows:
            rows[-1][-1] += " " + line.strip()
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines[:1], "|" + " --- |" * len(rows[0]), *lines[1:]]) if rows else ""


def prose(text: str, book: Book) -> str:
    """Translate text that holds no directive: comments, labels, equations, links, roles, footnotes."""
    text = "\n".join(line for line in text.split("\n") if not re.match(r"%|\{[.#][^`{}]*\}\s*$", line))
    text = "\n".join(line for line in text.split("\n") if not TARGET.match(line))
    text = AMS.sub(lambda m: display(f"\\begin{{aligned}}\n{m[3]}\\end{{aligned}}", ""), text)
    text = DOLLARS.sub(lambda m: dollars(m, book), text)
    text = re.sub(r"\[\^([\w-]+)\](:[ \t]*)?", lambda m: footnote(m[1], bool(m[2]), book), text)
    text = re.sub(r"^(?![-*#>|\s])(.+)\n: +(.*)$", r"- **\1**: \2", text, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", inline(text, book))


def footnote(name: str, definition: bool, book: Book) -> str:
    """Return a footnote's mark; the book numbers footnotes in the order in which a page refers to them."""
    shown = book.notes.setdefault(name, len(book.notes) + 1)
    return f"<sup>{shown}</sup> " if definition else f"<sup>{shown}</sup>"


def dollars(match: re.Match, book: Book) -> str:
    """Translate one $$ … $$, keeping one on a single line without a label as it is."""
    if match["label"] is None and "\n" not in match["body"]:
        return match[0]
    return display(match["body"], book.targets[match["label"]].number if match["label"] else "")


def inline(text: str, book: Book) -> str:
    """Translate links and roles; inline code is left as it is."""
    pieces, last = [], 0
    for match in ROLE_OR_CODE.finditer(text):
        pieces += [links(text[last : match.start()], book)]
        pieces += [role(match["role"], match["text"], book) if match["role"] else match[0]]
        last = match.end()
    return "".join([*pieces, links(text[last:], book)])


def links(text: str, book: Book) -> str:
    """Translate Markdown links to labels and pages of the book."""

    def one(match: re.Match) -> str:
        shown, target = match["shown"], match["target"]
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path, _, label = target.partition("#")
        if path.endswith(".md"):
            return reference("doc", f"{shown} <{path}>" if shown else path, book)
        label = label or path
        return reference("ref", f"{shown} <{label}>" if shown else label, book)

    return LINK.sub(one, text)


def figure_caption(text: str, number: str, book: Book) -> str:
    """Return a figure's caption as a line of its own, in italics, with its number."""
    return f"*{f'Fig. {number}. ' if number else ''}{translate(text, book)}*"
