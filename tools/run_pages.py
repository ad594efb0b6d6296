"""Sphinx extension: run the pages that must run before Sphinx reads any, two at a time where cores allow.

Sphinx reads pages one after the other, and myst-nb runs each when it is read. Here the same pages are run by
the same function into the same cache, each in a kernel of its own; the reader then finds them there. A page
whose cells fail is not in the cache: it fails once more when it is read, with myst-nb's own words.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.read import create_nb_reader
from sphinx.util import logging

AT_ONCE = 2  # a chapter keeps one core busy, and at times two; each takes up to 2 GB
LOG = logging.getLogger(__name__)


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def waiting(app, names: list[str], cache) -> list:
    """Return path and notebook of every page that has code and is not in the cache, the longest first."""
    found = []
    for name in names:
        path = Path(app.env.doc2path(name))
        text = path.read_text("utf8")
        reader = create_nb_reader(str(path), app.env.myst_config, app.env.mystnb_config, text)
        if reader is None or app.env.mystnb_config.execution_mode != "cache":
            continue
        notebook = reader.read(text)
        with suppress(KeyError):
            cache.match_cache_notebook(notebook)
            continue
        found.append((len(text), path, notebook))
    return [(path, notebook) for _, path, notebook in sorted(found, key=lambda one: (-one[0], one[1]))]


def execute(path: Path, notebook, allow_errors: bool, timeout: int | None):
    """Run one notebook in its own folder, as myst-nb does."""
    return single_nb_execution(notebook, cwd=str(path.parent), allow_errors=allow_errors, timeout=timeout)


def run_pages(app, _env, names: list[str]) -> None:
    """Run what has to run of these pages, and keep it."""
    config = app.env.mystnb_config
    cache = get_cache(config.execution_cache_path)
    pages = waiting(app, names, cache)
    if not pages:
        return
    # Processes, and not threads, so that Ctrl-C reaches whoever waits for a kernel.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(AT_ONCE, cores()), mp_context=context) as pool:
        runs = {}
        for path, notebook in pages:
            own = notebook.metadata.get(config.metadata_key, {})
            timeout = own.get("execution_timeout", config.execution_timeout)
            runs[pool.submit(execute, path, notebook, config.execution_allow_errors, timeout)] = path
        for run in as_completed(runs):
            path = runs[run]
            if (error := run.exception()) is not None:  # its kernel died, not a cell
                LOG.warning(f"{path}: {type(error).__name__}: {error}")
                continue
            result = run.result()
            if result.err is not None:
                LOG.info(f"{path}: Executed notebook in {result.time:.2f} seconds, and a cell failed")
                continue
            bundle = CacheBundleIn(result.nb, str(path), data={"execution_seconds": result.time})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            LOG.info(f"{path}: Executed notebook in {result.time:.2f} seconds")


def setup(app):
    """Register with Sphinx."""
    app.connect("env-before-read-docs", run_pages)
    return {"parallel_read_safe": True}
