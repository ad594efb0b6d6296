"""Files: errors of the disk by name, the old file whole, and one writer at a time."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from companion import networks, results
from companion.architectures import fc
from companion.dynamics import KernelPath
from companion.kernels import gram
from companion.storage._files import locked, read_array, read_arrays, write_atomically
from companion.training import train

resource = pytest.importorskip("resource")
X = np.random.default_rng(0).uniform(size=(8, 3)).astype(np.float32)
MODEL = networks.mlp(2, depth=1, width=4)
OPTIONS = {"epochs": 1, "optimizer": optax.sgd(0.1), "key": jax.random.key(0), "batch_size": 8, "record": [0]}


@contextlib.contextmanager
def small_files(most):
    """No file of this process may grow beyond so many bytes: for its writer as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"a" * 20_000, "20,000"),
        (np.ones(3000), "24,000"),
        ({"a": np.ones(2000), "b": np.ones(1000)}, "24,000"),
    ],
    ids=["bytes", "array", "arrays"],
)
def test_a_write_that_fails_says_where_and_how_much_and_leaves_the_old_file(tmp_path, content, wanted):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with (
        small_files(10_000),
        pytest.raises(OSError, match=f": {wanted} bytes wanted, [0-9,]+ bytes free") as caught,
    ):
        write_atomically(path, content)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for write in (
        lambda folder: write_atomically(folder / "a", b"1"),
        KernelPath,
        lambda folder: gram(fc(1), X, out=folder),
        lambda folder: train(MODEL, X, np.arange(8) % 2, folder=folder, **OPTIONS),
        lambda folder: results.add_run(folder, "a", {}, {}),
    ):
        for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
            with pytest.raises(OSError, match=r"bytes wanted, [0-9,]+ bytes free: .*file"):
                write(folder)


# Every store meets a full disk, then room: a small file system of its own, or a limit on the sizes of files.
FULL = """
import contextlib, errno, json, os, resource, sys
from pathlib import Path
import numpy as np
from companion.storage._files import write_atomically
from companion.architectures import fc
from companion.dynamics import KernelPath
from companion.kernels import gram

folder, real = Path(sys.argv[1]), sys.argv[2] == "real"
x = np.random.default_rng(0).random((300, 3), np.float32)
write_atomically(folder / "old", b"old")
path = KernelPath(folder / "kernels")
path.save(0, np.eye(100))
said = []

@contextlib.contextmanager
def full():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if real:
        (folder / "ballast").write_bytes(bytes(1_000_000))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        yield
    except OSError as error:
        said.append([errno.errorcode[error.errno], str(error), Path(error.filename).name])
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (folder / "ballast").unlink(missing_ok=True)

with full():
    write_atomically(folder / "old", bytes(200_000))
with full():
    path.save(1, np.ones((100, 100)))
with full():
    gram(fc(1), x, tile=100, out=folder / "gram")
with full():
    gram(fc(1), x, tile=150, out=folder / "gram.zarr")
left = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
stores = gram(fc(1), x, tile=100, out=folder / "gram"), gram(fc(1), x, out=folder / "gram.zarr")[:]
whole = [bool((store == gram(fc(1), x, tile=t)).all()) for store, t in zip(stores, (100, 150), strict=True)]
print(json.dumps([said, left, (folder / "old").read_text(), path[0].sum(), whole]))
"""


def test_a_full_disk_harms_nothing_and_a_store_goes_on_after_it(tmp_path):
    pytest.importorskip("zarr", reason="the extra `cluster`")
    (tmp_path / "disk").mkdir()
    script, real = [sys.executable, "-c", FULL, str(tmp_path / "disk")], True
    mount = 'mount -t tmpfs -o size=1100k none "$4" && exec "$@"'
    for unshare in (["unshare", "-m"], ["unshare", "-rm"], None):
        # In a namespace of mounts of its own, the file system goes with the process.
        command = [*unshare, "sh", "-c", mount, "sh", *script, "real"] if unshare else [*script, "limit"]
        real = unshare is not None
        with contextlib.suppress(FileNotFoundError):
            run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if run.returncode == 0 or "Traceback" in run.stderr:
                break
    assert run.returncode == 0, run.stderr
    said, left, old, kernel, whole = json.loads(run.stdout)
    assert [name for _, _, name in said] == ["old", "1.0.npy", "kernel.npy", "gram.zarr"]
    for (code, message, _), wanted in zip(said, ("200,000", "80,000", "360,000", "90,000"), strict=True):
        assert code == ("ENOSPC" if real else "EFBIG")
        assert f": {wanted} bytes wanted, " in message
    zarr = [
        f"gram.zarr/{name}"
        for name in ("kernel/zarr.json", "x1/c/0/0", "x1/c/1/0", "x1/zarr.json", "zarr.json")
    ]
    assert left == [*zarr, "gram/gram.json", "gram/lock", "kernels/0.0.npy", "kernels/lock", "old"]
    assert (old, kernel, whole) == ("old", 100, [True, True])


WRITER = """
import sys
from pathlib import Path
import numpy as np
from contextlib import ExitStack
from pathlib import Path
from companion.storage._files import locked
from companion.storage._kernel_path import KernelPath

folder = Path(sys.argv[1])
with ExitStack() as stack:
    for name in ("run", "gram", "results"):
        stack.enter_context(locked(folder / name))
    path = KernelPath(folder / "kernels")
    path.save(0, np.eye(2))
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_folder_has_one_writer_until_that_is_killed(tmp_path):
    def write():
        return (
            lambda: train(MODEL, X, np.arange(8) % 2, folder=tmp_path / "run", **OPTIONS),
            lambda: gram(fc(1), X, out=tmp_path / "gram"),
            lambda: results.add_run(tmp_path / "results", "a", {"b": 1}, {}),
            lambda: KernelPath(tmp_path / "kernels").save(1, np.eye(2)),
        )

    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        for one in write():
            with pytest.raises(ValueError, match=f"written by process {process.pid}: wait, or end it"):
                one()
        assert KernelPath(tmp_path / "kernels").times == [0]  # readers are welcome
        process.send_signal(signal.SIGKILL)
    for one in write():
        one()
    assert KernelPath(tmp_path / "kernels").times == [0, 1]


def test_a_process_shares_its_own_path_and_lets_go_of_it(tmp_path):
    one, two = KernelPath(tmp_path), KernelPath(tmp_path)
    one.save(0, np.eye(2))
    two.save(1, np.eye(2))
    with pytest.raises(ValueError, match=f"written by process {os.getpid()}"), locked(tmp_path):
        pass
    del one, two
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_the_home_folder_may_be_written_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    gram(fc(1), X, out="~/gram")
    train(MODEL, X, np.arange(8) % 2, folder="~/run", **OPTIONS)
    KernelPath("~/kernels")
    results.add_run("~/runs", "a", {"b": 1}, {})
    results.record("a", "quick", values={}, config={}, dataset="d", seeds=[0], seconds=1, folder="~/results")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gram", "kernels", "results", "run", "runs"]


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    for read in (read_array, read_arrays):
        with pytest.raises(ValueError, match="file is damaged or of another kind"):
            read(tmp_path / "file")
