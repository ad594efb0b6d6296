"""Sew the pages of the built book into one for the printer: contents, chapters, solutions, references.

All that a page is has been settled by `make book`: numbers, captions, citations, pictures. Here links between
pages become links within one; what only a screen can do goes, or gives way to its picture and an address.
"""

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urldefrag

import myst
import yaml
from bs4 import BeautifulSoup, Tag

# Buttons, scripts and code that the page itself folds away.
SCREEN = "script, link, noscript, .headerlink, .viewcode-link, .toctree-wrapper, details.hide, .tag_hide-cell"
# Pieces of code in the color of its text: in a PDF each piece of a line weighs as much as a line.
PLAIN = "span.n, span.p, span.w, span.pre, span.sig-paren, .highlight span:not([class])"
# Tables of single runs, which are folded on the page too, and ask for a screen's width.
FOLDED = "section.claim details"
ARTICLE = re.compile(r'<article class="bd-article".*?</article>', re.S)
HEADINGS = re.compile("^h[1-5]$")
SOLUTIONS = "Solutions of the exercises"
PICTURE = '<p class="moves">With sliders on <a href="{address}">{short}</a>.</p>'
SCREEN_ONLY = '<p class="moves">Here the page computes, in your browser: <a href="{address}">{short}</a>.</p>'


@dataclass(frozen=True)
class Part:
    """One part of the book: its caption and the pages in it, in order."""

    caption: str
    pages: tuple[str, ...]


def parts(root: Path) -> list[Part]:
    """Return the parts of _toc.yml; the first is the root page alone, without a caption."""
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf8"))
    found = [Part("", (toc["root"],))]
    for part in toc.get("parts", []):
        pages = [each["file"] for entry in part["chapters"] for each in (entry, *entry.get("sections", []))]
        found.append(Part(part["caption"], tuple(pages)))
    return found


def anchor(page: str, fragment: str = "") -> str:
    """Return the id that a place of a page has in print; without a fragment, that of the whole page."""
    return f"{page.replace('/', '.')}..{fragment}" if fragment else page.replace("/", ".")


class Page:
    """One built page, made ready for print."""

    def __init__(self, site: Path, name: str, names: set[str], address: str) -> None:
        self.site, self.name, self.names, self.address = site, name, names, address
        # The article alone: a page's other half is the state of its widgets.
        article = ARTICLE.search((site / f"{name}.html").read_text("utf8"))[0]
        self.body = BeautifulSoup(article, "html.parser").article
        for wanted in (self.players, self.screen, self.ids, self.links, self.pictures, self.headings):
            wanted()
        self.title = " ".join(self.body.find("h2").get_text().split())

    def here(self, template: str) -> Tag:
        """Return a line that sends the reader to this page of the site."""
        address = f"{self.address}{self.name}.html"
        short = address.removeprefix("https://")
        return BeautifulSoup(template.format(address=address, short=short), "html.parser").p

    def players(self) -> None:
        """Put a player's still picture in its place, and where it moves below it."""
        for still in self.body.select("noscript > img.companion-frame"):
            still.parent.insert_after(still, self.here(PICTURE))
        for script in self.body.select('script[src$="attack_page.js"]'):
            script.insert_before(self.here(SCREEN_ONLY))
        for live in self.body.select(".attack[hidden]"):
            live.decompose()

    def screen(self) -> None:
        """Take out what paper cannot show, and what the page folds away."""
        for one in self.body.select(f"{SCREEN}, {FOLDED}"):
            one.decompose()
        for piece in self.body.select(PLAIN):
            piece.unwrap()
        self.body.smooth()
        for cell in self.body.select("div.cell"):
            if not cell.get_text(strip=True) and not cell.find(["img", "svg"]):
                cell.decompose()

    def ids(self) -> None:
        """Make every id the page's own, and of the whole page one."""
        for one in self.body.find_all(id=True):
            one["id"] = anchor(self.name, one["id"])

    def links(self) -> None:
        """Point links to pages of the book into print; other files of the site are on the site."""
        folder = posixpath.dirname(self.name)
        for link in self.body.find_all("a", href=True):
            file, fragment = urldefrag(link["href"])
            if re.match(r"\w+:", file):
                continue
            path = posixpath.normpath(posixpath.join(folder, file)) if file else f"{self.name}.html"
            page = path.removesuffix(".html")
            if page in self.names:
                link["href"] = f"#{anchor(page, fragment)}"
                if page != self.name and link.select_one(".std-doc, .std-ref, .std-numref"):
                    link["data-page"] = link["href"][1:]
            else:
                link["href"] = f"{self.address}{path}{'#' * bool(fragment)}{fragment}"

    def pictures(self) -> None:
        """Let pictures be found from anywhere."""
        folder = posixpath.dirname(self.name)
        for picture in self.body.find_all("img", src=True):
            if not re.match(r"\w+:", picture["src"]):
                path = posixpath.normpath(posixpath.join(folder, picture["src"]))
                picture["src"] = (self.site / path).resolve().as_uri()

    def headings(self) -> None:
        """Move headings one level down: the first belongs to the parts."""
        for heading in self.body.find_all(HEADINGS):
            heading.name = f"h{int(heading.name[1]) + 1}"

    def sections(self) -> list[tuple[str, str]]:
        """Return id and title of every section of the page."""
        found = [one.find("h3", recursive=False) for one in self.body.select("section[id]")]
        return [(one.parent["id"], one.get_text().strip()) for one in found if one]

    def solutions(self) -> list[Tag]:
        """Take the solutions out, and leave in each exercise where its own is."""
        found = self.body.select("div.solution")
        for solution in found:
            exercise = solution.find_previous("div", class_="exercise")
            number = exercise.select_one(".caption-number").get_text().strip()
            solution.select_one(".admonition-title").string = f"Solution of {number}"
            target = solution["id"]
            line = f'<p class="solved">Solution: <a href="#{target}" data-page="{target}"></a></p>'
            exercise.append(BeautifulSoup(line, "html.parser").p)
            solution.extract()
        return found


def sheet(page: str, title: str, inside: str) -> str:
    """Return a chapter with its title in the head of its sheets."""
    name = "p-" + re.sub(r"\W", "-", page)
    said = title.replace("\\", "\\\\").replace('"', '\\"')
    style = f'@page {name} {{ @top-right {{ content: "{said}"; }} }}'
    return (
        f'<style>{style}</style><main class="sheet" id="{anchor(page)}" style="page: {name}">{inside}</main>'
    )


def contents(book: list[tuple[Part, list[Page]]], numbered: set[str], last: str) -> str:
    """Return the contents; numbers of pages are filled in when they are known."""

    def line(kind: str, target: str, title: str) -> str:
        link = f'<a href="#{target}"><span>{title}</span></a>'
        return f'<li class="{kind}">{link}<i></i><b data-number="{target}"></b></li>'

    lines = []
    for part, pages in book:
        lines += [f'<li class="part">{part.caption}</li>'] * bool(part.caption)
        for page in pages:
            lines.append(line("chapter", anchor(page.name), page.title))
            if page.name in numbered:
                lines += [line("section", target, title) for target, title in page.sections()]
    lines += ['<li class="part">Appendix</li>', line("chapter", last, SOLUTIONS)]
    return sheet("contents", "Contents", f'<h2>Contents</h2><ul class="contents">{"".join(lines)}</ul>')


def whole(root: Path, site: Path, address: str, front: str, styles: str) -> str:
    """Return the book as one page of HTML.

    Args:
        root: the folder of _toc.yml.
        site: the folder of the built pages.
        address: where the book is on the web, with a slash at the end.
        front: what stands on the first sheet.
        styles: what goes into the head.
    """
    every = parts(root)
    names = {name for part in every for name in part.pages}
    numbered = {name for name, number in myst.contents(root).items() if number}
    book = [(part, [Page(site, name, names, address) for name in part.pages]) for part in every]
    solved, sheets = [], []
    for part, pages in book:
        for i, page in enumerate(pages):
            if found := page.solutions():
                solved.append(f"<h3>{page.title}</h3>{''.join(map(str, found))}")
            opening = f'<h1 class="part">{part.caption}</h1>' if part.caption and not i else ""
            sheets.append(sheet(page.name, page.title, opening + str(page.body)))
    opening = f'<h1 class="part">Appendix</h1><h2>{SOLUTIONS}</h2>'
    inside = f'<article class="bd-article">{opening}{"".join(solved)}</article>'
    sheets.append(sheet("solutions", SOLUTIONS, inside))
    body = "".join([front, contents(book, numbered, "solutions"), *sheets])
    head = f'<!doctype html><html lang="en" data-theme="light"><head>{styles}</head>'
    return f"{head}<body>{body}</body></html>"
