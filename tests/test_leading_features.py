"""Chapter 3's rows of whole data sets at toy size: what a few eigenpairs say is what all of them say."""

import dataclasses

import numpy as np
import pytest

from companion import data, features, regression
from companion.attacks import Threat
from companion.experiments import features as experiment
from companion.experiments._features_cases import spaced
from companion.experiments._features_measures import clean_and_attacked
from companion.experiments._shared import architecture

CASE = experiment.Case("mnist5k", (4, 9), 40, 30, ("FC-1",), 0.1, 6, 12, leading=12)
TINY = dataclasses.replace(experiment.PROFILES["whole"], cases=(CASE,), steps=3, pgd_modes=2)


@pytest.fixture(scope="module")
def found():
    """The arrays of the run, in the row of its one kernel."""
    (job,) = (job for job in experiment.jobs(TINY) if job.config[0] == "leading")
    arrays = experiment.gather(TINY, {job: experiment.compute(*job.config)})
    return {name: array[0] for name, array in arrays.items() if name != "times"}


@pytest.fixture(scope="module")
def problem():
    """All eigenpairs of the same problem, its test images and their labels."""
    x_train, y_train, x, y, _ = experiment.held_out(CASE)
    return regression.fit(architecture("FC-1"), x_train, data.targets(y_train)), x, y


def test_the_leading_features_are_those_of_the_whole_spectrum(found, problem):
    f, x, y = problem
    right, modes = features.correct(f, x, y, modes=12), spaced(12, 6)
    np.testing.assert_allclose(found["eigenvalues"], f.eigenvalues[:12], rtol=1e-5)
    np.testing.assert_array_equal(found["accuracy"][:, 0], right.mean(axis=0, dtype=np.float32))
    np.testing.assert_array_equal(found["modes"], modes)
    alone = features.correct_under_attack(f, x[:12], y[:12], Threat("linf", 0.1), modes=modes)
    np.testing.assert_allclose(found["fgsm"][:, 0], alone.mean(axis=0), atol=1e-6)
    assert found["pgd"].shape == (2, 3)
    assert (found["random"] <= found["before"][:, 0]).all()


def test_sums_are_those_of_the_whole_spectrum_and_all_is_the_kernel(found, problem):
    f, x, y = problem
    options = {"x": x, "y": y, "threat": Threat("linf", 0.1), "steps": 3, "batch_size": 500}
    tops = [clean_and_attacked(features.classifier(f, k), **options) for k in (1, 10, 12)]
    np.testing.assert_allclose(found["top"], tops, atol=1e-6)
    ridge = 1e-3 * float(f.eigenvalues.mean())
    np.testing.assert_allclose(found["all"], clean_and_attacked(f.with_ridge(ridge), **options), atol=1e-6)
    assert found["all"][0, 0] > found["all"][1, 0]


def test_other_runs_keep_their_names():
    plain = dataclasses.replace(CASE, leading=None)
    jobs = [
        job
        for job in experiment.jobs(dataclasses.replace(TINY, cases=(plain,)))
        if job.config[0] != "overlap"
    ]
    assert [job.config[0] for job in jobs] == ["kernel", "controls", "relabeled"]
    assert "leading" not in str(experiment.EXPERIMENT.key(jobs[0]))
    recorded = experiment.EXPERIMENT.recorded("full").provenance
    assert recorded["runs"][0] > 0
    assert recorded["runs"][0] == recorded["runs"][1]
