"""The experiment on clocks at toy size: its numbers again, from solves and matrix exponentials."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from companion import data
from companion.attacks import Threat
from companion.clocks import Learned
from companion.data._sets import SETS
from companion.experiments import _clocks_split
from companion.experiments import clocks as experiment
from companion.experiments._clocks_split import Split, packed, unpacked
from companion.experiments._shared import architecture
from companion.kernels import gram

CASE = experiment.Case("digits", "FC-1", 0.1, (3, 8), n_train=20, n_val=20, n_test=20, n_auto=10)
TINY = experiment.Config(
    (CASE,),
    seeds=1,
    times=(0.1, 1.0, 10.0),
    ridges=(0.1, 1.0),
    steps=2,
    batch_size=8,
    pgd=(2, 2, 3),
    width=256,
    moments=(0.5, 4.0),
)


@pytest.fixture(scope="module")
def measured():
    """The run, with a stand-in for AutoAttack whose attacks fool as many each; the real one has its tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_clocks_split, "autoattack", fooled_in_turn)
        return experiment.run(TINY)


@pytest.fixture(scope="module")
def sides():
    """Θ(X, X), Θ(val, X), Θ(test, X) and the images of the only split, in float64."""
    images = data.load("digits", classes=(3, 8), n_train=40, n_test=20, seed=0)
    kernel, x = architecture("FC-1", w_std=1.76, b_std=0.18), images.x_train[:20]
    matrices = [gram(kernel, part, x).astype(float) for part in (x, images.x_train[20:], images.x_test)]
    return matrices, images


@dataclass
class Fooled:
    fooled_by: np.ndarray


def fooled_in_turn(f, x, labels, threat, *, version, **_):
    """None fools the first image, the first attack the second, ...: and so on, again and again."""
    return Fooled(np.where((by := np.arange(len(x)) % (len(version) + 1)) == 0, -1, by))


def at_clocks(matrix, targets, clocks):
    return np.linalg.solve(matrix, (np.eye(len(matrix)) - scipy.linalg.expm(-matrix * clocks)) @ targets)


def share(cross, alpha, labels):
    return (((cross @ alpha)[:, 0] > 0) == labels).mean()


def test_clean_accuracy_is_that_of_solves_and_exponentials(measured, sides):
    (matrix, val, test), images = sides
    y = 2.0 * images.y_train[:20, None] - 1
    unit, right = np.diag(matrix).mean(), measured["right"][0, 0].mean(axis=-1)
    for i, t in enumerate(TINY.times):
        alpha = at_clocks(matrix, y, t / unit)
        assert measured["along"][0, 0, 0, i, 0] == pytest.approx(share(val, alpha, images.y_train[20:]))
        assert measured["curve"][0, 0, i, 0] == pytest.approx(share(test, alpha, images.y_test))
    time, ridge = (int(place) for place in measured["chosen"][0, 0])
    rows = dict(zip(experiment.ROWS, right[:, 0], strict=True))
    ridges = matrix + TINY.ridges[ridge] * unit * np.eye(20)
    assert rows["plain"] == pytest.approx(share(test, np.linalg.solve(matrix, y), images.y_test))
    assert rows["best ridge"] == pytest.approx(share(test, np.linalg.solve(ridges, y), images.y_test))
    assert rows["best time"] == pytest.approx(measured["curve"][0, 0, time, 0])
    for way, clocks in zip(experiment.LEARNED, measured["clocks"][0, 0], strict=True):
        alpha = at_clocks(matrix, y, np.maximum(clocks, 1e-9) / unit)
        assert rows[way] == pytest.approx(share(test, alpha, images.y_test))


def test_the_best_is_chosen_under_attack_the_longest_of_equals(measured):
    for robust, place, n in zip(
        measured["along"][0, 0, :, :, 1], measured["chosen"][0, 0], (3, 2), strict=True
    ):
        assert robust[int(place)] == robust[:n].max()
        assert (robust[int(place) + 1 : n] < robust[int(place)]).all()
    assert measured["best"][0, 0] == pytest.approx(TINY.times[int(measured["chosen"][0, 0, 0])])


def test_attacks_only_take_and_auto_attacks_see_what_is_left(measured):
    clean, attacked = np.moveaxis(measured["right"][0, 0], 1, 0)
    assert (attacked <= clean).all()
    assert (attacked < clean).any()
    auto = measured["auto"][0, 0]
    there = np.isfinite(auto).all(axis=1)
    rows = "plain", "best time", "best ridge", "from 0", "from the best time"
    assert tuple(name for name, one in zip(experiment.ROWS, there, strict=True) if one) == rows
    for row in np.flatnonzero(there):
        left = np.flatnonzero(attacked[row, :10])
        np.testing.assert_array_equal(np.flatnonzero(auto[row]), left[::3])


def test_all_of_autoattack_sees_what_pgd_leaves_of_the_same_rows(measured):
    after = measured["autoattack"][0, 0]
    assert after.shape == (len(experiment.ROWS), 4, 20)
    for row, name in enumerate(experiment.ROWS):
        if name not in experiment.STRONGEST:
            assert np.isnan(after[row]).all()
            continue
        left = np.flatnonzero(measured["right"][0, 0, row, 1])
        for stage, found in enumerate(after[row], start=1):
            turn = np.arange(len(left)) % 5
            np.testing.assert_array_equal(np.flatnonzero(found), left[(turn == 0) | (turn > stage)])


def test_autoattack_sees_the_recorded_fits():
    """The times, ridges and clocks that it attacks are those of the other runs."""
    seen, given = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _clocks_split,
            "autoattack",
            lambda f, x, labels, *_, version, **__: (
                (seen if len(version) == 4 else given).append((f, x, labels)),
                fooled_in_turn(f, x, labels, None, version=version),
            )[1],
        )
        experiment.run(replace(TINY, n_autoattack=10))
    # Plain, time, ridge; clocks from 0 and from the best time: the order of the runs, and of AutoAttack's.
    assert len(seen) == len(given) == 5
    for (f, x, labels), (g, same, again) in zip(seen, given, strict=True):
        np.testing.assert_array_equal(x, same)
        np.testing.assert_array_equal(labels, again)
        np.testing.assert_allclose(f(x), g(x), rtol=1e-4, atol=1e-5)


def test_without_images_for_autoattack_there_is_no_run_of_it():
    jobs = experiment.jobs(replace(TINY, n_autoattack=0))
    assert len(jobs) == 5
    assert "autoattack" not in {job.config[0] for job in jobs}
    # Nor of a convolutional kernel.
    assert len(experiment.jobs(replace(TINY, cases=(replace(CASE, kernel="Conv-1"),)))) == 5


def test_clocks_start_where_they_should_and_go_as_far(measured):
    best, learned = float(measured["best"][0, 0]), measured["clocks"][0, 0]
    lengths = np.sqrt((learned**2).mean(axis=1))
    assert 0 < lengths[0] <= 2 * best * (1 + 1e-6)
    assert np.sqrt(((learned[1] - best) ** 2).mean()) <= 2 * best * (1 + 1e-6)
    assert (learned >= 0).all()


def test_wide_networks_take_the_road_of_their_kernel(measured, sides):
    (matrix, _, test), images = sides
    y, unit = 2.0 * images.y_train[:20, None] - 1, np.diag(matrix).mean()
    clean, attacked = np.moveaxis(measured["network"][0, 0], 2, 0)
    assert (attacked <= clean).all()
    for time, plain in zip(measured["moments"][0, 0], clean[0], strict=True):
        alpha = at_clocks(matrix, y, np.full(20, time / unit))
        assert plain.mean() == pytest.approx(share(test, alpha, images.y_test), abs=0.1)
    # Times are those that were asked for, to a whole epoch.
    np.testing.assert_allclose(measured["moments"][0, 0], TINY.moments, rtol=0.5)
    assert (clean[0] != clean[1]).any() or (attacked[0] != attacked[1]).any()


def test_dealing_out_keeps_the_clocks():
    split, clocks = Split(CASE, 0, TINY.weights), np.linspace(0.0, 1.0, 20)
    labels = split.labels[:20]
    found = Learned(split.f, clocks, np.zeros(1), np.zeros(1))
    every, within, mean = experiment._dealt(found, split)
    assert sorted(every) == sorted(within) == list(clocks)
    for c in (0, 1):
        assert sorted(within[labels == c]) == list(clocks[labels == c])
        np.testing.assert_allclose(mean[labels == c], clocks[labels == c].mean())


def test_the_released_attack_goes_one_way_and_too_far():
    threat, x = Threat("linf", 0.1), np.full((50, 30), 0.5, np.float32)
    attack = experiment.released_attack(threat)
    w = jnp.where(jnp.arange(30) % 2, 1.0, -1.0)
    moved = attack(lambda x: (x @ w)[:, None] - 0.5, x, np.ones(50, int), jax.random.key(0), jnp.inf)
    # Of one output with label 1 and f near −½: the loss grows against w, whatever was on the way.
    change = np.asarray(moved - x) * -np.asarray(w)
    assert 0 <= change.min() < 0.02
    assert 0.18 < change.max() <= 0.2 + 1e-6
    np.testing.assert_allclose(change.mean(), 0.1, atol=0.01)


def test_packing_is_exact():
    right = np.random.default_rng(0).random(37) < 0.5
    np.testing.assert_array_equal(unpacked(packed(right).astype(np.float32), 37), right)


@pytest.mark.parametrize("profile", experiment.PROFILES)
def test_profiles_are_well_formed(profile):
    config = experiment.PROFILES[profile]
    jobs = experiment.jobs(config)
    assert len(set(map(experiment.EXPERIMENT.key, jobs))) == len(jobs)
    dense = sum(case.kernel.startswith("FC") for case in config.cases) if config.n_autoattack else 0
    assert len(jobs) == config.seeds * (len(config.cases) * (2 + len(experiment.LEARNED)) + dense)
    assert list(config.times) == sorted(config.times)
    for case in config.cases:
        assert case.dataset in SETS
        assert case.n_auto <= case.n_test
        assert architecture(case.kernel).hidden
        assert case.solver in ("eigh", "chebyshev")
        if case.dataset == "digits":
            assert case.n_test <= 300
        # mnist5k has 4,000 images for training, and 1,000 for tests.
        assert case.dataset != "mnist5k" or (case.n_train + case.n_val <= 4000 and case.n_test <= 1000)
