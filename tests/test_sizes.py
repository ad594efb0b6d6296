"""No file and no function is longer than one reads at a time, and signatures say what they take."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "companion"
FILES = sorted(PACKAGE.rglob("*.py"))
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 300, 60
# To be emptied: what is still longer. A name that no longer is fails too.
LONG_FILES = set()
LONG_FUNCTIONS = set()


def functions(source):
    """The lines of each function without its decorators and its docstring, by name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines, first = node.end_lineno - node.lineno + 1, node.body[0]
            if ast.get_docstring(node, clean=False) is not None:
                lines -= first.end_lineno - first.lineno + 1
            yield node.name, lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_and_functions_are_short(path):
    name, source = path.relative_to(PACKAGE).as_posix(), path.read_text("utf8")
    assert (len(source.splitlines()) > LINES_OF_A_FILE) == (name in LONG_FILES)
    long = {f"{name} {each}" for each, lines in functions(source) if lines > LINES_OF_A_FUNCTION}
    assert long == {each for each in LONG_FUNCTIONS if each.startswith(f"{name} ")}


def test_exceptions_are_of_files_that_there_are():
    names = {path.relative_to(PACKAGE).as_posix() for path in FILES}
    assert LONG_FILES | {each.split()[0] for each in LONG_FUNCTIONS} <= names


def test_a_docstring_does_not_count_and_an_inner_function_does():
    source = (
        'def f(\n    x,\n):\n    """Says\n\n    what."""\n\n    def g():\n        return x\n\n    return g\n'
    )
    assert dict(functions(source)) == {"f": 8, "g": 2}


# What neural-tangents hands over and takes back inside of its own functions, which are patched there.
UNSAID = {"neural_tangents/_repairs.py"}
SHAPES = {"Bool", "Float", "Int", "Num", "Real", "Shaped"}


def unsaid(source):
    """The lines of annotations that say Any, but for `Float[Any, "n k"]` and its like, which say a shape."""

    def says_any(node):
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") in SHAPES:
            return False
        return getattr(node, "id", "") == "Any" or any(map(says_any, ast.iter_child_nodes(node)))

    for node in ast.walk(ast.parse(source)):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(part, ast.AST) and says_any(part):
                yield part.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_signatures_say_what_they_take(path):
    found = list(unsaid(path.read_text("utf8")))
    assert bool(found) == (path.relative_to(PACKAGE).as_posix() in UNSAID), f"Any in lines {found}"


def test_what_says_any_is_found_wherever_it_stands():
    source = (
        "def f(a: Any, b: Float[Any, 'n'], *c: dict[str, Any], d: Int[Any, 'n'] | None) -> list[Any]:\n"
        "    e: Any = 1\n    return lambda x: x\n"
    )
    assert sorted(unsaid(source)) == [1, 1, 1, 2]
