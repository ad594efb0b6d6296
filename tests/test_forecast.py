"""Seconds of runs that are not recorded, from those that are."""

from dataclasses import replace

import jax
import pytest
from toy_runs import EXPERIMENT, Case, Config, jobs

from companion.experiments import status
from companion.experiments._forecast import durations
from companion.results import RecordedRun, add_run

TWO, THREE, FIVE = (Case(size) for size in (2, 3, 5))


def run(case, name, dataset="mnist5k", seed=0):
    (found,) = (one for one in jobs(Config((case,), seeds=seed + 1)) if one.config[1:] == (name, seed))
    return replace(found, dataset=dataset, label=f"{dataset}, {found.label}")


def origin(seconds, platform=None):
    return {"seconds": seconds, "device": {"platform": platform or jax.default_backend(), "cores": 2}}


def guess(made):
    records = {EXPERIMENT.key(job): RecordedRun({}, origin(seconds)) for job, seconds in made.items()}
    return durations(EXPERIMENT, list(made), records)


def test_a_kind_takes_on_a_slower_data_set_as_much_longer_as_another_kind_does():
    there = {run(TWO, "normal"): 10.0, run(TWO, "uniform"): 40.0, run(TWO, "sum"): 20.0}
    found = guess(there | {run(THREE, "normal", "cifar10"): 100.0})
    # Ten times as long: of 40 and of 20 seconds.
    assert found(run(THREE, "uniform", "cifar10")).seconds == pytest.approx(400, rel=1e-6)
    assert found(run(THREE, "sum", "cifar10")).seconds == pytest.approx(200, rel=1e-6)
    assert found(run(THREE, "sum", "cifar10")).known


def test_a_new_case_is_like_others_of_its_data_set():
    found = guess({run(TWO, "normal"): 10.0, run(THREE, "normal", "cifar10"): 1000.0})
    assert found(run(FIVE, "normal", "cifar10")).seconds == pytest.approx(1000, rel=0.05)
    assert found(run(FIVE, "normal")).seconds == pytest.approx(10, rel=0.05)


def test_runs_of_a_label_take_its_median_whatever_others_say():
    made = {run(TWO, "normal", seed=seed): t for seed, t in enumerate((1.0, 3.0, 100.0))}
    found = guess(made | {run(THREE, "normal"): 7.0})
    assert found(run(TWO, "normal", seed=5)).seconds == 3.0
    assert found(run(THREE, "normal", seed=5)).seconds == 7.0


def test_what_has_no_like_is_told():
    found = guess({run(TWO, "normal"): 10.0})
    assert not found(run(TWO, "uniform")).known
    assert not found(run(TWO, "normal", "cifar10")).known
    assert found(run(FIVE, "normal")).known
    nothing = guess({})(run(TWO, "normal"))
    assert (nothing.seconds, nothing.known) == (None, False)


def test_status_counts_what_it_guessed_and_the_hours_of_cores(tmp_path):
    every = jobs(Config(seeds=1))
    normal, uniform, total = (
        next(one for one in every if one.config[:2] == (TWO, name)) for name in ("normal", "uniform", "sum")
    )
    for job, seconds in ((normal, 10.0), (uniform, 30.0)):
        add_run(tmp_path / "toy", EXPERIMENT.key(job), {"draw": 0}, origin(seconds))
    found = status(EXPERIMENT, every, tmp_path)
    assert (found.done, found.missing, found.seconds, found.core_seconds) == (2, 4, 40.0, 80.0)
    assert found.guessed == 2  # the sums, of which there is none
    # On another size, one data set: as on this one. Of a sum nothing is known: the geometric mean of all.
    assert found.left == pytest.approx(10 + 30 + 2 * 300**0.5)
    assert total.needs == (normal, uniform)
