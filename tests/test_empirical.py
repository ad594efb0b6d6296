"""The empirical kernel of any network, against the product of dense Jacobians."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from jax import lax
from refusals import assert_refused

from companion._core.compile import free_memory
from companion.architectures import conv, fc
from companion.empirical import empirical_ntk, empirical_ntk_fn
from companion.empirical._blocks import make_plan

rng = np.random.default_rng(0)
X1, X2 = rng.uniform(size=(5, 6, 6, 1)), rng.uniform(size=(3, 6, 6, 1))
FLAT = X1.reshape(5, -1).astype(np.float32)
IMPLEMENTATIONS = ("auto", "jacobian", "vector_products", "structured")


@functools.lru_cache
def compiled_jacobian(apply_fn):
    return jax.jit(jax.jacrev(apply_fn))


def dense_ntk(apply_fn, params, x1, x2):
    """Σ_θ ∂_θ f_a(x) ∂_θ f_b(x'), from Jacobians flattened to (n, k, parameters), float64."""

    def jacobian(x):
        tree = compiled_jacobian(apply_fn)(params, x)
        return np.concatenate(
            [np.reshape(leaf, (*leaf.shape[:2], -1)) for leaf in jax.tree.leaves(tree)], axis=2
        )

    return np.einsum("nap,mbp->nmab", jacobian(x1), jacobian(x2))


def matrix(full):
    """(n, m, k, k) with row i·k + a for output a of input i."""
    return np.block([list(row) for row in full])


def reduced(full, reduce):
    return {
        "full": matrix(full),
        "class": np.einsum("nmaa->nma", full),
        "trace": np.einsum("nmaa->nm", full) / full.shape[-1],
    }[reduce]


class FlaxNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), param_dtype=float)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.avg_pool(nn.Conv(5, (3, 2), strides=2, padding="VALID", param_dtype=float)(x), (1, 1))
        return nn.Dense(3, param_dtype=float)(nn.tanh(nn.Dense(6, param_dtype=float)(x.reshape(len(x), -1))))


class NormNet(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(3, (3, 3), param_dtype=float)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, param_dtype=float)(x))
        return nn.Dense(2, param_dtype=float)(x.reshape(len(x), -1))


def networks():
    rng = np.random.default_rng(1)
    for build in (fc, conv):
        net = build(2, width=6, n_outputs=3)
        yield net.name, net.apply, lambda net=net: net.init(jax.random.key(1), X1)
    flax_net = FlaxNet()
    yield "Flax", flax_net.apply, lambda: jax.jit(flax_net.init)(jax.random.key(1), jnp.asarray(X1))
    weights = rng.normal(size=(36, 3))
    yield "plain", lambda w, x: jnp.sin(x.reshape(len(x), -1) @ w), lambda: jnp.asarray(weights)


@pytest.mark.parametrize(
    ("apply_fn", "make", "implementation"),
    [
        pytest.param(
            *network,
            implementation,
            id=f"{name}-{implementation}",
            # Flax's convolutional network has each implementation too.
            marks=[pytest.mark.matrix] * (name == "Conv-2 relu"),
        )
        for name, *network in networks()
        for implementation in IMPLEMENTATIONS
    ],
)
@pytest.mark.usefixtures("x64")
def test_equals_the_dense_jacobian_product(apply_fn, make, implementation):
    params = make()
    for x2, reduce in ((X2, "full"), (None, "class")):
        oracle = dense_ntk(apply_fn, params, X1, X1 if x2 is None else x2)
        kernel = empirical_ntk(apply_fn, params, X1, x2, reduce=reduce, implementation=implementation)
        np.testing.assert_allclose(kernel, reduced(oracle, reduce), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("x2", [X2, None], ids=["x2", "x1"])
@pytest.mark.usefixtures("x64")
def test_every_reduction_of_a_small_network(implementation, x2):
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(36, 3))

    def net(w, x):
        return jnp.tanh(x.reshape(len(x), -1) @ w)

    oracle = dense_ntk(net, weights, X1, X1 if x2 is None else x2)
    for reduce in ("full", "class", "trace"):
        kernel = empirical_ntk(net, weights, X1, x2, reduce=reduce, implementation=implementation)
        np.testing.assert_allclose(kernel, reduced(oracle, reduce), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "implementation", ["jacobian", "vector_products", pytest.param("structured", marks=pytest.mark.matrix)]
)
@pytest.mark.usefixtures("x64")
def test_ragged_blocks_within_memory_give_the_same_numbers(implementation, monkeypatch):
    rng = np.random.default_rng(1)
    weights, sizes = {"w": rng.normal(size=(36, 2)), "b": rng.normal(size=2)}, set()

    def net(p, x):
        return jnp.tanh(x.reshape(len(x), -1) @ p["w"] + p["b"])

    def recorded(*args, **options):
        plan = make_plan(*args, **options)
        kept = plan.held * plan.each + plan.contract.memory_analysis().temp_size_in_bytes
        assert max(kept, plan.bytes) <= options["memory"]
        sizes.add(plan.sizes[0])
        return plan

    monkeypatch.setattr("companion.empirical._ntk.make_plan", recorded)
    cases = ((X2, "full"), (None, "full"), (None, "class"))
    least = 0
    for x2, reduce in cases:
        with pytest.raises(ValueError, match="memory must be at least") as error:
            empirical_ntk(net, weights, X1, x2, reduce=reduce, implementation=implementation, memory=1)
        least = max(least, int(str(error.value).split()[5]))
    for memory in (least, 2 * least, 8 * least, 40 * least):
        for x2, reduce in cases:
            kernel = empirical_ntk(
                net, weights, X1, x2, reduce=reduce, implementation=implementation, memory=memory
            )
            oracle = dense_ntk(net, weights, X1, X1 if x2 is None else x2)
            np.testing.assert_allclose(kernel, reduced(oracle, reduce), rtol=1e-10, atol=1e-12)
    assert {1, 5} < sizes  # and some between, which do not divide 5


@pytest.mark.parametrize(
    ("shape", "kernel", "options"),
    [
        ((7, 6, 2), (3, 2, 2, 3), dict(window_strides=(2, 1), padding="SAME")),
        ((7, 6, 2), (2, 3, 2, 3), dict(window_strides=(1, 1), padding=((2, 0), (0, 1)), rhs_dilation=(2, 1))),
        ((5, 4, 2), (3, 3, 2, 3), dict(window_strides=(1, 1), padding=((2, 2), (1, 1)), lhs_dilation=(2, 1))),
        ((6, 6, 2), (3, 3, 1, 4), dict(window_strides=(1, 1), padding="SAME", feature_group_count=2)),
        (
            (2, 6, 5),
            (3, 2, 3, 2),
            dict(window_strides=(1, 2), padding="SAME", layout=("NCHW", "OIHW", "NHWC")),
        ),
        ((8, 2), (3, 2, 3), dict(window_strides=(2,), padding="VALID", layout=("NWC", "WIO", "NWC"))),
    ],
    ids=["strides", "dilated", "transposed", "groups", "layouts", "1-d"],
)
@pytest.mark.usefixtures("x64")
def test_every_kind_of_convolution(shape, kernel, options):
    rng = np.random.default_rng(1)
    layout = options.pop("layout", ("NHWC", "HWIO", "NHWC"))
    x, w = rng.normal(size=(3, *shape)), rng.normal(size=kernel)

    def net(w, x):
        y = lax.conv_general_dilated(x, w, dimension_numbers=layout, **options)
        return jnp.sin(y).reshape(len(x), -1)[:, ::5] ** 2

    kernel = empirical_ntk(net, w, x, reduce="full", implementation="jacobian")
    np.testing.assert_allclose(kernel, matrix(dense_ntk(net, w, x, x)), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_custom_derivatives_and_loops_survive():
    rng = np.random.default_rng(1)

    @jax.custom_jvp
    def clipped(x):
        return jnp.minimum(x, 0.1)

    # A straight-through derivative, which no true derivative of min equals.
    clipped.defjvp(lambda primals, tangents: (clipped(primals[0]), 3.0 * tangents[0]))

    def net(w, x):
        x = nn.relu(lax.conv(jnp.moveaxis(x, -1, 1), w["conv"], (1, 1), "SAME"))
        x = jax.jit(clipped)(x).reshape(len(x), -1)
        return lax.fori_loop(0, 2, lambda _, y: jnp.tanh(y @ w["loop"]), x)[:, :2]

    w = {"conv": rng.normal(size=(2, 1, 3, 3)), "loop": rng.normal(size=(72, 72)) / 6}
    for implementation in ("auto", "jacobian"):
        kernel = empirical_ntk(net, w, X1, X2, reduce="full", implementation=implementation)
        np.testing.assert_allclose(kernel, matrix(dense_ntk(net, w, X1, X2)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("train", [pytest.param(False, marks=pytest.mark.matrix), True])
@pytest.mark.usefixtures("x64")
def test_batch_normalization_in_both_modes(train):
    rng = np.random.default_rng(1)
    net = NormNet()
    variables = jax.jit(functools.partial(net.init, train=False))(jax.random.key(0), X1)
    state = jax.tree.map(lambda s: s + rng.uniform(size=s.shape), variables["batch_stats"])

    def apply_fn(p, x):
        out = net.apply({"params": p, "batch_stats": state}, x, train=train, mutable=["batch_stats"])
        return out[0]

    # Statistics are no parameters: of all collections at once only arrays that are named count.
    whole = {"params": variables["params"], "batch_stats": state}
    with pytest.raises(ValueError, match="collections params and batch_stats of a Flax module"):
        empirical_ntk(lambda v, x: net.apply(v, x, train=False), whole, X1)
    params = variables["params"]
    one = dict(reduce="full", batch_statistics=train)
    with pytest.raises(ValueError, match="memory must be at least") as error:
        empirical_ntk(apply_fn, params, X1, **one, memory=1)
    least = int(str(error.value).split()[5])
    for x2 in (X2, None):
        oracle = matrix(dense_ntk(apply_fn, params, X1, X1 if x2 is None else x2))
        for options in ({}, {"memory": 2 * least}, {"implementation": "vector_products"}):
            kernel = empirical_ntk(apply_fn, params, X1, x2, **one, **options)
            np.testing.assert_allclose(kernel, oracle, rtol=1e-10, atol=1e-10)
    if train:
        with pytest.raises(ValueError, match=r"mixes examples.*batch_statistics=True"):
            empirical_ntk(apply_fn, params, X1)


@pytest.mark.parametrize(
    "implementation",
    ["auto", *(pytest.param(other, marks=pytest.mark.matrix) for other in IMPLEMENTATIONS[1:])],
)
def test_float32_is_symmetric_bit_for_bit_and_near_float64(implementation):
    net = conv(2, width=8, n_outputs=2)
    x = X1.astype(np.float32)
    params = net.init(jax.random.key(0), x)
    oracle = empirical_ntk(
        net.apply, jax.tree.map(lambda p: np.asarray(p, np.float64), params), X1, reduce="full"
    )
    full = empirical_ntk(net.apply, params, x, reduce="full", implementation=implementation)
    by_class = empirical_ntk(net.apply, params, x, reduce="class", implementation=implementation)
    per_class = np.stack([oracle[a::2, a::2] for a in range(2)], axis=-1)
    assert full.dtype == np.float32
    np.testing.assert_array_equal(full, full.T)
    np.testing.assert_array_equal(by_class, by_class.swapaxes(0, 1))
    np.testing.assert_allclose(full, oracle, atol=2e-6 * oracle.max())
    np.testing.assert_allclose(by_class, per_class, atol=2e-6 * oracle.max())


def test_a_wide_network_has_the_analytic_kernel():
    # Fluctuations of a relative size of a few / √width: see chapter 1, which measures the slope.
    errors = []
    for width in (64, 4096):
        net = fc(1, width=width)
        kernels = [empirical_ntk(net.apply, net.init(jax.random.key(s), FLAT), FLAT) for s in range(4)]
        exact = np.asarray(net.kernel(FLAT))
        errors.append(np.mean([np.linalg.norm(k - exact) for k in kernels]) / np.linalg.norm(exact))
    assert errors[1] < 0.05
    assert errors[0] / errors[1] > 4  # expected √64 = 8


@pytest.mark.parametrize("implementation", ["jacobian", "structured"])
@pytest.mark.usefixtures("x64")
def test_the_last_layer_alone_gives_the_conjugate_kernel(implementation):
    net = fc(1, width=32, n_outputs=2, w_std=1.3, b_std=0.2)
    params, x = net.init(jax.random.key(0), X1), X1.reshape(5, -1)
    (weights, biases), _, _ = params
    units = np.maximum(1.3 / 6 * x @ np.asarray(weights, float) + 0.2 * np.asarray(biases, float), 0)
    found = empirical_ntk(net.apply, params, X1, only=(-1, -2), implementation=implementation)
    np.testing.assert_allclose(found, 1.3**2 / 32 * units @ units.T + 0.2**2, rtol=1e-6)
    # What is left out is the rest of the kernel.
    first = empirical_ntk(net.apply, params, X1, only=(0, 1), implementation=implementation)
    whole = empirical_ntk(net.apply, params, X1, implementation=implementation)
    np.testing.assert_allclose(found + first, whole, rtol=1e-10)


def test_a_function_that_reads_a_changing_variable_is_not_stale_but_its_compiled_form_is():
    scale = [1.0]

    def net(w, x):
        return scale[0] * (x @ w)

    w = np.ones((36, 1), np.float32)
    kept = empirical_ntk_fn(net)
    first = kept(w, FLAT)
    np.testing.assert_array_equal(empirical_ntk(net, w, FLAT), first)
    scale[0] = 2.0
    np.testing.assert_allclose(empirical_ntk(net, w, FLAT), 4 * first, rtol=1e-6)
    np.testing.assert_array_equal(kept(w, FLAT), first)


def test_the_compiled_form_is_kept_for_a_shape_and_follows_params():
    rng = np.random.default_rng(1)
    traced = []

    def net(w, x):
        traced.append(x.shape)
        return jnp.tanh(x @ w)

    kernel_fn = empirical_ntk_fn(net, reduce="full")
    draws = [rng.normal(size=(36, 2)).astype(np.float32) for _ in range(3)]
    kernels = [kernel_fn(draws[0], FLAT)]
    count = len(traced)
    kernels += [kernel_fn(w, FLAT) for w in draws[1:]]
    assert len(traced) == count
    for w, kernel in zip(draws, kernels, strict=True):
        np.testing.assert_allclose(kernel, empirical_ntk(net, w, FLAT, reduce="full"), rtol=1e-6)
    assert kernel_fn(draws[0], FLAT[:2], FLAT[:3]).shape == (4, 6)
    assert kernel_fn(draws[0].astype(float), FLAT).dtype == np.float64


def test_float64_parameters_are_computed_in_float64_whatever_jax_is_set_to():
    rng = np.random.default_rng(1)
    w, x = rng.normal(size=(36, 1)), X1.reshape(5, -1)
    for implementation in IMPLEMENTATIONS:
        kernel = empirical_ntk(lambda w, x: x @ w, w, x, implementation=implementation)
        assert kernel.dtype == np.float64
        np.testing.assert_allclose(kernel, x @ x.T, rtol=1e-14)


def test_progress_counts_the_blocks(capsys):
    empirical_ntk(lambda w, x: x @ w, np.ones((36, 1), np.float32), FLAT, progress=True)
    assert "empirical NTK blocks: 100%" in capsys.readouterr().err


def test_free_memory_is_what_the_device_or_the_system_says():
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 100, "bytes_in_use": 30}

    assert 2**20 < free_memory(jax.devices("cpu")[0]) <= psutil.virtual_memory().total
    assert free_memory(Device()) == 70


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    net = fc(1, width=3)
    params = net.init(jax.random.key(0), X1)
    assert_refused(
        [
            (
                lambda f, p: empirical_ntk(f, p, X1, reduce="sum"),
                ValueError,
                "reduce must be 'trace' or 'class' or",
            ),
            (
                lambda f, p: empirical_ntk(f, p, X1, implementation="fast"),
                ValueError,
                "implementation must be 'auto'",
            ),
            (
                lambda f, p: empirical_ntk(f, p, X1, batch_statistics=1),
                ValueError,
                "batch_statistics must be False",
            ),
            (
                lambda f, p: empirical_ntk(f, p, X1, progress=None),
                ValueError,
                "progress must be False or True",
            ),
            (lambda f, p: empirical_ntk(f, p, X1, only=()), ValueError, "only must be one or more numbers"),
            (lambda f, p: empirical_ntk(f, p, X1, only=-1), ValueError, "only must be one or more numbers"),
            (lambda f, p: empirical_ntk(f, p, X1, only=(0.5,)), TypeError, "only must be an integer"),
            (
                lambda f, p: empirical_ntk(f, p, X1, only=(4,)),
                ValueError,
                r"only must name leaves of params, of which there are 4, got \(4,\)",
            ),
            (lambda f, p: empirical_ntk(f, p, X1, memory=0), ValueError, "memory must be at least 1"),
            (lambda f, p: empirical_ntk(f, p, X1, memory=1e9), TypeError, "memory must be an integer"),
            (
                lambda f, p: empirical_ntk(f, p, X1, batch_statistics=True, implementation="structured"),
                ValueError,
                "'structured' takes each example alone",
            ),
            (lambda f, p: empirical_ntk(f, p, X1 * np.nan), ValueError, "x1 has 180 NaN"),
            (
                lambda f, p: empirical_ntk(f, p, np.ones((2, 3), int)),
                TypeError,
                "x1 must be float32 or float64",
            ),
            (
                lambda f, p: empirical_ntk(lambda p, x: f(p, x).sum(), p, X1),
                ValueError,
                "must return one array",
            ),
            (
                lambda f, p: empirical_ntk(f, p, X1, X2[:, :3]),
                ValueError,
                "x1 and x2 must hold inputs of one shape",
            ),
            (lambda f, p: empirical_ntk(3, p, X1), TypeError, "apply_fn must be a function"),
            (
                lambda f, p: empirical_ntk(lambda p, x: x[:, 0, 0], (), X1),
                ValueError,
                "params must hold at least one",
            ),
            (
                lambda f, p: empirical_ntk(f, 1, X1),
                TypeError,
                "params must be float32 or float64, got a leaf of int",
            ),
            (
                lambda f, p: empirical_ntk(f, (p, jax.random.key(0)), X1),
                TypeError,
                "params must be float32 or float64, got a leaf of key",
            ),
            (
                lambda f, p: empirical_ntk(lambda p, x: f(p, x - x.mean(axis=0)), p, X1),
                ValueError,
                "apply_fn mixes examples",
            ),
            (
                lambda f, p: empirical_ntk(
                    lambda p, x: jnp.sqrt(p["w"] * 0) * x[:, 0, 0], {"w": np.float32(1)}, X1
                ),
                ValueError,
                "the kernel has .* NaN or infinite",
            ),
        ],
        run=lambda call: call(net.apply, params),
    )
