"""Check the built book: links, anchors, texts of pictures, minus signs, nothing remote, no heavy page.

Usage: python tools/check_site.py [_build/html]     1 when something is wrong, with a line for each

A page's weight is its HTML, with the sliders' frames inside it, and the pictures it shows.
"""

import re
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

from bs4 import BeautifulSoup

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"
MAX_BYTES = 1_500_000
LINKS = (("a", "href"), ("link", "href"), ("img", "src"), ("script", "src"), ("iframe", "src"))
COLORED = re.compile(r'<span class="\w{1,3}">([^<]*)</span>')
CODE = ("code", "pre", "script", "style", "svg", "math")
LOADED_RELS = {"stylesheet", "preload", "icon", "modulepreload"}


def load(site: Path) -> dict[Path, BeautifulSoup]:
    """Parse every page of the site, its words of code without the elements that color them: most of all."""
    pages = sorted(path for path in site.rglob("*.html") if "_static" not in path.relative_to(site).parts)
    return {path: BeautifulSoup(COLORED.sub(r"\1", path.read_text("utf8")), "html.parser") for path in pages}


def anchors(soup: BeautifulSoup) -> set[str]:
    """Return what a link into this page may name."""
    names = {tag["name"] for tag in soup.find_all("a", attrs={"name": True})}
    return {tag["id"] for tag in soup.find_all(id=True)} | names | {"", "top"}


def is_loaded(tag) -> bool:
    """Say whether the browser fetches this by itself, unlike a link that a reader may follow."""
    return tag.name != "a" and (tag.name != "link" or bool(LOADED_RELS & set(tag.get("rel") or [])))


def dead_links(pages: dict[Path, BeautifulSoup], site: Path) -> list[str]:
    """Return links to files or anchors that are not there, and assets from another machine."""
    known, bad = {path: anchors(soup) for path, soup in pages.items()}, []
    for path, soup in pages.items():
        here = path.relative_to(site)
        for name, attribute in LINKS:
            for tag in soup.find_all(name, attrs={attribute: True}):
                address = tag[attribute].strip()
                parts = urlparse(address)
                if parts.scheme in ("http", "https") or address.startswith("//"):
                    bad += [f"{here}: remote asset {address}"] if is_loaded(tag) else []
                elif not parts.scheme:
                    bad += [f"{here}: {problem}" for problem in inside(address, path, known)]
    return bad


def inside(address: str, path: Path, known: dict[Path, set[str]]) -> list[str]:
    """Return what is wrong with a link within the site."""
    file, fragment = urldefrag(address)
    file = unquote(file.split("?")[0])
    target = (path.parent / file).resolve() if file else path
    target = target / "index.html" if target.is_dir() else target
    if not target.exists():
        return [f"dead link {address}"]
    if target in known and unquote(fragment) not in known[target]:
        return [f"dead anchor {address}"]
    return []


def nameless_pictures(pages: dict[Path, BeautifulSoup], site: Path) -> list[str]:
    """Return pictures of the text without an alternative text, or with a file's name for one."""
    bad = []
    for path, soup in pages.items():
        for tag in (soup.find("article") or soup).find_all("img"):
            alt = (tag.get("alt") or "").strip()
            if not alt or alt.startswith("../") or alt.endswith((".png", ".svg", ".jpg", ".jpeg")):
                bad.append(f"{path.relative_to(site)}: no alt text for {tag.get('src', '')[-60:]}")
    return bad


def weight(path: Path, soup: BeautifulSoup) -> int:
    """Return the bytes of a page and of the pictures that it alone shows."""
    sources = {tag["src"] for tag in soup.find_all("img", src=True)}
    files = {(path.parent / unquote(src)).resolve() for src in sources if not urlparse(src).scheme}
    return path.stat().st_size + sum(file.stat().st_size for file in files if file.exists())


def heavy_pages(pages: dict[Path, BeautifulSoup], site: Path, limit: int = MAX_BYTES) -> list[str]:
    """Return pages above the limit."""
    weights = {path: weight(path, soup) for path, soup in pages.items()}
    return [
        f"{path.relative_to(site)}: weighs {size:,} bytes, at most {limit:,} are wanted"
        for path, size in weights.items()
        if size > limit
    ]


def hyphens_for_minus(pages: dict[Path, BeautifulSoup], site: Path) -> list[str]:
    """Return negative numbers of the text that begin with a hyphen; code and formulas may have it."""
    bad = []
    for path, soup in pages.items():
        for text in (soup.find("article") or soup).find_all(string=re.compile(r"(?<![\w.–—/])-\.?\d")):
            if not text.find_parent(CODE) and not text.find_parent(class_="math"):
                bad.append(f"{path.relative_to(site)}: a hyphen for a minus sign in {text.strip()[:80]!r}")
    return bad


def check(site: Path = HTML) -> list[str]:
    """Return all that is wrong with the site; a folder without pages is wrong too."""
    site = site.resolve()
    pages = load(site)
    if not pages:
        return [f"{site} holds no page"]
    parts = dead_links, nameless_pictures, heavy_pages, hyphens_for_minus
    return [problem for part in parts for problem in part(pages, site)]


def main(arguments: list[str]) -> int:
    """Check one site."""
    site = Path(arguments[0]) if arguments else HTML
    problems = check(site)
    fine = f"{len(load(site))} pages: no dead link, no picture without text, nothing remote, minus signs"
    print("\n".join(problems) or fine)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
