"""Flax modules, of Linen and NNX, whatever their mode is called: against Flax itself."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import freeze
from refusals import assert_refused

from companion import networks
from companion.attacks import Threat, pgd
from companion.empirical import empirical_ntk
from companion.training import train

try:
    from flax import nnx
except AttributeError:
    pytest.skip("this Flax cannot import its NNX on this JAX", allow_module_level=True)

KEY = jax.random.key(0)
X = np.random.default_rng(0).random((6, 4)).astype(np.float32)
Y = np.arange(6) % 3


def layers(x, evaluates):
    x = nn.relu(nn.BatchNorm(evaluates)(nn.Dense(8)(x)))
    return nn.Dense(3)(nn.Dropout(0.5, deterministic=evaluates)(x))


class Train(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return layers(x, not train)


class Training(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        return layers(x, not training)


class IsTraining(nn.Module):
    @nn.compact
    def __call__(self, inputs, *, is_training: bool):
        return layers(inputs, not is_training)


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic=True):
        return layers(x, deterministic)


class UseRunningAverage(nn.Module):
    @nn.compact
    def __call__(self, x, use_running_average, unused=None):
        return layers(x, use_running_average)


class Field(nn.Module):
    train: bool = True

    @nn.compact
    def __call__(self, x):
        return layers(x, not self.train)


class NNX(nnx.Module):
    """The same layers; the mode is an attribute of each."""

    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


class CalledNNX(NNX):
    """The same, told its mode when it is called."""

    def __call__(self, x, *, train: bool):
        x = nnx.relu(self.norm(self.first(x), use_running_average=not train))
        return self.last(self.dropout(x, deterministic=not train))


MODULES = [Train, Training, IsTraining, Deterministic, UseRunningAverage, Field, NNX, CalledNNX]


def made(kind):
    return kind(nnx.Rngs(0)) if issubclass(kind, nnx.Module) else kind()


def statistics_of(kind, state):
    found = state["norm"] if issubclass(kind, nnx.Module) else state["batch_stats"]["BatchNorm_0"]
    return [jax.tree.leaves(found[name])[0] for name in ("mean", "var")]


def weights_of(kind, params):
    """Weights and biases of both dense layers."""
    names = ("first", "last") if issubclass(kind, nnx.Module) else ("Dense_0", "Dense_1")
    return [jax.tree.leaves(params[name][part])[0] for name in names for part in ("kernel", "bias")]


@pytest.mark.parametrize("kind", MODULES)
def test_both_modes_are_what_the_layers_say(kind):
    model = networks.from_flax(made(kind))
    params, state = model.init(KEY, X)
    assert model.name == kind.__name__
    w1, b1, w2, b2 = weights_of(kind, params)
    hidden = X @ w1 + b1
    # Training: the batch's own mean and variance; each unit of each example is doubled or dropped.
    outputs, after = jax.jit(lambda p, s: model.apply(p, s, X, True))(params, state)
    units = jax.nn.relu((hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5))
    masks = 2 * np.array(list(np.ndindex(*8 * [2])))
    possible = np.einsum("mu,nu,uk->nmk", masks, units, w2) + b2
    assert np.abs(possible - outputs[:, None]).max(-1).min(-1).max() < 1e-4
    # Each step has its own mask, the same one where it is repeated.
    np.testing.assert_array_equal(outputs, jax.jit(lambda p, s: model.apply(p, s, X, True))(params, state)[0])
    assert not np.allclose(outputs, model.apply(params, after, X, True)[0])
    mean, var = statistics_of(kind, after)
    np.testing.assert_allclose(mean, 0.01 * hidden.mean(0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(var, 0.99 + 0.01 * hidden.var(0), rtol=1e-4)
    # Evaluation: the running ones, no mask, nothing moves.
    still, same = model.apply(params, after, X, False)
    np.testing.assert_allclose(
        still, jax.nn.relu((hidden - mean) / np.sqrt(var + 1e-5)) @ w2 + b2, rtol=1e-4, atol=1e-5
    )
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), after, same)))


@pytest.mark.parametrize("kind", [Deterministic, NNX])
def test_they_train_have_kernels_and_are_attacked(kind, tmp_path):
    model = networks.from_flax(made(kind))
    options = {"batch_size": 3, "optimizer": optax.sgd(0.1), "key": KEY}
    run = train(model, X, Y, epochs=2, **options)
    # Continued from the folder, state and random key included, it is the same run.
    train(model, X, Y, epochs=1, folder=tmp_path, **options)
    again = train(model, X, Y, epochs=2, folder=tmp_path, **options)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), run.variables, again.variables)
    assert jax.tree.all(same)
    params, state = run.variables
    jacobian = jax.jacobian(lambda p: model.apply(p, state, X, False)[0])(params)
    rows = jnp.concatenate([leaf.reshape(6, 3, -1) for leaf in jax.tree.leaves(jacobian)], axis=-1)
    kernel = empirical_ntk(networks.evaluation(model), run.variables, X, reduce="full")
    np.testing.assert_allclose(
        kernel, jnp.einsum("iap,jbp->iajb", rows, rows).reshape(18, 18), rtol=1e-3, atol=1e-4
    )
    attacked = pgd(networks.predict_fn(model, run.variables), X, Y, Threat("linf", 0.1))
    assert 0.09 < np.abs(attacked - X).max() <= 0.1 + 1e-6


@pytest.mark.parametrize("kind", [Training, Deterministic])
@pytest.mark.parametrize("of", [dict, freeze], ids=["dict", "FrozenDict"])
def test_flaxs_own_variables_go_in_as_they_are(kind, of):
    net, model = kind(), networks.from_flax(kind())
    variables = net.init(KEY, X)
    variables = of(variables | {"batch_stats": jax.tree.map(lambda a: a + 0.5, variables["batch_stats"])})
    outputs = np.asarray(net.apply(variables, X))  # both evaluate unless they are told otherwise
    params, stats = variables["params"], variables["batch_stats"]
    for given in (variables, (params, {"batch_stats": stats})):
        np.testing.assert_allclose(networks.predict_fn(model, given)(X), outputs, rtol=1e-5, atol=1e-6)
    jacobian = jax.jacobian(lambda p: net.apply({"params": p, "batch_stats": stats}, X).sum(1))(params)
    rows = jnp.concatenate([leaf.reshape(6, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
    kernel = empirical_ntk(networks.evaluation(model), variables, X, reduce="full")
    np.testing.assert_allclose(kernel.reshape(6, 3, 6, 3).sum((1, 3)), rows @ rows.T, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("as_users_run")
def test_variables_of_another_form_are_named():
    net, model = Training(), networks.from_flax(Training())
    params, stats = (net.init(KEY, X)[name] for name in ("params", "batch_stats"))
    assert_refused(
        [
            (
                lambda: networks.predict_fn(model, params),
                TypeError,
                r"\(params, state\), .* got dict of Dense_0, ",
            ),
            (lambda: networks.predict_fn(model, (params,)), TypeError, r"\(params, state\), .* got tuple"),
            (lambda: networks.predict_fn(model, None), TypeError, "got NoneType"),
            (
                lambda: networks.predict_fn(net, (params, {})),
                TypeError,
                r"from_flax\(module\).* got Training",
            ),
            (
                lambda: networks.predict_fn(model, (params, stats))(X),
                ValueError,
                'such as {"batch_stats": …}; it has BatchNorm_0',
            ),
            (lambda: networks.predict_fn(model, (params, {}))(X), ValueError, "it has none"),
        ]
    )


def test_an_nnx_module_stays_as_it_is_and_takes_what_was_trained():
    net = NNX(nnx.Rngs(0))
    before = jax.tree.map(np.asarray, nnx.state(net, nnx.Param))
    model = networks.from_flax(net)
    params, state = model.init(jax.random.key(7), X)
    jax.tree.map(np.testing.assert_array_equal, params, before)
    model.apply(params, state, X, True)
    assert (net.norm.use_running_average, net.dropout.deterministic) == (False, False)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(net, nnx.Param), before)
    nnx.update(net, jax.tree.map(lambda p: p + 1, params))
    net.eval()
    moved = model.apply(jax.tree.map(lambda p: p + 1, params), state, X, False)[0]
    np.testing.assert_allclose(net(X), moved, rtol=1e-5)


@pytest.mark.parametrize("kind", [Training, NNX])
def test_in_float64_where_the_inputs_are(kind):
    model = networks.from_flax(made(kind))
    params, state = model.init(KEY, X.astype(float))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(float)}
    for training in (False, True):
        assert model.apply(params, state, X.astype(float), training)[0].dtype == np.float64


def test_a_network_without_a_mode_has_no_random_key():
    model = networks.from_flax(nnx.Linear(4, 3, rngs=nnx.Rngs(0)))
    assert jax.tree.leaves(model.init(KEY, X)[1]) == []
    assert networks.from_flax(nn.Dense(3)).init(KEY, X)[1] == {}


class Wants(nn.Module):
    @nn.compact
    def __call__(self, x, train, temperature):
        return x


@pytest.mark.usefixtures("as_users_run")
def test_what_cannot_be_a_network_is_refused():
    with pytest.raises(TypeError, match="module must be a Flax module, of Linen or NNX, got <built-in"):
        networks.from_flax(len)
    with pytest.raises(TypeError, match="it wants temperature too: give a module that needs nothing else"):
        networks.from_flax(Wants())
    net = nnx.Linear(2, 2, param_dtype=jnp.complex64, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"leaf of complex64 at params\['bias'\]"):
        networks.from_flax(net)


@pytest.mark.parametrize(
    ("make", "package"),
    [(networks.from_torch, "torch"), (networks.from_equinox, "equinox")],
    ids=["torch", "equinox"],
)
def test_a_framework_that_is_not_installed_is_named(make, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"this needs {package}: pip install {package}$"):
        make(object())
