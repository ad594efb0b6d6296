"""Recorded experiments, one module each: `python -m companion.experiments.<name> --profile quick`.

A module has a frozen `Config`, its `PROFILES` and `run(config) -> dict of arrays`. Chapters run the quick
profile and show a recorded larger one beside it.
"""

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from companion import results
from companion.storage import place


def main(
    name: str,
    profiles: Mapping[str, Any],
    run: Callable[..., dict[str, Any]],
    *,
    dataset: str | Callable[[Any], str],
    seeds: Callable[[Any], range],
    checkpoints: bool = False,
    arguments: list[str] | None = None,
) -> None:
    """Run one profile from the command line and record it under book/results.

    Args:
        name: of the experiment, as in `results.load`.
        profiles: configurations by name.
        run: the experiment, `run(config, progress=True) -> arrays`.
        dataset: the data set, as captions name it, or how to tell it from a configuration.
        seeds: which seeds a configuration uses.
        checkpoints: whether `run` takes a `folder` for checkpoints.
        arguments: the command line; None means the real one.
    """
    parser = argparse.ArgumentParser(prog=f"python -m companion.experiments.{name}")
    parser.add_argument("--profile", choices=sorted(profiles), default="quick")
    parser.add_argument("--folder", help="where to write (default: book/results of this checkout)")
    if checkpoints:
        parser.add_argument(
            "--checkpoints", type=place, help="where a stopped run goes on (default: nowhere)"
        )
    chosen = parser.parse_args(arguments)
    config = profiles[chosen.profile]
    start = time.perf_counter()
    options = {"folder": chosen.checkpoints} if checkpoints else {}
    with _ended_by_ctrl_c():
        arrays = run(config, progress=True, **options)
    path = results.record(
        name,
        chosen.profile,
        values={},
        arrays=arrays,
        config=dataclasses.asdict(config),
        dataset=dataset(config) if callable(dataset) else dataset,
        seeds=seeds(config),
        seconds=time.perf_counter() - start,
        folder=chosen.folder,
    )
    print(f"recorded {path}")


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """End the process by the signal itself: in Python's own end, what XLA still compiles would crash."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stdout.flush()
        print(
            "\nKeyboardInterrupt: what is under --checkpoints stays, and a next run goes on there",
            file=sys.stderr,
            flush=True,
        )
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
