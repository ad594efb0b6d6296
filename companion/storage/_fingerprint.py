"""What tells one value from another when work goes on later: arrays by bytes, functions by what they do.

A function of the user's counts by its bytecode, defaults, closure and the globals that it names, those of an
installed package by its name, defaults and closure: that code changes with the package's version. Of a module
only the name is seen, not what is looked up in it.
"""

import copyreg
import dis
import functools
import hashlib
import sys
import sysconfig
import types
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np

from companion._core.words import Unchecked

_DATA = (bool, int, float, complex, str, bytes, tuple, list, dict, np.ndarray, np.generic)
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def fingerprint(value: Unchecked, unseen: list[str] | None = None) -> str:
    """A short hash of a value: numbers, texts, arrays, containers, functions, classes and other objects.

    Args:
        value: anything.
        unseen: takes the kinds of what cannot be told apart, such as an open file: they count by their kind
            alone.

    Returns:
        The same text for the same value, in every process.

    >>> fingerprint(np.eye(2)) == fingerprint(np.eye(2)), fingerprint(np.eye(2)) == fingerprint(np.eye(3))
    (True, False)
    """
    return _digest(value, [], {}, [] if unseen is None else unseen).hex()[:32]


def compared(what: str, value: Unchecked, *, stacklevel: int) -> str:
    """A fingerprint by which work in a folder goes on; a warning where something of it cannot be told."""
    unseen: list[str] = []
    found = fingerprint(value, unseen)
    if unseen:
        kinds = ", ".join(sorted(set(unseen)))
        warnings.warn(
            f"folder: {kinds} of {what} cannot be compared when the work goes on: see to it yourself",
            stacklevel=stacklevel + 1,
        )
    return found


def _digest(value: Unchecked, above: list[int], known: dict[int, bytes], unseen: list[str]) -> bytes:
    """Hash a value; `above` are those that it is part of, `known` the functions and classes done."""
    if id(value) in known:
        return known[id(value)]
    if id(value) in above:
        return f"{len(above) - above.index(id(value))} above".encode()
    if (isinstance(value, np.ndarray | np.generic) or _is_jax(value)) and _is_plain(value):
        return _array(np.asarray(value))
    try:
        kind, *parts = _parts(value)
    except Exception:  # Objects refuse to be taken apart with what they like.
        unseen.append(f"{type(value).__module__}.{type(value).__qualname__}")
        kind, parts = f"unseen {unseen[-1]}", ()
    above.append(id(value))
    digests = [_digest(part, above, known, unseen) for part in parts]
    above.pop()
    found = hashlib.sha256(kind.encode())
    for digest in sorted(digests) if kind in ("set", "mapping") else digests:
        found.update(digest)
    if isinstance(value, types.FunctionType | type):
        known[id(value)] = found.digest()
    return found.digest()


def _is_plain(array: Unchecked) -> bool:
    if array.dtype == object:
        return False
    jax = sys.modules.get("jax")
    return jax is None or not jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def _is_jax(value: Unchecked) -> bool:
    """Whether it is an array of JAX, which is not imported to find that out."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array)


def _parts(value: Unchecked) -> tuple[Unchecked, ...]:
    """What a value is, and the values that make it up."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return (f"{type(value).__qualname__} {value!r}",)
    if _is_jax(value):
        jax = sys.modules["jax"]
        return f"key {jax.random.key_impl(value)}", jax.random.key_data(value)
    if not _foreign(type(value)) and getattr(value, "__dict__", None):
        for base in (tuple, list, dict, set, frozenset):
            if isinstance(value, base):
                return "container", type(value), base(value), vars(value)
    if isinstance(value, tuple | list):
        return f"{type(value).__qualname__} {len(value)}", *value
    if isinstance(value, set | frozenset):
        return "set", *value
    if isinstance(value, Mapping):
        return "mapping", *value.items()
    if isinstance(value, functools.partial):
        return "partial", value.func, value.args, value.keywords
    if isinstance(value, weakref.ReferenceType):
        return "weak", value()
    if isinstance(value, types.MethodType):
        return "method", value.__self__, value.__func__
    if isinstance(value, types.CodeType):
        return "code", value.co_code, value.co_names, value.co_consts
    if isinstance(value, types.FunctionType):
        return "function", *_function(_without_checks(value))
    if isinstance(value, types.ModuleType):
        return (f"module {value.__name__}",)
    if isinstance(value, type):
        return f"class {value.__module__} {value.__qualname__}", *_methods(value)
    if is_dataclass(value):
        return "data", type(value), *_held(value)
    # Of jax.jit, functools.lru_cache and the like; an object of the user's has a state of its own.
    if hasattr(value, "__wrapped__") and _foreign(type(value)):
        return f"wrapped {type(value).__qualname__}", value.__wrapped__
    registered = copyreg.dispatch_table.get(type(value))  # as pickle asks; of unions of types, for one
    parts = registered(value) if registered else value.__reduce_ex__(4)
    if isinstance(parts, str):
        return f"global {getattr(value, '__module__', None)} {parts}", type(value)
    return "object", *(list(p) if i > 2 and p is not None else p for i, p in enumerate(parts))


def _held(value: Unchecked) -> list[Unchecked]:
    """A dataclass's fields; of one that is the user's all, and what else the object holds."""
    kind = type(value)
    held = [getattr(value, field.name) for field in fields(value) if field.compare]
    if _foreign(kind):
        return held
    above = [one for one in kind.__mro__[1:-1] if _foreign(one)]  # Flax's modules keep books of their own
    theirs = {name for one in above for name in vars(one).get("__annotations__", {})}
    more = {field.name for field in fields(value) if not field.compare and field.name not in theirs}
    for name in getattr(value, "__dict__", {}).keys() - {field.name for field in fields(value)}:
        derived = isinstance(getattr(kind, name, None), functools.cached_property)
        if not derived and not (above and name.startswith("_")):
            more.add(name)
    return [*held, *((name, getattr(value, name)) for name in sorted(more))]


def _array(array: np.ndarray) -> bytes:
    """An array's shape, dtype and values, a little at a time."""
    digest = hashlib.sha256(f"{array.shape} {array.dtype.name} ".encode())
    rows = array.reshape(1) if array.ndim == 0 else array
    for start in range(0, len(rows), 1024):
        digest.update(np.ascontiguousarray(rows[start : start + 1024]))
    return digest.digest()


def _without_checks(function: types.FunctionType) -> types.FunctionType:
    """The function below what jaxtyping and beartype put around it, whose memory changes as it is called."""
    while hasattr(function, "__wrapped__"):
        file = function.__code__.co_filename
        if not (file.startswith("<@beartype(") or Path(file).parent.name == "jaxtyping"):
            break
        function = function.__wrapped__
    return function


def _function(function: types.FunctionType) -> list[Unchecked]:
    """What decides what a function computes."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
    given = [function.__defaults__, function.__kwdefaults__, cells]
    code = function.__code__
    if _installed(function.__module__) or code.co_filename.startswith(_INSTALLED):
        return [function.__module__, function.__qualname__, *given]
    names = [name for name in _globals(code) if name in function.__globals__]
    own = [item for item in sorted(vars(function).items()) if not item[0].startswith("__")]
    return [code, *given, names, [function.__globals__[name] for name in names], *([own] if own else [])]


def _globals(code: types.CodeType) -> list[str]:
    """The global names that code reads, its inner functions' too."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            names.update(_globals(inner))
    return sorted(names)


def _methods(kind: type) -> list[Unchecked]:
    """What a class holds; of those above it and of its numbers and texts, where they are the user's."""
    if _installed(kind.__module__):
        return []
    if _from_library(kind):
        return [item for item in sorted(vars(kind).items()) if isinstance(item[1], types.FunctionType)]
    above = [one for one in kind.__mro__[1:] if not _foreign(one)]
    return [*_members(kind), *((f"base {one.__qualname__}", _members(one)) for one in above)]


def _members(kind: type) -> list[tuple[str, Unchecked]]:
    """Functions of every sort, and class attributes but those that Python writes itself."""
    found = []
    for name, item in sorted(vars(kind).items()):
        if isinstance(item, property):
            found.append((name, [item.fget, item.fset, item.fdel]))
        elif isinstance(item, functools.cached_property):  # with a lock, in Python 3.11
            found.append((name, item.func))
        elif isinstance(item, staticmethod | classmethod):
            found.append((name, [type(item).__name__, item.__func__]))
        elif isinstance(item, types.FunctionType) or not _written_for_itself(name, item):
            found.append((name, item))
    return found


def _written_for_itself(name: str, item: Unchecked) -> bool:
    """Whether Python, or a library whose class it is one of, keeps its books by this attribute."""
    private = name.startswith("_") and not isinstance(item, _DATA)
    return private or name.startswith(("__", "_abc_")) or isinstance(item, _SLOTS)


def _from_library(kind: type) -> bool:
    module = sys.modules.get(kind.__module__.split(".")[0])  # parts of compiled modules have no file
    return (getattr(module, "__file__", None) or "").startswith(_INSTALLED)


def _foreign(kind: type) -> bool:
    """Whether a class is companion's, Python's or a library's, and not the user's."""
    return _installed(kind.__module__) or _from_library(kind)


def _installed(module: str | None) -> bool:
    """Whether code counts by its name: of companion, whose stores say which version of it they are of."""
    return (module or "").split(".")[0] in ("companion", "builtins")
