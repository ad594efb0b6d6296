"""Sphinx extension: key the notebook cache on the companion's source and the installed versions.

myst-nb's cache looks at the cells alone, so that a change in `companion` would leave stale figures.
"""

import hashlib
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jax", "jaxlib", "neural-tangents", "flax", "optax", "numpy", "scipy", "matplotlib", "ipywidgets",
            "pillow", "mlxtend", "scikit-learn")  # fmt: skip


def digest(root: Path = ROOT) -> str:
    """Return twelve hex digits of all that a cell's outputs depend on besides the cell.

    Those are the companion's modules, the recorded results, the Python and the packages' versions.
    """
    state = hashlib.sha256(sys.version.split()[0].encode())
    sources = [*(root / "companion").rglob("*.py"), *(root / "book" / "results").rglob("*.*")]
    for path in sorted(sources):
        state.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    for name in PACKAGES:
        try:
            state.update(f"{name}={version(name)}".encode())
        except PackageNotFoundError:
            state.update(f"{name}=none".encode())
    return state.hexdigest()[:12]


def set_path(app, config) -> None:
    """Point myst-nb at this state's own cache folder."""
    config.nb_execution_cache_path = str(Path(app.outdir).parent / ".jupyter_cache" / digest())


def setup(app):
    """Register with Sphinx."""
    app.connect("config-inited", set_path)
    return {"parallel_read_safe": True}
