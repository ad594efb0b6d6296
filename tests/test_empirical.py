"""The empirical kernel of any network, against the product of dense Jacobians."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from companion.architectures import conv, fc
from companion.empirical import empirical_ntk

rng = np.random.default_rng(0)
X1, X2 = rng.uniform(size=(4, 6, 6, 1)), rng.uniform(size=(3, 6, 6, 1))


def dense_ntk(apply_fn, params, x1, x2):
    """Σ_θ ∂_θ f_a(x) ∂_θ f_b(x'), from Jacobians flattened to (n, k, parameters), float64."""

    def jacobian(x):
        tree = jax.jacrev(apply_fn)(params, x)
        return np.concatenate(
            [np.reshape(leaf, (*leaf.shape[:2], -1)) for leaf in jax.tree.leaves(tree)], axis=2
        )

    return np.einsum("nap,mbp->nmab", jacobian(x1), jacobian(x2))


class FlaxNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(5, (3, 3), param_dtype=float)(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(3, param_dtype=float)(nn.tanh(nn.Dense(8, param_dtype=float)(x.reshape(len(x), -1))))


def networks():
    for build in (fc, conv):
        net = build(2, width=6, n_outputs=3)
        yield net.name, net.apply, lambda net=net: net.init(jax.random.key(1), X1.shape)
    flax_net = FlaxNet()
    yield "Flax", flax_net.apply, lambda: flax_net.init(jax.random.key(1), jnp.asarray(X1))
    weights = rng.normal(size=(36, 3))
    yield "plain", lambda w, x: jnp.sin(x.reshape(len(x), -1) @ w), lambda: jnp.asarray(weights)


@pytest.mark.parametrize(("apply_fn", "make"), [n[1:] for n in networks()], ids=[n[0] for n in networks()])
@pytest.mark.usefixtures("x64")
def test_equals_the_dense_jacobian_product(apply_fn, make):
    params = make()
    for x2 in (X2, None):
        oracle = dense_ntk(apply_fn, params, X1, X1 if x2 is None else x2)
        full = empirical_ntk(apply_fn, params, X1, x2, reduce="full")
        np.testing.assert_allclose(full, oracle, rtol=1e-5, atol=1e-10)
        trace = empirical_ntk(apply_fn, params, X1, x2)
        np.testing.assert_allclose(trace, np.einsum("nmaa->nm", oracle) / 3, rtol=1e-5, atol=1e-10)


def test_a_wide_network_has_the_analytic_kernel():
    # Fluctuations of a relative size of a few / √width: see chapter 1, which measures the slope.
    x = X1.reshape(4, -1).astype(np.float32)
    errors = []
    for width in (64, 4096):
        net = fc(1, width=width)
        kernels = [empirical_ntk(net.apply, net.init(jax.random.key(s), x.shape), x) for s in range(4)]
        exact = np.asarray(net.kernel(x))
        errors.append(np.mean([np.linalg.norm(k - exact) for k in kernels]) / np.linalg.norm(exact))
    assert errors[1] < 0.05
    assert errors[0] / errors[1] > 4  # expected √64 = 8


def test_a_function_that_reads_a_changing_variable_is_not_stale():
    scale = [1.0]

    def net(w, x):
        return scale[0] * (x @ w)

    w, x = np.ones((36, 1), np.float32), X1.reshape(4, -1).astype(np.float32)
    first = empirical_ntk(net, w, x)
    scale[0] = 2.0
    np.testing.assert_allclose(empirical_ntk(net, w, x), 4 * first, rtol=1e-6)


def test_float64_parameters_are_computed_in_float64_whatever_jax_is_set_to():
    w, x = rng.normal(size=(36, 1)), X1.reshape(4, -1)
    kernel = empirical_ntk(lambda w, x: x @ w, w, x)
    assert kernel.dtype == np.float64
    np.testing.assert_allclose(kernel, x @ x.T, rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f, p: empirical_ntk(f, p, X1, reduce="sum"), ValueError, "reduce must be 'trace' or 'full'"),
        (lambda f, p: empirical_ntk(f, p, X1 * np.nan), ValueError, "x1 has 144 NaN"),
        (lambda f, p: empirical_ntk(f, p, np.ones((2, 3), int)), TypeError, "x1 must be float32 or float64"),
        (lambda f, p: empirical_ntk(lambda p, x: f(p, x).sum(), p, X1), ValueError, "must return one array"),
        (
            lambda f, p: empirical_ntk(f, p, X1, X2[:, :3]),
            ValueError,
            "x1 and x2 must hold inputs of one shape",
        ),
        (lambda f, p: empirical_ntk(3, p, X1), TypeError, "apply_fn must be a function"),
        (
            lambda f, p: empirical_ntk(f, 1, X1),
            TypeError,
            "params must be floating point, got a leaf of int32",
        ),
        (
            lambda f, p: empirical_ntk(lambda p, x: f(p, x - x.mean(axis=0)), p, X1),
            ValueError,
            "apply_fn mixes examples",
        ),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named(call, error, message):
    net = fc(1, width=3)
    with pytest.raises(error, match=message):
        call(net.apply, net.init(jax.random.key(0), X1.shape))
