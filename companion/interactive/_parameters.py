"""What the sliders of `companion.interactive` run over: checked values, their texts, where they start."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

MAX_FRAMES = 30
Value = object  # of a parameter: whatever the user's `draw` takes
Format = Callable[[Value], str] | Mapping[str, Callable[[Value], str]] | None


def grid(parameters: Mapping[str, Iterable[Value]]) -> dict[str, list[Value]]:
    """Return the values of each parameter, or say what is wrong before anything is drawn."""
    if not isinstance(parameters, Mapping) or not all(isinstance(v, Iterable) for v in parameters.values()):
        raise TypeError(f"parameters: got {parameters!r}; want a mapping from each name to its values")
    values = {name: list(column) for name, column in parameters.items()}
    sizes = " x ".join(f"{name}: {len(column)}" for name, column in values.items())
    if len(values) not in (1, 2):
        raise ValueError(f"parameters: got {len(values)} ({sizes}); want one or two")
    if min(len(column) for column in values.values()) < 2:
        raise ValueError(f"parameters: got {sizes}; want two values or more for each")
    if (total := math.prod(len(column) for column in values.values())) > MAX_FRAMES:
        raise ValueError(f"parameters: got {total} frames ({sizes}); want at most {MAX_FRAMES}")
    return values


def known(argument: str, given: Mapping[str, Value] | None, values: Mapping[str, Sequence[Value]]) -> None:
    """Refuse a name that is no parameter, which is a slip of the pen otherwise never noticed."""
    if extra := sorted(set(given or {}) - set(values)):
        raise ValueError(f"{argument}: got {extra}; want only names of parameters, {sorted(values)}")


def texts(name: str, values: Sequence[Value], fmt: Format) -> list[str]:
    """Return how each value is written beside its slider."""
    if isinstance(fmt, Mapping):
        fmt = fmt.get(name)
    texts = [(fmt or _plain)(value) for value in values]
    if len(set(texts)) < len(texts):
        raise ValueError(f"fmt: got the same text for several values of {name}: {texts}; want each to differ")
    return texts


def _plain(value: Value) -> str:
    """Write a number with up to six digits, and anything else as it prints."""
    try:
        return f"{value:g}"
    except (TypeError, ValueError):
        return str(value)


def start_index(name: str, values: Sequence[Value], start: Mapping[str, Value]) -> int:
    """Return the place of the value shown first."""
    if start.get(name, values[0]) not in values:
        raise ValueError(f"start: got {name} = {start[name]!r}; want one of {values}")
    return values.index(start.get(name, values[0]))
