"""Count what a reader of each chapter sees: words, lines of code, figures, captions, tables; and find faults.

Usage: python tools/page_sizes.py [CHAPTER…]        a line for each chapter, then its faults

A cell is visible unless a tag hides its code or it is in a folded solution. Blank lines and comments' own
lines do not count. A long cell that must be read, because the text is about its lines, has the tag "toy".
"""

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import myst
import pictures

ROOT = Path(__file__).resolve().parent.parent
LINES = 15  # of a visible cell that is no toy
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
DRAWING = {"plt", "figures", "explore"}


@dataclass(frozen=True)
class Cell:
    """A code cell of a page: its first words, code and tags, and caption, name and text of its figure."""

    code: str
    tags: frozenset[str]
    caption: str
    name: str
    alt: str
    folded: bool = False

    @property
    def lines(self) -> int:
        """How many lines of code it has."""
        rows = (row.strip() for row in self.code.split("\n"))
        return sum(bool(row) and not row.startswith("#") for row in rows)

    @property
    def visible(self) -> bool:
        """Whether its code is open."""
        return not (self.folded or self.tags & HIDDEN)

    def calls(self) -> set[str]:
        """The names that are called, or whose attributes are: `figures` of `figures.spectrum(…)`."""
        found = set()
        for node in ast.walk(ast.parse(self.code)):
            target = node.func if isinstance(node, ast.Call) else None
            while isinstance(target, ast.Attribute):
                target = target.value
            found |= {target.id} if isinstance(target, ast.Name) else set()
        return found

    def draws(self) -> bool:
        """Whether it shows a figure or a player."""
        return bool(self.calls() & DRAWING)

    def prints_rows(self) -> bool:
        """Whether it prints in a loop, and so a table."""
        loops = (node for node in ast.walk(ast.parse(self.code)) if isinstance(node, ast.For | ast.While))
        return any(
            isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            for loop in loops
            for node in ast.walk(loop)
        )


def cells(text: str) -> list[Cell]:
    """Return the code cells of a page, in order."""
    found, folded = [], False
    for part in myst.split(myst.front_matter(text)[1]):
        name = part.name if isinstance(part, myst.Block) else ""
        folded = {"solution-start": True, "solution-end": False}.get(name, folded)
        found += [cell(part, folded)] if name == "code-cell" else []
    return found


def cell(part: myst.Block, folded: bool) -> Cell:
    """Read one cell's options."""
    tags = part.options.get("tags", [])
    tags = tags.strip("[] ").replace(" ", "").split(",") if isinstance(tags, str) else tags
    shown = part.options.get("mystnb") or {}
    figure, image = shown.get("figure") or {}, shown.get("image") or {}
    said = (figure.get("caption", "").strip(), figure.get("name", ""), image.get("alt", ""))
    return Cell(part.body, frozenset(tags), *said, folded)


def faults(text: str) -> list[str]:
    """Return what is wrong with the cells of a page, each with the first line of its cell."""
    found = []
    for one in cells(text):
        wrong = []
        if one.visible and one.lines > LINES and "toy" not in one.tags:
            wrong.append(f"{one.lines} visible lines")
        if one.draws() or one.alt:
            wrong += [] if one.caption and one.name else ["a figure without caption and name"]
            wrong += [] if one.alt or not one.caption or "player" in one.tags else ["a picture without text"]
            wrong += (
                ["glue in the cell of a figure, which puts a caption to it"] if "glue" in one.calls() else []
            )
        if one.prints_rows():
            wrong.append("a table that is printed")
        found += [f"{fault}: {one.code.strip().splitlines()[0]}" for fault in wrong]
    return found


def drawn_here(text: str) -> list[str]:
    """Return the first lines of cells that draw with pyplot, and not by companion.figures."""
    return [one.code.strip().splitlines()[0] for one in cells(text) if "plt" in one.calls()]


def sizes(text: str) -> dict[str, int]:
    """Count what a page shows."""
    all_cells = cells(text)
    seen = [one.lines for one in all_cells if one.visible]
    return {
        "words": pictures.words(text) + sum(len(one.caption.split()) for one in all_cells),
        "visible": sum(seen),
        "longest": max(seen, default=0),
        "hidden": sum(one.lines for one in all_cells if not one.visible),
        "figures": sum(one.draws() for one in all_cells),
        "captions": sum(bool(one.caption) for one in all_cells),
        "tables": sum("table" in one.calls() for one in all_cells),
        "drawn": len(drawn_here(text)),
        "prints": sum("print" in one.calls() for one in all_cells),
    }


def main(names: list[str]) -> int:
    """Print the sizes and faults of these chapters, or of all."""
    paths = [ROOT / f"{name}.md" for name, number in myst.contents(ROOT).items() if number]
    paths = [path for path in paths if not names or any(name in path.stem for name in names)]
    for i, path in enumerate(paths):
        found = sizes(path.read_text("utf8"))
        if not i:
            print(f"{'':30}" + "".join(f"{name:>9}" for name in found))
        print(f"{path.stem:30}" + "".join(f"{value:9,}" for value in found.values()))
    for path in paths:
        for fault in faults(path.read_text("utf8")) if names else ():
            print(f"{path.stem}: {fault}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
