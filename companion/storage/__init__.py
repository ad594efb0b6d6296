"""What is kept on disk (internal): files, fingerprints, matrices in tiles, kernel paths, checkpoints."""

from companion.storage._checkpoint import ALGORITHM, Checkpoints
from companion.storage._files import (
    damaged,
    held,
    locked,
    place,
    read_arrays,
    write_atomically,
    writing,
)
from companion.storage._fingerprint import compared, fingerprint
from companion.storage._kernel_path import (
    KernelPath,
    KernelSequence,
    kernel_at,
    length,
    matrix,
    norm_of,
)
from companion.storage._store import finished, marking, opened, stored_tile
from companion.storage._zarr import Chunks, ZarrStore, zarr_store

__all__ = [
    "ALGORITHM",
    "Checkpoints",
    "Chunks",
    "KernelPath",
    "KernelSequence",
    "ZarrStore",
    "compared",
    "damaged",
    "fingerprint",
    "finished",
    "held",
    "kernel_at",
    "length",
    "locked",
    "marking",
    "matrix",
    "norm_of",
    "opened",
    "place",
    "read_arrays",
    "stored_tile",
    "write_atomically",
    "writing",
    "zarr_store",
]
