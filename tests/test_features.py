"""Eigenfeatures against their definition: sums, attacks one by one, gradients, tests for many, overlap."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import central_difference, kernels
from refusals import assert_refused

from companion import features as ft
from companion import regression, statistics
from companion.architectures import conv, fc
from companion.attacks import Threat, fgsm, pgd, robust_accuracy
from companion.features import _attack
from companion.kernels import gram, keep_compiled

rng = np.random.default_rng(0)
FLAT, IMAGES = rng.uniform(size=(12, 3)), rng.uniform(size=(6, 3, 3, 1))
POINTS, PICTURES = rng.uniform(size=(10, 3)), rng.uniform(size=(3, 3, 3, 1))
POINTS[0, 0], POINTS[1, 1], PICTURES[0, 0, 0] = 0.0, 1.0, 1.0  # bounds that cut from the first step on
LABELS = {1: np.array([0, 1, 1, 0, 0, 1, 0, 1, 1, 0]), 3: np.array([0, 1, 2, 2, 1, 0, 0, 1, 2, 1])}
CLASSES = {1: rng.permutation(np.arange(12) % 2), 3: rng.permutation(np.arange(12) % 3)}
TARGETS = {1: 2.0 * CLASSES[1][:, None] - 1, 3: np.eye(3)[CLASSES[3]] - 1 / 3}
NORMS = {"linf": 0.06, "l2": 0.1}


@keep_compiled
def linear(a, b, get):
    return a @ b.T


@keep_compiled
def curved(a, b, get):
    return jnp.exp(-((a[:, None] - b) ** 2).sum(axis=2) / 0.2)


def slow_kernel(layers, which):
    return lambda a, b: kernels(a, b, layers)[which]


DENSE, FILTER = ("dense", 2**0.5, 0.1), ("conv", 3, 2**0.5, 0.1)
# Each with the slow kernel, the training inputs and the inputs to look at. The linear one has rank 3 of 12.
KERNELS = {
    "fc": (fc(1), slow_kernel((DENSE, ("relu",), DENSE), 1), FLAT, POINTS),
    "nngp": (fc(1), slow_kernel((DENSE, ("relu",), DENSE), 0), FLAT, POINTS),
    "linear": (linear, lambda a, b: a @ b.T, FLAT, POINTS),
    "curved": (curved, lambda a, b: np.exp(-((a[:, None] - b) ** 2).sum(axis=2) / 0.2), FLAT, POINTS),
    "conv": (conv(1), slow_kernel((FILTER, ("relu",), ("flatten",), DENSE), 1), IMAGES, PICTURES),
}


@functools.cache
def eigenfeatures(name, k=1, ridge=0.0, dtype=np.float64):
    kernel, _, x, _ = KERNELS[name]
    kind, x = "nngp" if name == "nngp" else "ntk", x.astype(dtype)
    return regression.fit(kernel, x, TARGETS[k][: len(x)], kind=kind, ridge=ridge)


@functools.cache
def slow_modes(name):
    _, kernel, x, _ = KERNELS[name]
    values, vectors = np.linalg.eigh(kernel(x, x))
    return values[::-1], vectors[:, ::-1]


def slow_feature(name, k, i, ridge=0.0):
    """f⁽ⁱ⁾ of inputs (m, ...), from the definition; zero for what is only rounding."""
    (_, kernel, x_train, _), (values, vectors) = KERNELS[name], slow_modes(name)
    gain = 1 / (values[i] + ridge) if values[i] + ridge > 1e-12 * values[0] else 0.0
    v, y = vectors[:, i : i + 1], TARGETS[k][: len(x_train)]
    return lambda x: gain * kernel(x, x_train) @ v @ (v.T @ y)


def names(output):
    """The class that outputs (k,) name, or None."""
    if len(output) == 1:
        return None if output[0] == 0 else int(output[0] > 0)
    return None if (output == output[0]).all() else int(output.argmax())


def slow_margin(output, label):
    return (1 - 2 * label) * output[0] if len(output) == 1 else np.delete(output, label).max() - output[label]


def slow_gradient(feature, x, label, step=1e-6):
    """Of the margin, by central differences, all pixels in one call of the kernel."""
    moves = step * np.eye(x.size).reshape(x.size, *x.shape)
    values = [slow_margin(output, label) for output in feature(np.concatenate([x + moves, x - moves]))]
    gradient = (np.array(values[: x.size]) - values[x.size :]) / (2 * step)
    return np.where(np.abs(gradient) > 1e-9, gradient, 0).reshape(x.shape)


def slow_survives(feature, x, label, threat, steps, size):
    """PGD on one input of one feature: whether no point on the way is wrong (Madry et al. 2018)."""
    now = x
    for done in range(steps + 1):
        if names(feature(now[None])[0]) != label:
            return False
        if done == steps:
            return True
        gradient = slow_gradient(feature, now, label)
        if threat.norm == "linf":
            delta = np.clip(now + size * np.sign(gradient) - x, -threat.eps, threat.eps)
        else:
            delta = now + size * gradient / (np.linalg.norm(gradient) or 1) - x
            delta = delta * min(1, threat.eps / (np.linalg.norm(delta) or 1))
        now = np.clip(x + delta, *threat.bounds)
    return None


def flipped(features):
    """The same features with other signs of their eigenvectors."""
    signs = np.where(np.arange(len(features.eigenvalues)) % 3 == 1, 1.0, -1.0)
    return dataclasses.replace(
        features,
        eigenvectors=features.eigenvectors * signs,
        projections=features.projections * signs[:, None],
    )


# Outputs


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", KERNELS)
def test_outputs_are_their_definition(name, k, ridge):
    found, x = ft.outputs(eigenfeatures(name, k, ridge), KERNELS[name][3]), KERNELS[name][3]
    n = len(KERNELS[name][2])
    assert found.shape == (len(x), n, k)
    assert found.dtype == np.float64
    for i in range(n):
        expected = slow_feature(name, k, i, ridge)(x)
        np.testing.assert_allclose(found[:, i], expected, rtol=1e-8, atol=1e-9 * np.abs(found).max())
    if name == "linear" and ridge == 0:
        assert not found[:, 3:].any()


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("k", [1, 3])
def test_outputs_are_loops_over_the_training_inputs_and_sum_to_the_whole(k, ridge):
    features = eigenfeatures("fc", k, ridge)
    found, fitted = ft.outputs(features, POINTS), features
    matrix, cross = gram(fc(1), FLAT), gram(fc(1), POINTS, FLAT)
    for p, i, output in np.ndindex(10, 12, k):
        v = fitted.eigenvectors[:, i]
        phi = sum(cross[p, j] * v[j] for j in range(12)) / (fitted.eigenvalues[i] + ridge)
        expected = phi * sum(v[j] * TARGETS[k][j, output] for j in range(12))
        assert found[p, i, output] == pytest.approx(expected, rel=1e-9, abs=1e-11)
    whole = cross @ np.linalg.solve(matrix + ridge * np.eye(12), TARGETS[k])
    assert np.linalg.norm(found.sum(axis=1) - whole) < 1e-10 * np.linalg.norm(whole)


def test_on_the_training_inputs_the_features_are_the_targets_projected():
    features = eigenfeatures("fc", 3)
    found = ft.outputs(features, FLAT)
    for i, v in enumerate(features.eigenvectors.T):
        np.testing.assert_allclose(found[:, i], np.outer(v, v @ TARGETS[3]), atol=1e-9)


def test_modes_are_a_number_or_indices_in_any_order():
    features = eigenfeatures("fc", 3)
    whole = ft.outputs(features, POINTS, modes=None)
    for modes, columns in (
        (1, [0]),
        (5, range(5)),
        ([4, 0, 7, 4], [4, 0, 7, 4]),
        (range(9, 12), [9, 10, 11]),
    ):
        found = ft.outputs(features, POINTS, modes=modes)
        np.testing.assert_allclose(found, whole[:, list(columns)], rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(
            ft.correct(features, POINTS, LABELS[3], modes=modes),
            ft.correct(features, POINTS, LABELS[3])[:, list(columns)],
        )


def test_no_modes_at_all_give_nothing():
    features, none = eigenfeatures("fc"), np.array([], int)
    threat = Threat("linf", 0.1)
    assert ft.outputs(features, POINTS, modes=none).shape == (10, 0, 1)
    assert ft.correct(features, POINTS, LABELS[1], modes=none).shape == (10, 0)
    assert ft.correct_under_attack(features, POINTS, LABELS[1], threat, modes=none).shape == (10, 0)


def test_float32_inputs_give_the_leading_features_to_single_precision():
    single, double = (eigenfeatures("fc", 3, dtype=dtype) for dtype in (np.float32, np.float64))
    exact = ft.outputs(double, POINTS, modes=4)
    found = ft.outputs(single, POINTS.astype(np.float32), modes=4)
    np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())
    assert found.dtype == np.float64


# Right or wrong


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", KERNELS)
def test_correct_is_the_sign_or_the_largest_output(name, k):
    x, labels = KERNELS[name][3], LABELS[k][: len(KERNELS[name][3])]
    found = ft.correct(eigenfeatures(name, k), x, labels)
    assert found.dtype == bool
    for i in range(len(KERNELS[name][2])):
        outputs = slow_feature(name, k, i)(x)
        expected = [names(output) == label for output, label in zip(outputs, labels, strict=True)]
        np.testing.assert_array_equal(found[:, i], expected)
    assert found.any()
    assert not found.all()


def test_two_columns_are_two_classes():
    both = np.concatenate([-TARGETS[1], TARGETS[1]], axis=1)
    one = eigenfeatures("fc", 1)
    two = regression.fit(fc(1), FLAT, both)
    np.testing.assert_array_equal(ft.correct(two, POINTS, LABELS[1]), ft.correct(one, POINTS, LABELS[1]))
    np.testing.assert_array_equal(
        ft.correct_under_attack(two, POINTS, LABELS[1], Threat("linf", 0.05)),
        ft.correct_under_attack(one, POINTS, LABELS[1], Threat("linf", 0.05)),
    )


def diagonal(targets):
    """Features of inputs on the axes, whose eigenvectors are the axes: φ_i(x) = x_i / (3 − i)."""
    x = np.diag([3.0, 2.0, 1.0])
    return regression.fit(linear, x, targets)


def test_a_feature_that_is_zero_is_right_about_nothing():
    x = np.array([[0.5, 0.0, 0.5]])
    one = diagonal(np.array([[1.0], [1.0], [0.0]]))  # the second is zero at x, the third everywhere
    threat = Threat("linf", 0.0)
    for label, expected in ((1, [[True, False, False]]), (0, [[False, False, False]])):
        np.testing.assert_array_equal(ft.correct(one, x, np.array([label])), expected)
        np.testing.assert_array_equal(ft.correct_under_attack(one, x, np.array([label]), threat), expected)
    # Of three outputs a feature names two classes at most, and none where all are equal.
    three = diagonal(np.array([[2.0, -1.0, -1.5], [1.0, 0.0, 2.0], [0.5, 0.5, 0.5]]))
    x = np.array([[0.5, 0.5, 0.5]])
    found = [ft.correct(three, x, np.array([label]))[0].tolist() for label in range(3)]
    assert found == [[True, False, False], [False, False, False], [False, True, False]]
    found = [ft.correct(three, -x, np.array([label]))[0].tolist() for label in range(3)]
    assert found == [[False, False, False], [False, True, False], [True, False, False]]


# Right or wrong under attack


# Every kernel with one output and with three, in both balls, by one step and by several.
@pytest.mark.parametrize(
    ("name", "k", "norm", "steps"),
    [
        ("fc", 1, "l2", 1),
        ("fc", 3, "linf", 3),
        ("nngp", 1, "linf", 1),
        ("nngp", 3, "l2", 3),
        ("linear", 1, "l2", 3),
        ("linear", 3, "linf", 1),
        ("curved", 1, "linf", 1),
        ("curved", 3, "linf", 3),
        ("curved", 3, "l2", 1),
        ("curved", 1, "l2", 3),
        ("conv", 1, "linf", 3),
        ("conv", 3, "l2", 1),
    ],
)
def test_every_feature_is_attacked_by_itself(name, k, norm, steps):
    x, features = KERNELS[name][3], eigenfeatures(name, k)
    labels = LABELS[k][: len(x)]
    threat = Threat(norm, NORMS[norm] * (3 if name in ("conv", "linear") else 1))
    size = threat.eps if steps == 1 else 0.6 * threat.eps
    found = ft.correct_under_attack(
        features, x, labels, threat, steps=steps, step_size=None if steps == 1 else size
    )
    expected = np.array(
        [
            [
                slow_survives(slow_feature(name, k, i), point, label, threat, steps, size)
                for i in range(len(features.x_train))
            ]
            for point, label in zip(x, labels, strict=True)
        ]
    )
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == bool
    clean = ft.correct(features, x, labels)
    assert (clean >= found).all()
    assert 0 < found.sum() < clean.sum()


@pytest.mark.parametrize(
    ("name", "k", "norm"), [("curved", 1, "linf"), ("curved", 3, "l2"), ("fc", 3, "linf")]
)
@pytest.mark.usefixtures("x64")
def test_attacks_on_single_features_agree(name, k, norm):
    # Whoever is wrong from the start is not attacked: the worse of before and after counts.
    features, labels, threat = eigenfeatures(name, k), LABELS[k], Threat(norm, 2 * NORMS[norm])
    one = ft.correct_under_attack(features, POINTS, labels, threat)
    several = ft.correct_under_attack(features, POINTS, labels, threat, steps=4)
    for i in range(12):
        f = ft.classifier(features, [i])
        step, walk = fgsm(f, POINTS, labels, threat), pgd(f, POINTS, labels, threat, steps=4)
        assert robust_accuracy(f, [POINTS, step], labels).value == one[:, i].mean()
        assert robust_accuracy(f, walk, labels).value == several[:, i].mean()
    assert (one != several).any()


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("norm", NORMS)
def test_without_a_ball_nothing_changes(norm, k):
    features, labels, threat = eigenfeatures("curved", k), LABELS[k], Threat(norm, 0.0)
    for steps in (1, 3):
        found = ft.correct_under_attack(features, POINTS, labels, threat, steps=steps)
        np.testing.assert_array_equal(found, ft.correct(features, POINTS, labels))


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("k", [1, 3])
def test_a_linear_feature_falls_where_its_value_is_under_eps_times_the_dual_norm(k, norm, steps):
    features = eigenfeatures("linear", k)
    values, vectors = slow_modes("linear")
    w = FLAT.T @ vectors[:, :3] / values[:3]
    dual = np.abs(w).sum(axis=0) if norm == "linf" else np.linalg.norm(w, axis=0)
    right, phi = ft.correct(features, POINTS, LABELS[k], modes=3), POINTS @ w
    counts = []
    for eps in (0.01, 0.1, 0.2, 0.4, 0.8):
        threat = Threat(norm, eps, (-1.0, 2.0))  # no pixel meets its bound
        found = ft.correct_under_attack(features, POINTS, LABELS[k], threat, modes=3, steps=steps)
        np.testing.assert_array_equal(found, right & (np.abs(phi) > eps * dual))
        counts.append(found.sum())
    assert counts[0] > counts[-1]
    assert counts == sorted(counts, reverse=True)


def test_steps_end_at_the_ball_at_the_bounds_and_where_their_length_does():
    features, bounds = eigenfeatures("linear"), (-0.2, 1.1)
    values, vectors = slow_modes("linear")
    w = FLAT.T @ vectors[:, :3] / values[:3]
    right, away = ft.correct(features, POINTS, LABELS[1], modes=3), -np.sign(POINTS @ w)
    seen = []
    for eps, steps, size, reached in (
        (0.3, 1, None, 0.3),
        (0.3, 2, None, 0.3),
        (0.3, 1, 5.0, 0.3),
        (0.3, 3, 0.02, 0.06),
        (0.3, 1, 0.0, 0.0),
        (1.3, 3, None, 1.3),
    ):
        found = ft.correct_under_attack(
            features, POINTS, LABELS[1], Threat("linf", eps, bounds), modes=3, steps=steps, step_size=size
        )
        moved = POINTS[:, None] + reached * away[:, :, None] * np.sign(w.T)
        attacked = (moved.clip(*bounds) * w.T).sum(axis=2)
        np.testing.assert_array_equal(found, right & (attacked * away < 0))
        seen.append(found.sum())
    assert seen[0] == seen[1] == seen[2] < seen[3] < seen[4]
    assert seen[5] < seen[0]
    # Bounds that are not reached leave more room.
    wide = ft.correct_under_attack(features, POINTS, LABELS[1], Threat("linf", 3.0, (-9.0, 9.0)), modes=3)
    assert not wide.any()


def lone(function):
    """One feature, proportional to any function of one pixel that is positive at 1."""

    @keep_compiled
    def kernel(a, b, get):
        return function(a) @ function(b).T

    x = np.array([[1.0]])
    return regression.fit(kernel, x, np.array([[1.0]]))


def test_any_point_on_the_way_counts_and_one_step_is_looked_at_where_it_lands():
    # Positive but for |x − 1/2| < 0.1: a step can jump over it.
    features, label = lone(lambda x: (x - 0.5) ** 2 - 0.01), np.array([1])

    def stays(x, **options):
        return ft.correct_under_attack(
            features, np.array([[x]]), label, Threat("linf", 0.4), modes=1, **options
        ).item()

    assert stays(0.7)
    assert not stays(0.7, step_size=0.15)
    assert not stays(0.7, steps=2, step_size=0.18)  # 0.52 and, again right, 0.34
    assert stays(0.7, steps=2, step_size=0.35)  # 0.35 and 0.7
    assert stays(0.7, steps=3)  # 0.37, 0.7 and 0.37 again, by steps of 2.5 ε / 3
    assert stays(0.95, steps=2, step_size=0.01)
    # Wrong from the start, it stays wrong, wherever a step leads.
    assert ft.correct(features, np.array([[0.15]]), label).item()
    assert not stays(0.55)
    assert not stays(0.55, steps=2, step_size=0.8)  # 0.15 and 0.95


def test_an_attack_that_ends_at_zero_has_fooled():
    features, x = lone(lambda x: x - 0.5), np.array([[0.75]])
    for eps, expected in ((0.25, False), (0.1875, True)):
        found = ft.correct_under_attack(features, x, np.array([1]), Threat("linf", eps))
        assert found.item() == expected


@pytest.mark.parametrize("norm", NORMS)
def test_float64_features_fall_at_their_boundary_to_the_ninth_digit(norm):
    features, (values, vectors) = eigenfeatures("linear"), slow_modes("linear")
    for mode in range(3):
        w = FLAT.T @ vectors[:, mode] / values[mode]
        # φ(x) = w x is a little more, or less, than the attack can take away.
        worst = 0.1 * (np.abs(w).sum() if norm == "linf" else np.linalg.norm(w))
        x = np.array([w, w]) / (w @ w) * worst * np.array([[1 + 1e-9], [1 - 1e-9]])
        label = np.repeat(int(vectors[:, mode] @ TARGETS[1][:, 0] > 0), 2)
        found = ft.correct_under_attack(features, x, label, Threat(norm, 0.1, (-9.0, 9.0)), modes=[mode])
        np.testing.assert_array_equal(found, [[True], [False]])


def test_a_step_without_a_gradient_leaves_the_input_where_it_is():
    features, x = lone(lambda x: 1 + 0 * x), np.array([[0.25], [0.75]])
    for norm in NORMS:
        found = ft.correct_under_attack(features, x, np.array([1, 0]), Threat(norm, 0.5), steps=2)
        np.testing.assert_array_equal(found, [[True], [False]])


@pytest.mark.parametrize("norm", NORMS)
def test_blocks_and_subsets_of_features_are_attacked_as_all_at_once(monkeypatch, norm):
    features, threat = eigenfeatures("curved", 3), Threat(norm, NORMS[norm])
    attack = functools.partial(
        ft.correct_under_attack, features, POINTS, LABELS[3], threat, steps=3, step_size=0.05
    )
    whole = attack()
    assert 0 < whole.sum() < ft.correct(features, POINTS, LABELS[3]).sum()
    np.testing.assert_array_equal(attack(modes=[8, 0, 3, 11, 2]), whole[:, [8, 0, 3, 11, 2]])
    monkeypatch.setattr(_attack, "_blocks", lambda _, q: (slice(a, min(a + 5, q)) for a in range(0, q, 5)))
    np.testing.assert_array_equal(attack(), whole)
    np.testing.assert_array_equal(attack(modes=7), whole[:, :7])


def test_blocks_hold_every_feature_once_and_are_no_larger_than_memory_allows():
    few, many = (np.broadcast_to(np.float32(0), (n, 8, 8, 1)) for n in (2, 2**15))
    flat = np.broadcast_to(np.float32(0), (2**20, 8))
    for x, kernel, each in (
        (few, fc(1), 66),
        (many, fc(1), 2**15 + 64),
        (many, conv(1), 2**21 + 64),
        (many, conv(1, pool=True), 2**27 + 64),
        (flat, linear, 2**20 + 8),
    ):
        features = regression.KernelPredictor(kernel, x)
        for q in (1, 7, 8, 100, 1000):
            blocks = list(_attack._blocks(features, q))
            assert [i for block in blocks for i in range(q)[block]] == list(range(q))
            sizes = [block.stop - block.start for block in blocks]
            assert max(sizes) == 1 or max(sizes) * each <= 2**24
            # No more blocks than that takes, and nearly equal ones: two shapes to compile.
            assert len(sizes) == math.ceil(q / max(1, min(q, 2**24 // each)))
            assert len(set(sizes[:-1])) <= 1


def test_float32_attacks_fool_what_float64_attacks_do():
    single, double = (eigenfeatures("fc", 3, dtype=dtype) for dtype in (np.float32, np.float64))
    threat = Threat("linf", NORMS["linf"])
    found = ft.correct_under_attack(single, POINTS.astype(np.float32), LABELS[3], threat, modes=6, steps=3)
    expected = ft.correct_under_attack(double, POINTS, LABELS[3], threat, modes=6, steps=3)
    np.testing.assert_array_equal(found, expected)


def test_float64_features_are_attacked_in_float64_without_the_setting():
    # In float32 the input is 1/2.
    assert not jax.config.jax_enable_x64
    features, x = lone(lambda x: x - 0.5), np.array([[0.5 + 3e-9]])
    for eps, expected in ((2e-9, True), (4e-9, False)):
        found = ft.correct_under_attack(features, x, np.array([1]), Threat("linf", eps))
        assert found.item() == expected


def test_a_function_of_the_user_is_compiled_once_however_many_inputs():
    traces = []

    def watched(a, b, get):
        traces.append(get)
        return a @ b.T

    features = dataclasses.replace(eigenfeatures("linear"), kernel=watched)
    counts = []
    for m in (1, 6):
        traces.clear()
        ft.correct_under_attack(features, POINTS[:m], LABELS[1][:m], Threat("linf", 0.1), modes=2, steps=3)
        counts.append(len(traces))
    assert counts[0] == counts[1]


def test_bars_are_shown_on_demand(capsys):
    features, threat = eigenfeatures("fc"), Threat("linf", 0.1)
    for progress in (False, True):
        ft.correct_under_attack(features, POINTS, LABELS[1], threat, modes=2, progress=progress)
        assert ("features: 100%" in capsys.readouterr().err) == progress
        for call in (ft.outputs, functools.partial(ft.correct, labels=LABELS[1])):
            call(features, POINTS, progress=progress)
            assert ("ntk tiles: 100%" in capsys.readouterr().err) == progress


# Sums of features


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.usefixtures("x64")
def test_gradients_of_features_sum_to_the_gradient_of_the_whole(k):
    features = eigenfeatures("fc", k)
    each = [np.asarray(ft.classifier(features, [i]).gradient(POINTS)) for i in range(12)]
    whole = np.asarray(ft.classifier(features).gradient(POINTS))
    assert whole.shape == (10, k, 3)
    assert np.linalg.norm(sum(each) - whole) < 1e-10 * np.linalg.norm(whole)
    matrix = KERNELS["fc"][1](FLAT, FLAT)
    alpha = np.linalg.solve(matrix, TARGETS[k])
    for p in range(2, 4):  # away from the origin's kink
        for output in range(k):
            expected = central_difference(
                lambda z, output=output: (KERNELS["fc"][1](z[None], FLAT) @ alpha)[0, output], POINTS[p], 1e-5
            )
            np.testing.assert_allclose(whole[p, output], expected, rtol=1e-5, atol=1e-6)
            one = central_difference(
                lambda z, output=output: slow_feature("fc", k, 2)(z[None])[0, output], POINTS[p], 1e-5
            )
            np.testing.assert_allclose(each[2][p, output], one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("t", [math.inf, 0.0, 0.7, 40.0])
@pytest.mark.usefixtures("x64")
def test_a_classifier_is_the_sum_of_its_features(t, ridge):
    features = eigenfeatures("fc", 3, ridge)
    (values, _), cross = slow_modes("fc"), KERNELS["fc"][1](POINTS, FLAT)
    shifted = values + ridge
    parts = [
        (1 - np.exp(-rate * t)) * slow_feature("fc", 3, i, ridge)(POINTS) for i, rate in enumerate(shifted)
    ]
    for modes, indices in (
        (None, range(12)),
        (4, range(4)),
        (range(4, 12), range(4, 12)),
        ([9, 2], (2, 9)),
        ([5], (5,)),
    ):
        f = ft.classifier(features.at(t), modes)
        expected = sum(parts[i] for i in indices)
        np.testing.assert_allclose(f(POINTS), expected, rtol=1e-8, atol=1e-9)
    # Coefficients by hand: all together are those of kernel regression.
    decay = np.linalg.inv(KERNELS["fc"][1](FLAT, FLAT) + ridge * np.eye(12))
    if t == math.inf:
        np.testing.assert_allclose(ft.classifier(features)(POINTS), cross @ decay @ TARGETS[3], rtol=1e-8)
    top, rest, whole = (ft.classifier(features.at(t), modes)(POINTS) for modes in (4, range(4, 12), None))
    assert np.linalg.norm(top + rest - whole) <= 1e-12 * np.linalg.norm(whole)


@pytest.mark.usefixtures("x64")
def test_a_classifier_does_not_depend_on_its_batch_or_on_features_never_learned():
    features = eigenfeatures("fc", 1)
    whole = ft.classifier(features)(POINTS)
    blocks = ft.classifier(dataclasses.replace(features, batch_size=5))
    np.testing.assert_allclose(blocks(POINTS), whole, rtol=1e-10)
    assert jax.tree.leaves(blocks)[0].shape == (3, 4, 3)
    lost = eigenfeatures("linear")
    assert not ft.classifier(lost, range(3, 12))(POINTS).any()
    expected = POINTS @ np.linalg.lstsq(FLAT, TARGETS[1], rcond=None)[0]
    np.testing.assert_allclose(ft.classifier(lost)(POINTS), expected, rtol=1e-9)
    kinds = [ft.classifier(eigenfeatures(name))(POINTS) for name in ("fc", "nngp")]
    np.testing.assert_allclose(
        kinds[1], sum(slow_feature("nngp", 1, i)(POINTS) for i in range(12)), rtol=1e-7
    )
    assert np.abs(kinds[0] - kinds[1]).max() > 1e-2


# What an attack goes through, and how features look


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.usefixtures("x64")
def test_shares_sum_to_the_whole_damage(k):
    features, labels = eigenfeatures("fc", k), LABELS[k].copy()
    f = ft.classifier(features)
    # Half are right to start with, and not all of them fall.
    said = np.array([names(output) for output in np.asarray(f(POINTS))])
    labels[:5] = said[:5]
    attacked = pgd(f, POINTS, labels, Threat("linf", 0.05), steps=3)
    still = np.array([names(output) for output in np.asarray(f(attacked))]) == labels
    assert 0 < still.sum() < (said == labels).sum()
    found = ft.attack_shares(features, POINTS, attacked, labels)
    assert found.shape == (10, 12)
    before, after = (np.asarray(f(points)) for points in (POINTS, attacked))
    for p, label in enumerate(labels):
        other = None if k == 1 else max(set(range(3)) - {label}, key=lambda j, p=p: after[p, j])
        for i in range(12):
            clean, worse = (slow_feature("fc", k, i)(points[p : p + 1])[0] for points in (POINTS, attacked))
            if k == 1:
                expected = (1 if label else -1) * (clean[0] - worse[0])
            else:
                expected = (clean[label] - clean[other]) - (worse[label] - worse[other])
            assert found[p, i] == pytest.approx(expected, rel=1e-6, abs=1e-8)
        if k == 1:
            damage = (1 if label else -1) * (before[p, 0] - after[p, 0])
        else:
            damage = before[p, label] - before[p, other] - after[p, label] + after[p, other]
        assert found[p].sum() == pytest.approx(damage, rel=1e-9, abs=1e-12)
    assert (found.sum(axis=1) > 0).all()
    for modes, columns in ((1, [0]), ([7, 2], [7, 2])):
        some = ft.attack_shares(features, POINTS, attacked, labels, modes=modes)
        np.testing.assert_allclose(some, found[:, columns], rtol=1e-9, atol=1e-12)


def test_an_input_that_does_not_move_has_no_shares():
    for k in (1, 3):
        assert not ft.attack_shares(eigenfeatures("fc", k), POINTS, POINTS, LABELS[k]).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_excites_a_linear_feature_most_is_known(norm):
    features = eigenfeatures("linear", 1, dtype=np.float32)
    start = np.array([[0.5, 0.5, 0.5], [0.3, 0.6, 0.55]], np.float32)
    for mode, label in itertools.product(range(3), (0, 1)):
        v = slow_modes("linear")[1][:, mode]
        u = FLAT.T @ v * (v @ TARGETS[1][:, 0]) * (2 * label - 1)
        found = ft.exciting(features, mode, Threat(norm, 0.25), start, label=label)
        way = np.sign(u) if norm == "linf" else u / np.linalg.norm(u)
        np.testing.assert_allclose(found, start + 0.25 * way, atol=1e-5)
        assert found.dtype == np.float32
        assert found.shape == start.shape
    if norm == "linf":
        corner = ft.exciting(features, 1, Threat("linf", 0.9), start, label=1, steps=3, loss="cross_entropy")
        v = slow_modes("linear")[1][:, 1]
        np.testing.assert_array_equal(corner[0], FLAT.T @ v * (v @ TARGETS[1][:, 0]) > 0)
        # A tenth of the steps of a tenth of their length: the number of steps is heard.
        few = ft.exciting(features, 0, Threat("linf", 0.25), start, steps=1)
        np.testing.assert_allclose(few, ft.exciting(features, 0, Threat("linf", 0.25), start), atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_of_three_classes_a_feature_can_be_excited_toward_two():
    features, start = eigenfeatures("linear", 3), np.full((1, 3), 0.5)
    v = slow_modes("linear")[1][:, 1]
    c, w = v @ TARGETS[3], FLAT.T @ v
    for label, sign in ((int(c.argmax()), 1), (int(c.argmin()), -1)):
        found = ft.exciting(features, 1, Threat("linf", 0.25), start, label=label)
        np.testing.assert_allclose(found[0], 0.5 + 0.25 * sign * np.sign(w), atol=1e-12)
        assert found.dtype == np.float64
    # One class is said by default.
    default = ft.exciting(eigenfeatures("linear"), 0, Threat("l2", 0.25), start)
    np.testing.assert_array_equal(
        default, ft.exciting(eigenfeatures("linear"), 0, Threat("l2", 0.25), start, label=1)
    )


@pytest.mark.parametrize("k", [1, 3])
def test_the_difference_of_classes_by_hand(k):
    features, differences = eigenfeatures("fc", k), 0
    for mode, label in itertools.product((1, 4), range(max(2, k))):
        said = [names(output) for output in slow_feature("fc", k, mode)(POINTS)]
        yes = [x for x, name in zip(POINTS, said, strict=True) if name == label]
        no = [x for x, name in zip(POINTS, said, strict=True) if name != label]
        expected = sum(yes) / len(yes) - sum(no) / len(no) if yes and no else np.zeros(3)
        found = ft.class_difference(features, POINTS, mode, label=label)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        differences += bool(yes and no)
    assert differences >= 3
    pictures = ft.class_difference(eigenfeatures("conv"), PICTURES, 1)
    assert pictures.shape == (3, 3, 1)


def test_a_feature_that_says_the_same_of_all_shows_nothing():
    # The leading eigenvector of positive inputs has one sign.
    features = eigenfeatures("linear")
    for label in (0, 1):
        np.testing.assert_array_equal(ft.class_difference(features, POINTS, 0, label=label), np.zeros(3))
    assert ft.class_difference(features, POINTS, 1).any()
    default = ft.class_difference(features, POINTS, 1)
    np.testing.assert_array_equal(default, ft.class_difference(features, POINTS, 1, label=1))
    np.testing.assert_allclose(default, -ft.class_difference(features, POINTS, 1, label=0))


# Signs of eigenvectors


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.usefixtures("x64")
def test_signs_of_eigenvectors_change_no_number(k):
    features, labels, threat = eigenfeatures("curved", k), LABELS[k], Threat("linf", 0.05)
    other = flipped(features)
    assert (features.eigenvectors != other.eigenvectors).any(axis=0).sum() == 8
    targets = TARGETS[k][:10]
    calls = [
        lambda f: ft.outputs(f, POINTS),
        lambda f: ft.correct(f, POINTS, labels),
        lambda f: ft.correct_under_attack(f, POINTS, labels, threat),
        lambda f: ft.correct_under_attack(f, POINTS, labels, Threat("l2", 0.1), steps=3),
        lambda f: np.asarray(ft.classifier(f, [0, 1, 7])(POINTS)),
        lambda f: np.asarray(ft.classifier(f.at(3.0), 5)(POINTS)),
        lambda f: ft.exciting(f, 0, threat, POINTS[:2], steps=3),
        lambda f: ft.exciting(f, 2, threat, POINTS[:2], steps=3, label=0),
        lambda f: np.array([ft.class_difference(f, POINTS, i) for i in range(5)]),
        lambda f: np.array([ft.class_difference(f, POINTS, i, label=0) for i in range(5)]),
        lambda f: ft.attack_shares(f, POINTS, POINTS[::-1], labels),
        lambda f: ft.correlation(ft.outputs(f, POINTS), targets).r.value,
        lambda f: ft.usefulness(ft.correct(f, POINTS, labels), labels).p_value,
    ]
    for call in calls:
        found = call(features)
        np.testing.assert_array_equal(call(other), found)
        assert np.any(found)
    first, second = features.eigenvectors, eigenfeatures("nngp").eigenvectors
    turned = other.eigenvectors
    for top in (1, 4):
        np.testing.assert_allclose(
            ft.principal_angles(turned, second, top=top),
            ft.principal_angles(first, second, top=top),
            atol=1e-12,
        )
        for found, expected in zip(
            ft.match(second, turned, top=top), ft.match(second, first, top=top), strict=True
        ):
            np.testing.assert_allclose(found, expected, atol=1e-14)


# Usefulness


@pytest.mark.parametrize("labels", [[0] * 12 + [1] * 8, [2] * 5 + [0] * 6 + [1] * 9, [1] * 20])
def test_p_values_are_those_of_the_binomial_test(labels):
    labels = np.array(labels)
    correct = np.arange(20)[:, None] < np.arange(21)
    found = ft.usefulness(correct, labels, level=0.9)
    majority = max(np.mean(labels == c) for c in set(labels.tolist()))
    assert found.majority == majority
    assert isinstance(found.majority, float)
    expected = [
        scipy.stats.binomtest(successes, 20, majority, alternative="greater").pvalue
        for successes in range(21)
    ]
    np.testing.assert_allclose(found.p_value, expected, rtol=1e-9)
    np.testing.assert_allclose(found.adjusted, slow_holm(found.p_value), rtol=1e-12)
    np.testing.assert_array_equal(
        found.accuracy.as_array(), statistics.proportion(correct, level=0.9).as_array()
    )
    assert ft.usefulness(correct, labels).accuracy.level == 0.95


def test_features_that_guess_are_seldom_called_useful():
    # 30 features that are right with the majority's probability, many times over: one or more is called
    # useful in at most 5 % of all sets.
    generator, labels = np.random.default_rng(3), np.arange(100) % 2
    errors, sets = 0, 600
    for _ in range(sets):
        found = ft.usefulness(generator.random((100, 30)) < 0.5, labels)
        errors += (found.adjusted <= 0.05).any()
    assert 0.005 < errors / sets < 0.05 + 3 * np.sqrt(0.05 * 0.95 / sets)
    # One that says the same class everywhere has a p-value near one half.
    assert ft.usefulness((labels == 1)[:, None], labels).p_value[0] == pytest.approx(0.5, abs=0.05)


# Many tests


def slow_holm(p):
    """The largest of min(1, (q − j + 1) p_(j)) over the j up to a number's rank."""
    ranks = sorted(range(len(p)), key=lambda i: p[i])
    adjusted = [0.0] * len(p)
    for rank, i in enumerate(ranks):
        adjusted[i] = max(min(1.0, (len(p) - j) * p[ranks[j]]) for j in range(rank + 1))
    return adjusted


def rejected(p, alpha):
    """Holm's procedure: from the smallest up, until one is over α / (tests that are left)."""
    left, done = sorted(range(len(p)), key=lambda i: p[i]), set()
    while left and p[left[0]] <= alpha / len(left):
        done.add(left.pop(0))
    return done


P_VALUES = arrays(float, st.integers(0, 12), elements=st.floats(0, 1))


@settings(max_examples=100)
@given(P_VALUES)
def test_holm_is_its_definition_keeps_the_order_and_never_lowers(p):
    found = ft.holm(p)
    np.testing.assert_allclose(found, slow_holm(p), rtol=1e-15)
    assert ((found >= p) & (found <= 1)).all()
    order = np.argsort(p)
    assert (np.diff(found[order]) >= 0).all()


def test_holm_rejects_what_the_procedure_does():
    generator = np.random.default_rng(4)
    for _ in range(50):
        p = generator.random(8) ** 4
        p[3] = p[5]
        found = ft.holm(p)
        for alpha in (0.01, 0.05, 0.2):
            assert set(np.flatnonzero(found <= alpha)) == rejected(p, alpha)
    np.testing.assert_allclose(ft.holm(np.array([0.04, 0.005, 0.03, 0.5])), [0.09, 0.02, 0.09, 0.5])


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_holm_errs_as_seldom_as_it_says_whatever_the_tests_share(shared):
    # Of twelve tests eight are of true hypotheses; their z-values share a part.
    generator, sets, alpha = np.random.default_rng(5), 4000, 0.1
    z = np.sqrt(shared) * generator.normal(size=(sets, 1)) + np.sqrt(1 - shared) * generator.normal(
        size=(sets, 12)
    )
    z[:, 8:] += 6
    adjusted = np.array([ft.holm(p) for p in scipy.stats.norm.sf(z)])
    errors = (adjusted[:, :8] <= alpha).any(axis=1).mean()
    assert errors < alpha + 3 * np.sqrt(alpha * (1 - alpha) / sets)
    # The four false ones are found, so that the others are tested at α / 8: nothing is given away.
    assert (adjusted[:, 8:] <= alpha).mean() > 0.9
    if not shared:
        np.testing.assert_allclose(errors, 1 - (1 - alpha / 8) ** 8, atol=0.015)


# Correlation


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_with_one_output_it_is_pearsons(level):
    generator = np.random.default_rng(6)
    y = np.where(generator.random((25, 1)) < 0.4, 1.0, -1.0)
    f = generator.normal(size=(25, 5, 1)) * [[3.0], [1e-6], [1.0], [1.0], [40.0]] + [
        [0.0],
        [0.0],
        [5.0],
        [0.0],
        [1.0],
    ]
    f[:, 3] += 0.7 * y
    f[:, 2] -= 0.7 * y
    f[:, 4] = np.minimum(f[:, 4], 0)  # largest in size where it is least, and often zero
    found = ft.correlation(f, y, level=level)
    for i in range(5):
        one_sided = scipy.stats.pearsonr(f[:, i, 0], y[:, 0], alternative="greater")
        interval = scipy.stats.pearsonr(f[:, i, 0], y[:, 0]).confidence_interval(level)
        wanted = [one_sided.statistic, *interval]
        np.testing.assert_allclose(found.r[i].as_array(), wanted, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(found.p_value[i], one_sided.pvalue, rtol=1e-8)
    np.testing.assert_allclose(found.adjusted, slow_holm(found.p_value), rtol=1e-12)
    assert found.r[3].value > 0.3
    assert found.r[2].value < -0.3
    assert ft.correlation(f, y).r.level == 0.95


def test_with_three_outputs_it_is_that_of_phi_and_the_projected_targets():
    features = eigenfeatures("fc", 3)
    outputs, targets = ft.outputs(features, POINTS), TARGETS[3][:10]
    found = ft.correlation(outputs, targets)
    c = slow_modes("fc")[1].T @ TARGETS[3]
    for i in range(12):
        phi = KERNELS["fc"][1](POINTS, FLAT) @ slow_modes("fc")[1][:, i]
        wanted = [sum(row * c[i]) for row in targets]
        np.testing.assert_allclose(found.r[i].value, np.corrcoef(phi, wanted)[0, 1], atol=1e-9)
        np.testing.assert_allclose(
            found.p_value[i], scipy.stats.pearsonr(phi, wanted, alternative="greater").pvalue, rtol=1e-7
        )
    # Of two columns that say the opposite it is that of one.
    one = ft.correlation(outputs[:, :, :1], targets[:, :1])
    both = ft.correlation(
        np.concatenate([outputs[:, :, :1], -outputs[:, :, :1]], axis=2),
        np.concatenate([targets[:, :1], -targets[:, :1]], axis=1),
    )
    np.testing.assert_allclose(both.r.as_array(), one.r.as_array(), atol=1e-12)


def constant(value, m, k):
    return np.broadcast_to(np.asarray(value, float), (m, 1, k)).copy()


@pytest.mark.parametrize("m", [4, 7, 10, 33])
@pytest.mark.parametrize("k", [1, 3])
def test_what_does_not_vary_has_no_correlation(k, m):
    generator = np.random.default_rng(7)
    numbers = [0.0, 1.0, 0.1, -0.7, 1 / 3, 1e6 / 7]
    varying = generator.normal(size=(m, 1, 1)) * np.array([0.3, 0.5, -0.2])[:k]
    targets = generator.normal(size=(m, k))
    z = scipy.stats.norm.isf(0.025) / np.sqrt(m - 3)
    for number in numbers:
        still = constant(number * np.array([0.9, -0.2, 0.4])[:k], m, k)
        for f, y in ((still, targets), (varying, still[:, 0]), (still, still[:, 0])):
            found = ft.correlation(f, y)
            np.testing.assert_allclose(found.r.as_array(), [[0, -np.tanh(z), np.tanh(z)]], rtol=1e-12)
            np.testing.assert_array_equal(found.p_value, [1])
            np.testing.assert_array_equal(found.adjusted, [1])


def test_what_agrees_or_disagrees_everywhere_has_a_correlation_of_one():
    y = np.array([[1.0], [-1.0], [1.0], [1.0], [-1.0]])
    found = ft.correlation(np.stack([2.0 * y, -3.0 * y, 0 * y], axis=1), y)
    np.testing.assert_allclose(found.r[:2].value, [1, -1], rtol=1e-12)
    assert (np.abs(found.r.as_array()) <= 1).all()
    assert found.p_value[0] < 1e-10
    assert found.p_value[1] > 1 - 1e-10
    assert found.p_value[2] == 1
    # Rounding takes none past one.
    y = np.random.default_rng(9).normal(size=(50, 1))
    found = ft.correlation(y[:, None] * np.linspace(-3, 3, 300)[:, None], y)
    np.testing.assert_allclose(found.r.value, np.repeat([-1, 1], 150), rtol=1e-12)
    assert (np.abs(found.r.as_array()) <= 1).all()
    np.testing.assert_allclose(found.p_value, np.repeat([1, 0], 150), atol=1e-12)
    exact = ft.correlation(
        np.array([1.0, -1.0, 1.0, -1.0])[:, None, None], np.array([1.0, -1, 1, -1])[:, None]
    )
    np.testing.assert_array_equal(exact.r.as_array(), [[1, 1, 1]])
    np.testing.assert_array_equal(exact.p_value, [0])


# Overlap


@pytest.mark.parametrize("top", [1, 3, 6, 8])
def test_angles_are_the_singular_values(top):
    first, second = (scipy.stats.ortho_group.rvs(8, random_state=seed) for seed in (1, 2))
    cosines = np.linalg.svd(first[:, :top].T @ second[:, :top])[1]
    found = ft.principal_angles(first, second, top=top)
    np.testing.assert_allclose(found, np.arccos(cosines.clip(-1, 1)), atol=3e-8)
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= np.pi / 2)).all()
    overlap = np.linalg.norm(first[:, :top].T @ second[:, :top]) ** 2 / top
    np.testing.assert_allclose((np.cos(found) ** 2).mean(), overlap, rtol=1e-12)
    np.testing.assert_allclose(ft.principal_angles(second, first, top=top), found, atol=1e-12)
    # A basis of the same space is as good.
    inner = np.eye(8)
    if top > 1:
        inner[:top, :top] = scipy.stats.ortho_group.rvs(top, random_state=3)
    np.testing.assert_allclose(ft.principal_angles(first @ inner, second, top=top), found, atol=1e-12)


def test_known_rotations_are_found_tiny_ones_too():
    second = np.eye(5)[:, [0, 1]].copy()
    for column, axis, angle in ((0, 2, 0.7), (1, 3, 1e-10)):
        second[column, column], second[axis, column] = np.cos(angle), np.sin(angle)
    found = ft.principal_angles(np.eye(5)[:, :2], second, top=2)
    np.testing.assert_allclose(found, [1e-10, 0.7], rtol=1e-5)
    found = ft.principal_angles(np.eye(4), np.eye(4)[:, [0, 2, 3, 1]], top=2)
    np.testing.assert_allclose(found, [0, np.pi / 2], atol=1e-12)


def test_random_spaces_share_top_of_n():
    n, top, seeds = 30, 6, 60
    bases = [scipy.stats.ortho_group.rvs(n, random_state=seed) for seed in range(seeds)]
    shared = [(np.cos(ft.principal_angles(np.eye(n), basis, top=top)) ** 2).mean() for basis in bases]
    assert abs(np.mean(shared) - top / n) < 4 * scipy.stats.sem(shared)
    assert scipy.stats.sem(shared) < 0.01


def test_spaces_may_have_been_kept_to_different_numbers_of_columns():
    first, second = np.eye(5), np.eye(5)[:, [1, 0, 4]]
    np.testing.assert_allclose(ft.principal_angles(first, second, top=2), [0, 0], atol=1e-12)
    np.testing.assert_array_equal(ft.match(second, first, top=2)[0], [1, 0])


def test_the_matching_is_the_best_of_all():
    by_length = 0
    for seed, top in itertools.product(range(12), range(1, 6)):
        first, second = (scipy.stats.ortho_group.rvs(7, random_state=2 * seed + i) for i in (0, 1))
        partner, cosines = ft.match(first, second, top=top)
        squared, length = (
            {
                order: sum(abs(first[:, i] @ second[:, j]) ** power for i, j in enumerate(order))
                for order in itertools.permutations(range(top))
            }
            for power in (2, 1)
        )
        assert tuple(partner) == max(squared, key=squared.get)
        np.testing.assert_allclose(
            cosines, [abs(first[:, i] @ second[:, j]) for i, j in enumerate(partner)], rtol=1e-12
        )
        by_length += tuple(partner) != max(length, key=length.get)
    assert by_length > 0  # squares are what is summed


def test_a_permuted_and_turned_basis_is_matched_back():
    basis, order = scipy.stats.ortho_group.rvs(9, random_state=4), np.random.default_rng(8).permutation(9)
    other = (basis * np.where(np.arange(9) % 2, 1.0, -1.0))[:, order]
    partner, cosines = ft.match(basis, other, top=9)
    np.testing.assert_array_equal(order[partner], np.arange(9))
    np.testing.assert_allclose(cosines, 1, rtol=1e-12)


# Errors

K = gram(fc(1), FLAT)
MATRIX = regression.fit(K, targets=TARGETS[1])
SOLVED = regression.fit(fc(1), FLAT, TARGETS[1], solver="cholesky")
NAN = np.where(np.arange(3) == 1, np.nan, POINTS)
EYE, BOX = np.eye(4), Threat("linf", 0.1)
RIGHT = np.ones((5, 2), bool)


def one():
    return eigenfeatures("fc", 1)


def three():
    return eigenfeatures("fc", 3)


def single():
    return eigenfeatures("fc", 1, dtype=np.float32)


def attack(x=POINTS, labels=LABELS[1], threat=BOX, **options):
    return ft.correct_under_attack(one(), x, labels, threat, **options)


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    assert_refused(
        [
            (lambda: ft.outputs(MATRIX, POINTS), "f must know its inputs: fit"),
            (
                lambda: ft.outputs(SOLVED, POINTS),
                "no spectrum: fit with solver='eigh'",
            ),
            (lambda: ft.correct(SOLVED, POINTS, LABELS[1]), "f has coefficients and no spectrum"),
            (lambda: ft.classifier(SOLVED, 2), "f has coefficients and no spectrum"),
            (
                lambda: ft.attack_shares(SOLVED, POINTS, POINTS, LABELS[1]),
                "f has coefficients and no spectrum",
            ),
            (lambda: ft.classifier(one(), [0, 0]), "modes must be different"),
            (lambda: ft.class_difference(one(), POINTS, 0, label=0.5), "label must be an integer"),
            (lambda: ft.class_difference(one(), POINTS, 0, label="1"), "label must be an integer"),
            (lambda: ft.mean_accuracy(np.ones((5, 0), bool), key=jax.random.key(0)), "q ≥ 1"),
            (
                lambda: ft.mean_correlation(np.ones((5, 0, 1)), np.ones((5, 1)), key=jax.random.key(0)),
                "q ≥ 1",
            ),
            (lambda: ft.outputs(K, POINTS), "f must come from regression.fit, got ndarray"),
            (lambda: ft.classifier(K), "f must come from regression.fit, got ndarray"),
            (lambda: ft.outputs(one(), POINTS[:, :2]), r"inputs of one shape, got \(2,\) and \(3,\)"),
            (lambda: ft.outputs(one(), NAN), "has 10 NaN or infinite"),
            (lambda: ft.outputs(one(), POINTS.astype(int)), "must be float32 or float64, got int64"),
            (lambda: ft.outputs(one(), POINTS, modes=13), "modes must be at most 12, got 13"),
            (lambda: ft.outputs(one(), POINTS, modes=0), "modes must be at least 1, got 0"),
            (lambda: ft.outputs(one(), POINTS, modes=[2, 12]), "modes must lie in 0 to 11, got 12"),
            (lambda: ft.outputs(one(), POINTS, modes=[-1]), "modes must lie in 0 to 11, got -1"),
            (lambda: ft.outputs(one(), POINTS, modes=[1.0]), "modes must be an integer or a sequence"),
            (lambda: ft.correct(one(), POINTS, LABELS[1], modes=13), "modes must be at most 12"),
            (lambda: ft.correct(one(), NAN, LABELS[1]), "has 10 NaN or infinite"),
            (lambda: attack(steps=0), "steps must be at least 1, got 0"),
            (lambda: attack(steps=1.5), "steps must be an integer, got 1.5"),
            (lambda: attack(step_size=-0.1), r"step_size must be at least 0\.0, got -0\.1"),
            (lambda: attack(step_size=[0.1]), "step_size must be a number"),
            (lambda: attack(step_size=math.inf), "step_size must be finite"),
            (
                lambda: attack(POINTS[:, :2]),
                r"x and x_train must hold inputs of one shape, got \(2,\) and \(3,\)",
            ),
            (lambda: attack(NAN), "x has 10 NaN"),
            (lambda: attack(POINTS[0]), r"x must be a batch \(n, ...\)"),
            (lambda: attack(modes=[12]), "modes must lie in 0 to 11, got 12"),
            (lambda: ft.classifier(single(), 13), "modes must be at most 12"),
            (lambda: ft.classifier(single(), [0.5]), "modes must be an integer or a sequence"),
            (lambda: ft.exciting(single(), 12, BOX, POINTS), "modes must lie in 0 to 11, got 12"),
            (lambda: ft.exciting(single(), 0.5, BOX, POINTS), "modes must be an integer or a sequence"),
            (lambda: ft.exciting(single(), 0, BOX, POINTS[0]), r"start must be a batch \(n, ...\)"),
            (lambda: ft.exciting(single(), 0, BOX, POINTS[:, :2]), "inputs of one shape"),
            (
                lambda: ft.exciting(single(), 0, BOX, POINTS, label=2),
                r"label must lie in \[0, 2\), got 2$",
            ),
            (lambda: ft.exciting(single(), 0, BOX, POINTS, steps=0), "steps must be at least 1"),
            (lambda: ft.exciting(single(), 0, BOX, POINTS, loss="hinge"), "loss must be one of"),
            (lambda: ft.class_difference(one(), POINTS, 12), "modes must lie in 0 to 11, got 12"),
            (lambda: ft.class_difference(one(), POINTS, 0, label=2), r"label must lie in \[0, 2\), got 2"),
            (
                lambda: ft.class_difference(three(), POINTS, 0, label=-1),
                r"label must lie in \[0, 3\), got -1",
            ),
            (lambda: ft.class_difference(one(), NAN, 0), "has 10 NaN or infinite"),
            (
                lambda: ft.attack_shares(one(), POINTS, POINTS[:4], LABELS[1]),
                r"attacked must have the shape of x, \(10, 3\), got \(4, 3\)",
            ),
            (
                lambda: ft.attack_shares(one(), POINTS, POINTS, LABELS[1], modes=13),
                "modes must be at most 12",
            ),
            (lambda: ft.usefulness(np.ones(3, bool), np.arange(3)), r"correct must be \(m, q\) booleans"),
            (lambda: ft.usefulness(RIGHT * 1, np.arange(5)), r"correct must be \(m, q\) booleans"),
            (lambda: ft.usefulness(RIGHT, np.arange(5), level=95.0), r"level must lie in \(0, 1\), got 95"),
            (lambda: ft.correlation(np.ones((5, 2)), np.ones((5, 1))), r"m ≥ 4, got \(5, 2\) and \(5, 1\)"),
            (lambda: ft.correlation(np.ones((5, 2, 1)), np.ones((4, 1))), r"got \(5, 2, 1\) and \(4, 1\)"),
            (lambda: ft.correlation(np.ones((5, 2, 1)), np.ones((5, 3))), r"got \(5, 2, 1\) and \(5, 3\)"),
            (lambda: ft.correlation(np.ones((3, 2, 1)), np.ones((3, 1))), r"m ≥ 4, got \(3, 2, 1\)"),
            (lambda: ft.correlation(np.full((5, 2, 1), np.nan), np.ones((5, 1))), "outputs has 10 NaN"),
            (lambda: ft.correlation(np.ones((5, 2, 1)), np.full((5, 1), np.inf)), "targets has 5 NaN or inf"),
            (
                lambda: ft.correlation(np.ones((5, 2, 1)), np.ones((5, 1)), level=1.5),
                r"level must lie in \(0, 1\), got 1\.5",
            ),
            (lambda: ft.holm(np.array([0.5, 1.1])), r"p must be one axis of numbers in \[0, 1\]"),
            (lambda: ft.holm(np.array([-0.1])), r"p must be one axis of numbers in \[0, 1\]"),
            (lambda: ft.holm(np.array([np.nan])), r"p must be one axis of numbers in \[0, 1\]"),
            (lambda: ft.holm(np.ones((2, 2))), r"p must be one axis of numbers in \[0, 1\]"),
            (lambda: ft.principal_angles(EYE, np.eye(3), top=1), r"of the same n, got \(4, 4\), \(3, 3\)"),
            (lambda: ft.principal_angles(EYE, EYE[0], top=1), r"of the same n, got \(4, 4\), \(4,\)"),
            (lambda: ft.principal_angles(EYE, EYE, top=0), "top must be at least 1, got 0"),
            (lambda: ft.principal_angles(EYE, EYE, top=5), "top must be at most 4, got 5"),
            (lambda: ft.principal_angles(EYE, EYE[:, :2], top=3), "top must be at most 2, got 3"),
            (lambda: ft.principal_angles(EYE[:, :2], EYE, top=3), "top must be at most 2, got 3"),
            (lambda: ft.principal_angles(2 * EYE, EYE, top=2), "first must have orthonormal columns"),
            (lambda: ft.match(EYE, EYE + 1e-3, top=2), "second must have orthonormal columns"),
            (lambda: ft.match(EYE, EYE * np.nan, top=2), "second has 16 NaN"),
            (lambda: ft.match(EYE + np.inf, EYE, top=2), "first has 16 NaN or infinite"),
            (lambda: ft.match(EYE, EYE, top=5), "top must be at most 4, got 5"),
        ]
    )


def test_columns_beyond_the_top_need_not_be_orthonormal():
    other = np.concatenate([EYE[:, :2], np.ones((4, 2))], axis=1)
    np.testing.assert_allclose(ft.principal_angles(EYE, other, top=2), [0, 0], atol=1e-12)
