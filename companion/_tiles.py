"""The loop over the tiles of a Gram matrix: it keeps the devices busy and puts each tile in its place."""

import collections
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from companion._checks import finite
from companion._plan import IN_FLIGHT, Job, Layout, shardings


def fill(
    matrix: np.ndarray,
    job: Job,
    x1: np.ndarray,
    x2: np.ndarray | None,
    done: Iterable[int],
    mark: Callable[[int], None],
    title: str | None,
) -> None:
    """Compute the tiles that are not done; `title` is None where no progress is wanted."""
    done = set(done)
    tiles = [(index, i, j) for index, (i, j) in enumerate(job.layout.corners())]
    todo = [tile for tile in tiles if tile[0] not in done]
    there = f" ({len(done)} were there)" if done else ""
    with tqdm(
        total=len(tiles), initial=len(done), desc=f"{title} tiles{there}", disable=title is None
    ) as bar:
        for (index, i, j), values in evaluate(job, x1, x1 if x2 is None else x2, todo):
            place(matrix, job.layout, i, j, np.asarray(values))
            mark(index)
            bar.update()


def evaluate(job: Job, x1: np.ndarray, x2: np.ndarray, todo: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Compute the tiles (index, i, j), two in flight: while one is collected the next one runs."""
    rows, whole = shardings(job.devices)
    first = _blocks(x1, job.layout.rows, rows, job)
    shared = job.layout.symmetric and len(job.devices) == 1
    second = first if shared else _blocks(x2, job.layout.columns, whole, job)
    flying = collections.deque()
    for tile in todo:
        values = job.block(first(tile[1]), second(tile[2]))
        if job.devices[0].platform != "cpu":
            values.copy_to_host_async()
        flying.append((tile, values))
        del values
        if len(flying) == IN_FLIGHT:
            yield flying.popleft()
    yield from flying


def _blocks(x: np.ndarray, length: int, place: Any, job: Job) -> Callable[[int], tuple[Any, ...]]:
    """Blocks of inputs on the devices by their first row, kept: all of them, or the last two used."""

    @functools.lru_cache(maxsize=None if job.hold else 2)
    def block(start: int) -> tuple[Any, ...]:
        part = x[_start(start, len(x), length) :][:length]
        if len(part) < length:
            # A real input, so that no kernel can divide by zero on it.
            part = np.concatenate([part, np.repeat(part[-1:], length - len(part), axis=0)])
        flat = part.reshape(length, -1)
        squares = (np.einsum("nd,nd->n", flat, flat),) if job.squares else ()
        return tuple(jax.device_put(array, place) for array in (part, *squares))

    return block


def _start(start: int, n: int, length: int) -> int:
    """Move the last block back, so that it is full."""
    return max(0, min(start, n - length))


def place(matrix: np.ndarray, layout: Layout, i: int, j: int, values: np.ndarray) -> None:
    """Check a tile, and write it and its mirror image into the matrix."""
    rows, columns = slice(i, min(i + layout.rows, layout.n1)), slice(j, min(j + layout.columns, layout.n2))
    top, left = i - _start(i, layout.n1, layout.rows), j - _start(j, layout.n2, layout.columns)
    inside = slice(top, top + rows.stop - i), slice(left, left + columns.stop - j)
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(values[inside].sum())
    if suspicious:
        finite(f"the kernel matrix[{i}:{rows.stop}, {j}:{columns.stop}]", values[inside])
    if layout.symmetric and i == j:
        values = _symmetric(values)
    values = values[inside]
    matrix[rows, columns] = values
    if layout.symmetric and i != j:
        matrix[columns, rows] = values.T


def _symmetric(tile: np.ndarray) -> np.ndarray:
    """A diagonal tile made equal to its transpose: the kernel's is symmetric only up to rounding."""
    symmetric, asymmetry, size = _mirrored(tile)
    if asymmetry > np.sqrt(np.finfo(tile.dtype).eps) * size:
        raise ValueError(
            f"kernel must be symmetric where x2 is None: entries differ from their mirror by {asymmetry:.3g}"
        )
    return np.asarray(symmetric)


@jax.jit
def _mirrored(tile: Any) -> tuple[Any, Any, Any]:
    """The upper triangle and its mirror image; the largest difference it hides; the largest entry."""
    return jnp.triu(tile) + jnp.triu(tile, 1).T, jnp.abs(tile - tile.T).max(), jnp.abs(tile).max()


def seconds(job: Job, x1: np.ndarray, x2: np.ndarray) -> float:
    """Time of all tiles, from the first few, after one that is not counted."""
    corners = job.layout.corners()
    few = [(index, *corner) for index, corner in enumerate(corners[:8])]
    for tiles in (few[:1], few):
        start = time.perf_counter()
        for _, values in evaluate(job, x1, x2, tiles):
            np.asarray(values)
    return (time.perf_counter() - start) / len(few) * len(corners)
