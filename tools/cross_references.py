"""Turn the book's roles (references, citations, names of functions, glued values) into plain Markdown."""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import references
import repository
from myst import NOUNS, Target

API_ROLES = {"func", "class", "mod", "meth", "attr", "data", "exc", "obj"}
NAMED_TEXT = re.compile(r"\A(?P<shown>.*?)\s*<(?P<name>[^<>]+)>\Z", re.S)


@dataclass(frozen=True)
class Book:
    """What the translation of one page needs to know about the rest of the book."""

    page: str
    targets: dict[str, Target]
    titles: dict[str, str]
    notebooks: frozenset[str]
    entries: dict[str, references.Entry]
    repo: str
    used: set[str] = field(default_factory=set)
    notes: dict[str, int] = field(default_factory=dict)


def role(name: str, text: str, book: Book) -> str:
    """Translate one role."""
    short = name.split(":")[-1]
    if name.startswith("cite"):
        return references.cite(name, text, book.entries)
    if name in ("glue", "glue:", "eval") or name.startswith("glue:"):
        book.used.add("glue")
        return f"`{text.split(':')[0].strip()}`"
    if name == "math":
        return f"${text}$"
    if name in ("code", "kbd", "file", "samp", "command") or short in API_ROLES:
        plain = NAMED_TEXT.match(text)
        text = plain["shown"] if plain else text
        return f"`{text.rsplit('.', 1)[-1] if text.startswith('~') else text}`"
    if name in ("ref", "numref", "eq", "doc", "prf:ref"):
        return reference(name, text, book)
    if name == "term":
        named = NAMED_TEXT.match(text)
        return named["shown"] if named else text
    if name in ("abbr", "sub", "sup"):
        return {"sub": f"<sub>{text}</sub>", "sup": f"<sup>{text}</sup>"}.get(name, text.split(" (")[0])
    raise ValueError(f"no plain Markdown is known for the role {{{name}}}`{text}`")


def reference(name: str, text: str, book: Book) -> str:
    """Return a cross-reference as words, with a link where it leaves the page."""
    named = NAMED_TEXT.match(text)
    shown, label = (named["shown"], named["name"]) if named else ("", text.strip())
    if name == "doc":
        page = str(PurePosixPath(book.page).parent / label.removesuffix(".md")).removeprefix("/")
        page = label.lstrip("/").removesuffix(".md") if label.startswith("/") else page
        page = str(PurePosixPath(*[p for p in PurePosixPath(page).parts if p != "."]))
        if page not in book.titles:
            raise ValueError(f"no page {label}")
        return f"[{shown or book.titles[page]}]({address(page, book)})"
    target = book.targets.get(label)
    if target is None:
        raise ValueError(f"no label {label}")
    words = caption(target, shown)
    return words if target.page == book.page else f"[{words}]({address(target.page, book)})"


def caption(target: Target, shown: str) -> str:
    """Return the words for a target: its own, or the ones given, with the number put in."""
    if target.kind == "equation":
        words = f"({target.number})"
    elif target.number:
        kind = target.kind.removeprefix("prf:")
        words = f"{NOUNS.get(kind, kind.capitalize())} {target.number}"
    else:
        words = target.title
    return re.sub(r"%s|\{number\}", lambda _: target.number, shown) if shown else words


def address(page: str, book: Book) -> str:
    """Return where to read another page: its notebook on Colab, or its text in the repository."""
    if page in book.notebooks:
        return repository.colab(page, book.repo)
    return f"https://github.com/{book.repo}/blob/{repository.BRANCH}/{page}.md"
