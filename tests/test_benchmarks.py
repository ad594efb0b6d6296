"""Every benchmark runs: at its smallest sizes, in a process of its own. What it measures is not looked at."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


def test_tricks_replace_what_exists(monkeypatch):
    # A name that moved fails here, in seconds, and not only where the benchmark runs.
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    modules = importlib.import_module("_tricks").MODULES
    sources = "".join((ROOT / "benchmarks" / name).read_text() for name in ("_tricks.py", "tricks.py"))
    replaced = re.findall(r'"([a-z]+)\.([A-Za-z_]+)":', sources)
    assert len(replaced) > 10
    assert [pair for pair in replaced if not hasattr(modules[pair[0]], pair[1])] == []


@pytest.mark.matrix
@pytest.mark.each
@pytest.mark.parametrize("name", NAMES)
def test_benchmark_runs_and_records_nothing(name):
    before = sorted((ROOT / "book" / "results").rglob("*"))
    # Nor is what it compiles made fast: that would be a third of the time.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--toy"]
    done = subprocess.run(command, env=environment, text=True, stdout=-1, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    assert done.stdout
    assert sorted((ROOT / "book" / "results").rglob("*")) == before
