"""Signals, detector and remedies of catastrophic overfitting, each against its definition written out."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from refusals import assert_refused

from companion import catastrophic
from companion.attacks import Threat, training_attack
from companion.catastrophic import Detector
from companion.experiments import catastrophic as experiment
from companion.networks import mlp, predict_fn
from companion.training import Probe, Switch, train

RNG = np.random.default_rng(0)
X = RNG.uniform(0.3, 0.7, size=(60, 6)).astype(np.float32)
Y = (X.sum(axis=1) > 3).astype(int) + (X[:, 0] > 0.5)
MODEL = mlp(3, depth=1, width=16)
VARIABLES = MODEL.init(jax.random.key(0), X)
F = predict_fn(MODEL, VARIABLES)
LINF = Threat("linf", 0.1)
KEY = jax.random.key(3)
OPTIONS = {"epochs": 2, "optimizer": optax.sgd(0.1), "key": jax.random.key(5), "batch_size": 20}


@jax.jit
@functools.partial(jax.grad, argnums=1)
def gradient(params, x, label):
    logits = MODEL.apply(params, {}, x[None], False)[0][0]
    return jax.nn.logsumexp(logits) - logits[label]


def gradients(x, params=VARIABLES[0]):
    return np.stack([np.asarray(gradient(params, a, b)) for a, b in zip(x, Y, strict=True)])


def test_noise_of_size_zero_is_fgsm():
    found = catastrophic.noisy_fgsm(LINF, size=0)(F, X, Y, KEY, jnp.inf)
    wanted = training_attack(LINF, steps=1, random_start=False)(F, X, Y, KEY, jnp.inf)
    np.testing.assert_array_equal(found, wanted)


def test_isotropic_noise_is_uniform_and_steps_from_there_without_projection():
    noise = np.asarray(catastrophic.noisy_fgsm(LINF, size=2, step_size=0)(F, X, Y, KEY, jnp.inf)) - X
    assert 0.19 < np.abs(noise).max() <= 0.2 + 1e-6
    assert (noise**2).mean() == pytest.approx(0.2**2 / 3, rel=0.1)
    found = np.asarray(catastrophic.noisy_fgsm(LINF, size=2)(F, X, Y, KEY, jnp.inf))
    start = np.clip(X + noise, 0, 1)
    np.testing.assert_allclose(found, np.clip(start + 0.1 * np.sign(gradients(start)), 0, 1), atol=1e-6)
    assert np.abs(found - X).max() > 0.15


def test_anisotropic_noise_lies_in_the_span_and_has_the_length_of_isotropic_noise():
    attack = catastrophic.noisy_fgsm(LINF, noise="gradient", size=1, top=2, step_size=0)
    noise = np.asarray(attack(F, X, Y, KEY, jnp.inf)) - X
    _, _, leading = np.linalg.svd(gradients(X).astype(float), full_matrices=False)
    outside = noise - noise @ leading[:2].T @ leading[:2]
    assert np.abs(outside).max() < 1e-4
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), 0.1 * math.sqrt(6 / 3), rtol=1e-4)
    assert np.linalg.matrix_rank(noise, tol=1e-3) == 2


def test_noise_grows_with_the_ramp():
    half, whole = (
        np.asarray(catastrophic.noisy_fgsm(LINF, ramp=4, step_size=0)(F, X, Y, KEY, epoch)) - X
        for epoch in (2.0, 4.0)
    )
    np.testing.assert_allclose(half, whole / 2, atol=1e-6)


def test_leading_directions_are_singular_vectors():
    directions, shares = catastrophic.gradient_directions(F, X, Y, top=3)
    _, values, vectors = np.linalg.svd(gradients(X).astype(float), full_matrices=False)
    np.testing.assert_allclose(shares, values[:3] ** 2 / (values**2).sum(), rtol=1e-4)
    np.testing.assert_allclose(np.abs((directions * vectors[:3]).sum(axis=1)), 1, rtol=1e-4)


def test_local_linearity_is_the_cosine_of_gradients():
    share = 2 * np.asarray(jax.random.uniform(KEY, X.shape)) - 1
    one, two = gradients(X), gradients(np.clip(X + 0.1 * share.astype(np.float32), 0, 1))
    wanted = (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    found = catastrophic.local_linearity(F, X, Y, LINF, key=KEY)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_local_linearity_of_a_loss_without_gradient_is_zero():
    flat = catastrophic.local_linearity(lambda x: jnp.zeros((len(x), 3)), X, Y, LINF, key=KEY)
    np.testing.assert_array_equal(flat, 0)


def test_local_linearity_keeps_its_compiled_code_whatever_the_weights():
    traces = []

    def apply(params, x):
        traces.append(x.shape)
        return MODEL.apply(params, {}, x, False)[0]

    other = jax.tree.map(lambda a: -a, VARIABLES[0])
    first = catastrophic.local_linearity(Partial(apply, VARIABLES[0]), X, Y, LINF, key=KEY)
    # One example is the check of the outputs' shape, two that of mixing.
    count = len([shape for shape in traces if shape[0] > 2])
    second = catastrophic.local_linearity(Partial(apply, other), X, Y, Threat("linf", 0.2), key=KEY)
    assert len([shape for shape in traces if shape[0] > 2]) == count > 0
    assert not np.allclose(first, second)


def test_gradalign_has_the_derivative_of_its_definition(x64):
    rng = np.random.default_rng(1)
    x, params = X[:10].astype(float), jax.tree.map(lambda a: a.astype(float), VARIABLES[0])
    penalty = catastrophic.gradalign(LINF, weight=0.7)

    @jax.jit
    def value(params):
        return penalty(lambda z: MODEL.apply(params, {}, z, False)[0], x, Y[:10], KEY, 0.0)

    direction = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), params)
    step = 1e-6
    moved = [jax.tree.map(lambda p, d, s=s: p + s * step * d, params, direction) for s in (1, -1)]
    by_difference = (value(moved[0]) - value(moved[1])) / (2 * step)
    exact = sum(
        (a * b).sum()
        for a, b in zip(jax.tree.leaves(jax.grad(value)(params)), jax.tree.leaves(direction), strict=True)
    )
    assert float(exact) == pytest.approx(float(by_difference), rel=1e-4)
    cosines = catastrophic.local_linearity(predict_fn(MODEL, (params, {})), x, Y[:10], LINF, key=KEY)
    assert float(value(params)) == pytest.approx(0.7 * (1 - cosines.mean()), rel=1e-6)


@pytest.mark.parametrize("scale", [1e3, 40.0, 1.0])
def test_gradalign_has_a_derivative_where_the_loss_is_nearly_or_exactly_zero(scale):
    rng = np.random.default_rng(1)

    # Logits of about ±1e3, ±40, ±1 in the right direction: gradients of 0, about 1e-35, and of ordinary size.
    def value(weights):
        f = lambda x: scale * jnp.tanh(x @ weights)  # noqa: E731
        return catastrophic.gradalign(LINF, weight=1.0)(f, X[:10], np.zeros(10, int), KEY, 0.0)

    ahead = jnp.asarray(rng.uniform(0.5, 1, (6, 1)), jnp.float32)
    gradient = jax.grad(value)(jnp.concatenate([ahead, -ahead[::-1]], axis=1))
    assert jnp.isfinite(gradient).all()


def test_a_penalty_is_added_to_the_loss_of_every_step():
    def penalty(predict, x, labels, key, epoch):
        return 0.3 * (predict(x) ** 2).mean() + 0.1 * epoch

    run = train(MODEL, X, Y, penalty=Partial(penalty), start=VARIABLES, **OPTIONS)
    key = jax.random.fold_in(OPTIONS["key"], 2)
    params = VARIABLES[0]

    @jax.jit
    @jax.grad
    def slope(params, x, labels):
        logits = MODEL.apply(params, {}, x, True)[0]
        own = jax.nn.log_softmax(logits)[jnp.arange(20), labels]
        return -own.mean() + 0.3 * (logits**2).mean()

    for epoch in range(2):
        order_key, _ = jax.random.split(jax.random.fold_in(key, epoch))
        for rows in np.asarray(jax.random.permutation(order_key, 60)).reshape(3, 20):
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope(params, X[rows], Y[rows]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), run.variables[0], params
    )


def test_clean_too_is_the_mean_over_both_halves():
    attack = training_attack(LINF, steps=1, random_start=False)
    run = train(MODEL, X, Y, attack=attack, clean_too=True, start=VARIABLES, **OPTIONS | {"epochs": 1})
    params = VARIABLES[0]
    order_key, _ = jax.random.split(jax.random.fold_in(jax.random.fold_in(OPTIONS["key"], 2), 0))

    @jax.jit
    @jax.grad
    def slope(params, x, labels):
        logits = MODEL.apply(params, {}, x, True)[0]
        return -jax.nn.log_softmax(logits)[jnp.arange(20), labels].mean()

    for rows in np.asarray(jax.random.permutation(order_key, 60)).reshape(3, 20):
        moved = np.asarray(attack(predict_fn(MODEL, (params, {})), X[rows], Y[rows], KEY, 0.0))
        both = [slope(params, x, Y[rows]) for x in (X[rows], moved)]
        params = jax.tree.map(lambda p, a, b: p - 0.05 * (a + b), params, *both)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), run.variables[0], params
    )


@pytest.mark.parametrize(
    ("robust", "fall", "wanted"),
    [
        ([0.1, 0.5, 0.6, 0.2], 0.5, 3),
        ([0.1, 0.5, 0.24, 0.6], 0.5, 2),
        ([0.1, 0.5, 0.3, 0.6], 0.5, math.inf),
        ([0.1, 0.5, 0.3, 0.6], 0.7, 2),
        ([0.0, 0.0, 0.0, 0.0], 0.5, math.inf),
    ],
)
def test_onset(robust, fall, wanted):
    assert catastrophic.onset([0, 1, 2, 3], robust, fall=fall) == wanted


def test_onset_waits_until_something_was_reached():
    assert catastrophic.onset([0, 1, 2, 3], [0.1, 0.04, 0.5, 0.2], least=0.3) == 3
    assert catastrophic.onset([0, 1, 2, 3], [0.1, 0.04, 0.5, 0.2], least=0.6) == math.inf


def test_fallen_marks_every_record_of_every_run_and_knows_missing_ones():
    nan = math.nan
    runs = np.array([[0.1, 0.6, 0.2, 0.4], [0.1, nan, 0.04, nan], [nan, 0.6, 0.31, 0.29]])
    marks = [[False, False, True, False], [False, False, True, False], [False, False, False, True]]
    np.testing.assert_array_equal(catastrophic.fallen(runs), marks)
    marks[1][2] = False
    np.testing.assert_array_equal(catastrophic.fallen(runs, least=0.2), marks)
    np.testing.assert_array_equal(catastrophic.fallen(runs, fall=0.1), np.zeros((3, 4), bool))


@pytest.mark.parametrize(
    ("fgsm", "robust", "options", "wanted"),
    [
        ([0.3, 0.7, 1, 0.95, 0.95], [0.4, 0.05, 0, 0.09, 0.2], {}, [0, 1, 1, 1, 0]),
        ([0.9] * 5, [0.3, 0.05, 0.1, 0.05, 0.05], {}, [0, 1, 0, 1, 1]),
        ([0.9] * 5, [0.05, 0.05, 0.2, 0.2, 0.05], {}, [0, 0, 0, 0, 0]),
        ([0.6, 0.59, 0.6, 0.6], [0.0] * 4, {}, [1, 0, 1, 1]),
        ([0.9, math.nan, 0.9, 0.9], [0, math.nan, 0, 0], {}, [1, 0, 1, 1]),
        ([0.9, math.nan, 0.9, 0.9], [0, math.nan, 0, 0], {"of": 3}, [0, 0, 0, 0]),
        ([0.95, 0.89, 0.95, 0.95], [0.0] * 4, {"high": 0.9, "records": 1, "of": 1}, [1, 0, 1, 1]),
        ([0.95, 0.95], [0, 0], {}, [0, 0]),
        ([0.95, 0.95, 0.95], [0, 0, 0], {}, [1, 1, 1]),
        (np.array([[0.95] * 3, [0.5] * 3]), np.zeros((2, 3)), {}, [[1, 1, 1], [0, 0, 0]]),
    ],
    ids=[
        "a stretch", "one of four misses", "two of five", "at the gap", "one missing", "three of three",
        "a level", "too short", "three in all", "two runs",
    ],
)  # fmt: skip
def test_collapsed(fgsm, robust, options, wanted):
    found = catastrophic.collapsed(fgsm, robust, **options)
    assert found.astype(int).tolist() == wanted


@pytest.mark.parametrize(
    ("calibration", "seeds"), [(5, [0, 1]), (1, [0]), (0, [])], ids=["full", "one", "none"]
)
def test_calibration_seeds_do_not_depend_on_how_many_there_are(calibration, seeds):
    assert list(experiment.calibrating(calibration)) == seeds


def test_fates_of_runs():
    epochs = np.arange(6.0)
    robust = np.array(
        [[0.1, 0.6, 0.5, 0.0, 0.05, 0], [0.1, 0.6, 0.2, 0.0, 0.05, 0], [0.1, 0.0, 0.0, 0.05, 0, 0], [0.6] * 6]
    )
    one = experiment.fates(epochs, np.full((4, 6), 0.75), robust)
    assert one.collapse.tolist() == [3, 3, 1, math.inf]
    assert one.onset.tolist() == [3, 2, 1, math.inf]  # the second has fallen an epoch before
    assert one.robust.tolist() == [True, True, False, False]
    assert one.sudden.tolist() == [True, False, False, False]


def test_a_warning_comes_within_three_epochs_before():
    alarms = np.array([2, 3, 5, 6, 2, math.inf])
    warned, early = experiment.outcome(alarms, np.array([6, 6, 6, 6, math.inf, math.inf]))
    assert warned.tolist() == [False, True, True, False, False, False]
    assert early.tolist() == [True, False, False, False, True, False]


def test_a_missing_record_rings_no_alarm_and_hides_no_later_one():
    signal = [9, 2, math.nan, 2, 6]
    assert catastrophic.alarm(range(5), signal, Detector(3, "above", relative=True)) == 4
    assert catastrophic.alarm(range(5), [math.nan] * 5, Detector(3, "below")) == math.inf
    assert catastrophic.calibrate([signal], side="above", relative=True).threshold == 4  # 6 − (2 + 2)/2


def test_signals_of_a_known_spectrum():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    kernel = basis @ np.diag([4.0, 3.0, 2.0, 1.0]) @ basis.T
    found = catastrophic.spectrum_signals([kernel, 2 * kernel], top=2)
    np.testing.assert_allclose(found["top share"], 0.7)
    np.testing.assert_allclose(found["effective rank"], 100 / 30)
    np.testing.assert_allclose(found["log trace"], [math.log(10), math.log(20)])


@pytest.mark.parametrize(
    ("side", "margin", "relative", "threshold"),
    [
        ("above", 0, False, 5),
        ("below", 0, False, 1),
        ("above", 0.5, False, 7),
        ("below", 0.5, False, -1),
        ("above", 0, True, 2),  # 5 − 3 in the first run, the record at the start left out
        ("below", 0, True, 0),  # the first that counts has nothing before it
    ],
)
def test_calibration_is_silent_on_calm_runs(side, margin, relative, threshold):
    calm = [[2, 3, 5], [4, 1, 2]]
    detector = catastrophic.calibrate(calm, side=side, margin=margin, relative=relative)
    assert detector == Detector(threshold, side, relative)
    assert all(math.isinf(catastrophic.alarm([0, 1, 2], run, detector)) for run in calm)


def test_score_counts_leads_misses_and_false_alarms():
    detector = Detector(3, "above")
    signals = [[9, 4, 0, 0], [9, 0, 0, 4], [9, 0, 0, 0], [9, 0, 4, 0], [9, 0, 0, 0]]
    found = catastrophic.score([0, 1, 2, 3], signals, [3, 2, 3, math.inf, math.inf], detector)
    np.testing.assert_array_equal(found.leads, [2, -1, -math.inf])
    assert found.missed == pytest.approx(2 / 3)
    assert found.false_alarms == 0.5


def test_a_detector_switches_training():
    fgsm, pgd = training_attack(LINF, steps=1, random_start=False), training_attack(LINF, steps=3)
    plain = train(MODEL, X, Y, attack=fgsm, probe=Probe(X[:8], "trace"), **OPTIONS | {"epochs": 4})
    trace = catastrophic.spectrum_signals(plain.kernels)["log trace"]
    threshold = float(np.sort(trace[1:])[1])
    detector = Detector(threshold, "above")
    expected = catastrophic.alarm(plain.epochs, trace, detector)
    rule = catastrophic.alarmed(detector, "log trace")
    run = train(
        MODEL, X, Y, attack=Switch(fgsm, pgd, rule), probe=Probe(X[:8], "trace"), **OPTIONS | {"epochs": 4}
    )
    assert run.switched == expected
    with pytest.raises(ValueError, match="give train a probe"):
        train(MODEL, X, Y, attack=Switch(fgsm, pgd, rule), **OPTIONS)


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments():
    assert_refused(
        [
            (lambda: catastrophic.noisy_fgsm(Threat("l2", 1.0)), "threat must be L∞"),
            (
                lambda: catastrophic.noisy_fgsm(LINF, noise="kernel"),
                "noise must be 'isotropic' or 'gradient'",
            ),
            (lambda: catastrophic.noisy_fgsm(LINF, noise="gradient", top=0), "top must be at least 1"),
            (lambda: catastrophic.gradalign(Threat("l2", 1.0)), "threat must be L∞"),
            (lambda: catastrophic.gradient_directions(F, X[:2], Y[:2], top=3), "top must be at most 2"),
            (lambda: catastrophic.calibrate([], side="above"), "calm must hold runs"),
            (lambda: catastrophic.local_linearity(F, X, Y, Threat("l2", 1.0), key=KEY), "threat must be L∞"),
            (lambda: catastrophic.onset([0, 1], [1, 0], fall=2), "fall must be less than 1, got 2"),
            (lambda: catastrophic.fallen([1, 0], fall=0), "fall must be more than 0"),
            (lambda: catastrophic.collapsed([1, 0], [1]), r"of one shape, got \(2,\) and \(1,\)"),
            (lambda: catastrophic.collapsed([1], [0], records=0), "records must be"),
            (lambda: catastrophic.collapsed([1], [0], records=5), "records must be at most of = 4, got 5"),
            (lambda: Detector(1.0, "aboove"), "side must be 'above' or 'below', got 'aboove'"),
            (lambda: catastrophic.spectrum_signals([np.ones((2, 3))]), r"path\[0\] must be square"),
            (lambda: catastrophic.spectrum_signals([np.eye(2), np.eye(3)]), "square kernels of one size"),
            (lambda: catastrophic.spectrum_signals([np.eye(2)], top=3), "top must be at most 2"),
            (lambda: catastrophic.calibrate([[1.0]], side="above"), "more than skip = 1 records"),
            (lambda: catastrophic.alarm([0, 1], [1], Detector(0.0, "above")), "of one length"),
            (
                lambda: catastrophic.score([0], [[1]], [1, 2], Detector(0.0, "above")),
                "of one length, got 1 and 2",
            ),
            (lambda: catastrophic.alarmed(Detector(0.0, "above"), "rank"), "signal must be 'top share'"),
        ],
        ValueError,
    )


def test_no_runs_have_no_score():
    found = catastrophic.score([0, 1], [[0, 0]], [math.inf], Detector(1.0, "above"))
    assert math.isnan(found.missed)
    assert found.false_alarms == 0
