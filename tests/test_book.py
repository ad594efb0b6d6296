"""The built book: every page there, no cell failed, links and buttons right. Needs `make book` first."""

import functools
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import check_site  # noqa: E402
import export_notebooks  # noqa: E402
import myst  # noqa: E402
import repository  # noqa: E402
import vendor_js  # noqa: E402

HTML = ROOT / "_build" / "html"
PAGES = list(myst.contents(ROOT))
NOTEBOOKS = [path.relative_to(ROOT).with_suffix("").as_posix() for path in export_notebooks.pages(ROOT)]
CHAPTERS = [name for name, number in myst.contents(ROOT).items() if number]

pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(not (HTML / "index.html").exists(), reason="the book is not built: make book"),
]


@functools.cache
def site():
    """Every page, parsed once for all tests that only read."""
    return check_site.load(HTML)


def page(name):
    return site()[HTML / f"{name}.html"]


def test_every_page_of_the_contents_is_built():
    assert [name for name in PAGES if not (HTML / f"{name}.html").exists()] == []


def test_the_start_page_leads_to_the_book():
    assert (HTML / "index.html").exists()
    assert f"{PAGES[0]}.html" in (HTML / "index.html").read_text("utf8")


def test_no_cell_failed():
    assert list((HTML / "reports").rglob("*.err.log")) == []
    rows = [
        [cell.text.strip() for cell in row.find_all("td")]
        for row in page("book/status").find("table").find_all("tr")[1:]
    ]
    assert {row[0] for row in rows} == set(NOTEBOOKS)
    assert {row[-1] for row in rows} == {"✅"}


def test_the_title_is_on_every_page():
    title = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["title"]
    assert [name for name in PAGES if title not in page(name).title.text] == []


def test_site_has_no_dead_link_no_picture_without_text_and_no_heavy_page():
    assert check_site.nameless_pictures(site(), HTML) == []
    assert check_site.heavy_pages(site(), HTML) == []
    assert check_site.hyphens_for_minus(site(), HTML) == []
    problems = check_site.dead_links(site(), HTML)
    assert [line for line in problems if "remote asset" not in line] == []


def test_site_loads_nothing_remote():
    if not (vendor_js.is_here(vendor_js.MATHJAX) and vendor_js.is_here(vendor_js.WIDGETS)):
        pytest.skip("MathJax and the slider player were not fetched: npm is missing or has no network")
    assert [line for line in check_site.dead_links(site(), HTML) if "remote asset" in line] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_colab_button_opens_the_notebook_beside_the_page(name):
    links = {tag["href"] for tag in page(name).find_all("a", href=re.compile("colab"))}
    assert repository.colab(name, repository.address(ROOT)) in links
    assert (ROOT / f"{name}.ipynb").exists()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_download_button_gives_the_plain_notebook(name):
    offered = HTML / "_sources" / f"{name}.ipynb"
    assert offered.read_bytes() == (ROOT / f"{name}.ipynb").read_bytes()


@pytest.mark.parametrize("name", CHAPTERS)
def test_notebook_numbers_equations_and_theorems_as_the_book_does(name):
    article = page(name).find("article")
    book = [re.sub(r"[()#¶\s]", "", tag.text) for tag in article.find_all("span", class_="eqno")]
    text = (ROOT / f"{name}.ipynb").read_text("utf8")
    assert re.findall(r"\\\\tag\{([\d.]+)\}", text) == book
    boxes = article.select("div.proof > p.admonition-title, div.exercise > p.admonition-title")
    numbered = [match[0] for tag in boxes if (match := re.match(r"[A-Z]\w+ \d+(\.\d+)?", tag.text))]
    assert [label for label in numbered if f"**{label}" not in text] == []


def test_every_module_of_the_package_has_a_page():
    package = ROOT / "companion"
    paths = [*package.glob("[a-z]*.py"), *(init.parent for init in package.glob("[a-z]*/__init__.py"))]
    # storage: users meet it as folders of `gram` and `train`, and as `dynamics.KernelPath`.
    modules = {path.stem for path in paths} - {"storage"}
    listed = {Path(name).name for name in PAGES if name.startswith("book/api/")} - {"index"}
    assert listed == modules
    for name in sorted(modules):
        assert page(f"book/api/{name}").find(id=f"module-companion.{name}"), name


def test_status_page_lists_run_times_and_versions():
    article = page("book/status").find("article").text
    assert all(Path(name).name in article for name in NOTEBOOKS)
    assert re.search(r"jax\s+\d+\.\d+", article)
