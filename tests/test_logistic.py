"""The logistic flow: gradient descent on parameters by autodiff, the dual of its authors, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from refusals import assert_refused

from companion.architectures import fc
from companion.regression import fit, fit_logistic, from_coefficients

rng = np.random.default_rng(0)
N = 8
FEATURES = rng.normal(size=(N, 12))
THETA = FEATURES @ FEATURES.T / 3
Y = np.where(rng.random((N, 2)) < 0.5, 1.0, -1.0)


@pytest.mark.parametrize(("decay", "decoupling"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
@pytest.mark.usefixtures("x64")
def test_the_flow_is_gradient_descent_on_a_linear_networks_parameters(decay, decoupling):
    features, y = jnp.asarray(FEATURES / 3**0.5), jnp.asarray(Y[:, 0])

    def loss(w):
        f = features @ w
        fits = jnp.logaddexp(0, -y * f).sum() + decoupling / 2 * f @ f
        return fits + decay / 2 * w @ w

    slope, size, steps = jax.jit(jax.grad(loss)), 1 / 4000, 8000

    def step(w, _):
        middle = w - size / 2 * slope(w)
        return w - size * slope(middle), None

    half, _ = jax.lax.scan(step, jnp.zeros(12), None, length=steps // 4)
    whole, _ = jax.lax.scan(step, half, None, length=3 * steps // 4)
    found = fit_logistic(THETA, targets=Y, times=[0.0, 0.5, 2.0], decay=decay, decoupling=decoupling)
    assert not found[0].coefficients.any()
    for w, f in zip((half, whole), found[1:], strict=True):
        np.testing.assert_allclose(THETA @ f.coefficients[:, 0], features @ w, atol=3e-6)


@pytest.mark.parametrize("c", [0.1, 1.0, 100.0])
def test_the_end_with_decay_is_the_fixed_point_of_the_authors_dual(c):
    # −log(a / (1 − a)) = C K a, K = Y Θ Y, a = y α / C.
    f = fit_logistic(THETA, targets=Y[:, :1], times=[np.inf], decay=1 / c)[0]
    a = (Y[:, :1] * f.coefficients)[:, 0] / c
    kernel = Y[:, :1] * THETA * Y[:, 0]
    np.testing.assert_allclose(-scipy.special.logit(a), c * kernel @ a, rtol=1e-7)


def test_the_flow_arrives_at_the_end():
    options = {"decay": 0.3, "decoupling": 0.2, "targets": Y}
    late, end = fit_logistic(THETA, times=[1e4, np.inf], **options)
    np.testing.assert_allclose(late.coefficients, end.coefficients, atol=1e-6)
    assert (late.t, end.t) == (1e4, np.inf)


def test_decoupling_ends_in_kernel_regression():
    f = fit_logistic(THETA, targets=Y, times=[1e7, np.inf], decoupling=0.1)
    outputs = THETA @ f[1].coefficients
    level = outputs[0, 0] * Y[0, 0]
    np.testing.assert_allclose(outputs, level * Y, rtol=1e-9)
    assert scipy.special.expit(-level) == pytest.approx(0.1 * level)
    np.testing.assert_allclose(f[1].coefficients, level * fit(THETA, targets=Y).coefficients, rtol=1e-6)
    np.testing.assert_allclose(THETA @ f[0].coefficients, outputs, rtol=1e-3)


def test_at_first_it_is_the_squared_loss_at_half_the_time():
    f = fit_logistic(THETA, targets=Y, times=[1e-5])[0]
    np.testing.assert_allclose(f.coefficients, fit(THETA, targets=Y).at(0.5e-5).coefficients, rtol=1e-4)


def test_the_units_of_the_kernel_do_not_matter():
    one = fit_logistic(THETA, targets=Y, times=[1.0, np.inf], decay=0.3)
    other = fit_logistic(1e6 * THETA, targets=Y, times=[1e-6, np.inf], decay=0.3e6)
    for f, g in zip(one, other, strict=True):
        np.testing.assert_allclose(1e6 * g.coefficients, f.coefficients, rtol=1e-6)


def test_predictors_are_functions_of_inputs_without_a_spectrum():
    x = rng.uniform(size=(N, 3)).astype(np.float32)
    f = fit_logistic(fc(1), x, Y, times=[3.0])[0]
    same = from_coefficients(fc(1), x, f.coefficients)
    np.testing.assert_allclose(f(x[:2]), same(x[:2]), atol=1e-6)
    with pytest.raises(TypeError, match="no spectrum"):
        f.at(1.0)


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_refused():
    assert_refused(
        [
            (lambda: fit_logistic(THETA, targets=2 * Y, times=[1.0]), ValueError, "targets must be 1 or -1"),
            (lambda: fit_logistic(THETA, targets=Y, times=[1.0, 1.0]), ValueError, "times must be one"),
            (lambda: fit_logistic(THETA, targets=Y, times=[]), ValueError, "times must be one"),
            (lambda: fit_logistic(THETA, targets=Y, times=1.0), TypeError, "times must be a sequence"),
            (lambda: fit_logistic(THETA, targets=Y, times=[np.inf]), ValueError, "times must be finite"),
            (lambda: fit_logistic(THETA, targets=Y, times=[-1.0]), ValueError, r"times\[0\] must be"),
            (lambda: fit_logistic(THETA, targets=Y, times=[1.0], decay=-1), ValueError, "decay must be"),
            (lambda: fit_logistic(THETA, targets=None, times=[1.0]), TypeError, "targets must be given"),
        ]
    )
