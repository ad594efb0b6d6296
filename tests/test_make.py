"""What `make` sets up around its commands: the cache of compiled code, and README's numbers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import compile_cache  # noqa: E402
import measure  # noqa: E402

CPU = """\
processor\t: 0
model name\t: One Chip
flags\t\t: sse avx avx2

processor\t: 1
model name\t: One Chip
flags\t\t: avx2 sse avx
"""


def cpuinfo(folder, text):
    path = folder / "cpuinfo"
    path.write_text(text)
    return compile_cache.processor(str(path))


def test_processors_of_other_features_share_no_compiled_code(tmp_path):
    one, same, less, other = (
        compile_cache.folder(cpuinfo(tmp_path, text), home="home")
        for text in (
            CPU,
            CPU.replace("sse avx avx2", "avx avx2 sse").replace("processor\t: 0", "processor\t: 4"),
            CPU.replace("sse avx avx2", "sse avx"),
            CPU.replace("One", "Other"),
        )
    )
    assert one == same
    assert len({one, less, other}) == 3
    assert one.parent == Path("home/ntk-robustness/compiled")


def test_an_unknown_processor_has_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compile_cache.processor(str(tmp_path / "missing")) == ""
    assert compile_cache.folder("") is None


def test_a_cache_that_outgrew_its_bound_loses_its_oldest_entries(tmp_path):
    for age in range(6):
        path = tmp_path / f"entry{age}"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    compile_cache.prune(tmp_path, most=600)
    assert len(list(tmp_path.iterdir())) == 6
    compile_cache.prune(tmp_path, most=599)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry0", "entry1"]


def test_make_exports_the_cache_unless_one_is_named(tmp_path):
    def said(**environment):
        command = ["make", "-pn", "help"]
        clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        done = subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("JAX_COMPILATION_CACHE_DIR")]
        return lines[0].split("=")[1].strip()

    assert said(JAX_COMPILATION_CACHE_DIR="elsewhere") == "elsewhere"
    own = compile_cache.folder()
    assert Path(said(XDG_CACHE_HOME=str(tmp_path)).removeprefix(f"{tmp_path}/")).name == (
        own.name if own else ""
    )


def test_readme_has_a_place_for_what_is_measured():
    assert measure.main(["--check"]) == 0


def test_measured_numbers_replace_those_before():
    seconds = {"install": 61.0, "book": 330.0, "test": 270.0, "again": 7.0}
    found = seconds | {"tests": 1234.0, "disk": 1.2, "memory": 3.0}
    new = measure.paragraph(found, 3, "a machine", "2026-01-01", "abc1234")
    assert "61 s, 1.2 GB" in new
    assert "5.5 minutes; again without changes, 7 s. `make test` takes 4.5 minutes for 1,234 tests" in new
    text = f"before\n{measure.BEGIN}\nold\n{measure.END}\nafter\n"
    assert measure.written(text, new) == f"before\n{measure.BEGIN}\n{new}\n{measure.END}\nafter\n"


def test_counted_runs_replace_those_before():
    status = "experiment  done  missing\nattacks  12  0  0.5  0.0\nall     1370     1798     3.8    10.8\n"
    new = measure.count(status, "2026-01-01")
    assert "Of the 3,168 runs" in new
    assert "for all chapters, 1,370 are recorded so far (2026-01-01)" in new
    begin, end = measure.COUNTED
    assert (
        measure.written(f"a\n{begin}\nold\n{end}\nb\n", new, measure.COUNTED)
        == f"a\n{begin}\n{new}\n{end}\nb\n"
    )


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0], ids=["whole", "half", "empty"])
def test_an_entry_that_is_being_written_is_compiled_again(tmp_path, share):
    """A reader that meets half an entry gets the right result, and no warning that would end a test."""
    code = (
        "import jax, jax.numpy as jnp, sys, pathlib, warnings\n"
        "warnings.simplefilter('error')\n"
        "warnings.filterwarnings('ignore', 'Error reading persistent compilation cache entry')\n"
        "f = jax.jit(lambda x: jnp.sin(x) @ x)\n"
        "print(float(f(jnp.ones(3))))\n"
        "entries = list(pathlib.Path(sys.argv[1]).glob('*-cache'))\n"
        "for path in entries:\n"
        "    data = path.read_bytes()\n"
        "    path.write_bytes(data[:int(len(data) * float(sys.argv[2]))])\n"
        "jax.clear_caches()\n"
        "print(float(f(jnp.ones(3))), len(entries))\n"
    )
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-c", code, str(tmp_path), str(share)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second, entries = map(float, done.stdout.split())
    assert first == second == pytest.approx(3 * 0.8414709848)
    assert entries >= 1
