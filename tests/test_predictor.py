"""The predictor as a function of its inputs: equal to kernel regression, and its gradients to differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.linalg
from refusals import assert_refused

from companion import attacks, data
from companion import regression as kr
from companion.architectures import conv, fc
from companion.kernels import gram, keep_compiled
from companion.neural_tangents import stax
from companion.regression import from_coefficients

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
    alpha = kr.fit(gram(kernel, X), targets=Y).at(3.0).coefficients
    expected = kr.fit(gram(kernel, X), targets=Y).at(3.0).from_kernel(gram(kernel, Z, X))
    f = from_coefficients(kernel, X, alpha, batch_size=batch)
    np.testing.assert_allclose(f(Z), expected, rtol=1e-8, atol=1e-10)
    assert f(Z).dtype == jnp.float64


@pytest.mark.usefixtures("x64")
def test_the_covariance_at_initialization_has_its_own_predictor():
    k_train, k_test = gram(fc(2), X, kind="nngp"), gram(fc(2), Z, X, kind="nngp")
    expected = kr.fit(k_train, targets=Y, ridge=0.1).from_kernel(k_test)
    f = from_coefficients(
        fc(2),
        X,
        kr.fit(k_train, targets=Y, ridge=0.1, solver="cholesky").coefficients,
        kind="nngp",
        batch_size=3,
    )
    np.testing.assert_allclose(f(Z), expected, rtol=1e-9)


@each_kernel
@pytest.mark.usefixtures("x64")
def test_gradients_are_central_differences(kernel):
    f = from_coefficients(kernel, X, kr.fit(gram(kernel, X), targets=Y).at(3.0).coefficients, batch_size=4)
    expected = oracles.central_difference(lambda z: float((f(z) * WEIGHTS).sum()), Z, 1e-5)
    gradient = f.gradient(Z, WEIGHTS)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8 * np.abs(expected).max())
    every = f.gradient(Z)
    assert every.shape == (5, 3, 4, 4, 1)
    np.testing.assert_allclose(np.einsum("mk,mk...->m...", WEIGHTS, every), gradient, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_gradients_are_those_of_solving_again():
    # The differences go through the eigendecomposition and the Gram matrix every time.
    def solved_again(z):
        fitted = kr.fit(gram(fc(2), X), targets=Y, ridge=0.05)
        return float((fitted.from_kernel(gram(fc(2), z, X)) * WEIGHTS[:1]).sum())

    f = from_coefficients(
        fc(2), X, kr.fit(gram(fc(2), X), targets=Y, ridge=0.05, solver="cholesky").coefficients
    )
    expected = oracles.central_difference(solved_again, Z[:1], 1e-5)
    np.testing.assert_allclose(
        f.gradient(Z[:1], WEIGHTS[:1]), expected, rtol=1e-5, atol=1e-8 * np.abs(expected).max()
    )


@pytest.mark.usefixtures("x64")
def test_a_loss_can_be_differentiated_and_climbed_inside_jit():
    f = from_coefficients(fc(2), X, kr.fit(gram(fc(2), X), targets=Y).coefficients, batch_size=4)

    def loss(f, z):
        return 0.5 * jnp.sum((f(z) - WEIGHTS) ** 2)

    gradient = jax.grad(loss, argnums=1)(f, Z)
    np.testing.assert_allclose(gradient, f.gradient(Z, f(Z) - WEIGHTS), rtol=1e-10)

    @jax.jit
    def climb(f, z):
        return jax.lax.fori_loop(0, 5, lambda _, z: z + 0.01 * jnp.sign(jax.grad(loss, argnums=1)(f, z)), z)

    assert loss(f, climb(f, Z)) > loss(f, Z)
    # Closing over f gives the same numbers; so does a gradient taken by input_gradient inside jit.
    np.testing.assert_allclose(jax.jit(lambda z: f(z))(Z), f(Z), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda f, z: f.gradient(z))(f, Z), f.gradient(Z), rtol=1e-10)


@each_kernel
def test_float32_agrees_with_float64_to_its_precision(kernel):
    # gram computes float64 inputs in float64, the predictor here in float32.
    fitted = kr.fit(gram(kernel, X), targets=Y, ridge=1e-2)
    expected = fitted.from_kernel(gram(kernel, Z, X))
    f = from_coefficients(kernel, X.astype(np.float32), fitted.coefficients)
    assert f(Z.astype(np.float32)).dtype == jnp.float32
    size = np.linalg.norm(gram(kernel, Z, X), 2) * np.linalg.norm(fitted.coefficients, 2)
    np.testing.assert_allclose(f(Z.astype(np.float32)), expected, atol=3e-6 * size)


def test_the_predictor_of_digits_classifies_as_kernel_regression_does():
    digits = data.load("mnist5k", n_train=300, n_test=60)
    x, z = digits.x_train, digits.x_test
    fitted = kr.fit(gram(fc(1), x), targets=data.targets(digits.y_train))
    expected = fitted.at(100.0).from_kernel(gram(fc(1), z, x))
    f = from_coefficients(fc(1), x, fitted.at(100.0).coefficients, batch_size=128)
    np.testing.assert_allclose(f(z), expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(np.argmax(f(z), 1), expected.argmax(1))


def test_gradients_are_finite_at_the_training_points_and_at_zero():
    f = from_coefficients(fc(2), X.astype(np.float32), Y, batch_size=4)
    inputs = np.concatenate([X, np.zeros_like(X[:1]), -X[:1]]).astype(np.float32)
    assert np.isfinite(f.gradient(inputs)).all()
    assert np.isfinite(f.gradient(inputs, np.ones((13, 3), np.float32))).all()


def test_predictors_of_one_kernel_share_their_compiled_code():
    traces = []

    @keep_compiled
    def kernel(a, b, get):
        traces.append(a.shape)
        return a @ b.T

    x, z = X.reshape(11, 16).astype(np.float32), Z.reshape(5, 16).astype(np.float32)
    first, second = from_coefficients(kernel, x, Y), from_coefficients(kernel, 2 * x, -Y)
    once = [np.asarray(call(first)) for call in (lambda f: f(z), lambda f: f.gradient(z))]
    count = len(traces)
    twice = [np.asarray(call(second)) for call in (lambda f: f(z), lambda f: f.gradient(z))]
    assert len(traces) == count
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_allclose(b, -2 * a, rtol=1e-5)


@pytest.mark.parametrize("gradient", [False, True])
def test_memory_grows_by_one_number_for_an_entry_with_a_gradient_and_else_not(gradient):
    def temporary(n):
        f = from_coefficients(fc(2), np.ones((n, 3), np.float32), np.ones((n, 2)), batch_size=100)
        z = np.ones((50, 3), np.float32)
        call = (
            jax.jit(lambda f, z: f.gradient(z, jnp.ones((50, 2)))) if gradient else jax.jit(lambda f, z: f(z))
        )
        return call.lower(f, z).compile().memory_analysis().temp_size_in_bytes

    # The products of 50 inputs with 19,000 more are 3.8 MB; all else that were kept would be as much again.
    kept = gradient * 4 * 50 * 19_000
    assert kept <= temporary(20_000) - temporary(1_000) < kept + 1e6


def test_products_are_not_rounded_to_fewer_bits():
    f = from_coefficients(linear, X.reshape(11, 16).astype(np.float32), Y, batch_size=4)
    z = jnp.ones((5, 16), jnp.float32)
    for call in (lambda f, z: f(z), lambda f, z: f.gradient(z)):
        text = jax.jit(call).lower(f, z).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        assert products
        assert all("HIGHEST" in line for line in products)


SINGLE = X.astype(np.float32)


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    assert_refused(
        [
            (lambda: from_coefficients(3, SINGLE, Y), "kernel must be an Architecture or a function"),
            (
                lambda: from_coefficients(fc(1), SINGLE, Y, kind="cntk"),
                "kind must be 'ntk' or 'nngp', got 'cntk'",
            ),
            (lambda: from_coefficients(fc(1), X, Y), "x_train is float64, and JAX computes in float32"),
            (lambda: from_coefficients(fc(1), SINGLE * np.nan, Y), "x_train has 176 NaN"),
            (
                lambda: from_coefficients(fc(1), SINGLE, Y[:3]),
                r"coefficients must have shape \(11, k\), got \(3, 3\)",
            ),
            (
                lambda: from_coefficients(fc(1), SINGLE, Y[:, 0]),
                r"coefficients must have shape \(11, k\), got \(11,\)",
            ),
            (lambda: from_coefficients(fc(1), SINGLE, Y * np.inf), "coefficients has 33 NaN or infinite"),
            (
                lambda: from_coefficients(fc(1), SINGLE, Y > 0),
                "coefficients must be float32 or float64, got bool",
            ),
            (lambda: from_coefficients(fc(1), SINGLE, Y, batch_size=0), "batch_size must be at least 1"),
            (
                lambda: from_coefficients(fc(1), SINGLE, Y)(SINGLE[:, :2]),
                r"x and x_train must hold inputs of one shape",
            ),
            (
                lambda: from_coefficients(fc(1), SINGLE, Y).gradient(SINGLE, Y[:2]),
                r"weights must have shape \(11, 3\), got \(2, 3\)",
            ),
        ]
    )


def test_gradients_of_all_outputs_compile_at_any_size():
    """At 64 × 64 × 64 XLA's compiler ended Python where the derivative broadcast without products."""
    rng = np.random.default_rng(0)
    x, z = rng.uniform(size=(2, 64, 64)).astype(np.float32)
    f = from_coefficients(fc(1), x, np.ones((64, 1), np.float32))
    one = f.gradient(z, np.ones((64, 1), np.float32))
    np.testing.assert_allclose(f.gradient(z)[:, 0], one, rtol=1e-4, atol=1e-5)


# One object


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("solver", ["eigh", "cholesky"])
def test_a_fit_of_a_kernel_is_kernel_regression_by_hand(kind, solver):
    train, cross = gram(fc(2), X, kind=kind), gram(fc(2), Z, X, kind=kind)
    f = kr.fit(fc(2), X, Y, ridge=0.3, solver=solver, kind=kind, batch_size=4)
    expected = cross @ np.linalg.solve(train + 0.3 * np.eye(len(X)), Y)
    np.testing.assert_allclose(f(Z), expected, rtol=1e-8)
    np.testing.assert_allclose(f.from_kernel(cross), expected, rtol=1e-8)
    again = kr.fit(fc(2), X, Y, ridge=0.3, solver=solver, kind=kind, k_train_train=train)
    np.testing.assert_allclose(again(Z), expected, rtol=1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("t", [0.0, 0.7, math.inf])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_times_and_ridges_share_the_decomposition_and_the_compiled_code(t, ridge):
    train, cross = gram(fc(2), X), gram(fc(2), Z, X)
    f = kr.fit(fc(2), X, Y)
    g = f.at(t).with_ridge(ridge)
    assert (g.t, g.ridge) == (t, ridge)
    assert g.eigenvectors is f.eigenvectors
    assert jax.tree.structure(g) == jax.tree.structure(f)
    assert jax.tree.leaves(f.at(t))[0] is jax.tree.leaves(f)[0]
    shifted = train + ridge * np.eye(len(X))
    flow = np.eye(len(X)) - (0 if math.isinf(t) else scipy.linalg.expm(-t * shifted))
    expected = cross @ np.linalg.solve(shifted, flow @ Y)
    np.testing.assert_allclose(g(Z), expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(f.with_ridge(ridge).at(t)(Z), g(Z), rtol=1e-12)


def test_many_times_are_traced_once_inside_jit():
    traced = []

    @jax.jit
    def outputs(f, x):
        traced.append(1)
        return f(x)

    x, y = X.astype(np.float32), Y.astype(np.float32)
    f = kr.fit(fc(1), x, y)
    for g in (f, f.at(1.0), f.with_ridge(0.1), kr.fit(fc(1), x, -y)):
        np.testing.assert_array_equal(outputs(g, x[:2]), g(x[:2]))
    assert len(traced) == 1


def test_inside_jax_it_is_a_function_alone():
    f = kr.fit(fc(1), X.astype(np.float32), Y)
    doubled = jax.tree.map(lambda part: part, f)
    np.testing.assert_array_equal(doubled(SINGLE[:3]), f(SINGLE[:3]))
    assert repr(doubled) == "KernelPredictor(inside JAX)"
    for ask in (lambda g: g.at(1.0), lambda g: g.coefficients, kr.condition_number):
        with pytest.raises(TypeError, match="f has coefficients and no spectrum"):
            ask(doubled)
    assert repr(f.at(3.0)) == "KernelPredictor(FC-1 relu, ntk, n=11, outputs=3, ridge=0, t=3)"


def test_attacks_take_it_as_it_is():
    x, labels = SINGLE % 1.0, np.arange(11) % 3
    f, threat = kr.fit(fc(1), x, Y).at(2.0), attacks.Threat("linf", 0.1)
    alone = attacks.pgd(lambda z: f(z), x, labels, threat, steps=3)
    np.testing.assert_array_equal(attacks.pgd(f, x, labels, threat, steps=3), alone)
    assert attacks.margin(f(alone), labels).mean() > attacks.margin(f(x), labels).mean()
