"""Kernel regression under gradient flow, against the matrix exponential and the flow itself."""

import dataclasses
import math
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from refusals import assert_refused

from companion import data
from companion import regression as kr
from companion._core import eigenpairs
from companion.architectures import fc
from companion.kernels import gram
from companion.neural_tangents import nt, stax

rng = np.random.default_rng(0)
X, Z = rng.normal(size=(12, 5)), rng.normal(size=(7, 5))
Y = rng.normal(size=(12, 3))


def rbf(a, b):
    return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 4)


K, K_TEST = rbf(X, X), rbf(Z, X)


@pytest.mark.parametrize("t", [0.0, 0.01, 1.0, 30.0])
def test_predict_is_the_formula_with_a_matrix_exponential(t):
    expected = K_TEST @ np.linalg.solve(K, (np.eye(12) - scipy.linalg.expm(-t * K)) @ Y)
    np.testing.assert_allclose(
        kr.fit(K, targets=Y).at(t).from_kernel(K_TEST), expected, rtol=1e-9, atol=1e-12
    )


def test_predict_is_the_gradient_flow_integrated():
    # d f(x)/dt = −Θ(x, X) (f(X) − Y) for train and test points together: no closed form used.
    both = np.concatenate([K, K_TEST])

    def flow(_, f):
        f = f.reshape(19, 3)
        return (-both @ (f[:12] - Y)).ravel()

    solution = scipy.integrate.solve_ivp(flow, (0, 3.0), np.zeros(19 * 3), rtol=1e-9, atol=1e-10)
    expected = solution.y[:, -1].reshape(19, 3)[12:]
    np.testing.assert_allclose(
        kr.fit(K, targets=Y).at(3.0).from_kernel(K_TEST), expected, rtol=1e-6, atol=1e-8
    )


def test_infinite_time_interpolates_and_equals_the_solve():
    fitted = kr.fit(K, targets=Y)
    np.testing.assert_allclose(fitted.from_kernel(K), Y, rtol=1e-8)
    np.testing.assert_allclose(fitted.from_kernel(K_TEST), K_TEST @ np.linalg.solve(K, Y), rtol=1e-8)
    np.testing.assert_allclose(fitted.at(1e9).from_kernel(K_TEST), fitted.from_kernel(K_TEST), rtol=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_early_times_are_one_gradient_step_up_to_the_square_of_time(ridge):
    # f_t = t Θ(x, X) (I − t (Θ + ρI) / 2) Y + O(t³)
    fitted, shifted = kr.fit(K, targets=Y, ridge=ridge), K + ridge * np.eye(12)
    for t in (1e-3, 1e-5):
        first = fitted.at(t).from_kernel(K_TEST) / t
        np.testing.assert_allclose(first, K_TEST @ Y, atol=2 * t * np.abs(K_TEST @ shifted @ Y).max())
        second = (first - K_TEST @ Y) / t
        np.testing.assert_allclose(second, -K_TEST @ shifted @ Y / 2, atol=100 * t)
    assert not fitted.at(0.0).from_kernel(K_TEST).any()


@pytest.mark.parametrize("ridge", [1e-3, 0.7])
def test_ridge_is_added_to_the_diagonal(ridge):
    expected = K_TEST @ np.linalg.solve(K + ridge * np.eye(12), Y)
    np.testing.assert_allclose(kr.fit(K, targets=Y, ridge=ridge).from_kernel(K_TEST), expected, rtol=1e-9)


def test_ridge_to_zero_is_no_ridge():
    fitted = kr.fit(K, targets=Y)
    small = fitted.with_ridge(1e-13).from_kernel(K_TEST)
    np.testing.assert_allclose(small, fitted.from_kernel(K_TEST), rtol=1e-6)


def test_ridge_to_infinity_is_one_small_step():
    # (Θ + ρI)⁻¹ = I/ρ − Θ/ρ² + …
    huge = kr.fit(K, targets=Y, ridge=1e9).from_kernel(K_TEST) * 1e9
    np.testing.assert_allclose(huge, K_TEST @ Y, rtol=1e-7)


@pytest.mark.parametrize("t", [0.3, 20.0, math.inf])
def test_another_ridge_needs_no_other_decomposition(t):
    fitted = kr.fit(K, targets=Y, ridge=1e8).with_ridge(0.4)
    again = kr.fit(K, targets=Y, ridge=0.4)
    assert fitted.eigenvectors is fitted.with_ridge(0.0).eigenvectors
    np.testing.assert_array_equal(fitted.eigenvalues, again.eigenvalues)
    np.testing.assert_array_equal(fitted.at(t).coefficients, again.at(t).coefficients)
    for quantity in (kr.condition_number, kr.learned_fraction, kr.rounding_error):
        np.testing.assert_array_equal(quantity(fitted.at(t)), quantity(again.at(t)))
    np.testing.assert_allclose(kr.condition_number(fitted), np.linalg.cond(K + 0.4 * np.eye(12)), rtol=1e-9)


def test_the_flow_with_a_ridge_is_integrated():
    # dα/dt = Y − (Θ + ρI) α
    def flow(_, alpha):
        return (Y - (K + 0.3 * np.eye(12)) @ alpha.reshape(12, 3)).ravel()

    solution = scipy.integrate.solve_ivp(flow, (0, 2.0), np.zeros(36), rtol=1e-9, atol=1e-10)
    fitted = kr.fit(K, targets=Y, ridge=0.3)
    np.testing.assert_allclose(
        fitted.at(2.0).coefficients, solution.y[:, -1].reshape(12, 3), rtol=1e-6, atol=1e-8
    )
    # learned_fraction is what the training outputs have of each direction.
    outputs = fitted.eigenvectors.T @ fitted.at(2.0).from_kernel(K)
    np.testing.assert_allclose(kr.learned_fraction(fitted.at(2.0))[:, None] * fitted.projections, outputs)


@pytest.mark.parametrize("t", [0.0, 0.7, 30.0, math.inf])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_coefficient_matrix_is_that_of_any_targets(t, ridge):
    matrix = kr.coefficient_matrix(kr.fit(K, targets=Y, ridge=ridge).at(t))
    np.testing.assert_allclose(matrix @ Y, kr.fit(K, targets=Y, ridge=ridge).at(t).coefficients, atol=1e-10)
    np.testing.assert_allclose(
        matrix, kr.fit(K, targets=np.eye(12), ridge=ridge).at(t).coefficients, atol=1e-10
    )
    shifted = K + ridge * np.eye(12)
    flow = np.eye(12) - (0 if math.isinf(t) else scipy.linalg.expm(-t * shifted))
    np.testing.assert_allclose(matrix, np.linalg.solve(shifted, flow), atol=1e-9)


@pytest.mark.parametrize("t", [0.7, math.inf])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_contributions_sum_to_the_prediction_and_are_projections(t, ridge):
    fitted = kr.fit(K, targets=Y, ridge=ridge)
    parts = kr.contributions(fitted.at(t), K_TEST)
    assert parts.shape == (7, 12, 3)
    np.testing.assert_allclose(parts.sum(axis=1), fitted.at(t).from_kernel(K_TEST), atol=1e-10)
    # Targets along one eigenvector leave one part.
    for i in (0, 5):
        along = fitted.eigenvectors[:, [i]] @ fitted.eigenvectors[:, [i]].T @ Y
        alone = kr.fit(K, targets=along, ridge=ridge).at(t).from_kernel(K_TEST)
        np.testing.assert_allclose(parts[:, i], alone, atol=1e-9)
    np.testing.assert_array_equal(kr.contributions(fitted.at(t), K_TEST, modes=4), parts[:, :4])
    some = kr.contributions(fitted.at(t), K_TEST, modes=[7, 2])
    np.testing.assert_allclose(some, parts[:, [7, 2]], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_condition_number_at_a_time_is_the_largest_gain(ridge):
    fitted, shifted = kr.fit(K, targets=Y, ridge=ridge), K + ridge * np.eye(12)
    for t in (1e-4, 1.0, 100.0):
        flow = np.linalg.solve(shifted, np.eye(12) - scipy.linalg.expm(-t * shifted))
        expected = np.linalg.norm(shifted, 2) * np.linalg.norm(flow, 2)
        np.testing.assert_allclose(kr.condition_number(fitted.at(t)), expected, rtol=1e-7)
    assert kr.condition_number(fitted.at(1e6)) == pytest.approx(kr.condition_number(fitted))
    times = [kr.condition_number(fitted.at(t)) for t in (0.0, 0.1, 1.0, 10.0, math.inf)]
    assert times[0] == 0
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 5.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cholesky_is_infinite_time(ridge, dtype):
    kernel = K.astype(dtype)
    before, expected = kernel.copy(), kr.fit(kernel, targets=Y, ridge=ridge).coefficients
    np.testing.assert_allclose(
        kr.fit(kernel, targets=Y, ridge=ridge, solver="cholesky").coefficients, expected, rtol=1e-8
    )
    np.testing.assert_array_equal(kernel, before)


@pytest.mark.parametrize(
    ("platform", "free", "where"),
    [("gpu", 48 * 144 + 1, "device"), ("gpu", 48 * 144, "host"), ("tpu", 10**9, "host")],
)
def test_an_accelerator_with_room_decomposes(monkeypatch, platform, free, where):
    device = SimpleNamespace(platform=platform, memory_stats=lambda: {"bytes_limit": free, "bytes_in_use": 0})
    seen, expected = [], kr.fit(K, targets=Y, ridge=0.1)
    monkeypatch.setattr(eigenpairs, "local_devices", lambda: (device,))
    on_device, by_lapack = eigenpairs.on_device, scipy.linalg.eigh
    monkeypatch.setattr(eigenpairs, "on_device", lambda a: seen.append("device") or on_device(a))
    monkeypatch.setattr(scipy.linalg, "eigh", lambda a, **how: seen.append("host") or by_lapack(a, **how))
    found = kr.fit(K, targets=Y, ridge=0.1)
    assert seen == [where]
    assert found.eigenvalues.dtype == np.float64
    np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.coefficients, np.linalg.solve(K + 0.1 * np.eye(12), Y), rtol=1e-9)


def test_cholesky_says_when_digits_are_lost():
    twice, targets = np.concatenate([X, X[:1]]), np.concatenate([Y, Y[:1] + 1])
    kernel = rbf(twice, twice)
    kernel[-1, -1] += 1e-9
    with pytest.warns(kr.PrecisionWarning, match="predictions lose digits"):
        kr.fit(kernel, targets=targets, solver="cholesky")
    # Singular to float64 although the targets do not show it.
    with pytest.warns(kr.PrecisionWarning, match="predictions lose digits"):
        kr.fit(np.diag([1.0, 1e-17]), targets=np.array([[1.0], [0.0]]), solver="cholesky")
    # A kernel that is known to be exact has nothing to lose.
    alpha = kr.fit(kernel, targets=targets, resolution=1e-12, solver="cholesky").coefficients
    np.testing.assert_allclose(kernel @ alpha, targets, atol=1e-5)
    kr.fit(kernel, targets=targets, ridge=1e-3, solver="cholesky")


def test_the_checks_read_every_block(monkeypatch):
    monkeypatch.setattr("companion.regression._checks._BLOCK", 5)
    np.testing.assert_allclose(
        kr.fit(K, targets=Y, solver="cholesky").coefficients, np.linalg.solve(K, Y), rtol=1e-8
    )
    for i, j in ((0, 11), (11, 0), (7, 6), (3, 3)):
        broken = K.copy()
        broken[i, j] = np.nan
        with pytest.raises(ValueError, match="k_train_train has 1 NaN or infinite entries of 144"):
            kr.fit(broken, targets=Y)
        if i != j:
            broken[i, j] = 0.5 + K[i, j]
            with pytest.raises(ValueError, match=r"entries differ from their mirror by 0\.5"):
                kr.fit(broken, targets=Y)


@pytest.mark.parametrize("block", [1, 5, 11, 12])
def test_blocks_do_not_change_the_solution(monkeypatch, block):
    monkeypatch.setattr("companion.regression._factor.BLOCK", block)
    np.testing.assert_allclose(
        kr.fit(K, targets=Y, ridge=0.1, solver="cholesky").coefficients,
        np.linalg.solve(K + 0.1 * np.eye(12), Y),
        rtol=1e-9,
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory is read from /proc")
@pytest.mark.parametrize(("solver", "copies"), [("cholesky", 1.5), ("eigh", 3.0)])
def test_memory_is_what_the_docstring_says(solver, copies):
    # In a process of its own: the peak beyond the input, in copies of it, which are 32 MB. Cholesky has one
    # copy and blocks of n × 512, a quarter of a copy each at this n.
    n = 2000
    script = f"""
import re, numpy as np
from companion import regression
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
regression.fit(np.eye(200), targets=np.ones((200, 1)), solver="{solver}")
kernel = np.full(({n}, {n}), 1e-6)
np.fill_diagonal(kernel, 1.0 + np.arange({n}) / {n})
before = peak()
f = regression.fit(kernel, targets=np.ones(({n}, 1)), solver="{solver}")
print((peak() - before) / kernel.nbytes)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert copies - 0.5 < float(run.stdout) < copies + 0.8


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_agrees_with_neural_tangents_in_time(ridge):
    architecture = fc(2)
    k_train, k_test = gram(architecture, X), gram(architecture, Z, X)
    theirs = nt.predict.gradient_descent_mse(k_train, Y, diag_reg=ridge, diag_reg_absolute_scale=True)
    fitted = kr.fit(k_train, targets=Y, ridge=ridge)
    for t in (0.5, 20.0, math.inf):
        # Their loss is the mean over the n·k entries of Y, ours the sum: a factor n·k in time.
        time = None if math.isinf(t) else t * Y.size
        _, expected = theirs(time, np.zeros_like(Y), np.zeros((7, 3)), k_test)
        np.testing.assert_allclose(fitted.at(t).from_kernel(k_test), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_agrees_with_neural_tangents_at_the_end(ridge):
    grams = {kind: (gram(fc(2), X, kind=kind), gram(fc(2), Z, X, kind=kind)) for kind in ("ntk", "nngp")}
    kernels = namedtuple("Kernels", ["ntk", "nngp"])
    inference = nt.predict.gp_inference(
        kernels(*(grams[kind][0] for kind in kernels._fields)), Y, ridge, diag_reg_absolute_scale=True
    )
    theirs = inference(("ntk", "nngp"), kernels(*(grams[kind][1] for kind in kernels._fields)))
    for kind in kernels._fields:
        k_train, k_test = grams[kind]
        expected = getattr(theirs, kind)
        np.testing.assert_allclose(
            kr.fit(k_train, targets=Y, ridge=ridge).from_kernel(k_test), expected, rtol=1e-9
        )
        np.testing.assert_allclose(
            k_test @ kr.fit(k_train, targets=Y, ridge=ridge, solver="cholesky").coefficients,
            expected,
            rtol=1e-9,
        )


def test_a_duplicated_point_counts_as_the_pseudo_inverse_says():
    twice = np.concatenate([X, X[:1]])
    targets = np.concatenate([Y, Y[:1]])
    fitted = kr.fit(rbf(twice, twice), targets=targets)
    # No warning: the direction that is lost, a difference of the two, has no targets.
    np.testing.assert_allclose(fitted.from_kernel(rbf(Z, twice)), K_TEST @ np.linalg.solve(K, Y), rtol=1e-6)
    targets[-1] += 1
    with pytest.warns(kr.PrecisionWarning, match="predictions lose digits"):
        kr.fit(rbf(twice, twice), targets=targets).from_kernel(rbf(Z, twice))


@pytest.mark.parametrize("seed", range(5))
def test_a_kernel_of_low_rank_gives_the_pseudo_inverse(seed):
    # Five points on a plane: three eigenvalues are rounding, of either sign.
    factor, targets = (
        np.random.default_rng(seed).random((5, 2)),
        np.random.default_rng(seed + 9).random((5, 1)),
    )
    fitted = kr.fit(factor @ factor.T, targets=targets)
    with pytest.warns(kr.PrecisionWarning):
        alpha = fitted.coefficients
    np.testing.assert_allclose(alpha, np.linalg.pinv(factor @ factor.T) @ targets, rtol=1e-8)
    assert kr.condition_number(fitted) == math.inf


NT_LAYERS = stax.serial(
    *(layer for _ in range(2) for layer in (stax.Dense(1, 2**0.5, 0.1), stax.Relu())), stax.Dense(1, 1, 0.1)
)
NT = NT_LAYERS[2]


def test_the_warning_knows_what_float32_does_to_a_relu_kernel_of_the_library():
    # Two images that nearly agree: the float32 diagonal is off by more than the smallest eigenvalue.
    x = np.random.default_rng(3).uniform(size=(6, 40))
    x[1] = x[0] + 3e-5 * np.random.default_rng(4).normal(size=40)
    single, double = gram(NT, x.astype(np.float32)), gram(NT, x)
    targets = np.sign(np.arange(6) % 2 - 0.5)[:, None]
    assert np.abs(single - double).max() > np.linalg.eigvalsh(double)[0]
    fitted = kr.fit(single, targets=targets)
    assert fitted.resolution > np.abs(single - double).max() / 10
    with pytest.warns(kr.PrecisionWarning, match="predictions lose digits"):
        fitted.from_kernel(single)
    with pytest.warns(kr.PrecisionWarning, match="predictions lose digits"):
        kr.contributions(fitted, single)
    # Early, nothing is lost, and a ridge above the rounding helps.
    assert np.isfinite(fitted.at(1.0).from_kernel(single)).all()
    assert np.isfinite(fitted.with_ridge(0.1).coefficients).all()


def perturbed(n, size, seed=5):
    """A kernel that falls off slowly, and the same with independent symmetric errors of `size` ε."""
    x = np.random.default_rng(seed).normal(size=(n, 12))
    exact = np.exp(-np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1)) / 20)
    noise = np.random.default_rng(seed + 1).normal(size=(n, n))
    return exact, exact + size * np.finfo(np.float32).eps * (np.triu(noise) + np.triu(noise, 1).T)


# Early the leading direction alone is learned. It feels one entry of the error: the estimate is high.
@pytest.mark.parametrize(("t", "factor"), [(0.1, 100), (10.0, 10), (math.inf, 10)])
@pytest.mark.parametrize("ridge", [0.0, 0.05])
def test_the_estimated_error_is_that_of_a_perturbed_kernel(t, factor, ridge):
    exact, rounded = perturbed(150, 1.0)
    targets = np.random.default_rng(7).normal(size=(150, 2))
    resolution = 2 * np.finfo(np.float32).eps * np.linalg.norm(exact) / 150**0.5
    truth = kr.fit(exact, targets=targets, ridge=ridge).at(t).from_kernel(exact)
    fitted = kr.fit(rounded, targets=targets, ridge=ridge, resolution=resolution)
    error = np.linalg.norm(fitted.at(t).from_kernel(exact) - truth) / np.linalg.norm(truth)
    assert error < kr.rounding_error(fitted.at(t)) < factor * error


def test_at_infinite_time_the_first_order_error_is_e_alpha():
    exact, rounded = perturbed(40, 1.0)
    targets = np.random.default_rng(7).normal(size=(40, 1))
    fitted = kr.fit(rounded, targets=targets)
    moved = kr.fit(exact, targets=targets).from_kernel(exact) - fitted.from_kernel(exact)
    np.testing.assert_allclose(
        moved, (rounded - exact) @ fitted.coefficients, rtol=1e-6, atol=1e-6 * np.abs(moved).max()
    )


def test_the_estimate_of_kernels_told_to_be_exact_and_of_targets_out_of_reach():
    singular = np.diag([1.0, 0.0])
    assert kr.rounding_error(kr.fit(singular, targets=np.array([[1.0], [0.0]]), resolution=0.0)) == 0.0
    out_of_reach = kr.fit(singular, targets=np.array([[0.0], [1.0]]))
    assert kr.rounding_error(out_of_reach) == math.inf
    assert kr.rounding_error(out_of_reach.at(0.0)) == 0.0
    # A mode that cannot be told from zero is lost whole, no more.
    half = kr.fit(singular, targets=np.ones((2, 1)), resolution=1e-3)
    assert kr.rounding_error(half) == pytest.approx(1.0, rel=1e-6)


def test_the_estimate_bounds_float32_kernels_of_the_library_on_digits():
    digits = data.load("mnist5k", n_train=200, n_test=50)
    targets, kernel_fn = data.targets(digits.y_train), stax.serial(stax.Flatten(), NT_LAYERS)[2]
    sets = [(x.astype(np.float32), x.astype(np.float64)) for x in (digits.x_train, digits.x_test)]
    single, double = (kr.fit(gram(kernel_fn, x), targets=targets) for x in sets[0])
    for t in (0.1, 10.0, math.inf):
        f32 = single.at(t).from_kernel(gram(kernel_fn, sets[1][0], sets[0][0]))
        f64 = double.at(t).from_kernel(gram(kernel_fn, sets[1][1], sets[0][1]))
        error = np.linalg.norm(f32 - f64) / np.linalg.norm(f64)
        assert error < kr.rounding_error(single.at(t)) < 1e-2


@pytest.mark.usefixtures("as_users_run")
def test_integers_and_jax_scalars_are_numbers():
    fitted = kr.fit(np.array([[2, 0], [0, 1]]), targets=np.array([[1], [0]]), ridge=jnp.float32(0.5))
    np.testing.assert_allclose(fitted.at(np.array(np.inf)).from_kernel(np.eye(2)), [[0.4], [0.0]])


def test_spectrum_is_descending_and_rebuilds_the_kernel():
    fitted = kr.fit(K, targets=Y)
    assert (np.diff(fitted.eigenvalues) <= 0).all()
    rebuilt = (fitted.eigenvectors * fitted.eigenvalues) @ fitted.eigenvectors.T
    np.testing.assert_allclose(rebuilt, K, atol=1e-12)
    np.testing.assert_allclose(kr.condition_number(fitted), np.linalg.cond(K), rtol=1e-6)


def test_signs_of_eigenvectors_change_nothing():
    rng = np.random.default_rng(1)
    fitted = kr.fit(K, targets=Y)
    signs = np.sign(rng.normal(size=12))
    flipped = dataclasses.replace(
        fitted, eigenvectors=fitted.eigenvectors * signs, projections=fitted.projections * signs[:, None]
    )
    assert (signs < 0).any()
    np.testing.assert_array_equal(
        kr.contributions(flipped.at(2.0), K_TEST), kr.contributions(fitted.at(2.0), K_TEST)
    )
    np.testing.assert_allclose(
        flipped.at(2.0).from_kernel(K_TEST), fitted.at(2.0).from_kernel(K_TEST), atol=1e-12
    )
    np.testing.assert_array_equal(kr.target_energy(flipped), kr.target_energy(fitted))


def test_learned_fraction_and_energy_give_the_training_error():
    fitted = kr.fit(K, targets=Y)
    remaining = 1 - kr.learned_fraction(fitted.at(0.8))
    error = ((fitted.at(0.8).from_kernel(K) - Y) ** 2).sum() / (Y**2).sum()
    np.testing.assert_allclose((kr.target_energy(fitted) * remaining**2).sum(), error, rtol=1e-10)
    assert kr.target_energy(fitted).sum() == pytest.approx(1)
    np.testing.assert_array_equal(kr.learned_fraction(fitted.at(math.inf)), np.ones(12))


def test_a_singular_kernel_has_infinite_condition_number():
    fitted = kr.fit(np.diag([1.0, 0.0]), targets=np.ones((2, 1)))
    assert kr.condition_number(fitted) == math.inf
    np.testing.assert_array_equal(kr.learned_fraction(fitted.at(math.inf)), [1.0, 0.0])


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    assert_refused(
        [
            (lambda: kr.fit(K[:, :3], targets=Y), r"must be square \(n, n\), got shape \(12, 3\)"),
            (lambda: kr.fit(K, targets=Y[:3]), r"targets must have shape \(12, k\), got \(3, 3\)"),
            (
                lambda: kr.fit(fc(1), X, Y, k_train_train=np.eye(9)),
                r"k_train_train must have shape \(12, 12\), got \(9, 9\)",
            ),
            (lambda: kr.fit(K * np.nan, targets=Y), "k_train_train has 144 NaN"),
            (lambda: kr.fit(K, targets=Y * np.inf), "targets has 36 NaN or infinite"),
            (
                lambda: kr.fit(K + np.triu(K, 1), targets=Y),
                r"k_train_train must be symmetric, .* by [0-9.]+$",
            ),
            (
                lambda: kr.fit(K + 1e-7 * np.triu(K, 1), targets=Y),
                r"mirror by .*, as float32 rounds: \(k \+ k\.T\) / 2 is",
            ),
            (lambda: kr.fit(K, targets=Y, ridge=-1.0), "ridge must be at least 0"),
            (
                lambda: kr.fit(K, targets=Y).from_kernel(K_TEST[:, :5]),
                r"k_test_train must have shape \(m, 12\)",
            ),
            (lambda: kr.fit(K, targets=Y).at(-1.0).from_kernel(K_TEST), "t must be at least 0"),
            (lambda: kr.fit(K, targets=Y).at(math.nan).from_kernel(K_TEST), "t must be at least 0"),
            (lambda: kr.target_energy(kr.fit(K, targets=0 * Y)), "targets are all zero"),
            (lambda: kr.fit(-K, targets=Y), "k_train_train must be positive semi-definite"),
            (
                lambda: kr.fit(np.diag([1.0, -5.0]), targets=Y[:2]),
                "positive semi-definite, its smallest eigenvalue is -5",
            ),
            (lambda: kr.fit(K, targets=Y, ridge=math.inf), "ridge must be finite"),
            (lambda: kr.fit(K + 0j, targets=Y), "k_train_train must be float32 or float64, got complex128"),
            (lambda: kr.contributions(K, K_TEST), "f must come from regression.fit, got ndarray"),
            (lambda: kr.rounding_error(K), "f must come from regression.fit, got ndarray"),
            (lambda: kr.fit(K, targets=Y, solver="lu"), "solver must be 'eigh' or 'cholesky', got 'lu'"),
            (lambda: kr.fit(K), "targets must be given"),
            (lambda: kr.fit(fc(1), targets=Y), "x must be given beside a kernel"),
            (lambda: kr.fit(K, X, Y), "kernel must be an Architecture or a function"),
            (lambda: kr.fit(fc(1), X, Y, k_train_train=K[:5, :5]), "targets must have shape|k_train_train"),
            (lambda: kr.fit(fc(1), X, Y, kind="tk"), "kind must be 'ntk' or 'nngp', got 'tk'"),
            (lambda: kr.fit(fc(1), X, Y, batch_size=0), "batch_size must be at least 1, got 0"),
            (lambda: kr.fit(K, targets=Y)(X), "this fit is of a matrix alone and knows no inputs"),
            (lambda: kr.fit(K, targets=Y, solver="cholesky").at(1.0), "f has coefficients and no spectrum"),
            (lambda: kr.fit(K, targets=Y, solver="cholesky").with_ridge(1.0), "f has coefficients and no"),
            (lambda: kr.fit(K, targets=Y).with_ridge(-1.0), "ridge must be at least 0"),
            (lambda: kr.fit(K, targets=Y, resolution=-1.0), "resolution must be at least 0"),
            (lambda: kr.fit(-K, targets=Y, ridge=100.0), "k_train_train must be positive semi-definite"),
            (
                lambda: kr.fit(-K, targets=Y, solver="cholesky").coefficients,
                "not positive definite in float64 .* add a ridge",
            ),
            (
                lambda: kr.fit(K, targets=Y, ridge=-1, solver="cholesky").coefficients,
                "ridge must be at least 0",
            ),
            (
                lambda: kr.fit(K + np.triu(K, 1), targets=Y, solver="cholesky").coefficients,
                "k_train_train must be symmetric",
            ),
            (
                lambda: kr.contributions(kr.fit(K, targets=Y), K_TEST, modes=13),
                "modes must be at most 12, got 13",
            ),
            (lambda: kr.contributions(kr.fit(K, targets=Y), K_TEST, modes=0), "modes must be at least 1"),
            (
                lambda: kr.contributions(kr.fit(K, targets=Y), K_TEST, modes=[3, 12]),
                "modes must lie in 0 to 11, got 12",
            ),
            (
                lambda: kr.contributions(kr.fit(K, targets=Y), K_TEST, modes=[-1]),
                "modes must lie in 0 to 11, got -1",
            ),
            (
                lambda: kr.contributions(kr.fit(K, targets=Y), K_TEST, modes=[0.5]),
                "modes must be an integer or a seq",
            ),
            (
                lambda: kr.contributions(kr.fit(K, targets=Y), K_TEST[:, :5]),
                r"k_test_train must have shape \(m, 12\)",
            ),
            (lambda: kr.condition_number(kr.fit(K, targets=Y).at(-1.0)), "t must be at least 0"),
            (lambda: kr.coefficient_matrix(K), "f must come from regression.fit"),
        ]
    )
