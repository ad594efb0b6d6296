"""The predictor as a function of its inputs: equal to kernel regression, and its gradients to differences."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from refusals import assert_refused

from companion import data
from companion import regression as kr
from companion._core.compile import immutable
from companion.architectures import conv, fc
from companion.kernels import gram
from companion.neural_tangents import stax
from companion.regression import input_gradient, predictor

rng = np.random.default_rng(0)
X, Z = rng.uniform(size=(11, 4, 4, 1)), rng.uniform(size=(5, 4, 4, 1))
Y, WEIGHTS = rng.normal(size=(11, 3)), rng.normal(size=(5, 3))
FOREIGN = stax.serial(stax.Flatten(), stax.Dense(1), stax.Erf(), stax.Dense(1))[2]
KERNELS = {"fc": fc(2), "conv": conv(1), "pooled": conv(1, pool=True), "foreign": FOREIGN}
each_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())


def linear(a, b, get):
    return a @ b.T


@each_kernel
@pytest.mark.parametrize("batch", [1, 4, pytest.param(11, marks=pytest.mark.matrix), 100, None])
@pytest.mark.usefixtures("x64")
def test_it_is_kernel_regression_whatever_the_blocks(kernel, batch):
    alpha = kr.coefficients(kr.fit(gram(kernel, X), Y), t=3.0)
    expected = kr.predict(kr.fit(gram(kernel, X), Y), gram(kernel, Z, X), t=3.0)
    f = predictor(kernel, X, alpha, batch=batch)
    np.testing.assert_allclose(f(Z), expected, rtol=1e-8, atol=1e-10)
    assert f(Z).dtype == jnp.float64


@pytest.mark.usefixtures("x64")
def test_the_covariance_at_initialization_has_its_own_predictor():
    k_train, k_test = gram(fc(2), X, kind="nngp"), gram(fc(2), Z, X, kind="nngp")
    expected = kr.predict(kr.fit(k_train, Y, ridge=0.1), k_test)
    f = predictor(fc(2), X, kr.solve(k_train, Y, ridge=0.1), kind="nngp", batch=3)
    np.testing.assert_allclose(f(Z), expected, rtol=1e-9)


@each_kernel
@pytest.mark.usefixtures("x64")
def test_gradients_are_central_differences(kernel):
    f = predictor(kernel, X, kr.coefficients(kr.fit(gram(kernel, X), Y), t=3.0), batch=4)
    expected = oracles.central_difference(lambda z: float((f(z) * WEIGHTS).sum()), Z, 1e-5)
    gradient = input_gradient(f, Z, WEIGHTS)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8 * np.abs(expected).max())
    every = input_gradient(f, Z)
    assert every.shape == (5, 3, 4, 4, 1)
    np.testing.assert_allclose(np.einsum("mk,mk...->m...", WEIGHTS, every), gradient, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_gradients_are_those_of_solving_again():
    # The differences go through the eigendecomposition and the Gram matrix every time.
    def solved_again(z):
        fitted = kr.fit(gram(fc(2), X), Y, ridge=0.05)
        return float((kr.predict(fitted, gram(fc(2), z, X)) * WEIGHTS[:1]).sum())

    f = predictor(fc(2), X, kr.solve(gram(fc(2), X), Y, ridge=0.05))
    expected = oracles.central_difference(solved_again, Z[:1], 1e-5)
    np.testing.assert_allclose(
        input_gradient(f, Z[:1], WEIGHTS[:1]), expected, rtol=1e-5, atol=1e-8 * np.abs(expected).max()
    )


@pytest.mark.usefixtures("x64")
def test_a_loss_can_be_differentiated_and_climbed_inside_jit():
    f = predictor(fc(2), X, kr.coefficients(kr.fit(gram(fc(2), X), Y)), batch=4)

    def loss(f, z):
        return 0.5 * jnp.sum((f(z) - WEIGHTS) ** 2)

    gradient = jax.grad(loss, argnums=1)(f, Z)
    np.testing.assert_allclose(gradient, input_gradient(f, Z, f(Z) - WEIGHTS), rtol=1e-10)

    @jax.jit
    def climb(f, z):
        return jax.lax.fori_loop(0, 5, lambda _, z: z + 0.01 * jnp.sign(jax.grad(loss, argnums=1)(f, z)), z)

    assert loss(f, climb(f, Z)) > loss(f, Z)
    # Closing over f gives the same numbers; so does a gradient taken by input_gradient inside jit.
    np.testing.assert_allclose(jax.jit(lambda z: f(z))(Z), f(Z), rtol=1e-12)
    np.testing.assert_allclose(
        jax.jit(lambda f, z: input_gradient(f, z))(f, Z), input_gradient(f, Z), rtol=1e-10
    )


@each_kernel
def test_float32_agrees_with_float64_to_its_precision(kernel):
    # gram computes float64 inputs in float64, the predictor here in float32.
    fitted = kr.fit(gram(kernel, X), Y, ridge=1e-2)
    expected = kr.predict(fitted, gram(kernel, Z, X))
    f = predictor(kernel, X.astype(np.float32), kr.coefficients(fitted))
    assert f(Z.astype(np.float32)).dtype == jnp.float32
    size = np.linalg.norm(gram(kernel, Z, X), 2) * np.linalg.norm(kr.coefficients(fitted), 2)
    np.testing.assert_allclose(f(Z.astype(np.float32)), expected, atol=3e-6 * size)


def test_the_predictor_of_digits_classifies_as_kernel_regression_does():
    digits = data.load("mnist5k", n_train=300, n_test=60)
    x, z = digits.x_train, digits.x_test
    fitted = kr.fit(gram(fc(1), x), data.targets(digits.y_train))
    expected = kr.predict(fitted, gram(fc(1), z, x), t=100.0)
    f = predictor(fc(1), x, kr.coefficients(fitted, t=100.0), batch=128)
    np.testing.assert_allclose(f(z), expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(np.argmax(f(z), 1), expected.argmax(1))


def test_gradients_are_finite_at_the_training_points_and_at_zero():
    f = predictor(fc(2), X.astype(np.float32), Y, batch=4)
    inputs = np.concatenate([X, np.zeros_like(X[:1]), -X[:1]]).astype(np.float32)
    assert np.isfinite(input_gradient(f, inputs)).all()
    assert np.isfinite(input_gradient(f, inputs, np.ones((13, 3), np.float32))).all()


def test_predictors_of_one_kernel_share_their_compiled_code():
    traces = []

    @immutable
    def kernel(a, b, get):
        traces.append(a.shape)
        return a @ b.T

    x, z = X.reshape(11, 16).astype(np.float32), Z.reshape(5, 16).astype(np.float32)
    first, second = predictor(kernel, x, Y), predictor(kernel, 2 * x, -Y)
    once = [np.asarray(call(first)) for call in (lambda f: f(z), lambda f: input_gradient(f, z))]
    count = len(traces)
    twice = [np.asarray(call(second)) for call in (lambda f: f(z), lambda f: input_gradient(f, z))]
    assert len(traces) == count
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_allclose(b, -2 * a, rtol=1e-5)


@pytest.mark.parametrize("gradient", [False, True])
def test_memory_grows_by_one_number_for_an_entry_with_a_gradient_and_else_not(gradient):
    def temporary(n):
        f = predictor(fc(2), np.ones((n, 3), np.float32), np.ones((n, 2)), batch=100)
        z = np.ones((50, 3), np.float32)
        call = (
            jax.jit(lambda f, z: input_gradient(f, z, jnp.ones((50, 2))))
            if gradient
            else jax.jit(lambda f, z: f(z))
        )
        return call.lower(f, z).compile().memory_analysis().temp_size_in_bytes

    # The products of 50 inputs with 19,000 more are 3.8 MB; all else that were kept would be as much again.
    kept = gradient * 4 * 50 * 19_000
    assert kept <= temporary(20_000) - temporary(1_000) < kept + 1e6


def test_products_are_not_rounded_to_fewer_bits():
    f = predictor(linear, X.reshape(11, 16).astype(np.float32), Y, batch=4)
    z = jnp.ones((5, 16), jnp.float32)
    for call in (lambda f, z: f(z), lambda f, z: input_gradient(f, z)):
        text = jax.jit(call).lower(f, z).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        assert products
        assert all("HIGHEST" in line for line in products)


SINGLE = X.astype(np.float32)


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    assert_refused(
        [
            (lambda: predictor(3, SINGLE, Y), "kernel must be an Architecture or a function"),
            (lambda: predictor(fc(1), SINGLE, Y, kind="cntk"), "kind must be 'ntk' or 'nngp', got 'cntk'"),
            (lambda: predictor(fc(1), X, Y), "x_train is float64, and JAX computes in float32"),
            (lambda: predictor(fc(1), SINGLE * np.nan, Y), "x_train has 176 NaN"),
            (
                lambda: predictor(fc(1), SINGLE, Y[:3]),
                r"coefficients must have shape \(11, k\), got \(3, 3\)",
            ),
            (
                lambda: predictor(fc(1), SINGLE, Y[:, 0]),
                r"coefficients must have shape \(11, k\), got \(11,\)",
            ),
            (lambda: predictor(fc(1), SINGLE, Y * np.inf), "coefficients has 33 NaN or infinite"),
            (lambda: predictor(fc(1), SINGLE, Y > 0), "coefficients must be float32 or float64, got bool"),
            (lambda: predictor(fc(1), SINGLE, Y, batch=0), "batch must be at least 1"),
            (
                lambda: predictor(fc(1), SINGLE, Y)(SINGLE[:, :2]),
                r"x and x_train must hold inputs of one shape",
            ),
            (lambda: input_gradient(len, SINGLE), "f must come from regression.predictor"),
            (
                lambda: input_gradient(predictor(fc(1), SINGLE, Y), SINGLE, Y[:2]),
                r"weights must have shape \(11, 3\), got \(2, 3\)",
            ),
        ]
    )


def test_gradients_of_all_outputs_compile_at_any_size():
    """At 64 × 64 × 64 XLA's compiler ended Python where the derivative broadcast without products."""
    rng = np.random.default_rng(0)
    x, z = rng.uniform(size=(2, 64, 64)).astype(np.float32)
    f = predictor(fc(1), x, np.ones((64, 1), np.float32))
    one = input_gradient(f, z, np.ones((64, 1), np.float32))
    np.testing.assert_allclose(input_gradient(f, z)[:, 0], one, rtol=1e-4, atol=1e-5)
