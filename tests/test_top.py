"""`solver=Top(...)`: the leading eigenpairs, against a dense decomposition in float64."""

import jax
import numpy as np
import pytest
from refusals import assert_refused

from companion import clocks, data, features, guarantees, regression
from companion._core.krylov import krylov
from companion.architectures import fc
from companion.regression import Top, fit, plan

KEY = jax.random.key(0)
rng = np.random.default_rng(0)
X, Z = rng.uniform(size=(60, 4)).astype(np.float32), rng.uniform(size=(9, 4)).astype(np.float32)
Y = rng.normal(size=(60, 3))


def matrix(values, seed=0):
    """A symmetric matrix of these eigenvalues, and its eigenvectors."""
    vectors = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))[0]
    return (vectors * values) @ vectors.T, vectors


@pytest.mark.parametrize("block", [1, 7, 64])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_eigenpairs_are_those_of_a_dense_decomposition(k, block):
    values = np.geomspace(100, 1e-3, 60)
    kernel, _ = matrix(values)
    f = fit(kernel, targets=Y, solver=Top(k, key=KEY, block=block, tolerance=1e-9))
    np.testing.assert_allclose(f.eigenvalues, values[:k], rtol=1e-9)
    np.testing.assert_allclose(f.eigenvectors.T @ f.eigenvectors, np.eye(k), atol=1e-12)
    residual = np.linalg.norm(kernel @ f.eigenvectors - f.eigenvectors * f.eigenvalues, axis=0)
    assert (residual <= np.maximum(1.1e-9 * f.eigenvalues, 1e-12)).all()
    np.testing.assert_allclose(f.projections, f.eigenvectors.T @ Y, atol=1e-12)


def test_it_ends_where_the_residual_is_small_enough():
    kernel, _ = matrix(np.geomspace(1, 1e-6, 300))
    seen = []

    def times(v):
        seen.append(v.shape[1])
        return kernel @ v

    work = []
    for tolerance in (1e-2, 1e-6):
        seen.clear()
        values, vectors = krylov(
            times, 300, 10, chance=np.random.default_rng(0), block=8, tolerance=tolerance
        )
        residual = np.linalg.norm(kernel @ vectors - vectors * values, axis=0) / values
        assert residual.max() <= 1.01 * tolerance
        np.testing.assert_allclose(values, np.geomspace(1, 1e-6, 300)[:10], rtol=30 * tolerance**2 + 1e-13)
        work.append(sum(seen))
    assert 10 < work[0] < work[1] < 150


def test_it_is_a_function_of_its_key():
    kernel, _ = matrix(np.geomspace(1, 1e-3, 40))
    one, same, other = (
        fit(kernel, targets=Y[:40], solver=Top(3, key=jax.random.key(seed), block=2)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.eigenvectors, same.eigenvectors)
    assert not np.array_equal(one.eigenvectors, other.eigenvectors)
    np.testing.assert_allclose(one.eigenvalues, other.eigenvalues, rtol=1e-10)


@pytest.mark.parametrize(
    "values",
    [np.r_[3.0, 2.0, 1.0, np.zeros(17)], np.zeros(20), np.ones(20)],
    ids=["rank 3", "zero", "identity"],
)
def test_a_space_that_closes_is_filled_up(values):
    kernel, _ = matrix(values)
    f = fit(kernel, targets=Y[:20], solver=Top(6, key=KEY, block=2))
    np.testing.assert_allclose(f.eigenvalues, values[:6], atol=1e-12)
    np.testing.assert_allclose(f.eigenvectors.T @ f.eigenvectors, np.eye(6), atol=1e-10)


def test_the_predictor_is_the_sum_of_the_leading_features():
    full = fit(fc(1), X, Y)
    some = fit(fc(1), X, Y, solver=Top(8, key=KEY, block=4, tolerance=1e-8))
    for f, g in ((full, some), (full.at(0.1).with_ridge(0.2), some.at(0.1).with_ridge(0.2))):
        wanted = features.classifier(f, 8)
        np.testing.assert_allclose(g.coefficients, wanted.coefficients, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(g(Z), wanted(Z), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        features.outputs(some, Z), features.outputs(full, Z, modes=8), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        regression.contributions(some, np.ones((2, 60)), modes=[7]),
        regression.contributions(full, np.ones((2, 60)), modes=[7]),
        rtol=1e-5,
    )
    assert "n=60, outputs=3" in repr(some)


def test_what_needs_all_of_the_spectrum_says_so():
    f = fit(fc(1), X, data.targets(np.arange(60) % 2), solver=Top(8, key=KEY))
    labels = np.zeros(9, int)
    kernel, _ = matrix(np.r_[np.ones(5), -np.ones(25)])
    assert_refused(
        [
            (lambda: regression.coefficient_matrix(f), TypeError, "f has 8 of 60 eigenpairs"),
            (lambda: guarantees.flips(f, Z, labels), TypeError, "f has 8 of 60 eigenpairs"),
            (lambda: clocks.clocked(f, 1.0), TypeError, "f has 8 of 60 eigenpairs"),
            (lambda: features.outputs(f, Z, modes=9), ValueError, "modes must be at most 8, got 9"),
            (lambda: Top(0, key=KEY), ValueError, "k must be at least 1, got 0"),
            (lambda: Top(1, key=KEY, block=0), ValueError, "block must be at least 1, got 0"),
            (lambda: Top(1, key=KEY, tolerance=1.0), ValueError, "tolerance must lie between 0 and 1"),
            (lambda: Top(1, key=np.arange(3)), TypeError, "key"),
            (
                lambda: fit(kernel, targets=Y[:30], solver=Top(31, key=KEY)),
                ValueError,
                "k must be at most 30",
            ),
            (
                lambda: fit(kernel, targets=Y[:30], solver=Top(9, key=KEY)),
                ValueError,
                "must be positive semi-definite, its smallest eigenvalue is -1",
            ),
        ]
    )


def test_a_plan_counts_its_space():
    n = 50_000
    found = plan(fc(1), np.broadcast_to(np.float32(1), (n, 2)), solver=Top(1000, key=KEY))
    assert found.operations == 2 * n**2 * 3064
    assert found.bytes == 4 * n**2 + 8 * n * 4064
    assert "1000 leading eigenpairs: 1.5e+13 operations" in str(found)
