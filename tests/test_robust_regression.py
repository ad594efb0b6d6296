"""Feature-space adversarial training of kernels: against a general solver, and by its meaning."""

import jax
import numpy as np
import pytest
import scipy.optimize
from refusals import assert_refused

from companion.architectures import fc
from companion.attacks import Threat, pgd
from companion.kernels import gram
from companion.regression import fit, fit_robust

rng = np.random.default_rng(0)
N = 9
FEATURES = rng.normal(size=(N, 4)) / 2  # fewer than examples: no interpolation
FULL = rng.normal(size=(N, 12)) / 3
TARGETS = np.sign(rng.normal(size=(N, 1)))


def worst_loss(w, features, y, delta):
    return float(((np.abs(y - features @ w) + delta * np.linalg.norm(w)) ** 2).sum())


def by_slsqp(features, y, delta):
    """The minimum by its epigraph: Σ u², u_i ≥ ±r_i + δ ‖w‖."""
    q = features.shape[1]

    def room(point):
        w, u = point[:q], point[q:]
        rest, norm = y - features @ w, delta * np.sqrt(w @ w + 1e-18)
        return np.concatenate([u - norm - rest, u - norm + rest])

    w = np.linalg.lstsq(features, y, rcond=None)[0]
    start = np.concatenate([w, np.abs(y - features @ w) + delta * np.linalg.norm(w)])
    found = scipy.optimize.minimize(
        lambda point: (point[q:] ** 2).sum(),
        start,
        jac=lambda point: np.concatenate([np.zeros(q), 2 * point[q:]]),
        constraints={"type": "ineq", "fun": room},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    return worst_loss(found.x[:q], features, y, delta)


@pytest.mark.parametrize("delta", [0.03, 0.2])
@pytest.mark.parametrize("features", [np.hstack([FEATURES, 0.1 * np.eye(N)]), FULL], ids=["noisy", "full"])
def test_it_reaches_the_minimum_of_a_general_solver(features, delta):
    f = fit_robust(features @ features.T, targets=TARGETS, delta=delta, tolerance=1e-7)
    w = features.T @ f.coefficients[:, 0]
    ours, theirs = (
        worst_loss(w, features, TARGETS[:, 0], delta),
        by_slsqp(features, TARGETS[:, 0], delta),
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_its_objective_is_the_worst_case_over_feature_vectors():
    # max over |d| ≤ δ of (y − ⟨w, φ + d⟩)² by the two ends of the ball along w, and by many directions.
    delta = 0.2
    w = FULL.T @ fit_robust(FULL @ FULL.T, targets=TARGETS, delta=delta).coefficients[:, 0]
    along = np.stack([w, -w]) * delta / np.linalg.norm(w)
    others = rng.normal(size=(4000, FULL.shape[1]))
    others *= delta / np.linalg.norm(others, axis=1, keepdims=True)
    losses = [((TARGETS - (FULL[:, None] + d) @ w) ** 2).max(axis=1).sum() for d in (along, others)]
    np.testing.assert_allclose(losses[0], worst_loss(w, FULL, TARGETS[:, 0], delta), rtol=1e-12)
    assert 0.8 * losses[0] < losses[1] <= losses[0]


def test_a_small_delta_interpolates_up_to_its_threshold_and_a_large_one_gives_nothing():
    kernel = FULL @ FULL.T
    plain = np.linalg.solve(kernel, TARGETS)
    threshold = np.sqrt((plain.T @ kernel @ plain).item()) / (N * np.abs(plain).max())
    for delta, equal in ((0.0, True), (0.9 * threshold, True), (1.5 * threshold, False)):
        found = fit_robust(kernel, targets=TARGETS, delta=delta, tolerance=1e-9).coefficients
        assert np.allclose(found, plain, rtol=1e-4) == equal
    assert np.abs(fit_robust(kernel, targets=TARGETS, delta=10.0, tolerance=1e-9).coefficients).max() < 1e-6
    assert not fit_robust(kernel, targets=0 * TARGETS).coefficients.any()


def test_outputs_are_problems_of_their_own_and_delta_has_the_papers_default():
    kernel, targets = FULL @ FULL.T, np.hstack([TARGETS, rng.normal(size=(N, 1))])
    default = 0.4 * np.sqrt(np.trace(kernel)) / N
    both = fit_robust(kernel, targets=targets).coefficients
    for j in (0, 1):
        alone = fit_robust(kernel, targets=targets[:, [j]], delta=default).coefficients
        np.testing.assert_allclose(both[:, [j]], alone, rtol=1e-12)


def test_the_predictor_is_like_any_other():
    x = rng.uniform(size=(11, 4, 4, 1)).astype(np.float32)
    y, labels = np.where(x[:, :1, 0, 0] > 0.5, 1.0, -1.0), (x[:, 0, 0, 0] > 0.5).astype(int)
    f = fit_robust(fc(1), x, y, delta=0.05)
    np.testing.assert_allclose(f(x), gram(fc(1), x) @ f.coefficients, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda g, z: g(z))(f, x), f(x), rtol=1e-4, atol=1e-5)
    assert pgd(f, x, labels, Threat("linf", 0.1), steps=2).shape == x.shape
    given = fit_robust(fc(1), x, y, delta=0.05, k_train_train=gram(fc(1), x))
    np.testing.assert_array_equal(given.coefficients, f.coefficients)
    exact = fit_robust(fc(1), x, y, delta=0.0).coefficients
    np.testing.assert_array_equal(exact, fit(fc(1), x, y, solver="cholesky").coefficients)


def test_wrong_arguments_are_refused():
    kernel = FULL @ FULL.T

    def calls(**options):
        return lambda: fit_robust(kernel, **{"targets": TARGETS, "delta": 0.2} | options)

    assert_refused(
        [
            (calls(targets=None), TypeError, "targets must be given"),
            (calls(delta=-1.0), ValueError, "delta must be at least 0"),
            (calls(tolerance=0.0), ValueError, "tolerance must be more than 0"),
            (calls(max_steps=1), ValueError, "max_steps=1 rounds left the objective .* above its minimum"),
            (
                lambda: fit_robust(np.diag([1.0, -1e-3]), targets=TARGETS[:2], delta=1e-6, resolution=1.0),
                ValueError,
                "must be positive definite",
            ),
        ]
    )
