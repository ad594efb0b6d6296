"""More of where a value was wrong, or a fault passed, in silence or late."""

import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from companion import attacks, clocks, guarantees, regression, results
from companion.architectures import fc
from companion.attacks import Threat
from companion.networks import mlp
from companion.training import Probe, train

KEY = jax.random.key(0)


@pytest.mark.usefixtures("as_users_run")
def test_what_can_be_known_before_the_kernel_is_looked_at_before_it(monkeypatch):
    def not_yet(*_, **__):
        raise AssertionError("the kernel was computed")

    monkeypatch.setattr(regression._fit, "gram", not_yet)
    x, good = np.ones((4, 3), np.float32), np.ones((4, 2))
    fit, robust = regression.fit, regression.fit_robust
    for call, match in (
        (lambda: fit(fc(1), x, np.zeros(4)), "data.targets"),
        (lambda: fit(fc(1), x, np.zeros((3, 1))), "targets"),
        (lambda: fit(fc(1), x, np.full((4, 1), np.nan)), "targets"),
        (lambda: fit(fc(1), x, good, ridge=-1.0), "ridge"),
        (lambda: fit(fc(1), x, good, resolution=-1.0), "resolution"),
        (lambda: fit(fc(1), x, good, solver=regression.Top(5, key=KEY)), "k must be at most 4"),
        (lambda: robust(fc(1), x, good, delta=-1.0), "delta"),
        (lambda: robust(fc(1), x, good, tolerance=0.0), "tolerance"),
        (lambda: robust(fc(1), x, good, max_steps=0), "max_steps"),
        (lambda: robust(fc(1), x, good, resolution=-1.0), "resolution"),
        (lambda: regression.fit_logistic(fc(1), x, 2 * good, times=[1.0]), "1 or -1"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


TWO, LABELS = np.ones((2, 3), np.float32), np.zeros(2, int)
RECORDS = {
    "integers": (lambda: {"probe": Probe(TWO.astype(np.uint8))}, "probe.x must be float32"),
    "nan": (lambda: {"probe": Probe(np.nan * TWO)}, "probe.x has .* NaN"),
    "probe's shape": (lambda: {"probe": Probe(TWO[:, :2])}, r"probe.x must hold .* \(3,\) .* \(2,\)"),
    "probe's attack": (
        lambda: {"probe": Probe(TWO, attack=Partial(lambda f, x, *_: x[:1]), labels=LABELS)},
        "probe.attack must return",
    ),
    "shape": (lambda: {"x_test": TWO[:, :2], "labels_test": LABELS}, "x_test must hold"),
    "attack": (
        lambda: {"x_test": TWO, "labels_test": LABELS, "test_attack": Partial(lambda f, x, *_: x[0])},
        "test_attack must return",
    ),
    "labels alone": (lambda: {"labels_test": LABELS}, "labels_test needs x_test"),
}


@pytest.mark.parametrize("fault", RECORDS)
@pytest.mark.usefixtures("as_users_run")
def test_records_are_looked_at_before_training(fault, tmp_path):
    options, match = RECORDS[fault]
    x, y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1])
    given = {"epochs": 2, "batch_size": 2, "optimizer": optax.sgd(0.1), "key": KEY, "record": [2]}
    with pytest.raises((TypeError, ValueError), match=match):
        train(mlp(2, width=2), x, y, folder=tmp_path, **given, **options())
    assert not list(tmp_path.glob("*"))


def test_epochs_to_keep_may_be_an_array():
    x, y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1])
    given = {"epochs": 2, "batch_size": 2, "optimizer": optax.sgd(0.1), "key": KEY}
    run = train(mlp(2, width=2), x, y, keep=np.array([1.0, 2.0]), **given)
    assert sorted(run.snapshots) == [1.0, 2.0]


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_equal_clocks_are_one_time_where_eigenvalues_are_rounding(ridge):
    # A linear kernel of 8 pixels at 30 points: 22 eigenvalues are float32 rounding, of both signs.
    x = np.random.default_rng(0).uniform(size=(30, 8)).astype(np.float32)
    y = np.sign(x[:, :1].astype(float) - 0.5)
    f = regression.fit(lambda a, b, get: a @ b.T, x, y, ridge=ridge)
    assert f.eigenvalues[-1] < 0
    for t in (1e4, 1e7, 1e8):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            early = f.at(1e4).coefficients
            later, alike = f.at(t).coefficients, clocks.clocked(f, t).coefficients
            alike_expanded = clocks.clocked(f, 1e4, solver="chebyshev").coefficients
        np.testing.assert_allclose(alike, later, rtol=1e-6, atol=1e-6 * np.abs(later).max())
        # Of f at a time and of its clocks alike: by t = 10⁴ float32 has spoiled a tenth.
        assert [one.category for one in caught] == 4 * [regression.PrecisionWarning]
    np.testing.assert_allclose(alike_expanded, early, rtol=1e-6, atol=1e-6 * np.abs(early).max())


def test_bounds_that_float32_has_not_are_those_of_clipping():
    x = np.full((2, 3), 0.1, np.float32)
    y, low, high = np.array([0, 1]), -0.3, 0.1
    assert float(x[0, 0]) > high  # its nearest number lies beyond
    threat = Threat("linf", 0.05, (low, high))

    def f(x):
        return x[:, :1] - 0.05

    moved = attacks.fgsm(f, np.clip(x, low, high), y, threat)
    assert (moved <= np.float32(high)).all()
    assert (moved >= np.float32(low)).all()
    np.testing.assert_allclose(moved[0], 0.1, atol=1e-7)
    np.testing.assert_allclose(moved[1], [0.05, 0.1, 0.1], atol=1e-7)  # f sees the first pixel alone
    still = attacks.pgd(f, x, y, Threat("linf", 0.0, (low, high)))
    np.testing.assert_array_equal(still, x)
    with pytest.raises(ValueError, match=r"np\.clip.* cures"):
        attacks.fgsm(f, np.nextafter(x, np.float32(1)), y, threat)


@pytest.mark.parametrize("line", ['{"v":[[2],[1]]}', '{"v":3}', '{"v":[[1],["x"]]}'])
def test_a_damaged_array_of_a_run_is_told_by_its_file(line, tmp_path):
    results.add_run(tmp_path, "a", {"v": [1.0]}, {})
    (tmp_path / "runs.jsonl").write_text(f'["a",{line}]\n')
    with pytest.raises(ValueError, match=r"runs\.jsonl.*run 'a'"):
        results.read_runs(tmp_path)


@pytest.mark.usefixtures("as_users_run")
def test_a_run_that_would_spoil_the_records_is_refused(tmp_path):
    for name, arrays, measured, match in (
        ("a", {"secs": [1.0]}, ["sec"], r"measured must name .*\['secs'\], got \['sec'\]"),
        (3, {"v": [1.0]}, (), "name must be a text"),
        ("a", {"v": [1e39]}, (), "float32"),
    ):
        with pytest.raises((TypeError, ValueError), match=match):
            results.add_run(tmp_path, name, arrays, {}, measured=measured)
    assert results.read_runs(tmp_path) == {}
    results.add_run(tmp_path, "a", {"v": [np.inf, np.nan]}, {})  # as they were


def test_nothing_changes_the_class_of_a_function_that_is_zero():
    x = np.random.default_rng(0).uniform(size=(4, 3)).astype(np.float32)
    for k in (1, 3):
        f = regression.fit(fc(1), x, np.ones((4, k)), ridge=0.1)
        assert np.isinf(guarantees.radius(f.at(0.0), x)).all()
        assert np.isfinite(guarantees.radius(f, x)).all()


def test_a_kernel_of_low_rank_is_trained_adversarially(x64):
    x = np.random.default_rng(0).uniform(size=(14, 4))
    y = (x[:, 0] > 0.5).astype(int)

    def kernel(a, b, get):
        return a @ b.T + 1

    f = guarantees.fit_adversarial(kernel, x, y, Threat("linf", 0.0), ridge=0.3)
    wanted = regression.fit(kernel, x, 2.0 * y[:, None] - 1, ridge=0.3)
    np.testing.assert_allclose(f(x), wanted(x), atol=1e-6)


def test_what_a_folder_cannot_tell_apart_is_said(tmp_path):
    lock, x = threading.Lock(), np.full((2, 4, 4, 1), 0.5, np.float32)

    def f(x):
        assert lock
        return x.mean((1, 2))

    options = {"key": KEY, "version": "apgd-ce", "folder": tmp_path}
    with pytest.warns(UserWarning, match=r"_thread\.lock of predict cannot be compared"):
        attacks.autoattack(f, x, np.array([0, 1]), Threat("linf", 0.1), **options)


def test_labels_without_an_output_are_told_before_all_attacks():
    seen = []

    def one_output(x):
        seen.append(len(x))
        return x[:, :1]

    x = np.ones((4, 2), np.float32)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\)"):
        attacks.transfer({"a": x, "b": x}, {"net": one_output}, x, np.array([0, 1, 2, 0]))
    assert seen == [4]


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_how_often_auto_pgd_looks_who_is_fooled_changes_nothing(norm, monkeypatch):
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(9, 3)), rng.uniform(size=(12, 3, 3, 1)).astype(np.float32)

    def f(x):
        return jnp.sin(x.reshape(len(x), -1) @ w)

    labels, found = np.asarray(f(x)).argmax(axis=1), []
    threat = Threat(norm, 0.05 if norm == "linf" else 0.3)
    for few in (2.0, 0.95, 0.0):  # always after five steps, where few are fooled, ever more rarely
        monkeypatch.setattr(attacks._apgd, "_FEW", few)
        found.append(attacks.apgd(f, x, labels, threat, key=KEY, steps=40, batch_size=5))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    fooled = np.asarray(f(found[0])).argmax(axis=1) != labels
    assert 0 < fooled.sum() < len(x)
