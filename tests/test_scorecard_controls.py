"""Widths, trends of neighbors, and controls of the scorecard, on numbers made by hand."""

import dataclasses
from types import MappingProxyType

import numpy as np
import pytest
import scipy.stats

from companion import scorecard
from companion.experiments import attacks, catastrophic, features
from companion.experiments._experiment import plain
from companion.results import Result
from companion.scorecard import Comparison, _kernel_paths
from companion.statistics import Estimate

CLAIMS = {one.name: one for one in scorecard.CLAIMS}


def judged(name, config, **arrays):
    provenance = {"config": config, "runs": (1, 1), "seconds": 1.0, "core_seconds": 2.0}
    made = Result(MappingProxyType({}), MappingProxyType(arrays), MappingProxyType(provenance))
    return scorecard.card(CLAIMS[name], {"full": made})


def test_a_trend_of_neighbors_covers_where_independence_does_not():
    rng, missed = np.random.default_rng(0), {"blocks": 0, "independent": 0}
    for _ in range(40):
        steps = rng.normal(size=150)
        series = scipy.stats.zscore(np.convolve(steps, np.ones(8), "valid"))  # forgotten after 8 places
        found = {"blocks": scorecard.rank_trend(series, block=15)}
        found["independent"] = scorecard.rank_correlation(np.arange(len(series)), series)
        for name, one in found.items():
            missed[name] += not one.low <= 0 <= one.high
    assert missed["blocks"] <= 8  # of 40; P(more) < .01 at a coverage of .9
    assert missed["independent"] > 16  # an interval of 95 % would miss 2


def test_a_trend_counts_blocks_and_has_its_order():
    falling = scorecard.rank_trend(-(np.arange(50.0) ** 3))
    assert (falling.value, falling.low, falling.high, falling.n) == pytest.approx((-1, -1, -1, 7))
    rng = np.random.default_rng(1)
    noisy = np.arange(60) + 20 * rng.normal(size=60)
    one, other = scorecard.rank_trend(noisy), scorecard.rank_trend(-noisy)
    assert one.value == pytest.approx(scipy.stats.spearmanr(np.arange(60), noisy)[0])
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
    # Independent pairs: as Bonett & Wright's interval of a formula.
    alone, formula = scorecard.rank_trend(noisy, block=1), scorecard.rank_correlation(np.arange(60), noisy)
    assert (alone.low, alone.high) == pytest.approx((formula.low, formula.high), abs=0.08)


@pytest.mark.parametrize(
    ("y", "block", "message"),
    [([1, 2, 3], None, "8 values"), ([1] * 9, None, "equal"), (range(9), 5, "1 to 4")],
)
def test_what_has_no_trend_is_refused(y, block, message):
    with pytest.raises(ValueError, match=message):
        scorecard.rank_trend(list(y), block=block)


def comparison(low, high, n, **more):
    return Comparison("digits", "a", Estimate((low + high) / 2, low, high, 0.95, n), 1, 0.1, **more)


def test_the_number_wanted_gives_the_width():
    values = np.array([0.1, 0.4, 0.7, 0.2])
    one = Comparison("digits", "a", scorecard.paired(values, 0.0), 1, 0.1)
    n = scorecard.wanted(one, 0.1)
    half = [scipy.stats.t.ppf(0.975, k - 1) * values.std(ddof=1) / k**0.5 for k in (n - 1, n)]
    assert half[0] > 0.1 >= half[1]
    assert scorecard.wanted(one, scorecard.half_width(one)) == 4
    assert scorecard.wanted(one, 1e-9) == 100_000
    with pytest.raises(ValueError, match="half must be"):
        scorecard.wanted(one, -1.0)


def test_the_number_wanted_is_the_least_where_it_is_large():
    one = comparison(-0.3, 0.3, 1000)
    n = scorecard.wanted(one, 0.1)
    spread = 0.3 * 1000**0.5 / scipy.stats.t.ppf(0.975, 999)
    widths = [scipy.stats.t.ppf(0.975, k - 1) * spread / k**0.5 for k in (n - 1, n)]
    assert widths[0] > 0.1 >= widths[1]


def test_decided_are_those_that_count_and_are_not_open(tmp_path):
    cards = scorecard.scorecard(folder=tmp_path)
    assert scorecard.decided(cards) == (0, 0)
    some = [comparison(0.2, 0.4, 9), comparison(-0.4, 0.6, 9), comparison(0.2, 0.4, 9, counts=False)]
    card = dataclasses.replace(
        cards["D1"],
        comparisons=tuple(some),
        judgment=scorecard.judge(some),
        provenances={"full": {"runs": (3, 7)}},
    )
    assert scorecard.decided({"D1": card}) == (1, 2)
    shown = scorecard.power({"D1": card}, "D1").html
    n = scorecard.wanted(some[1], 0.1)
    assert f"<td>{n:,}</td>" in shown
    assert "3 of 7" in shown
    wide = dataclasses.replace(
        card, comparisons=(comparison(-100.0, 100.0, 9),), judgment=scorecard.judge([])
    )
    wide = dataclasses.replace(wide, judgment=dataclasses.replace(wide.judgment, outcomes=("open",)))
    assert "<td>&gt; 100,000</td>" in scorecard.power({"D1": wide}, "D1").html
    with pytest.raises(ValueError, match="there is no claim D9; there are D1"):
        scorecard.power({"D1": card}, "D9")


def test_robust_accuracy_is_read_where_clean_accuracy_first_reaches_a_level():
    clean, robust = np.array([0.1, 0.5, 0.4, 0.7]), np.array([0.0, 0.2, 0.3, 0.6])
    at = _kernel_paths.robust_at
    assert at(clean, robust, 0.3) == pytest.approx(0.1)
    assert at(clean, robust, 0.6) == pytest.approx(0.3 + 0.3 * 2 / 3)
    assert at(clean, robust, 0.5) == pytest.approx(0.2)
    assert np.isnan(at(clean, robust, 0.8))
    assert np.isnan(at(clean, robust, 0.05))


def curves(seeds):
    """The standard kernel is sooner accurate; at the other's last clean accuracy, .5, its curve has .1."""
    standard, other = [[0, 0], [0.4, 0.08], [0.8, 0.16]], [[0, 0], [0.3, 0.2], [0.5, 0.3]]
    pair = np.array([standard, other])
    return np.stack([pair + np.array([0, 0.001 * seed]) for seed in range(seeds)])[None, :, :, None]


@pytest.mark.parametrize(("seeds", "unit"), [(1, "images"), (3, "seeds")])
def test_inherited_robustness_is_compared_at_equal_clean_accuracy(seeds, unit):
    plan = {
        "dataset": "cifar10", "model": "CNN", "width": 8, "n_train": 100, "n_probe": 10, "batch_size": 10,
        "eps": 0.1, "steps": 5, "epochs": 3, "n_watch": 200, "linear": [0.0, 3.0], "linear_epochs": 2,
        "curve": [0.0, 1.0, 2.0],
    }  # fmt: skip
    linear = np.full((1, seeds, 2, 2, 2, 2), np.nan)
    solved, epochs = np.full((1, seeds, 2, 2, 2), np.nan), np.arange(4.0)[None]
    config = {"cases": [plan], "regimes": ["standard", "pgd"], "seeds": seeds}
    card = judged("C2a", config, curve=curves(seeds), linear=linear, solved=solved, epochs=epochs)
    (found,) = (one for one in card.comparisons if one.setting.startswith("at equal clean"))
    assert found.effect.value == pytest.approx(0.2, abs=1e-6)
    assert (found.unit, found.counts) == (unit, seeds > 1)


def test_a_linear_model_stands_beside_the_kernel_and_does_not_count():
    plan = plain(attacks.Transfers(widths=(8,), seeds=3))
    success = np.array([0.5, 0.4, 0.1]) + 0.01 * np.arange(3)[:, None] * [1, 2, 0]
    found = judged("A2a", {"transfers": plan, "linear": [plan]}, linear_success=success[None, :, None])
    linear, beyond = found.comparisons
    assert (linear.effect.value, beyond.effect.value) == pytest.approx((0.32, 0.09))
    assert found.judgment.verdict == "not tested"


def test_principal_components_stand_beside_features_and_do_not_count():
    case = plain(features.Case("mnist5k", (4, 9), 400, 100, (), 0.1, None, 100))
    sums = np.zeros((1, 4, 2, 3))
    sums[0, 3] = [[0.8, 0.7, 0.9], [0.3, 0.2, 0.4]]
    arrays = {"linear_sum": sums, "linear_useful": np.array([[30, 300]]), "linear_majority": np.array([0.6])}
    config = {"cases": [], "linear": [case]}
    found = judged("A3b", config, without=np.zeros((0, 11, 2, 3)), **arrays)
    above, drop, hits = found.comparisons
    assert (above.effect.value, drop.effect.value, hits.effect.value) == pytest.approx((0.2, 0.5, 0.1))
    assert (above.effect.low, above.effect.high) == pytest.approx((0.1, 0.3))
    assert found.judgment.verdict == "not tested"


def test_what_collapses_by_running_statistics_need_not_by_the_batch_s():
    case = plain(catastrophic.Case(n_test=100))
    strong = np.array([[[0.9, 0.8, 0.02], [0.9, 0.3, 0.2]]] * 2 + [[[0.9, 0.7, 0.2], [0.9, 0.7, 0.05]]])
    arrays = {"strong": strong[None], "accuracy": np.full((1, 1, 3, 2, 3), np.nan), "epochs": np.ones((1, 2))}
    config = {"cases": [case], "methods": ["fgsm"], "seeds": 3, "calibration": 0, "strong": [50, 3]}
    running, batch = judged("B3a", config, **arrays).comparisons
    assert (running.effect.value, batch.effect.value) == pytest.approx((2 / 3, 1 / 3))
    assert (running.counts, batch.counts) == (False, False)
    assert running.effect.low == pytest.approx(0.0942993)  # Clopper & Pearson of 2 in 3, from a table
