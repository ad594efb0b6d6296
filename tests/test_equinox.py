"""Equinox modules against Equinox itself; `make torch` runs this."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

eqx = pytest.importorskip("equinox", reason="Equinox is not installed: `make torch` runs this")

from companion import networks  # noqa: E402
from companion.attacks import Threat, pgd  # noqa: E402
from companion.empirical import empirical_ntk  # noqa: E402
from companion.training import train  # noqa: E402

KEY = jax.random.key(0)
X = np.random.default_rng(0).random((6, 4)).astype(np.float32)
Y = np.arange(6) % 3


class Net(eqx.Module):
    """Both kinds of layer that have a mode."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    last: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(4, 8, key=one), eqx.nn.Linear(8, 3, key=two)
        self.norm, self.dropout = eqx.nn.BatchNorm(8, "examples", mode="batch"), eqx.nn.Dropout(0.5)

    def __call__(self, x, state, *, key):
        x, state = self.norm(self.first(x), state)
        return self.last(self.dropout(jax.nn.relu(x), key=key)), state


def mlp():
    return eqx.nn.MLP(4, 3, 8, 1, key=KEY)


def test_a_module_is_itself_on_a_batch(x64):
    net = mlp()
    model = networks.from_equinox(net)
    x = X.astype(float)
    variables = model.init(KEY, x)
    wide = jax.tree.map(lambda a: a.astype(float) if eqx.is_inexact_array(a) else a, net)
    for training in (False, True):
        outputs, _ = model.apply(*variables, x, training)
        np.testing.assert_allclose(outputs, jax.vmap(wide)(x), rtol=1e-12)
    params, static = eqx.partition(wide, eqx.is_inexact_array)
    jacobian = jax.jacobian(lambda p: jax.vmap(eqx.combine(p, static))(x))(params)
    rows = jnp.concatenate([leaf.reshape(6, 3, -1) for leaf in jax.tree.leaves(jacobian)], axis=-1)
    kernel = empirical_ntk(networks.evaluation(model), variables, x, reduce="full")
    wanted = jnp.einsum("iap,jbp->iajb", rows, rows).reshape(18, 18)
    np.testing.assert_allclose(kernel, wanted, rtol=1e-8)


def test_it_trains_as_a_plain_loop_does():
    net = mlp()
    params, static = eqx.partition(net, eqx.is_inexact_array)

    def loss(params):
        outputs = jax.vmap(eqx.combine(params, static))(X)
        return -jax.nn.log_softmax(outputs)[np.arange(6), Y].mean()

    for _ in range(3):
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))
    run = train(networks.from_equinox(net), X, Y, epochs=3, batch_size=6, optimizer=optax.sgd(0.1), key=KEY)
    trained = eqx.combine(run.variables[0], static)
    np.testing.assert_allclose(
        jax.vmap(trained)(X), jax.vmap(eqx.combine(params, static))(X), rtol=1e-4, atol=1e-5
    )


def test_both_modes_of_a_network_with_state_and_keys():
    net, state = eqx.nn.make_with_state(Net)(KEY)
    model = networks.from_equinox(net, state, axis_name="examples")
    params, carried = model.init(KEY, X)
    first, after = model.apply(params, carried, X, True)
    # Batch normalization by hand, and the mask that the key of the state makes.
    hidden = jax.vmap(net.first)(X)
    normal = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + net.norm.eps)
    key, _ = jax.random.split(jax.random.wrap_key_data(words(carried["random key"])))
    masks = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (8,)))(jax.random.split(key, 6))
    np.testing.assert_allclose(
        first, jax.vmap(net.last)(2 * masks * jax.nn.relu(normal)), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(first, model.apply(params, carried, X, True)[0])
    assert not np.allclose(first, model.apply(params, after, X, True)[0])
    # Evaluation has no mask, uses the running statistics and moves nothing.
    batch = jax.vmap(net, axis_name="examples", in_axes=(0, None), out_axes=(0, None))
    _, theirs = batch(X, state, key=jax.random.split(KEY, 6))
    still, same = model.apply(params, after, X, False)
    wanted = jax.vmap(lambda x: eqx.nn.inference_mode(net)(x, theirs, key=None)[0])(X)
    np.testing.assert_allclose(still, wanted, rtol=1e-4, atol=1e-5)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), after, same)))


def words(random):
    """The numbers of a key that rides in a state as bytes."""
    return np.asarray(random, np.uint8).view(np.uint32)[..., 0]


def test_a_network_with_state_trains_has_a_kernel_and_is_attacked():
    net, state = eqx.nn.make_with_state(Net)(KEY)
    model = networks.from_equinox(net, state, axis_name="examples", name="mine")
    run = train(model, X, Y, epochs=2, batch_size=3, optimizer=optax.sgd(0.1), key=KEY)
    kernel = empirical_ntk(networks.evaluation(model), run.variables, X)
    assert np.linalg.eigvalsh(kernel).min() > -1e-5
    threat = Threat("linf", 0.1)
    attacked = pgd(networks.predict_fn(model, run.variables), X, Y, threat)
    assert 0 < np.abs(attacked - X).max() <= 0.1 + 1e-6


@pytest.mark.usefixtures("as_users_run")
def test_what_cannot_be_a_network_is_refused():
    net, _ = eqx.nn.make_with_state(Net)(KEY)
    with pytest.raises(TypeError, match="module must be an Equinox module that can be called, got"):
        networks.from_equinox(len)
    with pytest.raises(TypeError, match=r"wants state too: .*eqx\.nn\.make_with_state"):
        networks.from_equinox(net)
    with pytest.raises(TypeError, match=r"leaf of complex64 at params\.weight"):
        networks.from_equinox(jax.tree.map(lambda a: a.astype(complex), eqx.nn.Linear(2, 2, key=KEY)))
    with pytest.raises(TypeError, match=r"got a custom_jvp at params\.activation.*from_equinox\(net\)"):
        networks.from_apply(lambda p, x: p(x), mlp())
