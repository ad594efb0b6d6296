"""`gram` and `plan`: from arguments to tiles, in memory or in a folder."""

import os
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from companion._core.amounts import duration, size
from companion._core.checks import batch, count, same_inputs, submits
from companion._core.compile import Kind, double, kernel_function, refuse_mixed_entries
from companion._core.interrupt import deferred
from companion._core.types import Kernel
from companion._core.words import OnDisk, Unchecked
from companion.kernels import _plan, _tiles
from companion.kernels._kept import Request, kept


@dataclass(frozen=True)
class Plan:
    """What `gram` is going to do; `print` it.

    Attributes:
        shape: rows and columns of the matrix.
        dtype: its type, "float32" or "float64".
        kind: "ntk" or "nngp".
        symmetric: whether one triangle is computed and mirrored.
        tile: rows and columns of a tile.
        tiles: how many are computed.
        output_bytes: the matrix, in host memory or on disk.
        tile_bytes: all the rest on each device, as the compiler says: the tiles at work (two; on a CPU two
            for each core, up to 16, where memory allows) with what they need in between, and the inputs if
            they stay there.
        devices: how many devices share the rows of every tile, and of which kind.
        seconds: how long it will take; None if not timed.
    """

    shape: tuple[int, int]
    dtype: str
    kind: Kind
    symmetric: bool
    tile: tuple[int, int]
    tiles: int
    output_bytes: int
    tile_bytes: int
    devices: tuple[int, str]
    seconds: float | None

    def __str__(self) -> str:
        n1, n2 = self.shape
        share = " of one triangle" if self.symmetric else ""
        number, name = self.devices
        time = "" if self.seconds is None else f", about {duration(self.seconds)}"
        return (
            f"{self.kind} {n1:,} × {n2:,} in {self.dtype}: {size(self.output_bytes)}; {self.tiles:,} tiles"
            f"{share}, {self.tile[0]} × {self.tile[1]}; {size(self.tile_bytes)} to work on {number} × {name}"
            f"{time}"
        )


@deferred()
def gram(
    kernel: Kernel,
    x1: Float[Any, "n1 ..."],
    x2: Float[Any, "n2 ..."] | None = None,
    *,
    kind: Kind = "ntk",
    tile: int | None = None,
    memory: int | None = None,
    out: str | os.PathLike | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Float[np.ndarray, "n1 n2"] | OnDisk:
    """Kernel matrix between all pairs: K_ij = Θ(x1_i, x2_j).

    Tiles are computed in "highest" matmul precision (no silent TF32 on GPUs), their rows shared by all local
    devices, and collected in host memory or on disk. Without `x2` only the upper triangle is computed and
    then mirrored, so the result equals its transpose bit for bit. Not for use inside `jax.jit` or
    `jax.grad`: there, call the architecture's own `kernel`.

    Args:
        kernel: an `Architecture`, or any neural-tangents `kernel_fn(x1, x2, get)`. A function of your own
            is compiled at every call of `gram`, or once after `keep_compiled`; an architecture's is kept.
        x1: inputs (n1, ...), float32 or float64, finite. Pixels are expected in [0, 1], not required.
        x2: inputs (n2, ...) of the same shape after the first axis; None means x1.
        kind: "ntk" for the tangent kernel Θ, "nngp" for the output covariance at initialization 𝒦.
        tile: the most rows and columns of a tile, ≥ 1; with several devices rounded up to a multiple of
            them. Any n works: all tiles have one shape, and the last overlaps the one before. None: what
            `plan` says.
        memory: bytes that the work on tiles may take on each device, beside the result. None: a quarter of
            what is free (half of what is free on a GPU).
        out: where to keep the matrix. A run that was interrupted or killed goes on where it was, to the same
            bytes; a finished one is only opened. A folder: one file that this process writes, with a mark for
            every finished tile. A name that ends in .zarr, or a URL that fsspec knows ("s3://...", with
            fsspec's own settings): a Zarr store with the inputs in it and a chunk for every tile, which any
            number of processes fill at the same time (needs the extra `cluster`).
        executor: computes the tiles: a `concurrent.futures.Executor` of threads, processes or a cluster's
            (Dask's `client.get_executor()`, `mpi4py.futures`), each tile on one device; the bytes are those
            of one process with one device of the same kind. With a Zarr store workers read and write there,
            and only places travel. Otherwise a tile's inputs go to a worker and its values come back:
            s (2 d + s) numbers for 2 s² d operations. What a dead worker had is computed again by Dask; of
            other executors the error says which tiles are missing in a Zarr store, and the same call makes
            them. Workers need this package and the same versions; architectures can be pickled, a kernel of
            your own must be.
        progress: show a tqdm bar over the tiles.

    Returns:
        The kernel matrix (n1, n2), in the precision of the inputs: float64 inputs are computed in float64
        even where JAX's own default is float32. (In float32 the diagonal of neural-tangents' own ReLU kernels
        is off by up to 5e-4: arccos near 1.) With a folder `out`, a read-only memory map of `kernel.npy`
        there; with a Zarr store its array "kernel", read-only: slices of it are arrays, `np.asarray` reads it
        whole, `dask.array.from_zarr` as needed. What nobody has computed yet is NaN there.

    Raises:
        TypeError: inputs that are not float32 or float64; a kernel that is no function.
        ValueError: NaN or infinity in the inputs or the result, shapes that do not fit, an unknown kind,
            tile < 1, a kernel that is not symmetric although there is only x1, or whose entries depend on
            other inputs than their two; memory too small for the tile, or for any; a folder that holds
            another matrix or that another process is writing; workers without companion, with other versions
            or devices, or that write to another place.
        ImportError: a Zarr store where zarr is not installed.
        OSError: the folder cannot be written; the message says what was wanted and what is free.

    Memory: the result, plus the plan's `tile_bytes`. Time: the kernel's on n1 n2 pairs, half without x2.

    >>> from companion.architectures import fc
    >>> gram(fc(1), np.eye(3, dtype=np.float32)).shape
    (3, 3)
    """
    x1, x2, tile, memory = _checked(kernel, x1, x2, kind, tile, memory)
    submits("executor", executor)
    refuse_mixed_entries(kernel, kind, x1, x1 if x2 is None else x2, symmetric=x2 is None)
    dtype = np.result_type(x1, x1 if x2 is None else x2)
    with double(np.empty(0, dtype)):
        request = Request(kernel, kind, x1, x2, tile, memory, executor, progress)
        if out is not None:
            return kept(request, out)
        matrix = np.empty(request.shape, dtype)
        _tiles.fill(matrix, request.job(None), x1, x2, (), lambda _: None, request.title, request.where())
        return matrix


@deferred()
def plan(
    kernel: Kernel,
    x1: Float[Any, "n1 ..."],
    x2: Float[Any, "n2 ..."] | None = None,
    *,
    kind: Kind = "ntk",
    tile: int | None = None,
    memory: int | None = None,
    time: bool = False,
) -> Plan:
    """Say how `gram` with the same arguments would go, and what it would take.

    The side of a tile is 592 on a CPU (4,096 elsewhere), or less where an intermediate array of a
    convolution's tile would have over 2²⁰ entries (2²⁶ elsewhere) by the rule of `Architecture.pixel_power`,
    and halved while the work is over `memory`, by what the compiler says. Tiles are then made equal.

    Args:
        kernel: as for `gram`.
        x1: as for `gram`.
        x2: as for `gram`.
        kind: as for `gram`.
        tile: as for `gram`.
        memory: as for `gram`.
        time: run a few tiles, to estimate the seconds.

    Returns:
        The plan.

    Raises:
        TypeError, ValueError: as `gram` does.

    Costs a compilation, which `gram` then does not repeat for a kernel that is kept compiled.

    >>> from companion.architectures import fc
    >>> plan(fc(1), np.eye(3, dtype=np.float32)).tiles
    1
    """
    x1, x2, tile, memory = _checked(kernel, x1, x2, kind, tile, memory)
    other = x1 if x2 is None else x2
    dtype = np.result_type(x1, other)
    with double(np.empty(0, dtype)):
        job = _plan.prepare(kernel, kind, x1, x2, tile, memory)
        seconds = _tiles.seconds(job, x1, other) if time else None
    layout = job.layout
    return Plan(
        shape=(layout.n1, layout.n2),
        dtype=dtype.name,
        kind=kind,
        symmetric=layout.symmetric,
        tile=(layout.rows, layout.columns),
        tiles=len(layout.corners()),
        output_bytes=layout.n1 * layout.n2 * dtype.itemsize,
        tile_bytes=job.tile_bytes,
        devices=(len(job.devices), job.devices[0].device_kind),
        seconds=seconds,
    )


def _checked(
    kernel: Unchecked, x1: Unchecked, x2: Unchecked, kind: Unchecked, tile: Unchecked, memory: Unchecked
) -> tuple[np.ndarray, np.ndarray | None, int | None, int | None]:
    kernel_function(kernel, kind)
    x1 = batch("x1", x1)
    if x2 is not None:
        x2 = batch("x2", x2)
        same_inputs("x1", x1, "x2", x2)
    tile = None if tile is None else count("tile", tile)
    return x1, x2, tile, None if memory is None else count("memory", memory)
