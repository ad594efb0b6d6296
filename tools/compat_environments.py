"""For tools/compat.py: find the Pythons of this machine, and make the environment for a version of jax."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "compat"
PYTHONS = ((3, 11), (3, 12), (3, 13))
# With --no-deps, as everywhere: its dependencies are TensorFlow's.
NEURAL_TANGENTS = "neural-tangents==0.6.5"
EXTRAS = ("absl-py", "ipykernel", "nbclient")  # neural-tangents' own tests; the notebooks
UNUSED = ("playwright", "ruff")  # of the test extra: they do not depend on jax


def locked() -> dict[str, str]:
    """Return the versions of requirements.lock by normalized name."""
    lines = (ROOT / "requirements.lock").read_text("utf8").split()
    return {normalized(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}


def normalized(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints(jax: str, pins: str) -> str:
    """Return the text of pip's constraints: the lock, jax, then the row's own pins."""
    versions = locked() | {"jax": jax, "jaxlib": jax}
    versions |= {normalized(name): version for name, version in (pin.split("==") for pin in pins.split())}
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def requirements() -> list[str]:
    """Return what the tests need: companion's dependencies, its extras and those of the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    parts = project["optional-dependencies"]
    wanted = [*project["dependencies"], *EXTRAS]
    wanted += [line for part in ("data", "networks", "nt", "plots", "test") for line in parts[part]]
    return [r for r in wanted if re.split(r"[^\w.-]", r)[0] not in UNUSED]


def python_at(path: str) -> tuple[int, int] | None:
    """Return the version of the CPython at `path` if it runs and can make environments."""
    code = (
        "import sys, venv, ensurepip; print(sys.implementation.name, *sys.version_info[:2], "
        "getattr(sys, '_is_gil_enabled', lambda: True)())"
    )
    try:
        done = subprocess.run([path, "-I", "-c", code], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    if done.returncode or len(words) != 4 or words[0] != "cpython" or words[3] != "True":
        return None
    return int(words[1]), int(words[2])


def find_pythons() -> dict[tuple[int, int], str]:
    """Return one working Python for each supported version: this one, PATH's, then version managers'."""
    home = Path.home()
    folders = [
        Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions",
        Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python")),
        Path(os.environ.get("ASDF_DATA_DIR", home / ".asdf")) / "installs/python",
    ]
    names = [f"python{major}.{minor}" for major, minor in PYTHONS]
    candidates = [sys.executable, *filter(None, map(shutil.which, names))]
    for folder in folders:
        candidates += [str(path) for name in names for path in sorted(folder.glob(f"*/bin/{name}"))]
    found: dict[tuple[int, int], str] = {}
    for path in candidates:
        version = python_at(path)
        if version in PYTHONS:
            found.setdefault(version, path)
    return found


def run(command: list, **variables: str) -> subprocess.CompletedProcess:
    """Run a command in the repository, its output kept; companion and its tests come from here."""
    # REQUIRE_ALL too: a test may skip on an old version for a good reason, and the table counts it.
    drop = {"PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS", "MPLBACKEND", "VIRTUAL_ENV", "REQUIRE_ALL"}
    drop |= {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}  # pip compiles nothing: what is imported is
    env = {key: value for key, value in os.environ.items() if key not in drop}
    env |= {"PYTHONPATH": str(ROOT), "CHECK_ANNOTATIONS": "0"}  # tests/conftest.py says why
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=env | variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def environment(jax: str, pins: str, python: str, version: tuple[int, int]) -> Path:
    """Return the Python of a row's environment, made now unless its folder is complete and unchanged."""
    folder = CACHE / f"{jax}-py{version[0]}.{version[1]}"
    executable, stamp = folder / "bin" / "python", folder / ".complete"
    text, wanted = constraints(jax, pins), requirements()
    key = hashlib.sha256("\n".join([text, *wanted, NEURAL_TANGENTS]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text("utf8") == key and python_at(str(executable)) == version:
        return executable
    print(f"making {folder.relative_to(ROOT)} ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    listed = folder.parent / f"{folder.name}.constraints.txt"
    listed.write_text(text, "utf8")
    # Compiling all of it is four fifths of the time of installation, and a tenth of it is ever imported.
    pip = [
        executable,
        "-m",
        "pip",
        "install",
        "--no-compile",
        "--progress-bar=off",
        "--disable-pip-version-check",
    ]
    for command in (
        [python, "-m", "venv", folder],
        [*pip, "--constraint", listed, *wanted],
        [*pip, "--no-deps", NEURAL_TANGENTS],
    ):
        done = run(command)
        if done.returncode:
            raise RuntimeError(f"failed: {' '.join(map(str, command))}\n{done.stdout}")
    stamp.write_text(key, "utf8")
    return executable
