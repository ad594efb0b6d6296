"""Citations as plain Markdown: names and year, linked to the paper, from book/references.bib."""

import re
from dataclasses import dataclass
from pathlib import Path

import pybtex.database
from pybtex.richtext import Text


@dataclass(frozen=True)
class Entry:
    """One reference: "Jacot et al.", "2018", and where to read it."""

    authors: str
    year: str
    url: str


def names(persons) -> str:
    """Return the last names: one, two joined by "and", or the first with "et al."."""
    last = [str(Text.from_latex(" ".join([*person.prelast_names, *person.last_names]))) for person in persons]
    if len(last) > 2:
        return f"{last[0]} et al."
    return " and ".join(last)


def where(fields) -> str:
    """Return the address of a paper: its DOI, its arXiv page or its own."""
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    if "eprint" in fields:
        return f"https://arxiv.org/abs/{fields['eprint']}"
    return fields.get("url", "")


def load(path: Path) -> dict[str, Entry]:
    """Read a bibliography; a missing file has no entries."""
    if not path.exists():
        return {}
    entries = pybtex.database.parse_file(str(path)).entries
    return {
        key: Entry(
            names(entry.persons.get("author") or entry.persons.get("editor", [])),
            entry.fields.get("year", "n.d."),
            where(entry.fields),
        )
        for key, entry in entries.items()
    }


def cite(role: str, keys: str, entries: dict[str, Entry]) -> str:
    """Return a citation: {cite:t} as "Jacot et al. (2018)", the others as "(Jacot et al., 2018)".

    Raises:
        ValueError: a key that the bibliography lacks.
    """
    kind = role.partition(":")[2] or "p"
    pieces = []
    for key in re.split(r"\s*,\s*", keys.strip()):
        if key not in entries:
            raise ValueError(f"no reference {key} in references.bib")
        entry = entries[key]
        words = {"t": f"{entry.authors} ({entry.year})", "ct": f"{entry.authors} ({entry.year})"}.get(
            kind, {"author": entry.authors, "year": entry.year}.get(kind, f"{entry.authors}, {entry.year}")
        )
        pieces.append(f"[{words}]({entry.url})" if entry.url else words)
    bare = kind in ("t", "ct", "alp", "author", "year")
    return ", ".join(pieces) if bare else f"({'; '.join(pieces)})"
