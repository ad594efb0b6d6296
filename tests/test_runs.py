"""Records that grow run by run, and the engine that makes what is missing."""

import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import jax
import numpy as np
import pytest
import toy_runs
from toy_runs import EXPERIMENT, Case, Config, jobs

from companion import results
from companion.experiments import _engine as engine
from companion.experiments import campaign, status
from companion.experiments.__main__ import chosen, executor_of, find, main, seed_range
from companion.experiments._experiment import filled, in_order
from companion.results import add_run, merge, read_runs

FILES = ("runs.jsonl", "origins.jsonl")


def make(folder, some=None, **options):
    wanted = jobs(Config()) if some is None else some
    return campaign([(EXPERIMENT, wanted)], folder=folder, progress=False, **options)


def values(folder):
    return (folder / "toy" / FILES[0]).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert make(folder) == 0
    return folder


def test_records_are_what_the_runs_give_in_memory(whole):
    measured, recorded = EXPERIMENT.run(Config()), EXPERIMENT.recorded("full", folder=whole)
    assert set(measured) == set(recorded.arrays) == {"draw", "odd", "seconds"}
    for name in ("draw", "odd"):
        np.testing.assert_array_equal(measured[name], recorded.arrays[name])
    np.testing.assert_array_equal(
        recorded.arrays["draw"][1, 0, 2], np.random.default_rng(2).normal(size=3).astype(np.float32)
    )
    np.testing.assert_allclose(recorded.arrays["draw"][:, 2], recorded.arrays["draw"][:, :2].sum(axis=1))
    np.testing.assert_array_equal(
        recorded.arrays["odd"][0, 0, 0], np.float32([np.nan, np.inf, -np.inf, 1e-30])
    )
    origin = recorded.provenance
    assert (origin["runs"], origin["seeds"], origin["config"]["seeds"]) == ((18, 18), [0, 1, 2], 3)
    assert "MNIST" in results.caption(recorded)
    assert results.caption(recorded).count(origin["machines"]) == 1
    assert origin["machines"] == results.machines([origin])


def test_provenance_names_every_machine_and_version(whole, tmp_path):
    for file in FILES:
        target = tmp_path / "toy" / file
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((whole / "toy" / file).read_bytes())
    path = tmp_path / "toy" / FILES[1]
    lines = [json.loads(line) for line in path.read_text("utf8").splitlines()]
    for _, origin in lines[:4]:
        origin["device"] = {"kind": "T9", "platform": "gpu", "count": 1, "cores": 16}
        origin["versions"]["jax"] = "0.0.1"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf8")
    found = EXPERIMENT.recorded("full", folder=tmp_path).provenance
    assert found["machines"] == "CPU cores (14 runs), T9 (4 runs)"
    assert found["jax"] == f"0.0.1, {jax.__version__}"


def test_lines_are_sorted_and_measured_times_stand_with_the_origins(whole):
    for file in FILES:
        names = [json.loads(line)[0] for line in (whole / "toy" / file).read_text("utf8").splitlines()]
        assert names == sorted(names)
        assert len(names) == 18
    assert b"seconds" not in values(whole)
    one = next(iter(read_runs(whole / "toy").values()))
    assert one.arrays["seconds"] > 0
    assert {"commit", "config", "dataset", "date", "device", "nice", "pixels", "seconds", "source"} <= set(
        one.origin
    )


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.matrix)])
def test_a_campaign_killed_at_random_ends_with_the_same_bytes(kills, whole, tmp_path):
    chance, done = random.Random(kills), 0
    for _ in range(kills):
        work = subprocess.Popen([sys.executable, toy_runs.__file__, str(tmp_path)])
        start = time.monotonic()
        while status(EXPERIMENT, jobs(Config()), tmp_path).done <= done and time.monotonic() - start < 60:
            if work.poll() is not None:
                break
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        work.send_signal(signal.SIGKILL)
        work.wait()
        done = status(EXPERIMENT, jobs(Config()), tmp_path).done
        assert 0 < done <= 18
    make(tmp_path)
    assert values(tmp_path) == values(whole)


def test_two_machines_merged_give_the_same_bytes(whole, tmp_path):
    every = list(in_order(jobs(Config())))
    one, two = tmp_path / "one", tmp_path / "two"
    make(one, every[:7])
    make(two, [job for job in every if job.seed > 0])
    done = merge(two / "toy", one / "toy")
    assert (done.added, done.other) == (12 - done.same, ())
    make(one)
    assert values(one) == values(whole)
    again = merge(two / "toy", one / "toy")
    assert (again.added, again.same, again.other) == (0, 12, ())


def test_where_two_machines_differ_the_targets_values_stay_and_are_named(tmp_path):
    here = {"dataset": "a", "pixels": "1", "source": "A"}
    for folder, value in ((tmp_path / "one", 1), (tmp_path / "two", 2)):
        add_run(folder, "run", {"x": value}, here)
    assert merge(tmp_path / "two", tmp_path / "one").other == ("run",)
    assert read_runs(tmp_path / "one")["run"].arrays["x"] == 1
    add_run(tmp_path / "two", "other", {"x": 3}, here | {"pixels": "2"})
    with pytest.raises(ValueError, match="other pixels in source"):
        merge(tmp_path / "two", tmp_path / "one")


def test_a_key_is_the_runs_own_configuration(whole):
    job = jobs(Config())[1]
    case, name, seed = job.config

    def key(experiment=EXPERIMENT, **changes):
        return experiment.key(replace(job, config=(replace(case, **changes), name, seed)))

    assert key() == EXPERIMENT.key(job)
    # Other seeds and lists of runs leave it as it is; so does a field that came later, where it is as before.
    more = Config((Case(names=("normal",)), Case(5)), seeds=9)
    assert key() in {EXPERIMENT.key(one) for one in jobs(more)}
    assert key(names=("normal",)) == key(shift=0.0) == key()
    different = [
        key(size=4),
        key(shift=1.0),
        key(replace(EXPERIMENT, version=2)),
        key(replace(EXPERIMENT, name="b")),
    ]
    assert len({key(), *different}) == 5
    # What needs a run changes with it.
    total = jobs(Config())[0]
    needs = replace(total, needs=(replace(total.needs[0], config=(replace(case, size=9), name, seed)),))
    assert EXPERIMENT.key(total) != EXPERIMENT.key(needs)


def test_more_seeds_leave_the_lines_of_the_others(whole, tmp_path):
    make(tmp_path, jobs(Config(seeds=2)))
    before = values(tmp_path).splitlines()
    make(tmp_path)
    assert set(before) < set(values(tmp_path).splitlines())
    assert values(tmp_path) == values(whole)


def test_only_seeds_recorded_whole_count(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m companion\.experiments toy --profile full"):
        EXPERIMENT.recorded("full", folder=tmp_path)
    every = jobs(Config())
    make(tmp_path, [job for job in every if job.seed < 2 and job.label == "size 2, normal"])
    # What was never begun holds nothing up, and is not there.
    found = EXPERIMENT.recorded("full", folder=tmp_path).arrays["draw"]
    assert np.isfinite(found[0, 0]).all()
    assert np.isnan(found).sum() == found.size - found[0, 0].size
    assert found.shape == (2, 3, 2, 2)
    make(tmp_path, [job for job in every if job.seed == 2 and job.label == "size 3, uniform"])
    found = EXPERIMENT.recorded("full", complete=False, folder=tmp_path).arrays["draw"]
    assert found.shape == (2, 3, 3, 3)
    assert np.isfinite(found[1, 1, 2]).all()
    assert np.isnan(found[0, 0, 2]).all()
    with pytest.raises(FileNotFoundError):
        EXPERIMENT.recorded("full", folder=tmp_path)
    make(tmp_path, [job for job in every if job.seed < 2 or job.label == "size 2, normal"])
    found = EXPERIMENT.recorded("full", folder=tmp_path)
    assert found.arrays["draw"].shape == (2, 3, 2, 3)
    assert (found.provenance["runs"], found.provenance["config"]["seeds"]) == ((12, 18), 2)


def test_fewer_seeds_say_what_their_runs_alone_would(whole, tmp_path):
    make(tmp_path, [job for job in jobs(Config()) if job.seed < 2])
    alone = EXPERIMENT.recorded("full", complete=False, folder=tmp_path)
    for complete in (True, False):
        few = EXPERIMENT.recorded("full", complete=complete, seeds=2, folder=whole)
        np.testing.assert_array_equal(few.arrays["draw"], alone.arrays["draw"])
        assert few.provenance["seeds"] == [0, 1]
        assert few.provenance["runs"] == alone.provenance["runs"] == (12, 18)
    for wrong, error in ((0, ValueError), (1.5, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="seeds"):
            EXPERIMENT.recorded("full", seeds=wrong, folder=whole)


def test_the_first_seed_comes_first_and_needs_before_what_needs_them(tmp_path):
    order = []

    executor = ThreadPoolExecutor(1)
    submit = executor.submit

    def noted(work, compute, config, *rest):
        order.append(config)
        return submit(work, compute, config, *rest)

    executor.submit = noted
    with executor:
        make(tmp_path, executor=executor)
    assert len(order) == 18
    for case, name, seed in order:
        if name == "sum":
            assert {(case, kind, seed) for kind in case.names} < set(order[: order.index((case, name, seed))])
    # All of the first seed is begun before the last of the second.
    first = max(i for i, (_, _, seed) in enumerate(order) if seed == 0)
    assert first < max(i for i, (_, _, seed) in enumerate(order) if seed == 1)


def test_runs_that_are_there_only_for_others_count(tmp_path):
    # As the trainings that choose a rate: the experiment lists what needs them alone.
    only = replace(EXPERIMENT, jobs=lambda config: [job for job in jobs(config) if job.needs])
    make(tmp_path, [job for job in jobs(Config()) if job.label == "size 3, uniform"])
    found = only.recorded("full", complete=False, folder=tmp_path)
    assert found.provenance["runs"] == (3, 18)
    assert np.isfinite(found.arrays["draw"][1, 1]).all()
    assert np.isnan(found.arrays["draw"][:, 2]).all()


def test_a_failed_run_is_told_and_the_others_are_made(tmp_path, capsys):
    config = Config((Case(names=("normal", "fails")),), seeds=1)
    assert make(tmp_path, jobs(config)) == 1
    said = capsys.readouterr().err
    assert "toy: size 2, fails, seed 0 failed" in said
    assert "ZeroDivisionError: as it should" in said
    # The sum needs what failed, and waits.
    assert {name.split(",")[1].strip() for name in read_runs(tmp_path / "toy")} == {"normal"}


def test_minutes_end_a_campaign_before_what_would_take_longer(tmp_path):
    assert make(tmp_path, minutes=0) == 0
    assert status(EXPERIMENT, jobs(Config()), tmp_path).done == 0
    make(tmp_path, jobs(Config(seeds=1)))
    path = tmp_path / "toy" / FILES[1]
    slow = [json.loads(line) for line in path.read_text("utf8").splitlines()]
    for _, origin in slow:
        origin["seconds"] = 7200.0
    path.write_text("".join(json.dumps(line) + "\n" for line in slow), "utf8")
    assert status(EXPERIMENT, jobs(Config()), tmp_path).left == 12 * 7200
    make(tmp_path, minutes=60)
    assert status(EXPERIMENT, jobs(Config()), tmp_path).done == 6


def test_seconds_of_another_platform_say_nothing_here(tmp_path):
    make(tmp_path, jobs(Config(seeds=2)))
    path = tmp_path / "toy" / FILES[1]
    lines = [json.loads(line) for line in path.read_text("utf8").splitlines()]
    for key, origin in lines:
        fast = ", seed 0," in key
        origin["seconds"], origin["device"]["platform"] = (1.0, "tpu") if fast else (100.0, "cpu")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf8")
    assert status(EXPERIMENT, jobs(Config()), tmp_path).left == 6 * 100
    for _, origin in lines:
        origin["device"]["platform"] = "tpu"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf8")
    assert status(EXPERIMENT, jobs(Config()), tmp_path).left == 6 * 50.5  # rather than nothing


def test_other_pixels_are_refused(whole, tmp_path, monkeypatch):
    make(tmp_path, jobs(Config(seeds=1)))
    there = {"source": "other digits", "pixels": "0"}
    monkeypatch.setattr("companion.experiments._engine.pixels", lambda _: there)
    with pytest.raises(ValueError, match=r"mnist5k has other pixels here \(other digits\)"):
        make(tmp_path)


def test_runs_whose_data_are_not_here_are_left_out_and_named(whole, tmp_path, monkeypatch, capsys):
    def here(dataset):
        if dataset == "mnist":
            raise FileNotFoundError("mnist: train-images-idx3-ubyte.gz was looked for")
        return found(dataset)

    found = engine.pixels
    monkeypatch.setattr(engine, "pixels", here)
    every = jobs(Config())
    elsewhere = [replace(job, dataset="mnist", label=f"{job.label} of mnist") for job in every]
    assert make(tmp_path, [*elsewhere, *every]) == 0
    assert capsys.readouterr().err.startswith("18 runs are left out. mnist: train-images")
    assert values(tmp_path) == values(whole)
    assert status(EXPERIMENT, elsewhere, tmp_path).missing == 18
    with pytest.raises(FileNotFoundError, match="mnist: train-images"):
        make(tmp_path, elsewhere)


def test_a_second_campaign_on_a_folder_is_refused(tmp_path):
    code = "import sys; from pathlib import Path; from companion.storage import held\n"
    code += "hold = held(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "toy"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(ValueError, match=f"being written by process {other.pid}"):
        make(tmp_path)
    other.communicate()
    assert make(tmp_path, jobs(Config(seeds=1))) == 0


def test_a_damaged_line_is_named(tmp_path):
    make(tmp_path, jobs(Config(seeds=1)))
    path = tmp_path / "toy" / FILES[0]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"runs.jsonl is damaged.*line 6"):
        read_runs(tmp_path / "toy")


def test_a_run_without_its_origin_is_made_again(whole, tmp_path):
    make(tmp_path)
    path = tmp_path / "toy" / FILES[1]
    path.write_text("".join(path.read_text("utf8").splitlines(keepends=True)[:-1]), "utf8")
    assert status(EXPERIMENT, jobs(Config()), tmp_path).missing == 1
    make(tmp_path)
    assert values(tmp_path) == values(whole)


def test_a_record_holds_no_path_and_no_text(tmp_path):
    with pytest.raises(ValueError, match="path of this machine"):
        add_run(tmp_path, "run", {"x": 1}, {"source": "/home/me/x"})
    with pytest.raises(TypeError, match="booleans or real numbers"):
        add_run(tmp_path, "run", {"x": "text"}, {})
    assert read_runs(tmp_path) == {}


@pytest.mark.parametrize("kind", ["threads", pytest.param("processes", marks=pytest.mark.matrix), "dask"])
def test_any_executor_makes_the_same_bytes(kind, whole, tmp_path):
    if kind == "dask":
        pytest.importorskip("distributed", reason="needs dask[distributed]: the extra `cluster`")
        from distributed import Client, LocalCluster

        path = str(Path(toy_runs.__file__).parent)
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            client.run(sys.path.insert, 0, path)
            assert make(tmp_path, executor=client.get_executor()) == 0
    elif kind == "threads":
        with ThreadPoolExecutor(3) as executor:
            assert make(tmp_path, executor=executor) == 0
    else:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
            assert make(tmp_path, executor=executor) == 0
    assert values(tmp_path) == values(whole)


def test_filled_puts_nan_behind_what_is_shorter_and_where_nothing_is():
    found = filled((2, 2), {(0, 0): {"a": np.ones(3)}, (1, 1): {"a": np.zeros(2), "b": np.array(5)}})
    nan = np.nan
    np.testing.assert_array_equal(
        found["a"], [[[1, 1, 1], [nan] * 3], [[nan] * 3, [0, 0, nan]]], strict=False
    )
    np.testing.assert_array_equal(found["b"], [[nan, nan], [nan, 5]])


def test_the_command_line_says_how_far_it_is_and_merges(tmp_path, capsys):
    arguments = ["scale", "--profile", "quick", "--folder", str(tmp_path)]
    assert main([*arguments, "--status"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["scale", "0", "1", "0.0", "0.0", "?", "1"]
    assert main([*arguments, "--minutes", "0"]) == 0
    (tmp_path / "other" / "scale").mkdir(parents=True)
    assert main([*arguments, "--merge", str(tmp_path / "other")]) == 0
    assert "scale: 0 added, 0 there, 0 differ and stay" in capsys.readouterr().out
    assert main(["--profile", "quick", "--status", "--folder", str(tmp_path)]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert "attacks" in listed
    assert "scale" not in listed  # a timing is made only where it is named
    with pytest.raises(SystemExit):
        main(["no_such"])
    assert "there is no experiment no_such; there are attacks, " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["scale", "--profile", "huge"])
    assert "there is no profile huge; there are full, paper, quick" in capsys.readouterr().err


def test_seeds_of_the_command_line_may_go_beyond_the_profiles():
    assert (seed_range("3"), seed_range("2:5")) == (range(3), range(2, 5))
    assert {job.seed for job in chosen(EXPERIMENT, "quick", range(2, 5))} == {2, 3, 4}
    assert {job.seed for job in chosen(EXPERIMENT, "full", None)} == {0, 1, 2}


def test_what_is_not_known_of_all_is_not_said_to_be_nothing(tmp_path, capsys):
    assert main(["scale", "convergence", "--profile", "quick", "--status", "--folder", str(tmp_path)]) == 0
    assert [line.split()[5] for line in capsys.readouterr().out.splitlines()[1:4]] == ["?", "?", "?"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["widths", "features", "--profile", "whole", "--status"], "there is no profile whole of widths"),
        (["scale", "--merge", "no/such"], "no/such has no folder of scale"),
        (["scale", "--seeds", "5:2"], "seeds are first:end"),
        (["scale", "--seeds=-3"], "seeds are first:end"),
        (["scale", "--minutes", "nan"], "minutes are a number of at least 0"),
        (["scale", "--cores=-1"], "cores to use, got '-1'"),
        (["scale", "--cores", "9999"], "cores to use, got '9999'"),
        (["scale", "--executor", "0"], "it is so many processes"),
        (["scale", "--executor", "no_such:pool"], "it is so many processes"),
        (["scale", "--executor", "math:no_such"], "it is so many processes"),
    ],
    ids=[
        "profile",
        "folder",
        "backwards",
        "below 0",
        "nan",
        "no cores",
        "cores",
        "no processes",
        "module",
        "name",
    ],
)
def test_what_the_command_line_cannot_do_is_refused(wrong, message, capsys):
    with pytest.raises(SystemExit):
        main(wrong)
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("as_users_run")
def test_other_arguments_that_are_wrong_are_named():
    with pytest.raises(ValueError, match="scale has no profile 'huge'; it has quick, full, paper"):
        find("scale").recorded("huge")
    with pytest.raises(TypeError, match=r"executor must be a concurrent\.futures\.Executor"):
        campaign([], executor=2)


def test_an_executor_is_named_by_a_number_or_a_function():
    with executor_of(None) as nothing:
        assert nothing is None
    with executor_of("concurrent.futures:ThreadPoolExecutor") as pool:
        assert pool.submit(len, "abc").result() == 3
