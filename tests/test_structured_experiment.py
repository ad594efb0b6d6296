"""The experiment on structured data: gradients by hand, the two-variable ODE, the claims on it."""

from dataclasses import replace
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from companion import networks, scorecard
from companion.experiments import structured as experiment
from companion.results import Result

CASE = experiment.Case(weak=40, beta=0.4, n_train=4, n_test=4, width=2, epochs=(0, 2), steps=2)
CLAIMS = {one.name: one for one in scorecard.CLAIMS}


def by_hand(weights, x, rho):
    """Outputs, and their gradients in the weights, (n, k, width, d): loops and the definition."""
    outputs, gradients = np.zeros((len(x), 2)), np.zeros((len(x), *weights.shape))
    for i, k, r in np.ndindex(len(x), *weights.shape[:2]):
        for patch in x[i]:
            z = weights[k, r] @ patch
            if z > rho:
                outputs[i, k] += z - 2 * rho / 3
                gradients[i, k, r] += patch
            elif z > 0:
                outputs[i, k] += z**3 / (3 * rho**2)
                gradients[i, k, r] += (z / rho) ** 2 * patch
    return outputs, gradients


def drawn(seed=0, **settings):
    kinds = {"robust": 1, "weak": 3, "beta": 0.5, "noise": 0.3} | settings
    return experiment.patches(4, seed=seed, **kinds)


def loss_of(model, weights, x, y):
    """Mean logistic loss of the difference of the two outputs."""
    f = model.apply(weights, (), jnp.asarray(x), False)[0]
    places = jnp.arange(len(y))
    return jax.nn.softplus(f[places, 1 - y] - f[places, y]).mean()


def test_outputs_and_gradients_are_those_of_the_definition():
    x, _ = drawn()
    model = experiment.patch_network(3, start=2.0, rho=1.0)
    weights, _ = model.init(jax.random.key(0), x)
    outputs, gradients = by_hand(np.asarray(weights, float), x.astype(float), 1.0)
    assert (outputs > 1 / 3).any()  # some of it beyond the bend
    found = model.apply(weights, (), x, False)[0]
    np.testing.assert_allclose(found, outputs, rtol=1e-4, atol=1e-5)
    slopes = jax.jacrev(lambda w: model.apply(w, (), x, False)[0])(weights)
    own = np.stack([np.asarray(slopes)[:, k, k] for k in range(2)], axis=1)
    np.testing.assert_allclose(own, gradients, rtol=1e-4, atol=1e-5)


def test_patches_hold_what_they_say_and_the_aligned_attack_takes_it():
    x, y = drawn(noise=0.0)
    np.testing.assert_array_equal(y, [0, 1, 0, 1])
    np.testing.assert_array_equal(x[1, 0], [0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(x[1, 1:], np.tile([0, 0, 0, 0.5, 0, 0], (3, 1)))
    moved = experiment.aligned(x, y, 0.25)
    np.testing.assert_array_equal(moved[1, 0], [0.25, 0.75, 0.25, -0.25, 0, 0])
    np.testing.assert_array_equal(moved[0, 2], [-0.25, 0.25, 0.25, 0.25, 0, 0])
    assert drawn(seed=1)[0].std() > 0
    assert not np.array_equal(drawn(seed=1)[0], drawn(seed=2)[0])


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.19, 0.3])
def test_a_small_neuron_grows_at_the_speed_that_theory_gives(eps):
    """The network's own gradient, at weights s f for a feature f, against c g s² along f."""
    x, y = experiment.patches(2, robust=1, weak=40, beta=0.4, noise=0.0, seed=0)
    model = experiment.patch_network(1, start=1.0, rho=20.0)
    moved = experiment.aligned(x, y, eps)

    def slope(first, size):
        weights = np.zeros((2, 1, 6), np.float32)
        weights[[0, 1], 0, [first, first + 1]] = size
        gradient = np.asarray(jax.grad(loss_of, argnums=1)(model, weights, moved, y))
        return -(gradient[0, 0, first] + gradient[1, 0, first + 1]) / 2

    # Half of the inputs are of a class, σ(0) = 1/2, and the slope of the third power is s²/ρ².
    expected = experiment.growth(CASE, eps) * 0.01**2 / 20**2 / 4
    found = [slope(first, 0.01) for first in (0, 2)]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-12)


def test_the_window_is_where_the_two_speeds_change_sign():
    low, high = experiment.window(CASE)
    for part, at in ((1, low), (0, high)):
        root = scipy.optimize.brentq(lambda eps, part=part: experiment.growth(CASE, eps)[part], 0.01, 0.39)
        assert at == pytest.approx(root, rel=1e-6)
    assert CASE.beta / 2 > low > 0.48 * CASE.beta  # one more patch, the robust one, helps the attack


def test_the_faster_feature_wins_as_in_the_ode():
    """w' = g w² by gradient steps of the network: the two strengths are those of the closed form."""
    x, y = experiment.patches(2, robust=1, weak=40, beta=0.4, noise=0.0, seed=0)
    model = experiment.patch_network(1, start=1.0, rho=20.0)
    weights = np.zeros((2, 1, 6), np.float32)
    weights[[0, 1, 0, 1], 0, [0, 1, 2, 3]] = 0.02
    start, rate, steps = 0.02, 94.0, 200

    step = jax.jit(lambda w: w - rate * jax.grad(loss_of, argnums=1)(model, w, x, y))
    for _ in range(steps):
        weights = step(weights)
    speeds = experiment.growth(CASE, 0.0) * rate * steps / 20**2 / 4
    expected = start / (1 - start * speeds)
    np.testing.assert_allclose(experiment.strengths(np.asarray(weights)), expected, rtol=0.02)
    assert expected[1] > 1.5 * expected[0]


def test_strengths_and_shares_of_weights_made_by_hand():
    weights = np.zeros((2, 2, 6))
    weights[0, 1, 0], weights[1, 0, 1] = 3, 1  # robust features of their classes
    weights[0, 0, 2], weights[1, 1, 3] = 1, 1
    weights[0, 0, 5] = 2
    np.testing.assert_allclose(experiment.strengths(weights), [2, 1])
    np.testing.assert_allclose(experiment.shares(weights), [10 / 16, 2 / 16])
    assert np.isnan(experiment.shares(0 * weights)).all()


def test_networks_made_by_hand_fall_where_the_window_ends():
    x, y = experiment.patches(4, robust=1, weak=40, beta=0.4, noise=0.0, seed=0)
    model = experiment.patch_network(1, start=1.0, rho=20.0)
    low, high = experiment.window(CASE)
    for first, edge in ((0, high), (2, low)):
        weights = np.zeros((2, 1, 6), np.float32)
        weights[[0, 1], 0, [first, first + 1]] = 5
        f = networks.predict_fn(model, (jnp.asarray(weights), ()))
        sizes = (0.97 * edge, 1.03 * edge)
        np.testing.assert_array_equal(experiment.robust_accuracies(f, x, y, sizes, (2, 1), 0), [1, 1, 0])


def test_a_network_and_its_linearization_start_alike_and_are_measured():
    found = [
        experiment.compute(CASE, row, (0.1, 0.16), (2, 1), 0)
        for row in (experiment.Row("network", "noise", 0.1), experiment.Row("lazy", "pgd", 0.16))
    ]
    starts, ends = ([one["strengths"][e] for one in found] for e in (0, 1))
    np.testing.assert_array_equal(*starts)
    assert (ends[0] != ends[1]).all()
    for one in found:
        assert np.isnan(one["shares"][0]).all()  # nothing has changed yet
        assert 0 < one["shares"][1].sum() <= 1
        assert one["accuracy"].shape == (3,)
        assert np.isfinite(one["accuracy"]).all()


def test_arrays_of_runs_stand_at_their_row_and_seed():
    config = experiment.Config(CASE, others=(0.2,), seeds=2)
    jobs = experiment.jobs(config)
    made = {job: {"accuracy": np.array([i])} for i, job in enumerate(jobs) if job.config[1].kind == "lazy"}
    found = experiment.gather(config, made)["accuracy"][..., 0]
    np.testing.assert_array_equal(found, [[np.nan] * 2] * 4 + [[4, 11], [5, 12], [6, 13]])


@pytest.mark.parametrize("profile", experiment.PROFILES)
def test_profiles_are_well_formed(profile):
    config = experiment.PROFILES[profile]
    jobs = experiment.jobs(config)
    assert len(set(map(experiment.EXPERIMENT.key, jobs))) == len(jobs)
    assert {config.eps, *config.others} <= set(config.sizes)
    low, high = experiment.window(config.case)
    assert low < config.eps < high
    assert np.diff(experiment.growth(config.case, 0)) > 0  # without an attack the non-robust one is first
    more = replace(config, seeds=config.seeds + 1, others=(*config.others, 0.1))
    assert {experiment.EXPERIMENT.key(job) for job in jobs} < {
        experiment.EXPERIMENT.key(job) for job in experiment.jobs(more)
    }


def record(*, fragile=True, learns=True, lazy=0.2):
    """Three seeds: does standard training lose, PGD training learn the robust feature, the control fail?"""
    sizes, noise = [0.1, 0.16], 0.01 * np.arange(3)
    accuracy, strengths = np.ones((6, 3, 3)), np.ones((6, 3, 2, 2))
    first = (2.0, 16.0) if fragile else (16.0, 2.0)
    strengths[[0, 1], :, -1] = np.array(first) * (1 + noise[:, None])
    strengths[2, :, -1] = np.array((16.0, 1.0) if learns else first) * (1 + 2 * noise[:, None])
    accuracy[[0, 1], :, 2] = (0.1 if fragile else 0.98) - noise
    accuracy[2, :, 2] = 0.9 + noise if learns else accuracy[0, :, 2] + noise / 10
    accuracy[3:, :, 2] = lazy + 2 * noise
    case = {"robust": 1, "weak": 40, "beta": 0.4, "width": 2, "n_train": 4, "n_test": 4, "epochs": [0, 9]}
    config = {"case": case | {"steps": 2}, "eps": 0.16, "others": [], "sizes": sizes}
    provenance = {"config": config, "runs": (1, 1), "seconds": 1.0}
    arrays = {"accuracy": accuracy, "strengths": strengths}
    return Result(MappingProxyType({}), MappingProxyType(arrays), MappingProxyType(provenance))


@pytest.mark.parametrize(
    ("name", "made", "verdict"),
    [
        ("E5a", {}, "reproduced"),
        ("E5a", {"fragile": False}, "not reproduced"),
        ("E5b", {}, "reproduced"),
        ("E5b", {"learns": False}, "not reproduced"),
        ("E5c", {}, "reproduced"),
        ("E5c", {"lazy": 0.9}, "not reproduced"),
    ],
    ids=["falls", "stands", "switches", "stays", "control fails", "control does as well"],
)
def test_claims_on_structured_data(name, made, verdict):
    found = scorecard.card(CLAIMS[name], {"full": record(**made)})
    assert found.judgment.verdict == verdict
    if name == "E5c":
        assert found.comparisons[1].effect.value == pytest.approx(0.9 - made.get("lazy", 0.2) - 0.01)
