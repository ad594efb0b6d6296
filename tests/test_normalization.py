"""Normalization: layers against Flax's and NumPy's, estimators against all batches there are, pixels kept."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from refusals import assert_refused

from companion import networks, normalization
from companion.attacks import Threat, training_attack
from companion.empirical import empirical_ntk
from companion.networks._normalizing import _BatchNorm
from companion.normalization import BatchNorm, batch_statistics, input_statistics, variance_ratio
from companion.training import train

RNG = np.random.default_rng(0)
BATCHES = [RNG.normal(1, 2, size=(6, 5, 5, 3)).astype(np.float32) for _ in range(4)]


def after(norm, batches=BATCHES):
    """State of our layer, with other scale and bias than at the start, after training batches."""
    module = _BatchNorm(norm, True)
    variables = module.init(jax.random.key(0), batches[0])
    params = {"scale": jnp.array([1.0, 2.0, 0.5]), "bias": jnp.array([0.0, 1.0, -1.0])}
    state, outputs = variables["batch_stats"], []
    for x in batches:
        out, changed = module.apply({"params": params, "batch_stats": state}, x, mutable=["batch_stats"])
        state = changed["batch_stats"]
        outputs.append(out)
    return params, state, outputs


def test_the_default_is_flax_s(x64):
    theirs = nn.BatchNorm(use_running_average=False, momentum=0.9, dtype=jnp.float64)
    batches = [x.astype(float) for x in BATCHES]
    params, state, outputs = after(BatchNorm(), batches)
    running = theirs.init(jax.random.key(0), batches[0])["batch_stats"]
    for x, out in zip(batches, outputs, strict=True):
        wanted, changed = theirs.apply({"params": params, "batch_stats": running}, x, mutable=["batch_stats"])
        running = changed["batch_stats"]
        np.testing.assert_allclose(out, wanted, rtol=1e-9, atol=1e-9)
    for name in ("mean", "var"):
        np.testing.assert_allclose(state[name][0], running[name], rtol=1e-6)
    still = nn.BatchNorm(use_running_average=True, dtype=jnp.float64)
    np.testing.assert_allclose(
        _BatchNorm(BatchNorm(), False).apply({"params": params, "batch_stats": state}, batches[0]),
        still.apply({"params": params, "batch_stats": running}, batches[0]),
        rtol=1e-5,  # Flax keeps its running statistics in float32
        atol=1e-7,
    )


def test_its_derivative_is_flax_s():
    def slope(module):
        variables = module.init(jax.random.key(0), BATCHES[0])
        weights = jax.random.normal(jax.random.key(1), BATCHES[0].shape)

        @jax.jit
        @jax.grad
        def gradient(x):
            return (weights * module.apply(variables, x, mutable=["batch_stats"])[0]).sum()

        return gradient

    np.testing.assert_allclose(
        slope(_BatchNorm(BatchNorm(), True))(BATCHES[0]),
        slope(nn.BatchNorm(use_running_average=False))(BATCHES[0]),
        rtol=1e-3,
        atol=1e-5,
    )


def test_pytorch_s_convention():
    _, state, _ = after(BatchNorm(running_variance="unbiased", momentum=0.8))
    mean, variance = np.zeros(3), np.ones(3)
    for x in BATCHES:
        mean = 0.8 * mean + 0.2 * x.mean(axis=(0, 1, 2))
        variance = 0.8 * variance + 0.2 * x.reshape(-1, 3).var(axis=0, ddof=1)
    np.testing.assert_allclose(state["mean"][0], mean, rtol=1e-5)
    np.testing.assert_allclose(state["var"][0], variance, rtol=1e-5)


def normalized(x, mean, variance, params, eps=1e-5):
    return (x - mean) / np.sqrt(variance + eps) * np.asarray(params["scale"]) + np.asarray(params["bias"])


def test_halves_have_statistics_of_their_own():
    params, state, outputs = after(BatchNorm(parts=2))
    for x, out in zip(BATCHES, outputs, strict=True):
        for half, part in ((x[:3], out[:3]), (x[3:], out[3:])):
            wanted = normalized(half, half.mean(axis=(0, 1, 2)), half.var(axis=(0, 1, 2)), params)
            np.testing.assert_allclose(part, wanted, rtol=1e-4, atol=1e-5)
    variables = {"params": params, "batch_stats": state}
    for part, rows in ((0, slice(3)), (1, slice(3, 6))):
        mean, variance = np.zeros(3), np.ones(3)
        for x in BATCHES:
            mean = 0.9 * mean + 0.1 * x[rows].mean(axis=(0, 1, 2))
            variance = 0.9 * variance + 0.1 * x[rows].var(axis=(0, 1, 2))
        found = _BatchNorm(BatchNorm(parts=2, part=part), False).apply(variables, BATCHES[0])
        np.testing.assert_allclose(
            found, normalized(BATCHES[0], mean, variance, params), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("training", ["running", "frozen"])
def test_running_and_frozen_statistics_normalize_without_the_batch(training):
    params, state, outputs = after(BatchNorm(training=training))
    mean, variance = np.zeros(3), np.ones(3)
    for x, out in zip(BATCHES, outputs, strict=True):
        np.testing.assert_allclose(out, normalized(x, mean, variance, params), rtol=1e-4, atol=1e-5)
        if training == "running":
            mean, variance = (
                0.9 * old + 0.1 * new
                for old, new in ((mean, x.mean(axis=(0, 1, 2))), (variance, x.var(axis=(0, 1, 2))))
            )
    np.testing.assert_allclose(state["mean"][0], mean, rtol=1e-5)


def test_statistics_of_the_batch_in_evaluation():
    params, state, _ = after(BatchNorm(evaluation="batch"))
    x = BATCHES[2]
    found = _BatchNorm(BatchNorm(evaluation="batch"), False).apply(
        {"params": params, "batch_stats": state}, x
    )
    wanted = normalized(x, x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2)), params)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variance", ["biased", "unbiased", "by_image"])
@pytest.mark.parametrize("size", [2, 3])
def test_expectations_are_those_over_all_batches(variance, size, x64):
    rng = np.random.default_rng(1)
    population = rng.normal(size=(4, 3, 2)) + rng.normal(size=(4, 1, 2))
    all_batches = itertools.product(range(4), repeat=size)
    found = [batch_statistics(population[list(rows)], variance)[1] for rows in all_batches]
    ratio = np.mean(found, axis=0) / population.var(axis=(0, 1))
    np.testing.assert_allclose(variance_ratio(population, size, variance), ratio, rtol=1e-10)
    if variance == "by_image":
        np.testing.assert_allclose(ratio, 1, rtol=1e-10)


@pytest.mark.parametrize(("norm", "groups"), [("layer", 1), ("group", 4)])
def test_layer_and_group_norm_are_their_definitions(norm, groups):
    rng = np.random.default_rng(1)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return normalization.layer(norm, True)(x)

    x = rng.normal(2, 3, size=(2, 3, 3, 4)).astype(np.float32)
    found = Net().apply(Net().init(jax.random.key(0), x), x)
    split = x.reshape(2, 3, 3, groups, -1)
    mean, variance = (f(split, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
    wanted = ((split - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("inputs", "low", "high", "mean", "spread"),
    [
        ("raw", 0, 1, None, None),
        ("centred", None, None, 0, None),
        ("standardized", None, None, 0, 1),
        ((-1, 1), -1, 1, None, None),
        ((0, 255), 0, 255, None, None),
    ],
)
def test_statistics_of_inputs(inputs, low, high, mean, spread):
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(50, 4, 4, 3)).astype(np.float32)
    x[0, 0, 0], x[0, 0, 1] = 0, 1
    shift, scale = input_statistics(x, inputs)
    z = (x - shift) / scale
    if low is not None:
        assert (z.min(), z.max()) == (pytest.approx(low), pytest.approx(high))
    if mean is not None:
        np.testing.assert_allclose(z.mean(axis=(0, 1, 2)), mean, atol=1e-6)
    if spread is not None:
        np.testing.assert_allclose(z.std(axis=(0, 1, 2)), spread, rtol=1e-5)


def test_attacks_on_normalized_inputs_stay_in_pixels():
    rng = np.random.default_rng(1)
    # A linear network on bytes: its gradient is 255 times as large, its step and ball are those of pixels.
    model = networks.mlp(2, depth=1, width=8)
    x = rng.uniform(0.3, 0.7, size=(20, 6)).astype(np.float32)
    variables = model.init(jax.random.key(0), x)
    inside = normalization.on_normalized_inputs(model)
    given = normalization.normalize_inputs(variables, input_statistics(x, (0, 255)))
    np.testing.assert_allclose(
        inside.apply(*given, x, False)[0], model.apply(*variables, 255 * x, False)[0], rtol=1e-4, atol=1e-4
    )
    attack = training_attack(Threat("linf", 0.1), steps=1, random_start=False)
    moved = attack(networks.predict_fn(inside, given), x, np.zeros(20, int), jax.random.key(0), jnp.inf) - x
    assert float(jnp.abs(moved).max()) == pytest.approx(0.1, rel=1e-5)
    assert (np.round(np.abs(moved), 6) == np.float32(0.1)).mean() > 0.9


def test_models_with_normalized_inputs_train_and_keep_their_statistics():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(size=(40, 6)).astype(np.float32), rng.integers(0, 2, 40)
    model = networks.mlp(2, depth=1, width=8)
    inside = normalization.on_normalized_inputs(model)
    start = normalization.normalize_inputs(
        model.init(jax.random.key(0), x), input_statistics(x, "standardized")
    )
    options = {"epochs": 2, "optimizer": optax.sgd(0.1), "key": jax.random.key(1), "batch_size": 10}
    one = train(inside, x, y, start=start, **options)
    shift, scale = input_statistics(x, "standardized")
    other = train(model, (x - shift) / scale, y, start=(start[0], {}), **options)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        one.variables[0],
        other.variables[0],
    )
    np.testing.assert_array_equal(one.variables[1][0], shift)


@pytest.mark.matrix
def test_kernel_in_training_mode_is_that_of_the_whole_batch(x64):
    rng = np.random.default_rng(1)
    model = networks.small_cnn(2, width=2, norm="batch")
    x = rng.uniform(size=(4, 8, 8, 1))
    variables = jax.tree.map(lambda a: a.astype(float), model.init(jax.random.key(0), x))
    apply_fn = normalization.training_mode(model)
    jacobian = jax.jacobian(lambda params: model.apply(params, variables[1], x, True)[0])(variables[0])
    rows = np.concatenate([leaf.reshape(8, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
    found = empirical_ntk(apply_fn, variables, x, reduce="full", batch_statistics=True)
    np.testing.assert_allclose(found, rows @ rows.T, rtol=1e-8, atol=1e-10)
    with pytest.raises(ValueError, match="batch_statistics"):
        empirical_ntk(apply_fn, variables, x, reduce="full")


@pytest.mark.parametrize("norm", ["batch", "layer", "group", BatchNorm(parts=2), None])
def test_small_cnn_has_every_norm(norm):
    model = networks.small_cnn(3, width=4, norm=norm)
    params, state = jax.eval_shape(model.init, jax.random.key(0), BATCHES[0])
    outputs, moved = jax.eval_shape(lambda *of: model.apply(*of, BATCHES[0], True), params, state)
    assert outputs.shape == (6, 3)
    assert bool(state) == (norm == "batch" or isinstance(norm, BatchNorm))
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    assert networks.small_cnn(3, width=4, norm=norm) is model


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments():
    assert_refused(
        [
            (
                lambda: BatchNorm(training="both"),
                "training must be 'batch' or 'running' or 'frozen', got 'both'",
            ),
            (lambda: BatchNorm(variance="exact"), "variance must be 'biased' or"),
            (lambda: BatchNorm(momentum=1.1), r"momentum must lie in \[0, 1\], got 1.1"),
            (lambda: BatchNorm(part=1), "part must be below parts = 1, got 1"),
            (lambda: networks.small_cnn(2, norm="instance"), "norm must be 'batch' or 'layer' or 'group'"),
            (lambda: input_statistics(np.ones((2, 3), np.float32), "standardized"), "does not vary"),
            (lambda: input_statistics(np.ones((2, 3), np.float32), "whitened"), "inputs must be 'raw' or"),
            (
                lambda: input_statistics(np.ones((2, 3), np.float32), (1, 1)),
                "range .low, high. with low < high",
            ),
            (lambda: variance_ratio(np.ones((2, 3), np.float32), 0), "batch_size must be at least 1"),
        ],
        ValueError,
    )


@pytest.mark.usefixtures("as_users_run")
def test_an_odd_batch_has_no_halves():
    module = _BatchNorm(BatchNorm(parts=2), True)
    variables = module.init(jax.random.key(0), BATCHES[0])
    with pytest.raises(ValueError, match="a batch of 5 does not split into 2 equal parts"):
        module.apply(variables, BATCHES[0][:5], mutable=["batch_stats"])
