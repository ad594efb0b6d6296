"""Print the folder in which make's commands share what JAX compiles, one for each kind of processor.

Usage: python tools/compile_cache.py      (stdlib only; any Python 3.6 or later can read this file)

Compiled code may use every feature of the processor that compiled it, and JAX's own key for an entry knows
the version of jaxlib, the flags of XLA and the program, but not the processor: so each has its own folder.
It lies in the user's cache folder, where a fresh clone finds it too. JAX_COMPILATION_CACHE_DIR=... names
another, and JAX_ENABLE_COMPILATION_CACHE=false switches it off.
"""

import hashlib
import os
import platform
import subprocess
from pathlib import Path

MOST_BYTES = 10**9


def processor(cpuinfo="/proc/cpuinfo"):
    """Return what tells processors apart: model and features; an empty string where nothing is known."""
    try:
        lines = Path(cpuinfo).read_text(encoding="utf8").splitlines()
    except OSError:
        try:
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError:
            return ""
        return found.stdout.decode("utf8").strip()
    # Of the first core: all cores that share memory here have the same. "Features" on ARM.
    names = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU part", "Features")
    seen = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in names:
            seen.setdefault(name.strip(), " ".join(sorted(value.split())))
    return "\n".join("{}: {}".format(*item) for item in sorted(seen.items()))


def folder(known=None, home=None):
    """Return the cache folder of this processor, or None where the processor is not known."""
    known = processor() if known is None else known
    if not known:
        return None
    base = home or os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    key = hashlib.sha256((platform.machine() + "\n" + known).encode("utf8")).hexdigest()[:16]
    return Path(base) / "ntk-robustness" / "compiled" / key


def prune(place, most=MOST_BYTES):
    """Delete the oldest entries of a folder that has outgrown `most` bytes, down to half of it."""
    entries = []
    for path in place.glob("*"):
        try:
            state = path.stat()
        except OSError:  # another process was faster
            continue
        entries.append((state.st_mtime, state.st_size, path))
    size = sum(entry[1] for entry in entries)
    if size <= most:
        return
    for _, length, path in sorted(entries):
        try:
            path.unlink()
        except OSError:
            continue
        size -= length
        if size <= most // 2:
            return


def main():
    """Make the folder, keep it small, and print where it is."""
    place = folder()
    if place is None:
        return
    place.mkdir(parents=True, exist_ok=True)
    prune(place)
    print(place)


if __name__ == "__main__":
    main()
