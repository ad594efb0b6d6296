"""The house: every module stands on a floor, and imports only from floors below its own."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "companion"
FLOORS = (
    {"_core"},
    {"storage", "statistics"},
    {"data", "results", "neural_tangents"},
    {"architectures", "networks", "kernels", "empirical"},
    {"regression", "normalization", "dynamics"},
    {"attacks"},
    {"training", "features"},
    {"warm_start", "catastrophic"},
    {"plots", "interactive"},
    {"experiments"},
)
# Pages' modules know nothing of networks and kernels: they draw numbers.
DRAWING = {"plots", "interactive"}


def floor(module):
    return next(i for i, modules in enumerate(FLOORS) if module in modules)


def imports(path):
    """Rooms of companion that a file imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "companion":
            names = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            found.update(names)
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_"))


def test_every_module_has_a_floor():
    rooms = {
        path.parent.name if path.name == "__init__.py" else path.stem
        for path in PACKAGE.glob("*/__init__.py")
    }
    rooms |= {path.stem for path in PACKAGE.glob("*.py") if path.name != "__init__.py"}
    assert rooms == set().union(*FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    others = imports(path) - {own}
    assert all(floor(other) < floor(own) for other in others), others
    if own in DRAWING:
        assert not others


def test_the_check_reads_all_kinds_of_import():
    experiment = imports(PACKAGE / "experiments" / "convergence.py")
    assert {"data", "regression", "architectures", "training"} <= experiment
