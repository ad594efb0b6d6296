"""Intervals: their formulas, and that they cover as often as they say."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from refusals import assert_refused

from companion.statistics import Estimate, accuracy, mean, paired_shares, power_law, proportion

ONES = np.ones((4, 1))


def wilson(k, n, z=1.959963984540054):
    center = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    return center - half, center + half


@pytest.mark.parametrize("correct", [0, 3, 10])
def test_the_interval_is_wilsons(correct):
    labels = np.array([1] * correct + [0] * (10 - correct))
    estimate = accuracy(np.ones((10, 1)), labels)
    np.testing.assert_allclose((estimate.low, estimate.high), wilson(correct, 10), atol=1e-12)
    assert (estimate.value, estimate.n) == (correct / 10, 10)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("m", [1, 2, 30])
def test_intervals_of_columns_are_wilsons(m, level):
    right = np.arange(m)[:, None] < np.arange(m + 1)
    found = proportion(right, level=level)
    for successes in range(m + 1):
        one = found[successes]
        interval = scipy.stats.binomtest(successes, m).proportion_ci(level, method="wilson")
        assert (one.value, one.level, one.n) == (successes / m, level, m)
        np.testing.assert_allclose((one.low, one.high), interval, atol=1e-12)
        assert proportion(right[:, successes], level=level) == one
    assert (found.low[0], found.high[-1]) == (0, 1)
    assert proportion(right).level == 0.95
    np.testing.assert_array_equal(found.as_array()[1:, 2], found[1:].high)


@settings(max_examples=50)
@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(0, 5))), st.floats(0.01, 0.999))
def test_shares_lie_in_their_intervals(right, level):
    value, low, high = proportion(right, level=level).as_array().T
    assert ((low >= 0) & (low <= value) & (value <= high) & (high <= 1)).all()
    assert ((high > low) | (value == 0) | (value == 1)).all()


def test_columns_decide_between_sign_and_argmax():
    outputs = np.array([[0.2, 0.1, 0.0], [0.0, -1.0, 3.0]])
    assert accuracy(outputs, np.array([0, 2])).value == 1.0
    assert accuracy(np.array([[-0.5], [0.5]]), np.array([0, 1])).value == 1.0


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    labels = rng.random((2000, 50)) < 0.8
    covered = [
        e.low <= 0.8 <= e.high for e in (accuracy(np.ones((50, 1)), row.astype(int)) for row in labels)
    ]
    assert 0.93 < np.mean(covered) < 0.975


def test_a_mean_has_the_interval_of_the_t_test():
    values = np.random.default_rng(2).normal(size=7) + 1
    estimate = mean(values, level=0.9)
    interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose((estimate.low, estimate.high), (interval.low, interval.high), rtol=1e-12)
    assert (estimate.value, estimate.n, estimate.level) == (pytest.approx(values.mean()), 7, 0.9)


def test_an_interval_cut_at_bounds_covers_as_often():
    shares = np.random.default_rng(3).beta(4, 0.5, size=(4000, 4))
    whole, cut = ([mean(row, bounds=bounds) for row in shares] for bounds in ((-np.inf, np.inf), (0, 1)))
    truth = 4 / 4.5
    covered = [[one.low <= truth <= one.high for one in some] for some in (whole, cut)]
    assert covered[0] == covered[1]
    assert max(one.high for one in whole) > 1.05
    assert all(one.high == min(1, other.high) for one, other in zip(cut, whole, strict=True))
    assert all(one.low == max(0, other.low) for one, other in zip(cut, whole, strict=True))
    with pytest.raises(ValueError, match=r"values must lie within bounds, 0 to 1, got 0.5 to 1.2"):
        mean(np.array([0.5, 1.2]), bounds=(0, 1))


@pytest.mark.parametrize("values", [np.ones(1), np.ones((2, 2)), np.array([1.0, np.nan])])
def test_a_mean_needs_two_finite_values(values, as_users_run):
    with pytest.raises(ValueError, match="values"):
        mean(values)


def test_power_law_recovers_exponent_and_covers_it():
    rng, x = np.random.default_rng(1), 2.0 ** np.arange(5, 13)
    covered = []
    for _ in range(400):
        samples = 3 * x**-0.5 * np.exp(0.2 * rng.normal(size=(6, 8)))
        exponent, prefactor = power_law(x, samples)
        covered.append(exponent.low <= -0.5 <= exponent.high)
        assert prefactor == pytest.approx(3, rel=0.7)
    assert 0.91 < np.mean(covered) < 0.99


def test_estimates_print_their_interval():
    estimate = Estimate(0.5, 0.25, 0.75, 0.95, 10)
    assert f"{estimate}" == str(estimate) == "0.500 [0.250, 0.750]"
    assert f"{estimate:.1f}" == "0.5 [0.2, 0.8]"
    # What is rounded to 0 has no minus.
    assert f"{Estimate(-4e-4, -0.02, -1e-9, 0.95, 3):+.3f}" == "+0.000 [-0.020, +0.000]"
    assert f"{Estimate(-4e-4, -0.02, -1e-9, 0.95, 3):.0%}" == "0% [-2%, 0%]"


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    assert_refused(
        [
            (lambda: accuracy(ONES * np.nan, np.zeros(4, int)), "outputs has 4 NaN"),
            (lambda: accuracy(ONES, np.zeros(4, int), level=95.0), r"level must lie in \(0, 1\), got 95.0"),
            (lambda: proportion(np.ones((3, 2))), r"right must be .* booleans, n ≥ 1, got \(3, 2\) float64"),
            (lambda: proportion(np.array([1, 0])), r"right.astype\(bool\), of 0 and 1"),
            (lambda: proportion(np.ones((0, 2), bool)), r"n ≥ 1, got \(0, 2\)"),
            (lambda: proportion(np.ones((1, 1, 1), bool)), r"got \(1, 1, 1\)"),
            (lambda: proportion(np.ones(3, bool), level=0), r"level must lie in \(0, 1\), got 0"),
            (lambda: power_law(np.array([1.0, 2.0]), np.ones((2, 2)), level=1.5), "level must lie in"),
            (
                lambda: power_law(np.array([1.0, 2.0]), np.inf * np.ones((2, 2))),
                "samples has 4 NaN or infinite",
            ),
            (lambda: power_law(np.ones(3), np.ones((2, 3))), "two different values"),
            (lambda: power_law(np.array([1.0, 2.0]), np.ones((1, 2))), "two seeds"),
            (lambda: power_law(np.array([1.0, 2.0]), -np.ones((2, 2))), "must be positive"),
        ]
    )


def test_several_estimates_print_one_after_the_other():
    several = Estimate(np.array([0.5, 0.25]), np.array([0.4, 0.2]), np.array([0.6, 0.3]), 0.95, 9)
    assert str(several) == "0.500 [0.400, 0.600], 0.250 [0.200, 0.300]"


def test_paired_shares_have_half_an_observation_more_in_each_cell():
    # Differences by observation, with half of one more in each cell: 8.5 times +1, 3.5 times −1, 40 times 0.
    values, weights = np.array([1.0, -1.0, 0.0]), np.array([8.5, 3.5, 40.0])
    middle = (values * weights).sum() / 52
    spread = np.sqrt(((values - middle) ** 2 * weights).sum() / 52 / 52)
    found = paired_shares(8, 3, 50)
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((middle - 1.959964 * spread, middle + 1.959964 * spread))


@pytest.mark.parametrize(("first", "second", "n"), [(-1, 0, 5), (0, -1, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_do_not_fit_are_refused(first, second, n):
    with pytest.raises(ValueError, match=r"(first|second|n) must be"):
        paired_shares(first, second, n)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("counts", [(0.9, 0.8, 200), (np.nan, 1, 9), (3, 1, 10.5)])
def test_shares_are_no_counts(counts):
    with pytest.raises(TypeError, match=r"(first|n) must be an integer"):
        paired_shares(*counts)


def test_a_difference_of_shares_lies_in_its_interval_and_that_in_what_is_possible():
    assert paired_shares(10, 0, 10).high == 1
    assert paired_shares(0, 10, 10).low == -1
    half = paired_shares(10, 0, 10, level=0.5)
    assert half.low < half.value == half.high == 1
