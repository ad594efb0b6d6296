"""The loop over the tiles of a Gram matrix: it keeps the devices busy and puts each tile in its place."""

import collections
import functools
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import jax
import numpy as np
from tqdm.auto import tqdm

from companion._core.checks import finite
from companion._core.compile import double, refuse_asymmetry
from companion._core.interrupt import safe_point, waits
from companion._core.words import OnDisk
from companion.kernels._plan import Job, Layout, shardings
from companion.storage import Chunks

_PIECE = 128  # side of what is transposed at once
# A thread that waits without a limit is not always woken by Ctrl-C: not on Windows, and nowhere if the
# signal came just before, or to another thread.
_SECONDS_TO_CTRL_C = 0.2

Tile = tuple[int, int, int]  # its number, first row and first column


def fill(
    matrix: np.ndarray | Chunks,
    job: Job,
    x1: np.ndarray,
    x2: np.ndarray | None,
    done: Iterable[int],
    mark: Callable[[int], None],
    title: str | None,
    evaluator: Callable[..., None] | None = None,
) -> None:
    """Compute the tiles that are not done; `title` is None where no progress is wanted.

    `evaluator`: computes them in place of `evaluate`, and gives no values where a worker has written them.
    """
    done, lock = set(done), threading.Lock()
    tiles = [(index, i, j) for index, (i, j) in enumerate(job.layout.corners())]
    todo = [tile for tile in tiles if tile[0] not in done]
    there = f" ({len(done)} were there)" if done else ""
    with tqdm(
        total=len(tiles), initial=len(done), desc=f"{title} tiles{there}", disable=title is None
    ) as bar:

        def finish(tile: Tile, values: np.ndarray | None) -> None:
            index, i, j = tile
            if values is not None:
                place(matrix, job.layout, i, j, values)
            with lock:
                mark(index)
                bar.update()

        (evaluator or evaluate)(job, x1, x1 if x2 is None else x2, todo, finish)


def evaluate(
    job: Job, x1: np.ndarray, x2: np.ndarray, todo: list[Tile], finish: Callable[[Tile, np.ndarray], None]
) -> None:
    """Compute tiles, several at once, and give their values to `finish`, in the thread that computed them.

    After an error or an interruption the tiles at work are finished, and no other is begun.
    """
    rows, whole = shardings(job.devices)
    first = _blocks(x1, job.layout.rows, rows, job)
    shared = job.layout.symmetric and len(job.devices) == 1
    second = first if shared else _blocks(x2, job.layout.columns, whole, job)
    if job.threads:
        tiles, taking, stop = iter(todo), threading.Lock(), threading.Event()

        def work() -> None:
            while not stop.is_set():
                with taking:
                    tile = next(tiles, None)
                if tile is None:
                    return
                with double(x1, x2):  # a setting of JAX that threads do not inherit
                    values = job.block(first(tile[1]), second(tile[2]))
                finish(tile, np.asarray(values))

        with ThreadPoolExecutor(job.at_once) as pool:
            try:
                working = {pool.submit(work) for _ in range(job.at_once)}
                while working:
                    safe_point()
                    ended, working = wait(working, _SECONDS_TO_CTRL_C, FIRST_COMPLETED)
                    for thread in ended:
                        thread.result()
            finally:
                stop.set()
        return
    flying = collections.deque()
    for tile in todo:
        if waits():
            break
        values = job.block(first(tile[1]), second(tile[2]))
        if job.devices[0].platform != "cpu":
            values.copy_to_host_async()
        flying.append((tile, values))
        del values
        if len(flying) == job.at_once:
            tile, values = flying.popleft()
            finish(tile, np.asarray(values))
            del values
    for tile, values in flying:
        finish(tile, np.asarray(values))
    safe_point()


def _blocks(x: np.ndarray, length: int, place: jax.sharding.Sharding, job: Job) -> Callable[[int], jax.Array]:
    """Blocks of inputs on the devices by their first row, kept: all of them, or the last ones used."""
    lock = threading.Lock()

    @functools.lru_cache(maxsize=None if job.hold else job.at_once)
    def block(start: int) -> jax.Array:
        return jax.device_put(part_of(x, start, length), place)

    def once(start: int) -> jax.Array:
        with lock:
            return block(start)

    return once


def part_of(x: np.ndarray | OnDisk, start: int, length: int) -> np.ndarray:
    """The inputs of a tile, always so many."""
    first = _start(start, x.shape[0], length)
    part = x[first : first + length]
    if len(part) < length:
        # A real input, so that no kernel can divide by zero on it.
        part = np.concatenate([part, np.repeat(part[-1:], length - len(part), axis=0)])
    return part


def _start(start: int, n: int, length: int) -> int:
    """Move the last block back, so that it is full."""
    return max(0, min(start, n - length))


def place(matrix: np.ndarray | Chunks, layout: Layout, i: int, j: int, values: np.ndarray) -> None:
    """Check a tile, and write it and its mirror image into the matrix, or each as a chunk."""
    rows, columns = slice(i, min(i + layout.rows, layout.n1)), slice(j, min(j + layout.columns, layout.n2))
    top, left = i - _start(i, layout.n1, layout.rows), j - _start(j, layout.n2, layout.columns)
    inside = slice(top, top + rows.stop - i), slice(left, left + columns.stop - j)
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(values[inside].sum())
    if suspicious:
        finite(f"the kernel matrix[{i}:{rows.stop}, {j}:{columns.stop}]", values[inside])
    values = values[inside]
    if not isinstance(matrix, Chunks):
        matrix[rows, columns] = values
        if layout.symmetric:
            _mirror(matrix[columns, rows], values, diagonal=i == j)
        return
    if layout.symmetric and i == j:
        whole = values.copy()
        _mirror(whole, values, diagonal=True)
        values = whole
    elif layout.symmetric:
        matrix.write(columns, rows, np.ascontiguousarray(values.T))
    # Last: where a chunk of the upper triangle is, its mirror image is too.
    matrix.write(rows, columns, values)


def _mirror(target: np.ndarray, values: np.ndarray, *, diagonal: bool) -> None:
    """Write the transpose of a tile, in pieces that stay in the cache; of a diagonal one its lower triangle.

    A kernel's diagonal tile, which `target` holds, is symmetric only up to rounding.
    """
    size = np.sqrt(np.finfo(values.dtype).eps) * max(values.max(), -values.min()) if diagonal else 0.0
    for a in range(0, len(values), _PIECE):
        for b in range(a if diagonal else 0, values.shape[1], _PIECE):
            piece, place = values[a : a + _PIECE, b : b + _PIECE].T, target[b : b + _PIECE, a : a + _PIECE]
            if diagonal and np.abs(place - piece).max() > size:
                refuse_asymmetry(values)
            place[:] = np.tril(piece) + np.tril(piece, -1).T if diagonal and a == b else piece


def seconds(job: Job, x1: np.ndarray, x2: np.ndarray) -> float:
    """Time of all tiles, from the first few, after one that is not counted."""
    corners = job.layout.corners()
    few = [(index, *corner) for index, corner in enumerate(corners[: 4 * job.at_once])]
    for tiles in (few[:1], few):
        start = time.perf_counter()
        evaluate(job, x1, x2, tiles, lambda *_: None)
    return (time.perf_counter() - start) / len(few) * len(corners)
