"""The tests' names: the same in every process, at any time and place; short and readable."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

LONGEST = 60
ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = {
    "PYTHONHASHSEED": "12345",
    "LC_ALL": "C",
    "LANG": "C",
    "TZ": "Pacific/Apia",
    "COLUMNS": "40",
    "TERM": "dumb",
    "PYTHON_CPU_COUNT": "7",
    "CHECK_ANNOTATIONS": "0",  # no test is run there: imports are faster
}


def test_names_are_short_and_readable(collected):
    names = {item.nodeid: item.callspec.id for item in collected if hasattr(item, "callspec")}
    faults = [
        test
        for test, name in names.items()
        if len(name) > LONGEST or not name.isprintable() or re.search(r"[\\<>]| at 0x", name)
    ]
    assert not faults, "\n".join(faults)


def test_another_process_finds_the_same_tests_in_the_same_order(collected):
    mine = [item.nodeid for item in collected if isinstance(item, pytest.Function)]
    files = list(dict.fromkeys(name.split("::")[0] for name in mine))
    # It imports jax first, which takes longer than a second: whatever holds the time holds another one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *files], cwd=ROOT, env=environment | ELSEWHERE, capture_output=True, text=True, check=False
    )
    theirs = [line for line in done.stdout.splitlines() if "::" in line]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [name for name in theirs if name in set(mine)] == mine
