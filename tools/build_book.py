"""Execute and build the book, strictly, and show what matters of a long log.

Usage: python tools/build_book.py     1 on any failing cell or warning; the whole log is _build/build.log
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import vendor_js

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
HTML = BUILD / "html"
COMMAND = ("build", ".", "-W", "-n", "--keep-going")
COLOR = re.compile(r"\x1b\[[0-9;]*m")
PAGE = re.compile(r"([^/\s]+)\.md: (Execut(?:ing|ed) notebook.*?)(?: \[mystnb\])?$")
LOUD = re.compile(r"WARNING: |ERROR: |CRITICAL: |Exception|Traceback|returns a non-zero exit code")


def page_inputs(root: Path = ROOT) -> str:
    """Return a digest of what every page shows but Sphinx does not watch: style, scripts, tools, contents."""
    paths = [root / "_toc.yml", *(root / "book" / "_static").rglob("*"), *(root / "tools").glob("*.py")]
    # Its sources are shown too, and those of files that are gone would stay.
    paths += (root / "companion").rglob("*.py")
    # A page has its Colab button for as long as its notebook is there.
    return digest(root, paths, *sorted(path.name for path in (root / "book").glob("*.ipynb")))


def inputs(root: Path = ROOT) -> str:
    """Return a digest of all that the book is made of: pages, records, settings, versions, scripts."""
    paths = [root / "_config.yml", root / "requirements.lock", *(root / "book").rglob("*")]
    fetched = [item.name for item in (vendor_js.MATHJAX, vendor_js.WIDGETS) if vendor_js.is_here(item)]
    return digest(root, paths, page_inputs(root), *fetched, sys.version)


def digest(root: Path, paths: list[Path], *words: str) -> str:
    """Return a digest of files, by name and content, and of words."""
    state = hashlib.sha256()
    for path in sorted(path for path in paths if path.is_file()):
        with contextlib.suppress(FileNotFoundError):  # a campaign's, gone since
            state.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    state.update(" ".join(words).encode())
    return state.hexdigest()


def worth_showing(line: str) -> str:
    """Return what to print of one line of the log: progress of the pages, and anything that is wrong."""
    line = COLOR.sub("", line.rstrip())
    if match := PAGE.search(line):
        return f"    {match[1]}: {match[2].lower()}"
    return line.replace(f"{ROOT}/", "") if LOUD.search(line) else ""


def build(*extra: str) -> int:
    """Run Jupyter Book with its log in a file; return its exit status."""
    BUILD.mkdir(exist_ok=True)
    # There is no `python -m jupyter_book`, and its script would not survive a moved folder.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", *COMMAND, *extra]
    with (BUILD / "build.log").open("w", encoding="utf8") as log:
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "encoding": "utf8"}
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1", "COMPANION_PAGE": "1"}, **pipe
        )
        for line in process.stdout:
            log.write(line)
            if shown := worth_showing(line):
                print(shown, flush=True)
        return process.wait()


def explain() -> None:
    """After a failure print the tracebacks of the cells that failed, and where the log is."""
    for report in sorted((HTML / "reports").rglob("*.err.log")):
        print(f"\n--- {report.relative_to(ROOT)}\n{COLOR.sub('', report.read_text('utf8')).strip()}")
    last = COLOR.sub("", (BUILD / "build.log").read_text("utf8")).strip().splitlines()[-5:]
    print("\nThe log ends with:", *last, sep="\n    ")
    print("\nThe book was not built cleanly: see above, or _build/build.log")


def main() -> int:
    """Build what changed, or all of it where a file changed that is in every page; nothing where none did."""
    started, mark, now = time.time(), BUILD / ".page-inputs", page_inputs()
    whole, all_now = BUILD / ".inputs", inputs()
    index = HTML / "index.html"
    if index.exists() and whole.exists() and whole.read_text("utf8") == all_now:
        print(f"==> The book is built, and nothing in it changed. Open {index} or run: make serve")
        return 0
    fresh = mark.exists() and mark.read_text("utf8") == now
    if not fresh or (HTML / "reports").exists():
        shutil.rmtree(HTML, ignore_errors=True)
    print("==> Executing and building the book (minutes the first time, seconds after that)", flush=True)
    for one in (mark, whole):  # a build that is killed leaves half a site
        one.unlink(missing_ok=True)
    status = build(*([] if fresh else ["--all"]))
    if status:
        explain()
        return 1
    mark.write_text(now, "utf8")
    whole.write_text(all_now, "utf8")
    log = COLOR.sub("", (BUILD / "build.log").read_text("utf8"))
    print(log[log.index("\nRun times of") :].split("\nbuild ")[0].rstrip() if "\nRun times of" in log else "")
    print(f"\nBuilt in {time.time() - started:.0f} s. Open {index} or run: make serve")
    return 0


if __name__ == "__main__":
    sys.exit(main())
