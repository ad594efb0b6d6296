"""The lock, environment.yml and pyproject.toml say the same."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import make_environment  # noqa: E402

LOCK = [
    line for line in (ROOT / "requirements.lock").read_text("utf8").splitlines() if line and line[0] != "#"
]
PINS = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in LOCK}
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text("utf8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]


def pip_section():
    return next(entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def test_conda_brings_python_and_pip_alone():
    named = [entry.split("=")[0] for entry in CONDA["dependencies"] if isinstance(entry, str)]
    assert named == ["python", "pip"]
    python = next(entry for entry in CONDA["dependencies"] if entry.startswith("python="))
    assert python.split("=")[1] in ("3.11", "3.12", "3.13")


def test_the_file_for_conda_is_what_its_tool_writes():
    lock = (ROOT / "requirements.lock").read_text("utf8")
    assert (ROOT / "environment.yml").read_text("utf8") == make_environment.environment(lock)


def test_pip_section_is_the_lock_without_neural_tangents():
    listed = {canonicalize_name(Requirement(line).name): line.split("==")[1] for line in pip_section()}
    assert listed == {name: pin for name, pin in PINS.items() if name != "neural-tangents"}
    comment = (ROOT / "environment.yml").read_text("utf8").split("name:")[0]
    assert f"pip install --no-deps neural-tangents=={PINS['neural-tangents']} -e ." in comment


def test_pip_section_resolves_with_dependencies(tmp_path):
    # All is installed already, so this needs no network: pip checks that no pin excludes another and that
    # no dependency, TensorFlow least of all, is left out of the list.
    if any(installed(name) != pin for name, pin in PINS.items()):
        pytest.skip("the installed versions are not the lock's")
    listed = tmp_path / "requirements.txt"
    listed.write_text("\n".join(pip_section()), "utf8")
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "-r", str(listed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Would install" not in done.stdout


def test_lock_has_versions_and_nothing_else():
    assert len(PINS) == len(LOCK)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in LOCK)


def test_every_dependency_of_the_project_is_locked_within_its_range():
    extras = PROJECT["optional-dependencies"]
    names = ("data", "networks", "nt", "plots", "book", "test")
    for line in [*PROJECT["dependencies"], *(line for name in names for line in extras[name])]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(PINS[canonicalize_name(wanted.name)]), line


def test_neural_tangents_is_the_version_that_companion_wants():
    assert PINS["neural-tangents"] == "0.6.5"
    assert not any(line.startswith("neural-tangents") for line in PROJECT["dependencies"])
