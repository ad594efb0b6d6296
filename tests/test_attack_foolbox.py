"""Foolbox, an independent library, attacks the same functions and finds the same."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from companion import data
from companion import regression as kr
from companion.architectures import fc
from companion.attacks import Threat, fgsm, one_step, pgd, training_attack, two_logits
from companion.kernels import keep_compiled
from companion.networks import small_cnn
from companion.regression import from_coefficients
from companion.statistics import accuracy
from companion.training import train

with warnings.catch_warnings():
    # A dependency of foolbox is deprecated at import.
    warnings.simplefilter("ignore")
    fb = pytest.importorskip("foolbox")

EPS = {"linf": 0.08, "l2": 0.9}


def digits(kernel, classes=None):
    found = data.load("mnist5k", classes=classes, n_train=200, n_test=100)
    k_train_train = np.asarray(kernel(found.x_train, found.x_train, "ntk"))
    fitted = kr.fit(k_train_train, targets=data.targets(found.y_train))
    return from_coefficients(kernel, found.x_train, fitted.at(100.0).coefficients), found.x_test, found.y_test


@pytest.fixture(scope="module")
def two_classes():
    """A kernel predictor of one output on real digits, 4 against 9."""
    return digits(fc(1).kernel, (4, 9))


@keep_compiled
def exponential(a, b, get):
    return jnp.exp(a.reshape(len(a), -1) @ b.reshape(len(b), -1).T / 100)


def attacked_by_foolbox(attack, predict, x, labels, eps):
    """Inputs, and whether foolbox counts them as fooled."""
    model = fb.JAXModel(predict, bounds=(0, 1))
    _, attacked, fooled = attack(model, jnp.asarray(x), jnp.asarray(labels), epsilons=eps)
    return np.asarray(attacked), np.asarray(fooled)


def agree(predict, ours, theirs, fooled, labels):
    """Ours in the middle of the range, and theirs within our Wilson interval."""
    found, recounted = (accuracy(np.asarray(predict(x)), labels) for x in (ours, theirs))
    assert 0.1 < found.value < 0.9
    assert found.low <= 1 - fooled.mean() <= found.high
    # Foolbox counts as we do.
    assert 1 - fooled.mean() == pytest.approx(recounted.value)


@pytest.mark.parametrize("norm", ["linf", pytest.param("l2", marks=pytest.mark.matrix)])
def test_one_step_is_foolbox_s(norm, two_classes):
    f, x, labels = two_classes
    attack = {"linf": fb.attacks.LinfFastGradientAttack, "l2": fb.attacks.L2FastGradientAttack}[norm]
    theirs, fooled = attacked_by_foolbox(attack(random_start=False), two_logits(f), x, labels, EPS[norm])
    ours = fgsm(f, x, labels, Threat(norm, EPS[norm]), loss="cross_entropy")
    # Where a gradient is zero to rounding, its sign is chance: none of these is.
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    if norm == "linf":
        np.testing.assert_allclose(one_step(f, x, labels, Threat(norm, EPS[norm])), theirs, atol=2e-6)
    agree(f, ours, theirs, fooled, labels)


@pytest.mark.parametrize("norm", EPS)
def test_many_steps_succeed_as_often_as_foolbox_s(norm, two_classes):
    f, x, labels = two_classes
    size = EPS[norm] / 4
    attack = {"linf": fb.attacks.LinfPGD, "l2": fb.attacks.L2PGD}[norm]
    attack = attack(steps=8, abs_stepsize=size, random_start=False)
    theirs, fooled = attacked_by_foolbox(attack, two_logits(f), x, labels, EPS[norm])
    threat, options = Threat(norm, EPS[norm]), {"steps": 8, "step_size": size}
    ours = pgd(f, x, labels, threat, **options, loss="cross_entropy", best_iterate=False)
    agree(f, ours, theirs, fooled, labels)
    # Most inputs are the same; where rounding decides a sign, the way goes on elsewhere.
    assert np.mean(np.abs(ours - theirs) < 1e-5) > 0.95


def test_a_predictor_of_ten_classes_needs_no_adapter():
    f, x, labels = digits(exponential)
    attack = fb.attacks.LinfPGD(steps=5, abs_stepsize=0.01, random_start=False)
    theirs, fooled = attacked_by_foolbox(attack, f, x, labels, 0.03)
    threat = Threat("linf", 0.03)
    ours = pgd(f, x, labels, threat, steps=5, step_size=0.01, loss="cross_entropy", best_iterate=False)
    agree(f, ours, theirs, fooled, labels)
    assert np.mean(np.abs(ours - theirs) < 1e-5) > 0.95


@pytest.mark.matrix
def test_an_adversarially_trained_network_resists_foolbox_as_it_resists_us():
    found, threat = data.load("mnist5k", n_train=1000, n_test=150), Threat("linf", 0.1)
    x, labels, model = found.x_test, found.y_test, small_cnn(10, width=8)
    options = {"optimizer": optax.sgd(0.05, momentum=0.9), "key": jax.random.key(0), "batch_size": 50}
    left = []
    for attack in (None, training_attack(threat, steps=3)):
        run = train(model, found.x_train, found.y_train, epochs=6, attack=attack, **options)
        f = run.predict(model)
        theirs = fb.attacks.LinfPGD(steps=20, abs_stepsize=0.02, random_start=False)
        attacked, fooled = attacked_by_foolbox(theirs, f, x, labels, 0.1)
        ours = pgd(f, x, labels, threat, steps=20, step_size=0.02, loss="cross_entropy", best_iterate=False)
        agree(f, ours, attacked, fooled, labels)
        left.append(1 - fooled.mean())
    assert left[0] < 0.6 < 0.75 < left[1]
