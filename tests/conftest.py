"""Checks that every test runs under: shapes and types checked, and float64 where a test asks for it."""

import os

import jaxtyping
from jaxtyping import install_import_hook

# Before anything imports companion: its jaxtyping annotations are checked by beartype in tests only.
install_import_hook("companion", "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture
def x64():
    """Run one test in float64, as the oracles need, and put the setting back."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def as_users_run():
    """Switch the annotations' checker off for one test, to meet companion's own errors as a user does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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
    """Do the same for a whole file that skips itself."""
    report = yield
    if report.outcome == "skipped" and os.environ.get("REQUIRE_ALL") == "1":
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
