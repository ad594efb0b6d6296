"""How `companion.neural_tangents` loads neural-tangents 0.6.5: private."""

import contextlib
import importlib
import importlib.metadata
import sys
import types
from collections.abc import Iterator
from typing import NoReturn

import jax
import jax.core
import jax.extend.core as jex
from jax.interpreters import ad

from companion.neural_tangents import _repairs

VERSION = "0.6.5"
INSTALL = f"pip install --no-deps neural-tangents=={VERSION}"
_MARK = "_repaired_by_companion"


def load() -> types.ModuleType:
    """Import neural-tangents, repaired; a second call returns the same module.

    Returns:
        The module `neural_tangents`.

    Raises:
        ImportError: if the library is missing, of another version, was imported elsewhere before, or does
            not fit this JAX. The message says what to do.
    """
    _check_installed()
    loaded = sys.modules.get("neural_tangents")
    if loaded is not None:
        if getattr(loaded, _MARK, False):
            return loaded
        raise ImportError(
            "neural_tangents was imported before companion could repair it. Restart Python and import "
            "companion.neural_tangents first; take nt and stax from there."
        )
    try:
        # Only this sub-package needs TensorFlow, and the library imports it first of all.
        sys.modules["neural_tangents.experimental"] = _stand_in_for_experimental()
        with _lent_names():
            nt = importlib.import_module("neural_tangents")
        _repairs.repair()
    except BaseException as error:
        # Leave no half of the library behind, or the next attempt fails for another reason than this one.
        for name in [m for m in sys.modules if m.partition(".")[0] == "neural_tangents"]:
            del sys.modules[name]
        if isinstance(error, Exception):
            raise _import_error(error) from error
        raise
    setattr(nt, _MARK, True)
    return nt


def _check_installed() -> None:
    try:
        found = importlib.metadata.version("neural-tangents")
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found != VERSION:
        problem = "it is not installed" if found is None else f"found version {found}"
        raise ImportError(f"companion needs neural-tangents {VERSION}; {problem}. Install it with\n{INSTALL}")


def _import_error(error: Exception) -> ImportError:
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and name == "neural_tangents":
        return ImportError(f"neural-tangents is installed only in part. Install it again with\n{INSTALL}")
    if isinstance(error, ModuleNotFoundError) and name != "jax":
        return ImportError(f"neural-tangents needs the package {name}. Install it with\npip install {name}")
    return ImportError(
        f"neural-tangents {VERSION} does not work on jax {jax.__version__}: {type(error).__name__}: {error}. "
        "companion is tested on jax 0.7.2 to 0.12: install one of these."
    )


def _stand_in_for_experimental() -> types.ModuleType:
    """A module that says why it is empty, instead of one that silently is."""
    name = "neural_tangents.experimental"
    module = types.ModuleType(name, "Not loaded by companion: it needs TensorFlow.")

    def explain(attribute: str) -> NoReturn:
        raise AttributeError(
            f"{name}.{attribute} is not there: companion loads neural-tangents without its TensorFlow part."
        )

    module.__getattr__ = explain
    return module


@contextlib.contextmanager
def _lent_names() -> Iterator[None]:
    """Give JAX the names that the library imports and JAX removed, then take them back."""
    lent = {(jax.core, n): getattr(jex, n) for n in ("Jaxpr", "JaxprEqn", "Literal", "Var", "Primitive")}
    # Only a key in the library's tables of rules: no jaxpr holds this primitive any more.
    lent[ad, "zeros_like_p"] = jex.Primitive("zeros_like")
    # vars(), not hasattr(): the latter sets off the deprecation hooks of jax.core.
    lent = {key: value for key, value in lent.items() if key[1] not in vars(key[0])}
    # jax.util went in 0.8 and warns before. The library takes two functions from it, and shadows the built-in
    # map and zip with them: map must be eager, and both must refuse unequal lengths.
    util, before = types.ModuleType("jax.util"), sys.modules.get("jax.util")
    util.safe_zip = lambda *args: list(zip(*args, strict=True))
    util.safe_map = lambda f, *args: [f(*a) for a in zip(*args, strict=True)]
    sys.modules["jax.util"] = util
    for (module, name), value in lent.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name in lent:
            delattr(module, name)
        del sys.modules["jax.util"]
        if before is not None:
            sys.modules["jax.util"] = before
