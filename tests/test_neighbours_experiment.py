"""The experiment on neighbors at toy size: its numbers again, from solves, Jacobians and features."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from companion import data
from companion.architectures import fc
from companion.attacks import Threat, random_sign
from companion.data._sets import SETS
from companion.experiments import neighbours as experiment
from companion.experiments._neighbours_networks import one_bias
from companion.experiments._shared import architecture
from companion.kernels import gram
from companion.networks import from_apply, mlp

CASE = experiment.Case("digits", (3, 8), 0.05, 20, 10, 20, 20, 8, 4)
SIZES = {"ridge": 0.1, "steps": 2, "width": 16}


@dataclass
class Left:
    value: float


@dataclass
class Attacked:
    accuracy: dict


@pytest.fixture(scope="module")
def kernels():
    """A run, with stand-ins for AutoAttack, which has its tests, and for the network."""

    def halved(f, x, y, *_, version, **__):
        clean = (np.asarray(f(x))[:, 0] > 0) == y
        return Attacked({"clean": Left(clean.mean()), version[-1]: Left(clean.mean() / 2)})

    network = from_apply(lambda w, x: x.mean(axis=(1, 2)) - w, jnp.array([0.3]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "autoattack", halved)
        patch.setattr(experiment, "network_of", lambda *_: (network, (jnp.array([0.3]), ())))
        how = (0.1, (0.1, 1.0), (0.0, 0.1), ("apgd-ce",), 1, 2, 5, 16, 1)
        return experiment.compute("kernels", CASE, 0, "FC-1", *how)


@pytest.fixture(scope="module")
def images():
    return data.load("digits", classes=(3, 8), n_train=20, n_test=20, seed=0)


def test_both_kernels_are_ridge_regression_with_one_relative_ridge(kernels, images):
    y = 2.0 * images.y_train - 1
    for i, kind in enumerate(experiment.KINDS):
        matrix = gram(architecture("FC-1"), images.x_train, kind=kind).astype(float)
        cross = gram(architecture("FC-1"), images.x_test, images.x_train, kind=kind)
        ridge = 0.1 * np.diag(matrix).mean() * np.eye(20)
        right = (cross @ np.linalg.solve(matrix + ridge, y) > 0) == images.y_test
        assert kernels["clean"][i] == pytest.approx(right.mean())
        assert kernels["certified"][i, 0] == pytest.approx(right.mean())
        assert kernels["auto"][i, 0] == pytest.approx(right[:8].mean())
    np.testing.assert_allclose(kernels["auto"][:, 1], kernels["auto"][:, 0] / 2)
    assert kernels["certified"][0, 1] < min(kernels["certified"][0, 0], kernels["certified"][1, 1])
    np.testing.assert_allclose(kernels["along"][:, 0, 0], kernels["auto"][:, 0])
    assert (kernels["along"][..., 1] <= kernels["along"][..., 0]).all()
    assert (kernels["robust"] <= kernels["useful"]).all()
    assert (kernels["robust"] < kernels["useful"]).any()
    assert kernels["useful"].shape == (2, 5)


def test_transfer_is_accuracy_on_what_was_moved(kernels, images):
    x, y = images.x_test[:8], images.y_test[:8]
    moved = random_sign(x, Threat("linf", 0.05), key=jax.random.key(0))
    right = (moved.mean(axis=(1, 2))[:, 0] > 0.3) == y
    assert kernels["transferred"][experiment.SOURCES.index("random")] == pytest.approx(right.mean())


def test_the_overlap_is_that_of_projectors(kernels, images):
    spaces = []
    for kind in experiment.KINDS:
        matrix = gram(architecture("FC-1"), images.x_train, kind=kind).astype(float)
        spaces.append(np.linalg.eigh(matrix)[1][:, -5:])
    shared = ((spaces[0].T @ spaces[1]) ** 2).sum() / 5
    assert kernels["overlap"] == pytest.approx(shared, abs=1e-3)
    assert shared > 0.5


@pytest.mark.parametrize("kind", experiment.KINDS)
def test_an_empirical_predictor_is_regression_with_dense_jacobians(kind, images):
    model, x = mlp(1, depth=2, width=16), images.x_train
    variables = model.init(jax.random.key(0), x[:1])
    targets = data.targets(images.y_train, 2)
    f = experiment.empirical_predictor(model, variables, x, targets, kind=kind, ridge=0.1)

    def rows(z):
        tree = jax.jacrev(lambda params: model.apply(params, variables[1], z, False)[0][:, 0])(variables[0])
        leaves = jax.tree.leaves(tree)[-2:] if kind == "nngp" else jax.tree.leaves(tree)
        return np.concatenate([np.reshape(leaf, (len(z), -1)) for leaf in leaves], axis=1).astype(float)

    matrix = rows(x) @ rows(x).T
    alpha = np.linalg.solve(matrix + 0.1 * np.diag(matrix).mean() * np.eye(20), targets)
    np.testing.assert_allclose(f(images.x_test[:6]), rows(images.x_test[:6]) @ rows(x).T @ alpha, atol=2e-4)


def test_training_that_does_not_end_is_recorded_without_its_end(monkeypatch):
    monkeypatch.setattr("companion.experiments._neighbours_networks.MOST", 1)
    found = one_bias(CASE, 0, 1.0, **SIZES)
    assert np.isnan(found["gradient_steps"])
    assert np.isnan(found["active"]).tolist() == [False, False, True]
    assert np.isfinite(found["biased"]).all()


def test_a_bias_is_a_hidden_layer_of_silent_units(images):
    found = one_bias(CASE, 0, 1.0, **SIZES)
    assert found["active"][0] == pytest.approx(norm.sf(1.0))
    x = images.x_train.reshape(20, -1).astype(float)
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    weights, _ = fc(1, width=16, b_std=1.0, bias=1.0).init(jax.random.key(0), jnp.asarray(x))[0]
    active = units @ np.asarray(weights, float) > 1
    assert found["active"][1] == pytest.approx(active.mean(), abs=2 / active.size)
    assert found["gradient_steps"] > 0
    # The kernel, from a million units.
    drawn = np.random.default_rng(0).normal(size=(x.shape[1], 200_000)).astype(np.float32)
    both = (units.astype(np.float32) @ drawn > 1).astype(np.float32)
    counted = 2 * (units @ units.T + 1) * (both @ both.T) / drawn.shape[1]
    kernel = np.asarray(experiment.on_sphere(1.0)(images.x_train, images.x_train))
    error = 4 * np.sqrt((both @ both.T) / drawn.shape[1] ** 2)
    assert (np.abs(counted - kernel) < 4 * error).mean() > 0.99
    assert found["smallest"] == pytest.approx(
        np.linalg.eigvalsh(kernel.astype(float))[0] / np.diag(kernel).mean(), rel=1e-2
    )
    assert (found["biased"][1] <= found["biased"][0]).all()


def test_gathering_puts_every_run_in_its_place():
    config = experiment.Config(
        (CASE, CASE.__class__("digits", (4, 9), 0.05)), ("FC-1", "FC-2"), (0.0, 1.0), 2
    )
    made = {}
    for number, job in enumerate(experiment.jobs(config)):
        name = {"kernels": "clean", "trained": "trained", "hidden": "biased"}[job.config[0]]
        made[job] = {name: np.array([float(number)])}
    found = experiment.gather(config, made)
    shapes = {"clean": (2, 2, 2, 1), "trained": (2, 2, 1), "biased": (2, 2, 2, 1)}
    assert {name: array.shape for name, array in found.items()} == shapes
    for job, arrays in made.items():
        part, case, seed, which = job.config[:4]
        place = (config.cases.index(case), seed)
        if part == "kernels":
            place += (config.kernels.index(which),)
        if part == "hidden":
            place += (config.biases.index(which),)
        ((name, value),) = arrays.items()
        assert found[name][place] == value


@pytest.mark.parametrize("profile", experiment.PROFILES)
def test_profiles_are_well_formed(profile):
    config = experiment.PROFILES[profile]
    jobs = experiment.jobs(config)
    assert len(set(map(experiment.EXPERIMENT.key, jobs))) == len(jobs)
    each = len(config.kernels) + 1 + len(config.biases)
    assert len(jobs) == config.seeds * len(config.cases) * each
    assert config.biases[0] == 0.0
    for case in config.cases:
        assert case.dataset in SETS
        assert max(case.n_attacked, case.n_conv_attacked) <= case.n_test
        # mnist5k has 800 images of a pair for training, and 200 for tests.
        assert case.dataset != "mnist5k" or (case.n_train <= 800 and case.n_test <= 200)


def test_the_first_kernel_has_more_draws():
    config = experiment.Config((CASE,), kernels=("FC-1", "FC-2"), biases=(0.0,), seeds=1, draws=3)
    jobs = experiment.jobs(config)
    assert [job.seed for job in jobs if job.config[0] == "kernels" and job.config[3] == "FC-1"] == [0, 1, 2]
    assert {job.seed for job in jobs if job.config[3] != "FC-1"} == {0}
    made = {job: {"clean": np.full(2, job.seed)} for job in jobs if job.config[0] == "kernels"}
    clean = experiment.EXPERIMENT.gather(config, made)["clean"]
    assert clean.shape == (1, 3, 2, 2)
    np.testing.assert_array_equal(clean[0, :, 0, 0], [0, 1, 2])
    assert np.isnan(clean[0, 1:, 1]).all()
