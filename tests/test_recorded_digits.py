"""The experiments of chapters 4 and 5, of which no page runs all: whole, at toy size."""

from dataclasses import replace

import numpy as np
import pytest

from companion.experiments import dynamics, normalization

pytestmark = pytest.mark.usefixtures("unoptimized")
SMALL = {"width": 2, "n_train": 40, "n_test": 20, "n_watch": 20, "epochs": 1, "batch_size": 20, "steps": 1}


def test_dynamics_runs_whole():
    case = replace(
        dynamics.Case(), **SMALL, record=(0.0, 1.0), n_probe=4, linear=(0.0, 1.0), adversarial=(),
        linear_epochs=1, final=(1, 1), ramp=0.0,
    )  # fmt: skip
    found = dynamics.run(dynamics.Config((case,), ("standard", "pgd"), 1))
    between, across, distances = (found[name][0, 0] for name in ("between", "across", "distances"))
    # From one start, along one path, and to the other's end.
    np.testing.assert_allclose(between[0], 0, atol=1e-6)
    np.testing.assert_allclose(across[:, :, -1], between[-1], atol=1e-6)
    np.testing.assert_allclose(across[[0, 1], [0, 1]], distances[:, -1], atol=1e-6)
    assert between[-1, 0, 1] > 1e-6
    assert (found["final"][0, 0, :, 1, 0] <= found["final"][0, 0, :, 0, 0]).all()
    # The second phase from the start is one for both paths.
    np.testing.assert_array_equal(found["linear"][0, 0, 0, 0, 0], found["linear"][0, 0, 1, 0, 0])


def test_normalization_runs_whole():
    case = replace(normalization.Case(), **SMALL, n_probe=4, final=(1, 1), ramp=0.0)
    config = normalization.Config((case,), normalization.LAYERS[:1], ("pgd",), 1)
    found = {name: array[0, 0, 0, 0] for name, array in normalization.run(config).items()}
    assert (found["modes"] > 1e-6).all()
    assert found["final"][1, 0] <= found["final"][0, 0]
    assert 0 < found["specialization"] <= 10
