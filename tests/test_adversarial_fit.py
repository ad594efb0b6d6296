"""Adversarial training on the dual coefficients: against exact minima, and what it gains on digits."""

import numpy as np
import pytest
import scipy.optimize
from refusals import assert_refused

from companion import data
from companion.architectures import fc
from companion.attacks import Threat, pgd
from companion.guarantees import fit_adversarial
from companion.kernels import keep_compiled
from companion.regression import fit
from companion.statistics import mean

rng = np.random.default_rng(0)
X = rng.uniform(-1, 1, size=(4, 5)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0])
RIDGE = 0.3


@keep_compiled
def linear(a, b, get):
    return a @ b.T


def test_a_linear_kernel_reaches_the_exact_minimum():
    # Of a linear f = wᵀx the worst squared error within ε of x in L∞ is (|y − wᵀx| + ε ‖w‖₁)².
    eps, targets = 0.2, 2.0 * LABELS - 1

    def objective(w):
        worst = np.abs(targets - X @ w) + eps * np.abs(w).sum()
        return (worst**2).sum() + RIDGE * w @ w

    def room(point):  # of the epigraph: s ≥ |w|, u ≥ |r| + ε Σ s
        (_, s, u), w = np.split(point, [4, 9]), X.T @ point[:4]
        rest = targets - X @ w
        return np.concatenate([s - w, s + w, u - eps * s.sum() - rest, u - eps * s.sum() + rest])

    found = scipy.optimize.minimize(
        lambda point: (point[9:] ** 2).sum() + RIDGE * ((X.T @ point[:4]) ** 2).sum(),
        np.concatenate([np.zeros(4), np.ones(9)]),
        constraints={"type": "ineq", "fun": room},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    threat = Threat("linf", eps, bounds=(-9.0, 9.0))
    f = fit_adversarial(linear, X, LABELS, threat, ridge=RIDGE, rounds=60, steps=2)
    w = X.T @ f.coefficients[:, 0]
    assert 0.9999 * found.fun <= objective(w) <= 1.02 * found.fun
    assert objective(w) < 0.99 * objective(
        X.T @ fit(linear, X, targets[:, None], ridge=RIDGE).coefficients[:, 0]
    )


def test_without_a_threat_it_is_ridge_regression():
    x, labels = X[:, :, None, None] / 2 + 0.5, np.arange(4) % 3
    f = fit_adversarial(fc(2), x, labels, Threat("l2", 0.0), ridge=0.1, rounds=3)
    plain = fit(fc(2), x, data.targets(labels), ridge=0.1)
    np.testing.assert_allclose(f(x), plain(x), rtol=1e-3, atol=1e-4)
    assert f.coefficients.shape == (4, 3)


@pytest.mark.filterwarnings("ignore:after . rounds the objective")
def test_it_lowers_the_adversarial_loss_on_other_digits():
    # Three splits of the 8 x 8 digits 3 and 8, at equal ridge, the attack of the same strength for both.
    images = data.load("digits", classes=(3, 8))
    both = (images.x_train, images.x_test), (images.y_train, images.y_test)
    x, labels = (np.concatenate(parts) for parts in both)
    threat, gains = Threat("linf", 0.1), []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(x))
        train, test = order[:32], order[32:132]
        ours = fit_adversarial(fc(1), x[train], labels[train], threat, ridge=RIDGE, rounds=5, steps=5)
        plain = fit(fc(1), x[train], data.targets(labels[train]), ridge=RIDGE, solver="cholesky")
        losses = []
        for f in (plain, ours):
            attacked = pgd(f, x[test], labels[test], threat, steps=5)
            losses.append(float(((f(attacked) - data.targets(labels[test])) ** 2).mean()))
        gains.append(losses[0] - losses[1])
    assert mean(np.array(gains)).low > 0


def test_float64_images_are_refused_before_any_work_where_jax_computes_in_float32(monkeypatch):
    monkeypatch.setattr("companion.guarantees._adversarial.gram", None)
    with pytest.raises(ValueError, match="x_train is float64, and JAX computes in float32"):
        fit_adversarial(linear, X.astype(float), LABELS, Threat("linf", 0.1, (-1.0, 1.0)), ridge=RIDGE)


@pytest.mark.filterwarnings("ignore:after . rounds the objective")
@pytest.mark.usefixtures("x64")
def test_float64_images_have_a_float64_predictor():
    x, options = X.astype(float), {"ridge": RIDGE, "rounds": 2, "steps": 2}
    f, single = (
        fit_adversarial(linear, x, LABELS, Threat("linf", 0.1, (-1.0, 1.0)), **options) for x in (x, X)
    )
    assert f(x).dtype == np.float64
    np.testing.assert_allclose(f(x), single(X), atol=1e-5)


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_refused():
    threat = Threat("linf", 0.1, bounds=(-1.0, 1.0))
    assert_refused(
        [
            (lambda: fit_adversarial(linear, X, LABELS, threat, ridge=0.0), ValueError, "ridge must be more"),
            (lambda: fit_adversarial(linear, 2 * X, LABELS, threat, ridge=1.0), ValueError, "x must lie in"),
            (
                lambda: fit_adversarial(linear, X, LABELS[:3], threat, ridge=1.0),
                ValueError,
                "labels must have",
            ),
            (lambda: fit_adversarial(linear, X, LABELS, threat, ridge=1.0, rounds=0), ValueError, "rounds"),
        ]
    )
