"""Execute and build the book, strictly, and show what matters of a long log.

Usage: python tools/build_book.py     1 on any failing cell or warning; the whole log is _build/build.log
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
HTML = BUILD / "html"
COMMAND = ("build", ".", "-W", "-n", "--keep-going")
COLOR = re.compile(r"\x1b\[[0-9;]*m")
PAGE = re.compile(r"([^/\s]+)\.md: (Execut(?:ing|ed) notebook.*?)(?: \[mystnb\])?$")
LOUD = re.compile(r"WARNING: |ERROR: |CRITICAL: |Exception|Traceback|returns a non-zero exit code")


def page_inputs(root: Path = ROOT) -> str:
    """Return a digest of what every page shows but Sphinx does not watch: style, scripts, tools, contents."""
    state = hashlib.sha256()
    paths = [root / "_toc.yml", *(root / "book" / "_static").rglob("*"), *(root / "tools").glob("*.py")]
    # Its sources are shown too, and those of files that are gone would stay.
    paths += (root / "companion").rglob("*.py")
    for path in sorted(path for path in paths if path.is_file()):
        state.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    # A page has its Colab button for as long as its notebook is there.
    state.update(" ".join(sorted(path.name for path in (root / "book").glob("*.ipynb"))).encode())
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
    """Build what changed, or all of it where a file changed that is in every page."""
    started, mark, now = time.time(), BUILD / ".page-inputs", page_inputs()
    fresh = mark.exists() and mark.read_text("utf8") == now
    if not fresh or (HTML / "reports").exists():
        shutil.rmtree(HTML, ignore_errors=True)
    print("==> Executing and building the book (minutes the first time, seconds after that)", flush=True)
    mark.unlink(missing_ok=True)  # a build that is killed leaves half a site
    status = build(*([] if fresh else ["--all"]))
    if status:
        explain()
        return 1
    mark.write_text(now, "utf8")
    log = COLOR.sub("", (BUILD / "build.log").read_text("utf8"))
    print(log[log.index("\nRun times of") :].split("\nbuild ")[0].rstrip() if "\nRun times of" in log else "")
    print(f"\nBuilt in {time.time() - started:.0f} s. Open {HTML / 'index.html'} or run: make serve")
    return 0


if __name__ == "__main__":
    sys.exit(main())
