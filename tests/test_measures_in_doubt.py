"""Where a measure could be wrong in silence: small moves, equal eigenvalues, other labels or precision."""

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

from companion import (
    catastrophic,
    data,
    dynamics,
    features,
    guarantees,
    interactive,
    networks,
    normalization,
    regression,
    warm_start,
)
from companion.architectures import fc
from companion.attacks import Threat, training_attack
from companion.empirical import empirical_ntk
from companion.training import Probe, linear_solution, train, train_to_residual
from companion.warm_start import step_cosine

X, Y = np.random.default_rng(0).uniform(size=(20, 3)).astype(np.float32), np.arange(20) % 2
KEY = jax.random.key(0)


def gram_matrix(seed=0, n=60):
    factor = np.random.default_rng(seed).standard_normal((n, n))
    return factor @ factor.T / n


@pytest.mark.parametrize("move", [1e-1, 1e-4, 1e-6])
def test_a_steady_turn_has_one_velocity_however_small_in_either_precision(move):
    one, other = gram_matrix(1), gram_matrix(2)
    one /= np.linalg.norm(one)
    other -= one * (one * other).sum()
    other /= np.linalg.norm(other)
    path = [np.cos(move * s) * one + np.sin(move * s) * other for s in range(4)]
    for scale, dtype, rtol in ((1.0, np.float64, 1e-9), (1e25, np.float64, 1e-9), (1.0, np.float32, 0.02)):
        if dtype == np.float64 or move > 1e-6:  # of float32 that is the rounding of the kernels themselves
            kernels = [(scale * kernel).astype(dtype) for kernel in path]
            np.testing.assert_allclose(dynamics.velocity(kernels, np.arange(4.0)), move, rtol=rtol)
            _, angles = dynamics.polar(kernels)
            np.testing.assert_allclose(angles, move * np.arange(4), rtol=rtol)


def test_a_multiple_does_not_turn_and_large_entries_do_not_overflow():
    kernel = gram_matrix().astype(np.float32)
    assert dynamics.successive([kernel, 3 * kernel, kernel]).max() < 1e-13
    large = np.float32(1e25) * np.eye(4, dtype=np.float32)
    assert dynamics.effective_rank(large) == pytest.approx(4)
    assert dynamics.concentration(large, top=1) == pytest.approx(0.25)
    assert dynamics.alignment(large, np.eye(4)) == pytest.approx(1)


@pytest.mark.parametrize("top", [5, 12])
def test_of_equal_eigenvalues_the_top_is_the_same_on_every_call(top):
    labels = np.repeat(np.arange(10), 60)
    collapsed = (labels[:, None] == labels).astype(float) + np.eye(600)
    found = [dynamics.rotation([collapsed, collapsed], top=top) for _ in range(2)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], 1)  # a kernel has all of its own top
    flat = np.eye(600) - np.ones((600, 600)) / 600
    assert dynamics.concentration(flat, top=top) == pytest.approx(top / 599)


def test_equal_means_of_classes_are_an_error_and_not_a_collapse():
    same = np.tile(np.random.default_rng(0).normal(size=(1, 5)), (12, 1))
    labels, weights = np.repeat([0, 1, 2], 4), np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises(ValueError, match="tell the classes' means apart"):
        dynamics.neural_collapse(same, labels, weights)


def test_an_answer_that_is_not_within_tolerance_says_so_and_is_not_worse_than_none():
    rng = np.random.default_rng(1)
    x, labels = rng.uniform(0.3, 0.7, size=(6, 6)).astype(np.float32), np.arange(6) % 2
    rows, signs = x - 0.5, 2.0 * labels - 1
    arguments = (lambda a, b, get: (a - 0.5) @ (b - 0.5).T, x, labels, Threat("linf", 0.2))
    with pytest.warns(UserWarning, match=r"after 3 rounds .* its minimum at least .* tolerance is 1\.0%"):
        f = guarantees.fit_adversarial(*arguments, ridge=0.001, rounds=3)
    v = rows.T @ np.asarray(f.coefficients)[:, 0]
    worst = np.abs(rows @ v - signs) + 0.2 * np.abs(v).sum()
    assert (worst**2).sum() + 0.001 * v @ v <= 6 + 1e-5  # that of v = 0


TRAINING = {"epochs": 1, "batch_size": 10, "optimizer": optax.sgd(0.1), "key": KEY}


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("k", "wrong"),
    [(2, 2 * Y - 1), (2, np.where(Y, 9, 4)), (1, 2 * Y - 1)],
    ids=["signs", "names", "signs for one output"],
)
def test_labels_of_the_test_set_are_held_to_the_network_too(k, wrong):
    model = networks.mlp(k, depth=1, width=4)
    with pytest.raises(ValueError, match=r"labels_test must lie in \[0, 2\)"):
        train(model, X, Y, x_test=X, labels_test=wrong, **TRAINING)
    attack = training_attack(Threat("linf", 0.1), steps=1)
    with pytest.raises(ValueError, match=r"labels must have shape \(20,\)"):
        Probe(X, attack=attack, labels=Y[:1])
    probe = Probe(X, attack=attack, labels=wrong)
    with pytest.raises(ValueError, match=r"labels_of_probe must lie in \[0, 2\)"):
        train(model, X, Y, probe=probe, **TRAINING)


def test_labels_that_are_ids_do_not_wrap():
    with pytest.raises(ValueError, match="numbers of classes, got 0 to 4294967296"):
        data.targets(np.array([0, 2**32]))


def _linear(w, x):
    return x @ w


@pytest.mark.usefixtures("as_users_run")
def test_the_cosine_of_steps_takes_one_label_an_image_and_a_key():
    attack, w = training_attack(Threat("linf", 0.1), steps=1), np.ones((3, 2), np.float32)
    for labels, message in ((Y[:1], "shape"), (np.where(Y, 9, 4), r"\[0, 2\)")):
        with pytest.raises(ValueError, match=message):
            step_cosine(_linear, w, X, labels, attack, key=KEY)
        with pytest.raises(ValueError, match="attack's labels"):
            step_cosine(_linear, w, X, Y, (X, labels), key=KEY)
    with pytest.raises(TypeError, match="key must be a JAX random key"):
        step_cosine(_linear, w, X, Y, attack, key=0)


@pytest.mark.usefixtures("x64")
def test_of_float32_inputs_weights_and_resamples_are_the_same_whatever_jax_is_set_to():
    architecture, c = fc(1, width=8), np.random.default_rng(0).uniform(size=(50, 3)) > 0.4
    found = {}
    for on in (True, False):
        jax.config.update("jax_enable_x64", on)
        weights = jax.tree.leaves(architecture.init(KEY, X))
        found[on] = [*weights, features.mean_accuracy(c, key=KEY).as_array()]
    assert {one.dtype for one in found[True][:-1]} == {np.dtype(np.float32)}
    for one, other in zip(found[True], found[False], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_channel_that_varies_by_rounding_alone_does_not_vary(dtype):
    x = np.full((777, 5, 5, 3), 0.1, dtype)
    with pytest.raises(ValueError, match="a channel does not vary"):
        normalization.input_statistics(x, "standardized")
    assert np.isnan(normalization.variance_ratio(x, 4)).all()
    x[..., 0] += np.random.default_rng(0).uniform(0, 1e-3, x.shape[:3]).astype(dtype)
    assert np.isfinite(normalization.variance_ratio(x, 4)).tolist() == [True, False, False]


@pytest.mark.usefixtures("as_users_run")
def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="variance must be"):
        normalization.batch_statistics(X, "sample")


@pytest.mark.usefixtures("as_users_run", "x64")
def test_erfs_bound_holds_within_its_bounds_and_is_refused_outside():
    erf = fc(1, activation="erf")
    with pytest.raises(ValueError, match="x must lie in"):
        guarantees.modulus(erf, 5 * np.ones((1, 4)), 1e-2)
    for bounds in ((0, np.nan), (0, np.inf), (0,), (1, 0)):
        with pytest.raises(ValueError, match="bounds"):
            guarantees.lipschitz(erf, 4, bounds=bounds)
    x = np.array([[500.0, 150, 50, 350]])
    bound = guarantees.modulus(erf, x, 1e-2, bounds=(0, 500))[0, 0]
    directions = np.random.default_rng(0).normal(size=(50, 4))
    moved = x + 1e-2 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    own, cross, others = erf.kernel(x), erf.kernel(x, moved), np.diag(erf.kernel(moved))
    assert np.sqrt(np.max(own[0, 0] + others - 2 * cross[0])) <= bound


def test_no_modes_are_none_in_whatever_way_they_are_written():
    f = regression.fit(fc(1), X, np.where(Y, 0.5, -0.5)[:, None])
    for none in ([], range(0), (), np.zeros(0, int)):
        assert features.outputs(f, X[:4], modes=none).size == 0


@pytest.mark.parametrize("which", [warm_start.seconds_to, warm_start.robust_within])
def test_records_that_are_not_there_are_refused(which):
    for seconds, robust in (([0, 1, 2], [0, np.nan, 0.6]), ([0, np.nan, 2], [0, 0.1, 0.6])):
        with pytest.raises(ValueError, match="must be finite"):
            which(seconds, robust, 0.3)


def test_a_spectrum_is_that_of_a_finite_symmetric_kernel():
    for wrong in (np.array([[1.0, 5], [0, 1]]), np.array([[1.0, np.nan], [np.nan, 1]])):
        with pytest.raises(ValueError, match=r"path\[1\]"):
            catastrophic.spectrum_signals([np.eye(2), wrong])


def test_a_page_takes_numbers_of_any_library_and_arrays_of_numbers_alone(capsys):
    sizes = []
    for values in (
        {"a": 3, "b": 0.5, "c": True},
        {"a": np.int64(3), "b": np.float32(0.5), "c": np.bool_(True)},
    ):
        interactive.embed("n", values)
        sizes.append(capsys.readouterr().out)
    assert sizes[0] == sizes[1] == "n: 24 bytes for the page in the book, which computes with them\n"
    interactive.embed("n", {"x": jax.numpy.ones(2)})
    interactive.embed("n", {"x": np.ones(2, np.float32)})
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    with pytest.raises(TypeError, match="arrays of numbers"):
        interactive.embed("n", {"x": np.array([None, {}])})


def test_what_is_at_fault_is_named(capsys):
    w, y = np.zeros((3, 1), np.float32), np.zeros((20, 1), np.float32)
    with pytest.raises(ValueError, match=r"targets must not all be 0: the residual"):
        train_to_residual(lambda w, x: x @ w, w, X, y, learning_rate=0.1)
    model = networks.mlp(2, width=4)
    with pytest.raises(ValueError, match=r"k_train_train must have shape \(40, 40\), .* got \(20, 20\)"):
        linear_solution(
            model, model.init(KEY, X), X, np.eye(2, dtype=np.float32)[Y], k_train_train=np.eye(20)
        )
    with pytest.raises(TypeError, match=r"params must be float32 or float64, got a leaf of float$"):
        empirical_ntk(lambda w, x: x[:, :1] * w, 2.0, X)
    f = regression.fit(fc(1), X, data.targets(Y, 2), ridge=1e-3)
    with pytest.raises(ValueError, match=r"^x must be a batch \(n, ...\) of at least one example"):
        f(X[:0])
    for label in (-1, 2):
        with pytest.raises(ValueError, match=rf"^label must lie in \[0, 2\), got {label}"):
            features.exciting(f, 0, Threat("linf", 0.1), X, label=label)
    with pytest.raises(ValueError, match=r"^values must be finite where they are no arrays"):
        interactive.embed("name", {"of": [1.0, np.nan]})
    interactive.embed("name", {"of": np.array([np.nan])})  # bytes, and the script knows
    assert guarantees.flips(f, X, Y, progress=True).n == 20
    assert "label flips: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["no figure", None], ids=["another-thing", "an-error"])
def test_a_picture_that_cannot_be_drawn_leaves_no_figure_open(wrong):
    before = plt.get_fignums()

    def draw(t):
        plt.subplots()
        if wrong is None:
            raise OSError("out of ink")
        return wrong

    with pytest.raises((TypeError, OSError), match=r"want a matplotlib Figure|out of ink"):
        interactive.explore(draw, {"t": [0, 1]}, alt=lambda t: "Something.")
    assert plt.get_fignums() == before
