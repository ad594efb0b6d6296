"""What a notebook shows of a result whose arrays are long: their shapes."""

from dataclasses import fields

from companion._core.words import Unchecked

_LONGEST = 60


def brief(one: Unchecked) -> str:
    """A dataclass as its name and fields, of arrays the kind and shape, of what is long its type."""
    return (
        f"{type(one).__name__}({', '.join(f'{f.name}={_word(getattr(one, f.name))}' for f in fields(one))})"
    )


def _word(value: Unchecked) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype") and value.shape:
        return f"<{value.dtype}{list(value.shape)}>"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"<{type(value).__name__}>"
