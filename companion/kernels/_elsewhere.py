"""Tiles of a Gram matrix on the workers of an executor: threads, processes, or a cluster's."""

import functools
import pickle
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import jax
import numpy as np

from companion._core.compile import Kind, double, local_devices
from companion._core.interrupt import safe_point
from companion._core.types import Array, Kernel
from companion._core.versions import versions
from companion._core.words import Unchecked
from companion.kernels._plan import Block, Job, Layout, Spec, compiled
from companion.kernels._tiles import Tile, part_of, place
from companion.storage import Chunks, ZarrStore

_AT_ONCE = 2  # tiles for each worker: one at work, one waiting
_WORKERS = 8  # where an executor does not tell
_ORDERS = 1000  # at once of tiles that workers read and write by themselves: a few hundred bytes each
_BLOCKS = 8  # of inputs that a worker keeps: the rows of one tile are those of the next


@dataclass(frozen=True)
class _Call:
    """One call of `gram`, equal to what arrives of it with another tile."""

    token: str
    kernel: Kernel = field(compare=False)
    kind: Kind = field(compare=False)
    machine: Mapping[str, str] = field(compare=False)
    store: ZarrStore | None = field(compare=False)


def evaluator(
    executor: Executor, kernel: Kernel, kind: Kind, store: ZarrStore | None = None
) -> Callable[[Job, np.ndarray, np.ndarray, list[Tile], Callable[[Tile, np.ndarray | None], None]], None]:
    """A function like `_tiles.evaluate` that computes each tile on a worker of the executor.

    The inputs of a tile go there and its values come back, so that a worker needs no disk; with a Zarr store
    a worker reads and writes there. A worker that an executor replaces (Dask's do) has its tiles computed
    again by it.
    """
    call = _Call(secrets.token_hex(8), kernel, kind, _machine(), store)

    def evaluate(
        job: Job,
        x1: np.ndarray,
        x2: np.ndarray,
        todo: list[Tile],
        finish: Callable[[Tile, np.ndarray | None], None],
    ) -> None:
        most = _ORDERS if store else _AT_ONCE * (getattr(executor, "_max_workers", None) or _WORKERS)
        waiting: dict[Future, Tile] = {}
        tiles = iter(todo)
        try:
            while True:
                while len(waiting) < most and (tile := next(tiles, None)) is not None:
                    waiting[_sent(executor, call, job.layout, x1, x2, tile)] = tile
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    finish(waiting.pop(future), _came(future))
                safe_point()
        finally:
            for future in waiting:
                future.cancel()

    return evaluate


def _sent(
    executor: Executor, call: _Call, layout: Layout, x1: np.ndarray, x2: np.ndarray, tile: Tile
) -> Future:
    """A tile on its way: its inputs, or its place in the store alone."""
    _, i, j = tile
    if call.store is not None:
        work = _stored, (call, layout, i, j)
    else:
        work = _tile, (call, part_of(x1, i, layout.rows), part_of(x2, j, layout.columns))
    if isinstance(executor, ThreadPoolExecutor):
        return executor.submit(work[0], *work[1])
    return executor.submit(pickle.loads, _pickle(_Order(*work)))


@dataclass(frozen=True)
class _Order:
    """A call that unpickling makes: what cannot be imported there is an error of the task.

    Dask's workers otherwise end, or wait forever, over work that they cannot unpickle.
    """

    function: Callable[..., np.ndarray | None]
    arguments: tuple[Unchecked, ...]

    def __reduce__(self) -> tuple[Callable[..., np.ndarray | None], tuple[Unchecked, ...]]:
        return self.function, self.arguments


def _pickle(order: _Order) -> bytes:
    """With cloudpickle, which Dask brings, a notebook's functions go too."""
    try:
        import cloudpickle
    except ImportError:
        return pickle.dumps(order)
    return cloudpickle.dumps(order)


def _came(future: Future) -> np.ndarray | None:
    try:
        return future.result()
    except ModuleNotFoundError as error:
        raise ValueError(
            f"executor must have workers like this process, with companion and its packages: {error} there"
        ) from error


def _tile(call: _Call, x1: np.ndarray, x2: np.ndarray) -> np.ndarray:
    """A tile's values, in whatever process."""
    _same_machine(_machine(), call.machine)
    with double(x1, x2):
        block = _block(call, (x1.shape, x1.dtype.name), (x2.shape, x2.dtype.name))
        return np.asarray(block(jax.device_put(x1), jax.device_put(x2)))


def _stored(call: _Call, layout: Layout, i: int, j: int) -> None:
    """Compute a tile from the inputs in the store, and write it there."""
    first = _inputs(call, "x1", i, layout.rows)
    second = _inputs(call, "x1" if layout.symmetric else "x2", j, layout.columns)
    place(_matrix(call), layout, i, j, _tile(call, first, second))


@functools.lru_cache(maxsize=_BLOCKS)
def _inputs(call: _Call, name: str, start: int, length: int) -> np.ndarray:
    return part_of(call.store.array(name), start, length)


@functools.lru_cache(maxsize=1)
def _matrix(call: _Call) -> Chunks:
    return call.store.chunks()


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


def _same_machine(there: Mapping[str, str], here: Mapping[str, str]) -> None:
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
