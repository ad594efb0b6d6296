"""A Gram matrix that is kept: in a folder, by this process, or in a Zarr store, by any number of them."""

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from companion._core.compile import Kind, local_devices
from companion._core.types import Kernel
from companion._core.words import OnDisk, Settings
from companion.kernels import _plan, _tiles
from companion.kernels._elsewhere import evaluator
from companion.kernels._identity import identity_of
from companion.storage import (
    ZarrStore,
    finished,
    locked,
    marking,
    opened,
    place,
    stored_tile,
    zarr_store,
)

_NAMED = 8  # missing tiles, in a message


@dataclass(frozen=True)
class Request:
    """What `gram` was asked for, checked."""

    kernel: Kernel
    kind: Kind
    x1: np.ndarray
    x2: np.ndarray | None
    tile: int | None
    memory: int | None
    executor: Executor | None
    progress: bool

    @property
    def dtype(self) -> np.dtype:
        return np.result_type(self.x1, self.x1 if self.x2 is None else self.x2)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.x1), len(self.x1 if self.x2 is None else self.x2)

    @property
    def title(self) -> str | None:
        return self.kind if self.progress else None

    def where(self, store: ZarrStore | None = None) -> Callable[..., None] | None:
        """What computes the tiles where that is not this process."""
        return None if self.executor is None else evaluator(self.executor, self.kernel, self.kind, store)

    def job(self, stored: tuple[int, int] | None) -> _plan.Job:
        """The tiles, those of a store where there is one, and their compiled form."""
        tile = self.tile if stored is None else _plan.Layout(*self.shape, *stored, symmetric=self.x2 is None)
        return _plan.prepare(self.kernel, self.kind, self.x1, self.x2, tile, self.memory)


def kept(request: Request, out: str | os.PathLike) -> np.ndarray | OnDisk:
    """Fill the store that `out` names, or go on with it; the tiles of a store stay as they are."""
    store = zarr_store(out)
    return _in_folder(request, place(out)) if store is None else _in_zarr(request, store)


def _identity(request: Request) -> Settings:
    return identity_of(request.kernel, request.kind, request.x1, request.x2, request.dtype)


def _agreed(request: Request, out: Path | str, stored: tuple[int, int] | None) -> tuple[int, int] | None:
    """The tile of a store, which must be the one asked for."""
    if stored is not None and request.tile is not None:
        devices = len(local_devices())
        symmetric = request.x2 is None
        asked = _plan.make_layout(*request.shape, request.tile, symmetric=symmetric, devices=devices)
        if (asked.rows, asked.columns) != stored:
            raise ValueError(
                f"out={str(out)!r} has tiles of {stored[0]} × {stored[1]}, and tile={request.tile} wants "
                f"{asked.rows} × {asked.columns}: leave tile out, or give another folder"
            )
    return stored


def _in_folder(request: Request, folder: Path) -> np.ndarray:
    """One file, which this process alone writes; read back as a memory map."""
    identity = _identity(request)
    if _agreed(request, folder, stored_tile(folder, identity)) and (matrix := finished(folder)) is not None:
        return matrix
    with locked(folder):
        job = request.job(stored_tile(folder, identity))
        cut = job.layout
        matrix, done = opened(
            folder, identity, (cut.rows, cut.columns), len(cut.corners()), request.shape, request.dtype
        )
        there = np.flatnonzero(done).tolist()
        with marking(matrix, done) as mark:
            _tiles.fill(matrix, job, request.x1, request.x2, there, mark, request.title, request.where())
        return finished(folder)


def _in_zarr(request: Request, store: ZarrStore) -> OnDisk:
    """A chunk a tile, which whoever computes it writes; another call may do the same at the same time."""
    identity = _identity(request)
    stored = _agreed(request, store.where, store.tile(identity))
    if stored is None or store.missing():
        job = request.job(stored)
        cut = job.layout
        inputs = {"x1": request.x1} | ({} if request.x2 is None else {"x2": request.x2})
        store.make(identity, (cut.rows, cut.columns), request.shape, request.dtype, inputs)
        there = set(range(len(cut.corners()))) - set(_missing(store, cut))
        target, work = store.chunks(), request.where(store)
        try:
            _tiles.fill(target, job, request.x1, request.x2, there, lambda _: None, request.title, work)
        except Exception as error:
            with contextlib.suppress(OSError):
                error.add_note(_what_is_missing(store, cut))
            raise
        if store.missing():
            raise ValueError(
                f"out={store.where!r} must be one place for all workers, on a shared file system or a URL: "
                f"each tile was computed, and {_what_is_missing(store, cut)}"
            )
    return store.array()


def _missing(store: ZarrStore, layout: _plan.Layout) -> list[int]:
    """The numbers of the tiles that are not in the store, or whose mirror image is not."""
    number = {(i // layout.rows, j // layout.columns): index for index, (i, j) in enumerate(layout.corners())}
    chunks = store.missing()
    return sorted({number[tuple(sorted(each)) if layout.symmetric else each] for each in chunks})


def _what_is_missing(store: ZarrStore, layout: _plan.Layout) -> str:
    missing, corners = _missing(store, layout), layout.corners()
    named = [f"{corners[k][0]},{corners[k][1]}" for k in missing[:_NAMED]]
    return (
        f"{len(missing)} of {len(corners)} tiles are missing in out={store.where!r}, which begin at "
        f"{' '.join(named)}{' ...' if len(missing) > _NAMED else ''}; the same call makes them"
    )
