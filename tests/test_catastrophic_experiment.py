"""The experiment of chapter 7 at toy size: its arrays are what their names say."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from companion import catastrophic, data, networks
from companion.attacks import Threat, pgd, robust_accuracy
from companion.experiments import catastrophic as experiment

# `make book` runs the experiment whole, in chapter 7; these hold its arrays against slow definitions.
pytestmark = [pytest.mark.matrix, pytest.mark.usefixtures("unoptimized")]

TOY = replace(
    experiment.Case(),
    width=4, n_train=60, n_test=40, n_watch=30, epochs=2, batch_size=20, ramp=1.0, steps=2, record=2,
    n_probe=6, final=(3, 2), skip=("half ε", "fgsm, random start"),
)  # fmt: skip
CONFIG = experiment.Config((TOY,), experiment.METHODS, seeds=2, calibration=1)
FGSM, PGD, SWITCH = (experiment.METHODS.index(name) for name in ("fgsm", "pgd", "switch"))
EPOCHS = [0, 2 / 3, 1, 4 / 3, 2]  # halves of three minibatches, rounded to whole ones


@pytest.fixture(scope="module")
def found():
    return {name: array[0] for name, array in experiment.run(CONFIG).items()}


@pytest.fixture(scope="module")
def one():
    return experiment.trained(TOY, 1, experiment.attack_of(TOY, "fgsm"))


@pytest.fixture(scope="module")
def start():
    """The FGSM network of seed 0, of which `surface` is."""
    return experiment.trained(TOY, 0, experiment.attack_of(TOY, "fgsm"))


@pytest.fixture(scope="module")
def images():
    return data.load("mnist5k", n_train=60, n_test=40)


@jax.jit
def logits(variables, x):
    return experiment.model_of(TOY, 10).apply(*variables, x, False)[0]


@jax.jit
def loss(variables, x, labels):
    """Mean cross-entropy, written out."""
    found = logits(variables, x)
    return (jax.nn.logsumexp(found, axis=1) - found[jnp.arange(len(x)), labels]).mean()


slope = jax.jit(jax.grad(loss, argnums=1))


def test_shapes_are_as_the_docstring_says(found):
    m, s, r = len(experiment.METHODS), 2, 5
    wanted = {
        "epochs": (r,), "accuracy": (m, s, r, 3), "loss": (m, s, r), "signals": (m, s, r, 5),
        "spectrum": (m, s, r, 20), "final": (m, s, 2, 3), "seconds": (m, s), "switched": (s,),
        "onset": (m, s), "alarm": (5, 2, s), "threshold": (5,), "surface": (r, 21, 11),
        "attacked_signals": (m, s, r, 3), "in_batches": (m, s, r, 2),
    }  # fmt: skip
    assert {name: array.shape for name, array in found.items()} == wanted
    np.testing.assert_allclose(found["epochs"], EPOCHS, atol=1e-6)


def test_calibration_seeds_train_no_switch_and_skipped_methods_nothing(found):
    for i, method in enumerate(experiment.METHODS):
        for seed, trained in ((0, method not in ("switch", *TOY.skip)), (1, method not in TOY.skip)):
            for name in ("accuracy", "signals", "final", "onset", "seconds"):
                assert (~np.isnan(found[name][i, seed])).all() == trained
                assert np.isnan(found[name][i, seed]).all() != trained
    assert (found["seconds"][:, 1][np.isfinite(found["seconds"][:, 1])] > 0).all()
    assert np.isnan(found["switched"][0])


def test_accuracies_are_those_of_attacks_written_out(found, one, images):
    x, y = images.x_test[:30], images.y_test[:30]
    for r, epoch in enumerate(one.epochs):
        variables = one.snapshots[epoch]
        moved = np.clip(x + TOY.eps * np.sign(np.asarray(slope(variables, x, y))), 0, 1)
        right = [np.mean(np.asarray(logits(variables, z)).argmax(axis=1) == y) for z in (x, moved)]
        np.testing.assert_allclose(found["accuracy"][FGSM, 1, r, :2], right, atol=1e-6)
    np.testing.assert_allclose(found["accuracy"][FGSM, 1, :, 2], one.robust, atol=1e-6)
    np.testing.assert_allclose(found["loss"][FGSM, 1], one.loss, rtol=1e-5)


def test_linearity_is_the_mean_cosine_of_gradients(found, one, images):
    x, y, threat = images.x_test[:30], images.y_test[:30], Threat("linf", TOY.eps)
    noise = TOY.eps * (2 * jax.random.uniform(jax.random.key(0), x.shape) - 1)
    other = np.clip(x + np.asarray(noise), 0, 1)
    model, column = experiment.model_of(TOY, 10), experiment.SIGNALS.index("linearity")
    for r in (0, 4):
        variables = one.snapshots[one.epochs[r]]
        pairs = [np.asarray(slope(variables, z, y), float).reshape(30, -1) for z in (x, other)]
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*pairs, strict=True)]
        assert found["signals"][FGSM, 1, r, column] == pytest.approx(np.mean(cosines), abs=1e-4)
        f = networks.predict_fn(model, variables)
        same = catastrophic.local_linearity(f, x, y, threat, key=jax.random.key(0))
        np.testing.assert_allclose(same, cosines, atol=1e-4)


def test_spectrum_and_signals_are_those_of_the_kernels(found, one):
    for r, kernel in enumerate(one.kernels):
        values = np.linalg.eigvalsh(np.asarray(kernel, float))[::-1]
        np.testing.assert_allclose(found["spectrum"][FGSM, 1, r, :6], values, rtol=1e-3, atol=1e-4)
        wanted = values[0] / values.sum(), values.sum() ** 2 / (values**2).sum(), np.log(np.trace(kernel))
        np.testing.assert_allclose(found["signals"][FGSM, 1, r, :3], wanted, rtol=1e-4)
    assert np.isnan(found["spectrum"][FGSM, 1, :, 6:]).all()  # the probe has six images
    np.testing.assert_array_equal(found["signals"][FGSM, 1, :, 4], found["accuracy"][FGSM, 1, :, 2])


def test_attacked_signals_are_of_the_kernel_where_fgsm_moves_the_probe(found, one, images):
    x, y = images.x_test[-TOY.n_probe :], images.y_test[-TOY.n_probe :]
    variables = one.snapshots[one.epochs[-1]]
    moved = np.clip(x + TOY.eps * np.sign(np.asarray(slope(variables, x, y))), 0, 1)

    tree = jax.jacrev(lambda params: logits((params, variables[1]), moved))(variables[0])
    jacobian = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    rows = np.concatenate([leaf.reshape(TOY.n_probe, 10, -1) for leaf in jacobian], axis=2).astype(float)
    values = np.linalg.eigvalsh(np.einsum("iap,jap->ij", rows, rows) / 10)[::-1]
    wanted = values[0] / values.sum(), values.sum() ** 2 / (values**2).sum(), np.log(values.sum())
    np.testing.assert_allclose(found["attacked_signals"][FGSM, 1, -1], wanted, rtol=1e-3)


def test_in_batches_the_batch_s_own_statistics_normalize(found, one, images):
    x, y = images.x_test[:30], images.y_test[:30]
    variables = one.snapshots[one.epochs[-1]]
    trained_mode = experiment.model_of(TOY, 10).apply(*variables, x, True)[0]
    right = np.mean(np.asarray(trained_mode).argmax(axis=1) == y)
    assert found["in_batches"][FGSM, 1, -1, 0] == pytest.approx(right, abs=1e-6)
    assert (found["in_batches"][FGSM, 1, :, 1] <= found["in_batches"][FGSM, 1, :, 0]).all()


def test_the_surface_has_fgsm_ahead_and_random_signs_beside(found, start, images):
    x, y = images.x_test[:10], images.y_test[:10]
    signs = np.random.default_rng(0).choice([-1, 1], x.shape)
    for r in (0, 4):
        variables = start.snapshots[start.epochs[r]]
        ahead = np.sign(np.asarray(slope(variables, x, y)))
        surface = found["surface"][r]
        for i, j in ((0, 5), (20, 5), (10, 0), (20, 10)):
            step, side = i / 20, j / 5 - 1
            point = np.clip(x + TOY.eps * (step * ahead + side * signs), 0, 1)
            assert surface[i, j] == pytest.approx(float(loss(variables, point, y)), rel=1e-3)


def test_detectors_are_silent_where_they_were_calibrated_and_ring_as_alarm_says(found):
    assert np.isinf(found["alarm"][:, 1, 0]).all()
    for i, side in enumerate(experiment.SIDES):
        calm = found["signals"][PGD, 0, :, i].astype(float)
        detector = catastrophic.calibrate([calm], side=side, relative=True, margin=experiment.MARGIN)
        assert found["threshold"][i] == pytest.approx(detector.threshold, rel=1e-4, abs=1e-6)
        for k, method in enumerate((FGSM, PGD)):
            signal = found["signals"][method, 1, :, i].astype(float)
            rings = catastrophic.alarm(found["epochs"], signal, detector)
            assert found["alarm"][i, k, 1] == pytest.approx(rings)


def test_onset_is_that_of_the_recorded_accuracy(found):
    for i, method in enumerate(experiment.METHODS):
        if method in TOY.skip:
            continue
        robust = found["accuracy"][i, 1, :, 2].astype(float)
        assert found["onset"][i, 1] == pytest.approx(
            catastrophic.onset(found["epochs"].astype(float), robust, least=0.2)
        )


def test_the_switch_is_fgsm_until_the_alarm(found):
    rings = found["alarm"][experiment.SIGNALS.index(CONFIG.switch), 0, 1]
    switched = found["switched"][1]
    # An alarm at the last record is nothing to act on.
    assert switched == pytest.approx(rings) or (np.isinf(switched) and rings == found["epochs"][-1])
    same = found["epochs"] <= switched
    for name in ("accuracy", "loss"):
        np.testing.assert_allclose(found[name][SWITCH, 1, same], found[name][FGSM, 1, same], rtol=1e-5)
    if not same.all():
        assert not np.allclose(found["loss"][SWITCH, 1, ~same], found["loss"][FGSM, 1, ~same])


def test_final_is_pgd_with_restarts_on_all_test_images(found, one, images):
    f, threat = one.predict(experiment.model_of(TOY, 10)), Threat("linf", TOY.eps)
    key = jax.random.key(1001)
    attacked = pgd(f, images.x_test, images.y_test, threat, steps=3, restarts=2, key=key, early_stop=True)
    for i, points in enumerate((images.x_test, attacked)):
        accuracy = robust_accuracy(f, points, images.y_test)
        np.testing.assert_allclose(
            found["final"][FGSM, 1, i], [accuracy.value, accuracy.low, accuracy.high], rtol=1e-5
        )


@pytest.mark.parametrize("method", [name for name in experiment.METHODS if name != "switch"])
def test_attacks_go_as_far_as_their_method_says(method, images):
    x, y = images.x_train[:20], images.y_train[:20]
    weights = np.random.default_rng(1).normal(size=(784, 10)).astype(np.float32)

    def f(z):
        return z.reshape(len(z), -1) @ weights

    attack = experiment.attack_of(replace(TOY, ramp=0.0), method)
    points = np.asarray(attack(f, x, y, jax.random.key(0), jnp.inf))
    assert points.min() >= 0
    assert points.max() <= 1
    reach = np.abs(points - x).max() / TOY.eps
    if method.endswith("noise"):
        assert reach > 1  # not projected
    else:
        assert reach == pytest.approx(0.5 if method == "half ε" else 1, abs=1e-3)
    assert (experiment.penalty_of(TOY, method) is None) == (method != "gradalign")


@pytest.mark.parametrize("profile", ["full", "paper"])
def test_profiles_can_calibrate_and_score(profile):
    config = experiment.PROFILES[profile]
    assert config.methods == experiment.METHODS
    assert config.calibration >= 2
    assert config.seeds >= 3
    assert config.switch in experiment.SIGNALS[:3]
    for case in config.cases:
        assert case.n_watch + case.n_probe <= case.n_test  # the probe is no watched image
        assert set(case.skip) <= set(experiment.METHODS[2:])
        assert experiment.model_of(case, 10).name.startswith("ResNet") == bool(case.blocks)


def test_a_strong_attack_moves_whole_batches_with_either_statistics(start, images):
    found = experiment.compute(TOY, experiment.STRONG, 0, 3, 2)["strong"]
    x, y = images.x_test, images.y_test  # 40 images, one batch
    in_training = experiment.model_of(TOY, 10).apply(*start.variables, x, True)[0]
    assert found[1, 0] == pytest.approx(np.mean(np.asarray(in_training).argmax(axis=1) == y), abs=1e-6)
    assert found[0, 0] == pytest.approx(
        np.mean(np.asarray(logits(start.variables, x)).argmax(axis=1) == y), abs=1e-6
    )
    moved = np.clip(x + np.float32(TOY.eps) * np.sign(slope(start.variables, x, y)), 0, 1)
    fgsm = np.mean(np.asarray(logits(start.variables, moved)).argmax(axis=1) == y)
    assert found[0, 1] == pytest.approx(fgsm, abs=0.026)  # an image
    assert (found[:, 2] <= found[:, 0]).all()


def test_networks_in_batches_are_gathered_by_case_and_seed():
    config = replace(CONFIG, in_batches=2, strong=(3, 2))
    some = [job for job in experiment.EXPERIMENT.jobs(config) if job.config[1] == experiment.STRONG]
    assert [job.config[2:] for job in some] == [(0, 3, 2), (1, 3, 2)]
    arrays = experiment.gather(config, {job: {"strong": np.full((2, 3), job.seed)} for job in some})
    assert arrays["strong"].shape == (1, 2, 2, 3)
    assert (arrays["strong"][0, 1] == 1).all()
