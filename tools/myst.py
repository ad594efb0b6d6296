"""Read the MyST Markdown of the book's pages: directives, labels and the numbers that the book prints."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

OPEN = re.compile(r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,}|:{3,})(?P<rest>.*)$")
DIRECTIVE = re.compile(r"^\{(?P<name>[\w:+-]+)\}[ \t]*(?P<argument>.*)$")
TARGET = re.compile(r"^\((?P<label>[^()\s]+)\)=\s*$")
HEADING = re.compile(r"^(?P<level>#{1,6})\s+(?P<title>.+?)\s*#*$")
DOLLARS = re.compile(r"\$\$(?P<body>.+?)\$\$(?:[ \t]*\((?P<label>[\w:.-]+)\))?", re.S)
# The book counts these apart, page by page, and prints the chapter's number in front.
NOUNS = {"figure": "Fig.", "table": "Table", "list-table": "Table", "exercise": "Exercise"}


@dataclass(frozen=True)
class Block:
    """One directive: ```{name} argument, its :options: and its body, all without the block's indentation."""

    name: str
    argument: str
    options: dict[str, Any]
    body: str
    indent: str = ""


@dataclass(frozen=True)
class Code:
    """A fenced piece of code, or any other text that must stay as it is."""

    text: str


@dataclass(frozen=True)
class Target:
    """What a label names: the page it is on, what kind of thing, its number and its title."""

    page: str
    kind: str
    number: str = ""
    title: str = ""


@dataclass
class Page:
    """The labels of one page, collected while it is read."""

    name: str
    chapter: int | None
    counts: dict[str, int] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    title: str = ""


def split(text: str) -> list[str | Code | Block]:
    """Cut Markdown into plain text, fenced code and directives, in order."""
    lines, parts, plain, i = text.split("\n"), [], [], 0
    while i < len(lines):
        start = OPEN.match(lines[i])
        directive = DIRECTIVE.match(start["rest"]) if start else None
        if not start or (start["fence"][0] == ":" and not directive):
            plain.append(lines[i])
            i += 1
            continue
        end = closing(lines, i + 1, start["fence"])
        indent = len(start["indent"])
        inner = [line[indent:] if not line[:indent].strip() else line for line in lines[i + 1 : end]]
        if plain:
            parts.append("\n".join(plain))
            plain = []
        if directive:
            parts.append(block(directive["name"], directive["argument"], inner, start["indent"]))
        else:
            parts.append(Code("\n".join(lines[i : end + 1])))
        i = end + 1
    if plain:
        parts.append("\n".join(plain))
    return parts


def closing(lines: list[str], first: int, fence: str) -> int:
    """Return the line that closes a fence, or the number of lines when none does."""
    for number in range(first, len(lines)):
        line = lines[number].strip()
        if len(line) >= len(fence) and set(line) == {fence[0]}:
            return number
    return len(lines)


def block(name: str, argument: str, lines: list[str], indent: str) -> Block:
    """Make a directive of its lines: options as `:key: value` lines or between `---` lines, then the body."""
    options, i = {}, 0
    if lines and lines[0].strip() == "---":
        i = next((n for n in range(1, len(lines)) if lines[n].strip() == "---"), len(lines) - 1) + 1
        options = yaml.safe_load("\n".join(lines[1 : i - 1])) or {}
    else:
        while i < len(lines) and (match := re.match(r"^:([\w-]+):[ \t]*(.*)$", lines[i])):
            options[match[1]] = match[2].strip()
            i += 1
    return Block(name, argument.strip(), options, "\n".join(lines[i:]).strip("\n"), indent)


def number(page: Page, kind: str) -> str:
    """Count one more thing of this kind, and return its number as the book prints it."""
    page.counts[kind] = page.counts.get(kind, 0) + 1
    return f"{page.chapter}.{page.counts[kind]}" if page.chapter else str(page.counts[kind])


def read_block(page: Page, part: Block, label: str) -> None:
    """Note a directive's label and number, then read what is inside it."""
    label = part.options.get("label") or part.options.get("name") or label
    kind, shown = part.name, ""
    if kind == "math":
        shown = number(page, "equation") if part.options.get("label") else ""
        kind = "equation"
    elif kind in ("exercise", "exercise-start"):
        kind = "exercise"
        shown = "" if "nonumber" in part.options else number(page, kind)
    elif kind.startswith("prf:") and kind != "prf:proof":
        shown = "" if "nonumber" in part.options else number(page, kind)
    elif kind in ("figure", "table", "list-table"):
        captioned = part.body.strip() if kind == "figure" else part.argument
        shown = number(page, NOUNS[kind]) if captioned else ""
    elif kind == "code-cell":
        read_cell(page, part.options.get("mystnb"))
    if label:
        page.targets[label] = Target(page.name, kind, shown, part.argument)
    if kind not in ("equation", "code-cell", "code-block", "code"):
        read(page, part.body)


def read_cell(page: Page, options: dict | None) -> None:
    """Note the figure that a code cell makes, where it has a caption."""
    figure = (options or {}).get("figure") or {}
    if figure.get("caption"):
        shown = number(page, "Fig.")
        if figure.get("name"):
            page.targets[figure["name"]] = Target(page.name, "figure", shown, figure["caption"].strip())


def read(page: Page, text: str) -> None:
    """Note every label in a text, with its number."""
    label = ""
    for part in split(text):
        if isinstance(part, Block):
            read_block(page, part, label)
            label = ""
        elif isinstance(part, str):
            label = read_text(page, part)


def read_text(page: Page, text: str) -> str:
    """Note the labels of headings and equations, and return a label that waits for the next directive."""
    for match in DOLLARS.finditer(text):
        if match["label"]:
            page.targets[match["label"]] = Target(page.name, "equation", number(page, "equation"))
    label = ""
    for line in text.split("\n"):
        if target := TARGET.match(line):
            label = target["label"]
        elif heading := HEADING.match(line):
            page.title = page.title or heading["title"]
            if label:
                page.targets[label] = Target(page.name, "heading", "", heading["title"])
            label = ""
        elif line.strip():
            label = ""
    return label


def front_matter(text: str) -> tuple[dict, str]:
    """Split a page into its YAML front matter and the rest."""
    match = re.match(r"\A---\n(.*?)\n---\n(.*)\Z", text, re.S)
    return (yaml.safe_load(match[1]) or {}, match[2]) if match else ({}, text)


def contents(root: Path) -> dict[str, int | None]:
    """Return every page of _toc.yml in order, with its chapter's number where its part is numbered."""
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf8"))
    pages, count = {toc["root"]: None}, 0
    for part in toc.get("parts", []):
        for entry in part["chapters"]:
            count += bool(part.get("numbered"))
            pages[entry["file"]] = count if part.get("numbered") else None
            pages |= {section["file"]: None for section in entry.get("sections", [])}
    return pages


def index(root: Path) -> tuple[dict[str, Page], dict[str, Target]]:
    """Read all pages of the book; return them by name, and every label of every page."""
    pages = {}
    for name, chapter in contents(root).items():
        path = root / f"{name}.md"
        if path.exists():
            pages[name] = Page(name, chapter)
            read(pages[name], front_matter(path.read_text("utf8"))[1])
    return pages, {label: target for page in pages.values() for label, target in page.targets.items()}
