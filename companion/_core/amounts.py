"""Amounts as people say them."""


def size(count: float | int) -> str:
    """A number of bytes."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{count / one:.3g} {unit}"
    return f"{count} bytes"


def duration(seconds: float | int) -> str:
    """Seconds, or minutes."""
    return f"{seconds:,.2g} s" if seconds < 90 else f"{seconds / 60:,.2g} min"
