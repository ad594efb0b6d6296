"""Which tests run on other versions of JAX: all of them, but for a short list with a reason each."""

import re
import sys
from pathlib import Path

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
