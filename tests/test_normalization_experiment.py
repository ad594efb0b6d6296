"""The experiment of chapter 5 at toy size: its arrays are what their names say."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from companion import data
from companion.attacks import Threat, pgd
from companion.experiments import normalization as experiment
from companion.normalization import BatchNorm

# test_recorded_digits runs the experiment whole; these hold its arrays against slow definitions.
pytestmark = [pytest.mark.matrix, pytest.mark.usefixtures("unoptimized")]

TOY = replace(
    experiment.Case(),
    width=2, n_train=40, n_test=30, n_watch=20, epochs=1, batch_size=20, n_probe=4, sizes=(2, 3), draws=300,
    final=(3, 1), steps=2, ramp=0.0, rate=0.05,
)  # fmt: skip
RAW, NORMED = experiment.INPUTS[0], experiment.Variant("batch norm", "standardized", norm="batch")
STILL = experiment.Variant("batch at test", norm=BatchNorm(evaluation="batch"))
CONFIG = experiment.Config((TOY,), (RAW, NORMED), ("pgd",), 1)


@pytest.fixture(scope="module")
def found():
    return experiment.run(CONFIG)


@pytest.fixture(scope="module")
def normed():
    """The network with batch norm of the regime "pgd", trained again."""
    return experiment.trained(TOY, NORMED, "pgd", 0)


def images():
    return data.load("mnist5k", n_train=TOY.n_train, n_test=TOY.n_test)


def convolved(x, weights):
    """The first or second convolution, by XLA."""
    out = jax.lax.conv_general_dilated(
        x, weights["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return np.asarray(out + weights["bias"])


def pooled(x):
    n, h, w, c = x.shape
    return np.maximum(x, 0).reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def test_shapes_are_as_the_docstring_says(found):
    c, v, g, s, r = 1, 2, 1, 1, 2
    assert {name: array.shape for name, array in found.items()} == {
        "clean": (c, v, g, s, r), "robust": (c, v, g, s, r), "final": (c, v, g, s, 2, 3),
        "modes": (c, v, g, s, 2), "specialization": (c, v, g, s), "seconds": (c, v, g, s),
        "ratio": (c, s, 2, 2, 3, 2),
    }  # fmt: skip
    assert all(array.dtype == np.float32 for array in found.values())
    assert np.isnan(found["modes"][0, 0]).all()  # no batch norm
    assert np.isfinite(found["modes"][0, 1]).all()


def test_choices_of_statistics_are_trained_by_pgd_alone():
    config = replace(CONFIG, variants=(RAW, experiment.STATISTICS[0]), regimes=experiment.REGIMES)

    def gathered(config):
        jobs = experiment.jobs(config)
        made = {
            job: {"final": np.ones(2)} | ({"ratio": np.zeros(1)} if job.config[1:3] == (RAW, "pgd") else {})
            for job in jobs
        }
        return [(job.config[1].name, job.config[2]) for job in jobs], experiment.gather(config, made)

    asked, found = gathered(config)
    final = found["final"]
    without, none = gathered(replace(config, cases=(replace(TOY, statistics=False),)))
    none = none["final"]
    assert asked == [("raw", "standard"), ("raw", "pgd"), ("unbiased", "pgd")] * config.seeds
    assert without == [("raw", "standard"), ("raw", "pgd")] * config.seeds
    assert np.isnan(final[0, 1, 0]).all()
    assert np.isfinite(final[0, 1, 1]).all()
    assert found["ratio"].shape == (1, config.seeds, 1)
    # A case may leave them out.
    assert np.isnan(none[0, 1]).all()
    assert np.isfinite(none[0, 0]).all()


def test_modes_are_distances_of_kernels_by_jacobians(found, normed):
    model, x = experiment.model_of(TOY, NORMED, 10), jnp.asarray(images().x_train[: TOY.n_probe])
    for i, (params, state) in enumerate((normed.snapshots[0.0], normed.variables)):
        kernels = []
        for training in (False, True):
            jacobian = jax.jacobian(lambda p, mode=training, s=state: model.apply(p, s, x, mode)[0])(params)
            rows = np.concatenate(
                [np.asarray(leaf).reshape(40, -1) for leaf in jax.tree.leaves(jacobian)], axis=1
            ).astype(float)
            kernels.append(rows @ rows.T)
        cosine = (kernels[0] * kernels[1]).sum() / np.linalg.norm(kernels[0]) / np.linalg.norm(kernels[1])
        assert found["modes"][0, 1, 0, 0, i] == pytest.approx(1 - cosine, abs=1e-4)
        assert 1 - cosine > 1e-3


def test_both_modes_are_one_where_both_take_the_batch_s_statistics():
    start = experiment._start(TOY, STILL, images(), 0)
    # No training and no attack: neither is what is asked.
    none = np.zeros(1)
    run = SimpleNamespace(variables=start, snapshots={0.0: start}, clean=none, robust=none, seconds=none)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "trained", lambda *_: run)
        patch.setattr(experiment, "_final", lambda *_: none)
        arrays = experiment.compute(TOY, STILL, "pgd", 0)
    np.testing.assert_allclose(arrays["modes"], 0, atol=1e-5)


def test_the_end_is_attacked_in_pixels(found, normed):
    test = images()
    f = normed.predict(experiment.model_of(TOY, NORMED, 10))
    attacked = pgd(
        f, test.x_test, test.y_test, Threat("linf", TOY.eps), steps=3, restarts=1, key=jax.random.key(1000)
    )
    assert np.abs(attacked - test.x_test).max() == pytest.approx(TOY.eps, abs=1e-6)
    for k, x in enumerate((test.x_test, attacked)):
        right = np.mean(np.asarray(f(x)).argmax(axis=1) == test.y_test)
        low, value, high = found["final"][0, 1, 0, 0, k][[1, 0, 2]]
        assert value == pytest.approx(right, abs=1e-6)
        assert low <= value <= high
    np.testing.assert_allclose(found["clean"][0, 1, 0, 0], normed.clean, rtol=1e-6)
    np.testing.assert_allclose(found["robust"][0, 1, 0, 0], normed.robust, rtol=1e-6)


def test_variants_of_a_seed_start_from_the_same_weights(normed):
    raw = experiment.trained(TOY, RAW, "pgd", 0)
    for name in ("Conv_0", "Conv_1", "Dense_0"):
        for part in ("kernel", "bias"):
            np.testing.assert_array_equal(
                raw.snapshots[0.0][0][name][part], normed.snapshots[0.0][0][name][part]
            )


def test_activations_are_those_of_the_convolutions():
    raw = experiment.trained(TOY, RAW, "pgd", 0)
    x = images().x_train[:5]
    first, second = experiment.activations(raw.variables, x)
    wanted = convolved(x, raw.variables[0]["Conv_0"])
    np.testing.assert_allclose(first, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        second, convolved(pooled(wanted), raw.variables[0]["Conv_1"]), rtol=1e-4, atol=1e-5
    )
    # The dense layer on what follows them is the network.
    dense = raw.variables[0]["Dense_0"]
    outputs = pooled(second).reshape(5, -1) @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
    f = raw.predict(experiment.model_of(TOY, RAW, 10))
    np.testing.assert_allclose(f(x), outputs, rtol=1e-3, atol=1e-4)


def estimated(rows, estimator):
    """An estimator of one channel's variance on a batch (B, positions), by NumPy."""
    if estimator == "by_image":
        return np.var(rows) + np.var(rows.mean(axis=1), ddof=1) / len(rows)
    return np.var(rows, ddof=0 if estimator == "biased" else 1)


def test_predicted_ratios_are_those_over_all_batches():
    values = np.random.default_rng(0).normal(size=(4, 2, 2, 3)) + np.arange(4)[:, None, None, None]
    found = experiment.ratios(values, (2, 3), 20_000, 0)
    for i, size in enumerate((2, 3)):
        for j, estimator in enumerate(experiment.ESTIMATORS):
            wanted = np.mean(
                [
                    np.mean(
                        [
                            estimated(values[list(batch), ..., channel].reshape(size, -1), estimator)
                            for batch in itertools.product(range(4), repeat=size)
                        ]
                    )
                    / values[..., channel].var()
                    for channel in range(3)
                ]
            )
            assert found[i, j, 0] == pytest.approx(wanted, rel=1e-9)
            assert found[i, j, 1] == pytest.approx(wanted, abs=0.03)


def test_measured_ratios_are_a_plain_loop_s():
    values = np.random.default_rng(1).normal(size=(6, 3, 2, 2)).astype(np.float32)
    values = np.concatenate([values, np.zeros((6, 3, 2, 1), np.float32)], axis=-1)  # a dead channel
    found = experiment.ratios(values, (2, 5), 100, 3)
    rng = np.random.default_rng(3)
    for i, size in enumerate((2, 5)):
        batches = rng.integers(0, 6, (100 // size, size))
        for j, estimator in enumerate(experiment.ESTIMATORS):
            wanted = np.mean(
                [
                    np.mean(
                        [estimated(values[rows, ..., c].reshape(size, -1), estimator) for rows in batches]
                    )
                    / values[..., c].astype(float).var()
                    for c in range(2)
                ]
            )
            assert found[i, j, 1] == pytest.approx(wanted, rel=1e-5)


def test_the_experiment_s_ratios_are_of_the_trained_network(found):
    raw = experiment.trained(TOY, RAW, "pgd", 0)
    layers = experiment.activations(raw.variables, images().x_train)
    for i, layer in enumerate(layers):
        wanted = experiment.ratios(layer, TOY.sizes, TOY.draws, 0)
        np.testing.assert_allclose(found["ratio"][0, 0, i], wanted, rtol=1e-5)


def test_a_warm_start_has_the_statistics_of_the_images():
    variant = experiment.Variant("warm", "standardized", BatchNorm(training="frozen"), warm=True)
    train = images()
    params, (shift, scale, state) = experiment._start(TOY, variant, train, 0)
    np.testing.assert_allclose([shift, scale], [[train.x_train.mean()], [train.x_train.std()]], rtol=1e-4)
    first = convolved((train.x_train - train.x_train.mean()) / train.x_train.std(), params["Conv_0"])
    kept = state["batch_stats"]["_BatchNorm_0"]
    np.testing.assert_allclose(kept["mean"][0], first.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(kept["var"][0], first.var(axis=(0, 1, 2)), rtol=1e-3)
    # The second layer's are those behind a first one that is normalized already.
    after = pooled((first - first.mean(axis=(0, 1, 2))) / np.sqrt(first.var(axis=(0, 1, 2)) + 1e-5))
    second = convolved(after, params["Conv_1"])
    kept = state["batch_stats"]["_BatchNorm_1"]
    np.testing.assert_allclose(kept["var"][0], second.var(axis=(0, 1, 2)), rtol=1e-3)
    # Without it they are 0 and 1.
    cold = experiment._start(TOY, replace(variant, warm=False), train, 0)[1][2]["batch_stats"]
    assert set(np.unique(cold["_BatchNorm_0"]["mean"])) == {0.0}
    assert set(np.unique(cold["_BatchNorm_0"]["var"])) == {1.0}


@pytest.mark.parametrize("profile", ["quick", "digits", "faster", "full", "paper"])
def test_profiles_ask_for_what_their_data_have(profile):
    config = experiment.PROFILES[profile]
    assert config.seeds >= 3
    names = [variant.name for variant in config.variants]
    assert len(set(names)) == len(names)
    # Everything is compared with raw inputs and no norm.
    assert names[0] == "raw"
    for case in config.cases:
        assert case.n_watch <= case.n_test
        assert case.n_probe <= case.n_train
        for variant in config.variants:
            assert experiment.model_of(case, variant, 10).name.endswith("normalized inputs")
