"""Where a value was wrong, or a fault passed, in silence; against numbers of another origin."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from companion import (
    catastrophic,
    clocks,
    dynamics,
    features,
    guarantees,
    normalization,
    regression,
    results,
    warm_start,
)
from companion._core import geometry
from companion.architectures import fc
from companion.attacks import Threat, cross_entropy, dlr, targeted_dlr
from companion.clocks import _flow
from companion.interactive import packed
from companion.kernels import gram
from companion.networks import mlp
from companion.storage import KernelPath, fingerprint
from companion.training import train, train_to_residual

KEY = jax.random.key(0)


def kernel_problem(n=6, k=2):
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(n, n))
    return factor @ factor.T / n + np.eye(n), rng.normal(size=(n, k)), rng.normal(size=(n, k))


@pytest.mark.parametrize("long", [1e2, 1e6, 1e9])
def test_an_example_whose_clock_is_0_is_left_out_however_long_the_others_run(long):
    kernel, targets, _ = kernel_problem()
    f = regression.fit(kernel, targets=targets)
    found = clocks.clocked(f, np.array([long] * 5 + [0.0])).coefficients
    np.testing.assert_allclose(found[:5], np.linalg.solve(kernel[:5, :5], targets[:5]), rtol=1e-9)
    assert not found[5].any()


def test_a_slow_clock_beside_a_fast_one_is_slow():
    f = regression.fit(np.eye(2), targets=np.ones((2, 1)))
    found = clocks.clocked(f, np.array([1e-3, 1e9])).coefficients.ravel()
    np.testing.assert_allclose(found, [-np.expm1(-1e-3), 1], rtol=1e-12)


@pytest.mark.parametrize(
    "given",
    [(0, 0, 1, 2, 0.5, 0.1), (0, 1e-12, 1, 2, 0.5, 0.1), (0, 0, 0, 0, 0, 3), (0, 0, 30, 50, 20, 1e3)],
    ids=["two still", "one slow", "one runs", "far apart"],
)
def test_the_gradient_in_clocks_that_stand_still_is_that_of_autodiff_and_of_differences(given):
    kernel, targets, slope = kernel_problem()
    given = np.array(given, float)

    def loss(at):
        return (slope * _flow.flow(kernel, targets, at, "eigh")[0]).sum()

    found = _flow.flow(kernel, targets, given, "eigh")[1](slope)
    largest = np.abs(found).max()
    other = _flow.flow(kernel, targets, given, "chebyshev")[1](slope)
    np.testing.assert_allclose(found, other, rtol=1e-9, atol=1e-9 * largest)
    for i in range(6):
        step = np.eye(6)[i] * max(1e-4, 1e-5 * given[i])
        ahead = -3 * loss(given) + 4 * loss(given + step) - loss(given + 2 * step)
        assert ahead / 2 / step[i] == pytest.approx(found[i], rel=1e-4, abs=1e-6 * largest)


def test_a_kernel_that_is_0_where_clocks_run_leaves_the_targets_times_the_clock():
    ones = np.ones((2, 1))
    for solver in ("eigh", "chebyshev"):
        nothing = regression.fit(np.zeros((2, 2)), targets=ones)
        np.testing.assert_allclose(clocks.clocked(nothing, 1.0, solver=solver).coefficients, ones)
        one = regression.fit(np.diag([1.0, 0.0]), targets=ones)
        found = clocks.clocked(one, np.array([0.0, 1.0]), solver=solver).coefficients
        np.testing.assert_allclose(found.ravel(), [0, 1])
    with pytest.raises(ValueError, match=r"^t · exp\(strength · Θ_x\) must be finite"):
        clocks.adversarial(fc(1), np.ones((2, 5), np.float32), 1e6, strength=349.9)


@pytest.mark.parametrize("width", [4, 5, 8, 16])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_narrow_normalized_network_depends_on_its_input_and_has_a_gradient(norm, width):
    x = np.random.default_rng(0).uniform(size=(20, 4)).astype(np.float32)
    model = mlp(2, width=width, depth=1, norm=norm)
    params, state = model.init(KEY, x)

    def outputs(x):
        return model.apply(params, state, x, False)[0]

    assert np.ptp(np.asarray(outputs(x)), axis=0).min() > 1e-2
    assert np.abs(jax.grad(lambda x: outputs(x)[:, 0].sum())(jnp.asarray(x))).max() > 1e-3


def test_a_norm_of_one_value_is_refused():
    x = np.ones((2, 4), np.float32)
    for norm in ("layer", "group"):
        with pytest.raises(ValueError, match="want two values of an example or more"):
            mlp(2, width=1, depth=1, norm=norm).init(KEY, x)


def test_a_network_that_normalizes_refuses_integers_as_the_one_inside_does():
    x = np.arange(24).reshape(2, 3, 4).astype(np.float32)
    model = normalization.on_normalized_inputs(mlp(2, width=4))
    variables = model.init(KEY, x)
    for kind in (np.uint8, np.int32):
        with pytest.raises(TypeError, match="x must be float32 or float64"):
            model.apply(*variables, x.astype(kind), False)
    with pytest.raises(ValueError, match="inputs must be finite, got -inf"):
        normalization.input_statistics(x, (-np.inf, 1.0))


class Scaled:
    weight = 1.0

    def __call__(self, outputs, labels):
        return self.weight * cross_entropy(outputs, labels)


class Inherits(Scaled):
    pass


class Static:
    @staticmethod
    def part(x):
        return x


def test_a_stored_training_knows_what_the_class_of_its_loss_holds(tmp_path, monkeypatch):
    x, labels = np.random.default_rng(0).uniform(size=(8, 3)).astype(np.float32), np.arange(8) % 2
    options = {"epochs": 1, "optimizer": optax.sgd(0.1), "key": KEY, "batch_size": 4}
    options["folder"] = tmp_path / "run"
    train(mlp(2, width=4), x, labels, loss=Inherits(), **options)
    monkeypatch.setattr(Scaled, "weight", -5.0)
    with pytest.raises(ValueError, match="another"):
        train(mlp(2, width=4), x, labels, loss=Inherits(), **options)


def test_the_fingerprint_of_an_object_knows_static_methods_and_class_attributes(monkeypatch):
    def now():
        return [fingerprint(kind()) for kind in (Static, Scaled, Inherits)]

    before = now()
    assert before == now()
    monkeypatch.setattr(Static, "part", staticmethod(lambda x: 2 * x))
    monkeypatch.setattr(Scaled, "weight", 2.0)
    assert all(one != two for one, two in zip(before, now(), strict=True))


def test_what_happens_to_the_training_inputs_after_the_fit_does_not_matter():
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    y, kept = np.array([[1.0], [-1], [1], [1], [-1]]), x.copy()
    f = regression.fit(fc(1), x, y)
    alpha = np.asarray(f.coefficients).copy()
    g = regression.from_coefficients(fc(1), x, alpha)
    x *= 0.5
    alpha *= 0.5
    for one in (f, g):
        np.testing.assert_allclose(one(kept), y, atol=1e-3)
        np.testing.assert_array_equal(one.x_train, kept)
    np.testing.assert_array_equal(g.coefficients, 2 * alpha)


def test_a_text_may_hold_what_ends_a_line_elsewhere(tmp_path):
    notes = {"a": "fine", "b": "x\u2028y", "c\x85d": "z"}
    for name, note in notes.items():
        results.add_run(tmp_path, name, {"v": np.array([1.0])}, {"note": note})
    assert {name: one.origin["note"] for name, one in results.read_runs(tmp_path).items()} == notes


@pytest.mark.parametrize("where", [0, 1])
def test_a_method_without_a_number_is_on_no_front(where):
    pair = [np.array([1.0, 2, 3]), np.array([0.2, 0.9, 0.4])]
    pair[where][1] = np.nan
    with pytest.raises(ValueError, match="must not be NaN"):
        warm_start.pareto(*pair)


def test_the_cosine_of_small_gradients_with_themselves_is_1():
    x = np.random.default_rng(0).uniform(size=(5, 4)).astype(np.float32)
    w, ones = np.zeros((4, 2), np.float32), np.ones(5, int)
    w[:, 1] = 60 / x.sum(1).min()  # gradients of some e^−60
    cosine = functools.partial(warm_start.step_cosine, lambda w, x: x @ w, x=x, labels=ones, key=KEY)
    assert cosine(params=jnp.asarray(w), attack=(x, ones)) == pytest.approx(1, abs=1e-12)
    with pytest.raises(ValueError, match="the loss's gradient has 8 NaN"):
        cosine(params=jnp.full((4, 2), np.nan), attack=(x, ones))
    unchecked = getattr(warm_start.step_cosine, "__wrapped__", warm_start.step_cosine)
    with pytest.raises(TypeError, match="attack must be a training attack or a pair"):
        unchecked(lambda w, x: x @ w, jnp.asarray(w), x, ones, "pgd", key=KEY)


def test_an_infinite_record_rings_and_is_no_part_of_later_means():
    times = np.arange(5.0)
    near, far = (catastrophic.Detector(margin, "above", True) for margin in (3.0, 30.0))
    assert catastrophic.alarm(times[:4], [0, 1, np.inf, 1], near) == 2
    assert catastrophic.alarm(times, [0, 1, -np.inf, 1, 50], far) == 4
    with pytest.raises(ValueError, match="onsets must not be NaN"):
        catastrophic.score([0, 1, 2], [[0, 0, 5.0]] * 2, [2, np.nan], catastrophic.Detector(3.0, "above"))


@pytest.mark.parametrize("k", [3, 4, 10])
def test_ratios_of_logits_are_those_of_a_sort_with_ties_and_infinities_too(k):
    rng = np.random.default_rng(k)
    outputs = rng.integers(-3, 3, (200, k)).astype(np.float32)  # ties in most rows
    labels, targets = rng.integers(0, k, 200), rng.integers(0, k, 200)
    ordered, rows, tiny = np.sort(outputs, axis=1), np.arange(200), np.float32(1e-12)
    others = np.where(np.arange(k) == labels[:, None], -np.inf, outputs).max(axis=1)
    expected = (others - outputs[rows, labels]) / np.maximum(ordered[:, -1] - ordered[:, -3], tiny)
    np.testing.assert_allclose(dlr(outputs, labels), expected, rtol=1e-6)
    rest = ordered[:, -3] if k == 3 else (ordered[:, -3] + ordered[:, -4]) / 2
    expected = (outputs[rows, targets] - outputs[rows, labels]) / np.maximum(ordered[:, -1] - rest, tiny)
    np.testing.assert_allclose(targeted_dlr(outputs, labels, targets), expected, rtol=1e-6)
    outputs = np.full((1, k), -np.inf, np.float32)
    outputs[0, :2] = 1, 0
    assert dlr(outputs, np.array([0])) == 0  # over an infinite difference


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_step_is_the_same_for_images_and_for_rows_of_their_pixels(norm):
    rng = np.random.default_rng(0)
    x, gradient = (rng.uniform(size=(4, 3, 2, 1)).astype(np.float32) for _ in range(2))
    arrays = gradient, x, x, np.zeros_like(x), np.ones_like(x)
    images = np.asarray(geometry.step(norm, *arrays, 0.1, 0.2))
    rows = geometry.step(norm, *(one.reshape(4, -1) for one in arrays), 0.1, 0.2)
    np.testing.assert_array_equal(images.reshape(4, -1), rows)
    length = np.abs(images - x).max((1, 2, 3)) if norm == "linf" else None
    if norm != "linf":
        length = np.linalg.norm((images - x).reshape(4, -1), ord=int(norm[1]), axis=1)
    assert (length <= 0.1 + 1e-6).all()
    assert (length > 0.05).any()


@pytest.mark.parametrize("bias", [0.0, 0.5, 1.0])
def test_the_gradient_of_a_biased_kernel_at_a_training_point_is_that_of_differences(x64, bias):
    points = np.random.default_rng(4).uniform(0.1, 1, (12, 6))
    step = 1e-5 * np.random.default_rng(99).normal(size=6)
    for x in points[:, None]:
        f = regression.from_coefficients(fc(1, bias=bias, b_std=0.2), x, np.ones((1, 1)))
        found = float(np.asarray(f.gradient(x))[0, 0] @ step)
        apart = float(f(x + step)[0, 0] - f(x - step)[0, 0]) / 2
        assert found == pytest.approx(apart, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("largest", [1.0, 10.0, 100.0])
def test_erfs_kernels_err_by_less_than_certificates_allow_for(x64, largest):
    x = np.random.default_rng(0).uniform(0, largest, (16, 64)).astype(np.float32)
    x[8:] = x[:8] * (1 + 1e-6)
    kernel = fc(1, activation="erf")
    for kind in ("ntk", "nngp"):
        f = regression.fit(kernel, x, np.ones((16, 1)), kind=kind, ridge=1.0)
        exact = gram(kernel, x.astype(float), kind=kind)
        error = np.abs(gram(kernel, x, kind=kind) - exact).max() / np.sqrt(np.diag(exact)).max() ** 2
        assert 0 < 2 * error < guarantees._radius._errors(f, True, np.ones(16), largest)[0]


def test_a_predictor_that_was_used_can_be_pickled():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(5, 3)).astype(np.float32)
    f = regression.fit(fc(1), x, rng.normal(size=(5, 2)), ridge=0.1)
    outputs = f(x)
    f.gradient(x)
    again = pickle.loads(pickle.dumps(f))
    np.testing.assert_array_equal(again(x), outputs)
    np.testing.assert_array_equal(again.at(1.0).coefficients, f.at(1.0).coefficients)


@pytest.mark.parametrize("name", ["coefficients", "eigenvalues", "eigenvectors", "projections"])
def test_what_a_predictor_hands_out_cannot_be_written_to(name):
    kernel, targets, _ = kernel_problem()
    with pytest.raises(ValueError, match="read-only"):
        getattr(regression.fit(kernel, targets=targets), name)[:] = 1


def test_nothing_is_left_of_a_kernel_of_low_rank_beside_its_leading_part():
    factor = np.random.default_rng(0).normal(size=(8, 3))
    kernel = factor @ factor.T
    for top in (3, 8):
        with pytest.raises(ValueError, match="zero"):
            dynamics.polar([kernel, 2 * kernel, 3 * kernel], part="rest", top=top)
    # A fourth direction of a millionth is a rest.
    more = [kernel + 1e-6 * t * np.eye(8) for t in (1.0, 2.0)]
    assert dynamics.polar(more, part="rest", top=3)[0][1] == pytest.approx(1)


def test_certificates_ask_for_bounds_and_say_which_inputs_lie_outside():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(4, 3)).astype(np.float32)
    f = regression.fit(fc(1), x, np.ones((4, 1)), ridge=0.1)
    for bounds in ((1.0, 0.0), (0.0, "1")):
        with pytest.raises((TypeError, ValueError), match="bounds"):
            guarantees.radius(f, x, bounds=bounds)
    with pytest.raises(ValueError, match="bounds"):
        guarantees.lipschitz(fc(1), 3, bounds=(1.0, 0.0))
    far = regression.fit(fc(1, activation="erf"), 3 * x, np.ones((4, 1)), ridge=0.1)
    with pytest.raises(ValueError, match="f's x_train must lie in the bounds"):
        guarantees.radius(far, x)


def test_a_determined_data_set_has_as_many_classes_as_the_function():
    x = np.full((3, 2), 0.5, np.float32)
    with pytest.raises(ValueError, match="classes must be 3, as many as predict tells apart, got 5"):
        features.determined_dataset(
            lambda x: jnp.stack([x[:, 0], x[:, 1], x.sum(1)], 1),
            x,
            np.arange(3),
            Threat("linf", 0.1),
            classes=5,
        )


def test_a_path_on_disk_is_sliced_as_one_in_memory(tmp_path):
    path = KernelPath(tmp_path)
    for time in (0.0, 1.0, 2.0, -0.0):
        path.save(time, (1 + time) * np.eye(2) + time)
    assert path.times == [0.0, 1.0, 2.0]
    assert [kernel[0, 0] for kernel in path[1:]] == [3.0, 5.0]
    np.testing.assert_array_equal(dynamics.distances(path[1:]), dynamics.distances([path[1], path[2]]))


def test_small_targets_that_are_not_one_hot_are_no_labels():
    small = 1e-7 * np.array([[3.0, 0, 1], [0, 9, 2], [5, 1, 7]])
    for targets, fine in ((small, False), (1e-7 * np.eye(3), True)):
        f, cross = regression.fit(np.eye(3), targets=targets), np.eye(3)[:1]
        if fine:
            assert guarantees.flips(f, None, np.array([0]), k_test_train=cross).number.tolist() == [1]
        else:
            with pytest.raises(ValueError, match="one-hot"):
                guarantees.flips(f, None, np.array([0]), k_test_train=cross)


def test_errors_name_the_argument_and_what_it_was():
    with pytest.raises(ValueError, match=r"got 3\.0 to 3\.0"):
        dynamics.angle(np.array([np.nan, 3.0]))
    with pytest.raises(ValueError, match="one image or more"):
        packed(np.zeros((0, 4), np.float32))
    x = np.ones((4, 2), np.float32)
    options = {"learning_rate": 0.1, "batch_size": 3, "key": np.zeros(3)}
    with pytest.raises(TypeError, match="key must be"):
        train_to_residual(lambda p, x: x @ p, jnp.ones((2, 1)), x, np.ones((4, 1)), **options)
