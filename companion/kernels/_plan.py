"""How a Gram matrix is cut into tiles: their size, from a limit on memory, and their compiled form."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from companion._core.compile import Kind, cores, free_memory, kernel_entries, local_devices, made_once, pixels
from companion._core.types import Array, Kernel, KernelFunction


@runtime_checkable
class Memory(Protocol):
    """Bytes that a compiled tile takes."""

    temp_size_in_bytes: int
    output_size_in_bytes: int
    argument_size_in_bytes: int


@runtime_checkable
class Block(Protocol):
    """A compiled tile: kernel entries of two blocks of inputs."""

    def __call__(self, x1: Array, x2: Array) -> jax.Array: ...

    def memory_analysis(self) -> Memory | None:
        """What it takes, as XLA says; None where XLA does not."""


Devices = tuple[jax.Device, ...]
Spec = tuple[tuple[int, ...], str]  # shape and dtype of a block of inputs

# While one tile is collected the next one runs. On a CPU two for each core: one waits where another computes.
_IN_FLIGHT = 2
_MOST_THREADS = 16
# On a CPU a tile should stay in the cache: at n = 5,000, sides of 368 to 720 were the fastest,
# and for a convolution's kernel arrays of 4 MB were six times as fast as of 64 MB. On a GPU a tile must
# outlast the time to launch it and to fetch the one before.
_SIDE, _SIDE_ELSEWHERE = 592, 4096
_ENTRIES, _ENTRIES_ELSEWHERE = 2**20, 2**26  # of one intermediate array
_INTERMEDIATES = 3  # how many of them live at once: a first guess, which the compiler's number replaces


@dataclass(frozen=True)
class Layout:
    """Where the tiles lie: every one has the same shape, so the last overlaps the one before."""

    n1: int
    n2: int
    rows: int
    columns: int
    symmetric: bool

    def corners(self) -> list[tuple[int, int]]:
        """First row and column of every tile; of the upper triangle where there is only x1."""
        return [
            (i, j)
            for i in range(0, self.n1, self.rows)
            for j in range(0, self.n2, self.columns)
            if j >= i or not self.symmetric
        ]


@dataclass(frozen=True)
class Job:
    """A layout with its compiled tile, and what it takes.

    `hold`: whether all inputs stay on the devices. `at_once`: how many tiles are at work. `threads`: whether
    each has a thread of its own, which on a CPU keeps the cores busy between the steps of a tile and while
    one is collected.
    """

    layout: Layout
    block: Callable[[Array, Array], Array]
    devices: Devices
    hold: bool
    at_once: int
    threads: bool
    tile_bytes: int


def make_layout(n1: int, n2: int, side: int, *, symmetric: bool, devices: int) -> Layout:
    """Cut into the fewest tiles of at most `side`, of equal sizes; rows are a multiple of the devices."""

    def balanced(n: int) -> int:
        return math.ceil(n / math.ceil(n / side))

    rows = math.ceil(balanced(n1) / devices) * devices
    return Layout(n1, n2, rows, rows if symmetric else balanced(n2), symmetric)


def prepare(
    kernel: Kernel,
    kind: Kind,
    x1: np.ndarray,
    x2: np.ndarray | None,
    tile: Layout | int | None,
    memory: int | None,
) -> Job:
    """Choose the tiles and compile one.

    Args:
        kernel: an Architecture or a function.
        kind: "ntk" or "nngp".
        x1: inputs, checked.
        x2: inputs, checked, or None for one triangle.
        tile: the largest side; a layout to take as it is; or None: the largest that fits.
        memory: bytes that the work on tiles may take on a device; None for a share of what is free.

    Returns:
        The layout, its compiled tile and the bytes it takes.

    Raises:
        ValueError: the tile asked for, or the smallest there is, does not fit into `memory`.
    """
    devices, other = local_devices(), x1 if x2 is None else x2
    cut = functools.partial(make_layout, len(x1), len(other), symmetric=x2 is None, devices=len(devices))
    limit = _free(devices) if memory is None else memory
    if tile is not None:
        layout = tile if isinstance(tile, Layout) else cut(tile)
        job = _job(kernel, kind, x1, other, layout, devices, limit)
        if memory is not None and job.tile_bytes > memory:
            shape = f"{layout.rows} × {layout.columns}"
            raise ValueError(f"memory must be at least {job.tile_bytes} for tiles of {shape}, got {memory}")
        return job
    on_cpu = devices[0].platform == "cpu"
    side, entries = (_SIDE, _ENTRIES) if on_cpu else (_SIDE_ELSEWHERE, _ENTRIES_ELSEWHERE)
    side = max(1, min(side, math.isqrt(entries // pixels(kernel, x1))))
    while side > 1 and _IN_FLIGHT * _guess(kernel, x1, other, cut(side), devices) > limit:
        side //= 2
    while (job := _job(kernel, kind, x1, other, cut(side), devices, limit)).tile_bytes > limit:
        if side == 1:
            raise ValueError(
                f"memory must be at least {job.tile_bytes} for the smallest tile of this kernel, got {limit}"
                + (" (a share of what is free)" if memory is None else "")
            )
        side //= 2
    return job


def _job(
    kernel: Kernel,
    kind: Kind,
    x1: np.ndarray,
    x2: np.ndarray,
    layout: Layout,
    devices: Devices,
    limit: int,
) -> Job:
    first, second = _specs(x1, x2, layout)
    function = getattr(kernel, "kernel", kernel)
    block = compiled(function, kind, first, second, devices)
    stats = block.memory_analysis()
    if stats is None:
        one = _guess(kernel, x1, x2, layout, devices)
    else:
        one = stats.temp_size_in_bytes + stats.output_size_in_bytes + stats.argument_size_in_bytes
    # All inputs stay on the devices if they fit beside the work.
    shared = layout.symmetric and len(devices) == 1
    inputs = x1.nbytes // len(devices) + (0 if shared else x2.nbytes)
    hold = _IN_FLIGHT * one + inputs <= limit
    threads = _by_threads(devices)
    most = min(2 * cores(), _MOST_THREADS, (limit - inputs * hold) // one) if threads else 0
    at_once = max(_IN_FLIGHT, most)
    return Job(layout, block, devices, hold, at_once, threads, at_once * one + inputs * hold)


def _by_threads(devices: Devices) -> bool:
    return len(devices) == 1 and devices[0].platform == "cpu"


def _specs(x1: np.ndarray, x2: np.ndarray, layout: Layout) -> tuple[Spec, Spec]:
    first = (layout.rows, *x1.shape[1:]), x1.dtype.name
    return first, ((layout.columns, *x2.shape[1:]), x2.dtype.name)


def _guess(kernel: Kernel, x1: np.ndarray, x2: np.ndarray, layout: Layout, devices: Devices) -> int:
    """Bytes on a device for a tile at work, without compiling."""
    rows, itemsize = layout.rows // len(devices), np.result_type(x1, x2).itemsize
    entries = rows * layout.columns * (1 + _INTERMEDIATES * pixels(kernel, x1))
    inputs = rows * x1[0].size + layout.columns * x2[0].size
    return itemsize * (entries + inputs)


def _free(devices: Devices) -> int:
    """Half of what is free on a device of its own memory; a quarter of the computer's, shared by all."""
    free = free_memory(devices[0])
    return free // 2 if devices[0].platform != "cpu" else free // (4 * len(devices))


@made_once
def compiled(
    function: KernelFunction,
    kind: Kind,
    first: Spec,
    second: Spec,
    devices: Devices,
) -> Block:
    """Compile a tile for these shapes."""

    def block(x1: Array, x2: Array) -> Array:
        with jax.default_matmul_precision("highest"):
            return kernel_entries(function, x1, x2, kind)

    rows, whole = shardings(devices)
    if len(devices) > 1:
        # Replication is not checked: a library's kernel may hold what JAX has no rule for.
        block = jax.shard_map(
            block, mesh=rows.mesh, in_specs=(rows.spec, whole.spec), out_specs=rows.spec, check_vma=False
        )
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=place)
        for (shape, dtype), place in zip((first, second), (rows, whole), strict=True)
    ]
    return jax.jit(block).lower(*arguments).compile()


def shardings(devices: Devices) -> tuple[jax.sharding.Sharding, jax.sharding.Sharding]:
    """Where a tile's rows lie (split over the devices) and its columns (a copy on each)."""
    if len(devices) == 1:
        return (SingleDeviceSharding(devices[0]),) * 2
    mesh = Mesh(np.array(devices), ("rows",))
    return NamedSharding(mesh, PartitionSpec("rows")), NamedSharding(mesh, PartitionSpec())
