"""Sphinx extension: after the build, print how long the cells of each page took to run.

The same numbers stand on the book's status page; `_build/chapter_times.json` holds them for programs.
"""

import json
from pathlib import Path


def collect(metadata) -> list[dict]:
    """Return page, seconds, success and method of every executed page, in the order of their names."""
    rows = []
    for name, values in sorted(metadata.items()):
        data = values.get("exec_data")
        if data:
            rows.append(
                {
                    "page": name,
                    "seconds": None if data["runtime"] is None else round(data["runtime"], 2),
                    "succeeded": bool(data["succeeded"]),
                    "method": data["method"],
                }
            )
    return rows


def table(rows: list[dict]) -> str:
    """Return the rows as lines of text with their sum."""
    width = max([len(row["page"]) for row in rows] + [5])
    lines = [f"{'page':{width}}  seconds"]
    for row in rows:
        seconds = "?" if row["seconds"] is None else f"{row['seconds']:.1f}"
        lines.append(f"{row['page']:{width}}  {seconds:>7}{'' if row['succeeded'] else '  failed'}")
    lines.append(f"{'all':{width}}  {sum(row['seconds'] or 0 for row in rows):7.1f}")
    return "\n".join(lines)


def report(app, error) -> None:
    """Print the table and write it down; say nothing for a build that broke off."""
    if error is not None or app.builder.format != "html":
        return
    rows = collect(app.env.nb_metadata)
    Path(app.outdir).parent.joinpath("chapter_times.json").write_text(
        json.dumps(rows, indent=1) + "\n", "utf8"
    )
    print(f"\nRun times of the pages' cells, measured when they last ran:\n{table(rows)}")


def setup(app):
    """Register with Sphinx."""
    app.connect("build-finished", report)
    return {"parallel_read_safe": True}
