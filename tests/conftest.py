"""Checks that every test runs under: shapes and types checked, and float64 where a test asks for it."""

import contextlib
import gc
import itertools
import os
import re
import sys
import zlib
from pathlib import Path

import jaxtyping
from jaxtyping import install_import_hook

# Before anything imports companion: its jaxtyping annotations are checked by beartype in tests only. `make
# compat` switches that off: annotations are the same on every JAX, and checking them is a fifth of the time.
CHECKER = "annotations.checked" if os.environ.get("CHECK_ANNOTATIONS", "1") != "0" else None
install_import_hook("companion", CHECKER)

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# Tracing makes many objects that live long: fewer, later collections take an eighth off the time of tests.
gc.set_threshold(200_000, 20, 20)


def pytest_collection_finish():
    """Leave what is imported and collected out of every later collection."""
    gc.collect()
    gc.freeze()


def _share_contexts(programs=200):
    """Let so many programs be lowered in one context of MLIR; JAX makes one each: a fifth of the tests' time.

    Not for the whole session: a context keeps the constants of all its programs.
    """
    from jax._src.interpreters import mlir

    own, used, shared = mlir.make_ir_context, itertools.count(), []

    def make_ir_context():
        if next(used) % programs == 0:
            shared[:] = [own()]
        return shared[0]

    mlir.make_ir_context = make_ir_context


# As with optimization: where rounding and speed are the users', this is too (`OPTIMIZED=1`, the newest JAX).
if jax.config.read("jax_disable_most_optimizations"):
    _share_contexts()


@pytest.fixture
def x64():
    """Run one test in float64, as the oracles need, and put the setting back."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@contextlib.contextmanager
def _optimizing(wanted):
    """Whether XLA optimizes for a while; what was compiled otherwise is compiled again."""
    before = jax.config.read("jax_disable_most_optimizations")
    if before != wanted:  # it does already, or does not
        yield
        return
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", not wanted)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()


@pytest.fixture(scope="module")
def unoptimized():
    """Compile one file without optimization, in less time: where definitions are tested, not speed."""
    with _optimizing(False):
        yield


@pytest.fixture
def optimized():
    """Compile one test with optimization: where rounding must be what users have."""
    with _optimizing(True):
        yield


@pytest.fixture
def plain_settings():
    """Put matplotlib's settings back after a test."""
    import matplotlib as mpl

    with mpl.rc_context():
        yield


@pytest.fixture
def made(monkeypatch):
    """What a player is made of: its functions `draw` and `alt` and its settings; no frame is drawn."""
    from drawings import keep_players

    return keep_players(monkeypatch)


@pytest.fixture
def as_users_run():
    """Switch the annotations' checker off for one test, to meet companion's own errors as a user does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def browser():
    """A browser for pages; where there is none, the tests say so."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
    import browse

    executable = browse.find_browser()
    if executable is None:
        pytest.skip("no Chromium or Chrome on the PATH, and CHROMIUM names none: no page was looked at")
    with browse.open_browser(executable) as opened:
        yield opened


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With REQUIRE_ALL=1, as in .ci/run, make a check that did not run a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("REQUIRE_ALL") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome, report.longrepr = "failed", f"REQUIRE_ALL=1, and this did not run. {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Do the same for a whole file that skips itself, but where a command of its own runs it."""
    report = yield
    elsewhere = "`make torch` runs this" in str(report.longrepr)
    if report.outcome == "skipped" and os.environ.get("REQUIRE_ALL") == "1" and not elsewhere:
        report.outcome, report.longrepr = "failed", f"REQUIRE_ALL=1, and this did not run. {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter):
    """Say plainly, at the end, which checks did not run and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = {}
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid.split("::")[0])
    if reasons:
        terminalreporter.section("checks that did NOT run")
    for reason, names in reasons.items():
        terminalreporter.line(f"{len(names)} in {', '.join(sorted(set(names)))}: {reason}")


# Drawn cases: the same ones every time, however slow the machine. Nothing is left in the folder.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


# Names of tests: short, readable, the same in every process


def name_of(value):
    """The words and numbers of a parameter's value; of what has none, its kind."""
    if isinstance(value, str):
        plain = re.fullmatch(r"[\w ,.:;=+*/%'()-]{1,28}", value)
        return value if plain else "_".join(re.findall(r"\w[\w.]*", value))[:28] or "nothing"
    if value is None or isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ",".join(f"{name_of(key)}={name_of(each)}" for key, each in value.items())[:28] or "nothing"
    if isinstance(value, list | tuple | range):
        return ",".join(map(name_of, value))[:28] or "nothing"
    if isinstance(value, set | frozenset):
        return name_of(sorted(value))
    if isinstance(value, np.ndarray):
        return "x".join(map(str, value.shape))
    names = (getattr(value, "__name__", None), getattr(value, "name", None), type(value).__name__)
    return name_of(next(name for name in names if isinstance(name, str)).strip("<>"))


def pytest_make_parametrize_id(config, val, argname):
    """Name a case by what is in it, never by its place in the list, an address or bytes."""
    return name_of(val)


# One case of each test


def pytest_addoption(parser):
    """Offer a run of every test function, but with one of its cases."""
    parser.addoption(
        "--one-each",
        action="store_true",
        help="of each parametrized test one case, by its name; all where each case is a thing of its own",
    )


def one_each(items):
    """Of each test function one item: always the same, and in functions of equal cases not the same case.

    A test marked `each` keeps all its items: a benchmark that runs says nothing of another.
    """
    cases, kept = {}, []
    for item in items:
        if item.get_closest_marker("each"):
            kept.append(item)
        else:
            cases.setdefault(item.nodeid.split("[")[0], []).append(item)
    return kept + [each[zlib.crc32(name.encode()) % len(each)] for name, each in cases.items()]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Keep one case of each test where that is asked, after what is marked otherwise is out."""
    if config.getoption("--one-each"):
        kept = set(one_each(items))
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


COLLECTED = pytest.StashKey()


def pytest_itemcollected(item):
    """Keep every test, in the order in which they were found, before any is left out or moved."""
    item.config.stash.setdefault(COLLECTED, []).append(item)


@pytest.fixture(scope="session")
def collected(request):
    """All tests that this process has found, in order."""
    return request.config.stash[COLLECTED]
