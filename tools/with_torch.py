"""Run Python with PyTorch, Equinox and pyautoattack, beside the packages of the Python that runs this.

The environment .cache/torch-py3.x sees those packages and adds the three, so that .venv and the lock stay
without them. pip takes PyTorch from where its own settings say, such as PIP_FIND_LINKS.

Usage: .venv/bin/python tools/with_torch.py {tests, agreement} [arguments for pytest, or the benchmark]
       .venv/bin/python tools/with_torch.py environment      make it, run nothing
"""

import hashlib
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FRAMEWORKS = ("equinox==0.13.8", "pyautoattack==0.2.0", "torch==2.13.0")
TESTS = (
    "tests/test_bring_your_own.py",
    "tests/test_equinox.py",
    "tests/test_torch.py",
    "tests/test_networks.py::test_without_flax_and_optax_all_but_networks_of_flax_and_training_works",
)
COMMANDS = {
    "tests": ("-m", "pytest", *TESTS),
    "agreement": ("benchmarks/autoattack.py", "--record"),
    "environment": ("-c", ""),
}


def environment() -> Path:
    """Return the Python of the environment, made now unless it is complete and unchanged."""
    folder = ROOT / ".cache" / f"torch-py{sys.version_info[0]}.{sys.version_info[1]}"
    executable, stamp = folder / "bin" / "python", folder / ".complete"
    lock, beside = ROOT / "requirements.lock", sysconfig.get_path("purelib")
    key = hashlib.sha256("\n".join([lock.read_text("utf8"), beside, *FRAMEWORKS]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text("utf8") == key:
        return executable
    print(f"==> Making {folder.relative_to(ROOT)} with {', '.join(FRAMEWORKS)}", flush=True)
    started = time.time()
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    (Path(site) / "beside.pth").write_text(f"{beside}\n", "utf8")
    # What is there already stays as it is; the lock keeps pip from other versions.
    pip = [executable, "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-compile"]
    subprocess.run([*pip, "--constraint", lock, *FRAMEWORKS], check=True)
    stamp.write_text(key, "utf8")
    print(f"    done in {time.time() - started:.0f} s")
    return executable


if __name__ == "__main__":
    what, *given = sys.argv[1:] or [""]
    if what not in COMMANDS:
        sys.exit(f"say which: {' or '.join(COMMANDS)}")
    python = environment()
    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.execv(python, [str(python), *COMMANDS[what], *given])
