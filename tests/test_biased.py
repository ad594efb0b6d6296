"""One hidden ReLU layer whose biases start at −B: against quadrature, the bivariate normal, and networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from refusals import assert_refused
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from companion import clocks, guarantees
from companion.architectures import conv, fc
from companion.empirical import empirical_ntk

W, B_STD, BIAS = 1.3, 0.7, 0.8
NET = fc(1, width=256, w_std=W, b_std=B_STD, bias=BIAS)


def oracle(x1, x2, bias):
    """(K, Θ) of two inputs from their definitions: an orthant's probability, and an integral over a unit."""
    d = len(x1)
    p1, p2, q = (W**2 / d * a @ b for a, b in ((x1, x1), (x2, x2), (x1, x2)))
    both = multivariate_normal([0, 0], [[p1, q], [q, p2]]).cdf([-bias, -bias])
    apart = np.sqrt(p2 - q**2 / p1)

    def given(u):
        h = (bias - q / p1 * u) / apart
        return (u - bias) * apart * (norm.pdf(h) - h * norm.sf(h)) * norm.pdf(u, scale=np.sqrt(p1))

    product = quad(given, bias, 15 * np.sqrt(p1), epsabs=1e-13)[0]
    nngp = W**2 * product + B_STD**2
    return nngp, nngp + W**2 * (q + B_STD**2) * both


@pytest.mark.parametrize("bias", [0.0, BIAS])
@pytest.mark.usefixtures("x64")
def test_the_kernel_is_an_orthants_probability_and_an_integral(bias):
    rng = np.random.default_rng(0)
    x1, x2 = rng.normal(size=(3, 6)), rng.normal(size=(4, 6))
    found = fc(1, w_std=W, b_std=B_STD, bias=bias).kernel(x1, x2, ("nngp", "ntk"))
    expected = np.array([[oracle(a, b, bias) for b in x2] for a in x1])
    np.testing.assert_allclose(np.stack(found, axis=-1), expected, rtol=1e-7)


@pytest.mark.usefixtures("x64")
def test_at_one_input_it_is_a_gaussians_own_moments():
    x = np.random.default_rng(1).normal(size=(2, 6))
    nngp, ntk = NET.kernel(x, None, ("nngp", "ntk"))
    p = W**2 / 6 * (x**2).sum(1)
    h = BIAS / np.sqrt(p)
    square = p * ((1 + h**2) * norm.sf(h) - h * norm.pdf(h))  # E (u − B)₊²
    np.testing.assert_allclose(np.diag(nngp), W**2 * square + B_STD**2, rtol=1e-9)
    np.testing.assert_allclose(np.diag(ntk - nngp), W**2 * (p + B_STD**2) * norm.sf(h), rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_slopes_are_those_of_differences():
    rng = np.random.default_rng(2)
    x1, x2 = rng.normal(size=(3, 6)), rng.normal(size=(4, 6))

    def both(x):  # conjugate and tangent kernel in one number for each pair, neither of which hides the other
        nngp, ntk = NET.kernel(x, x2, ("nngp", "ntk"))
        return ntk + 3 * nngp**2

    check_grads(both, (x1,), 1, modes=("rev",), atol=1e-6, rtol=1e-6)


@pytest.mark.usefixtures("as_users_run")
def test_float32_zeros_and_equal_inputs():
    x = np.concatenate([np.zeros((1, 6)), np.random.default_rng(3).random((2, 6))]).astype(np.float32)
    nngp, ntk = map(np.asarray, NET.kernel(x, None, ("nngp", "ntk")))
    # Of zeros no unit is active: what is left is the output's own bias.
    np.testing.assert_allclose(nngp[0], B_STD**2, rtol=1e-6)
    np.testing.assert_allclose(ntk[0], B_STD**2, rtol=1e-6)
    exact = oracle(x[1].astype(float), x[2].astype(float), BIAS)
    np.testing.assert_allclose((nngp[1, 2], ntk[1, 2]), exact, rtol=1e-5)
    slope = jax.grad(lambda x: NET.kernel(x, x).sum())(jnp.asarray(x))
    assert np.isfinite(slope).all()


def test_wide_networks_have_this_kernel_and_so_many_active_units():
    net, x = NET, np.eye(2, 4, dtype=np.float32) + 1
    every, active = [], []
    for seed in range(30):
        params = net.init(jax.random.key(seed), x)
        np.testing.assert_allclose(params[0][1], -BIAS / B_STD, rtol=1e-6)
        every.append(empirical_ntk(net.apply, params, x, implementation="jacobian"))
        active.append((W / 2 * x @ np.asarray(params[0][0]) > BIAS).mean(axis=1))
    expected = np.asarray(net.kernel(x))
    share = norm.sf(BIAS * 2 / (W * np.linalg.norm(x, axis=1)))
    for found, exact in ((every, expected), (active, share)):
        error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
        assert (np.abs(np.mean(found, axis=0) - exact) < 4 * error).all()
        assert (error < 0.03 * np.abs(exact)).all()
    # The control: what random biases of this size have lies far outside.
    other = np.asarray(fc(1, w_std=W, b_std=B_STD).kernel(x))
    error = np.std(every, axis=0, ddof=1) / np.sqrt(len(every))
    assert (np.abs(np.mean(every, axis=0) - other) > 8 * error).all()


@pytest.mark.usefixtures("x64")
def test_input_gradients_are_the_active_share():
    net, x = fc(1, width=4096, w_std=W, b_std=B_STD, bias=BIAS), np.ones((1, 4))
    params = net.init(jax.random.key(0), x)
    # The output layer's weights are N(0, 1): their mean is taken exactly, by a sum of squares.
    weights, start = (np.asarray(one, float) for one in params[0])
    active = (W / 2 * x @ weights + B_STD * start > 0)[0]
    exact = W**4 / 4 / 4096 * (weights[:, active] ** 2).sum()
    assert clocks.input_gradients(net, x)[0] == pytest.approx(exact, rel=0.1)


@pytest.mark.usefixtures("x64")
def test_features_move_no_further_than_the_constant():
    rng = np.random.default_rng(4)
    net = NET
    x, moved = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    moved[:3] = x[:3] + 1e-3 * moved[:3]
    one, two, cross = (np.asarray(net.kernel(a, b, "nngp")) for a, b in ((x, x), (moved, moved), (x, moved)))
    apart = np.sqrt(np.diag(one) + np.diag(two) - 2 * np.diag(cross))
    limit = guarantees.lipschitz(net, 5, kind="nngp") * np.linalg.norm(x - moved, axis=1)
    assert (apart <= limit).all()
    assert (apart > 0.2 * limit).any()


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    assert_refused(
        [
            (lambda: fc(bias=-1.0), ValueError, "bias must be at least 0"),
            (lambda: fc(bias="1"), TypeError, "bias must be a number"),
            (lambda: fc(2, bias=1.0), ValueError, "bias wants one hidden ReLU layer, got depth 2"),
            (lambda: fc(bias=1.0, activation="erf"), ValueError, "bias wants one hidden ReLU layer"),
            (lambda: fc(bias=1.0, b_std=0.0), ValueError, "bias wants b_std > 0"),
            (
                lambda: guarantees.lipschitz(fc(bias=1.0), 4, kind="ntk"),
                ValueError,
                "no bound is known for the NTK of FC-1 relu bias 1",
            ),
        ]
    )
    assert fc(bias=1) is fc(bias=1.0)
    assert fc().bias is conv().bias is None
