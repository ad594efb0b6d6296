"""Build the wheel and use it from an empty environment, outside of this folder, with the core alone.

Usage: python tools/check_wheel.py      Prints the size of the core's environment; stdlib only.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
USE = """
import numpy as np, companion
from companion import attacks, dynamics, features, networks, normalization, regression, statistics
from companion.architectures import conv, fc
from companion.empirical import empirical_ntk
from companion.kernels import gram

rng = np.random.default_rng(0)
x, labels = rng.random((40, 6, 6, 1), np.float32), np.arange(40) % 2
assert gram(conv(1), x).shape == (40, 40)
f = regression.fit(fc(1), x, 2.0 * labels[:, None] - 1)
threat = attacks.Threat("linf", 0.1)
attacked = attacks.pgd(f.at(10.0), x, labels, threat)
assert 0.09 < np.abs(attacked - x).max() <= 0.1 + 1e-6
assert attacks.margin(f(attacked), labels).mean() > attacks.margin(f(x), labels).mean()
assert features.correct_under_attack(f, x[:2], labels[:2], threat, modes=3).shape == (2, 3)
model = networks.from_apply(lambda w, x: x.reshape(len(x), -1) @ w, np.ones((36, 2), np.float32))
assert model.apply(*model.init(np.zeros(2, np.uint32), x), x, False)[0].shape == (40, 2)
try:
    networks.mlp(2)
except ImportError as error:
    assert "pip install 'ntk-robustness[networks] @ git+https://" in str(error), error
else:
    raise AssertionError("companion.networks.mlp needs no extra here")
extras = {"training": "networks", "plots": "plots", "interactive": "plots"}
for room, extra in extras.items():
    try:
        __import__(f"companion.{room}")
    except ImportError as error:
        assert f"pip install 'ntk-robustness[{extra}] @ git+https://" in str(error), (room, error)
    else:
        raise AssertionError(f"companion.{room} needs no extra here")
try:
    __import__("companion.data").data.load("mnist5k")
except ImportError as error:
    assert "pip install 'ntk-robustness[data] @ git+https://" in str(error), error
try:
    gram(fc(1), x, out="kernel.zarr")
except ImportError as error:
    assert "pip install 'ntk-robustness[cluster] @ git+https://" in str(error), error
else:
    raise AssertionError("a Zarr store needs no extra here")
print(companion.__version__, companion.__file__)
"""


def run(*command, cwd, **more):
    """Run a command, and stop with its words when it fails."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env | more, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))[:200]}\n{done.stdout}{done.stderr}")
    return done.stdout


def main():
    """Build, install, use, measure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        source = folder / "source"  # a build leaves files beside what it builds
        shutil.copytree(
            ROOT / "companion", source / "companion", ignore=shutil.ignore_patterns("__pycache__")
        )
        for file in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / file, source)
        run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source, cwd=folder)
        (wheel,) = folder.glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        assert "companion/py.typed" in names
        assert not [n for n in names if not n.startswith(("companion/", "ntk_robustness-"))]
        run(sys.executable, "-m", "venv", folder / "empty", cwd=folder)
        python = folder / "empty" / "bin" / "python"
        before = size(folder / "empty")
        install = (python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-compile")
        run(*install, "--constraint", ROOT / "requirements.lock", wheel, cwd=folder)
        print(run(python, "-c", USE, cwd=folder, JAX_ENABLE_COMPILATION_CACHE="false").strip())
        print(f"the core takes {(size(folder / 'empty') - before) / 1e6:.0f} MB with all that it depends on")


def size(folder):
    """Bytes of the files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    main()
