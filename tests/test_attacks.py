"""Attacks against slow oracles from their definitions; balls and bounds hold exactly, whatever the batch."""

from fractions import Fraction

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.tree_util import Partial
from refusals import assert_refused

from companion import attacks
from companion._core import geometry
from companion.architectures import fc
from companion.attacks import Threat, _pgd, fgsm, one_step, pgd, random_sign, random_uniform, square
from companion.kernels import keep_compiled
from companion.networks import mlp
from companion.regression import from_coefficients
from companion.statistics import accuracy


def pixels(*shape, low=0.0, high=1.0):
    return np.random.default_rng(1).uniform(low, high, shape)


rng = np.random.default_rng(0)
KEY = jax.random.key(0)
X = pixels(37, 4)  # one shape for many tests: every new one is compiled
X[0, 0], X[1, 1] = 0.0, 1.0  # bounds that cut from the first step on
WEIGHTS = {k: (2 * rng.normal(size=(4, 5)), rng.normal(size=5), rng.normal(size=(5, k))) for k in (1, 3)}
NORMS = {"linf": 0.12, "l2": 0.25}


def network(weights, x):
    first, shift, last = weights
    return jnp.tanh(x @ first + shift - first.sum(0) / 2) @ last


def linear(w, x):
    return x @ w


def shifted(w, x):
    return x @ w - 0.75


def slow_network(weights, x):
    first, shift, last = weights
    return np.tanh(np.asarray(x, np.float64) @ first + shift - first.sum(0) / 2) @ last


def slow_predicted(outputs):
    return (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(axis=1)


def slow_margin(outputs, labels):
    if outputs.shape[1] == 1:
        return np.array([-f if y == 1 else f for f, y in zip(outputs[:, 0], labels, strict=True)])
    return np.array([np.delete(f, y).max() - f[y] for f, y in zip(outputs, labels, strict=True)])


def slow_cross_entropy(outputs, labels):
    if outputs.shape[1] == 1:
        outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
    return np.array([-np.log(np.exp(f[y]) / np.exp(f).sum()) for f, y in zip(outputs, labels, strict=True)])


def slow_squared(outputs, labels):
    k = outputs.shape[1]
    if k == 1:
        return (outputs[:, 0] - np.where(labels == 1, 1, -1)) ** 2 / 2
    return ((outputs - np.eye(k)[labels] + 1 / k) ** 2).sum(axis=1) / 2


SLOW = {"margin": slow_margin, "cross_entropy": slow_cross_entropy, "squared": slow_squared}


def differences(value, x, step=1e-6):
    """Central differences of every example's value in its own pixels."""
    gradient = np.zeros_like(x)
    for pixel in np.ndindex(x.shape[1:]):
        move = np.zeros(x.shape[1:])
        move[pixel] = step
        gradient[:, *pixel] = (value(x + move) - value(x - move)) / (2 * step)
    return gradient


def slow_pgd(
    function, x, labels, threat, *, steps, step_size, loss="margin", targeted=False, best=True, start=None
):
    """Madry et al. (2018), section 2.1, one example after the other, with gradients by differences."""
    direction = -1 if targeted else 1
    now, (low, high), eps = np.array(x if start is None else start, float), threat.bounds, threat.eps
    chosen, progress = now.copy(), np.full(len(x), -np.inf)
    value, sizes = SLOW.get(loss, loss), np.broadcast_to(step_size, steps)
    for done in range(steps + 1):
        reached = direction * slow_margin(function(now), labels)
        for i in range(len(x)):
            if reached[i] > progress[i] or not best:
                chosen[i], progress[i] = now[i], reached[i]
        if done == steps:
            break
        gradient = differences(lambda z: direction * value(function(z), labels), now)
        for i in range(len(x)):
            if threat.norm == "linf":
                delta = np.clip(now[i] + sizes[done] * np.sign(gradient[i]) - x[i], -eps, eps)
            else:
                delta = now[i] + sizes[done] * gradient[i] / np.linalg.norm(gradient[i]) - x[i]
                delta *= min(1, eps / np.linalg.norm(delta))
            now[i] = np.clip(x[i] + delta, low, high)
    return chosen


def clean_labels(k, x=X):
    """The network's own classes, but for two examples that are wrong from the start."""
    labels = slow_predicted(slow_network(WEIGHTS[k], x))
    labels[:2] = (labels[:2] + 1) % max(2, k)
    return labels


def fooled(k, x, labels):
    return slow_predicted(slow_network(WEIGHTS[k], x)) != labels


# PGD and FGSM


@pytest.mark.parametrize(
    ("norm", "loss", "k", "targeted", "best"),
    [
        ("linf", "margin", 1, False, True),
        ("linf", "margin", 3, True, True),
        ("l2", "margin", 3, False, True),
        ("l2", "cross_entropy", 1, True, False),
        ("linf", "cross_entropy", 3, False, True),
        ("l2", "cross_entropy", 3, True, True),
        ("linf", "squared", 1, False, False),
        ("l2", "squared", 3, False, True),
    ],
)
@pytest.mark.usefixtures("x64")
def test_pgd_is_the_slow_one(norm, loss, k, targeted, best):
    threat, labels = Threat(norm, NORMS[norm]), clean_labels(k)
    if targeted:
        labels = (labels + 1) % max(2, k)
    options = {"steps": 7, "step_size": 0.4 * threat.eps, "loss": loss, "targeted": targeted}
    expected = slow_pgd(lambda z: slow_network(WEIGHTS[k], z), X, labels, threat, **options, best=best)
    found = pgd(Partial(network, WEIGHTS[k]), X, labels, threat, **options, best_iterate=best)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert np.abs(found - X).max() > threat.eps / 3
    assert found.dtype == np.float64


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.usefixtures("x64")
def test_steps_may_have_sizes_of_their_own(norm):
    threat, labels, f = Threat(norm, NORMS[norm]), clean_labels(3), Partial(network, WEIGHTS[3])
    options = {"steps": 5, "step_size": threat.eps * np.array([1.0, 0.3, 0.5, 0.1, 0.2])}
    expected = slow_pgd(lambda z: slow_network(WEIGHTS[3], z), X, labels, threat, **options)
    found = pgd(f, X, labels, threat, **options)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    # The first step is FGSM, and the best point is kept.
    reached, one = (
        slow_margin(slow_network(WEIGHTS[3], points), labels)
        for points in (found, fgsm(f, X, labels, threat))
    )
    assert (reached >= one - 1e-9).all()
    assert (reached > one + 1e-3).any()
    # Whoever is fooled by a first step of full length is looked at before the second, to the same end.
    stopped = pgd(f, X, labels, threat, **options, early_stop=True)
    np.testing.assert_array_equal(fooled(3, stopped, labels), fooled(3, found, labels))
    np.testing.assert_allclose(
        stopped[~fooled(3, found, labels)], found[~fooled(3, found, labels)], atol=1e-12
    )


@pytest.mark.usefixtures("x64")
def test_a_random_start_is_a_start_and_nothing_else():
    threat, labels, f = Threat("l2", 0.25), clean_labels(3), Partial(network, WEIGHTS[3])
    # A step of no length leaves the start where it is.
    start = pgd(f, X, labels, threat, steps=1, step_size=0.0, key=KEY, best_iterate=False)
    assert (np.abs(start - X).max(axis=1) > 0).all()
    options = {"steps": 4, "step_size": 0.5 * threat.eps}
    expected = slow_pgd(lambda z: slow_network(WEIGHTS[3], z), X, labels, threat, **options, start=start)
    np.testing.assert_allclose(pgd(f, X, labels, threat, **options, key=KEY), expected, atol=1e-7)


def test_float64_inputs_are_attacked_in_float64_without_the_setting():
    assert not jax.config.jax_enable_x64
    threat, labels = Threat("linf", 0.1), clean_labels(1)
    expected = slow_pgd(
        lambda z: slow_network(WEIGHTS[1], z), X, labels, threat, steps=3, step_size=0.04, loss="squared"
    )
    found = pgd(Partial(network, WEIGHTS[1]), X, labels, threat, steps=3, step_size=0.04, loss="squared")
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_a_function_may_be_a_loss():
    def mixture(outputs, labels):
        return 0.5 * attacks.squared(outputs, labels) + 2 * attacks.cross_entropy(outputs, labels)

    def slow_mixture(outputs, labels):
        return 0.5 * slow_squared(outputs, labels) + 2 * slow_cross_entropy(outputs, labels)

    labels, threat, options = clean_labels(3), Threat("l2", 0.3), {"steps": 3, "step_size": 0.1}
    expected = slow_pgd(
        lambda z: slow_network(WEIGHTS[3], z), X, labels, threat, **options, loss=slow_mixture, best=False
    )
    found = pgd(Partial(network, WEIGHTS[3]), X, labels, threat, **options, loss=mixture, best_iterate=False)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_pgd_wins_where_a_frozen_gradient_provably_loses():
    # f = 0.1 - 4 u v at u = 0, v = 0.05: the gradient there is (-0.2, 0), which never moves v. A frozen
    # gradient reaches f >= 0.1 - 4 * 0.2 * 0.05 = 0.06 at best, the corner (0.2, 0.25) has f = -0.1.
    def f(x):
        u, v = x[:, 0] - 0.5, x[:, 1] - 0.5
        return (0.1 - 4 * u * v)[:, None]

    x, labels, threat = np.array([[0.5, 0.55]], np.float32), np.array([1]), Threat("linf", 0.2)
    frozen = np.asarray(x + np.linspace(-0.2, 0.2, 401, dtype=np.float32)[:, None] * [1, 0])
    assert f(frozen).min() > 0.059
    np.testing.assert_allclose(fgsm(f, x, labels, threat), [[0.7, 0.55]], atol=1e-6)
    found = pgd(f, x, labels, threat, steps=10)
    np.testing.assert_allclose(found, [[0.7, 0.75]], atol=1e-6)
    np.testing.assert_allclose(f(found), [[-0.1]], atol=1e-5)
    # In the Euclidean ball the best point has u = v + 0.05 less nothing: it still wins.
    assert f(pgd(f, x, labels, Threat("l2", 0.3), steps=20))[0, 0] < 0 < f(frozen).min()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.usefixtures("x64")
def test_more_steps_and_more_restarts_are_never_weaker(norm):
    threat, labels, f = Threat(norm, 2 * NORMS[norm]), clean_labels(3), Partial(network, WEIGHTS[3])

    def progress(**options):
        found = pgd(f, X, labels, threat, step_size=1.5 * threat.eps, key=KEY, **options)
        return slow_margin(slow_network(WEIGHTS[3], found), labels)

    for name, values in (("steps", (1, 2, 3, 5, 9)), ("restarts", (1, 2, 4))):
        reached = np.array([progress(**({"steps": 2} | {name: value})) for value in values])
        assert (np.diff(reached, axis=0) >= -1e-9).all()
        assert (reached[-1] > reached[0] + 1e-3).any()
    # Without best_iterate a step too long does harm: the property is not an accident.
    last = np.array([progress(steps=steps, best_iterate=False) for steps in (1, 2, 3, 5, 9)])
    assert (np.diff(last, axis=0) < -1e-3).any()


@pytest.mark.parametrize("norm", NORMS)
def test_a_larger_ball_is_not_weaker_and_as_strong_as_a_linear_function_allows(norm):
    # Of w x - b, the attack takes away eps times the dual norm of w as long as no pixel meets its bound.
    w, x = np.array([[0.5], [-1.0], [2.0]], np.float32), pixels(40, 3, low=0.4, high=0.6).astype(np.float32)
    f = Partial(shifted, w)
    outputs = x @ w - 0.75
    labels = (outputs[:, 0] > 0).astype(int)
    dual = 3.5 if norm == "linf" else np.sqrt(5.25)
    values = []
    for eps in (0.0, 0.01, 0.05, 0.1, 0.3):
        found = pgd(f, x, labels, Threat(norm, eps), steps=4)
        values.append(np.mean(slow_predicted(found @ w - 0.75) == labels))
        assert values[-1] == np.mean(np.abs(outputs[:, 0]) > eps * dual)
    assert values == sorted(values, reverse=True)
    assert values[0] == 1
    assert values[-1] == 0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.usefixtures("x64")
def test_fgsm_is_one_step_of_pgd_without_a_choice(norm):
    threat, labels, f = Threat(norm, NORMS[norm]), clean_labels(3), Partial(network, WEIGHTS[3])
    options = {"targeted": norm == "linf", "steps": 1, "best_iterate": False}
    expected = pgd(f, X, labels, threat, step_size=threat.eps, **options)
    found = fgsm(f, X, labels, threat, targeted=norm == "linf")
    np.testing.assert_array_equal(found, expected)
    # 2.5 eps, the default of a single step, is cut at the ball; in L2 the bounds may have cut it before.
    inside = ((found > 0) & (found < 1)).all(axis=1)
    np.testing.assert_allclose(pgd(f, X, labels, threat, **options)[inside], found[inside], atol=1e-7)


def test_an_attack_on_the_squared_loss_goes_the_wrong_way_where_the_margin_exceeds_one():
    x, threat = np.array([[0.25], [0.75]], np.float32), Threat("linf", 0.125)
    f = Partial(lambda x: 4 * x)  # s f = 1 and 3: the loss is flat at one and rises with f at the other
    labels = np.array([1, 1])
    np.testing.assert_array_equal(fgsm(f, x, labels, threat), [[0.125], [0.625]])
    np.testing.assert_array_equal(fgsm(f, x, labels, threat, loss="squared"), [[0.25], [0.875]])
    # The best point that it visits is then the clean one.
    np.testing.assert_array_equal(pgd(f, x, labels, threat, loss="squared"), x)


def test_a_loss_without_a_gradient_leaves_the_inputs_as_they_are():
    x, labels = X.astype(np.float32), np.ones(len(X), int)
    for norm in NORMS:
        found = pgd(Partial(lambda x: jnp.ones((len(x), 1)) + 0 * x[:, :1]), x, labels, Threat(norm, 0.1))
        np.testing.assert_array_equal(found, x)


def test_tiny_gradients_are_followed_as_far_as_large_ones():
    # 1e-30 squared is no float32 number.
    x, labels = X.astype(np.float32), np.ones(len(X), int)
    for norm in NORMS:
        small, large = (
            fgsm(Partial(linear, np.full((4, 1), scale, np.float32)), x, labels, Threat(norm, 0.1))
            for scale in (1e-30, 1)
        )
        np.testing.assert_allclose(small, large, atol=1e-6)


# Ball and bounds


def curved(w, x):
    return jnp.sin(3 * x.reshape(len(x), -1) @ w)


def blind(attack):
    return lambda x, labels, threat: attack(x, threat, key=KEY)


@keep_compiled
def exponential(a, b, get):
    return jnp.exp(a.reshape(len(a), -1) @ b.reshape(len(b), -1).T / 4)


def kernel_step(x, labels, threat):
    centers = np.linspace(0, 1, 3 * x[0].size, dtype=np.float32).reshape(3, *x.shape[1:])
    f = from_coefficients(exponential, centers, np.array([[1.0], [-2.0], [1.5]], np.float32))
    return one_step(f, x, labels, threat)


def gradient(attack, **options):
    def call(x, labels, threat):
        w = np.cos(np.arange(1, x[0].size + 1, dtype=np.float32))[:, None]
        return attack(Partial(curved, w), x, labels, threat, **options)

    return call


ATTACKS = {
    "pgd": gradient(pgd, steps=2, key=KEY),
    "fgsm": gradient(fgsm),
    "one_step": kernel_step,
    "random_sign": blind(random_sign),
    "random_uniform": blind(random_uniform),
    "square": gradient(square, key=KEY, queries=5),
}
FLAT, IMAGE = (3, 1), (2, 2, 3, 1)
SHAPES = {name: [IMAGE] for name in ATTACKS} | {"random_sign": [FLAT, IMAGE], "random_uniform": [FLAT, IMAGE]}


def check_ball_and_bounds(threat, x, attacked):
    """Differences in float64, of which squares are summed exactly: the check has no tolerance."""
    assert attacked.shape == x.shape
    assert attacked.dtype == x.dtype
    assert attacked.astype(np.float64).min() >= threat.bounds[0]
    assert attacked.astype(np.float64).max() <= threat.bounds[1]
    for before, after in zip(x.reshape(len(x), -1), attacked.reshape(len(x), -1), strict=True):
        moved = [Fraction(float(b) - float(a)) for a, b in zip(before, after, strict=True)]
        if threat.norm == "linf":
            assert max(map(abs, moved)) <= Fraction(threat.eps)
        else:
            assert sum(d**2 for d in moved) <= Fraction(threat.eps) ** 2


@st.composite
def situations(draw, shapes):
    low, high = draw(st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (-0.3, 0.7), (0.1, 2.6)]))
    # The least and the largest float32 numbers within the bounds are drawn like any other.
    nearest = [np.float32(low), np.float32(high)]
    inner = [float(b if low <= float(b) <= high else np.nextafter(b, np.float32(0.4))) for b in nearest]
    values = st.sampled_from(inner) | st.floats(*inner, width=32, allow_subnormal=False)
    x = draw(arrays(np.float32, draw(st.sampled_from(shapes)), elements=values))
    eps = draw(st.sampled_from([0.0, 1e-6, 8 / 255, 0.1, 0.25, 1.0, 5.0]))
    return x, eps, (low, high)


every_attack = pytest.mark.parametrize(
    ("norm", "name"), [(norm, name) for norm in NORMS for name in ATTACKS if (norm, name) != ("l2", "square")]
)


@every_attack
@given(data=st.data())
@settings(max_examples=12)
def test_ball_and_bounds_hold_exactly(norm, name, data):
    x, eps, bounds = data.draw(situations(SHAPES[name]))
    # No pixel goes farther than the whole range.
    threat = Threat(norm, min(eps, bounds[1] - bounds[0]) if norm == "linf" else eps, bounds)
    attacked = ATTACKS[name](x, np.arange(len(x)) % 2, threat)
    check_ball_and_bounds(threat, x, attacked)
    if eps == 0:
        np.testing.assert_array_equal(attacked, x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["random_sign", "one_step"])
def test_an_eps_whose_last_bit_is_lost_in_the_sum_is_not_exceeded(norm, name):
    # 1 - (1/4 - 2^-55) is rounded to 3/4, which is farther than eps from 1.
    eps, x = 0.35 - 0.1, np.ones((3, 1), np.float32)
    assert 0 < 0.25 - eps < 1e-16
    threat = Threat(norm, eps)
    check_ball_and_bounds(threat, x, ATTACKS[name](x, np.array([0, 1, 0]), threat))


@every_attack
def test_an_eps_of_zero_changes_nothing(norm, name):
    x = pixels(2, 2, 3, 1).astype(np.float32)
    attacked = ATTACKS[name](x, np.array([0, 1]), Threat(norm, 0.0))
    assert attacked.tobytes() == x.tobytes()


@pytest.mark.parametrize(
    ("name", "norm"),
    [("fgsm", "linf"), ("fgsm", "l2"), ("one_step", "linf"), ("random_uniform", "linf")],
)
def test_ball_and_bounds_hold_in_float64_too(norm, name):
    # Not everywhere is there a wider number than float64 to round in: to one rounding.
    x, threat = pixels(37, 4), Threat(norm, 0.1)
    attacked = ATTACKS[name](x, np.arange(37) % 2, threat)
    assert attacked.dtype == np.float64
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    length = np.linalg.norm(attacked - x, axis=1, ord=np.inf if norm == "linf" else 2)
    assert 0.05 < length.max() <= 0.1 * (1 + 1e-15)


def test_a_gradient_that_is_nan_is_no_attacked_input():
    # The square root of a black pixel: f is finite, its gradient is 0 * inf.
    def f(x):
        return jnp.where(x > 0, jnp.sqrt(x), 0).sum(axis=1, keepdims=True) - 0.3

    x, threat = np.array([[0.0, 0.25]], np.float32), Threat("linf", 0.2)
    try:
        attacked = pgd(f, x, np.array([1]), threat, steps=2)
    except ValueError as error:
        assert "NaN" in str(error)  # noqa: PT017 (either outcome is right)
    else:
        check_ball_and_bounds(threat, x, attacked)


# Batches, restarts and early stopping


@pytest.mark.parametrize(
    ("norm", "options"),
    [("linf", {"key": KEY, "restarts": 2}), ("l2", {"key": KEY}), ("l2", {"early_stop": True})],
)
@pytest.mark.usefixtures("x64")
def test_results_do_not_depend_on_the_batch(norm, options):
    threat, labels, f = Threat(norm, NORMS[norm]), clean_labels(3), Partial(network, WEIGHTS[3])
    whole = pgd(f, X, labels, threat, steps=4, **options)
    assert np.abs(whole - X).max() > threat.eps / 3
    for batch in (4, 16):
        found = pgd(f, X, labels, threat, steps=4, batch_size=batch, **options)
        np.testing.assert_allclose(found, whole, atol=1e-12)


def test_accuracies_do_not_depend_on_the_batch():
    x, labels = X.astype(np.float32), clean_labels(3)
    f = Partial(network, jax.tree.map(np.float32, WEIGHTS[3]))
    whole = attacks.robust_accuracy(f, [x, 1 - x], labels)
    assert 0 < whole.value < 1
    for batch in (4, 16):
        assert attacks.robust_accuracy(f, [x, 1 - x], labels, batch_size=batch) == whole


@pytest.mark.parametrize(
    ("norm", "n", "batch", "options"),
    [("linf", 280, 256, {}), ("l2", 37, 16, {"key": KEY, "restarts": 3})],
)
def test_early_stopping_fools_the_same_examples_by_less(norm, n, batch, options):
    # Full batches and a rest, and in every step fewer that are left.
    x = X if n == len(X) else pixels(n, 4)
    labels, threat, shapes = clean_labels(3, x), Threat(norm, NORMS[norm]), set()

    def watched(weights, x):
        shapes.add(x.shape[0])
        return network(weights, x)

    f, options = Partial(watched, WEIGHTS[3]), {"steps": 8, "step_size": threat.eps / 4} | options
    stopped = pgd(f, x, labels, threat, **options, early_stop=True, batch_size=batch)
    # The outputs of one and of two examples are asked for first.
    assert shapes == {1, 2, batch}
    all_steps = pgd(f, x, labels, threat, **options, batch_size=batch)
    right_first, success = ~fooled(3, x, labels), fooled(3, all_steps, labels)
    np.testing.assert_array_equal(fooled(3, stopped, labels), success)
    assert 0.2 < success[right_first].mean() < 0.9
    assert np.abs(stopped - x)[success].sum() < np.abs(all_steps - x)[success].sum()
    # Where it does not succeed, it does not stop.
    np.testing.assert_allclose(stopped[~success], all_steps[~success], atol=1e-12)
    if "key" not in options:
        assert (~right_first).sum() == 2
        np.testing.assert_array_equal(stopped[~right_first], x[~right_first])


def test_a_restart_leaves_alone_whom_an_earlier_one_has_fooled():
    x, labels, f = np.full(X.shape, 0.5), np.ones(len(X), int), Partial(lambda x: x[:, :1] - 0.45)
    options = {"steps": 3, "step_size": 0.1, "key": KEY, "early_stop": True}
    once = pgd(f, x, labels, Threat("linf", 0.1), **options)
    assert (once[:, 0] <= 0.45).all()
    np.testing.assert_array_equal(pgd(f, x, labels, Threat("linf", 0.1), restarts=3, **options), once)


@pytest.mark.parametrize("options", [{"early_stop": True}, {"key": KEY, "restarts": 2, "early_stop": True}])
@pytest.mark.usefixtures("x64")
def test_the_bar_ends_at_its_total(options, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, *, total, disable, **_):
            assert not disable
            self.total, self.done = total, 0
            bars.append(self)

        def update(self, n):
            self.done += n

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(_pgd, "tqdm", Bar)
    f, labels = Partial(network, WEIGHTS[3]), clean_labels(3)
    pgd(f, X, labels, Threat("l2", 0.25), steps=5, batch_size=16, progress=True, **options)
    assert bars[0].done == bars[0].total == 5 * 37 * options.get("restarts", 1)


# Losses


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", SLOW)
@pytest.mark.usefixtures("x64")
def test_losses_are_their_definitions(name, k):
    outputs, labels = 3 * np.random.default_rng(k).normal(size=(20, k)), np.arange(20) % max(2, k)
    found = getattr(attacks, name)(jnp.asarray(outputs), labels)
    np.testing.assert_allclose(found, SLOW[name](outputs, labels), rtol=1e-12, atol=1e-14)
    # NumPy arrays are as good.
    np.testing.assert_allclose(getattr(attacks, name)(outputs, labels), found, rtol=1e-12)


def test_losses_stay_finite_and_the_margin_never_saturates():
    labels = np.array([0, 1])
    outputs = jnp.array([[500.0], [-500.0]])
    np.testing.assert_array_equal(attacks.margin(outputs, labels), [500, 500])
    np.testing.assert_array_equal(attacks.cross_entropy(outputs, labels), [500, 500])
    np.testing.assert_array_equal(attacks.cross_entropy(-outputs, labels), [0, 0])
    wide = jnp.array([[-500.0, 500.0], [500.0, -500.0]])
    np.testing.assert_array_equal(attacks.cross_entropy(wide, labels), [1000, 1000])

    def slope(loss):
        return jax.grad(lambda f: loss(f, labels).sum())(-outputs)

    np.testing.assert_array_equal(slope(attacks.margin), [[1], [-1]])
    np.testing.assert_array_equal(slope(attacks.cross_entropy), [[0], [0]])


def test_ties_have_no_margin_and_count_as_predictions_do():
    np.testing.assert_array_equal(attacks.margin(jnp.zeros((2, 1)), np.array([0, 1])), [0, 0])
    np.testing.assert_array_equal(attacks.margin(jnp.ones((2, 3)), np.array([0, 2])), [0, 0])
    # An output of 0 predicts class 0: of these two inputs the second is wrong at the start, and left alone.
    f, x, labels = Partial(lambda x: x - 0.5), np.full((2, 1), 0.5, np.float32), np.array([0, 1])
    assert attacks.robust_accuracy(lambda x: jnp.asarray(x) - 0.5, x, labels).value == 0.5
    found = pgd(f, x, labels, Threat("linf", 0.25), early_stop=True)
    assert found[0, 0] > 0.5
    assert found[1, 0] == 0.5
    # Of several outputs the first of the largest predicts.
    found = pgd(
        Partial(lambda x: jnp.concatenate([x, 1 - x], 1)), x, labels, Threat("linf", 0.25), early_stop=True
    )
    assert found[0, 0] < 0.5
    assert found[1, 0] == 0.5


# Controls


def test_signs_are_fair_coins_of_full_size():
    x, threat = np.full((50, 100), 0.5, np.float32), Threat("linf", 0.25)
    moved = random_sign(x, threat, key=KEY) - x
    np.testing.assert_array_equal(np.abs(moved), 0.25)
    up = moved > 0
    assert scipy.stats.binomtest(int(up.sum()), up.size).pvalue > 1e-3
    # Nor do neighbors, or one pixel of two inputs, agree more often than not.
    for agree in (up[:, 1:] == up[:, :-1], up[1:] == up[:-1]):
        assert scipy.stats.binomtest(int(agree.sum()), agree.size).pvalue > 1e-3
    # Between bounds, a sign goes as far as they allow.
    cut = random_sign(x, Threat("linf", 0.25, (0.4375, 0.6875)), key=KEY)
    np.testing.assert_array_equal(np.unique(cut), [0.4375, 0.6875])


@pytest.mark.parametrize(("control", "norm"), [(random_sign, "linf"), (random_uniform, "l2")])
def test_controls_depend_on_the_key_alone(control, norm):
    x, threat = np.full((3000, 3), 0.5, np.float32), Threat(norm, 0.25)
    first = control(x, threat, key=KEY)
    np.testing.assert_array_equal(control(x, threat, key=jax.random.key(0)), first)
    assert (first != control(x, threat, key=jax.random.key(1))).mean() > (0.99 if norm == "l2" else 0.4)
    assert len(np.unique(first, axis=0)) == (3000 if norm == "l2" else 8)


def test_random_directions_have_full_length_and_no_preference():
    # Archimedes: a coordinate of a random direction in three dimensions is uniform.
    x, threat = np.full((3000, 3), 0.5, np.float32), Threat("l2", 0.25)
    moved = random_sign(x, threat, key=KEY) - x
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 0.25, rtol=1e-6)
    for coordinate in moved.T:
        assert scipy.stats.kstest(coordinate, "uniform", (-0.25, 0.5)).pvalue > 1e-3


def test_uniform_points_of_a_cube_are_uniform():
    x, threat = np.full((3000, 3), 0.5, np.float32), Threat("linf", 0.25)
    moved = (random_uniform(x, threat, key=KEY) - x).astype(np.float64)
    assert scipy.stats.kstest(moved.ravel(), "uniform", (-0.25, 0.5)).pvalue > 1e-3
    # The mean of n uniform numbers on (-1/4, 1/4) is 0 +- 1/4 / sqrt(3 n), their variance 1/48.
    assert abs(moved.mean()) < 4 * 0.25 / np.sqrt(3 * moved.size)
    np.testing.assert_allclose(moved.var(), 1 / 48, rtol=0.05)


def start_of_pgd(x, threat, *, key):
    f = Partial(lambda x: x.reshape(len(x), -1)[:, :1])
    return pgd(f, x, np.ones(len(x), int), threat, steps=1, step_size=0.0, key=key, best_iterate=False)


@pytest.mark.parametrize("draw", [random_uniform, start_of_pgd])
def test_uniform_points_of_a_ball_are_uniform(draw):
    # The share of a ball's volume within radius r is (r / eps)^d.
    x, threat = np.full((3000, 3), 0.5, np.float32), Threat("l2", 0.25)
    moved = (draw(x, threat, key=KEY) - x).astype(np.float64)
    radius = np.linalg.norm(moved, axis=1)
    assert scipy.stats.kstest((radius / 0.25) ** 3, "uniform").pvalue > 1e-3
    for coordinate in (moved / radius[:, None]).T:
        assert scipy.stats.kstest(coordinate, "uniform", (-1, 2)).pvalue > 1e-3
        assert abs(np.corrcoef(radius, coordinate)[0, 1]) < 4 / np.sqrt(3000)


def test_starts_of_pgd_are_uniform_in_the_cube_and_differ_between_keys_and_places():
    x, threat = np.full((3000, 3), 0.5, np.float32), Threat("linf", 0.25)
    start = start_of_pgd(x, threat, key=KEY)
    assert scipy.stats.kstest((start - x).ravel(), "uniform", (-0.25, 0.5)).pvalue > 1e-3
    assert len(np.unique(start, axis=0)) == 3000
    assert (start != start_of_pgd(x, threat, key=jax.random.key(1))).mean() > 0.99


def falling(outputs, labels):
    return -jnp.tanh((2 * labels - 1) * outputs[:, 0])


def test_the_formula_for_kernels_is_fgsm_on_any_loss_of_one_output():
    x_train, x = pixels(2, 12, 3, 3, 1).astype(np.float32)
    f = from_coefficients(exponential, x_train, np.random.default_rng(0).normal(size=(12, 1)), batch_size=5)
    labels, threat = np.arange(12) % 2, Threat("linf", 0.1)
    step = one_step(f, x, labels, threat, batch_size=8)
    np.testing.assert_allclose(fgsm(f, x, labels, threat, loss=falling), step, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_the_formula_for_kernels_is_the_slow_step():
    x_train, x = pixels(2, 8, 6)
    alpha, labels = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 3
    f = from_coefficients(exponential, x_train, alpha)
    for norm, eps in NORMS.items():
        threat, options = Threat(norm, eps), {"steps": 1, "step_size": eps, "loss": "cross_entropy"}
        expected = slow_pgd(
            lambda z: np.exp(z @ x_train.T / 4) @ alpha, x, labels, threat, **options, best=False
        )
        np.testing.assert_allclose(one_step(f, x, labels, threat), expected, atol=1e-6)


# Accuracy under attack, and other libraries' view


def test_robust_accuracy_is_that_of_the_worst_of_all_attacks():
    # Right: rows of an example, columns of three attacks. By hand, example 0 and 3 survive.
    outputs = np.array([[1, 2, 3], [1, -1, 2], [-1, 1, 1], [0.5, 0.1, 9]], np.float32)
    labels = np.array([1, 1, 1, 1])
    three = [outputs[:, [j]] for j in range(3)]

    def identity(x):
        return jnp.asarray(x)

    found = attacks.robust_accuracy(identity, three, labels, level=0.9)
    assert found.value == 0.5
    assert found == accuracy(outputs.min(axis=1, keepdims=True), labels, level=0.9)
    assert attacks.robust_accuracy(identity, three[2], labels) == accuracy(three[2], labels)
    assert attacks.robust_accuracy(identity, tuple(three[1:]), labels).value == 0.75
    # With classes in place of signs, and labels of both kinds.
    mixed = np.array([1, 0, 0, 1])
    worst = np.all([(one[:, 0] > 0) == mixed for one in three], axis=0).mean()
    for classes in (lambda x: jnp.concatenate([-x, x], 1), lambda x: jnp.concatenate([-x, x, x - 9], 1)):
        assert attacks.robust_accuracy(classes, three, mixed).value == worst == 0.5


@pytest.mark.parametrize("k", [1, 2])
def test_robust_accuracy_of_a_function_of_numpy_arrays(k):
    def f(x):
        assert isinstance(x, np.ndarray)
        return np.concatenate([0.5 - x, x - 0.5], axis=1)[:, 2 - k :]

    x, labels = np.array([[0.6], [0.4], [0.7]], np.float32), np.array([1, 1, 1])
    assert attacks.robust_accuracy(f, x, labels).value == 2 / 3
    assert attacks.robust_accuracy(f, [x, 1 - x], labels).value == 0
    assert attacks.robust_accuracy(f, [x, x + 0.05], labels, batch_size=2).value == 2 / 3


def test_two_logits_have_the_classes_the_loss_and_the_margin_of_one_output():
    outputs, labels = jnp.asarray(6 * pixels(30, 1) - 3, jnp.float32), np.arange(30) % 2
    logits = attacks.two_logits(lambda x: x)(outputs)
    assert logits.shape == (30, 2)
    np.testing.assert_array_equal(logits.argmax(axis=1), outputs[:, 0] > 0)
    for loss in (slow_margin, slow_cross_entropy):
        one, two = (loss(np.asarray(f, np.float64), labels) for f in (outputs, logits))
        np.testing.assert_allclose(two, one, rtol=1e-6, atol=1e-7)
    f = attacks.two_logits(Partial(network, jax.tree.map(np.float32, WEIGHTS[1])))
    np.testing.assert_allclose(
        jax.jit(lambda f, x: f(x))(f, X.astype(np.float32)),
        slow_network(WEIGHTS[1], X) * [-0.5, 0.5],
        atol=1e-5,
    )


# Functions under attack


def test_a_partial_keeps_its_compiled_code():
    traces = []

    def apply(w, x):
        traces.append(x.shape)
        return jnp.tanh(x @ w)

    x, labels = X.astype(np.float32), np.ones(len(X), int)

    def calls(w):
        f = Partial(apply, w)
        first = pgd(f, x, labels, Threat("linf", 0.1), steps=3)
        second = pgd(f, x, labels, Threat("linf", 0.2, (-1.0, 2.0)), steps=5, step_size=0.01)
        stopped = pgd(f, x, labels, Threat("linf", 0.1), early_stop=True)
        fgsm(f, x, labels, Threat("linf", 0.1))
        attacks.robust_accuracy(f, [first, second, stopped], np.append(labels[1:], 0), batch_size=37)
        return first

    def batches():
        # One example is the check of the outputs' shape, which computes nothing.
        return [shape for shape in traces if shape[0] > 1]

    w = pixels(4, 1, low=1, high=2).astype(np.float32)
    down = calls(w)
    count = len(batches())
    assert count > 0
    up = calls(-w)
    assert len(batches()) == count
    np.testing.assert_allclose(down, np.maximum(x - 0.1, 0), atol=1e-6)
    np.testing.assert_allclose(up, np.minimum(x + 0.1, 1), atol=1e-6)


def test_a_variable_that_a_function_reads_may_change_between_calls():
    x, labels, threat = pixels(2, 2, 3, 1, low=0.2, high=0.8).astype(np.float32), np.ones(2, int), LINF
    read = {}

    def f(x):
        return 10 + read["scale"] * x.reshape(len(x), -1).sum(axis=1, keepdims=True)

    for scale in (1, -1):
        read["scale"] = scale
        np.testing.assert_allclose(fgsm(f, x, labels, threat), x - 0.1 * scale, atol=1e-6)
    for scale in (1, -100):
        read["scale"] = scale
        assert attacks.robust_accuracy(f, x, labels).value == (scale > 0)


@pytest.mark.usefixtures("x64")
def test_a_network_of_companion_is_attacked_as_by_the_slow_oracle():
    net, x = fc(1, width=16), pixels(3, 2, 2, 1)
    params, apply = jax.jit(net.init)(KEY, x), jax.jit(net.apply)
    labels, threat = slow_predicted(np.asarray(apply(params, x))), Threat("l2", 0.5)
    expected = slow_pgd(lambda z: np.asarray(apply(params, z)), x, labels, threat, steps=2, step_size=0.3)
    found = pgd(Partial(net.apply, params), x, labels, threat, steps=2, step_size=0.3)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_a_flax_network_is_attacked_as_by_the_slow_oracle():
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            hidden = nn.tanh(nn.Dense(8, param_dtype=float)(x.reshape(len(x), -1)))
            return nn.Dense(3, param_dtype=float)(hidden)

    net, x = Network(), pixels(3, 2, 2, 1)
    variables, apply = jax.jit(net.init)(KEY, x), jax.jit(net.apply)
    labels, threat = slow_predicted(np.asarray(apply(variables, x))), Threat("linf", 0.2)
    options = {"steps": 3, "step_size": 0.1, "loss": "cross_entropy"}
    expected = slow_pgd(lambda z: np.asarray(apply(variables, z)), x, labels, threat, **options)
    found = pgd(Partial(net.apply, variables), x, labels, threat, **options)
    np.testing.assert_allclose(found, expected, atol=1e-6)


# Errors


def first_pixel(x):
    return x.reshape(len(x), -1)[:, :1]


HALF, GRAY, ONES = np.full((3, 2), 0.5, np.float32), np.full((3, 2, 2, 1), 0.5, np.float32), np.ones(3, int)
LINF, L2 = Threat("linf", 0.1), Threat("l2", 0.1)
KERNEL = from_coefficients(lambda a, b, get: a @ b.T, HALF, np.ones((3, 1)))


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    assert_refused(
        [
            (lambda: Threat("l3", 0.1), "norm must be 'linf', 'l2' or 'l1', got 'l3'"),
            (lambda: Threat("linf", -0.1), "eps must be at least 0.0, got -0.1"),
            (lambda: Threat("linf", np.inf), "eps must be finite"),
            (lambda: Threat("linf", np.nan), "eps must be at least 0.0, got nan"),
            (lambda: Threat("linf", "8/255"), "eps must be a number, got '8/255'"),
            (lambda: pgd(3, HALF, ONES, LINF), r"predict must be a function of inputs \(m, ...\), got 3"),
            (
                lambda: pgd(mlp(2), HALF, ONES, LINF),
                r"got Model: give networks.predict_fn\(predict, variables\)",
            ),
            (
                lambda: pgd(nn.Dense(2), HALF, ONES, LINF),
                "a Flax module without variables: give networks.pre",
            ),
            (lambda: pgd(lambda x: np.asarray(x)[:, :1], HALF, ONES, LINF), "write it with jax.numpy"),
            (lambda: random_uniform(HALF > 0, LINF, key=KEY), "x must be float32 or float64, got bool"),
            (lambda: random_sign(HALF[0], LINF, key=KEY), r"x must be a batch \(n, ...\)"),
            (lambda: pgd(first_pixel, HALF * np.nan, ONES, LINF), "x has 6 NaN or infinite entries"),
            (
                lambda: pgd(first_pixel, HALF.astype(int), ONES, LINF),
                "x must be float32 or float64, got int64",
            ),
            (
                lambda: pgd(lambda x: x[:, 0], HALF, ONES, LINF),
                r"predict must return .*add an axis, outputs\[:, N",
            ),
            (
                lambda: pgd(lambda x: x.sum(), HALF, ONES, LINF),
                r"predict must return outputs .* got \(\) for one",
            ),
            (
                lambda: pgd(lambda x: (x, x), HALF, ONES, LINF),
                "predict must return outputs .* got None for one",
            ),
            (lambda: pgd(first_pixel, HALF, ONES, LINF, restarts=2), "restarts must be 1 without a key"),
            (lambda: pgd(first_pixel, HALF, ONES, LINF, restarts=0, key=KEY), "restarts must be at least 1"),
            (
                lambda: pgd(first_pixel, HALF, ONES, LINF, early_stop=True, best_iterate=False),
                "early_stop must be False without best_iterate",
            ),
            (lambda: pgd(first_pixel, HALF, ONES, LINF, steps=0), "steps must be at least 1, got 0"),
            (lambda: pgd(first_pixel, HALF, ONES, LINF, steps=2.5), "steps must be an integer, got 2.5"),
            (
                lambda: pgd(first_pixel, HALF, ONES, LINF, steps=3, step_size=[0.1, 0.2]),
                "step_size must be a number or one for each of 3 steps, got shape .2,.",
            ),
            (
                lambda: pgd(first_pixel, HALF, ONES, LINF, step_size=-0.1),
                "step_size must be at least 0.0, got -0.1",
            ),
            (
                lambda: pgd(first_pixel, HALF, ONES, LINF, batch_size=0),
                "batch_size must be at least 1",
            ),
            (
                lambda: pgd(first_pixel, HALF, ONES, LINF, loss="hinge"),
                r"loss must be one of \['cross_entropy', 'dlr', 'margin', 'squared'\] or .*, got 'hinge'",
            ),
            (
                lambda: pgd(lambda x: first_pixel(x) * jnp.nan, HALF, ONES, LINF),
                "predict returned NaN for 3 of 3 examples",
            ),
            (
                lambda: fgsm(lambda x: jnp.log(first_pixel(x) - 0.7), HALF, ONES, LINF),
                "predict returned NaN for 3 of 3",
            ),
            (
                lambda: one_step(len, HALF, ONES, LINF),
                "f must come from regression.fit",
            ),
            (
                lambda: one_step(KERNEL, HALF, ONES, LINF, batch_size=0),
                "batch_size must be at least 1",
            ),
            (
                lambda: square(first_pixel, GRAY, ONES, L2, key=KEY),
                "images of 5 × 5 pixels at least for the L2 attack",
            ),
            (
                lambda: square(first_pixel, HALF, ONES, LINF, key=KEY),
                r"x must be images \(m, h, w, c\) .* \(3, 2\)",
            ),
            (
                lambda: square(first_pixel, GRAY, ONES, LINF, key=KEY, queries=0),
                "queries must be at least 1, got 0",
            ),
            (lambda: square(first_pixel, GRAY, ONES, LINF, key=KEY, loss="hinge"), "loss must be one of"),
            (
                lambda: attacks.robust_accuracy(first_pixel, [], ONES),
                "attacked must hold at least one array, got none",
            ),
            (
                lambda: attacks.robust_accuracy(first_pixel, HALF, ONES, batch_size=0),
                "batch_size must be at least 1",
            ),
            (
                lambda: attacks.robust_accuracy(first_pixel, HALF, ONES, level=1.0),
                r"level must lie in \(0, 1\)",
            ),
            (
                lambda: attacks.robust_accuracy(first_pixel, [HALF, HALF[:2]], ONES),
                r"labels must have shape \(2,\), got \(3,\)",
            ),
            (
                lambda: attacks.robust_accuracy(first_pixel, HALF.astype(int), ONES),
                "x must be float32 or float64",
            ),
            (lambda: attacks.two_logits(lambda x: x)(HALF), r"predict must have one output, got \(2,\)"),
        ]
    )


def test_the_order_of_the_attacks_does_not_matter_to_the_last_bit():
    # A difference that float32 does not see decides which class is the largest.
    wrong, right = np.array([[1.0, 1.0 + 1e-10, 0.0]]), np.array([[1.0, 1.0, 0.0]])
    for order in ([wrong, right], [right, wrong]):
        assert attacks.robust_accuracy(lambda x: x, order, np.array([0])).value == 0
    assert attacks.robust_accuracy(lambda x: x, [right], np.array([0])).value == 1


def test_random_starts_are_never_weaker_than_no_attack():
    x = np.full((3, 1), 0.5, np.float32)

    def valley(x):
        return jnp.abs(x - 0.5) - 1e-4

    attacked = pgd(valley, x, np.ones(3, int), Threat("linf", 0.3), steps=3, key=jax.random.key(0))
    np.testing.assert_array_equal(attacked, x)


def test_the_square_attack_names_nan():
    x = np.full((2, 2, 2, 1), 0.5, np.float32)
    with pytest.raises(ValueError, match="predict returned NaN"):
        square(
            lambda x: x.mean((1, 2)) * jnp.nan, x, np.ones(2, int), Threat("linf", 0.1), key=jax.random.key(0)
        )


def test_random_points_are_what_jax_draws_of_their_shapes():
    # Drawn in one row. Recorded runs start from these.
    keys, shape = jax.random.split(jax.random.key(0), 2), (4, 3, 2)
    x, one = jnp.zeros((2, *shape)), np.ones((2, *shape))
    by_key = {
        "uniform": jax.vmap(lambda key: 2 * jax.random.uniform(key, shape) - 1)(keys),
        "normal": jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), shape))(keys),
    }
    found = geometry.start("linf", 0.5, keys, x, -one, one)
    np.testing.assert_array_equal(found, 0.5 * by_key["uniform"])
    found, drawn = np.asarray(geometry.start("l2", 0.5, keys, x, -one, one)), np.asarray(by_key["normal"])
    length = np.linalg.norm(found.reshape(2, -1), axis=1), np.linalg.norm(drawn.reshape(2, -1), axis=1)
    np.testing.assert_allclose(found, drawn * (length[0] / length[1])[:, None, None, None], rtol=1e-5)
    np.testing.assert_array_equal(geometry.signs(keys[0], shape), jax.random.bernoulli(keys[0], 0.5, shape))
