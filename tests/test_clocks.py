"""Clocks: the flow against the matrix exponential, its gradient by autodiff, learning by its parts."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.linalg
import scipy.special
from jax.tree_util import Partial
from refusals import assert_refused

from companion import clocks as ck
from companion import data
from companion.architectures import conv, fc
from companion.attacks import Threat, training_attack
from companion.clocks._flow import _coefficients, flow, problem
from companion.clocks._learn import loss_and_gradient
from companion.regression import fit, from_coefficients

rng = np.random.default_rng(0)
N, K = 12, 3
FACTOR = rng.normal(size=(N, 2 * N))
THETA, Y = FACTOR @ FACTOR.T / N, rng.normal(size=(N, K))
CLOCKS, SLOPE = rng.uniform(0.1, 3.0, N), rng.normal(size=(N, K))
F = fit(THETA, targets=Y)
X, X_VAL = rng.uniform(size=(8, 3)).astype(np.float32), rng.uniform(size=(6, 3)).astype(np.float32)
LABELS, LABELS_VAL = np.arange(8) % 2, np.arange(6) % 2
G = fit(fc(1), X, data.targets(LABELS))
THREAT, KEY = Threat("linf", 0.05), jax.random.key(0)


def by_expm(theta, y, clocks):
    """Θ⁻¹ (I − e^{−Θ diag ϖ}) Y, as the paper has it."""
    left = jnp.eye(len(theta)) - jax.scipy.linalg.expm(-theta * clocks)
    return jnp.linalg.solve(theta, left @ y)


@pytest.mark.parametrize("solver", ["eigh", "chebyshev"])
def test_coefficients_are_those_of_the_matrix_exponential(solver):
    expected = np.linalg.solve(THETA, (np.eye(N) - scipy.linalg.expm(-THETA * CLOCKS)) @ Y)
    found = ck.clocked(F, CLOCKS, solver=solver).coefficients
    np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("solver", ["eigh", "chebyshev"])
@pytest.mark.usefixtures("x64")
def test_the_gradient_is_that_of_the_matrix_exponential(solver):
    expected = jax.grad(lambda c: (by_expm(THETA, Y, c) * SLOPE).sum())(jnp.asarray(CLOCKS))
    _, pull = flow(THETA, Y, CLOCKS, solver)
    np.testing.assert_allclose(pull(SLOPE), expected, atol=1e-9 * np.abs(expected).max())


def test_the_gradient_is_central_differences():
    matrix, targets = problem(F.with_ridge(0.3))

    def loss(clocks):
        return float((flow(matrix, targets, clocks, "eigh")[0] * SLOPE).sum())

    _, pull = flow(matrix, targets, CLOCKS, "eigh")
    expected = oracles.central_difference(loss, CLOCKS, 1e-5)
    np.testing.assert_allclose(pull(SLOPE), expected, rtol=1e-6, atol=1e-8)


def test_coefficients_are_those_of_runge_kutta_steps():
    alpha, size = np.zeros((N, K)), 1e-3

    def slope(alpha):
        return CLOCKS[:, None] * (Y - THETA @ alpha)

    for _ in range(1000):
        one = slope(alpha)
        two = slope(alpha + size / 2 * one)
        three = slope(alpha + size / 2 * two)
        alpha = alpha + size / 6 * (one + 2 * two + 2 * three + slope(alpha + size * three))
    for solver in ("eigh", "chebyshev"):
        np.testing.assert_allclose(ck.clocked(F, CLOCKS, solver=solver).coefficients, alpha, atol=1e-9)


@pytest.mark.parametrize("largest", [0.1, 10.0, 1e3, 1e5])
def test_the_polynomial_is_the_flow_on_all_of_its_spectrum(largest):
    s = np.linspace(0, largest, 1001)
    terms = _coefficients(largest)
    found = np.polynomial.chebyshev.chebval(2 * s / largest - 1, terms)
    np.testing.assert_allclose(found[1:], -np.expm1(-s[1:]) / s[1:], atol=1e-12)
    assert found[0] == pytest.approx(1)
    assert len(terms) < 5.5 * largest**0.5 + 10  # as the docstring of `clocked` says


@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("t", [0.0, 0.3, 50.0])
def test_equal_clocks_are_a_time(t, ridge):
    f = F.with_ridge(ridge)
    expected = f.at(t).coefficients
    np.testing.assert_allclose(ck.clocked(f, t).coefficients, expected, atol=1e-11)
    np.testing.assert_allclose(ck.clocked(f, np.full(N, t)).coefficients, expected, atol=1e-11)


def test_endless_clocks_interpolate_and_one_that_stands_still_leaves_its_example_out():
    np.testing.assert_allclose(ck.clocked(F, 1e6).coefficients, np.linalg.solve(THETA, Y), atol=1e-9)
    still = CLOCKS.copy()
    still[[2, 5]] = 0.0
    rest = np.flatnonzero(still)
    found = ck.clocked(F, still).coefficients
    alone = ck.clocked(fit(THETA[np.ix_(rest, rest)], targets=Y[rest]), still[rest]).coefficients
    np.testing.assert_allclose(found[rest], alone, atol=1e-7)
    assert not found[[2, 5]].any()


@pytest.mark.parametrize("zeros", [[2, 5], list(range(N))], ids=["two", "all"])
def test_the_gradient_at_clocks_that_stand_still(zeros):
    still = CLOCKS.copy()
    still[zeros] = 0.0
    _, pull = flow(THETA, Y, still, "eigh")
    _, expanded = flow(THETA, Y, still + 1e-12, "chebyshev")
    np.testing.assert_allclose(pull(SLOPE), expanded(SLOPE), rtol=1e-6, atol=1e-6)


def test_nothing_overflows_or_cancels_between_fast_and_slow_clocks():
    spread = np.logspace(-9, 6, N)
    _, pull = flow(THETA, Y, spread, "eigh")
    assert np.isfinite(pull(SLOPE)).all()
    assert np.isfinite(ck.clocked(F, spread).coefficients).all()


def test_a_clocked_predictor_is_a_function_of_inputs():
    found = ck.clocked(G, np.linspace(0.1, 2.0, 8))
    same = from_coefficients(fc(1), X, found.coefficients)
    np.testing.assert_allclose(found(X_VAL), same(X_VAL), atol=1e-6)
    with pytest.raises(TypeError, match="no spectrum"):
        ck.clocked(found, 1.0)


def test_the_loss_and_its_gradient_are_those_of_their_definition():
    matrix, targets = problem(G)
    cross = np.asarray(fc(1).kernel(X_VAL, X), np.float64)
    labels = 2.0 * LABELS_VAL[:, None] - 1
    spread = np.linspace(0.1, 2.0, 8)

    def loss(clocks):
        alpha = flow(matrix, targets, clocks, "eigh")[0]
        return float(((cross @ alpha - labels) ** 2).sum() / 2 / len(X_VAL))

    alpha, pull = flow(matrix, targets, spread, "eigh")
    value, slope = loss_and_gradient(from_coefficients(fc(1), X, alpha), X_VAL, LABELS_VAL, pull)
    assert value == pytest.approx(loss(spread), rel=1e-6)
    expected = oracles.central_difference(loss, spread, 1e-5)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-7)


def test_a_step_goes_against_the_gradient_on_the_attacked_batch():
    attack = training_attack(THREAT)
    options = {"rate": 0.02, "start": 1.0, "key": KEY, "attack": attack}
    found = ck.learn(G, X_VAL, LABELS_VAL, THREAT, steps=1, **options)
    # One batch of all: the order does not matter, but for the random start.
    key = jax.random.fold_in(jax.random.fold_in(KEY, 0), 1)
    order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, 0), 6))
    f = ck.clocked(G, 1.0)
    moved = np.asarray(attack(f, X_VAL[order], LABELS_VAL[order], key, jnp.inf))
    _, pull = flow(*problem(G), np.ones(8), "eigh")
    value, slope = loss_and_gradient(f, moved, LABELS_VAL[order], pull)
    assert found.losses[0] == pytest.approx(value, rel=1e-5)
    step = 0.02 * math.sqrt(8) * slope / np.linalg.norm(slope)
    np.testing.assert_allclose(found.clocks, 1 - step, atol=1e-5)
    assert found.lengths[0] == pytest.approx(math.sqrt((found.clocks**2).mean()))
    np.testing.assert_allclose(found.f.coefficients, ck.clocked(G, found.clocks).coefficients, atol=1e-12)


def test_learning_lowers_the_loss_stays_above_zero_and_goes_on_from_a_checkpoint(tmp_path):
    options = {"rate": 0.3, "batch_size": 3, "key": KEY}
    whole = ck.learn(G, X_VAL, LABELS_VAL, THREAT, steps=6, **options)
    assert whole.losses[-2:].mean() < whole.losses[:2].mean()
    assert (whole.clocks >= 0).all()
    assert not whole.clocks.all()
    part = ck.learn(G, X_VAL, LABELS_VAL, THREAT, steps=2, folder=tmp_path, **options)
    np.testing.assert_array_equal(part.losses, whole.losses[:2])
    again = ck.learn(G, X_VAL, LABELS_VAL, THREAT, steps=6, folder=tmp_path, **options)
    np.testing.assert_array_equal(again.clocks, whole.clocks)
    np.testing.assert_array_equal(again.losses, whole.losses)
    with pytest.raises(ValueError, match="options"):
        ck.learn(G, X_VAL, LABELS_VAL, THREAT, steps=6, folder=tmp_path, **options | {"rate": 0.1})
    with pytest.raises(ValueError, match="after 6 steps, and steps=3 is fewer"):
        ck.learn(G, X_VAL, LABELS_VAL, THREAT, steps=3, folder=tmp_path, **options)


def test_the_released_step_takes_absolute_values():
    attack = Partial(lambda f, x, y, key, epoch: x)
    matrix, targets = problem(G)
    clocks, free = np.zeros(8), np.zeros(8)
    for _ in range(2):
        alpha, pull = flow(matrix, targets, clocks, "eigh")
        _, slope = loss_and_gradient(from_coefficients(fc(1), X, alpha), X_VAL, LABELS_VAL, pull)
        slope = np.where(free < 0, -1, 1) * slope / np.linalg.norm(slope)
        free = free - 0.3 * math.sqrt(8) * (slope + 1e-4 * free)
        clocks = np.abs(free)
    options = {"rate": 0.3, "key": KEY, "attack": attack, "released": True}
    found = ck.learn(G, X_VAL, LABELS_VAL, THREAT, steps=2, **options)
    np.testing.assert_allclose(found.clocks, clocks, atol=1e-5)
    assert (free < 0).any()


def test_both_solvers_learn_the_same():
    found = [
        ck.learn(G, X_VAL, LABELS_VAL, THREAT, steps=2, rate=0.1, start=0.5, key=KEY, solver=solver)
        for solver in ("eigh", "chebyshev")
    ]
    np.testing.assert_allclose(found[0].clocks, found[1].clocks, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_input_gradients_are_those_of_wide_random_networks(activation):
    # Two hidden layers by hand, backwards, without JAX.
    d, width, w_std, b_std = 6, 600, 1.3, 0.4
    x, lengths = np.linspace(-1.0, 1.5, d), []
    function, slope = {
        "relu": (lambda z: np.maximum(z, 0), lambda z: z > 0),
        "erf": (scipy.special.erf, lambda z: 2 / np.sqrt(np.pi) * np.exp(-(z**2))),
    }[activation]
    for seed in range(16):
        draw = np.random.default_rng(seed).standard_normal
        first, second, last = draw((width, d)) / d**0.5, draw((width, width)) / width**0.5, draw((90, width))
        one = w_std * first @ x + b_std * draw(width)
        two = w_std * second @ function(one) + b_std * draw(width)
        back = w_std * (w_std * last / width**0.5 * slope(two)) @ second
        lengths.append(((w_std * (back * slope(one)) @ first) ** 2).sum(axis=1).mean())
    expected = ck.input_gradients(fc(2, activation=activation, w_std=w_std, b_std=b_std), x[None])
    error = np.std(lengths) / 4
    assert abs(np.mean(lengths) - expected[0]) < 4 * error
    assert error < 0.03 * expected[0]


def test_the_clocks_of_adversarial_training_solve_its_flow():
    # f' = −Θ r on the attacked residual e^{Θ_x η S} r, by many small steps; r = f(X) − y.
    network = fc(1, activation="erf")
    f = fit(network, X, data.targets(LABELS))
    theta, y = problem(f)
    faster = np.exp(0.2 * ck.input_gradients(network, X))[:, None]
    alpha = np.zeros_like(y)
    for _ in range(20_000):
        middle = alpha + 0.5e-4 * faster * (y - theta @ alpha)
        alpha = alpha + 1e-4 * faster * (y - theta @ middle)
    found = ck.clocked(f, ck.adversarial(network, X, 2.0, strength=0.2)).coefficients
    np.testing.assert_allclose(found, alpha, atol=1e-6)
    np.testing.assert_array_equal(ck.adversarial(network, X, 2.0, strength=0.0), 2.0)


def test_integers_are_clocks_too():
    np.testing.assert_array_equal(
        ck.clocked(F, np.ones(N, int)).coefficients, ck.clocked(F, np.ones(N)).coefficients
    )


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_refused():
    learn = {"rate": 0.1, "steps": 1, "key": KEY}
    scaled = dataclasses.replace(G, projections=10 * G.projections)

    def own(attack):
        return ck.learn(G, X_VAL, LABELS_VAL, THREAT, attack=attack, **learn)

    assert_refused(
        [
            (lambda: ck.clocked(F, np.ones(3)), ValueError, r"clocks must have shape \(12,\)"),
            (lambda: ck.clocked(F, -CLOCKS), ValueError, "clocks must be at least 0"),
            (lambda: ck.clocked(F, np.full(N, np.nan)), ValueError, "clocks has 12 NaN"),
            (lambda: ck.clocked(F, math.inf), ValueError, "clocks must be finite"),
            (lambda: ck.clocked(THETA, CLOCKS), TypeError, "f must come from regression.fit"),
            (lambda: ck.learn(F, X_VAL, LABELS_VAL, THREAT, **learn), TypeError, "f must know its kernel"),
            (lambda: ck.learn(G, X_VAL + 1, LABELS_VAL, THREAT, **learn), ValueError, "x must lie in"),
            (lambda: ck.learn(G, X_VAL[:, :2], LABELS_VAL, THREAT, **learn), ValueError, "of one shape"),
            (lambda: ck.learn(G, X_VAL, LABELS_VAL + 1, THREAT, **learn), ValueError, "labels must"),
            (
                lambda: ck.learn(G, X_VAL, LABELS_VAL, THREAT, start=np.ones(3), **learn),
                ValueError,
                "start must have shape",
            ),
            (
                lambda: ck.learn(G, X_VAL, LABELS_VAL, THREAT, **learn | {"rate": -1.0}),
                ValueError,
                "rate must",
            ),
            (
                lambda: ck.learn(G, X_VAL, LABELS_VAL, THREAT, **learn | {"key": np.zeros(3)}),
                TypeError,
                "key must be",
            ),
            (
                lambda: ck.learn(scaled, X_VAL, LABELS_VAL, THREAT, **learn),
                ValueError,
                "targets are off by 9",
            ),
            (lambda: own("pgd"), TypeError, "attack must be a function"),
            (lambda: own(lambda f, x, y, key, epoch: x[:1]), ValueError, "attack must return inputs"),
            (lambda: own(lambda f, x, y, key, epoch: x * np.nan), ValueError, "what attack returns has"),
            (lambda: ck.input_gradients(conv(1), X), ValueError, "architecture must be dense"),
            (lambda: ck.input_gradients(len, X), TypeError, "architecture must be one of"),
            (lambda: ck.adversarial(fc(1), X, 1.0, strength=1e3), ValueError, "strength must keep"),
            (lambda: ck.adversarial(fc(1), X, -1.0, strength=1.0), ValueError, "t must be"),
        ]
    )
