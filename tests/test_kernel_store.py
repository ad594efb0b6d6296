"""A matrix on disk: its writer may die at any moment, and the bytes are those of an undisturbed run."""

import importlib.metadata
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from companion.architectures import fc
from companion.kernels import _tiles, gram
from companion.storage import _store
from companion.storage._files import locked

X = np.random.default_rng(0).uniform(size=(23, 5)).astype(np.float32)
Z = np.random.default_rng(1).uniform(size=(11, 5)).astype(np.float32)
fcntl = pytest.importorskip("fcntl")


class Death(BaseException):
    """Like a kill: nothing but the clean-up of a with-block can follow."""


def read(folder):
    return (folder / "kernel.npy").read_bytes()


@pytest.fixture
def computed(monkeypatch):
    """The tiles that are placed; and a mark after each."""
    monkeypatch.setattr(_store, "SECONDS_BETWEEN_MARKS", 0)
    tiles, place = [], _tiles.place

    def record(matrix, layout, i, j, values):
        place(matrix, layout, i, j, values)
        tiles.append((i, j))

    monkeypatch.setattr(_tiles, "place", record)
    return tiles


@pytest.mark.parametrize("other", [None, Z], ids=["triangle", "rectangle"])
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_the_matrix_on_disk_is_the_one_in_memory(tmp_path, other, kind):
    kernel = gram(fc(2), X, other, kind=kind, tile=4, out=tmp_path / "store")
    np.testing.assert_array_equal(kernel, gram(fc(2), X, other, kind=kind, tile=4))
    assert isinstance(kernel, np.memmap)
    assert not kernel.flags.writeable
    np.testing.assert_array_equal(np.load(tmp_path / "store" / "kernel.npy"), kernel)


def stop_after(tiles, error, patch):
    """Raise in every thread that comes to place another tile than the first so many."""
    record, begun, lock = _tiles.place, [], threading.Lock()

    def stop(*arguments):
        with lock:
            if len(begun) == tiles:
                raise error
            begun.append(1)
        record(*arguments)

    patch.setattr(_tiles, "place", stop)


@pytest.mark.parametrize("after", [0, 1, 7, 20])
@pytest.mark.parametrize("error", [KeyboardInterrupt, Death])
def test_an_interrupted_run_keeps_its_tiles(tmp_path, computed, monkeypatch, after, error):
    whole = gram(fc(2), X, tile=4, out=tmp_path / "whole")
    assert len(computed) == 21
    computed.clear()
    with monkeypatch.context() as patch:
        stop_after(after, error, patch)
        with pytest.raises(error):
            gram(fc(2), X, tile=4, out=tmp_path / "store")
    assert len(computed) == after
    np.testing.assert_array_equal(gram(fc(2), X, out=tmp_path / "store"), whole)
    assert len(computed) == len(set(computed)) == 21
    assert read(tmp_path / "store") == read(tmp_path / "whole")


@pytest.mark.parametrize("step", range(4))
def test_death_between_the_files_of_a_new_store_harms_nothing(tmp_path, monkeypatch, step):
    whole = gram(fc(2), X, tile=4)
    names = [("write_atomically", 0), ("_reserve", 0), ("write_atomically", 1), ("_open", 0)]
    name, skipped = names[step]
    calls, real = [], getattr(_store, name)

    def die(*arguments):
        calls.append(arguments)
        if len(calls) > skipped:
            raise Death
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_store, name, die)
        with pytest.raises(Death):
            gram(fc(2), X, tile=4, out=tmp_path)
    assert (tmp_path / "gram.json").exists() == (step > 0)
    assert (tmp_path / "done.npy").exists() == (step > 2)
    np.testing.assert_array_equal(gram(fc(2), X, tile=4, out=tmp_path), whole)


def test_a_finished_store_is_only_opened(tmp_path, computed, monkeypatch):
    gram(fc(2), X, tile=4, out=tmp_path)
    computed.clear()
    monkeypatch.setattr("companion.kernels._kept.locked", None)
    monkeypatch.setattr("companion.kernels._plan.prepare", None)
    assert gram(fc(2), X, out=str(tmp_path)).shape == (23, 23)
    assert gram(fc(2), X, tile=4, out=tmp_path).shape == (23, 23)
    assert computed == []


def test_data_are_flushed_before_their_mark():
    order, matrix = [], np.zeros(3).view(np.memmap)
    done = np.zeros(3, bool).view(np.memmap)
    matrix.flush = lambda: order.append(("data", done.tolist()))
    done.flush = lambda: order.append(("marks", done.tolist()))
    with _store.marking(matrix, done) as mark:
        mark(1)
        mark(2)
        assert order == []
    assert order == [("data", [False] * 3), ("marks", [False, True, True])]


def test_progress_says_how_many_tiles_were_there(tmp_path, computed, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        stop_after(5, KeyboardInterrupt, patch)
        with pytest.raises(KeyboardInterrupt):
            gram(fc(2), X, tile=4, out=tmp_path)
    gram(fc(2), X, out=tmp_path, progress=True)
    assert "ntk tiles (5 were there)" in capfd.readouterr().err


def brighter():
    x = X.copy()
    x[-1, -1] += 1e-3
    return x


def bump(radius):
    """A kernel that is 0 but of near inputs."""
    return lambda a, b, get: jnp.maximum(1 - ((a[:, None] - b) ** 2).sum(-1) / radius**2, 0) ** 2


def test_a_kernel_that_differs_where_the_first_inputs_are_not_is_another(tmp_path):
    x = np.concatenate([5 * np.eye(4, 5, dtype=np.float32), X])
    first = gram(bump(1.0), x, out=tmp_path)
    with pytest.raises(ValueError, match="kernel's code was"):
        gram(bump(2.0), x, out=tmp_path)
    np.testing.assert_array_equal(gram(bump(1.0), x, out=tmp_path), first)


@pytest.mark.usefixtures("as_users_run")
def test_a_number_is_no_executor():
    with pytest.raises(TypeError, match=r"executor must be a concurrent\.futures\.Executor, .* got 4"):
        gram(fc(2), X, executor=4)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda out: gram(fc(2), brighter(), out=out), "x1 was [0-9a-f]{32}, now it is [0-9a-f]{32}"),
        (lambda out: gram(fc(2), X, X, out=out), "x2 was None, now it is"),
        (lambda out: gram(fc(2), X[:9], out=out), r"shape was \[23, 23\], now it is \[9, 9\]"),
        (lambda out: gram(fc(2), X.astype(float), out=out), "dtype was float32, now it is float64"),
        (lambda out: gram(fc(2), X, kind="nngp", out=out), "kind was ntk, now it is nngp"),
        (lambda out: gram(fc(3), X, out=out), "kernel was FC-2 relu, now it is FC-3 relu"),
        (lambda out: gram(fc(2, b_std=0.2), X, out=out), "kernel's values was"),
        (lambda out: gram(fc(2), X, tile=5, out=out), "tiles of 4 × 4, and tile=5 wants 5 × 5"),
        (lambda out: gram(fc(2), X, memory=100, out=out), "memory must be at least .* for tiles of 4 × 4"),
    ],
)
def test_a_store_of_another_matrix_is_refused(tmp_path, call, message):
    gram(fc(2), X, tile=4, out=tmp_path)
    np.lib.format.open_memmap(tmp_path / "done.npy", "r+")[0] = False
    before = read(tmp_path)
    with pytest.raises(ValueError, match=message):
        call(tmp_path)
    assert read(tmp_path) == before
    assert gram(fc(2), X, out=tmp_path).shape == (23, 23)


def spoil(name, content):
    def change(folder):
        (folder / name).write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "gram.json").unlink(), "holds kernel.npy but no gram.json"),
        (spoil("gram.json", b"{"), "damaged: gram.json cannot be read"),
        (spoil("gram.json", b"[]"), "damaged: gram.json cannot be read"),
        (spoil("kernel.npy", b"abc"), "damaged: kernel.npy cannot be read"),
        (spoil("done.npy", b""), "damaged: done.npy cannot be read"),
        (lambda folder: (folder / "kernel.npy").unlink(), "damaged: kernel.npy cannot be read"),
        (lambda folder: np.save(folder / "done.npy", np.zeros(5, bool)), r"done.npy has shape \(5,\)"),
        (
            lambda folder: (folder / "gram.json").write_text(
                (folder / "gram.json").read_text("utf8").replace('"format": 2', '"format": 1'), "utf8"
            ),
            "format was 1, now it is 2",
        ),
    ],
)
def test_a_damaged_store_is_refused(tmp_path, change, message):
    gram(fc(2), X, tile=4, out=tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match=message):
        gram(fc(2), X, out=tmp_path)


def dot(x1, x2, get):
    return x1 @ x2.T


def test_an_own_kernel_needs_no_neural_tangents(tmp_path, monkeypatch):
    def version(name, real=importlib.metadata.version):
        if name == "neural-tangents":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    np.testing.assert_allclose(gram(dot, X, out=tmp_path), X @ X.T, rtol=1e-6)
    assert json.loads((tmp_path / "gram.json").read_text("utf8"))["versions"]["neural-tangents"] == "absent"


def test_a_store_stays_where_only_versions_change(tmp_path, computed):
    gram(fc(2), X, tile=4, out=tmp_path)
    computed.clear()
    text = (tmp_path / "gram.json").read_text("utf8")
    (tmp_path / "gram.json").write_text(text.replace(jax.__version__, "0.1"), "utf8")
    assert gram(fc(2), X, out=tmp_path).shape == (23, 23)
    assert computed == []


def test_a_store_that_is_being_written_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match=f"written by process {os.getpid()}"):
        gram(fc(2), X, out=tmp_path)
    assert gram(fc(2), X, out=tmp_path).shape == (23, 23)


def test_the_metadata_say_what_the_matrix_is_of(tmp_path):
    gram(fc(2), X, Z, tile=4, out=tmp_path)
    metadata = json.loads((tmp_path / "gram.json").read_text("utf8"))
    assert metadata["kernel"] == "FC-2 relu"
    assert metadata["tile"] == [4, 4]
    assert metadata["shape"] == [23, 11]
    assert metadata["versions"]["jax"] == jax.__version__
    assert str(tmp_path) not in json.dumps(metadata)


# Every tile is made slow, and reported with the tiles that were marked when the process began.
WRITER = """
import os, sys, time
import numpy as np
from companion.kernels import _tiles
from companion.storage import _store
from companion.storage._files import locked
from companion.architectures import fc
from companion.kernels import gram

_store.SECONDS_BETWEEN_MARKS = 0
place = _tiles.place

def slow(matrix, layout, i, j, values):
    half = values.copy()
    half[:, ::2] = -1.0
    half = (half + half.T) / 2
    place(matrix, layout, i, j, half)
    time.sleep(0.002)
    place(matrix, layout, i, j, values)
    # One call of the system: several threads place tiles, and `print` mixes their lines.
    os.write(1, f"{i // layout.rows} {j // layout.columns}\\n".encode())

_tiles.place = slow
x = np.random.default_rng(0).uniform(size=(200, 5)).astype(np.float32)
gram(fc(1), x, tile=10, out=sys.argv[1])
"""


@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.matrix)])
def test_a_run_killed_several_times_ends_with_the_same_bytes(kills, tmp_path):
    chance, computed = random.Random(0), []

    def run(folder, most=None):
        marks = np.load(folder / "done.npy") if (folder / "done.npy").exists() else np.zeros(210, bool)
        process = subprocess.Popen([sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE, text=True)
        with process:
            if most is not None:
                # At a random moment of the computation, not of the imports before it.
                lines = [process.stdout.readline() for _ in range(chance.randrange(1, most))]
                time.sleep(chance.uniform(0, 0.004))
                process.send_signal(signal.SIGKILL)
                lines += process.stdout.readlines()
            else:
                lines = process.stdout.readlines()
        assert process.returncode == (0 if most is None else -signal.SIGKILL)
        tiles = [tuple(map(int, line.split())) for line in lines if line.endswith("\n")]
        index = {pair: k for k, pair in enumerate((i, j) for i in range(20) for j in range(i, 20))}
        assert not any(marks[index[tile]] for tile in tiles)
        if most is None:
            assert len(tiles) == 210 - marks.sum()
        computed.append(len(tiles))

    run(tmp_path / "whole")
    for _ in range(kills):
        run(tmp_path / "killed", most=35)
    assert not np.load(tmp_path / "killed" / "done.npy").all()
    run(tmp_path / "killed")
    assert read(tmp_path / "killed") == read(tmp_path / "whole")
    assert computed[0] == 210
    assert computed[-1] < 210


INTERRUPTED = """
import itertools
import os
import signal
import sys
import time
import numpy as np
from companion.kernels import _tiles
from companion.architectures import fc
from companion.kernels import gram

place, number = _tiles.place, itertools.count(1)

def told(*arguments):
    place(*arguments)
    os.write(1, b"placed\\n")  # whole lines, whatever the other threads do
    if next(number) == 20:
        SEND
    time.sleep(0.01)

_tiles.place = told
# Python leaves the signal ignored where its parent ignores it, as a shell's background jobs do.
signal.signal(signal.SIGINT, signal.default_int_handler)
gram(fc(1), np.random.default_rng(0).random((1000, 5), np.float32), tile=10, out=sys.argv[1])
"""


# The terminal signals the process; the system may give that to a thread that cannot act on it.
@pytest.mark.parametrize(
    "send", ["os.kill(os.getpid(), signal.SIGINT)", "signal.raise_signal(signal.SIGINT)"]
)
def test_ctrl_c_ends_the_threads_and_leaves_the_finished_tiles(send, tmp_path):
    command = [sys.executable, "-c", INTERRUPTED.replace("SEND", send), tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode != 0
    assert "KeyboardInterrupt" in run.stderr
    done = np.load(tmp_path / "done.npy")
    assert 20 <= done.sum() == len(run.stdout.splitlines()) < len(done) / 2
