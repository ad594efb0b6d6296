"""The experiment on guarantees at toy size: its numbers again, from solves, refits and bare definitions."""

import dataclasses
import math

import jax
import numpy as np
import pytest
import scipy.linalg

from companion import data, guarantees, regression
from companion.attacks import Threat, pgd, random_sign
from companion.data._sets import SETS
from companion.experiments import guarantees as experiment
from companion.kernels import gram
from companion.statistics import proportion

CASE = experiment.Case("mnist5k", (4, 9), 40, 20, 20, ("FC-1 relu nngp",), (0.25, 1.0))
THREE = dataclasses.replace(CASE, classes=(4, 9, 7), targets=2)
POISON = experiment.Poison("mnist5k", (4, 9), 20, 10, 20, 0.1, steps=3, kernels=CASE.kernels * 2)
TINY = experiment.Config(
    cases=(CASE, THREE),
    poisons=(POISON,),
    fits=((0.1, None), (0.0, 2.0)),
    eps=(0.0, 0.25, 1.0),
    budgets=(0, 1, 40),
    pgd=(3, 2),
    fab=5,
    seeds=1,
)


@pytest.fixture(scope="module")
def measured():
    return experiment.run(TINY)


def sides(case):
    """Θ(X, X), Θ(x, X), targets and labels of the only split, in float64."""
    images = data.load(case.dataset, classes=case.classes, n_train=case.n_train, n_test=case.n_test, seed=0)
    kernel, kind = experiment._kernel(case.kernels[0])
    x, points = images.x_train, images.x_test
    matrices = gram(kernel, x, kind=kind), gram(kernel, points, x, kind=kind)
    targets = data.targets(images.y_train, len(case.classes)).astype(float)
    return (*(each.astype(np.float64) for each in matrices), targets, images)


def coefficients(matrix, number):
    """C of each fit, α = C Y, by a solve and by a matrix exponential."""
    unit = np.diag(matrix).mean()
    if number == 0:
        return np.linalg.inv(matrix + 0.1 * unit * np.eye(len(matrix)))
    left = np.eye(len(matrix)) - scipy.linalg.expm(-2 / unit * matrix)
    return np.linalg.solve(matrix, left)


def classes(outputs):
    return (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(axis=1)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("row", [0, 1])
def test_accuracy_and_radii_are_those_of_a_dense_solve(measured, row, number):
    matrix, cross, targets, images = sides(experiment.rows(TINY)[row][0])
    alpha = coefficients(matrix, number) @ targets
    outputs = cross @ alpha
    right, at = classes(outputs) == images.y_test, (row, 0, number)
    np.testing.assert_allclose(measured["clean"][at], proportion(right).as_array(), rtol=1e-6)
    # L = √2/28 of a dense ReLU network with w_std = √2, on 784 pixels.
    radii = np.full(len(right), np.inf)
    for a, b in [(0, 0)] if row == 0 else [(0, 1), (0, 2), (1, 2)]:
        apart = alpha[:, a] - (alpha[:, b] if row else 0)
        margin = outputs[:, a] - (outputs[:, b] if row else 0)
        radius = np.abs(margin) / math.sqrt(apart @ matrix @ apart) / (2**0.5 / 28)
        mine = (classes(outputs) == a) | (classes(outputs) == b) | (row == 0)
        radii = np.where(mine, np.minimum(radii, radius), radii)
    expected = np.quantile(radii[right], experiment.QUANTILES)
    # Less what float32 may have lost.
    np.testing.assert_allclose(measured["radius"][at], expected, rtol=0.01, atol=0.005)
    assert (measured["radius"][at] <= expected).all()
    for place, eps in enumerate(TINY.eps[1:], start=1):
        certain = right & (radii > eps)
        near = np.abs(radii - eps) < 0.01
        assert abs(measured["certified"][*at, place, 0] - certain.mean()) <= near.mean() + 1e-6


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("row", [0, 1])
def test_label_flips_are_those_of_refits(measured, row, number):
    matrix, cross, targets, images = sides(experiment.rows(TINY)[row][0])
    influence = cross @ coefficients(matrix, number)
    right = classes(influence @ targets) == images.y_test
    safe = right.copy()
    for j in range(CASE.n_train):
        for new in np.unique(images.y_train):
            labels = images.y_train.copy()
            labels[j] = new
            changed = data.targets(labels, len(experiment.rows(TINY)[row][0].classes))
            safe &= classes(influence @ changed) == images.y_test
    np.testing.assert_allclose(
        measured["flips"][row, 0, number, :, 0], [right.mean(), safe.mean(), 0], atol=1e-6
    )
    shared = measured["shared"][row, 0, number]
    assert (shared >= measured["flips"][row, 0, number, :, 0] - 1e-6).all()
    assert shared[0] == pytest.approx(right.mean())


def test_certified_is_below_attacked_and_the_gap_is_between_them(measured):
    certified, attacked, gap = (measured[name][..., 0] for name in ("certified", "attacked", "gap"))
    # All test images are attacked here.
    np.testing.assert_allclose(attacked - certified, gap, atol=1e-6)
    assert (gap >= 0).all()
    assert (gap[..., 1:] > 0).any()
    np.testing.assert_allclose(attacked[..., 0], measured["clean"][..., 0], atol=1e-6)
    assert (measured["tightness"] < 1).all()
    assert (measured["tightness"] > 0.05).all()
    assert not measured["broken"].any()
    assert (measured["tried"] > CASE.n_attacked).all()


def test_attacks_are_as_strong_as_pgd_alone(measured):
    *_, images = sides(CASE)
    kernel, kind = experiment._kernel(CASE.kernels[0])
    targets = data.targets(images.y_train, 2)
    f = regression.fit_robust(kernel, images.x_train, targets, kind=kind)
    assert measured["clean"][0, 0, -1, 0] == pytest.approx(
        (classes(np.asarray(f(images.x_test))) == images.y_test).mean()
    )
    assert np.isnan(measured["flips"][0, 0, -1]).all()
    assert np.isnan(measured["shared"][0, 0, -1]).all()
    for place, eps in ((1, 0.25), (2, 1.0)):
        key = jax.random.fold_in(jax.random.key(0), place - 1)
        moved = pgd(f, images.x_test, images.y_test, Threat("l2", eps), steps=3, restarts=2, key=key)
        left = (classes(np.asarray(f(moved))) == images.y_test).mean()
        assert measured["attacked"][0, 0, -1, place, 0] <= left + 1e-6


def test_an_attack_inside_a_radius_is_counted(monkeypatch):
    monkeypatch.setattr(guarantees, "radius", lambda f, x: np.full(len(x), 100.0))
    config = dataclasses.replace(TINY, cases=(CASE,), poisons=(), fits=((0.1, None),))
    found = experiment.run(config)
    assert (found["broken"] >= CASE.n_attacked).all()
    assert (found["tried"] == 3 * CASE.n_attacked).all()


def test_poisons_are_fitted_with_the_clean_labels(measured):
    images = data.load("mnist5k", classes=(4, 9), n_train=30, n_test=20, seed=0)
    x, targets = images.x_train[:20], data.targets(images.y_train[:20], 2)
    kernel, kind = experiment._kernel(CASE.kernels[0])
    threat, ridge = Threat("linf", 0.1), 0.1 * float(np.diag(gram(kernel, x, kind=kind)).mean())
    options = {"ridge": ridge, "kind": kind}
    attack = (kernel, x, targets, images.x_train[20:], images.y_train[20:], threat)
    moved = [
        x,
        random_sign(x, threat, key=jax.random.key(0)),
        guarantees.poison(*attack, steps=1, **options),
        guarantees.poison(*attack, steps=3, **options),
    ]
    for number, each in enumerate(moved):
        matrix = gram(kernel, each, kind=kind).astype(float) + ridge * np.eye(20)
        outputs = gram(kernel, images.x_test, each, kind=kind) @ np.linalg.solve(matrix, targets)
        right = (classes(outputs) == images.y_test).mean()
        np.testing.assert_allclose(measured["poisoned"][0, 0, number, :, 0], right, atol=1e-6)


@pytest.mark.parametrize("profile", experiment.PROFILES)
def test_profiles_are_well_formed(profile):
    config = experiment.PROFILES[profile]
    jobs = experiment.jobs(config)
    assert len(set(map(experiment.EXPERIMENT.key, jobs))) == len(jobs)
    assert len(jobs) == config.seeds * (len(experiment.rows(config)) + len(config.poisons))
    assert config.eps[0] == config.budgets[0] == 0
    for case, name in experiment.rows(config):
        kernel, kind = experiment._kernel(name)
        assert f"{kernel.name} {kind}" == name
        assert case.dataset in SETS
        assert 0 < case.n_attacked <= case.n_test
        assert case.targets < (10 if case.classes is None else len(case.classes))
    # mnist5k has 800 images of a pair for training, and 200 for tests.
    for one in (*config.cases, *config.poisons):
        if one.dataset == "mnist5k" and one.classes:
            assert one.n_train + getattr(one, "n_val", 0) <= 800
            assert one.n_test <= 200
