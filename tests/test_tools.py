"""The tools that build and check the book, on small made cases; each checker is shown something wrong."""

import hashlib
import importlib
import io
import re
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import api_pages  # noqa: E402
import build_book  # noqa: E402
import check_site  # noqa: E402
import companion_cache  # noqa: E402
import export_notebooks  # noqa: E402
import make_venv  # noqa: E402
import myst  # noqa: E402
import repository  # noqa: E402
import vendor_js  # noqa: E402

# --- the site checker

PIXEL = b"\x89PNG" + bytes(100)
GOOD = """<html><head><link rel="stylesheet" href="style.css"></head><body><article>
<a href="other.html#here">to</a> <a href="#top">up</a> <a href="https://example.org/">out</a>
<img src="p.png" alt="A dot"> <h1 id="title">T</h1></article></body></html>"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "index.html").write_text(GOOD, "utf8")
    (tmp_path / "other.html").write_text('<article><p id="here">x</p></article>', "utf8")
    (tmp_path / "style.css").write_text("", "utf8")
    (tmp_path / "p.png").write_bytes(PIXEL)
    return tmp_path


def test_site_check_finds_nothing_in_a_sound_site(site):
    assert check_site.check(site) == []


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ('<a href="gone.html">x</a>', "index.html: dead link gone.html"),
        ('<a href="other.html#gone">x</a>', "index.html: dead anchor other.html#gone"),
        ('<a href="#gone">x</a>', "index.html: dead anchor #gone"),
        ('<img src="gone.png" alt="A dot">', "index.html: dead link gone.png"),
        ('<img src="p.png">', "index.html: no alt text for p.png"),
        ('<img src="p.png" alt=" ">', "index.html: no alt text for p.png"),
        ('<img src="p.png" alt="../p.png">', "index.html: no alt text for p.png"),
        (
            '<script src="https://example.org/x.js"></script>',
            "index.html: remote asset https://example.org/x.js",
        ),
        ('<img src="//example.org/x.png" alt="A">', "index.html: remote asset //example.org/x.png"),
        (
            '<link rel="stylesheet" href="http://example.org/x.css">',
            "index.html: remote asset http://example.org/",
        ),
        ('<iframe src="https://example.org/"></iframe>', "index.html: remote asset https://example.org/"),
        ("<p>less by (-0.3) or so</p>", "index.html: a hyphen for a minus sign in 'less by (-0.3) or so'"),
        ("<td><b>-.5</b></td>", "index.html: a hyphen for a minus sign in '-.5'"),
    ],
)
def test_site_check_finds_each_fault(site, broken, found):
    (site / "index.html").write_text(GOOD.replace("</article>", broken + "</article>"), "utf8")
    problems = check_site.check(site)
    assert len(problems) == 1
    assert problems[0].startswith(found)


def test_site_check_knows_hyphens_that_are_none_of_a_minus(site):
    fine = "<p>FC-1, PGD-20, 2026-11-28, 0.1-0.2, 1e-9, −3 and <code>x = -1</code></p>"
    fine += '<span class="math">(-1)</span>'
    (site / "index.html").write_text(GOOD.replace("</article>", fine + "</article>"), "utf8")
    assert check_site.check(site) == []


def test_site_check_weighs_a_page_with_its_pictures(site):
    (site / "p.png").write_bytes(bytes(check_site.MAX_BYTES))
    assert [line.split(":")[0] for line in check_site.check(site)] == ["index.html"]
    soup = check_site.load(site)[site / "index.html"]
    assert check_site.weight(site / "index.html", soup) == len(GOOD) + check_site.MAX_BYTES


def test_site_check_of_an_empty_folder_is_a_problem(tmp_path):
    assert check_site.check(tmp_path) == [f"{tmp_path} holds no page"]
    assert check_site.main([str(tmp_path)]) == 1


# --- fetched JavaScript


@pytest.fixture
def package(tmp_path):
    archive = tmp_path / "p.tgz"
    files = {"package/dist/a.js": b"1", "package/dist/skip.map": b"2", "package/dist/f.woff2": b"3"}
    files |= {
        "package/fonts/deep/b": b"4",
        "package/../../outside.js": b"5",
        "package/fonts/../../../x": b"6",
    }
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("package/fonts/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return archive, vendor_js.Package(
        name="p",
        version="1",
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        target=tmp_path / "a" / "place",
        strip="dist/",
        keep=("dist/a.js", "dist/*.woff2", "fonts/"),
        proof="a.js",
    )


def test_vendor_takes_the_wanted_files_and_only_those(package):
    archive, wanted = package
    vendor_js.unpack(wanted, archive, wanted.target)
    written = {p.relative_to(wanted.target).as_posix() for p in wanted.target.rglob("*") if p.is_file()}
    assert written == {"a.js", "f.woff2", "fonts/deep/b", ".version"}
    assert vendor_js.is_here(wanted)
    assert not vendor_js.is_here(replace(wanted, keep=("dist/a.js",)))
    outside = [
        path for path in archive.parent.rglob("*") if path.is_file() and wanted.target not in path.parents
    ]
    assert outside == [archive]


def test_vendor_refuses_another_archive(package):
    archive, wanted = package
    with pytest.raises(ValueError, match=r"SHA-256 is .*, wanted 0"):
        vendor_js.unpack(replace(wanted, sha256="0" * 64), archive, wanted.target)
    assert not wanted.target.exists()


def test_vendor_without_npm_says_one_line_and_goes_on(package, monkeypatch, capsys):
    monkeypatch.setattr(vendor_js, "PACKAGES", (package[1],))
    monkeypatch.setattr(vendor_js.shutil, "which", lambda _: None)
    assert vendor_js.main() == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_vendor_with_a_failing_npm_says_one_line_and_goes_on(package, monkeypatch, capsys, tmp_path):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error no network' >&2\nexit 1\n", "utf8")
    npm.chmod(0o755)
    monkeypatch.setattr(vendor_js, "PACKAGES", (package[1],))
    monkeypatch.setattr(vendor_js.shutil, "which", lambda _: str(npm))
    assert vendor_js.main() == 0
    assert re.fullmatch(r"\s+p not fetched \(npm error no network\): .*\n", capsys.readouterr().out)
    assert list(package[1].target.parent.iterdir()) == []


# --- the environment


@pytest.mark.parametrize(
    ("version", "missing", "said"),
    [
        ((3, 10), [], "Python 3.10, and the book needs Python 3.11, 3.12 or 3.13"),
        ((3, 14), [], "Python 3.14, and the book needs"),
        ((3, 12), ["venv"], "lacks venv .*python3.12-venv"),
    ],
)
def test_environment_names_what_is_wrong_with_a_python(version, missing, said):
    assert re.search(said, make_venv.problem_with(version, missing))


@pytest.mark.parametrize("version", [(3, 11), (3, 12, 1), (3, 13)])
def test_environment_takes_the_supported_pythons(version):
    assert make_venv.problem_with(version, []) == ""


def test_environment_is_made_again_for_another_python_or_place(tmp_path):
    stamp = make_venv.wanted_stamp()
    assert make_venv.must_be_made(tmp_path, stamp)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "pyvenv.cfg").write_text(f"version = {make_venv.VERSION}\n", "utf8")
    assert not make_venv.must_be_made(tmp_path, stamp)
    (tmp_path / ".stamp").write_text(stamp.replace(str(ROOT), "/elsewhere"), "utf8")
    assert make_venv.must_be_made(tmp_path, stamp)
    (tmp_path / ".stamp").unlink()
    (tmp_path / "pyvenv.cfg").write_text("version = 3.10.1\n", "utf8")
    assert make_venv.must_be_made(tmp_path, stamp)


# --- the cache key, the times, the log


def test_cache_key_follows_the_companion_and_the_recorded_results(tmp_path):
    source, record = tmp_path / "companion" / "a.py", tmp_path / "book" / "results" / "r" / "full.json"
    source.parent.mkdir()
    record.parent.mkdir(parents=True)
    keys = [companion_cache.digest(tmp_path)]
    for path, text in ((source, "a = 1"), (source, "a = 2"), (record, "{}"), (record, "{} ")):
        path.write_text(text, "utf8")
        keys.append(companion_cache.digest(tmp_path))
    assert len(set(keys)) == 5
    assert keys[-1] == companion_cache.digest(tmp_path)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            "\x1b[91m/x/book/a.md:3: WARNING: undefined label\x1b[0m\n",
            "/x/book/a.md:3: WARNING: undefined label",
        ),
        (
            "/x/book/a.md: Executed notebook in 1.35 seconds [mystnb]\n",
            "    a: executed notebook in 1.35 seconds",
        ),
        ("reading sources... [ 10%] book/a\n", ""),
    ],
)
def test_log_shows_progress_and_trouble_alone(line, shown):
    assert build_book.worth_showing(line) == shown


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A small book, and a builder that writes its start page and counts how often it was called."""
    files = ["_toc.yml", "_config.yml", "requirements.lock", "book/index.md", "book/a.ipynb"]
    files += ["book/_static/book.css", "book/results/attacks/runs.jsonl", "companion/a.py", "tools/a.py"]
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, "utf8")
    calls, html = [], tmp_path / "_build" / "html"
    monkeypatch.setattr(build_book, "BUILD", html.parent)
    monkeypatch.setattr(build_book, "HTML", html)
    page_inputs, inputs = build_book.page_inputs, build_book.inputs
    monkeypatch.setattr(build_book, "page_inputs", lambda root=tmp_path: page_inputs(root))
    monkeypatch.setattr(build_book, "inputs", lambda: inputs(tmp_path))

    def build(*extra):
        calls.append(extra)
        html.mkdir(parents=True, exist_ok=True)
        (html / "index.html").write_text("built", "utf8")
        (html.parent / "build.log").write_text("", "utf8")
        return 0

    monkeypatch.setattr(build_book, "build", build)
    return tmp_path, files, calls


def test_a_book_in_which_nothing_changed_is_not_built_again(book, capsys):
    root, _, calls = book
    assert build_book.main() == build_book.main() == 0
    assert calls == [("--all",)]
    assert "nothing in it changed" in capsys.readouterr().out
    (root / "_build" / "html" / "index.html").unlink()
    assert build_book.main() == 0
    assert len(calls) == 2


def test_a_change_of_any_file_of_the_book_builds_it_again(book):
    root, files, calls = book
    build_book.main()
    for number, name in enumerate(files, 1):
        (root / name).write_text("changed", "utf8")
        build_book.main()
        assert len(calls) == number + 1, name
    everywhere = ["_toc.yml", "book/_static/book.css", "companion/a.py", "tools/a.py"]
    assert [name for name, call in zip(files, calls[1:], strict=True) if call] == everywhere


def test_a_build_that_failed_is_made_again(book, monkeypatch):
    _, _, calls = book
    build_book.main()
    monkeypatch.setattr(build_book, "inputs", lambda: "other")
    monkeypatch.setattr(build_book, "explain", lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(build_book, "build", lambda *_: 1)
        assert build_book.main() == 1
    assert build_book.main() == 0
    assert len(calls) == 2


def test_a_file_that_goes_while_the_book_is_read_is_none_of_it(book, monkeypatch):
    root, _, _ = book
    before = build_book.inputs()
    passing = root / "book" / "results" / "attacks" / "passing"
    passing.touch()
    read = Path.read_bytes

    def gone(path):
        path.unlink() if path == passing else None
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", gone)
    assert build_book.inputs() == before


def test_inventories_can_be_read_by_sphinx():
    from sphinx.util.inventory import InventoryFile

    for project, (address, rows) in api_pages.MANUALS.items():
        stream = io.BytesIO(api_pages.inventory(project, rows))
        read = InventoryFile.load(stream, address, lambda base, page: base + page)
        assert {(name, role) for role, names in read.items() for name in names} == {row[:2] for row in rows}
    listed = {row[0] for _, rows in api_pages.MANUALS.values() for row in rows}
    assert set(api_pages.ALIASES.values()) <= listed


def test_a_page_with_examples_says_what_they_start_from():
    pages = {name: [] for name in ("attacks", "plots")}
    for name, lines in pages.items():
        module = importlib.import_module(f"companion.{name}")
        api_pages.introduce(None, "module", module.__name__, module, None, lines)
    assert "from companion.attacks import *" in " ".join(pages["attacks"])
    assert pages["plots"] == []


def test_notes_of_a_docstring_are_paragraphs():
    lines = ["Does it.", "", "Cost: O(n).", "Source: A (2018),", "eq. 2."]
    api_pages.separate(None, None, None, None, None, lines)
    assert lines == ["Does it.", "", "Cost: O(n).", "", "Source: A (2018),", "eq. 2."]


def test_shapes_are_no_names_and_names_are():
    assert all(api_pages.NO_NAME.fullmatch(text) for text in ("'n d'", "'n", "jaxtyping.Float32"))
    assert not any(api_pages.NO_NAME.fullmatch(text) for text in ("Dataset", "companion.data.Dataset"))


# --- the repository's address


@pytest.fixture
def mini(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "pyproject.toml").write_text(
        '[project.urls]\nRepository = "https://github.com/me/it"\n', encoding="utf8"
    )
    (tmp_path / "_config.yml").write_text(
        "repository:\n  url: https://github.com/me/it\n  branch: main\n", encoding="utf8"
    )
    (tmp_path / "README.md").write_text(
        "[x](https://colab.research.google.com/github/me/it/blob/main/book/a.ipynb) git clone "
        "https://github.com/me/it.git and pip install git+https://github.com/me/it, after "
        "https://github.com/someone/else and https://github.com/me/it-not\n"
    )
    return tmp_path


def test_every_link_of_ours_names_the_repository():
    assert repository.strangers(ROOT) == []


@pytest.mark.parametrize(
    "line",
    [
        "https://colab.research.google.com/github/you/that/blob/main/a.ipynb",
        "git+https://github.com/you/that",
        "https://raw.githubusercontent.com/you/that/main/a.svg",
        "https://github.com/you/it",
    ],
)
def test_a_strange_address_is_found(mini, line):
    assert repository.strangers(mini) == []
    (mini / "book" / "a.md").write_text(f"x\n[y]({line})\n", "utf8")
    assert repository.strangers(mini) == [f"book/a.md:2: {'you/it' if line.endswith('/it') else 'you/that'}"]


def test_another_configured_address_is_found(mini):
    (mini / "_config.yml").write_text("repository:\n  url: https://github.com/me/other\n", "utf8")
    assert len(repository.strangers(mini)) == 1


# --- reading MyST


def test_split_keeps_every_line_and_nesting():
    parts = myst.split("a\n::::{x} t\n:k: v\n\nb\n:::{y}\nc\n:::\n::::\n```py\n:::{z}\n```\nd")
    assert [type(part).__name__ for part in parts] == ["str", "Block", "Code", "str"]
    assert (parts[1].name, parts[1].argument, parts[1].options) == ("x", "t", {"k": "v"})
    assert [part.name for part in myst.split(parts[1].body) if isinstance(part, myst.Block)] == ["y"]


def test_contents_number_the_chapters_of_numbered_parts():
    numbers = [number for number in myst.contents(ROOT).values() if number]
    assert numbers == list(range(1, len(numbers) + 1))
    assert export_notebooks.pages(ROOT)
