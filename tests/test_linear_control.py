"""Ridge regression on pixels as a control: numbers again, from solves and the SVD."""

import numpy as np
import pytest

from companion import data
from companion.experiments import attacks, features
from companion.experiments._features_cases import RIDGE
from companion.experiments._linear_control import ridge_on_pixels

SIZES = {"dataset": "mnist5k", "classes": (4, 9), "n_train": 30, "n_test": 20}


def with_bias(x):
    flat = x.reshape(len(x), -1).astype(float)
    return np.hstack([flat / flat.shape[1] ** 0.5, np.full((len(x), 1), 0.1)])


def solved(x_train, y_train, x):
    """Scores by the primal normal equations, with the bias as one more pixel."""
    one, two = with_bias(x_train), with_bias(x)
    ridge = RIDGE * (one**2).sum() / len(one)
    return two @ np.linalg.solve(one.T @ one + ridge * np.eye(one.shape[1]), one.T @ (2.0 * y_train - 1))


@pytest.fixture(scope="module")
def images():
    return data.load("mnist5k", classes=(4, 9), n_train=30, n_test=20)


def test_it_is_ridge_regression_on_pixels(images):
    f = ridge_on_pixels(images.x_train, data.targets(images.y_train, 2))
    scores = solved(images.x_train, images.y_train, images.x_test)
    np.testing.assert_allclose(np.asarray(f(images.x_test))[:, 0], scores, rtol=2e-3, atol=2e-4)


def test_networks_are_attacked_by_the_signs_of_its_weights(images):
    config = attacks.Transfers(**SIZES, widths=(64,), seeds=1, residuals=(0.7, 0.5), step=0.1, momentum=0.9)
    found = attacks.compute("linear", config, 0)
    assert found["linear_success"].shape == (1, 3)
    assert ((found["linear_success"] >= 0) & (found["linear_success"] <= 1)).all()
    right = (solved(images.x_train, images.y_train, images.x_test) > 0) == images.y_test
    assert found["linear_clean"][1] == pytest.approx(right.mean())
    assert found["linear_success"][0, :2].min() > found["linear_success"][0, 2]  # random signs
    assert 0.3 < found["linear_cosine"] < 1


def test_sums_of_components_are_those_of_the_svd():
    case = features.Case(**SIZES | {"n_train": 120}, architectures=(), eps=0.1, modes=None, n_attacked=20)
    found = features.compute("linear", case, 2)
    x_train, y_train, x, y, _ = features.held_out(case)
    one, two = with_bias(x_train), with_bias(x)
    u, s, v = np.linalg.svd(one, full_matrices=False)
    weights = s / (s**2 + RIDGE * (one**2).sum() / len(one)) * (u.T @ (2.0 * y_train - 1))
    parts = (two @ v.T) * weights
    for i, some in enumerate((slice(10), slice(20), slice(None), slice(100, None))):
        right = (parts[:, some].sum(axis=1) > 0) == y
        assert found["linear_sum"][i, 0, 0] == pytest.approx(right.mean(), abs=0.051)  # one image of twenty
        assert found["linear_sum"][i, 1, 0] <= found["linear_sum"][i, 0, 0]
    assert found["linear_useful"][1] == 20
    assert found["linear_majority"] == max(np.mean(y), 1 - np.mean(y))


KEPT = features.Case(**SIZES, architectures=(), eps=0.1, modes=None, n_attacked=20)


def test_every_network_and_component_has_its_place():
    config = attacks.Config((), linear=(attacks.Transfers(**SIZES, widths=(4, 8), seeds=2),))
    jobs = [job for job in attacks.EXPERIMENT.jobs(config) if job.config[0] == "linear"]
    assert [job.seed for job in jobs] == [0, 1]
    made = {job: {"linear_success": np.full((2, 3), job.seed)} for job in jobs}
    arrays = attacks.EXPERIMENT.gather(config, made)
    assert arrays["linear_success"].shape == (1, 2, 2, 3)
    assert (arrays["linear_success"][0, 1] == 1).all()
    whole = features.Config((), features.PROFILES["quick"].overlap, linear=(KEPT,))
    (job,) = (job for job in features.EXPERIMENT.jobs(whole) if job.config[0] == "linear")
    found = features.EXPERIMENT.gather(whole, {job: {"linear_useful": np.ones(2)}})
    assert found["linear_useful"].shape == (1, 2)
