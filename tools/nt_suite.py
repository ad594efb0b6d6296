"""Run neural-tangents' own tests on this JAX, with companion's repairs, and compare the counts with ours.

Usage: python tools/nt_suite.py [--source FOLDER] [--files predict rules ...] [--timeout SECONDS]

The tests come from the library's source distribution, fetched by pip into .cache/nt-suite, or from a
checkout of v0.6.5. One process for each file, one after the other; all of them take about an hour on two
cores. Exits with 1 when a count differs from the table. None of the library's code is kept in this
repository.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "nt-suite"
RELEASE = "neural-tangents==0.6.5"
HELPERS = ("absl-py", "more-itertools")  # what the tests import beside the library
# File: (passed, skipped), as on jax 0.4.25 without any repair. The skips are the library's own, most of them
# where a random draw of the parameters repeats a case; they are the same on every version of jax.
EXPECTED = {
    "tests/rules_test.py": (4, 2),
    "tests/monte_carlo_test.py": (12, 0),
    "tests/batching_test.py": (19, 1),
    "tests/predict_test.py": (23, 0),
    "tests/empirical_test.py": (17, 15),
    "tests/stax/combinators_test.py": (6, 0),
    "tests/stax/requirements_test.py": (7, 4),
    "tests/stax/elementwise_test.py": (27, 7),
    "tests/stax/linear_test.py": (7, 24),
    "tests/stax/stax_test.py": (13, 13),
}
SETTINGS = {
    # Two random draws for each parameterized test: the counts above hold for this number.
    "NT_NUM_GENERATED_CASES": "2",
    # The tests' Monte Carlo tolerances were tuned to the random bits of JAX before 0.5.
    "JAX_THREEFRY_PARTITIONABLE": "0",
}


def fetch_source() -> Path:
    """Return the unpacked source distribution, downloaded by pip unless it is there."""
    folder = CACHE / "source"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
        # With setuptools here, pip need not fetch a build environment to read the package's name.
        pip += ["--no-binary", ":all:", "--no-build-isolation", "--dest", str(CACHE), RELEASE]
        done = subprocess.run(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(f"{done.stdout}\npip could not fetch {RELEASE}; give a checkout of v0.6.5 with --source")
        archive = next(CACHE.glob("neural*tangents-0.6.5.tar.gz"))
        unpacked = CACHE / "unpacking"
        shutil.rmtree(unpacked, ignore_errors=True)
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        next(unpacked.iterdir()).rename(folder)
    return folder


def helper_path() -> list[str]:
    """Return folders for sys.path that hold what the tests need and this environment lacks."""
    missing = [name for name in HELPERS if not is_installed(name)]
    folder = CACHE / "packages"
    if missing and not all(is_installed(name, folder) for name in missing):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", str(folder), *missing], check=True)
    return [str(folder)] if missing else []


def is_installed(name: str, folder: Path | None = None) -> bool:
    """Say whether a distribution is installed here, or in `folder`."""
    places = {"path": [str(folder)]} if folder else {}
    return any(importlib.metadata.distributions(name=name, **places))


def run_file(source: Path, name: str, extra: list[str], timeout: int) -> tuple[dict[str, int], str]:
    """Run one test file in its own process; return its counts and its output."""
    report = CACHE / "report.json"
    report.unlink(missing_ok=True)
    report.parent.mkdir(parents=True, exist_ok=True)
    # The library's `tests` is found before ours, which is no package.
    path = os.pathsep.join([str(source), str(ROOT), *extra])
    command = [sys.executable, __file__, "--inside", str(source / name), str(report)]
    env = os.environ | SETTINGS | {"PYTHONPATH": path}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": timeout}
    try:
        output = subprocess.run(command, cwd=source, env=env, **options).stdout
    except subprocess.TimeoutExpired:
        output = f"stopped after {timeout} s"
    counts = json.loads(report.read_text("utf8")) if report.exists() else {}
    return {key: counts.get(key, 0) for key in ("passed", "skipped", "failed")}, output


def inside(file: str, report: str) -> int:
    """In the file's own process: load the repaired library, then give the tests the names they import."""
    import jax
    import jax.core
    import jax.extend.core
    import pytest
    from jax.interpreters import ad

    from companion.neural_tangents import nt

    # Removed from JAX and used by the test files themselves, not by the library.
    rules = sys.modules[f"{nt.__name__}._src.utils.rules"].JACOBIAN_RULES
    zeros_like = next(p for p in rules if p is not None and p.name == "zeros_like")
    lent = [(jax, "tree_map", jax.tree.map), (ad, "zeros_like_p", zeros_like)]
    lent += [(jax.core, n, getattr(jax.extend.core, n)) for n in ("Primitive", "Jaxpr", "JaxprEqn", "Var")]
    for module, name, value in lent:
        if name not in vars(module):
            setattr(module, name, value)
    outcomes = {}

    def count(report: pytest.TestReport) -> None:
        # Not the subtests, which some versions of pytest report too.
        if type(report) is pytest.TestReport and (report.when == "call" or not report.passed):
            outcomes[report.nodeid] = report.outcome

    sys.argv = sys.argv[:1]  # absl reads its flags from here
    flags = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={Path.cwd()}", "--tb=short"]
    status = pytest.main([*flags, file], plugins=[types.SimpleNamespace(pytest_runtest_logreport=count)])
    kinds = list(outcomes.values())
    Path(report).write_text(json.dumps({kind: kinds.count(kind) for kind in kinds}), "utf8")
    return status


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="a checkout of neural-tangents v0.6.5")
    parser.add_argument(
        "--files", nargs="+", metavar="NAME", help="only these, such as: predict rules linear"
    )
    parser.add_argument("--timeout", type=int, default=3600, help="seconds for one file (default 3600)")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def chosen_files(names: list[str] | None) -> list[str]:
    """Return the files of the table that `names` stand for."""
    short = {Path(name).name.removesuffix("_test.py"): name for name in EXPECTED}
    unknown = set(names or ()) - set(short)
    if unknown:
        sys.exit(f"--files {' '.join(sorted(unknown))}: known are {', '.join(short)}")
    return [short[name] for name in names or short]


def main(arguments: list[str] | None = None) -> int:
    """Run the files and print the counts beside those expected."""
    options = parse(arguments)
    if options.inside:
        return inside(*options.inside)
    source = (options.source or fetch_source()).resolve()
    files = chosen_files(options.files)
    missing = [name for name in files if not (source / name).exists()]
    if missing:
        sys.exit(f"{source} has no {missing[0]}: give a checkout of neural-tangents v0.6.5 with --source")
    extra = helper_path()
    print(f"jax {importlib.metadata.version('jax')}, {RELEASE}", flush=True)
    print(f"{'file':<34} {'passed':>7} {'skipped':>8} {'failed':>7} {'expected':>9} {'seconds':>8}")
    differ = 0
    for name in files:
        started = time.time()
        counts, output = run_file(source, name, extra, options.timeout)
        wanted = EXPECTED[name]
        same = tuple(counts.values()) == (*wanted, 0)
        differ += not same
        cells = [*counts.values(), f"{wanted[0]}/{wanted[1]}", f"{time.time() - started:.0f}"]
        print("{:<34} {:>7} {:>8} {:>7} {:>9} {:>8}".format(name, *cells), flush=True)
        if not same:
            print(output[-12000:])
    print(f"{len(files) - differ} passed, {differ} failed")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
