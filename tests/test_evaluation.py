"""AutoAttack beside the PGD of recorded networks: the same network, the same images, counts that add up."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from companion import networks
from companion.attacks import Threat, pgd, robust_accuracy
from companion.experiments import catastrophic, evaluation, normalization, warm_start

CASE = warm_start.Case(
    "digits", epochs=20, n_train=200, n_test=30, batch_size=20, width=4, eps=0.1, steps=2, final=(3, 1)
)
CONFIG = evaluation.Config(
    (evaluation.Network("warm_start", CASE, ("pgd", "constant")),), seeds=1, n_test=20, queries=5
)


def test_the_network_is_its_experiments_and_counts_add_up():
    found = evaluation.run(CONFIG)
    accuracy, (more, less) = found["accuracy"][0, 0, :, 0], found["more"][0, 0]
    run = warm_start.trained(CASE, "pgd", "constant", 0)
    f = networks.predict_fn(warm_start.model_of(CASE, 10), run.variables)
    images = evaluation.images_of(CASE)
    x, y = images.x_test[:20], images.y_test[:20]
    moved = pgd(
        f, x, y, Threat("linf", 0.1), steps=3, early_stop=True, batch_size=20, key=jax.random.key(1000)
    )
    assert accuracy[0] == robust_accuracy(f, x, y).value
    assert accuracy[1] == robust_accuracy(f, moved, y).value
    assert accuracy[0] > accuracy[-1]  # AutoAttack had something to fool
    assert (np.diff(accuracy[[0, 2, 3, 4, 5]]) <= 0).all()
    assert 20 * (accuracy[1] - accuracy[-1]) == pytest.approx(more - less)


def test_every_recorded_network_is_one_that_its_experiment_trains():
    full = evaluation.PROFILES["full"]
    labels = {job.label for job in evaluation.jobs(full)}
    assert len(labels) == len(full.networks) == 26
    for one in full.networks:
        module = {"warm_start": warm_start, "normalization": normalization, "catastrophic": catastrophic}[
            one.experiment
        ]
        own = [job.config for job in module.jobs(module.PROFILES["full"])]
        if one.experiment == "warm_start" and one.how[0] in warm_start.EARLY:
            assert any(job[:3] == (one.case, "early", "constant") for job in own)
        else:
            assert any(job[: 1 + len(one.how)] == (one.case, *one.how) for job in own)


def test_an_experiment_without_networks_is_refused():
    other = replace(CONFIG.networks[0], experiment="features")
    with pytest.raises(ValueError, match="trains networks, got 'features'"):
        evaluation.compute(other, 20, 5, 0)
