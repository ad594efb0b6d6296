"""`solver=Cholesky(...)`: one array, in place, in float32 with float64 residuals; against dense float64."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from refusals import assert_refused

from companion.architectures import fc
from companion.kernels import gram
from companion.regression import Cholesky, PrecisionWarning, fit, plan
from companion.regression import _cholesky as ch
from companion.regression import _factor as fa
from companion.regression import _kept as kept
from companion.regression import _plan as planning

rng = np.random.default_rng(0)
X, Y = rng.uniform(size=(23, 7)), rng.normal(size=(23, 3))
K = np.exp(-((X[:, None] - X[None]) ** 2).sum(-1))
RIDGE = 0.02


@pytest.fixture(params=[(3, (4, 5)), (23, (23, 23))], ids=["tiny blocks", "one block"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(fa, "BLOCK", request.param[0])
    monkeypatch.setattr(fa, "PIECE", request.param[1])


def shifted(kernel, ridge=RIDGE):
    return kernel.astype(np.float64) + ridge * np.eye(len(kernel))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factor_and_matrix_share_an_array(dtype):
    kernel = K.astype(dtype)
    a, diagonal = kernel.copy(), shifted(kernel).diagonal()
    fa.factor(a, diagonal)
    np.testing.assert_array_equal(np.triu(a, 1), np.triu(kernel, 1))
    rtol = 1e-12 if dtype == np.float64 else 1e-4
    low = np.tril(a).astype(np.float64)
    np.testing.assert_allclose(low, np.linalg.cholesky(shifted(kernel)), rtol=rtol, atol=rtol)
    v = rng.normal(size=(23, 2))
    np.testing.assert_allclose(fa.product(a, diagonal, v), shifted(kernel) @ v, rtol=1e-12)
    np.testing.assert_allclose(fa.substitute(a, v), np.linalg.solve(low @ low.T, v), rtol=0.1 * rtol**0.5)
    fa.restore(a, kernel.diagonal())
    np.testing.assert_array_equal(a, kernel)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("overwrite", [False, True], ids=["kept", "overwritten"])
@pytest.mark.parametrize("precision", [None, "float32", "float64"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_solution_is_that_of_the_matrix_as_stored(dtype, precision, overwrite):
    kernel = np.asfortranarray(K.astype(dtype))
    if overwrite and precision not in (None, kernel.dtype.name):
        with pytest.raises(ValueError, match=f"contiguous array of {precision} that can be written"):
            fit(kernel, targets=Y, ridge=RIDGE, solver=Cholesky(precision, overwrite=True))
        return
    expected, before = np.linalg.solve(shifted(kernel), Y), kernel.copy()
    how = Cholesky(precision, tolerance=1e-12, overwrite=overwrite)
    f = fit(kernel, targets=Y, ridge=RIDGE, solver=how)
    np.testing.assert_allclose(f.coefficients, expected, rtol=1e-9)
    assert np.array_equal(kernel, before) == (not overwrite)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-8, 1e-12])
def test_the_residual_is_the_one_that_is_asked_for(tolerance):
    kernel = K.astype(np.float32)
    alpha = fit(kernel, targets=Y, ridge=RIDGE, solver=Cholesky(tolerance=tolerance)).coefficients
    left = np.linalg.norm(shifted(kernel) @ alpha - Y, axis=0) / np.linalg.norm(Y, axis=0)
    assert left.max() <= 1.01 * tolerance


def test_targets_of_any_size_and_of_zero_are_solved():
    kernel, targets = K.astype(np.float32), np.stack([1e-40 * Y[:, 0], 1e40 * Y[:, 1], 0 * Y[:, 2]], axis=1)
    alpha = fit(kernel, targets=targets, ridge=RIDGE, solver="cholesky").coefficients
    np.testing.assert_allclose(alpha, np.linalg.solve(shifted(kernel), targets), rtol=1e-7, atol=1e-300)


def twice():
    """Two equal inputs: singular without a ridge."""
    both = np.concatenate([K, K[:1]])
    return np.concatenate([both, both[:, :1]], axis=1).astype(np.float32)


def proposed(error):
    return float(re.search(r"ridge=(\S+) would do", str(error.value))[1])


def test_a_singular_kernel_is_refused_with_a_ridge_that_does():
    kernel, targets = twice(), np.ones((24, 1))
    before = kernel.copy()
    with pytest.raises(ValueError, match=r'or solver=Cholesky\(precision="float64"\), which') as error:
        fit(kernel, targets=targets, solver=Cholesky("float32", overwrite=True))
    np.testing.assert_array_equal(kernel, before)
    ridge = proposed(error)
    assert 0 < ridge < 1e-4
    alpha = fit(kernel, targets=targets, ridge=ridge, solver=Cholesky("float32")).coefficients
    np.testing.assert_allclose(shifted(before, ridge) @ alpha, targets, atol=1e-8)


def test_digits_that_are_lost_are_told_with_the_smallest_eigenvalue():
    kernel, targets = twice(), np.ones((24, 1))
    targets[-1] = -1
    with pytest.warns(PrecisionWarning, match=r"smallest eigenvalue plus ridge, 1(\.0)?e-05, for these"):
        fit(kernel, targets=targets, ridge=1e-5, solver=Cholesky("float32"))
    fit(kernel, targets=targets, ridge=1e-5, solver=Cholesky("float32"), resolution=1e-8)


def test_a_negative_eigenvalue_is_refused_in_both_precisions_and_nothing_is_lost():
    for dtype in (np.float32, np.float64):
        kernel = (K - 0.5 * np.eye(23)).astype(dtype)
        before = kernel.copy()
        with pytest.raises(ValueError, match="is not positive definite in float"):
            fit(kernel, targets=Y, solver=Cholesky(kernel.dtype.name, overwrite=True))
        np.testing.assert_array_equal(kernel, before)


def test_steps_that_end_too_soon_are_an_error_or_float64(monkeypatch):
    monkeypatch.setattr(ch, "_MOST_STEPS", 1)
    kernel = K.astype(np.float32)
    with pytest.raises(ValueError, match="too ill-conditioned for float32: 1 steps left a relative residual"):
        fit(kernel, targets=Y, ridge=1e-4, solver=Cholesky("float32"))
    alpha = fit(kernel, targets=Y, ridge=1e-4, solver="cholesky").coefficients
    np.testing.assert_allclose(alpha, np.linalg.solve(shifted(kernel, 1e-4), Y), rtol=1e-7)
    # Where float64 has no room it is an error, not a machine that stands still.
    full = psutil.virtual_memory()._replace(available=16 * 23**2 - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: full)
    with pytest.raises(ValueError, match=r"takes 4\.23 kB of memory, more than half of what is free"):
        fit(kernel, targets=Y, ridge=1e-4, solver="cholesky")


def test_conjugate_gradients_need_no_good_factor():
    matrix = shifted(K, 1.0)
    alpha, left, steps = ch.conjugate_gradients(lambda v: matrix @ v, lambda v: v, Y, 1e-10)
    np.testing.assert_allclose(alpha, np.linalg.solve(matrix, Y), rtol=1e-8)
    assert left <= 1e-10
    assert 3 < steps <= 23
    exact = np.linalg.inv(matrix)
    assert ch.conjugate_gradients(lambda v: matrix @ v, lambda v: exact @ v, Y, 1e-10)[2] == 1


def test_a_kernel_on_disk_stays_as_it_is(tmp_path):
    x = X.astype(np.float32)
    kernel = gram(fc(1), x, out=tmp_path)
    before = (tmp_path / "kernel.npy").read_bytes()
    f = fit(fc(1), x, Y, k_train_train=kernel, ridge=RIDGE, solver="cholesky")
    np.testing.assert_allclose(f.coefficients, np.linalg.solve(shifted(kernel), Y), rtol=1e-7)
    assert (tmp_path / "kernel.npy").read_bytes() == before
    with pytest.raises(ValueError, match="got float32, contiguous, read-only"):
        fit(kernel, targets=Y, solver=Cholesky(overwrite=True))


class Killed(Exception):
    """Stands for a signal."""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_fit_that_was_killed_goes_on_to_the_same_bytes(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(fa, "BLOCK", 4)
    monkeypatch.setattr(kept, "BLOCK", 4)
    kernel, made, real = K.astype(dtype), [], np.matmul

    def until(limit):
        def matmul(*args, out):
            made.append(out.shape)
            if len(made) == limit:
                raise Killed
            return real(*args, out=out)

        return matmul

    def fitted(folder):
        how = Cholesky(out=tmp_path / folder)
        return fit(kernel, targets=Y, ridge=RIDGE, solver=how).coefficients

    expected = fitted("undisturbed")
    np.testing.assert_allclose(expected, np.linalg.solve(shifted(kernel), Y), rtol=1e-8)
    for limit in (1, 2, 3):  # before the first block, and after so many more each time: 0 + 1 + 2 of 6
        made.clear()
        with monkeypatch.context() as patch:
            patch.setattr(np, "matmul", until(limit))
            with pytest.raises(Killed):
                fitted("killed")
    # What was half written is written again, whatever it was.
    half = np.load(tmp_path / "killed" / "kernel.npy", mmap_mode="r+")
    half[12:, 12:16] = np.where(np.tril(np.ones((11, 4)), -1) > 0, np.nan, half[12:, 12:16])
    half.flush()
    with monkeypatch.context() as patch:
        made.clear()
        patch.setattr(np, "matmul", until(100))
        np.testing.assert_array_equal(fitted("killed"), expected)
    assert len(made) == 3
    files = [(tmp_path / name / "kernel.npy").read_bytes() for name in ("undisturbed", "killed")]
    assert files[0] == files[1]
    # What is finished is only opened.
    with monkeypatch.context() as patch:
        patch.setattr(np, "matmul", until(1))
        made.clear()
        np.testing.assert_array_equal(fitted("killed"), expected)
    assert not made
    for other, field in ((kernel + np.eye(23, dtype=dtype), "k_train_train"), (kernel, "diagonal")):
        with pytest.raises(ValueError, match=f"holds another matrix: {field} was"):
            fit(other, targets=Y, ridge=0.1, solver=Cholesky(out=tmp_path / "killed"))


def test_a_kept_factor_that_does_not_do_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"float32.*: ridge=\S+ would do") as error:
        fit(twice(), targets=np.ones((24, 1)), solver=Cholesky(out=tmp_path))
    assert 0 < proposed(error) < 1e-4


def test_wrong_options_are_refused():
    assert_refused(
        [
            (lambda: Cholesky("float16"), "precision"),
            (lambda: Cholesky(tolerance=0.0), "tolerance must lie between 0 and 1, got 0"),
            (lambda: Cholesky(tolerance=1.0), "tolerance must lie between 0 and 1, got 1"),
            (lambda: Cholesky(out="here", overwrite=True), "overwrite must be False where `out` keeps the"),
        ]
    )


@pytest.mark.parametrize(
    ("solver", "held"), [("cholesky", 4), (Cholesky("float64"), 12), ("eigh", 28)], ids=["32", "64", "eigh"]
)
def test_a_plan_counts_bytes_and_operations(solver, held):
    n = 100_000
    found = plan(fc(1), np.broadcast_to(np.float32(1), (n, 2)), solver=solver, outputs=10)
    assert held * n**2 <= found.bytes < 1.04 * held * n**2
    assert found.gram.shape == (n, n)
    assert found.operations == pytest.approx(n**3 * (10 if solver == "eigh" else 1 / 3), rel=0.01)
    assert found.seconds is None
    assert f"{found.bytes / 1e9:.3g} GB at most in all" in str(found)


def test_a_timed_plan_has_seconds_of_both_steps(monkeypatch):
    monkeypatch.setattr(planning, "_SIDE", 64)
    for solver in ("cholesky", "eigh"):
        found = plan(fc(1), X.astype(np.float32), solver=solver, time=True)
        assert min(found.seconds) > 0
        assert re.search(r"operations, about \S+ (s|min); [\d.]+ [kM]B at most in all", str(found))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory is read from /proc")
def test_a_matrix_that_is_given_up_is_all_the_memory():
    # In a process of its own. The matrix has 64 MB.
    n = 4000
    script = f"""
import re, numpy as np
from companion import regression
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
how = regression.Cholesky(overwrite=True)
regression.fit(np.eye(200, dtype=np.float32), targets=np.ones((200, 1)), solver=how)
kernel = np.full(({n}, {n}), 1e-6, np.float32)
np.fill_diagonal(kernel, 1.0 + np.arange({n}) / {n})
before = peak()
f = regression.fit(kernel, targets=np.ones(({n}, 1)), solver=how)
print((peak() - before) / kernel.nbytes)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0 <= float(run.stdout) < 0.7
