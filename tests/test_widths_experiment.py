"""The experiment on widths at toy size: a linearization is its own kernel's flow, by dense Jacobians."""

import jax
import numpy as np
import pytest
import scipy.linalg

from companion import data
from companion.data._sets import SETS
from companion.experiments import _clocks_networks as roads
from companion.experiments import widths as experiment
from companion.experiments._shared import architecture
from companion.kernels import gram

CASE = experiment.Case("digits", "FC-1", 0.1, 30, 20, (16, 256), (16,))
TINY = experiment.Config((CASE,), seeds=1, time=2.0, steps=2)


@pytest.fixture(scope="module")
def measured():
    return experiment.run(TINY)


@pytest.fixture(scope="module")
def images():
    return data.load("digits", n_train=30, n_test=20, seed=0)


def flow(matrix, targets, time):
    """Θ⁻¹ (I − e^{−Θt}) Y."""
    return np.linalg.solve(matrix, (np.eye(len(matrix)) - scipy.linalg.expm(-matrix * time)) @ targets)


def test_a_linearization_follows_the_flow_of_its_own_kernel(images):
    network = architecture("FC-1", w_std=1.76, b_std=0.18, width=16, n_outputs=10)
    x, z, key = images.x_train, images.x_test, jax.random.key(3)
    params = network.init(jax.random.fold_in(key, 0), x[:1])  # as `train` starts

    def rows(points):
        leaves = jax.tree.leaves(jax.jacrev(lambda p: network.apply(p, points).ravel())(params))
        return np.concatenate([np.reshape(leaf, (leaf.shape[0], -1)) for leaf in leaves], axis=1).astype(
            float
        )

    matrix = rows(x) @ rows(x).T
    wanted = (np.eye(10)[images.y_train] - 0.1).reshape(-1, 1)
    largest = float(np.linalg.eigvalsh(matrix)[-1])
    slow = roads.Descent(0.02, None, 0.0)
    options = {"attack": None, "largest": largest, "key": key, "descent": slow}
    ((time, f),) = roads.on_the_road(roads.linear(network), x, images.y_train, [8 / largest], **options)
    assert time == pytest.approx(8 / largest, rel=0.01)
    expected = (rows(z) @ rows(x).T @ flow(matrix, wanted, time)).reshape(20, 10)
    # Euler's steps of 0.02 / λ are off by about λt · 0.01 of what is still moving.
    np.testing.assert_allclose(f(z), expected, atol=0.02 * np.abs(expected).max())
    # A tenth of the time is far away: the comparison can fail.
    early = (rows(z) @ rows(x).T @ flow(matrix, wanted, time / 10)).reshape(20, 10)
    assert np.abs(early - expected).max() > 0.2 * np.abs(expected).max()


def test_both_networks_start_at_zero_and_part_only_later(images):
    network = architecture("FC-1", w_std=1.76, b_std=0.18, width=16, n_outputs=10)
    x, key = images.x_train, jax.random.key(3)
    outputs = {}
    for model in (roads.centered(network), roads.linear(network)):
        params, state = model.init(key, x[:1])
        np.testing.assert_array_equal(model.apply(params, state, x, False)[0], 0)
        rng = np.random.default_rng(0)
        moved = jax.tree.map(lambda p, rng=rng: p + 1e-3 * rng.normal(size=p.shape).astype(p.dtype), params)
        outputs[model.name] = np.asarray(model.apply(moved, state, x, False)[0])
    one, other = outputs.values()
    assert np.abs(one - other).max() < 0.05 * np.abs(one).max() > 0


def test_times_are_whole_epochs():
    descent = roads.Descent(0.5, 10, 0.9)
    # An epoch of 3 steps, each 0.5 / (10 λ (1 − 0.9)) · 10 / n of the time of the sum over n.
    count, time = descent.epochs(30, 4.0, 10.0)
    assert time == pytest.approx(count * 3 * 0.5 / 4.0 / 0.1)
    assert abs(time - 10.0) <= 0.5 * 3 * 0.5 / 4.0 / 0.1
    assert roads.Descent(1.0, None, 0.0).epochs(30, 1.0, 1e-9) == (1, 1.0)


def test_the_kernels_row_is_its_flow_and_has_no_slope_where_all_is_black(measured, images):
    kernel = architecture("FC-1", w_std=1.76, b_std=0.18)
    x = images.x_train
    matrix, cross = gram(kernel, x).astype(float), gram(kernel, images.x_test, x).astype(float)
    time = float(measured["time"][0, 0, 0, 0]) / np.diag(matrix).mean()
    outputs = cross @ flow(matrix, np.eye(10)[images.y_train] - 0.1, time)
    right = outputs.argmax(axis=1) == images.y_test
    assert measured["accuracy"][0, 0, 0, 0, 0] == pytest.approx(right.mean())
    own = outputs[np.arange(20), images.y_test]
    outputs[np.arange(20), images.y_test] = -np.inf
    margin, whole, black = measured["slope"][0, 0, 0, 0]
    assert margin == pytest.approx((own - outputs.max(axis=1)).mean(), rel=1e-3, abs=1e-4)
    assert whole > 0
    assert black < 1e-3 * whole
    assert measured["accuracy"][0, 0, 0, 0, 2] == pytest.approx(
        measured["accuracy"][0, 0, 0, 0, 1], abs=0.051
    )


def test_networks_have_a_slope_there_and_attacks_only_take(measured):
    accuracy, slope = measured["accuracy"][0, 0], measured["slope"][0, 0]
    there = np.isfinite(accuracy[..., 0])
    assert there.tolist() == [[True, False], [True, True], [True, True], [True, False]]
    assert (accuracy[there][:, 1] <= accuracy[there][:, 0]).all()
    share = slope[1:3, :, 2] / slope[1:3, :, 1]
    assert (share > 0.001).all()
    assert (measured["time"][0, 0][there] > 0).all()


@pytest.mark.parametrize("profile", experiment.PROFILES)
def test_profiles_are_well_formed(profile):
    config = experiment.PROFILES[profile]
    jobs = experiment.jobs(config)
    assert len(set(map(experiment.EXPERIMENT.key, jobs))) == len(jobs)
    for case in config.cases:
        assert case.dataset in SETS
        assert set(case.small) <= set(case.widths)
        assert list(case.widths) == sorted(case.widths)
