"""The experiment of chapter 3 at toy size, through the same code as the recorded one."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
import scipy.stats

from companion import data, regression
from companion.attacks import Threat, pgd, random_sign
from companion.data._sets import SETS
from companion.experiments import _features_controls as controls
from companion.experiments import features
from companion.experiments._features_cases import spaced
from companion.experiments._shared import architecture
from companion.kernels import gram
from companion.regression import from_coefficients

# `make book` runs the experiment whole, in chapter 3; these hold its arrays against slow definitions.
pytestmark = [pytest.mark.matrix, pytest.mark.usefixtures("unoptimized")]

CASE = features.Case("mnist5k", (4, 9), 40, 30, ("FC-1",), 0.1, 6, 12)
OVERLAP = features.Overlap("mnist5k", (4, 9), 30, ("FC-1", "FC-1 at width 16", "random"), seeds=2)
TINY = features.Config(
    cases=(CASE, dataclasses.replace(CASE, n_train=15, classes=(1, 7, 0), modes=None, n_attacked=30)),
    overlap=OVERLAP,
    steps=3,
    pgd_modes=4,
    times=7,
    learners=("FC-1", "FC-2"),
    relabel_up_to=20,
)
EDGES = (0, 1, 10, 20, 40)
BLOCKS = [range(a, b) for a, b in itertools.pairwise(EDGES)]


@pytest.fixture(scope="module")
def run():
    """What the experiment measures, and each attack on single features with its options."""
    attacks = []

    def watched(*arguments, modes, steps=1, **options):
        found = correct_under_attack(*arguments, modes=modes, steps=steps, **options)
        attacks.append((modes, steps, found))
        return found

    correct_under_attack = features.features.correct_under_attack
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features.features, "correct_under_attack", watched)
        return features.run(TINY), attacks


@pytest.fixture(scope="module")
def measured(run):
    return run[0]


@pytest.fixture(scope="module")
def fitted():
    """Regression on the first case's images, Θ(x, X) of its test images, and their labels."""
    x_train, y_train, x, y, _ = features.held_out(CASE)
    kernel = architecture("FC-1")
    return (
        regression.fit(gram(kernel, x_train), targets=data.targets(y_train, 2)),
        gram(kernel, x, x_train),
        y,
    )


@pytest.fixture(scope="module")
def contributions(fitted):
    """Outputs of the first case's features on its test images (30, 40), by other functions, and labels."""
    return regression.contributions(*fitted[:2])[:, :, 0], fitted[2]


def test_shapes_are_as_the_docstring_says(measured):
    shapes = {name: array.shape for name, array in measured.items()}
    assert shapes == {
        "eigenvalues": (2, 40),
        "accuracy": (2, 40, 3),
        "p_accuracy": (2, 40),
        "correlation": (2, 40, 3),
        "p_correlation": (2, 40),
        "majority": (2,),
        "modes": (2, 15),
        "fgsm": (2, 15, 3),
        "before": (2, 15, 3),
        "pgd": (2, 4, 3),
        "block": (2, 4, 2, 3),
        "block_mean": (2, 4, 2),
        "block_correlation": (2, 4, 3),
        "block_share": (2, 4),
        "top": (2, 4, 2, 3),
        "without": (2, 4, 2, 3),
        "stopped": (2, 7, 2, 3),
        "random": (2, 15),
        "tail_accuracy": (2, 4, 3),
        "tail_correlation": (2, 4, 3),
        "exceptions": (2, 0, 4),
        "relabeled": (2, 3, 3, 3),
        "reached": (2, 3),
        "times": (7,),
        "angles": (2, 3, 3, 5),
        "matched": (2, 3, 3, 5),
    }
    np.testing.assert_allclose(np.log10(measured["times"]), np.arange(7) * 7 / 6, atol=1e-6)


def test_what_a_row_does_not_have_is_nan(measured):
    # Fifteen features and three blocks in the second row; six attacked in the first.
    assert [case.n_train for case, _ in features.rows(TINY)] == [40, 15]
    for name in ("eigenvalues", "accuracy", "p_accuracy", "correlation", "p_correlation"):
        assert np.isfinite(measured[name][0]).all()
        assert np.isfinite(measured[name][1, :15]).all()
        assert np.isnan(measured[name][1, 15:]).all()
    for name in ("block", "block_mean", "block_correlation", "block_share", "top", "without"):
        assert np.isfinite(measured[name][0]).all()
        assert np.isfinite(measured[name][1, :3]).all()
        assert np.isnan(measured[name][1, 3]).all()
    count = int(np.isfinite(measured["modes"][0]).sum())
    for name in ("modes", "fgsm", "before"):
        assert np.isnan(measured[name][0, count:]).all()
        assert np.isfinite(measured[name][0, :count]).all()
        assert np.isfinite(measured[name][1]).all()


def test_one_by_one_is_what_other_functions_say(measured, contributions):
    outputs, y = contributions
    found = {name: array[0] for name, array in measured.items()}
    right = (outputs > 0) == (y == 1)[:, None]
    np.testing.assert_allclose(found["accuracy"][:, 0], right.mean(axis=0), rtol=1e-6)
    majority = max(y.mean(), 1 - y.mean())
    assert found["majority"] == pytest.approx(majority)
    assert (np.diff(found["eigenvalues"]) <= 0).all()
    signs = np.where(y == 1, 1.0, -1.0)
    for i in (0, 7, 39):
        pearson = scipy.stats.pearsonr(outputs[:, i], signs, alternative="greater")
        np.testing.assert_allclose(found["correlation"][i, 0], pearson.statistic, atol=1e-5)
        np.testing.assert_allclose(found["p_correlation"][i], pearson.pvalue, rtol=1e-3)
        exact = scipy.stats.binomtest(int(right[:, i].sum()), 30, majority, alternative="greater")
        np.testing.assert_allclose(found["p_accuracy"][i], exact.pvalue, rtol=1e-5)
    modes = found["modes"][np.isfinite(found["modes"])].astype(int)
    np.testing.assert_allclose(found["before"][: len(modes), 0], right[:12, modes].mean(axis=0), rtol=1e-6)


def test_fgsm_is_one_step_and_pgd_as_many_as_configured(run):
    measured, attacks = run
    attacks = [one for one in attacks if len(one[0])]  # no exceptions here
    assert [steps for _, steps, _ in attacks] == [1, TINY.steps] * 2
    for number, (modes, steps, found) in enumerate(attacks):
        row, name = number // 2, "fgsm" if steps == 1 else "pgd"
        if steps == 1:
            np.testing.assert_array_equal(modes, measured["modes"][row, : len(modes)])
        else:
            np.testing.assert_array_equal(modes, np.arange(TINY.pgd_modes))
        assert len(found) == features.rows(TINY)[row][0].n_attacked
        np.testing.assert_allclose(measured[name][row, : len(modes), 0], found.mean(axis=0), rtol=1e-6)


def test_attacks_only_take_away(measured):
    for row, n in enumerate((40, 15)):
        modes = measured["modes"][row]
        modes = modes[np.isfinite(modes)].astype(int)
        assert (modes[0], modes[-1]) == (0, n - 1)
        assert (measured["fgsm"][row, : len(modes), 0] <= measured["before"][row, : len(modes), 0]).all()
        for name in ("block", "top", "without", "stopped"):
            clean, attacked = np.moveaxis(measured[name][row, :, :, 0], 1, 0)
            assert (attacked[np.isfinite(attacked)] <= clean[np.isfinite(clean)]).all()
    # PGD is of the first features; all fifteen of the second row were attacked by FGSM too.
    assert (measured["pgd"][1, :, 0] <= measured["before"][1, :4, 0]).all()
    assert (measured["fgsm"][1, :, 0] < measured["before"][1, :, 0]).any()


def test_blocks_and_sums_agree_where_they_are_the_same(measured, contributions):
    outputs, y = contributions
    for row, last in ((0, 3), (1, 2)):
        found = {name: array[row] for name, array in measured.items()}
        # All n features; the flow at its end; without the top 0.
        np.testing.assert_array_equal(found["top"][last], found["without"][0])
        np.testing.assert_array_equal(found["stopped"][-1], found["without"][0])
        # The first feature, three times, and the last block, twice.
        np.testing.assert_array_equal(found["block"][0], found["top"][0])
        np.testing.assert_allclose(found["block"][0, 0], found["accuracy"][0], rtol=1e-5)
        np.testing.assert_array_equal(found["block"][last], found["without"][last])
        np.testing.assert_allclose(found["block_correlation"][0], found["correlation"][0], rtol=1e-5)
    for b, block in enumerate(BLOCKS):
        some = outputs[:, list(block)].sum(axis=1)
        top, rest = outputs[:, : block.stop].sum(axis=1), outputs[:, block.start :].sum(axis=1)
        for name, summed in (("block", some), ("top", top), ("without", rest)):
            assert measured[name][0, b, 0, 0] == pytest.approx(((summed > 0) == (y == 1)).mean())
        r = np.corrcoef(some, np.where(y == 1, 1, -1))[0, 1]
        np.testing.assert_allclose(measured["block_correlation"][0, b, 0], r, atol=1e-5)


def test_the_mean_of_a_block_is_over_its_features(measured, contributions):
    outputs, y = contributions
    right = (outputs > 0) == (y == 1)[:, None]
    for b, block in enumerate(BLOCKS):
        each = [right[:, i].mean() for i in block]
        expected = sum(each) / len(each), np.std(each) / len(each) ** 0.5
        np.testing.assert_allclose(measured["block_mean"][0, b], expected, rtol=1e-5, atol=1e-12)


def test_the_damage_is_shared_by_the_blocks(measured):
    np.testing.assert_allclose(np.nansum(measured["block_share"], axis=1), 1, rtol=1e-5)
    # Of three classes, by hand: the margin is that against the class that the attack makes largest.
    case, name = features.rows(TINY)[1]
    x_train, y_train, x, y, k = features.held_out(case)
    kernel, threat = architecture(name), Threat("linf", case.eps)
    fitted = regression.fit(gram(kernel, x_train), targets=data.targets(y_train, k))
    f = from_coefficients(kernel, x_train, fitted.coefficients)
    sizes = case.eps * np.array([1, 2 / 3, 1 / 3])
    attacked = pgd(f, x, y, threat, steps=3, step_size=sizes, early_stop=True)
    before, after = (regression.contributions(fitted, gram(kernel, z, x_train)) for z in (x, attacked))
    shares = np.zeros(15)
    for i, label in enumerate(y):
        other = max(set(range(3)) - {label}, key=lambda j, i=i: after[i].sum(axis=0)[j])
        lost = before[i] - after[i]
        shares += lost[:, label] - lost[:, other]
    expected = [shares[a:b].sum() / shares.sum() for a, b in ((0, 1), (1, 10), (10, 15))]
    np.testing.assert_allclose(measured["block_share"][1, :3], expected, atol=1e-3)


def test_controls_are_their_definitions(measured, contributions):
    outputs, y = contributions
    right, signs = (outputs > 0) == (y == 1)[:, None], np.where(y == 1, 1, -1)
    x_train, y_train, x, _, k = features.held_out(CASE)
    # The features again, from the matrices alone, on the images under random signs.
    kernel = architecture("FC-1")
    fitted = regression.fit(gram(kernel, x_train), targets=data.targets(y_train, k))
    moved = random_sign(x[:12], Threat("linf", CASE.eps), key=jax.random.key(0))
    noisy = regression.contributions(fitted, gram(kernel, moved, x_train))[:, :, 0]
    kept = right[:12] & ((noisy > 0) == (y[:12] == 1)[:, None])
    modes = measured["modes"][0]
    modes = modes[np.isfinite(modes)].astype(int)
    np.testing.assert_allclose(measured["random"][0, : len(modes)], kept[:, modes].mean(axis=0), rtol=1e-6)
    for b, edge in enumerate(EDGES[:-1]):
        value, low, high = measured["tail_accuracy"][0, b]
        assert value == pytest.approx(right[:, edge:].mean())
        assert low < value < high
        r = np.mean([np.corrcoef(outputs[:, i], signs)[0, 1] for i in range(edge, 40)])
        assert measured["tail_correlation"][0, b, 0] == pytest.approx(r, abs=1e-5)


def test_exceptions_are_what_either_test_finds_from_twenty_on(monkeypatch):
    # Random labels on 200 images, of which feature 30 knows all.
    case = dataclasses.replace(CASE, n_test=200, n_attacked=20)
    right = np.random.default_rng(0).random((200, 40)) < 0.5
    right[:, [3, 30]] = True
    monkeypatch.setattr(controls.features, "correct", lambda found, x, y: right[: len(y)])
    found = controls.controlled(case, "FC-1")["exceptions"]
    assert 30 in found[:, 0]
    assert (found[:, 0] >= 20).all()
    row = found[found[:, 0] == 30][0]
    assert tuple(row[1:3]) == (1, 1)
    assert row[3] < 1


def test_students_learn_from_the_labels_of_the_next_class(measured):
    # The first case is larger than those that are relabeled.
    assert np.isnan(measured["relabeled"][0]).all()
    case, name = features.rows(TINY)[1]
    x_train, y_train, x, y, k = features.held_out(case)
    threat, wanted = Threat("linf", case.eps), (y_train + 1) % 3
    f = regression.fit(architecture(name), x_train, data.targets(y_train, k))
    moved = pgd(f, x_train, wanted, threat, targeted=True, steps=TINY.steps)
    noisy = random_sign(x_train, threat, key=jax.random.key(0))
    for i, images in enumerate((moved, noisy, x_train)):
        for j, learner in enumerate((name, "FC-1", "FC-2")):
            kernel = architecture(learner)
            matrix, cross = gram(kernel, images).astype(float), gram(kernel, x, images)
            said = (cross @ np.linalg.solve(matrix, data.targets(wanted, k))).argmax(axis=1)
            assert measured["relabeled"][1, i, j, 0] == pytest.approx((said == y).mean(), abs=1e-6)
    said = np.asarray(f(moved)).argmax(axis=1)
    assert measured["reached"][1, 0] == pytest.approx((said == wanted).mean(), abs=1e-6)


def test_early_stopping_is_the_flow_at_times_in_units_of_the_largest_eigenvalue(measured, fitted):
    decomposed, cross, y = fitted
    for t, found in zip(measured["times"], measured["stopped"][0, :, 0, 0], strict=True):
        outputs = decomposed.at(t / decomposed.eigenvalues[0]).from_kernel(cross)
        assert found == pytest.approx(((outputs[:, 0] > 0) == (y == 1)).mean())
    # Of which the first few differ.
    assert len(set(measured["stopped"][0, :, 0, 0])) >= 3


def test_overlaps_are_symmetric_and_whole_on_the_diagonal(measured):
    for name in ("angles", "matched"):
        found = measured[name]
        np.testing.assert_allclose(found, np.swapaxes(found, 1, 2), atol=1e-6)
        assert ((found >= 0) & (found <= 1 + 1e-6)).all()
        for i in range(3):
            np.testing.assert_allclose(found[:, i, i], 1, rtol=1e-5)
    angles = measured["angles"]
    # A kernel is nearer to that of its own network than to a random basis; seeds are drawn anew.
    assert (angles[:, 0, 1, 1:4] > angles[:, 0, 2, 1:4] + 0.2).all()
    for other in (1, 2):
        assert (angles[0, 0, other] != angles[1, 0, other]).all()
    # Random spaces share top of n, here to five standard deviations or so.
    np.testing.assert_allclose(angles[:, 0, 2].mean(axis=0), np.array([1, 2, 5, 10, 20]) / 30, atol=0.15)


def test_overlaps_are_those_of_the_bases(measured):
    x = data.load("mnist5k", classes=(4, 9), n_train=30).x_train
    for seed in range(2):
        bases = [features._basis(name, x, seed) for name in OVERLAP.kernels]
        for i, j in itertools.product(range(3), range(3)):
            cosines = np.abs(bases[i].T @ bases[j])
            shared = [(cosines[:top, :top] ** 2).sum() / top for top in (1, 2, 5, 10, 20)]
            np.testing.assert_allclose(measured["angles"][seed, i, j], shared, atol=1e-6)
            straight, crossed = cosines[[0, 1], [0, 1]], cosines[[0, 1], [1, 0]]
            two = straight if (straight**2).sum() > (crossed**2).sum() else crossed
            expected = cosines[0, 0], two.mean()
            np.testing.assert_allclose(measured["matched"][seed, i, j, :2], expected, atol=1e-6)


def test_bases_are_eigenvectors_of_what_their_names_say():
    x = data.load("mnist5k", classes=(4, 9), n_train=30).x_train
    exact, wide, narrow = (
        features._basis(name, x, 0) for name in ("FC-1", "FC-1 at width 4096", "FC-1 at width 8")
    )
    matrix = gram(architecture("FC-1"), x)
    values = np.diag(exact.T @ matrix @ exact)
    np.testing.assert_allclose(matrix @ exact, exact * values, atol=1e-4 * values[0])
    assert (np.diff(values) < 1e-4).all()
    cosines = [np.abs((exact[:, :3] * other[:, :3]).sum(axis=0)).min() for other in (wide, narrow)]
    assert cosines[0] > 0.9
    assert cosines[0] > cosines[1]
    flat = x.reshape(30, -1)
    squares = ((flat[:, None].astype(float) - flat) ** 2).sum(axis=2)
    median = np.median(squares[np.triu_indices(30, 1)] ** 0.5)
    for name, other in (("linear", flat @ flat.T), ("RBF", np.exp(-squares / (2 * median**2)))):
        basis = features._basis(name, x, 0)
        values = np.linalg.eigvalsh(other.astype(float))[::-1]
        np.testing.assert_allclose(other @ basis[:, :5], basis[:, :5] * values[:5], atol=1e-4 * values[0])
    first, again, other = (features._basis("random", x, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first.T @ first, np.eye(30), atol=1e-12)
    assert np.abs(first - other).max() > 0.1


def test_random_bases_keep_as_many_columns_as_are_compared():
    x = np.zeros((130, 2), np.float32)
    assert features._basis("random", x, 0).shape == (130, max(features.TOPS))


@pytest.mark.parametrize("classes", [(4, 9), (3, 8, 1)])
def test_training_and_test_images_are_disjoint(classes):
    case = dataclasses.replace(CASE, classes=classes, n_train=401, n_test=599)
    x_train, y_train, x, y, k = features.held_out(case)
    assert (len(x_train), len(y_train), len(x), len(y), k) == (401, 401, 599, 599, len(classes))
    train, test = ({image.tobytes() for image in images} for images in (x_train, x))
    assert len(train) == 401
    assert len(test) == 599
    assert not train & test
    # Official test images come first, and labels stay with their images.
    official = data.load("mnist5k", classes=classes)
    np.testing.assert_array_equal(x[: len(official.x_test)], official.x_test)
    np.testing.assert_array_equal(y[: len(official.y_test)], official.y_test)
    label = {
        image.tobytes(): int(name) for image, name in zip(official.x_train, official.y_train, strict=True)
    }
    assert all(label[image.tobytes()] == name for image, name in zip(x_train, y_train, strict=True))
    rest = slice(len(official.x_test), None)
    assert all(label[image.tobytes()] == name for image, name in zip(x[rest], y[rest], strict=True))
    assert (np.bincount(y_train) > 100).all()


def test_too_few_images_are_an_error():
    for sizes in ({"n_train": 400, "n_test": 601}, {"n_train": 900, "n_test": 10}):
        with pytest.raises(ValueError, match="mnist5k has too few images for n_train="):
            features.held_out(dataclasses.replace(CASE, **sizes))


@pytest.mark.parametrize(("n", "number"), [(2000, 60), (400, 20), (50, 40), (40, 6), (10, 1), (7, 7), (1, 1)])
def test_modes_are_spaced_evenly_in_log_index(n, number):
    found = spaced(n, number)
    assert (found[0], found[-1]) == (0, n - 1 if number > 1 else 0)
    assert (np.diff(found) > 0).all()
    assert len(found) <= number
    if n > 20 * number:
        # No wider apart than twice the even step, in log index.
        ratios = (found[1:] + 1) / (found[:-1] + 1)
        assert len(found) == number
        assert (ratios[10:] < n ** (2.5 / number)).all()
    np.testing.assert_array_equal(spaced(n, None), np.arange(n))
    np.testing.assert_array_equal(spaced(n, n + 1), np.arange(n))


@pytest.mark.parametrize("profile", features.PROFILES)
def test_profiles_are_well_formed(profile):
    config = features.PROFILES[profile]
    for case, name in features.rows(config):
        assert architecture(name).name == f"{name} relu"
        assert case.dataset in SETS
        assert 0 < case.eps < 0.2
        assert 0 < case.n_attacked <= case.n_test
        assert case.modes is None or 0 < case.modes <= case.n_train
        assert case.classes is None or len(set(case.classes)) == len(case.classes) >= 2
    for name in config.overlap.kernels:
        spec, _, width = name.partition(" at width ")
        assert (
            name in ("random", "linear", "RBF")
            or architecture(spec, width=int(width or 1)).name == f"{spec} relu"
        )
    assert config.overlap.dataset in SETS
    assert len(set(config.overlap.kernels)) == len(config.overlap.kernels)
    assert min(config.overlap.seeds, config.steps, config.times) >= 3
    assert config.pgd_modes > 0
