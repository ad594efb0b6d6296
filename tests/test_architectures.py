"""Networks and kernels of one specification, against recursions written from their definitions."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from refusals import assert_refused

from companion.architectures import conv, fc, myrtle
from companion.architectures._finite import normal


def relu_fc_ntk(x1, x2, depth, w_std, b_std):
    """Θ of a ReLU network, float64, from the covariance recursion: Σ' and Θ' layer by layer."""
    d = x1.shape[1]
    cov = w_std**2 * x1 @ x2.T / d + b_std**2
    q1 = w_std**2 * (x1**2).sum(1) / d + b_std**2
    q2 = w_std**2 * (x2**2).sum(1) / d + b_std**2
    ntk = cov
    for _ in range(depth):
        norm = np.sqrt(np.outer(q1, q2))
        cos = np.clip(cov / norm, -1, 1)
        angle = np.arccos(cos)
        expected = norm * (np.sin(angle) + (np.pi - angle) * cos) / (2 * np.pi)
        slope = (np.pi - angle) / (2 * np.pi)
        cov = w_std**2 * expected + b_std**2
        ntk = cov + w_std**2 * slope * ntk
        q1, q2 = w_std**2 * q1 / 2 + b_std**2, w_std**2 * q2 / 2 + b_std**2
    return cov, ntk


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.usefixtures("x64")
def test_fc_kernel_is_the_arc_cosine_recursion(depth):
    rng = np.random.default_rng(depth)
    x1, x2 = rng.normal(size=(5, 7)), rng.normal(size=(4, 7))
    nngp, ntk = relu_fc_ntk(x1, x2, depth, 1.3, 0.2)
    architecture = fc(depth, w_std=1.3, b_std=0.2)
    np.testing.assert_allclose(architecture.kernel(x1, x2, "ntk"), ntk, rtol=1e-10)
    np.testing.assert_allclose(architecture.kernel(x1, x2, "nngp"), nngp, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_fc_sees_images_as_flat_vectors():
    images = np.random.default_rng(0).uniform(size=(3, 4, 4, 2))
    flat = images.reshape(3, -1)
    net = fc(2, width=8)
    np.testing.assert_array_equal(net.kernel(images), net.kernel(flat))
    params = net.init(jax.random.key(0), images)
    np.testing.assert_array_equal(net.apply(params, images), net.apply(params, flat))


def relu_conv_ntk(x1, x2, depth, w_std, b_std):
    """Θ of (Conv3×3 SAME + ReLU)×depth + Flatten + Dense pixel by pixel (Arora et al. 2019)."""

    def recursion(x1, x2):
        def patch_mean(field):
            # 3×3 sums with zero padding, over the fan-in of nine positions.
            padded = np.pad(field, 1)
            h, w = field.shape
            return sum(padded[i : i + h, j : j + w] for i in range(3) for j in range(3)) / 9

        def conv(field):
            return w_std**2 * patch_mean(field) + b_std**2

        c12, c11, c22 = (conv((a * b).mean(-1)) for a, b in ((x1, x2), (x1, x1), (x2, x2)))
        ntk = c12
        for layer in range(depth):
            norm = np.sqrt(c11 * c22)
            cos = np.clip(c12 / norm, -1, 1)
            angle = np.arccos(cos)
            c12 = norm * (np.sin(angle) + (np.pi - angle) * cos) / (2 * np.pi)
            ntk = ntk * (np.pi - angle) / (2 * np.pi)
            c11, c22 = c11 / 2, c22 / 2
            if layer < depth - 1:
                ntk = conv(c12) + w_std**2 * patch_mean(ntk)
                c12, c11, c22 = conv(c12), conv(c11), conv(c22)
        return w_std**2 * (c12 + ntk).mean() + b_std**2

    return np.array([[recursion(a, b) for b in x2] for a in x1])


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.usefixtures("x64")
def test_conv_kernel_is_the_pixelwise_recursion(depth):
    rng = np.random.default_rng(depth)
    x1, x2 = rng.uniform(size=(2, 5, 6, 3)), rng.uniform(size=(3, 5, 6, 3))
    architecture = conv(depth, w_std=1.4, b_std=0.1)
    expected = relu_conv_ntk(x1, x2, depth, 1.4, 0.1)
    np.testing.assert_allclose(architecture.kernel(x1, x2), expected, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_pooling_averages_over_all_pixels():
    # A pooled network does not see a cyclic shift of an image that is zero near its border.
    image = np.zeros((1, 9, 9, 1))
    image[0, 3:5, 3:5] = np.random.default_rng(0).uniform(size=(2, 2, 1))
    shifted = np.roll(image, 1, axis=2)
    pooled, flat = conv(1, pool=True), conv(1)
    np.testing.assert_allclose(pooled.kernel(image, shifted), pooled.kernel(image, image), rtol=1e-12)
    assert abs(float((flat.kernel(image, shifted) - flat.kernel(image, image))[0, 0])) > 1e-3


@pytest.mark.parametrize("build", [fc, conv])
def test_output_covariance_of_many_networks_is_the_nngp_kernel(build):
    # E f(x) f(x') = 𝒦(x, x') only as the width grows; 1,000 independent outputs bound the Monte Carlo error.
    net = build(1, width=256, n_outputs=1000)
    x = np.random.default_rng(1).uniform(size=(2, 3, 3, 1)).astype(np.float32)
    expected = np.asarray(net.kernel(x, None, "nngp"))
    samples = []
    for seed in range(8):
        outputs = net.apply(net.init(jax.random.key(seed), x), x)
        samples.append(np.asarray(outputs) @ np.asarray(outputs).T / 1000)
    error = np.std(samples, axis=0, ddof=1) / np.sqrt(8)
    assert (np.abs(np.mean(samples, axis=0) - expected) < 5 * error + 1e-3).all()


def test_parameters_do_not_depend_on_the_batch_size():
    net = conv(1, width=3)
    shapes = [jax.tree.map(jnp.shape, net.init(jax.random.key(0), np.ones((n, 4, 4, 1)))) for n in (1, 50)]
    assert shapes[0] == shapes[1]


def test_parameters_depend_on_the_shape_of_the_inputs_alone():
    net, shape = fc(1, width=3), jax.ShapeDtypeStruct((4, 5), np.float32)
    found = [net.init(jax.random.key(0), x) for x in (np.zeros((4, 5), np.float64), np.ones((4, 5)), shape)]
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, found[0])


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    assert_refused(
        [
            (lambda: fc(0), ValueError, "depth must be at least 1, got 0"),
            (lambda: fc(1.5), TypeError, "depth must be an integer"),
            (lambda: fc(width=0), ValueError, "width"),
            (lambda: fc(n_outputs=0), ValueError, "n_outputs"),
            (lambda: fc(w_std=0.0), ValueError, "w_std must be more than 0"),
            (lambda: fc(b_std=-1.0), ValueError, "b_std must be at least 0"),
            (lambda: fc(activation="gelu"), ValueError, "activation must be one of"),
            (lambda: fc(activation=["relu"]), ValueError, "activation must be one of"),
            (lambda: fc(w_std=np.inf), ValueError, "w_std must be finite"),
            (lambda: conv(pool=1), TypeError, "pool must be True or False"),
            (
                lambda: fc().init(jax.random.key(0), (2, 3)),
                TypeError,
                r"x must be a batch of inputs, got \(2, 3\)",
            ),
            (
                lambda: fc().init(jax.random.key(0), np.ones(5)),
                ValueError,
                r"x must be a batch .* got shape \(5,\)",
            ),
            (lambda: fc().init(0, np.ones((2, 3))), TypeError, "key must be a JAX random key"),
            (
                lambda: conv().kernel(np.ones((2, 9))),
                ValueError,
                r"wants x1 as images \(n, h, w, c\), got shape \(2, 9\)",
            ),
            (lambda: fc().kernel(np.ones((2, 3)), np.ones((2, 4))), ValueError, "one shape"),
            (
                lambda: fc().kernel(np.ones((2, 3), np.uint8)),
                TypeError,
                "x1 must be float32 or float64, got uint8",
            ),
            (lambda: fc().kernel(np.ones(3)), ValueError, "x1 must be a batch"),
        ]
    )


def myrtle_gap(dtype):
    """Largest relative error of both kernels of one pair of images, against the recursion in float64."""
    rng = np.random.default_rng(0)
    x1, x2 = rng.uniform(size=(1, 8, 8, 2)), rng.uniform(size=(1, 8, 8, 2))
    layer = [("conv", 3, 1.3, 0.2), ("relu",)]
    groups = [*(2 * layer), ("avg_pool", 2), *layer, ("avg_pool", 2), *layer, ("avg_pool", 2)]
    layers = (*groups, ("global_avg_pool",), ("dense", 1.3, 0.2))
    exact = np.array(oracles.kernels(x1, x2, layers))
    ours = myrtle(5, w_std=1.3, b_std=0.2).kernel(x1.astype(dtype), x2.astype(dtype), ("nngp", "ntk"))
    return np.abs(np.array(ours) / exact - 1).max()


@pytest.mark.slow
def test_the_myrtle_kernel_is_the_recursion_over_pairs_of_pixels():
    assert myrtle_gap(np.float32) < 1e-5


@pytest.mark.matrix
def test_the_myrtle_kernel_in_float64_with_the_cure_of_its_refusal():
    """Without AVX-512, for which XLA's code of it may crash; the flag is read when Python starts."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import jax; jax.config.update('jax_enable_x64', True)\n"
        "from test_architectures import myrtle_gap; print(myrtle_gap('float64'))"
    )
    environment = os.environ | {"XLA_FLAGS": "--xla_cpu_max_isa=AVX2"}
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-8


@pytest.mark.usefixtures("as_users_run")
def test_a_myrtle_network_has_its_shape_and_refuses_other_depths():
    net = myrtle(7, width=4, n_outputs=3)
    x = np.ones((2, 16, 16, 1), np.float32)
    assert net.apply(net.init(jax.random.key(0), x), x).shape == (2, 3)
    with pytest.raises(ValueError, match="depth must be one of"):
        myrtle(6)


# Finite networks are neural-tangents' own, number by number


def stax_network(name):
    from companion.neural_tangents import stax

    scales = {"W_std": 1.3, "b_std": 0.2}
    one = [stax.Conv(4, (3, 3), padding="SAME", **scales), stax.Relu()]
    end, pool = [stax.GlobalAvgPool(), stax.Dense(2, **scales)], stax.AvgPool((2, 2), strides=(2, 2))
    return stax.serial(
        *{
            "fc": [stax.Dense(4, **scales), stax.Erf(), stax.Dense(2, **scales)],
            "conv": [*one, *one, stax.Flatten(), end[1]],
            "pooled": [*one, *end],
            "myrtle": [*one, *one, pool, *one, pool, *one, pool, *end],
        }[name]
    )


SCALES = {"w_std": 1.3, "b_std": 0.2, "width": 4, "n_outputs": 2}
FINITE = {
    "fc": fc(1, activation="erf", **SCALES),
    "conv": conv(2, **SCALES),
    "pooled": conv(1, pool=True, **SCALES),
    "myrtle": myrtle(5, **SCALES),
}


@pytest.mark.parametrize("name", FINITE)
def test_finite_networks_are_those_of_neural_tangents(name):
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)
    x = x.reshape(3, -1) if name == "fc" else x
    (init, apply, _), key = stax_network(name), jax.random.key(1)
    params, (_, expected) = FINITE[name].init(key, x), init(key, (1, *x.shape[1:]))
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    for mine, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_allclose(FINITE[name].apply(params, x), apply(expected, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("alike", [True, False], ids=["alike at every length", "not alike"])
def test_parameters_are_what_jax_draws_of_their_shapes(kind, alike):
    # 1,025 is one more than a power of two.
    key, shape = jax.random.key(1, impl=kind), (5, 205)
    with jax.threefry_partitionable(alike):
        expected = jax.random.normal(key, shape)
        np.testing.assert_array_equal(normal(key, shape), expected)
        np.testing.assert_array_equal(jax.vmap(lambda key: normal(key, shape))(key[None])[0], expected)


WITHOUT = """
import importlib.metadata, importlib.util, sys
real_version, real_spec = importlib.metadata.version, importlib.util.find_spec

def version(name):
    if name == "neural-tangents":
        raise importlib.metadata.PackageNotFoundError(name)
    return real_version(name)

importlib.metadata.version = version
importlib.util.find_spec = lambda name, *rest: None if name == "neural_tangents" else real_spec(name, *rest)
sys.modules["neural_tangents"] = None
import jax, numpy as np, optax
from companion import attacks, networks, regression
from companion.architectures import conv, fc, myrtle
from companion.empirical import empirical_ntk
from companion.kernels import gram
from companion.training import train

x, y = np.random.default_rng(0).random((8, 8, 8, 1), np.float32), np.arange(8) % 2
assert gram(conv(1), x, out=sys.argv[1]).shape == (8, 8)
f = regression.fit(fc(1), x, 2.0 * y[:, None] - 1)
threat = attacks.Threat("linf", 0.1)
assert attacks.pgd(f, x, y, threat, steps=2).shape == x.shape
net = fc(1, width=8)
assert empirical_ntk(net.apply, net.init(jax.random.key(0), x), x).shape == (8, 8)
model, sgd, key = networks.mlp(2, depth=1, width=4), optax.sgd(0.1), jax.random.key(0)
train(model, x, y, epochs=1, batch_size=4, optimizer=sgd, key=key)
for kernel in (conv(1, pool=True), myrtle(5)):
    kernel.init(jax.random.key(0), x)
    try:
        gram(kernel, x)
    except ImportError as error:
        print(error)
"""


def test_only_kernels_of_pairs_of_pixels_need_neural_tangents(tmp_path):
    command = [sys.executable, "-c", WITHOUT, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pip install --no-deps neural-tangents==0.6.5") == 2
