"""Tiles of a Gram matrix on the workers of an executor: threads, processes, or a cluster's."""

import functools
import secrets
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field

import jax
import numpy as np

from companion._core.compile import Kind, double
from companion._core.interrupt import safe_point
from companion._core.types import Array, Kernel
from companion._core.versions import versions
from companion.kernels._plan import Block, Job, Spec, compiled, local_devices
from companion.kernels._tiles import Tile, part_of

_AT_ONCE = 2  # tiles for each worker: one at work, one waiting
_WORKERS = 8  # where an executor does not tell


@dataclass(frozen=True)
class _Call:
    """One call of `gram`, equal to what arrives of it with another tile."""

    token: str
    kernel: Kernel = field(compare=False)
    kind: Kind = field(compare=False)


def evaluator(
    executor: Executor, kernel: Kernel, kind: Kind
) -> Callable[[Job, np.ndarray, np.ndarray, list[Tile], Callable[[Tile, np.ndarray], None]], None]:
    """A function like `_tiles.evaluate` that computes each tile on a worker of the executor.

    The inputs of a tile go there and its values come back, so that a worker needs no disk. A worker that an
    executor replaces (Dask's do) has its tiles computed again by it.
    """
    call = _Call(secrets.token_hex(8), kernel, kind)
    here = _machine()

    def evaluate(
        job: Job,
        x1: np.ndarray,
        x2: np.ndarray,
        todo: list[Tile],
        finish: Callable[[Tile, np.ndarray], None],
    ) -> None:
        rows, columns = job.layout.rows, job.layout.columns
        most = _AT_ONCE * (getattr(executor, "_max_workers", None) or _WORKERS)
        waiting: dict[Future, Tile] = {}
        tiles = iter(todo)
        try:
            while True:
                while len(waiting) < most and (tile := next(tiles, None)) is not None:
                    parts = part_of(x1, tile[1], rows), part_of(x2, tile[2], columns)
                    waiting[executor.submit(_tile, call, *parts)] = tile
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    values, there = future.result()
                    _same_machine(there, here)
                    finish(waiting.pop(future), values)
                safe_point()
        finally:
            for future in waiting:
                future.cancel()

    return evaluate


def _tile(call: _Call, x1: np.ndarray, x2: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """A tile's values, in whatever process, and what computed them."""
    with double(x1, x2):
        block = _block(call, (x1.shape, x1.dtype.name), (x2.shape, x2.dtype.name))
        return np.asarray(block(jax.device_put(x1), jax.device_put(x2))), _machine()


@functools.lru_cache(maxsize=4)
def _block(call: _Call, first: Spec, second: Spec) -> Block | Callable[[Array, Array], Array]:
    """The compiled tile: once in a process for each call of `gram`."""
    function = getattr(call.kernel, "kernel", call.kernel)
    return compiled(function, call.kind, first, second, local_devices()[:1])


def _machine() -> dict[str, str]:
    """What decides the last digits of a tile."""
    return _packages() | {"device": local_devices()[0].device_kind}


@functools.cache
def _packages() -> dict[str, str]:
    return {name: version for name, version in versions().items() if name != "python"}


def _same_machine(there: dict[str, str], here: dict[str, str]) -> None:
    apart = [
        f"{name} {there.get(name)} there, {value} here"
        for name, value in here.items()
        if there.get(name) != value
    ]
    if apart:
        raise ValueError(
            "executor must have workers like this process, for its tiles to be of one matrix: "
            + "; ".join(apart)
        )
