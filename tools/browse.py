"""A Chromium or Chrome without a window, which opens the book's pages as files and notes what goes wrong."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# For root and for machines without a GPU or a network: a browser that starts, and asks nobody anything.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No name resolves: a page that needs something remote shows it by lacking it.
    "--host-resolver-rules=MAP * ~NOTFOUND",
]
WIDE = 1400  # pixels: a desktop window
VIEW = "application/vnd.jupyter.widget-view+json"
LOCAL = ("file:", "data:", "blob:", "about:")
# Milliseconds for a page to load, and for its widgets to appear: other work may keep every core busy.
LOADING, PATIENCE = 60_000, 60_000

READY = f"""() => {{
  const asked = document.querySelectorAll('script[type="{VIEW}"]').length;
  const shown = document.querySelectorAll('.widget-subarea .jupyter-widgets').length;
  return document.readyState === 'complete' && (asked === 0 || shown >= asked);
}}"""
HINTS = """() => [...document.querySelectorAll('link[rel=preload][as=font]')].map((link) => link.href)"""


def find_browser() -> str | None:
    """Return the browser's path, or None where there is none."""
    chosen = os.environ.get("CHROMIUM")
    return shutil.which(chosen) if chosen else next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def open_browser(executable: str) -> Iterator[Browser]:
    """Start the browser without a window, and end it after use."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def toc_pages(root: Path = ROOT, site: Path = SITE) -> list[Path]:
    """Return the built page of every file that _toc.yml names."""

    def files(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ("root", "file"):
                    yield value
                else:
                    yield from files(value)
        elif isinstance(node, list):
            for item in node:
                yield from files(item)

    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8"))
    return [site / f"{name.removesuffix('.md')}.html" for name in files(toc)]


def count_players(path: Path) -> int:
    """Return how many widgets a built page holds."""
    return path.read_text(encoding="utf8").count(f'type="{VIEW}"')


@contextmanager
def visit(
    browser: Browser,
    path: Path,
    *,
    width: int = WIDE,
    theme: str = "light",
    javascript: bool = True,
    patience: int | None = None,
) -> Iterator[tuple[Page, list[str]]]:
    """Open a page as a file; yield it with a list, complete when the block ends, of what went wrong.

    Listed are requests that want to leave the machine, errors on the console and in scripts, and files
    that are missing.
    """
    patience = patience or PATIENCE
    problems: list[str] = []
    events: list[tuple[str, str, str]] = []
    size = {"width": width, "height": 900}
    context = browser.new_context(viewport=size, color_scheme=theme, java_script_enabled=javascript)
    context.add_init_script(f"for (const key of ['mode', 'theme']) localStorage.setItem(key, '{theme}')")
    context.on("request", lambda request: events.append(("remote request", request.url, request.url)))
    page = context.new_page()
    page.set_default_timeout(max(LOADING, patience))
    page.on("console", lambda m: m.type == "error" and events.append(("console", m.location["url"], m.text)))
    page.on("pageerror", lambda error: events.append(("script error", "", str(error))))
    page.on("requestfailed", lambda request: events.append(("not loaded", request.url, request.url)))
    page.goto(path.resolve().as_uri(), wait_until="load")
    if javascript:
        try:
            page.wait_for_function(READY, timeout=patience)
        except TimeoutError:
            events.append(("widgets", "", f"not all of them appear within {patience / 1000:g} s"))
        page.evaluate("() => window.MathJax?.startup?.promise")
    # Chromium follows no preload hint for a font when the page is a file; the style sheet then loads the font
    # all the same, and on a server the hint works: so this one complaint is none.
    hints = set(page.evaluate(HINTS)) if javascript else set()
    try:
        yield page, problems
    finally:
        context.close()
    for kind, url, text in events:
        remote = not url.startswith(LOCAL)
        if remote if kind == "remote request" else not any(hint in (url, *text.split("'")) for hint in hints):
            problems.append(f"{kind}: {text}")
