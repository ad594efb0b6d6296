"""Means over features with intervals over images, and Ilyas' determined data set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from refusals import assert_refused

from companion import data, regression
from companion import features as ft
from companion.attacks import Threat, random_sign, robust_accuracy

KEY = jax.random.key(0)
rng = np.random.default_rng(0)


def resampled(statistic, *paired, level=0.95):
    """Ends of SciPy's percentile interval, whole images drawn again."""
    found = scipy.stats.bootstrap(
        paired,
        statistic,
        paired=True,
        vectorized=False,
        n_resamples=1500,
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(1),
    )
    return tuple(found.confidence_interval)


@pytest.mark.parametrize("level", [0.95, 0.5])
def test_the_mean_accuracy_is_bootstrapped_over_images(level):
    # An image is hard or easy for all features at once.
    correct = rng.random((60, 30)) < rng.choice([0.1, 0.8], size=(60, 1))
    found = ft.mean_accuracy(correct, key=KEY, level=level, resamples=1500)
    assert found.value == pytest.approx(correct.mean())
    assert (found.level, found.n) == (level, 60)
    ends = resampled(lambda index: correct[index.astype(int)].mean(), np.arange(60), level=level)
    np.testing.assert_allclose((found.low, found.high), ends, atol=0.015)


def test_features_that_agree_are_no_more_evidence_than_one():
    one = rng.random((50, 1)) < 0.6
    alone, copies = (ft.mean_accuracy(np.repeat(one, q, axis=1), key=KEY) for q in (1, 40))
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high))
    assert copies.high - copies.low > 0.2
    # Other draws, another interval; the same draws, the same.
    other = ft.mean_accuracy(one, key=jax.random.key(1), resamples=50)
    again = ft.mean_accuracy(one, key=jax.random.key(1), resamples=50)
    assert other == again
    assert (other.low, other.high) != (alone.low, alone.high)


def test_its_interval_holds_the_truth_as_often_as_it_says():
    # Features that are right with probability .5 on one half of all images and .7 on the other.
    generator, held = np.random.default_rng(5), 0
    for _ in range(300):
        correct = generator.random((80, 10)) < generator.choice([0.5, 0.7], size=(80, 1))
        found = ft.mean_accuracy(correct, key=KEY, resamples=200)
        held += found.low <= 0.6 <= found.high
    assert abs(held / 300 - 0.95) < 0.04


def test_the_mean_correlation_is_that_of_pearson_bootstrapped_over_images():
    y = np.where(rng.random(50) < 0.5, 1.0, -1.0)
    f = 0.5 * y[:, None] * np.array([1.0, 0.0, -0.5]) + rng.normal(size=(50, 3)) + np.array([0.0, 9.0, 0.0])

    def pearson(index):
        some = index.astype(int)
        return np.corrcoef(f[some].T, y[some])[:3, 3].mean()

    found = ft.mean_correlation(f[:, :, None], y[:, None], key=KEY, resamples=1500)
    assert found.value == pytest.approx(pearson(np.arange(50)), rel=1e-9)
    np.testing.assert_allclose((found.low, found.high), resampled(pearson, np.arange(50)), atol=0.025)
    # The length of a feature and its sign together with c's do not count, nor does a constant.
    scaled = ft.mean_correlation((7 * f + 3)[:, :, None], y[:, None], key=KEY, resamples=1500)
    np.testing.assert_allclose(scaled.as_array(), found.as_array(), atol=1e-12)


def test_a_feature_that_does_not_vary_counts_as_zero():
    y = np.tile([1.0, -1.0], 6)
    f = np.stack([y, np.full(12, 0.1)], axis=1)[:, :, None]
    found = ft.mean_correlation(f, y[:, None], key=KEY)
    assert found.value == pytest.approx(0.5)
    # One image alone is different: where it is not drawn the feature is constant.
    f[0, 1] = 5.0
    drawn = ft.mean_correlation(f, y[:, None], key=KEY)
    assert drawn.low == pytest.approx(0.5)
    assert drawn.high < 1


def test_with_three_classes_it_is_the_mean_of_the_correlations():
    # Two features, φ (1, 0, −1) and ψ (−1, 2, −1): each with the classes as its own c sees them.
    phi, labels = rng.normal(size=(2, 20)), np.arange(20) % 3
    outputs = phi.T[:, :, None] * np.array([[1.0, 0.0, -1.0], [-1.0, 2.0, -1.0]])
    seen = np.array([[1.0, 0.0, -1.0], [-1.0, 2.0, -1.0]])[:, labels]
    expected = np.mean([scipy.stats.pearsonr(*pair).statistic for pair in zip(phi, seen, strict=True)])
    found = ft.mean_correlation(outputs, data.targets(labels, 3), key=KEY)
    assert found.value == pytest.approx(expected)


def test_means_refuse_what_does_not_fit():
    correct, outputs, targets = np.ones((5, 2), bool), np.ones((5, 2, 1)), np.ones((5, 1))
    assert_refused(
        (
            (lambda: ft.mean_accuracy(correct[:0], key=KEY), r"correct must be \(m, q\) booleans with m ≥ 1"),
            (lambda: ft.mean_accuracy(correct, key=KEY, level=1.0), r"level must lie in \(0, 1\), got 1"),
            (lambda: ft.mean_accuracy(correct, key=KEY, resamples=0), "resamples"),
            (lambda: ft.mean_correlation(outputs[:3], targets[:3], key=KEY), "m ≥ 4"),
            (lambda: ft.mean_correlation(outputs * np.nan, targets, key=KEY), "outputs"),
        ),
        ValueError,
    )


# Ilyas' determined data set


def test_a_linear_function_writes_its_weights_into_the_images():
    w = np.array([[2.0], [-1.0], [0.5]], np.float32)
    x = rng.uniform(0.3, 0.7, size=(6, 3)).astype(np.float32)
    labels = np.array([0, 1, 1, 0, 1, 0])
    moved, wanted = ft.determined_dataset(lambda z: (z - 0.5) @ w, x, labels, Threat("linf", 0.1))
    np.testing.assert_array_equal(wanted, 1 - labels)
    np.testing.assert_allclose(moved, x + 0.1 * (2 * wanted[:, None] - 1) * np.sign(w.T), atol=1e-6)
    still, same = ft.determined_dataset(lambda z: (z - 0.5) @ w, x, labels, Threat("linf", 0.0))
    np.testing.assert_array_equal(still, x)
    np.testing.assert_array_equal(same, wanted)


def test_of_three_classes_the_next_is_wanted():
    x, labels = np.full((3, 3), 0.5, np.float32), np.array([0, 1, 2])
    moved, wanted = ft.determined_dataset(lambda z: z, x, labels, Threat("linf", 0.25), classes=3)
    np.testing.assert_array_equal(wanted, [1, 2, 0])
    # The wanted output rises, and of two equal others the attack lowers one or both.
    assert (moved[np.arange(3), wanted] == 0.75).all()
    assert (jnp.argmax(moved, axis=1) == wanted).all()
    for change, label in zip(moved - x, wanted, strict=True):
        assert (np.delete(change, label) <= 0).all()


def test_many_weak_pixels_generalize_from_labels_that_are_all_wrong():
    # One strong pixel that ε does not turn, and 300 weak ones that it does: useful and not robust.
    generator = np.random.default_rng(2)

    def draw(m):
        y = np.arange(m) % 2
        x = generator.normal(0.5, 0.05, size=(m, 301)) + np.r_[0.15, np.full(300, 0.01)] * (
            2 * y[:, None] - 1
        )
        return x.astype(np.float32), y

    def linear(a, b, get):
        return (a - 0.5) @ (b - 0.5).T

    (x, y), (x_test, y_test), threat = draw(100), draw(200), Threat("linf", 0.04)
    f = regression.fit(linear, x, data.targets(y), ridge=1.0)
    moved, wanted = ft.determined_dataset(f, x, y, threat)
    assert np.abs(moved - x).max() <= 0.04 + 1e-6
    noisy = random_sign(x, threat, key=KEY)
    found = [
        robust_accuracy(regression.fit(linear, z, data.targets(wanted), ridge=1.0), x_test, y_test).value
        for z in (moved, noisy, x)
    ]
    assert robust_accuracy(f, x_test, y_test).value > 0.95
    assert found[0] > 0.9  # every label is wrong, and what is learned is right
    assert max(found[1:]) < 0.1


def test_determined_datasets_refuse_what_does_not_fit():
    x, labels, threat = np.full((2, 3), 0.5, np.float32), np.array([0, 1]), Threat("linf", 0.1)
    assert_refused(
        (
            ({"classes": 1}, "classes must be 2 or more, got 1"),
            ({"labels": np.array([0, 2])}, r"labels must lie in \[0, 2\)"),
            ({"x": x + 1}, "x"),
            ({"steps": 0}, "steps"),
        ),
        ValueError,
        run=lambda changes: ft.determined_dataset(
            lambda z: z[:, :1], **({"x": x, "labels": labels, "threat": threat} | changes)
        ),
    )
