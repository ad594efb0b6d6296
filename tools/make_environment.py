"""Write environment.yml, for conda, from requirements.lock.

Usage: python tools/make_environment.py
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# For conda users; made from requirements.lock by tools/make_environment.py (make test compares them).
#
#   conda env create -f environment.yml
#   conda activate ntk-robustness
#   pip install --no-deps {neural_tangents} -e .
#
# The third line is apart because pip reads the list below with dependencies, and neural-tangents names
# TensorFlow as one, which nothing here needs. A pip list cannot carry --no-deps for one package.
name: ntk-robustness
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=3.12
  - pip
  - pip:
"""


def environment(lock: str) -> str:
    """Return environment.yml for the text of a lock file."""
    pins = [line for line in lock.splitlines() if line and not line.startswith("#")]
    apart = next(pin for pin in pins if pin.startswith("neural-tangents=="))
    return HEAD.format(neural_tangents=apart) + "".join(f"      - {pin}\n" for pin in pins if pin != apart)


if __name__ == "__main__":
    lock = (ROOT / "requirements.lock").read_text("utf8")
    (ROOT / "environment.yml").write_text(environment(lock), "utf8")
