"""Gradient descent on finite networks, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from companion import regression
from companion.architectures import fc
from companion.kernels import gram
from companion.training import gradient_descent

rng = np.random.default_rng(0)
X, Z, Y = rng.normal(size=(6, 4)), rng.normal(size=(3, 4)), rng.normal(size=(6, 2))


def linear(w, x):
    return x @ w


@pytest.mark.usefixtures("x64")
def test_a_linear_model_follows_the_discrete_closed_form():
    # w_s = Σ_{i<s} η (I − η XᵀX)ⁱ XᵀY for a linear model started at zero.
    rate, record = 0.02, [0, 1, 7, 40]
    outputs = gradient_descent(
        linear, jnp.zeros((4, 2)), X, Y, Z, learning_rate=rate, record=record, centre=False
    )
    for s, output in zip(record, outputs, strict=True):
        w = sum((np.linalg.matrix_power(np.eye(4) - rate * X.T @ X, i) for i in range(s)), np.zeros((4, 4)))
        np.testing.assert_allclose(output, Z @ (rate * w @ X.T @ Y), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_centring_starts_at_zero_and_forgets_the_initial_function():
    start = jnp.asarray(rng.normal(size=(4, 2)))
    options = {"learning_rate": 0.02, "record": [0, 5]}
    from_zero = gradient_descent(linear, 0 * start, X, Y, Z, **options)
    np.testing.assert_allclose(gradient_descent(linear, start, X, Y, Z, **options), from_zero, atol=1e-12)
    assert not from_zero[0].any()


@pytest.mark.usefixtures("x64")
def test_a_small_rate_follows_the_gradient_flow():
    # Six points in four dimensions: two directions are never learned.
    fitted = regression.fit(X @ X.T, Y)
    flow = regression.predict(fitted, Z @ X.T, t=0.5)
    errors = [
        np.abs(
            gradient_descent(linear, jnp.zeros((4, 2)), X, Y, Z, learning_rate=0.5 / s, record=[s])[0] - flow
        ).max()
        for s in (100, 200)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)  # first order in the rate


def test_a_wide_network_trains_like_its_kernel():
    x, z = X.astype(np.float32), Z.astype(np.float32)
    y = Y[:, :1].astype(np.float32)
    deviations = []
    for width in (64, 4096):
        net = fc(1, width=width)
        fitted = regression.fit(gram(net, x), y)
        rate = 0.2 / float(fitted.eigenvalues[0])
        expected = regression.predict(fitted, gram(net, z, x), t=200 * rate)
        runs = [
            gradient_descent(
                net.apply, net.init(jax.random.key(s), x.shape), x, y, z, learning_rate=rate, record=[200]
            )
            for s in range(3)
        ]
        deviations.append(np.mean([np.abs(run[0] - expected).mean() for run in runs]))
    assert deviations[1] < deviations[0] / 3


def test_repeats_bit_for_bit_in_a_fresh_compilation():
    net = fc(1, width=16)
    params = net.init(jax.random.key(0), X.shape)
    runs = []
    for _ in range(2):
        jax.clear_caches()
        runs.append(gradient_descent(net.apply, params, X, Y[:, :1], Z, learning_rate=0.01, record=[3, 9]))
    np.testing.assert_array_equal(*runs)


@pytest.mark.usefixtures("as_users_run")
def test_precision_is_the_parameters():
    arguments = (X, Y, Z)
    options = {"learning_rate": jnp.float32(0.01), "record": np.array([1])}
    for dtype in (np.float32, np.float64):
        outputs = gradient_descent(linear, np.zeros((4, 2), dtype), *arguments, **options)
        assert outputs.dtype == dtype
    np.testing.assert_allclose(outputs[0], Z @ (float(jnp.float32(0.01)) * X.T @ Y), rtol=1e-14)


def test_divergence_is_an_error_with_its_cure():
    with pytest.raises(FloatingPointError, match=r"learning_rate=100: keep it below 2/λ_max"):
        gradient_descent(linear, jnp.zeros((4, 2)), X, Y, Z, learning_rate=100.0, record=[500])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be more than 0"),
        ({"record": []}, "record must hold increasing numbers of steps"),
        ({"record": [3, 3]}, "record must hold increasing numbers of steps"),
        ({"record": [-1, 3]}, "record must be at least 0, got -1"),
        ({"y": Y[:3]}, r"y must have the network's output shape \(6, 2\), got \(3, 2\)"),
        ({"x": X * np.nan}, "x has 24 NaN"),
        ({"x_probe": Z[:, :2]}, "x and x_probe must hold inputs of one shape"),
        ({"record": 5}, "record must be a sequence of integers, got 5"),
        ({"record": [1.5]}, "record must be a sequence of integers"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named(options, message):
    arguments = {"x": X, "y": Y, "x_probe": Z, "learning_rate": 0.1, "record": [1]} | options
    with pytest.raises((ValueError, TypeError), match=message):
        gradient_descent(linear, jnp.zeros((4, 2)), **arguments)
