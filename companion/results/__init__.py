"""Record what an experiment found, with where it came from, and load it again for the book.

A result is `<folder>/<experiment>/<profile>.json`: values and provenance as strict JSON, for reading and for
diffs. Its arrays, if any, lie beside it in `<profile>.npz`, whose hash the JSON holds. What consists of many
runs grows instead: `<folder>/<experiment>/runs.jsonl` has a line for each, `origins.jsonl` its provenance.
"""

from companion.results._provenance import here, machines
from companion.results._record import Result, caption, load, place_of, record
from companion.results._runs import Merged, RecordedRun, add_run, merge, read_runs

__all__ = [
    "Merged",
    "RecordedRun",
    "Result",
    "add_run",
    "caption",
    "here",
    "load",
    "machines",
    "merge",
    "place_of",
    "read_runs",
    "record",
]
