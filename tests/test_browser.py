import sys
from pathlib import Path

import pytest

pytest.importorskip("playwright")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import browse  # noqa: E402
import check_browser  # noqa: E402
from vendor_js import AXE  # noqa: E402

pytestmark = pytest.mark.browser

PAGES = browse.toc_pages() if (ROOT / "_toc.yml").exists() else []
SITE = browse.SITE
PLAYERS = ("book/09_robust_overfitting.html",)
WITH_PLAYERS = SITE / "book/03_robust_features.html"
DARK = (
    "book/01_networks_to_kernels.html",
    "book/attack_it_yourself.html",
    "book/api/kernels.html",
    "book/reproduction.html",
    "book/index.html",
)
HEAD = (
    '<!doctype html><html lang="en"><head><title>t</title><link rel="icon" href="data:,"></head><body><main>'
)


@pytest.fixture(scope="module")
def axe():
    script = AXE.target / AXE.proof
    if not script.exists():
        pytest.skip("axe-core was not fetched (npm is missing): accessibility was not checked")
    return script


def name_of(page):
    return page.relative_to(SITE).as_posix()


def pages(chosen):
    """All pages as parameters; `make matrix` has those that are not chosen."""
    marks = {True: [], False: [pytest.mark.matrix]}
    return [pytest.param(page, marks=marks[chosen(name_of(page))], id=name_of(page)) for page in PAGES]


def is_written(name):
    """Not one of the pages that Sphinx makes of docstrings, which are of one kind: two of them are enough."""
    return not name.startswith("book/api/") or name.endswith(("/kernels.html", "/index.html"))


@pytest.fixture
def page(request):
    if not SITE.exists():
        pytest.skip("no built book in _build/html: make book builds it")
    return request.param


# Opened once, as wide as a phone, then as a desktop, and one page of each kind then in the dark: others have
# no colors but theirs.
@pytest.mark.parametrize("page", pages(is_written), indirect=True)
def test_a_page_is_complete_silent_and_accessible_and_fits_a_phone(browser, axe, page):
    both = name_of(page) in DARK
    assert check_browser.check_page(browser, page, axe=axe, narrow=True, both=both) == []


@pytest.mark.matrix
@pytest.mark.parametrize("page", pages(lambda _: True), indirect=True)
def test_every_page_is_accessible_in_the_dark(browser, axe, page):
    assert check_browser.check_page(browser, page, theme="dark", axe=axe) == []


@pytest.mark.parametrize("page", [SITE / "book/reproduction.html"], indirect=True)
def test_every_verdict_is_in_sight_on_a_phone(browser, page):
    with browse.visit(browser, page, width=check_browser.NARROW) as (shown, _):
        rows = shown.locator("table.verdicts tbody tr")
        verdicts = rows.locator("td:last-child .verdict")
        ends = verdicts.evaluate_all("all => all.map((e) => e.getBoundingClientRect().right)")
        assert len(ends) == rows.count() > 15
        assert max(ends) <= check_browser.NARROW


# A chapter with long equations; the script that marks them is the same everywhere.
@pytest.mark.parametrize("page", [SITE / "book/10_neighbours.html"], indirect=True)
def test_an_equation_that_a_phone_cuts_off_says_so_and_scrolls(browser, page):
    cut = "all.filter((e) => e.scrollWidth > e.clientWidth + 4)"
    with browse.visit(browser, page, width=check_browser.NARROW) as (shown, _):
        shown.wait_for_selector("div.math.more")
        boxes = shown.locator("mjx-container[display]")
        found = boxes.evaluate_all(f"(all) => {cut}.map((e) => [e.parentElement.className, e.tabIndex])")
        assert len(found) > 2
        assert all("more" in name.split() and place == 0 for name, place in found)
        boxes.evaluate_all(f"(all) => {cut}.forEach((e) => e.scrollTo(e.scrollWidth, 0))")
        shown.wait_for_function("() => !document.querySelector('div.math.more')")
        assert shown.locator("div.math.more-before").count() == len(found)


# A chapter with more than one player; their script is the same everywhere.
@pytest.mark.parametrize("page", pages(PLAYERS.__contains__), indirect=True)
def test_players_show_a_picture_without_javascript_and_their_sliders_move_it(browser, page):
    if players := browse.count_players(page):
        assert check_browser.check_without_javascript(browser, page) == []
        moved, wrong = check_browser.check_sliders(browser, page)
        assert wrong == []
        assert moved >= players


GROUNDS = """() => [...document.querySelectorAll(".companion-player")].map((player) => {
  const found = [getComputedStyle(player.querySelector(".widget-readout")).color];
  for (let box = player; !box.matches("article"); box = box.parentElement)
    found.push(getComputedStyle(box).backgroundColor);
  return found;
})"""


@pytest.fixture(scope="module")
def in_the_dark(browser):
    """The first chapter with players, opened once; not to be altered."""
    if not SITE.exists():
        pytest.skip("no built book in _build/html: make book builds it")
    with browse.visit(browser, WITH_PLAYERS, theme="dark") as (opened, _):
        yield opened


def test_controls_stand_on_the_pages_own_ground_in_the_dark(in_the_dark):
    players = in_the_dark.evaluate(GROUNDS)
    assert len(players) >= 3
    for letters, *grounds in players:
        assert set(grounds) == {"rgba(0, 0, 0, 0)"}
        assert min(int(part) for part in letters[4:-1].split(",")) > 180


TABLE = "book/bring_your_own_network.html"


@pytest.mark.parametrize("page", [SITE / TABLE], ids=[TABLE], indirect=True)
def test_a_table_of_the_text_that_a_phone_cuts_off_says_so(browser, page):
    with browse.visit(browser, page, width=390) as (opened, _):
        frame = opened.locator(".table-frame").first
        said = "element => getComputedStyle(element, '::after').content"
        assert "scroll →" in frame.evaluate(said)
        frame.locator("> *").evaluate("table => table.scrollTo(1e4, 0)")
        opened.wait_for_function("() => document.querySelector('.table-frame:not(.more)')")
        assert "← scroll" in frame.evaluate(said)


MARKS = """() => [...document.querySelectorAll("span.math")].filter((math) =>
  math.nextSibling?.nodeType === 3 && /^[,.;:]/.test(math.nextSibling.data) && !math.closest(".with-mark")
    && math.matches("p > *, li > *, dd > *, td > *")).length"""


ICONS = """() => [...document.querySelectorAll("i[class*='fa-']")].filter((icon) => icon.checkVisibility()
  && (getComputedStyle(icon, '::before').content === 'none' || icon.getBoundingClientRect().width < 5
    || !document.fonts.check(`900 16px ${getComputedStyle(icon).fontFamily}`)))
  .map((icon) => icon.className)"""


# The theme's script would draw them a second time, as pictures: it is left out.
def test_icons_are_drawn_by_their_fonts(in_the_dark):
    assert in_the_dark.locator("i[class*='fa-']:visible").count() > 5
    in_the_dark.evaluate("() => document.fonts.ready")
    assert in_the_dark.evaluate(ICONS) == []
    assert in_the_dark.locator("script[src*=fontawesome]").count() == 0


def test_no_line_begins_with_the_comma_of_an_equation(in_the_dark):
    assert in_the_dark.evaluate(MARKS) == 0
    wholes = in_the_dark.locator(".with-mark")
    assert wholes.count() > 20
    assert wholes.first.evaluate("whole => getComputedStyle(whole).whiteSpace") == "nowrap"


# From here on: the checks themselves, on small pages with one fault each.


@pytest.fixture
def write(tmp_path):
    def make(body):
        path = tmp_path / "page.html"
        path.write_text(f"{HEAD}<h1>t</h1>{body}</main></body></html>", "utf8")
        return path

    return make


def test_a_faultless_page_passes(browser, axe, write):
    path = write("<p>Nothing is wrong here.</p>")
    for theme in ("light", "dark"):
        assert check_browser.check_page(browser, path, theme=theme, axe=axe, both=True) == []
    assert check_browser.check_width(browser, path) == []
    assert check_browser.check_without_javascript(browser, path) == []
    assert check_browser.check_sliders(browser, path) == (0, [])


FAULTS = {
    '<img alt="a" src="https://example.org/a.png">': "remote request: https://example.org/a.png",
    '<script>fetch("http://example.org/x").catch(() => 0)</script>': "remote request: http://example.org/x",
    "<script>console.error('broken')</script>": "console: broken",
    "<script>throw new Error('thrown')</script>": "script error: thrown",
    '<img alt="a" src="missing.png">': "/missing.png",
    "<button></button>": "axe, light: button-name",
    '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">': "axe, light: image-alt",
    '<p style="color:#bbb;background:#fff">pale</p>': "axe, light: color-contrast",
    f'<script type="{browse.VIEW}">{{}}</script>': "widgets: not all of them",
}


def test_each_fault_of_a_page_is_found(browser, axe, write, monkeypatch):
    monkeypatch.setattr(browse, "PATIENCE", 1000)
    found = check_browser.check_page(browser, write("".join(FAULTS)), axe=axe)
    missed = [message for message in FAULTS.values() if not any(message in line for line in found)]
    assert not missed, found


def test_a_page_in_the_wrong_theme_is_found(browser, axe, write):
    path = write('<script>document.documentElement.dataset.theme = "dark"</script>')
    (found,) = check_browser.check_page(browser, path, axe=axe)
    assert "theme: the page is dark" in found


def test_a_fault_in_the_dark_theme_only_is_found_in_either_order(browser, axe, write):
    rule = "@media (prefers-color-scheme: dark) { p { color: #333; background: #000 } }"
    path = write(f"<style>{rule}</style><p>dim</p>")
    assert check_browser.check_page(browser, path, axe=axe) == []
    for options in ({"theme": "dark"}, {"both": True}):
        (found,) = check_browser.check_page(browser, path, axe=axe, **options)
        assert "axe, dark: color-contrast" in found


PRE, FINE = '<pre style="background:#fff">', '<span class="k" style="color:#000">word</span> ' * 9


def test_words_of_code_that_are_easy_to_read_pass(browser, axe, write):
    assert check_browser.check_page(browser, write(f"{PRE}{FINE}</pre>"), axe=axe) == []


@pytest.mark.parametrize(
    "last",
    [
        '<span class="n" style="color:#bbb">pale</span>',
        '<span class="k" style="color:#bbb">pale</span>',
        '<span class="k" style="color:#000;background:#222">dim</span>',
        '</pre><pre style="background:#222"><span class="k" style="color:#000">dim</span>',
        '<span class="k">' + "</span>" + "plain" + '</pre><pre style="background:#fff;color:#bbb">pale',
        '<span class="hll" style="background:#222"><span class="k" style="color:#000">dim</span></span>',
    ],
    ids=["another kind", "another color", "another ground of its own", "another ground", "no kind", "marked"],
)
def test_a_word_of_code_that_is_hard_to_read_is_found_after_many_that_are_not(browser, axe, write, last):
    (found,) = check_browser.check_page(browser, write(f"{PRE}{FINE}{last}</pre>"), axe=axe)
    assert "axe, light: color-contrast" in found


def test_an_equation_that_is_hard_to_read_or_a_link_without_a_name_is_found_after_many(browser, axe, write):
    fine = '<mjx-container style="color:#000">f</mjx-container> ' * 9
    path = write(f'{fine}<mjx-container style="color:#bbb">pale</mjx-container>')
    assert "color-contrast" in check_browser.check_page(browser, path, axe=axe)[0]
    path = write(
        f'{fine}<p style="background:#222"><mjx-container style="color:#000">dim</mjx-container></p>'
    )
    assert "color-contrast" in check_browser.check_page(browser, path, axe=axe)[0]
    path = write(f'{fine}<a href="#"><mjx-container></mjx-container></a>')
    assert "link-name" in check_browser.check_page(browser, path, axe=axe)[0]


def test_of_what_is_many_times_alike_the_audit_meets_a_few(browser, write):
    table = f"<table><tbody>{'<tr><td>0</td></tr>' * 9}</tbody></table>"
    body = f"<pre>{FINE}</pre><details><summary>s</summary>{table}</details>{table}"
    with browse.visit(browser, write(body)) as (page, _):
        before = page.locator("body").inner_text()
        page.evaluate(check_browser.THIN, check_browser.KEPT)
        assert page.locator("body").inner_text() == before
        assert page.locator("pre span").count() == check_browser.KEPT
        assert page.locator("tr").count() == check_browser.KEPT + 9


def test_overflow_is_found_and_a_box_that_scrolls_is_none(browser, write):
    wide = '<div class="wide" style="width:600px">t</div>'
    (found,) = check_browser.check_width(browser, write(wide))
    assert "px too wide at 375 px: div.wide" in found
    assert check_browser.check_width(browser, write(f'<div style="overflow-x:auto">{wide}</div>')) == []


def test_one_opening_shows_what_is_wrong_on_a_phone_and_what_is_on_a_desktop(browser, axe, write):
    rule = "@media (min-width: 1000px) { p { color: #bbb } }"
    path = write(f'<style>{rule}</style><p>pale</p><div class="wide" style="width:600px">t</div>')
    found = check_browser.check_page(browser, path, axe=axe, narrow=True)
    assert len(found) == 2
    assert "px too wide at 375 px: div.wide" in found[0]
    assert "axe, light: color-contrast" in found[1]


def test_a_player_without_a_still_is_found(browser, write):
    script = f'<script type="{browse.VIEW}">{{}}</script>'
    assert check_browser.check_without_javascript(browser, write(script)) == [
        "no script: 0 of 1 players show a picture"
    ]


FAKE = """<div class="companion-player"><div class="widget-hslider"><div class="slider"><div class="noUi-base"
  style="width:200px;height:20px"><div class="noUi-handle" tabindex="0" role="slider" aria-label="{name}"
  aria-valuenow="0" aria-valuemax="2" aria-valuetext="0" style="width:20px;height:20px"></div></div></div>
  <div class="widget-readout">0</div></div>
  <div class="widget-play"><button>play</button></div><img alt="{alt}" width="9" height="9" src="a.svg"></div>
  <script>
    const frames = ["a.svg", "b.svg", "c.svg"], img = document.querySelector("img");
    const handle = document.querySelector(".noUi-handle");
    const readout = document.querySelector(".widget-readout");
    let at = 0, running = false;
    const show = (i) => {{
      at = (i + 3) % 3;
      if ({works}) img.src = frames[at];
      readout.textContent = at;
      if ({speaks}) handle.setAttribute("aria-valuetext", at);
    }};
    handle.addEventListener("keydown", (event) => event.key === "ArrowRight" && show(at + 1));
    const drop = () => addEventListener("mouseup", () => show(at + 1), {{once: true}});
    handle.addEventListener("mousedown", drop);
    document.querySelector("button").addEventListener("click", () => {{ running = !running; }});
    setInterval(() => running && show(at + 1), 200);
  </script>"""


def fake(write, **changes):
    for name in "abc":
        picture = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
        (write("").parent / f"{name}.svg").write_text(picture, "utf8")
    values = {"name": "time", "alt": "a wave", "works": "true", "speaks": "true"} | changes
    return write(
        FAKE.format(**values).replace("<button>", '<button aria-label="Play">', 1 - ("play" in changes))
    )


def test_a_good_player_passes(browser, write):
    assert check_browser.check_sliders(browser, fake(write)) == (1, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "a slider without a name"),
        ({"speaks": "false"}, "screen readers hear another value than '1'"),
        ({"alt": ""}, "shows 1 pictures with the alt texts ['']"),
        ({"play": ""}, "a button of Play without a name"),
    ],
)
def test_each_fault_of_a_player_is_found(browser, write, changes, message):
    moved, found = check_browser.check_sliders(browser, fake(write, **changes))
    assert moved == 1
    assert any(message in line for line in found), found


def test_a_picture_that_stays_is_found_by_key_by_mouse_and_by_play(browser, write, monkeypatch):
    monkeypatch.setattr(check_browser, "SWITCH", 500)
    same = "leaves the picture as it was"
    assert check_browser.check_sliders(browser, fake(write, works="false")) == (
        1,
        [
            f"player 1: slider 'time': an arrow key {same}",
            f"player 1: slider 'time': dragging {same}",
            f"player 1: slider 'time': dragging {same}",
            f"player 1: Play {same}",
        ],
    )


def test_a_slider_outside_a_player_is_not_overlooked(browser, write):
    path = write('<div class="widget-hslider">stray</div>')
    assert check_browser.check_sliders(browser, path) == (0, ["1 sliders are in no player"])


def test_screenshots_of_every_view_are_written(browser, write, tmp_path):
    page = write("<p>t</p>")
    written = check_browser.screenshots(browser, [page], tmp_path / "shots")
    views = ["wide", "narrow", "dark"]
    assert [path.name for path in written] == [f"{page.parent.name}-page-{view}.png" for view in views]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_pages_come_from_the_whole_toc(tmp_path):
    toc = "root: book/index\nparts:\n- chapters:\n  - file: a\n    sections:\n    - file: b.md\n  - url: http://x\n"
    (tmp_path / "_toc.yml").write_text(toc, "utf8")
    pages = browse.toc_pages(tmp_path, Path("site"))
    assert [path.as_posix() for path in pages] == ["site/book/index.html", "site/a.html", "site/b.html"]


def test_the_browser_is_looked_for_where_told(monkeypatch, tmp_path):
    program = tmp_path / "chrome"
    program.write_text("#!/bin/sh\n", "utf8")
    program.chmod(0o755)
    monkeypatch.setenv("CHROMIUM", str(program))
    assert browse.find_browser() == str(program)
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "nothing"))
    assert browse.find_browser() is None
    monkeypatch.delenv("CHROMIUM")
    monkeypatch.setenv("PATH", "")
    assert browse.find_browser() is None
