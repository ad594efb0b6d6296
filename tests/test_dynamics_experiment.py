"""The experiment of chapter 4 at toy size: its arrays are what their names say."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from companion import data, dynamics, networks
from companion.attacks import Threat, training_attack
from companion.empirical import empirical_ntk
from companion.experiments import dynamics as experiment
from companion.training import linear_solution, train

# test_recorded_digits runs the experiment whole; these hold its arrays against slow definitions.
pytestmark = [pytest.mark.matrix, pytest.mark.usefixtures("unoptimized")]

TOY = replace(
    experiment.Case(),
    width=4, n_train=100, n_test=50, n_watch=30, epochs=2, batch_size=20, record=(0.0, 0.5, 2.0), n_probe=6,
    linear=(0.0, 2.0), adversarial=(2.0,), linear_epochs=1, n_solve=10, final=(3, 2), steps=2, ramp=1.0,
)  # fmt: skip
REGIMES = ("standard", "again", "pgd")
CONFIG = experiment.Config((TOY,), REGIMES, 2)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return experiment.run(CONFIG, folder=folder), folder


@pytest.fixture(scope="module")
def one():
    return experiment.trained(TOY, "pgd", 1)


def test_shapes_are_as_the_docstring_says(found):
    g, r, m = 3, 3, 6
    wanted = {
        "epochs": (1, r), "final": (1, 2, g, 2, 3), "seconds": (1, 2, g), "between": (1, 2, r, g, g),
        "across": (1, 2, g, g, r),
        "distances": (1, 2, g, r, r), "spectrum": (1, 2, g, r, 40), "kernels": (1, g, r, m, m),
        "radius": (1, 2, g, r, 3), "angle": (1, 2, g, r, 3), "linear": (1, 2, 2, 2, 2, 2),
        "solved": (1, 2, 2, 2, 2),
    }  # fmt: skip
    curves = ("loss", "clean", "robust", "concentration", "rank", "alignment", "specialization", "rotation")
    wanted |= dict.fromkeys((*curves, "velocity"), (1, 2, g, r))
    assert {name: array.shape for name, array in found[0].items()} == wanted


def test_a_run_with_a_folder_of_its_own_goes_on_and_ends_the_same(found):
    arrays, folder = found
    # From the checkpoints of its trainings; what is measured on the ends is made again.
    again = experiment.run(CONFIG, folder=folder)
    same = [name for name in arrays if np.array_equal(arrays[name], again[name], equal_nan=True)]
    assert same == list(arrays)


def test_curves_are_those_of_the_run_itself(found, one):
    arrays, row = found[0], (0, 1, REGIMES.index("pgd"))
    np.testing.assert_allclose(arrays["robust"][row], one.robust, rtol=1e-6)
    wanted = dynamics.distances(one.kernels)
    np.testing.assert_allclose(arrays["distances"][row], wanted, atol=1e-6)
    kernel = one.kernels[-1].astype(float)
    values = np.linalg.eigvalsh(kernel)[::-1]
    assert arrays["rank"][row][-1] == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-5)
    assert arrays["concentration"][row][-1] == pytest.approx(
        (values[:20] ** 2).sum() / (values**2).sum(), rel=1e-5
    )
    np.testing.assert_allclose(arrays["rotation"][row], dynamics.rotation(one.kernels), atol=1e-4)
    for i, part in enumerate(experiment.PARTS):
        radius, angle = dynamics.polar(one.kernels, part=part)
        np.testing.assert_allclose(arrays["radius"][row][:, i], radius, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(arrays["angle"][row][:, i], angle, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(arrays["spectrum"][row][-1], values[:40], rtol=1e-4, atol=1e-3)
    first, second = (k.astype(float) for k in one.kernels[:2])
    cosine = (first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second)
    speed = np.arccos(cosine) / one.epochs[1]
    assert arrays["velocity"][row][0] == pytest.approx(speed, rel=1e-3)
    assert np.isnan(arrays["velocity"][row][-1])


def test_all_regimes_start_at_one_network(found):
    between = found[0]["between"][0]
    np.testing.assert_allclose(between[:, 0], 0, atol=1e-6)
    # The two standard runs see other minibatches; at the end they differ, as all regimes do.
    assert (between[:, -1, 0, 1:] > 1e-6).all()
    np.testing.assert_allclose(between, np.swapaxes(between, -1, -2), atol=1e-6)
    across = found[0]["across"][0]
    np.testing.assert_allclose(across[..., -1], between[:, -1], atol=1e-6)
    own = np.arange(across.shape[1])
    np.testing.assert_allclose(across[:, own, own], found[0]["distances"][0][:, :, -1], atol=1e-6)
    # Seeds start elsewhere.
    assert not np.allclose(found[0]["spectrum"][0, 0, 0, 0], found[0]["spectrum"][0, 1, 0, 0])


def test_a_decayed_rate_is_the_same_run_until_it_falls():
    constant, decayed = (experiment.optimizer_of(TOY, flag) for flag in (False, True))
    assert experiment.optimizer_of(TOY, True) is decayed
    params = {"w": np.ones(2, np.float32)}
    states = [one.init(params) for one in (constant, decayed)]
    sizes = []
    for _ in range(10):
        updates = []
        for i, one in enumerate((constant, decayed)):
            update, states[i] = one.update({"w": np.zeros(2, np.float32) + 1}, states[i], params)
            updates.append(float(update["w"][0]))
        sizes.append(updates[1] / updates[0])
    # 10 steps in all: a tenth from step 5 on, a hundredth from step 7 on (7.5 is rounded down).
    assert sizes[:5] == pytest.approx([1] * 5)
    assert sizes[5:7] == pytest.approx([0.1] * 2)
    assert sizes[7:] == pytest.approx([0.01] * 3)


def test_the_kernels_are_averaged_over_outputs_in_the_order_of_the_probe(found):
    first = experiment.trained(TOY, "standard", 0)
    full = first.kernels[-1].reshape(6, 10, 6, 10)
    wanted = np.mean([full[:, a, :, a] for a in range(10)], axis=0)
    np.testing.assert_allclose(found[0]["kernels"][0, 0, -1], wanted, rtol=1e-5)


def test_a_frozen_kernel_is_trained_on_from_zero(found, one):
    images = data.load("mnist5k", n_train=100, n_test=50)
    model = networks.small_cnn(10, width=4)
    threat, arrays = Threat("linf", TOY.eps), found[0]
    path = experiment.PATHS.index("pgd")
    for phase, attack in enumerate((None, training_attack(threat, steps=2))):
        run = train(
            networks.linearized(model, center=True), images.x_train, images.y_train, epochs=1,
            optimizer=experiment._ADAM, key=jax.random.key(1), batch_size=20, attack=attack, record=[0, 1],
            start=networks.linearize_at(one.snapshots[2.0]), x_test=images.x_test[:30],
            labels_test=images.y_test[:30], test_attack=training_attack(threat, steps=4),
        )  # fmt: skip
        assert run.clean[0] == pytest.approx(0.1, abs=0.05)  # the centered network starts at 0: one class
        np.testing.assert_allclose(
            arrays["linear"][0, 1, path, 1, phase], [run.clean[1], run.robust[1]], rtol=1e-6
        )
    # On clean inputs at both moments, on attacked ones at the last alone.
    assert np.isnan(arrays["linear"][..., 0, 1, :]).all()
    assert np.isfinite(arrays["linear"][..., 1, 1, :]).all()
    # Both paths begin with one kernel.
    np.testing.assert_array_equal(arrays["linear"][:, :, 0, 0, 0], arrays["linear"][:, :, 1, 0, 0])


def test_kernel_regression_on_a_frozen_kernel(found, one):
    images = data.load("mnist5k", n_train=100, n_test=50)
    model = networks.small_cnn(10, width=4)
    targets = data.targets(images.y_train[:10], 10)
    kernel = empirical_ntk(networks.evaluation(model), one.snapshots[2.0], images.x_train[:10], reduce="full")
    solved = linear_solution(
        model, one.snapshots[2.0], images.x_train[:10], targets, ridge=1e-3 * float(np.diag(kernel).mean())
    )
    outputs = networks.predict_fn(networks.linearized(model, center=True), solved)(images.x_test[:30])
    clean = np.mean(np.asarray(outputs.argmax(axis=1)) == images.y_test[:30])
    assert found[0]["solved"][0, 1, experiment.PATHS.index("pgd"), 1, 0] == pytest.approx(clean, abs=1e-6)
    # A second phase of no steps measures what it starts from.
    still = experiment.second_phase(TOY, one.snapshots[2.0], False, 0, [0], start=solved)
    assert still.clean == pytest.approx([clean], abs=1e-6)


def test_a_kernel_of_training_on_noise_is_frozen_beside_the_others():
    case = replace(TOY, paths=("standard", "pgd", "noise"), adversarial=(), curve=(0.0, 1.0), n_solve=0)
    found = experiment.run(experiment.Config((case,), ("standard", "pgd", "noise"), 1))
    assert found["linear"].shape == (1, 1, 3, 2, 2, 2)
    assert found["curve"].shape == (1, 1, 3, 2, 2, 2)
    noise = experiment.trained(case, "noise", 0).snapshots[2.0]
    phase = experiment.second_phase(case, noise, False, 0, [0, 1])
    np.testing.assert_allclose(found["linear"][0, 0, 2, 1, 0], [phase.clean[1], phase.robust[1]], rtol=1e-6)
    np.testing.assert_allclose(found["curve"][0, 0, 2, 0, :, 1], phase.robust, rtol=1e-6)
    assert np.isnan(found["curve"][0, 0, :, 1]).all()  # attacked inputs were not asked for
    # All begin with one kernel.
    np.testing.assert_array_equal(found["linear"][0, 0, 0, 0], found["linear"][0, 0, 2, 0])


def test_a_network_that_is_not_watched_is_the_same_network(one):
    alone = experiment.trained(TOY, "pgd", 1, watch=False)
    assert np.isnan(alone.clean).all()
    assert np.isnan(alone.robust).all()
    np.testing.assert_array_equal(alone.kernels[-1], one.kernels[-1])


@pytest.mark.parametrize("profile", ["digits", "full", "noise", "paper"])
def test_profiles_ask_for_what_their_data_and_records_have(profile):
    config = experiment.PROFILES[profile]
    assert config.seeds >= 3
    assert len({case.dataset for case in config.cases}) == {"full": 2, "noise": 3}.get(profile, 1)
    for case in config.cases:
        assert set(case.linear) <= set(case.record)
        assert set(case.adversarial) <= set(case.linear)
        assert max(case.record) == case.epochs == case.linear[-1]
        assert case.n_watch <= case.n_test
        assert experiment.model_of(case, 10).name == case.model
