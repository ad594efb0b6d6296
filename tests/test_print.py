"""The printed book, on a made book of four pages: sewn into one, and in a browser printed to a PDF."""

import re
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

pytest.importorskip("playwright")
pypdf = pytest.importorskip("pypdf")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import browse  # noqa: E402
import print_book  # noqa: E402
import printed  # noqa: E402

ADDRESS = "https://someone.github.io/toy/"
TOC = """
format: jb-book
root: book/index
parts:
  - caption: Chapters
    numbered: true
    chapters: [{file: book/one}, {file: book/two}]
  - caption: The package
    chapters: [{file: book/api/index, sections: [{file: book/api/tool}]}]
"""
PAGES = {
    "index": """<section id="t"><h1>A toy<a class="headerlink" href="#t">#</a></h1>
<!-- the printed book --></section>""",
    "one": """<section id="first"><h1><span class="section-number">1. </span>First</h1>
<p>See <a class="reference internal" href="two.html#fig"><span class="std std-numref">Fig. 2.1</span></a>,
<a href="../_modules/x.html">source</a> and <a href="https://example.org/">out</a>.</p>
<section id="s"><h2>A section</h2>
<details class="hide above-input"><summary>Show</summary><pre>hidden_code()</pre></details>
<div class="exercise admonition" id="ex">
<p class="admonition-title"><span class="caption-number">Exercise 1.1 </span>(Easy)</p></div>
<div class="solution dropdown admonition" id="sol">
<p class="admonition-title">Solution</p><p>Forty-two.</p></div>
</section></section>""",
    "two": """<section id="second"><h1><span class="section-number">2. </span>Second</h1>
<figure id="fig"><img alt="A dot" src="../_images/dot.svg"><figcaption>Fig. 2.1 A dot.</figcaption></figure>
<figure><div class="text_html"><script type="application/vnd.jupyter.widget-view+json">{}</script>
<noscript><img class="companion-frame" alt="Still" src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
</noscript></div>
<figcaption>Fig. 2.2 It moves.</figcaption></figure></section>""",
    "api/index": '<section id="t"><h1>Package</h1><a href="tool.html">tool</a></section>',
    "api/tool": '<section id="t"><h1>tool</h1><a href="../one.html">back</a></section>',
}


@pytest.fixture
def toy(tmp_path):
    """A root with its built pages."""
    (tmp_path / "_toc.yml").write_text(TOC)
    (tmp_path / "_config.yml").write_text("title: A toy\nauthor: Some One\nhtml: {extra_footer: Free.}\n")
    (tmp_path / "pyproject.toml").write_text(
        '[project.urls]\nRepository = "https://github.com/someone/toy"\n'
    )
    site = tmp_path / "_build" / "html"
    for name, inside in PAGES.items():
        page = site / "book" / f"{name}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f'<html><body>menu<article class="bd-article">{inside}</article></body></html>')
    files = {"index.html": "", "_static/pygments.css": "", "_static/book.css": ""}
    files["_static/vendor/mathjax/tex-chtml.js"] = ""
    files["_images/dot.svg"] = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    return tmp_path


def sewn(toy):
    html = printed.whole(toy, toy / "_build" / "html", ADDRESS, "<header>Front</header>", "<title>t</title>")
    return BeautifulSoup(html, "html.parser")


def test_links_between_pages_stay_within_the_book(toy):
    soup = sewn(toy)
    ids = [one["id"] for one in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    links = {link.get_text().strip(): link["href"] for link in soup.select("article a")}
    inside = {name: target for name, target in links.items() if target.startswith("#")}
    assert inside["Fig. 2.1"] == "#book.two..fig"
    assert inside["back"] == "#book.one"
    assert {target[1:] for target in inside.values()} <= set(ids)
    assert links["out"] == "https://example.org/"
    assert links["source"] == f"{ADDRESS}_modules/x.html"


def test_paper_has_no_buttons_and_no_folded_code_and_a_still_picture_of_what_moves(toy):
    soup = sewn(toy)
    assert not soup.select("article script, noscript, .headerlink, details")
    assert "hidden_code" not in soup.get_text()
    (still,) = soup.select("img.companion-frame")
    assert still.find_next("p", class_="moves").a["href"] == f"{ADDRESS}book/two.html"
    assert Path(soup.select_one("figure img")["src"].removeprefix("file://")).exists()


def test_the_contents_have_every_page_and_the_sections_of_chapters(toy):
    lines = [(one["class"][0], one.get_text()) for one in sewn(toy).select("ul.contents li")]
    titles = [("chapter", "1. First"), ("section", "A section"), ("chapter", "2. Second")]
    package = [("part", "The package"), ("chapter", "Package"), ("chapter", "tool")]
    last = [("part", "Appendix"), ("chapter", "Solutions of the exercises")]
    assert lines == [("chapter", "A toy"), ("part", "Chapters"), *titles, *package, *last]


def test_solutions_stand_at_the_end_and_exercises_say_where(toy):
    soup = sewn(toy)
    title = soup.select_one("#solutions .solution .admonition-title").get_text()
    assert title == "Solution of Exercise 1.1"
    assert soup.select_one(".exercise .solved a")["href"] == "#" + soup.select_one(".solution")["id"]
    assert len(soup.select(".solution")) == 1


def test_a_printed_book_has_its_numbers_outline_and_links(toy):
    executable = browse.find_browser()
    if executable is None:
        pytest.skip("no Chromium or Chrome: nothing was printed")
    target = toy / "toy.pdf"
    with browse.open_browser(executable) as browser:
        sheets = print_book.print_book(browser, toy, toy / "_build" / "html", target, "2026-11-26")
    reader = pypdf.PdfReader(target)
    texts = [page.extract_text() for page in reader.pages]
    on = {title: i for i, text in enumerate(texts, 1) for title in ("It moves", "Forty-two") if title in text}
    assert (sheets, on) == (8, {"It moves": 5, "Forty-two": 8})
    assert re.search(r"2\. Second\s*5\s", texts[1])
    assert "Fig. 2.1 (p. 5)" in texts[3]
    assert "Solution: page 8" in texts[3]
    assert [re.findall(r"^\d+$", text, re.M) for text in texts[2:5]] == [["3"], ["4"], ["5"]]
    assert "hidden_code" not in "".join(texts)
    toy, chapters, (first, (section,), second), *_ = reader.outline
    titles = [one.title for one in (toy, chapters, first, section, second)]
    assert titles == ["A toy", "Chapters", "1. First", "A section", "2. Second"]
    assert [reader.get_destination_page_number(one) + 1 for one in (toy, first, second)] == [3, 4, 5]
    assert reader.metadata.author == "Some One"


def test_what_is_missing_is_named(toy, monkeypatch):
    site = toy / "_build" / "html"
    monkeypatch.setenv("CHROMIUM", "no-such-browser")
    with pytest.raises(print_book.CannotPrint, match="apt install chromium"):
        print_book.needs(site)
    (site / "_static/vendor/mathjax/tex-chtml.js").unlink()
    with pytest.raises(print_book.CannotPrint, match="npm"):
        print_book.needs(site)
    (site / "index.html").unlink()
    with pytest.raises(print_book.CannotPrint, match="make book"):
        print_book.needs(site)


def test_the_site_offers_the_book_once_and_only_where_it_is(toy):
    site, pdf = toy / "_build" / "html", toy / "book.pdf"
    pdf.write_bytes(bytes(2_500_000))
    for sheets in (7, 8):
        print_book.offer(site, pdf, sheets, "2026-11-26")
    text = (site / "book" / "index.html").read_text()
    assert text.count("book.pdf") == 1
    assert "(8 pages, 2 MB, 2026-11-26)" in text
    (site / "book" / "index.html").write_text("no mark")
    with pytest.raises(print_book.CannotPrint, match="the printed book"):
        print_book.offer(site, pdf, 8, "2026-11-26")


def test_the_first_page_of_the_book_has_the_mark():
    assert len(print_book.MARK.findall((ROOT / "book" / "index.md").read_text("utf8"))) == 1
