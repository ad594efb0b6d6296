"""A Gram matrix on disk, in little memory, killed at will: `python benchmarks/large_gram.py`.

Prints the seconds and the peak memory (VmHWM, which counts the pages of the file that are in memory) of an FC
kernel written to a folder. With `--kill 5` the same is run in processes of their own: once undisturbed, then
killed at five random moments and finished; the bytes of the two files must be equal.
"""

import argparse
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from companion.architectures import fc
from companion.kernels import gram, plan
from companion.storage import _store


def main():
    """Read the options, and run once or many times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=20_000, help="inputs (20000)")
    parser.add_argument("--d", type=int, default=784, help="numbers in an input (784)")
    parser.add_argument("--depth", type=int, default=3, help="hidden layers (3)")
    parser.add_argument("--out", type=Path, help="folder to fill or to go on with (a temporary one)")
    parser.add_argument("--kill", type=int, default=0, metavar="TIMES", help="kill so often, then compare")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs and the moments (0)")
    parser.add_argument("--marks", type=float, default=2.0, metavar="SECONDS", help="between marks (2)")
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    options = parser.parse_args()
    if options.toy:
        options.n, options.d, options.depth = 40, 8, 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        if options.kill:
            kill(options, folder)
        else:
            once(options, folder)


def once(options, folder):
    """Compute the matrix here, and say what it took."""
    x = np.random.default_rng(options.seed).random((options.n, options.d), np.float32)
    architecture = fc(options.depth)
    # Often enough for the moments of --kill to fall between marks.
    _store.SECONDS_BETWEEN_MARKS = options.marks
    print(plan(architecture, x), flush=True)
    start = time.perf_counter()
    gram(architecture, x, out=folder, progress=sys.stderr.isatty())
    print(f"{time.perf_counter() - start:.1f} s, peak memory {peak_memory()}")


def kill(options, folder):
    """Compare the file of an undisturbed run with one whose writer was killed again and again."""
    command = [sys.executable, __file__, "--marks", "0.2"]
    for name in ("n", "d", "depth", "seed"):
        command += [f"--{name}", str(getattr(options, name))]
    chance = random.Random(options.seed)
    start = time.perf_counter()
    subprocess.run([*command, "--out", folder / "undisturbed"], check=True)
    whole = time.perf_counter() - start
    wanted, killed = digest(folder / "undisturbed"), 0
    while killed < options.kill:
        process = subprocess.Popen([*command, "--out", folder / "killed"], stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(0, whole))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            killed += 1
            print(f"killed, with {finished(folder / 'killed')} tiles finished", flush=True)
        else:
            compare(wanted, folder / "killed")
            shutil.rmtree(folder / "killed")
    subprocess.run([*command, "--out", folder / "killed"], check=True)
    compare(wanted, folder / "killed")


def compare(wanted, folder):
    """Stop with an error where the bytes are not those of the undisturbed run."""
    got = digest(folder)
    if got != wanted:
        raise SystemExit(f"the bytes differ: {got}, undisturbed {wanted}")
    print(f"complete, the same bytes: {got}", flush=True)


def finished(folder):
    """Count the tiles that are marked as done, of all: "3 of 10"."""
    if not (folder / "done.npy").exists():
        return "no"
    done = np.load(folder / "done.npy")
    return f"{done.sum()} of {done.size}"


def digest(folder):
    """Hash the matrix in a folder."""
    with (folder / "kernel.npy").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def peak_memory():
    """Read the most memory this process ever held."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        return "unknown here"
    held = {line.split(":")[0]: int(line.split()[1]) / 1e6 for line in lines if line.endswith(" kB")}
    return f"{held['VmHWM']:.2f} GB (now {held['RssAnon']:.2f} GB its own, {held['RssFile']:.2f} GB files)"


if __name__ == "__main__":
    main()
