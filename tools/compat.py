"""Run the tests on the oldest and the newest JAX that the project supports, each in its own environment.

Usage: python tools/compat.py [--versions 0.7.2 0.12.0.1 ...] [--newest] [--brief] [--quick] [--strict]
       python tools/compat.py --notebooks
       python tools/compat.py --environments [--newest]      make the environments, run nothing

Each row of the table below gets .cache/compat/<jax>-py<python>, made by pip with the versions of
requirements.lock except where the row says otherwise, and reused while these stay. companion is imported
from this folder. --brief runs one case of each test that calls JAX and has XLA optimize nothing on Colab's
row: every such test meets this JAX, and every number that it asserts, in a fraction of the time. Prints one
line for each row, also for one that could not run, and exits with 1 when a test failed or fewer rows ran than
asked. Stdlib only; --notebooks needs nbclient in the row's environment.
"""

import argparse
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from compat_environments import PYTHONS, environment, find_pythons, locked, run

ROOT = Path(__file__).resolve().parent.parent
# All of tests/ but what has nothing to do with JAX's version and needs more than companion does. A new file
# is run without being named here.
LEFT_OUT = {
    "test_book.py": "the built book, which the lock's versions made",
    "test_browser.py": "its pages, in a browser",
    "test_collection.py": "the names of tests, whatever is installed",
    "test_environment.py": "the lock, and what make installs",
    "test_notebooks.py": "the exporter, which needs the book's packages; --notebooks runs the notebooks",
    "test_page_sizes.py": "the chapters as pages, read with the book's packages",
    "test_print.py": "the printed book, which is made of built pages",
    "test_tools.py": "the tools of the book, which need its packages",
}
# And what no version of JAX changes, though it needs nothing more: --brief leaves it to the lock's row.
BRIEFLY_LEFT_OUT = {
    "test_compat.py": "this file's tests, which start interpreters of their own",
    "test_plots.py": "drawing, by Matplotlib",
    "test_scorecard.py": "verdicts of records, by NumPy and SciPy",
    "test_scorecard_controls.py": "the same",
    "test_statistics.py": "intervals, by NumPy and SciPy",
}
QUICK = ("tests/test_neural_tangents.py",)
# Most of a cold run is compilation, and most of that is optimization, which shows nothing about an API. The
# older code for loops, which JAX 0.12 no longer has, is the quicker to compile.
UNOPTIMIZED = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
}


@dataclass(frozen=True)
class Row:
    """One environment: a version of jax, the Pythons it may use (best first), what differs from the lock."""

    jax: str
    pythons: tuple[tuple[int, int], ...] = PYTHONS
    pins: str = ""
    # Flags for pytest that let a warning of somebody else's code pass on this row only; printed as notes.
    relaxed: tuple[str, ...] = ()
    # Whether its tests pass, in short, without XLA's optimization: the newest rounds otherwise then.
    quickly: bool = False


ROWS = (
    # Colab's of August 2026.
    Row(
        "0.7.2",
        ((3, 13), (3, 12), (3, 11)),
        "numpy==2.1.3 ipywidgets==7.7.1 widgetsnbextension==3.6.10 flax==0.12.0 mlxtend==0.23.4",
        quickly=True,
    ),
    Row("0.10.2"),
    Row("0.11.2", ((3, 12), (3, 13))),
    Row("0.12.0.1", ((3, 13), (3, 12))),
)


def all_tests(root: Path = ROOT, *, brief: bool = False) -> list[str]:
    """Every test file but those in `LEFT_OUT`; with `brief` but those in `BRIEFLY_LEFT_OUT` too."""
    left_out = LEFT_OUT | (BRIEFLY_LEFT_OUT if brief else {})
    paths = (path.relative_to(root).as_posix() for path in sorted((root / "tests").rglob("test_*.py")))
    return [path for path in paths if Path(path).name not in left_out]


def dotted(version: tuple[int, int]) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


def versions_in(executable: Path) -> list[str]:
    """Return what is really installed there: jax, numpy, python, ipywidgets."""
    code = (
        "import importlib.metadata as m, platform; print(m.version('jax'), m.version('numpy'), "
        "platform.python_version(), m.version('ipywidgets'))"
    )
    return run([executable, "-I", "-c", code]).stdout.split()


def run_tests(
    executable: Path, row: Row, tests: list[str], more: list[str], **variables: str
) -> tuple[dict, bool]:
    """Run pytest; return the counts, and whether it was green and ran something. A red run is printed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "--dist",
            "worksteal",
            "-p",
            "no:cacheprovider",
        ]
        done = run([*command, f"--junitxml={report}", *row.relaxed, *more, *tests], **variables)
        suite = ElementTree.parse(report).getroot().find("testsuite").attrib if report.exists() else {}
    total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    counts = {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}
    green = done.returncode == 0 and counts["passed"] > 0
    if not green:
        print(done.stdout)
    return counts, green


def run_notebooks(executable: Path) -> tuple[dict[str, int], bool]:
    """Run each book/*.ipynb in a fresh kernel of that environment, without its install cell, two at once."""
    notebooks = sorted((ROOT / "book").glob("*.ipynb"))

    def one(path: Path) -> bool:
        started = time.time()
        done = run([executable, Path(__file__), "--run-notebook", path])
        state = "failed" if done.returncode else "passed"
        output = f"\n{done.stdout[-6000:]}" if done.returncode else ""
        print(f"  {path.name}: {state} in {time.time() - started:.0f} s{output}", flush=True)
        return done.returncode != 0

    with ThreadPoolExecutor(2) as pool:
        failed = sum(pool.map(one, notebooks))
    if not notebooks:
        print("  no notebooks in book/: `make notebooks` writes them")
    counts = {"passed": len(notebooks) - failed, "failed": failed, "skipped": 0}
    return counts, bool(notebooks) and not failed


def run_one_notebook(path: Path) -> None:
    """Inside the row's environment: run every code cell but the install cell, away from the repository."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", [])]
    with tempfile.TemporaryDirectory() as folder:
        # On Colab the notebook is alone in its folder: a path into the repository must fail here too.
        client = nbclient.NotebookClient(
            notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()


def chosen_rows(versions: list[str] | None, newest: bool, pythons: dict) -> list[Row]:
    """Return the asked rows; `newest` means Colab's and the newest with a Python here."""
    rows = {row.jax: row for row in ROWS}
    lock = locked()["jax"]
    rows.setdefault(lock, Row(lock))  # where the lock has moved on before this table
    if newest:
        able = [name for name, row in rows.items() if any(p in pythons for p in row.pythons)]
        newest_able = max(able or [lock], key=lambda name: tuple(map(int, name.split("."))))
        if newest_able != ROWS[-1].jax:
            print(f"jax {ROWS[-1].jax} cannot run here: its oldest Python is {dotted(min(ROWS[-1].pythons))}")
        versions = [ROWS[0].jax, newest_able]
    unknown = set(versions or ()) - set(rows)
    if unknown:
        sys.exit(f"--versions {' '.join(sorted(unknown))}: known are {', '.join(rows)}")
    return [rows[name] for name in dict.fromkeys(versions or rows)]


def one_row(row: Row, pythons: dict, options: argparse.Namespace) -> tuple[list[str], str]:
    """Run one row; return its cells and "passed", "failed" or "not run"."""
    version = next((p for p in row.pythons if p in pythons), None)
    if version is None:
        return [row.jax, f"not run: needs Python >= {dotted(min(row.pythons))}, none found"], "not run"
    started = time.time()
    print(f"jax {row.jax} on Python {dotted(version)}", flush=True)
    try:
        executable = environment(row.jax, row.pins, pythons[version], version)
    except RuntimeError as error:
        print(error)
        return [row.jax, "failed: the environment could not be made"], "failed"
    if options.environments:
        counts, green = dict.fromkeys(("passed", "failed", "skipped"), 0), True
    elif options.notebooks:
        counts, green = run_notebooks(executable)
    else:
        more = ["-m", "not slow and not matrix"] if options.quick else []  # replaces pyproject.toml's own -m
        more += ["--one-each"] if options.brief else []
        counts, green = run_tests(
            executable, row, options.tests, more, **(UNOPTIMIZED if options.brief and row.quickly else {})
        )
    brief = "one case of each test" + ", unoptimized" * row.quickly
    notes = "; ".join((*row.relaxed, *[brief] * options.brief))
    cells = [*versions_in(executable), *map(str, counts.values()), f"{time.time() - started:.0f}", notes]
    return cells, "passed" if green else "failed"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", nargs="+", metavar="JAX", help="only these rows (default: all)")
    parser.add_argument("--newest", action="store_true", help="Colab's and the newest possible")
    parser.add_argument("--brief", action="store_true", help="one case of each test, Colab's row unoptimized")
    parser.add_argument("--quick", action="store_true", help="only the first test file, nothing marked slow")
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="default: all that say something on JAX")
    parser.add_argument("--notebooks", action="store_true", help="run book/*.ipynb on Colab's versions")
    parser.add_argument("--environments", action="store_true", help="make the environments, run nothing")
    parser.add_argument("--require", type=int, default=1, metavar="N", help="fail when fewer rows ran")
    parser.add_argument("--strict", action="store_true", help="fail when any asked row did not run")
    parser.add_argument("--run-notebook", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.tests = options.tests or (list(QUICK) if options.quick else all_tests(brief=options.brief))
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen rows and print the table."""
    options = parse(arguments)
    if options.run_notebook:
        run_one_notebook(options.run_notebook)
        return 0
    missing = [name for name in options.tests if not (ROOT / name.split("::")[0]).exists()]
    if missing:
        sys.exit(f"no such test file: {' '.join(missing)}")
    pythons = find_pythons()
    versions = options.versions or ([ROWS[0].jax] if options.notebooks else None)
    rows = chosen_rows(versions, options.newest, pythons)
    lines = [["jax", "numpy", "python", "ipywidgets", "passed", "failed", "skipped", "seconds", "notes"]]
    states = []
    for row in rows:
        cells, state = one_row(row, pythons, options)
        lines.append(cells)
        states.append(state)
    print()
    for cells in lines:
        width = 11 if len(cells) > 2 else 0
        print("".join(f"{cell:<{width}} " for cell in cells).rstrip())
    ran = len(states) - states.count("not run")
    print(f"{states.count('passed')} passed, {states.count('failed')} failed, {len(states) - ran} skipped")
    wanted = len(rows) if options.strict else options.require
    if ran < wanted:
        print(f"only {ran} of the {wanted} rows asked for could run")
    return int("failed" in states or ran < wanted)


if __name__ == "__main__":
    sys.exit(main())
