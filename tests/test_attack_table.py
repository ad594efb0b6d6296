"""What every attack must show, as one table: a row for each attack, a column for each property.

A new attack without a row fails, and so does a row without an answer: a property that an attack cannot have
is named with its reason.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from companion import attacks
from companion.attacks import Threat, apgd, autoattack, fab, fgsm, pgd, robust_curve, square

KEY = jax.random.key(0)
RNG = np.random.default_rng(3)
X = RNG.uniform(0.25, 0.75, (8, 5, 5, 1)).astype(np.float32)
X[0, :2], X[1, :2] = 0, 1  # the bounds cut what an attack may do there


def within(found, x, eps):
    return np.where(found.fooled(eps).reshape(-1, 1, 1, 1), found.attacked, x)


def by_fab(f, x, labels, threat, steps=12):
    found = fab(f, x, labels, norm=threat.norm, steps=steps, batch_size=8)
    return within(found, x, threat.eps)


def by_autoattack(f, x, labels, threat, steps=20):
    version = ("apgd-ce", "square")
    return autoattack(f, x, labels, threat, key=KEY, version=version, queries=steps, batch_size=8).attacked


ATTACKS = {
    "fgsm": fgsm,
    "pgd": lambda *given, steps=12, **more: pgd(*given, steps=steps, step_size=0.05, key=KEY, **more),
    "apgd": lambda *given, steps=12, **more: apgd(*given, steps=steps, key=KEY, batch_size=8, **more),
    "fab": by_fab,
    "square": lambda *given, steps=40: square(*given, key=KEY, queries=steps, rescaled=False),
    "autoattack": by_autoattack,
}
ONE_STEP = "has one step"
NO_RESTARTS = "has no restarts"
RANDOM = "searches at random, and need not find all"
# Where a property cannot hold, why.
EXEMPT = {
    ("linear", "square"): RANDOM,
    ("curved", "fgsm"): ONE_STEP,
    ("steps", "fgsm"): ONE_STEP,
    **{("restarts", name): NO_RESTARTS for name in ("fgsm", "fab", "square", "autoattack")},
}


def sines(weights, x):
    first, second = weights
    return jnp.sin(x.reshape(len(x), -1) @ first) @ second


def network(k):
    rng = np.random.default_rng(k)
    weights = 6 * rng.normal(size=(25, 16)) / 5, rng.normal(size=(16, k))
    return Partial(sines, jax.tree.map(lambda one: jnp.asarray(one, jnp.float32), weights))


def classes(f, x):
    outputs = np.asarray(f(x))
    return (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(axis=1)


def left(f, attacked, labels):
    return float((classes(f, attacked) == labels).mean())


def curved(attack):
    # f = 0.1 - 4 u v at u = 0, v = 0.05, so that a frozen gradient reaches 0.06 at best: see test_attacks.
    x = np.full((1, 5, 5, 1), 0.5, np.float32)
    x[0, 0, 1] = 0.55
    f = Partial(lambda x: 0.1 - 4 * (x[:, 0, 0] - 0.5) * (x[:, 0, 1] - 0.5))
    labels, threat = np.array([1]), Threat("linf", 0.2)
    assert left(f, fgsm(f, x, labels, threat), labels) == 1
    assert left(f, attack(f, x, labels, threat), labels) == 0


def ball_and_box(attack):
    f = network(3)
    labels = classes(f, X)
    for norm, eps in (("linf", 0.05), ("l2", 0.3)):
        attacked = attack(f, X, labels, Threat(norm, eps))
        delta = (attacked.astype(float) - X).reshape(8, -1)
        assert np.linalg.norm(delta, np.inf if norm == "linf" else 2, axis=1).max() <= eps
        assert attacked.dtype == X.dtype
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        assert (attacked != X).any()


def eps_zero(attack):
    f = network(3)
    for norm in ("linf", "l2"):
        assert attack(f, X, classes(f, X), Threat(norm, 0.0)).tobytes() == X.tobytes()


def eps(attack):
    f = network(1)
    shares = [left(f, attack(f, X, classes(f, X), Threat("linf", size)), classes(f, X)) for size in SIZES]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1
    assert shares[-1] < 1


def more(attack, option, values, size=0.03):
    f = network(3)
    labels = classes(f, X)
    shares = [left(f, attack(f, X, labels, Threat("linf", size), **{option: n}), labels) for n in values]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 1


def linear(attack):
    # Of a line the worst point of ball and box is known: each pixel goes as far as it may, by itself.
    rng = np.random.default_rng(14)
    w, b, size = rng.normal(size=25), 0.1, 0.05
    f = Partial(lambda w, x: x.reshape(len(x), -1) @ w[:, None] + b, jnp.asarray(w, jnp.float32))
    labels, flat = classes(f, X), X.reshape(8, 25).astype(float)
    way = np.where(labels, -1, 1)[:, None] * np.sign(w)
    worst = np.clip(flat + size * way, 0, 1) @ w + b
    lost = (worst > 0) != labels
    assert np.abs(worst).min() > 0.3
    assert lost.sum() == 4
    attacked = attack(f, X, labels, Threat("linf", size))
    np.testing.assert_array_equal(classes(f, attacked) != labels, lost)


def nan_in_the_ball(attack):
    # Finite at the inputs, and nowhere else: an attack that finds nothing there has not looked.
    x = np.full((2, 5, 5, 1), 0.5, np.float32)

    def f(x):
        far = jnp.abs(x - 0.5).reshape(len(x), -1).max(axis=1, keepdims=True) > 1e-3
        return jnp.where(far, jnp.nan, x.reshape(len(x), -1).mean(axis=1, keepdims=True) - 0.47)

    with pytest.raises(ValueError, match="NaN"):
        attack(Partial(f), x, np.ones(2, int), Threat("linf", 0.05))


def outputs(attack, k):
    f = network(k)
    labels = classes(f, X)
    attacked = attack(f, X, labels, Threat("linf", 0.1))
    assert attacked.shape == X.shape
    assert left(f, attacked, labels) < 0.5


def nan(attack):
    with pytest.raises(ValueError, match="NaN"):
        attack(jax.tree.map(lambda one: one * jnp.nan, network(3)), X, np.zeros(8, int), Threat("linf", 0.1))


def wrong_already(attack):
    f, threat = network(3), Threat("linf", 0.05)
    labels = (classes(f, X) + 1) % 3
    attacked = attack(f, X, labels, threat)
    assert left(f, attacked, labels) == 0
    assert np.abs(attacked.astype(float) - X).max() <= threat.eps


SIZES = (0.0, 0.01, 0.05, 0.2)
PROPERTIES = {
    "curved": curved,
    "ball and box": ball_and_box,
    "eps = 0": eps_zero,
    "eps": eps,
    "steps": lambda attack: more(attack, "steps", (1, 4, 40)),
    "restarts": lambda attack: more(
        lambda *given, **options: attack(*given, steps=2, **options), "restarts", (1, 3, 9)
    ),
    **{f"k = {k}": lambda attack, k=k: outputs(attack, k) for k in (1, 2, 3, 4, 10)},
    "linear": linear,
    "nan": nan,
    "nan in the ball": nan_in_the_ball,
    "wrong already": wrong_already,
}
# One output is the column of eps, three are most others'; two and ten are compiled for the matrix alone.
RARE = {"k = 1", "k = 2", "k = 3", "k = 10"}
CELLS = [
    pytest.param(column, row, id=f"{row}-{column}", marks=[pytest.mark.matrix] if column in RARE else [])
    for column in PROPERTIES
    for row in ATTACKS
    if (column, row) not in EXEMPT
]


@pytest.mark.parametrize(("column", "row"), CELLS)
def test_every_attack_has_every_property(column, row):
    PROPERTIES[column](ATTACKS[row])


def test_every_attack_of_a_function_has_a_row():
    public = {
        name
        for name in attacks.__all__
        if inspect.isfunction(one := getattr(attacks, name))
        and list(inspect.signature(one).parameters)[:3] == ["predict", "x", "labels"]
    }
    assert public - {"sanity_checks"} == set(ATTACKS)  # which attacks with what it is given
    assert {row for _, row in EXEMPT} <= set(ATTACKS)
    assert {column for column, _ in EXEMPT} <= set(PROPERTIES)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_curve_of_smallest_perturbations_has_the_properties_that_a_curve_can_have(norm):
    f, sizes = network(3), [0.0, 0.01, 0.1, 1.0]
    labels = classes(f, X)
    found = fab(f, X, labels, norm=norm, steps=12, batch_size=8)
    curve = robust_curve(found, sizes).value
    assert curve[0] == 1
    assert (np.diff(curve) <= 0).all()
    assert curve[-1] < 1
    for size, value in zip(sizes, curve, strict=True):
        assert value == left(f, within(found, X, size), labels)
    wrong = fab(f, X, (labels + 1) % 3, norm=norm, steps=12, batch_size=8)
    assert not robust_curve(wrong, sizes).value.any()
    bad = attacks.Smallest(found.attacked, found.distance * np.float32(np.nan))
    with pytest.raises(ValueError, match="NaN"):
        robust_curve(bad, sizes)
