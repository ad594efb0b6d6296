"""Print the built book as one PDF, with contents, page numbers and links, and offer it on the site.

Usage: python tools/print_book.py     after `make book`; writes _build/html/ntk-robustness.pdf

The browser of the checks prints it, Chromium or Chrome 131 or newer: the pages' own equations, tables,
numbers and pictures. Numbers of pages are read from a first print and written into the next, until they stay.
There is no EPUB: Sphinx's builder leaves equations as raw TeX, or asks for a TeX installation to draw them.
"""

import logging
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import browse
import matplotlib
import printed
import repository
import yaml
from playwright.sync_api import Browser, Page
from pypdf import PdfReader, PdfWriter
from pypdf.generic import Fit

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
NAME = "ntk-robustness.pdf"
OLDEST = 131  # the first that writes into a sheet's margins: numbers and running titles
WIDTH = 643  # CSS pixels: the text of a sheet of A4, 170 mm
TRIES = 4  # prints until no number changes; the second hardly ever differs from the third
MARK = re.compile(r"<!-- the printed book -->(?:<p class=\"printed\">.*?</p>)?")
# Fonts that every environment of the book has, with figures in the same letters as on its pages.
FONTS = {
    ("Book", "normal", 400): "STIXGeneral",
    ("Book", "italic", 400): "STIXGeneralItalic",
    ("Book", "normal", 700): "STIXGeneralBol",
    ("Book", "italic", 700): "STIXGeneralBolIta",
    ("Sans", "normal", 400): "DejaVuSans",
    ("Sans", "normal", 700): "DejaVuSans-Bold",
    ("Mono", "normal", 400): "DejaVuSansMono",
    ("Mono", "normal", 700): "DejaVuSansMono-Bold",
}
MATHJAX = (
    'window.MathJax = {options: {processHtmlClass: "math", enableMenu: false, '
    "menuOptions: {settings: {assistiveMml: false}}}}"
)
# To a screen reader an equation is its TeX, not a heap of letters.
SAY = """() => {
  for (const item of window.MathJax.startup?.document?.math ?? []) {
    item.typesetRoot.setAttribute('role', 'img');
    item.typesetRoot.setAttribute('aria-label', item.math.trim());
  }
}"""
# Equations and tables wider than the sheet are drawn smaller.
FIT = """() => {
  const shrink = (box, inside, room) => {
    const wide = inside.getBoundingClientRect().width;
    if (wide > room + 1) box.style.zoom = Math.max(0.45, room / wide);
  };
  for (const box of document.querySelectorAll('div.math')) {
    const inside = box.querySelector('mjx-container > mjx-math');
    const number = box.querySelector('.eqno')?.getBoundingClientRect().width || 0;
    if (inside) shrink(inside.parentElement, inside, box.clientWidth - number - 8);
  }
  for (const table of document.querySelectorAll('.bd-article table'))
    shrink(table, table, table.parentElement.getBoundingClientRect().width);
}"""
FILL = """(numbers) => {
  for (const one of document.querySelectorAll('[data-number]')) one.textContent = numbers[one.dataset.number];
  for (const one of document.querySelectorAll('[data-page]')) one.dataset.shown = numbers[one.dataset.page];
}"""
WANTED = """() => [...document.querySelectorAll('[data-number], [data-page]')]
  .map((one) => one.dataset.number || one.dataset.page)"""


LINES = """() => [...document.querySelectorAll('ul.contents li')]
  .map((one) => [one.className, (one.querySelector('span') ?? one).textContent,
                 one.querySelector('[data-number]')?.dataset.number ?? ''])"""


class CannotPrint(Exception):
    """Something that printing needs is missing; the message says what, and what to do."""


def needs(site: Path) -> str:
    """Return the path of the browser, or say what is missing."""
    if not (site / "index.html").exists():
        raise CannotPrint("there is no built book: run make book first")
    if not (site / "_static" / "vendor" / "mathjax" / "tex-chtml.js").exists():
        raise CannotPrint("MathJax is not in the built book: install npm, then make book fetches it")
    executable = browse.find_browser()
    if executable is None:
        raise CannotPrint(
            f"no browser: looked for {', '.join(browse.NAMES)} (on Debian or Ubuntu: apt install chromium); "
            "CHROMIUM=<path> names another"
        )
    return executable


def styles(site: Path, title: str) -> str:
    """Return the head: fonts, the colors of code, the style of print, and MathJax."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = "".join(
        f'@font-face {{ font-family: "{family}"; font-style: {style}; font-weight: {weight}; '
        f'src: url("{(folder / f"{file}.ttf").as_uri()}"); }}\n'
        for (family, style, weight), file in FONTS.items()
    )
    static = (site / "_static").resolve()
    sheets = "".join(
        f'<link rel="stylesheet" href="{path.as_uri()}">'
        for path in (static / "pygments.css", static / "book.css", ROOT / "tools" / "print.css")
    )
    mathjax = (static / "vendor" / "mathjax" / "tex-chtml.js").as_uri()
    script = f'<script>{MATHJAX}</script><script defer src="{mathjax}"></script>'
    return f'<meta charset="utf-8"><title>{title}</title><style>{fonts}</style>{sheets}{script}'


def front(settings: dict, address: str, day: str) -> str:
    """Return the first sheet: title, picture, authors, day, license and address."""
    cover = (ROOT / "book" / "_static" / "cover.png").as_uri()
    alt = "Three digits, the change of an attack, and their sum, read as another digit."
    web = f'<a href="{address}">{address.removeprefix("https://").rstrip("/")}</a>'
    below = "".join(f"<p>{line}</p>" for line in (web, f"Printed {day}", settings["html"]["extra_footer"]))
    return (
        f'<header class="front"><div class="title">{settings["title"]}</div>'
        f'<p class="authors">{settings["author"]}</p><img src="{cover}" alt="{alt}">{below}</header>'
    )


def numbers(pdf: Path, wanted: list[str]) -> dict[str, int]:
    """Return the number of the sheet that each place is on."""
    reader = PdfReader(pdf)
    sheets = {page.indirect_reference.idnum: i for i, page in enumerate(reader.pages, 1)}
    places = {name.lstrip("/"): place for name, place in reader.named_destinations.items()}
    return {name: sheets[places[name].page.idnum] for name in wanted if name in places}


def to_pdf(page: Page, target: Path) -> dict[str, int]:
    """Print until the numbers of pages are those that stand in it; return them."""
    page.emulate_media(media="print")
    page.evaluate("() => document.fonts.ready")
    page.evaluate(SAY)
    page.evaluate(FIT)
    wanted = page.evaluate(WANTED)
    shown = dict.fromkeys(wanted, 100)
    for _ in range(TRIES):
        page.evaluate(FILL, shown)
        page.pdf(path=target, prefer_css_page_size=True, print_background=True, tagged=True)
        found = numbers(target, wanted)
        if missing := sorted(set(wanted) - set(found)):
            raise CannotPrint(f"these places are linked and not in print: {', '.join(missing[:5])}")
        if found == shown:
            return found
        shown = found
    raise CannotPrint(f"after {TRIES} prints the numbers of pages still change")


def add_outline(pdf: Path, lines: list[list[str]], author: str) -> int:
    """Add the contents as the PDF's outline; return the number of sheets.

    Chromium can write one, but says a heading twice where it is the first line of a sheet.
    """
    reader = PdfReader(pdf)
    places = {name.lstrip("/"): place for name, place in reader.named_destinations.items()}
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it counts objects that it copied twice
    writer = PdfWriter(clone_from=reader)
    caption, above = "", {}
    for kind, title, target in lines:
        if kind == "part":
            caption = title  # it begins where its first chapter does
            continue
        sheet, fit = reader.get_destination_page_number(places[target]), Fit.xyz(top=places[target].top)
        if caption:
            above["chapter"] = writer.add_outline_item(title=caption, page_number=sheet, fit=fit)
            caption = ""
        item = writer.add_outline_item(
            title=title, page_number=sheet, parent=above.get(kind), fit=fit, is_open=False
        )
        if kind == "chapter":
            above["section"] = item
    writer.add_metadata({"/Author": author})
    writer.write(pdf)
    return len(reader.pages)


def print_book(browser: Browser, root: Path, site: Path, target: Path, day: str) -> int:
    """Print the book; return the number of its sheets."""
    if int(browser.version.split(".")[0]) < OLDEST:
        raise CannotPrint(f"the browser is version {browser.version}; page numbers need {OLDEST} or newer")
    settings = yaml.safe_load((root / "_config.yml").read_text("utf8"))
    owner, name = repository.address(root).split("/")
    address = f"https://{owner}.github.io/{name}/"
    source = root / "_build" / "print" / "book.html"
    source.parent.mkdir(parents=True, exist_ok=True)
    html = printed.whole(root, site, address, front(settings, address, day), styles(site, settings["title"]))
    source.write_text(html, "utf8")
    with browse.visit(browser, source, width=WIDTH, patience=300_000) as (page, problems):
        to_pdf(page, target)
        lines = page.evaluate(LINES)
    if problems:
        raise CannotPrint("\n".join(problems[:10]))
    return add_outline(target, lines, settings["author"])


def offer(site: Path, pdf: Path, sheets: int, day: str) -> None:
    """Name the PDF on the first page of the site, where the mark is."""
    index = site / "book" / "index.html"
    told = f"{sheets} pages, {pdf.stat().st_size / 1e6:.0f} MB, {day}"
    link = f'<a href="../{pdf.name}">the whole book as a PDF</a>'
    line = f'<p class="printed">To print or to keep: {link} ({told}).</p>'
    text, found = MARK.subn(lambda _: f"<!-- the printed book -->{line}", index.read_text("utf8"))
    if found != 1:
        raise CannotPrint("book/index.md has no line <!-- the printed book -->")
    index.write_text(text, "utf8")


def main() -> int:
    """Print, offer, and say how large it is."""
    started, day = time.time(), f"{datetime.now(UTC):%Y-%m-%d}"
    target = ROOT / "_build" / "print" / NAME
    try:
        executable = needs(SITE)
        print("==> Printing the book (a minute or two)", flush=True)
        with browse.open_browser(executable) as browser:
            sheets = print_book(browser, ROOT, SITE, target, day)
        final = target.replace(SITE / NAME)
        offer(SITE, final, sheets, day)
    except CannotPrint as error:
        print(f"No PDF: {error}", file=sys.stderr)
        return 1
    print(f"{sheets} pages, {final.stat().st_size / 1e6:.1f} MB in {time.time() - started:.0f} s: {final}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
