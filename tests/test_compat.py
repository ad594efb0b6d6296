"""Which tests run on other versions of JAX: all of them, but for a short list with a reason each."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from conftest import one_each

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import compat  # noqa: E402


def test_a_new_test_file_is_run_by_itself(tmp_path):
    (tmp_path / "tests" / "kernels").mkdir(parents=True)
    for name in ("test_new.py", "kernels/test_newer.py", "test_book.py", "oracles.py"):
        (tmp_path / "tests" / name).touch()
    assert compat.all_tests(tmp_path) == ["tests/kernels/test_newer.py", "tests/test_new.py"]


def test_what_is_left_out_is_there_and_none_of_it_asks_jax():
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(compat.LEFT_OUT) <= set(files)
    for name in compat.LEFT_OUT:
        assert not re.search(r"^\s*(import|from) (jax|companion)\b", files[name].read_text("utf8"), re.M)
    assert all(compat.LEFT_OUT.values())
    assert compat.parse([]).tests == compat.all_tests()
    brief = compat.parse(["--brief"]).tests
    assert set(compat.all_tests()) - set(brief) == {f"tests/{name}" for name in compat.BRIEFLY_LEFT_OUT}
    for name in compat.BRIEFLY_LEFT_OUT:
        assert not re.search(r"^\s*(import|from) jax\b", files[name].read_text("utf8"), re.M)


def test_notebooks_that_fail_are_counted(tmp_path, monkeypatch, capsys):
    (tmp_path / "book").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "book" / f"{name}.ipynb").touch()
    monkeypatch.setattr(compat, "ROOT", tmp_path)
    # Stands in for the row's Python: fails for one of the notebooks, and says why.
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$3" in *b.ipynb) echo "a cell failed"; exit 1;; esac\n')
    python.chmod(0o755)
    assert compat.run_notebooks(python) == ({"passed": 2, "failed": 1, "skipped": 0}, False)
    printed = capsys.readouterr().out
    assert printed.count("passed") == 2
    assert "a cell failed" in printed


def test_brief_is_one_case_of_each_test_without_optimization_on_colabs_row(tmp_path, monkeypatch, capsys):
    # Stands in for the row's Python: says how it was called.
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "unoptimized: $JAX_DISABLE_MOST_OPTIMIZATIONS" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(compat, "environment", lambda *_: python)
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS", raising=False)
    for row in (compat.ROWS[0], compat.ROWS[-1]):
        for options in ([], ["--brief"]):
            cells, state = compat.one_row(row, {row.pythons[0]: "python3"}, compat.parse(options))
            printed = capsys.readouterr().out
            assert state == "failed"  # nothing was run
            assert ("unoptimized: 1 -m" in printed) == (bool(options) and row is compat.ROWS[0])
            assert ("--one-each" in printed) == bool(options) == ("one case of each test" in cells[-1])


def test_one_case_of_each_test_is_kept_and_not_always_the_first():
    def item(name, *marks):
        return SimpleNamespace(nodeid=name, get_closest_marker=lambda mark: mark if mark in marks else None)

    items = [item(f"a.py::test_{n}[{case}]") for n in range(8) for case in ("l2", "linf")]
    items.append(item("a.py::test_plain"))
    of_their_own = [item(f"a.py::test_of_each[{case}]", "each") for case in range(3)]
    kept = [item.nodeid for item in one_each([*items, *of_their_own])]
    assert kept[:3] == [item.nodeid for item in of_their_own]
    del kept[:3]
    assert [name.split("[")[0] for name in kept] == [
        *(f"a.py::test_{n}" for n in range(8)),
        "a.py::test_plain",
    ]
    assert 1 < sum("linf" in name for name in kept) < 7


def test_one_each_leaves_out_the_other_cases():
    name = "tests/test_statistics.py"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", name]
    both = [
        subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True)
        for more in ([], ["--one-each"])
    ]
    every, some = ([line for line in done.stdout.splitlines() if "::" in line] for done in both)
    assert len(some) == len({line.split("[")[0] for line in every}) < len(every)
