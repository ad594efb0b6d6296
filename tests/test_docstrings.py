"""Every public function says what it takes and what it returns, and its example can be run as it stands."""

import ast
import builtins
import doctest
import importlib
import inspect
import pkgutil

import pytest

import companion

INTERNAL = {"_core", "storage", "neural_tangents"}
# To be emptied: packages where something is still missing.
UNFINISHED = {"scorecard"}
PACKAGES = sorted(one.name for one in pkgutil.iter_modules(companion.__path__) if one.name not in INTERNAL)


def missing(function):
    """The sections that a function's docstring needs and has not."""
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    wanted = ["Args:"] if signature.parameters else []
    wanted += [] if signature.return_annotation in (None, "None") else ["Returns:"]
    return [section for section in wanted if section not in text.splitlines()]


def public_functions(package):
    module = importlib.import_module(f"companion.{package}")
    for name in getattr(module, "__all__", ()):
        if inspect.isfunction(inspect.unwrap(getattr(module, name))):
            yield name, inspect.unwrap(getattr(module, name))


@pytest.mark.parametrize("package", PACKAGES)
def test_public_functions_have_args_and_returns(package):
    found = {name: gaps for name, function in public_functions(package) if (gaps := missing(function))}
    assert bool(found) == (package in UNFINISHED), found


def test_a_missing_section_is_found():
    def silent(x: int) -> int:
        """Says nothing of x: Args: and Returns: within a line are none."""

    def spoken(x: int) -> None:
        """Says it.

        Args:
            x: a number.
        """

    assert missing(silent) == ["Args:", "Returns:"]
    assert missing(spoken) == []


# As book/api/index.md says, beside what the example's own package exports.
GIVEN = {"jax", "jnp", "np", *dir(builtins)}


def documented(package):
    """The docstrings of a package's public functions, classes and their methods."""
    module = importlib.import_module(f"companion.{package}")
    for name in getattr(module, "__all__", ()):
        item = getattr(module, name)
        yield inspect.getdoc(item)
        yield from (inspect.getdoc(one) for one in vars(item).values()) if inspect.isclass(item) else ()


def needed(text):
    """The names that a docstring's examples use and neither import nor assign."""
    examples = doctest.DocTestParser().get_examples(text or "")
    nodes = list(ast.walk(ast.parse("".join(example.source for example in examples))))
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    made = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    made |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    made |= {(one.asname or one.name).split(".")[0] for node in imports for one in node.names}
    return used - made


@pytest.mark.parametrize("package", PACKAGES)
def test_examples_import_what_they_need(package):
    module = importlib.import_module(f"companion.{package}")
    known = GIVEN | set(getattr(module, "__all__", ()))
    assert not set().union(*(needed(text) for text in documented(package))) - known


def test_a_missing_import_is_found():
    text = ">>> import math\n>>> y = [f(x) for x in range(3)]\n>>> math.inf, optax.sgd(y)\n"
    assert needed(text) == {"f", "range", "optax"}
