"""Gradient descent on finite networks, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import assert_refused

from companion import regression
from companion.architectures import fc
from companion.kernels import gram, keep_compiled
from companion.training import gradient_descent, train_to_residual

rng = np.random.default_rng(0)
X, Z, Y = rng.normal(size=(6, 4)), rng.normal(size=(3, 4)), rng.normal(size=(6, 2))


def linear(w, x):
    return x @ w


@pytest.mark.usefixtures("x64")
def test_a_linear_model_follows_the_discrete_closed_form():
    # w_s = Σ_{i<s} η (I − η XᵀX)ⁱ XᵀY for a linear model started at zero.
    rate, record = 0.02, [0, 1, 7, 40]
    outputs = gradient_descent(
        linear, jnp.zeros((4, 2)), X, Y, Z, learning_rate=rate, record=record, center=False
    )
    for s, output in zip(record, outputs, strict=True):
        w = sum((np.linalg.matrix_power(np.eye(4) - rate * X.T @ X, i) for i in range(s)), np.zeros((4, 4)))
        np.testing.assert_allclose(output, Z @ (rate * w @ X.T @ Y), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_centering_starts_at_zero_and_forgets_the_initial_function():
    rng = np.random.default_rng(1)
    start = jnp.asarray(rng.normal(size=(4, 2)))
    options = {"learning_rate": 0.02, "record": [0, 5]}
    from_zero = gradient_descent(linear, 0 * start, X, Y, Z, **options)
    np.testing.assert_allclose(gradient_descent(linear, start, X, Y, Z, **options), from_zero, atol=1e-12)
    assert not from_zero[0].any()


@pytest.mark.usefixtures("x64")
def test_a_small_rate_follows_the_gradient_flow():
    # Six points in four dimensions: two directions are never learned.
    fitted = regression.fit(X @ X.T, targets=Y)
    flow = fitted.at(0.5).from_kernel(Z @ X.T)
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
        fitted = regression.fit(gram(net, x), targets=y)
        rate = 0.2 / float(fitted.eigenvalues[0])
        expected = fitted.at(200 * rate).from_kernel(gram(net, z, x))
        runs = [
            gradient_descent(
                net.apply, net.init(jax.random.key(s), x), x, y, z, learning_rate=rate, record=[200]
            )
            for s in range(3)
        ]
        deviations.append(np.mean([np.abs(run[0] - expected).mean() for run in runs]))
    assert deviations[1] < deviations[0] / 3


def test_repeats_bit_for_bit_in_a_fresh_compilation():
    net = fc(1, width=16)
    params = net.init(jax.random.key(0), X)
    # A function that is not companion's own is compiled at every call.
    runs = [
        gradient_descent(
            lambda p, x: net.apply(p, x), params, X, Y[:, :1], Z, learning_rate=0.01, record=[3, 9]
        )
        for _ in range(2)
    ]
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


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    def run(options):
        arguments = {"x": X, "targets": Y, "x_probe": Z, "learning_rate": 0.1, "record": [1]} | options
        gradient_descent(linear, jnp.zeros((4, 2)), **arguments)

    assert_refused(
        [
            ({"learning_rate": 0.0}, "learning_rate must be more than 0"),
            ({"record": []}, "record must hold increasing numbers of steps"),
            ({"record": [3, 3]}, "record must hold increasing numbers of steps"),
            ({"record": [-1, 3]}, "record must be at least 0, got -1"),
            ({"targets": Y[:3]}, r"targets must have the network's output shape \(6, 2\), got \(3, 2\)"),
            ({"x": X * np.nan}, "x has 24 NaN"),
            ({"x_probe": Z[:, :2]}, "x and x_probe must hold inputs of one shape"),
            ({"record": 5}, "record must be a sequence of integers, got 5"),
            ({"record": [1.5]}, "record must be a sequence of integers"),
        ],
        run=run,
    )


def nesterov(x, y, w, rate, momentum, level, scale=1.0):
    """Steps and residual at which ½ ‖s X w − Y‖² has come down, written from the definition."""
    v, steps = np.zeros_like(w), 0
    while (residual := np.linalg.norm(scale * x @ w - y) / np.linalg.norm(y)) > level:
        gradient = scale * x.T @ (scale * x @ w - y)
        v = momentum * v - rate * gradient
        w, steps = w + momentum * v - rate * gradient, steps + 1
    return w, steps, residual


@pytest.mark.parametrize(("momentum", "scale"), [(0.0, 1.0), (0.9, 1.0), (0.5, 0.3)])
@pytest.mark.usefixtures("x64")
def test_training_to_a_residual_is_nesterovs_descent(momentum, scale):
    rng = np.random.default_rng(1)
    x, y, w = rng.normal(size=(8, 12)), rng.normal(size=(8, 2)), np.zeros((12, 2))
    rate = 0.5 / np.linalg.eigvalsh(x @ x.T).max() / scale**2
    found = train_to_residual(
        linear, w, x, y, learning_rate=rate, momentum=momentum, residuals=(0.5, 0.05), scale=scale
    )
    for level, net in zip((0.5, 0.05), found, strict=True):
        expected, steps, residual = nesterov(x, y, w, rate, momentum, level, scale)
        assert net.steps == steps > 0
        np.testing.assert_allclose(net.residual, residual, rtol=1e-10)
        np.testing.assert_allclose(net.params, expected, rtol=1e-9)
        np.testing.assert_allclose(net.predict(x), scale * x @ expected, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_centered_training_forgets_the_initial_function_and_the_other_keeps_it():
    rng = np.random.default_rng(2)
    x, y, w = rng.normal(size=(5, 9)), rng.normal(size=(5, 1)), rng.normal(size=(9, 1))
    rate = 0.9 / np.linalg.eigvalsh(x @ x.T).max()
    centered, plain = (
        train_to_residual(linear, w, x, y, learning_rate=rate, residuals=(1e-8,), center=center)[0]
        for center in (True, False)
    )
    z = rng.normal(size=(4, 9))
    least_norm = np.linalg.pinv(x)
    np.testing.assert_allclose(centered.predict(z), z @ least_norm @ y, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(plain.predict(z), z @ (w + least_norm @ (y - x @ w)), rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_minibatches_are_an_epoch_of_parts_and_end_where_the_whole_does():
    rng = np.random.default_rng(3)
    x, y, w = rng.normal(size=(7, 20)), rng.normal(size=(7, 1)), np.zeros((20, 1))
    options = {"learning_rate": 0.01, "residuals": (1e-6,), "batch_size": 2}
    found = train_to_residual(linear, w, x, y, key=jax.random.key(0), **options)[0]
    assert found.steps % 3 == 0  # three parts of two, the seventh example waits for another epoch
    np.testing.assert_allclose(found.predict(x), y, atol=1e-5)
    again = train_to_residual(linear, w, x, y, key=jax.random.key(0), **options)[0]
    np.testing.assert_array_equal(found.params, again.params)
    other = train_to_residual(linear, w, x, y, key=jax.random.key(1), **options)[0]
    assert not np.array_equal(found.params, other.params)
    whole = {"learning_rate": 0.01, "residuals": (0.3,), "key": jax.random.key(0)}
    one, two = (train_to_residual(linear, w, x, y, batch_size=batch, **whole)[0] for batch in (7, None))
    np.testing.assert_array_equal(one.params, two.params)


def test_trainings_of_one_network_share_compiled_code():
    x, y = np.eye(3, dtype=np.float32), np.ones((3, 1), np.float32)
    traced = []

    @keep_compiled
    def net(w, x):
        traced.append(x.shape)
        return jnp.tanh(x @ w)

    def train(w, scale):
        traced.clear()
        found = train_to_residual(net, w, x, 0.3 * y, learning_rate=0.5, scale=scale)[0]
        jax.jit(lambda f, x: f(x))(found.predict, x)
        return len(traced)

    first = train(jnp.zeros((3, 1)), 1.0)
    # Its output shape is asked for, and its outputs at the start; nothing is traced for a compiler but this
    # test's own function.
    assert train(jnp.ones((3, 1)) / 2, 0.7) <= 4 < first


def test_a_function_that_reads_a_changing_variable_is_trained_as_it_is():
    x, y, scale = np.eye(2, dtype=np.float32), np.ones((2, 1), np.float32), [1.0]

    def net(w, x):
        return scale[0] * (x @ w)

    for scale[0] in (1.0, 2.0):
        found = train_to_residual(net, jnp.zeros((2, 1)), x, y, learning_rate=0.5 / scale[0] ** 2)[0]
        assert (found.steps, found.residual) == (4, 0.0625)
        np.testing.assert_allclose(found.predict(x), 1 - 0.5**4)


def test_a_smaller_scale_moves_the_parameters_farther():
    rng = np.random.default_rng(4)
    x, y = rng.uniform(size=(20, 6)).astype(np.float32), rng.choice([-1.0, 1.0], (20, 1)).astype(np.float32)
    net = fc(1, width=64)
    start = net.init(jax.random.key(0), x)
    top = float(np.linalg.eigvalsh(gram(fc(1), x)).max())
    moved = []
    for scale in (0.1, 1.0, 10.0, 100.0):
        end = train_to_residual(
            net.apply,
            start,
            x,
            y,
            learning_rate=0.05 / top / scale**2,
            momentum=0.9,
            scale=scale,
            residuals=(0.5,),
        )[0].params
        pairs = zip(jax.tree.leaves(end), jax.tree.leaves(start), strict=True)
        moved.append(np.sqrt(sum(float(jnp.sum((a - b) ** 2)) for a, b in pairs)))
    # In the lazy limit the way is as 1/s.
    assert moved[0] > 4 * moved[1] > 16 * moved[2]
    np.testing.assert_allclose(moved[2] / moved[3], 10, rtol=0.1)


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_of_training_to_a_residual_are_named():
    def run(options):
        x, y = np.eye(2, dtype=np.float32), np.ones((2, 1), np.float32)
        train_to_residual(linear, jnp.zeros((2, 1)), x, y, **({"learning_rate": 0.5} | options))

    assert_refused(
        [
            ({"learning_rate": 0.0}, ValueError, "learning_rate must be more than"),
            ({"momentum": 1.0}, ValueError, r"momentum must lie in \[0, 1\)"),
            ({"residuals": (0.1, 0.2)}, ValueError, "residuals must decrease"),
            ({"residuals": ()}, ValueError, "residuals must decrease"),
            ({"batch_size": 1}, ValueError, "come with a key"),
            ({"batch_size": 9, "key": jax.random.key(0)}, ValueError, "batch_size must be at most 2"),
            ({"scale": 0.0}, ValueError, "scale must be more than"),
            ({"learning_rate": 1e-6, "max_steps": 5}, FloatingPointError, "give it more steps"),
            ({"learning_rate": 1e3}, FloatingPointError, "diverged"),
        ],
        run=run,
    )
