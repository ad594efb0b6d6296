"""Run README's two commands in a fresh clone, and write what they took into README; count the recorded runs.

Usage: python tools/measure.py [--runs 3] [--count] [--check]      (make measure; some 15 minutes a run)

Each run clones the last commit into an empty folder and gives the commands a bare environment and an empty
cache of compiled code: what a newcomer has, but for pip's cache. Written are the medians. --count only writes
how many runs of the experiments are recorded (seconds); --check only says whether README has both
paragraphs. Stdlib only.
"""

import argparse
import datetime
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- measured by tools/measure.py -->", "<!-- end of the measured part -->"
COUNTED = "<!-- counted by tools/measure.py -->", "<!-- end of the counted part -->"
KEPT = ("PATH", "HOME", "LANG", "USER", "CHROMIUM", "http_proxy", "https_proxy", "no_proxy")
PREFIXES = ("PIP_", "NPM_CONFIG_", "SSL_", "REQUESTS_", "NODE_EXTRA_")


def processor() -> str:
    """Return the processor's name, how many cores this process has, and the memory."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf8")
        name = re.search(r"^model name\s*: (.*)$", text, re.M)[1].strip()
    except (OSError, TypeError):
        name = "unknown processor"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {memory:.0f} GB"


def size(folder: Path) -> float:
    """Return the gigabytes of a folder's files, each counted once."""
    seen = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            state = path.stat()
            seen[state.st_ino] = state.st_blocks * 512
    return sum(seen.values()) / 1e9


def timed(place: Path, environment: dict[str, str], target: str) -> tuple[float, str]:
    """Run `make target` there; return its seconds and its output, or end with the output."""
    start = time.perf_counter()
    done = subprocess.run(
        ["make", target],
        cwd=place,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        sys.exit(f"{done.stdout[-8000:]}\nmake {target} failed: nothing was measured")
    return time.perf_counter() - start, done.stdout


def run() -> dict[str, float]:
    """Measure one fresh clone: seconds of each part, gigabytes on disk and in memory, tests passed."""
    folder = Path(tempfile.mkdtemp())
    try:
        place = folder / "project"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(place)], check=True)
        environment = {k: v for k, v in os.environ.items() if k in KEPT or k.upper().startswith(PREFIXES)}
        environment["XDG_CACHE_HOME"] = str(folder / "cache")
        install, _ = timed(place, environment, "js")
        book, _ = timed(place, environment, "book")
        test, output = timed(place, environment, "test")
        passed = re.findall(r"(\d+) passed.* in ", output)
        again, _ = timed(place, environment, "book")
        found = {"install": install, "book": book, "test": test, "again": again}
        return found | {
            "tests": float(passed[-1]),
            "disk": size(place / ".venv"),
            "memory": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6,
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def minutes(seconds: float) -> str:
    """Say a duration as people do."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} minutes"


def recorded() -> str:
    """Return what `--status` says of the full profile here."""
    command = [sys.executable, "-m", "companion.experiments", "--status"]
    return subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout


def count(status: str, day: str) -> str:
    """Return README's sentence on the recorded runs."""
    done, missing = map(int, re.search(r"^all +(\d+) +(\d+)", status, re.M).groups())
    return (
        f"Of the {done + missing:,} runs of experiments that are planned for all chapters, {done:,} are "
        f"recorded so far ({day})."
    )


def paragraph(found: dict[str, float], runs: int, machine: str, day: str, commit: str) -> str:
    """Return README's paragraph."""
    clones = "One fresh clone" if runs == 1 else f"Medians of {runs} fresh clones"
    return (
        f"The first `make book` installs ({minutes(found['install'])}, {found['disk']:.1f} GB on disk) "
        f"and then takes {minutes(found['book'])}; again without changes, {minutes(found['again'])}. "
        f"`make test` takes {minutes(found['test'])} for {found['tests']:,.0f} tests, and no process takes "
        f"more than {found['memory']:.1f} GB of memory. ({clones} with nothing compiled before, "
        f"at commit {commit}, on {day}: {machine}.)"
    )


def written(text: str, new: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """Return README with this paragraph in its place."""
    begin, end = marks
    before, rest = text.split(begin)
    return f"{before}{begin}\n{new}\n{end}{rest.split(end)[1]}"


def main(arguments: list[str]) -> int:
    """Measure and write, or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    text = README.read_text("utf8")
    if options.check:
        return (
            0 if all(re.search(f"{begin}\n.+\n{end}", text) for begin, end in ((BEGIN, END), COUNTED)) else 1
        )
    day = datetime.date.today().isoformat()
    text = written(text, count(recorded(), day), COUNTED)
    if options.count:
        README.write_text(text, "utf8")
        return 0
    found = [run() for _ in range(options.runs)]
    for one in found:
        print({name: round(value, 2) for name, value in one.items()}, flush=True)
    middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
    commit = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(commit, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
    new = paragraph(middle, options.runs, processor(), day, commit)
    README.write_text(written(text, new), "utf8")
    print(new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
