"""Every benchmark runs: at its smallest sizes, in a process of its own. What it measures is not looked at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.mark.matrix
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
