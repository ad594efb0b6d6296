"""Poisoned training images: the gradient by two oracles, the ball to the last bit, what steps gain."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from refusals import assert_refused

from companion import data
from companion.architectures import conv, fc
from companion.attacks import Threat, cross_entropy, random_sign, squared
from companion.guarantees import poison
from companion.guarantees._poison import loss_and_gradient
from companion.kernels import gram
from companion.regression import fit
from companion.statistics import mean

rng = np.random.default_rng(0)
X, X_VAL = rng.uniform(size=(11, 4, 4, 1)), rng.uniform(size=(5, 4, 4, 1))
TARGETS, LABELS = rng.normal(size=(11, 3)), rng.integers(3, size=5)
RIDGE = 0.1


def loss_of_solving(x, kernel, t, kind):
    """The mean loss on X_VAL, from the matrix exponential of the whole, to differentiate as it is."""
    matrix = kernel.kernel(x, x, kind) + RIDGE * jnp.eye(len(x))
    left = jnp.eye(len(x)) if t == math.inf else jnp.eye(len(x)) - jax.scipy.linalg.expm(-t * matrix)
    outputs = kernel.kernel(jnp.asarray(X_VAL), x, kind) @ jnp.linalg.solve(matrix, left @ TARGETS)
    return cross_entropy(outputs, jnp.asarray(LABELS)).mean()


@pytest.mark.parametrize(
    ("kernel", "t", "kind"),
    [(fc(2), math.inf, "ntk"), (fc(2), 3.0, "ntk"), (fc(1, activation="erf"), math.inf, "nngp")],
    ids=["relu", "relu at t = 3", "erf covariance"],
)
@pytest.mark.usefixtures("x64")
def test_the_adjoint_gradient_is_that_of_the_dense_solve(kernel, t, kind):
    options = {"loss": cross_entropy, "ridge": RIDGE, "t": t, "kind": kind}
    value, gradient = loss_and_gradient(kernel, X, TARGETS, X_VAL, LABELS, **options)
    expected, slope = jax.value_and_grad(loss_of_solving)(jnp.asarray(X), kernel, t, kind)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    for batch in (11, 4):
        np.testing.assert_allclose(gradient(batch), slope, rtol=1e-7, atol=1e-9 * np.abs(slope).max())


@pytest.mark.parametrize("t", [math.inf, 3.0])
@pytest.mark.usefixtures("x64")
def test_the_gradient_is_central_differences_of_fitting_again(t):
    some, others = X[:3, :2, :2], X_VAL[:, :2, :2]

    def loss(x):
        f = fit(gram(conv(1), x), targets=TARGETS[:3, :1], ridge=RIDGE).at(t)
        outputs = f.from_kernel(gram(conv(1), others, x))
        return float(squared(outputs, LABELS % 2).mean())

    options = {"loss": squared, "ridge": RIDGE, "t": t, "kind": "ntk"}
    value, gradient = loss_and_gradient(conv(1), some, TARGETS[:3, :1], others, LABELS % 2, **options)
    assert value == pytest.approx(loss(some), rel=1e-10)
    expected = oracles.central_difference(loss, some, 1e-5)
    np.testing.assert_allclose(gradient(3), expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("key", [None, jax.random.key(0)], ids=["from x", "random start"])
def test_ball_and_bounds_hold_exactly(norm, key):
    x, eps = X.astype(np.float32), 0.3
    options = {"steps": 3, "ridge": RIDGE, "key": key}
    found = poison(fc(2), x, TARGETS, X_VAL.astype(np.float32), LABELS, Threat(norm, eps), **options)
    delta = found.astype(np.float64) - x
    size = np.abs(delta).max() if norm == "linf" else np.sqrt((delta**2).sum(axis=(1, 2, 3))).max()
    assert 0.9 * eps < size <= eps
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.dtype == np.float32
    still = poison(fc(2), x, TARGETS, X_VAL.astype(np.float32), LABELS, Threat(norm, 0.0), **options)
    np.testing.assert_array_equal(still, x)


def test_ascent_beats_one_step_beats_random_signs():
    # Five splits of the 8 x 8 digits 3 and 8: the loss on validation images, and the accuracy on others.
    images = data.load("digits", classes=(3, 8))
    x, labels = (
        np.concatenate(both) for both in ((images.x_train, images.x_test), (images.y_train, images.y_test))
    )
    threat, gains, losses = Threat("linf", 0.15), [], []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(x))
        train, val, test = order[:40], order[40:100], order[100:250]
        targets = data.targets(labels[train])
        arguments = (fc(1), x[train], targets, x[val], labels[val], threat)
        ways = {
            "random": random_sign(x[train], threat, key=jax.random.key(seed)),
            "one": poison(*arguments, steps=1, ridge=RIDGE),
            "many": poison(*arguments, steps=5, ridge=RIDGE),
        }
        fits = [fit(fc(1), moved, targets, ridge=RIDGE, solver="cholesky") for moved in ways.values()]
        losses.append([float(cross_entropy(f(x[val]), labels[val]).mean()) for f in fits])
        gains.append([float(((f(x[test])[:, 0] > 0) == labels[test]).mean()) for f in fits])
    random, one, many = np.array(losses).T
    assert (many >= one).all()
    assert (one > random).all()
    random, one, many = np.array(gains).T
    assert mean(random - one).low > 0
    assert mean(one - many).low > 0


def test_a_function_of_ones_own_is_compiled_once():
    traced = []

    def kernel(a, b, get):
        traced.append(get)
        return (1 + a @ b.T) ** 2

    x, x_val = (a.reshape(len(a), -1).astype(np.float32) for a in (X, X_VAL))
    threat = Threat("linf", 0.1)
    found = poison(kernel, x, TARGETS, x_val, LABELS, threat, steps=1, ridge=RIDGE)
    once = len(traced)
    again = poison(
        kernel, x, TARGETS, x_val, LABELS, threat, steps=4, step_size=0.1, ridge=RIDGE, progress=True
    )
    assert len(traced) == 2 * once
    assert np.abs(again - x).max() == pytest.approx(0.1, rel=1e-5)
    assert np.abs(found - x).max() == pytest.approx(0.1, rel=1e-5)


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_refused():
    x, x_val = X.astype(np.float32), X_VAL.astype(np.float32)

    def calls(**options):
        given = {"x": x, "targets": TARGETS, "x_val": x_val, "labels_val": LABELS} | options
        threat = given.pop("threat", Threat("linf", 0.1))
        return lambda: poison(fc(2), threat=threat, **given)

    assert_refused(
        [
            (calls(x=2 * x), ValueError, "x must lie in the bounds"),
            (calls(x_val=x_val[:, :3]), ValueError, "x and x_val must hold inputs of one shape"),
            (calls(labels_val=LABELS + 3), ValueError, r"labels_val must lie in \[0, 3\)"),
            (calls(targets=None), ValueError, r"targets must have shape \(11, k\), got \(\)"),
            (calls(targets=TARGETS[:4]), ValueError, r"targets must have shape \(11, k\)"),
            (calls(ridge=-1.0), ValueError, "ridge must be at least 0"),
            (calls(t=-1.0), ValueError, "t must be at least 0"),
            (calls(steps=0), ValueError, "steps must be at least 1"),
            (calls(key=np.arange(3)), TypeError, "key must be a JAX random key"),
        ]
    )
