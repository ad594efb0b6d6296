"""Record what an experiment found, with where it came from, and load it again for the book.

A result is `<folder>/<experiment>/<profile>.json`: values and provenance as strict JSON, for reading and for
diffs. Its arrays, if any, lie beside it in `<profile>.npz`, whose hash the JSON holds.
"""

from companion.results._record import Result, caption, load, record

__all__ = [
    "Result",
    "caption",
    "load",
    "record",
]
