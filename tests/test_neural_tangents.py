"""neural-tangents under our repairs: held against closed forms, Monte Carlo, dense Jacobians, differences.

`make compat` runs this file on every supported version of jax.
"""

import functools
import importlib.metadata
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree

from companion.neural_tangents import _load, nt, stax

ROOT = Path(__file__).parents[1]
IMPLEMENTATIONS = ["JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS", "STRUCTURED_DERIVATIVES", "AUTO"]
W, B = 1.4, 0.3

# Fully connected networks take (n, 5), the others (n, 4, 4, 2).
NETWORKS = {
    "linear": (("dense", W, B),),
    "fc_relu_1": (("dense", W, B), ("relu",), ("dense", W, B)),
    "fc_relu_4": (("dense", W, B), ("relu",)) * 4 + (("dense", W, B),),
    "fc_erf_2": (("dense", W, B), ("erf",)) * 2 + (("dense", W, B),),
    "fc_layer_norm": (("dense", W, B), ("layer_norm",), ("relu",), ("dense", W, B)),
    "fc_residual": (
        ("dense", W, B),
        ("residual", (("relu",), ("dense", W, B))),
        ("relu",),
        ("dense", W, B),
    ),
    "conv_flatten": (("conv", 3, W, B), ("relu",)) * 2 + (("flatten",), ("dense", W, B)),
    "conv_pool": (("conv", 3, W, B), ("relu",), ("avg_pool", 2), ("flatten",), ("dense", W, B)),
    "conv_global": (("conv", 3, W, B), ("erf",), ("conv", 3, W, B), ("global_avg_pool",), ("dense", W, B)),
    "conv_residual": (
        ("conv", 3, W, B),
        ("residual", (("relu",), ("conv", 3, W, B))),
        ("layer_norm",),
        ("relu",),
        ("avg_pool", 2),
        ("global_avg_pool",),
        ("dense", W, B),
    ),
}

# FanInSum warns always: the library does not check that the branches are independent. Ours are.
pytestmark = pytest.mark.filterwarnings("ignore:`FanIn` layers assume independent inputs:UserWarning")


def without_bias(layers):
    """The same network with every b_std = 0."""
    return tuple(
        (layer[0], without_bias(layer[1]))
        if layer[0] == "residual"
        else (*layer[:-1], 0.0)
        if layer[0] in ("dense", "conv")
        else layer
        for layer in layers
    )


def build(layers, width=64, outputs=1):
    """(init_fn, apply_fn, kernel_fn) of neural-tangents for an oracle's network."""

    def one(position, name, *numbers):
        units = outputs if position == len(layers) - 1 else width
        if name == "dense":
            return stax.Dense(units, W_std=numbers[0], b_std=numbers[1])
        if name == "conv":
            size, w_std, b_std = numbers
            return stax.Conv(width, (size, size), padding="SAME", W_std=w_std, b_std=b_std)
        if name == "avg_pool":
            return stax.AvgPool(numbers * 2, strides=numbers * 2)
        if name == "residual":
            branch = build(numbers[0], width, width)
            return stax.serial(stax.FanOut(2), stax.parallel(branch, stax.Identity()), stax.FanInSum())
        return {
            "relu": stax.Relu,
            "erf": stax.Erf,
            "layer_norm": stax.LayerNorm,
            "flatten": stax.Flatten,
            "global_avg_pool": stax.GlobalAvgPool,
        }[name]()

    return stax.serial(*(one(i, *layer) for i, layer in enumerate(layers)))


def inputs(name, n, seed=0):
    shape = (n, 5) if name.startswith(("fc", "linear")) else (n, 4, 4, 2)
    return np.random.default_rng(seed).normal(size=shape)


# The import


def run_python(code, *flags):
    return subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
    )


def check_python(code, *flags):
    done = run_python(code, *flags)
    assert done.returncode == 0, done.stderr
    return done


SNAPSHOT = """
    import sys
    import jax, jax.core, jax.extend.core, jax.numpy, scipy.linalg
    from jax.interpreters import ad
    watched = (jax.core, jax.extend.core, jax.numpy, jax.tree_util, ad, scipy.linalg)
    def snapshot():
        return [dict(vars(m)) for m in watched] + [sys.modules.get("jax.util"), jax.config.values]
    def same(a, b):
        return a[-2] is b[-2] and a[-1] == b[-1] and all(
            x.keys() == y.keys() and all(x[k] is y[k] for k in x) for x, y in zip(a[:-2], b[:-2]))
"""


def test_import_leaves_jax_as_it_was():
    check_python(
        SNAPSHOT
        + """
    before = snapshot()
    from companion.neural_tangents import nt
    assert same(before, snapshot())
    # The check itself can tell a difference.
    jax.core.Jaxpr_lent = 1
    assert not same(before, snapshot())
    """
    )


def test_import_leaves_a_real_jax_util_in_place():
    check_python("""
    import sys, types
    sys.modules["jax.util"] = real = types.ModuleType("jax.util")
    from companion.neural_tangents import nt
    assert sys.modules["jax.util"] is real
    """)


def test_import_is_quiet_and_without_tensorflow():
    done = check_python(
        """
    import sys
    import companion.neural_tangents as module
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert not loaded & {"tensorflow", "tf2jax", "tensorflow_datasets"}, loaded
    assert [n for n in vars(module) if not n.startswith("_")] == ["nt", "stax"]
    assert module.stax is module.nt.stax
    """,
        "-W",
        "error",
    )
    assert done.stdout == ""
    assert done.stderr == ""


@pytest.mark.parametrize("found", [None, "0.6.4"])
def test_missing_or_other_version_names_the_command(monkeypatch, found):
    def version(_):
        if found is None:
            raise importlib.metadata.PackageNotFoundError
        return found

    monkeypatch.setattr(_load.importlib.metadata, "version", version)
    with pytest.raises(ImportError) as caught:
        _load.load()
    assert "pip install --no-deps neural-tangents==0.6.5" in str(caught.value).splitlines()
    assert (found or "not installed") in str(caught.value)


def test_already_imported_by_someone_else_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "neural_tangents", types.ModuleType("neural_tangents"))
    with pytest.raises(ImportError, match=r"Restart Python and import companion\.neural_tangents first"):
        _load.load()


def test_second_load_returns_the_same_module():
    assert _load.load() is nt


def test_works_after_an_unrepaired_import_failed():
    check_python("""
    try:
        import neural_tangents
    except Exception:
        pass
    else:
        raise SystemExit("the library imports unaided now: our repairs need a look")
    from companion.neural_tangents import nt
    assert nt.__version__ == "0.6.5"
    """)


def test_failed_import_puts_everything_back():
    check_python(
        SNAPSHOT
        + """
    sys.modules["frozendict"] = None
    before = snapshot()
    try:
        import companion.neural_tangents
    except ImportError as error:
        assert "pip install frozendict" in str(error).splitlines(), error
    else:
        raise SystemExit("no error")
    assert same(before, snapshot())
    assert not [name for name in sys.modules if name.startswith("neural_tangents")]
    del sys.modules["frozendict"]
    from companion.neural_tangents import nt
    assert nt.__version__ == "0.6.5"
    """
    )


def test_a_library_that_does_not_fit_jax_is_named(monkeypatch):
    for name in [m for m in sys.modules if m.partition(".")[0] == "neural_tangents"]:
        monkeypatch.delitem(sys.modules, name)

    def fail(name):
        raise ImportError(f"cannot import name 'Var' from {name}")

    monkeypatch.setattr(_load.importlib, "import_module", fail)
    with pytest.raises(ImportError, match=rf"does not work on jax {jax.__version__}.*'Var'.*0\.7\.2 to"):
        _load.load()


def test_experimental_says_why_it_is_empty():
    assert nt.experimental is sys.modules["neural_tangents.experimental"]
    with pytest.raises(AttributeError, match="without its TensorFlow part"):
        _ = nt.experimental.empirical_ntk_fn_tf


# Analytic kernels


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NETWORKS)
def test_analytic_kernels_equal_the_closed_forms(name):
    x1, x2 = inputs(name, 3), inputs(name, 4, seed=1)
    kernel_fn = jax.jit(build(NETWORKS[name])[2], static_argnames="get")
    for a, b in ((x1, x2), (x1, x1)):
        got = kernel_fn(a, None if b is a else b, get=("nngp", "ntk"))
        nngp, ntk = oracles.kernels(a, b, NETWORKS[name])
        assert got.ntk.dtype == jnp.float64
        # On the diagonal the angle is 0 up to rounding, arccos(1 - 1e-16) = 1e-8, and the NTK linear in it.
        rtol = 1e-12 if b is not a else 5e-7
        np.testing.assert_allclose(got.nngp, nngp, rtol=rtol, atol=1e-13)
        np.testing.assert_allclose(got.ntk, ntk, rtol=rtol, atol=1e-13)


@pytest.mark.parametrize("name", ["fc_relu_4", "fc_erf_2", "conv_flatten"])
def test_analytic_kernels_in_float32(name):
    x1, x2 = inputs(name, 3), inputs(name, 4, seed=1)
    kernel_fn = jax.jit(lambda a, b: build(NETWORKS[name])[2](a, b, ("nngp", "ntk")))
    got = kernel_fn(x1.astype(np.float32), x2.astype(np.float32))
    nngp, ntk = oracles.kernels(x1, x2, NETWORKS[name])
    assert got.ntk.dtype == jnp.float32
    # Measured: at most 5e-7 of the largest entry at angles like these.
    for mine, exact in ((got.nngp, nngp), (got.ntk, ntk)):
        np.testing.assert_allclose(mine, exact, rtol=0, atol=4e-6 * np.abs(exact).max())


def monte_carlo_z(draws, exact):
    """Distance of the draws' mean from `exact`, in standard errors; and the 1e-4 quantile of its maximum."""
    n = len(draws)
    error = draws.std(axis=0, ddof=1) / np.sqrt(n)
    z = np.abs(draws.mean(axis=0) - exact) / error
    # Bonferroni over the entries; Student's t with n - 1 degrees of freedom.
    return z.max(), scipy.stats.t.ppf(1 - 1e-4 / (2 * z.size), n - 1)


MATRIX = {"conv_flatten", "conv_global", "conv_residual", "fc_erf_2", "fc_layer_norm", "fc_relu_1"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.matrix] * (n in MATRIX)) for n in NETWORKS if n != "linear"],
)
def test_analytic_kernels_lie_within_monte_carlo_error(name, optimized):
    # Optimized: thousands of wide convolutions take forty times as long without.
    # Finite width shifts the mean by O(1/width), the standard error is O(1/sqrt(width draws)): with
    # width = 8 draws, the shift stays under the error and no tolerance has to be added for it.
    draws, width, outputs = (48, 384, 64) if name.startswith("fc") else (24, 192, 128)
    x = jnp.asarray(inputs(name, 3), jnp.float32)
    init_fn, apply_fn, kernel_fn = build(NETWORKS[name], width, outputs)
    empirical_fn = nt.empirical_kernel_fn(apply_fn, vmap_axes=0, implementation=3)

    def draw(key):
        kernels = empirical_fn(x, None, ("nngp", "ntk"), init_fn(key, x.shape)[1])
        return jnp.stack([kernels.nngp, kernels.ntk])

    keys = jax.random.split(jax.random.key(0), draws)
    samples = np.asarray(jax.jit(lambda keys: jax.lax.map(draw, keys))(keys), np.float64)
    exact = jax.jit(lambda x: kernel_fn(x, None, ("nngp", "ntk")))(x)
    upper = np.triu_indices(len(x))
    for sampled, analytic in ((samples[:, 0], exact.nngp), (samples[:, 1], exact.ntk)):
        z, bound = monte_carlo_z(sampled[:, *upper], np.asarray(analytic)[upper])
        assert z < bound
        # The test has power: a kernel that is 25 % off is refused.
        z, bound = monte_carlo_z(sampled[:, *upper], 1.25 * np.asarray(analytic)[upper])
        assert z > bound


def test_monte_carlo_kernel_fn_converges_to_the_analytic_kernel():
    x = jnp.asarray(inputs("fc", 3), jnp.float32)
    init_fn, apply_fn, kernel_fn = build(NETWORKS["fc_relu_1"], width=256)
    sampled_fn = nt.monte_carlo_kernel_fn(
        init_fn, apply_fn, jax.random.key(1), tuple(range(1, 33)), vmap_axes=0, implementation=1
    )
    # It yields running means; one draw is the difference of the sums.
    means = np.stack([np.asarray(k, np.float64) for k in sampled_fn(x, None, "ntk")])
    sums = means * np.arange(1, 33)[:, None, None]
    draws = np.diff(sums, axis=0, prepend=0 * sums[:1])
    upper = np.triu_indices(3)
    z, bound = monte_carlo_z(draws[:, *upper], np.asarray(kernel_fn(x, None, "ntk"))[upper])
    assert z < bound


@pytest.mark.parametrize(("name", "device_count"), [("fc_relu_1", -1), ("fc_relu_1", 0), ("conv_pool", -1)])
def test_batch_equals_the_whole(name, device_count):
    x1, x2 = (jnp.asarray(inputs(name, n, seed=n), jnp.float32) for n in (2, 4))
    kernel_fn = jax.jit(build(NETWORKS[name])[2], static_argnames="get")
    batched_fn = nt.batch(kernel_fn, batch_size=2, device_count=device_count)
    np.testing.assert_allclose(batched_fn(x1, x2, "ntk"), kernel_fn(x1, x2, "ntk"), rtol=2e-6)
    # On the diagonal another order of sums moves the angle by up to 1e-4.
    got, whole = batched_fn(x2, None, ("nngp", "ntk")), kernel_fn(x2, None, ("nngp", "ntk"))
    np.testing.assert_allclose(got.nngp, whole.nngp, rtol=2e-6)
    np.testing.assert_allclose(got.ntk, whole.ntk, rtol=1e-3)


# Training


@pytest.fixture
def fit(x64):
    """Kernels of 6 training and 3 test points, and two outputs."""
    x, xt = inputs("fc", 6), inputs("fc", 3, seed=1)
    kernel_fn = build(NETWORKS["fc_relu_1"])[2]
    both_fn = jax.jit(lambda a, b: kernel_fn(a, b, ("nngp", "ntk")))
    k = {"train": both_fn(x, None), "cross": both_fn(xt, x), "test": both_fn(xt, None)}
    y = np.random.default_rng(2).normal(size=(6, 2))
    return types.SimpleNamespace(x=x, xt=xt, y=y, k=k, kernel_fn=kernel_fn)


@pytest.mark.parametrize("time", [0.0, 1.0, 30.0, 1e8, None])
def test_gradient_descent_mse(fit, time):
    k_train, k_cross = fit.k["train"].ntk, fit.k["cross"].ntk
    predict_fn = nt.predict.gradient_descent_mse(k_train, fit.y, learning_rate=0.7)
    train, test = predict_fn(time, 0.0, 0.0, k_cross)
    # The library's loss is the mean over all entries of y: the kernel's factor is rate * t / y.size.
    factor = np.inf if time is None else 0.7 * time / fit.y.size
    exact_train, exact_test = oracles.gradient_flow(k_train, k_cross, fit.y, factor)
    np.testing.assert_allclose(train, exact_train, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(test, exact_test, rtol=1e-9, atol=1e-12)
    assert np.abs(test).max() > (0.01 if time != 0 else -1)


def test_gradient_descent_mse_from_another_start(fit):
    rng = np.random.default_rng(3)
    start, start_test = rng.normal(size=(6, 2)), rng.normal(size=(3, 2))
    k_train, k_cross = fit.k["train"].ntk, fit.k["cross"].ntk
    train, test = nt.predict.gradient_descent_mse(k_train, fit.y)(5.0, start, start_test, k_cross)
    moved, moved_test = oracles.gradient_flow(k_train, k_cross, fit.y - start, 5.0 / fit.y.size)
    np.testing.assert_allclose(train, start + moved, rtol=1e-9)
    np.testing.assert_allclose(test, start_test + moved_test, rtol=1e-9)


@pytest.mark.parametrize("time", [3.0, None])
def test_gradient_descent_mse_with_a_traced_kernel(fit, time):
    y, k_cross = jnp.asarray(fit.y), fit.k["cross"].ntk

    def test_outputs(k_train):
        return nt.predict.gradient_descent_mse(k_train, y)(time, None, 0.0, k_cross)

    outside = test_outputs(fit.k["train"].ntk)
    np.testing.assert_allclose(jax.jit(test_outputs)(fit.k["train"].ntk), outside, rtol=1e-9)
    direction = np.diag(np.arange(1.0, 7))
    slope = jax.jvp(test_outputs, (fit.k["train"].ntk,), (jnp.asarray(direction),))[1]
    up, down = (test_outputs(fit.k["train"].ntk + h * direction) for h in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("time", [3.0, None])
def test_gradient_descent_mse_first_called_inside_jit(fit, time):
    k_cross = fit.k["cross"].ntk
    predict_fn = nt.predict.gradient_descent_mse(fit.k["train"].ntk, fit.y)
    inside = jax.jit(lambda k: predict_fn(time, None, 0.0, k))(k_cross)
    outside = predict_fn(time, None, 0.0, k_cross)
    np.testing.assert_allclose(inside, outside, rtol=1e-12)
    factor = np.inf if time is None else time / fit.y.size
    exact = oracles.gradient_flow(fit.k["train"].ntk, k_cross, fit.y, factor)[1]
    np.testing.assert_allclose(outside, exact, rtol=1e-9)


@pytest.mark.parametrize("time", [2.0, pytest.param(None, marks=pytest.mark.matrix)])
def test_gradient_descent_mse_ensemble(fit, time):
    predict_fn = nt.predict.gradient_descent_mse_ensemble(fit.kernel_fn, fit.x, fit.y)
    got = predict_fn(t=time, x_test=fit.xt, get="ntk", compute_cov=True)
    factor = np.inf if time is None else time / fit.y.size
    ntk, nngp = ({part: np.asarray(getattr(k, g)) for part, k in fit.k.items()} for g in ("ntk", "nngp"))
    mean = oracles.gradient_flow(ntk["train"], ntk["cross"], fit.y, factor)[1]
    np.testing.assert_allclose(got.mean, mean, rtol=1e-8, atol=1e-10)
    covariance = oracles.ensemble_covariance(ntk, nngp, factor)
    np.testing.assert_allclose(got.covariance, covariance, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_max_learning_rate(fit, momentum):
    k_train = fit.k["train"].ntk
    largest = np.linalg.eigvalsh(k_train)[-1]
    got = nt.predict.max_learning_rate(k_train, y_train_size=fit.y.size, momentum=momentum)
    np.testing.assert_allclose(got, 2 * (1 + momentum) * fit.y.size / largest, rtol=1e-10)


def test_positional_embeddings_first_called_inside_jit():
    _, _, kernel_fn = stax.serial(
        stax.GlobalSelfAttention(
            8, 4, 4, 2, linear_scaling=False, attention_mechanism="IDENTITY", pos_emb_type="SUM"
        ),
        stax.Flatten(),
        stax.Dense(1),
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)
    inside = jax.jit(lambda x: kernel_fn(x, None, "ntk"))(x)
    np.testing.assert_allclose(inside, kernel_fn(x, None, "ntk"), rtol=1e-5)


# The empirical kernel


@pytest.fixture(scope="module")
def finite():
    """Networks with three outputs in float64, and their dense Jacobians (points, outputs, parameters)."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    found = {}
    for name in ("fc_relu_1", "conv_pool"):
        x1, x2 = inputs(name, 2), inputs(name, 3, seed=1)
        init_fn, apply_fn, _ = build(NETWORKS[name], width=6, outputs=3)
        params = init_fn(jax.random.key(0), x1.shape)[1]
        flat, unravel = ravel_pytree(params)

        def jacobian(x, apply_fn=apply_fn, flat=flat, unravel=unravel):
            return np.asarray(jax.jit(jax.jacrev(lambda flat: apply_fn(unravel(flat), x)))(flat))

        found[name] = types.SimpleNamespace(
            x1=x1, x2=x2, apply_fn=apply_fn, params=params, j1=jacobian(x1), j2=jacobian(x2)
        )
        assert found[name].j1.dtype == np.float64
    jax.config.update("jax_enable_x64", before)
    return found


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "implementation"),
    [
        pytest.param(name, one, marks=[pytest.mark.matrix] * (name == "conv_pool" and one != "AUTO"))
        for name in ("fc_relu_1", "conv_pool")
        for one in IMPLEMENTATIONS
    ],
)
def test_empirical_ntk_is_the_jacobian_product(finite, name, implementation):
    net = finite[name]
    kind = nt.NtkImplementation[implementation]
    full_fn = jax.jit(nt.empirical_ntk_fn(net.apply_fn, trace_axes=(), implementation=kind))
    exact = np.einsum("iap,jbp->ijab", net.j1, net.j2)
    np.testing.assert_allclose(full_fn(net.x1, net.x2, net.params), exact, rtol=1e-10, atol=1e-12)
    # Outputs traced, of which the library takes the mean; one input at a time; the same points twice.
    traced_fn = jax.jit(nt.empirical_ntk_fn(net.apply_fn, vmap_axes=0, implementation=kind))
    exact = np.einsum("iap,jap->ij", net.j1, net.j1) / 3
    np.testing.assert_allclose(traced_fn(net.x1, None, net.params), exact, rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[:3])
def test_empirical_ntk_per_output(finite, implementation):
    net = finite["fc_relu_1"]
    kernel_fn = nt.empirical_ntk_fn(
        net.apply_fn,
        trace_axes=(),
        diagonal_axes=(-1,),
        vmap_axes=0,
        implementation=nt.NtkImplementation[implementation],
    )
    exact = np.einsum("iap,jap->ija", net.j1, net.j2)
    np.testing.assert_allclose(jax.jit(kernel_fn)(net.x1, net.x2, net.params), exact, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_linearize_is_the_first_order_expansion(finite):
    net = finite["conv_pool"]
    flat, unravel = ravel_pytree(net.params)
    move = np.random.default_rng(0).normal(size=flat.shape)
    got = nt.linearize(net.apply_fn, net.params)(unravel(flat + move), net.x1)
    np.testing.assert_allclose(got, net.apply_fn(net.params, net.x1) + net.j1 @ move, rtol=1e-10)


# Gradients with respect to inputs
#
# A ReLU network's NTK is not differentiable everywhere in x1. It depends on the angle between x1 and x2 (for
# images: between patches) like pi - angle, and the angle has a cone's tip where it is 0 or pi. So, without
# biases:
#   at x1 = x2 and x1 = -x2 the derivative exists along x1 (the angle stays), and across x1 only one-sided
#       slopes do, equal on both sides; the library returns the derivative along and zero across;
#   at x1 = 0 the kernel is homogeneous of degree 1, another tip: only finiteness is asked.
# With a bias the angle at x1 = 0 and x1 = -x2 is neither 0 nor pi, and the derivative exists there.
# Erf has no tip anywhere.

SMOOTH = [
    (name, point)
    for name in ("fc_relu_4", "fc_erf_2", "fc_residual", "conv_flatten", "conv_pool")
    for point in ("generic", "zero", "opposite")
] + [("fc_erf_2", "same")]
TIPS = [
    (n, p) for n in ("fc_relu_1", "fc_relu_4", "conv_flatten", "fc_residual") for p in ("same", "opposite")
]


@functools.cache
def ntk_and_gradient(name, *, bias):
    """The function x1, x2 -> (NTK(x1, x2), its gradient with respect to x1), compiled once."""
    kernel_fn = build(NETWORKS[name] if bias else without_bias(NETWORKS[name]))[2]
    return jax.jit(jax.value_and_grad(lambda x1, x2: kernel_fn(x1, x2, "ntk")[0, 0]))


def point_and_kernel(name, point, *, bias):
    """x1 at the asked place, and the two functions x1 -> NTK(x1, x2) and x1 -> gradient, of NumPy arrays."""
    x2 = inputs(name, 1)
    x1 = {"generic": inputs(name, 1, seed=1), "zero": 0 * x2, "opposite": -x2, "same": x2.copy()}[point]
    both = ntk_and_gradient(name, bias=bias)
    return x1, lambda x: float(both(x, x2)[0]), lambda x: np.asarray(both(x, x2)[1])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "point"), SMOOTH)
def test_input_gradient_where_the_derivative_exists(name, point):
    x1, ntk, gradient = point_and_kernel(name, point, bias=True)
    got = gradient(x1)
    exact = oracles.central_difference(ntk, x1, 1e-5)
    np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-8)
    assert np.abs(got).max() > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "point"), TIPS)
def test_input_gradient_at_a_tip(name, point, request):
    if (name, point) == ("fc_relu_1", "opposite"):  # 0 there, to the last bit with optimization alone
        request.getfixturevalue("optimized")
    x1, ntk, gradient = point_and_kernel(name, point, bias=False)
    got = gradient(x1)
    # Homogeneous of degree 1 in x1: a wide difference along it is exact, up to 1e-8 of rounding in the angle.
    along = ntk(x1 * 1.5) - ntk(x1 * 0.5)
    np.testing.assert_allclose(np.sum(got * x1), along, rtol=1e-6)
    h = 1e-4
    across = np.random.default_rng(5).normal(size=x1.shape)
    across -= x1 * np.sum(across * x1, axis=-1, keepdims=True) / np.sum(x1 * x1, axis=-1, keepdims=True)
    right, left = ((ntk(x1 + s * across) - ntk(x1)) / h for s in (h, -h))
    # It is a tip: the slopes on both sides have one sign, so no derivative could agree with both.
    assert right * left > 0
    assert min(abs(right), abs(left)) > 1e-2
    np.testing.assert_allclose(np.sum(got * across), 0, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bias", "dtype"), [(True, jnp.float32), (False, jnp.float32), (False, jnp.float64)])
@pytest.mark.parametrize("name", ["fc_relu_4", "fc_residual", "conv_flatten", "conv_pool"])
def test_input_gradients_are_finite(name, bias, dtype):
    x2 = jnp.asarray(inputs(name, 1), dtype)
    for x1 in (x2, 0 * x2, -x2, 3 * x2, x2 * (1 + 1e-7)):
        gradient = ntk_and_gradient(name, bias=bias)(x1, x2)[1]
        assert gradient.dtype == dtype
        assert np.isfinite(gradient).all()
