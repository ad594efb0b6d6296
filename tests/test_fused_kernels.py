"""Our kernels of fully connected and convolutional networks: values and input gradients, everywhere.

Against the oracle written from the definitions, against neural-tangents, and by central differences, with the
inputs that break kernels put among ordinary ones: equal, zero, constant, opposite and nearly equal images.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from companion.architectures import _conv, conv, fc
from companion.neural_tangents import stax

SHAPE = (4, 4, 2)
SCALES = [(2**0.5, 0.1), (2**0.5, 0.0), (2**0.5, 1e-3), (1.2, 1.0)]
FAMILIES = {"FC": fc, "Conv": conv}


def awkward_inputs(seed=0):
    """Two sets of images with coincidences between and within them, exactly representable in float32."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(size=(10, *SHAPE)), rng.uniform(size=(9, *SHAPE))
    y[0] = x[0]  # equal
    y[1] = -x[1]  # opposite
    y[2] = 0  # zero
    x[3], y[3] = 0.3, 0.9  # constant, of different brightness
    y[4] = x[4] * (1 + 1e-2 * rng.normal(size=SHAPE))  # nearly equal
    y[5] = x[5]
    y[5, 0, 0] += 1e-4  # nearly equal but for one pixel
    x[6, :2], y[6, :2] = 0.3, 0.5  # half of it constant
    x[7], y[7] = x[7] - 0.5, y[7] - 0.5  # of both signs
    y[8] = 0.3  # equal and constant
    x[9] = 0
    return x.astype(np.float32), y.astype(np.float32)


def layers(family, depth, w_std, b_std, activation):
    """The oracle's name for a network."""
    inner = ("dense", w_std, b_std) if family == "FC" else ("conv", 3, w_std, b_std)
    end = () if family == "FC" else (("flatten",),)
    return ((inner, (activation,)) * depth) + end + (("dense", w_std, b_std),)


def library_kernel(family, depth, w_std, b_std, activation):
    """The same network's kernel as neural-tangents computes it."""
    scales = {"W_std": w_std, "b_std": b_std}
    inner = {
        "FC": lambda: stax.Dense(1, **scales),
        "Conv": lambda: stax.Conv(1, (3, 3), padding="SAME", **scales),
    }[family]
    activate = {"relu": stax.Relu, "erf": stax.Erf}[activation]
    start, end = ((stax.Flatten(),), ()) if family == "FC" else ((), (stax.Flatten(),))
    body = [layer for _ in range(depth) for layer in (inner(), activate())]
    return stax.serial(*start, *body, *end, stax.Dense(1, **scales))[2]


def oracle(family, x, y, *spec):
    if family == "FC":
        x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    return oracles.kernels(x, y, layers(family, *spec))


def assert_close(found, wanted, tolerance):
    """Within a tolerance relative to the largest entry, as rounding is."""
    assert np.abs(np.asarray(found, np.float64) - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("family", "depth", "w_std", "b_std"),
    [
        # One layer is deep enough for one scale, and a tiny bias is added by the same line in both families.
        pytest.param(
            family,
            depth,
            *scales,
            marks=[pytest.mark.matrix]
            * ((depth == 1 and scales != SCALES[1]) or (family == "Conv" and scales == SCALES[2])),
        )
        for family in FAMILIES
        for depth in (1, 4)
        for scales in SCALES
    ],
)
@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.usefixtures("x64")
def test_values_equal_the_oracle(family, activation, w_std, b_std, depth):
    x, y = awkward_inputs()
    wanted = oracle(family, x, y, depth, w_std, b_std, activation)
    kernel = jax.jit(
        lambda x, y: FAMILIES[family](depth, w_std=w_std, b_std=b_std, activation=activation).kernel(
            x, y, ("nngp", "ntk")
        )
    )
    for found, right in zip(kernel(x, y), wanted, strict=True):
        assert found.dtype == np.float32
        assert_close(found, right, 5e-6)
    for found, right in zip(kernel(x.astype(float), y.astype(float)), wanted, strict=True):
        # The oracle takes the arccosine of a rounded number near 1, and that costs it half its digits.
        assert_close(found, right, 5e-8)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("x64")
def test_in_general_position_float64_is_exact(family, depth):
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-1, 1, size=(5, *SHAPE)), rng.uniform(-1, 1, size=(4, *SHAPE))
    for activation in ("relu", "erf"):
        architecture = FAMILIES[family](depth, activation=activation)
        wanted = oracle(family, x, y, depth, 2**0.5, 0.1, activation)
        kernel = jax.jit(lambda x, y, a=architecture: a.kernel(x, y, ("nngp", "ntk")))
        for found, right in zip(kernel(x, y), wanted, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_agrees_with_neural_tangents_in_general_position(family, activation):
    rng = np.random.default_rng(2)
    x, y = (rng.uniform(size=(n, *SHAPE)).astype(np.float32) for n in (5, 4))
    kernel_fn = library_kernel(family, 3, 2**0.5, 0.1, activation)
    architecture = FAMILIES[family](3, activation=activation)
    for kind in ("ntk", "nngp"):
        np.testing.assert_allclose(architecture.kernel(x, y, kind), kernel_fn(x, y, kind), rtol=1e-5)


def input_gradients(kernel, x, y):
    """∂k(x_i, y_j)/∂x_i, (n1, n2, *image), each input alone with all of y."""
    one = jax.jacrev(lambda image: kernel(image[None], y)[0])
    return np.asarray(jax.jit(jax.vmap(one))(x))


CASES = [("relu", 0.1), ("relu", 0.0), ("erf", 0.1)]


@pytest.mark.parametrize(
    ("family", "activation", "b_std"),
    [
        pytest.param(family, *case, marks=[pytest.mark.matrix] * (family == "Conv" and case != CASES[1]))
        for family in FAMILIES
        for case in CASES
    ],
)
@pytest.mark.usefixtures("x64")
def test_input_gradients_equal_central_differences(family, activation, b_std):
    x, y = awkward_inputs()
    architecture = FAMILIES[family](2, b_std=b_std, activation=activation)
    single = input_gradients(architecture.kernel, x, y)
    assert np.isfinite(single).all()
    x, single = x[:9], single[:9]  # at x = 0 without a bias there is no gradient to compare with
    double = input_gradients(architecture.kernel, x.astype(float), y.astype(float))
    kernel, step = jax.jit(architecture.kernel), 1e-5
    wanted = np.empty((9, 9, *SHAPE))
    for pixel in np.ndindex(SHAPE):
        move = np.zeros(SHAPE)
        move[pixel] = step
        # At a kink, where two inputs agree, the mean of both sides: the convention of the kernels too.
        wanted[(..., *pixel)] = (kernel(x + move, y.astype(float)) - kernel(x - move, y.astype(float))) / (
            2 * step
        )
    smooth = np.ones((9, 9), bool)
    smooth[5, 5] = False  # one pixel moves across its neighbor's kink within the step
    assert_close(double[smooth], wanted[smooth], 1e-6)
    assert_close(single[smooth], wanted[smooth], 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("x64")
def test_a_nearly_equal_pair_has_its_gradient_in_float64(family):
    x, y = awkward_inputs()
    near, other = x[5:6].astype(float), y[5:6].astype(float)
    architecture = FAMILIES[family](2)
    found = input_gradients(architecture.kernel, near, other)[0, 0]
    library = library_kernel(family, 2, 2**0.5, 0.1, "relu")
    assert_close(found, input_gradients(lambda a, b: library(a, b, "ntk"), near, other)[0, 0], 1e-6)


@pytest.mark.parametrize(
    ("family", "b_std"),
    [("FC", 0.0), ("FC", 0.1), *(pytest.param("Conv", b, marks=pytest.mark.matrix) for b in (0.0, 0.1))],
)
def test_gradients_at_a_zero_image_are_finite(family, b_std):
    x, y = awkward_inputs()
    architecture = FAMILIES[family](2, b_std=b_std)
    gradients = input_gradients(architecture.kernel, x[9:], y)
    assert np.isfinite(gradients).all()
    if b_std:
        assert np.abs(gradients[0, 3]).max() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_through_a_predictor_are_finite_where_inputs_coincide(family):
    x, y = awkward_inputs()
    alpha = np.random.default_rng(3).normal(size=len(y)).astype(np.float32)
    architecture = FAMILIES[family](2)
    gradient = jax.jit(jax.grad(lambda z: (architecture.kernel(z, y) @ alpha).sum()))
    for inputs in (x[:9], y):
        assert np.isfinite(gradient(inputs)).all()


pixels = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0, -1.0]),
    st.floats(-1, 1, width=32, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-3),
)
images = arrays(np.float32, (3, 3, 3, 1), elements=pixels)


@functools.cache
def value_and_pull(family, b_std):
    """The kernel of two hidden layers and the gradient of its sum, compiled once."""
    architecture = FAMILIES[family](2, b_std=b_std)
    kernel = jax.jit(architecture.kernel)
    return kernel, jax.jit(jax.grad(lambda x, y: architecture.kernel(x, y).sum()))


@pytest.mark.parametrize("b_std", [0.0, 0.1])
@pytest.mark.parametrize("family", FAMILIES)
@given(x=images, y=images)
@settings(max_examples=40)
def test_any_images_give_the_oracles_kernel_and_finite_gradients(family, b_std, x, y):
    y[0] = x[0]
    kernel, gradient = value_and_pull(family, b_std)
    both = np.concatenate([x, y])
    wanted = oracle(family, both, both, 2, 2**0.5, b_std, "relu")[1]
    # Cauchy and Schwarz: the scale bounds the entry, and rounding is relative to it.
    scale = np.sqrt(np.outer(np.diag(wanted)[:3], np.diag(wanted)[3:]))
    assert (np.abs(kernel(x, y) - wanted[:3, 3:]) <= 1e-5 * scale + 1e-12).all()
    assert np.isfinite(gradient(x, y)).all()


def test_one_set_stands_for_both():
    x = awkward_inputs()[0]
    for build in FAMILIES.values():
        kernel = jax.jit(build(1).kernel)
        np.testing.assert_allclose(kernel(x), kernel(x, x), rtol=1e-5)


def test_near_pairs_cost_no_precision_however_many():
    # A row of points so close that float32's cosine cannot tell them apart.
    x = np.stack([np.cos(a := np.linspace(0, 0.02, 40)), np.sin(a)], axis=1).astype(np.float32)
    assert_close(fc(2).kernel(x), oracles.kernels(x, x, layers("FC", 2, 2**0.5, 0.1, "relu"))[1], 2e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 2), (2, 2, 1), (2, 3, 1), (3, 1, 1)])
@pytest.mark.usefixtures("x64")
def test_images_of_any_size(shape):
    rng = np.random.default_rng(4)
    x, y = rng.uniform(size=(3, *shape)), rng.uniform(size=(2, *shape))
    for activation in ("relu", "erf"):
        wanted = oracle("Conv", x, y, 2, 2**0.5, 0.1, activation)[1]
        np.testing.assert_allclose(conv(2, activation=activation).kernel(x, y), wanted, rtol=1e-12)


@pytest.mark.parametrize(("depth", "apart"), [(2, "cond["), (4, "scan[")])
def test_convolutional_layers_are_compiled_apart(depth, apart):
    kernel = functools.partial(_conv.erf_kernel, depth=depth, w_std=1.0, b_std=0.1)
    assert apart in str(jax.make_jaxpr(kernel)(*[jnp.ones((1, 4, 4, 1))] * 2))
