"""Make the runs of experiments that are not recorded yet, or say how far they are (--status).

Without arguments, all missing runs of the profile "full" are begun, on all cores and without a limit of time:
hours. Each is recorded as it is made; Ctrl-C ends the work and keeps them.
"""

import argparse
import contextlib
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from companion import experiments, results
from companion._core.checks import submits
from companion.experiments import Experiment, Job, campaign, status
from companion.storage import place


def names() -> list[str]:
    """The experiments there are."""
    return sorted(one.name for one in pkgutil.iter_modules(experiments.__path__) if one.name[0] != "_")


def find(name: str) -> Experiment:
    """An experiment by its name."""
    return importlib.import_module(f"companion.experiments.{name}").EXPERIMENT


def seed_range(text: str) -> range:
    """Seeds as on the command line: "0:20", or "20" for the same."""
    first, _, last = text.rpartition(":")
    if not (last.isdecimal() and (first or "0").isdecimal() and int(first or 0) < int(last)):
        raise argparse.ArgumentTypeError(f"seeds are first:end, such as 0:20, from 0 on, got {text!r}")
    return range(int(first or 0), int(last))


def minutes_of(text: str) -> float:
    """A time that is no less than 0."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < np.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"minutes are a number of at least 0, got {text!r}")


def cores_of(text: str) -> int:
    """How many cores, of those that there are."""
    if not (text.isdecimal() and 1 <= int(text) <= len(_cores())):
        raise argparse.ArgumentTypeError(f"there are 1 to {len(_cores())} cores to use, got {text!r}")
    return int(text)


def executor_text(text: str) -> str:
    """What `executor_of` can make an executor of."""
    if text == "dask" or (text.isdecimal() and int(text) >= 1):
        return text
    module, _, function = text.partition(":")
    with contextlib.suppress(ImportError, ValueError):
        if callable(getattr(importlib.import_module(module), function, None)):
            return text
    raise argparse.ArgumentTypeError(f'it is so many processes, "dask" or module:function, got {text!r}')


def _cores() -> list[int]:
    there = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return sorted(there)


def chosen(experiment: Experiment, profile: str, seeds: range | None) -> list[Job]:
    """The runs of a profile, with these seeds where seeds are given."""
    config = experiment.profiles[profile]
    if seeds is None:
        return list(experiment.jobs(config))
    if "seeds" in [field.name for field in fields(config)]:
        config = replace(config, seeds=seeds.stop)
    return [job for job in experiment.jobs(config) if job.seed in seeds]


@contextlib.contextmanager
def executor_of(text: str | None) -> Iterator[Executor | None]:
    """The executor that a text names: a number of processes, "dask", or "module:function" that makes one."""
    if text is None:
        yield None
    elif text.isdigit():
        from multiprocessing import get_context

        with ProcessPoolExecutor(int(text), mp_context=get_context("spawn")) as pool:
            yield pool
    elif text == "dask":
        from distributed import Client

        with Client() as client:
            yield client.get_executor()
    else:
        module, _, function = text.partition(":")
        with getattr(importlib.import_module(module), function)() as pool:
            yield submits("executor", pool)


def table(plan: Sequence[tuple[Experiment, Sequence[Job]]], folder: Path | None) -> str:
    """What `--status` prints."""
    heads = ("done", "missing", "hours", "core h", "left h", "guessed")
    lines = [f"{'experiment':16}" + "".join(f"{head:>9}" for head in heads)]
    sums, known = np.zeros(len(heads)), True
    for experiment, jobs in plan:
        one = status(experiment, jobs, folder)
        hours = (seconds / 3600 for seconds in (one.seconds, one.core_seconds, one.left or 0.0))
        row = [one.done, one.missing, *hours, one.guessed]
        lines.append(_line(experiment.name, row, unknown=one.left is None))
        sums, known = sums + row, known and one.left is not None
    return "\n".join([*lines, _line("all", sums.tolist(), unknown=not known), _GUESSED])


_GUESSED = (
    "guessed: missing runs of a kind, or on a data set, of which none is recorded: their time is least sure. "
    "Which comparisons the records decide: python -m companion.scorecard"
)


def _line(name: str, row: Sequence[float | int], *, unknown: bool = False) -> str:
    done, missing, hours, core, left, guessed = row
    ahead = f"{left:.1f}" + " + ?" * unknown if left or not unknown else "?"
    return f"{name:16}{done:9.0f}{missing:9.0f}{hours:9.1f}{core:9.1f}{ahead:>9}{guessed:9.0f}"


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = argparse.ArgumentParser(prog="python -m companion.experiments", description=__doc__)
    arguments.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; none means all but timings"
    )
    arguments.add_argument(
        "--profile", default="full", help='such as "quick", "full" or "paper" (default: full)'
    )
    arguments.add_argument("--seeds", type=seed_range, help="such as 0:20 (default: the profile's)")
    arguments.add_argument(
        "--minutes", type=minutes_of, help="after which no run is begun (default: no limit)"
    )
    arguments.add_argument(
        "--folder", type=place, help="of the records (default: book/results of this checkout)"
    )
    arguments.add_argument(
        "--status", action="store_true", help="say what is done, missing and left, and end"
    )
    arguments.add_argument(
        "--merge", type=place, metavar="FOLDER", help="take over another machine's records"
    )
    arguments.add_argument(
        "--cores",
        type=cores_of,
        help="how many to use, the last of this machine, which a second campaign shares (default: all)",
    )
    arguments.add_argument(
        "--executor",
        type=executor_text,
        help='where runs are made: so many processes, "dask", or "module:function" (default: here)',
    )
    return arguments


def main(arguments: list[str] | None = None) -> int:
    """Make the runs that are missing, say how far they are, or merge those of another machine."""
    words = parser()
    options = words.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(names())):
        words.error(f"there is no experiment {', '.join(unknown)}; there are {', '.join(names())}")
    every = [find(name) for name in options.names] or [one for one in map(find, names()) if not one.alone]
    if not any(options.profile in one.profiles for one in every):
        known = sorted({profile for one in every for profile in one.profiles})
        words.error(f"there is no profile {options.profile}; there are {', '.join(known)}")
    if lacking := [name for name in options.names if options.profile not in find(name).profiles]:
        words.error(f"there is no profile {options.profile} of {', '.join(lacking)}")
    if options.merge and not any((options.merge / one.name).is_dir() for one in every):
        words.error(f"{options.merge} has no folder of {' or '.join(one.name for one in every)}")
    plan = [
        (one, chosen(one, options.profile, options.seeds)) for one in every if options.profile in one.profiles
    ]
    if options.merge:
        for one in every:
            done = results.merge(options.merge / one.name, results.place_of(one.name, options.folder))
            print(f"{one.name}: {done.added} added, {done.same} there, {len(done.other)} differ and stay")
    if options.status:
        print(table(plan, options.folder))
    if options.status or options.merge:
        return 0
    if options.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, _cores()[-options.cores :])
    with _ended_by_ctrl_c(), executor_of(options.executor) as executor:
        failed = campaign(plan, folder=options.folder, minutes=options.minutes, executor=executor)
    print(table(plan, options.folder))
    return int(failed > 0)


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """End the process by the signal itself: in Python's own end, what XLA still compiles would crash."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stdout.flush()
        print(
            "\nKeyboardInterrupt: what is recorded stays, and a next campaign makes the rest",
            file=sys.stderr,
            flush=True,
        )
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
