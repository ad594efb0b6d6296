"""The page of symbols: each is used in the chapters that it names, and has one meaning in each."""

import re
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parent.parent / "book"
MATH = re.compile(r"```\{math\}\n(?::label:[^\n]*\n)?(.*?)```|\$\$(.*?)\$\$|\$([^$]+?)\$", re.S)
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]_*.md"))


def formulas(text):
    """All mathematics of a page's text, as it is written in LaTeX, without spaces."""
    text = re.sub(r"^```\{code-cell\}.*?^```$", "", text, flags=re.M | re.S)
    return [tight("".join(match.groups(""))) for match in MATH.finditer(text)]


def tight(latex):
    return re.sub(r"\\[,;!]|(?<![a-zA-Z])\s+|\s+(?![a-zA-Z])", "", latex)


def occurs(symbol, math):
    """Whether a symbol stands in one of the formulas, and not as a part of a longer name."""
    name = tight(symbol)
    before = "" if name.startswith("\\") else r"(?<![A-Za-z\\])"
    after = r"(?![A-Za-z])" if name[-1].isalpha() else ""
    found = re.compile(before + re.escape(name) + after)
    return any(found.search(one) for one in math)


def rows(section):
    """First cell's symbols and last cell of every row of a table."""
    lines = [line for line in section.splitlines() if line.startswith("| $")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [(re.findall(r"\$([^$]+)\$", line[0]), line[-1].strip(" |")) for line in cells]


def numbers(text):
    """The chapters that "1–3, 8" names."""
    spans = [part.split("–") for part in text.split(", ")]
    return {n for span in spans for n in range(int(span[0]), int(span[-1]) + 1)}


@pytest.fixture(scope="module")
def page():
    """{number of a chapter: symbols}: those of all chapters that name it, and its own."""
    parts = re.split(r"^## ", (BOOK / "notation.md").read_text("utf8"), flags=re.M)
    sections = {part.split("\n")[0]: rows(part) for part in parts[1:]}
    chapters = range(1, len(CHAPTERS) + 1)
    shared = {
        n: [s for symbols, where in sections["In all chapters"] if n in numbers(where) for s in symbols]
        for n in chapters
    }
    own = {n: [s for symbols, _ in sections[f"Chapter {n}"] for s in symbols] for n in chapters}
    return shared, own


@pytest.fixture(scope="module")
def math():
    return {n: formulas(path.read_text("utf8")) for n, path in enumerate(CHAPTERS, 1)}


@pytest.mark.parametrize("chapter", range(1, len(CHAPTERS) + 1))
def test_every_symbol_is_used_where_the_page_says(page, math, chapter):
    shared, own = page
    assert len(own[chapter]) >= 4
    assert [one for one in shared[chapter] + own[chapter] if not occurs(one, math[chapter])] == []


@pytest.mark.parametrize("chapter", range(1, len(CHAPTERS) + 1))
def test_no_symbol_has_two_meanings_in_one_chapter(page, chapter):
    shared, own = page
    symbols = [tight(one) for one in shared[chapter] + own[chapter]]
    assert sorted({one for one in symbols if symbols.count(one) > 1}) == []


def test_a_symbol_that_is_not_there_is_missed():
    math = formulas("$x_i$ and $\\hat\\Theta(x)$\n```{code-cell} ipython3\n# $y$\n```\n$$ \\alpha f $$")
    assert [one for one in ("x", "x_i", "\\Theta", "y", "\\alpha", "f", "al") if occurs(one, math)] == [
        "x",
        "x_i",
        "\\Theta",
        "\\alpha",
        "f",
    ]
