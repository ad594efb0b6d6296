"""Run the exported notebooks from the first cell to the last, each in a fresh kernel.

Usage: python tools/run_notebooks.py [notebook ...]     all of book/ unless named; 1 when a cell fails

The install cell runs too: where companion is installed it must change nothing. Nothing is written back.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent
CELL_SECONDS = 900


def run(path: Path) -> tuple[float, str]:
    """Execute one notebook in its own folder; return the seconds and the error, empty when there is none."""
    notebook = nbformat.read(path, as_version=4)
    # A backend chosen for the calling process would keep figures out of the notebook.
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        # Without this each kernel warns of its unencrypted local port.
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    started = time.perf_counter()
    try:
        client.execute(env=environment)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return time.perf_counter() - started, str(error)
    return time.perf_counter() - started, ""


def main(arguments: list[str]) -> int:
    """Run the named notebooks, or all, and print the seconds of each."""
    paths = [Path(name).resolve() for name in arguments] or sorted((ROOT / "book").glob("*.ipynb"))
    failed = 0
    for path in paths:
        print(f"{path.name} ...", end=" ", flush=True)
        seconds, error = run(path)
        print(f"{'failed after ' if error else ''}{seconds:.1f} s", flush=True)
        if error:
            failed += 1
            print(error)
    print(f"{len(paths) - failed} passed, {failed} failed")
    return int(failed > 0 or not paths)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
