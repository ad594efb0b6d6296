"""The house: every room stands on a floor, imports only from floors below, and only through their faces."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "companion"
FLOORS = (
    {"_core"},
    {"storage", "statistics"},
    {"data", "results", "neural_tangents"},
    {"architectures", "kernels", "empirical"},
    {"regression", "networks", "dynamics"},
    {"normalization", "classifier"},
    {"attacks"},
    {"training", "features"},
    {"warm_start", "catastrophic", "guarantees", "clocks"},
    {"plots", "interactive"},
    {"experiments", "figures"},
    {"scorecard"},
)
# Pages' rooms know nothing of networks and kernels: they draw numbers.
DRAWING = {"plots", "interactive", "figures"}
INTERNAL = {"_core", "storage"}  # have no page
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
FACES = sorted(path for path in PACKAGE.glob("*/__init__.py") if path.parent.name != "experiments")


def floor(room):
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def imports(path):
    """What a file imports from companion, as (room, file of the room or None, name)."""
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "companion":
            names = [f"{node.module}.{name}" for name in names]
        for name in names:
            first, *rest = name.split(".")
            if first == "companion" and rest and (PACKAGE / rest[0]).with_suffix("").name in ROOMS:
                within = rest[1] if len(rest) > 1 and (PACKAGE / rest[0] / f"{rest[1]}.py").exists() else None
                yield rest[0], within, rest[-1]


ROOMS = set().union(*FLOORS)


def test_every_room_has_a_floor():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert folders | files == ROOMS
    assert len(folders) + len(files) == sum(map(len, FLOORS))


def test_the_map_has_every_room_on_its_floor():
    text = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text("utf8")))
    found = [(int(number), room) for number, room in re.findall(r"^ *(\d+)  (\w+)  ", text, re.M)]
    assert sorted(found) == sorted((i, room) for i, rooms in enumerate(FLOORS) for room in rooms)
    assert [number for number, _ in found] == sorted(number for number, _ in found)


def test_the_pages_of_the_package_stand_in_the_same_order():
    text = (PACKAGE.parent / "book" / "api" / "index.md").read_text("utf8")
    sections = re.findall(r"^## Layer (\d+):.*?\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    found = [(int(n), set(re.findall(r"^   companion\.(\w+)$", part, re.M))) for n, part in sections]
    assert found == [(i, rooms - INTERNAL) for i, rooms in enumerate(FLOORS) if rooms - INTERNAL]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down_and_stop_at_the_face(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    others = {found for found in imports(path) if found[0] != own}
    assert all(floor(room) < floor(own) for room, _, _ in others), others
    past = {found for found in others if found[0] != "_core" and (found[1] or found[2]).startswith("_")}
    assert not past, "goes past another room's face"
    if own in DRAWING:
        assert {room for room, _, _ in others} <= {"_core"} | (DRAWING if own == "figures" else set())


def test_no_files_of_a_room_import_each_other_in_a_circle():
    arrows = {}
    for path in FILES:
        own = path.relative_to(PACKAGE).parts[0]
        arrows[own, path.stem] = {(room, file) for room, file, _ in imports(path) if room == own and file}
    while free := [node for node, targets in arrows.items() if not targets & arrows.keys()]:
        for node in free:
            del arrows[node]
    assert not arrows


@pytest.mark.parametrize("path", FACES, ids=lambda path: path.parent.name)
def test_a_face_says_what_its_room_is_and_holds_nothing_else(path):
    doc, *body = ast.parse(path.read_text("utf8")).body
    assert isinstance(doc, ast.Expr)
    assert isinstance(doc.value.value, str)
    assert all(isinstance(node, ast.ImportFrom | ast.Assign) for node in body)
    assigned = [node.targets[0].id for node in body if isinstance(node, ast.Assign)]
    made = ["nt", "stax"] if path.parent.name == "neural_tangents" else []  # by loading the library
    assert assigned in (["__all__", *made], [])


def test_the_checks_read_all_kinds_of_import(tmp_path):
    file = tmp_path / "some.py"
    file.write_text(
        "import companion.data\n"
        "from companion import attacks, kernels as k\n"
        "from companion.training import _run, train\n"
        "def later():\n    from companion.regression._fit import fit\n"
    )
    assert set(imports(file)) == {
        ("data", None, "data"),
        ("attacks", None, "attacks"),
        ("kernels", None, "kernels"),
        ("training", "_run", "_run"),
        ("training", None, "train"),
        ("regression", "_fit", "fit"),
    }
