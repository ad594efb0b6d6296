"""Networks: sizes from the papers, layers against Flax's own, linearized networks against differences."""

import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from companion import networks
from companion.architectures import fc
from companion.empirical import _ntk, empirical_ntk
from companion.networks import _layers
from companion.networks._modules import SmallCNN
from companion.training import train


def parameters(model, shape=(1, 32, 32, 3)):
    params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.ones(shape)))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_resnet18_has_as_many_parameters_as_the_usual_one_for_cifar():
    # 11,173,962 is what everyone's PyTorch variant for CIFAR-10 counts.
    assert parameters(networks.resnet18(10)) == 11_173_962


def test_resnet8_has_the_layers_of_its_name():
    # Convolutions 1→16, 16→16 twice, 16→32, 32→32, 32→64, 64→64; shortcuts 16→32, 32→64; norms; 64→10.
    convolutions = 9 * (16 + 2 * 16**2 + 16 * 32 + 32**2 + 32 * 64 + 64**2) + 16 * 32 + 32 * 64
    norms = 2 * (3 * 16 + 3 * 32 + 3 * 64)
    assert parameters(networks.resnet(10), (1, 28, 28, 1)) == convolutions + norms + 64 * 10 + 10
    assert networks.resnet(10).name == "ResNet-8"
    assert parameters(networks.resnet(10, blocks=(2, 2, 2, 2), width=64)) == 11_173_962


def test_the_cnn_has_the_layers_of_the_paper():
    convolutions = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    assert parameters(networks.cnn(10)) == sum(9 * a * b + b for a, b in convolutions) + 8 * 8 * 128 * 10 + 10


def test_convolutions_start_as_flax_s():
    x, key = jnp.ones((1, 6, 6, 2)), jax.random.key(3)
    theirs = nn.Conv(4, (3, 3), kernel_init=nn.initializers.he_normal()).init(key, x)
    # Ours are drawn as a matrix: XLA may round another shape's last bit otherwise (jax 0.12 does, one of 72).
    jax.tree.map(np.testing.assert_array_max_ulp, _layers.Conv(4).init(key, x), theirs)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(
    "path", [_layers._product, pytest.param(_layers._convolution, marks=pytest.mark.matrix)]
)
def test_convolutions_are_flax_s(kernel, stride, size, path, x64, monkeypatch):
    monkeypatch.setattr(_layers, "_product", path)
    x = jax.random.normal(jax.random.key(0), (2, size, size + 1, 3))
    ours = _layers.Conv(4, kernel=kernel, stride=stride)
    theirs = nn.Conv(4, (kernel, kernel), (stride, stride), padding=kernel // 2)
    variables = jax.eval_shape(ours.init, jax.random.key(1), x)
    variables = jax.tree.map(lambda p: jax.random.normal(jax.random.key(2), p.shape), variables)
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(6, 8), (7, 9)])
def test_pools_are_flax_s(size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    np.testing.assert_array_equal(_layers.max_pool(x), nn.max_pool(x, (2, 2), (2, 2)))
    np.testing.assert_allclose(_layers.average_pool(x), nn.avg_pool(x, (2, 2), (2, 2)), rtol=1e-6)
    weights = jax.random.normal(jax.random.key(1), _layers.max_pool(x).shape)
    ours = jax.grad(lambda x: (weights * _layers.max_pool(x)).sum())(x)
    theirs = jax.grad(lambda x: (weights * nn.max_pool(x, (2, 2), (2, 2))).sum())(x)
    np.testing.assert_array_equal(ours, theirs)


def test_initialization_keeps_the_signal():
    x = jax.random.normal(jax.random.key(0), (4, 16, 16, 64))
    layer = _layers.Conv(256)
    out = nn.relu(layer.apply(layer.init(jax.random.key(1), x), x))
    # He: E relu(z)² = E x² away from the padded border.
    assert float((out[:, 1:-1, 1:-1] ** 2).mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "make",
    [
        networks.mlp,
        networks.small_cnn,
        pytest.param(networks.cnn, marks=pytest.mark.matrix),
    ],
)
def test_models_have_outputs_and_keep_their_state_s_shape(make):
    model = make(3, width=4)
    assert make(3, width=4) is model
    x = jax.random.uniform(jax.random.key(0), (2, 16, 16, 1))
    params, state = model.init(jax.random.key(1), x)
    outputs, after = model.apply(params, state, x, True)
    assert outputs.shape == (2, 3)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    still, same = model.apply(params, state, x, False)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state, same))
    alone = jnp.concatenate([model.apply(params, state, x[i : i + 1], False)[0] for i in range(2)])
    np.testing.assert_allclose(still, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "state"), [("batch", {"batch_stats"}), ("group", set()), ("layer", set()), (None, set())]
)
def test_residual_networks_have_the_state_of_their_normalization(norm, state):
    model = networks.resnet18(3, width=16, norm=norm)
    x = jax.ShapeDtypeStruct((2, 16, 16, 1), "float32")
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert set(variables[1]) == state
    # Without normalization the 20 convolutions have biases; with it, two numbers a channel, and none.
    vectors = sum(leaf.ndim == 1 for leaf in jax.tree.leaves(variables[0])) - 1
    assert vectors == (20 if norm is None else 40)
    assert jax.eval_shape(lambda v, x: model.apply(*v, x, False)[0], variables, x).shape == (2, 3)


def test_batch_normalization_moves_its_running_statistics():
    model = networks.resnet(3, blocks=(1, 1), width=4)
    x = jax.random.uniform(jax.random.key(0), (8, 16, 16, 1))
    params, state = jax.jit(model.init)(jax.random.key(1), x)
    _, after = jax.jit(lambda p, s, x: model.apply(p, s, x, True))(params, state, x)
    # The first layer's statistics, by hand: 0.9 of the old mean 0 and 0.1 of the batch's.
    first = _layers._product(x, params["Conv_0"]["kernel"], 1).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(
        after["batch_stats"]["_BatchNorm_0"]["mean"][0], 0.1 * first, rtol=1e-4, atol=1e-6
    )


class Normalized(nn.Module):
    norm: str = "batch"

    @nn.compact
    def __call__(self, x, training):
        return nn.Dense(2)(nn.BatchNorm(use_running_average=not training)(x))


def test_evaluation_has_the_kernel_of_the_parameters_alone(x64):
    model = networks.from_flax(Normalized())
    x = np.random.default_rng(0).uniform(size=(3, 4))
    params, state = jax.tree.map(lambda a: a.astype(float), model.init(jax.random.key(1), x))
    state = jax.tree.map(lambda a: a + 0.3, state)
    kernel = empirical_ntk(networks.evaluation(model), (params, state), x, reduce="full")
    jacobian = jax.jacobian(lambda p: model.apply(p, state, x, False)[0])(params)
    rows = jnp.concatenate([leaf.reshape(3, 2, -1) for leaf in jax.tree.leaves(jacobian)], axis=-1)
    np.testing.assert_allclose(
        kernel, jnp.einsum("iap,jbp->iajb", rows, rows).reshape(6, 6), rtol=1e-8, atol=1e-8
    )


def test_initialization_is_the_module_s_own():
    module, x = Normalized(), jax.random.normal(jax.random.key(0), (5, 4))
    variables = module.init(jax.random.key(1), x[:1], False)
    ours = networks.from_flax(module).init(jax.random.key(1), x)
    jax.tree.map(
        np.testing.assert_array_equal, ours, (variables["params"], {"batch_stats": variables["batch_stats"]})
    )
    images = jax.random.normal(jax.random.key(0), (5, 8, 8, 1))
    variables = SmallCNN(3, 4, None).init(jax.random.key(1), images[:1])
    ours = networks.small_cnn(3, width=4).init(jax.random.key(1), images)
    jax.tree.map(np.testing.assert_array_equal, ours, (variables["params"], {}))


def test_kernels_at_many_weights_are_compiled_once_for_networks_of_ours_alone(monkeypatch):
    x, compiled = np.eye(3, dtype=np.float32), []
    make = _ntk.make_plan
    monkeypatch.setattr(
        _ntk, "make_plan", lambda *args, **options: compiled.append(1) or make(*args, **options)
    )
    scale = [1.0]

    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, x):
            return scale[0] * nn.Dense(2)(x)

    def kernel(model, seed):
        compiled.clear()
        matrix = empirical_ntk(networks.evaluation(model), model.init(jax.random.key(seed), x), x)
        return matrix, len(compiled)

    ours, foreign = networks.mlp(2, width=8), networks.from_flax(Scaled())
    (first, some), (second, none) = (kernel(ours, seed) for seed in range(2))
    assert some > 0 == none
    assert not np.allclose(first, second)
    # |∂f/∂W|², and 1 for the bias.
    np.testing.assert_allclose(kernel(foreign, 0)[0], np.eye(3) + 1, rtol=1e-6)
    scale[0] = 2.0
    np.testing.assert_allclose(kernel(foreign, 0)[0], 4 * (np.eye(3) + 1), rtol=1e-6)


@pytest.mark.parametrize("center", [False, True])
def test_a_linearized_network_is_the_first_order_polynomial(center, x64):
    model = networks.mlp(3, width=4)
    x = np.random.default_rng(0).uniform(size=(5, 8))
    # Off the kinks, where biases of 0 would put units whose inputs are all off.
    variables = jax.tree.map(lambda a: a.astype(float) + 0.1, model.init(jax.random.key(0), x))
    delta, state = networks.linearize_at(variables)
    linear = networks.linearized(model, center=center)
    base = 0 if center else model.apply(*variables, x, False)[0]
    np.testing.assert_allclose(linear.apply(delta, state, x, True)[0], base + jnp.zeros((5, 3)), atol=1e-12)
    direction = jax.tree.map(lambda p: jax.random.normal(jax.random.key(1), p.shape), delta)
    found = linear.apply(direction, state, x, True)[0] - base
    h = 1e-7  # far from kinks, a central difference is right to h²
    up, down = (
        model.apply(jax.tree.map(lambda p, d, s=s: p + s * d, variables[0], direction), {}, x, False)[0]
        for s in (h, -h)
    )
    np.testing.assert_allclose(found, (up - down) / (2 * h), rtol=1e-5, atol=1e-6)


def test_a_linearized_network_has_one_kernel_everywhere(x64):
    model = networks.mlp(2, width=8, depth=1)
    x = np.random.default_rng(0).uniform(size=(4, 3))
    variables = jax.tree.map(lambda a: a.astype(float), model.init(jax.random.key(0), x))
    delta, state = networks.linearize_at(variables)
    moved = jax.tree.map(lambda d: d + 0.7, delta)
    apply_fn = networks.evaluation(networks.linearized(model))
    wanted = empirical_ntk(networks.evaluation(model), variables, x, reduce="full")
    for point in (delta, moved):
        np.testing.assert_allclose(
            empirical_ntk(apply_fn, (point, state), x, reduce="full"), wanted, rtol=1e-8
        )


def test_wrong_arguments(as_users_run):
    with pytest.raises(ValueError, match="norm must be 'batch' or 'layer' or 'group', got 'instance'"):
        networks.resnet18(10, norm="instance")
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        networks.small_cnn(10, width=0)


@pytest.mark.usefixtures("as_users_run")
def test_the_type_of_a_size_is_named():
    with pytest.raises(TypeError, match=r"n_outputs must be an integer, got 2\.5"):
        networks.cnn(2.5)


def test_convolutions_are_products_in_loops_and_convolutions_in_kernels():
    model, x = networks.small_cnn(2, width=2), jnp.ones((1, 8, 8, 1))
    variables = model.init(jax.random.key(0), x)
    inside = str(jax.make_jaxpr(networks.predict_fn(model, variables))(x))
    outside = str(jax.make_jaxpr(networks.evaluation(model))(variables, x))
    assert inside.count("conv_general_dilated[") == (0 if jax.default_backend() == "cpu" else 2)
    assert outside.count("conv_general_dilated[") == 2


# From elsewhere


def test_an_architecture_trains_as_its_own_gradient_descent_does():
    architecture, x = fc(1, width=8, n_outputs=2), np.random.default_rng(0).random((4, 3)).astype(np.float32)
    model, labels = networks.from_architecture(architecture), np.array([0, 1, 1, 0])
    assert networks.from_architecture(fc(1, width=8, n_outputs=2)) is model
    params, state = model.init(jax.random.key(3), x)
    np.testing.assert_array_equal(params[0][0], architecture.init(jax.random.key(3), x)[0][0])
    assert state == ()

    def loss(params):
        chosen = jax.nn.log_softmax(architecture.apply(params, x))[np.arange(4), labels]
        return -chosen.mean()

    expected = params
    for _ in range(3):
        expected = jax.tree.map(lambda p, g: p - 0.1 * g, expected, jax.grad(loss)(expected))
    options = {"optimizer": optax.sgd(0.1), "key": jax.random.key(5), "start": (params, state)}
    found, _ = train(model, x, labels, epochs=3, batch_size=4, **options).variables
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_parameters_of_any_function_start_where_they_are_told():
    model = networks.from_apply(lambda w, x: x @ w, np.eye(3, dtype=np.float32), name="linear")
    params, state = model.init(jax.random.key(0), np.ones((1, 3), np.float32))
    assert (model.name, state) == ("linear", ())
    np.testing.assert_array_equal(model.apply(params, state, np.float32([[1, 2, 3]]), True)[0], [[1, 2, 3]])


@pytest.mark.parametrize(
    ("params", "place"),
    [
        ({"w": np.ones(2, np.float32), "act": jnp.tanh}, r"at params\['act'\]"),
        ([np.ones(2, np.float32), np.arange(2)], r"leaf of int64 at params\[1\]"),
        ({"key": jax.random.key(0)}, r"at params\['key'\]"),
    ],
    ids=["a function", "integers", "a key"],
)
def test_leaves_that_are_no_arrays_are_named_with_the_line_that_splits_them_off(params, place):
    with pytest.raises(TypeError, match=place) as caught:
        networks.from_apply(lambda p, x: x, params)
    assert "eqx.partition" in str(caught.value)
    assert "nnx.split" in str(caught.value)


@pytest.mark.usefixtures("as_users_run")
def test_what_cannot_be_a_network_is_refused():
    with pytest.raises(TypeError, match="architecture must come from"):
        networks.from_architecture(len)
    with pytest.raises(TypeError, match="apply_fn must be a function"):
        networks.from_apply(3, np.ones(2, np.float32))


WITHOUT_FLAX = """
import importlib, importlib.util, sys
sys.modules["flax"] = sys.modules["optax"] = None  # as where they are not installed
import jax, jax.numpy as jnp, numpy as np
from companion import networks, normalization
from companion.architectures import fc
from companion.attacks import Threat, fgsm

def refused(line, make, *args):
    try:
        make(*args)
    except ImportError as error:
        assert line in str(error), error
    else:
        raise AssertionError(line)

def there(package):
    return importlib.util.find_spec(package) is not None

x, w = np.ones((2, 3), np.float32), jnp.eye(3)
linear = networks.from_apply(lambda w, x: x @ w, w)
for model in (linear, networks.linearized(linear), networks.from_architecture(fc(1, width=4))):
    model = normalization.on_normalized_inputs(model)
    f = networks.predict_fn(model, model.init(jax.random.key(0), x))
    assert fgsm(f, x, np.zeros(2, int), Threat("linf", 0.1)).shape == x.shape
if there("equinox"):
    import equinox as eqx
    model = networks.from_equinox(eqx.nn.Linear(3, 2, key=jax.random.key(0)))
    assert model.apply(*model.init(jax.random.key(0), x), x, False)[0].shape == (2, 2)
else:
    refused("pip install equinox", networks.from_equinox, linear)
if there("torch"):
    import torch
    assert networks.from_torch(torch.nn.Linear(3, 2))(x).shape == (2, 2)
else:
    refused("pip install torch", networks.from_torch, linear)
for make, arguments in {
    networks.mlp: (2,), networks.small_cnn: (2,), networks.cnn: (2,), networks.resnet18: (2,),
    networks.resnet: (2,), networks.from_flax: (linear,), normalization.layer: ("batch", True),
    importlib.import_module: ("companion.training",),
}.items():
    refused("pip install 'ntk-robustness[networks] @ git+https://", make, *arguments)
"""


def test_without_flax_and_optax_all_but_networks_of_flax_and_training_works():
    command = [sys.executable, "-c", WITHOUT_FLAX]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
