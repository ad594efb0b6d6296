"""Make .venv for one Python, with the versions of requirements.lock; do nothing when it is up to date.

Usage: python3 tools/make_venv.py [.venv]      (stdlib only; any Python 3.6 or later can read this file)
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 11), (3, 13)
VERSION = sys.version.split()[0]
CLEAN = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}


def problem_with(version, modules_missing):
    """Say what is wrong with this Python, or return an empty string."""
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        return f"this is Python {version[0]}.{version[1]}, and the book needs Python 3.11, 3.12 or 3.13"
    if modules_missing:
        return (
            f"this Python lacks {' and '.join(modules_missing)} "
            f"(on Debian or Ubuntu: apt install python{version[0]}.{version[1]}-venv)"
        )
    return ""


def missing_modules():
    """Return which of the modules that make a virtual environment this Python lacks."""
    missing = []
    for name in ("venv", "ensurepip"):
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    return missing


def other_pythons():
    """Return the names of the Pythons on PATH that would do, each tried by running it."""
    good = []
    test = f"import sys, venv, ensurepip; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        name = f"python3.{minor}"
        if shutil.which(name):
            done = subprocess.run([name, "-c", test], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            good += [name] if done.returncode == 0 else []
    return good


def wanted_stamp():
    """Return what the environment depends on: the Python, this folder, the lock and pyproject.toml."""
    digest = hashlib.sha256()
    for name in ("requirements.lock", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return f"{VERSION}\n{ROOT}\n{digest.hexdigest()}\n"


def must_be_made(folder, stamp):
    """Say whether the folder holds no environment, a broken one, or one of another Python or place."""
    settings, old = folder / "pyvenv.cfg", folder / ".stamp"
    if not settings.exists() or f"version = {VERSION}\n" not in settings.read_text("utf8"):
        return True
    if old.exists() and old.read_text("utf8").split("\n")[:2] != stamp.split("\n")[:2]:
        return True
    test = [str(folder / "bin" / "python"), "-c", "import pip"]
    try:
        return bool(subprocess.run(test, env=CLEAN, stderr=subprocess.DEVNULL).returncode)
    except OSError:
        return True


def run(*command):
    """Run one command here, and stop with its words when it fails."""
    done = subprocess.run(command, cwd=ROOT, env=CLEAN)
    if done.returncode:
        sys.exit(f"This step failed: {' '.join(map(str, command))}")


def install(folder, stamp):
    """Make the environment if it is missing or another Python's, and install everything into it."""
    started = time.time()
    if must_be_made(folder, stamp):
        print(f"==> Making {folder.name} with Python {VERSION} (about 5 s)", flush=True)
        run(sys.executable, "-m", "venv", "--clear", str(folder))
    print(
        "==> Installing the versions of requirements.lock (the first time a minute and 1.5 GB of disk)",
        flush=True,
    )
    pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
    # Not compiled: that is most of the time, and of most packages little is ever imported.
    run(*pip, "install", "-qq", "--no-compile", "--no-deps", "--requirement", "requirements.lock")
    run(*pip, "install", "-qq", "--no-deps", "--no-build-isolation", "--editable", ".")
    (folder / ".stamp").write_text(stamp, "utf8")
    print(f"    done in {time.time() - started:.0f} s")


def main():
    """Check this Python, then make or refresh the environment."""
    wrong = problem_with(sys.version_info, missing_modules())
    if wrong:
        others = other_pythons()
        cure = f"Try: make PYTHON={others[0]} book" if others else "Install one of these."
        sys.exit(f"{sys.executable}: {wrong}.\n{cure}")
    folder = ROOT / (sys.argv[1] if len(sys.argv) > 1 else ".venv")
    stamp = wanted_stamp()
    if (folder / ".stamp").exists() and (folder / ".stamp").read_text("utf8") == stamp:
        return
    install(folder, stamp)


if __name__ == "__main__":
    main()
