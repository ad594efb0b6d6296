"""A Gram matrix in a Zarr store: whoever computes its tiles, and whoever dies, the bytes are the same."""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from companion.architectures import fc
from companion.kernels import _elsewhere, _tiles, gram
from companion.storage import Chunks

reason = "needs the extra `cluster`"
distributed = pytest.importorskip("distributed", reason=reason)
da = pytest.importorskip("dask.array", reason=reason)
zarr = pytest.importorskip("zarr", minversion="3", reason=reason)

X = np.random.default_rng(0).random((30, 6), np.float32)
Z = np.random.default_rng(1).random((4, 6), np.float32)
TILES = 36  # of side 4, in the upper triangle of 8 x 8


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one process writes."""
    folder = tmp_path_factory.mktemp("one") / "process.zarr"
    gram(fc(1), X, tile=4, out=folder)
    return files(folder)


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def placed(monkeypatch):
    """The tiles that are written in this process."""
    tiles, place = [], _tiles.place

    def record(matrix, layout, i, j, values):
        place(matrix, layout, i, j, values)
        tiles.append((i, j))

    monkeypatch.setattr(_tiles, "place", record)
    return tiles


@pytest.mark.parametrize(
    ("where", "other"),
    [("folder", None), ("folder", Z), ("file", None), ("memory", None)],
    ids=["folder", "rectangle", "file", "memory"],
)
def test_the_matrix_in_the_store_is_the_one_in_memory(where, other, tmp_path):
    name = f"{tmp_path.name}.zarr"
    out = {"folder": tmp_path / name, "file": f"file://{tmp_path}/{name}", "memory": f"memory://{name}"}[
        where
    ]
    stored, alone = gram(fc(1), X, other, tile=4, out=out), gram(fc(1), X, other, tile=4)
    assert isinstance(stored, zarr.Array)
    assert stored.chunks == (4, 4)
    np.testing.assert_array_equal(np.asarray(stored), alone)
    np.testing.assert_array_equal(stored[3:9, 2:5], alone[3:9, 2:5])
    np.testing.assert_array_equal(zarr.open_group(str(out), mode="r")["x1"][:], X)
    with pytest.raises(ValueError, match="read-only"):
        stored[0, 0] = 0


def stopped(after, error, monkeypatch):
    """Let the store take so many chunks, and then fail."""
    write, taken = Chunks.write, []

    def some(self, *arguments):
        taken.append(1)
        if len(taken) > after:
            raise error
        write(self, *arguments)

    monkeypatch.setattr(Chunks, "write", some)


@pytest.mark.parametrize(
    ("after", "error"),
    [(0, OSError(28, "no space")), (2, KeyboardInterrupt), (25, OSError(28, "no space"))],
    ids=["full", "ctrl-c", "full later"],
)
def test_what_was_written_before_an_error_stays(after, error, whole, tmp_path, monkeypatch, placed):
    out = tmp_path / "k.zarr"
    with monkeypatch.context() as patch:
        stopped(after, error, patch)
        with pytest.raises(error if isinstance(error, type) else OSError, match=r"no space|^$"):
            gram(fc(1), X, tile=4, out=out)
    there = len(placed)
    placed.clear()
    gram(fc(1), X, out=out)
    assert len(placed) == TILES - there
    assert files(out) == whole
    placed.clear()
    gram(fc(1), X, out=out)
    assert not placed


def test_threads_write_the_same_bytes_and_say_what_is_missing(whole, tmp_path, monkeypatch):
    out = tmp_path / "k.zarr"
    with ThreadPoolExecutor(3) as executor:
        with monkeypatch.context() as patch:
            stopped(9, ConnectionError("a worker is gone"), patch)
            with pytest.raises(
                ConnectionError, match=r"a worker is gone\n3\d of 36 tiles are missing in out="
            ) as told:
                gram(fc(1), X, tile=4, out=out, executor=executor)
        named = told.value.__notes__[0].split(" which begin at ")[1].split(";")[0].split(" ")
        assert len(named) == 9
        assert named[-1] == "..."
        missing = [each for each in named[:-1] if not (out / "kernel/c" / each_chunk(each)).exists()]
        assert missing == named[:-1]
        gram(fc(1), X, out=out, executor=executor)
    assert files(out) == whole


def each_chunk(corner):
    return "/".join(str(int(part) // 4) for part in corner.split(","))


def test_a_chunk_that_was_cut_short_is_made_again(whole, tmp_path, placed):
    out = tmp_path / "k.zarr"
    gram(fc(1), X, tile=4, out=out)
    for name in ("kernel/c/2/5", "kernel/c/7/7", "x1/c/3/0"):
        (out / name).write_bytes((out / name).read_bytes()[:7])
    (out / "kernel/c/4/1").unlink()  # the mirror image of 1, 4
    placed.clear()
    gram(fc(1), X, out=out)
    assert sorted(placed) == [(4, 16), (8, 20), (28, 28)]
    assert files(out) == whole


def test_what_is_not_there_yet_is_nan_and_a_changed_chunk_is_no_number(tmp_path, monkeypatch):
    out = tmp_path / "k.zarr"
    with monkeypatch.context() as patch:
        stopped(1, OSError("gone"), patch)
        with pytest.raises(OSError, match="gone"):
            gram(fc(1), X, tile=4, out=out)
    part = zarr.open_group(str(out), mode="r")["kernel"][:]
    assert 0 < np.isfinite(part).sum() <= 16
    kernel, chunk = gram(fc(1), X, out=out), out / "kernel/c/0/1"
    chunk.write_bytes(bytes(8) + chunk.read_bytes()[8:])
    with pytest.raises(ValueError, match="checksum"):
        kernel[:]


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda out: gram(fc(1), X + np.float32(0.5), out=out),
            "x1 was [0-9a-f]{32}, now it is [0-9a-f]{32}",
        ),
        (lambda out: gram(fc(1), X, Z, out=out), r"shape was \[30, 30\], now it is \[30, 4\]"),
        (lambda out: gram(fc(1, b_std=0.2), X, out=out), "kernel's values was"),
        (lambda out: gram(fc(1), X, tile=5, out=out), "tiles of 4 × 4, and tile=5 wants 5 × 5"),
    ],
    ids=["data", "shape", "kernel", "tile"],
)
def test_a_store_of_another_matrix_is_refused(call, message, whole, tmp_path):
    out = tmp_path / "k.zarr"
    gram(fc(1), X, tile=4, out=out)
    with pytest.raises(ValueError, match=message):
        call(out)
    assert files(out) == whole


def test_a_url_that_nothing_can_open_is_named():
    with pytest.raises(
        ValueError, match=r"out='foo://bar/k\.zarr' must be a folder or a URL that fsspec can"
    ):
        gram(fc(1), X, out="foo://bar/k.zarr")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda out: zarr.create_group(out), "holds another Zarr group, no store of gram"),
        (
            lambda out: zarr.create_array(out, shape=(3, 3), dtype="float32"),
            "cannot be read as a store of gram",
        ),
        (lambda out: (out.mkdir(), (out / "notes").write_text("mine")), "holds something else"),
        (lambda out: (out.mkdir(), (out / "zarr.json").write_text("{")), "cannot be read as a store of gram"),
    ],
    ids=["group", "array", "files", "damaged"],
)
def test_what_is_no_store_is_left_alone(made, message, tmp_path):
    made(tmp_path / "k.zarr")
    before = files(tmp_path)
    with pytest.raises(ValueError, match=message):
        gram(fc(1), X, tile=4, out=tmp_path / "k.zarr")
    assert files(tmp_path) == before


def test_workers_that_write_elsewhere_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(_elsewhere, "_stored", lambda *arguments: None)
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(ValueError, match=r"one place for all workers.* 36 of 36"),
    ):
        gram(fc(1), X, tile=4, out=tmp_path / "k.zarr", executor=executor)


@pytest.mark.parametrize("package", ["zarr", "fsspec"])
def test_without_the_extra_the_error_names_it(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf"needs {package}: pip install 'ntk-robustness\[cluster\] @ git\+https://"
    ):
        gram(fc(1), X, tile=4, out=tmp_path / "k.zarr")


CLIENT = """
import os, signal, sys
import distributed, numpy as np
from companion.architectures import fc
from companion.kernels import _elsewhere, gram

came, begun = _elsewhere._came, []

def dies(future):
    begun.append(came(future))
    if len(begun) == 10:
        os.kill(os.getpid(), signal.SIGKILL)

_elsewhere._came = dies
with distributed.Client(sys.argv[1]) as client:
    X = np.random.default_rng(0).random((30, 6), np.float32)
    gram(fc(1), X, tile=4, out=sys.argv[2], executor=client.get_executor())
"""


def test_after_the_client_was_killed_another_goes_on_to_the_same_bytes(client, whole, tmp_path):
    out, address = tmp_path / "k.zarr", client.scheduler.address
    run = subprocess.run([sys.executable, "-c", CLIENT, address, out], check=False, timeout=120)
    assert run.returncode == -signal.SIGKILL
    assert len(list((out / "kernel" / "c").rglob("*"))) >= 10
    gram(fc(1), X, out=out, executor=client.get_executor())
    assert files(out) == whole


def has_an_old_jax():
    packages = _elsewhere._packages() | {"jax": "0.1"}
    _elsewhere._packages = lambda: packages


def has_no_companion():
    class Nowhere:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "companion":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Nowhere())
    sys.without = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("companion")}


def is_itself_again():
    if hasattr(sys, "without"):
        del sys.meta_path[0]
        sys.modules.update(sys.without)
    from companion._core.versions import versions

    _elsewhere._packages = lambda: {k: v for k, v in versions().items() if k != "python"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            has_an_old_jax,
            r"workers like this process, .*: jax 0\.1 there, \d\S+ here\n\d+ of 36 tiles are missing",
        ),
        (has_no_companion, r"with companion and its packages: No module named 'companion\S*' there\n"),
    ],
    ids=["versions", "companion"],
)
def test_one_worker_that_is_not_like_the_others_loses_nothing(spoil, message, client, whole, tmp_path):
    names = list(client.scheduler_info()["workers"])
    client.run(spoil, workers=names[:1])
    try:
        with pytest.raises(ValueError, match=message):
            gram(fc(1), X, tile=4, out=tmp_path / "k.zarr", executor=client.get_executor())
    finally:
        client.run(is_itself_again, workers=names[:1])
    gram(fc(1), X, out=tmp_path / "k.zarr", executor=client.get_executor())
    assert files(tmp_path / "k.zarr") == whole


def dies_in_its_third_tile():
    """Makes a worker end after the mirror image of a tile, before the tile."""
    real, begun = _elsewhere.place, []

    def place(matrix, layout, i, j, values):
        begun.append((i, j))
        if len(begun) == 3:
            matrix.write(slice(j, j + 4), slice(i, i + 4), values.T.copy())
            os.kill(os.getpid(), signal.SIGKILL)
        real(matrix, layout, i, j, values)

    _elsewhere.place = place


def test_the_pages_solution_on_a_cluster_is_the_one_of_one_process(client, tmp_path):
    text = (Path(__file__).parent.parent / "book" / "beyond_one_machine.md").read_text("utf8")
    cells = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```$", text, re.M | re.S)
    (recipe,) = (cell for cell in cells if "da.linalg" in cell)
    targets = np.random.default_rng(2).normal(size=(30, 2))
    kernel = gram(fc(1), X, tile=13, out=tmp_path / "k.zarr")
    names = {"da": da, "kernel": kernel, "targets": targets}
    exec(recipe, names)
    system = kernel[:].astype(float) + names["ridge"] * np.eye(30)
    assert names["ridge"] == pytest.approx(1e-3 * np.diag(kernel[:]).mean())
    np.testing.assert_allclose(names["coefficients"], np.linalg.solve(system, targets), rtol=1e-8)


# The last one: the worker that the cluster starts in place of the dead one is not waited for.
def test_two_workers_of_which_one_is_killed_write_the_same_bytes(client, whole, tmp_path):
    names = list(client.scheduler_info()["workers"])
    before = set(client.run(os.getpid).values())
    client.run(dies_in_its_third_tile, workers=names[:1])
    stored = gram(fc(1), X, tile=4, out=tmp_path / "k.zarr", executor=client.get_executor())
    assert files(tmp_path / "k.zarr") == whole
    np.testing.assert_array_equal(stored[:], gram(fc(1), X, tile=4, executor=client.get_executor()))
    assert len(before - set(client.run(os.getpid).values())) == 1
