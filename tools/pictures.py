"""Sphinx extension: the map of the chapters and the house of the package, drawn from what they show.

{chapter-map} reads the table of contents: of every chapter its title, the chapters that its "You need" names,
and the minutes that its words take. {house} reads the layers in the docstring of companion/__init__.py, which
tests/test_floors.py holds against every import. Both are SVG within the page: its colors, and links.
"""

import ast
import re
import textwrap
from html import escape
from pathlib import Path

import myst
from docutils import nodes
from docutils.parsers.rst import Directive

ROOT = Path(__file__).resolve().parent.parent
WORDS_A_MINUTE = 200
WIDTH = 360  # of both pictures, in their own units: a phone's column
PARAGRAPH = re.compile(r"^You need .*?(?=\n\n)", re.M | re.S)
ROOM = re.compile(r"^ *(\d+)  (\w+)  +(.*)$", re.M)
WALL = 'fill="var(--pst-color-surface)" stroke="var(--pst-color-text-muted)"'


def words(text: str) -> int:
    """Count what is read on a page: no code, no options, each formula as the words that it has spaces for."""
    text = re.sub(r"^(`{3,})\{code-(?:cell|block)\}.*?^\1[ \t]*$", "", text, flags=re.M | re.S)
    return len(re.sub(r"^:\w+:.*$|^`{3,}.*$", "", myst.front_matter(text)[1], flags=re.M).split())


def chapters(root: Path = ROOT) -> list[dict]:
    """Return number, name, title, minutes and needed chapters of every numbered page, in order."""
    found = []
    for name, number in myst.contents(root).items():
        if not number:
            continue
        text = (root / f"{name}.md").read_text("utf8")
        told = PARAGRAPH.search(text)
        links = re.findall(r"\]\((\w+)\.md\)", told[0]) if told else []
        needs = [one["number"] for one in found if Path(one["name"]).name in links]
        found.append(
            {
                "number": number,
                "name": name,
                "title": re.search(r"^# (.+)$", text, re.M)[1],
                "minutes": max(1, round(words(text) / WORDS_A_MINUTE)),
                "needs": direct(needs, found),
            }
        )
    return found


def direct(needs: list[int], before: list[dict]) -> list[int]:
    """Leave out what is needed anyhow, by another one of them."""
    of = {one["number"]: one["needs"] for one in before}

    def below(number: int) -> set[int]:
        return set().union(*({each} | below(each) for each in of[number])) if of[number] else set()

    return [one for one in needs if not any(one in below(other) for other in needs)]


def in_branches(found: list[dict]) -> list[dict]:
    """Put every chapter below the last that it needs, so that no line passes another chapter."""
    after = {one["number"]: max(one["needs"], default=0) for one in found}

    def branch(number: int) -> list[dict]:
        here = [one for one in found if after[one["number"]] == number]
        return [each for one in here for each in (one, *branch(one["number"]))]

    return branch(0)


def chapter_map(found: list[dict], link) -> str:
    """Return the tree of chapters: each below what it needs, with its minutes at the right."""
    depth, place, lines, drawn, y = {}, {}, [], [], 14
    for one in found:
        depth[one["number"]] = 1 + max((depth[need] for need in one["needs"]), default=-1)
    for one in in_branches(found):
        x = 12 + 20 * depth[one["number"]]
        rows = textwrap.wrap(f"{one['number']}  {one['title']}", (WIDTH - x - 70) // 7)
        place[one["number"]] = x, y
        for need in one["needs"]:
            left, top = place[need]
            lines.append(f'<path d="M{left} {top} V{y} H{x}"/>')
        text = "".join(
            f'<tspan x="{x + 12}" dy="{16 if i else 0}">{escape(row)}</tspan>' for i, row in enumerate(rows)
        )
        drawn += [
            f'<circle cx="{x}" cy="{y}" r="5"/>',
            f'<a href="{link(one["name"])}"><text y="{y + 4}">{text}</text></a>',
            f'<text x="{WIDTH}" y="{y + 4}" text-anchor="end">{one["minutes"]} min</text>',
        ]
        y += 18 + 16 * len(rows)
    wires = f'<g fill="none" stroke="var(--pst-color-text-muted)" stroke-width="1.5">{"".join(lines)}</g>'
    return svg("Map of the chapters", WIDTH, y - 12, wires + "".join(drawn))


def svg(name: str, width: int, height: int, inside: str, font: int = 13) -> str:
    """Return a picture in the page's font and color; its links are read one by one."""
    size = f'viewBox="0 0 {width} {height}" font-family="inherit" font-size="{font}" fill="currentColor"'
    return f'<svg role="group" aria-label="{name}" {size}>{inside}</svg>'


def floors(root: Path = ROOT) -> list[list[tuple[str, str]]]:
    """Return the rooms of every floor, lowest first, with what is said of each."""
    text = ast.get_docstring(ast.parse((root / "companion" / "__init__.py").read_text("utf8")))
    found: dict[int, list[tuple[str, str]]] = {}
    for floor, room, said in ROOM.findall(text):
        found.setdefault(int(floor), []).append((room, said))
    return [found[floor] for floor in sorted(found)]


def house(found: list[list[tuple[str, str]]], link) -> str:
    """Return the house: the highest floor on top, rooms side by side; those with a page are links."""
    height, left, drawn = 34, 26, []
    for floor, rooms in enumerate(found):
        y, wide = 40 + height * (len(found) - 1 - floor), (WIDTH - left) / len(rooms)
        drawn.append(f'<text x="2" y="{y + 21}" fill="var(--pst-color-text-muted)">{floor}</text>')
        for i, (room, said) in enumerate(rooms):
            x, page = left + i * wide, link(room)
            size = f'width="{wide - 2:.1f}" height="{height - 2}" rx="3"'
            box = f'<rect x="{x + 1:.1f}" y="{y + 1}" {size} {WALL}/>'
            text = f'<text x="{x + wide / 2:.1f}" y="{y + 21}" text-anchor="middle">{room}</text>'
            inside = f"<title>{escape(said)}</title>{box}{text}"
            drawn.append(f'<a href="{page}">{inside}</a>' if page else f"<g>{inside}</g>")
    roof = f'<path {WALL} d="M{left} 38 L{(WIDTH + left) / 2:.0f} 4 L{WIDTH} 38 Z"/>'
    bottom = 44 + height * len(found)
    return svg("The package, floor by floor", WIDTH + 2, bottom, roof + "".join(drawn), font=12)


class Picture(Directive):
    """A picture in the page; its text is the caption."""

    has_content = True
    name_of_class = ""

    def draw(self, app) -> str:
        """Return the SVG."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Put picture and caption into a figure of the page's own HTML."""
        env = self.state.document.settings.env
        env.note_dependency(__file__)
        box = nodes.container(classes=["drawn", self.name_of_class])
        box += nodes.raw("", self.draw(env.app), format="html")
        self.state.nested_parse(self.content, self.content_offset, box)
        return [box]

    def link(self, app, page: str) -> str:
        """Return the address of another page from this one."""
        return app.builder.get_relative_uri(self.state.document.settings.env.docname, page)


class ChapterMap(Picture):
    """{chapter-map}."""

    name_of_class = "chapter-map"

    def draw(self, app) -> str:
        """Return the tree of chapters."""
        for name in myst.contents(ROOT):
            self.state.document.settings.env.note_dependency(str(ROOT / f"{name}.md"))
        return chapter_map(chapters(), lambda page: self.link(app, page))


class House(Picture):
    """{house}."""

    name_of_class = "house"

    def draw(self, app) -> str:
        """Return the house, its rooms linked to their pages."""
        self.state.document.settings.env.note_dependency(str(ROOT / "companion" / "__init__.py"))
        known = set(myst.contents(ROOT))
        return house(
            floors(),
            lambda room: self.link(app, f"book/api/{room}") if f"book/api/{room}" in known else "",
        )


def setup(app):
    """Register with Sphinx."""
    app.add_directive("chapter-map", ChapterMap)
    app.add_directive("house", House)
    return {"parallel_read_safe": True}
