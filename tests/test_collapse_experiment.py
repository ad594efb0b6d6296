"""The experiment on collapse by class at toy size: kernels by Jacobians; and the claims on its records."""

from types import MappingProxyType

import jax
import numpy as np
import pytest

from companion import scorecard
from companion.data._sets import SETS
from companion.experiments import _collapse_network as networks
from companion.experiments import collapse as experiment
from companion.results import Result

CASE = experiment.Case(
    "digits",
    0.1,
    (3, 8),
    n_class=8,
    n_probe=4,
    n_test=10,
    depth=1,
    width=6,
    epochs=(0, 2),
    batch_size=8,
    steps=2,
)
CLAIMS = {one.name: one for one in scorecard.CLAIMS}


@pytest.fixture(scope="module")
def measured():
    return experiment.run(experiment.Config((CASE,), seeds=1, final=2))


def at_start():
    d = experiment.images(CASE, 0)
    model = networks.dense(2, depth=1, width=6)
    return d, model, model.init(jax.random.key(0), d.x_train[:1])[0]


def jacobian_kernel(function, params, x):
    """Mean over outputs of ⟨∂f_a(x), ∂f_a(x')⟩."""
    rows = jax.tree.leaves(jax.jacrev(function)(params, x))
    flat = np.concatenate([np.asarray(one).reshape(*one.shape[:2], -1) for one in rows], axis=-1)
    return np.einsum("iap,jap->ij", flat, flat) / flat.shape[1]


def test_blocks_are_those_of_jacobians_and_all_methods_start_alike(measured):
    d, model, params = at_start()
    probe = np.concatenate([np.flatnonzero(d.y_train == c)[:4] for c in range(2)])
    x, y = d.x_train[probe], d.y_train[probe]
    kernel = jacobian_kernel(lambda p, x: model.apply(p, {}, x, False)[0], params, x)
    alike = y[:, None] == y
    off = ~np.eye(8, dtype=bool)
    expected = np.diag(kernel).mean(), kernel[alike & off].mean(), kernel[~alike].mean()
    found = experiment.measures(CASE, params, None, d, jax.random.key(0))
    np.testing.assert_allclose([found[name] for name in ("same", "within", "between")], expected, rtol=1e-5)
    starts = measured["measures"][0, :, 0, 0]
    np.testing.assert_array_equal(starts[1:], starts[[0, 0]])
    assert (measured["measures"][0, 1:, 0, 1, :3] != measured["measures"][0, 0, 0, 1, :3]).any()


def test_kernels_of_infinite_width_are_measured_on_the_probe_too(measured):
    d, _, _ = at_start()
    probe = np.concatenate([np.flatnonzero(d.y_train == c)[:4] for c in range(2)])
    for rows, found in (
        (probe, measured["limit on the probe"][0, 0]),
        (np.arange(16), measured["limit"][0, 0, 0]),
    ):
        x, y = d.x_train[rows].reshape(len(rows), -1).astype(float), d.y_train[rows]
        # FC-1 by the arc-cosine formulas, w_std = √2 and b_std = .1.
        sigma = 2 * x @ x.T / x.shape[1] + 0.01
        size = np.sqrt(np.outer(np.diag(sigma), np.diag(sigma)))
        theta = np.arccos(np.clip(sigma / size, -1, 1))
        nngp = size * (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / np.pi + 0.01
        ntk = nngp + sigma * (np.pi - theta) / np.pi
        for kernel, spread in zip((ntk, nngp), found, strict=True):
            values, vectors = np.linalg.eigh(kernel)
            z = vectors * np.sqrt(np.maximum(values, 0))
            means = np.stack([z[y == c].mean(axis=0) for c in (0, 1)])
            apart = means[y] - z.mean(axis=0)
            assert spread == pytest.approx(((z - means[y]) ** 2).sum() / (apart**2).sum(), rel=1e-3)


def test_the_kernel_of_the_features_is_their_mean_up_to_the_signs():
    d, _, params = at_start()
    exact = jacobian_kernel(networks.features, params, d.x_train[:5])
    found = networks.feature_kernel(6)(params, d.x_train[:5])
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (6, 16)) / 6**0.5
    projected = jacobian_kernel(lambda p, x: networks.features(p, x) @ signs, params, d.x_train[:5])
    np.testing.assert_allclose(found, projected, rtol=1e-5)
    # The last hidden layer's units share no weights, so here the projected kernel is the mean exactly.
    np.testing.assert_allclose(found, exact, rtol=1e-5)


def test_the_drift_is_zero_where_nothing_cancels_less_and_one_where_one_side_moves():
    d, _, params = at_start()
    blocks = experiment.dynamics.Blocks(3.0, 1.0, 0.5)
    other = [params[0], (2 * params[1][0], params[1][1])]
    assert experiment.drift(other, params, d.x_train, d.y_train, blocks) == pytest.approx(1.0)
    wrong = experiment.dynamics.Blocks(1.0, 2.0, 0.5)
    assert np.isnan(experiment.drift(other, params, d.x_train, d.y_train, wrong))


def test_a_run_that_diverges_is_a_run_without_numbers(monkeypatch):
    def diverges(*_, **__):
        raise FloatingPointError("loss")

    monkeypatch.setattr(experiment, "train", diverges)
    found = experiment.compute(CASE, "pgd", 0, 2)
    assert np.isnan(found["measures"]).all()
    assert np.isfinite(found["limit"]).all()


def test_noise_moves_every_pixel_by_eps_within_the_box():
    attack = experiment.attack_of(CASE, "noise")
    x = np.full((4, 6), 0.5, np.float32)
    moved = np.asarray(attack(lambda x: x, x, np.zeros(4, int), jax.random.key(0), 0))
    np.testing.assert_allclose(np.abs(moved - x), 0.1, rtol=1e-5)
    assert 0 < (moved > x).mean() < 1
    assert experiment.attack_of(CASE, "standard") is None


@pytest.mark.parametrize("profile", experiment.PROFILES)
def test_profiles_are_well_formed(profile):
    config = experiment.PROFILES[profile]
    jobs = experiment.jobs(config)
    assert len(set(map(experiment.EXPERIMENT.key, jobs))) == len(jobs)
    for case in config.cases:
        assert case.dataset in SETS
        assert case.epochs[0] == 0
        assert case.n_probe <= case.n_class


def record(spread, limit=(2.0, 1.0), fits=True):
    """Three seeds; blocks grow by .2; the spread and NC1 after PGD training."""
    measures = np.zeros((1, 3, 3, 2, len(experiment.MEASURES)))
    noise = 0.01 * np.arange(-1, 2)

    def put(name, method, epoch, value):
        measures[0, method, :, epoch, experiment.MEASURES.index(name)] = value

    for m in range(3):
        for epoch, within in ((0, 1.0), (-1, 1.4)):
            put("same", m, epoch, 2.0)
            put("within", m, epoch, within + noise * (1 - epoch))
            put("between", m, epoch, 0.5)
        put("train", m, -1, 1.0)
        put("robust train", m, -1, 1.0 if fits else 0.5)
        for name in ("spread", "nc1"):
            put(name, m, -1, (spread if m == 2 else 1.0) + noise * (1 + m))
    limits = np.broadcast_to(np.array(limit), (1, 3, 3, 2)) * (1 + noise[:, None] * np.array([1, 2]))
    case = {
        "dataset": "mnist5k",
        "depth": 3,
        "width": 8,
        "n_class": 5,
        "eps": 0.1,
        "steps": 5,
        "epochs": [0, 9],
    }
    provenance = {"config": {"cases": [case]}, "runs": (1, 1), "seconds": 1.0}
    arrays = {"measures": measures, "limit": limits}
    return Result(MappingProxyType({}), MappingProxyType(arrays), MappingProxyType(provenance))


@pytest.mark.parametrize(
    ("name", "made", "verdict"),
    [
        ("E4a", {"spread": 1.0}, "reproduced"),
        ("E4b", {"spread": 2.0}, "reproduced"),
        ("E4b", {"spread": 0.5}, "not reproduced"),
        ("E4b", {"spread": 0.5, "fits": False}, "not tested"),
        ("E4c", {"spread": 1.0}, "reproduced"),
        ("E4c", {"spread": 1.0, "limit": (1.0, 2.0)}, "not reproduced"),
    ],
    ids=["blocks", "less", "more", "not at the end", "NTK wider", "NTK narrower"],
)
def test_claims_on_collapse(name, made, verdict):
    found = scorecard.card(CLAIMS[name], {"full": record(**made)})
    assert found.judgment.verdict == verdict
    if name == "E4a":
        assert found.comparisons[0].effect.value == pytest.approx(0.2)
