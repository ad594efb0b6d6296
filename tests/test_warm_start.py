"""Schedules of attacks: against the plain loop, by crafted kernels, and continued after a stop."""

import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from jax.tree_util import Partial
from refusals import assert_refused

from companion import warm_start
from companion.attacks import Threat, free_training, training_attack
from companion.dynamics import distances
from companion.networks import mlp
from companion.training import Probe, Run, Switch, train

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(60, 6)).astype(np.float32)
Y = (X.sum(axis=1) > 3).astype(int) + (X[:, 0] > 0.7)
MODEL = mlp(3, depth=1, width=16)
LINF = Threat("linf", 0.1)
PGD = training_attack(LINF, steps=3)
OPTIONS = {"epochs": 4, "optimizer": optax.sgd(0.1, momentum=0.9), "key": jax.random.key(5), "batch_size": 20}


def same(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), one, other))


def scheduled(until):
    """The same schedule as one attack that looks at the clock."""
    return Partial(
        lambda predict, x, labels, key, epoch: jnp.where(
            epoch < until - 1e-6, x, PGD(predict, x, labels, key, epoch)
        )
    )


@pytest.mark.parametrize("until", [1, 2, 2.5])
def test_clean_first_is_clean_and_then_attacked(until):
    records = {"record": (0, 1, 2, 2.5, 3, 4)}
    until = round(until * 3) / 3
    run = train(MODEL, X, Y, attack=warm_start.clean_first(PGD, until=until), **OPTIONS, **records)
    wanted = train(MODEL, X, Y, attack=scheduled(until), **OPTIONS, **records)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        run.variables[0],
        wanted.variables[0],
    )
    assert run.switched == pytest.approx(until)


def test_a_switch_at_the_start_is_the_second_attack_and_one_never_made_the_first():
    always = train(MODEL, X, Y, attack=warm_start.clean_first(PGD, until=0), **OPTIONS)
    never = train(MODEL, X, Y, attack=warm_start.clean_first(PGD, until=5), **OPTIONS)
    assert same(always.variables, train(MODEL, X, Y, attack=PGD, **OPTIONS).variables)
    assert same(never.variables, train(MODEL, X, Y, **OPTIONS).variables)
    assert (always.switched, never.switched) == (0.0, None)


def along(speeds):
    """A path of 2×2 kernels with these velocities: its distance grows as one minus a cosine."""
    angles = np.concatenate([[0], np.cumsum(np.arccos(1 - np.asarray(speeds, float)))])
    return [np.diag([math.cos(a), math.sin(a)]) for a in angles]


def run_of(kernels):
    r = len(kernels)
    return Run(((), ()), np.arange(r, dtype=float), *(np.zeros(r) for _ in range(5)), kernels, {})


@pytest.mark.parametrize(("fraction", "at"), [(0.6, 3), (0.3, 4), (0.15, 5), (0.05, None)])
def test_the_rule_waits_for_the_velocity_to_fall(fraction, at):
    # Velocities .01, .02, .01, .005, .002 between records 0 to 5.
    kernels = along([0.01, 0.02, 0.01, 0.005, 0.002])
    np.testing.assert_allclose(np.diag(distances(kernels), 1), [0.01, 0.02, 0.01, 0.005, 0.002], rtol=1e-9)
    rule = warm_start.settled(fraction=fraction)
    rings = [i for i in range(6) if rule(run_of(kernels[: i + 1]))]
    assert (rings[0] if rings else None) == at


def test_the_rule_reads_the_probe_of_training():
    rule = warm_start.settled(fraction=0.5)
    run = train(
        MODEL, X, Y, attack=warm_start.clean_first(PGD, until=rule), probe=Probe(X[:8], "trace"), **OPTIONS
    )
    speeds = np.diag(distances(run.kernels), 1)
    slow = [i + 1 for i in range(1, 4) if speeds[i] <= 0.5 * speeds[: i + 1].max()]
    assert run.switched == (slow[0] if slow else None)
    assert (np.diff(run.probe_seconds) > 0).all()


def test_a_stopped_run_remembers_its_switch(tmp_path):
    attack = warm_start.clean_first(PGD, until=2)
    whole = train(MODEL, X, Y, attack=attack, **OPTIONS)
    train(MODEL, X, Y, attack=attack, folder=tmp_path, **OPTIONS | {"epochs": 3})
    rest = train(MODEL, X, Y, attack=attack, folder=tmp_path, **OPTIONS)
    assert same(rest.variables, whole.variables)
    assert rest.switched == 2
    for other in (warm_start.clean_first(PGD, until=3), PGD, Switch(PGD, None, warm_start.after(2))):
        with pytest.raises(ValueError, match="holds a run with other attack"):
            train(MODEL, X, Y, attack=other, folder=tmp_path, **OPTIONS)


@pytest.mark.parametrize(("epoch", "steps"), [(0, 1), (1, 4), (2, 7), (3, 10), (9, 10), (math.inf, 10)])
def test_growing_steps_are_pgd_of_that_many(epoch, steps):
    network = MODEL.init(jax.random.key(0), X)
    f = lambda x: MODEL.apply(*network, x, False)[0]  # noqa: E731
    attack = warm_start.growing_steps(LINF, 10, until=3)
    found = attack(f, X, Y, jax.random.key(1), epoch)
    wanted = training_attack(LINF, steps=steps)(f, X, Y, jax.random.key(1), epoch)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_growing_steps_train_as_the_attacks_that_they_are():
    # Of one epoch: one step until its end, then three.
    grown = train(MODEL, X, Y, attack=warm_start.growing_steps(LINF, 3, until=1), **OPTIONS | {"epochs": 2})
    clock = Partial(
        lambda predict, x, labels, key, epoch: training_attack(LINF, steps=1)(predict, x, labels, key, epoch)
    )
    first = train(MODEL, X, Y, attack=clock, **OPTIONS | {"epochs": 1, "record": [0, 1 / 3]})
    same_start = train(
        MODEL, X, Y, attack=warm_start.growing_steps(LINF, 3, until=9), **OPTIONS | {"epochs": 1}
    )
    assert same(first.variables, same_start.variables)
    assert not same(grown.variables, first.variables)


def test_when_a_level_is_reached():
    seconds, robust = [1, 2, 4, 5], [0.2, 0.4, 0.6, 0.5]
    assert warm_start.seconds_to(seconds, robust, 0.2) == 1
    assert warm_start.seconds_to(seconds, robust, 0.5) == 3
    assert warm_start.seconds_to(seconds, robust, 0.61) == math.inf
    assert warm_start.robust_within(seconds, robust, 3) == pytest.approx(0.5)
    assert warm_start.robust_within(seconds, robust, 100) == 0.5


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_pareto_front_by_its_definition(points):
    found = warm_start.pareto(*(np.array(column, float) for column in zip(*points, strict=True)))
    for i, (t, r) in enumerate(points):
        beaten = any(a <= t and b >= r and (a, b) != (t, r) for a, b in points)
        assert found[i] != beaten


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments():
    assert_refused(
        [
            (lambda: warm_start.settled(fraction=1), "fraction must be below 1, got 1"),
            (lambda: warm_start.growing_steps(LINF, 10, until=0), "until must be more than 0"),
            (lambda: warm_start.seconds_to([2, 1], [0, 1], 0.5), "seconds must not decrease"),
            (lambda: warm_start.pareto([1], [1, 2]), r"of one length, got \(1,\) and \(2,\)"),
            (
                lambda: train(
                    MODEL, X, Y, attack=warm_start.clean_first(PGD, until=warm_start.settled()), **OPTIONS
                ),
                "the rule needs kernels: give train a probe",
            ),
            (
                lambda: train(MODEL, X, Y, attack=free_training(LINF, replays=2), clean_too=True, **OPTIONS),
                "free training takes neither clean_too nor a penalty",
            ),
        ],
        ValueError,
    )


def test_the_cosine_of_steps_is_that_of_gradients_by_hand():
    weights, labels = np.asarray(RNG.normal(size=(6, 3)), np.float32), Y[:20]

    def gradient(x):
        outputs = np.exp(x @ weights)
        errors = outputs / outputs.sum(axis=1, keepdims=True) - np.eye(3)[labels]
        return (x.T @ errors).ravel()

    shift = Partial(lambda predict, x, labels, key, epoch: x - 0.5 * jnp.sign(predict(x)[:, :1]))
    found = warm_start.step_cosine(
        lambda params, x: x @ params, weights, X[:20], labels, shift, key=jax.random.key(0)
    )
    one, two = gradient(X[:20]), gradient(X[:20] - 0.5 * np.sign(X[:20] @ weights)[:, :1])
    wanted = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    assert abs(wanted) < 0.99
    assert found == pytest.approx(wanted, abs=1e-5)
    moved = X[:20] - 0.5 * np.sign(X[:20] @ weights)[:, :1]
    given = warm_start.step_cosine(
        lambda params, x: x @ params, weights, X[:20], labels, (moved, labels), key=jax.random.key(0)
    )
    assert given == pytest.approx(wanted, abs=1e-5)
