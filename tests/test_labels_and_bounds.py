"""Labels and pixels are checked alike by every public function that takes them: one table for each."""

import importlib
import inspect
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from refusals import assert_refused

from companion import attacks, catastrophic, clocks, dynamics, features, guarantees, regression, statistics
from companion._core.checks import channels_last
from companion.architectures import conv, fc, myrtle
from companion.attacks import Threat
from companion.data import targets
from companion.networks import resnet, small_cnn

X = np.random.default_rng(0).uniform(0.2, 0.8, (4, 2)).astype(np.float32)
Y, KEY, THREAT = np.array([0, 1, 0, 1]), jax.random.key(0), Threat("linf", 0.1)
MODULES = (
    "attacks catastrophic clocks data dynamics empirical features guarantees kernels regression statistics "
    "training"
)


def network(k):
    return lambda x: x.reshape(len(x), -1)[:, [0] * k] - 0.5


def fitted(k):
    return regression.fit(fc(1), X, np.ones((4, k)), k_train_train=np.eye(4))


def fitted_to_classes(k):
    targets = np.eye(3)[[0, 1, 2, 0]] if k == 3 else np.array([[1.0], [-1.0], [1.0], [-1.0]])
    return regression.fit(fc(1), X, targets, k_train_train=np.eye(4))


# Each of labels (4,) and of the outputs, 1 (two classes) or 3.
LABELS = {
    "attacks.pgd": lambda y, k: attacks.pgd(network(k), X, y, THREAT),
    "attacks.fgsm": lambda y, k: attacks.fgsm(network(k), X, y, THREAT),
    "attacks.square": lambda y, k: attacks.square(network(k), X.reshape(4, 1, 2, 1), y, THREAT, key=KEY),
    "attacks.apgd": lambda y, k: attacks.apgd(network(k), X, y, THREAT, key=KEY, steps=1),
    "attacks.fab": lambda y, k: attacks.fab(network(k), X, y, steps=1),
    "attacks.autoattack": lambda y, k: attacks.autoattack(
        network(k), X, y, THREAT, key=KEY, version="apgd-ce"
    ),
    "attacks.one_step": lambda y, k: attacks.one_step(fitted(k), X, y, THREAT),
    "attacks.robust_accuracy": lambda y, k: attacks.robust_accuracy(network(k), X, y),
    "attacks.transfer": lambda y, k: attacks.transfer({"x": X}, {"f": network(k)}, X, y),
    "attacks.gradient_cosine": lambda y, k: attacks.gradient_cosine(network(k), network(k), X, y),
    "attacks.sanity_checks": lambda y, k: attacks.sanity_checks(network(k), X, y, THREAT, key=KEY),
    "catastrophic.gradient_directions": lambda y, k: catastrophic.gradient_directions(
        network(k), X, y, top=1
    ),
    "catastrophic.local_linearity": lambda y, k: catastrophic.local_linearity(
        network(k), X, y, THREAT, key=KEY
    ),
    "data.targets": lambda y, k: targets(y, max(2, k)),
    "dynamics.class_blocks": lambda y, k: dynamics.class_blocks(np.eye(4), y),
    "dynamics.variability": lambda y, k: dynamics.variability(np.eye(4), y),
    "dynamics.neural_collapse": lambda y, k: dynamics.neural_collapse(np.eye(4), y, np.ones((4, 2))),
    "dynamics.collapse_invariant": lambda y, k: dynamics.collapse_invariant(
        np.eye(4), y, np.ones((4, 2)), dynamics.Blocks(1.0, 0.0, 0.0)
    ),
    "features.correct": lambda y, k: features.correct(fitted(k), X, y),
    "features.correct_under_attack": lambda y, k: features.correct_under_attack(fitted(k), X, y, THREAT),
    "features.attack_shares": lambda y, k: features.attack_shares(fitted(k), X, X, y),
    "features.determined_dataset": lambda y, k: features.determined_dataset(
        network(k), X, y, THREAT, classes=max(2, k)
    ),
    "guarantees.flips": lambda y, k: guarantees.flips(fitted_to_classes(k), X, y),
    "guarantees.shared_flip_accuracy": lambda y, k: guarantees.shared_flip_accuracy(
        fitted_to_classes(k), X, y, 1
    ),
    "guarantees.fit_adversarial": lambda y, k: guarantees.fit_adversarial(
        fc(1), X, y, THREAT, ridge=1.0, n_classes=max(2, k)
    ),
    "clocks.learn": lambda y, k: clocks.learn(fitted_to_classes(k), X, y, THREAT, rate=0.1, steps=1, key=KEY),
    "features.usefulness": lambda y, k: features.usefulness(np.ones((4, 1), bool), y),
    "statistics.accuracy": lambda y, k: statistics.accuracy(network(k)(X), y),
}
NO_LABELS = {
    "attacks.margin": "is traced",
    "attacks.cross_entropy": "is traced",
    "attacks.squared": "is traced",
    "attacks.dlr": "is traced",
    "attacks.targeted_dlr": "is traced",
    "training.train": "in tests/test_train.py, by its own names",
}
# Each of inputs (4, 2).
BOUNDED = {
    "attacks.pgd": lambda x: attacks.pgd(network(1), x, Y, THREAT, steps=1),
    "attacks.fgsm": lambda x: attacks.fgsm(network(1), x, Y, THREAT),
    "attacks.square": lambda x: attacks.square(
        network(1), x.reshape(4, 1, 2, 1), Y, THREAT, key=KEY, queries=2
    ),
    "attacks.apgd": lambda x: attacks.apgd(network(1), x, Y, THREAT, key=KEY, steps=1),
    "attacks.autoattack": lambda x: (
        attacks.autoattack(network(1), x, Y, THREAT, key=KEY, version="apgd-ce").attacked
    ),
    "attacks.one_step": lambda x: attacks.one_step(fitted(1), x, Y, THREAT),
    "attacks.sanity_checks": lambda x: (
        attacks.sanity_checks(network(1), x, Y, THREAT, key=KEY, steps=1).clean.value
    ),
    "attacks.random_sign": lambda x: attacks.random_sign(x, THREAT, key=KEY),
    "attacks.random_uniform": lambda x: attacks.random_uniform(x, THREAT, key=KEY),
    "features.correct_under_attack": lambda x: features.correct_under_attack(fitted(1), x, Y, THREAT),
    "features.determined_dataset": lambda x: features.determined_dataset(network(1), x, Y, THREAT, steps=1)[
        0
    ],
    "guarantees.poison": lambda x: guarantees.poison(
        fc(1), x, np.array([[1.0], [-1.0]] * 2, x.dtype), X, Y, THREAT, steps=1, ridge=1.0
    ),
    "guarantees.fit_adversarial": lambda x: (
        guarantees.fit_adversarial(fc(1), x, Y, THREAT, ridge=1.0, steps=1).coefficients
    ),
    "clocks.learn": lambda x: (
        clocks.learn(fitted_to_classes(1), x, Y, THREAT, rate=0.1, steps=1, key=KEY).losses
    ),
    "features.exciting": lambda x: features.exciting(fitted(1), 0, THREAT, x, steps=1),
}
NO_BOUNDS = {
    "attacks.training_attack": "clips, inside of training",
    "attacks.free_training": "clips, inside of training",
    "catastrophic.gradalign": "clips, inside of training",
    "catastrophic.noisy_fgsm": "clips, inside of training",
    "catastrophic.local_linearity": "asks for a gradient near x, wherever x is",
}


def taking(parameter):
    """Public functions with a parameter of that name."""
    found = set()
    for module in MODULES.split():
        face = importlib.import_module(f"companion.{module}")
        for name in getattr(face, "__all__", vars(face)):
            value = getattr(face, name)
            ours = inspect.isfunction(value) and value.__module__.startswith(f"companion.{module}")
            if ours and parameter in inspect.signature(value).parameters:
                found.add(f"{module}.{name}")
    return found


def test_every_public_function_of_labels_or_bounds_is_here():
    assert taking("labels") == LABELS.keys() | NO_LABELS.keys()
    assert taking("threat") == BOUNDED.keys() | NO_BOUNDS.keys()


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.usefixtures("as_users_run")
def test_labels(name):
    cases = [
        (Y * 1.0, 1, TypeError, "labels must be integers, got float64"),
        (Y > 0, 1, TypeError, "labels must be integers, got bool"),
        (Y[:, None], 1, ValueError, r"labels must have shape \((4,|n,)\), got \(4, 1\)"),
        (np.array([*"abab"]), 1, TypeError, r"got <U1: np\.unique\(labels, return_inverse=True\)\[1\]"),
        (np.eye(3)[[0, 1, 2, 0]], 3, ValueError, r"got \(4, 3\): of a one-hot .* labels\.argmax\(axis=1\)"),
    ]
    if name != "data.targets":
        cases.append((Y[:3], 1, ValueError, r"labels must have shape \(4,\), got \(3,\)"))
    if name != "features.usefulness" and not name.startswith("dynamics."):  # these have no outputs
        cases += [
            (Y + 1, 1, ValueError, r"labels must lie in \[0, 2\), got 1 to 2"),
            (Y - 1, 1, ValueError, r"labels must lie in \[0, 2\), got -1 to 0"),
            (Y + 2, 3, ValueError, r"labels must lie in \[0, 3\), got 2 to 3"),
            (Y - 1, 3, ValueError, r"labels must lie in \[0, 3\), got -1 to 0"),
        ]
    assert_refused([((y, k), *wanted) for y, k, *wanted in cases], run=lambda case: LABELS[name](*case))


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.filterwarnings("ignore::companion.attacks.AttackWarning")
@pytest.mark.usefixtures("as_users_run")
def test_pixels_outside_the_bounds(name):
    # np.clip is no cure for these: it would spoil the images.
    cases = [
        (255 * X, r"x must lie in the bounds \(0\.0, 1\.0\), got [\d.]+ to [\d.]+: (?!.*np\.clip).*x / 255,"),
        (
            X - 1,
            r"in the bounds \(0\.0, 1\.0\), got -0\.[\d.]+ to -0(?!.*clip).*: f\(\(x - mean\) / std\)",
        ),
        (X + 0.5, r"got [\d.]+ to [\d.]+: (?!.*np\.clip)normalized images\?"),
    ]
    out_by_rounding = {1 + 2.0**-23: "1.19e-07", -(2.0**-25): "2.98e-08"}
    for value, by in out_by_rounding.items():
        x = X.copy()
        x[1, 1] = value
        message = rf"{re.escape(repr(value))} is outside by {by}\. .*np\.clip\(x, 0, 1\) cures it"
        cases.append((x, message))
        assert np.isfinite(np.asarray(BOUNDED[name](np.clip(x, 0, 1)), float)).all()
    assert_refused(cases, ValueError, run=BOUNDED[name])


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.usefixtures("as_users_run")
def test_a_number_is_no_threat(name, monkeypatch):
    monkeypatch.setitem(globals(), "THREAT", 0.1)
    assert_refused(
        [(X, r'threat must be a Threat, such as Threat\("linf", 0\.1\), got 0\.1')],
        TypeError,
        run=BOUNDED[name],
    )


# Each of images (2, h, w, c).
READERS = {
    "conv": lambda x: conv(1).kernel(x),
    "finite conv": lambda x: conv(1, width=2).init(KEY, x),
    "pooled": lambda x: myrtle(5).init(KEY, x),
    "fit": lambda x: regression.fit(conv(1), x, np.ones((2, 1)), ridge=1.0),
    "resnet": lambda x: resnet(2, blocks=(1,), width=2, norm=None).init(KEY, x),
    "cnn": lambda x: small_cnn(2, width=2).init(KEY, x),
    "square": lambda x: attacks.square(network(1), x, Y[:2], THREAT, key=KEY, queries=1),
}


@pytest.mark.parametrize("name", READERS)
def test_images_with_their_channels_first_are_warned_of(name):
    x = np.linspace(0, 1, 2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8)
    seen = r"looks like images \(n, c, h, w\), got \(n, 3, 8, 8\), and is read as \(n, h, w, c\): 8 channels"
    with pytest.raises(UserWarning, match=seen):  # warnings are errors in tests
        READERS[name](x)
    READERS[name](np.moveaxis(x, 1, -1))


@pytest.mark.parametrize("shape", [(2, 3, 8, 4), (2, 3, 3, 8), (2, 8, 8, 8), (2, 28, 28, 1), (2, 3, 8)])
def test_other_shapes_are_not(shape):
    channels_last("x", shape)


WIDE = np.full((2, 28, 28, 1), 0.5, np.float32)
MET = {
    "eps": lambda: Threat("linf", 8),
    "bounds": lambda: attacks.pgd(network(1), 255 * X, Y, THREAT),
    "names": lambda: attacks.pgd(network(1), X, np.array(["four", "nine"] * 2), THREAT),
    "numbers": lambda: attacks.pgd(network(1), X, np.array([4, 9, 4, 9]), THREAT),
    "targets": lambda: regression.fit(np.eye(4), targets=Y),
    "shapes": lambda: fitted(1)(WIDE),
    "threat": lambda: attacks.pgd(network(1), X, Y, 0.1),
    "certificate": lambda: guarantees.radius(network(1), X),
    "channels": lambda: channels_last("x", (2, 1, 28, 28)),
}


@pytest.mark.parametrize("name", MET)
@pytest.mark.usefixtures("as_users_run")
def test_what_is_met_stands_in_troubleshooting(name):
    page = (Path(__file__).resolve().parent.parent / "book/troubleshooting.md").read_text("utf8")
    with pytest.raises((ValueError, TypeError, UserWarning)) as caught:
        MET[name]()
    # Of a message, what is before the first number of the case at hand.
    start = re.split(r"got |\((?:4,|n, c)", str(caught.value))[0]
    assert len(start) > 15
    assert start in page.split("## Attacks and certificates")[1]


def test_bounds_are_the_threats_own():
    low = Threat("l2", 0.1, (0.0, 0.5))
    with pytest.raises(ValueError, match=r"x must lie in the bounds \(0\.0, 0\.5\)"):
        attacks.pgd(network(1), X, Y, low)
    assert np.isfinite(attacks.pgd(network(1), X / 2, Y, low)).all()


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((1, 0), "bounds must be two increasing finite numbers"),
        ((0, np.inf), "bounds must be two increasing finite numbers"),
        ((0, np.nan), "bounds must be two increasing finite numbers"),
        ((0, 1, 2), r"bounds must be two numbers, got \(0, 1, 2\)"),
        (1, "bounds must be two numbers, got 1"),
    ],
    ids=["falling", "infinite", "nan", "three", "one"],
)
@pytest.mark.usefixtures("as_users_run")
def test_bounds_themselves(bounds, message):
    with pytest.raises(ValueError, match=message):
        Threat("linf", 0.1, bounds)


@pytest.mark.parametrize(
    ("eps", "bounds", "message"),
    [
        (8, (0, 1), r"eps must be at most 1, .*\(0\.0, 1\.0\), got 8: .* of the inputs; 8/255\?$"),
        (1.01, (0, 1), r"at most 1, .* got 1\.01"),
        (3, (-1, 1), r"at most 2, .* of the inputs$"),
        (256, (0, 255), r"at most 255, .* of the inputs$"),
    ],
    ids=["8/255", "above", "normalized", "bytes"],
)
@pytest.mark.usefixtures("as_users_run")
def test_an_eps_in_other_units(eps, bounds, message):
    with pytest.raises(ValueError, match=message):
        Threat("linf", eps, bounds)
    high = bounds[1] - bounds[0]
    assert (Threat("linf", high, bounds).eps, Threat("l2", eps, bounds).eps) == (high, eps)
