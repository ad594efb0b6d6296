"""The experiment of chapter 6 at toy size: its arrays are what their names say."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from companion import data
from companion.attacks import Replay, Threat, pgd, training_attack
from companion.experiments import warm_start as experiment
from companion.training import Switch, train

# `make book` runs the experiment whole, in chapter 6; these hold its arrays against slow definitions.
pytestmark = [pytest.mark.matrix, pytest.mark.usefixtures("unoptimized")]

TOY = replace(
    experiment.Case(),
    width=2, n_train=40, n_test=30, n_watch=20, epochs=2, batch_size=10, switches=(1,), record=2, n_probe=4,
    free=2, final=(3, 1), steps=2, fraction=0.9,
)  # fmt: skip
METHODS = ("pgd", "fgsm", "free", "growing ε", "growing steps", "clean for 1", "rule", "standard")
STEPS = TOY.n_train // TOY.batch_size


@pytest.fixture(scope="module")
def found():
    return experiment.run(experiment.Config((TOY,), ("constant",), 1))


@pytest.fixture(scope="module")
def early():
    """The four networks whose kernels are followed, trained again."""
    return [experiment.trained(TOY, name, "constant", 0) for name in experiment.EARLY]


def images():
    return data.load("mnist5k", n_train=TOY.n_train, n_test=TOY.n_test)


def row(found, name, method):
    return found[name][0, 0, METHODS.index(method), 0]


def distance(one, other):
    one, other = np.asarray(one, float), np.asarray(other, float)
    return 1 - (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)


def test_shapes_are_as_the_docstring_says(found):
    assert experiment.methods(TOY) == METHODS
    m, r = len(METHODS), 5
    wanted = dict.fromkeys(("clean", "robust", "seconds"), (1, 1, m, 1, r))
    wanted |= dict.fromkeys(("total", "passes"), (1, 1, m, 1))
    wanted |= dict.fromkeys(("probe", "switched"), (1, 1, 1))
    wanted |= {"epochs": (1, r), "final": (1, 1, m, 1, 2, 3)}
    wanted |= {"between": (1, 1, r, 4, 4), "velocity": (1, 1, 4, r)}
    assert {name: array.shape for name, array in found.items()} == wanted
    # Free training makes half the epochs, each of them twice; the others fill their rows.
    short = np.isnan(found["robust"][0, 0, :, 0]).sum(axis=1)
    np.testing.assert_array_equal(short, [2 if name == "free" else 0 for name in METHODS])


def calls(method, switched):
    """Forward and backward passes of a training image, by counting the calls that a schedule makes."""
    attack, made = experiment.attack_of(TOY, method), []
    if isinstance(attack, Replay):  # one pass serves the weights and the perturbation
        return TOY.epochs // attack.replays * STEPS * attack.replays / STEPS

    def predict(x):
        jax.debug.callback(lambda: made.append(1))
        return x.reshape(len(x), -1)[:, :10]

    @jax.jit
    def attacked(key, epoch):
        now = attack.second if isinstance(attack, Switch) else attack
        return now(predict, jnp.full((1, 4, 4, 1), 0.5), jnp.array([0]), key, epoch)

    clocks = [step / STEPS for step in range(TOY.epochs * STEPS)]
    for clock in clocks:
        clean = isinstance(attack, Switch) and clock < switched - 1e-6
        if attack is not None and not clean:
            attacked(jax.random.key(0), jnp.float32(clock))
    jax.effects_barrier()
    return (len(clocks) + len(made)) / STEPS


@pytest.mark.parametrize("method", METHODS)
def test_passes_are_the_calls_that_a_schedule_makes(found, method):
    switched = {"rule": float(found["switched"][0, 0, 0]), "clean for 1": 1.0}.get(method)
    assert row(found, "passes", method) == pytest.approx(calls(method, switched))


def test_a_rule_that_never_switches_costs_clean_training():
    assert experiment.passes(TOY, "rule", None) == experiment.passes(TOY, "standard", None) == TOY.epochs


def test_distances_are_those_of_the_kernels_of_trained_networks(found, early):
    between, velocity = found["between"][0, 0], found["velocity"][0, 0]
    epochs = early[0].epochs
    np.testing.assert_allclose(found["epochs"][0], epochs)
    for i, one in enumerate(early):
        for j, other in enumerate(early):
            wanted = [distance(*pair) for pair in zip(one.kernels, other.kernels, strict=True)]
            np.testing.assert_allclose(between[:, i, j], wanted, atol=1e-6)
        moved = [distance(*pair) for pair in zip(one.kernels[:-1], one.kernels[1:], strict=True)]
        np.testing.assert_allclose(velocity[i, :-1], moved / np.diff(epochs), atol=1e-6)
    assert np.isnan(velocity[:, -1]).all()
    # One start for all; "again" is standard training of the same start with other minibatches.
    np.testing.assert_allclose(between[0], 0, atol=1e-6)
    assert between[-1, 0, 1] > 1e-7


def test_the_rule_switches_where_the_standard_kernel_has_slowed_down(found):
    speeds = found["velocity"][0, 0, 0, :-1]
    slow = [i for i in range(1, len(speeds)) if speeds[i] <= TOY.fraction * speeds[: i + 1].max()]
    switched = found["switched"][0, 0, 0]
    assert switched == (found["epochs"][0, slow[0] + 1] if slow else np.inf)
    assert np.isfinite(switched)  # or this tests nothing


def test_seconds_add_up(found):
    for method in METHODS:
        seconds = row(found, "seconds", method)
        last = seconds[np.isfinite(seconds)][-1]
        probe = found["probe"][0, 0, 0] if method == "rule" else 0
        assert row(found, "total", method) == pytest.approx(last + probe, rel=1e-6)
        assert seconds[0] == 0
    assert found["probe"][0, 0, 0] > 0


def test_clean_first_is_training_by_hand_with_an_attack_that_looks_at_the_clock(found):
    whole = training_attack(Threat("linf", TOY.eps), steps=TOY.steps)

    def clock(predict, x, labels, key, epoch):
        return jnp.where(epoch < 1 - 1e-6, x, whole(predict, x, labels, key, epoch))

    test, model = images(), experiment.model_of(TOY, 10)
    by_hand = train(
        model, test.x_train, test.y_train, epochs=TOY.epochs, optimizer=optax.sgd(TOY.rate, momentum=0.9),
        key=jax.random.fold_in(jax.random.key(0), 0), start=model.init(jax.random.key(0), test.x_train[:1]),
        batch_size=TOY.batch_size, attack=Partial(clock),
    )  # fmt: skip
    one = experiment.trained(TOY, "clean for 1", "constant", 0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        one.variables[0],
        by_hand.variables[0],
    )
    np.testing.assert_allclose(row(found, "robust", "clean for 1"), one.robust, rtol=1e-6)
    # Until the switch it is standard training.
    for name in ("clean", "robust"):
        np.testing.assert_array_equal(
            row(found, name, "clean for 1")[:3], row(found, name, "standard")[:3], err_msg=name
        )


def test_the_end_is_attacked_in_pixels(found):
    one, test = experiment.trained(TOY, "fgsm", "constant", 0), images()
    f = one.predict(experiment.model_of(TOY, 10))
    x, y = test.x_test, test.y_test
    attacked = pgd(f, x, y, Threat("linf", TOY.eps), steps=3, restarts=1, key=jax.random.key(1000))
    assert np.abs(attacked - x).max() == pytest.approx(TOY.eps, abs=1e-6)
    for k, points in enumerate((x, attacked)):
        value, low, high = row(found, "final", "fgsm")[k]
        assert value == pytest.approx(np.mean(np.asarray(f(points)).argmax(axis=1) == y), abs=1e-6)
        assert low <= value <= high


def test_a_decayed_rate_falls_after_half_and_after_three_quarters():
    constant, decayed = (experiment.optimizer_of(TOY, rate) for rate in ("constant", "decayed"))
    assert experiment.optimizer_of(TOY, "decayed") is decayed
    params = gradient = {"w": np.ones(2, np.float32)}
    states, shares = [one.init(params) for one in (constant, decayed)], []
    for _ in range(TOY.epochs * STEPS):
        sizes = []
        for i, one in enumerate((constant, decayed)):
            updates, states[i] = one.update(gradient, states[i], params)
            sizes.append(float(updates["w"][0]))
        shares.append(sizes[1] / sizes[0])
    assert shares == pytest.approx([1] * 4 + [0.1] * 2 + [0.01] * 2)


@pytest.mark.parametrize("profile", ["quick", "full", "paper"])
def test_profiles_can_be_run(profile):
    config = experiment.PROFILES[profile]
    assert profile == "quick" or (config.seeds >= 3 and config.rates == ("constant", "decayed"))
    assert len({len(experiment.methods(case)) for case in config.cases}) == 1
    for case in config.cases:
        assert max(case.switches) < case.epochs
        assert case.epochs % case.free == 0
        assert case.n_watch <= case.n_test
        assert experiment.model_of(case, 10).name == case.model
