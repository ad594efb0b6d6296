"""Fetch the JavaScript that the book serves itself (MathJax, the slider player), and axe-core for tests.

Usage: python tools/vendor_js.py     fetch what is missing into .cache/vendor; 0 even where npm cannot.

Each package comes from npm as one archive whose SHA-256 is written below; a wrong one is thrown away.
`tools/book_assets.py` points the book at `.cache/vendor/static/vendor` where it is complete, and at the
same versions on a content network where it is not.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
STATIC = CACHE / "vendor" / "static"
CDN = "https://cdn.jsdelivr.net/npm/"


@dataclass(frozen=True)
class Package:
    """One npm package: what to take out of its archive, where it goes, and its checksum."""

    name: str
    version: str
    sha256: str
    target: Path
    strip: str
    keep: tuple[str, ...]
    proof: str


PACKAGES = (
    Package(
        name="mathjax",
        version="3.2.2",
        sha256="1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09",
        target=STATIC / "vendor" / "mathjax",
        strip="es5/",
        # sre and a11y: the reading aids of MathJax's own menu, in English and Nemeth braille.
        keep=(
            "LICENSE",
            "es5/tex-chtml.js",
            "es5/a11y/",
            "es5/input/tex/extensions/",
            "es5/output/chtml/fonts/woff-v2/",
            "es5/sre/mathmaps/base.json",
            "es5/sre/mathmaps/en.json",
            "es5/sre/mathmaps/nemeth.json",
        ),
        proof="tex-chtml.js",
    ),
    Package(
        name="@jupyter-widgets/html-manager",
        version="1.0.15",
        sha256="2b9d65cb7913e1c7d671757a10008b32c9c2448d4429513371e55c07d6107638",
        target=STATIC / "vendor" / "widgets",
        strip="dist/",
        keep=("dist/embed.js", "dist/embed.js.LICENSE.txt", "dist/*.woff2"),
        proof="embed.js",
    ),
    Package(
        name="axe-core",
        version="4.14.1",
        sha256="e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745",
        target=CACHE / "vendor" / "axe-core",
        strip="",
        keep=("axe.min.js", "LICENSE"),
        proof="axe.min.js",
    ),
)
MATHJAX, WIDGETS, AXE = PACKAGES


def version_line(package: Package) -> str:
    """Return what a fetched copy is known by: its archive, and what was taken out of it."""
    return f"{package.sha256} {' '.join(package.keep)}"


def is_here(package: Package) -> bool:
    """Say whether this very version is in place."""
    stamp = package.target / ".version"
    current = stamp.exists() and stamp.read_text("utf8") == version_line(package)
    return current and (package.target / package.proof).exists()


def wanted(package: Package, member: str) -> PurePosixPath | None:
    """Return where an archive member goes, relative to the target, or None when it is not wanted."""
    inner = member.removeprefix("package/")
    folder = any(pattern.endswith("/") and inner.startswith(pattern) for pattern in package.keep)
    name = any(not pattern.endswith("/") and fnmatchcase(inner, pattern) for pattern in package.keep)
    return PurePosixPath(inner.removeprefix(package.strip)) if folder or name else None


def unpack(package: Package, archive: Path, target: Path) -> None:
    """Check the archive, then write the wanted files, and only those, under `target`.

    Raises:
        ValueError: the archive is not the one whose checksum is written above, or a file is missing in it.
    """
    got = hashlib.sha256(archive.read_bytes()).hexdigest()
    if got != package.sha256:
        raise ValueError(f"{package.name} {package.version}: SHA-256 is {got}, wanted {package.sha256}")
    with tarfile.open(archive) as tar:
        for member in tar:
            place = wanted(package, member.name)
            if place is None or not member.isfile() or ".." in place.parts:
                continue
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (target / place).write_bytes(tar.extractfile(member).read())
    if not (target / package.proof).exists():
        raise ValueError(f"{package.name} {package.version}: the archive holds no {package.proof}")
    (target / ".version").write_text(version_line(package), "utf8")


def fetch(package: Package, npm: str) -> None:
    """Fetch one package with npm and put it in place in one move.

    Raises:
        OSError: npm failed; its last words are in the message.
        ValueError: see `unpack`.
    """
    package.target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=package.target.parent) as folder:
        settings = {"cache": f"{folder}/npm", "update_notifier": "false"}
        settings |= {"fetch_retries": "1", "fetch_retry_mintimeout": "1000", "fetch_timeout": "60000"}
        done = subprocess.run(
            [npm, "pack", "--ignore-scripts", f"{package.name}@{package.version}"],
            cwd=folder,
            env=os.environ | {f"npm_config_{key}": value for key, value in settings.items()},
            capture_output=True,
            text=True,
            timeout=240,
        )
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            lines = [line for line in done.stderr.splitlines() if "npm warn" not in line.lower()]
            raise OSError(lines[-1] if lines else f"npm pack ended with {done.returncode}")
        fresh = Path(folder) / "fresh"
        unpack(package, archives[0], fresh)
        shutil.rmtree(package.target, ignore_errors=True)
        fresh.rename(package.target)


def main() -> int:
    """Fetch what is missing; where that fails, print one line and leave the book to its fall-back."""
    missing = [package for package in PACKAGES if not is_here(package)]
    npm = shutil.which("npm")
    if missing and not npm:
        print("    npm is not here: pages will load MathJax and the slider player from cdn.jsdelivr.net")
        return 0
    for package in missing:
        try:
            fetch(package, npm)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            print(f"    {package.name} not fetched ({error}): pages will load scripts from cdn.jsdelivr.net")
            # What kept npm from one package keeps it from the others: no second wait, no second line.
            break
        print(f"    fetched {package.name} {package.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
