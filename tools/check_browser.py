"""Look at the built book as a reader's browser does: nothing remote, no errors, accessible, sliders move.

Usage: python tools/check_browser.py                     every check on every page; exits 1 with what is wrong
       python tools/check_browser.py --screenshots DIR   pictures of every page: wide, narrow, dark

Chromium or Chrome is taken from $CHROMIUM or the PATH and sees the pages as files, without a server.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from browse import NAMES, ROOT, VIEW, WIDE, count_players, find_browser, open_browser, toc_pages, visit
from playwright.sync_api import Browser, Error, Locator, Page
from vendor_js import AXE

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
NARROW = 375
VIEWS = {"wide": (1400, "light"), "narrow": (390, "light"), "dark": (1400, "dark")}
SWITCH = 3000  # milliseconds for one picture to follow another; Play takes half a second


WIDEST = """() => {
  const room = document.documentElement.clientWidth, over = document.documentElement.scrollWidth - room;
  const scrolls = (e) => e && e !== document.body && e !== document.documentElement
    && (getComputedStyle(e).overflowX !== 'visible' || scrolls(e.parentElement));
  const guilty = [...document.body.querySelectorAll('*')]
    .filter((e) => e.getBoundingClientRect().right > room + 1 && !scrolls(e.parentElement))
    .map((e) => `${e.tagName.toLowerCase()}.${e.getAttribute('class') || ''}`);
  return over > 0 ? [`${over} px too wide at ${room} px: ${guilty.slice(0, 3).join(' | ')}`] : [];
}"""
# Most of a page's elements are words of code, colored by their kind, equations in a line, all made by one
# script, and rows of folded tables. axe-core meets so many of each look (kind, color, size, weight, ground,
# in sight or folded); of the others text is left, of rows nothing.
KEPT = 3
THIN = """(most) => {
  const seen = {};
  const often = (...kind) => (seen[kind] = (seen[kind] || 0) + 1) > most;
  const ground = (one) => {
    const color = one ? getComputedStyle(one).backgroundColor : '';
    return color === 'rgba(0, 0, 0, 0)' ? ground(one.parentElement) : color;
  };
  const look = (one) => {
    const style = getComputedStyle(one);
    return [one.className, style.color, style.fontSize, style.fontWeight, ground(one), one.checkVisibility()];
  };
  const words = [...document.querySelectorAll('pre span[class]:not(:has(*))')].filter((word) =>
    often('word', ...look(word)));
  const equations = [...document.querySelectorAll('mjx-container:not([display])')].filter((equation) =>
    !equation.closest('a, button, summary, label, h1, h2, h3, h4') && often('equation', ...look(equation)));
  const rows = [...document.querySelectorAll('tbody > tr')].filter((row) => !row.checkVisibility());
  for (const row of rows.filter((row) => row.sectionRowIndex >= most)) row.remove();
  for (const word of words) word.replaceWith(word.textContent);
  for (const equation of equations) equation.replaceWith('x');
  for (const code of document.querySelectorAll('pre')) code.normalize();
}"""
AUDIT = """async (tags) => {
  const only = {type: 'tag', values: tags};
  // preload would read the style sheets again by a request that a page in a file may not make.
  const found = await axe.run(document, {runOnly: only, resultTypes: ['violations'], preload: false});
  return found.violations.map((v) => `${v.id}: ${v.help} (${v.nodes.length}): `
    + v.nodes.slice(0, 3).map((n) => `${n.target.join(' ')} ${n.any[0]?.message || ''}`).join(' | '));
}"""


def check_page(
    browser: Browser,
    path: Path,
    *,
    theme: str = "light",
    axe: Path | None = None,
    narrow: bool = False,
    both: bool = False,
) -> list[str]:
    """Return what is wrong on a page in one theme: remote requests, console errors, axe-core's violations.

    With `narrow` it is opened as wide as a phone, must not scroll sideways there, and is then made wide. With
    `both` it is audited in the other theme too, to which its button leads where it has one.
    """
    script = axe or AXE.target / AXE.proof
    with visit(browser, path, theme=theme, width=NARROW if narrow else WIDE) as (page, problems):
        if narrow:
            problems += _overflow(page)
            page.set_viewport_size({**page.viewport_size, "width": WIDE})
        # The theme's colors fade in; axe must measure the final ones.
        page.add_style_tag(content="*, *::before, *::after { transition: none !important; }")
        page.evaluate(THIN, KEPT)
        page.evaluate(script.read_text(encoding="utf8"))
        problems += _audit(page, theme)
        other = "dark" if theme == "light" else "light"
        # The button leads from one theme to the other where the system's is the other.
        page.emulate_media(color_scheme=other)
        switch = page.locator(".theme-switch-button:visible")
        if switch.count():
            switch.first.click()
            if page.evaluate("() => document.documentElement.dataset.mode") == theme:
                problems.append("theme: the button leaves it as it was")
        problems += _audit(page, other) if both else []
    return problems


def _audit(page: Page, theme: str) -> list[str]:
    shown = page.evaluate("() => document.documentElement.dataset.theme")
    wrong = [] if shown in (theme, None) else [f"theme: the page is {shown}, wanted {theme}"]
    return wrong + [f"axe, {theme}: {line}" for line in page.evaluate(AUDIT, TAGS)]


def check_width(browser: Browser, path: Path, *, width: int = NARROW) -> list[str]:
    """Return what makes a page scroll sideways in a narrow window."""
    with visit(browser, path, width=width) as (page, _):
        return _overflow(page)


def _overflow(page: Page) -> list[str]:
    return [f"overflow: {line}" for line in page.evaluate(WIDEST)]


def check_without_javascript(browser: Browser, path: Path) -> list[str]:
    """Return a line for each player that shows no picture where JavaScript is off."""
    with visit(browser, path, javascript=False) as (page, _):
        players = page.locator(f'script[type="{VIEW}"]').count()
        stills = sum(image.is_visible() for image in page.locator("noscript img.companion-frame").all())
        return [f"no script: {stills} of {players} players show a picture"] if stills < players else []


def check_sliders(browser: Browser, path: Path) -> tuple[int, list[str]]:
    """Move every slider by key and by mouse, and press every Play; return how many, and what is wrong.

    A slider is right when the picture that the reader sees changes each time, and both have names.
    """
    with visit(browser, path) as (page, problems):
        players = page.locator(".companion-player").all()
        moved = 0
        for number, player in enumerate(players, 1):
            sliders = player.locator(".widget-hslider").all()
            moved += len(sliders)
            moves = [(_move, slider) for slider in sliders]
            for act, control in moves + [(_play, play) for play in player.locator(".widget-play").all()]:
                try:
                    found = act(page, player, control)
                except Error as error:
                    found = [error.message.splitlines()[0]]
                problems += [f"player {number}: {line}" for line in found]
        # A slider outside a player is not ours to move, but it must not be overlooked either.
        if stray := page.locator(".widget-hslider").count() - moved:
            problems.append(f"{stray} sliders are in no player")
    return moved, problems


def _picture(player: Locator) -> str:
    """Return the picture that the reader sees: exactly one, with an alt text."""
    seen = [image for image in player.locator("img").all() if image.is_visible()]
    alts = [(image.get_attribute("alt") or "").strip() for image in seen]
    if len(seen) != 1 or not alts[0]:
        raise Error(f"shows {len(seen)} pictures with the alt texts {alts}, wanted one with a text")
    return seen[0].get_attribute("src") or ""


def _changes(page: Page, player: Locator, before: str) -> bool:
    """Wait until the reader sees another picture; say whether it came."""
    for _ in range(SWITCH // 50):
        page.wait_for_timeout(50)
        images = player.locator("img")
        if images.count() == 1 and images.get_attribute("src") != before:
            return True
    return False


def _move(page: Page, player: Locator, slider: Locator) -> list[str]:
    """Move one slider by keyboard and by mouse."""
    problems = []
    handle, track = slider.locator(".noUi-handle"), slider.locator(".noUi-base")
    name = (handle.get_attribute("aria-label") or "").strip()
    if not name:
        problems.append("a slider without a name for screen readers")
    before = _picture(player)
    said = handle.get_attribute("aria-valuetext")
    height = player.bounding_box()["height"]
    at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
    handle.focus()
    handle.press("ArrowLeft" if at_end else "ArrowRight")
    if not _changes(page, player, before):
        problems.append(f"slider {name!r}: an arrow key leaves the picture as it was")
    shown = slider.locator(".widget-readout").inner_text()
    if (
        handle.get_attribute("aria-valuetext") in (said, None)
        or handle.get_attribute("aria-valuetext") != shown
    ):
        problems.append(f"slider {name!r}: screen readers hear another value than {shown!r}")
    for fraction in (0.98, 0.02):
        before, box = _picture(player), track.bounding_box()
        handle.hover()
        page.mouse.down()
        page.mouse.move(box["x"] + fraction * box["width"], box["y"] + box["height"] / 2, steps=8)
        page.mouse.up()
        if not _changes(page, player, before):
            problems.append(f"slider {name!r}: dragging leaves the picture as it was")
    if abs(player.bounding_box()["height"] - height) > 1:
        problems.append(f"slider {name!r}: the player's height changes with the picture")
    return problems


def _play(page: Page, player: Locator, play: Locator) -> list[str]:
    """Press Play, see the picture change twice, and press Pause."""
    problems = []
    for button in play.locator("button:visible").all():
        if not (button.get_attribute("aria-label") or "").strip():
            problems.append("a button of Play without a name for screen readers")
    start = play.locator("button").first
    first = _picture(player)
    start.click()
    if not (_changes(page, player, first) and _changes(page, player, _picture(player))):
        problems.append("Play leaves the picture as it was")
    start.click()
    return problems


def screenshots(browser: Browser, pages: Sequence[Path], folder: Path) -> list[Path]:
    """Write a picture of every page, whole, in every view; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path in pages:
        for view, (width, theme) in VIEWS.items():
            with visit(browser, path, width=width, theme=theme) as (page, _):
                page.wait_for_timeout(300)
                written.append(folder / f"{path.parent.name}-{path.stem}-{view}.png")
                page.screenshot(path=written[-1], full_page=True)
    return written


def check_all(browser: Browser, path: Path) -> list[str]:
    """Return everything that is wrong on one page."""
    found = check_page(browser, path, narrow=True, both=True)
    if players := count_players(path):
        moved, wrong = check_sliders(browser, path)
        found += wrong + check_without_javascript(browser, path)
        found += [f"only {moved} sliders in {players} players"] * (moved < players)
    return found


def main() -> int:
    """Check every page, or write screenshots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--screenshots", type=Path, metavar="DIR")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder of _toc.yml and _build")
    options = parser.parse_args()
    executable = find_browser()
    if executable is None:
        print(f"no browser: looked for {', '.join(NAMES)}; CHROMIUM=<path> names another", file=sys.stderr)
        return 2
    pages = toc_pages(options.root, options.root / "_build" / "html")
    with open_browser(executable) as browser:
        if options.screenshots:
            print(*screenshots(browser, pages, options.screenshots), sep="\n")
            return 0
        wrong = [f"{path.stem}: {line}" for path in pages for line in check_all(browser, path)]
    print(*wrong, f"{len(pages)} pages, {len(wrong)} problems", sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
