"""Read the files that data sets come in: idx, CIFAR binary, npz.

Nothing here trusts a file: each is read into memory with a limit, no pickle is ever opened, and no archive
member is unpacked to disk. A file that is not what it should be raises ValueError with its name.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

Arrays = dict[str, np.ndarray]
CIFAR_FOLDER = "cifar-10-batches-bin"
CIFAR_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
CIFAR_TEST = "test_batch.bin"
_MEMBER_OVERHEAD = 1 << 20  # headers, label arrays and a read-me beside the pixels


def read_limited(path: Path, *, limit: int) -> bytes:
    """Read a file, unpacking `.gz` in memory, and refuse one that holds more than `limit` bytes.

    Args:
        path: the file; a name that ends in `.gz` is unpacked.
        limit: the most bytes it may hold once unpacked.

    Returns:
        The bytes.

    Raises:
        ValueError: too long, truncated or not gzip at all.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            content = file.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"gzip: {error}") from error
    if len(content) > limit:
        raise _damaged(path, f"it holds more than the {limit:,} bytes expected")
    return content


def read_idx(path: Path, *, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """Decode one idx file of bytes, plain or `.gz`: big-endian header, then the values row by row.

    Args:
        path: an `idx1-ubyte` or `idx3-ubyte` file.
        shape: the shape that the file must have.

    Returns:
        Array of that shape.

    Raises:
        ValueError: the header or the length differs from what `shape` asks for.
    """
    header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    length = len(header) + int(np.prod(shape))
    content = read_limited(path, limit=length)
    if content[: len(header)] != header:
        got = content[: len(header)].hex()
        raise _damaged(path, f"its header is {got}, wanted {header.hex()}: bytes of shape {shape}")
    if len(content) != length:
        raise _damaged(path, f"it holds {len(content):,} bytes, wanted {length:,}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def read_cifar(path: Path, *, n_train: int, n_test: int) -> Arrays:
    """Decode CIFAR-10's binary version, from its `.tar.gz` or from a folder with the six `.bin` files.

    Each record is one label byte and 3,072 pixel bytes: 32×32 red, then green, then blue.

    Args:
        path: the archive or the folder.
        n_train: images in the five training files together.
        n_test: images in the test file.

    Returns:
        `x_train`, `y_train`, `x_test`, `y_test`: uint8, images NHWC.

    Raises:
        ValueError: a file is missing, is no regular file, or has another length.
    """
    lengths = dict.fromkeys(CIFAR_TRAIN, n_train // len(CIFAR_TRAIN) * 3073) | {CIFAR_TEST: n_test * 3073}
    if path.is_dir():
        there = [name for name in lengths if (path / name).is_file()]
        files = {name: read_limited(path / name, limit=lengths[name]) for name in there}
    else:
        files = _tar_members(path, lengths)
    for name, length in lengths.items():
        if name not in files:
            raise _damaged(path, f"it holds no file {name}")
        if len(files[name]) != length:
            raise _damaged(path, f"{name} holds {len(files[name]):,} bytes, wanted {length:,}")
    train = np.frombuffer(b"".join(files[name] for name in CIFAR_TRAIN), np.uint8).reshape(-1, 3073)
    test = np.frombuffer(files[CIFAR_TEST], np.uint8).reshape(-1, 3073)
    arrays = {}
    for split, records in (("train", train), ("test", test)):
        arrays[f"x_{split}"] = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        arrays[f"y_{split}"] = records[:, 0]
    return arrays


def _tar_members(path: Path, lengths: Mapping[str, int]) -> dict[str, bytes]:
    """Read the named regular files of the archive into memory; every other member is passed over."""
    # The limit is on the whole unpacked archive, so that no header, however large, can ask for more.
    packed = read_limited(path, limit=sum(lengths.values()) + _MEMBER_OVERHEAD)
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                if folder != CIFAR_FOLDER or name not in lengths:
                    continue
                if not member.isreg() or member.size != lengths[name] or name in files:
                    raise _damaged(path, f"{member.name} is no single file of {lengths[name]:,} bytes")
                files[name] = tar.extractfile(member).read()
    except tarfile.TarError as error:
        raise _damaged(path, f"tar: {error}") from error
    return files


def read_npz(path: Path, *, image_shape: tuple[int, int, int], most: int) -> tuple[Arrays, str]:
    """Read `x_train`, `y_train`, `x_test`, `y_test` (Keras's names) and, if there, the text `source`.

    Args:
        path: the file.
        image_shape: height, width, channels; with one channel, images may lack the last axis.
        most: the most images a split may have.

    Returns:
        The four arrays, images uint8 NHWC and labels of shape (n,); and the source, "" where there is none.

    Raises:
        ValueError: a key is missing, or dtype, shape or size is not what a data set has.
    """
    keys = ("x_train", "y_train", "x_test", "y_test")
    limit = most * int(np.prod(image_shape)) + _MEMBER_OVERHEAD
    try:
        # Opened here, because NumPy forgets to close a file that turns out to be broken.
        with path.open("rb") as file:
            npz = np.load(file, allow_pickle=False)
            if not isinstance(npz, np.lib.npyio.NpzFile):
                raise ValueError("it is one array, not an archive of arrays")
            missing = [key for key in keys if key not in npz.files]
            if missing:
                found = ", ".join(npz.files[:8]) or "nothing"
                raise ValueError(f"it holds no {', '.join(missing)}; it has {found}")
            wanted = [*keys, "source"] if "source" in npz.files else keys
            largest = max(npz.zip.infolist(), key=lambda entry: entry.file_size)
            if largest.file_size > limit:
                size = f"{largest.filename} unpacks to {largest.file_size:,} bytes"
                raise ValueError(f"{size}, more than {most:,} images in uint8 hold")
            raw = {key: npz[key] for key in wanted}
    except OSError:
        raise
    except Exception as error:  # A broken zip or header raises whatever zipfile, zlib or tokenize do.
        raise _damaged(path, f"npz: {error}") from error
    source = " ".join(str(raw.pop("source", "")).split())[:200]
    for split in ("train", "test"):
        x = raw[f"x_{split}"] = _images(path, f"x_{split}", raw[f"x_{split}"], image_shape)
        raw[f"y_{split}"] = _labels(path, f"y_{split}", raw[f"y_{split}"], len(x))
    return raw, source


def _images(path: Path, key: str, x: np.ndarray, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "n h w c"]:
    """Check the images of an npz and give them a channel axis."""
    if x.dtype != np.uint8:
        raise _damaged(path, f"{key} is {x.dtype}, wanted uint8 (0 to 255)")
    if x.ndim == 3 and shape[2] == 1:
        x = x[..., None]
    if x.ndim != 4 or x.shape[1:] != shape or len(x) == 0:
        raise _damaged(path, f"{key} has shape {x.shape}, wanted (n, {', '.join(map(str, shape))}), n ≥ 1")
    return x


def _labels(path: Path, key: str, y: np.ndarray, n: int) -> Integer[np.ndarray, " n"]:
    """Check the labels of an npz, which Keras stores as (n, 1) for CIFAR, against the images."""
    if y.dtype.kind not in "iu":
        raise _damaged(path, f"{key} is {y.dtype}, wanted integers")
    if y.shape not in {(n,), (n, 1)}:
        raise _damaged(path, f"{key} has shape {y.shape}, wanted ({n},), one label for each image")
    return y.reshape(-1)


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} cannot be used: {reason}. Delete or replace the file, then load again.")
