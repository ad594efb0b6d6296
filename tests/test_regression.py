"""Kernel regression under gradient flow, against the matrix exponential and the flow itself."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg

from companion import regression as kr
from companion.architectures import fc
from companion.kernels import gram
from companion.neural_tangents import nt

rng = np.random.default_rng(0)
X, Z = rng.normal(size=(12, 5)), rng.normal(size=(7, 5))
Y = rng.normal(size=(12, 3))


def rbf(a, b):
    return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 4)


K, K_TEST = rbf(X, X), rbf(Z, X)


@pytest.mark.parametrize("t", [0.0, 0.01, 1.0, 30.0])
def test_predict_is_the_formula_with_a_matrix_exponential(t):
    expected = K_TEST @ np.linalg.solve(K, (np.eye(12) - scipy.linalg.expm(-t * K)) @ Y)
    np.testing.assert_allclose(kr.predict(kr.fit(K, Y), K_TEST, t=t), expected, rtol=1e-9, atol=1e-12)


def test_predict_is_the_gradient_flow_integrated():
    # d f(x)/dt = −Θ(x, X) (f(X) − Y) for train and test points together: no closed form used.
    both = np.concatenate([K, K_TEST])

    def flow(_, f):
        f = f.reshape(19, 3)
        return (-both @ (f[:12] - Y)).ravel()

    solution = scipy.integrate.solve_ivp(flow, (0, 3.0), np.zeros(19 * 3), rtol=1e-9, atol=1e-10)
    expected = solution.y[:, -1].reshape(19, 3)[12:]
    np.testing.assert_allclose(kr.predict(kr.fit(K, Y), K_TEST, t=3.0), expected, rtol=1e-6, atol=1e-8)


def test_infinite_time_interpolates_and_equals_the_solve():
    fitted = kr.fit(K, Y)
    np.testing.assert_allclose(kr.predict(fitted, K), Y, rtol=1e-8)
    np.testing.assert_allclose(kr.predict(fitted, K_TEST), K_TEST @ np.linalg.solve(K, Y), rtol=1e-8)
    np.testing.assert_allclose(kr.predict(fitted, K_TEST, t=1e9), kr.predict(fitted, K_TEST), rtol=1e-6)


def test_early_times_are_one_gradient_step():
    t = 1e-6
    np.testing.assert_allclose(kr.predict(kr.fit(K, Y), K_TEST, t=t), t * K_TEST @ Y, rtol=1e-5)


@pytest.mark.parametrize("ridge", [1e-3, 0.7])
def test_ridge_is_added_to_the_diagonal(ridge):
    expected = K_TEST @ np.linalg.solve(K + ridge * np.eye(12), Y)
    np.testing.assert_allclose(kr.predict(kr.fit(K, Y, ridge=ridge), K_TEST), expected, rtol=1e-9)


def test_ridge_to_zero_is_no_ridge():
    np.testing.assert_allclose(
        kr.predict(kr.fit(K, Y, ridge=1e-13), K_TEST), kr.predict(kr.fit(K, Y), K_TEST), rtol=1e-6
    )


@pytest.mark.usefixtures("x64")
def test_agrees_with_neural_tangents():
    architecture = fc(2)
    k_train, k_test = gram(architecture, X), gram(architecture, Z, X)
    theirs = nt.predict.gradient_descent_mse(k_train, Y)
    for t in (0.5, 20.0, math.inf):
        # Their loss is the mean over the n·k entries of Y, ours the sum.
        time = None if math.isinf(t) else t * Y.size
        _, expected = theirs(time, np.zeros_like(Y), np.zeros((7, 3)), k_test)
        np.testing.assert_allclose(
            kr.predict(kr.fit(k_train, Y), k_test, t=t), expected, rtol=1e-5, atol=1e-7
        )


def test_a_duplicated_point_counts_as_the_pseudo_inverse_says():
    twice = np.concatenate([X, X[:1]])
    targets = np.concatenate([Y, Y[:1]])
    with pytest.warns(kr.PrecisionWarning, match="below the rounding error"):
        fitted = kr.fit(rbf(twice, twice), targets)
    np.testing.assert_allclose(kr.predict(fitted, rbf(Z, twice)), K_TEST @ np.linalg.solve(K, Y), rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_kernel_of_low_rank_gives_the_pseudo_inverse(seed):
    # Five points on a plane: three eigenvalues are rounding, of either sign.
    factor, targets = (
        np.random.default_rng(seed).random((5, 2)),
        np.random.default_rng(seed + 9).random((5, 1)),
    )
    with pytest.warns(kr.PrecisionWarning):
        fitted = kr.fit(factor @ factor.T, targets)
    np.testing.assert_allclose(
        kr.coefficients(fitted), np.linalg.pinv(factor @ factor.T) @ targets, rtol=1e-8
    )
    assert kr.condition_number(fitted) == math.inf


def test_the_warning_knows_what_float32_does_to_a_relu_kernel():
    # Two images that nearly agree: the float32 diagonal is off by more than the smallest eigenvalue.
    x = np.random.default_rng(3).uniform(size=(6, 40))
    x[1] = x[0] + 1e-4 * np.random.default_rng(4).normal(size=40)
    single, double = gram(fc(2), x.astype(np.float32)), gram(fc(2), x)
    targets = np.sign(np.arange(6) % 2 - 0.5)[:, None]
    assert np.abs(single - double).max() > np.linalg.eigvalsh(double)[0]
    with pytest.warns(kr.PrecisionWarning, match="in float32"):
        assert kr.fit(single, targets).resolution > np.abs(single - double).max() / 10


@pytest.mark.usefixtures("as_users_run")
def test_integers_and_jax_scalars_are_numbers():
    fitted = kr.fit(np.array([[2, 0], [0, 1]]), np.array([[1], [0]]), ridge=jnp.float32(0.5))
    np.testing.assert_allclose(kr.predict(fitted, np.eye(2), t=np.array(np.inf)), [[0.4], [0.0]])


def test_spectrum_is_descending_and_rebuilds_the_kernel():
    fitted = kr.fit(K, Y)
    assert (np.diff(fitted.eigenvalues) <= 0).all()
    rebuilt = (fitted.eigenvectors * fitted.eigenvalues) @ fitted.eigenvectors.T
    np.testing.assert_allclose(rebuilt, K, atol=1e-12)
    np.testing.assert_allclose(kr.condition_number(fitted), np.linalg.cond(K), rtol=1e-6)


def test_signs_of_eigenvectors_change_nothing():
    fitted = kr.fit(K, Y)
    signs = np.sign(rng.normal(size=12))
    flipped = kr.KernelRegression(
        fitted.eigenvalues,
        fitted.eigenvectors * signs,
        fitted.projections * signs[:, None],
        fitted.resolution,
    )
    np.testing.assert_allclose(
        kr.predict(flipped, K_TEST, t=2.0), kr.predict(fitted, K_TEST, t=2.0), atol=1e-12
    )
    np.testing.assert_array_equal(kr.target_energy(flipped), kr.target_energy(fitted))


def test_learned_fraction_and_energy_give_the_training_error():
    fitted = kr.fit(K, Y)
    remaining = 1 - kr.learned_fraction(fitted, t=0.8)
    error = ((kr.predict(fitted, K, t=0.8) - Y) ** 2).sum() / (Y**2).sum()
    np.testing.assert_allclose((kr.target_energy(fitted) * remaining**2).sum(), error, rtol=1e-10)
    assert kr.target_energy(fitted).sum() == pytest.approx(1)
    np.testing.assert_array_equal(kr.learned_fraction(fitted, t=math.inf), np.ones(12))


def test_a_singular_kernel_has_infinite_condition_number():
    with pytest.warns(kr.PrecisionWarning):
        fitted = kr.fit(np.diag([1.0, 0.0]), np.ones((2, 1)))
    assert kr.condition_number(fitted) == math.inf
    np.testing.assert_array_equal(kr.learned_fraction(fitted, t=math.inf), [1.0, 0.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kr.fit(K[:, :3], Y), r"must be square \(n, n\), got shape \(12, 3\)"),
        (lambda: kr.fit(K, Y[:3]), r"targets must have shape \(12, k\), got \(3, 3\)"),
        (lambda: kr.fit(K * np.nan, Y), "k_train_train has 144 NaN"),
        (lambda: kr.fit(K, Y * np.inf), "targets has 36 NaN or infinite"),
        (lambda: kr.fit(K + np.triu(K, 1), Y), "k_train_train must be symmetric"),
        (lambda: kr.fit(K, Y, ridge=-1.0), "ridge must be at least 0"),
        (lambda: kr.predict(kr.fit(K, Y), K_TEST[:, :5]), r"k_test_train must have shape \(m, 12\)"),
        (lambda: kr.predict(kr.fit(K, Y), K_TEST, t=-1.0), "t must be at least 0"),
        (lambda: kr.predict(kr.fit(K, Y), K_TEST, t=math.nan), "t must be at least 0"),
        (lambda: kr.target_energy(kr.fit(K, 0 * Y)), "targets are all zero"),
        (lambda: kr.fit(-K, Y), "k_train_train must be positive semi-definite"),
        (
            lambda: kr.fit(np.diag([1.0, -5.0]), Y[:2]),
            "positive semi-definite, its smallest eigenvalue is -5",
        ),
        (lambda: kr.fit(K, Y, ridge=math.inf), "ridge must be finite"),
        (lambda: kr.fit(K + 0j, Y), "k_train_train must be float32 or float64, got complex128"),
        (lambda: kr.predict(K, K_TEST), "regression must come from regression.fit, got ndarray"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
