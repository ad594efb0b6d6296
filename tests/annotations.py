"""beartype, which here writes the code of a check once for each function in the source.

jaxtyping has it check stand-ins that do nothing, and makes new ones whenever a function within a function is
defined: of the time of tests that was a tenth.
"""

from beartype import beartype
from jaxtyping import AbstractArray

_CHECKED = {}


def checked(stand_in):
    """Check a function that does nothing; the same check for all whose names and annotations are the same."""
    code = stand_in.__code__
    defaults = [*(stand_in.__defaults__ or ()), *(stand_in.__kwdefaults__ or {}).values()]
    key = (
        stand_in.__module__,
        stand_in.__qualname__,
        (code.co_code, code.co_varnames, code.co_flags, code.co_argcount, code.co_kwonlyargcount),
        tuple((name, _meaning(one)) for name, one in stand_in.__annotations__.items()),
        (*map(type, defaults), *(stand_in.__kwdefaults__ or {})),
    )
    try:
        return _CHECKED[key]
    except KeyError:
        return _CHECKED.setdefault(key, beartype(stand_in))


def _meaning(annotation):
    """What two annotations that say the same have in common: jaxtyping makes a class each time."""
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return annotation.dtype, annotation.array_type, annotation.dim_str
    return annotation
