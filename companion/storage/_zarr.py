"""A matrix in a Zarr store, a chunk a tile: many processes and machines fill it, and any of them may die.

A group holds `kernel`, the matrix; `x1` and perhaps `x2`, the inputs that it is of, for workers to read; and
what it is of, as attributes. A chunk is written whole or not at all, its length is known before, and every
writer writes the same bytes: what is there at its length is done, without marks and without a lock. Each
chunk carries a checksum, which is verified by whoever reads it.
"""

import contextlib
import itertools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from companion._core.extras import missing as missing_package
from companion._core.versions import versions
from companion._core.words import OnDisk, Settings, Shape, Unchecked
from companion.storage._files import writing
from companion.storage._store import same_matrix

_CHECKSUM = 4  # bytes of it, after those of a chunk
_KEY = "gram"  # of the attributes


@dataclass(frozen=True)
class ZarrStore:
    """A group of Zarr format 3.

    Attributes:
        where: a folder, absolute, or a URL that fsspec knows.
    """

    where: str

    def tile(self, identity: Settings) -> tuple[int, int] | None:
        """Tile shape of the store, None where there is none; an error where it is of another matrix."""
        import zarr.errors

        try:
            group = _group(self.where, "r")
        except FileNotFoundError:
            if self._listed(""):
                raise ValueError(f"out={self.where!r} holds something else than a store of gram") from None
            return None
        except (zarr.errors.BaseZarrError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"out={self.where!r} cannot be read as a store of gram: {error}") from error
        if _KEY not in group.attrs:
            raise ValueError(f"out={self.where!r} holds another Zarr group, no store of gram")
        stored = dict(group.attrs[_KEY])
        tile = tuple(stored.pop("tile"))
        same_matrix(self.where, stored, identity)
        return tile

    def make(
        self,
        identity: Settings,
        tile: tuple[int, int],
        shape: tuple[int, int],
        dtype: np.dtype,
        inputs: Mapping[str, np.ndarray],
    ) -> None:
        """Make what is not there yet: the group, the matrix without entries, the inputs with theirs."""
        import zarr

        with self.writing(0):
            if self.tile(identity) is None:
                attributes = {_KEY: {**identity, "tile": list(tile), "versions": versions()}}
                zarr.create_group(self.where, attributes=attributes)
            group = _group(self.where, "r+")
            _array(group, "kernel", shape, tile, dtype)
        for (name, x), rows in zip(inputs.items(), tile, strict=False):
            chunk = (rows, *x.shape[1:])
            array = _array(group, name, x.shape, chunk, x.dtype)
            for index in self.missing(name):
                part = slice(index[0] * rows, (index[0] + 1) * rows)
                with self.writing(x[part].nbytes):
                    array[part] = x[part]

    def missing(self, name: str = "kernel") -> list[Shape]:
        """The chunks of an array that are not there, by their places in its grid."""
        array = self.array(name)
        whole = math.prod(array.chunks) * array.dtype.itemsize + _CHECKSUM
        listed = self._listed(f"{name}/c/")
        grid = itertools.product(*map(range, array.cdata_shape))
        return [index for index in grid if listed.get("/".join(map(str, index))) != whole]

    def array(self, name: str = "kernel") -> OnDisk:
        """One of the arrays, to be read."""
        return _group(self.where, "r")[name]

    def chunks(self) -> "Chunks":
        """The matrix, to be written."""
        return Chunks(self, _group(self.where, "r+")["kernel"])

    def _listed(self, under: str) -> dict[str, int]:
        """The files below, with their bytes."""
        files, root = _fsspec().url_to_fs(self.where)
        files.invalidate_cache()
        top = f"{root.rstrip('/')}/{under}"
        found = files.find(top.rstrip("/"), detail=True)
        return {name.removeprefix(top): each["size"] for name, each in found.items()}

    def writing(self, wanted: int) -> contextlib.AbstractContextManager:
        """Say with an error of a disk what was wanted."""
        return contextlib.nullcontext() if "://" in self.where else writing(Path(self.where), wanted)


@dataclass(frozen=True)
class Chunks:
    """A matrix in a Zarr store that is written by whole chunks."""

    store: ZarrStore
    array: OnDisk

    def write(self, rows: slice, columns: slice, values: np.ndarray) -> None:
        """Write one chunk."""
        with self.store.writing(values.nbytes):
            self.array[rows, columns] = values


def zarr_store(out: str | os.PathLike) -> ZarrStore | None:
    """The Zarr store that a name ending in .zarr, or a URL, stands for; None for any other folder."""
    text = os.fspath(out)
    if "://" not in text and not text.rstrip("/\\").endswith(".zarr"):
        return None
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise missing_package("zarr", "cluster") from error
    fsspec = _fsspec()
    try:
        files, root = fsspec.url_to_fs(os.path.expanduser(text))
    except (ValueError, ImportError) as error:
        wanted = "must be a folder or a URL that fsspec can open here, with its driver installed"
        raise type(error)(f"out={text!r} {wanted}: {error}") from error
    # Zarr writes to a folder under another name first; fsspec, to a file:// URL, does not.
    return ZarrStore(root if "file" in files.protocol else text.rstrip("/"))


def _fsspec() -> Unchecked:
    try:
        import fsspec
    except ImportError as error:
        raise missing_package("fsspec", "cluster") from error
    return fsspec


def _group(where: str, mode: str) -> Unchecked:
    import zarr

    return zarr.open_group(where, mode=mode, zarr_format=3)


def _array(group: Unchecked, name: str, shape: Shape, chunks: Shape, dtype: np.dtype) -> Unchecked:
    """An array of the group, made where it is not there: uncompressed, NaN where nothing is written yet."""
    from zarr.codecs import Crc32cCodec

    if name in group:
        return group[name]
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=np.dtype(dtype).name,
        compressors=[Crc32cCodec()],
        fill_value=float("nan"),
    )
