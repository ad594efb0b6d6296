"""The experiment on gradient starvation at toy size, and the claims on its records."""

from types import MappingProxyType

import numpy as np
import pytest
import scipy.linalg

from companion import data, regression, scorecard
from companion.data._sets import SETS
from companion.experiments import starvation as experiment
from companion.experiments._shared import architecture
from companion.kernels import gram
from companion.results import Result

CASE = experiment.Case("digits", (3, 8), 0.1, n_train=24, n_val=20, n_test=20, mark=2)
TINY = experiment.Config(
    (CASE,), 1, times=(0.1, 1.0, 10.0), decays=(0.1, 1.0), decouplings=(0.1,), factors=(1.0, 4.0), steps=2
)
CLAIMS = {one.name: one for one in scorecard.CLAIMS}


@pytest.fixture(scope="module")
def measured():
    return experiment.run(TINY)


def test_marks_stand_in_the_corner_of_their_side():
    x = np.zeros((2, 5, 6, 1), np.float32)
    found = experiment.marked(x, np.array([0, 1]), 2)
    assert found[0, :2, :2].all()
    assert found[1, :2, -2:].all()
    assert found.sum() == 8
    assert not x.any()


def test_the_squared_rows_are_those_of_the_matrix_exponential(measured):
    d = data.load("digits", classes=(3, 8), n_train=44, n_test=20, seed=0)
    y, sides = 2.0 * d.y_train[:24, None] - 1, 2 * d.y_test - 1
    x = experiment.marked(d.x_train[:24], d.y_train[:24], 2)
    theta, cross = (gram(architecture("FC-1"), part, x).astype(float) for part in (x, d.x_test))
    unit = np.diag(theta).mean()
    for when, t in ((0, TINY.times[int(measured["chosen"][0, 0, 1, 0, 1])]), (1, TINY.times[-1])):
        alpha = np.linalg.solve(theta, (np.eye(24) - scipy.linalg.expm(-theta * t / unit)) @ y)
        share = (np.sign(cross @ alpha)[:, 0] == sides).mean()
        assert measured["accuracy"][0, 0, 1, 0, when, 0] == pytest.approx(share)


def test_attacks_only_take(measured):
    clean, _, robust = np.moveaxis(measured["accuracy"], -1, 0)
    assert (robust <= clean).all()
    assert (robust < clean).any()


def test_responses_are_those_of_a_fit_and_under_squared_loss_do_not_move():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(10, 20))
    theta, y = root @ root.T / 20, np.where(rng.random((10, 1)) < 0.5, 1.0, -1.0)
    found = experiment.responses(theta, y, (1.0, 5.0))
    values, vectors = np.linalg.eigh(theta)
    strong = np.argmax(np.abs(vectors.T @ y))
    rest = np.delete(vectors, strong, axis=1)
    f = regression.fit_logistic(theta, targets=y, times=[np.inf], decay=1.0)[0]
    answer = ((rest.T @ y) * (rest.T @ theta @ f.coefficients)).sum() / ((rest.T @ y) ** 2).sum()
    assert found[0] == pytest.approx(answer)
    assert found[1] != pytest.approx(answer, rel=1e-5)
    stronger = theta + 4 * values[strong] * np.outer(vectors[:, strong], vectors[:, strong])
    both = [rest.T @ k @ regression.fit(k, targets=y, ridge=1.0).coefficients for k in (theta, stronger)]
    np.testing.assert_allclose(*both, atol=1e-10)


@pytest.mark.parametrize("profile", experiment.PROFILES)
def test_profiles_are_well_formed(profile):
    config = experiment.PROFILES[profile]
    jobs = experiment.jobs(config)
    assert len(set(map(experiment.EXPERIMENT.key, jobs))) == len(jobs) == config.seeds * len(config.cases)
    assert list(config.times) == sorted(config.times)
    assert all(case.dataset in SETS for case in config.cases)


def record(**lost):
    """Three splits: accuracy .9, under PGD .8, less what marks cost a row."""
    noise = 0.001 * np.arange(3)[:, None, None]
    accuracy = np.full((1, 3, 2, 4, 2, 3), 0.9)
    accuracy[..., 2] = 0.8
    for r, name in enumerate(experiment.ROWS):
        accuracy[0, :, 1, r] += noise * (1 + r) - lost.get(name, 0.0)
    answers = np.array([[[1.0, 1.1], [1.0, 1.12], [1.0, 1.11]]])
    case = {
        "dataset": "mnist5k",
        "kernel": "FC-1",
        "eps": 0.1,
        "n_train": 9,
        "n_val": 9,
        "n_test": 9,
        "mark": 4,
    }
    provenance = {"config": {"cases": [case], "steps": 20}, "runs": (1, 1), "seconds": 1.0}
    arrays = {"accuracy": accuracy, "responses": answers}
    return Result(MappingProxyType({}), MappingProxyType(arrays), MappingProxyType(provenance))


@pytest.mark.parametrize(
    ("lost", "outcomes", "verdict"),
    [
        ({"logistic": 0.1}, ("for", "for", "against"), "qualified"),
        ({"squared": 0.1}, ("against", "against", "against"), "not reproduced"),
    ],
    ids=["logistic", "squared"],
)
def test_starvation_is_what_the_logistic_loss_loses_more(lost, outcomes, verdict):
    found = scorecard.card(CLAIMS["E3a"], {"full": record(**lost)})
    assert (found.judgment.outcomes, found.judgment.verdict) == (outcomes, verdict)
    assert found.comparisons[2].effect.value == pytest.approx(-0.11)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [("decay", "qualified"), ("decoupling", "not reproduced")],
    ids=["decay", "decoupling"],
)
def test_decoupling_is_judged_beside_decay(row, verdict):
    found = scorecard.card(CLAIMS["E3b"], {"full": record(**{row: 0.1})})
    assert found.judgment.verdict == verdict
    assert abs(found.comparisons[1].effect.value) == pytest.approx(0.1, abs=0.01)


def test_decoupling_is_judged_beside_one_class_where_decay_keeps_less():
    # Decay keeps .4 of two classes under PGD: decoupling, which keeps .8, wins .3 beyond naming one of them.
    found = scorecard.card(CLAIMS["E3b"], {"full": record(decay=0.4)})
    assert found.comparisons[1].effect.value == pytest.approx(0.3, abs=0.01)
    assert found.comparisons[0].effect.value == pytest.approx(0.4, abs=0.01)  # clean, .5 at least
